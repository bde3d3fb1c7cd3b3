"""The pieces against the tokenizers library, which is not there at run time."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from router import ArtifactCorrupt
from router.classifier import artifact
from router.classifier.unigram import Unigram, is_punctuation
from tests.conftest import ROOT

RAW = artifact.load().tokenizer
LIBRARY = Tokenizer.from_buffer(RAW)
UNIGRAM = Unigram(RAW)

# White space of every kind, control characters that Python calls white space and Unicode does not, characters that
# normalise to white space or punctuation, combining marks, casing that grows, the mark of a word's start itself.
AWKWARD = [
    *"ab Z[]#'.,\t\n\r\x00\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\xad\u1680\u2003\u2028\u2029\u202f\u205f\u3000\u200b\ufeff",
    *"\ufffd\u0301\u0308éÉßẞİıΣσςﬁ中文字あア한글ไทยहिन्दीعربي😀👩\u200d💻🇩🇪1²½",
    *("[CLS]", "[UNK]", "<s>", "▁", "▁the", "¨", "…", "，", "？", "http://a.b/c?d=e", "foo_bar(baz)", "the", "prove"),
]


def same_in_every_version(character: str) -> bool:
    """The library and Python know different versions of Unicode: characters of 3.2 whose class has not changed."""
    category = unicodedata.category(character)
    return category not in ("Cn", "Cs") and category == unicodedata.ucd_3_2_0.category(character)


@settings(max_examples=800, deadline=None)
@given(
    st.text(st.characters().filter(same_in_every_version), max_size=80)
    | st.lists(st.sampled_from(AWKWARD), max_size=40).map("".join)
)
@example("def f(x):\n\treturn x['中文'] # ☃\r\n")
@example("日本語のテキストと English を混ぜる")
@example("▁▁a▁.▁ ▁")
@example("ΟΔΥΣΣΕΥΣ Σ")
def test_ids_equal_the_librarys(text: str) -> None:
    assert UNIGRAM.encode(text) == LIBRARY.encode(text, add_special_tokens=False).ids


def test_ids_of_the_words_that_people_write() -> None:
    rows = map(json.loads, (ROOT / "data" / "queries.jsonl").read_text().splitlines())
    words = sorted({word for row in rows for word in row["text"].split()})
    assert len(words) > 20_000
    for word in words:
        assert UNIGRAM.encode(word) == LIBRARY.encode(word, add_special_tokens=False).ids, word


def test_punctuation_is_unicodes_and_asciis_symbols() -> None:
    assert [c for c in "a1 \x00\t.$_~«。é" if is_punctuation(c)] == [".", "$", "_", "~", "«", "。"]


@pytest.mark.parametrize("part", ["normalizer", "pre_tokenizer"])
def test_a_file_that_cuts_in_another_way_is_refused(part: str) -> None:
    file = json.loads(RAW)
    file[part] = {"type": "Lowercase"}
    with pytest.raises(ArtifactCorrupt, match=rf"tokenizer.json: {part} is .*Lowercase.*; rebuild the artifact"):
        Unigram(json.dumps(file).encode())


@pytest.mark.parametrize("raw", [b"", b"{}", b"\xff", b'{"model": {"type": "BPE", "vocab": [], "unk_id": 0}}'])
def test_what_is_no_unigram_file_is_refused(raw: bytes) -> None:
    with pytest.raises(ArtifactCorrupt, match=r"tokenizer.json cannot be parsed: .*reinstall or rebuild"):
        Unigram(raw)
