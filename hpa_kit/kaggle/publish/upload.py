"""A folder brought to Kaggle as a dataset: created or given a new version, once, and waited for."""

import hashlib
import shlex
from pathlib import Path

from hpa_kit.kaggle.publish.answers import (
    FAILED,
    READY,
    Answer,
    dataset_state,
    dataset_version,
    is_missing,
    is_passing,
    recognise,
    refusal,
    uploaded,
)
from hpa_kit.kaggle.publish.dataset import METADATA, Dataset, Fault, check_dataset
from hpa_kit.kaggle.publish.job import Job
from hpa_kit.kaggle.publish.online_client import Client, unreachable


def bring_dataset(client: Client, job: Job, name: str, dataset: Dataset, note: str, make: str) -> None:
    """Have a dataset hold what a folder holds, and be ready; what is there already is not sent again.

    Args:
        client: asks and uploads.
        job: keeps what was sent.
        name: of the dataset in the job's file.
        dataset: its folder and ``owner/slug``.
        note: what a later version is.
        make: the command that makes the folder anew.

    Raises:
        Fault: the folder is not fit for it, Kaggle refuses it, or fails to take it in.
    """
    for fault in check_dataset(dataset.path, make):
        raise fault
    wanted = {"id": dataset.id, "content": content_of(dataset.path)}
    kept = job.kept.get(name) or {}
    sent_before = {key: kept.get(key) for key in wanted} == wanted
    version = _version(client, dataset.id)
    if not sent_before or version is None or (not kept["sent"] and version <= kept["before"]):
        job.keep(**{name: {**wanted, "before": version or 0, "sent": False}})
        _send(client, dataset, version is not None, note)
    job.kept[name]["sent"] = True
    job.write()
    try:
        wait_until_ready(client, dataset.id, job.kept[name]["before"])
    except Fault:
        job.keep(**{name: None})  # to be sent again
        raise


def content_of(folder: Path) -> str:
    """Tell by 16 digits what the files of a folder hold, but for its metadata."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != METADATA):
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{found}  {path.relative_to(folder).as_posix()}\n".encode())
    return digest.hexdigest()[:16]


def wait_until_ready(client: Client, id: str, before: int = 0) -> None:
    """Wait until a dataset can be attached, in a later version than one that was there before.

    Raises:
        Fault: it is not there, or Kaggle failed to take it in.
    """
    said, settling = "", 0
    while True:
        answer = client.ask(*status_of(id))
        state = dataset_state(answer)
        if state is None and is_missing(answer):
            raise Fault(
                f"kaggle: there is no dataset {id}, or none that you may see", "hpa-kit kaggle status"
            )
        if state is None:
            raise refusal(answer)
        if state in FAILED:
            raise Fault(
                f"kaggle: dataset {id} is {state}: Kaggle could not take it in",
                f"look at https://www.kaggle.com/datasets/{id}; the same command uploads it again",
            )
        if state == READY:
            # Right after an upload the answer may still be of the version before.
            settling += 1
            if not before or (_version(client, id) or 0) > before or settling > client.pace.settle:
                client.say(f"dataset {id}: {READY}")
                return
            state = f"{READY}, in its version {before} still"
        if state != said:
            client.say(f"dataset {id}: {state}")
        said = state
        client.pace.sleep(client.pace.dataset)


def status_of(id: str) -> tuple[str, ...]:
    """Give the words that ask for a dataset's state."""
    return ("datasets", "status", id)


def version_of(id: str) -> tuple[str, ...]:
    """Give the words that ask for a dataset's version."""
    return ("datasets", "status", id, "--format", "json(current_version_number)")


def _version(client: Client, id: str) -> int | None:
    """The version that a dataset has; None where there is no such dataset."""
    answer = client.ask(*version_of(id))
    version = dataset_version(answer)
    if version is None and not is_missing(answer):
        raise refusal(answer)
    return version


def _send(client: Client, dataset: Dataset, is_there: bool, note: str) -> None:
    """Upload a folder; again where the network broke, from where the client was."""
    create, update = (shlex.split(line)[1:] for line in (dataset.create(), dataset.update(note)))
    answer: Answer | None = None
    for _ in range(client.pace.tries):
        answer = client.once(*(update if is_there else create), shown=True)
        if uploaded(answer):
            client.say(f"dataset {dataset.id}: uploaded")
            return
        if not is_there and recognise(answer.text) and "already in use" in answer.text:
            is_there = True
        elif is_passing(answer):
            client.rest(answer)
        else:
            break
    assert answer is not None
    raise unreachable(answer) if is_passing(answer) else refusal(answer, update=dataset.update(note))
