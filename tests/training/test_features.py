"""Features: views, lengths, resuming; and a whole second round from them."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from hpa_kit.config import FeaturesSettings, SubcategoriesSettings
from hpa_kit.data import read_field, resize_field
from hpa_kit.errors import InputError
from hpa_kit.training import features, load_member, train
from hpa_kit.training.checkpoint import write_checkpoint
from hpa_kit.training.features import make_features
from hpa_kit.training.features_file import read_features, write_features
from hpa_kit.training.member import build_network
from hpa_kit.training.subcategory_table import make_subcategories, read_subcategories


@pytest.fixture
def member(settings, tmp_path):
    """Saves an untrained network; gives its path."""

    def save(name="m", n_subcategories=0, **changes):
        torch.manual_seed(0)
        made = settings(**changes)
        path = tmp_path / f"{name}.safetensors"
        write_checkpoint(path, made, {"model": build_network(made, n_subcategories).state_dict(), "epoch": 1})
        return path

    return save


@pytest.fixture
def asked(competition, tmp_path, member):
    def make(**changes):
        base = {"data": competition, "out": tmp_path / "f.npz", "batch": 4, "device": "cpu"}
        return FeaturesSettings(
            **{**base, **({} if "member" in changes else {"member": member()}), **changes}
        )

    return make


def by_hand(path, competition, id, sides):
    """One field's features: lengths of 1 per view, per scale, of all."""
    model = load_member(path).model
    scales = []
    for side in sides:
        field = torch.from_numpy(resize_field(read_field(competition / "train", id), side))[None]
        with torch.inference_mode():
            views = [model.forward_features(view).mean((2, 3))[0] for view in (field, field.flip(3))]
        views = [view / view.norm() for view in views]
        mean = (views[0] + views[1]) / 2
        scales.append(mean / mean.norm())
    joined = torch.cat(scales)
    return joined / joined.norm()


def test_round_zero_is_seen_at_two_scales_each_flipped_too(asked, competition, member):
    path = member()
    found = read_features(make_features(asked(member=path)))
    assert found.ids == [f"00{number}e1" for number in range(13)]
    # 1.2 times 32, to a multiple of the stride.
    expected = by_hand(path, competition, "005e1", (32, 40))
    torch.testing.assert_close(torch.from_numpy(found.values[5]), expected, atol=1e-5, rtol=1e-4)
    assert found.values.dtype == np.float32


def test_later_rounds_are_seen_once_unless_asked_otherwise(asked, competition, member):
    path = member("one", 19, round=1, subcategories="t.csv")
    found = read_features(make_features(asked(member=path)))
    field = torch.from_numpy(resize_field(read_field(competition / "train", "003e1"), 32))[None]
    with torch.inference_mode():
        expected = functional.normalize(load_member(path).model.forward_features(field).mean((2, 3)), dim=1)
    torch.testing.assert_close(torch.from_numpy(found.values[3:4]), expected, atol=1e-5, rtol=1e-4)
    several = read_features(make_features(asked(member=path, views="several", scales="1,1.5,2")))
    assert several.values.shape[1] == 3 * found.values.shape[1]


def test_sides_that_a_network_cannot_take_are_left_for_the_nearest(asked, member, caplog):
    vit = load_member(member("vit", backbone="test_vit", stride=16, size=64))
    settings = asked(member=Path("m"), scales="1,1.2,1.5")
    assert features.views_of(settings, vit).sides == (64, 80, 96)
    levit = load_member(member("levit", backbone="levit_128s", stride=32, size=64))
    with caplog.at_level(logging.INFO):
        assert features.views_of(settings, levit) == ((64,), True)
    assert "levit_128s does not take fields of all of 64, 64, 96 px; views of 64 px instead" in caplog.text


def test_batches_do_not_matter_and_angles_have_features_too(asked, member):
    path = member("angles", network="arcface")
    one = read_features(make_features(asked(member=path, batch=1)))
    (other := asked(member=path, batch=13)).out.unlink()
    np.testing.assert_allclose(read_features(make_features(other)).values, one.values, atol=1e-5)


class CutOffError(Exception):
    """Stands for a process that ends."""


def test_what_was_done_is_not_done_again(asked, monkeypatch):
    whole = read_features(make_features(asked(out=asked().out.with_name("whole.npz"))))
    read, calls = features.read_field, []

    def counted(folder, id, *rest, **options):
        calls.append(id)
        if len(calls) == 10:
            raise CutOffError
        return read(folder, id, *rest, **options)

    monkeypatch.setattr(features, "_FIELDS_PER_PART", 4)
    monkeypatch.setattr(features, "read_field", counted)
    made = asked(workers=1)
    with pytest.raises(CutOffError):
        make_features(made)
    assert not made.out.exists()
    calls.clear()
    monkeypatch.setattr(
        features, "read_field", lambda *args, **options: calls.append(args[1]) or read(*args, **options)
    )
    found = read_features(make_features(made))
    assert 0 < len(calls) <= 9 and calls[-1] == "0012e1"
    assert found.ids == whole.ids and (found.values == whole.values).all()
    assert [path.name for path in made.out.parent.glob("f.npz*")] == ["f.npz"]
    calls.clear()
    make_features(made)
    assert calls == []
    make_features(made.model_copy(update={"views": "one"}))
    assert len(calls) == 13


