"""The commands that `training` adds to `tierwise`; each imports what it needs when it runs."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import click

from router.types import Tier
from training.commands.models import folder_option, print_gate, serving

_CENSORED = (
    "saw the simple and the complex tier only: what simple does not do counts as complex, so moderate is hardly "
    "chosen; --by judge --moderate, or scores of a moderate model, tell more"
)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_prompts = click.option(
    "--prompts",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Texts (query_id, text) for a file of scores (query_id, model, score).",
)
_tiers = click.option(
    "--tier", "tiers", multiple=True, metavar="TIER=MODEL,MODEL", help="Whose scores stand for a tier."
)


@click.command()
@click.option(
    "--labels",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Parquet, JSONL or CSV with labels.",
)
@_prompts
@_tiers
@click.option("--base", default=None, metavar="DIR", help="The prior; default: the shipped artifact.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The new artifact, such as models/mine-v1.")
@click.option("--cache", type=click.Path(path_type=Path, file_okay=False), help="Default: ~/.cache/tierwise.")
@click.option("--min-gain", default=0.05, show_default=True, help="The least gain in held-out APGR worth a change.")
@click.option("--rehearsal", default=0.05, show_default=True, help="More of it keeps more of the base's behaviour.")
@click.option("--promote", "promote_too", is_flag=True, help="Promote it when it passes the gate.")
@_json
def retrain(
    labels: Path,
    prompts: Path | None,
    tiers: tuple[str, ...],
    base: str | None,
    out: Path,
    cache: Path | None,
    min_gain: float,
    rehearsal: float,
    promote_too: bool,
    as_json: bool,
) -> None:
    """Learn from labels of your own traffic, with the shipped model as prior, and ask the gate.

    The champion of the folder of --out serves on, whatever happens. Exit 1 when the gate refuses.

    \b
    Examples:
      tierwise retrain --labels labels.jsonl --out models/mine-v1
      tierwise retrain --labels scores.parquet --tier simple=small --tier complex=large --out models/mine-v1 --promote
    """
    from router.classifier import artifact
    from training.examine import gate
    from training.retrain import promote
    from training.retrain import retrain as training

    started = time.monotonic()
    source, cache = _source(labels, prompts, tiers), cache or _cache()
    base_folder = artifact.find(base)
    pointer = promote.pointer_of(out.parent)
    taken = (pointer.champion, pointer.canary, *pointer.history)
    if out.name in taken or out.resolve() == base_folder.resolve():
        raise click.BadParameter(f"{out} serves, has served or is the base; choose another name", param_hint="--out")
    with _Bars() as progress:
        metrics, rows = training.learn(source, base_folder, out, cache, progress, rehearsal)
        report = gate.compare(promote.champion_of(out.parent), out, rows, min_gain, progress)
    gate.write_report(out, report)
    if as_json:
        checks = [{"name": c.name, "holds": c.holds, "found": c.found, "limit": c.limit} for c in report.checks]
        click.echo(json.dumps({"artifact": str(out), "passed": report.passed, "retrained": metrics, "gate": checks}))
    else:
        _print_retrained(out, metrics, report, pointer.champion)
        click.echo(f"took {time.monotonic() - started:.0f} s", err=True)
    if not report.passed:
        sys.exit(1)
    if promote_too:
        promote.promote(out.parent, out.name)
        click.echo(serving(out.parent), err=as_json)
    elif not as_json:
        click.echo(f"promote it: tierwise models promote {out.name}{folder_option(out.parent)}")


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
@_prompts
@_tiers
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
    prompts: Path | None,
    tiers: tuple[str, ...],
) -> None:
    """Turn traffic into labels for `tierwise retrain`. Parquet, JSONL or CSV with `text`, or `messages` as sent.

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
    from training.labelling import sources as labels

    by = "hand" if by_hand else by
    with labels.Book(out) as book:
        if by == "outcomes":
            _label_from_outcomes(_source(source, prompts, tiers), book, artifact.find(base))
        else:
            queries = labels.choose(source, n, export.read_unfolded(artifact.find(base)))
            done = book.labelled({"hand": "by-hand"}.get(by, by))
            left = [query for query in queries if query.text not in done]
            click.echo(f"{len(queries)} texts chosen, {len(queries) - len(left)} labelled already", err=True)
            if by == "hand":
                _label_by_hand(left, book)
            elif left:
                _label_by_models(left, by, book, fleet, judge_model, moderate, batch, budget_usd, yes)
        for row in labels.agreement(book.labels):
            kappa = "not defined" if row["kappa"] is None else f"{row['kappa']:.2f}"
            click.echo(f"{' and '.join(row['methods'])} agree on {row['agree']:.0%} of {row['n']} texts, kappa {kappa}")
        click.echo(f"{len(book.labels)} labels in {out}")
        if n_censored := sum(row.censored for row in book.labels):
            click.echo(f"{n_censored} of them {_CENSORED}")


