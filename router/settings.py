"""Settings: defaults, then a TOML file, then TIERWISE_* environment variables; typed, wrong keys named."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec

from router.artifact import OperatingPoint
from router.errors import SettingsError
from router.rules import Rule, check_names
from router.types import Tier

FILE = "tierwise.toml"
"""Read from the working directory when it exists, or from the path in TIERWISE_CONFIG."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What can be set. None means "the default that fits": the shipped artifact, the fleet of the client's provider.

    `ledger` is the path of an SQLite file for records; without it, records are returned but not kept. `state` is where
    conversations are remembered: an SQLite file, or redis://... for several replicas; default: memory. `fleets` adds
    fleets of catalog models, e.g. `[fleets.mine] simple = "claude-haiku-5-5"` and so on; they may mix providers.
    `models` adds models behind an OpenAI-compatible address (`catalog.CustomModel` says what a table takes), e.g.
    `[models.my-llama] base_url = "http://localhost:8000/v1"`, `context_tokens = 32_768`.
    `operating_points` adds those that `tierwise tune` wrote; `rules` are checked before the classifier, in order
    (router/rules.py).
    """

    artifact: str | None = None
    fleet: str | None = None
    operating_point: str = "balanced"
    ledger: str | None = None
    state: str | None = None
    fleets: dict[str, dict[Tier, str]] = {}
    models: dict[str, dict[str, Any]] = {}
    operating_points: dict[str, OperatingPoint] = {}
    rules: tuple[Rule, ...] = ()


_FROM_ENVIRONMENT = ("artifact", "fleet", "operating_point", "ledger", "state")


def load(path: str | Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """The settings in force. Raises SettingsError, naming the key, what was expected and the nearest right key."""
    environ = os.environ if environ is None else environ
    explicit = path or environ.get("TIERWISE_CONFIG")
    file = Path(explicit or FILE)
    values: dict[str, object] = {}
    try:
        values = tomllib.loads(file.read_text("utf-8"))
    except FileNotFoundError as exc:
        if explicit:
            raise SettingsError(f"no settings file {str(file)!r}; create it or unset TIERWISE_CONFIG") from exc
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise SettingsError(f"{file}: {exc}") from exc
    _check_names(values, file)
    check_names(values.get("rules"), file)
    for name in _FROM_ENVIRONMENT:
        if value := environ.get(f"TIERWISE_{name.upper()}"):
            values[name] = value
    try:
        return msgspec.convert(values, Settings)
    except msgspec.ValidationError as exc:
        raise SettingsError(f"{file}: {exc}") from exc


def _check_names(values: Mapping[str, object], file: Path) -> None:
    known = Settings.__struct_fields__
    for name in values:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            remedy = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise SettingsError(f"{file}: unknown key {name!r}; {remedy}")
