"""`tierwise serve`, `keys` and `doctor`."""

from __future__ import annotations

import sys
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, get_args

import click
import msgspec

from router import settings as settings_module
from router.decide.mode import Mode
from router.errors import SettingsError
from router.gateway import doctor as doctors
from router.gateway import server
from router.gateway.keys import Key, KeyFile
from router.gateway.serving import Serving
from router.gateway.stores import state_dir
from router.options_cli import config_option, json_option
from router.settings import Settings
from router.types import Tier


class _Usd(click.ParamType):  # type: ignore[type-arg]
    name = "USD"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Decimal:
        try:
            usd = Decimal(str(value).removeprefix("$"))
        except InvalidOperation:
            self.fail(f"{value!r} is no amount of USD, such as 5 or 2.50", param, ctx)
        if not usd.is_finite() or usd <= 0:
            self.fail(f"{value!r} is not above zero", param, ctx)
        return usd


@click.command()
@config_option
@click.option("--host", help="The address to listen on; default 127.0.0.1.")
@click.option("--port", type=click.IntRange(0, 65535), help="The port; default 8484.")
@click.option("--check", is_flag=True, help="Check the settings, name every mistake, and stop.")
@click.option("--example", is_flag=True, help="Print a tierwise.toml with every setting explained, and stop.")
def serve(config: str | None, host: str | None, port: int | None, check: bool, example: bool) -> None:
    """Serve the router over HTTP: /v1/messages, /v1/chat/completions, /v1/responses.

    SIGHUP reloads settings and artifact; SIGTERM finishes what runs.

    \b
    Examples:
      tierwise serve
      tierwise serve --example > tierwise.toml
      tierwise serve --check --config tierwise.toml
      ANTHROPIC_BASE_URL=http://127.0.0.1:8484 ANTHROPIC_AUTH_TOKEN=any claude
    """

    def load() -> Serving:
        given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
        settings = settings_module.load(config)
        gateway = msgspec.structs.replace(settings.gateway, **given)
        return Serving.load(msgspec.structs.replace(settings, gateway=gateway))

    if example:
        click.echo(settings_module.EXAMPLE.read_text("utf-8"), nl=False)
        return
    if check:
        serving = load()
        keys = [u.provider for u in serving.upstreams.values() if u.key is not None]
        click.echo(f"settings ok: access {serving.gateway.access}, provider keys: {', '.join(keys) or 'none'}")
        return
    server.serve(load)


@click.group()
def keys() -> None:
    """The gateway's own API keys. Only their hashes are kept."""


@keys.command()
@click.argument("name")
@click.option("--fleet", help="Route this key's requests within another fleet.")
@click.option("--operating-point", "-o", help='What "auto" means for this key: economy, balanced or quality.')
@click.option("--usd-a-day", type=_Usd(), help="Budget for a calendar day (UTC).")
@click.option("--usd-a-month", type=_Usd(), help="Budget for a calendar month (UTC).")
@click.option("--requests-a-minute", type=click.IntRange(1), help="Rate limit.")
@click.option(
    "--model", "models", multiple=True, help='May ask for: a model, tier, fleet or "auto", * allowed; repeatable.'
)
@click.option("--max-tier", type=click.Choice([tier.value for tier in Tier]), help="Nothing goes above this tier.")
@click.option("--admin", is_flag=True, help="May read /metrics.")
@click.option("--mode", type=click.Choice(get_args(Mode)), help="on, shadow or canary for this key's requests.")
@config_option
@json_option
def create(name: str, config: str | None, as_json: bool, **limits: Any) -> None:
    """Make a key and print it; it is not shown again.

    \b
    Example:
      tierwise keys create ci --usd-a-day 5 --requests-a-minute 60 --fleet claude
    """
    settings = settings_module.load(config)
    _check_limits(settings, limits)
    key, token = _file(settings).create(name, **limits)
    if as_json:
        click.echo(msgspec.json.encode({"id": key.id, "name": key.name, "key": token}))
    else:
        click.echo(token)
        click.echo(f"key {key.id} ({name}); it is not shown again", err=True)


@keys.command("list")
@config_option
@json_option
def list_(config: str | None, as_json: bool) -> None:
    """Every key, live and revoked, with what its holder may do."""
    found = _file(settings_module.load(config)).all()
    if as_json:
        click.echo(msgspec.json.encode([_row(key) for key in found]))
        return
    if not found:
        click.echo("no keys; make one: tierwise keys create NAME", err=True)
    for key in found:
        row = {name: value for name, value in _row(key).items() if name not in ("id", "name", "created_at")}
        limits = "  ".join(f"{name} {value}" for name, value in row.items())
        click.echo(f"{key.id}  {key.name:<16}  {key.created_at:%Y-%m-%d}  {limits}".rstrip())


@keys.command()
@click.argument("name_or_id")
@config_option
def revoke(name_or_id: str, config: str | None) -> None:
    """End a key; running gateways refuse it within a second."""
    key = _file(settings_module.load(config)).revoke(name_or_id)
    click.echo(f"revoked {key.id} ({key.name})")


@click.command()
@config_option
@json_option
def doctor(config: str | None, as_json: bool) -> None:
    """Check settings, artifact, keys, providers, clock, state folder, database, Redis and port. Exit 1 on failures.

    No key leaves this machine and nothing is billed.
    """
    found = list(doctors.examine(config))
    if as_json:
        click.echo(msgspec.json.encode(found))
    else:
        colours = {"ok": "green", "warn": "yellow", "fail": "red"}
        for finding in found:
            remedy = f"  -> {finding.remedy}" if finding.remedy else ""
            verdict = click.style(f"{finding.verdict:<5}", fg=colours[finding.verdict])
            click.echo(f"{verdict}{finding.name:<21}{finding.seen}{remedy}")
    if any(finding.verdict == "fail" for finding in found):
        sys.exit(1)


def _check_limits(settings: Settings, limits: dict[str, Any]) -> None:
    """Raises CatalogError or SettingsError for a fleet or an operating point that does not exist."""
    router = Serving.load(msgspec.structs.replace(settings, gateway=settings_module.GatewaySettings())).router
    if limits["fleet"] is not None:
        router.catalog.fleet(limits["fleet"])
    points = router.policy.champion.manifest.operating_points
    if limits["operating_point"] is not None and limits["operating_point"] not in points:
        raise SettingsError(f"unknown operating point {limits['operating_point']!r}; known: {', '.join(points)}")


def _file(settings: Settings) -> KeyFile:
    return KeyFile(Path(state_dir(settings.gateway) / "keys.json"))


def _row(key: Key) -> dict[str, Any]:
    """What is set of a key, but for its digest."""
    row = msgspec.structs.asdict(key)
    del row["digest"]
    return {name: value for name, value in row.items() if value not in (None, (), False)}
