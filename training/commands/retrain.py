"""The `retrain` command: labels of your own traffic -> a new artifact, and what the gate says of it."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from router.options_cli import json_option
from training.commands.models import folder_option, print_gate, serving
from training.commands.options import CENSORED, prompts_option, text_option, tier_option, tiers_option, traffic_file
from training.commands.progress import ProgressBars

if TYPE_CHECKING:
    from training.examine.gate_report import Report
    from training.rows.traffic import TrafficFile


@click.command()
@click.option(
    "--labels",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="A table with labels: CSV, TSV, XLSX, JSON, JSONL or Parquet.",
)
@text_option
@tier_option
@prompts_option
@tiers_option
@click.option("--base", default=None, metavar="DIR", help="The prior; default: the shipped artifact.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The new artifact, such as models/mine-v1.")
@click.option("--cache", type=click.Path(path_type=Path, file_okay=False), help="Default: ~/.cache/tierwise.")
@click.option(
    "--min-gain", type=float, help="The least gain in APGR worth a change. Default: 0.05, for labels with classes 0.01."
)
@click.option("--rehearsal", default=0.05, show_default=True, help="More of it keeps more of the base's behaviour.")
@click.option("--promote", "promote_too", is_flag=True, help="Promote it when it passes the gate.")
@json_option
def retrain(
    labels: Path,
    text_column: str | None,
    tier_column: str | None,
    prompts: Path | None,
    tiers: tuple[str, ...],
    base: str | None,
    out: Path,
    cache: Path | None,
    min_gain: float | None,
    rehearsal: float,
    promote_too: bool,
    as_json: bool,
) -> None:
    """Learn from labels of your own traffic, with the shipped model as prior, and ask the gate.

    The champion of the folder of --out serves on, whatever happens. Exit 1 when the gate refuses.

    Labels with a column "class" (of traffic) teach what each application needs; other requests stay as they are.

    \b
    Examples:
      tierwise retrain --labels labels.jsonl --out models/mine-v1
      tierwise retrain --labels scores.parquet --tier simple=small --tier complex=large --out models/mine-v1 --promote
    """
    from router.classifier import artifact
    from training.examine import gate_report
    from training.examine.next_steps import next_steps
    from training.retrain import promotion

    started = time.monotonic()
    file, cache = traffic_file(labels, prompts, tiers, text_column, tier_column), cache or _cache()
    base_folder = artifact.find(base)
    pointer = promotion.pointer_of(out.parent)
    taken = (pointer.champion, pointer.canary, *pointer.history)
    if out.name in taken or out.resolve() == base_folder.resolve():
        raise click.BadParameter(f"{out} serves, has served or is the base; choose another name", param_hint="--out")
    metrics, report, least = _learn(file, base_folder, out, cache, min_gain, rehearsal)
    gate_report.write_report(out, report)
    steps = next_steps(report, metrics, least, shlex.quote(str(labels)))
    if as_json:
        found = {"artifact": str(out), "passed": report.passed, "retrained": metrics, "apgr": report.apgr}
        click.echo(json.dumps({**found, "gate": list(map(msgspec.to_builtins, report.checks)), "next_steps": steps}))
    else:
        _print_labels(metrics)
        _print_doubts(file, metrics)
        _print_verdict(out, pointer.champion, report, steps)
        click.echo(f"took {time.monotonic() - started:.0f} s", err=True)
    if not report.passed:
        sys.exit(1)
    if promote_too:
        promotion.promote(out.parent, out.name)
        click.echo(serving(out.parent), err=as_json)
    elif not as_json:
        click.echo(f"promote it: tierwise models promote {out.name}{folder_option(out.parent)}")


def _learn(
    file: TrafficFile, base: Path, out: Path, cache: Path, min_gain: float | None, rehearsal: float
) -> tuple[dict[str, Any], Report, float]:
    """The challenger's figures, what the gate says of it, and the gain that was asked of it."""
    from training.examine import gate
    from training.retrain import by_class, challenger, promotion

    with ProgressBars() as progress:
        champion = promotion.champion_of(out.parent)
        if by_class.has_classes(file):
            metrics, labelled = by_class.learn(file, base, out, cache, progress)
            least = gate.MIN_CLASS_GAIN if min_gain is None else min_gain
            return metrics, gate.compare_classes(champion, out, labelled, least, progress), least
        metrics, rows = challenger.learn(file, base, out, cache, progress, rehearsal)
        least = gate.MIN_GAIN if min_gain is None else min_gain
        return metrics, gate.compare(champion, out, rows, least, progress), least


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tierwise"


def _print_labels(metrics: dict[str, Any]) -> None:
    shares = ", ".join(f"{tier} {share:.0%}" for tier, share in metrics["shares"].items())
    by_class = metrics.get("classes")
    judged = "all judged out of fold" if by_class else f"{metrics['n_held_out']} held out"
    click.echo(f"labels      {metrics['n_labels']}: {metrics['n_training']} train, {judged}; {shares}")
    for row in by_class or ():
        harder = row["shift"]["complex"] - row["shift"]["simple"]
        how = "and its texts" if row["residual"] else "by its mean"
        told = f"{row['labels']} labels, {how}: {harder:+.2f} logits harder than the base has it"
        click.echo(f"class       {row['class']:<22} {told}")
    if metrics["n_censored"]:
        click.echo(f"two tiers   {metrics['n_censored']} labels {CENSORED}")


def _print_doubts(file: TrafficFile, metrics: dict[str, Any]) -> None:
    """Labels that contradict each other or look wrong, by row number and the start of the text."""
    from training.rows import traffic
    from training.rows.errors import row_of

    conflicts, noise = metrics["conflicts"], metrics["noise"]
    disagreeing, doubtful = conflicts["examples_by_row"][:3], noise["rows"][:5] if noise["share"] else []
    starts = traffic.read_starts(file, [*chain.from_iterable(disagreeing), *doubtful])
    if conflicts["repeated_texts"]:
        n = conflicts["conflicting_texts"]
        disagree = f", {n} with labels that disagree" if n else ""
        click.echo(f"repeated    {conflicts['repeated_texts']} texts{disagree}: {conflicts['decision']}")
        for numbers in disagreeing:
            click.echo(f"            {', '.join(row_of(number, starts.get(number)) for number in numbers)}")
    if doubtful:
        click.echo(f"doubtful    {noise['share']:.1%} of {noise['n_sure']} sure labels look wrong, these first:")
        for number in doubtful:
            click.echo(f"            {row_of(number, starts.get(number))}")


def _print_verdict(out: Path, champion: str, report: Report, steps: list[str]) -> None:
    click.echo(f"champion    {champion:<22} APGR {report.apgr['champion']:.3f} on the held-out texts")
    click.echo(f"challenger  {out.name:<22} APGR {report.apgr['challenger']:.3f}")
    print_gate(report)
    for step in steps:
        click.echo(f"what now    {step}")
