"""What in a prompt keeps its cache from being read."""
