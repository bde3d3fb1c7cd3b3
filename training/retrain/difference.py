"""What changes from one artifact to another: files, thresholds, and where our own queries go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from router.classifier import artifact, model
from router.types import Tier
from training.build import corpora, fit


def diff(models: Path, one: str, other: str) -> dict[str, Any]:
    """What changes from one artifact to the other: files, thresholds, and where our own queries go at each point."""
    folders = [artifact.member(models, name) for name in (one, other)]
    loaded = [artifact.load(folder) for folder in folders]
    texts = corpora.queries()["text"].tolist()
    q = [model.of(a).predict_batch(texts).astype(np.float64) for a in loaded]
    points = {}
    for point in loaded[0].manifest.operating_points:
        if point not in loaded[1].manifest.operating_points:
            continue
        levels = [tuple(a.manifest.operating_points[point].thresholds[t] for t in list(Tier)[:-1]) for a in loaded]
        chosen = [fit.route(p, level) for p, level in zip(q, levels, strict=True)]
        points[point] = {
            "thresholds": [dict(zip(Tier, level, strict=False)) for level in levels],
            "up": round(float(np.mean(chosen[1] > chosen[0])), 4),
            "down": round(float(np.mean(chosen[1] < chosen[0])), 4),
        }
    files = sorted(
        {name for a in loaded for name in a.manifest.files}
        - {n for n, e in loaded[0].manifest.files.items() if loaded[1].manifest.files.get(n) == e}
    )
    return {"from": one, "to": other, "files_changed": files, "n_queries": len(texts), "operating_points": points}
