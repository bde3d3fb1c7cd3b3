"""The model card and its plot, from the same figures as the manifest."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from router.classifier.artifact import OperatingPoint
from router.types import Tier
from training.build import e5
from training.build.embedding import DIMENSIONS, HEAD_CHARS, TAIL_CHARS
from training.build.fit import RELATIVE_PRICE
from training.build.training_set import ROW_WEIGHT
from training.examine.curve import cell

_LINES = (
    ("learned", "C0o-", "this model as prior"),
    ("scratch", "C1s--", "plain ridge from scratch"),
    ("length", "C7:", "prompt length"),
)

_LIMITS = """## Limits

- Ratings were made by a language model that read each request against a rubric; nobody ran the models on them. Two of
  its passes agree (Spearman .89 to .96), which does not say that they are right.
- "Cheap" and "strong" in the outcome sets mean models of 2023 to 2025; today's cheap tier is better. They are
  benchmarks with known templates.
- Real requests are of 2023 and 2024 but for those typed to coding agents. Tune the thresholds, or retrain, on yours.
- Two thirds of our labels are English. Other languages are read through the embedding, and less well.
- It sees the task's text only: not the images, not the tools, not what the user will do with the answer."""


def render(
    name: str,
    version: int,
    operating_points: dict[str, OperatingPoint],
    metrics: dict[str, Any],
    training_data: Sequence[Mapping[str, object]],
) -> str:
    """The card as Markdown."""
    sections = (
        _introduction(name, version),
        real_requests(metrics["real_requests"]),
        on_real_requests(metrics["points_on_real_requests"]),
        _against_length(metrics["leave_one_out"]),
        _few_labels(metrics["learning_curve"]),
        _labelled_requests(metrics),
        _calibration(metrics),
        _behaviour(metrics["behaviour"]),
        _out_of_distribution(metrics),
        _operating_points("the real requests", operating_points),
        _training_data(training_data),
        _LIMITS,
    )
    return "\n\n".join(sections) + "\n"


def render_retrained(
    name: str,
    operating_points: dict[str, OperatingPoint],
    metrics: dict[str, Any],
    training_data: Sequence[Mapping[str, object]],
) -> str:
    """The card of a model that was retrained on the user's labels, as Markdown."""
    quality, noise, conflicts = metrics["out_of_fold"], metrics["noise"], metrics["conflicts"]
    low, high = quality["apgr_interval"]
    doubtful = "not estimated" if noise["share"] is None else f"{noise['share']:.1%}"
    return f"""# {name}

{metrics["base"]}, retrained on {metrics["n_labels"]} labels of its user's traffic, with {metrics["base"]} as prior.
{metrics["n_training"]} texts trained it, {metrics["n_held_out"]} were held out for the gate, whole groups of
near-duplicates and conversations on one side ({metrics["n_groups"]} groups). What the gate found is in gate.json.

## Labels

By method: {", ".join(f"{method} {n}" for method, n in metrics["methods"].items())}. Required tier:
{_shares(metrics["shares"])}. {conflicts["repeated_texts"]} texts come more than once, {conflicts["conflicting_texts"]}
with labels that disagree: {conflicts["decision"]}. Share of the {noise["n_sure"]} sure labels that look wrong
(confident learning, out of fold): {doubtful}.

## On the training side, out of fold

APGR {quality["apgr"]:.3f} [{low:.3f}, {high:.3f}] (.5 is random). P(simple suffices): ECE {quality["ece"]:.3f}, Brier
score {quality["brier"]:.3f}. Penalty {metrics["penalty"]:g}.

{_operating_points("the labels' own mix of tiers", operating_points)}

## Training data

| source | licence | rows |
|---|---|---|
{chr(10).join(f"| {row['source']} | {row['licence']} | {row['n_rows']} |" for row in training_data)}

## Limits

- It is as right as its labels, and as good on other traffic as the gate's behavioural suite says.
- Probabilities and thresholds hold for the mix of tiers among the labels. Labels that were sampled where they help most
  carry weights that give back the traffic's mix; labels picked by hand do not.
"""


