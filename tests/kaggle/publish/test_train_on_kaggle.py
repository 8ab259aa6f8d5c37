"""A recipe is trained on Kaggle in turns, whatever happens on the way, and nothing is done twice."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kaggle_site import Run, Site
from site_client import NETWORK_GONE, Interrupted, SiteClient
from small_checkout import make_checkout

from hpa_kit.errors import InputError
from hpa_kit.kaggle.publish import bundle, training
from hpa_kit.kaggle.publish.dataset import Fault, write_dataset
from hpa_kit.kaggle.publish.job import Job
from hpa_kit.kaggle.publish.training import TrainingPlan, train, training_commands

A, B = "jane-doe/hpa-kit-train-quick-a", "jane-doe/hpa-kit-train-quick-b"
KIT, MEMBERS = "jane-doe/hpa-kit", "jane-doe/hpa-kit-members"
RESULTS = {
    "recipe/ensemble.yaml": b"members: [members/r.safetensors]",
    "recipe/members/ensemble.yaml": b"members: [r.safetensors]",
    "recipe/members/r.safetensors": b"w",
    "recipe/runs/last.safetensors": b"GB",
}


def state(done: list[str], left: list[str], hours: float, problem: str | None = None) -> dict[str, bytes]:
    """What a session leaves that went as far."""
    content = {"recipe": "quick", "finished": not left, "done": done, "left": left, "sessions": 1, "kit": "0",
               "hours_left": 1.0 if left else None, "hours_spent": hours, "problem": problem}  # fmt: skip
    return {"recipe/recipe_state.json": json.dumps(content).encode(), "recipe/runs/last.safetensors": b"GB"}


FIRST = Run(log="hpa_kit 0.1.0 build 1\nfolds: done\n", files=state(["folds"], ["train", "tune"], 11.0))
LAST = Run(log="tune: done\n", files=state(["folds", "train", "tune"], [], 15.0) | RESULTS)
CUT = Run("ERROR", log="epoch 3\n", failure="The session was stopped: it reached its time limit")
# Ended by Kaggle, its output kept.
CUT_WITH_OUTPUT = Run("CANCEL_ACKNOWLEDGED", log="epoch 3\n", files=state(["folds"], ["train", "tune"], 11.9))


class Place:
    """A checkout, a Kaggle, and as many calls of the command as it takes.

    Args:
        root: of the checkout.
        runs: how the sessions go, in their order.
    """

    def __init__(self, root: Path, *runs: Run) -> None:
        self.checkout = make_checkout(root / "checkout")
        self.runs = list(runs)
        self.site = Site(lambda *_: self.runs.pop(0))
        self.plan = TrainingPlan("quick", self.checkout / "dist", self.checkout / "dist-members")
        self.clients: list[SiteClient] = []

    def call(
        self, prepare: Callable[[SiteClient], None] = lambda client: None, anew: bool = False
    ) -> SiteClient:
        """Give the command once."""
        client = SiteClient(self.site, self.checkout)
        self.clients.append(client)
        prepare(client)
        train(self.checkout, self.plan._replace(anew=anew), client)
        return client

    def versions(self, id: str) -> list[dict[str, Any]]:
        return self.site.notebooks.get(id, [])

    def said(self) -> str:
        return "\n".join(line for client in self.clients for line in client.said)

    def attached(self) -> list[str]:
        return json.loads((self.checkout / "kernel-metadata.json").read_text())["dataset_sources"]


@pytest.fixture(autouse=True)
def packing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packing without torch, which has a test of its own, and bundles without asking git."""

    def pack(results: Path, members: Path, owner: str) -> None:
        names = sorted(path.relative_to(results).as_posix() for path in results.rglob("*") if path.is_file())
        members.mkdir(exist_ok=True)
        (members / "ensemble.yaml").write_text("\n".join(names))
        write_dataset(members, owner, "hpa-kit-members", "my members", "apache-2.0")

    monkeypatch.setattr(training, "_pack", pack)
    monkeypatch.setattr(bundle, "git_origin", lambda _: {})


