"""A folder of fields, settings of a recipe, and children that take no time."""

import sys
from pathlib import Path

import pytest

from hpa_kit.config import RecipeSettings
from hpa_kit.recipe import run as running

# Lets tests import what stands beside them.
sys.path.insert(0, str(Path(__file__).parent))

from fake_children import RECIPE, Children


@pytest.fixture
def children(monkeypatch):
    made = Children()
    monkeypatch.setattr(running, "Child", made)
    return made


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    (folder / "train").mkdir(parents=True)
    (folder / "train.csv").write_text("ID,Label\nx,0\n")
    return folder


@pytest.fixture
def settings(data, tmp_path):
    def make(text=RECIPE, **changes):
        path = tmp_path / "two.yaml"
        path.write_text(text)
        values = {"recipe": str(path), "data": data, "out": tmp_path / "out", "device": "cpu", **changes}
        return RecipeSettings(**values)

    return make
