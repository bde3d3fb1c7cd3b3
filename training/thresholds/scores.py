"""Where P(suffices) comes from when tuning: the artifact, a rule, prompt length or chance; and a problem from files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from router.catalog import Fleet
from router.classifier import model
from router.classifier.artifact import Artifact
from router.decide.rules import any_of, n_words
from training.build.arrays import Array
from training.rows.tables import Table
from training.thresholds import losses
from training.thresholds.losses import Losses
from training.thresholds.tradeoff import TOP, Costs, Problem, workload_of


def load_problem(
    source: Path | Table,
    fleet: Fleet,
    artifact: Artifact,
    *,
    scores: Path | None = None,
    records: Path | None = None,
    mix: tuple[float, ...] | None = None,
    terms: tuple[str, ...] | None = None,
    shown: Callable[[list[str]], Iterable[str]] = iter,
) -> tuple[Losses, Problem]:
    """Labelled rows and the problem that they pose.

    The rows are scored by `artifact`, by id from the file `scores`, or by the rule of `terms`. Costs come from
    `records`; `shown` wraps the texts while they are scored. Raises LabelError, or Refused for a mix that the labels
    cannot have.
    """
    rows = losses.read_losses(source, fleet)
    costs = Costs(fleet, *workload_of(records, fleet)) if records else Costs(fleet)
    if terms is not None:
        return rows, with_rule(rows, Problem.of(rows, of_rule(rows.texts, terms), costs, mix=mix), terms)
    if scores is not None:
        return rows, Problem.of(rows, losses.read_scores(scores, rows), costs, mix=mix)
    losses.check_unseen(rows, artifact.manifest)
    rows = losses.unseen(rows, artifact.path)
    q, novel = of_artifact(artifact, shown(rows.texts))
    return rows, Problem.of(rows, q, costs, novel, mix)


def of_artifact(artifact: Artifact, texts: Iterable[str]) -> tuple[Array, npt.NDArray[np.bool_]]:
    """P(suffices) float64 [n, 3] of each text, and whether it is out of distribution, as the runtime sees them."""
    classifier = model.of(artifact)
    seen = [classifier.predict(text) for text in texts]
    return np.array([p.p_suffices for p in seen]), np.array([p.novelty > artifact.manifest.max_novelty for p in seen])


def of_rule(texts: list[str], terms: tuple[str, ...] = ()) -> Array:
    """Scores of the rule "up to N words and none of these terms": q_simple falls with words, 0 with a term; [n, 3]."""
    holds = any_of(terms) if terms else lambda _: False
    simple = np.array([0.0 if holds(text) else 1 / (1 + n_words(text)) for text in texts])
    return np.column_stack([simple, np.zeros(len(texts)), np.ones(len(texts))])


def with_rule(rows: Losses, problem: Problem, terms: tuple[str, ...] = ()) -> Problem:
    """The same problem for the rule: one split point between the lowest and the top tier."""
    loss = rows.loss.copy()
    loss[:, 1:TOP] = np.nan
    return dataclasses.replace(problem, q=of_rule(rows.texts, terms), loss=loss, novel=np.zeros(len(rows), bool))


def of_ranks(score: Array) -> Array:
    """q [n, 3] of one number a row, the higher the easier: its rank, which both thresholds cut."""
    rank = score.argsort(kind="stable").argsort() / max(len(score) - 1, 1)
    return np.column_stack([rank, rank, np.ones(len(score))])


def words_of(threshold: float) -> int:
    """N of the rule whose threshold on q_simple this is; 0 for a rule that never holds."""
    return int(1 / threshold - 1 + 1e-9) if 0 < threshold <= 1 else 0
