"""Doing a recipe: steps whose needs are there begin, side by side where there is room, until time is up."""

import math
import queue
import shlex
import shutil
import signal
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import NamedTuple

from hpa_kit import __version__
from hpa_kit.config import RecipeSettings, write_ensemble
from hpa_kit.devices import MEMORY_SHARES, cpus
from hpa_kit.errors import InputError
from hpa_kit.files import make_folder
from hpa_kit.locks import locked
from hpa_kit.plan import Step
from hpa_kit.progress import say
from hpa_kit.recipe.children import INTERRUPTED, Child, News
from hpa_kit.recipe.forecast import as_planned, hours_of, plan_text, seconds_left
from hpa_kit.recipe.kept import archive_of, pack_kept, unpack_kept
from hpa_kit.recipe.machine import ON_SEVERAL, devices_of, gpu_number, how, is_whole, on_device
from hpa_kit.recipe.stages import Recipe, plan_recipe, read_recipe
from hpa_kit.recipe.state import (
    EARLIER,
    LOCK,
    STATE,
    Done,
    State,
    is_done,
    keys_of,
    move,
    name_of,
    read_state,
    take_over,
    write_state,
)
from hpa_kit.resume import TIMELESS
from hpa_kit.timing import duration

# Of the time limit, what stays for stopping, and for whatever a machine does at its end; seconds.
MARGIN_SHARE, MARGIN = 0.03, 180.0
_SHORTEST = 120.0  # seconds with which a step is begun
_GRACE = (60.0, 20.0, 20.0)  # seconds after an interrupt, SIGTERM, SIGKILL
_TICK = 1.0
# Commands that refuse to go on with what another version of the kit has begun.
_OF_ONE_KIT = frozenset({"pseudo-labels"})

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
    begun, recipe = now(), read_recipe(settings.recipe)
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
            take_over(settings.resume_from, settings.out)
        _refuse_lost_inputs(settings)
        return _Session(recipe, settings, now, begun).run()


def _further(earlier: State | None, before: State) -> bool:
    return earlier is not None and earlier.hours_spent > before.hours_spent


def _refuse_lost_inputs(settings: RecipeSettings) -> None:
    """Refuse a session without an input that the ones before had: all stages would be done otherwise.

    Raises:
        InputError: naming it.
    """
    before = read_state(settings.out)
    lost = [] if before is None else sorted({*before.inputs} - settings.inputs.keys())
    if lost:
        raise InputError(
            f"recipe: the sessions before had the input {lost[0]}, which is missing now; attach it, or give "
            "--inputs, or begin anew in another --out"
        )


class _Running(NamedTuple):
    step: Step
    lanes: tuple[str, ...]  # devices that it has; none, it takes processors only
    cores: int
    since: float


