"""What an artifact has learned of each application: for each class of traffic a correction of its logits.

    logits of a request = slope * the base's + offset + residual(text)

so that one application's "explain this" may need another tier than the next one's. A class that is not known is left as
the base has it. The file is plain arrays (`np.load` with allow_pickle=False); training/retrain/by_class.py writes it.
"""

from __future__ import annotations

import io
from math import exp, log
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from router.classifier.features import STRUCTURE, Features
from router.errors import ArtifactCorrupt
from router.types import Tier

CLASSES_FILE = "classes.npz"

LEAST = 1e-6
"""Probabilities below count as this: float32 cannot tell them apart."""

_Floats = npt.NDArray[np.float32]
_N_TIERS = len(Tier)
_OF_CLASS: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("names", "counts", "slopes"), ()),
    **dict.fromkeys(("offsets", "shifts", "errors"), (_N_TIERS,)),
}
_OF_DESIGN = ("residuals", "codes", "scales", "squares", "mean", "scale", "knots", "reach")


class Classes:
    """The classes of one artifact. Thread-safe.

    `counts` are the labels behind each; `shifts` say how far its average request lies from the base, in logits by tier
    (they sum to 0), `errors` their standard errors.
    """

    def __init__(self, data: bytes, where: Path) -> None:
        """Raises ArtifactCorrupt for a file of another form, naming `where`."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            n = len(arrays["names"])
            wrong = [name for name, shape in _OF_CLASS.items() if arrays[name].shape != (n, *shape)]
            has_residuals = "residuals" in arrays
            wrong += [name for name in _OF_DESIGN if has_residuals and name not in arrays]
            wrong += [name for name in arrays if arrays[name].dtype.kind == "f" and not np.isfinite(arrays[name]).all()]
            if wrong:
                raise ValueError(f"{', '.join(wrong)} cannot be used")
            self._design = _Design(arrays) if has_residuals else None
        except (ValueError, KeyError, OSError, EOFError) as exc:
            raise ArtifactCorrupt(f"{where}: {exc}; restore the file, or run `tierwise retrain` again") from exc
        self.names: tuple[str, ...] = tuple(arrays["names"].tolist())
        self.counts: list[int] = arrays["counts"].tolist()
        self.shifts, self.errors = arrays["shifts"], arrays["errors"]
        self._number = {name: number for number, name in enumerate(self.names)}
        self._slopes: list[float] = arrays["slopes"].tolist()
        self._offsets: list[list[float]] = arrays["offsets"].tolist()

    def first_known(self, names: tuple[str, ...]) -> str:
        """The first of the names that is a class here; "" if none is."""
        return next((name for name in names if name in self._number), "")

    def corrected(self, name: str, p_suffices: tuple[float, ...], features: Features) -> tuple[float, ...]:
        """P(suffices) of a request of this class, from the base's; as it is for a class that is not known."""
        number = self._number.get(name)
        if number is None:
            return p_suffices
        slope = self._slopes[number]
        z = [slope * value + offset for value, offset in zip(_logits(p_suffices), self._offsets[number], strict=True)]
        if self._design is not None and (residual := self._design.residual(number, features)) is not None:
            z = [value + more for value, more in zip(z, residual, strict=True)]
        highest = max(z)
        odds = [exp(value - highest) for value in z]
        total, below, out = sum(odds), 0.0, []
        for each in odds[:-1]:
            below += each / total
            out.append(below)
        return (*out, 1.0)


def _logits(p_suffices: tuple[float, ...]) -> list[float]:
    """The logarithm of P(required tier); what softmax makes them again."""
    below, out = 0.0, []
    for q in p_suffices:
        out.append(log(max(q - below, LEAST)))
        below = q
    return out


def logits(p_suffices: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The same for many: float64 [n, n_tiers]."""
    return np.asarray(np.log(np.maximum(np.diff(p_suffices, axis=1, prepend=0.0), LEAST)))


class _Design:
    """What a residual reads of a text: its bent structure and the sum of its tokens' vectors, one matrix a class.

    `residuals` [n_classes, n_dense, n_tiers], all 0 where a class has none; `codes` int8 [n_tokens + 1, n_dimensions]
    times `scales` are the tokens' vectors, `squares` their squared idf, the last row (padding) 0. It costs 20 us, and
    numpy's calls are most of that.
    """

    def __init__(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        residuals: _Floats = arrays["residuals"].astype(np.float32)
        self._codes, self._scales, self._squares = (arrays[name] for name in ("codes", "scales", "squares"))
        if not len(self._codes) == len(self._scales) == len(self._squares):
            raise ValueError("codes, scales and squares differ in length")
        n, knots = len(STRUCTURE), [0.0, *arrays["knots"].tolist()]
        n_bent = n * len(knots)
        if arrays["mean"].shape != (n,) or residuals.shape[1:] != (n_bent + self._codes.shape[1], _N_TIERS):
            raise ValueError(
                f"residuals are {residuals.shape}, expected [n, {n_bent + self._codes.shape[1]}, {_N_TIERS}]"
            )
        self._mean, self._scale = arrays["mean"].astype(np.float32), arrays["scale"].astype(np.float32)
        self._reach = np.float32(arrays["reach"])
        self._bends = np.tile(np.arange(n), len(knots))
        self._knots = np.repeat(knots, n).astype(np.float32)
        self._least = np.repeat([-np.inf, *(0.0 for _ in knots[1:])], n).astype(np.float32)
        self._residuals = [each if each.any() else None for each in residuals]

    def residual(self, number: int, features: Features) -> list[float] | None:
        """The logits that a class adds for its text, None where it has no residual."""
        matrix = self._residuals[number]
        if matrix is None:
            return None
        out: list[float] = (self.dense(features) @ matrix).tolist()
        return out

    def dense(self, features: Features) -> _Floats:
        """float32 [n_dense]: the structure, bent, and the embedded sum."""
        z = np.minimum(np.maximum((features.structure - self._mean) / self._scale, -self._reach), self._reach)
        bent = np.maximum(z[self._bends] - self._knots, self._least)
        ids = features.ids
        length = max(float(self._squares[ids].sum()), 1.0) ** 0.5
        embedded = (self._scales[ids] / np.float32(length)) @ self._codes[ids].astype(np.float32)
        return np.concatenate((bent, embedded))
