"""The `tune` command: from labels to an operating point in the settings."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import msgspec

from router import catalog, settings
from router.catalog import Fleet
from router.classifier import artifact
from router.classifier.artifact import OperatingPoint
from router.options_cli import json_option
from router.simulate import workload
from router.types import Tier
from training.commands.options import say, text_option, tier_option
from training.rows.tables import Table
from training.thresholds import operating_point, search, tradeoff
from training.thresholds.losses import Losses
from training.thresholds.scores import load_problem, words_of
from training.thresholds.search import Choice, Target
from training.thresholds.tradeoff import Problem

_FILE = click.Path(path_type=Path, dir_okay=False)


def _target(_: click.Context, __: click.Parameter, value: str | None) -> Target | None:
    try:
        return None if value is None else Target.parse(value)
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from exc


@click.command()
@click.option("--labels", required=True, type=_FILE, help="A table with text, and tier or a score for each model.")
@text_option
@tier_option
@click.option("--target", callback=_target, help="quality>=0.97, cost<=0.4 (of the top tier's) or share=70,20,10.")
@click.option(
    "--confidence", default=0.95, show_default=True, type=click.FloatRange(0.5, 0.9999), help="Of the target."
)
@click.option("--mix", help="Percent of traffic by required tier, when the labels' is another: 70,20,10.")
@click.option("--scores", type=_FILE, help="P(suffices) by id from elsewhere: id, p_simple, p_moderate.")
@click.option("--records", type=_FILE, help="A ledger: token counts and cache hits for the costs.")
@click.option("--classifier", type=click.Choice(["artifact", "rules"]), default="artifact", show_default=True,
              help="rules: up to N words and none of the terms -> simple, else the top tier.")  # fmt: skip
@click.option("--terms", default="", help="With rules: terms that go to the top tier, comma-separated.")
@click.option("--name", default="mine", show_default=True, help="Name of the operating point.")
@click.option("--out", type=_FILE, default=Path(settings.FILE), show_default=True, help="Settings to write it to.")
@click.option("--dry-run", is_flag=True, help="Write nothing.")
@click.option("--fleet", "-f", metavar="NAME", help="Fleet for prices and model columns; default: the settings'.")
@click.option("--artifact", "-a", "artifact_", metavar="DIR", help="Another artifact than the settings'.")
@click.option("--seed", default=0, show_default=True, help="Of the split of the rows.")
@json_option
def tune(
    labels: Path,
    text_column: str | None,
    tier_column: str | None,
    target: Target | None,
    confidence: float,
    mix: str | None,
    scores: Path | None,
    records: Path | None,
    classifier: str,
    terms: str,
    name: str,
    out: Path,
    dry_run: bool,
    fleet: str | None,
    artifact_: str | None,
    seed: int,
    as_json: bool,
) -> None:
    """Choose the threshold: the cheapest operating point that meets a target with a stated confidence.

    Labels are rows that training did not see. Without --target the cost-quality curve is printed and nothing is
    written. Quality is the share of requests that get a tier at least as good as they need; with a score for each
    model, 1 - how far the answers fall behind the top tier's. Cost is a part of what the top tier alone costs, cached.

    \b
    Examples:
      tierwise tune --labels labels.csv
      tierwise tune --labels labels.csv --target "quality>=0.97" --records ledger.db
      tierwise tune --labels labels.csv --target "cost<=0.4" --confidence 0.9 --name thrifty
      tierwise tune --labels labels.csv --target "quality>=0.9" --classifier rules --terms "contract,proof"
    """
    config = settings.load()
    models = catalog.configured(config.fleets, config.models)
    chosen = models.fleet(fleet or config.fleet or catalog.DEFAULT_FLEET)
    loaded = artifact.load(artifact_ or config.artifact)
    shares = workload.shares(mix) if mix else None
    rule = tuple(term.strip() for term in terms.split(",") if term.strip()) if classifier == "rules" else None
    files = {"scores": scores, "records": records}
    table = Table(labels, text_column, tier_column, say)
    rows, problem = load_problem(table, chosen, loaded, **files, mix=shares, terms=rule, shown=_bar)
    used = artifact.name_of(loaded.manifest)
    report: dict[str, Any] = {"labels": str(labels), "n_rows": len(rows), "artifact": used, "fleet": chosen.name}
    report |= {"workload": problem.costs.workload, "n_records": problem.costs.n_records, "classifier": classifier}
    if not as_json:
        _print_costs(rows, problem)
    if target is None:
        report["curve"] = tradeoff.cost_quality_curve(problem, confidence, 12, seed)
        if not as_json:
            _print_curve(report["curve"], confidence, classifier)
    else:
        choice = search.choose_point(problem, target, confidence, seed)
        written = None if dry_run else out
        report |= {"choice": {**asdict(choice), "target": str(target)}, "written_to": written}
        report |= _mistakes(rows, problem, choice, classifier)
        _write(written, name, choice.point(labels.name, used), report.get("max_words"), rule)
        if not as_json:
            _print_choice(choice, chosen, name, report)
    if as_json:
        click.echo(msgspec.json.encode(report, enc_hook=str))


def _write(
    out: Path | None, name: str, point: OperatingPoint, max_words: int | None, rule: tuple[str, ...] | None
) -> None:
    if out is not None and rule is not None:
        operating_point.write_rules(out, max_words or 0, rule)
    elif out is not None:
        operating_point.write_point(out, name, point)


def _mistakes(rows: Losses, problem: Problem, choice: Choice, classifier: str) -> dict[str, Any]:
    """The worst rows at the chosen thresholds; of a rule also its number of words, and how many rows it gets wrong."""
    mistakes: dict[str, Any] = {"worst": tradeoff.worst(rows, problem, choice.thresholds)}
    if classifier == "rules":
        mistakes["max_words"] = words_of(choice.thresholds[0])
        mistakes["n_wrong"] = int((problem.lost(choice.thresholds) > 0).sum())
    return mistakes


def _bar(texts: list[str]) -> Iterator[str]:
    with click.progressbar(texts, label="scoring", file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
        yield from bar


def _print_costs(rows: Losses, problem: Problem) -> None:
    load, n_records = problem.costs.workload, problem.costs.n_records
    weighted = f", weighted to {' / '.join(f'{share:.0%}' for share in problem.mix)}" if problem.mix else ""
    source = f"{n_records:,} records" if n_records else "defaults: give --records LEDGER for yours"
    seen = f"; {rows.n_seen:,} more were trained on and are left out" if rows.n_seen else ""
    click.echo(f"labels      {len(rows):,} rows{weighted}{seen}")
    click.echo(
        f"costs       1 is always {problem.costs.fleet.top.id}, cached; {load.prefix_tokens:,.0f} + "
        f"{load.user_tokens:,.0f} tokens in, {load.output_tokens:,.0f} out, a call every "
        f"{load.gap_s:.1f} s ({source})\n"
    )


def _print_curve(points: list[dict[str, Any]], confidence: float, classifier: str) -> None:
    what = "words" if classifier == "rules" else "simple  moderate"
    click.echo(
        f"  {what:<18}{'quality':>8}{f'[{confidence:.0%} interval]':>20}{'cost':>7}   to simple, moderate, complex"
    )
    for point in points:
        at = point["thresholds"]
        shown = str(words_of(at[0])) if classifier == "rules" else "  ".join(f"{t:6.3f}" for t in at)
        low, high = point["interval"]
        shares = "  ".join(f"{share:4.0%}" for share in point["shares"])
        click.echo(
            f"  {shown:<18}{point['quality']:>8.1%}{f'[{low:.1%}, {high:.1%}]':>20}{point['cost']:>7.3f}   {shares}"
        )
    click.echo('\n  Choose with --target, for example --target "quality>=0.97"')


def _print_choice(choice: Choice, fleet: Fleet, name: str, report: dict[str, Any]) -> None:
    low, high = choice.interval
    if report["classifier"] == "rules":
        click.echo(f"rule        up to {report['max_words']} words and none of the terms -> simple, else the top tier")
    else:
        click.echo(f"point       {name}: simple {choice.thresholds[0]:.3f}, moderate {choice.thresholds[1]:.3f}")
        if min(choice.thresholds) < 0.5:
            click.echo("            below one half: right for traffic like these labels, a guess for other texts")
    proof = f", proved on {choice.n_proof:,} rows" if choice.target.kind != "share" else ""
    click.echo(f"target      {choice.claim}{proof}")
    click.echo(
        f"quality     {1 - choice.risk:.1%} [{1 - high:.1%}, {1 - low:.1%}] on {choice.n_unseen:,} rows that tuning "
        "did not see"
    )
    low, high = choice.cost_interval
    click.echo(f"cost        {choice.cost:.3f} [{low:.3f}, {high:.3f}] of always {fleet.top.id}")
    known = zip(Tier, choice.shares, choice.share_intervals, strict=True)
    click.echo(
        "shares      " + ", ".join(f"{tier} {at:.1%} [{low:.1%}, {high:.1%}]" for tier, at, (low, high) in known)
    )
    more = (
        f"; about {choice.more_rows:,} would prove a point at a cost of {choice.next_cost:.3f}"
        if choice.more_rows
        else ""
    )
    click.echo(f"to tighten  {3 * choice.n_rows:,} more labels would halve the interval{more}")
    if report["classifier"] == "rules":
        click.echo(f"wrong       {report['n_wrong']:,} of {report['n_rows']:,} rows; the first:")
        for row in report["worst"]:
            click.echo(f"            {row['required'] or row['loss']}: {' '.join(row['text'].split())[:90]}")
    if report["written_to"]:
        click.echo(f"\nwritten to {report['written_to']}")
        if report["classifier"] != "rules":
            click.echo(f'try: tierwise decide --operating-point {name} "Prove that sqrt(2) is irrational"')
