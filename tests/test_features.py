from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from router import RequestError, artifact
from router.features import STRUCTURE, Encoder

ARTIFACT = artifact.load()
TOKENIZER = Tokenizer.from_buffer(ARTIFACT.tokenizer)
ENCODER = Encoder(ARTIFACT.tokenizer, head_chars=400, tail_chars=200)

# What the cache could get wrong: white space of every kind, deleted control characters, characters that the
# normaliser splits off, combining marks, special tokens and casing that changes length.
AWKWARD = [
    *"ab Z[]#'.,\t\n\r\x00\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\xad\u1680\u2003\u2028\u2029\u202f\u205f\u3000\u200b\ufeff",
    *"\ufffd\u0301\u0308éÉßẞİıΣσςﬁ中文字あア한글ไทยहिन्दीعربي😀👩\u200d💻🇩🇪1²½",
    *("[CLS]", "[UNK]", "[PAD]", "[MASK]", "##ing", "http://a.b/c?d=e", "foo_bar(baz)"),
]


@settings(max_examples=600, deadline=None)
@given(st.text(max_size=80) | st.lists(st.sampled_from(AWKWARD), max_size=40).map("".join))
@example("a\x1fb c\x85d")
@example("def f(x):\n\treturn x['中文'] # ☃\r\n")
@example("日本語のテキストと English を混ぜる")
def test_ids_equal_the_tokenizers_library(text: str) -> None:
    expected = TOKENIZER.encode(text, add_special_tokens=False).ids
    assert ENCODER.tokenize(text) == expected  # filled on a miss
    assert ENCODER.tokenize(text) == expected  # and from the cache
    assert sorted(ENCODER.encode(text).ids.tolist()) == sorted(set(expected))


@settings(max_examples=100, deadline=None)
@given(st.text(min_size=601, max_size=900))
def test_long_text_is_read_as_head_and_tail(text: str) -> None:
    window = f"{text[:400]}\n{text[-200:]}"
    assert set(ENCODER.encode(text).ids.tolist()) == set(TOKENIZER.encode(window, add_special_tokens=False).ids)


def test_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.features._CACHE_CHUNKS", 50)
    encoder = Encoder(ARTIFACT.tokenizer, head_chars=400, tail_chars=200)
    for number in range(500):
        text = f"word{number} again"
        assert encoder.tokenize(text) == TOKENIZER.encode(text, add_special_tokens=False).ids
    assert len(encoder._ids_of_chunk) <= 50


def test_long_chunks_are_not_cached() -> None:
    encoder = Encoder(ARTIFACT.tokenizer, head_chars=400, tail_chars=200)
    encoder.encode("QUJD" * 50)
    assert not encoder._ids_of_chunk


def test_structure_is_shares_and_logs() -> None:
    names = dict(zip(STRUCTURE, ENCODER.encode("Is 7 + 5 = 12? Ünï\nYES").structure.tolist(), strict=True))
    assert names["log_chars"] == pytest.approx(np.log1p(22))
    assert names["log_lines"] == pytest.approx(np.log1p(1))
    assert names["log_questions"] == pytest.approx(np.log1p(1))
    assert names["digit_share"] == pytest.approx(4 / 22)
    assert names["upper_share"] == pytest.approx(4 / 22)
    assert names["non_ascii_share"] == pytest.approx(2 / 22)


def test_length_counts_the_whole_text_not_the_window() -> None:
    short, long = ENCODER.encode("word " * 1000), ENCODER.encode("word " * 100_000)
    assert long.structure[0] > short.structure[0]
    assert long.ids.size == short.ids.size


@pytest.mark.parametrize("text", ["", " \n\t ", "\x00", "\ufffd\u200b"])
def test_nothing_to_read_is_all_unknown(text: str) -> None:
    features = ENCODER.encode(text)
    assert features.ids.size == 0
    assert features.unknown_share == 1.0


def test_each_token_counts_once() -> None:
    assert ENCODER.encode("go go, go! Go").ids.size == 3


def test_unknown_share_is_over_the_tokens_of_distinct_words() -> None:
    assert ENCODER.encode("plain words only").unknown_share == 0.0
    assert ENCODER.encode("three plain words \u1c50").unknown_share == 0.25
    assert ENCODER.encode("\u1c50 \u1c50 \u1c50").unknown_share == 1.0


def test_lone_surrogates_count_as_replacement_characters() -> None:
    assert ENCODER.encode("a\ud800b").ids.tolist() == ENCODER.encode("a\ufffdb").ids.tolist()


@pytest.mark.parametrize("wrong", [None, 5, b"bytes", ["a", "list"]])
def test_not_a_string(wrong: object) -> None:
    with pytest.raises(RequestError, match=type(wrong).__name__):
        ENCODER.encode(wrong)  # type: ignore[arg-type]
