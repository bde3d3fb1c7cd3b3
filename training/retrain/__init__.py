"""A user's labels -> a new artifact beside the shipped one, and its promotion."""
