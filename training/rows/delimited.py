"""Delimited text as people save it: its encoding, its dialect, and its rows one by one.

csv.Sniffer guesses from the frequency of characters and takes commas in texts for delimiters. Here each dialect is
tried on the head of the file, and the one under which the rows have as many cells as the header is taken.
"""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from training.rows.columns import is_known
from training.rows.errors import LabelError, bad_row

HEAD_CHARS = 1 << 18
"""How much of a file is looked at to find its dialect."""

MAX_CELL = 1 << 24
"""Characters of a cell; a longer one is a quote that was never closed."""

CONSISTENT = 0.9
"""The share of a head's rows that must have the header's cells."""

DELIMITERS = ",;\t|"
_WAYS: tuple[dict[str, Any], ...] = (
    {},
    {"skipinitialspace": True},
    {"doublequote": False, "escapechar": "\\"},
    {"quoting": csv.QUOTE_NONE},
)
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it starts with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_BLOCK = 1 << 20
_NOT_CP1252 = re.compile(rb"[\x81\x8d\x8f\x90\x9d]")
_BEYOND_ASCII = re.compile("[^\x00-\x7f\udc80-\udcff]")
_ESCAPED = re.compile("[\udc80-\udcff]")


def find_encoding(path: Path) -> str:
    """utf-8, utf-8-sig, utf-16, utf-32 or cp1252: by its mark, else by all of its bytes, a block at a time.

    Raises LabelError, naming the line, for a NUL byte and for what is neither UTF-8 nor cp1252.
    """
    with path.open("rb") as file:
        start = file.read(4)
    marked = next((name for mark, name in _MARKS if start.startswith(mark)), None)
    if marked is not None:
        return marked
    decoder, line = codecs.getincrementaldecoder("utf-8")(), 1
    try:
        for block in _blocks(path):
            if (at := block.find(b"\0")) >= 0:
                raise _nul(path, line + block.count(b"\n", 0, at))
            decoder.decode(block)
            line += block.count(b"\n")
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as exc:
        _check_cp1252(path, line + exc.object.count(b"\n", 0, exc.start), exc.object[exc.start])
        return "cp1252"
    return "utf-8"


def _check_cp1252(path: Path, line: int, byte: int) -> None:
    """Raises LabelError when most of what is beyond ASCII is UTF-8, which is broken at `line`, and for other bytes."""
    n_valid = n_broken = 0
    number, strange = 1, None
    for block in _blocks(path):
        if (at := block.find(b"\0")) >= 0:
            raise _nul(path, number + block.count(b"\n", 0, at))
        text = block.decode("utf-8", "surrogateescape")
        n_valid += len(_BEYOND_ASCII.findall(text))
        n_broken += len(_ESCAPED.findall(text))
        if strange is None and (found := _NOT_CP1252.search(block)):
            strange = number + block.count(b"\n", 0, found.start()), found[0][0]
        number += block.count(b"\n")
    if n_valid > n_broken:
        raise LabelError(f"{path}: line {line}: the byte 0x{byte:02x} is no UTF-8, as the rest of the file is; mend it")
    if strange is not None:
        raise LabelError(
            f"{path}: line {strange[0]}: the byte 0x{strange[1]:02x} is neither UTF-8 nor Windows-1252; save the file "
            "as UTF-8"
        )


def _nul(path: Path, line: int) -> LabelError:
    return LabelError(f"{path}: line {line}: it holds a NUL, which no text does; save the file as UTF-8 text")


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block


def read_lines(path: Path, encoding: str) -> Iterator[str]:
    """The lines with their ends. Raises LabelError, naming the line, for a NUL and for what cannot be decoded."""
    number = 0
    try:
        with path.open(encoding=encoding, newline="") as file:
            for number, line in enumerate(file, start=1):
                if "\0" in line:
                    raise _nul(path, number)
                yield line
    except UnicodeDecodeError as exc:
        before = exc.object[: exc.start].decode(exc.encoding, "ignore").count("\n")
        raise LabelError(f"{path}: line {number + 1 + before}: it is no {encoding}: {exc.reason}") from exc


