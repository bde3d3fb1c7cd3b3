from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from router import Router
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


def test_its_outputs_are_committed_and_small() -> None:
    assert NOTEBOOK.stat().st_size < 2_000_000
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] for cell in cells if not cell["source"][0].startswith("from pathlib"))
    assert not any(output["output_type"] == "error" for cell in cells for output in cell["outputs"])


def test_the_last_three_cells_alone_serve_labels_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = corpora.queries().sample(600, random_state=0)
    rows[["text", "tier"]].to_csv(tmp_path / "labels.csv", index=False)
    cells = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"][-3:]
    own = cells[0].source.replace("corpora.QUERIES, corpora.OUT_OF_FOLD", 'Path("labels.csv"), None')
    assert own != cells[0].source
    cells[0].source = own
    execute(cells, tmp_path, monkeypatch)
    decision = Router.load(operating_point="mine").decide("hi")
    assert decision.operating_point == "mine"
    assert Router.load().policy.champion.manifest.operating_points["mine"].n_rows == 600
