"""python -m training build | evaluate | learn-curve | out-of-fold"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from scipy import sparse

from router.classifier import artifact as artifacts
from training import behaviour
from training.build import corpora, e5, embedding, export, fit, novelty, training_set
from training.build.arrays import Array
from training.examine import card, card_large, curve, measures

SPLIT = "{} rated requests that people typed, each family of data sets left out; tuned on one half, scored on the other"


class _Steps:
    """Names each step on stderr with the seconds since the start."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def __call__(self, message: str) -> None:
        click.echo(f"[{time.monotonic() - self._start:6.1f} s] {message}", err=True)


def _given(_: click.Context, __: click.Parameter, folder: Path | None) -> Path:
    if folder is None:
        raise click.UsageError(f"give the corpora with --corpora DIR: {corpora.HOLDS}")
    return folder


_corpora = click.option(
    "--corpora",
    "corpora_folder",
    type=click.Path(path_type=Path, file_okay=False),
    callback=_given,
    metavar="DIR",
    help=f"Required: {corpora.HOLDS}.",
)

_model = click.option(
    "--model", "artifact", type=click.Path(path_type=Path), help="An artifact's folder; default: shipped."
)


@click.group()
def main() -> None:
    """Train, evaluate and export the classifier."""


@main.command()
@_corpora
@click.option("--name", default="complexity", show_default=True, help="Name of the artifact, without the version.")
@click.option("--version", default=3, show_default=True, help="Version: the folder is NAME-vVERSION.")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), default=corpora.ROOT / "models", help="Its parent."
)
@click.option(
    "--base", type=click.Path(path_type=Path), help="Take tokens and embedding from this artifact: no teacher."
)
@click.option("--seeds", default=4, show_default=True, type=click.IntRange(2), help="Splits of the learning curve.")
def build(corpora_folder: Path, name: str, version: int, out: Path, base: Path | None, seeds: int) -> None:
    """Distil, fit, calibrate, tune, examine and export an artifact: 6 minutes on 2 cores, 3 with --base.

    Example: python -m training build --corpora DIR --out scratch --base models/complexity-v3
    """
    step = _Steps()
    step(f"reading {corpora_folder}")
    rows = training_set.training_rows(corpora_folder)
    sets = corpora.outcome_sets(corpora_folder)
    written = [text for text, source in zip(rows.texts, rows.sources, strict=True) if source != "variants"]
    if base:
        static = export.read_unfolded(artifacts.find(base)).embedding
    else:
        step(f"distilling {e5.NAME} into a static embedding")
        with click.progressbar(length=100, file=sys.stderr, label="tokens") as bar:
            static = embedding.distil(written, lambda done, total: bar.update(100 * done // total - bar.pos))
    static = static.with_idf_of(rows.texts)
    step("learning what is out of distribution")
    own = [text for text, source in zip(rows.texts, rows.sources, strict=True) if source == "tierwise_queries"]
    strangeness = novelty.fit(static, written, own)
    step(f"features of {len(rows)} rows")
    x = static.features(rows.texts)
    step("fitting, with each family of real requests left out for calibration and for operating points")
    model, logits = fit.fit(x, rows)
    unfolded = export.Unfolded(static, model, strangeness)
    real = rows.select(rows.real)
    q = fit.suffices(model.calibrated(logits))
    points = fit.operating_points(q, real.targets, fit.even_weights(real.datasets), SPLIT.format(len(real)))
    step(f"our own queries in {fit.N_FOLDS} folds")
    p_required = model.calibrated(fit.out_of_fold_logits(x, rows))
    texts, required, languages = measures.own_labels()
    step("leaving each outcome set out in turn")
    left_out = measures.LeftOut(rows, x, model)
    metrics = {
        "real_requests": measures.on_real_requests(real, 1 - q[:, 0]),
        "points_on_real_requests": measures.points_on_real_requests(real, q, points),
        "leave_one_out": measures.leave_one_out(static, left_out, sets, step),
        "learning_curve": curve.learning_curve(sets, static, left_out, n_seeds=seeds, progress=step),
        "labelled_out_of_fold": measures.labelled_report(p_required, required, languages),
        "length_auc": round(measures.auc(np.array([len(text) for text in texts], float), required), 4),
        **_examine(unfolded, points, corpora_folder),
    }
    training_data = training_set.provenance(rows, corpora_folder)
    folder = out / f"{name}-v{version}"
    gap = export.write_artifact(
        folder,
        unfolded,
        name=name,
        version=version,
        operating_points=points,
        metrics=metrics,
        training_data=training_data,
        documents={
            "README.md": card.render(name, version, points, metrics, training_data).encode(),
            "learning-curve.svg": card.plot(metrics["learning_curve"]),
        },
        parity_texts=[*rows.texts[:1000], "", "\x00", "a" * 100_000, "\u1c50\u1c51 \u1c52"],
    )
    step(f"wrote {folder} (parity with scikit-learn {gap:.1e})")
    click.echo(json.dumps({"artifact": str(folder), "parity": gap, "mean_apgr": metrics["leave_one_out"]["mean_apgr"]}))


@main.command("build-large")
@_corpora
@click.option("--small", type=click.Path(path_type=Path), help="The small model to stand beside; default: shipped.")
@click.option("--version", default=4, show_default=True, help="Version of all three.")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), default=corpora.ROOT / "models", help="Their parent."
)
@click.option(
    "--cache",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="A folder that keeps what a stopped run goes on from.",
)
def build_large(corpora_folder: Path, small: Path | None, version: int, out: Path, cache: Path) -> None:
    """Fine-tune the encoder and write three artifacts: encoder, large and cascade.

    Minutes on a GPU, a day on 2 cores; a run that was stopped goes on from --cache. It needs torch:
    `pip install "tierwise[encoder]"`.

    Example: python -m training build-large --corpora DIR --cache scratch
    """
    try:
        from training.build import large
    except ModuleNotFoundError as exc:
        raise click.UsageError(f"{exc.name} is not installed; pip install 'tierwise[encoder]'") from exc
    step = _Steps()
    step(f"reading {corpora_folder}")
    rows = training_set.training_rows(corpora_folder)
    small_folder = artifacts.find(small)
    unrated = training_set.unrated(corpora_folder, rows)
    fitted = large.learn(rows, unrated, export.read_unfolded(small_folder), cache, step)
    real, data = fitted.real, training_set.provenance(rows, corpora_folder)

    def metrics_of(q: Array) -> dict[str, Any]:
        points = fitted.points(q)
        on_points = measures.points_on_real_requests(real, q, points)
        return {"real_requests": measures.on_real_requests(real, 1 - q[:, 0]), "points_on_real_requests": on_points}

    names = [f"complexity-{kind}-v{version}" for kind in ("encoder", "large", "cascade")]
    metrics = metrics_of(fitted.q_encoder)
    document = card_large.render_encoder(names[0], e5.NAME, large.N_LAYERS, metrics, data).encode()
    large.write_encoder(out / names[0], fitted, version, metrics, data, document)
    step(f"wrote {out / names[0]}")
    report = {names[0]: metrics["real_requests"]["all"]["model"]}
    for name, band in zip(names[1:], ((0.0, 1.01), fitted.band()), strict=True):
        asked = {"band": band, "weight": large.WEIGHT, "asked": fitted.asked(*band)}
        metrics = metrics_of(fitted.pooled(*band)) | asked
        document = card_large.render_cascade(name, (small_folder.name, names[0]), metrics).encode()
        large.write_cascade(out / name, fitted, (small_folder, out / names[0]), band, version, metrics, document)
        step(f"wrote {out / name}")
        report[name] = metrics["real_requests"]["all"]["model"] | {"asked": metrics["asked"]}
    click.echo(json.dumps(report))