def test_features_of_another_image_are_made_again(asked, competition, monkeypatch):
    made = asked()
    before = read_features(make_features(made))
    images = competition / "train"
    for channel in ("red", "green", "blue", "yellow"):
        (images / f"005e1_{channel}.png").write_bytes((images / f"006e1_{channel}.png").read_bytes())
    calls, read = [], features.read_field
    monkeypatch.setattr(
        features, "read_field", lambda *args, **options: calls.append(args[1]) or read(*args, **options)
    )
    after = read_features(make_features(made))
    assert calls == ["005e1"]
    np.testing.assert_allclose(after.values[5], before.values[6], atol=1e-5)
    assert (np.delete(after.values, 5, axis=0) == np.delete(before.values, 5, axis=0)).all()


def test_features_that_do_not_say_of_which_images_they_are_are_read_and_made_again(asked, monkeypatch):
    """Those of an older version."""
    made = asked()
    before = read_features(make_features(made))
    write_features(made.out, before._replace(stamps=()))
    assert read_features(made.out).ids == before.ids
    calls, read = [], features.read_field
    monkeypatch.setattr(
        features, "read_field", lambda *args, **options: calls.append(args[1]) or read(*args, **options)
    )
    make_features(made)
    assert len(calls) == 13


def test_a_part_that_was_being_written_when_the_process_was_killed_does_not_count(asked):
    made = asked()
    parts = made.out.with_name(f"{made.out.name}.parts")
    parts.mkdir(parents=True)
    (parts / ".00002.partial-4xmnc2lm.npz").write_bytes(b"PK\3\4 half")
    assert len(read_features(make_features(made)).ids) == 13
    assert [path.name for path in made.out.parent.iterdir() if "f.npz" in path.name] == ["f.npz"]


def test_a_network_of_three_channels_needs_no_yellow(asked, competition, tmp_path, member):
    blind = tmp_path / "blind"
    shutil.copytree(competition, blind)
    for path in (blind / "train").glob("*_yellow.png"):
        path.unlink()
    found = read_features(make_features(asked(data=blind, member=member("three", in_channels=3))))
    assert len(found.ids) == 13
    with pytest.raises(InputError, match="yellow"):
        make_features(asked(data=blind, out=tmp_path / "four.npz", member=member("four")))


def test_a_plain_folder_of_images_has_features_too(asked, competition, tmp_path):
    shutil.copytree(competition / "train", tmp_path / "images")
    assert len(read_features(make_features(asked(data=tmp_path / "images"))).ids) == 13


def test_a_file_of_something_else_is_not_overwritten(asked):
    made = asked()
    made.out.write_text("precious")
    with pytest.raises(InputError, match="f.npz"):
        make_features(made)
    assert made.out.read_text() == "precious"


def test_rounds_follow_each_other_from_features_to_the_next_member(settings, competition, tmp_path):
    run = train(settings(epochs=1))
    table = None
    for number in (1, 2):
        vectors = make_features(
            FeaturesSettings(data=competition, member=run, out=tmp_path / f"f{number}.npz", device="cpu")
        )
        table = make_subcategories(
            SubcategoriesSettings(
                features=vectors, labels=competition / "train.csv", out=tmp_path / f"s{number}.csv", k=3
            )
        )
        assert read_subcategories(table).k == 3
        run = train(
            settings(
                epochs=1, out=tmp_path / f"run{number}", round=number, subcategories=table, warm_start=run,
                puzzle="cam", puzzle_subcategories=True, puzzle_masked=True,
            )
        )  # fmt: skip
        lines = (run / "metrics.csv").read_text().splitlines()
        assert {"train_subcategories", "train_puzzle", "train_subcategory_puzzle"} <= set(lines[0].split(","))
    table.unlink()
    assert load_member(run).model.subcategory_head.out_channels == 19 * 3


def test_angles_are_learnt_and_give_features(settings, competition, tmp_path):
    run = train(settings(epochs=1, network="arcface"))
    made = FeaturesSettings(data=competition, member=run, out=tmp_path / "f.npz", device="cpu", views="one")
    lengths = np.linalg.norm(read_features(make_features(made)).values, axis=1)
    np.testing.assert_allclose(lengths, 1, atol=1e-5)


def test_it_says_what_all_fields_take(asked, caplog):
    with caplog.at_level(logging.INFO):
        make_features(asked())
    assert [line for line in caplog.messages if line.startswith("features: expect ")]
