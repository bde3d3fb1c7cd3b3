"""Settings: defaults, then a TOML file, then TIERWISE_* environment variables; typed, wrong keys named."""

from __future__ import annotations

import datetime as dt
import os
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict, get_args, get_origin, get_type_hints

import msgspec

from router.accounts.ledger import Ledger
from router.catalog import TierModel
from router.classifier.artifact import OperatingPoint
from router.decide.mode import Mode
from router.decide.rules import Rule, check_names
from router.errors import SettingsError
from router.types import Tier

FILE = "tierwise.toml"
"""Read from the working directory when it exists, or from the path in TIERWISE_CONFIG."""

EXAMPLE = Path(__file__).with_name("tierwise.example.toml")
"""Every setting, explained and switched off."""


Seconds = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class UpstreamSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a provider is reached and where its key is found; None means the provider's own address and variable."""

    url: str | None = None
    key_env: str | None = None
    key_file: str | None = None


class GatewaySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The `[gateway]` table. Each plain value can also be set as TIERWISE_GATEWAY_<NAME>.

    `access`: "open" (no key asked, loopback only), "keys" (keys of the gateway's own) or "pass-through" (the caller's
    provider key is sent on). `hosts` are further names under which it may be asked, and whose web pages may, while
    access is open. `models` maps model names, `*` allowed, to "auto", a tier or another model. `state_dir`
    holds keys, the journal and, without `ledger` and `database_url`, the records.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8484
    access: Literal["open", "keys", "pass-through"] = "open"
    state_dir: str | None = None
    database_url: str | None = None
    redis_url: str | None = None
    models: dict[str, str] = {}
    upstreams: dict[Literal["anthropic", "openai", "gemini"], UpstreamSettings] = {}
    max_retries: Annotated[int, msgspec.Meta(ge=0, le=10)] = 2
    max_body_bytes: Count = 32_000_000
    max_header_bytes: Count = 64_000
    max_concurrent: Count = 256
    max_queue: Annotated[int, msgspec.Meta(ge=0)] = 512
    queue_timeout_s: Seconds = 30.0
    connect_timeout_s: Seconds = 5.0
    first_byte_timeout_s: Seconds = 600.0
    idle_timeout_s: Seconds = 300.0
    head_timeout_s: Seconds = 20.0
    body_timeout_s: Seconds = 300.0
    reply_timeout_s: Seconds = 3600.0
    hosts: tuple[str, ...] = ()
    max_connections: Count | None = None
    max_concurrent_a_key: Count | None = None
    max_upload_bytes: Count = 512_000_000
    shutdown_timeout_s: Seconds = 600.0
    log_requests: bool = False
    log_format: Literal["text", "json"] = "text"


class LearningSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `tierwise learn --from` may pay models for labels on one day (UTC); None: none without --usd."""

    usd_a_day: Annotated[float, msgspec.Meta(gt=0)] | None = None


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What can be set. None means "the default that fits": the shipped artifact, the fleet of the client's provider.

    `ledger` is the path of an SQLite file for records; without it, records are returned but not kept. `state` is where
    conversations are remembered: an SQLite file, or redis://... for several replicas; default: memory.
    `state_keeps_reasoning` lets it keep what models think in tool loops too, for a day: text of replies. `fleets` adds
    fleets of catalog models, e.g. `[fleets.mine] simple = "claude-haiku-5-5"` and so on; they may mix providers.
    `models` adds models behind an OpenAI-compatible address, e.g. `[models.my-llama]
    base_url = "http://localhost:8000/v1"`, `context_tokens = 32_768`; changes prices of those in the catalog; and adds
    models `like` one of them (`catalog.CustomModel` says what a table takes).
    `operating_points` adds those that `tierwise tune` wrote; `rules` are checked before the classifier, in order
    (router/decide/rules.py). `promote_canary` lets a canary become champion by itself once users' feedback shows that
    it is not worse; one that is worse is rolled back in any case. `store_prompts` keeps what users ask, redacted,
    beside the records for `prompts_keep_days`; records are kept for `records_keep_days`, None being for ever. `classes`
    names the operating point of a class of traffic, or of a key, where a call asks for none. `mode` says whether
    decisions are acted on, and `mode_share` for which share of the conversations in the mode "canary"
    (router/decide/mode.py).
    """

    artifact: str | None = None
    fleet: str | None = None
    operating_point: str = "balanced"
    ledger: str | None = None
    state: str | None = None
    state_keeps_reasoning: bool = False
    promote_canary: bool = False
    store_prompts: bool = False
    prompts_keep_days: Count = 30
    records_keep_days: Count | None = None
    classes: dict[str, str] = {}
    mode: Mode = "on"
    mode_share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.1
    fleets: dict[str, dict[Tier, str | TierModel]] = {}
    models: dict[str, dict[str, Any]] = {}
    operating_points: dict[str, OperatingPoint] = {}
    rules: tuple[Rule, ...] = ()
    learning: LearningSettings = LearningSettings()
    gateway: GatewaySettings = GatewaySettings()

    def open_ledger(self) -> Ledger | None:
        """The library's store of records, without what is past its time; None where none is set."""
        if self.ledger is None:
            return None
        found = Ledger(self.ledger)
        found.expire(**self.expiry())
        return found

    def expiry(self) -> Expiry:
        """Before when prompts and records are deleted."""
        now, days = dt.datetime.now(dt.UTC), self.records_keep_days
        before = None if days is None else now - dt.timedelta(days=days)
        return {"prompts_before": now - dt.timedelta(days=self.prompts_keep_days), "records_before": before}


