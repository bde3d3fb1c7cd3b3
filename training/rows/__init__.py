"""Labelled rows as users have them: reading, cleaning, near-duplicates."""
