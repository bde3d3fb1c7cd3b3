"""What is doubtful in the catalog: old, retired, or at odds with genai-prices."""

from __future__ import annotations

import datetime as dt

import msgspec

from router.catalog import Catalog, Model
from router.errors import CatalogError

MAX_PRICE_AGE_DAYS = 60


class CatalogFinding(msgspec.Struct, frozen=True):
    """Something to look at in the catalog before its prices are relied on."""

    model: str
    problem: str


def review(models: Catalog, today: dt.date) -> list[CatalogFinding]:
    """What is doubtful: prices not looked at for 60 days, retired models, other prices than genai-prices says.

    genai-prices (https://github.com/pydantic/genai-prices) is kept independently. Raises CatalogError when it is not
    installed.
    """
    findings = []
    for model in {m.id: m for m in models.models.values()}.values():
        age = (today - model.checked).days
        if age > MAX_PRICE_AGE_DAYS:
            findings.append(
                CatalogFinding(model.id, f"prices were checked {age} days ago, on {model.checked}: look again")
            )
        if model.retires is not None and model.retires <= today:
            findings.append(CatalogFinding(model.id, f"retired on {model.retires}: take it out of the fleets"))
        findings += [CatalogFinding(model.id, problem) for problem in _disagreements(model, today)]
    return findings


def _disagreements(model: Model, today: dt.date) -> list[str]:
    try:
        from genai_prices import data_snapshot
    except ImportError as exc:
        raise CatalogError("genai-prices is not installed; pip install genai-prices, then check again") from exc
    provider = {"gemini": "google"}.get(model.provider, model.provider)
    listed = next(p for p in data_snapshot.get_snapshot().providers if p.id == provider)
    theirs = next((m for m in listed.models if m.id == model.id), None)
    if theirs is None:
        return ["genai-prices does not have it: nothing to compare with"]
    other = theirs.get_prices(dt.datetime.combine(today, dt.time(), dt.UTC))
    ours = model.price(today, 1)
    pairs = {
        "input": other.input_mtok,
        "output": other.output_mtok,
        "cache_read": other.cache_read_mtok,
    }
    if model.provider == "anthropic":  # it lists no writes, or not every lifetime, for the others
        pairs |= {"cache_write_short": other.cache_write_mtok, "cache_write_long": other.cache_write_1h_mtok}
    bases = {name: getattr(value, "base", value) for name, value in pairs.items()}  # a tiered price has a base
    return [
        f"{name} is {getattr(ours, name)} here and {value} in genai-prices, USD per million tokens"
        for name, value in bases.items()
        if value != getattr(ours, name)
    ]