class Expiry(TypedDict):
    """See Settings.expiry."""

    prompts_before: dt.datetime
    records_before: dt.datetime | None


_FROM_ENVIRONMENT = ("artifact", "fleet", "operating_point", "ledger", "state", "mode")


def load(path: str | Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """The settings in force. Raises SettingsError: every wrong key, what was expected and the nearest right key."""
    environ = os.environ if environ is None else environ
    explicit = path or environ.get("TIERWISE_CONFIG")
    file = Path(explicit or FILE)
    values: dict[str, Any] = {}
    try:
        values = tomllib.loads(file.read_text("utf-8"))
    except FileNotFoundError as exc:
        if explicit:
            raise SettingsError(f"no settings file {str(file)!r}; create it or unset TIERWISE_CONFIG") from exc
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise SettingsError(f"{file}: {exc}") from exc
    mistakes = []
    readable = values
    try:
        check_names(values.get("rules"), file)
    except SettingsError as exc:
        mistakes.append(str(exc))
        readable = {name: value for name, value in values.items() if name != "rules"}
    mistakes += [f"{file}: {mistake}" for mistake in _mistakes(readable, Settings, "")]
    mistakes += _override(values, environ)
    if mistakes:
        raise SettingsError("\n".join(mistakes))
    try:
        return msgspec.convert(values, Settings)
    except msgspec.ValidationError as exc:  # something that a table in a table must have
        raise SettingsError(f"{file}: {exc}") from exc


def _override(values: dict[str, Any], environ: Mapping[str, str]) -> Iterator[str]:
    """Put TIERWISE_* variables over `values`; yields what is wrong with them. Secrets in values are not repeated."""
    for name in _FROM_ENVIRONMENT:
        if value := environ.get(f"TIERWISE_{name.upper()}"):
            values[name] = value
    gateway = values["gateway"] if isinstance(values.get("gateway"), dict) else {}
    values["gateway"] = gateway
    for name, kind in get_type_hints(GatewaySettings, include_extras=True).items():
        variable = f"TIERWISE_GATEWAY_{name.upper()}"
        if get_origin(kind) is dict or not (text := environ.get(variable)):
            continue
        try:
            gateway[name] = msgspec.convert(text, kind, strict=False)
        except msgspec.ValidationError as exc:
            yield f"{variable}: {exc}"


def _mistakes(values: Mapping[str, Any], table: type[msgspec.Struct], at: str) -> Iterator[str]:
    """Every wrong key and value of a table and of the tables in it."""
    kinds = get_type_hints(table, include_extras=True)
    for name, value in values.items():
        if name not in kinds:
            near = get_close_matches(name, kinds, n=1)
            remedy = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(kinds)}"
            yield f"unknown key '{at}{name}'; {remedy}"
        elif isinstance(value, dict) and _is_table(kinds[name]):
            yield from _mistakes(value, kinds[name], f"{at}{name}.")
        elif isinstance(value, dict) and get_origin(kinds[name]) is dict and _is_table(get_args(kinds[name])[1]):
            yield from _entries(value, kinds[name], f"{at}{name}.")
        else:
            yield from _mistake(value, kinds[name], f"{at}{name}")


def _entries(values: Mapping[str, Any], kind: Any, at: str) -> Iterator[str]:
    """The mistakes in tables under names, such as `[gateway.upstreams.openai]`."""
    names, table = get_args(kind)
    for name, value in values.items():
        wrong_name = list(_mistake(name, names, f"{at}{name}"))
        yield from wrong_name
        if not wrong_name and isinstance(value, dict):
            yield from _mistakes(value, table, f"{at}{name}.")
        elif not wrong_name:
            yield from _mistake(value, table, f"{at}{name}")


def _mistake(value: Any, kind: Any, at: str) -> Iterator[str]:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as exc:
        what, _, where = str(exc).partition(" - at `$")
        choices = f", one of {', '.join(get_args(kind))}" if get_origin(kind) is Literal else ""
        yield f"$.{at}{where.rstrip('`')}: {what}{choices}"


def _is_table(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)
