"""What results depend on, and what a run that is gone on with may not change."""

import os
from pathlib import Path

import pytest

from hpa_kit.cells import label_map_ids
from hpa_kit.config import PseudoLabelSettings, TrainSettings
from hpa_kit.errors import InputError
from hpa_kit.resume import TIMELESS, depends_on, differences, field_stamps, refuse_other_settings

FREE, MOVABLE = ("data", "out"), ("pretrained", "augmentation", "members")


def trained(**changed):
    return TrainSettings(**{"data": "a", "out": "r", "pretrained": "x/w.pth", "seed": 1, **changed})


def labelled(*members):
    return PseudoLabelSettings(data="d", out="o", members=members)


def test_what_is_computed_is_named_with_both_values_and_where_it_lies_is_not():
    now = trained(data="b", pretrained="y/w.pth", seed=2, epochs=3)
    assert differences(trained(), now, FREE, MOVABLE) == "epochs 25 (now 3), seed 1 (now 2)"
    assert differences(trained(), trained(), FREE, MOVABLE) == ""


def test_what_a_file_says_of_itself_is_compared_by_name():
    before, now = {"segmenter": "published", "weights": "ab"}, {"segmenter": "classical", "level": 0.38}
    assert differences(before, now) == (
        "segmenter published (now classical), level None (now 0.38), weights ab (now None)"
    )
    assert differences(before, dict(reversed(before.items()))) == ""


def test_a_file_of_another_name_is_another_file():
    assert differences(trained(), trained(pretrained="x/v.pth"), FREE, MOVABLE) == (
        "pretrained x/w.pth (now x/v.pth)"
    )
    assert differences(trained(), trained(pretrained=None, lr=5e-4), FREE, MOVABLE).endswith("(now None)")


def test_a_number_in_a_files_place_is_compared_as_it_is():
    assert differences(trained(), trained(augmentation=2), FREE, MOVABLE) == "augmentation 1 (now 2)"


def test_several_files_may_all_lie_elsewhere_but_in_the_same_order():
    assert differences(labelled("a/x", "b/y"), labelled("c/x", "c/y"), FREE, MOVABLE) == ""
    assert "members" in differences(labelled("a/x", "b/y"), labelled("b/y", "a/x"), FREE, MOVABLE)


def test_a_run_of_other_settings_is_refused_and_told_what_differs():
    refuse_other_settings("train", Path("r"), trained(), trained(data="b"), FREE, MOVABLE)
    with pytest.raises(
        InputError, match=r"^train: the run in r was started with seed 1 \(now 2\); give"
    ) as why:
        refuse_other_settings("train", Path("r"), trained(), trained(seed=2), FREE, MOVABLE, "no resume_from")
    assert str(why.value).endswith("to go on, or no resume_from")


def test_a_fingerprint_tells_what_a_path_holds_not_where_it_is(tmp_path: Path) -> None:
    for name, content in (("a", b"x"), ("b", b"x"), ("c", b"y")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "best.safetensors").write_bytes(content)
    a, b, c = (tmp_path / name for name in "abc")
    assert depends_on({"members": [a]}) == depends_on({"members": [b]})
    assert depends_on({"members": [a]}) != depends_on({"members": [c]})
    assert depends_on({"members": [a]}) != depends_on({"members": [a / "gone"]})
    assert depends_on(a, 1) != depends_on(a, 2)
    (a / "metrics.csv").write_text("more")
    assert depends_on(a) == depends_on(b)


def test_a_stamp_changes_with_the_fields_own_files_only(tmp_path: Path) -> None:
    images, masks = tmp_path / "images", tmp_path / "masks"
    images.mkdir()
    masks.mkdir()
    for id in ("a", "b"):
        (images / f"{id}_red.png").write_bytes(b"1")
    before = field_stamps(["a", "b"], images, [(masks, label_map_ids)], {})
    (images / "a_red.png").write_bytes(b"22")
    after = field_stamps(["a", "b"], images, [(masks, label_map_ids)], {})
    assert (before["a"] == after["a"], before["b"] == after["b"]) == (False, True)
    (masks / "b.npz").write_bytes(b"1")
    assert field_stamps(["b"], images, [(masks, label_map_ids)], {})["b"] != after["b"]
    (masks / "a_cp_masks.PNG").write_bytes(b"1")
    assert field_stamps(["a"], images, [(masks, label_map_ids)], {})["a"] != after["a"]
    assert field_stamps(["a"], images, [], {"a": (3, 4)})["a"] != after["a"]


def test_images_that_are_mounted_anew_are_the_same_where_times_do_not_count(tmp_path, monkeypatch):
    images, masks = tmp_path / "images", tmp_path / "masks"
    for path in (images / "a_red.png", masks / "a.npz"):
        path.parent.mkdir()
        path.write_bytes(b"four")

    def stamp():
        return field_stamps(["a"], images, [(masks, label_map_ids)], {})["a"]

    monkeypatch.setenv(TIMELESS, "1")
    before = stamp()
    os.utime(images / "a_red.png", (1, 1))
    assert stamp() == before
    (images / "a_red.png").write_bytes(b"three")
    assert stamp() != before
    before = stamp()
    os.utime(masks / "a.npz", (1, 1))  # which may be made anew with as many bytes
    assert stamp() != before
