"""Writes what was tuned into the settings file: everything else in it, comments included, stays as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import tomlkit
from tomlkit.exceptions import TOMLKitError

from router.classifier.artifact import OperatingPoint
from router.errors import SettingsError
from router.types import Tier

SHORT, OTHER = "short", "everything else"
"""Names of the two rules of the rule classifier: the second catches all that the first leaves."""


def write_point(file: Path, name: str, point: OperatingPoint) -> None:
    """Add or replace `[operating_points.NAME]`. Raises SettingsError when the file is not TOML."""
    settings = _read(file)
    settings.setdefault("operating_points", tomlkit.table(is_super_table=True))[name] = _table(point)
    _save(file, settings)


def write_class(file: Path, of_class: str, name: str) -> None:
    """Let a class of traffic have an operating point: `[classes]`. Raises SettingsError as `write_point`."""
    settings = _read(file)
    settings.setdefault("classes", tomlkit.table())[of_class] = name
    _save(file, settings)


def write_rules(file: Path, max_words: int, terms: tuple[str, ...]) -> None:
    """Add or replace the two `[[rules]]` of "up to N words and none of the terms -> simple, else complex".

    They go behind other rules, which therefore win. Raises SettingsError when the file is not TOML.
    """
    settings = _read(file)
    kept = [rule for rule in settings.get("rules", []) if rule.get("name") not in (SHORT, OTHER)]
    short: dict[str, Any] = {"name": SHORT, "max_words": max_words, "tier": Tier.SIMPLE.value}
    if terms:
        short["without"] = list(terms)
    rules = tomlkit.aot()
    for rule in (*kept, short, {"name": OTHER, "tier": Tier.COMPLEX.value}):
        table = tomlkit.table()
        table.update(rule)
        rules.append(table)
    settings["rules"] = rules
    _save(file, settings)


def _table(point: OperatingPoint) -> tomlkit.items.Table:
    table = tomlkit.table()
    for key, value in msgspec.to_builtins(point).items():
        if isinstance(value, dict):
            inline = tomlkit.inline_table()
            inline.update(value)
            value = inline
        table[key] = value
    return table


def _read(file: Path) -> tomlkit.TOMLDocument:
    try:
        return tomlkit.parse(file.read_text("utf-8"))
    except FileNotFoundError:
        return tomlkit.document()
    except (TOMLKitError, UnicodeDecodeError) as exc:
        raise SettingsError(f"{file}: {exc}; mend it first, nothing was written") from exc


def _save(file: Path, settings: tomlkit.TOMLDocument) -> None:
    """Whole or not at all."""
    staged = file.with_name(f"{file.name}.new")
    staged.write_text(tomlkit.dumps(settings), "utf-8")
    staged.replace(file)
