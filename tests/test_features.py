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

# What the cache could get wrong: white space of every kind, control characters that Python calls white space and
# Unicode does not, characters that normalise to white space or punctuation, combining marks, casing that grows.
AWKWARD = [
    *"ab Z[]#'.,\t\n\r\x00\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\xad\u1680\u2003\u2028\u2029\u202f\u205f\u3000\u200b\ufeff",
    *"\ufffd\u0301\u0308éÉßẞİıΣσςﬁ中文字あア한글ไทยहिन्दीعربي😀👩\u200d💻🇩🇪1²½",
    *("[CLS]", "[UNK]", "<s>", "▁", "▁the", "¨", "…", "，", "？", "http://a.b/c?d=e", "foo_bar(baz)"),
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
