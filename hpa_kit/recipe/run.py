"""Doing a recipe: steps whose needs are there begin, side by side where there is room, until time is up."""

import math
import os
import queue
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from hpa_kit.config import RecipeSettings, write_ensemble
from hpa_kit.devices import MEMORY_SHARES, cpus
from hpa_kit.errors import InputError
from hpa_kit.files import make_folder
from hpa_kit.locks import locked
from hpa_kit.plan import Step
from hpa_kit.progress import say
from hpa_kit.recipe.children import INTERRUPTED, Child, News
from hpa_kit.recipe.forecast import hours_of, plan_text, seconds_left
from hpa_kit.recipe.stages import Recipe, plan_recipe, read_recipe
from hpa_kit.recipe.state import (
    EARLIER,
    LOCK,
    STATE,
    Done,
    State,
    keys_of,
    move,
    read_state,
    take_over,
    write_state,
)
from hpa_kit.timing import duration
from hpa_kit.together import imports_from_here
from hpa_kit.training.checkpoint import LAST, read_checkpoint

# Commands that compute on the device; the others take processors only.
ON_DEVICE = frozenset({"train", "features", "infer", "predict", "pseudo-labels", "tune"})
# Of the time limit, what stays for stopping, and for whatever a machine does at its end; seconds.
MARGIN_SHARE, MARGIN = 0.03, 180.0
_GRACE = (60.0, 20.0)  # seconds after an interrupt, and after SIGTERM
_TICK = 1.0

Now = Callable[[], float]


def carry_out(settings: RecipeSettings, now: Now = time.monotonic) -> State:
    """Do a recipe's stages, as far as this session's time goes; what is done is not done again.

    ``out`` gets a file or folder per step, ``recipe_state.json``, ``earlier/`` with results of stages that
    have changed since, and ``scratch/`` where no other folder is given. Every step is a command that is
    printed before it runs.

    Args:
        settings: of the recipe.
        now: the clock, in seconds.

    Returns:
        What is done and left.

    Raises:
        InputError: the recipe cannot be used, an expected earlier session is missing, another process works
            on ``out``, or a step failed; what was done so far is kept, and told by the state file.
    """
    recipe = read_recipe(settings.recipe)
    if settings.plan:
        print(plan_text(recipe, settings))
        return read_state(settings.out) or State(recipe.name)
    plan_recipe(recipe, settings)  # refused as a whole before anything is written
    if settings.past_expected and settings.resume_from is None and read_state(settings.out) is None:
        raise InputError(
            f"recipe: an earlier session was expected, and no {STATE} was found; attach that session's "
            "output, or begin anew (past_expected off, goes_on = False in the notebook)"
        )
    make_folder(settings.out)
    with locked(settings.out / LOCK):
        before = read_state(settings.out)
        earlier = None if settings.resume_from is None else read_state(settings.resume_from)
        if settings.resume_from is not None and (before is None or _further(earlier, before)):
            take_over(settings.resume_from, settings.out, say)
        return _Session(recipe, settings, now).run()


def _further(earlier: State | None, before: State) -> bool:
    return earlier is not None and earlier.hours_spent > before.hours_spent


class _Running(NamedTuple):
    step: Step
    lanes: tuple[str, ...]  # devices that it has; none, it takes processors only
    cores: int
    since: float