def test_two_notebooks_take_turns_and_the_members_end_attached(tmp_path):
    place = Place(tmp_path, FIRST, LAST)
    (place.checkout / "kernel-metadata.json").write_text(
        (place.checkout / "kernel-metadata.json").read_text().replace(f',\n    "{MEMBERS}"', "")
    )
    before = (place.checkout / "notebooks" / "train.ipynb").read_bytes()
    place.call()
    (first,), (second,) = place.versions(A), place.versions(B)
    assert 'recipe = "quick"' not in first["parameters"]  # it is written anew
    assert "recipe = 'quick'  # what to run\ngoes_on = None  # True" in first["parameters"]
    assert "goes_on = True  # True needs a past" in second["parameters"]
    assert (first["metadata"]["kernel_sources"], second["metadata"]["kernel_sources"]) == ([], [A])
    for version in (first, second):
        assert version["metadata"]["dataset_sources"] == [KIT]
        assert version["metadata"]["enable_internet"] is False
        assert version["dropped"] == {"dataset": [], "kernel": []}
    assert (place.checkout / "notebooks" / "train.ipynb").read_bytes() == before
    assert [len(place.site.datasets[id]) for id in (KIT, MEMBERS)] == [1, 1]
    assert place.site.datasets[MEMBERS][0]["ensemble.yaml"].decode().split() == sorted(RESULTS)[:3]
    assert MEMBERS in place.attached()
    assert "  | folds: done" in place.said() and "  | tune: done" in place.said()
    assert "session 1: done folds; left train, tune; 11 hours spent, about 1 to go" in place.said()


def test_the_third_session_goes_on_from_the_second_ones_output(tmp_path):
    middle = Run(files=state(["folds", "train"], ["tune"], 13.0))
    place = Place(tmp_path, FIRST, middle, LAST)
    place.call()
    assert [len(place.versions(id)) for id in (A, B)] == [2, 1]
    assert place.versions(A)[1]["metadata"]["kernel_sources"] == [B]


@pytest.mark.parametrize("cut", [CUT, Run("CANCEL_ACKNOWLEDGED")])
def test_a_session_that_is_cut_without_output_leaves_the_past_where_it_was(tmp_path, cut):
    place = Place(tmp_path, FIRST, cut, LAST)
    place.call()
    assert [len(place.versions(id)) for id in (A, B)] == [1, 2]
    assert place.versions(B)[1]["metadata"]["kernel_sources"] == [A]
    assert "its output is lost, the next goes on from the one before" in place.said()


def test_a_session_that_is_cut_with_its_output_is_gone_on_from(tmp_path):
    place = Place(tmp_path, CUT_WITH_OUTPUT, LAST)
    place.call()
    assert place.versions(B)[0]["metadata"]["kernel_sources"] == [A]


def test_a_first_session_that_is_lost_is_begun_again_without_a_past(tmp_path):
    place = Place(tmp_path, CUT, FIRST, LAST)
    place.call()
    assert [len(place.versions(id)) for id in (A, B)] == [2, 1]
    assert "goes_on = None" in place.versions(A)[1]["parameters"]


def test_two_lost_sessions_in_a_row_are_not_followed_by_a_third(tmp_path):
    place = Place(tmp_path, FIRST, CUT, CUT, LAST)
    with pytest.raises(Fault, match="session 3 ended as ERROR without recipe/recipe_state.json"):
        place.call()
    place.call()
    assert place.versions(B)[2]["metadata"]["kernel_sources"] == [A]


def test_a_notebook_that_fails_of_itself_is_not_run_again_before_the_user_says_so(tmp_path):
    failed = Run("ERROR", log="Traceback (most recent call last):\nValueError: no such recipe\n")
    place = Place(tmp_path, failed, FIRST, LAST)
    with pytest.raises(Fault, match="ValueError: no such recipe") as told:
        place.call()
    assert "on-kaggle/train-quick/logs" in told.value.fix
    place.call()
    assert len(place.versions(A)) == 2


def test_a_stage_that_failed_is_told_in_its_own_words(tmp_path):
    failed = Run("ERROR", files=state(["folds"], ["train"], 2.0, problem="train: no field is labelled"))
    place = Place(tmp_path, failed, LAST)
    with pytest.raises(Fault, match="session 1: train: no field is labelled"):
        place.call()
    place.call()
    assert "goes_on = True" in place.versions(B)[0]["parameters"]


def test_a_session_that_brings_nothing_further_ends_the_turns(tmp_path):
    place = Place(tmp_path, FIRST, Run(files=state(["folds"], ["train", "tune"], 11.01)), LAST)
    with pytest.raises(Fault, match="session 2 brought nothing further"):
        place.call()


