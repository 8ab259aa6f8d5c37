"""Augmentation policies: what they do to fields and label maps, and what they refuse."""

import pickle
import random
import warnings

import cv2
import numpy as np
import pytest

from hpa_kit.errors import InputError
from hpa_kit.training.augmentation import POLICIES, Augmentation, RightAngles, build

SIDE = 48


def field(side=SIDE, channels=4, width=None):
    """No pixel is 0, so that what is 0 later was dropped."""
    rng = np.random.default_rng(0)
    return rng.integers(1, 256, (side, width or side, channels), dtype=np.uint8)


def label_map(side=SIDE, width=None):
    """Every pixel a number of its own from 1 on: far more cells than a byte counts."""
    width = width or side
    return np.arange(1, side * width + 1, dtype=np.int32).reshape(side, width)


def coordinates(side=SIDE):
    """A smooth field that tells where each of its pixels came from."""
    y, x = np.mgrid[:side, :side] * 5 + 1
    return np.stack([y, x, y, x], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("channels", [3, 4])
def test_no_policy_warns_or_changes_size_and_dtype(policy, channels):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        augmentation = Augmentation(policy)
        for seed in range(8):
            image, mask = augmentation(field(channels=channels), (seed,), label_map())
            assert (image.shape, image.dtype) == ((SIDE, SIDE, channels), np.uint8)
            assert (mask.shape, mask.dtype) == ((SIDE, SIDE), np.int32)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_label_map_moves_with_its_field_and_keeps_its_numbers(policy):
    image, cells = coordinates(), label_map()
    for seed in range(12):
        moved, numbers = Augmentation(policy)(image, (1, seed), cells)
        shown = numbers > 0
        y, x = np.divmod(numbers - 1, SIDE)
        # A crop resamples the field bilinearly and the label map nearest: a pixel's distance is 5 levels.
        tolerance = 5.1 if policy in (2, 5, 6) else 0
        dark = ~shown
        if policy == 6:  # at the border of what was turned a pixel is mixed with black
            square, edge = np.ones((5, 5)), {"borderType": cv2.BORDER_CONSTANT, "borderValue": 0}
            shown, dark = (cv2.erode(part.astype(np.uint8), square, **edge) > 0 for part in (shown, dark))
        for channel, axis in ((0, y), (1, x)):
            assert np.abs(moved[..., channel].astype(int) - (axis * 5 + 1))[shown].max() <= tolerance
        assert not moved[dark].any()
        assert set(np.unique(numbers)) <= {0, *np.unique(cells)}


@pytest.mark.parametrize(("policy", "share"), [(3, 0.6), (4, 0.4), (5, 0.6)])
def test_dropped_parts_are_raw_black_in_all_channels_and_belong_to_no_cell(policy, share):
    augmentation, dropped = Augmentation(policy), 0
    for seed in range(150):
        image, mask = augmentation(field(), (seed,), label_map())
        black = (image == 0).all(axis=-1)
        assert np.array_equal(black, (image == 0).any(axis=-1))
        assert np.array_equal(black, mask == 0)
        dropped += bool(black.any())
        # A hole takes 40 % of each side of its unit: 16 % of the area, by whole pixels.
        assert black.mean() < 0.3
    assert share - 0.15 < dropped / 150 < share + 0.15


@pytest.mark.parametrize("policy", [0, 1, 2])
def test_nothing_is_dropped_where_the_policy_drops_nothing(policy):
    for seed in range(20):
        image, mask = Augmentation(policy)(field(), (seed,), label_map())
        assert image.all() and mask.all()


def test_a_crop_holds_three_quarters_of_the_field_or_more():
    shares = []
    for seed in range(60):
        _, cells = Augmentation(2)(field(), (seed,), label_map())
        y, x = np.divmod(cells - 1, SIDE)
        shares.append(np.ptp(y) * np.ptp(x) / (SIDE - 1) ** 2)
    assert 0.68 < min(shares) < 0.8 and max(shares) > 0.9


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16, np.int32, np.int64, np.float32])
@pytest.mark.parametrize("policy", [1, 2, 3])
def test_masks_of_every_dtype_come_back_as_they_were(policy, dtype):
    mask = (label_map() % 200 > 90).astype(dtype)
    _, changed = Augmentation(policy)(field(), (5,), mask)
    assert changed.dtype == dtype and set(np.unique(changed)) <= {0, 1}
    _, as_bytes = Augmentation(policy)(field(), (5,), mask.astype(np.uint8))
    assert np.array_equal(changed.astype(np.uint8), as_bytes)


