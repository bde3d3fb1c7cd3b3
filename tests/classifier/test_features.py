from __future__ import annotations

import io
import json
import random
import string
import unicodedata
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceTrainer

from router import ArtifactCorrupt, RequestError
from router.classifier import artifact
from router.classifier.features import STRUCTURE, Encoder, load_pieces, normalised
from tests.conftest import ROOT

ARTIFACT = artifact.load()
PIECES = load_pieces(ARTIFACT.tokenizer)
ENCODER = Encoder(ARTIFACT.tokenizer, head_chars=400, tail_chars=200)

# White space of every kind, control characters that Python calls white space and Unicode does not, characters that
# normalise to white space or punctuation, combining marks, casing that grows, the mark of a word's start itself.
AWKWARD = [
    *"ab Z[]#'.,\t\n\r\x00\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\xad\u1680\u2003\u2028\u2029\u202f\u205f\u3000\u200b\ufeff",
    *"\ufffd\u0301\u0308éÉßẞİıΣσςﬁ中文字あア한글ไทยहिन्दीعربي😀👩\u200d💻🇩🇪1²½",
    *("[CLS]", "[UNK]", "<s>", "▁", "▁the", "¨", "…", "，", "？", "http://a.b/c?d=e", "foo_bar(baz)", "the", "prove"),
]


def same_in_every_version(character: str) -> bool:
    """The model file and Python know different versions of Unicode: characters of 3.2 whose class has not changed."""
    category = unicodedata.category(character)
    return category not in ("Cn", "Cs") and category == unicodedata.ucd_3_2_0.category(character)


def words(text: str) -> list[str]:
    """The words of a text: each mark of punctuation (Unicode's, ASCII's symbols), and what stands between."""
    text = unicodedata.normalize("NFKC", text).replace("Σ", "σ").lower().replace("▁", " ")
    marks = (c for c in set(text) if c in string.punctuation or unicodedata.category(c)[0] == "P")
    return text.translate({ord(c): f" {c} " for c in marks}).split()


@settings(max_examples=500, deadline=None)
@given(
    st.text(st.characters().filter(same_in_every_version), max_size=80)
    | st.lists(st.sampled_from(AWKWARD), max_size=40).map("".join)
)
@example("def f(x):\n\treturn x['中文'] # ☃\r\n")
@example("日本語のテキストと English を混ぜる")
@example("▁▁a▁.▁ ▁")
@example("ΟΔΥΣΣΕΥΣ Σ")
@example("a\x1fb c\x85d")
def test_white_space_and_punctuation_cut_first(text: str) -> None:
    assert PIECES.normalize(normalised(text)) == "".join("▁" + word for word in words(text))
    assert set(ENCODER.encode(text).ids.tolist()) == set(PIECES.encode(normalised(text)))


def test_a_word_is_cut_alike_wherever_it_stands() -> None:
    cuts = {tuple(PIECES.encode("the cat " * n + "maud", out_type=str)[2 * n :]) for n in range(200)}
    assert cuts == {("▁mau", "d")}  # as likely as "▁ma ud" to three decimals
    for row in map(json.loads, (ROOT / "data" / "queries.jsonl").read_text("utf-8").splitlines()[::10]):
        alone = {i for word in words(row["text"]) for i in PIECES.encode(word)}
        assert set(PIECES.encode(normalised(row["text"]))) == alone, row["text"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Prove that sqrt(2) is irrational.", "▁prove ▁that ▁sqrt ▁( ▁2 ▁) ▁is ▁irrational ▁."),
        ("写一个函数，判断有没有环", "▁ 写 一个 函数 ▁, ▁ 判断 有没有 环"),
        ("Kündigungsfrist", "▁kündigung sfrist"),
        ("Тест: ёлка №5", "▁тест ▁: ▁ ёл ка ▁no 5"),
        ("हिन्दी में แปลภาษา", "▁हि न् दी ▁में ▁แ ป ล ภ า ษ า"),
        ("vvvv", "▁v v vv"),  # of equally likely cuts the one whose last piece is longest
    ],
)
def test_known_cuts(text: str, expected: str) -> None:
    assert PIECES.encode(normalised(text), out_type=str) == expected.split(" ")


@settings(max_examples=100, deadline=None)
@given(st.text(min_size=601, max_size=900))
def test_long_text_is_read_as_head_and_tail(text: str) -> None:
    window = f"{text[:400]}\n{text[-200:]}"
    assert set(ENCODER.encode(text).ids.tolist()) == set(PIECES.encode(normalised(window)))


CHANCE = random.Random(0)


@pytest.mark.parametrize(
    "text",
    [
        "a" * 1536,
        "".join(CHANCE.choices(string.ascii_lowercase, k=1536)),
        "".join(CHANCE.choices(string.punctuation, k=1536)),
        "".join(CHANCE.choices("aбγ中あ한ไहع😀", k=1536)),
        "\ud800\udfff" * 800,
        "\x00" * 1536,
        "a\x00b " * 400,
        "\u2581the" * 400,
        "\x1c\x1d\x1e\x1f" * 400,
        "\ufdfa" * 1536,
        "a" + "\u0301\u0323" * 800,
        "\ufffe\uffff\U0010ffff" * 500,
        "[UNK] <unk> <s> </s>" * 80,
    ],
    ids=ascii,
)
def test_no_text_breaks_it(text: str) -> None:
    ids = ENCODER.encode(text).ids
    assert ids.dtype == np.int64
    assert len(set(ids.tolist())) == ids.size
    assert ((ids >= 0) & (ids < ENCODER.n_pieces)).all()


def test_threads_share_an_encoder() -> None:
    lines = (ROOT / "data" / "queries.jsonl").read_text("utf-8").splitlines()[:400]
    texts = [json.loads(line)["text"] for line in lines]
    expected = [ENCODER.encode(text).ids.tolist() for text in texts]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            assert [f.ids.tolist() for f in pool.map(ENCODER.encode, texts)] == expected


@pytest.mark.parametrize("raw", [b"", b"{}", b"\xff", ARTIFACT.tokenizer[:-9999]])
def test_what_is_no_model_is_refused(raw: bytes) -> None:
    with pytest.raises(ArtifactCorrupt, match=r"tokenizer.model cannot be parsed .*reinstall or rebuild"):
        Encoder(raw, head_chars=400, tail_chars=200)


def test_a_model_that_cuts_in_another_way_is_refused() -> None:
    model = io.BytesIO()
    SentencePieceTrainer.Train(
        sentence_iterator=iter(["a,b c", "b a"]), model_writer=model, vocab_size=9, minloglevel=2
    )
    with pytest.raises(ArtifactCorrupt, match=r"tokenizer.model cuts 'a,b\\tc' as '▁a,b▁c', expected .*rebuild"):
        Encoder(model.getvalue(), head_chars=400, tail_chars=200)


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
