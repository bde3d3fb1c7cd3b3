from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import nbformat
import pytest
from click.testing import CliRunner
from nbclient import NotebookClient

from router import Router
from router.cli import cli
from tests.conftest import ROOT
from training.build import corpora

NOTEBOOK = ROOT / "notebooks" / "threshold_tuning.ipynb"

# jupyter_client and pyzmq close their sockets late and speak TCP to the kernel; neither is ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


def execute(cells: list[Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Run cells in a fresh kernel in `folder`, against this source tree."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(
        notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    return list(notebook.cells)


def test_it_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = execute(nbformat.read(NOTEBOOK, as_version=4).cells, tmp_path, monkeypatch)
    figures = sum("image/png" in output.get("data", {}) for cell in cells for output in cell.get("outputs", []))
    assert figures == 6
    point = tomllib.loads((tmp_path / "tierwise.toml").read_text())["operating_points"]["mine"]
    assert point["target"] == "quality >= 0.95 with 95% confidence"


def test_the_command_sets_it_to_labels_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpora.queries().sample(60, random_state=1)[["text", "tier"]].to_csv(tmp_path / "mine.csv", index=False)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, ["notebook", "--labels", "mine.csv"])
    assert done.exit_code == 0, done.output
    cells = nbformat.read(tmp_path / NOTEBOOK.name, as_version=4).cells
    assert not any(cell.get("outputs") for cell in cells)
    (named,) = [line for cell in cells for line in cell.source.splitlines() if line.startswith("LABELS = ")]
    assert named == f"LABELS = Path({str(tmp_path / 'mine.csv')!r})"
    again = CliRunner().invoke(cli, ["notebook"])
    assert again.exit_code == 2 and "--force writes over it" in again.output
    assert CliRunner().invoke(cli, ["notebook", "--force"]).exit_code == 0
    assert json.loads((tmp_path / NOTEBOOK.name).read_text("utf-8")) == json.loads(NOTEBOOK.read_text("utf-8"))


def test_its_outputs_are_committed_and_small() -> None:
    assert NOTEBOOK.stat().st_size < 2_000_000
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] for cell in cells if not cell["source"][0].startswith("from pathlib"))
    assert not any(output["output_type"] == "error" for cell in cells for output in cell["outputs"])


def own_rows(path: Path, n: int = 200) -> None:
    """Rows as somebody has them, in the format that the name says."""
    rows = corpora.queries().sample(n, random_state=1)[["text", "tier"]].rename(columns={"text": "Message"})
    if path.suffix == ".xlsx":
        rows.rename(columns={"tier": "Label"}).to_excel(path, index=False)
    elif path.suffix == ".csv":  # a target that these labels cannot support
        rows.assign(Label="complex").drop(columns="tier").to_csv(path, index=False, sep=";", encoding="utf-16")
    else:
        suffices = {"claude-haiku-4-5": (rows["tier"] == "simple").astype(float), "claude-opus-4-7": 1.0}
        rows.assign(**suffices).drop(columns="tier").to_parquet(path)


def said(cells: list[Any]) -> str:
    return "".join(output.get("text", "") for cell in cells for output in cell.get("outputs", []))


@pytest.mark.parametrize("name", ["labels.xlsx", "labels.csv", "labels.parquet"])
def test_only_labels_is_changed_to_200_rows_of_ones_own(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_rows(tmp_path / name)
    cells = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    changed = cells[0].source.replace("LABELS = corpora.QUERIES ", f'LABELS = Path("{name}") ')
    assert changed != cells[0].source
    cells[0].source = changed
    text = said(execute(cells, tmp_path, monkeypatch))
    assert 'text column: "Message" (guessed' in text
    written = tmp_path / "tierwise.toml"
    if name == "labels.csv" or "nothing is written" in text:
        assert "200 rows: these labels cannot support quality >= 0.95" in text
        assert " is supported, at a cost of " in text
        assert "nothing is written: no point is proved" in text
        assert not written.exists()
    else:
        assert tomllib.loads(written.read_text())["operating_points"]["mine"]["n_rows"] == 200
        assert Router.load(operating_point="mine").decide("hi").operating_point == "mine"


def test_the_last_three_cells_alone_serve_labels_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = corpora.queries().sample(600, random_state=0)
    rows[["text", "tier"]].to_csv(tmp_path / "labels.csv", index=False)
    cells = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"][-3:]
    own = cells[0].source.replace('globals().get("LABELS", corpora.QUERIES)', 'Path("labels.csv")')
    assert own != cells[0].source
    cells[0].source = own
    execute(cells, tmp_path, monkeypatch)
    decision = Router.load(operating_point="mine").decide("hi")
    assert decision.operating_point == "mine"
    assert Router.load().policy.champion.manifest.operating_points["mine"].n_rows == 600
