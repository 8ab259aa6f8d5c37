"""Whatever weights are in a member, its card says so; what may not be passed on does not go to others."""

import json

import pytest

from hpa_kit.cli import main
from hpa_kit.config import TrainSettings
from hpa_kit.errors import InputError
from hpa_kit.kaggle.publish.weights import weights_dataset
from hpa_kit.training import load_member
from hpa_kit.training.cards import Origin, card_of, origins_of
from hpa_kit.training.checkpoint import write_checkpoint


@pytest.fixture
def run_of(tmp_path):
    """Writes a run's checkpoint without weights, of which only the settings are asked."""

    def make(name: str = "run", **settings):
        (tmp_path / name).mkdir()
        made = TrainSettings(data="data", out=tmp_path / name, size=64, **settings)
        write_checkpoint(tmp_path / name / "best.safetensors", made, {"epoch": 1})
        return tmp_path / name

    return make


@pytest.mark.parametrize(
    ("licence", "free"),
    [
        ("MIT", True), ("apache-2.0", True), ("bsd-3-clause", True), ("CC BY 4.0", True),
        ("cc-by-sa-4.0", True), ("cc-by-nc-4.0", False), ("CC BY-ND 4.0", False), ("dinov3-license", False),
        ("unknown", False), ("not stated", False), ("MIT, for research", False),
        ("MIT, non-commercial use", False), ("a licence of ours", False),
    ],
)  # fmt: skip
def test_only_licences_that_are_known_to_be_free_let_weights_be_passed_on(licence, free) -> None:
    assert Origin(weights="w", licence=licence).may_be_passed_on is free


def test_origins_are_told_by_timms_names_and_through_warm_starts(run_of, tmp_path, subcell) -> None:
    backbones = {
        "resnet50_tv_in1k-0.pth": ("resnet50", "resnet50.tv_in1k of timm", "bsd-3-clause"),
        "resnet50.pth": ("resnet50", "taken for resnet50.a1_in1k of timm", "apache-2.0"),
        "dinov3.pth": ("vit_small_patch16_dinov3", "vit_small_patch16_dinov3.lvd1689m", "dinov3-license"),
    }
    for file, (backbone, weights, licence) in backbones.items():
        (origin,) = origins_of(run_of(file.partition(".")[0], backbone=backbone, pretrained=file))
        assert weights in origin.weights and origin.licence == licence
    second = run_of("second", warm_start=tmp_path / "dinov3")
    assert [one.licence for one in origins_of(second)] == ["dinov3-license"]
    assert origins_of(run_of("bare")) == []
    (origin,) = origins_of(run_of("cells", pretrained=subcell, backbone="any"))
    assert "SubCell rybg" in origin.weights and origin.licence == "MIT"


def test_bound_weights_stop_the_dataset_with_what_to_do_instead(
    run_of, tmp_path, make_subcell, capsys
) -> None:
    bound = run_of(backbone="vit_small_patch16_dinov3", pretrained="dinov3.pth")
    out = tmp_path / "out"
    assert main(["kaggle", "weights", str(bound), str(out), "--owner", "jane-doe"]) == 2
    said = capsys.readouterr().err
    assert "licence dinov3-license: " in said and "--private, or leave the member out" in said
    assert len(said.strip().splitlines()) == 1 and not out.exists()
    with pytest.raises(InputError, match="licence not stated.*--weights-licence"):
        weights_dataset([make_subcell("bg")], out, "jane-doe")


def test_subcell_is_packed_with_its_card_and_works_from_there(subcell, make_subcell, tmp_path) -> None:
    out = tmp_path / "out"
    weights_dataset([subcell], out, "jane-doe")
    card = (out / "README.md").read_text(encoding="utf-8")
    for said in ("SubCell rybg", "licence: MIT", "`encoder.pth`, sha256 `", "every field counts as seen"):
        assert said in card
    assert json.loads((out / "dataset-metadata.json").read_text())["licenses"] == [{"name": "other"}]
    (packed,) = out.glob("*.safetensors")
    assert card_of(packed) == card_of(subcell) and origins_of(packed) == origins_of(subcell)
    assert load_member(packed).model.channels == "rybg"
    weights_dataset([make_subcell("bg")], tmp_path / "private", "jane-doe", private=True)
    assert "this dataset stays private" in (tmp_path / "private" / "README.md").read_text(encoding="utf-8")
