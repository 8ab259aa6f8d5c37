"""What Kaggle mounts is found by what it holds, wherever it is."""

from pathlib import Path

import pytest

from hpa_kit.config import TrainSettings
from hpa_kit.errors import InputError
from hpa_kit.kaggle import (
    find_cell_weights,
    find_competition,
    find_ensemble,
    find_members,
    find_mounts,
    find_run,
    output_path,
)
from hpa_kit.kaggle.mounts import COMPETITION, ENTRIES
from hpa_kit.training.checkpoint import write_checkpoint


def competition(folder: Path) -> Path:
    (folder / "test").mkdir(parents=True)
    (folder / "sample_submission.csv").write_text("ID,ImageWidth,ImageHeight,PredictionString\n")
    return folder


@pytest.mark.parametrize(
    "mount", [COMPETITION, f"competitions/{COMPETITION}", f"datasets/someone/{COMPETITION}", "a/b/c/d"]
)
def test_the_competition_is_found_in_every_form_of_mount(tmp_path, mount):
    folder = competition(tmp_path / mount)
    assert find_competition(None, [tmp_path]) == folder
    assert find_mounts("sample_submission.csv", [tmp_path]) == [folder]


def test_tables_without_images_beside_them_are_not_the_competition(tmp_path):
    folder = competition(tmp_path / "competitions" / "x")
    other = tmp_path / "datasets" / "someone" / "tables"
    other.mkdir(parents=True)
    (other / "train.csv").write_text("ID,Label\n")
    assert find_competition(None, [tmp_path]) == folder


def test_of_several_candidates_the_one_with_the_competitions_name_is_taken(tmp_path):
    competition(tmp_path / "a-simulated-one")
    folder = competition(tmp_path / "competitions" / COMPETITION)
    assert find_competition(None, [tmp_path]) == folder


def test_several_candidates_without_the_competitions_name_are_all_listed(tmp_path):
    folders = [competition(tmp_path / name) for name in ("one", "two")]
    with pytest.raises(InputError) as error:
        find_competition(None, [tmp_path])
    assert all(str(folder) in str(error.value) for folder in folders)


def test_nothing_mounted_says_what_to_do_and_no_mount_folder_at_all_does_too(tmp_path):
    for roots in ([tmp_path], [tmp_path / "none"]):
        with pytest.raises(InputError, match="attach the competition"):
            find_competition(None, roots)
        with pytest.raises(InputError, match=r"best\.safetensors"):
            find_members(None, roots)


def test_an_override_wins_over_what_is_mounted_and_must_exist(tmp_path):
    competition(tmp_path / "mounted")
    mine = tmp_path / "mine"
    mine.mkdir()
    assert find_competition(mine, [tmp_path]) == mine
    with pytest.raises(InputError, match="nowhere"):
        find_competition(tmp_path / "nowhere", [tmp_path])


def test_every_run_folder_is_a_member_shallowest_first_then_by_name(tmp_path):
    runs = [tmp_path / name for name in ("b-run", "datasets/me/runs/r10", "datasets/me/runs/r2")]
    for run in reversed(runs):
        run.mkdir(parents=True)
        (run / "best.safetensors").touch()
    assert find_members(None, [tmp_path]) == tuple(runs)


def test_members_may_be_given_as_one_path_or_as_a_list(tmp_path):
    assert find_members(str(tmp_path)) == (tmp_path,)
    assert find_members([str(tmp_path), tmp_path]) == (tmp_path, tmp_path)
    with pytest.raises(InputError, match="members: .*gone"):
        find_members([tmp_path / "gone"])


def test_a_folder_of_thousands_of_images_is_not_searched(tmp_path):
    images = tmp_path / "images"
    (images / "deep").mkdir(parents=True)
    (images / "deep" / "train.csv").touch()
    assert find_mounts("train.csv", [tmp_path]) == [images / "deep"]
    for index in range(ENTRIES):
        (images / f"{index}.png").touch()
    assert find_mounts("train.csv", [tmp_path]) == []


def test_results_go_to_the_working_folder_unless_said_otherwise(tmp_path):
    assert output_path("submission.csv", None, tmp_path) == tmp_path / "submission.csv"
    assert output_path("submission.csv", "x/y.csv", tmp_path) == Path("x/y.csv")
    with pytest.raises(InputError, match="set out"):
        output_path("submission.csv", None, tmp_path / "none")


def test_nothing_attached_is_no_ensemble_no_run_and_no_cell_weights(tmp_path):
    assert find_ensemble(None, [tmp_path]) is None
    assert find_run(None, [tmp_path / "none"]) is None
    assert find_cell_weights(None, [tmp_path]) is None


@pytest.mark.parametrize("mount", ["hpa-kit-members", "datasets/me/hpa-kit-members/x"])
def test_the_one_attached_ensemble_and_the_one_earlier_run_are_found(tmp_path, mount):
    folder = tmp_path / mount
    folder.mkdir(parents=True)
    (folder / "ensemble.yaml").touch()
    (folder / "last.safetensors").touch()
    assert find_ensemble(None, [tmp_path]) == folder / "ensemble.yaml"
    assert find_run(None, [tmp_path]) == folder


@pytest.mark.parametrize(
    ("find", "file", "setting"),
    [(find_ensemble, "ensemble.yaml", "ensemble"), (find_run, "last.safetensors", "resume_from")],
)
def test_of_several_attached_none_is_guessed_and_one_can_be_given(tmp_path, find, file, setting):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).touch()
    with pytest.raises(InputError, match=f"{setting}: several .*one.*two"):
        find(None, [tmp_path])
    assert find(tmp_path / "two", [tmp_path]) == tmp_path / "two"
    with pytest.raises(InputError, match="gone"):
        find(tmp_path / "gone", [tmp_path])


@pytest.mark.parametrize("named", ["stage1", "stage1/folds.csv", "stage1/best.safetensors"])
def test_a_run_that_another_setting_names_is_not_gone_on_from(tmp_path, named):
    for name in ("stage1", "earlier"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "last.safetensors").touch()
    assert find_run(None, [tmp_path], [None, 5, "fixed", str(tmp_path / named)]) == tmp_path / "earlier"
    (tmp_path / "earlier" / "last.safetensors").unlink()
    assert find_run(None, [tmp_path], [tmp_path / named]) is None


@pytest.mark.parametrize(
    "names",
    [
        ("dpn_unet_nuclei_v1.pth", "dpn_unet_cell_3ch_v1.pth"),
        ("nuclei-model.pth", "cell-model.pth"),
        ("dpn_unet_nuclei_v1.safetensors", "cell-model.pth"),
    ],
)
def test_cell_weights_are_found_by_any_of_their_names(tmp_path, names):
    folder = tmp_path / "datasets" / "someone" / "hpa-cell-segmentation"
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).touch()
    assert find_cell_weights(None, [tmp_path]) == folder


def test_an_attached_run_whose_networks_find_cells_is_their_weights_and_no_member(tmp_path):
    for network in ("cam", "cells"):
        settings = TrainSettings(data="data", out="run", network=network, masks="masks")
        (tmp_path / network).mkdir()
        write_checkpoint(tmp_path / network / "best.safetensors", settings, {"epoch": 1})
    assert find_members(None, [tmp_path]) == (tmp_path / "cam",)
    assert find_cell_weights(None, [tmp_path]) == tmp_path / "cells"


def test_one_cell_network_without_the_other_is_not_taken(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "nuclei-model.pth").touch()
    assert find_cell_weights(None, [tmp_path]) is None
