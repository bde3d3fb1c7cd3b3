"""Near-duplicate texts, found by MinHash over their distinct tokens, in memory that grows by 128 bytes a text.

Broder 1997, "On the resemblance and containment of documents" (https://doi.org/10.1109/SEQUEN.1997.666900). The tokens
are at hand from the encoder, so that a million signatures take seconds; datasketch hashes each shingle in Python.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.csgraph import connected_components

N_HASHES = 64
BAND = 4
"""Hashes a band: two texts that share .8 of their tokens meet in one of the 16 bands with probability .9998."""

SAME = 0.8
"""Share of equal hashes, an estimate of |A & B| / |A | B| of the token sets, from which texts count as one."""

Signatures = npt.NDArray[np.uint16]


class Hasher:
    """Signatures of token sets over a vocabulary of `n_tokens`."""

    def __init__(self, n_tokens: int) -> None:
        chance = np.random.default_rng(0)
        self._hash = chance.integers(0, 2**16, (N_HASHES, n_tokens + 1), dtype=np.uint16)

    def sign(self, ids: npt.NDArray[np.int32], ends: npt.NDArray[np.int64]) -> Signatures:
        """uint16 [n_texts, N_HASHES]; text i has the tokens ids[ends[i]:ends[i + 1]]. An empty text is like none."""
        n_texts = len(ends) - 1
        empty = np.flatnonzero(np.diff(ends) == 0)
        padded = np.append(ids, len(self._hash[0]) - 1)  # so that reduceat may start past the last token
        signatures = np.empty((n_texts, N_HASHES), np.uint16)
        for number, hashes in enumerate(self._hash):
            signatures[:, number] = np.minimum.reduceat(hashes[padded], ends[:-1])
        signatures[empty] = np.random.default_rng(1).integers(0, 2**16, (len(empty), N_HASHES), dtype=np.uint16)
        return signatures


def groups(signatures: Signatures, also: list[npt.NDArray[np.uint64]]) -> npt.NDArray[np.int_]:
    """A group number for each text, int [n]: near-duplicates, and texts with the same key of an array in `also`.

    A key of 0 is no key. Each text of a band's bucket is compared with the bucket's first.
    """
    n = len(signatures)
    edges = [_first_of(keys, np.flatnonzero(keys)) for keys in also]
    for start in range(0, N_HASHES, BAND):
        band = np.ascontiguousarray(signatures[:, start : start + BAND]).view(np.uint64).ravel()
        first, other = _first_of(band, np.arange(n))
        for part in np.array_split(np.arange(len(first)), max(len(first) // 100_000, 1)):
            same = (signatures[first[part]] == signatures[other[part]]).mean(axis=1) >= SAME
            edges.append((first[part][same], other[part][same]))
    first, other = (np.concatenate(ends) for ends in zip(*edges, strict=True))
    graph = sparse.coo_matrix((np.ones(len(first), bool), (first, other)), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1])


def _first_of(
    keys: npt.NDArray[np.uint64], rows: npt.NDArray[np.int_]
) -> tuple[npt.NDArray[np.int_], npt.NDArray[np.int_]]:
    """Pairs (first row with a key, another row with it) among `rows`."""
    _, first, inverse = np.unique(keys[rows], return_index=True, return_inverse=True)
    firsts = rows[first[inverse]]
    return firsts[firsts != rows], rows[firsts != rows]
