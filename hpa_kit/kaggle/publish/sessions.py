"""A notebook's session on Kaggle: a copy of the notebook pushed, followed to its end, its output fetched.

A session is a dictionary of a job's file: ``slug``, the ``mark`` that its copy carries, whether it was
``tried``, its ``version``, how many ``lines`` of its log were shown, how it ``ended``. Standard library only.
"""

import json
import re
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from hpa_kit.files import atomic_text
from hpa_kit.kaggle.publish.answers import (
    AGAIN,
    ENDED,
    ERROR,
    IN_LOGS,
    Answer,
    dropped_sources,
    gpu_hours,
    is_missing,
    is_passing,
    notebook_status,
    pushed_version,
    recognise,
    refusal,
)
from hpa_kit.kaggle.publish.dataset import Fault
from hpa_kit.kaggle.publish.job import Job
from hpa_kit.kaggle.publish.metadata import (
    METADATA,
    Notebook,
    check_metadata,
    find_placeholders,
    read_metadata,
)
from hpa_kit.kaggle.publish.online_client import Client, Running, unreachable

ENOUGH_HOURS = 0.1  # of a GPU, below which nothing is pushed
BUSY = re.compile(r"Maximum batch GPU session count")
MARK = "# pushed by hpa-kit kaggle, "
REST_SECONDS = 60.0  # that what is left of a log may take
VERSIONS_TRIED = 5  # after the last one known, where a push was interrupted


class Ended(NamedTuple):
    """How a session ended."""

    status: str  # COMPLETE, ERROR, CANCEL_ACKNOWLEDGED
    failure: str  # as Kaggle says it
    fault: Fault | None  # that its log, or Kaggle, tells of
    log: str


class Copy(NamedTuple):
    """A copy of one of the two notebooks, to be pushed from a folder of its own."""

    folder: Path
    parameters: Mapping[str, Any] = {}  # that are changed in it
    id: str | None = None  # owner/slug in place of the notebook's own
    past: tuple[str, ...] = ()  # notebooks whose output it needs
    datasets: tuple[str, ...] = ()  # that it needs


def write_copy(source: Path, notebook: Notebook, copy: Copy, mark: str) -> None:
    """Write the folder that is pushed: the notebook with its parameters changed, metadata checked strictly.

    Args:
        source: the checkout, whose notebook and metadata stay as they are.
        notebook: the one of them.
        copy: what is to be different.
        mark: by which it is known again.

    Raises:
        Fault: the notebook has no such parameter, or its metadata are not fit.
    """
    metadata = read_metadata(source, notebook)
    whole = json.loads((source / notebook.folder / metadata["code_file"]).read_text(encoding="utf-8"))
    _change_parameters(whole, copy.parameters, mark, notebook)
    metadata["code_file"] = f"{notebook.name}.ipynb"
    if copy.id is not None:
        metadata |= {"id": copy.id, "title": copy.id.partition("/")[2].replace("-", " ")}
        metadata.pop("id_no", None)  # of the notebook that this is a copy of
    for key, needed in (("kernel_sources", copy.past), ("dataset_sources", copy.datasets)):
        metadata[key] = list(dict.fromkeys([*needed, *metadata.get(key, [])]))
    atomic_text(copy.folder / metadata["code_file"], json.dumps(whole, indent=1) + "\n")
    atomic_text(copy.folder / METADATA, json.dumps(metadata, indent=2) + "\n")
    for fault in check_metadata(copy.folder):
        raise fault
    for line in find_placeholders(copy.folder):
        raise Fault(line, "hpa-kit kaggle metadata --owner NAME")


def _change_parameters(
    whole: dict[str, Any], parameters: Mapping[str, Any], mark: str, notebook: Notebook
) -> None:
    """Put other values into the cell of a notebook that is tagged for it, and the mark below them."""
    cells = [cell for cell in whole["cells"] if "parameters" in cell.get("metadata", {}).get("tags", [])]
    name = f"notebooks/{notebook.name}.ipynb"
    if len(cells) != 1:
        raise Fault(f"{name}: {len(cells)} cells are tagged `parameters`; expected one", "make sync")
    text = "".join(cells[0]["source"])
    for key, value in parameters.items():
        text, found = re.subn(
            rf"^{key} = .*?(?=(?:  #.*)?$)",
            f"{key} = {value!r}".replace("\\", r"\\"),
            text,
            flags=re.MULTILINE,
        )
        if found != 1:
            raise Fault(f"{name}: the parameters cell has no line `{key} = …`", "make sync")
    cells[0]["source"] = f"{text.rstrip()}\n{MARK}{mark}"


