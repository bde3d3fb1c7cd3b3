"""The model card, written from the same figures as the manifest."""

from __future__ import annotations

from typing import Any

from router.artifact import OperatingPoint
from router.types import Tier
from training.dataset import SOURCE_WEIGHT
from training.embedding import DIMENSIONS, HEAD_CHARS, TAIL_CHARS, TEACHER, TEACHER_PACKAGE


def render(
    name: str,
    version: int,
    operating_points: dict[str, OperatingPoint],
    metrics: dict[str, Any],
    training_data: list[dict[str, object]],
) -> str:
    """The card as Markdown."""
    labelled = metrics["labelled_out_of_fold"]
    held_out = metrics["leave_one_out"]
    support = metrics["support_messages"]
    return f"""# {name}-v{version}

Reads a request and gives, for each tier, the probability that a model of that tier answers it as well as the top tier
would. A text's distinct tokens, weighted by idf, as a bag and through a static embedding ({DIMENSIONS} dimensions,
distilled from {TEACHER}, Apache-2.0, package `{TEACHER_PACKAGE}`), and ten structural numbers feed a multinomial
logistic regression. Everything is folded into one row a token, so that the runtime does one lookup and one softmax. The
first {HEAD_CHARS} and the last {TAIL_CHARS} characters are read.

Rebuild it with `python -m training build`; every figure below comes from that command.

## Does it beat prompt length?

Each outcome set is left out of training whole, then ranked by P(the simple tier does not suffice). APGR: .5 is random,
higher is better; 95 % bootstrap intervals.

| outcome set | prompts | this model | prompt length | random |
|---|---|---|---|---|
{_outcome_rows(held_out)}
| **mean** | | **{held_out["mean_apgr"]["model"]:.3f}** | {held_out["mean_apgr"]["length"]:.3f} | \
{held_out["mean_apgr"]["random"]:.3f} |

## Labelled requests

The demo's {support["n"]} customer messages (never trained on, one domain, 70/20/10): AUC of complex over simple
{support["auc_complex_over_simple"]:.3f} (prompt length: {metrics["support_length_auc"]:.3f}).

Our own queries, out of fold:

{labelled["n"]} queries in {len(labelled["accuracy_by_language"])} languages, written so that length and surface words
do not give the tier away. Accuracy of the most probable tier {labelled["accuracy"]:.3f} (at traffic-mix priors), AUC of
complex over simple {labelled["auc_complex_over_simple"]:.3f} (prompt length: {metrics["length_auc"]:.3f}).

| P(suffices) of | ECE | Brier |
|---|---|---|
{_calibration_rows(labelled["calibration"])}

## Operating points

Tuned for a mix of 70 % simple, 20 % moderate, 10 % complex requests.

| point | target | achieved (95 %) | {" | ".join(f"to {tier.value}" for tier in Tier)} | thresholds |
|---|---|---|{"---|" * len(Tier)}---|
{_point_rows(operating_points)}

## Training data

| source | licence | rows | weight |
|---|---|---|---|
{_source_rows(training_data)}

## Limits

- "Cheap" and "strong" in the outcome sets mean models of 2023 to 2025; today's cheap tier is better. Tune the
  thresholds, or retrain, on your own traffic.
- Outcome sets are benchmarks with known templates; real chat has no outcomes here, only authored labels and ratings.
- Ratings were made by a language model reading each prompt against a rubric, authored labels by their author. A text in
  the style of our authors is easier for this model than yours: expect less than the out-of-fold figures.
- The vocabulary is English WordPiece. Other scripts are read character by character or not at all; where more than
  three tokens in ten are unknown, the request goes to the top tier as out of distribution.
- It sees the task's text only: not the images, not the tools, not what the user will do with the answer.
"""


def _outcome_rows(report: dict[str, Any]) -> str:
    def cell(metrics: dict[str, Any]) -> str:
        low, high = metrics["apgr_interval"]
        return f"{metrics['apgr']:.3f} [{low:.3f}, {high:.3f}]"

    return "\n".join(
        f"| {name} | {row['n']} | {cell(row['model'])} | {cell(row['length'])} | {row['random']['apgr']:.3f} |"
        for name, row in report["datasets"].items()
    )


def _calibration_rows(report: dict[str, Any]) -> str:
    return "\n".join(f"| {tier} | {row['ece']:.3f} | {row['brier']:.3f} |" for tier, row in report.items())


def _point_rows(points: dict[str, OperatingPoint]) -> str:
    rows = []
    for name, point in points.items():
        shares = " | ".join(f"{share:.0%}" for share in point.shares.values())
        thresholds = ", ".join(f"{tier.value} {value:.3f}" for tier, value in point.thresholds.items())
        low, high = point.interval
        rows.append(
            f"| {name} | {point.target} | {point.achieved:.1%} [{low:.1%}, {high:.1%}] | {shares} | {thresholds} |"
        )
    return "\n".join(rows)


def _source_rows(training_data: list[dict[str, object]]) -> str:
    return "\n".join(
        f"| {row['source']} | {row['licence']} | {row['n_rows']} | {SOURCE_WEIGHT[str(row['source'])]:.0f} |"
        for row in training_data
    )