class _Session:
    """One session: the plan, what is done of it, what runs."""

    def __init__(self, recipe: Recipe, settings: RecipeSettings, now: Now) -> None:
        self._settings, self._now, self._begun = settings, now, now()
        self._before = read_state(settings.out) or State(recipe.name)
        devices = _devices(settings.device)
        count = settings.parallel or len(devices)
        self._lanes = [devices[place % len(devices)] for place in range(count)]
        self._free, self._cores = list(self._lanes), max(cpus(), count)
        limit = math.inf if settings.time_limit is None else settings.time_limit * 3600
        self._limit = limit - min(MARGIN, limit * MARGIN_SHARE) if limit < math.inf else limit
        self._steps = dict(self._before.steps)
        self._news: queue.SimpleQueue[News] = queue.SimpleQueue()
        self._running: dict[Child, _Running] = {}
        self._problem: str | None = None
        self._failed: set[Step] = set()
        self._recipe = self._shortened(recipe)
        self._plan = plan_recipe(self._recipe, settings)
        self._keys = keys_of(self._plan, settings)

    def run(self) -> State:
        self._sort_out()
        self._write_ensembles()
        self._write(sessions=self._before.sessions + 1)
        try:
            while True:
                while (ready := self._next()) is not None:
                    self._start(ready)
                if not self._running:
                    break
                self._hear()
        finally:
            self._stop()
            state = self._write()
        return self._told(state)

    def _shortened(self, recipe: Recipe) -> Recipe:
        """The recipe without the optional stages that do not fit into the hours that are asked for."""
        kept, wanted = recipe, self._settings.hours
        optional = [stage for stage in recipe.stages.values() if stage.optional]
        if wanted is None:
            return kept
        for stage in sorted(optional, key=lambda one: -one.optional):
            plan = plan_recipe(kept, self._settings)
            hours, unknown = hours_of(plan, self._steps, self._settings.out)
            if hours <= wanted:
                if unknown:
                    say(f"recipe: not in the {wanted:.3g} h, as never measured: {', '.join(unknown)}")
                break
            if not all(self._is_done(step) for step in plan.steps.values() if step.kind == stage.name):
                say(f"recipe: {hours:.3g} h are expected, {wanted:.3g} are to be taken: without {stage.name}")
                kept = kept.without([stage.name])
        return kept

    def _sort_out(self) -> None:
        """Put aside what was made otherwise than the recipe has it now; take back what was made so before."""
        out, known = self._settings.out, self._steps
        for step in self._plan.steps.values():
            name, key = self._name(step), self._keys[step]
            done = known.get(name)
            if done is not None and done.key == key:
                continue
            if done is not None:
                aside = f"{EARLIER}/{name}-{done.key}"
                move(step.out, out / aside)
                known[aside] = known.pop(name)
                say(f"recipe: {step.title} has changed, or what it needs; what it was is {out / aside} now")
            back = f"{EARLIER}/{name}-{key}"
            if back in known and not step.out.exists():
                move(out / back, step.out)
                known[name] = known.pop(back)
                say(f"recipe: {step.title} is again what it was once, which was kept")

    def _next(self) -> Step | None:
        """A step that can begin: what it needs is there, and so are a device or processors for it."""
        if self._spent() >= self._limit:
            return None
        busy = {one.step for one in self._running.values()}
        for step in self._plan.steps.values():
            if step in busy or step in self._failed or self._is_done(step):
                continue
            if all(self._is_done(other) for other in self._plan.needs(step)) and self._has_room(step):
                return step
        return None

    def _has_room(self, step: Step) -> bool:
        """Whether a step finds a free device; one that needs none runs alone, or beside networks on GPUs."""
        others = any(not one.lanes for one in self._running.values())
        if self._on_device(step):
            return bool(self._free) and not (others and self._lanes[0] == "cpu")
        return not others and (not self._running or self._lanes[0] != "cpu")

    def _start(self, step: Step) -> None:
        lanes: tuple[str, ...] = ()
        cores = max(1, self._cores - sum(one.cores for one in self._running.values()))
        if self._on_device(step):
            lanes = tuple(self._free) if self._takes_all(step) else (self._free[0],)
            self._free = self._free[len(lanes) :]
            cores = max(1, self._cores * len(lanes) // len(self._lanes))
        command = [*step.command, *self._how(step, lanes, cores)]
        print(f"\n$ hpa-kit {shlex.join(command)}", flush=True)
        environment = {
            "OMP_NUM_THREADS": str(max(1, cores // max(1, len(lanes)))),
            MEMORY_SHARES: str(len(self._lanes) if len(lanes) == 1 else 1),
        }
        if lanes and lanes[0] != "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(map(_number, lanes))
        begun = self._now()
        child = Child(command, environment, self._news, max(1, len(lanes)))
        self._running[child] = _Running(step, lanes, cores, begun)
        self._record(step, 0.0, finished=False)
        self._write()

    def _how(self, step: Step, lanes: Sequence[str], cores: int) -> Iterator[str]:
        """The options that say what computes and how long it may take, not what is computed."""
        name = step.command[0]
        if lanes:
            yield from ("--device", "cpu" if lanes[0] == "cpu" else "auto")
        if name == "train":
            # Beside the process itself; where there is one core, it reads the fields too.
            yield from ("--workers", str(max(0, cores // max(1, len(lanes)) - 1)))
            own = (
                step.command[step.command.index("--time-limit") + 1]
                if "--time-limit" in step.command
                else "inf"
            )
            hours = min(float(own), max(0.001, (self._limit - self._spent()) / 3600))
            if hours < math.inf:
                yield from ("--time-limit", f"{hours:.4g}")
        elif name in ON_DEVICE or name in ("segment", "store"):
            yield from ("--workers", str(max(1, cores)))
        if name in ("segment", "pseudo-labels"):
            yield "--pack"  # so that what the next session needs are few files

    def _takes_all(self, step: Step) -> bool:
        """Whether a network trains on all GPUs: nothing else is there for the others to do meanwhile."""
        gpus = len(self._lanes) > 1 and len(set(self._lanes)) == len(self._lanes) and "cpu" not in self._lanes
        if not gpus or step.command[0] != "train" or len(self._free) < len(self._lanes):
            return False
        others = [
            other
            for other in self._plan.steps.values()
            if other != step
            and self._on_device(other)
            and not self._is_done(other)
            and other not in self._failed
        ]
        return not any(all(self._is_done(one) for one in self._plan.needs(other)) for other in others)

    def _hear(self) -> None:
        """Take what a child says or how it ended, and end all when time is up."""
        with suppress(queue.Empty):
            self._take(self._news.get(timeout=_TICK), stopped=False)
        if self._spent() >= self._limit:
            self._stop()

    def _take(self, news: News, stopped: bool) -> None:
        if news.status is not None:
            self._end(news.child, news.status, stopped)
        else:
            print(f"[{self._running[news.child].step.title}] {news.line}", flush=True)

    def _end(self, child: Child, status: int, stopped: bool) -> None:
        run = self._running.pop(child)
        self._free = sorted([*self._free, *run.lanes], key=self._lanes.index)
        step, took = run.step, self._now() - run.since
        finished = status == 0 and step.out.exists() and _is_whole(step)
        self._record(step, took, finished)
        if finished:
            self._write_ensembles()
            print(f"[{step.title}] took {duration(took)}", flush=True)
        elif status not in (0, INTERRUPTED) and not stopped:
            self._failed.add(step)
            self._problem = (
                self._problem or f"{step.title} failed (status {status}); what it said stands above"
            )
        elif status == 0 and not _is_whole(step) and step.out.exists():
            print(f"[{step.title}] stopped in time; it goes on in the next session", flush=True)
            self._failed.add(step)  # for this session
        elif status == 0:
            self._failed.add(step)
            self._problem = self._problem or f"{step.title} wrote no {step.out}"
        self._write()

    def _stop(self) -> None:
        """End whatever runs: by an interrupt, after which each goes on from the next time, then by force."""
        for number, grace in (
            (signal.SIGINT, _GRACE[0]),
            (signal.SIGTERM, _GRACE[1]),
            (signal.SIGKILL, _GRACE[1]),
        ):
            for child in self._running:
                child.send(number)
            until = time.monotonic() + grace
            while self._running and (left := until - time.monotonic()) > 0:
                try:
                    self._take(self._news.get(timeout=left), stopped=True)
                except queue.Empty:
                    break

    def _write_ensembles(self) -> None:
        """Write the YAML of each ensemble whose members are all there; nobody is to take one that is not."""
        done = {step.out for step in self._plan.steps.values() if self._is_done(step)}
        for path, ensemble in self._plan.ensembles.items():
            if {member.checkpoint for member in ensemble.members} <= done:
                write_ensemble(ensemble, path)

    def _record(self, step: Step, took: float, finished: bool) -> None:
        before = self._steps.get(self._name(step))
        self._steps[self._name(step)] = Done(
            self._keys[step], took + (0.0 if before is None else before.seconds), finished
        )

    def _is_done(self, step: Step) -> bool:
        done = self._steps.get(self._name(step))
        return done is not None and done.finished and step.out.exists()

    def _name(self, step: Step) -> str:
        return str(step.out.relative_to(self._settings.out))

    def _on_device(self, step: Step) -> bool:
        return step.command[0] in ON_DEVICE or (step.command[0] == "segment" and "--weights" in step.command)

    def _spent(self) -> float:
        return self._now() - self._begun

    def _write(self, sessions: int | None = None) -> State:
        steps = list(self._plan.steps.values())
        left = [step for step in steps if not self._is_done(step)]
        seconds = seconds_left(self._plan, self._steps, self._settings.out)
        state = State(
            self._recipe.name, not left, tuple(step.title for step in steps if step not in left),
            tuple(step.title for step in left), None if seconds is None else round(seconds / 3600, 3),
            round(self._before.hours_spent + self._spent() / 3600, 4),
            sessions or max(1, self._before.sessions + 1), self._problem, self._steps,
        )  # fmt: skip
        write_state(self._settings.out, state)
        return state

    def _told(self, state: State) -> State:
        if state.problem is not None:
            raise InputError(
                f"recipe: {state.problem}; what was done is kept, the same again goes on from there"
            )
        if state.finished:
            spent = duration(state.hours_spent * 3600)
            print(f"\nrecipe: {self._recipe.name} is done, in {spent} of {state.sessions} session(s)")
        else:
            hours = "unknown" if state.hours_left is None else duration(state.hours_left * 3600)
            print(
                f"\nrecipe: this session is over; done: {', '.join(state.done) or 'nothing'}; left: "
                f"{', '.join(state.left)}; time left: {hours}. Start it again to go on"
            )
        return state


def _is_whole(step: Step) -> bool:
    """Whether a command that ended well did all: a run may have stopped in time."""
    if step.command[0] != "train":
        return True
    checkpoint = read_checkpoint(step.out / LAST, only=("epoch",))
    return bool(checkpoint.state["epoch"] >= int(checkpoint.settings["epochs"]))


def _devices(wanted: str) -> list[str]:
    """The devices to use. Which GPUs work another process finds out: it would keep some of their memory."""
    if wanted != "auto":
        return [name.strip() for name in wanted.split(",") if name.strip()] or ["cpu"]
    code = "from hpa_kit.devices import pick_devices; print(*pick_devices('auto'))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env=imports_from_here(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout.split()


def _number(lane: str) -> str:
    """A GPU's number as its driver has it, of those that this process may see."""
    number, seen = int(lane.partition(":")[2] or 0), os.environ.get("CUDA_VISIBLE_DEVICES", "")
    visible = [name for name in seen.split(",") if name]
    return visible[number] if number < len(visible) else str(number)