def push(client: Client, job: Job, session: dict[str, Any], id: str, folder: Path) -> None:
    """Push a folder as a new version of a notebook, which runs it; once, however often this is interrupted.

    Args:
        client: pushes.
        job: of which the session is one.
        session: what is known of the version; one that has a version is pushed already.
        id: the notebook's ``owner/slug``.
        folder: as :func:`write_copy` left it.

    Raises:
        Fault: Kaggle refuses it, has no GPU hours left, or runs it without a source.
    """
    if "version" in session:
        return
    if session.get("tried") and _find_pushed(client, job, session, id):
        return
    check_quota(client)
    session["tried"] = True
    job.write()
    said_busy, failed = False, 0
    while True:
        answer = client.once(*push_words(folder))
        version = pushed_version(answer)
        if version is not None:
            break
        if BUSY.search(answer.text):
            if not said_busy:
                client.say(f"{id}: {recognise(answer.text)}; waiting for one to end")
            said_busy = True
            client.pace.sleep(client.pace.busy)
        elif is_passing(answer) and failed < client.pace.tries:
            failed += 1
            client.rest(answer)
            if _find_pushed(client, job, session, id):
                return
        else:
            raise unreachable(answer) if is_passing(answer) else refusal(answer)
    session["version"] = version
    job.write()
    client.say(f"{id}: version {version or '?'} is pushed: https://www.kaggle.com/code/{id}")
    _refuse_dropped(answer, job, session)


def _refuse_dropped(answer: Answer, job: Job, session: dict[str, Any]) -> None:
    """Raise where a version runs without what it needs; the next call pushes another."""
    if dropped_sources(answer):
        session |= {"ended": ERROR, "state": None}
        job.write()
        raise refusal(answer)


def _find_pushed(client: Client, job: Job, session: dict[str, Any], id: str) -> bool:
    """Ask whether an interrupted push went through, and which version it made."""
    with tempfile.TemporaryDirectory(prefix="hpa-kit-pulled-") as folder:

        def is_ours(number: int | None) -> bool:
            place = Path(folder) / str(number)
            answer = client.ask(
                "kernels", "pull", id if number is None else f"{id}/{number}", "-p", str(place)
            )
            if not any(place.rglob("*.ipynb")) and not is_missing(answer):
                raise refusal(answer)
            return any(session["mark"] in path.read_text(encoding="utf-8") for path in place.rglob("*.ipynb"))

        if not is_ours(None):
            return False
        last = job.versions()[session["slug"]]
        numbers = range(last + 1, last + 1 + VERSIONS_TRIED)
        session["version"] = next((number for number in numbers if is_ours(number)), 0)
        job.write()
        client.say(f"{id}: version {session['version'] or '?'} was pushed already")
        return True


def check_quota(client: Client) -> None:
    """Raise where no GPU hours are left; where the client does not say, the push will.

    Raises:
        Fault: none are left.
    """
    found = gpu_hours(client.ask(*QUOTA))
    if found is None:
        return
    hours, renewed = found
    if hours < ENOUGH_HOURS:
        raise Fault(
            f"kaggle: {hours:g} GPU hours are left this week; nothing was pushed",
            f"wait until {renewed or 'they are renewed (kaggle quota)'}; {AGAIN} then",
        )
    client.say(f"GPU hours left this week: {hours:g}")


QUOTA = ("quota", "--format", "json")


def push_words(folder: Path) -> tuple[str, ...]:
    """Give the words that push a folder."""
    return ("kernels", "push", "-p", str(folder))


def status_words(id: str) -> tuple[str, ...]:
    """Give the words that ask how a notebook's session is."""
    return ("kernels", "status", id)


def log_words(id: str) -> tuple[str, ...]:
    """Give the words that print what a session prints, until it ends."""
    return ("kernels", "logs", id, "-f")


def output_words(id: str, folder: Path, pattern: str) -> tuple[str, ...]:
    """Give the words that fetch those of a session's files whose path a regular expression finds."""
    return ("kernels", "output", id, "-p", str(folder), "--file-pattern", pattern, "--page-size", "200")


