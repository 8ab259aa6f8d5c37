"""What a run that is gone on with may not change: what is computed, not where it lies."""

from hpa_kit.config import PseudoLabelSettings, TrainSettings
from hpa_kit.config.compare import differences

FREE, MOVABLE = ("data", "out"), ("pretrained", "augmentation", "members")


def trained(**changed):
    return TrainSettings(**{"data": "a", "out": "r", "pretrained": "x/w.pth", "seed": 1, **changed})


def labelled(*members):
    return PseudoLabelSettings(data="d", out="o", members=members)


def test_what_is_computed_is_named_with_both_values_and_where_it_lies_is_not():
    now = trained(data="b", pretrained="y/w.pth", seed=2, epochs=3)
    assert differences(trained(), now, FREE, MOVABLE) == "epochs 25 (now 3), seed 1 (now 2)"
    assert differences(trained(), trained(), FREE, MOVABLE) == ""


def test_a_file_of_another_name_is_another_file():
    assert differences(trained(), trained(pretrained="x/v.pth"), FREE, MOVABLE) == (
        "pretrained x/w.pth (now x/v.pth)"
    )
    assert differences(trained(), trained(pretrained=None), FREE, MOVABLE).endswith("(now None)")


def test_a_number_in_a_files_place_is_compared_as_it_is():
    assert differences(trained(), trained(augmentation=2), FREE, MOVABLE) == "augmentation 1 (now 2)"


def test_several_files_may_all_lie_elsewhere_but_in_the_same_order():
    assert differences(labelled("a/x", "b/y"), labelled("c/x", "c/y"), FREE, MOVABLE) == ""
    assert "members" in differences(labelled("a/x", "b/y"), labelled("b/y", "a/x"), FREE, MOVABLE)
