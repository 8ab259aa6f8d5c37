"""A small checkout that is ready to drive Kaggle from: metadata, both notebooks with few cells, no wheels."""

import json
from pathlib import Path

from hpa_kit.kaggle.publish.notebooks import write_metadata

PARAMETERS = {
    "train": 'inputs = "/kaggle/input"\nrecipe = "quick"  # what to run\ngoes_on = None  # True needs a past',
    "infer": 'inputs = "/kaggle/input"\nbudget = None',
}


def make_checkout(root: Path, owner: str | None = "jane-doe") -> Path:
    """Write it."""
    for name in ("hpa_kit", "wheels", "constraints", "notebooks"):
        (root / name).mkdir(parents=True)
    (root / "hpa_kit" / "__init__.py").write_text("# kit\n")
    (root / "hpa_kit" / "recipe" / "recipes").mkdir(parents=True)
    (root / "hpa_kit" / "recipe" / "recipes" / "quick.yaml").write_text("about: little\n")
    for name in ("wheels/requirements.txt", "constraints/kaggle.txt", "LICENSE"):
        (root / name).touch()
    for name, text in PARAMETERS.items():
        (root / "notebooks" / f"{name}.ipynb").write_text(json.dumps(notebook(text)))
    if owner is not None:
        write_metadata(root, owner)
    return root


def notebook(parameters: str) -> dict[str, object]:
    """A notebook of two cells, the first of them for parameters."""
    cells = [
        {
            "cell_type": "code",
            "execution_count": None,
            "metadata": {"tags": tags},
            "outputs": [],
            "source": text,
        }
        for tags, text in ((["parameters"], parameters.splitlines(keepends=True)), ([], ["print(inputs)\n"]))
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
