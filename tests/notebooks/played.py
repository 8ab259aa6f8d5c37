"""Notebooks executed as Kaggle does it: all cells, with parameters set, in a folder."""

from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


def with_parameters(path: Path, **parameters: Any) -> Any:
    """The notebook with a cell of other values after its parameters cell, as papermill puts it."""
    notebook = nbformat.read(path, as_version=4)
    place = next(i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
    source = "\n".join(f"{key} = {value!r}" for key, value in parameters.items())
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(source))
    return notebook


def execute(notebook: Any, folder: Path, patience: float) -> str:
    """Run all cells with ``folder`` as working folder; everything they printed."""
    where = {"metadata": {"path": str(folder)}}
    client = nbclient.NotebookClient(
        notebook, timeout=None, startup_timeout=patience, kernel_name="python3", resources=where
    )
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output.get("text", "") for output in outputs if output.output_type == "stream")


def reports_in(notebook: Any) -> int:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return sum("<iframe title='report'" in output.get("data", {}).get("text/html", "") for output in outputs)
