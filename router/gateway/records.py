"""The command records: what was recorded, request by request, and exported."""

from __future__ import annotations

import csv
import datetime as dt
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from router import settings as settings_module
from router.errors import SettingsError
from router.gateway.report import said_of, since_option, span_of, until_option
from router.gateway.stores import opened
from router.options_cli import config_option, json_option

_PICO = 10**12


@click.command()
@since_option
@until_option
@click.option("--model", help="Only requests that went to this model.")
@click.option("--key", help="Only requests of this key, by its id.")
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True, help="The newest so many.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@click.option("--forget", metavar="CONVERSATION", help="Delete the prompts that are kept of this conversation.")
@click.option("--parquet", type=click.Path(path_type=Path, dir_okay=False), help="Write Parquet to this file.")
@config_option
@json_option
def records(
    since: str,
    until: str | None,
    model: str | None,
    key: str | None,
    limit: int,
    as_csv: bool,
    forget: str | None,
    parquet: Path | None,
    config: str | None,
    as_json: bool,
) -> None:
    """The records themselves, the newest first: where each request went, why, its tokens and its cost.

    They are those that the settings name, as for `tierwise report`. Money is in USD. Text is stored only where
    `store_prompts` is set, and is not shown here.

    \b
    Examples:
      tierwise records --since 24h --limit 20
      tierwise records --since 30d --limit 1000000 --parquet records.parquet
    """
    start, end = span_of(since, until)
    if forget is not None:
        with opened(settings_module.load(config)) as store:
            click.echo(f"{store.forget_prompts(forget):,} prompts deleted", err=True)
        return
    with opened(settings_module.load(config)) as store:
        rows = [_plain(row) for row in store.rows(start, end, model=model, key=key, limit=limit)]
    if parquet is not None:
        _write(rows, parquet)
    elif as_json:
        for row in rows:
            click.echo(msgspec.json.encode(row))
    elif as_csv:
        _print_csv(rows)
    else:
        for row in rows:
            _print(row)
        click.echo(f"{len(rows):,} records {said_of(start, end)}", err=True)


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row as people and programs read it: USD for picodollars, objects for JSON."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        if name.endswith("_picousd"):
            found[name.removesuffix("_picousd") + "_usd"] = None if value is None else value / _PICO
        elif name in ("p_suffices", "notes", "modifiers") and isinstance(value, str):
            found[name] = json.loads(value)
        else:
            found[name] = value.isoformat() if isinstance(value, dt.datetime) else value
    return found


def _print(row: dict[str, Any]) -> None:
    tokens = sum(row[f"{name}_tokens"] for name in ("fresh", "cache_read", "cache_write_short", "cache_write_long"))
    cost = "unknown" if row["cost_usd"] is None else f"${row['cost_usd']:.6f}"
    shadow = f"  would: {row['shadow_model']}" if row["shadow_model"] else ""
    click.echo(
        f"{row['at'][:19]}  {row['tier'] or '-':<9}{row['model'][:28]:<29}{row['reason']:<19}"
        f"{tokens:>9,} in {row['output_tokens']:>7,} out {cost:>12}{shadow}"
    )


def _print_csv(rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        writer = csv.DictWriter(sys.stdout, list(rows[0]))
        writer.writeheader()
        writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)


def _cell(value: Any) -> Any:
    """Objects as JSON; a text that a spreadsheet would take for a formula is quoted."""
    text = json.dumps(value) if isinstance(value, dict | list) else value
    return f"'{text}" if isinstance(text, str) and text[:1] in "=+-@" else text


def _write(rows: Sequence[dict[str, Any]], path: Path) -> None:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as exc:
        raise SettingsError('writing Parquet needs pyarrow; pip install "tierwise[train]"') from exc
    flat = [{name: json.dumps(v) if isinstance(v, dict | list) else v for name, v in row.items()} for row in rows]
    beside = path.with_name(f".{path.name}.part")
    pq.write_table(pa.Table.from_pylist(flat), beside)
    beside.replace(path)
    click.echo(f"written: {path}, {len(rows):,} records", err=True)