def render_classes(
    name: str,
    operating_points: Mapping[str, OperatingPoint],
    metrics: dict[str, Any],
    training_data: Sequence[Mapping[str, object]],
) -> str:
    """The card of a model that has learned classes of traffic, as Markdown."""
    quality = metrics["out_of_fold"]
    low, high = quality["apgr_interval"]
    return f"""# {name}

{metrics["base"]}, with what {metrics["n_training"]} labels of its user's traffic say of each class. Requests of other
classes, or of none, are decided as by {metrics["base"]}. What the gate found is in gate.json.

| class | labels | harder than the base has it, in logits | weight of the base | learned from its texts |
|---|---|---|---|---|
{chr(10).join(map(_class_row, metrics["classes"]))}

## Labels

{metrics["n_labels"]} rows; without a class {metrics["n_without_class"]}, seen by the base {metrics["n_seen_by_base"]}:
both left out. {metrics["conflicts"]["repeated_texts"]} texts come more than once in a class. Required tier:
{_shares(metrics["shares"])}.

## Out of fold

APGR {quality["apgr"]:.3f} [{low:.3f}, {high:.3f}] over all classes together (.5 is random). P(simple suffices): ECE
{quality["ece"]:.3f}, Brier score {quality["brier"]:.3f}.

{_operating_points(f"{metrics['base']}'s", dict(operating_points))}

## Training data

| source | licence | rows |
|---|---|---|
{chr(10).join(f"| {row['source']} | {row['licence']} | {row['n_rows']} |" for row in training_data)}

## Limits

- It is as right as its labels. A class whose traffic changes needs new ones.
- A class that is not in the table is decided as by {metrics["base"]}.
"""


def _class_row(row: dict[str, Any]) -> str:
    harder = row["shift"][Tier.COMPLEX] - row["shift"][Tier.SIMPLE]
    error = (row["error"][Tier.COMPLEX] ** 2 + row["error"][Tier.SIMPLE] ** 2) ** 0.5
    learned = "yes" if row["residual"] else "no"
    return f"| {row['class']} | {row['labels']} | {harder:+.2f} (error {error:.2f}) | {row['slope']:.2f} | {learned} |"


def plot(curve: dict[str, Any]) -> bytes:
    """Held-out APGR over the number of labels, one panel a set: learned (with interval), from scratch, length; SVG."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    names = [name for name, row in curve["datasets"].items() if row["sizes"]] or list(curve["datasets"])[:1]
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    with mpl.rc_context({"svg.hashsalt": "tierwise", "svg.fonttype": "none"}):  # the same bytes every time
        figure = Figure(figsize=(4 * columns, 2.8 * rows), layout="constrained")
        for axes, name in zip(figure.subplots(rows, columns, squeeze=False).flat, names, strict=False):
            sizes = curve["datasets"][name]["sizes"]
            at = np.arange(len(sizes))
            low, high = np.array([row["learned"]["interval"] for row in sizes.values()]).reshape(-1, 2).T
            axes.fill_between(at, low, high, alpha=0.2, color="C0", linewidth=0)
            for key, style, label in _LINES:
                heights = [row[key]["apgr"] if key in row else np.nan for row in sizes.values()]
                axes.plot(at, heights, style, label=label)
            axes.set_xticks(at, sizes)
            axes.set_title(name, fontsize=10)
        figure.axes[0].legend(fontsize=7, frameon=False)
        figure.supxlabel("labelled rows")
        figure.supylabel("APGR on the others")
        out = io.BytesIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def _introduction(name: str, version: int) -> str:
    return f"""# {name}-v{version}

Reads a request and gives, for each tier, the probability that a model of that tier answers it as well as the top tier
would. A text's distinct tokens, weighted by idf, as a bag and through a multilingual static embedding ({DIMENSIONS}
dimensions, from {e5.NAME}, MIT, package `{e5.PACKAGE}`, MIT), and structural numbers feed a regression on the log
odds that the simple and that the moderate tier suffices, as rated. Everything is folded into one row a token, so that
the runtime does one lookup and one softmax. The first {HEAD_CHARS} and the last {TAIL_CHARS} characters are read.
Capitals change nothing.

