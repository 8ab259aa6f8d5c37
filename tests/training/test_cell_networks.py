"""Networks that find cells: what they learn, from label maps, and that what finds cells takes them."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from hpa_kit.cells import LabelMaps, MaskFolder, segmenter, write_label_maps
from hpa_kit.cells.label_step import labels_of_maps
from hpa_kit.cells.matching import match_cells
from hpa_kit.cells.networks import CellNetworks, CellUnet, cell_network, load_networks, write_networks
from hpa_kit.cli.main import main
from hpa_kit.config import TrainSettings
from hpa_kit.errors import InputError
from hpa_kit.training import load_member, train
from hpa_kit.training.augmentation import Augmentation
from hpa_kit.training.cell_targets import (
    BACKGROUND,
    BORDER,
    FOREGROUND,
    IGNORED,
    border_width,
    network_target,
)
from hpa_kit.training.cell_windows import Labelled, LabelledFields, WindowDataset, brightened
from hpa_kit.training.checkpoint import BEST, read_checkpoint
from hpa_kit.training.data import Draw
from hpa_kit.training.objectives.cell_networks import load_window_data, pixel_loss

SIDE = 32
BACKBONE = "test_resnet"  # timm's own for tests
WEIGHTS = (1.0, 2.0, 1.0)


def drawn(seed, side=SIDE):
    """Cells that touch, with a nucleus each: label maps of nuclei and cells, and the field."""
    rng = np.random.default_rng(seed)
    centres = np.array([(0.28, 0.27), (0.3, 0.73), (0.74, 0.5)]) + rng.uniform(-0.04, 0.04, (3, 2))
    y, x = (np.mgrid[:side, :side] + 0.5) / side
    distances = np.stack([np.hypot(y - cy, x - cx) for cy, cx in centres])
    nearest, distance = distances.argmin(axis=0) + 1, distances.min(axis=0)
    cells = np.where(distance < 0.24, nearest, 0).astype(np.int32)
    nuclei = np.where(distance < 0.1, nearest, 0).astype(np.int32)
    rim = np.where(distance < 0.24, 1.3 - 3 * distance, 0)
    field = np.stack([150 * rim, 60 * (cells > 0), 190 * (nuclei > 0), 110 * rim])
    return LabelMaps(nuclei, cells), np.clip(field + rng.normal(10, 4, field.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def drawn_fields(tmp_path_factory):
    """A competition of ten such fields with their label maps; the last has no cell."""
    root = tmp_path_factory.mktemp("drawn")
    (root / "train").mkdir()
    rows = ["ID,Label"]
    for number in range(10):
        maps, field = drawn(number)
        if number == 9:
            maps, field = LabelMaps(*(np.zeros_like(part) for part in maps)), np.full_like(field, 8)
        for channel, plane in zip(("red", "green", "blue", "yellow"), field, strict=True):
            cv2.imwrite(str(root / "train" / f"f{number}_{channel}.png"), plane)
        write_label_maps(root / "masks" / f"f{number}.npz", maps)
        rows.append(f"f{number},{number % 2}")
    (root / "train.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture(scope="session")
def make_settings_of(drawn_fields):
    """Makes settings of a run that takes a second."""

    def make(**changes):
        quick = {
            "data": drawn_fields, "network": "cells", "masks": drawn_fields / "masks", "backbone": BACKBONE,
            "size": SIDE, "epochs": 1, "batch": 4, "ema": 0.8, "folds": 3, "workers": 0, "device": "cpu",
        }  # fmt: skip
        return TrainSettings(**{**quick, **changes})

    return make


@pytest.fixture(scope="session")
def run(make_settings_of, tmp_path_factory):
    """A run of two epochs, by one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = train(make_settings_of(out=tmp_path_factory.mktemp("runs") / "cells", epochs=2))
    torch.set_num_threads(threads)
    return found


# What is learnt of a label map.


def test_cells_that_touch_are_parted_by_border_on_both_sides():
    labels = np.zeros((12, 20), np.int32)
    labels[2:10, 2:10], labels[2:10, 10:18] = 1, 2
    target = network_target(labels, 2, np.ones(labels.shape, bool))
    assert (target[5] == [0, 0, *[2] * 6, *[1] * 4, *[2] * 6, 0, 0]).all()
    inner = cv2.connectedComponents((target == FOREGROUND).astype(np.uint8))[0] - 1
    assert inner == 2
    assert (target[labels == 0] == BACKGROUND).all()


