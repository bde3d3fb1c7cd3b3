"""A text's pieces by a Unigram vocabulary, exactly as the tokenizers library cuts them, in a third of its memory.

The library keeps a hash table for each node of its trie (64,000 pieces take 59 MB; here 19) and brings a client of a
model hub with it. It stays the oracle of tests/test_unigram.py. The method: Kudo, "Subword Regularization", 2018,
https://arxiv.org/abs/1804.10959.
"""

from __future__ import annotations

import re
import string
import unicodedata
from math import inf
from typing import Any

import msgspec

from router.errors import ArtifactCorrupt

START = "\u2581"
"""Marks the beginning of a word in a piece."""

_UNKNOWN_PENALTY = 10.0  # what a character that no piece holds costs beyond the rarest piece
_ASCII_MARKS = frozenset(string.punctuation)
_ASCII_PARTS = re.compile(r"[!-/:-@\[-`{-~]|[^!-/:-@\[-`{-~]+")  # one of these marks, or what is between
_CUTS = {
    "normalizer": {
        "type": "Sequence",
        "normalizers": [
            {"type": "Replace", "pattern": {"Regex": "[\x1c-\x1f]"}, "content": " "},
            {"type": "NFKC"},
            {"type": "Lowercase"},
        ],
    },
    "pre_tokenizer": {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "WhitespaceSplit"},
            {"type": "Punctuation", "behavior": "Isolated"},
            {"type": "Metaspace", "replacement": START, "prepend_scheme": "always", "split": True},
        ],
    },
}


class _Model(msgspec.Struct, tag_field="type", tag="Unigram"):
    vocab: list[tuple[str, float]]
    unk_id: int


class _File(msgspec.Struct):
    model: _Model
    normalizer: Any
    pre_tokenizer: Any


class Unigram:
    """The likeliest pieces of a text: white space and punctuation cut first, then each word by dynamic programming."""

    def __init__(self, tokenizer_json: bytes) -> None:
        """Takes the library's own file. Raises ArtifactCorrupt if it is not one or cuts texts in another way."""
        try:
            file = msgspec.json.decode(tokenizer_json, type=_File)
        except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
            raise ArtifactCorrupt(f"tokenizer.json cannot be parsed: {exc}; reinstall or rebuild the artifact") from exc
        for part, expected in _CUTS.items():
            if (found := getattr(file, part)) != expected:
                raise ArtifactCorrupt(f"tokenizer.json: {part} is {found}, expected {expected}; rebuild the artifact")
        self._ids = {piece: number for number, (piece, _) in enumerate(file.model.vocab)}
        self._scores = [score for _, score in file.model.vocab]
        self._unknown, self._unknown_score = file.model.unk_id, min(self._scores) - _UNKNOWN_PENALTY
        self._reach: dict[str, int] = {}  # the length of the longest piece that begins with these two characters
        for piece in self._ids:
            if len(piece) > self._reach.get(piece[:2], 1):
                self._reach[piece[:2]] = len(piece)

    def encode(self, text: str) -> list[int]:
        """The ids of a text. Characters are classed by this Python's version of Unicode."""
        if not text.isascii():  # the library lowers each character by itself, so a final sigma is as any other
            text = unicodedata.normalize("NFKC", text).replace("\u03a3", "\u03c3")
        return [i for chunk in text.lower().split() for word in _words(chunk) for i in self._likeliest(word)]

    def _likeliest(self, word: str) -> list[int]:
        """Viterbi: the best way to each position from those before it; of equals the longest last piece."""
        n, get, scores = len(word), self._ids.get, self._scores
        best, ids, starts = [0.0] + [-inf] * n, [self._unknown] * (n + 1), [0] * (n + 1)
        for start in range(n):
            here, end = best[start], start + 1
            number = get(word[start])
            score = here + (self._unknown_score if number is None else scores[number])
            if score > best[end]:
                best[end], starts[end], ids[end] = score, start, self._unknown if number is None else number
            for end in range(start + 2, min(start + self._reach.get(word[start : start + 2], 1), n) + 1):
                number = get(word[start:end])
                if number is not None and here + scores[number] > best[end]:
                    best[end], starts[end], ids[end] = here + scores[number], start, number
        return self._backwards(ids, starts)

    def _backwards(self, ids: list[int], starts: list[int]) -> list[int]:
        """The ids along the best way; neighbouring unknown characters are one."""
        found: list[int] = []
        end = len(ids) - 1
        while end:
            if ids[end] != self._unknown or found[-1:] != [self._unknown]:
                found.append(ids[end])
            end = starts[end]
        return found[::-1]


def _words(chunk: str) -> list[str]:
    """The parts of a chunk without white space: each mark of punctuation, and what stands between; all begin marked."""
    if chunk.isascii():
        return [START + part for part in _ASCII_PARTS.findall(chunk)]
    spaced = "".join(f" {c} " if is_punctuation(c) else f" {c}" if c == START else c for c in chunk)
    return [part if part[0] == START else START + part for part in spaced.split()]


def is_punctuation(character: str) -> bool:
    """Unicode's punctuation, and ASCII's symbols."""
    return character in _ASCII_MARKS or unicodedata.category(character)[0] == "P"