Rebuild it with `python -m training build --corpora DIR`; every figure below comes from that command. Retrain on your
own labels: see "A few labels" for what to expect."""


def real_requests(real: dict[str, Any]) -> str:
    """How well a score agrees with the ratings of real requests, by data set; as measures.on_real_requests has it."""

    def cells(row: dict[str, Any]) -> str:
        pairs = [(row["model"][key], row["length"][key]) for key in ("spearman", "auc", "accuracy")]
        return " | ".join("-" if model is None else f"{model:.3f} ({length:.3f})" for model, length in pairs)

    rows = "\n".join(
        f"| {name} | {row['n']} | {cells(row)} |"
        for name, row in {**real, "**all**": real["all"]}.items()
        if name != "all"
    )
    return f"""## Requests that people typed

Rated by reading; each family of data sets was left out of training whole (arena_cje goes with arena_convotopo). In
brackets: prompt length. Spearman is the rank correlation with the rated probability that the small tier does not
suffice; AUC is that of complex over simple; accuracy is that of the three classes at the ratings' own shares.

| data set | requests | Spearman | AUC | accuracy |
|---|---|---|---|---|
{rows}"""


def on_real_requests(points: dict[str, Any]) -> str:
    """What operating points do to real requests; as measures.points_on_real_requests has it."""
    rows = "\n".join(
        f"| {name} | {row['below']:.1%} [{row['interval'][0]:.1%}, {row['interval'][1]:.1%}] | {row['cost']:.2f} | "
        f"{' | '.join(f'{share:.0%}' for share in row['shares'])} |"
        for name, row in points.items()
    )
    return f"""## What the operating points do to them

Share of requests whose answer is worse than the top tier's, as rated, with its 95 % interval, and the cost, where
always taking the top tier is 1 (tiers at {", ".join(f"{price:g}" for price in RELATIVE_PRICE)}).

| point | worse than the top tier | cost | {" | ".join(f"to {tier.value}" for tier in Tier)} |
|---|---|---|{"---|" * len(Tier)}
{rows}"""


def _against_length(held_out: dict[str, Any]) -> str:
    mean = held_out["mean_apgr"]
    return f"""## Does it beat prompt length?

Each outcome set is left out of training whole, then ranked by P(the simple tier does not suffice). APGR: .5 is random,
higher is better; 95 % bootstrap intervals. CPT: share of strong calls that recovers 50 or 80 % of the gap.

| outcome set | prompts | this model | prompt length | random | CPT(50 %) | CPT(80 %) |
|---|---|---|---|---|---|---|
{_outcome_rows(held_out)}
| **mean** | | **{mean["model"]:.3f}** | {mean["length"]:.3f} | \
{mean["random"]:.3f} | | |

Zero-shot, on benchmarks it has never seen, it is little better than chance: their templates hide what a question asks
(training/EXPERIMENTS.md). Labels of your own are what helps:"""


def _few_labels(curve: dict[str, Any]) -> str:
    return f"""## A few labels

![learning curve](learning-curve.svg)

Held-out APGR inside each set after learning from n of its rows, starting from this model without the set; in brackets a
plain ridge from scratch over word pairs, a mean embedding and length, on the same rows.

| outcome set | {" | ".join(f"{size} rows" for size in curve["mean"])} |
|---|{"---|" * len(curve["mean"])}
{_curve_rows(curve)}"""


def _labelled_requests(metrics: dict[str, Any]) -> str:
    labelled, support = metrics["labelled_out_of_fold"], metrics["labelled"]["support_messages"]
    return f"""## Labelled requests

The demo's {support["n"]} customer messages (never trained on, one domain, 70/20/10): AUC of complex over simple
{support["auc_complex_over_simple"]:.3f} (prompt length: {metrics["support_length_auc"]:.3f}).

Our own queries, out of fold: {labelled["n"]} in {len(labelled["confusion_by_language"])} languages, written so that
length and surface words do not give the tier away. Accuracy of the most probable tier {labelled["accuracy"]:.3f} (at
traffic-mix priors), AUC of complex over simple {labelled["auc_complex_over_simple"]:.3f} (prompt length:
{metrics["length_auc"]:.3f})."""


def _calibration(metrics: dict[str, Any]) -> str:
    return f"""## Calibration

