"""A table as people have it, in batches of rows: CSV with any delimiter, JSON, JSON Lines, Parquet, a spreadsheet, or
the prompts that Tierwise's records keep.

How the file is written is found from the file: training/rows/delimited.py, and training/rows/columns.py for the names
of its columns. Rows keep the number that a spreadsheet shows, header and blank rows counted; in files without a header
the first row is 1, and in JSON Lines it is the line.
"""

from __future__ import annotations

import importlib
import sqlite3
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import msgspec
import pandas as pd
import pyarrow.parquet as pq

from training.rows import columns, delimited
from training.rows.columns import SLICES, Say
from training.rows.errors import LabelError, bad_row

BATCH = 16_384
HEAD = 200
"""Rows whose values help to tell columns apart."""

FORMATS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".xlsx", ".db")
_DELIMITED = (".csv", ".tsv", ".tab")
_LINES = (".jsonl", ".ndjson")
_TEXTS = {"text", "tier", "id", "query_id", "model", "method", "conversation", *SLICES}
"""Columns that stay as they are written: "007" is no number in them."""

_TRUTHS = {"true": True, "false": False}
_Rows = Iterator[tuple[int, Sequence[Any]]]


class Table:
    """A file of rows, sniffed once and read as often as asked; `say` is told of guesses and of rows left out, once."""

    def __init__(
        self, path: Path, text_column: str | None = None, tier_column: str | None = None, say: Say = lambda _: None
    ) -> None:
        """Raises LabelError for a file that is not there, and for a format that is not known."""
        if not path.is_file():
            raise LabelError(f"{path} is not there, or not a file; expected {', '.join(FORMATS)}")
        self.path, self._given_text, self._given_tier = path, text_column, tier_column
        self._say, self._said = say, set[str]()
        self._kind = path.suffix.lower()
        if self._kind not in (*FORMATS, *_DELIMITED):
            hint = "; save it as .xlsx" if self._kind in (".xls", ".xlsm", ".ods") else ""
            raise LabelError(f"{path}: the format {path.suffix!r} is not known; expected {', '.join(FORMATS)}{hint}")

    def say(self, note: str) -> None:
        """A note on this file, the first time that it is made."""
        if note not in self._said:
            self._said.add(note)
            self._say(f"{self.path.name}: {note}")

    @cached_property
    def head(self) -> pd.DataFrame:
        """The first rows. Raises LabelError when there are none."""
        frame = next(self.frames(), None)
        if frame is None:
            raise LabelError(f"{self.path} has no rows")
        return frame.head(HEAD)

    @property
    def columns(self) -> list[str]:
        """Their names."""
        return [str(name) for name in self.head]

    @cached_property
    def text(self) -> str:
        """The column of the texts: as given, named so, or guessed. Raises LabelError."""
        if self._given_text is not None:
            return columns.find_named(self._given_text, self.columns, self.path, "--text-column")
        return columns.find_text(self.columns, self.path, self.say)

    def tier(self, *, needed: bool = True) -> str | None:
        """The column of the tier: as given, named so, or guessed; see columns.find_tier. Raises LabelError."""
        if self._given_tier is not None:
            return columns.find_named(self._given_tier, self.columns, self.path, "--tier-column")
        return columns.find_tier(self.columns, self.values_of, self.path, self.say, needed=needed)

    def values_of(self, name: str) -> list[Any]:
        """The first values of a column."""
        return list(self.head[name])

    def frames(self, names: Mapping[str, str] | None = None) -> Iterator[pd.DataFrame]:
        """The rows, BATCH at a time, with the rows' numbers as index and columns renamed by `names`.

        A column that has the new name already is left out. Cells without anything are None or NaN. Raises LabelError
        for a row that cannot be read.
        """
        n_blank = n_read = last = 0
        for read in self._whole if self._kind in (".json", ".xlsx", ".db") else self._read():
            blank = _blank(read)
            n_blank, n_read, last = n_blank + len(blank), n_read + len(read), max([last, *read.index[-1:]])
            frame = read.drop(index=read.index[blank]) if blank else read
            if len(frame):
                others = columns.other_names([str(name) for name in frame])
                for name in (name for name, known in others.items() if known == "class"):
                    self.say(f'"{name}" is read as the class of traffic, column `class`')
                frame = _renamed(frame, others)
                yield _typed(_renamed(frame, names or {}), has_commas=self._has_commas)
        if self._kind in (".json", *_LINES):
            n_blank += last - n_read  # blank lines
        if n_blank:
            self.say(f"{n_blank} blank row{'s' if n_blank > 1 else ''} skipped")

    def count_rows(self) -> int:
        """About how many rows there are, for a progress bar. Raises LabelError when there are none."""
        _ = self.head
        if self._kind == ".parquet":
            return int(pq.ParquetFile(self.path).metadata.num_rows)
        if self._kind in (".json", ".xlsx", ".db"):
            return sum(map(len, self._whole))
        with self.path.open("rb") as opened:
            return sum(block.count(b"\n") for block in iter(lambda: opened.read(1 << 20), b""))

    @cached_property
    def _whole(self) -> list[pd.DataFrame]:
        return list(self._read())

    def _read(self) -> Iterator[pd.DataFrame]:
        try:
            if self._kind == ".parquet":
                yield from self._parquet()
            elif self._kind in _LINES:
                yield from self._json_lines()
            elif self._kind == ".json":
                yield from self._json()
            elif self._kind == ".db":
                yield from self._prompts()
            elif self._kind == ".xlsx":
                yield from self._framed(self._sheet())
            else:
                yield from self._framed(delimited.read_rows(self.path, self._encoding, self._dialect))
        except (OSError, ValueError, BadZipFile) as exc:  # pyarrow and openpyxl raise these and subclasses
            raise LabelError(f"{self.path} cannot be read as {self._kind}: {exc}") from exc

    @cached_property
    def _encoding(self) -> str:
        found = delimited.find_encoding(self.path)
        if found == "cp1252":
            self.say("it is no UTF-8, and read as Windows-1252 (cp1252); save it as UTF-8 if letters look wrong")
        return found

    @cached_property
    def _dialect(self) -> dict[str, Any]:
        return delimited.find_dialect(self.path, self._encoding)

    @property
    def _has_commas(self) -> bool:
        """Whether numbers may have a comma for a point, as where cells are parted by semicolons."""
        return self._kind in _DELIMITED and self._dialect["delimiter"] != ","

    def _framed(self, rows: _Rows) -> Iterator[pd.DataFrame]:
        """Rows of cells, the first that is not blank being the header."""
        header: list[str] = []
        numbers: list[int] = []
        kept: list[Sequence[Any]] = []
        for number, cells in rows:
            there = [cell if cell is not None and str(cell).strip() else None for cell in cells]
            if not header:
                if any(cell is not None for cell in there) and not delimited.is_hint(there[0]):
                    header = self._header(there)
                continue
            if any(cell is not None for cell in there[len(header) :]):
                text = max((str(cell) for cell in there if cell is not None), key=len)
                raise bad_row(
                    self.path, number, text, f"{len(there)} cells, but the header has {len(header)}; a text that holds "
                    "the delimiter must stand in quotes"
                )  # fmt: skip
            numbers.append(number)
            kept.append([*there[: len(header)], *[None] * (len(header) - len(there))])  # Excel leaves out empty ends
            if len(kept) == BATCH:
                yield pd.DataFrame(kept, numbers, header, dtype=object)
                numbers, kept = [], []
        if kept:
            yield pd.DataFrame(kept, numbers, header, dtype=object)

    def _header(self, cells: Sequence[Any]) -> list[str]:
        while cells and cells[-1] is None:
            cells = cells[:-1]
        names = [f"column {n}" if cell is None else str(cell).strip() for n, cell in enumerate(cells, start=1)]
        twice = [name for name in names if names.count(name) > 1]
        if wanted := [name for name in twice if columns.is_known(name)]:
            raise LabelError(f"{self.path} has more than one column {columns.listed(wanted[:1])}; rename all but one")
        return [f"{name} ({n})" if name in twice else name for n, name in enumerate(names, start=1)]

    def _sheet(self) -> _Rows:
        """The rows of the first sheet with a column of texts, else of the first that is not empty."""
        openpyxl = importlib.import_module("openpyxl")
        with warnings.catch_warnings(action="ignore"):  # of styles and drop-down lists, which are not read
            book = openpyxl.load_workbook(self.path, read_only=True, data_only=True)
            try:
                sheets = {str(sheet.title): list(sheet.iter_rows(values_only=True)) for sheet in book.worksheets}
            finally:
                book.close()
        headers = {
            name: [str(cell).strip() for cell in next((row for row in rows if any(row)), ()) if cell is not None]
            for name, rows in sheets.items()
        }
        filled = [name for name, header in headers.items() if header]
        with_text = [name for name in filled if columns.has_text(headers[name], self._given_text)]
        if not filled:
            return
        chosen = (with_text or filled)[0]
        if len(filled) > 1:
            self.say(f'sheet "{chosen}" of {columns.listed(filled)}')
        yield from ((number, [_cell(value) for value in row]) for number, row in enumerate(sheets[chosen], start=1))

    def _parquet(self) -> Iterator[pd.DataFrame]:
        number = 1
        for batch in pq.ParquetFile(self.path).iter_batches(BATCH):
            frame = batch.to_pandas()
            yield frame.set_axis(range(number, number + len(frame)), axis=0)
            number += len(frame)

    def _prompts(self) -> Iterator[pd.DataFrame]:
        """The prompts that are kept beside records (`store_prompts`), each text of a conversation once."""
        query = "SELECT id, text, class, conversation FROM prompts GROUP BY conversation, text ORDER BY id"
        try:
            with closing(sqlite3.connect(f"{self.path.resolve().as_uri()}?mode=ro", uri=True)) as database:
                rows = database.execute(query).fetchall()
        except sqlite3.Error as exc:
            raise LabelError(f"{self.path}: {exc}; expected Tierwise's records, with store_prompts set") from exc
        if not rows:
            raise LabelError(f"{self.path} keeps no prompts; set store_prompts = true, and send requests")
        for start in range(0, len(rows), BATCH):
            part = rows[start : start + BATCH]
            names = ["id", "text", "class", "conversation"]
            yield pd.DataFrame(part, [row[0] for row in part], names)

    def _json_lines(self) -> Iterator[pd.DataFrame]:
        decode = msgspec.json.Decoder(dict[str, Any]).decode
        rows: list[dict[str, Any]] = []
        numbers: list[int] = []
        for number, line in enumerate(delimited.read_lines(self.path, self._encoding), start=1):
            if line.isspace():
                continue
            try:
                rows.append(decode(line))
            except (msgspec.DecodeError, UnicodeError) as exc:
                raise bad_row(self.path, number, line, f"{exc}; expected one JSON object a line") from exc
            numbers.append(number)
            if len(rows) == BATCH:
                yield pd.DataFrame(rows, numbers)
                rows, numbers = [], []
        if rows:
            yield pd.DataFrame(rows, numbers)

    def _json(self) -> Iterator[pd.DataFrame]:
        text = "".join(delimited.read_lines(self.path, self._encoding))
        try:
            content = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeError) as exc:
            first = next((line for line in text.splitlines() if line.strip()), "")
            if first.startswith("{") and first.rstrip().endswith("}"):
                yield from self._json_lines()
                return
            raise LabelError(f"{self.path}: {exc}; expected JSON: an array of objects") from exc
        rows = _rows_in(content)
        if rows is None:
            raise LabelError(
                f"{self.path}: expected an array of objects, an object of arrays of one length, or an object with one "
                "array of objects in it"
            )
        if isinstance(rows, list):
            for number, row in enumerate(rows, start=1):
                if not isinstance(row, dict):
                    raise bad_row(self.path, number, str(row), f"a {type(row).__name__}, expected an object")
        yield pd.DataFrame(rows, range(1, 1 + len(rows if isinstance(rows, list) else next(iter(rows.values())))))


