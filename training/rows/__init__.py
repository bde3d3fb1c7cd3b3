"""Rows as users have them: labels, outcomes or plain requests from files, and which of them are near-duplicates."""
