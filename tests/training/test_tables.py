"""Tables as people have them: every format, encoding, dialect and header, as real files."""

from __future__ import annotations

import csv
import io
import json
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router import Tier, catalog
from router.cli import cli
from router.errors import ClientError
from training.commands.label import label
from training.commands.tune import tune
from training.rows import delimited, tables, traffic
from training.rows.errors import LabelError
from training.rows.tables import Table
from training.rows.traffic import TrafficFile
from training.thresholds import losses

FLEET = catalog.shipped().fleet("claude")
TEXTS = ["Where is my order, please?", 'He said "no"; why?', "two\nlines | a\ttab", "Größe für Müller, 5 €"]
TIERS = ["simple", "COMPLEX", " moderate ", "simple"]
TARGETS = [[1, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0]]


def rows_of(path: Path, **options: Any) -> tuple[list[tuple[int, str, list[float]]], list[str]]:
    """(number, text, target) of each label, and the notes."""
    notes: list[str] = []
    file = TrafficFile(path, say=notes.append, **options)
    found = [
        (number, text, target)
        for batch in traffic.read_labels(file)
        for number, text, target in zip(batch.numbers.tolist(), batch.texts, batch.targets.tolist(), strict=True)
    ]
    return found, notes


def as_csv(rows: list[list[str]], **dialect: Any) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, **dialect).writerows(rows)
    return buffer.getvalue()


LABELS = [["text", "tier"], *map(list, zip(TEXTS, TIERS, strict=True))]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le-marked", "utf-32", "cp1252"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["l.csv", "L.TSV"])
def test_every_delimiter_and_encoding(name: str, delimiter: str, encoding: str, tmp_path: Path) -> None:
    content = as_csv(LABELS, delimiter=delimiter)
    data = content.encode(encoding) if "marked" not in encoding else b"\xff\xfe" + content.encode("utf-16-le")
    (tmp_path / name).write_bytes(data)
    found, notes = rows_of(tmp_path / name)
    assert [text for _, text, _ in found] == TEXTS
    assert [target for _, _, target in found] == TARGETS
    assert [number for number, _, _ in found] == [2, 3, 4, 5]  # the header is row 1, a text of two lines is one row
    assert len(notes) == (encoding == "cp1252")
    assert all("read as Windows-1252" in note for note in notes)
    assert losses.read_losses(tmp_path / name, FLEET).texts == TEXTS


def as_format(folder: Path, name: str) -> Path:
    """The labels in a file of this name."""
    path, frame = folder / name, pd.DataFrame(LABELS[1:], columns=LABELS[0])
    rows = frame.to_dict("records")
    contents: dict[str, Any] = {
        "l.jsonl": "\n".join(map(json.dumps, rows)),
        "l.ndjson": "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\r\n",
        "array.json": json.dumps(rows, indent=1),
        "columns.json": json.dumps(frame.to_dict("list")),
        "pandas.json": frame.to_json(),
        "data.json": json.dumps({"data": rows, "errors": [{"a": 1}], "n": 4}),
        "one.json": json.dumps({"version": 1, "labels": rows, "tags": ["a"]}),
        "lines.json": "\n".join(map(json.dumps, rows)),
    }
    if name.endswith(".parquet"):
        frame.to_parquet(path)
    elif name.endswith(".xlsx"):
        frame.to_excel(path, index=False)
    else:
        path.write_bytes(contents[name].encode())
    return path


JSONS = ["l.jsonl", "l.ndjson", "array.json", "columns.json", "pandas.json", "data.json", "one.json", "lines.json"]


@pytest.mark.parametrize("name", [*JSONS, "l.parquet", "l.xlsx"])
def test_every_format(name: str, tmp_path: Path) -> None:
    path = as_format(tmp_path, name)
    found, notes = rows_of(path)
    first = 2 if name.endswith("xlsx") else 1
    assert found == list(zip(range(first, first + 4), TEXTS, TARGETS, strict=True))
    assert notes == []
    own = losses.read_losses(path, FLEET)
    assert (own.texts, own.numbers.tolist()) == (TEXTS, [number for number, *_ in found])
    assert [text for _, text, _ in traffic.read_requests(TrafficFile(path))] == TEXTS


