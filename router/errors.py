"""The exception tree.

TierwiseError
├── ArtifactError           the classifier's files
│   ├── ArtifactNotFound    no such folder, or a file of it is missing
│   └── ArtifactCorrupt     a hash or size differs from the manifest, or a file cannot be parsed
├── CatalogError            a model or fleet that the catalog does not know, or a malformed catalog
├── SettingsError           a wrong key or value in the settings file or the environment
├── RequestError            a request that cannot be read (also a ValueError)
└── ClientError             an object that `wrap` cannot wrap, or a client that does not fit the fleet

Errors of the provider's SDK are never wrapped: the caller sees the SDK's own exceptions.
"""

from __future__ import annotations


class TierwiseError(Exception):
    """The root: catch it to catch everything that Tierwise raises on its own account."""


class ArtifactError(TierwiseError):
    """The classifier's artifact cannot be used."""


class ArtifactNotFound(ArtifactError):
    """The artifact, or a file of it, does not exist."""


class ArtifactCorrupt(ArtifactError):
    """A file differs from what the manifest says, or cannot be parsed."""


class CatalogError(TierwiseError):
    """A model or fleet is unknown, or the catalog is malformed."""


class SettingsError(TierwiseError):
    """A setting has a wrong name, type or value."""


class RequestError(TierwiseError, ValueError):
    """A request cannot be read: wrong type, or neither text nor messages."""


class ClientError(TierwiseError, TypeError):
    """`wrap` was given something that is not an anthropic or openai client, or one that does not fit the fleet."""
