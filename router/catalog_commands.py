"""The command catalog: which models and prices are in force here, and whether they still hold."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Iterator
from decimal import Decimal

import click
import msgspec

from router import catalog as catalogs
from router import price_review, settings
from router.catalog import Catalog, Model
from router.errors import CatalogError
from router.options_cli import json_option
from router.prices import FIGURES, Modifier, Price


@click.group()
def catalog() -> None:
    """Models, prices and fleets.

    \b
    Examples:
      tierwise catalog list --provider openai
      tierwise catalog show claude-opus-5-5
    """


@catalog.command("list")
@click.option("--provider", help="Only this provider's: anthropic, openai, gemini, openai-compatible.")
@json_option
def list_models(provider: str | None, as_json: bool) -> None:
    """The models in force, the settings' among them: their window, prices today in USD per million tokens, their end.

    \b
    Example:
      tierwise catalog list --json
    """
    models = [m for m in _models(_in_force()) if provider in (None, m.provider)]
    if not models:
        known = ", ".join(catalogs.PROVIDERS)
        raise click.BadParameter(f"{provider!r} has no model; providers: {known}", param_hint="--provider")
    today = _today()
    if as_json:
        click.echo(msgspec.json.encode([_row(model, today) for model in models]))
        return
    click.echo(f"  {'model':<24}{'provider':<19}{'window':>10}{'input':>9}{'output':>9}{'read':>9}  ends")
    for model in models:
        price = model.price(today, 1)
        figures = "".join(f"{_usd(usd):>9}" for usd in (price.input, price.output, price.cache_read))
        click.echo(
            f"  {model.id:<24}{model.provider:<19}{model.context_tokens:>10,}{figures}  {model.retires or ''}".rstrip()
        )


@catalog.command()
@click.argument("name", metavar="MODEL")
@json_option
def show(name: str, as_json: bool) -> None:
    """All that is known of one MODEL, by id or alias: prices by day and length, what changes them, limits, source.

    \b
    Example:
      tierwise catalog show gpt-6.1-sol
    """
    models = _in_force()
    model = models.find(name)
    if model is None:
        raise CatalogError(f"unknown model {name!r}; {catalogs.nearest(name, models.models)}")
    fleets = {
        fleet.name: tier.value for fleet in models.fleets.values() if (tier := fleet.tier_of(model.id)) is not None
    }
    if as_json:
        click.echo(msgspec.json.encode({**msgspec.to_builtins(model), "fleets": fleets}))
        return
    for line in _described(model, fleets):
        click.echo(line)


@catalog.command()
@click.option("--as-of", type=click.DateTime(["%Y-%m-%d"]), help="The day to check for; default: today.")
@json_option
def check(as_of: dt.datetime | None, as_json: bool) -> None:
    """Compare prices with genai-prices; name those not looked at for 60 days and retired models. Exit 1 on findings.

    \b
    Example:
      tierwise catalog check --as-of 2027-02-01
    """
    findings = price_review.review(catalogs.shipped(), as_of.date() if as_of else _today())
    if as_json:
        click.echo(msgspec.json.encode(findings))
    else:
        for finding in findings:
            click.echo(f"{finding.model:<24} {finding.problem}")
        click.echo(f"{len(findings)} findings", err=True)
    if findings:
        sys.exit(1)


def _in_force() -> Catalog:
    config = settings.load()
    return catalogs.configured(config.fleets, config.models)


def _today() -> dt.date:
    return dt.datetime.now(dt.UTC).date()


def _models(models: Catalog) -> list[Model]:
    return list({model.id: model for model in models.models.values()}.values())


def _row(model: Model, today: dt.date) -> dict[str, object]:
    price = model.price(today, 1)
    return {
        "id": model.id,
        "aliases": model.aliases,
        "provider": model.provider,
        "context_tokens": model.context_tokens,
        "max_output_tokens": model.max_output_tokens,
        "usd_per_mtok": {figure: getattr(price, figure) for figure in FIGURES},
        "retires": model.retires,
        "source": model.source,
    }


def _described(model: Model, fleets: dict[str, str]) -> Iterator[str]:
    yield f"{model.id}  ({model.provider}{', also ' + ', '.join(model.aliases) if model.aliases else ''})"
    longest = f", answers up to {model.max_output_tokens:,}" if model.max_output_tokens else ""
    yield f"  window        {model.context_tokens:,} tokens{longest}"
    for price in model.prices:
        yield f"  price         {_figures(price)}{_since(price)}"
    for dimension in ("service_tier", "speed", "geo"):
        for value, modifier in getattr(model.modifiers, dimension).items():
            yield f"  {dimension:<14}{value}: {_effect(modifier)}"
    if (batch := model.modifiers.find("batch", "")) is not None:
        yield f"  batch         {_effect(batch)}"
    for tool, usd in model.modifiers.calls.items():
        yield f"  calls         {tool}: {_usd(usd)} USD per thousand"
    if model.ttl_short_s:
        lifetimes = f"{model.ttl_short_s} s" + (f" or {model.ttl_long_s} s" if model.ttl_long_s else "")
        yield f"  cache         from {model.cache_min_tokens:,} tokens, for {lifetimes}"
    if model.base_url is not None:
        yield f"  address       {model.base_url}"
    if fleets:
        yield f"  fleets        {', '.join(f'{name} ({tier})' for name, tier in fleets.items())}"
    if model.retires is not None:
        yield f"  ends          {model.retires}"
    checked = "" if model.checked == dt.date.max else f", compared on {model.checked}"
    yield f"  source        {model.source}{checked}"


def _figures(price: Price | Modifier) -> str:
    given = {figure: usd for figure in FIGURES if (usd := getattr(price, figure)) is not None}
    return ", ".join(f"{figure} {_usd(usd)}" for figure, usd in given.items()) or "unknown"


def _since(price: Price) -> str:
    above = f" above {price.above_input_tokens:,} input tokens" if price.above_input_tokens else ""
    return above + (f" from {price.from_}" if price.from_ != dt.date.min else "")


def _effect(modifier: Decimal | Modifier) -> str:
    if isinstance(modifier, Decimal):
        return f"x{modifier:f}"
    factor = "" if modifier.factor is None else f"x{modifier.factor:f}"
    own = _figures(modifier)
    until = "" if modifier.until == dt.date.max else f" until {modifier.until}"
    limit = f" up to {modifier.up_to_input_tokens:,} input tokens" if modifier.up_to_input_tokens else ""
    return ", ".join(part for part in (factor, "" if own == "unknown" else own) if part) + until + limit


def _usd(usd: Decimal | None) -> str:
    return "unknown" if usd is None else f"{usd.normalize():f}"