def _label_from_outcomes(source: Any, book: Any, base: Path) -> None:
    from training.build import export
    from training.labelling import sources
    from training.rows import traffic

    done = book.labelled("outcomes")
    with _Bars() as progress:
        total, n = traffic.count(source), 0
        is_feedback = "good" in traffic.columns(source.path)
        batches = (
            sources.from_feedback(source, export.read_unfolded(base)) if is_feedback else sources.from_outcomes(source)
        )
        for batch in batches:
            book.add([row for row in batch if row.text not in done])
            progress("labelling", n := n + len(batch), total)


def _label_by_hand(queries: list[Any], book: Any) -> None:
    from training.labelling import sources

    def show(query: Any, number: int, total: int) -> None:
        text = query.text if len(query.text) <= 2000 else f"{query.text[:1500]}\n[...]\n{query.text[-500:]}"
        click.echo(f"\n--- {number} of {total} ---\n{text}\n")
        click.echo("s simple   m moderate   c complex   space skip   u undo   q stop", err=True)

    who = os.environ.get("USER") or "a person"
    sources.by_hand(queries, book, who, lambda: click.getchar(), show)


def _label_by_models(
    queries: list[Any],
    by: str,
    book: Any,
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
    limit = None if budget_usd is None else Decimal(str(budget_usd))
    how = "as batches at half the price" if batch else "call by call"
    click.echo(f"{len(queries)} texts through {chosen.provider}, {how}: at most ${most:.2f}", err=True)
    if limit is not None and most > limit:
        click.echo(f"above the budget of ${limit}: it stops before the budget is passed", err=True)
    if not yes:
        click.confirm("Pay up to that?", abort=True, err=True)
    size = len(queries) if batch else sources.BLOCK
    with client, Journal(book.path.with_suffix(".journal.db")) as journal, _Bars() as progress:
        n_calls, n_done = len(queries) * (4 if by == "judge" else 1), 0

        def answered(n: int) -> None:
            nonlocal n_done
            n_done += n
            progress("answers", n_done, n_calls)

        caller = Caller(client, journal, is_batch=batch, budget_usd=limit, progress=answered)
        for start in range(0, len(queries), size):
            part = queries[start : start + size]
            if by == "judge":
                book.add(sources.judge_labels(part, judge, caller))
            else:
                book.add(sources.asked_labels(part, judge.cheap, caller))
        click.echo(f"spent ${journal.spent_usd:.4f} in all", err=True)


class _Bars:
    """A tqdm bar for each step, on stderr, only on a terminal."""

    def __init__(self) -> None:
        self._step, self._bar = "", None

    def __call__(self, step: str, done: int, total: int) -> None:
        from tqdm import tqdm

        if step != self._step:
            self.__exit__()
            self._step, self._bar = step, tqdm(desc=step, total=total, file=sys.stderr, disable=None)
        if self._bar is not None:
            self._bar.total = max(total, done)
            self._bar.update(done - self._bar.n)

    def __enter__(self) -> _Bars:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._bar is not None:
            self._bar.close()


def _source(path: Path, prompts: Path | None, tiers: tuple[str, ...]) -> Any:
    from training.rows.traffic import Source

    known: dict[str, Tier] = {}
    for given in tiers:
        tier, _, names = given.partition("=")
        if tier not in list(Tier) or not names:
            raise click.BadParameter(
                f"{given!r}: expected TIER=MODEL,MODEL; tiers: {', '.join(Tier)}", param_hint="--tier"
            )
        known |= dict.fromkeys(names.split(","), Tier(tier))
    return Source(path, prompts, known or None)


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tierwise"


def _print_retrained(out: Path, metrics: dict[str, Any], report: Any, champion: str) -> None:
    conflicts, noise = metrics["conflicts"], metrics["noise"]
    shares = ", ".join(f"{tier} {share:.0%}" for tier, share in metrics["shares"].items())
    click.echo(
        f"labels      {metrics['n_labels']}: {metrics['n_training']} train, {metrics['n_held_out']} held out; {shares}"
    )
    if metrics["n_censored"]:
        click.echo(f"two tiers   {metrics['n_censored']} labels {_CENSORED}")
    if conflicts["repeated_texts"]:
        rows = "; ".join("rows " + ", ".join(map(str, rows)) for rows in conflicts["examples_by_row"][:3])
        disagree = f", {conflicts['conflicting_texts']} with labels that disagree ({rows})" if rows else ""
        click.echo(f"repeated    {conflicts['repeated_texts']} texts{disagree}: {conflicts['decision']}")
    if noise["share"]:
        first = ", ".join(map(str, noise["rows"][:5]))
        click.echo(f"doubtful    {noise['share']:.1%} of {noise['n_sure']} sure labels look wrong, rows {first} first")
    click.echo(f"champion    {champion:<22} APGR {report.apgr['champion']:.3f} on the held-out texts")
    click.echo(f"challenger  {out.name:<22} APGR {report.apgr['challenger']:.3f}")
    print_gate(report)