def test_a_line_of_background_between_cells_parts_them_as_well():
    labels = np.zeros((6, 11), np.int32)
    labels[:, :5], labels[:, 6:] = 7, 300
    target = network_target(labels, 2, np.ones(labels.shape, bool))
    assert (target[3] == [2, 2, 2, 2, 1, 0, 1, 2, 2, 2, 2]).all()


def test_neither_the_edge_of_the_field_nor_what_is_unknown_is_a_border():
    labels = np.ones((8, 8), np.int32)
    known = np.ones(labels.shape, bool)
    known[:, 6:] = False
    labels[:, 6:] = 0
    target = network_target(labels, 2, known)
    assert (target[:, :6] == FOREGROUND).all()
    assert (target[:, 6:] == IGNORED).all()


@pytest.mark.parametrize(("side", "width"), [(64, 1), (256, 1), (512, 2), (1024, 3)])
def test_a_border_is_as_wide_as_the_published_networks_learnt_it(side, width):
    assert border_width(side) == width


@pytest.mark.parametrize("seed", range(4))
def test_the_published_label_step_makes_the_label_maps_out_of_what_is_learnt(seed):
    maps, _ = drawn(seed, side=128)
    known = np.ones(maps.cells.shape, bool)
    said = [
        np.stack([255 * (target == kind) for kind in range(3)], axis=-1).astype(np.uint8)
        for target in (network_target(part, 1, known) for part in maps)
    ]
    _, cells = labels_of_maps(*said, (128 / 2048) ** 2)
    found = match_cells(maps.cells, cells)
    assert (found.met, found.right) == (1, 1)
    assert found.iou > 0.99


# Windows of fields.


@pytest.fixture(scope="session")
def fields(drawn_fields):
    ids = [f"f{number}" for number in range(10)]
    folders = dict.fromkeys(ids, drawn_fields / "train")
    return LabelledFields(folders, ids, MaskFolder(drawn_fields / "masks"), SIDE)


@pytest.mark.parametrize("policy", [0, 1, 2, 6])
def test_a_window_and_what_is_learnt_of_it_stay_on_each_other(fields, policy):
    dataset = WindowDataset(fields, Augmentation(policy))
    for number in range(3):
        image, (nuclei, cells), _, labels = dataset[Draw(number, (1, number))]
        inside, nucleus = labels > 0, (nuclei == FOREGROUND) | (nuclei == BORDER)
        assert image.shape == (SIDE, SIDE, 4)
        assert image[inside, 0].mean() > 4 * image[~inside, 0].mean()  # red is where cells are
        assert image[nucleus, 2].mean() > 4 * image[~nucleus, 2].mean()  # blue where nuclei are
        assert inside[nucleus].all()
        assert ((cells == FOREGROUND) | (cells == BORDER))[inside].all()
        assert (cells == BORDER).any()


def test_the_same_draw_gives_the_same_window_and_another_one_another(fields):
    dataset = WindowDataset(fields, Augmentation(2))
    one, again, other = (dataset[Draw(0, (1, seed, 0))] for seed in (5, 5, 6))
    assert all(np.array_equal(*pair) for pair in zip(one, again, strict=True))
    assert not np.array_equal(one[0], other[0])


class OneField:
    """A field of any size at the networks' scale."""

    def __init__(self, side):
        maps, field = drawn(0, side)
        self.side, self.field = SIDE, Labelled(field.transpose(1, 2, 0), maps.cells, maps.nuclei)

    def __len__(self):
        return 1

    def __getitem__(self, number):
        assert number == 0
        return self.field


@pytest.mark.parametrize("policy", [0, 1])
def test_what_is_beyond_a_small_field_costs_nothing(policy):
    image, targets, _, _ = WindowDataset(OneField(27), Augmentation(policy))[Draw(0, (0,))]
    known = targets[0] != IGNORED
    assert known.sum() == 27**2
    assert (image[~known] == 0).all()
    assert (targets[1][known] == FOREGROUND).any()