@main.command("evaluate")
@_corpora
@_model
@click.option("--leave-one-out", is_flag=True, help="Refit without each outcome set in turn, then score that set.")
@click.option("--real", "real_only", is_flag=True, help="Only requests that people typed, each family left out.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def evaluate_command(
    corpora_folder: Path, artifact: Path | None, leave_one_out: bool, real_only: bool, as_json: bool
) -> None:
    """APGR and CPT on outcome sets beside prompt length and random; calibration, confusion, shares, behaviour.

    Without --leave-one-out the model has seen some of these sets: only the left-out figures estimate new traffic.
    With it come requests that people typed, beside ratings of them, each family of sources left out.

    \b
    Examples:
      python -m training evaluate --corpora DIR --real
      python -m training evaluate --corpora DIR --leave-one-out --json
    """
    step = _Steps()
    sets = corpora.outcome_sets(corpora_folder)
    folder = artifacts.find(artifact)
    unfolded = export.read_unfolded(folder)
    if leave_one_out or real_only:
        rows = training_set.training_rows(corpora_folder)
        x = unfolded.embedding.features(rows.texts)
    if real_only:
        report = _on_real_requests(folder, unfolded, rows, x)
        click.echo(json.dumps(report)) if as_json else _print_real_requests(*report.values())
        return
    if leave_one_out:
        left_out = measures.LeftOut(rows, x, unfolded.classifier)
        report = measures.leave_one_out(unfolded.embedding, left_out, sets, step)
        step("requests that people typed")
        report |= _on_real_requests(folder, unfolded, rows, x)
    else:
        report = measures.on_outcomes(sets, lambda outcomes: 1 - unfolded.predict(outcomes.texts)[0][:, 0], step)
    step("labelled sets, shares by tier, behaviour, detection")
    report |= _examine(unfolded, artifacts.load(folder).manifest.operating_points, corpora_folder)
    if leave_one_out:
        step("our own queries, out of fold")
        own = unfolded.classifier.calibrated(fit.out_of_fold_logits(x, rows))
        _, required, languages = measures.own_labels()
        report["labelled"]["tierwise_queries"] = measures.labelled_report(own, required, languages)
    if as_json:
        click.echo(json.dumps(report))
    else:
        _print_evaluation(report)


