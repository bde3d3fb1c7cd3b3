"""The options that `label`, `retrain` and `tune` share: the columns of a table, and the prompts and tiers of scores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from router.types import Tier

if TYPE_CHECKING:
    from training.rows.traffic import TrafficFile

CENSORED = (
    "saw the simple and the complex tier only: what simple does not do counts as complex, so moderate is hardly "
    "chosen; --by judge --moderate, or scores of a moderate model, tell more"
)

prompts_option = click.option(
    "--prompts",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Texts (query_id, text) for a file of scores (query_id, model, score).",
)
tiers_option = click.option(
    "--tier", "tiers", multiple=True, metavar="TIER=MODEL,MODEL", help="Whose scores stand for a tier."
)
text_option = click.option("--text-column", metavar="NAME", help="The column of the texts; default: by its name.")
tier_option = click.option("--tier-column", metavar="NAME", help="The column of the tier; default: by its name.")


def say(note: str) -> None:
    """A note on a file: a guess, or what was left out."""
    click.echo(note, err=True)


def traffic_file(
    path: Path, prompts: Path | None, tiers: tuple[str, ...], text_column: str | None, tier_column: str | None
) -> TrafficFile:
    """The file of rows that the options name. Raises click.BadParameter for a --tier that cannot be read."""
    from training.rows.traffic import TrafficFile

    known: dict[str, Tier] = {}
    for given in tiers:
        tier, _, names = given.partition("=")
        if tier not in list(Tier) or not names:
            raise click.BadParameter(
                f"{given!r}: expected TIER=MODEL,MODEL; tiers: {', '.join(Tier)}", param_hint="--tier"
            )
        known |= dict.fromkeys(names.split(","), Tier(tier))
    return TrafficFile(path, prompts, known or None, text_column, tier_column, say)
