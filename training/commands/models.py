"""The `models` commands: which artifact serves, what another would change, promotion and its reversal."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from router.options_cli import json_option

_MODELS = Path("models")
_models = click.option(
    "--models",
    "models_folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=_MODELS,
    show_default=True,
    help="The folder of artifacts.",
)


@click.group()
def models() -> None:
    """Artifacts: which serve, what they changed, promote and roll back."""


@models.command("list")
@_models
@json_option
def list_models(models_folder: Path, as_json: bool) -> None:
    """The artifacts of the folder and the shipped one, with their role, and what users said of them."""
    from training.retrain import promotion

    pointer, users = _heard(models_folder)
    rows = promotion.listed(models_folder, users)
    if as_json:
        click.echo(json.dumps(rows))
        return
    click.echo(f"{'artifact':<24}{'role':<14}{'labels':>9}{'gate':>10}{'gain':>8}{'MB':>6}  sha256")
    for row in rows:
        gain = "-" if row["gain"] is None else f"{row['gain']:+.3f}"
        click.echo(
            f"{row['name']:<24}{row['role']:<14}{row['n_labels'] or '-':>9}{row['gate'] or '-':>10}{gain:>8}"
            f"{row['bytes'] / 1e6:>6.1f}  {row['sha256'][:12]}"
        )
    if users or pointer.canary:
        click.echo(f"users say   {promotion.said(pointer, users, folder_option(models_folder))}")


@models.command()
@click.argument("name")
@_models
@json_option
def show(name: str, models_folder: Path, as_json: bool) -> None:
    """The card of an artifact, what the gate said and, while it serves, what users say; with --json its manifest."""
    from router.classifier import artifact
    from training.examine import gate_report
    from training.retrain import promotion

    folder = artifact.member(models_folder, name)
    if as_json:
        click.echo(json.dumps(json.loads((folder / "manifest.json").read_bytes())))
        return
    card = folder / "README.md"
    click.echo(card.read_text("utf-8") if card.is_file() else f"{folder} has no card")
    if report := gate_report.read_report(folder):
        print_gate(report)
    pointer, users = _heard(models_folder)
    if name in (pointer.champion, pointer.canary) and (users or pointer.canary):
        click.echo(f"users say   {promotion.said(pointer, users, folder_option(models_folder))}")


@models.command()
@click.argument("one")
@click.argument("other")
@_models
@json_option
def diff(one: str, other: str, models_folder: Path, as_json: bool) -> None:
    """What changes from ONE artifact to the OTHER: files, thresholds, and where our own queries would go.

    \b
    Example:
      tierwise models diff complexity-v3 mine-v1
    """
    from training.retrain import difference

    report = difference.diff(models_folder, one, other)
    if as_json:
        click.echo(json.dumps(report))
        return
    click.echo(f"files that differ: {', '.join(report['files_changed']) or 'none'}")
    for point, row in report["operating_points"].items():
        changes = ", ".join(
            f"{tier} {row['thresholds'][0][tier]:.3f} -> {row['thresholds'][1][tier]:.3f}"
            for tier in row["thresholds"][0]
        )
        click.echo(
            f"{point:<10}{changes}; of {report['n_queries']} queries {row['up']:.1%} go up, {row['down']:.1%} down"
        )


@models.command()
@click.argument("name")
@_models
@click.option("--canary", metavar="SHARE", help="Only this share of the conversations, such as 10%.")
@click.option("--force", is_flag=True, help="Although the gate did not pass it.")
def promote(name: str, models_folder: Path, canary: str | None, force: bool) -> None:
    """Let an artifact that passed the gate serve: at once, or a share of the conversations first.

    \b
    Examples:
      tierwise models promote mine-v1 --canary 10%
      tierwise models promote mine-v1
    """
    from training.retrain import promotion

    promotion.promote(models_folder, name, share=None if canary is None else _share(canary), force=force)
    click.echo(serving(models_folder))


@models.command()
@_models
@click.option(
    "--if-worse",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help='JSONL of feedback {"artifact", "conversation", "good"}: roll the canary back only when it is worse for sure.',
)
def rollback(models_folder: Path, if_worse: Path | None) -> None:
    """Take back the canary, or else the last promotion. With --if-worse: exit 1 when it stays."""
    from router.classifier.pointer import Verdict
    from training.retrain import promotion

    if if_worse is not None:
        verdict, why = promotion.judge_canary(models_folder, promotion.read_feedback(if_worse))
        click.echo(f"{verdict}: {why}", err=True)
        if verdict is not Verdict.ROLL_BACK:
            sys.exit(1)
    promotion.roll_back(models_folder)
    click.echo(serving(models_folder))


def _heard(folder: Path) -> tuple[Any, dict[str, Any]]:
    """The pointer of a folder and, since its canary began, what users said; that it cannot be read is no failure."""
    from router import settings
    from router.errors import TierwiseError
    from training.retrain import promotion

    pointer = promotion.pointer_of(folder)
    try:
        return pointer, promotion.heard(settings.load(), pointer.since)
    except TierwiseError as exc:
        click.echo(str(exc), err=True)
        return pointer, {}


def _share(text: str) -> float:
    try:
        return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise click.BadParameter(f"{text!r}: expected a share such as 10% or 0.1", param_hint="--canary") from None


def serving(folder: Path) -> str:
    """What a folder serves now, in a sentence."""
    from training.retrain.promotion import pointer_of

    pointer = pointer_of(folder)
    canary = f", {pointer.canary} to {pointer.share:.0%} of the conversations" if pointer.canary else ""
    return f"{folder} serves {pointer.champion}{canary}; in tierwise.toml: artifact = {json.dumps(str(folder))}"


def folder_option(folder: Path) -> str:
    """How a command names the folder; "" for the default."""
    return "" if folder == _MODELS else f" --models {shlex.quote(str(folder))}"


def print_gate(report: Any) -> None:
    """The gate's verdict, check by check."""
    click.echo(f"gate        {'passed' if report.passed else 'REFUSED'}")
    for check in report.checks:
        click.echo(f"  {'ok' if check.holds else 'NO':<4}{check.name:<26}{check.found}; limit: {check.limit}")
