"""Members and published cell networks become datasets whose notebook finds and loads them."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors import safe_open

from hpa_kit.cli import main
from hpa_kit.config import (
    EnsembleSettings,
    InferSettings,
    MemberSettings,
    TrainSettings,
    read_ensemble,
    write_ensemble,
)
from hpa_kit.errors import InputError
from hpa_kit.kaggle import find_ensemble
from hpa_kit.kaggle.publish.dataset import check_dataset
from hpa_kit.kaggle.publish.weights import weights_dataset
from hpa_kit.training import load_member
from hpa_kit.training.checkpoint import write_checkpoint


def make_run(folder: Path, seed: int = 0) -> Path:
    """A run folder as training leaves it: trained and averaged weights, optimiser state, metrics."""
    from hpa_kit.training.member import build_network

    folder.mkdir(parents=True)
    torch.manual_seed(seed)
    settings = TrainSettings(data=Path("d"), out=folder, backbone="test_resnet", size=64, fold=seed, folds=5)
    weights = build_network(settings).state_dict()
    averaged = {name: value + 1 if value.is_floating_point() else value for name, value in weights.items()}
    metrics = {"epoch": 3.0, "val_loss": 0.25, "macro_f1": 0.5}
    state = {
        "model": weights,
        "ema": averaged,
        "optimiser": {"state": {0: {"exp_avg": torch.ones(1000)}}},
        "epoch": 3,
        "metrics": metrics,
    }
    write_checkpoint(folder / "best.safetensors", settings, state)
    write_checkpoint(folder / "last.safetensors", settings, state)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("runs")
    return [make_run(root / "a" / "r50", 0), make_run(root / "b" / "r50", 1)]


@pytest.fixture(scope="module")
def packed(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset of both runs; tests copy it before they move it."""
    out = tmp_path_factory.mktemp("packed") / "out"
    weights_dataset(runs, out, "jane-doe", licence="CC0-1.0")
    return out


def test_a_member_goes_without_optimiser_state_and_with_its_averaged_weights(runs, packed):
    with safe_open(str(packed / "r50.safetensors"), framework="pt") as file:
        assert not [key for key in file.keys() if "optimiser" in key or key.startswith("ema")]  # noqa: SIM118
    before, after = load_member(runs[0]), load_member(packed / "r50.safetensors")
    assert after.settings == before.settings
    assert after.info["metrics"] == before.info["metrics"]
    assert after.info["epoch"] == 3
    expected = before.model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in after.model.state_dict().items())


def test_runs_of_one_name_get_names_of_their_own_in_one_flat_folder(packed):
    names = {path.name for path in packed.iterdir()}
    assert names == {
        "README.md", "dataset-metadata.json", "ensemble.yaml",
        "r50.safetensors", "r50.yaml", "r50-2.safetensors", "r50-2.yaml",
    }  # fmt: skip
    assert check_dataset(packed) == []


@pytest.mark.parametrize("mount", ["hpa-kit-members", "datasets/jane-doe/hpa-kit-members", "a/b/c"])
def test_the_ensembles_paths_resolve_wherever_kaggle_mounts_them(packed, tmp_path, mount):
    folder = Path(shutil.copytree(packed, tmp_path / "inputs" / mount))
    path = find_ensemble(None, [tmp_path / "inputs"])
    assert path == folder / "ensemble.yaml"
    members = read_ensemble(path).members
    assert [load_member(member.checkpoint).settings.fold for member in members] == [0, 1]


def test_an_ensembles_own_weights_modes_and_rules_are_kept(runs, tmp_path):
    members = (
        MemberSettings(checkpoint=runs[0], mode="cam", weight=2, views="auto"),
        MemberSettings(checkpoint=runs[1], views="none"),
        MemberSettings(checkpoint=runs[0] / "best.safetensors", mode="pred"),
    )
    ensemble = EnsembleSettings(members=members, rule="mean_logit", map_size=64, masks=tmp_path)
    write_ensemble(ensemble, tmp_path / "mine.yaml")
    weights_dataset([tmp_path / "mine.yaml"], tmp_path / "out", "jane-doe")
    written = read_ensemble(tmp_path / "out" / "ensemble.yaml")
    assert [(member.mode, member.weight, member.views) for member in written.members] == [
        ("cam", 2, "auto"), ("both", 1, "none"), ("pred", 1, "flips"),
    ]  # fmt: skip
    assert (written.rule, written.map_size, written.masks) == ("mean_logit", 64, None)


def test_bare_runs_become_the_ensemble_that_infer_makes_of_them(runs, packed):
    written = read_ensemble(packed / "ensemble.yaml")
    of_infer = InferSettings(data="d", out="o", members=runs).of_ensemble()
    assert written.model_copy(update={"members": of_infer.members}) == of_infer
    for one, other in zip(written.members, of_infer.members, strict=True):
        assert one.model_copy(update={"checkpoint": other.checkpoint}) == other
    said = yaml.safe_load((packed / "ensemble.yaml").read_text())
    assert (said["rule"], said["map_size"], said["members"][0]["views"]) == ("best", 512, "flips")


def test_the_card_tells_scores_settings_and_licence(packed):
    card = (packed / "README.md").read_text()
    assert json.loads((packed / "dataset-metadata.json").read_text())["description"] == card  # the page
    for said in ("CC0-1.0", "macro_f1 0.5", "test_resnet", "fold 1 of 5", "Human Protein Atlas"):
        assert said in card
    metadata = json.loads((packed / "dataset-metadata.json").read_text())
    assert metadata["licenses"] == [{"name": "CC0-1.0"}]


