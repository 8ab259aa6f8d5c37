"""``hpa-kit kaggle submit``: the inference notebook pushed, run, and that very version submitted and scored.

Standard library only.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from hpa_kit.kaggle.mounts import COMPETITION
from hpa_kit.kaggle.publish.answers import (
    COMPLETE,
    ERROR,
    Submission,
    is_passing,
    refusal,
    submission_ref,
    submissions,
)
from hpa_kit.kaggle.publish.dataset import OWNER, OWNER_PLACEHOLDER, Fault, find_owner
from hpa_kit.kaggle.publish.job import JOBS, Job, open_job
from hpa_kit.kaggle.publish.metadata import NOTEBOOKS, read_metadata
from hpa_kit.kaggle.publish.online_client import Client, shown_command, unreachable
from hpa_kit.kaggle.publish.sessions import (
    QUOTA,
    Copy,
    follow,
    log_words,
    push,
    push_words,
    status_words,
    versioned,
    write_copy,
)
from hpa_kit.kaggle.publish.upload import status_of, wait_until_ready

FILE = "submission.csv"
NOTEBOOK = NOTEBOOKS["infer"]
REHEARSE = "hpa-kit kaggle rehearse --members-dataset dist-members"
SUBMISSIONS = ("competitions", "submissions", COMPETITION, "--format", "json", "--page-size", "200")


class SubmitPlan(NamedTuple):
    """What is to be said of a submission."""

    message: str
    anew: bool = False

    @property
    def folder(self) -> Path:
        """Where the job lies, in the checkout."""
        return JOBS / "submit"


def submit(source: Path, plan: SubmitPlan, client: Client) -> Submission:
    """Push the inference notebook, wait for it, submit that version, and wait for its score.

    Args:
        source: the checkout.
        plan: what to say of it.
        client: does all that is done on Kaggle.

    Returns:
        The submission with its scores.

    Raises:
        Fault: what only the user can put right; the same command goes on after it.
    """
    id, datasets = _attached(source)
    with open_job(source / plan.folder, "hpa-kit kaggle submit", plan.anew) as job:
        session = job.unfinished()
        job.keep(done=False)
        if session is None:
            session = job.add_session(id.partition("/")[2], message=plan.message)
        if "version" not in session:
            for one in datasets:
                wait_until_ready(client, one)
            _write(source, job, session)
            push(client, job, session, id, job.folder / session["slug"])
        if not session.get("complete"):
            _run(client, job, session, id)
        if "ref" not in session:
            session["ref"] = _submit(client, job, session, id)
            job.write()
        scored = _wait_for_score(client, session, id)
        session["ended"] = scored.status
        job.keep(done=True)
    if scored.status == ERROR:
        raise _failed(client, scored)
    scores = f"public score {scored.public or 'none'}, private {scored.private or 'none'}"
    client.say(f"{description(session, id)}: {scores}")
    return scored


def _attached(source: Path) -> tuple[str, list[str]]:
    """The inference notebook's name, and the datasets it needs."""
    owner = find_owner(source)
    if owner == OWNER_PLACEHOLDER:
        raise Fault(f"kaggle: the owner is still {OWNER_PLACEHOLDER!r}", OWNER)
    metadata = read_metadata(source, NOTEBOOK)
    return metadata["id"], ["/".join(one.split("/")[:2]) for one in metadata.get("dataset_sources", [])]


def _write(source: Path, job: Job, session: dict[str, Any]) -> None:
    copy = Copy(job.folder / session["slug"])
    write_copy(source, NOTEBOOK, copy, f"{' '.join(session['message'].split())}, {session['mark']}")


def _run(client: Client, job: Job, session: dict[str, Any], id: str) -> None:
    """Wait for the saved run, which covers the public rows; raise where it fails."""
    ended = follow(client, job, session, id, job.folder / "logs")
    if ended.status != COMPLETE:
        session["ended"] = ended.status
        job.write()
        raise ended.fault or Fault(
            f"kaggle: {versioned(id, session)} ended as {ended.status}: {ended.failure or 'it says nothing'}",
            f"read its log in {job.folder / 'logs'}; then {REHEARSE}",
        )
    if not session["version"]:  # as a submission names one
        session["ended"] = ended.status
        job.write()
        raise Fault(f"kaggle: nobody knows which version of {id} that was", "the same command pushes another")
    session["complete"] = True
    job.write()


def _submit(client: Client, job: Job, session: dict[str, Any], id: str) -> str:
    """Submit the version, unless an earlier call did; the number of the submission, if Kaggle says it."""
    failed = 0
    while True:
        if session.get("tried_to_submit") and (found := _find(client, session, id)):
            return found.ref
        session["tried_to_submit"] = True
        job.write()
        answer = client.once(*submit_words(session, id))
        ref = submission_ref(answer)
        if ref is not None:
            client.say(f"submitted {versioned(id, session)}: {ref or 'without a number'}")
            return ref
        if not is_passing(answer):
            raise refusal(answer)
        failed += 1
        if failed > client.pace.tries:
            raise unreachable(answer)
        client.rest(answer)


def _wait_for_score(client: Client, session: dict[str, Any], id: str) -> Submission:
    """Ask until the submission is scored, or Kaggle failed to score it."""
    said = ""
    while True:
        found = _find(client, session, id)
        status = "not listed yet" if found is None else found.status
        if found is not None and status in (COMPLETE, ERROR):
            return found
        if status != said:
            client.say(f"submission {session['ref']}: {status.lower()}; scoring takes up to 9 hours")
        said = status
        client.pace.sleep(client.pace.score)


def _find(client: Client, session: dict[str, Any], id: str) -> Submission | None:
    """The submission of a version among the user's."""
    answer = client.ask(*SUBMISSIONS)
    rows = submissions(answer)
    if rows is None:
        raise refusal(answer)
    ref, text = session.get("ref"), description(session, id)
    return next((row for row in rows if (row.ref == ref if ref else row.description == text)), None)


def _failed(client: Client, scored: Submission) -> Fault:
    """Make the fault of a submission that could not be scored, in Kaggle's words."""
    answer = client.ask("competitions", "submission", scored.ref)
    why = next(
        (line.partition(":")[2] for line in answer.printed.splitlines() if line.startswith("Error:")), ""
    )
    return Fault(
        f"kaggle: submission {scored.ref} ended with an error: {why.strip() or 'it says nothing'}",
        f"{REHEARSE}; then a lower `budget` in notebooks/infer.py, make sync, and the same command",
    )


def description(session: dict[str, Any], id: str) -> str:
    """Write what a submission is known by: the user's text, the notebook, its version."""
    return f"{session['message']} ({id} version {session['version']})"


def submit_words(session: dict[str, Any], id: str) -> tuple[str, ...]:
    """Give the words that submit a version."""
    version, text = str(session["version"]), description(session, id)
    return ("competitions", "submit", COMPETITION, "-f", FILE, "-k", id, "-v", version, "-m", text)


def submit_commands(source: Path, plan: SubmitPlan) -> Iterator[str]:
    """List the client's commands of a submission, in their order, where all goes well."""
    id, datasets = _attached(source)
    session = {"message": plan.message, "version": "N"}
    folder, name = source / plan.folder / id.partition("/")[2], versioned(id, session)
    words = [*map(status_of, datasets), QUOTA, push_words(folder), status_words(name), log_words(name)]
    yield from map(shown_command, [*words, submit_words(session, id), SUBMISSIONS])
