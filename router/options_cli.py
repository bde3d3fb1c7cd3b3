"""What several commands share: options, and progress on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any

import click

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
fleet_option = click.option(
    "--fleet", "-f", metavar="NAME", help="claude, claude-latest, gpt, gpt-latest, gemini or yours."
)
point_option = click.option("--operating-point", "-o", metavar="NAME", help="economy, balanced or quality.")
config_option = click.option(
    "--config", "-c", type=click.Path(dir_okay=False), help="Settings file; default: tierwise.toml."
)


def show_progress(label: str, items: Iterable[Any]) -> Iterator[Any]:
    """The items, with a bar on stderr where that is a terminal."""
    hidden = not sys.stderr.isatty()
    with click.progressbar(items, label=f"  {label:<24}", file=sys.stderr, show_pos=True, hidden=hidden) as bar:
        yield from bar