@pytest.mark.parametrize("bad", [{"owner": "Jane Doe"}, {"licence": "MIT"}])
def test_what_kaggle_would_refuse_is_refused_before_anything_is_written(runs, tmp_path, bad):
    with pytest.raises(InputError, match="Jane Doe|MIT"):
        weights_dataset(runs, tmp_path / "out", **{"owner": "jane-doe", **bad})
    assert not (tmp_path / "out").exists()


def test_a_member_that_cannot_look_at_its_fields_is_refused_before_it_is_packed(runs, tmp_path):
    settings = load_member(runs[0]).settings
    run = tmp_path / "vit"
    run.mkdir()
    made = settings.model_copy(update={"backbone": "test_vit", "stride": 16})
    from hpa_kit.training.member import build_network

    write_checkpoint(run / "best.safetensors", made, {"model": build_network(made).state_dict(), "epoch": 1})
    member = MemberSettings(checkpoint=run, size=100)
    write_ensemble(EnsembleSettings(members=(member,)), tmp_path / "e.yaml")
    with pytest.raises(InputError, match="100 x 100; the nearest sides that it takes: 96 and 112"):
        weights_dataset([tmp_path / "e.yaml"], tmp_path / "out", "jane-doe")
    assert not list(tmp_path.glob("out/*.safetensors"))


def test_a_run_without_a_checkpoint_is_one_line(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    command = ["kaggle", "weights", str(tmp_path / "run"), str(tmp_path / "out"), "--owner", "jane-doe"]
    assert main(command) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_the_command_takes_several_runs_and_prints_what_to_do_next(runs, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["kaggle", "weights", *map(str, runs), str(out), "--owner", "jane-doe"]) == 0
    printed = capsys.readouterr().out
    assert f"kaggle datasets create -p {out} -r zip" in printed
    assert "hpa-kit kaggle metadata --add jane-doe/hpa-kit-members" in printed


def test_published_networks_are_converted_once_and_found_where_they_are_attached(reference, tmp_path):
    from hpa_kit.cells.weights import find_weights, load_published_network
    from hpa_kit.kaggle import find_cell_weights

    source = tmp_path / "published"
    source.mkdir()
    pickles = {path.stem: path for path in (reference / "dpnunet").glob("*.pth")}
    if not pickles:
        pytest.skip("no published module among the reference data")
    one = next(iter(pickles.values()))
    for name in ("dpn_unet_nuclei_v1", "cell-model"):
        shutil.copy(one, source / f"{name}.pth")
    out = tmp_path / "inputs" / "datasets" / "jane-doe" / "hpa-kit-cells"
    weights_dataset([source], out, "jane-doe")
    assert check_dataset(out) == []
    assert find_cell_weights(None, [tmp_path / "inputs"]) == out
    found = find_weights(out)
    assert {path.suffix for path in found.values()} == {".safetensors"}
    before, after = (
        load_published_network(one).state_dict(),
        load_published_network(found["cells"]).state_dict(),
    )
    assert all(torch.equal(before[name], after[name]) for name in before)
    card = (out / "README.md").read_text()
    assert "4665863" in card


@pytest.fixture
def cells_run(tmp_path):
    """A run of untrained networks that find cells."""
    from hpa_kit.training.checkpoint import BEST, write_checkpoint
    from hpa_kit.training.member import build_network

    run = tmp_path / "cells"
    settings = TrainSettings(
        data="data", out=run, network="cells", masks="masks", backbone="test_resnet", size=64
    )
    metrics = {"val_loss": 1.5, "cells_met": 0.75}
    model = build_network(settings).state_dict()
    write_checkpoint(run / BEST, settings, {"model": model, "epoch": 1, "metrics": metrics})
    return run


def test_networks_of_a_run_that_find_cells_are_packed_and_found_where_they_are_attached(cells_run, tmp_path):
    from hpa_kit.cells.networks import load_networks
    from hpa_kit.kaggle import find_cell_weights

    out = tmp_path / "inputs" / "datasets" / "jane-doe" / "hpa-kit-cells"
    weights_dataset([cells_run], out, "jane-doe")
    assert check_dataset(out) == []
    assert find_cell_weights(None, [tmp_path / "inputs"]) == out
    before, after = load_networks(cells_run), load_networks(out)
    assert after.side == 64
    assert all(map(torch.equal, before.state_dict().values(), after.state_dict().values()))
    card = (out / "README.md").read_text()
    assert "U-Nets on test_resnet" in card
    assert "cells_met 0.75" in card


@pytest.mark.parametrize("backbone", ["test_resnet", "dpn92"])  # which has the published files' names
def test_what_a_run_was_packed_into_is_not_taken_for_the_published_networks(cells_run, tmp_path, backbone):
    from hpa_kit.cells.networks import load_networks, write_networks

    networks = load_networks(cells_run)
    networks.side = 512
    write_networks(networks, backbone, tmp_path / "packed")
    with pytest.raises(InputError, match="packed holds a run's networks, packed before; give the run"):
        weights_dataset([tmp_path / "packed"], tmp_path / "out", "jane-doe")


def test_networks_that_find_cells_and_members_do_not_go_together(runs, cells_run, tmp_path):
    with pytest.raises(InputError, match="holds networks that find cells; give it alone"):
        weights_dataset([*runs, cells_run], tmp_path / "out", "jane-doe")


def test_published_networks_and_members_do_not_go_together(runs, tmp_path):
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "nuclei-model.pth").touch()
    with pytest.raises(InputError, match="give it alone"):
        weights_dataset([*runs, tmp_path / "published"], tmp_path / "out", "jane-doe")
