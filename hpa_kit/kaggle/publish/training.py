"""``hpa-kit kaggle train``: a recipe run on Kaggle, in as many sessions as it takes, its members attached.

Two notebooks take turns and name each other as their source, so that nothing depends on whether one may name
itself. Whoever's output holds the recipe's state is the past; the other one runs next. A session that ends
without a state, as one cut at its limit may, leaves the past where it was.
"""

import contextlib
import importlib.util
import io
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from hpa_kit.errors import InputError, nearest
from hpa_kit.kaggle.mounts import ENSEMBLE
from hpa_kit.kaggle.publish.answers import AGAIN, COMPLETE
from hpa_kit.kaggle.publish.bundle import TITLE, build_bundle
from hpa_kit.kaggle.publish.dataset import (
    BUILD,
    KIT_SLUG,
    MEMBERS_SLUG,
    OWNER,
    OWNER_PLACEHOLDER,
    PACK,
    Dataset,
    Fault,
    find_owner,
    slug_fault,
    slugify,
)
from hpa_kit.kaggle.publish.job import JOBS, Job, open_job
from hpa_kit.kaggle.publish.metadata import NOTEBOOKS
from hpa_kit.kaggle.publish.notebooks import write_metadata
from hpa_kit.kaggle.publish.online_client import Client, shown_command
from hpa_kit.kaggle.publish.sessions import (
    QUOTA,
    Copy,
    Ended,
    fetch,
    follow,
    log_words,
    output_words,
    push,
    push_words,
    status_words,
    versioned,
    write_copy,
)
from hpa_kit.kaggle.publish.upload import bring_dataset, status_of, version_of

RECIPES = Path("hpa_kit/recipe/recipes")  # in the checkout, and so in the bundle
RECIPE = "recipe"  # the folder that a recipe leaves in a session's output
STATE = "recipe_state.json"
STATE_PATTERN = rf"(^|/){RECIPE}/recipe_state\.json$"
RESULTS_PATTERN = rf"(^|/){RECIPE}/(ensemble\.yaml$|members/)"
TURNS = ("a", "b")
LEAST_HOURS = 0.1  # of work, or a stage, that a session must have brought
UPLOAD_LINES = ("first upload:", "later uploads:", "attach it:")  # which are done here


class TrainingPlan(NamedTuple):
    """What is to be trained, and where its traces lie."""

    recipe: str
    dist: Path  # of the kit's dataset
    members: Path  # of the members'
    anew: bool = False

    @property
    def folder(self) -> Path:
        """Where the job lies, in the checkout."""
        return JOBS / f"train-{slugify(self.recipe)}"

    @property
    def command(self) -> str:
        """What goes on with it."""
        return f"hpa-kit kaggle train --recipe {shlex.quote(self.recipe)}"

    @property
    def slugs(self) -> tuple[str, ...]:
        """The two notebooks' slugs."""
        return tuple(f"hpa-kit-train-{slugify(self.recipe)}-{turn}" for turn in TURNS)


def train(source: Path, plan: TrainingPlan, client: Client) -> None:
    """Run a recipe on Kaggle to its end, and attach its members to the inference notebook.

    Args:
        source: the checkout.
        plan: what to train.
        client: does all that is done on Kaggle.

    Raises:
        Fault: what only the user can put right; the same command goes on after it.
        InputError: the recipe's name, or a file here, cannot be used.
    """
    owner = _owner(source, plan)
    if importlib.util.find_spec("torch") is None:
        raise Fault("kaggle: torch is missing here; members are packed with it at the end", "make .venv")
    with open_job(source / plan.folder, plan.command, plan.anew) as job:
        if job.kept.get("done"):
            client.say(f"{plan.recipe} is trained and attached ({job.path}); --anew trains it again")
            return
        while (past := _past(job)) is None or not past["state"]["finished"]:
            _session(source, plan, client, job, owner)
        results = job.folder / "results"
        name = f"{owner}/{past['slug']}"
        if not job.kept.get("packed"):
            fetch(client, versioned(name, past), results, RESULTS_PATTERN)
            with _without_upload_lines():
                _pack(results, plan.members, owner)
            job.keep(packed=True)
        dataset = Dataset(plan.members, f"{owner}/{MEMBERS_SLUG}")
        note = f"{plan.recipe}, {past['slug']} version {past['version']}"
        bring_dataset(client, job, "members", dataset, note, PACK)
        write_metadata(source, add=[dataset.id])
        job.keep(done=True)
        client.say(f"{dataset.id} is attached to the inference notebook; next: hpa-kit kaggle submit")


