"""What logged traffic cost, and what caching and routing would have made of it: the command audit."""
