"""The cards of the encoder and of the artifacts that ask it, from the same figures as their manifests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from training.build.training_set import ROW_WEIGHT
from training.examine.card import on_real_requests, real_requests


def render_encoder(
    name: str, base: str, n_layers: int, metrics: dict[str, Any], training_data: Sequence[Mapping[str, object]]
) -> str:
    """The card of the encoder alone, as Markdown."""
    rows = "\n".join(
        f"| {row['source']} | {row['licence']} | {row['n_rows']} | {ROW_WEIGHT[str(row['source'])]:g} |"
        for row in training_data
    )
    return f"""# {name}

Reads the tokens of a request in their order: the first {n_layers} layers of {base} (MIT), fine-tuned on
rated requests, in int8. The mean of its last layer goes through a regression on the log odds that the simple and that
the moderate tier suffices. It reads many languages. The `large` and `cascade` artifacts ask it beside the small model.

It learned from ratings and from three teachers, which had learned from ratings; these spoke of prompts that nobody had
rated too, and of excerpts. Teachers and figures are without the families of requests below; what ships saw them as
well. Rebuild: `python -m training build-large --corpora DIR`.

{real_requests(metrics["real_requests"])}

## Training data

Language models rated; nobody ran the models on these requests.

| source | licence | rows | weight of a row |
|---|---|---|---|
{rows}
"""


def render_cascade(name: str, parts: tuple[str, str], metrics: dict[str, Any]) -> str:
    """The card of an artifact that asks two, as Markdown."""
    return f"""# {name}

Asks {parts[0]}, and {parts[1]} about {metrics["asked"]:.0%} of real requests: those for which the first one's
P(the simple tier suffices) lies in [{metrics["band"][0]:g}, {metrics["band"][1]:g}). There the encoder's word
weighs {metrics["weight"]:g}, the small model's the rest. Both saw nothing of the families of requests below.

{real_requests(metrics["real_requests"])}

{on_real_requests(metrics["points_on_real_requests"])}
"""
