"""The commands drive the real Kaggle client, which speaks to a stand-in for Kaggle's server."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from kaggle_site import Run, Site
from site_client import NO_WAIT
from site_server import Server, serve
from small_checkout import make_checkout
from test_train_on_kaggle import FIRST, KIT, LAST, MEMBERS, A, B

from hpa_kit.kaggle.publish import training
from hpa_kit.kaggle.publish.data import DataPlan, fetch_data
from hpa_kit.kaggle.publish.dataset import Fault, write_dataset
from hpa_kit.kaggle.publish.online_client import Client
from hpa_kit.kaggle.publish.sessions import check_quota
from hpa_kit.kaggle.publish.submit import SubmitPlan, submit
from hpa_kit.kaggle.publish.training import TrainingPlan, train
from hpa_kit.kaggle.publish.upload import wait_until_ready

ROOT = Path(__file__).resolve().parents[3]
INFER = "jane-doe/hpa-kit-infer"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return make_checkout(tmp_path / "checkout")


@pytest.fixture
def runs() -> list[Run]:
    """How the sessions go that a test has, in their order."""
    return []


@pytest.fixture
def server(runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    (tmp_path / "home").mkdir()
    site = Site(lambda *_: runs.pop(0))
    with serve(site, tmp_path / "home", monkeypatch.setenv, monkeypatch.delenv) as server:
        yield server


@pytest.fixture
def client(client_python: Path, checkout: Path, server: Server) -> Client:
    return Client(client_python, checkout, NO_WAIT)


def test_what_the_client_says_of_hours_and_datasets_is_understood(client, server, capsys):
    server.site.gpu_hours = 12.5
    check_quota(client)
    assert "GPU hours left this week: 12.5" in capsys.readouterr().out
    with pytest.raises(Fault, match=f"there is no dataset {KIT}"):
        wait_until_ready(client, KIT)


@pytest.mark.whole_table
def test_a_recipe_is_trained_in_two_sessions(client, server, runs, checkout, monkeypatch, capsys):
    def pack(results: Path, members: Path, owner: str) -> None:
        assert (results / "recipe" / "members" / "r.safetensors").read_bytes() == b"w"
        assert not (results / "recipe" / "runs").exists()
        members.mkdir()
        (members / "ensemble.yaml").write_text("members: []\n")
        write_dataset(members, owner, "hpa-kit-members", "my members", "apache-2.0")

    monkeypatch.setattr(training, "_pack", pack)
    server.site.take_dataset(KIT, {})
    server.instead["SaveKernel"] = [503]
    runs += [FIRST, LAST]
    plan = TrainingPlan("quick", checkout / "dist", checkout / "dist-members")
    train(checkout, plan, client)
    (first,), (second,) = server.site.notebooks[A], server.site.notebooks[B]
    assert (first["metadata"]["kernel_sources"], second["metadata"]["kernel_sources"]) == ([], [A])
    assert "goes_on = True" in second["parameters"]
    _, kit = server.site.datasets[KIT]
    assert set(kit) == {"hpa-kit.zip", "hpa-kit-manifest.json", "README.md"}
    assert kit["hpa-kit.zip"] == (checkout / "dist" / "hpa-kit.zip").read_bytes()
    assert len(server.site.datasets[MEMBERS]) == 1
    said = capsys.readouterr().out
    assert f"{A}/1: running" in said and "  | tune: done" in said
    assert f"{MEMBERS} is attached" in said


@pytest.mark.whole_table
def test_a_push_whose_answer_was_lost_is_found_again(client, server, runs, checkout):
    for id in (KIT, MEMBERS):
        server.site.take_dataset(id, {})
    runs += [Run(log="ok\n")]
    with pytest.MonkeyPatch.context() as here:
        ask = client.once

        def once(*words: str, shown: bool = False):
            answer = ask(*words, shown=shown)
            if words[:2] == ("kernels", "push"):
                raise KeyboardInterrupt
            return answer

        here.setattr(client, "once", once)
        with pytest.raises(KeyboardInterrupt):
            submit(checkout, SubmitPlan("first"), client)
    scored = submit(checkout, SubmitPlan("first"), client)
    assert (scored.public, scored.private) == ("0.5", "0.4")
    assert len(server.site.notebooks[INFER]) == 1
    assert server.site.submissions[0]["notebook"] == f"{INFER}/1"


@pytest.mark.whole_table
@pytest.mark.parametrize(
    ("method", "instead", "means", "fix"),
    [
        ("SaveKernel", {"error": "Maximum weekly GPU quota of 30.00 hours"}, "no GPU hours", "kaggle quota"),
        ("GetDatasetStatus", 401, "nobody is logged in", "kaggle auth login"),
        ("CreateCodeSubmission", 403, "rules are not accepted", "accept them"),
    ],
)  # fmt: skip
def test_what_the_server_refuses_is_told_with_its_fix(
    client, server, runs, checkout, method, instead, means, fix
):
    for id in (KIT, MEMBERS):
        server.site.take_dataset(id, {})
    runs += [Run()]
    server.instead[method] = [instead]
    with pytest.raises(Fault, match=means) as told:
        submit(checkout, SubmitPlan("first"), client)
    assert fix in told.value.fix
    assert server.site.submissions == []


@pytest.mark.whole_table
def test_a_submission_that_cannot_be_scored_is_told_in_kaggles_words(client, server, runs, checkout):
    for id in (KIT, MEMBERS):
        server.site.take_dataset(id, {})
    runs += [Run()]
    server.site.scored = {"error": "Notebook Timeout"}
    with pytest.raises(Fault, match="ended with an error: Notebook Timeout"):
        submit(checkout, SubmitPlan("first"), client)


@pytest.mark.whole_table
def test_tables_and_the_first_fields_are_fetched(client, server, tmp_path, capsys):
    colours = ("red", "green", "blue", "yellow")
    images = {f"train/{id}_{colour}.png": f"{id}{colour}".encode() for id in "ab" for colour in colours}
    tables = {"train.csv": b"ID,Label\na,0\nb,1\n", "sample_submission.csv": b"ID\n"}
    server.site.competition = {**tables, **images}
    fetch_data(DataPlan(tmp_path / "data", ("1",)), client)
    found = {path.relative_to(tmp_path / "data").as_posix() for path in (tmp_path / "data").rglob("*.*")}
    found -= {".arriving", ".arriving/files.json"}
    assert found == {*tables, *(name for name in images if name.startswith("train/a"))}
    assert (tmp_path / "data" / "train.csv").read_bytes() == tables["train.csv"]
    assert "4 images, 22 bytes: 0 are there, 4 to fetch" in capsys.readouterr().out
    assert json.dumps(server.called).count("DownloadDataFile") == 6
