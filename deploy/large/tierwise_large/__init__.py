"""Artifacts that ask an encoder; `router.classifier.artifact` finds them here."""
