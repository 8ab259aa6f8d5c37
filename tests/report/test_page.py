"""The page of a report: what it holds, and that it needs nothing else."""

import json
import re
import shutil

import numpy as np
import pytest

from hpa_kit.cli import main
from hpa_kit.config import ReportSettings, TrainSettings, make_settings, write_yaml
from hpa_kit.errors import InputError
from hpa_kit.report import write_report
from hpa_kit.report.sources import spread
from hpa_kit.submission import encode_mask, read_submission, write_submission

MASK = encode_mask(np.pad(np.ones((6, 8), bool), 4))


@pytest.fixture
def report(tmp_path):
    def write(source, **settings):
        done = write_report(
            make_settings(ReportSettings, {"source": source, "out": tmp_path / "r.html"}, settings)
        )
        return done, done.path.read_text(encoding="utf-8")

    return write


def held(page, name):
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', page, re.S)
    return json.loads(found.group(1))


def test_the_page_asks_for_nothing(report, simulated):
    done, page = report(simulated.submission, data=simulated.data)
    assert not re.search(r"https?:|//[a-z]+\.[a-z]+|\bfetch\(|XMLHttpRequest|@import|<link|\bsrc=", page)
    assert done.size == len(page.encode())
    assert f"this file {done.size / 1e6:.1f} MB" in page


def test_every_cell_is_there_with_outline_scores_and_truth(report, simulated):
    done, page = report(simulated.submission, data=simulated.data)
    index = held(page, "index")
    assert (done.fields, done.total, len(index["fields"])) == (6, 6, 6)
    for place, row in enumerate(read_submission(simulated.submission).itertuples(index=False)):
        record, summary = held(page, f"field-{place}"), index["fields"][place]
        masks = set(row.PredictionString.split()[2::3])
        assert summary["id"] == row.ID
        assert summary["n"] == len(record["c"]) == len(masks)
        assert all(cell["d"].startswith("M") and cell["s"] and cell["t"] for cell in record["c"])
        assert record["p"]
    assert index["evidence"]["map"] > 0


def test_a_row_without_an_image_and_of_another_size_costs_that_row_only(report, simulated, tmp_path, caplog):
    """As inference writes it of a field that cannot be read where no sample says its size."""
    table = read_submission(simulated.submission)
    table.loc[1, ["ImageWidth", "ImageHeight"]] = 2048
    table.loc[1, "PredictionString"] = f"0 0.000001 {encode_mask(np.zeros((2048, 2048), bool))}"
    write_submission(tmp_path / "s.csv", table)
    shutil.copytree(simulated.data, tmp_path / "data")
    for path in (tmp_path / "data" / "test").glob(f"{table['ID'][1]}_*"):
        path.unlink()
    _, page = report(tmp_path / "s.csv", data=tmp_path / "data")
    index = held(page, "index")
    assert [field["n"] > 0 for field in index["fields"]] == [True, False, True, True, True, True]
    whole = held(report(simulated.submission, data=simulated.data)[1], "index")
    assert index["evidence"]["truth"] == whole["evidence"]["truth"]
    assert 0 < index["evidence"]["matched"] < whole["evidence"]["matched"]
    assert f"1 of 6 rows of {tmp_path / 's.csv'}, such as ID {table['ID'][1]}" in caplog.text