def _owner(source: Path, plan: TrainingPlan) -> str:
    owner = find_owner(source)
    if owner == OWNER_PLACEHOLDER:
        raise Fault(f"kaggle: the owner is still {OWNER_PLACEHOLDER!r}", OWNER)
    known = sorted(path.stem for path in (source / RECIPES).glob("*.yaml"))
    if plan.recipe not in known:
        raise InputError(
            f"kaggle train: the bundle has no recipe {plan.recipe!r}{nearest(plan.recipe, known)}; one of "
            f"your own goes into {RECIPES}"
        )
    if fault := next(filter(None, (slug_fault(slug, 5) for slug in plan.slugs)), None):
        raise InputError(f"kaggle train: no notebook can be called after recipe {plan.recipe!r}: {fault}")
    return owner


def _session(source: Path, plan: TrainingPlan, client: Client, job: Job, owner: str) -> None:
    """Run one session to its end, the one that an earlier call left or the next, and keep what came of it."""
    session = job.unfinished()
    if session is None or "version" not in session:
        _bring_kit(source, plan, client, job, owner)
        session = _next(source, plan, job, owner, session)
        push(client, job, session, f"{owner}/{session['slug']}", job.folder / session["slug"])
    id = f"{owner}/{session['slug']}"
    ended = follow(client, job, session, id, job.folder / "logs")
    folder = job.folder / "states" / session["mark"]
    found = fetch(client, versioned(id, session), folder, STATE_PATTERN)
    session["state"] = _read_state(folder) if found else None
    session["ended"] = ended.status
    job.write()
    _judge(client, job, session, ended)


def _next(
    source: Path, plan: TrainingPlan, job: Job, owner: str, session: dict[str, Any] | None
) -> dict[str, Any]:
    """Write the copy that is pushed next: of the notebook that does not hold the past."""
    past = _past(job)
    if session is None:
        slug = next(slug for slug in plan.slugs if past is None or slug != past["slug"])
        session = job.add_session(slug)
    number = len(job.sessions)
    parameters: dict[str, Any] = {"recipe": plan.recipe}
    if past is not None:
        parameters["goes_on"] = True
    sources = () if past is None else (f"{owner}/{past['slug']}",)
    id, kit = (f"{owner}/{slug}" for slug in (session["slug"], KIT_SLUG))
    copy = Copy(job.folder / session["slug"], parameters, id, sources, (kit,))
    write_copy(source, NOTEBOOKS["train"], copy, f"{plan.recipe}, session {number}, {session['mark']}")
    return session


def _past(job: Job) -> dict[str, Any] | None:
    """The latest session that left a state."""
    return next((one for one in reversed(job.sessions) if one.get("state")), None)


def _judge(client: Client, job: Job, session: dict[str, Any], ended: Ended) -> None:
    """Say what a session brought; raise where another one would bring no more."""
    state, name = session["state"], f"session {len(job.sessions)}"
    earlier = next((one["state"] for one in reversed(job.sessions[:-1]) if one.get("state")), None)
    if state is None:
        _judge_lost(client, job, name, ended)
        return
    left = ", ".join(state["left"]) or "nothing"
    client.say(f"{name}: done {', '.join(state['done']) or 'nothing'}; left {left}; {_hours(state)}")
    if state["finished"]:
        return
    if state["problem"]:
        raise Fault(f"kaggle: {name}: {state['problem']}", f"put it right; {AGAIN} with the next session")
    if ended.fault is not None:
        raise ended.fault
    worked = state["hours_spent"] - (earlier["hours_spent"] if earlier else 0.0)
    if len(state["done"]) <= len(earlier["done"] if earlier else []) and worked < LEAST_HOURS:
        raise Fault(
            f"kaggle: {name} brought nothing further: {state['hours_spent']:g} hours in all, {left} left",
            f"read its log in {job.folder / 'logs'}; {AGAIN} with the next session",
        )


