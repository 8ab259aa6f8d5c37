"""What the official Kaggle client says, read: what went well, what did not, and what puts that right.

Most errors of the server leave the client's exit status at 0, so its words are what counts. They are those of
version 2.2.5, read in its source. Standard library only.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from hpa_kit.kaggle.mounts import COMPETITION
from hpa_kit.kaggle.publish.dataset import BUILD, WRITE, Fault

RULES = f"https://www.kaggle.com/c/{COMPETITION}/rules"
AGAIN = "the same command goes on"

READY, FAILED = "ready", ("failed", "deleted")
ON_THE_WAY = ("not_yet_persisted", "blobs_received", "blobs_decompressed", "blobs_copied_to_sds",
              "individual_blobs_compressed", "reprocessing")  # fmt: skip
COMPLETE, ERROR = "COMPLETE", "ERROR"
CANCELLED = ("CANCEL_REQUESTED", "CANCEL_ACKNOWLEDGED")
ENDED = (COMPLETE, ERROR, "CANCEL_ACKNOWLEDGED")


class Answer(NamedTuple):
    """What the client did with a command."""

    command: str  # as one would give it in a shell
    status: int  # says nothing where it is 0
    printed: str
    errors: str = ""

    @property
    def text(self) -> str:
        """All that it said."""
        return f"{self.printed}\n{self.errors}"


class Known(NamedTuple):
    """Words that are known to stand for a fault."""

    words: str  # a regular expression
    means: str
    fix: str  # with names in braces that :func:`recognise` is given


# What the client says, in whichever command.
REFUSALS = (
    Known(r"already in use by a dataset", "the dataset is there already", "{update}"),
    Known(r"Authentication required|Unauthenticated|\b401\b", "nobody is logged in", "kaggle auth login"),
    Known(
        r"Maximum weekly GPU quota|Accelerator Quota Exceeded",
        "no GPU hours are left this week; nothing was pushed",
        f"kaggle quota (says when they are renewed; {AGAIN} then)",
    ),
    Known(
        r"Maximum batch GPU session count",
        "two GPU notebooks run already; nothing was pushed",
        f"wait for one, or stop it on its page; {AGAIN}",
    ),
    Known(
        r"not valid (dataset|competition|kernel|model)s? sources",
        "a source that is not ready yet, or misspelt; the notebook runs without it: stop it on its page",
        "hpa-kit kaggle status",
    ),
    Known(
        r"unrecognized arguments|invalid choice|No module named '?kaggle",
        "the Kaggle client is too old, or missing",
        "rm -rf .venv-client && make client",
    ),
)
FORBIDDEN = Known(r"\b403\b|Forbidden|don't have access", "access was denied", "kaggle auth login")
NOT_JOINED = Known(FORBIDDEN.words, "the competition's rules are not accepted yet", f"accept them: {RULES}")

# What the kit's notebooks print on Kaggle, and Kaggle beside them.
IN_LOGS = (
    Known(r"hpa_kit is neither under", "the kit's dataset is not attached", f"{WRITE}, and push again"),
    Known(
        r"several builds of hpa_kit are attached",
        "more than one build of the kit is attached",
        f"{WRITE} --to {{notebook}} --remove OWNER/SLUG, and push again",
    ),
    Known(
        r"^hpa_kit .* DAMAGED$|is damaged .*if it is the kit|is damaged; upload the bundle",
        "a file of the kit arrived damaged",
        f"{BUILD}, its `version` line, and push again",
    ),
    Known(r"Accelerator Quota Exceeded", "no GPU hours are left this week", "kaggle quota"),
    Known(
        r"GPU: none",
        "the notebook has no GPU",
        "verify the account's phone number: https://www.kaggle.com/settings; stop the run on its page",
    ),
    Known(
        r"DOES NOT WORK",
        "a GPU that today's torch does not know",
        "choose GPU T4 x2 as accelerator on the notebook's page",
    ),
    Known(
        r"members: no folder",
        "no members are attached",
        f"{WRITE} --add OWNER/hpa-kit-members, and push again",
    ),
    Known(
        r"not one of the .* fields .* was scored",
        "not one field could be scored; the line names the first fault",
        "hpa-kit kaggle rehearse --members-dataset dist-members",
    ),
)

# Neither of the command nor of what it is about: asked again later, it may well go.
PASSING = re.compile(
    r"Max retries exceeded|NameResolutionError|[Nn]ame resolution|getaddrinfo|ConnectionError|ConnectTimeout|"
    r"ReadTimeout|timed out|Connection (aborted|reset|refused)|RemoteDisconnected|ChunkedEncodingError|"
    r"ProtocolError|IncompleteRead|SSLError|ProxyError|\b(429|500|502|503|504) (Client|Server) Error|"
    r"rate limited|problem on Kaggle's side"
)
MISSING = re.compile(r"\b404\b|\b403\b|[Nn]ot [Ff]ound|Cannot access kernel|don't have access")


def recognise(text: str, known: tuple[Known, ...] = REFUSALS, **names: str) -> Fault | None:
    """Find the first known fault that a text tells of; None where it tells of none.

    Args:
        text: of the client, or of a notebook.
        known: what to look for.
        names: what the fixes have in braces.
    """
    for one in known:
        line = next((line for line in text.splitlines() if re.search(one.words, line)), None)
        if line is not None:
            fix = re.sub(r"{(\w+)}", lambda name: names.get(name[1], name[1].upper()), one.fix)
            return Fault(f"kaggle: {one.means} ({' '.join(line.split())[:300]})", fix)
    return None


def refusal(answer: Answer, **names: str) -> Fault:
    """Make the fault of a command that did not say what it says when it goes well."""
    denied = NOT_JOINED if " competitions " in answer.command else FORBIDDEN
    found = recognise(answer.text, (*REFUSALS, denied), **names)
    if found is not None:
        return found
    said = " ".join(answer.text.split())[:300] or "nothing"
    return Fault(f"kaggle: `{answer.command}` says {said!r}", f"docs/kaggle.md; then {AGAIN}")


def is_passing(answer: Answer) -> bool:
    """Whether it is the network, or Kaggle itself, that kept a command from being done."""
    return bool(PASSING.search(answer.text))


def is_missing(answer: Answer) -> bool:
    """Whether there is nothing of that name that the user may see."""
    return bool(MISSING.search(answer.text)) and not is_passing(answer)


def dataset_state(answer: Answer) -> str | None:
    """Read what ``datasets status`` says; None where it says something else."""
    words = answer.printed.split()
    return words[-1] if words and words[-1] in (READY, *FAILED, *ON_THE_WAY) else None


def dataset_version(answer: Answer) -> int | None:
    """Read what ``datasets status --format json(current_version_number)`` says."""
    found = re.search(r'"current_version_number": *(\d+)', answer.printed)
    return int(found[1]) if found else None


def uploaded(answer: Answer) -> bool:
    """Whether ``datasets create`` or ``datasets version`` took a folder."""
    return bool(re.search(r"Dataset (version )?is being created\. Please check", answer.printed))


def pushed_version(answer: Answer) -> int | None:
    """Read the version that ``kernels push`` made; 0 where it made one and does not say which."""
    found = re.search(r"Kernel version (?:(\d+) )?successfully pushed", answer.printed)
    return int(found[1] or 0) if found else None


def dropped_sources(answer: Answer) -> list[str]:
    """List the lines of ``kernels push`` on sources that it left out."""
    return [line for line in answer.printed.splitlines() if re.search(r"not valid \w+ sources", line)]


def notebook_status(answer: Answer) -> tuple[str, str] | None:
    """Read what ``kernels status`` says: the status, such as ``RUNNING``, and why it failed."""
    found = re.search(r'has status "(?:KernelWorkerStatus\.)?(\w+)"', answer.printed)
    if not found:
        return None
    failure = re.search(r'Failure message: "(.*)"', answer.printed, re.DOTALL)
    return found[1].upper(), failure[1].strip() if failure else ""


def gpu_hours(answer: Answer) -> tuple[float, str] | None:
    """Read from ``quota --format json`` how many GPU hours are left, and when they are renewed."""
    for row in _rows(answer):
        hours = re.match(r"[\d.]+", str(row.get("remaining", "")))
        if row.get("resource") == "GPU" and hours:
            return float(hours[0]), str(row.get("refreshAt") or row.get("refresh_at") or "")
    return None


class Submission(NamedTuple):
    """A row of ``competitions submissions``."""

    ref: str
    description: str
    status: str  # PENDING, COMPLETE, ERROR
    public: str  # score; empty where there is none
    private: str


def submissions(answer: Answer) -> list[Submission] | None:
    """Read ``competitions submissions --format json``; None where it says something else."""
    rows = _rows(answer)
    if not rows and "No submissions found" not in answer.printed:
        return None
    return [
        Submission(
            str(row.get("ref", "")),
            str(row.get("description") or ""),
            str(row.get("status", "")).rpartition(".")[2].upper(),
            *(str(row.get(key) or "") for key in ("publicScore", "privateScore")),
        )
        for row in rows
    ]


def submission_ref(answer: Answer) -> str | None:
    """Read the number of the submission that ``competitions submit`` made; empty where it does not say it."""
    found = re.search(r"Submission ref: (\d+)", answer.printed)
    if found:
        return found[1]
    return "" if re.search(r"[Ss]uccessfully submitted", answer.printed) and not answer.status else None


def listed_files(answer: Answer) -> tuple[list[tuple[str, int]], str] | None:
    """Read ``competitions files --format json``: names with bytes, and the token of the next page, if any."""
    rows = _rows(answer)
    if not rows:
        return None
    token = re.search(r"^Next Page Token = (\S+)", answer.printed, re.MULTILINE)
    files = [(str(row["name"]), _bytes(row)) for row in rows if "name" in row]
    return files, token[1] if token else ""


def _bytes(row: Mapping[str, Any]) -> int:
    for key in ("size", "totalBytes", "total_bytes"):
        if str(row.get(key, "")).isdecimal():
            return int(row[key])
    return 0


def _rows(answer: Answer) -> list[dict[str, Any]]:
    """The JSON list that a command prints, whatever it prints before."""
    begins = re.search(r"^\[", answer.printed, re.MULTILINE)
    try:
        rows, _ = json.JSONDecoder().raw_decode(answer.printed, begins.start()) if begins else ([], 0)
    except ValueError:
        return []
    return [row for row in rows if isinstance(row, dict)]
