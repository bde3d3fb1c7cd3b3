"""Messages, Chat Completions and Responses: what a model accepts, translation, the usage in replies."""