PARTS = ['"', '""', ",", ";", "\t", "|", "\n", "\r\n", "a", " ", "'", "\\", "é", "\u2028"]
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30).filter(str.strip)
TRICKY = st.lists(st.sampled_from(PARTS)).map("".join).filter(str.strip)
ROW = st.tuples(TEXT | TRICKY, st.sampled_from(["simple", "moderate", "complex"]))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(ROW, min_size=1, max_size=30),
    delimiter=st.sampled_from([",", ";", "\t", "|"]),
    dialect=st.sampled_from(
        [
            {"quoting": csv.QUOTE_MINIMAL},
            {"quoting": csv.QUOTE_ALL},
            {"quoting": csv.QUOTE_NONNUMERIC, "lineterminator": "\n"},
            {"quoting": csv.QUOTE_ALL, "lineterminator": "\r\n"},
        ]
    ),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_what_is_written_is_read(
    rows: list[tuple[str, str]], delimiter: str, dialect: dict[str, Any], encoding: str, tmp_path: Path
) -> None:
    """Quotes, line ends and every delimiter inside texts, in every dialect."""
    path = tmp_path / "any.csv"
    table = [["id", "text", "tier"], *([str(n), *row] for n, row in enumerate(rows))]
    path.write_bytes(as_csv(table, delimiter=delimiter, **dialect).encode(encoding))
    (batch,) = traffic.read_labels(TrafficFile(path))
    assert batch.texts == [text for text, _ in rows]
    assert batch.numbers.tolist() == list(range(2, 2 + len(rows)))
    assert batch.targets.argmax(axis=1).tolist() == [["simple", "moderate", "complex"].index(tier) for _, tier in rows]


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        ('text, tier\n"a, b", simple\n"c", complex\n', ["a, b", "c"]),  # a blank after each comma
        ('text,tier\n"He said \\"hi\\", twice",simple\n"b",complex\n', ['He said "hi", twice', "b"]),  # as Spark writes
        ('text\ttier\n"Hello" was said\tsimple\n"b\tcomplex\n', ['"Hello" was said', '"b']),  # no quoting at all
        ("text\nhello, you\nhow, are, you\n", ["hello, you", "how, are, you"]),  # one column, commas in it
        ("text,tier,note\na,simple\nb,complex,\nc,simple,x\n", ["a", "b", "c"]),  # Excel leaves out empty ends
        ("text,tier\ra,simple\rb,complex\r", ["a", "b"]),  # old Macs
        ("text;tier\na, b, c;simple\nd, e;complex\n", ["a, b, c", "d, e"]),
        ("\n\ntext,tier\na,simple\n", ["a"]),
        (f"text,tier\n{'long ' * 60_000},simple\n", ["long " * 60_000]),  # more than csv takes unasked
        ("text,tier,,\na,simple,,\nb,complex,,\n", ["a", "b"]),
        ("sep=;\r\ntext;tier\r\na, b;simple\r\n", ["a, b"]),
        (",text,tier\n0,a,simple\n1,b,complex\n", ["a", "b"]),  # the index that pandas writes
    ],
    ids=[
        "blanks",
        "backslashes",
        "unquoted",
        "one column",
        "short",
        "mac",
        "semicolons",
        "late",
        "long",
        "wide",
        "sep",
        "index",
    ],
)
def test_dialects_that_are_found(content: str, texts: list[str], tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_bytes(content.encode())
    assert [text for _, text, _ in traffic.read_requests(TrafficFile(tmp_path / "l.csv"))] == texts


def test_a_quoted_text_longer_than_the_head_does_not_mislead(tmp_path: Path) -> None:
    rows = [["Message", "Label"], *([f"{n}\n" * 40_000 + '"a", b; c', "simple"] for n in range(8))]
    (tmp_path / "l.csv").write_text(as_csv(rows, delimiter=";"))
    assert (tmp_path / "l.csv").stat().st_size > 2 * delimited.HEAD_CHARS
    found, _ = rows_of(tmp_path / "l.csv")
    assert [text for _, text, _ in found] == [text for text, _ in rows[1:]]


def test_decimal_commas_and_truth_values(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("text;claude-haiku-4-5;claude-opus-4-7\na;0,5;1\nb;1,0;1\n")
    found, _ = rows_of(tmp_path / "s.csv")
    assert [target for *_, target in found] == [[0.5, 0, 0.5], [1, 0, 0]]
    assert losses.read_losses(tmp_path / "s.csv", FLEET).loss[:, 0].tolist() == [0.5, 0]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("l.csv", b"text,tier\nok,simple\nbad\0,simple\n", "line 3: it holds a NUL"),
        ("l.csv", "text,tier\nok,simple\n".encode("utf-16-le"), "line 1: it holds a NUL"),
        ("l.csv", "text,tier\nok,simple\nb\0,simple\n".encode("utf-16"), "line 3: it holds a NUL"),
        ("l.csv", "text,tier\nGrüße,simple\nÄÖÜ".encode() + b"\xfc,simple\n", "line 3: the byte 0xfc is no UTF-8, as"),
        ("l.csv", b"text,tier\na,simple\n\xfc\x81,simple\n", "line 3: the byte 0x81 is neither UTF-8 nor Windows-1252"),
        ("l.csv", "text,tier\nok,simple\nb,simple\n".encode("utf-16")[:-1], "line 3: it is no utf-16"),
        ("l.jsonl", b'{"text": "a"}\n{"text": "\x9d"}\n', "line 2: the byte 0x9d is neither"),
        ("l.csv", b'text,tier\nok,simple\n"never,simple\nb,simple\n', r"row 3 \(..never.*\): a quote is opened"),
        ("l.csv", b'text;tier\n"a";simple\n"b" c;simple\n' + b'"d; e";simple\n' * 9, r"row 3 \(.*\): a quote inside"),
        ("l.csv", b"text,tier\n" + b"a,simple\n" * 20 + b"so, it,simple\n", r"row 22 \(.*\): 3 cells, .* header has 2"),
        ("l.csv", b"text,tier\na,simple\n\n\nb,smple\n", r"row 5 \(.b.\): tier .smple. is none .* mean .simple"),
        ("l.csv", b"text,tier\na,simple\nb,\n", r'row 3 \("b"\): it has no tier'),
        ("l.csv", b"text,tier\na,simple\n,complex\n", "row 3: there is no text; leave the row out"),
        ("l.csv", b"text,text,tier\na,b,simple\n", "more than one column text"),
        ("l.csv", b"text,tier\n", "has no rows"),
        ("l.json", b'[{"text": "a", "tier": "simple"}, 7]', r'row 2 \("7"\): a int, expected an object'),
        ("l.json", b'{"model": "m", "messages": [{"role": "user", "content": "hi"}]}', "expected an array of objects"),
        ("l.json", b"[]", "has no rows"),
        ("l.json", b'[{"text": "a",]', "expected JSON: an array of objects"),
        ("l.jsonl", b'{"text": "a", "tier": "simple"}\n\n["b"]\n', r"row 3 \(.*\): .*expected one JSON object a line"),
        ("l.xlsx", b"no zip at all", "cannot be read as .xlsx"),
        ("l.parquet", b"no parquet", "cannot be read as .parquet"),
        ("l.xls", b"", "is not known; .*; save it as .xlsx"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(LabelError, match=message) as raised:
        rows_of(tmp_path / name)
    assert name in str(raised.value)
    with pytest.raises(LabelError, match=message):
        losses.read_losses(tmp_path / name, FLEET)


@pytest.mark.parametrize(
    "header",
    [
        "Message",
        "Prompt",
        "TEXT",
        " Query ",
        "Question",
        "request",
        "Input",
        "Content",
        "questions",
        "user_message",
        "userMessage",
        "Prompt text",
    ],
)
@pytest.mark.parametrize("tier", ["Tier", "LABEL", " complexity ", "Difficulty", "required_tier"])
def test_headers_are_guessed_and_said(header: str, tier: str, tmp_path: Path) -> None:
    rows = [["ID", header, "Date", tier, "Message ID"], *(["7", text, "May", t, "9"] for text, t in LABELS[1:])]
    (tmp_path / "l.csv").write_text(as_csv(rows))
    found, notes = rows_of(tmp_path / "l.csv")
    assert [(text, target) for _, text, target in found] == list(zip(TEXTS, TARGETS, strict=True))
    assert notes == [
        f'l.csv: text column: "{header.strip()}" (guessed; --text-column says otherwise)',
        f'l.csv: tier column: "{tier.strip()}" (guessed; --tier-column says otherwise)',
    ]


def test_exact_names_come_first_and_silently(tmp_path: Path) -> None:
    frame = pd.DataFrame({"Message": ["no"], "Label": ["complex"], "text": ["yes"], "tier": ["simple"]})
    frame.to_csv(tmp_path / "l.csv", index=False)
    assert rows_of(tmp_path / "l.csv") == ([(2, "yes", [1, 0, 0])], [])
    found, _ = rows_of(tmp_path / "l.csv", text_column="message", tier_column="Label")
    assert found == [(2, "no", [0, 0, 1])]


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"Message": "a", "Question": "b", "tier": "simple"}, {}, "Message, Question may each .*--text-column"),
        ({"text": "a", "Label": "simple", "Complexity": "complex"}, {}, "Label, Complexity may each .*--tier-column"),
        ({"a": "b", "c": "simple"}, {}, "no column text or prompt or query; it has a, c; .*: --text-column"),
        ({"How do I reset?": "Why?", "simple": "complex"}, {}, "its first row must name the columns"),
        ({"text": "a", "Class": "simple"}, {}, 'no column tier.*class holds tiers: --tier-column "class"'),
        ({"text": "a"}, {"text_column": "txt"}, r"no column 'txt' \(--text-column\); did you mean 'text'"),
        ({"text": "a"}, {"tier_column": "Label"}, r"no column 'Label' \(--tier-column\); it has text"),
        ({"text": "a", "Label": "easy"}, {}, r"row 2 \(.a.\): tier 'easy' is none of simple, moderate, complex; map"),
    ],
)  # fmt: skip
def test_guesses_that_are_none(columns: dict[str, str], options: dict[str, str], message: str, tmp_path: Path) -> None:
    pd.DataFrame([columns]).to_csv(tmp_path / "l.csv", index=False)
    with pytest.raises(LabelError, match=message):
        rows_of(tmp_path / "l.csv", **options)
    with pytest.raises(LabelError, match=message):
        losses.read_losses(Table(tmp_path / "l.csv", **options), FLEET)