def test_a_run_that_can_look_at_no_field_is_an_error(report, simulated, run, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(simulated.data / "test", data / "test")
    for path in (data / "test").iterdir():
        path.write_bytes(b"")
    with pytest.raises(InputError, match="report: not one of 6 fields of .* could be used; the first: "):
        report(run, data=data, device="cpu")


def test_without_data_the_cells_stand_alone(report, simulated):
    _, page = report(simulated.submission)
    assert held(page, "index")["evidence"] is None
    record = held(page, "field-0")
    assert record["p"] is None
    assert record["c"][0]["d"]


def test_the_most_fields_are_spread_over_the_table_and_figures_count_all(report, simulated):
    done, page = report(simulated.submission, data=simulated.data, fields=2)
    _, whole = report(simulated.submission, data=simulated.data)
    assert (done.fields, done.total) == (2, 6)
    assert held(page, "index")["evidence"]["map"] == held(whole, "index")["evidence"]["map"]
    shown = {held(page, "index")["fields"][k]["id"] for k in range(2)}
    ids = read_submission(simulated.submission)["ID"].tolist()
    assert shown == {ids[0], ids[3]}
    assert spread(list("abc"), 0) == []


def test_an_image_that_cannot_be_read_costs_its_picture_only(report, simulated, tmp_path, caplog):
    images = tmp_path / "images"
    shutil.copytree(simulated.data / "test", images)
    id = read_submission(simulated.submission)["ID"][1]
    (images / f"{id}_green.png").write_bytes(b"no image")
    _, page = report(simulated.submission, data=images)
    assert held(page, "field-1")["p"] is None
    assert held(page, "field-2")["p"]
    assert f"{id} is shown without a picture" in caplog.text


def test_nothing_that_a_table_holds_becomes_part_of_the_page(report, tmp_path):
    id = "</script><script>alert(1)</script>"
    write_submission(tmp_path / "<b>.csv", [(id, 16, 14, f"0 0.5 {MASK}")])
    _, page = report(tmp_path / "<b>.csv")
    assert "alert(1)</script>" not in page
    assert "<b>" not in page
    assert held(page, "index")["fields"][0]["id"] == id


def test_a_run_shows_its_training_without_fields(report, tmp_path):
    run = tmp_path / "run"
    write_yaml(TrainSettings(data="data", out=run), run / "settings.yaml")
    (run / "metrics.csv").write_text("epoch,train_loss,val_loss\n1,2.0,nan\n2,1.5,1.75\n")
    _, page = report(run)
    (found,) = held(page, "index")["training"]["runs"]
    assert found["epochs"] == [1, 2]
    assert found["metrics"] == {"train_loss": [2.0, 1.5], "val_loss": [None, 1.75]}
    assert held(page, "index")["training"]["rows"][0][0] == "run"


def test_runs_of_one_name_are_told_apart(report, tmp_path):
    for name in ("a", "b"):
        run = tmp_path / name / "run"
        write_yaml(TrainSettings(data="data", out=run), run / "settings.yaml")
        (run / "metrics.csv").write_text("epoch,train_loss\n1,2.0\n")
    write_submission(tmp_path / "s.csv", [("x", 16, 14, "")])
    _, page = report(tmp_path / "s.csv", members=[tmp_path / "a" / "run", tmp_path / "b" / "run"])
    names = [run["name"] for run in held(page, "index")["training"]["runs"]]
    assert names == [str(tmp_path / "a" / "run"), str(tmp_path / "b" / "run")]


def test_what_its_fields_took_is_shown_where_it_lies_beside_the_submission(report, tmp_path, caplog):
    write_submission(tmp_path / "s.csv", [("x", 16, 14, f"0 0.5 {MASK}")])
    _, page = report(tmp_path / "s.csv")
    assert held(page, "index")["inference"] == []
    kept = tmp_path / "s_seconds.yaml"
    kept.write_text(
        "reading: {seconds_per_field: 0.25, fields: 3}\nmembers: {seconds_per_field: 2, fields: 2}\n"
    )
    _, page = report(tmp_path / "s.csv")
    assert held(page, "index")["inference"] == [["reading", 0.25, 3], ["members", 2.0, 2]]
    kept.write_text("reading: soon\n")
    _, page = report(tmp_path / "s.csv")
    assert held(page, "index")["inference"] == []
    assert f"left out: seconds: {kept} cannot be used" in caplog.text


@pytest.mark.parametrize(
    ("row", "message"),
    [("0 0.5 nonsense", "ID x: mask nonsense cannot be used"), ("0 0.5", "ID x: 2 words; expected")],
)
def test_a_row_that_cannot_be_read_is_named(report, tmp_path, row, message):
    write_submission(tmp_path / "s.csv", [("x", 16, 14, row)])
    with pytest.raises(InputError, match=message):
        report(tmp_path / "s.csv")


def test_what_does_not_go_together_is_refused(report, tmp_path, simulated):
    with pytest.raises(InputError, match="is missing; expected a submission CSV or a run folder"):
        report(tmp_path / "none.csv")
    with pytest.raises(InputError, match="holds no best.safetensors"):
        report(tmp_path, data=simulated.data)
    with pytest.raises(InputError, match="truth needs --data"):
        report(tmp_path, truth=simulated.truth)


def test_the_command_says_size_and_fields(simulated, tmp_path, capsys):
    out = tmp_path / "page.html"
    assert main(["report", str(simulated.submission), "--data", str(simulated.data), "--out", str(out)]) == 0
    assert re.search(rf"report: {out}, 0\.\d MB, 6 of 6 fields shown", capsys.readouterr().out)


@pytest.fixture
def run(tmp_path):
    from hpa_kit.training.checkpoint import BEST, write_checkpoint
    from hpa_kit.training.member import build_network

    run = tmp_path / "run"
    settings = TrainSettings(data="data", out=run, backbone="test_resnet", stride=16, size=64)
    write_checkpoint(run / BEST, settings, {"model": build_network(settings).state_dict(), "epoch": 1})
    return run


def test_a_run_looks_at_fields_itself(report, simulated, run):
    done, page = report(run, data=simulated.data, masks=simulated.data / "masks", fields=2, device="cpu")
    index, record = held(page, "index"), held(page, "field-0")
    assert (done.fields, index["kind"], index["maps"]) == (2, "run", True)
    assert record["m"]
    assert len(index["fields"][0]["k"]) == 19
    with np.load(simulated.data / "masks" / f"{index['fields'][0]['id']}.npz") as maps:
        assert len(record["c"]) == maps["cells"].max()
    # Fields that were not predicted do not count against it.
    assert index["evidence"]["fields"] == 2
    assert index["evidence"]["matched"] == index["evidence"]["truth"]


@pytest.mark.parametrize(
    ("folds", "shown", "said"),
    [
        ({"a": 0, "b": 1, "c": -1}, "a", ""),
        ({"x": 0, "y": 1}, "abc", ""),
        ({"a": 1, "b": 1, "c": 1}, "abc", "all 3"),
    ],
    ids=["its own data", "others' data", "all of its data"],
)
def test_of_training_fields_a_run_shows_those_it_has_not_learnt_from(
    report, simulated, run, tmp_path, caplog, folds, shown, said
):
    data = tmp_path / "data"
    (data / "train").mkdir(parents=True)
    for place, id in enumerate("abc"):
        other = read_submission(simulated.submission)["ID"][place]
        for channel in ("red", "green", "blue", "yellow"):
            shutil.copy(
                simulated.data / "test" / f"{other}_{channel}.png", data / "train" / f"{id}_{channel}.png"
            )
    (data / "train.csv").write_text("ID,Label\na,0\nb,7|14\nc,18\n")
    (run / "folds.csv").write_text(
        "ID,Label,fold\n" + "".join(f"{id},0,{fold}\n" for id, fold in folds.items())
    )
    _, page = report(run, data=data, split="train", device="cpu")
    assert "".join(field["id"] for field in held(page, "index")["fields"]) == shown
    assert held(page, "index")["fields"][0]["l"] == [0]
    assert said in caplog.text
    (data / "train.csv").write_text("ID,Label\na,nonsense\n")
    with pytest.raises(InputError, match="nonsense"):
        report(run, data=data, split="train", device="cpu")


def test_every_file_of_the_page_is_used_and_packed():
    from importlib.resources import files

    from hpa_kit.report.page import SCRIPTS

    static = files("hpa_kit.report") / "static"
    assert sorted(one.name for one in static.iterdir()) == ["js", "report.css", "report.html"]
    assert sorted(one.name for one in (static / "js").iterdir()) == sorted(f"{name}.js" for name in SCRIPTS)
