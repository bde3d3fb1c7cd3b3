"""The `retrain` command: labels of your own traffic -> a new artifact, and what the gate says of it."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from router.options_cli import json_option
from training.commands.models import folder_option, print_gate, serving
from training.commands.options import CENSORED, prompts_option, text_option, tier_option, tiers_option, traffic_file
from training.commands.progress import ProgressBars

if TYPE_CHECKING:
    from training.examine.gate_report import Report


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
    from training.examine import gate, gate_report
    from training.retrain import by_class, challenger, promotion

    started = time.monotonic()
    file, cache = traffic_file(labels, prompts, tiers, text_column, tier_column), cache or _cache()
    base_folder = artifact.find(base)
    pointer = promotion.pointer_of(out.parent)
    taken = (pointer.champion, pointer.canary, *pointer.history)
    if out.name in taken or out.resolve() == base_folder.resolve():
        raise click.BadParameter(f"{out} serves, has served or is the base; choose another name", param_hint="--out")
    with ProgressBars() as progress:
        champion = promotion.champion_of(out.parent)
        if by_class.has_classes(file):
            metrics, labelled = by_class.learn(file, base_folder, out, cache, progress)
            least = gate.MIN_CLASS_GAIN if min_gain is None else min_gain
            report = gate.compare_classes(champion, out, labelled, least, progress)
        else:
            metrics, rows = challenger.learn(file, base_folder, out, cache, progress, rehearsal)
            report = gate.compare(champion, out, rows, gate.MIN_GAIN if min_gain is None else min_gain, progress)
    gate_report.write_report(out, report)
    if as_json:
        checks = [{"name": c.name, "holds": c.holds, "found": c.found, "limit": c.limit} for c in report.checks]
        click.echo(json.dumps({"artifact": str(out), "passed": report.passed, "retrained": metrics, "gate": checks}))
    else:
        _print_retrained(out, metrics, report, pointer.champion)
        click.echo(f"took {time.monotonic() - started:.0f} s", err=True)
    if not report.passed:
        sys.exit(1)
    if promote_too:
        promotion.promote(out.parent, out.name)
        click.echo(serving(out.parent), err=as_json)
    elif not as_json:
        click.echo(f"promote it: tierwise models promote {out.name}{folder_option(out.parent)}")


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tierwise"


def _print_retrained(out: Path, metrics: dict[str, Any], report: Report, champion: str) -> None:
    conflicts, noise = metrics["conflicts"], metrics["noise"]
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
