"""Both notebooks' metadata come from one place, and what a user attached stays attached."""

import json
import shlex
import shutil
from pathlib import Path

import pytest

from hpa_kit.cli import main
from hpa_kit.errors import InputError
from hpa_kit.kaggle.mounts import COMPETITION
from hpa_kit.kaggle.publish.dataset import find_checkout
from hpa_kit.kaggle.publish.metadata import NOTEBOOKS, check_metadata, sort_source
from hpa_kit.kaggle.publish.notebooks import write_metadata

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The notebooks of this checkout, without any metadata."""
    root = tmp_path / "checkout"
    (root / "hpa_kit").mkdir(parents=True)
    (root / "hpa_kit" / "__init__.py").touch()
    (root / "wheels").mkdir()
    (root / "wheels" / "requirements.txt").touch()
    (root / "notebooks").mkdir()
    for name in NOTEBOOKS:
        for suffix in (".py", ".ipynb"):
            shutil.copy(ROOT / "notebooks" / f"{name}{suffix}", root / "notebooks")
    return root


def content(checkout: Path, name: str) -> dict:
    return json.loads(NOTEBOOKS[name].path(checkout).read_text())


def test_both_files_are_written_valid_from_nothing(checkout):
    assert set(write_metadata(checkout, "jane-doe").values()) == {True}
    for name in NOTEBOOKS:
        assert check_metadata(NOTEBOOKS[name].path(checkout)) == []
        found = content(checkout, name)
        assert found["id"] == f"jane-doe/hpa-kit-{name}"
        assert (found["enable_internet"], found["enable_gpu"]) == (False, True)
        assert "jane-doe/hpa-kit" in found["dataset_sources"]
    assert "jane-doe/hpa-kit-members" in content(checkout, "infer")["dataset_sources"]


def test_writing_again_changes_nothing(checkout):
    write_metadata(checkout, "jane-doe")
    assert set(write_metadata(checkout).values()) == {False}


def test_the_projects_own_files_are_what_would_be_written(checkout):
    for name in NOTEBOOKS:
        path = NOTEBOOKS[name].path(checkout)
        path.parent.mkdir(exist_ok=True)
        shutil.copy(NOTEBOOKS[name].path(ROOT), path)
    assert set(write_metadata(checkout).values()) == {False}


def test_a_new_owner_takes_over_the_old_ones_sources_and_no_others(checkout):
    write_metadata(checkout, add=["your-name/runs", "someone/images/3"])
    write_metadata(checkout, "jane-doe")
    assert content(checkout, "infer")["dataset_sources"] == [
        "jane-doe/hpa-kit",
        "jane-doe/hpa-kit-members",
        "jane-doe/runs",
        "someone/images/3",
    ]
    assert content(checkout, "train")["id"] == "jane-doe/hpa-kit-train"


def test_sources_are_put_into_their_lists_and_put_right(checkout):
    write_metadata(
        checkout,
        "jane-doe",
        ["datasets/jane-doe/runs", "https://www.kaggle.com/code/jane-doe/hpa-kit-train",
         "timm/resnet/pyTorch/resnet50/1"],
    )  # fmt: skip
    found = content(checkout, "infer")
    assert "jane-doe/runs" in found["dataset_sources"]
    assert found["kernel_sources"] == ["jane-doe/hpa-kit-train"]
    assert found["model_sources"] == ["timm/resnet/pyTorch/resnet50/1"]
    assert check_metadata(checkout) == []


def test_what_the_user_took_out_or_renamed_stays_so_and_misspelt_keys_go(checkout):
    write_metadata(checkout, "jane-doe")
    path = NOTEBOOKS["infer"].path(checkout)
    found = content(checkout, "infer")
    found |= {"id": "jane-doe/my-cells", "title": "My cells", "is_private": False, "enable_internett": True}
    found["dataset_sources"] = ["datasets/jane-doe/hpa-kit", "jane-doe/other-members"]
    path.write_text(json.dumps(found))
    write_metadata(checkout)
    now = content(checkout, "infer")
    assert (now["id"], now["title"], now["is_private"]) == ("jane-doe/my-cells", "My cells", False)
    assert now["dataset_sources"] == ["jane-doe/hpa-kit", "jane-doe/other-members"]
    assert check_metadata(path) == []


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_file_that_is_no_metadata_is_left_alone_and_named(checkout, text):
    NOTEBOOKS["infer"].path(checkout).write_text(text)
    with pytest.raises(InputError, match=r"kernel-metadata\.json"):
        write_metadata(checkout)
    assert NOTEBOOKS["infer"].path(checkout).read_text() == text


def test_an_owner_that_is_no_name_is_refused_before_anything_is_written(checkout):
    with pytest.raises(InputError, match="Jane Doe"):
        write_metadata(checkout, "Jane Doe")
    assert not NOTEBOOKS["infer"].path(checkout).exists()


@pytest.mark.parametrize(
    ("name", "sorted_as"),
    [
        ("me/x", ("dataset_sources", "me/x")),
        ("datasets/me/x/", ("dataset_sources", "me/x")),
        ("kaggle.com/x", ("dataset_sources", "kaggle.com/x")),
        ("https://kaggle.com/models/a/b/c/d/1", ("model_sources", "a/b/c/d/1")),
        ("notebooks/me/x", ("kernel_sources", "me/x")),
    ],
)
def test_a_source_is_sorted_by_its_address(name, sorted_as):
    assert sort_source(name) == sorted_as


def test_the_command_writes_in_the_working_folder_and_fails_on_faults(checkout, monkeypatch, capsys):
    monkeypatch.chdir(checkout)
    assert main(["kaggle", "metadata", "--owner", "jane-doe"]) == 0
    assert "your-name" not in capsys.readouterr().out
    assert content(checkout, "train")["id"] == "jane-doe/hpa-kit-train"
    path = NOTEBOOKS["train"].path(checkout)
    path.write_text(json.dumps({**content(checkout, "train"), "dataset_sources": ["me/a@b"]}))
    assert main(["kaggle", "metadata"]) == 1
    printed = capsys.readouterr().out
    assert "a@b" in printed
    command = printed.splitlines()[-1].partition(" -> hpa-kit ")[2]
    assert main(shlex.split(command)) == 0


@pytest.mark.parametrize(
    "source",
    ["me/a@b", "me", "", "NAME/hpa-kit-members", "me/x/newest", "code/me/abc", "models/timm/resnet",
     "https://example.org/me/x/y", f"competitions/{COMPETITION}", f"https://www.kaggle.com/c/{COMPETITION}"],
)  # fmt: skip
@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_a_source_that_kaggle_does_not_take_is_refused_before_anything_is_written(
    checkout, monkeypatch, capsys, notebook, source
):
    monkeypatch.chdir(checkout)
    assert main(["kaggle", "metadata", "--owner", "jane-doe"]) == 0
    before = [one.path(checkout).read_bytes() for one in NOTEBOOKS.values()]
    capsys.readouterr()
    words = ["kaggle", "metadata", "--owner", "bob", "--to", notebook, "--add", "me/good", source]
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"hpa-kit: kaggle: --add {source!r}: ")
    assert captured.err.endswith("nothing was written\n")
    assert [one.path(checkout).read_bytes() for one in NOTEBOOKS.values()] == before
    assert main(["kaggle", "metadata"]) == 0


def test_a_source_is_taken_out_by_its_name_or_its_address(checkout):
    write_metadata(checkout, "jane-doe", ["me/one", "code/me/second", "me/three"], "train")
    write_metadata(checkout, None, [], "train", ["datasets/me/one", "code/me/second", "me/unheard-of"])
    assert content(checkout, "train")["dataset_sources"] == ["jane-doe/hpa-kit", "me/three"]
    assert content(checkout, "train")["kernel_sources"] == []


def test_the_choices_that_are_the_users_stay(checkout):
    write_metadata(checkout, "jane-doe")
    path = NOTEBOOKS["infer"].path(checkout)
    chosen = {
        "machine_shape": "NvidiaTeslaT4",
        "docker_image_pinning_type": "original",
        "keywords": ["cells"],
    }
    path.write_text(json.dumps({**content(checkout, "infer"), **chosen}))
    write_metadata(checkout)
    assert chosen.items() <= content(checkout, "infer").items()


def test_the_command_checks_another_file_without_writing(checkout, monkeypatch, capsys):
    monkeypatch.chdir(checkout)
    assert main(["kaggle", "metadata", str(checkout)]) == 1
    assert "missing" in capsys.readouterr().out
    assert not NOTEBOOKS["infer"].path(checkout).exists()


def test_outside_of_a_checkout_the_missing_part_is_named(tmp_path):
    with pytest.raises(InputError, match="no checkout"):
        find_checkout(tmp_path)