@pytest.mark.parametrize(
    ("line", "means", "fix"),
    [
        ("GPU: none, this will be slow", "no GPU", "phone number"),
        ("ValueError: several builds of hpa_kit are attached: build 1", "more than one build", "--remove"),
        ("FileNotFoundError: hpa_kit is neither under /kaggle/input nor", "not attached", "metadata"),
        ("hpa_kit 0.1.0 build 1 from /kaggle/input/hpa-kit: DAMAGED", "arrived damaged", "build_dataset.sh"),
        ("GPU: Tesla P100 (DOES NOT WORK: no kernel image); the CPU is used", "does not know", "T4 x2"),
    ],
)
def test_what_a_log_tells_of_is_said_with_what_puts_it_right(tmp_path, line, means, fix):
    place = Place(tmp_path, Run("ERROR", log=f"first\n{line}\nlast\n"), FIRST, LAST)
    with pytest.raises(Fault, match=means) as told:
        place.call()
    assert fix in told.value.fix
    assert f"to do {told.value} -> {told.value.fix}" in place.said()


def test_without_hours_nothing_is_pushed_and_later_the_same_command_goes_on(tmp_path):
    place = Place(tmp_path, FIRST, LAST)
    place.site.gpu_hours = 0.05
    with pytest.raises(Fault, match="0.05 GPU hours are left") as told:
        place.call()
    assert "2026-12-05T00:00:00" in told.value.fix
    assert place.site.notebooks == {}
    place.site.gpu_hours = 30.0
    place.call()
    assert len(place.site.datasets[KIT]) == 1


SERVER_ERRORS = {
    "Kernel push error: Maximum weekly GPU quota of 30.00 hours reached.": ("kernels push", "kaggle quota"),
    "Kernel push error: Notebook not found": ("kernels push", "docs/kaggle.md"),
    "Dataset creation error: Upload failed": ("datasets create", "docs/kaggle.md"),
    "Authentication required to call the Kaggle API.": ("datasets status", "kaggle auth login"),
    "403 Client Error: Forbidden for url: x": ("kernels push", "kaggle auth login"),
}


@pytest.mark.parametrize("said", SERVER_ERRORS)
def test_an_error_of_the_server_is_one_although_the_exit_status_is_0(tmp_path, said):
    command, fix = SERVER_ERRORS[said]
    place = Place(tmp_path, FIRST, LAST)
    with pytest.raises(Fault, match=re.escape(said.rstrip("."))) as told:
        place.call(lambda client: client.instead.update({command: [(0, f"{said}\n", "")]}))
    assert fix in told.value.fix
    place.call()
    assert [len(place.versions(id)) for id in (A, B)] == [1, 1]


def test_a_dataset_that_kaggle_cannot_take_in_is_uploaded_again_by_the_next_call(tmp_path):
    place = Place(tmp_path, FIRST, LAST)
    place.site.uploading = ("blobs_received", "failed")
    with pytest.raises(Fault, match=f"dataset {KIT} is failed"):
        place.call()
    place.site.uploading = ()
    place.call()
    assert len(place.site.datasets[KIT]) == 2


def test_a_later_build_is_a_new_version_which_is_waited_for(tmp_path):
    place = Place(tmp_path, FIRST, LAST)
    place.site.take_dataset(KIT, {})
    place.call()
    assert len(place.site.datasets[KIT]) == 2
    assert any("kaggle datasets version -p" in command for command in place.clients[0].asked)


def test_a_third_notebook_waits_until_one_of_two_that_run_has_ended(tmp_path):
    place = Place(tmp_path, FIRST, LAST)
    busy = (0, "Kernel push error: Maximum batch GPU session count of 2 reached.\n", "")
    place.call(lambda client: client.instead.update({"kernels push": [busy, busy]}))
    assert place.said().count("two GPU notebooks run already") == 1
    assert [len(place.versions(id)) for id in (A, B)] == [1, 1]


def test_a_version_that_runs_without_a_source_is_given_up(tmp_path):
    place = Place(tmp_path, FIRST, FIRST, LAST)
    path = place.checkout / "notebooks" / "train" / "kernel-metadata.json"
    path.write_text(path.read_text().replace(f'"{KIT}"', f'"{KIT}",\n "jane-doe/gone"'))
    with pytest.raises(Fault, match=r"a source that is not ready yet.*jane-doe/gone"):
        place.call()
    path.write_text(path.read_text().replace(',\n "jane-doe/gone"', ""))
    place.call()
    assert [len(place.versions(id)) for id in (A, B)] == [2, 1]


NOT_YET = (1, "", "404 Client Error: Not Found for url: x\n\nThe resource was not found.\n")


@pytest.mark.parametrize("times", [1, 2])
def test_a_version_that_kaggle_does_not_know_yet_is_waited_for_then_its_notebooks_latest(tmp_path, times):
    place = Place(tmp_path, FIRST, LAST)
    client = place.call(lambda client: client.instead.update({f"kernels status {A}/1": [NOT_YET] * times}))
    assert [len(place.versions(id)) for id in (A, B)] == [1, 1]
    assert any(command.endswith(f"kernels status {A}") for command in client.asked) == (times == 2)


