"""The folder of pseudo labels, and its parts."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml

from hpa_kit.config import PseudoLabelSettings
from hpa_kit.errors import InputError
from hpa_kit.pseudo_labels.folder import PARTS, DoneField, PseudoLabelFolder

LABELS = {"a": "0", "b": "7|16", "c": "18"}
SHARES = ([], ["a"], ["b"], ["c"])  # of four shards


@pytest.fixture
def make(tmp_path):
    settings = PseudoLabelSettings(data=tmp_path, members=["runs/a"], out=tmp_path / "out", shards=4)

    def make(shard, made_from=None):
        folder = PseudoLabelFolder(settings.out, shard, 4, LABELS, made_from)
        folder.open(settings, settings.of_ensemble(), "members")
        return folder

    return make


def do(folder):
    lines = {id: f"{id},1{',0.5' * 19}\n" for id in SHARES[folder.shard]}
    folder.write_part(DoneField(id, LABELS[id], 1, True, lines[id]) for id in lines)
    folder.merge()


def scores(folder):
    return [line[0] for line in (folder.root / "cell_scores.csv").read_text().splitlines()[1:]]


def test_a_run_goes_on_whose_settings_an_earlier_version_wrote_with_all_defaults(make):
    kept = make(0).root / "settings.yaml"
    values = yaml.safe_load(kept.read_text())
    assert (values["views"], values["map_size"], values["segmenter"]) == (None, None, None)
    written = values | {"views": "flips", "map_size": 512, "segmenter": "auto"}
    kept.write_text(yaml.safe_dump(written))
    make(1)
    kept.write_text(yaml.safe_dump(written | {"views": "scales"}))
    with pytest.raises(InputError, match=r"started with views auto \(now flips\)"):
        make(2)


def test_the_shard_that_ends_last_puts_the_table_together_and_leaves_no_parts(make):
    for shard in (2, 0, 3):
        do(make(shard))
        assert not make(shard).is_whole()
    do(make(1))
    assert make(0).is_whole()
    assert scores(make(0)) == ["a", "b", "c"]
    assert not (make(0).root / PARTS).exists()


def test_shards_that_end_at_once_do_not_take_parts_from_each_other(make):
    folders = [make(shard) for shard in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(do, folders))
    assert scores(folders[0]) == ["a", "b", "c"]
    assert sorted(path.name for path in folders[0].root.iterdir()) == [
        "cell_scores.csv", "fields.csv", "label_round.txt", "masks", "members.txt", "settings.yaml",
    ]  # fmt: skip


def test_parts_that_a_run_left_that_was_killed_after_its_table_was_whole_are_removed(make):
    for shard in range(4):
        do(make(shard))
    left = make(0).root / PARTS / "0-of-4"
    left.mkdir(parents=True)
    (left / "fields.csv").touch()
    assert make(1).is_whole()
    assert not left.parent.exists()


def test_a_table_made_from_something_else_is_not_whole_and_is_made_again_by_all_shards(make):
    for shard in range(4):
        do(make(shard, "images of yesterday"))
    assert make(0, "images of yesterday").is_whole()
    assert make(0, "images of today").is_outdated()
    for shard in (0, 1, 2):
        do(make(shard, "images of today"))
        assert not make(shard, "images of today").is_whole()
    do(make(3, "images of today"))
    assert make(0, "images of today").is_whole()
    assert not make(0, "images of today").is_outdated()


def test_a_share_made_from_something_else_is_not_put_together_with_the_others(make):
    do(make(0, "images of yesterday"))
    for shard in (1, 2, 3):
        do(make(shard, "images of today"))
    assert not (make(0).root / "cell_scores.csv").exists()
    do(make(0, "images of today"))
    assert scores(make(0)) == ["a", "b", "c"]


def test_a_kill_while_the_table_is_put_together_again_leaves_none_that_passes_for_whole(make, monkeypatch):
    for shard in range(4):
        do(make(shard, "images of yesterday"))
    for shard in (0, 1, 2):
        do(make(shard, "images of today"))
    with monkeypatch.context() as patch:
        patch.setattr("shutil.copyfileobj", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            do(make(3, "images of today"))
    assert not make(3, "images of today").is_whole()
    make(3, "images of today").merge()
    assert make(3, "images of today").is_whole()
