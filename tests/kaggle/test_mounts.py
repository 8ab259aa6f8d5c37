"""What Kaggle mounts is found by what it holds, wherever it is."""

from pathlib import Path

import pytest

from hpa_kit.errors import InputError
from hpa_kit.kaggle import find_competition, find_members, find_mount, find_mounts, output_path
from hpa_kit.kaggle.mounts import COMPETITION, ENTRIES


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
    assert find_mount("sample_submission.csv", [tmp_path]) == folder


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