def test_of_several_columns_the_one_that_holds_tiers_is_the_tier(tmp_path: Path) -> None:
    pd.DataFrame({"text": TEXTS, "Label": ["a", "b", "c", "d"], "Difficulty": TIERS}).to_csv(
        tmp_path / "l.csv", index=False
    )
    found, notes = rows_of(tmp_path / "l.csv")
    assert [target for *_, target in found] == TARGETS
    assert len(notes) == 1
    scores = pd.DataFrame({"text": TEXTS, "difficulty": [3, 4, 5, 6], "claude-haiku-4-5": 1.0, "claude-opus-4-7": 1.0})
    scores.to_csv(tmp_path / "s.csv", index=False)  # a difficulty of another kind does not hide scores
    found, notes = rows_of(tmp_path / "s.csv")
    assert [target for *_, target in found] == [[1, 0, 0]] * 4
    assert notes == []


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (["1", "n/a"], r"row 3 \(.b.\): claude-haiku-4-5 is 'n/a', expected 0 to 1"),
        (["1", "7"], r"row 3 \(.b.\): claude-haiku-4-5 is '?7(.0)?'?, expected 0 to 1"),
        (["1", ""], r"row 3 \(.b.\): it has no score of claude-haiku-4-5; leave the row out"),
    ],
)
def test_a_bad_score_is_named(scores: list[str], message: str, tmp_path: Path) -> None:
    frame = pd.DataFrame({"Question": ["a", "b"], "claude-haiku-4-5": scores, "claude-opus-4-7": ["1", "1"]})
    frame.to_csv(tmp_path / "s.csv", index=False)
    with pytest.raises(LabelError, match=message):
        rows_of(tmp_path / "s.csv")
    with pytest.raises(LabelError, match=message):
        losses.read_losses(tmp_path / "s.csv", FLEET)


