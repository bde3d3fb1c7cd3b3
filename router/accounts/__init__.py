"""What a reply cost, what the baseline would have cost, and the store of records."""
