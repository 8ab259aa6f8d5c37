"""Which sides a member looks at, found out before it looks at any field."""

import logging
from pathlib import Path

import pytest
import torch

from hpa_kit.cli import main
from hpa_kit.config import MemberSettings, TrainSettings
from hpa_kit.errors import InputError
from hpa_kit.inference import Ensemble
from hpa_kit.inference.views import FLIPS, LoadedMember
from hpa_kit.models import CamClassifier
from hpa_kit.training.checkpoint import BEST, write_checkpoint
from hpa_kit.training.member import build_network


def loaded(backbone: str, size: int, stride: int = 32, **settings) -> LoadedMember:
    model = CamClassifier(backbone, stride, size=size).eval()
    return LoadedMember(MemberSettings(checkpoint=Path("run"), views="auto", **settings), model, size, False)


def sides(member: LoadedMember) -> list[int]:
    return [member.side(scale) for scale in member.plan()[0]]


def written(folder: Path, backbone: str, size: int, stride: int = 32) -> Path:
    settings = TrainSettings(data="d", out=folder, backbone=backbone, size=size, stride=stride)
    folder.mkdir(parents=True)
    state = {"model": build_network(settings).state_dict(), "epoch": 1}
    write_checkpoint(folder / BEST, settings, state)
    return folder


def test_a_network_that_takes_any_side_looks_at_the_sides_that_are_asked_for() -> None:
    member = loaded("resnet18", 224)
    member.check_sides()
    assert sides(member) == [224, 268, 313] and member.other_sides() is None


def test_views_of_other_networks_have_the_nearest_sides_that_they_take_and_it_is_said() -> None:
    member = loaded("dla46x_c", 224)
    member.check_sides()
    assert sides(member) == [224, 256, 320]
    assert member.other_sides() == (
        "member run: dla46x_c takes no fields of 268 and 313 px; views of 256 and 320 px instead"
    )


def test_a_network_of_one_side_looks_at_flips_only_and_it_is_said() -> None:
    member = loaded("levit_128s", 64)
    member.check_sides()
    assert member.plan() == ((1.0,), FLIPS)
    assert member.other_sides() == "member run: levit_128s takes no fields of 76 and 89 px; flips only"
    with torch.inference_mode():
        seen = member.predict(torch.randint(0, 256, (1, 4, 64, 64)).float())
    assert seen.class_maps.shape == (1, 19, 2, 2)


def test_views_cost_by_the_sides_that_they_have(tmp_path) -> None:
    dla, levit = written(tmp_path / "dla", "dla46x_c", 224), written(tmp_path / "levit", "levit_128s", 64)
    for run, expected in ((dla, [224, 256, 320]), (levit, [64])):
        ensemble = Ensemble([run], "auto", map_size=16, class_maps=False, logit_maps=False)
        full, unscaled = ensemble.level, ensemble.level._replace(views=1)
        assert ensemble.cost(full) == len(FLIPS) * sum(side**2 for side in expected)
        assert ensemble.cost(unscaled) == len(FLIPS) * expected[0] ** 2


def test_what_is_chosen_is_said_once_however_many_devices_look(tmp_path, competition, cells, caplog) -> None:
    competition.add("a", cells(64, 64, 20))
    run = written(tmp_path / "run", "levit_128s", 64)
    words = f"infer {competition.root} --members {run} --out {tmp_path}/o.csv --device cpu,cpu"
    with caplog.at_level(logging.INFO):
        assert main([*words.split(), "--map-size", "16", "--views", "auto"]) == 0
    for text in ("levit_128s takes no fields of 76 and 89 px", "segmenter: classical"):
        assert sum(text in line for line in caplog.messages) == 1


def test_a_side_that_a_user_gives_is_refused_before_any_field_and_never_changed(tmp_path) -> None:
    run = written(tmp_path / "run", "test_vit", 64, 16)
    assert Ensemble([MemberSettings(checkpoint=run, size=96)], map_size=16).members[0].size == 96
    with pytest.raises(
        InputError, match=r"member .*run: size: backbone test_vit .* 100 x 100; .*: 96 and 112 \("
    ):
        Ensemble([MemberSettings(checkpoint=run, size=100)], map_size=16)


def test_a_member_that_cannot_look_ends_the_command_in_one_line(tmp_path, competition, cells, capsys) -> None:
    competition.add("a", cells(64, 64, 20))
    run = written(tmp_path / "run", "test_vit", 64, 16)
    (tmp_path / "e.yaml").write_text(f"members:\n- {{checkpoint: {run}, size: 100}}\n")
    words = f"infer {competition.root} --ensemble {tmp_path}/e.yaml --out {tmp_path}/o.csv --device cpu"
    assert main([*words.split(), "--masks", str(competition.masks)]) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("hpa-kit: member ")
