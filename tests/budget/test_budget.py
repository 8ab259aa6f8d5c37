"""What the whole job takes: a page of numbers measured on a few fields, rows of others kept."""

import re
from pathlib import Path

import pytest

from hpa_kit.budget import Measured, networks, processors, read_page, tables
from hpa_kit.budget.page import BY_NETWORKS, ON_PROCESSORS, POLICIES, TITLE, with_label_maps
from hpa_kit.cli import main
from hpa_kit.config import BudgetSettings, SimulateSettings
from hpa_kit.data.simulate import simulate
from hpa_kit.errors import InputError

PAGE = Path(__file__).parents[2] / "docs" / "budget.md"
BY_PROCESSORS = {stage.measure for stage in ON_PROCESSORS} | {
    with_label_maps(policy, maps) for policy in POLICIES for maps in (False, True)
}
GPU = {stage.measure: Measured(0.5, 4000 * (stage.kept > 0), "Tesla T4") for stage in BY_NETWORKS}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A competition of two small training fields."""
    root = tmp_path_factory.mktemp("budget")
    return simulate(SimulateSettings(out=root / "data", train=2, test=0, size=96, classes=(0, 16), workers=1))


@pytest.fixture
def quick(monkeypatch):
    """Each part is done once, to two fields."""
    for name, value in {"BATCH": 2, "BATCHES": 1, "REPEATS": 1}.items():
        monkeypatch.setattr(processors, name, value)


def settings(data, out, **changes):
    return BudgetSettings(
        data=data, out=out, backbone="test_resnet", size=64, batch=2, **{"device": "auto", **changes}
    )


def test_all_that_processors_do_is_measured_and_what_a_gpu_measured_stays(data, tmp_path, quick, capsys):
    page = tmp_path / "budget.md"
    page.write_text("# Mine\n\nAbove the tables.\n\n" + tables(GPU, 4))
    options = ["--size", "64", "--backbone", "test_resnet", "--cores", "2"]
    assert main(["budget", str(data), "--out", str(page), *options]) == 0
    above, found = read_page(page)
    assert above == "# Mine\n\nAbove the tables.\n\n" and found.keys() == BY_PROCESSORS | GPU.keys()
    assert all(found[name] == GPU[name] for name in GPU)
    assert all(found[name].seconds > 0 and found[name].where.endswith(" ms; 64²") for name in BY_PROCESSORS)
    kept = {stage.measure for stage in ON_PROCESSORS if stage.kept}
    assert all(found[name].bytes > 0 for name in kept)
    said = capsys.readouterr()
    assert tables(found, 2) in said.out and "better by fields of that size" in said.err


def test_hours_are_seconds_of_all_shared_by_the_processors_and_gigabytes_those_of_all():
    text = tables({"rows": Measured(0.3, 2000), "cam": Measured(0.01)}, 4)
    (row,) = re.findall(r"\| pseudo labels written \|.*\| 480,000 cells \|(.*)\|", text)
    assert [cell.strip() for cell in row.split("|")] == ["0.3", "10", "2 kB", "0.96", ""]
    (row,) = re.findall(r"\| a classifier learns \|.*\| 545,150 fields, 25 epochs \|(.*)\|", text)
    assert [cell.strip() for cell in row.split("|")] == ["0.01", "1.51", "", "", ""]
    speeds = tables({with_label_maps("3"): Measured(0.008, 0, "here")}, 4)
    assert "| 3 | unknown | 8 | unknown | 500 | here |" in speeds


def test_what_nobody_measured_is_unknown():
    rows = [line for line in tables({}, 4).splitlines() if line.startswith("| ")]
    unknown = [line for line in rows if "unknown" in line]
    assert len(unknown) == len(ON_PROCESSORS) + len(BY_NETWORKS) + len(POLICIES)
    assert read_page(Path("nowhere.md")) == (TITLE, {})


@pytest.mark.parametrize(
    "network", ["cam", *(pytest.param(name, marks=pytest.mark.whole_table) for name in ("unet", "crops"))]
)
def test_a_step_of_every_kind_of_network_is_measured(data, tmp_path, one_thread, network):
    assert network in networks.NETWORKS.values()
    asked = settings(data, tmp_path / "budget.md", device="cpu")
    assert networks._learning(asked, network, "cpu", tmp_path) > 0


def test_what_trained_networks_do_is_measured_where_a_device_is_named(
    data, tmp_path, monkeypatch, one_thread
):
    changes = {"_published": lambda device: 1.0, "_learning": lambda *_: 2.0, "PREDICTED": 2}
    for name, value in changes.items():
        monkeypatch.setattr(networks, name, value)
    asked = settings(data, tmp_path / "budget.md", device="cpu")
    found = dict(networks.measure_networks(asked, "cpu", tmp_path))
    assert found.keys() == {stage.measure for stage in BY_NETWORKS}
    assert found["unet"].seconds == 2 and found["predict"].seconds > 0 and found["features"].seconds > 0
    assert found["features"].bytes == 2 * 96 * 4  # two scales of a network with 96 maps


def test_memory_that_runs_out_halves_the_batch_down_to_two(data, tmp_path, monkeypatch):
    tried = []

    def too_small(asked, network, batch, device, scratch):
        tried.append(batch)
        if batch > 5:
            raise RuntimeError("CUDA error: out of memory")
        return 3.0

    monkeypatch.setattr(networks, "_step_seconds", too_small)
    asked = settings(data, tmp_path / "budget.md", device="cpu").model_copy(update={"batch": 40})
    assert networks._learning(asked, "cam", "cpu", tmp_path) == 3.0 / 5 and tried == [40, 20, 10, 5]
    monkeypatch.setattr(networks, "_step_seconds", lambda *_: too_small(None, "", 9, "", None))
    with pytest.raises(InputError, match="too little memory to train test_resnet"):
        networks._learning(asked, "cam", "cpu", tmp_path)


def test_a_page_of_something_else_is_not_written_over(data, tmp_path, capsys):
    page = tmp_path / "notes.md"
    page.write_text("# Notes\n")
    assert main(["budget", str(data), "--out", str(page)]) == 2
    assert "budget did not write it; give another --out" in capsys.readouterr().err
    assert page.read_text() == "# Notes\n"


def test_the_page_of_the_documents_has_the_stages_and_sums_of_the_code():
    above, found = read_page(PAGE)
    assert PAGE.read_text(encoding="utf-8") == above + tables(found, 4)
    assert found.keys() >= BY_PROCESSORS
