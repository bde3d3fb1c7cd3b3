from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from router import RequestError
from router.classifier import artifact
from router.classifier.features import STRUCTURE, Encoder
from router.classifier.unigram import Unigram

ARTIFACT = artifact.load()
UNIGRAM = Unigram(ARTIFACT.tokenizer)
ENCODER = Encoder(ARTIFACT.tokenizer, head_chars=400, tail_chars=200)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=80))
@example("a\x1fb c\x85d")
def test_ids_by_chunk_are_those_of_the_whole_text(text: str) -> None:
    expected = UNIGRAM.encode(text)
    assert ENCODER.tokenize(text) == expected  # filled on a miss
    assert ENCODER.tokenize(text) == expected  # and from the cache
    assert sorted(ENCODER.encode(text).ids.tolist()) == sorted(set(expected))


@settings(max_examples=100, deadline=None)
@given(st.text(min_size=601, max_size=900))
def test_long_text_is_read_as_head_and_tail(text: str) -> None:
    window = f"{text[:400]}\n{text[-200:]}"
    assert set(ENCODER.encode(text).ids.tolist()) == set(UNIGRAM.encode(window))


def test_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.classifier.features._CACHE_CHUNKS", 50)
    encoder = Encoder(ARTIFACT.tokenizer, head_chars=400, tail_chars=200)
    for number in range(500):
        text = f"word{number} again"
        assert encoder.tokenize(text) == UNIGRAM.encode(text)
    assert len(encoder._ids_of_chunk) <= 50


def test_long_chunks_are_not_cached() -> None:
    encoder = Encoder(ARTIFACT.tokenizer, head_chars=400, tail_chars=200)
    encoder.encode("QUJD" * 50)
    assert not encoder._ids_of_chunk


def test_structure_is_shares_and_logs() -> None:
    names = dict(zip(STRUCTURE, ENCODER.encode("Is 7 + 5 = 12? Ünï\nanswering: yes.").structure.tolist(), strict=True))
    assert names["log_chars"] == pytest.approx(np.log1p(34))
    assert names["log_words"] == pytest.approx(np.log1p(9))
    assert names["log_lines"] == pytest.approx(np.log1p(1))
    assert names["log_sentences"] == pytest.approx(np.log1p(1))  # the last stop has no space behind it
    assert names["log_questions"] == pytest.approx(np.log1p(1))
    assert names["log_numbers"] == pytest.approx(np.log1p(3))
    assert names["log_digits"] == pytest.approx(np.log1p(4))
    assert names["log_maths"] == pytest.approx(np.log1p(2))
    assert names["log_commas"] == pytest.approx(np.log1p(1))
    assert names["long_word_share"] == pytest.approx(1 / 9)  # "answering:" holds one stretch of eight
    assert names["word_length"] == pytest.approx((34 - 8) / 9 / 12)
    assert names["non_ascii_share"] == pytest.approx(2 / 34)


@pytest.mark.parametrize("text", ["Why is the sky blue?", "Докажите теорему Ферма", "Straightforward, isn't it"])
def test_capitals_change_nothing_but_what_they_are(text: str) -> None:
    plain, loud = ENCODER.encode(text), ENCODER.encode(text.upper())
    assert plain.ids.tolist() == loud.ids.tolist()
    assert plain.structure.tolist() == loud.structure.tolist()


def test_length_counts_the_whole_text_not_the_window() -> None:
    short, long = ENCODER.encode("word " * 1000), ENCODER.encode("word " * 100_000)
    assert long.structure[0] > short.structure[0]
    assert long.ids.size == short.ids.size


@pytest.mark.parametrize("text", ["", " \n\t ", "\u3000"])
def test_nothing_to_read_gives_no_tokens(text: str) -> None:
    assert ENCODER.encode(text).ids.size == 0


def test_each_token_counts_once() -> None:
    assert ENCODER.encode("go go, go! Go").ids.size == 3


def test_lone_surrogates_count_as_replacement_characters() -> None:
    assert ENCODER.encode("a\ud800b").ids.tolist() == ENCODER.encode("a\ufffdb").ids.tolist()


@pytest.mark.parametrize("wrong", [None, 5, b"bytes", ["a", "list"]])
def test_not_a_string(wrong: object) -> None:
    with pytest.raises(RequestError, match=type(wrong).__name__):
        ENCODER.encode(wrong)  # type: ignore[arg-type]
