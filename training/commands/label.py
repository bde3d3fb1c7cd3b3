"""The `label` command: traffic -> labels, from outcomes that are there, from models that are asked, or from you."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from router.types import Tier
from training.commands.options import CENSORED, prompts_option, text_option, tier_option, tiers_option, traffic_file
from training.commands.progress import ProgressBars

if TYPE_CHECKING:
    from training.labelling.sources import Book, Missed, Query
    from training.rows.traffic import TrafficFile


@click.command()
@click.argument("source", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--by",
    type=click.Choice(["outcomes", "judge", "ask", "hand"]),
    default="outcomes",
    show_default=True,
    help="Scores or feedback that are there; a blind comparison; a small model's word; you.",
)
@click.option("--by-hand", is_flag=True, help="The same as --by hand.")
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="JSONL, added to.")
@click.option("--n", "n", default=300, show_default=True, type=click.IntRange(1), help="How many texts to choose.")
@click.option("--fleet", "-f", metavar="NAME", help="Whose cheap and top models answer; default: claude.")
@click.option("--judge", "judge_model", metavar="MODEL", help="Who compares; default: the fleet's top model.")
@click.option(
    "--moderate", is_flag=True, help="Compare the moderate tier, too, where the cheap one loses: up to twice the price."
)
@click.option("--batch", is_flag=True, help="As batches: half the price, within 24 hours.")
@click.option("--budget-usd", type=float, help="Never pay more than this, earlier runs of this --out included.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask before paying.")
@click.option("--base", metavar="DIR", help="The artifact whose doubt chooses the texts; default: the shipped one.")
@text_option
@tier_option
@prompts_option
@tiers_option
def label(
    source: Path,
    by: str,
    by_hand: bool,
    out: Path,
    n: int,
    fleet: str | None,
    judge_model: str | None,
    moderate: bool,
    batch: bool,
    budget_usd: float | None,
    yes: bool,
    base: str | None,
    text_column: str | None,
    tier_column: str | None,
    prompts: Path | None,
    tiers: tuple[str, ...],
) -> None:
    """Turn traffic into labels for `tierwise retrain`. Any table with `text`, or `messages` as sent.

    --by outcomes takes all rows; the others choose texts where a label helps most. Run the same command again to go on
    after an interruption: nothing is paid for twice.

    \b
    Examples:
      tierwise label scores.parquet --tier simple=small --tier complex=large --out labels.jsonl
      tierwise label traffic.jsonl --by judge --moderate --n 500 --batch --budget-usd 20 --out labels.jsonl
      tierwise label traffic.jsonl --by hand --out labels.jsonl
    """
    from router.classifier import artifact
    from training.build import export
    from training.labelling import sources

    by = "hand" if by_hand else by
    if by == "hand":
        _check_terminal()
    file = traffic_file(source, prompts, tiers, text_column, tier_column)
    with sources.Book(out) as book:
        if by == "outcomes":
            _label_from_outcomes(file, book, artifact.find(base))
        else:
            queries = sources.draw_queries(file, n, export.read_unfolded(artifact.find(base)))
            done = book.labelled({"hand": "by-hand"}.get(by, by))
            left = [query for query in queries if query.text not in done]
            click.echo(f"{len(queries)} texts chosen, {len(queries) - len(left)} labelled already", err=True)
            if by == "hand":
                _label_by_hand(left, book)
            elif left:
                _label_by_models(left, by, book, fleet, judge_model, moderate, batch, budget_usd, yes)
        for row in sources.agreement(book.labels):
            kappa = "not defined" if row["kappa"] is None else f"{row['kappa']:.2f}"
            click.echo(f"{' and '.join(row['methods'])} agree on {row['agree']:.0%} of {row['n']} texts, kappa {kappa}")
        click.echo(f"{len(book.labels)} labels in {out}")
        if n_censored := sum(row.censored for row in book.labels):
            click.echo(f"{n_censored} of them {CENSORED}")


def _label_from_outcomes(file: TrafficFile, book: Book, base: Path) -> None:
    from training.build import export
    from training.labelling import sources

    done = book.labelled("outcomes")
    with ProgressBars() as progress:
        total, n = file.table.count_rows(), 0
        is_feedback = "good" in file.table.columns
        batches = (
            sources.from_feedback(file, export.read_unfolded(base)) if is_feedback else sources.from_outcomes(file)
        )
        for batch in batches:
            book.add([row for row in batch if row.text not in done])
            progress("labelling", n := n + len(batch), total)


def _check_terminal() -> None:
    """Raises LabelError where there is nobody to press keys: click reads them from stdin or /dev/tty."""
    from training.rows.errors import LabelError

    if sys.stdin.isatty() or os.name == "nt":
        return
    try:
        Path("/dev/tty").open().close()
    except OSError:
        raise LabelError(
            "--by hand reads keys, and there is no terminal; run it in one, write the tiers into a column `tier` "
            "yourself, or let models label: --by judge, --by ask"
        ) from None


def _label_by_hand(queries: list[Query], book: Book) -> None:
    from training.labelling import sources

    def show(query: Query, number: int, total: int) -> None:
        text = query.text if len(query.text) <= 2000 else f"{query.text[:1500]}\n[...]\n{query.text[-500:]}"
        click.echo(f"\n--- {number} of {total} ---\n{text}\n")
        click.echo("s simple   m moderate   c complex   space skip   u undo   q stop", err=True)

    who = os.environ.get("USER") or "a person"
    sources.by_hand(queries, book, who, lambda: click.getchar(), show)


def _label_by_models(
    queries: list[Query],
    by: str,
    book: Book,
    fleet: str | None,
    judge_model: str | None,
    moderate: bool,
    batch: bool,
    budget_usd: float | None,
    yes: bool,
) -> None:
    from decimal import Decimal

    from router import catalog, settings
    from training.labelling import sources
    from training.labelling.comparison import Judge
    from training.labelling.paid_calls import Caller, Journal, client_for

    config = settings.load()
    models = catalog.configured(config.fleets, config.models)
    chosen = models.fleet(fleet or config.fleet or catalog.DEFAULT_FLEET)
    judging = models.find(judge_model) if judge_model else None
    if judge_model and (judging is None or judging.provider != chosen.provider):
        raise click.BadParameter(
            f"{judge_model!r} is no model of {chosen.provider} in the catalog", param_hint="--judge"
        )
    if moderate and Tier.MODERATE not in chosen.models:
        raise click.BadParameter(f"the fleet {chosen.name!r} has no moderate tier", param_hint="--moderate")
    judge, client = Judge.of(chosen, judging, with_middle=moderate), client_for(chosen, is_batch=batch)
    most = sources.most_usd(queries, by, judge, batch)
    budget = None if budget_usd is None else Decimal(str(budget_usd))
    how = "as batches at half the price" if batch else "call by call"
    click.echo(f"{len(queries)} texts through {chosen.provider}, {how}: at most ${most:.2f}", err=True)
    if budget is not None and most > budget:
        click.echo(f"above the budget of ${budget}: it stops before the budget is passed", err=True)
    if not yes:
        click.confirm("Pay up to that?", abort=True, err=True)
    size = len(queries) if batch else sources.BLOCK
    with client, Journal(book.path.with_suffix(".journal.db")) as journal, ProgressBars() as progress:
        n_calls, n_done, n_before = len(queries) * (4 if by == "judge" else 1), 0, len(book.labels)
        stated = journal.spent_usd + most
        missed = sources.Missed()

        def answered(n: int) -> None:
            nonlocal n_done
            n_done += n
            progress("answers", n_done, n_calls)

        limit = stated if budget is None else min(budget, stated)
        caller = Caller(client, journal, is_batch=batch, budget_usd=limit, progress=answered)
        for start in range(0, len(queries), size):
            part = queries[start : start + size]
            if by == "judge":
                book.add(sources.judge_labels(part, judge, caller, missed))
            else:
                book.add(sources.asked_labels(part, judge.cheap, caller, missed))
        click.echo(f"spent ${journal.spent_usd:.4f} in all", err=True)
    _say_missed(missed, len(queries), len(book.labels) - n_before, caller.failures)


def _say_missed(missed: Missed, n: int, n_labels: int, failures: list[str]) -> None:
    """Why texts have no label. Raises LabelError when none has."""
    from training.rows.errors import LabelError

    if not missed:
        return
    first = f"; the first call that failed: {failures[0]}" if failures else ""
    why = f"{missed.total()} of {n} texts got no label: {missed}{first}"
    if not n_labels:
        raise LabelError(f"{why}; what was paid for is kept. Another --judge or --fleet may do")
    click.echo(why, err=True)
