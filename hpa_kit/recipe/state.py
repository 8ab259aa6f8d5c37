"""What of a recipe is done: its state file, what results were made from, taking over an earlier session.

``recipe_state.json`` in the recipe's folder says it, to the next session and to whoever follows from outside:
``recipe``, ``finished``, ``done`` and ``left`` (titles of steps), ``hours_left`` (null where unknown),
``hours_spent``, ``sessions``, ``kit`` (its version), ``problem`` (one line, or null), ``inputs``, ``steps``.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from hpa_kit import __version__
from hpa_kit.config import RecipeSettings
from hpa_kit.config.recipe import SCRATCH
from hpa_kit.errors import InputError
from hpa_kit.files import atomic_path, atomic_text, remove_stale
from hpa_kit.plan import Plan, Step
from hpa_kit.progress import say

STATE, LOCK = "recipe_state.json", "recipe.lock"
EARLIER = "earlier"  # results of stages that have changed since, in the recipe's folder
_LETTERS = 16
# Options that say what computes and for how long.
_FREE = ("--workers", "--device", "--store", "--cache", "--no-cache", "--time-limit", "--checkpoint-minutes")


class Done(NamedTuple):
    """A step that was begun, or done: what its result depends on, the seconds so far, by which kit."""

    key: str
    seconds: float
    finished: bool
    kit: str = __version__


class State(NamedTuple):
    """What the state file says.

    Attributes:
        recipe: name.
        finished: whether nothing is left to do.
        done, left: titles of steps.
        hours_left: what is left will take about as many; None where some of it was never measured.
        hours_spent: of all sessions.
        sessions: how many there were.
        problem: one line where a step failed in the last session.
        inputs: names of those that were given.
        steps: {what a step writes, from the recipe's folder on: what is known of it}.
    """

    recipe: str
    finished: bool = False
    done: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    hours_left: float | None = None
    hours_spent: float = 0.0
    sessions: int = 0
    problem: str | None = None
    inputs: tuple[str, ...] = ()
    steps: Mapping[str, Done] = {}

    @classmethod
    def of(cls, content: Any) -> Self:
        """Make a state of what JSON held.

        Raises:
            ValueError, TypeError, KeyError: it is none.
        """
        steps = {
            # Earlier versions have told the kit of all steps together.
            name: Done(str(one[0]), float(one[1]), bool(one[2]), str((*one, content.get("kit"))[3]))
            for name, one in content["steps"].items()
        }
        return cls(
            str(content["recipe"]), bool(content["finished"]), tuple(content["done"]), tuple(content["left"]),
            content["hours_left"], float(content["hours_spent"]), int(content["sessions"]),
            content["problem"], tuple(content["inputs"]), steps,
        )  # fmt: skip


def name_of(step: Step, out: Path) -> str:
    """Name a step as the state file does: by what it writes, from the recipe's folder on."""
    return str(step.out.relative_to(out))


def is_done(step: Step, steps: Mapping[str, Done], out: Path) -> bool:
    """Whether a step is done, and what it wrote is there."""
    done = steps.get(name_of(step, out))
    return done is not None and done.finished and step.out.exists()


def read_state(folder: Path) -> State | None:
    """Read the state of a recipe's folder; None where there is none.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / STATE
    if not path.is_file():
        return None
    try:
        return State.of(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, OSError) as error:
        raise InputError(
            f"recipe: {path} is damaged ({type(error).__name__}: {error}); delete it, and the "
            "results beside it, to begin anew"
        ) from None


def write_state(folder: Path, state: State) -> None:
    """Write the state file.

    Raises:
        InputError: the folder cannot be written.
    """
    atomic_text(folder / STATE, json.dumps(state._asdict() | {"kit": __version__}, indent=1) + "\n")


def keys_of(plan: Plan, settings: RecipeSettings) -> dict[Step, str]:
    """Fingerprint what each step's result depends on: its words, what it reads of others, tables, inputs.

    Where data and inputs lie does not matter, and neither does what computes. Images are known by the tables
    beside them, as a mount's times are other ones in every session. The kit's version does not count, as it
    does in :mod:`hpa_kit.resume`: an update between two sessions is to cost no day of training.
    """
    names: dict[Path, str] = {settings.scratch_folder: "$scratch"}
    assert settings.data is not None
    tables = [settings.data / name for name in ("train.csv", "sample_submission.csv")]
    names[settings.data] = f"$data {_hash([_contents(path) for path in tables])}"
    names |= {path: f"${name} {_contents(path)}" for name, path in settings.inputs.items()}
    keys: dict[Step, str] = {}
    for step in plan.steps.values():
        words = [_named(word, names, plan) for word in _counted(step.command) if word != str(step.out)]
        keys[step] = _hash([step.kind, *words])
        names[step.out] = f"$step {keys[step]}"
    return keys


def take_over(earlier: Path, out: Path) -> None:
    """Copy what an earlier session left into the recipe's folder.

    The state file comes last: where there is none a copy that was cut off goes on, and files of equal size
    stay. Results of stages that have changed since are left where the disk has no room for them.

    Raises:
        InputError: nothing of the kind is there.
    """
    if read_state(earlier) is None:
        raise InputError(f"recipe: {earlier} holds no {STATE}; expected out of an earlier hpa-kit recipe")
    goes_on = read_state(out) is None
    remove_stale(out)
    files = [
        path
        for path in sorted(earlier.rglob("*"))
        if path.is_file() and not _stays(path.relative_to(earlier))
    ]
    wanted = [path for path in files if not (goes_on and _same_size(path, out / path.relative_to(earlier)))]
    size = sum(path.stat().st_size for path in wanted)
    if size > shutil.disk_usage(out).free:
        wanted = [path for path in wanted if path.relative_to(earlier).parts[0] != EARLIER]
        size = sum(path.stat().st_size for path in wanted)
        say(f"recipe: {earlier / EARLIER} stays there, as {out} has no room for it")
    say(f"recipe: takes over {len(wanted)} files, {size / 1e6:.1f} MB, of {earlier}")
    for path in [*wanted, earlier / STATE]:
        with atomic_path(out / path.relative_to(earlier)) as temporary:
            shutil.copyfile(path, temporary)


def move(path: Path, place: Path) -> None:
    """Move a result, where there is one; what lies at its new place goes."""
    if not path.exists():
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_dir():
        shutil.rmtree(place)
    path.replace(place)


def bytes_of(path: Path) -> int:
    """Count the bytes of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _counted(words: Sequence[str]) -> Iterator[str]:
    """The words of a command on which its result depends."""
    option = ""
    for word in words:
        option = word if word.startswith("--") else option
        if option not in _FREE:
            yield word


def _named(word: str, names: Mapping[Path, str], plan: Plan) -> Any:
    """A word, with what it stands for in place of a path."""
    path = Path(word)
    if path in plan.ensembles:
        ensemble = plan.ensembles[path].model_dump(mode="json")
        members = [
            one | {"checkpoint": _named(one["checkpoint"], names, plan)} for one in ensemble["members"]
        ]
        return (
            ensemble
            | {"members": members}
            | {name: _named(ensemble[name], names, plan) for name in ("masks", "weights") if ensemble[name]}
        )
    for place in (path, *(path.parents if len(path.parts) > 1 else ())):
        if place in names:
            return f"{names[place]}/{path.relative_to(place)}"
    # Of the user's files counts what they hold, not where they lie.
    return _contents(path) if len(path.parts) > 1 and path.exists() else word


def _contents(path: Path) -> str:
    """What a file holds, of a folder its files' names and sizes."""
    if path.is_dir():
        files = [file for file in sorted(path.rglob("*")) if file.is_file()]
        return _hash([[str(file.relative_to(path)), file.stat().st_size] for file in files])
    if not path.is_file():
        return "missing"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:_LETTERS]


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:_LETTERS]


def _stays(path: Path) -> bool:
    return path.parts[0] in (STATE, LOCK, SCRATCH)


def _same_size(one: Path, other: Path) -> bool:
    return other.is_file() and one.stat().st_size == other.stat().st_size