def _on_real_requests(
    folder: Path, unfolded: export.Unfolded, rows: training_set.Rows, x: sparse.csr_matrix
) -> dict[str, Any]:
    """Each family of real requests scored by a fit without it, and what the artifact's operating points do to them."""
    real = rows.select(rows.real)
    q = fit.suffices(unfolded.classifier.calibrated(fit.left_out_logits(x, rows)))
    points = artifacts.load(folder).manifest.operating_points
    return {
        "real_requests": measures.on_real_requests(real, 1 - q[:, 0]),
        "points_on_real_requests": measures.points_on_real_requests(real, q, points),
    }


@main.command("learn-curve")
@_corpora
@_model
@click.option("--seeds", default=4, show_default=True, type=click.IntRange(2), help="Random splits for each size.")
@click.option("--sizes", default=",".join(map(str, curve.SIZES)), show_default=True, help="Numbers of labelled rows.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def learn_curve(corpora_folder: Path, artifact: Path | None, seeds: int, sizes: str, as_json: bool) -> None:
    """Held-out APGR inside each outcome set after learning from some of its rows, beside a plain ridge from scratch.

    The prior is the model without the set: it is refitted for the sets that it has seen.

    Example: python -m training learn-curve --corpora DIR --sizes 300,1500 --seeds 8
    """
    step = _Steps()
    numbers = _numbers(sizes)
    unfolded = export.read_unfolded(artifacts.find(artifact))
    rows = training_set.training_rows(corpora_folder)
    left_out = measures.LeftOut(rows, unfolded.embedding.features(rows.texts), unfolded.classifier)
    sets = corpora.outcome_sets(corpora_folder)
    report = curve.learning_curve(sets, unfolded.embedding, left_out, numbers, seeds, step)
    if as_json:
        click.echo(json.dumps(report))
        return
    click.echo(f"{'':<22}" + "".join(f"{size:>18} rows" for size in numbers))
    click.echo(f"{'outcome set':<22}" + "   learned (scratch)  " * len(numbers))
    for name, row in [*((name, row["sizes"]) for name, row in report["datasets"].items()), ("mean", report["mean"])]:
        click.echo(f"{name:<22}" + "".join(f"{curve.cell(row.get(str(size))):>23}" for size in numbers))


@main.command("out-of-fold")
@_corpora
@_model
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=corpora.OUT_OF_FOLD,
    show_default=True,
    help="The CSV to write.",
)
def out_of_fold(corpora_folder: Path, artifact: Path | None, out: Path) -> None:
    """P(suffices) of each of our own queries by a fit that did not see it: what `tierwise tune --scores` reads.

    Example: python -m training out-of-fold --corpora DIR --out scores.csv
    """
    step = _Steps()
    unfolded = export.read_unfolded(artifacts.find(artifact))
    rows = training_set.training_rows(corpora_folder)
    step(f"cross-fitting {fit.N_FOLDS} folds of {len(rows)} rows")
    logits = fit.out_of_fold_logits(unfolded.embedding.features(rows.texts), rows)
    known = fit.suffices(unfolded.classifier.calibrated(logits))
    own = rows.select(rows.sources == "tierwise_queries")
    _, novelty = unfolded.predict(own.texts)
    q = known + novelty[:, None] * (np.cumsum(fit.TRAFFIC_MIX) - known)
    corpora.write_scores(out, own.ids.tolist(), q)
    click.echo(json.dumps({"scores": str(out), "n": len(own)}))