def find_dialect(path: Path, encoding: str) -> dict[str, Any]:
    """What csv.reader is to be told. The header decides, then how many rows agree with it."""
    head, size, is_cut = [], 0, False
    for line in read_lines(path, encoding):
        if size > HEAD_CHARS:
            is_cut = True
            break
        head.append(line)
        size += len(line)
    if head and is_hint(head[0]):
        del head[0]
    order = "\t,;|" if path.suffix.lower() in (".tsv", ".tab") else DELIMITERS
    dialects = [{"delimiter": delimiter, **way} for way in _WAYS for delimiter in order]
    return max(dialects, key=lambda dialect: _merit(head, dialect, is_cut))  # of equals the first


def is_hint(cell: object) -> bool:
    """Whether a first row is no header, but `sep=;`, which tells Excel the delimiter."""
    return isinstance(cell, str) and cell.lower().lstrip('"').startswith("sep=")


def _merit(head: list[str], dialect: dict[str, Any], is_cut: bool) -> tuple[float, ...]:
    """The greater, the better the dialect explains the head; see _WAYS for the order of those that do alike."""
    rows, is_whole = _parsed(head, dialect, is_cut)
    if not rows:
        return (0,)
    way = next(n for n, each in enumerate(_WAYS) if each == {k: v for k, v in dialect.items() if k != "delimiter"})
    if "escapechar" in dialect and not any('\\"' in line for line in head):
        return (0,)
    if "quoting" in dialect and (dialect["delimiter"] in ",;" or any(map(_is_quoted, chain.from_iterable(rows)))):
        return (0,)  # quotes that are no quotes: for tables that cannot have been meant otherwise
    header = rows[0]
    known = sum(map(is_known, header))
    share = sum(len(row) == len(header) for row in rows) / len(rows)
    if len(header) == 1:
        return (1 if share == 1 and is_whole else 0, known, share)
    kind = 3 if share >= CONSISTENT and is_whole else 2 if known else 0
    return (kind, known, share, -way, len(header))


def _is_quoted(cell: str) -> bool:
    return len(cell) > 1 and cell[0] == cell[-1] == '"'


def _parsed(head: list[str], dialect: dict[str, Any], is_cut: bool) -> tuple[list[list[str]], bool]:
    """The head's rows that are not blank, and whether all could be read. The last row of a cut head is left out."""
    reader, rows, end = _reader(iter(head), dialect), [], 0
    try:
        for row in reader:
            end = reader.line_num
            if any(cell.strip() for cell in row):
                rows.append(row)
    except csv.Error:
        # No error: a quote that is still open where the head was cut, and that was not opened long before.
        return rows, is_cut and reader.line_num == len(head) and 2 * end > len(head)
    return rows[:-1] if is_cut and len(rows) > 1 else rows, True


def _reader(lines: Iterator[str], dialect: dict[str, Any]) -> Any:
    csv.field_size_limit(MAX_CELL)  # the default, 131,072 characters, is less than some prompts have
    return csv.reader(lines, strict=True, **dialect)


def read_rows(path: Path, encoding: str, dialect: dict[str, Any]) -> Iterator[tuple[int, list[str]]]:
    """(row number as a spreadsheet shows it, cells) of every row, blank ones included. Raises LabelError."""
    first: list[str] = []

    def lines() -> Iterator[str]:
        for line in read_lines(path, encoding):
            if not first:
                first.append(line)
            yield line

    reader, number = _reader(lines(), dialect), 0
    while True:
        first.clear()
        number += 1
        try:
            cells = next(reader, None)
        except csv.Error as exc:
            why = str(exc)
            if "unexpected end" in why or "field larger" in why:
                why = "a quote is opened in it and never closed"
            elif "expected after" in why:
                why = "a quote inside a quoted cell is not doubled"
            raise bad_row(path, number, first[0] if first else None, f"{why} (line {reader.line_num})") from exc
        if cells is None:
            return
        yield number, cells
