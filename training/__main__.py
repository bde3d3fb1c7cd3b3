"""python -m training build | evaluate | learn-curve"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
from scipy import sparse

from training import card, curve, dataset, embedding, evaluate, export, fit


class _Steps:
    """Names each step on stderr with the seconds since the start."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def __call__(self, message: str) -> None:
        click.echo(f"[{time.monotonic() - self._start:6.1f} s] {message}", err=True)


_corpora = click.option(
    "--corpora",
    type=click.Path(path_type=Path, file_okay=False),
    default=dataset.CORPORA,
    help="Folder with prompts.parquet, outcomes.parquet, pair_gain.parquet, item_difficulty.parquet.",
)


@click.group()
def main() -> None:
    """Train, evaluate and export the classifier."""


@main.command()
@_corpora
@click.option("--name", default="complexity", show_default=True, help="Name of the artifact, without the version.")
@click.option("--version", default=1, show_default=True, help="Version: the folder is NAME-vVERSION.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=dataset.ROOT / "models", help="Where.")
def build(corpora: Path, name: str, version: int, out: Path) -> None:
    """Distil, fit, calibrate, tune and export an artifact: minutes on 2 cores.

    Example: python -m training build --out scratch
    """
    step = _Steps()
    step(f"reading {corpora}")
    rows = dataset.training_rows(corpora)
    sets = dataset.outcomes(corpora)
    step(f"distilling {embedding.TEACHER} into a static embedding")
    static = embedding.distil().with_idf_of(rows.texts)
    step(f"features of {len(rows)} rows")
    x = static.features(rows.texts)
    step(f"cross-fitting {fit.N_FOLDS} folds for calibration")
    own_logits = fit.out_of_fold_logits(x, rows)
    step("fitting every row")
    model = fit.fit(x, rows, own_logits)
    step("tuning operating points")
    p_required = model.calibration.predict_proba(own_logits)
    _, required, _ = evaluate.own_labels()
    points = fit.operating_points(fit.suffices(p_required), required)
    step("leaving each outcome set out in turn")
    metrics = _metrics(rows, x, static, model, sets, p_required, step)
    training_data = dataset.provenance(rows, corpora)
    folder = out / f"{name}-v{version}"
    gap = export.write(
        folder,
        static,
        model,
        name=name,
        version=version,
        operating_points=points,
        metrics=metrics,
        training_data=training_data,
        card=card.render(name, version, points, metrics, training_data),
        parity_texts=[*rows.texts[:1000], "", "\x00", "a" * 100_000],
    )
    step(f"wrote {folder} (parity with scikit-learn {gap:.1e})")
    click.echo(json.dumps({"artifact": str(folder), "parity": gap, "mean_apgr": metrics["leave_one_out"]["mean_apgr"]}))


@main.command("evaluate")
@_corpora
@click.option("--model", "artifact", type=click.Path(path_type=Path), help="An artifact's folder; default: shipped.")
@click.option("--leave-one-out", is_flag=True, help="Refit without each outcome set in turn, then score that set.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def evaluate_command(corpora: Path, artifact: Path | None, leave_one_out: bool, as_json: bool) -> None:
    """APGR and CPT on the outcome sets beside prompt length and random.

    Without --leave-one-out the model has seen some of these sets: only the left-out figures estimate new traffic.
    """
    step = _Steps()
    sets = dataset.outcomes(corpora)
    if leave_one_out:
        static, _ = export.read_unfolded(_folder(artifact))
        rows = dataset.training_rows(corpora)
        report = evaluate.leave_one_out(rows, static.features(rows.texts), static, sets, step)
    else:
        report = evaluate.on_outcomes(sets, evaluate.shipped_scorer(artifact), step)
    if as_json:
        click.echo(json.dumps(report))
        return
    click.echo(f"{'outcome set':<22}{'prompts':>8}{'model':>9}{'length':>9}{'random':>9}{'CPT50':>8}{'CPT80':>8}")
    for name, row in report["datasets"].items():
        scores = "".join(f"{row[key]['apgr']:>9.3f}" for key in ("model", "length", "random"))
        click.echo(f"{name:<22}{row['n']:>8}{scores}{row['model']['cpt50']:>8.2f}{row['model']['cpt80']:>8.2f}")
    click.echo(f"{'mean':<30}" + "".join(f"{value:>9.3f}" for value in report["mean_apgr"].values()))


@main.command("learn-curve")
@_corpora
@click.option("--model", "artifact", type=click.Path(path_type=Path), help="An artifact's folder; default: shipped.")
@click.option("--seeds", default=4, show_default=True, type=click.IntRange(2), help="Random splits for each size.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def learn_curve(corpora: Path, artifact: Path | None, seeds: int, as_json: bool) -> None:
    """Held-out APGR inside each outcome set after learning from 100 to 3,000 of its rows, the features frozen."""
    step = _Steps()
    static, model = export.read_unfolded(_folder(artifact))
    report = curve.learning_curve(dataset.outcomes(corpora), static, model, n_seeds=seeds, progress=step)
    if as_json:
        click.echo(json.dumps(report))
        return
    click.echo(f"{'outcome set':<22}" + "".join(f"{size:>16}" for size in curve.SIZES))
    for name, row in report["datasets"].items():
        cells = (row.get(str(size)) for size in curve.SIZES)
        shown = (f"{c['apgr']:.3f} +- {c['standard_error']:.3f}" if c else "-" for c in cells)
        click.echo(f"{name:<22}" + "".join(f"{cell:>16}" for cell in shown))


def _metrics(
    rows: dataset.Rows,
    x: sparse.csr_matrix,
    static: embedding.Embedding,
    model: fit.Classifier,
    sets: list[dataset.Outcomes],
    p_required: npt.NDArray[np.float64],
    step: _Steps,
) -> dict[str, Any]:
    texts, required, languages = evaluate.own_labels()
    length = np.array([len(text) for text in texts], float)
    messages, needed = evaluate.support_messages()
    support = model.p_required(static.features(messages))
    message_length = np.array([len(text) for text in messages], float)
    return {
        "leave_one_out": evaluate.leave_one_out(rows, x, static, sets, step),
        "labelled_out_of_fold": evaluate.labelled_report(p_required, required, languages),
        "length_auc": round(evaluate.auc(length, required), 4),
        "support_messages": evaluate.labelled_report(support, needed, ["all"] * len(needed)),
        "support_length_auc": round(evaluate.auc(message_length, needed), 4),
    }


def _folder(artifact: Path | None) -> Path:
    from router.artifact import find

    return find(artifact)


if __name__ == "__main__":
    try:
        main()
    except dataset.CorporaMissing as exc:
        click.echo(f"error: {exc}", err=True)
        sys.exit(2)
