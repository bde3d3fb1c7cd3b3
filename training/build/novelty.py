"""Is a text anything like what the classifier was fitted on? One number a token, averaged, through a sigmoid.

Natural text in known languages against what is not: encoded bytes, random characters, keyboard mashing, scripts without
training rows. A logistic regression over attributes of tokens, averaged over a text's distinct tokens, is linear in the
tokens, so it folds into one column of the table.
"""

from __future__ import annotations

import base64
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from training.build import vocabulary
from training.build.embedding import Embedding
from training.build.vocabulary import START, UNKNOWN, script

N_SYNTHETIC = 600
"""Made-up texts of each kind in the fit."""

N_NATURAL = 4000
"""Texts of the corpora of each of two kinds, and the weight of our own."""

MAX_FALSE_ALARMS = 0.003
"""Share of natural training texts that may be called novel: what the threshold is set to."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Novelty:
    """P(out of distribution) = sigmoid(mean of `column` over a text's distinct tokens + `bias`).

    `column` float64 [n_tokens]; above `threshold` a text counts as out of distribution.
    """

    column: Array
    bias: float
    threshold: float

    def probability(self, bag: sparse.csr_matrix) -> Array:
        """float64 [n_texts] from a bag with a 1 for each distinct token [n_texts, n_tokens]."""
        count = np.maximum(np.asarray(bag.sum(axis=1)).ravel(), 1.0)
        return np.asarray(1 / (1 + np.exp(-(bag @ self.column / count + self.bias))))


def fit(embedding: Embedding, texts: list[str], own: list[str], seed: int = 0) -> Novelty:
    """Fit on natural texts against made-up ones.

    Natural are `own` (our queries, in every language that is meant to work) and a sample of `texts` with and without
    letters beyond ASCII: three groups of equal weight, so that neither English nor the corpora's Chinese is the norm.
    """
    chance = np.random.default_rng(seed)
    shuffled = [texts[i] for i in chance.permutation(len(texts))]
    groups = [
        own,
        [t for t in shuffled if t.isascii()][:N_NATURAL],
        [t for t in shuffled if not t.isascii()][:N_NATURAL],
    ]
    natural = [text for group in groups for text in group]
    strange = [text for kind in made_up(embedding, seed).values() for text in kind]
    _, bag = embedding.bag(natural + strange)
    column_of = attributes(embedding)
    count = np.maximum(np.asarray(bag.sum(axis=1)).ravel(), 1.0)
    x = sparse.diags(1 / count) @ bag @ column_of
    label = np.repeat((0, 1), (len(natural), len(strange)))
    scale = x.std(axis=0) + 1e-9
    weight = np.concatenate([*(np.full(len(g), N_NATURAL / max(len(g), 1)) for g in groups), np.ones(len(strange))])
    model = LogisticRegression(C=10.0, max_iter=1000).fit(x / scale, label, weight)
    column = column_of @ (model.coef_[0] / scale)
    novelty = Novelty(column, float(model.intercept_[0]), 0.5)
    alarm = novelty.probability(bag[: len(natural)])
    threshold = float(np.quantile(alarm, 1 - MAX_FALSE_ALARMS, weights=weight[: len(natural)], method="inverted_cdf"))
    return Novelty(column, novelty.bias, round(min(max(threshold, 0.5), 0.999), 4))


def attributes(embedding: Embedding) -> Array:
    """What a token says about its text, float64 [n_tokens, n_attributes]: met before, how rare for its length, kind."""
    pieces = vocabulary.pieces(embedding.tokenizer)
    rows = []
    for (piece, score), is_rare in zip(pieces, embedding.rare, strict=True):
        word = piece.removeprefix(START)
        kind = _kind(word)
        inside = not piece.startswith(START)
        # Natural words of an alphabet are long for their rarity, random letters fall into short pieces.
        letters = [kind == k for k in ("alphabet", "syllable")]
        rows.append(
            (
                is_rare,
                piece == UNKNOWN,
                *(letter * (1.0, inside, len(word), -score, is_rare)[i] for letter in letters for i in range(5)),
                kind == "digit",
                kind == "symbol",
                (kind == "symbol") * -score,
                inside and kind == "digit",
            )
        )
    return np.array(rows, np.float64)


def made_up(embedding: Embedding, seed: int, n: int = N_SYNTHETIC) -> dict[str, list[str]]:
    """Texts that no one asks: `n` of each kind, deterministic in `seed`."""
    chance = np.random.default_rng(seed)

    def data(low: int = 20, high: int = 400) -> bytes:
        return chance.bytes(int(chance.integers(low, high)))

    def words(alphabet: npt.NDArray[np.str_], longest: int = 10) -> str:
        sizes = chance.integers(2, longest, chance.integers(4, 60))
        return " ".join("".join(chance.choice(alphabet, size)) for size in sizes)

    lower = np.array([chr(c) for c in range(97, 123)])
    printable = np.array([chr(c) for c in range(33, 127)])
    plane = np.array([chr(c) for c in range(0x250, 0xFFFD) if unicodedata.category(chr(c))[0] in "LN"])
    foreign = np.array(_foreign_pieces(embedding))
    kinds: dict[str, Callable[[], str]] = {
        "base64": lambda: base64.b64encode(data()).decode(),
        "hexadecimal": lambda: data(20, 300).hex(),
        "bytes as Latin-1": lambda: data().decode("latin-1"),
        "bytes as UTF-8": lambda: data().decode("utf-8", "replace"),
        "random letters": lambda: words(lower),
        "random printable characters": lambda: words(printable),
        "random Unicode letters": lambda: words(plane),
        "unknown script": lambda: "".join(
            piece.replace(START, " ") for piece in chance.choice(foreign, chance.integers(5, 60))
        ),
    }
    return {
        kind: [make() for _ in range(n)] for kind, make in kinds.items() if kind != "unknown script" or foreign.size
    }


def _foreign_pieces(embedding: Embedding) -> list[str]:
    """Pieces of scripts that training hardly saw: under one piece in ten of the script."""
    seen: dict[str, list[bool]] = {}
    pieces = [piece for piece, _ in vocabulary.pieces(embedding.tokenizer)]
    scripts = [script(piece) for piece in pieces]
    for name, is_rare in zip(scripts, embedding.rare, strict=True):
        seen.setdefault(name, []).append(not is_rare)
    foreign = {name for name, flags in seen.items() if name and np.mean(flags) < 0.1}
    return [piece for piece, name in zip(pieces, scripts, strict=True) if name in foreign]


def _kind(word: str) -> str:
    name = script(word)
    if not name:
        return "digit" if any(c.isdigit() for c in word) else "symbol"
    return "syllable" if name in ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "THAI", "LAO", "KHMER") else "alphabet"