def test_windows_of_a_large_field_are_anywhere_in_it_and_in_its_middle_to_validate():
    def window(policy, seed):
        return WindowDataset(OneField(3 * SIDE), Augmentation(policy))[Draw(0, (seed,))][3]

    middle = drawn(0, 3 * SIDE)[0].cells[SIDE : 2 * SIDE, SIDE : 2 * SIDE]
    assert np.array_equal(window(0, 1), middle)
    assert len({window(1, seed).tobytes() for seed in range(5)}) == 5


def test_of_few_fields_an_epoch_shows_several_windows_each_changed_in_another_way(make_settings_of, tmp_path):
    data = load_window_data(make_settings_of(out=tmp_path / "run"), torch.device("cpu"))
    learnt = set(data.folds.index[data.folds["fold"] != 0])
    batches = list(data.train.epoch(1))
    numbers = torch.cat([batch.numbers for batch in batches])
    assert len(numbers) == len(set(numbers.tolist())) >= 32
    assert {number % 10 for number in numbers.tolist()} == learnt
    assert sum(data.validation.sizes) == 10 - len(learnt)
    first = min(learnt)
    seen = [batch.fields[k] for batch in batches for k, n in enumerate(batch.numbers) if n % 10 == first]
    assert len({window.numpy().tobytes() for window in seen}) == len(seen) > 1


def test_each_channel_is_made_brighter_or_darker_by_itself():
    image = np.full((2, 2, 4), 100, np.uint8)
    factors = brightened(image, np.random.default_rng(0))[0, 0] / 100
    assert len(set(factors)) == 4
    assert (factors > 1 / 1.7).all()
    assert (factors < 1.7).all()


# The loss.


def test_what_is_not_known_does_not_count_in_the_loss():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 8, 8, generator=generator)
    targets = torch.randint(0, 3, (2, 8, 8), generator=generator).to(torch.uint8)
    targets[:, :, 5:] = IGNORED
    other = logits.clone()
    other[:, :, :, 5:] = 9
    torch.testing.assert_close(pixel_loss(logits, targets, WEIGHTS), pixel_loss(other, targets, WEIGHTS))
    assert pixel_loss(logits, torch.full_like(targets, IGNORED), WEIGHTS).isfinite()


def test_saying_what_is_true_costs_nothing_and_missing_a_border_costs_more_with_its_weight():
    targets = torch.zeros((1, 8, 8), dtype=torch.uint8)
    targets[:, :, 2:], targets[:, :, 4] = FOREGROUND, BORDER
    logits = 20 * torch.nn.functional.one_hot(targets.long(), 3).permute(0, 3, 1, 2).float()
    assert pixel_loss(logits, targets, WEIGHTS) < 1e-4
    missed = logits.clone()
    missed[:, BORDER], missed[:, FOREGROUND] = 0, torch.where(targets == BORDER, 20.0, logits[:, FOREGROUND])
    assert pixel_loss(missed, targets, (1, 4, 1)) > pixel_loss(missed, targets, (1, 1, 1)) > 0.3


# A run, and what takes it.


def test_a_run_says_how_well_cells_are_met_and_not_its_loss_alone(run):
    state = read_checkpoint(run / BEST, only=("metrics",)).state
    assert {"val_loss", "cells_met", "cells_right", "cells_iou"} <= state["metrics"].keys()
    assert (
        (run / "metrics.csv").read_text().startswith("epoch,lr,train_loss,train_nuclei,train_cells,val_loss")
    )