def test_several_masks_pass_as_channels():
    masks = np.stack([label_map(), label_map() * 3], axis=-1)
    _, changed = Augmentation(5)(field(), (4,), masks)
    assert np.array_equal(changed[..., 1], changed[..., 0] * 3) and changed.any()


def test_field_and_mask_that_came_in_are_left_as_they_were():
    image, mask = field(), label_map()
    image.flags.writeable = mask.flags.writeable = False
    for policy in POLICIES:
        for seed in range(4):
            Augmentation(policy)(image, (seed,), mask)
    assert np.array_equal(image, field()) and np.array_equal(mask, label_map())


def test_a_mask_changes_nothing_about_its_field():
    for policy in POLICIES:
        augmentation = Augmentation(policy)
        for seed in range(6):
            assert np.array_equal(
                augmentation(field(), (seed,)), augmentation(field(), (seed,), label_map())[0]
            )


def test_another_process_and_a_copy_change_a_field_in_the_same_way(warm_python):
    code = (
        "import numpy as np, sys, zlib; from hpa_kit.training.augmentation import Augmentation\n"
        "image = np.random.default_rng(0).integers(1, 256, (48, 48, 4), dtype=np.uint8)\n"
        "print([zlib.crc32(Augmentation(5)(image, (3, s)).tobytes()) for s in range(6)])"
    )
    import zlib

    there = warm_python.run(["-c", code], check=True, capture_output=True, text=True).stdout
    first = Augmentation(5)
    first(field(), (9, 9))
    copied = pickle.loads(pickle.dumps(first))
    for augmentation in (first, copied):
        here = [zlib.crc32(augmentation(field(), (3, seed)).tobytes()) for seed in range(6)]
        assert there.strip() == str(here)


def test_fields_that_are_not_square_keep_their_sides_or_swap_them():
    shapes = set()
    for policy in POLICIES:
        for seed in range(6):
            image, mask = Augmentation(policy)(field(40, width=56), (seed,), label_map(40, 56))
            assert image.shape[:2] == mask.shape
            shapes.add(mask.shape)
    assert shapes == {(40, 56), (56, 40)}


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((SIDE, SIDE + 1), np.int32), "same height and width"),
        (np.zeros((SIDE, SIDE), np.float64), "expected bool, whole numbers or float32"),
        (np.full((SIDE, SIDE), 2**25, np.int32), "numbers up to 16777216"),
    ],
)
def test_masks_that_do_not_fit_are_refused(mask, message):
    with pytest.raises(InputError, match=message):
        Augmentation(1)(field(), (0,), mask)


@pytest.mark.parametrize("word", ["policy", "recipe"])
def test_a_policy_of_ones_own_stands_in_yaml_and_extends_a_built_in_one(tmp_path, word):
    path = tmp_path / "mine.yaml"
    path.write_text(
        f"- {word}: 0\n"
        "- CoarseDropout: {num_holes_range: [1, 1], hole_height_range: [size/4, size/4],\n"
        "                  hole_width_range: [size/2, size/2], fill: 0, fill_mask: 0, p: 1}\n"
        "- OneOf:\n"
        "    transforms:\n"
        "      - Transpose\n"
        "      - RandomRotate90: {p: 1}\n"
        "    p: 0\n"
    )
    image, mask = Augmentation(path)(field(), (2,), label_map())
    assert (mask == 0).sum() == SIDE // 4 * (SIDE // 2)
    assert np.array_equal(mask == 0, (image == 0).all(axis=-1))


def one_after_another(policy, side, seed, **targets):
    """The same draws, each flip and turn done by albumentations itself."""
    bare = build(policy, side, side, "policy")
    bare.transforms = [
        step for one in bare.transforms for step in (one.steps if isinstance(one, RightAngles) else [one])
    ]
    generator = np.random.default_rng((seed,))
    bare.set_random_state(generator, random.Random(int(generator.integers(2**63))))
    return bare(**targets)


@pytest.mark.parametrize("policy", POLICIES)
def test_right_angles_done_at_once_give_what_they_give_one_after_another(policy):
    moved = set()
    for seed in range(24):
        found = Augmentation(policy)(field(), (seed,), label_map())
        expected = one_after_another(
            POLICIES[policy], SIDE, seed, image=field(), mask=label_map().astype("f")
        )
        assert np.array_equal(found[0], expected["image"]) and np.array_equal(found[1], expected["mask"])
        moved.add(found[0].tobytes())
    assert len(moved) == {0: 1, 1: 8}.get(policy, len(moved)) and (len(moved) > 8 or policy < 2)