def _judge_lost(client: Client, job: Job, name: str, ended: Ended) -> None:
    """Go on from the older output after a session that left none, once; what failed of itself is raised."""
    before = job.sessions[-2] if len(job.sessions) > 1 else None
    lost_before = before is not None and before.get("ended") and not before.get("state")
    trace = re.findall(r"^\w*(?:Error|Exception|Interrupt)\b.*", ended.log, re.MULTILINE)
    said = ended.failure or (trace[-1] if trace else "")
    if ended.fault is not None:
        raise ended.fault
    if ended.status == COMPLETE or trace or lost_before:
        raise Fault(
            f"kaggle: {name} ended as {ended.status} without {RECIPE}/{STATE}: {said or 'it says nothing'}",
            f"read its log in {job.folder / 'logs'}; {AGAIN} with another session",
        )
    client.say(
        f"{name}: {ended.status}, {said or 'cut'}; its output is lost, the next goes on from the one before"
    )


def _hours(state: dict[str, Any]) -> str:
    left = state["hours_left"]
    return f"{state['hours_spent']:.3g} hours spent" + ("" if left is None else f", about {left:.3g} to go")


def _read_state(folder: Path) -> dict[str, Any] | None:
    """The state that a recipe left; None where it left none."""
    for path in sorted(folder.rglob(STATE)):
        with contextlib.suppress(ValueError):
            state = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(state, dict) and "finished" in state:
                usual: dict[str, Any] = {
                    "done": [],
                    "left": [],
                    "hours_left": None,
                    "hours_spent": 0.0,
                    "problem": None,
                }
                return {**usual, **state}
    return None


def _bring_kit(source: Path, plan: TrainingPlan, client: Client, job: Job, owner: str) -> None:
    """Have the kit's dataset be what the checkout is."""
    with _without_upload_lines():
        bundle = build_bundle(plan.dist, owner, source)
    note = f"{TITLE}, build {bundle.build}"
    bring_dataset(client, job, "kit", Dataset(plan.dist, bundle.dataset), note, BUILD)


def _pack(results: Path, members: Path, owner: str) -> None:
    """Pack what was fetched as the members' dataset."""
    from hpa_kit.kaggle.publish.weights import weights_dataset

    found = sorted(results.rglob(ENSEMBLE), key=lambda path: (path.parent.name != "members", path))
    if not found:
        raise Fault(
            f"kaggle: {results}: no {ENSEMBLE} in the output of a finished recipe",
            "look at the notebook's output on its page; the same command fetches it again",
        )
    weights_dataset([found[0]], members, owner)


@contextlib.contextmanager
def _without_upload_lines() -> Iterator[None]:
    """Print what the block printed, without the lines on uploads."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        yield
    for line in printed.getvalue().splitlines():
        if not line.startswith(UPLOAD_LINES):
            print(line, flush=True)


def training_commands(source: Path, plan: TrainingPlan) -> Iterator[str]:
    """List the client's commands of a training of two sessions, in their order, where all goes well."""
    owner = _owner(source, plan)
    folder = source / plan.folder
    first, second = (f"{owner}/{slug}" for slug in plan.slugs)
    yield from _upload_commands(Dataset(plan.dist, f"{owner}/{KIT_SLUG}"))
    for place, id in enumerate((first, second)):
        if place:
            yield from map(
                shown_command, (version_of(f"{owner}/{KIT_SLUG}"), status_of(f"{owner}/{KIT_SLUG}"))
            )
        name = f"{id}/N"
        states = folder / "states" / "MARK"
        yield from map(
            shown_command,
            (QUOTA, push_words(folder / plan.slugs[place]), status_words(name), log_words(name),
             output_words(name, states, STATE_PATTERN)),
        )  # fmt: skip
    yield shown_command(output_words(f"{second}/N", folder / "results", RESULTS_PATTERN))
    yield from _upload_commands(Dataset(plan.members, f"{owner}/{MEMBERS_SLUG}"))


def _upload_commands(dataset: Dataset) -> Iterator[str]:
    """A dataset's first upload."""
    yield shown_command(version_of(dataset.id))
    yield shown_command(shlex.split(dataset.create())[1:])
    yield shown_command(status_of(dataset.id))