def versioned(id: str, session: Mapping[str, Any]) -> str:
    """Name the session's version, as far as Kaggle knows it: ``owner/slug/3``."""
    return f"{id}/{session['version']}" if session.get("version") and not session.get("latest") else id


def follow(client: Client, job: Job, session: dict[str, Any], id: str, folder: Path) -> Ended:
    """Wait for the end of a session, and print its status and its log meanwhile.

    Args:
        client, job, session, id: as for :func:`push`.
        folder: where its log is kept.

    Raises:
        Fault: Kaggle does not know it.
    """
    log = _Log(client, folder / f"{session['slug']}-{session['mark']}.txt", session.get("lines", 0))
    said, failure = "", ""
    try:
        while True:
            status, failure = _status(client, job, session, id)
            name = versioned(id, session)
            if status != said:
                client.say(f"{name}: {status.lower().replace('_', ' ')}")
            said = status
            if status in ENDED:
                break
            if status == "RUNNING":
                log.begin(name)
            for _ in range(client.pace.looks):
                client.pace.sleep(client.pace.lines)
                log.show()
        log.show_rest(name)
    finally:
        log.close()
        session["lines"] = log.shown
        job.write()
    text = log.text()
    return Ended(status, failure, recognise(f"{failure}\n{text}", IN_LOGS), text)


def _status(client: Client, job: Job, session: dict[str, Any], id: str) -> tuple[str, str]:
    """The status of a session and why it failed; one that was just pushed may not be known at once.

    Where Kaggle does not know its version at all, the notebook's latest session, which it is, is asked for.
    """
    for _ in range(2):
        for _ in range(client.pace.settle):
            answer = client.ask(*status_words(versioned(id, session)))
            found = notebook_status(answer)
            if found is not None:
                return found
            if not is_missing(answer):
                raise refusal(answer)
            client.pace.sleep(client.pace.lines)
        session["latest"] = True
        job.write()
    raise refusal(answer)


class _Log:
    """What a session prints, as it comes, each line once: from a file that a client beside us fills.

    Args:
        client: starts it.
        path: the file.
        shown: lines that were shown before; the client begins again at the first.
    """

    def __init__(self, client: Client, path: Path, shown: int) -> None:
        self.client, self.path, self.shown = client, path, shown
        self._running: Running | None = None
        path.parent.mkdir(parents=True, exist_ok=True)

    def begin(self, name: str) -> None:
        """Start the client at the log of a session where none is at it."""
        if self._running is None or self._running.poll() is not None:
            self._running = self.client.begin(self.path, *log_words(name))

    def show(self, whole: bool = False) -> None:
        """Print what is new; the last line may still grow, unless the file is whole."""
        lines = self.text().split("\n")
        if not whole or not lines[-1]:
            lines.pop()
        for line in lines[self.shown :]:
            self.client.say(f"  | {line}")
            if fault := recognise(line, IN_LOGS):
                self.client.say(f"to do {fault} -> {fault.fix}")
        self.shown = max(self.shown, len(lines))

    def show_rest(self, name: str) -> None:
        """Print what is left after the session's end."""
        self.close()
        running = self._running = self.client.begin(self.path, *log_words(name))
        with suppress(subprocess.TimeoutExpired):
            running.wait(REST_SECONDS)
        self.show(whole=True)

    def close(self) -> None:
        """End the client that is at it."""
        if self._running is not None and self._running.poll() is None:
            self._running.terminate()
            self._running.wait()
        self._running = None

    def text(self) -> str:
        """All that the session printed."""
        return self.path.read_text(encoding="utf-8", errors="replace") if self.path.is_file() else ""


def fetch(client: Client, name: str, folder: Path, pattern: str) -> bool:
    """Fetch files of a session's output; what is there whole stays.

    Args:
        client: fetches.
        name: of the session.
        folder: where the files go, by their paths.
        pattern: a regular expression that finds their paths.

    Returns:
        Whether there is an output to fetch from; False where Kaggle has none of that session.

    Raises:
        Fault: it cannot be fetched.
    """
    answer = client.ask(*output_words(name, folder, pattern), shown=True)
    if answer.status and not is_missing(answer):
        raise refusal(answer)
    return not answer.status
