"""The client's words are read as what they mean; each fault that docs/kaggle.md names is known by them."""

import re
from pathlib import Path

import pytest

from hpa_kit.kaggle.publish.answers import (
    IN_LOGS,
    REFUSALS,
    Answer,
    dataset_state,
    dropped_sources,
    gpu_hours,
    is_missing,
    is_passing,
    listed_files,
    notebook_status,
    pushed_version,
    recognise,
    refusal,
    submission_ref,
    submissions,
    uploaded,
)

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "kaggle.md").read_text(encoding="utf-8")
FAULTS = re.findall(
    r"^\* (.*?)\n  → ", PAGE.partition("## When something goes wrong")[2], re.DOTALL | re.MULTILINE
)


def said(printed: str, command: str = "kaggle x", status: int = 0, errors: str = "") -> Answer:
    return Answer(command, status, printed, errors)


# What of the page's faults is said in words, and a word of what puts it right.
WORDS = {
    "`create`: slug already in use": ('The requested slug "x" is already in use by a dataset.', "UPDATE"),
    "401 or 403": ("401 Client Error: Unauthorized for url: x", "auth login"),
    "the push lists sources that are not valid": (
        "The following are not valid dataset sources and could not be added to the kernel: ['a/b']",
        "kaggle status",
    ),
    "`hpa_kit is neither under …`": ("hpa_kit is neither under /kaggle/input nor", "kaggle metadata"),
    "`DAMAGED` or `is damaged` in the first cell's output": (
        "/kaggle/input/x is damaged (cut short): if it is the kit, upload the bundle again; ",
        "build_dataset.sh",
    ),
    "`several builds of hpa_kit are attached`": ("several builds of hpa_kit are attached: x", "--remove"),
    "`Maximum weekly GPU quota of … hours reached`, or *Accelerator Quota Exceeded* on the page": (
        "Kernel push error: Maximum weekly GPU quota of 30.00 hours reached.",
        "kaggle quota",
    ),
    "`Maximum batch GPU session count of 2 reached`": (
        "Kernel push error: Maximum batch GPU session count of 2 reached.",
        "wait",
    ),
    "`GPU: none` in the second cell's output": ("GPU: none, this will be slow", "phone number"),
    "`DOES NOT WORK` behind a GPU": ("GPU: P100 (DOES NOT WORK: no kernel)", "T4 x2"),
    "`members: no folder … holds`": ("InputError: members: no folder of /kaggle/input holds", "--add"),
    "`not one of the … fields … was scored`": ("not one of the 559 fields of x was scored: y", "rehearse"),
}
# What is said at home, is gone on from, has no words that are known, or is no fault of a session; the last
# has a test of submitting.
OTHERS = {
    "the output cannot be saved, or the next session lacks some of it",
    "a build stops at a wheel",
    "training was stopped by its time limit",
    "fields that `find nothing`",
    "the submission ends with an error, the saved run did not",
}


def test_every_fault_that_the_page_names_is_known():
    assert {" ".join(head.split()) for head in FAULTS} == {*WORDS, *OTHERS}


@pytest.mark.parametrize("head", WORDS)
def test_a_fault_is_known_by_its_words_and_answered_with_what_puts_it_right(head):
    words, fix = WORDS[head]
    fault = recognise(f"something before\n{words}\nand after", (*REFUSALS, *IN_LOGS))
    assert fault is not None
    assert fix in fault.fix
    assert " ".join(words.split()) in str(fault)


@pytest.mark.parametrize(
    "line",
    [
        "submission.csv: 0 faults",
        "field a: /kaggle/input/x/a_red.png is damaged: no readable png; fetch it again",
        "GPU: Tesla T4 (works) + Tesla T4 (works)",
        "hpa_kit 0.1.0 build 401403500123 from /kaggle/input/hpa-kit: as it was built",
    ],
)
def test_what_goes_well_or_is_of_one_field_is_no_fault(line):
    assert recognise(line, IN_LOGS) is None


def test_success_is_read_from_words_and_not_from_the_exit_status():
    assert pushed_version(said("Kernel version 3 successfully pushed.  Please check progress at x")) == 3
    assert pushed_version(said("Kernel version successfully pushed.  Please check progress at x")) == 0
    assert pushed_version(said("Kernel push error: Notebook not found")) is None
    assert uploaded(said("Your private Dataset is being created. Please check progress at x"))
    assert uploaded(said("Dataset version is being created. Please check progress at x"))
    assert not uploaded(said("Dataset version creation error: x"))
    assert submission_ref(said("Submission ref: 7\nSuccessfully submitted to X")) == "7"
    assert submission_ref(said("Successfully submitted to X")) == ""
    assert submission_ref(said("Could not submit")) is None


def test_states_are_read_whatever_the_client_says_before():
    warning = "Warning: Looks like you're using an outdated `kaggle` version (installed: 1)\n"
    assert dataset_state(said(warning + "ready")) == "ready"
    assert dataset_state(said("blobs_received")) == "blobs_received"
    assert dataset_state(said("")) is None
    failed = 'a/b has status "KernelWorkerStatus.ERROR"\nFailure message: "two\nlines"\n'
    assert notebook_status(said(warning + failed)) == ("ERROR", "two\nlines")
    assert notebook_status(said('a/b has status "complete"')) == ("COMPLETE", "")
    assert notebook_status(said("Cannot access kernel 'a/b'")) is None
    rows = '[\n {"resource": "GPU", "remaining": "0.00h", "refreshAt": "then"}\n]'
    assert gpu_hours(said(warning + rows)) == (0.0, "then")
    assert gpu_hours(said("No quota information available")) is None
    dropped = "The following are not valid kernel sources and could not be added to the kernel: ['a/b']"
    assert dropped_sources(said(f"{dropped}\nKernel version 1 successfully pushed.")) == [dropped]


def test_lists_are_read_or_it_is_said_that_there_is_none():
    assert submissions(said("No submissions found\n")) == []
    assert submissions(said("[ broken")) is None
    (row,) = (
        submissions(said('[{"ref": 1, "status": "SubmissionStatus.PENDING", "publicScore": null}]')) or []
    )
    assert (row.ref, row.status, row.public) == ("1", "PENDING", "")
    assert listed_files(said("404 Client Error")) is None
    page = 'Next Page Token = abc\n[{"name": "train/a.png", "size": 12}]'
    assert listed_files(said(page)) == ([("train/a.png", 12)], "abc")


def test_the_network_and_kaggles_own_faults_pass_and_others_do_not():
    for errors in ("503 Server Error: Service Unavailable for url: x", "429 Client Error: Too Many Requests",
                   "ReadTimeout: HTTPSConnectionPool: Read timed out."):  # fmt: skip
        assert is_passing(said("", status=1, errors=errors))
        assert not is_missing(said("", status=1, errors=errors))
    assert not is_passing(said("", status=1, errors="404 Client Error: Not Found"))
    assert is_missing(said("", status=1, errors="404 Client Error: Not Found"))


def test_access_that_is_denied_means_the_rules_in_a_competition_and_the_account_elsewhere():
    denied = "403 Client Error: Forbidden for url: x"
    assert refusal(said("", "kaggle competitions submit x", 1, denied)).fix.startswith(
        "accept them: https://"
    )
    assert refusal(said("", "kaggle kernels push -p x", 1, denied)).fix == "kaggle auth login"
    other = refusal(said("what nobody knows\n", "kaggle kernels push -p x"))
    assert str(other) == "kaggle: `kaggle kernels push -p x` says 'what nobody knows'"