def test_a_model_that_did_not_answer_does_not_hide_its_tier(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": ["a", "b"], "one": [0.5, None], "two": [1.0, 0.0], "big": [1.0, 1.0]})
    frame.to_csv(tmp_path / "s.csv", index=False)
    tiers = {"one": Tier.SIMPLE, "two": Tier.SIMPLE, "big": Tier.COMPLEX}
    found, _ = rows_of(tmp_path / "s.csv", tiers=tiers)
    assert [target for *_, target in found] == [[0.75, 0, 0.25], [0, 0, 1]]


def test_class_is_the_class_of_traffic(tmp_path: Path) -> None:
    pd.DataFrame({"text": TEXTS, "tier": TIERS, "Class": ["a", "b", "a", "b"]}).to_csv(tmp_path / "l.csv", index=False)
    notes: list[str] = []
    (batch,) = traffic.read_labels(TrafficFile(tmp_path / "l.csv", say=notes.append))
    assert batch.slices == {"class": ["a", "b", "a", "b"]}
    assert notes == ['l.csv: "Class" is read as the class of traffic, column `class`']
    pd.DataFrame({"text": TEXTS, "Class": TIERS}).to_csv(tmp_path / "l.csv", index=False)
    (batch,) = traffic.read_labels(TrafficFile(tmp_path / "l.csv", tier_column="Class"))
    assert batch.targets.tolist() == TARGETS
    assert batch.slices == {}


@pytest.mark.parametrize("name", ["l.csv", "l.jsonl", "l.xlsx", "l.json", "l.parquet"])
def test_blank_rows_are_skipped_and_counted(name: str, tmp_path: Path) -> None:
    path, blank = tmp_path / name, [None, None]
    rows: list[list[Any]] = [blank, [TEXTS[0], "simple"], blank, blank, [TEXTS[1], "complex"]]
    if name == "l.jsonl":
        path.write_text(
            "\n".join(json.dumps(dict(zip(LABELS[0], row, strict=True))) if row[0] else " " for row in rows)
        )
    elif name == "l.csv":
        path.write_text(as_csv([LABELS[0], *([cell or "" for cell in row] for row in rows)]))
    else:
        frame = pd.DataFrame(rows, columns=LABELS[0])
        {"l.xlsx": lambda: frame.to_excel(path, index=False), "l.json": lambda: frame.to_json(path, orient="records"),
         "l.parquet": lambda: frame.to_parquet(path)}[name]()  # fmt: skip
    found, notes = rows_of(path)
    shift = 1 if name in ("l.csv", "l.xlsx") else 0
    assert [(number, text) for number, text, _ in found] == [(2 + shift, TEXTS[0]), (5 + shift, TEXTS[1])]
    assert notes == [f"{name}: 3 blank rows skipped"]


def test_blank_lines_change_no_value(tmp_path: Path) -> None:
    """A whole number stays one, and the last line's end is no blank row."""
    rows = ['{"text": "a", "id": 7, "good": true}', "", '{"text": "b", "id": 8, "good": false}', ""]
    for name in ("l.jsonl", "l.json"):
        (tmp_path / name).write_text("\n".join(rows))
        notes: list[str] = []
        read = list(traffic.read_requests(TrafficFile(tmp_path / name, say=notes.append)))
        assert [(number, row["id"], row["good"]) for number, _, row in read] == [(1, 7, True), (3, 8, False)]
        assert notes == [f"{name}: 1 blank row skipped"]


def test_without_openpyxl_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pd.DataFrame({"text": TEXTS, "tier": TIERS}).to_excel(tmp_path / "l.xlsx", index=False)
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(ClientError, match=r"tune needs openpyxl; pip install 'tierwise\[train\]'"):
        CliRunner().invoke(cli, ["tune", "--labels", str(tmp_path / "l.xlsx")], catch_exceptions=False)


def test_a_spreadsheet_with_other_sheets_numbers_and_gaps(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.active.title = "Summary"
    book.active.append(["total", 3])
    sheet = book.create_sheet("My data")
    for row in (
        ["Question", "Tier", "Score", "Day"],
        ["hi", "simple", 0.5, pd.Timestamp("2026-05-04")],
        [42, "complex", 1, None],
    ):
        sheet.append(row)
    sheet["A9"], sheet["B9"] = "late", "moderate"
    book.create_sheet("Empty")
    book.save(tmp_path / "l.xlsx")
    found, notes = rows_of(tmp_path / "l.xlsx")
    assert [(number, text) for number, text, _ in found] == [(2, "hi"), (3, "42"), (9, "late")]
    assert notes[0] == 'l.xlsx: sheet "My data" of Summary, "My data"'
    assert notes[-1] == "l.xlsx: 5 blank rows skipped"


def test_memory_stays_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is read in batches: twice as many rows take no more memory."""
    monkeypatch.setattr(tables, "BATCH", 500)

    def peak(path: Path) -> int:
        tracemalloc.start()
        n = sum(len(batch.texts) for batch in traffic.read_labels(TrafficFile(path)))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert n in (6_000, 24_000)
        return most

    for suffix in ("csv", "jsonl", "parquet"):
        peaks = []
        for n in (6_000, 24_000):
            frame = pd.DataFrame({"text": [f"{k} {'word ' * 100}" for k in range(n)], "tier": "simple"})
            path = tmp_path / f"{n}.{suffix}"
            if suffix == "csv":
                frame.to_csv(path, index=False)
            elif suffix == "jsonl":
                frame.to_json(path, orient="records", lines=True)
            else:
                frame.to_parquet(path, row_group_size=500)
            peaks.append(peak(path))
        assert peaks[1] < 1.5 * peaks[0], (suffix, peaks)


def test_commands_take_the_columns_options_and_say_their_guesses(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"Message": [f"{text} {n}" for n, text in enumerate(TEXTS * 30)], "Note": "x", "Wanted": TIERS * 30}
    )
    frame.to_csv(tmp_path / "l.csv", index=False, sep=";", encoding="cp1252")
    done = CliRunner().invoke(tune, ["--labels", "l.csv", "--tier-column", "wanted"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert 'l.csv: text column: "Message" (guessed' in done.stderr
    assert done.stderr.count("Windows-1252") == 1
    assert "labels      120 rows" in done.stdout
    args = ["l.csv", "--text-column", "Message", "--tier-column", "Wanted", "--out", "out.jsonl"]
    done = CliRunner().invoke(label, args, catch_exceptions=False)
    assert "120 labels in out.jsonl" in done.output
    assert "guessed" not in done.output
    assert {json.loads(line)["text"] for line in Path("out.jsonl").read_text().splitlines()} == set(frame["Message"])
