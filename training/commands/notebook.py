"""The command notebook: the notebook that shows what each threshold costs and risks, on labels of one's own."""

from __future__ import annotations

import json
from pathlib import Path

import click

_NAME = "threshold_tuning.ipynb"
_EXAMPLE = "LABELS = corpora.QUERIES "


def shipped() -> Path:
    """Where the notebook lies: in an installed package, or in a checkout."""
    inside = Path(__file__).parents[1] / "notebooks" / _NAME
    return inside if inside.is_file() else Path(__file__).parents[2] / "notebooks" / _NAME


@click.command()
@click.option("--labels", type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="A table with text and tier; default: the shipped example.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default=Path(_NAME), show_default=True,
              help="Where to write it.")  # fmt: skip
@click.option("--force", is_flag=True, help="Write over a file that is there.")
def notebook(labels: Path | None, out: Path, force: bool) -> None:
    """Write the notebook that shows what each threshold costs and risks, and chooses one.

    With --labels it is set to your file, and its outputs are left out: run it from top to bottom, in under a minute.

    \b
    Examples:
      tierwise notebook
      tierwise notebook --labels labels.csv && jupyter lab threshold_tuning.ipynb
    """
    if out.exists() and not force:
        raise click.BadParameter(f"{out} is there already; --force writes over it", param_hint="--out")
    found = json.loads(shipped().read_text("utf-8"))
    if labels is not None:
        _set(found, labels)
    out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", "utf-8")
    click.echo(f'written: {out}; open it with jupyter lab (pip install "tierwise[notebook]")')


def _set(found: dict[str, list[dict[str, object]]], labels: Path) -> None:
    """Name the labels in the cell that loads the example, and take the example's outputs out."""
    for cell in found["cells"]:
        if cell["cell_type"] != "code":
            continue
        cell["outputs"], cell["execution_count"] = [], None
        source = cell["source"]
        lines = source if isinstance(source, list) else [source]
        cell["source"] = [
            f"LABELS = Path({str(labels.resolve())!r})\n" if str(line).startswith(_EXAMPLE) else line for line in lines
        ]
