"""Vectors of cells, kept once by any encoder, and heads that learn from them."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from runs_alike import assert_same_run
from safetensors.torch import save_file

from hpa_kit.cells import LabelMaps, write_label_maps
from hpa_kit.config import FeaturesSettings, TrainSettings, make_settings
from hpa_kit.errors import InputError
from hpa_kit.models.cell_head import CellHead
from hpa_kit.models.cell_pooling import pool_cells, with_negative
from hpa_kit.training import cell_features, load_member, train
from hpa_kit.training.cell_features_file import read_cell_features
from hpa_kit.training.checkpoint import BEST, read_checkpoint, write_checkpoint
from hpa_kit.training.features import make_features
from hpa_kit.training.learnt_fields import learnt_from
from hpa_kit.training.member import build_network, weights_of
from hpa_kit.training.objectives.heads import ENCODER, Bags

IDS = [f"00{number}e1" for number in range(13)]


def cells_of(number):
    """Two cells of 40 x 48 pixels; the last field has none, of the one before the first is a single pixel."""
    cells = np.zeros((40, 48), np.int32)
    if number < 12:
        cells[4:20, 6:20] = 1 if number < 11 else 0
        cells[1, 1] = 1
        cells[22:38, 24 + number : 40] = 2
    return cells


@pytest.fixture(scope="module")
def masks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("masks")
    for number, id in enumerate(IDS):
        write_label_maps(folder / f"{id}.npz", LabelMaps(cells_of(number), cells_of(number)))
    return folder


@pytest.fixture(scope="module")
def encoder(make_run_settings, masks, tmp_path_factory):
    """An untrained network of crops."""
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(3)
    made = make_run_settings(out=folder, network="crops", masks=masks, crop_size=32)
    write_checkpoint(folder / BEST, made, {"model": build_network(made).state_dict(), "epoch": 1})
    (folder / "folds.csv").write_text("ID,fold\nelsewhere,1\n")
    return folder


def asked(competition, masks, out, **changes):
    return FeaturesSettings(
        **{
            "data": competition, "member": "encoder", "out": out, "cells": True, "masks": masks, "workers": 1,
            "device": "cpu", **changes,
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def kept(competition, masks, encoder, tmp_path_factory):
    """A file of vectors of all cells."""
    out = tmp_path_factory.mktemp("kept") / "cells.npz"
    return make_features(asked(competition, masks, out, member=encoder))


def test_vectors_are_what_the_encoder_makes_of_each_cells_crop_in_half_precision(kept, encoder, competition):
    from hpa_kit.cells.crops import crops_of
    from hpa_kit.cells.resize import resized
    from hpa_kit.data import read_field, resize_field

    found, model = read_cell_features(kept), load_member(encoder).model
    assert found.ids == IDS and found.counts.tolist() == [2] * 12 + [0]
    assert found.values.dtype == np.float16 and found.values.shape == (24, 2 * model.n_features)
    for number in (0, 10):
        field = resize_field(read_field(competition / "train", IDS[number]), 32)
        crops = crops_of(field, resized(cells_of(number), (32, 32)), 32)
        with torch.inference_mode():
            expected = model.cell_features(
                torch.from_numpy(crops.pixels),
                torch.from_numpy(crops.masks),
                torch.from_numpy(crops.statistics)[None].expand(2, -1, -1),
            ).numpy()
        rows = found.values[found.starts[number] :][:2]
        assert np.allclose(rows, expected, rtol=2e-3, atol=2e-3)


def test_a_run_that_was_cut_off_makes_what_it_lacks_and_ends_with_the_same_vectors(
    kept, encoder, competition, masks, tmp_path, monkeypatch
):
    monkeypatch.setattr(cell_features, "_CELLS_PER_PART", 4)
    settings, encoded, seen = asked(competition, masks, tmp_path / "c.npz", member=encoder), [], []
    real = cell_features._vectors

    def until(*given):
        encoded.append(given[-1])
        if len(encoded) == 8:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(cell_features, "_vectors", until)
    with pytest.raises(KeyboardInterrupt):
        make_features(settings)
    monkeypatch.setattr(cell_features, "_vectors", lambda *given: seen.append(given[-1]) or real(*given))
    make_features(settings)
    assert seen == IDS[7:]  # three parts of two fields each, and what was there when it ended
    one, other = read_cell_features(kept), read_cell_features(tmp_path / "c.npz")
    assert np.array_equal(one.values, other.values) and one.ids == other.ids
    assert not (tmp_path / "c.npz.parts").exists()
    seen.clear()
    make_features(settings)
    assert not seen
    changed = shutil.copytree(masks, tmp_path / "masks")
    write_label_maps(changed / f"{IDS[4]}.npz", LabelMaps(cells_of(5), cells_of(5)))
    make_features(settings.model_copy(update={"masks": changed}))
    assert IDS[4] in seen


def test_a_timm_network_encodes_cells_from_its_weights_file(competition, masks, tmp_path):
    import timm

    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "w.safetensors")
    made = {"member": tmp_path / "w.safetensors", "backbone": "test_resnet", "size": 32, "crop_size": 32}
    out = make_features(asked(competition, masks, tmp_path / "timm.npz", **made))
    found = read_cell_features(out)
    assert found.values.shape == (24, 192) and Path(found.encoder["path"]) == tmp_path / "timm_encoder" / BEST
    assert learnt_from(tmp_path / "timm_encoder") == frozenset()


def test_a_bags_logits_are_those_of_its_cells_pooled_and_absent_cells_count_for_nothing():
    torch.manual_seed(0)
    head, bag = CellHead(6), torch.randn(2, 3, 6)
    head.fit(torch.arange(6.0), torch.tensor([1.0, 2, 3, 4, 5, 0]))
    there = torch.tensor([[True, True, False], [True, True, True]])
    expected = with_negative(pool_cells(head.cell_logits(bag), there, "linear"))
    assert torch.equal(head(bag, there), expected)
    other = bag.clone()
    other[0, 2] = 99
    assert torch.equal(head(other, there), expected)


def test_a_head_reads_plain_features_as_it_reads_its_own():
    torch.manual_seed(0)
    head, vectors = CellHead(6).eval(), torch.randn(5, 6) * 3 + 1
    head.fit(vectors.mean(0), vectors.std(0))
    plain = head.plain().eval()
    assert torch.allclose(plain(vectors), head.cell_logits(vectors)[:, :18], atol=1e-5)


@pytest.fixture
def head(settings, kept):
    """Settings of a run of kept features that takes a second."""
    return lambda **changes: settings(
        **{"network": "head", "features": kept, "backbone": "test_resnet", "epochs": 3, "drop_rate": 0.1}
        | changes
    )


def test_a_head_learns_goes_on_and_is_a_network_of_crops_with_its_encoder(head, encoder, tmp_path):
    whole = train(head())
    stopped = head(out=tmp_path / "pieces", time_limit=1)
    from hpa_kit.training import Trainer

    class Stops(Trainer):
        def after_update(self):
            return super().after_update() and self.state.step_number != 4

    Stops(stopped).fit()
    train(stopped)
    assert_same_run(whole, tmp_path / "pieces")
    model, settings, _ = load_member(whole)
    assert (settings.network, settings.crops.side, settings.size) == ("crops", 32, 32)
    kept_head = build_network(head())
    crops = torch.randint(0, 255, (3, 4, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        vectors = load_member(encoder).model.cell_features(crops)
        kept_head.load_state_dict(weights_of(read_checkpoint(whole / BEST).state))
        assert torch.allclose(model(crops), kept_head.eval().cell_logits(vectors), atol=1e-3)
    assert "elsewhere" in learnt_from(whole) and len(learnt_from(whole)) > 5


def test_the_encoder_is_found_beside_the_head_and_another_one_is_refused(head, encoder, tmp_path):
    run = train(head(epochs=1))
    moved = tmp_path / "moved"
    elsewhere = load_settings(run).model_copy(update={"encoder": tmp_path / "gone"})
    moved.mkdir()
    write_checkpoint(moved / BEST, elsewhere, read_checkpoint(run / BEST).state)
    with pytest.raises(
        InputError, match=f"gone, which is not there; put that checkpoint beside it as {ENCODER}"
    ):
        load_member(moved)
    shutil.copy(encoder / BEST, moved / ENCODER)
    assert load_member(moved).settings.network == "crops"
    state = read_checkpoint(encoder / BEST)
    write_checkpoint(
        moved / ENCODER, make_settings(TrainSettings, state.settings), {**state.state, "epoch": 2}
    )
    with pytest.raises(InputError, match="another encoder"):
        load_member(moved)


def load_settings(run):
    from hpa_kit.training import settings_of

    return settings_of(run)


def test_fields_without_vectors_or_without_a_cell_are_told_apart(head, kept, competition, tmp_path):
    data = shutil.copytree(competition, tmp_path / "more")
    with (data / "train.csv").open("a") as file:
        file.write("another,0\n")
    with pytest.raises(InputError, match="lacks 1 of 14 labelled fields, such as ID another"):
        train(head(data=data))
    features = read_cell_features(kept)
    features.values[22] = 0  # a number that no pixel has
    bags = Bags(features, np.arange(13), np.zeros((13, 19), np.float32))
    batch = bags.batch([11, 0])
    assert batch.fields.shape == (2, 2, features.values.shape[1])
    assert batch.cells.tolist() == [[False, True], [True, True]]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"network": "head", "features": None}, "network head needs features"),
        ({"network": "cam"}, "network head needs features, and no other network takes them"),
        ({"trainable": "frozen"}, "network head takes no trainable"),
    ],
)
def test_what_does_not_belong_to_a_head_is_refused(head, changes, words):
    with pytest.raises(ValueError, match=words):
        head(**changes)


def test_subcell_encodes_cells_and_a_head_behind_it_is_a_member(subcell, competition, masks, head, tmp_path):
    from hpa_kit.config import MemberSettings
    from hpa_kit.data import read_field
    from hpa_kit.inference.views import load
    from hpa_kit.models import load_subcell

    out = make_features(asked(competition, masks, tmp_path / "subcell.npz", member=subcell))
    found = read_cell_features(out)
    cpu = torch.device("cpu")
    crops = load(MemberSettings(checkpoint=subcell), cpu).cut(
        read_field(competition / "train", IDS[3]), {}, cells_of(3)
    )
    with torch.inference_mode():
        red_yellow_blue_green = torch.from_numpy(crops.pixels)[:, [0, 3, 2, 1]].float()
        expected = load_subcell(subcell).features(red_yellow_blue_green)
    rows = found.values[found.starts[3] : found.starts[4]]
    assert np.allclose(rows, expected.numpy(), rtol=2e-3, atol=2e-3)

    run = train(head(features=out, epochs=1))
    member = load(MemberSettings(checkpoint=run, views="none"), cpu)
    own = build_network(head(features=out))
    own.load_state_dict(weights_of(read_checkpoint(run / BEST).state))
    with torch.inference_mode():
        seen = member.predict([crops], cpu, at_once=8)
        assert torch.allclose(seen.logits, own.eval().cell_logits(expected), atol=1e-3)
    with pytest.raises(InputError, match="31 are SubCell's"):
        member.unmerged()
    assert learnt_from(run) is None  # nobody said what SubCell has seen


def test_a_network_starts_with_subcells_encoder_each_filter_on_its_colour(subcell, crops_of_subcell):
    from hpa_kit.models import load_subcell

    network = build_network(crops_of_subcell(pretrained=subcell)).backbone.maps.network
    theirs = load_subcell(subcell).encoder
    stem = network.patch_embed.proj.weight
    assert stem.shape[1] == 5 and not stem[:, 4].any()  # the mask's
    assert torch.equal(stem[:, [0, 3, 2, 1]], theirs.patch_embed.proj.weight)
    for one, other in zip(network.blocks.parameters(), theirs.blocks.parameters(), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(network.pos_embed, theirs.pos_embed)


@pytest.fixture
def crops_of_subcell(settings, masks):
    """Settings of a run of crops on a ViT of the small SubCell's sides."""
    from tiny_transformers import OF_SUBCELL

    return lambda **changes: settings(
        **{
            "network": "crops", "masks": masks, "backbone": OF_SUBCELL, "stride": 16, "crop_size": 64,
            "normalisation": "joint", **changes,
        }
    )  # fmt: skip


def test_joint_contrast_scales_each_crop_over_all_its_channels():
    from hpa_kit.models import Normaliser

    crops = torch.randint(3, 200, (2, 4, 8, 8), dtype=torch.uint8)
    scaled = Normaliser(4, "joint")(crops)
    assert torch.equal(scaled.amin((1, 2, 3)), torch.zeros(2))
    assert torch.allclose(scaled.amax((1, 2, 3)), torch.ones(2))
    one = crops[1].float()
    assert torch.allclose(scaled[1], (one - one.min()) / (one.max() - one.min() + 1e-6))