ECE of P(simple suffices), and Brier score, before and after recalibrating on one half of the set and scoring the other.
On outcome sets the truth is 1 - gain of the strong models of their time, and the set was left out.

| set | rows | ECE before | ECE after | Brier before | Brier after |
|---|---|---|---|---|---|
{_calibration_rows(metrics)}"""


def _behaviour(suite: dict[str, Any]) -> str:
    return f"""## Behaviour

{suite["passed"]} of {suite["n"]} cases of data/behaviour.jsonl hold at `balanced`. None was trained on;
"common words" took part in choosing between recipes.

| group | kind | hold |
|---|---|---|
{_behaviour_rows(suite)}"""


def _out_of_distribution(metrics: dict[str, Any]) -> str:
    return f"""## Out of distribution

Made-up texts (not those of the fit) that are called out of distribution, and go to the top tier:
{_shares(metrics["out_of_distribution"])}.
Natural prompts that are, falsely, by data set: {_shares(_false_alarms(metrics["prompts"]))}."""


def _operating_points(mix: str, points: dict[str, OperatingPoint]) -> str:
    return f"""## Operating points

Tuned for {mix}.

| point | target | achieved (95 %) | {" | ".join(f"to {tier.value}" for tier in Tier)} | thresholds |
|---|---|---|{"---|" * len(Tier)}---|
{_point_rows(points)}"""


def _training_data(training_data: Sequence[Mapping[str, object]]) -> str:
    return f"""## Training data

| source | licence | rows | weight of a row |
|---|---|---|---|
{_source_rows(training_data)}"""


def _outcome_rows(report: dict[str, Any]) -> str:
    def interval(metrics: dict[str, Any]) -> str:
        low, high = metrics["apgr_interval"]
        return f"{metrics['apgr']:.3f} [{low:.3f}, {high:.3f}]"

    return "\n".join(
        f"| {name} | {row['n']} | {interval(row['model'])} | {interval(row['length'])} | {row['random']['apgr']:.3f} "
        f"| {row['model']['cpt50']:.2f} | {row['model']['cpt80']:.2f} |"
        for name, row in report["datasets"].items()
    )


def _curve_rows(curve: dict[str, Any]) -> str:
    rows = [(name, row["sizes"]) for name, row in curve["datasets"].items()]
    return "\n".join(
        f"| {name} | " + " | ".join(cell(row.get(size)) for size in curve["mean"]) + " |"
        for name, row in [*rows, ("**mean**", curve["mean"])]
    )


def _calibration_rows(metrics: dict[str, Any]) -> str:
    labelled = {"our queries (out of fold)": metrics["labelled_out_of_fold"], **metrics["labelled"]}
    rows = [(name, r["n"], r["calibration"]["simple"], r["recalibrated"]["simple"]) for name, r in labelled.items()]
    left_out = metrics["leave_one_out"]["datasets"]
    rows += [(name, r["n"], r["calibration"], r["recalibrated"]) for name, r in left_out.items()]
    return "\n".join(
        f"| {name} | {n} | {before['ece']:.3f} | {after['ece']:.3f} | {before['brier']:.3f} | {after['brier']:.3f} |"
        for name, n, before, after in rows
    )


def _behaviour_rows(suite: dict[str, Any]) -> str:
    return "\n".join(
        f"| {name.replace('_', ' ')} | {row['kind']} | {row['passed']} of {row['n']} |"
        for name, row in suite["groups"].items()
    )


def _false_alarms(prompts: dict[str, Any]) -> dict[str, float]:
    return {name: row["out_of_distribution"] for name, row in prompts.items()}


def _shares(report: dict[str, float]) -> str:
    return ", ".join(f"{name} {share:.1%}" for name, share in report.items())


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


def _source_rows(training_data: Sequence[Mapping[str, object]]) -> str:
    return "\n".join(
        f"| {row['source']} | {row['licence']} | {row['n_rows']} | {ROW_WEIGHT[str(row['source'])]:g} |"
        for row in training_data
    )