def _rows_in(content: Any) -> Any:
    """The rows of a JSON document: a list of objects, or lists by column; None where there are none to be seen."""
    if isinstance(content, list):
        return content
    if not isinstance(content, dict):
        return None
    known = [name for name, values in content.items() if isinstance(values, list) and name != "messages"]
    lists = [content[name] for name in known if content[name] and isinstance(content[name][0], dict)]
    if len(lists) == 1 or any(rows is content.get("data") for rows in lists):
        return content["data"] if len(lists) > 1 else lists[0]
    if content and all(isinstance(values, dict) for values in content.values()):  # as pandas writes it: by row number
        content = {name: list(values.values()) for name, values in content.items()}
    same = all(isinstance(values, list) for values in content.values()) and len({*map(len, content.values())}) == 1
    return content if same else None


def _cell(value: Any) -> Any:
    """A spreadsheet's numbers and dates as they would be typed; whole numbers without a point."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if value is None or isinstance(value, bool) else str(value)


def _blank(frame: pd.DataFrame) -> list[int]:
    """The places of rows without anything."""
    left = list(range(len(frame)))
    for name in frame:
        values = frame[name].tolist()
        left = [n for n in left if is_empty(values[n])]
        if not left:
            break
    return left


def is_empty(value: Any) -> bool:
    """Whether a cell holds nothing: None, NaN, or blanks."""
    return (
        value is None or (isinstance(value, str) and not value.strip()) or (isinstance(value, float) and value != value)
    )


def _renamed(frame: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    new = {old: name for old, name in names.items() if old in frame and old != name}
    taken = [name for name in new.values() if name in frame and name not in new]
    return frame.drop(columns=taken).rename(columns=new) if new else frame


def _typed(frame: pd.DataFrame, *, has_commas: bool) -> pd.DataFrame:
    """Numbers and truth values that were written as text, where a whole column is."""
    found: dict[Any, Any] = {}
    for name in frame:
        values = frame[name]
        if name in _TEXTS or values.dtype.kind != "O":
            continue
        there = values[[not is_empty(value) for value in values]]
        if there.empty or not all(isinstance(value, str) for value in there):
            continue
        plain = there.str.strip().str.lower()
        if plain.isin(_TRUTHS).all():
            found[name] = plain.map(_TRUTHS).reindex(frame.index).astype(object)
            continue
        numbers = pd.to_numeric(plain.str.replace(",", ".") if has_commas else plain, errors="coerce")
        if numbers.notna().all():
            found[name] = numbers.reindex(frame.index)
    return frame.assign(**{str(name): values for name, values in found.items()})