def _print_evaluation(report: dict[str, Any]) -> None:
    click.echo(
        f"{'outcome set':<22}{'prompts':>8}{'model':>9}{'length':>9}{'random':>9}{'CPT50':>8}{'CPT80':>8}{'ECE':>8}"
    )
    for name, row in report["datasets"].items():
        scores = "".join(f"{row[key]['apgr']:>9.3f}" for key in ("model", "length", "random"))
        rest = f"{row['model']['cpt50']:>8.2f}{row['model']['cpt80']:>8.2f}{row['calibration']['ece']:>8.3f}"
        click.echo(f"{name:<22}{row['n']:>8}{scores}{rest}")
    click.echo(f"{'mean':<30}" + "".join(f"{value:>9.3f}" for value in report["mean_apgr"].values()))
    if "real_requests" in report:
        _print_real_requests(report["real_requests"], report["points_on_real_requests"])
    click.echo(f"\n{'labelled set':<22}{'rows':>8}{'AUC':>9}{'accuracy':>9}{'ECE':>9}")
    for name, row in report["labelled"].items():
        ece = row["calibration"]["simple"]["ece"]
        click.echo(f"{name:<22}{row['n']:>8}{row['auc_complex_over_simple']:>9.3f}{row['accuracy']:>9.3f}{ece:>9.3f}")
    suite = report["behaviour"]
    click.echo(f"\nbehaviour: {suite['passed']} of {suite['n']} cases hold")
    found = report["out_of_distribution"]
    click.echo("out of distribution, found: " + ", ".join(f"{kind} {share:.0%}" for kind, share in found.items()))


def _print_real_requests(real: dict[str, Any], points: dict[str, Any]) -> None:
    click.echo(f"\n{'real requests':<26}{'rows':>7}{'Spearman':>16}{'AUC':>16}{'accuracy':>16}   (prompt length)")
    for name, row in real.items():
        pairs = [(row["model"][key], row["length"][key]) for key in ("spearman", "auc", "accuracy")]
        cells = "".join(f"{'-' if a is None else f'{a:.3f} ({b:.3f})':>16}" for a, b in pairs)
        click.echo(f"{name:<26}{row['n']:>7}{cells}")
    click.echo(f"\n{'on real requests':<22}{'worse than the top tier':>28}{'cost':>7}   shares")
    for name, row in points.items():
        low, high = row["interval"]
        cell = f"{row['below']:.1%} [{low:.1%}, {high:.1%}]"
        click.echo(f"{name:<22}{cell:>28}{row['cost']:>7.2f}   {', '.join(f'{share:.0%}' for share in row['shares'])}")


def _examine(unfolded: export.Unfolded, points: measures.Points, corpora_folder: Path) -> dict[str, Any]:
    """What needs no outcomes: labelled sets that were not trained on, shares by tier, behaviour, detection."""
    texts, required = measures.support_messages()
    support = unfolded.classifier.p_required(unfolded.embedding.features(texts))
    length = np.array([len(text) for text in texts], float)
    at = measures.thresholds_of(points)[behaviour.POINT]
    return {
        "labelled": {"support_messages": measures.labelled_report(support, required, ["en"] * len(required))},
        "support_length_auc": round(measures.auc(length, required), 4),
        "prompts": measures.on_prompts(unfolded, corpora.samples(corpora_folder), points),
        "behaviour": behaviour.run(behaviour.cases(), lambda texts: unfolded.route(texts, at)),
        "out_of_distribution": measures.detection(unfolded),
    }


def _numbers(text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        numbers = (-1,)
    if numbers[0] < 0:
        raise click.BadParameter(
            f"{text!r}: expected numbers of rows from 0, such as 100,300,1000", param_hint="--sizes"
        )
    return numbers


if __name__ == "__main__":
    try:
        main()
    except corpora.CorporaMissing as exc:
        click.echo(f"error: {exc}", err=True)
        sys.exit(2)