@pytest.mark.parametrize("channels", [1, 3, 20])
def test_right_angles_move_masks_of_any_number_of_channels(channels):
    masks = np.random.default_rng(0).random((20, 28, channels), np.float32)
    for seed in range(12):
        _, found = Augmentation(1)(field(20, width=28), (seed,), masks)
        image = np.zeros((20, 28, 4), np.uint8)
        assert np.array_equal(
            found, one_after_another(POLICIES[1], 20, seed, image=image, mask=masks)["mask"]
        )


def test_what_stands_between_two_flips_is_done_between_them():
    turned = {"Affine": {"rotate": [90, 90], "p": 1}}
    policy = [{"HorizontalFlip": {"p": 1}}, turned, {"VerticalFlip": {"p": 1}}, {"OneOf": {"transforms": [
        {"HorizontalFlip": {"p": 1}}, {"VerticalFlip": {"p": 1}}], "p": 1}}]  # fmt: skip
    for seed in range(6):
        expected = one_after_another(policy, SIDE, seed, image=field())["image"]
        assert np.array_equal(Augmentation(policy)(field(), (seed,)), expected)


def test_the_built_in_policies_can_be_written_as_yaml(tmp_path):
    import yaml

    for number, policy in POLICIES.items():
        path = tmp_path / f"{number}.yaml"
        path.write_text(yaml.safe_dump(list(policy)))
        for seed in range(4):
            assert np.array_equal(
                Augmentation(path)(field(), (seed,)), Augmentation(number)(field(), (seed,))
            )


def test_a_user_s_interpolation_of_masks_is_nearest_all_the_same():
    rotation = [{"Affine": {"rotate": [30, 30], "mask_interpolation": 1, "p": 1}}]
    mask = (label_map() % 7 > 3).astype(np.int32) * 1000
    _, turned = Augmentation(rotation)(field(), (0,), mask)
    assert set(np.unique(turned)) == {0, 1000}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- HorizontalFlop: {p: 1}", r"no 'HorizontalFlop'; did you mean 'HorizontalFlip'\?"),
        ("- GridDropout: {ratoi: 0.4}", r"GridDropout has no parameter 'ratoi'; did you mean 'ratio'\?"),
        ("- GridDropout: {ratio: 4}", "GridDropout cannot be made: .*less than or equal to 1"),
        ("- OneOf: {transforms: [{Flop: {}}]}", "no 'Flop'"),
        ("- OneOf: {transforms: Transpose}", "expected a list of transforms, found 'Transpose'"),
        ("- OneOf: {}", "OneOf cannot be made"),
        ("- policy: 9", "no policy 9"),
        ("- policy: other.yaml", "policy is 'other.yaml'; expected a number"),
        ("- HorizontalFlip: [0.5]", "expected names and values of parameters"),
        ("- {HorizontalFlip: {}, Transpose: {}}", "expected one name and its parameters"),
        ("- 3", "an entry is 3"),
        ("HorizontalFlip: {p: 1}", "holds a dict; expected a list"),
        ("", "holds a NoneType; expected a list"),
        ("- [", "is no YAML"),
        ("- BasicTransform: {}", "albumentations has no 'BasicTransform'"),
    ],
)
def test_a_faulty_policy_says_what_is_wrong_and_where(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        Augmentation(path)
    assert "\n" not in str(caught.value)


def test_missing_files_and_unknown_numbers_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"gone.yaml is missing"):
        Augmentation(tmp_path / "gone.yaml")
    with pytest.raises(InputError, match=r"no policy 7; known are \[0, 1, 2, 3, 4, 5, 6\]"):
        Augmentation(7)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ([{"RandomCrop": {"height": 20, "width": 20, "p": 1}}], r"makes uint8 \(20, 20, 4\)"),
        ([{"ToFloat": {"p": 1}}], "makes float32"),
        ([{"HueSaturationValue": {"p": 1}}], r"cannot be used on \(48, 48, 4\) fields: .*3-channel"),
    ],
)
def test_a_policy_whose_fields_no_batch_could_hold_is_refused_at_the_first(policy, message):
    with pytest.raises(InputError, match=message):
        Augmentation(policy)(field(), (0,))