@pytest.mark.usefixtures("one_thread")
def test_a_run_that_is_gone_on_with_ends_with_the_same_weights(make_settings_of, run, tmp_path, monkeypatch):
    from hpa_kit.training.trainer import Trainer

    settings = make_settings_of(out=tmp_path / "run", epochs=2)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_write_best", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train(settings)
    train(settings)
    one, other = (
        read_checkpoint(folder / BEST, only=("model",)).state["model"] for folder in (run, settings.out)
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_what_finds_cells_takes_a_run_as_it_takes_published_weights(run, drawn_fields, tmp_path, caplog):
    words = ["segment", str(drawn_fields), "--split", "train", "--out", str(tmp_path), "--device", "cpu"]
    assert main([*words, "--weights", str(run)]) == 0
    made = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.npz")}
    assert len(made) == 10
    found = segmenter("auto", run, "cpu")
    assert found.settings["side"] == SIDE
    # Those of the same run stay, those of other weights are made again.
    assert main([*words, "--weights", str(run / BEST)]) == 0
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.npz")} == made
    torch.manual_seed(1)
    other = CellNetworks(cell_network(BACKBONE), cell_network(BACKBONE), SIDE)
    write_networks(other, BACKBONE, tmp_path / "weights")
    assert main([*words, "--weights", str(tmp_path / "weights")]) == 0
    later = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.npz")}
    assert not set(later.items()) & set(made.items())


def test_networks_of_a_run_are_the_same_in_files_of_their_own(run, tmp_path):
    networks = load_networks(run)
    paths = write_networks(networks, BACKBONE, tmp_path)
    assert [path.name for path in paths] == ["nuclei-network.safetensors", "cell-network.safetensors"]
    again = load_networks(tmp_path)
    assert again.side == SIDE
    assert all(map(torch.equal, networks.state_dict().values(), again.state_dict().values()))
    fields = torch.zeros((1, 4, SIDE, SIDE), dtype=torch.uint8)
    member = load_member(run, networks=("cells",))
    torch.testing.assert_close(member.model(fields), networks(fields))


def test_fields_without_yellow_look_as_if_it_were_black():
    networks = CellNetworks(cell_network(BACKBONE), cell_network(BACKBONE)).eval()
    fields = torch.randint(0, 255, (1, 4, 32, 64), dtype=torch.uint8)
    fields[:, 3] = 0
    assert networks(fields).shape == (1, 2, 3, 32, 64)
    torch.testing.assert_close(networks(fields), networks(fields[:, :3]))


def test_a_run_can_begin_with_the_networks_of_another(make_settings_of, run, tmp_path):
    from hpa_kit.training.member import build_network

    wanted = load_networks(run).state_dict()
    for start in ({"pretrained": run}, {"warm_start": run}):
        model = build_network(make_settings_of(out=tmp_path / "run", **start))
        assert all(torch.equal(model.state_dict()[name], wanted[name]) for name in wanted)
    with pytest.raises(InputError, match="not on backbone test_efficientnet"):
        build_network(make_settings_of(out=tmp_path / "run", pretrained=run, backbone="test_efficientnet"))


def test_what_a_run_began_with_stands_on_its_card(make_settings_of, run, tmp_path):
    from hpa_kit.training.cards import origins_of
    from hpa_kit.training.checkpoint import write_checkpoint

    (tmp_path / "published").mkdir()
    for start, number in ((tmp_path / "published", 1), (run, 0)):
        write_checkpoint(tmp_path / BEST, make_settings_of(out=tmp_path, pretrained=start), {"model": {}})
        origins = origins_of(tmp_path)
        assert len(origins) == number
        assert not any(origin.may_be_passed_on for origin in origins)


def test_encoders_begin_with_weights_of_timm(make_settings_of, tmp_path):
    import timm

    from hpa_kit.training.member import build_network

    weights = timm.create_model(BACKBONE, pretrained=False)
    torch.save(weights.state_dict(), tmp_path / "weights.pth")
    model = build_network(make_settings_of(out=tmp_path / "run", pretrained=tmp_path / "weights.pth"))
    stem = weights.state_dict()["layer1.0.conv1.weight"]
    for network in (model.nuclei, model.cells):
        assert isinstance(network, CellUnet)
        assert torch.equal(network.encoder.state_dict()["layer1.0.conv1.weight"], stem)


@pytest.mark.whole_table
def test_networks_that_have_learnt_meet_cells_that_they_have_not_seen(make_settings_of, tmp_path):
    (tmp_path / "train").mkdir()
    rows = ["ID,Label"]
    for number in range(60):
        maps, field = drawn(number, side=64)
        for channel, plane in zip(("red", "green", "blue", "yellow"), field, strict=True):
            cv2.imwrite(str(tmp_path / "train" / f"f{number}_{channel}.png"), plane)
        write_label_maps(tmp_path / "masks" / f"f{number}.npz", maps)
        rows.append(f"f{number},{number % 2}")
    (tmp_path / "train.csv").write_text("\n".join(rows) + "\n")
    settings = make_settings_of(
        data=tmp_path, masks=tmp_path / "masks", out=tmp_path / "run", size=64, epochs=8, ema=0.95
    )
    best = read_checkpoint(train(settings) / BEST, only=("metrics",)).state["metrics"]
    assert best["cells_met"] > 0.95
    assert best["cells_right"] > 0.95
    assert best["cells_iou"] > 0.85


def test_more_memory_than_there_is_is_answered_by_what_such_networks_take(make_settings_of, tmp_path):
    from hpa_kit.training.member import build_network
    from hpa_kit.training.memory import step_memory, what_does_not_fit

    settings = make_settings_of(out=tmp_path / "run", batch=16)
    capacity = step_memory(settings, lambda: build_network(settings)).of(8) + 1
    line = what_does_not_fit(settings, lambda: build_network(settings), capacity)
    assert line.endswith("try --batch 8 --accumulate 2")


# What cannot be.


def test_what_knows_no_classes_refuses_a_run_of_cells_in_one_line(run, drawn_fields, tmp_path, capsys):
    words = ["infer", str(drawn_fields), "--split", "train", "--members", str(run), "--device", "cpu"]
    assert main([*words, "--out", str(tmp_path / "submission.csv")]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert "network cells, which finds cells" in said[-1]
    assert "--weights" in said[-1]


def test_a_network_that_finds_no_cells_is_no_weights(make_member, tmp_path):
    with pytest.raises(InputError, match="is a network cam, which finds no cells"):
        segmenter("published", make_member(size=32), "cpu")
    with pytest.raises(InputError, match="a run of hpa-kit train --network cells is taken too"):
        segmenter("published", tmp_path, "cpu")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"masks": None}, "needs masks"),
        ({"store": Path("store")}, "leave store out"),
        ({"size": 100}, "take 96"),
        ({"size": 4096}, "take 2048"),
        ({"loss": "bce"}, "loss would change"),
        ({"normalisation": "fixed"}, "normalisation would change"),
        ({"crop_size": 64}, "crops would change"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(make_settings_of, tmp_path, changes, said):
    with pytest.raises(InputError, match=said):
        train(make_settings_of(out=tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


def test_no_part_of_an_encoder_is_frozen(make_settings_of):
    with pytest.raises(ValueError, match="network cells takes no trainable"):
        make_settings_of(out="run", trainable="frozen")


def test_fields_without_a_label_map_are_left_out_and_none_at_all_is_refused(
    make_settings_of, drawn_fields, tmp_path, caplog
):
    some, none = tmp_path / "some", tmp_path / "none"
    for number in range(6):
        maps, _ = drawn(number)
        write_label_maps(some / f"f{number}.npz", maps)
    none.mkdir()
    train(make_settings_of(out=tmp_path / "run", masks=some))
    assert "4 of 10 fields have no label map" in caplog.text
    with pytest.raises(InputError, match="no label map of any of the 10 fields"):
        train(make_settings_of(out=tmp_path / "other", masks=none))
    assert not (tmp_path / "other").exists()


def test_label_maps_without_any_cell_are_refused(make_settings_of, tmp_path):
    empty = np.zeros((SIDE, SIDE), np.int32)
    for number in range(10):
        write_label_maps(tmp_path / "masks" / f"f{number}.npz", LabelMaps(empty, empty))
    with pytest.raises(InputError, match="with cells in 0; expected 2 at least"):
        train(make_settings_of(out=tmp_path / "run", masks=tmp_path / "masks"))


def test_label_maps_of_another_size_are_refused(make_settings_of, drawn_fields, tmp_path):
    for number in range(10):
        maps, _ = drawn(number, side=SIDE if number else 16)
        write_label_maps(tmp_path / "masks" / f"f{number}.npz", maps)
    with pytest.raises(InputError, match=r"1 of 10 fields cannot be learnt from: .*f0.npz is 16 x 16 pixels"):
        train(make_settings_of(out=tmp_path / "run", masks=tmp_path / "masks"))


def test_a_backbone_without_maps_for_a_u_net_is_refused():
    with pytest.raises(InputError, match=r"test_vit has maps at strides \[16, 16, 16\]"):
        cell_network("test_vit")
