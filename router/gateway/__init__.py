"""The gateway: the router behind HTTP, for programs whose code cannot be changed. Needs the extra `gateway`."""