def test_a_network_that_comes_back_is_waited_for(tmp_path):
    place = Place(tmp_path, FIRST, LAST)
    gone = {
        name: [NETWORK_GONE, NETWORK_GONE] for name in ("datasets status", "kernels push", "kernels output")
    }
    place.call(lambda client: client.instead.update(gone))
    assert [len(place.versions(id)) for id in (A, B)] == [1, 1]


def test_a_network_that_stays_away_is_one_line_and_the_same_command_goes_on(tmp_path):
    place = Place(tmp_path, FIRST, LAST)
    with pytest.raises(Fault, match="does not reach Kaggle: ConnectionError") as told:
        place.call(lambda client: client.instead.update({"kernels status": [NETWORK_GONE] * 9}))
    assert told.value.fix == "later the same command goes on"
    place.call()
    assert [len(place.versions(id)) for id in (A, B)] == [1, 1]


def test_interrupted_at_any_command_before_or_after_kaggle_did_it_the_same_command_goes_on(tmp_path):
    whole = Place(tmp_path / "whole", FIRST, LAST)
    number = len(whole.call().asked)
    assert number > 20
    for at in range(1, number + 1):
        for done in (False, True):
            place = Place(tmp_path / f"{at}-{done}", FIRST, LAST)
            with pytest.raises(Interrupted):
                place.call(lambda client, at=at, done=done: setattr(client, "interrupt", (at, done)))
            place.call()
            where = (place.clients[0].asked[-1], done)
            assert [len(place.versions(id)) for id in (A, B)] == [1, 1], where
            assert [len(place.site.datasets[id]) for id in (KIT, MEMBERS)] == [1, 1], where
            assert MEMBERS in place.attached()
            assert place.said().count("  | tune: done") == 1, where


def test_a_finished_training_is_not_begun_again_unless_asked_for(tmp_path):
    place = Place(tmp_path, FIRST, LAST, FIRST, LAST)
    place.call()
    assert place.call().asked == []
    assert "--anew trains it again" in place.said()
    place.call(anew=True)
    assert [len(place.versions(id)) for id in (A, B)] == [2, 2]


def normal(command: str) -> str:
    """A command without what a run decides."""
    command = re.sub(r"/(\d+|N)(?= |$)", "/N", command)
    return re.sub(r"states/(MARK|\w+)", "states/MARK", command)


def test_a_dry_run_prints_what_a_run_of_two_sessions_asks_for(tmp_path):
    place = Place(tmp_path, FIRST, LAST)
    place.site.uploading = ()
    printed = list(training_commands(place.checkout, place.plan))
    assert place.site.datasets == {} and not (place.checkout / "on-kaggle").exists()
    done = [normal(command) for command in place.call().asked]
    once = [command for place, command in enumerate(done) if place == 0 or command != done[place - 1]]
    waiting = [
        normal(command) for command in printed if "kernels status" in command or "kernels logs" in command
    ]
    assert [one for one in once if one not in waiting] == [
        normal(one) for one in printed if normal(one) not in waiting
    ]
    assert set(waiting) <= set(done)


def test_what_cannot_be_begun_is_said_before_anything_is_sent(tmp_path):
    place = Place(tmp_path)
    with pytest.raises(InputError, match="no recipe 'quik'; did you mean 'quick'"):
        train(place.checkout, place.plan._replace(recipe="quik"), SiteClient(place.site, place.checkout))
    nobody = make_checkout(tmp_path / "nobody", "your-name")
    with pytest.raises(Fault, match="the owner is still 'your-name'"):
        train(nobody, place.plan, SiteClient(place.site, nobody))
    (place.checkout / "notebooks" / "train.ipynb").write_text(
        (place.checkout / "notebooks" / "train.ipynb").read_text().replace("goes_on", "resumes")
    )
    client = SiteClient(place.site, place.checkout)
    job = place.checkout / place.plan.folder
    job.mkdir(parents=True)
    (job / "job.json").write_text("{")
    with pytest.raises(InputError, match="--anew begins again"):
        train(place.checkout, place.plan, client)
    place.runs = [FIRST]
    with pytest.raises(Fault, match="the parameters cell has no line `goes_on = …`"):
        train(place.checkout, place.plan._replace(anew=True), client)
    assert Job(job).sessions[0]["state"]["done"] == ["folds"]
