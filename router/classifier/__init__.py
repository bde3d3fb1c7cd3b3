"""Text -> P(each tier suffices): the artifact's files, what is read of a text, the graph, pointer and canary."""
