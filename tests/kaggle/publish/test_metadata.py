"""``kernel-metadata.json`` is checked before the push, because the client checks almost nothing."""

import json
from pathlib import Path

import pytest

from hpa_kit.kaggle.mounts import COMPETITION
from hpa_kit.kaggle.publish.dataset import slugify
from hpa_kit.kaggle.publish.metadata import check_metadata, find_placeholders

ROOT = Path(__file__).resolve().parents[3]
GOOD = {
    "id": "jane-doe/hpa-kit-infer",
    "title": "HPA kit infer",
    "code_file": "notebooks/infer.ipynb",
    "language": "python",
    "kernel_type": "notebook",
    "is_private": True,
    "enable_gpu": True,
    "enable_internet": False,
    "dataset_sources": ["jane_doe/hpa-kit", "jane-doe/my-runs/3"],
    "competition_sources": [COMPETITION],
    "kernel_sources": ["jane-doe/hpa-kit-train"],
    "model_sources": ["timm/resnet/pyTorch/resnet50/1"],
}
CODE_CELL = {"cell_type": "code", "source": "1", "metadata": {}, "outputs": [], "execution_count": None}


def write(folder: Path, metadata: object = GOOD, **cell: object) -> Path:
    (folder / "notebooks").mkdir(exist_ok=True)
    kernel = {"kernelspec": {"name": "python3", "language": "python"}}
    notebook = {"cells": [{**CODE_CELL, **cell}], "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    (folder / "notebooks" / "infer.ipynb").write_text(json.dumps(notebook))
    path = folder / "kernel-metadata.json"
    path.write_text(json.dumps(metadata))
    return path


def test_good_metadata_has_no_fault_by_file_or_by_folder(tmp_path):
    assert check_metadata(write(tmp_path)) == []
    assert check_metadata(tmp_path) == []
    assert find_placeholders(tmp_path) == []


def test_the_projects_own_metadata_lacks_nothing_but_the_owners_name():
    assert check_metadata(ROOT) == []
    metadata = json.loads((ROOT / "kernel-metadata.json").read_text())
    assert metadata["code_file"] == "notebooks/infer.ipynb"
    owners = {metadata["id"].split("/")[0], *(name.split("/")[0] for name in metadata["dataset_sources"])}
    assert len(find_placeholders(ROOT)) == (3 if owners == {"your-name"} else 0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"enable_internett": False}, "did you mean 'enable_internet'"),
        ({"enable_internet": True}, "without internet"),
        ({"enable_internet": "false"}, "expected true or false"),
        ({"enable_gpu": False}, "needs a GPU"),
        ({"enable_tpu": True}, "runs on GPUs"),
        ({"id": "hpa-kit-infer"}, "expected owner/slug"),
        ({"id": "jane-doe/hpa-kit-infer/2"}, "expected owner/slug"),
        ({"id": "jane-doe/hpa@kit", "title": "hpa kit"}, "slug 'hpa@kit'"),
        ({"id": "jane-doe/hpa", "title": "HPA kit"}, "needs 5"),
        ({"id": 7}, "expected owner/slug"),
        ({"title": "HPA kit inference"}, "make them agree"),
        ({"language": "r"}, "expected 'python'"),
        ({"kernel_type": "script"}, "expected 'notebook'"),
        ({"machine_shape": "NvidiaTeslaP100"}, "retired"),
        ({"docker_image_pinning_type": "newest"}, "expected 'original'"),
        ({"code_file": "notebooks/gone.ipynb"}, "there is no"),
        ({"code_file": "notebooks/infer.py"}, "expected a notebook"),
        ({"dataset_sources": "jane-doe/hpa-kit"}, "expected a list"),
        ({"dataset_sources": ["datasets/jane-doe/hpa-kit"]}, "leave 'datasets/' out"),
        ({"dataset_sources": ["https://www.kaggle.com/datasets/jane-doe/hpa-kit"]}, "leave 'https"),
        ({"dataset_sources": ["jane-doe/a&b"]}, "slug 'a&b'"),
        ({"dataset_sources": ["jane@doe/hpa-kit"]}, "owner 'jane@doe'"),
        ({"dataset_sources": ["jane-doe/hpa-kit/latest"]}, "is no number"),
        ({"dataset_sources": ["a/hpa-kit", "a/hpa-kit"]}, "twice"),
        ({"kernel_sources": [3]}, "expected owner/slug"),
        ({"model_sources": ["timm/resnet"]}, "framework"),
        ({"model_sources": ["timm/resnet/pyTorch/resnet50/newest"]}, "is no number"),
        ({"competition_sources": ["competitions/" + COMPETITION, COMPETITION]}, "slug alone"),
        ({"competition_sources": []}, "no data is mounted"),
    ],
)
def test_each_fault_is_one_line_that_says_what_is_wrong(tmp_path, change, said):
    faults = check_metadata(write(tmp_path, {**GOOD, **change}))
    assert len(faults) == 1, faults
    assert said in str(faults[0])
    assert "\n" not in str(faults[0])


@pytest.mark.parametrize("key", ["id", "title", "code_file", "enable_internet", "enable_gpu", "is_private"])
def test_what_matters_is_written_out_not_left_to_the_client(tmp_path, key):
    faults = check_metadata(write(tmp_path, {name: value for name, value in GOOD.items() if name != key}))
    assert [fault for fault in faults if f"{key} is missing" in str(fault)]


def test_a_notebook_with_outputs_or_without_a_language_is_a_fault(tmp_path):
    assert "carry outputs" in str(check_metadata(write(tmp_path, outputs=[{"output_type": "stream"}]))[0])
    assert "carry outputs" in str(check_metadata(write(tmp_path, execution_count=3))[0])
    path = write(tmp_path)
    notebook = tmp_path / "notebooks" / "infer.ipynb"
    notebook.write_text(json.dumps({"cells": [], "metadata": {}}))
    assert "kernelspec" in str(check_metadata(path)[0])
    notebook.write_text("[]")
    assert "no notebook" in str(check_metadata(path)[0])


@pytest.mark.parametrize("content", ["", "{", "[]", "3"])
def test_a_file_that_is_no_metadata_is_one_fault(tmp_path, content):
    path = tmp_path / "kernel-metadata.json"
    path.write_text(content)
    assert len(check_metadata(path)) == 1
    path.unlink()
    assert len(check_metadata(path)) == 1


@pytest.mark.parametrize(
    ("title", "slug"),
    [
        ("HPA kit: infer!", "hpa-kit-infer"),
        ("  Zürich 1,000 cells ", "zurich-1000-cells"),
        ("don't__stop", "don-t-stop"),
    ],
)
def test_titles_become_slugs_as_kaggle_makes_them(title, slug):
    assert slugify(title) == slug