class _Session:
    """One session: the plan, what is done of it, what runs."""

    def __init__(self, recipe: Recipe, settings: RecipeSettings, now: Now, begun: float) -> None:
        self._settings, self._now, self._begun = settings, now, begun
        self._before = read_state(settings.out) or State(recipe.name)
        devices = devices_of(settings.device)
        count = settings.parallel or len(devices)
        self._lanes = [devices[place % len(devices)] for place in range(count)]
        self._free, self._cores = list(self._lanes), max(cpus(), count)
        limit = math.inf if settings.time_limit is None else settings.time_limit * 3600
        self._margin = min(MARGIN, limit * MARGIN_SHARE)
        self._limit = limit - self._margin
        self._steps = dict(self._before.steps)
        self._news: queue.SimpleQueue[News] = queue.SimpleQueue()
        self._running: dict[Child, _Running] = {}
        self._problem: str | None = None
        self._tried: set[Step] = set()  # in this session, and not to be begun again in it
        self._recipe = self._shortened(recipe)
        self._plan = plan_recipe(self._recipe, settings)
        self._keys = keys_of(self._plan, settings)

    def run(self) -> State:
        self._sort_out()
        self._write_ensembles()
        self._write()
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
            known = as_planned(plan, self._steps, self._settings)
            hours, unknown = hours_of(plan, known, self._settings.out)
            hours /= len(self._lanes)
            if hours <= wanted:
                if unknown:
                    say(f"recipe: not in the {wanted:.3g} h, as never measured: {', '.join(unknown)}")
                break
            if not all(self._name(step) in known for step in plan.steps.values() if step.kind == stage.name):
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
                self._write()
                say(f"recipe: {step.title} has changed, or what it needs; what it was is {out / aside} now")
            back = f"{EARLIER}/{name}-{key}"
            if back in known and (out / back).exists() and not step.out.exists():
                move(out / back, step.out)
                known[name] = known.pop(back)
                self._write()
                say(f"recipe: {step.title} is again what it was once, which was kept")

    def _next(self) -> Step | None:
        """A step that can begin: what it needs is there, and so are a device or processors for it."""
        if self._spent() >= self._limit - min(_SHORTEST, self._margin):
            return None
        ready = self._ready()
        # What computes on a device first: the others take the processors that these leave.
        ready.sort(key=lambda step: not on_device(step))
        return next(filter(self._has_room, ready), None)

    def _ready(self) -> list[Step]:
        """Steps whose needs are there, and that neither run nor were tried in this session."""
        busy = {one.step for one in self._running.values()} | self._tried
        return [
            step
            for step in self._plan.steps.values()
            if step not in busy
            and not self._is_done(step)
            and all(self._is_done(other) for other in self._plan.needs(step))
        ]

    def _has_room(self, step: Step) -> bool:
        """Whether a step finds a free device; one that needs none runs alone, or beside networks on GPUs."""
        others = any(not one.lanes for one in self._running.values())
        if on_device(step):
            return bool(self._free) and not (others and self._lanes[0] == "cpu")
        return not others and (not self._running or self._lanes[0] != "cpu")

    def _start(self, step: Step) -> None:
        lanes, processes = self._lanes_for(step)
        for lane in lanes:
            self._free.remove(lane)
        cores = max(1, self._cores - sum(one.cores for one in self._running.values()))
        if lanes:
            cores = max(1, self._cores * len(lanes) // len(self._lanes))
        command = [*step.command, *how(step, lanes, cores // processes, self._limit - self._spent())]
        print(f"\n$ hpa-kit {shlex.join(command)}", flush=True)
        beside = any(not on_device(other) and not self._is_done(other) for other in self._plan.steps.values())
        shares = len(self._lanes) // len(lanes) + beside if lanes else len(self._lanes) + 1
        alone = not lanes and not self._running
        self._begin_anew_after_an_update(step)
        unpack_kept(step)
        environment = {
            TIMELESS: "1",
            "OMP_NUM_THREADS": str(max(1, cores // processes)),
            MEMORY_SHARES: str(1 if alone or self._lanes == ["cpu"] else shares),
        }
        if self._lanes[0] != "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(map(gpu_number, lanes))
        begun = self._now()
        child = Child(command, environment, self._news, processes)
        self._running[child] = _Running(step, lanes, cores, begun)
        self._record(step, 0.0, finished=False)
        self._write()

    def _begin_anew_after_an_update(self, step: Step) -> None:
        """Remove what another version of the kit has half done, where its command would refuse to go on."""
        before = self._steps.get(self._name(step))
        if before is None or before.kit == __version__ or step.command[0] not in _OF_ONE_KIT:
            return
        if step.out.exists():
            shutil.rmtree(step.out)
            say(
                f"recipe: {step.title} begins anew: hpa-kit {before.kit} had begun it, now {__version__} runs"
            )

    def _lanes_for(self, step: Step) -> tuple[tuple[str, ...], int]:
        """The devices that a step gets, and the processes that share its work there.

        Where nothing else is there to do it gets all GPUs: a network by a process each, fields are shared by
        one.
        """
        if not on_device(step):
            return (), 1
        several = len(set(self._lanes)) == len(self._lanes) > 1 and "cpu" not in self._lanes
        others = [other for other in self._ready() if other != step and on_device(other)]
        if several and step.command[0] in ON_SEVERAL and len(self._free) == len(self._lanes) and not others:
            return tuple(self._free), len(self._free) if step.command[0] == "train" else 1
        used = [lane for one in self._running.values() for lane in one.lanes]
        return (min(self._free, key=used.count),), 1

    def _hear(self) -> None:
        """Take what a child says or how it ended, and end all when time is up."""
        with suppress(queue.Empty):
            self._take(self._news.get(timeout=_TICK))
        # Networks stop by themselves, with a checkpoint, and get half of what stays for the end to do so.
        if self._spent() >= self._limit:
            self._stop(all_of_them=self._spent() >= self._limit + self._margin / 2)

    def _take(self, news: News, asked: Collection[Child] = ()) -> None:
        """Show a line, or take note of an end; of children that were asked to end it is no failure."""
        if news.status is not None:
            self._end(news.child, news.status, stopped=news.child in asked)
        else:
            print(f"[{self._running[news.child].step.title}] {news.line}", flush=True)

    def _end(self, child: Child, status: int, stopped: bool) -> None:
        run = self._running.pop(child)
        self._free = sorted([*self._free, *run.lanes], key=self._lanes.index)
        step, took = run.step, self._now() - run.since
        fault, whole = None, False
        if status == 0:
            try:
                whole = is_whole(step)
                fault = None if step.out.exists() else f"it wrote no {step.out}"
            except InputError as error:
                fault = str(error)
        # One that was asked to end does so by itself or by the signal; torchrun, of several, in its own way.
        elif status != INTERRUPTED and not (stopped and (status < 0 or len(run.lanes) > 1)):
            fault = f"status {status}; what it said stands above"
        finished = status == 0 and fault is None and whole
        self._record(step, took, finished)
        if finished:
            archive_of(step).unlink(missing_ok=True)
            self._write_ensembles()
            print(f"[{step.title}] took {duration(took)}", flush=True)
        else:
            self._tried.add(step)
            pack_kept(step)
        if fault is not None:
            self._problem = self._problem or f"{step.title} failed ({fault})"
        elif not finished:
            print(f"[{step.title}] stopped in time; it goes on in the next session", flush=True)
        self._write()

    def _stop(self, all_of_them: bool = True) -> None:
        """End what runs: by an interrupt, after which each goes on from the next time, then by force."""
        for number, grace in zip((signal.SIGINT, signal.SIGTERM, signal.SIGKILL), _GRACE, strict=True):
            asked = [
                child for child, run in self._running.items() if all_of_them or run.step.command[0] != "train"
            ]
            for child in asked:
                child.send(number)
            until = time.monotonic() + grace
            while any(child in self._running for child in asked) and (left := until - time.monotonic()) > 0:
                with suppress(queue.Empty):
                    self._take(self._news.get(timeout=left), asked)
        if all_of_them:
            self._running.clear()  # of one that cannot be killed nothing more is heard

    def _write_ensembles(self) -> None:
        """Write the YAML of each ensemble whose members are all there; nobody is to take one that is not."""
        outs = {step.out for step in self._plan.steps.values()}
        done = {step.out for step in self._plan.steps.values() if self._is_done(step)}
        for path, ensemble in self._plan.ensembles.items():
            if {member.checkpoint for member in ensemble.members} & outs <= done:
                write_ensemble(ensemble, path)
            else:
                path.unlink(missing_ok=True)

    def _record(self, step: Step, took: float, finished: bool) -> None:
        before = self._steps.get(self._name(step))
        self._steps[self._name(step)] = Done(
            self._keys[step], took + (0.0 if before is None else before.seconds), finished
        )

    def _is_done(self, step: Step) -> bool:
        return is_done(step, self._steps, self._settings.out)

    def _name(self, step: Step) -> str:
        return name_of(step, self._settings.out)

    def _spent(self) -> float:
        return self._now() - self._begun

    def _write(self) -> State:
        steps = list(self._plan.steps.values())
        left = [step for step in steps if not self._is_done(step)]
        seconds = seconds_left(self._plan, self._steps, self._settings.out)
        state = State(
            self._recipe.name,
            not left,
            tuple(step.title for step in steps if step not in left),
            tuple(step.title for step in left),
            None if seconds is None else round(seconds / len(self._lanes) / 3600, 3),
            round(self._before.hours_spent + self._spent() / 3600, 4),
            self._before.sessions + 1,
            self._problem,
            tuple(sorted(self._settings.inputs)),
            self._steps,
        )
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
