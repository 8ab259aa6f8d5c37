"""The inference notebook is run on Kaggle and that very version submitted once, whatever happens."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from kaggle_site import Run, Site
from site_client import NETWORK_GONE, Interrupted, SiteClient
from small_checkout import make_checkout

from hpa_kit.kaggle.mounts import COMPETITION
from hpa_kit.kaggle.publish.dataset import Fault
from hpa_kit.kaggle.publish.submit import SubmitPlan, submit, submit_commands

INFER = "jane-doe/hpa-kit-infer"
GOOD = Run(log="uses member: r\nsubmission.csv: 0 faults\n")


class Place:
    """A checkout and a Kaggle with all datasets; as many calls of the command as it takes."""

    def __init__(self, root: Path, *runs: Run) -> None:
        self.checkout = make_checkout(root / "checkout")
        self.runs = list(runs)
        self.site = Site(lambda *_: self.runs.pop(0))
        for name in ("hpa-kit", "hpa-kit-members"):
            self.site.take_dataset(f"jane-doe/{name}", {})
        self.said: list[str] = []

    def call(
        self,
        prepare: Callable[[SiteClient], None] = lambda client: None,
        message: str = "first",
        anew: bool = False,
    ) -> SiteClient:
        """Give the command once."""
        client = SiteClient(self.site, self.checkout)
        client.said = self.said
        prepare(client)
        self.client = client
        submit(self.checkout, SubmitPlan(message, anew), client)
        return client


def test_the_version_that_was_pushed_is_submitted_and_its_score_told(tmp_path):
    place = Place(tmp_path, GOOD)
    before = (place.checkout / "notebooks" / "infer.ipynb").read_bytes()
    asked = place.call().asked
    (row,) = place.site.submissions
    assert row["notebook"] == f"{INFER}/1"
    assert row["description"] == f"first ({INFER} version 1)"
    assert place.said[-1] == f"first ({INFER} version 1): public score 0.5, private 0.4"
    assert f"kaggle competitions submit {COMPETITION} -f submission.csv -k {INFER} -v 1 -m" in " ".join(asked)
    (version,) = place.site.notebooks[INFER]
    assert version["metadata"]["title"] == "HPA kit infer"
    assert (place.checkout / "notebooks" / "infer.ipynb").read_bytes() == before
    assert json.loads(version["text"])["cells"][1]["source"] == ["print(inputs)\n"]


def test_a_scored_version_is_followed_by_another(tmp_path):
    place = Place(tmp_path, GOOD, GOOD)
    place.call()
    place.call(message="second")
    assert [row["notebook"] for row in place.site.submissions] == [f"{INFER}/2", f"{INFER}/1"]


def test_interrupted_at_any_command_before_or_after_kaggle_did_it_one_version_is_submitted_once(tmp_path):
    number = len(Place(tmp_path / "whole", GOOD).call().asked)
    assert number > 10
    for at in range(1, number + 1):
        for done in (False, True):
            place = Place(tmp_path / f"{at}-{done}", GOOD)
            with pytest.raises(Interrupted):
                place.call(lambda client, at=at, done=done: setattr(client, "interrupt", (at, done)))
            where = (place.client.asked[-1], done)
            place.call(message="another text")
            assert [row["notebook"] for row in place.site.submissions] == [f"{INFER}/1"], where
            assert place.said[-1].startswith(f"first ({INFER} version 1): public score 0.5"), where


def test_datasets_are_waited_for_and_one_that_is_missing_stops_before_the_push(tmp_path):
    place = Place(tmp_path, GOOD)
    del place.site.datasets["jane-doe/hpa-kit-members"]
    with pytest.raises(Fault, match="there is no dataset jane-doe/hpa-kit-members"):
        place.call()
    assert place.site.notebooks == {}
    place.site.take_dataset("jane-doe/hpa-kit-members", {})
    place.call()
    assert "dataset jane-doe/hpa-kit-members: blobs_received" in place.said


@pytest.mark.parametrize(
    ("run", "means", "fix"),
    [
        (Run("ERROR", "members: no folder of /kaggle/input holds ensemble.yaml"), "no members", "--add"),
        (Run("ERROR", "infer: not one of the 559 fields of x was scored: y"), "first fault", "rehearse"),
        (Run("ERROR", failure="Your notebook tried to allocate more memory"), "more memory", "rehearse"),
        (Run("CANCEL_ACKNOWLEDGED"), "ended as CANCEL_ACKNOWLEDGED", "rehearse"),
    ],
)  # fmt: skip
def test_a_run_that_fails_is_not_submitted_and_the_next_call_pushes_again(tmp_path, run, means, fix):
    place = Place(tmp_path, run, GOOD)
    with pytest.raises(Fault, match=means) as told:
        place.call()
    assert fix in told.value.fix
    assert place.site.submissions == []
    place.call()
    assert [row["notebook"] for row in place.site.submissions] == [f"{INFER}/2"]


def test_rules_that_are_not_accepted_are_named_with_their_page(tmp_path):
    place = Place(tmp_path, GOOD)
    refused = (1, "", "403 Client Error: Forbidden for url: x\n\nYou don't have access to this resource.\n")
    with pytest.raises(Fault, match="rules are not accepted") as told:
        place.call(lambda client: client.instead.update({"competitions submit ": [refused]}))
    assert told.value.fix == f"accept them: https://www.kaggle.com/c/{COMPETITION}/rules"
    place.call()
    assert len(place.site.notebooks[INFER]) == len(place.site.submissions) == 1


def test_a_submission_that_kaggle_took_before_the_network_went_is_not_sent_again(tmp_path):
    place = Place(tmp_path, GOOD)

    def lose_the_answer(client: SiteClient) -> None:
        ask = client.once

        def once(*words: str, shown: bool = False):
            answer = ask(*words, shown=shown)
            lost = words[:2] == ("competitions", "submit") and len(place.site.submissions) == 1
            return answer._replace(status=1, printed="", errors=NETWORK_GONE[2]) if lost else answer

        client.once = once  # type: ignore[method-assign]

    place.call(lose_the_answer)
    assert len(place.site.submissions) == 1


def test_a_submission_that_ends_with_an_error_is_told_in_kaggles_words(tmp_path):
    place = Place(tmp_path, GOOD, GOOD)
    place.site.scored = {"error": "Notebook Timeout"}
    with pytest.raises(Fault, match="submission 100 ended with an error: Notebook Timeout") as told:
        place.call()
    assert "lower `budget`" in told.value.fix
    place.site.scored = {"publicScore": "0.5"}
    place.call()
    assert place.site.submissions[0]["notebook"] == f"{INFER}/2"


def test_the_version_of_a_push_that_was_cut_off_is_found_behind_those_of_jobs_that_were_given_up(tmp_path):
    place = Place(tmp_path, *[GOOD] * 9)
    for _ in range(7):
        place.call()
    number = len(place.client.asked)
    push = next(at for at in range(number) if "kernels push" in place.client.asked[at]) + 1
    with pytest.raises(Interrupted):
        place.call(lambda client: setattr(client, "interrupt", (push, True)), anew=True)
    place.call()
    assert place.site.submissions[0]["notebook"] == f"{INFER}/8"
    assert len(place.site.notebooks[INFER]) == 8


def test_a_job_that_is_given_up_is_begun_anew(tmp_path):
    place = Place(tmp_path, GOOD, GOOD)
    with pytest.raises(Interrupted):
        place.call(lambda client: setattr(client, "interrupt", (8, False)))
    place.call(message="second", anew=True)
    assert [row["notebook"] for row in place.site.submissions] == [f"{INFER}/2"]


def test_a_dry_run_prints_what_a_run_asks_for(tmp_path):
    place = Place(tmp_path, GOOD)
    printed = list(submit_commands(place.checkout, SubmitPlan("first")))
    assert place.site.notebooks == {} and not (place.checkout / "on-kaggle").exists()
    asked = [re.sub(r"(/| version | -v )1\b", r"\1N", command) for command in place.call().asked]
    assert list(dict.fromkeys(asked)) == printed
