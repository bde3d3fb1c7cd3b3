"""Tierwise: route each LLM request to the cheapest model tier that suffices.

>>> from router import Router, wrap
>>> Router.load().decide("Prove that sqrt(2) is irrational").tier  # doctest: +SKIP
"""

from router.accounts.ledger import Ledger
from router.engine import AUTO, Router
from router.errors import (
    ArtifactCorrupt,
    ArtifactError,
    ArtifactNotFound,
    CatalogError,
    ClientError,
    RequestError,
    SettingsError,
    TierwiseError,
)
from router.send.complete import Completion, ToolCall, complete, complete_async
from router.send.records import record_of
from router.send.wrap import wrap
from router.settings import Settings
from router.types import Api, Decision, Plan, Reason, Record, Tier, Usage

__version__ = "0.1.0"

__all__ = [
    "AUTO",
    "Api",
    "ArtifactCorrupt",
    "ArtifactError",
    "ArtifactNotFound",
    "CatalogError",
    "ClientError",
    "Completion",
    "Decision",
    "Ledger",
    "Plan",
    "Reason",
    "Record",
    "RequestError",
    "Router",
    "Settings",
    "SettingsError",
    "Tier",
    "TierwiseError",
    "ToolCall",
    "Usage",
    "__version__",
    "complete",
    "complete_async",
    "record_of",
    "wrap",
]
