"""The rehearsal's course: train until the time limit, go on, pack, infer, infer on a hidden test set."""

import shutil
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

from hpa_kit.data import DataFolder, read_sample
from hpa_kit.errors import InputError
from hpa_kit.files import make_folder
from hpa_kit.kaggle.publish.bundle import build_bundle
from hpa_kit.kaggle.publish.rehearsal.environment import make_environment, own_wheel, take_out_wheels
from hpa_kit.kaggle.publish.rehearsal.network import Offline, Played, offline, play
from hpa_kit.kaggle.publish.rehearsal.own import Own, own_competition
from hpa_kit.kaggle.publish.rehearsal.tree import OWNER, Tree, damage, simulated
from hpa_kit.recipe import read_state
from hpa_kit.submission import check_submission, evaluate
from hpa_kit.submission.table import read_submission

PUBLIC = {"KAGGLE_KERNEL_RUN_TYPE": "Batch"}
SCORED = {**PUBLIC, "KAGGLE_IS_COMPETITION_RERUN": "1"}
AT_ONCE = 1e-4  # hours: over before the first step is, so that the first session ends after that step
TRAINING = {"backbone": "resnet10t", "epochs": 2, "batch": 4, "lr": 0.01}
INFERENCE = {"batch": 4, "workers": 1, "device": "cpu"}

# Two folds need a field each; what is larger is no rehearsal but the whole competition.
LIMITS = {"train": (2, 21_806), "test": (1, 559), "size": (64, 3072)}


class Plan(NamedTuple):
    """What is played, where and how large, and with what of the user's."""

    out: Path = Path("rehearsal")
    environment: Path = Path(".venv-kaggle")
    train: int = 16  # fields
    test: int = 4
    size: int = 96  # pixels
    own: Own = Own()


class _Stage(NamedTuple):
    """What every notebook of a rehearsal is played with."""

    source: Path
    out: Path
    python: Path
    how: Offline
    tree: Tree
    bundle: Path
    inference: dict[str, Any]  # parameters of the inference notebook that are not as it will be submitted


def rehearse(source: Path, plan: Plan | None = None) -> None:
    """Run both notebooks as Kaggle does and say, line by line, what came of it.

    Each session has a fresh working folder, the image's packages and no others, no network, and read-only
    inputs, the kit among them in another of the forms that Kaggle makes of an upload.

    With members of the user's own nothing is trained, and the inference notebook runs as it will when it is
    submitted: no parameter is set but where inputs and results lie.

    Args:
        source: the checkout.
        plan: sizes, places and what is the user's; the defaults take minutes on two cores.

    Raises:
        InputError: anything went otherwise than it has to on Kaggle, or what is the user's cannot be used.
    """
    plan = plan or Plan()
    for name, (least, most) in LIMITS.items():
        if not least <= getattr(plan, name) <= most:
            raise InputError(f"rehearse: {name} is {getattr(plan, name)}; expected {least} to {most}")
    make_folder(plan.out)
    say = _teller()
    plan.own.refuse_inside(plan.out / "kaggle", plan.out / "own")
    mounts, trains = plan.own.mounts(), plan.own.members is None
    public, hidden = _competitions(plan, trains, say)
    wheel = own_wheel(plan.own.hpacellseg, plan.out / "wheel", source)
    how = offline()
    python = make_environment(plan.environment.absolute(), source, say, wheel)
    say(f"environment {plan.environment}: the image's packages{_other_python()}, torch shared")
    say(f"network off by {how.name}")
    with redirect_stdout(StringIO()):  # what is built here is not to be uploaded
        bundle = build_bundle(plan.out / "dist", OWNER, source, wheel).path
    inference = {**INFERENCE, "settings": {"map_size": plan.size}} if trains else {}
    stage = _Stage(source, plan.out, python, how, Tree(plan.out / "kaggle"), bundle, inference)
    if trains:
        stage.tree.attach_competition(public)
        shutil.copytree(_train(stage, plan, say), plan.out / "members", dirs_exist_ok=True)
        mounts[f"datasets/{OWNER}/hpa-kit-members"] = plan.out / "members"
    else:
        stage.tree.attach_competition(public, splits=("test",))
    for mount, folder in mounts.items():
        stage.tree.attach(folder, mount)
    _infer(stage, "public test set", "zip", public / "truth.csv", PUBLIC, say)

    stage.tree.attach_competition(hidden, splits=("test",))
    damaged = damage(stage.tree.competition / "test")
    _infer(stage, "hidden test set", "unpacked", hidden / "truth.csv", SCORED, say)
    _check_damaged(stage.tree, damaged)
    say(f"the damaged field {damaged} kept its row; all went as it has to")


def _competitions(plan: Plan, trains: bool, say: Callable[[str], None]) -> tuple[Path, Path]:
    """Folders with a public test set and a hidden one: of the user's data, or simulated."""
    if plan.own.data is None:
        return simulated(plan.out / "simulated", plan.train, plan.test, plan.size)
    folders = own_competition(plan.own.data, plan.out / "own", plan.train if trains else 0, plan.test)
    tests = [DataFolder(folder).fields("test").ids for folder in folders]
    both = f", {len({*tests[0]} & {*tests[1]})} of them in both" if {*tests[0]} & {*tests[1]} else ""
    say(f"{plan.own.data}: {len(tests[0])} public and {len(tests[1])} hidden test fields{both}")
    return folders


def _train(stage: _Stage, plan: Plan, say: Callable[[str], None]) -> Path:
    """Two sessions of the training notebook by a recipe: a time limit ends one, the other goes on and packs.

    Returns:
        the packed members.
    """
    tree, job = stage.tree, stage.tree.working / "recipe"
    networks = {**TRAINING, "size": plan.size}
    common = {"recipe": "quick", "device": "cpu"}
    first = _play(stage, "train", "unpacked", PUBLIC, **common, settings={**networks, "time_limit": AT_ONCE})
    state = read_state(job)
    _expect(state is not None and not state.finished and (job / "cam_fold0" / "last.safetensors").is_file(),
            "training: the time limit did not stop it with a checkpoint", first)  # fmt: skip
    assert state is not None
    done = ", ".join(state.done)
    say(f"training, first session: {done} done, then stopped by a time limit, with a checkpoint")
    tree.attach(tree.working, "hpa-kit-train")
    second = _play(stage, "train", "deeper", PUBLIC, **common, settings=networks, goes_on=True)
    _expect(f"goes on from: {tree.inputs / 'hpa-kit-train' / 'recipe'}" in second.printed,
            "training: its own output was not gone on with", second)  # fmt: skip
    state = read_state(job)
    _expect(state is not None and state.finished and state.sessions == 2,
            "training: the second session did not finish the recipe", second)  # fmt: skip
    lines = (job / "cam_fold0" / "metrics.csv").read_text("utf-8").splitlines()
    say(
        f"training, second session: went on from its own output, finished {len(lines) - 1} epochs, and packed"
    )
    return job / "members"


def _infer(
    stage: _Stage,
    what: str,
    form: str,
    truth: Path,
    variables: Mapping[str, str],
    say: Callable[[str], None],
) -> None:
    """The inference notebook on what is mounted; its CSV checked against the sample there, and scored."""
    played = _play(stage, "infer", form, variables, **stage.inference)
    sample, csv = stage.tree.competition / "sample_submission.csv", stage.tree.working / "submission.csv"
    _expect(csv.is_file(), f"{what}: no submission.csv", played)
    faults = check_submission(csv, sample)
    _expect(not faults, f"{what}: Kaggle would reject the CSV: {next(iter(faults), '')}", played)
    _expect("submission.csv: 0 faults" in played.printed, f"{what}: the notebook found faults", played)
    uses = next((line for line in played.printed.splitlines() if line.startswith("uses ")), "")
    _expect(bool(uses), f"{what}: the notebook does not say what it uses", played)
    say(uses)
    score = f", mAP {evaluate(truth, csv).mean_ap or 0:.3f}" if truth.is_file() else ""
    say(f"{what}: {len(read_sample(sample))} rows, 0 faults{score}")


def _play(stage: _Stage, name: str, form: str, variables: Mapping[str, str], **parameters: Any) -> Played:
    tree = stage.tree
    folder = tree.attach_kit(stage.bundle, form)
    tree.new_session()
    take_out_wheels(stage.python, stage.source)
    executed = (stage.out / f"{name}-{form}.ipynb").absolute()
    inputs, working = tree.inputs.absolute(), tree.working.absolute()
    task = {
        "notebook": str((stage.source / "notebooks" / f"{name}.ipynb").absolute()),
        "executed": str(executed),
        "folder": str(working),
        "inputs": str(inputs),
        "parameters": {"inputs": str(inputs), "working": str(working), **parameters},
    }
    with tree.read_only():
        played = play(stage.python, stage.how, task, variables)
    _expect(played.fault is None, f"{executed} ended with {played.fault}", played)
    place = "hpa-kit-" if form == "zip" else str(folder.absolute())  # a zip is unpacked to a temporary folder
    kit = next((line for line in played.printed.splitlines() if line.startswith("hpa_kit ")), "")
    sound = place in kit and kit.endswith("as it was built")
    _expect(sound, f"{executed} took its kit elsewhere: {kit}", played)
    return played


def _check_damaged(tree: Tree, id: str) -> None:
    table = read_submission(tree.working / "submission.csv")
    rows = table[table["ID"] == id]["PredictionString"].tolist()
    if len(rows) != 1:
        raise InputError(f"rehearsal: the damaged field {id} has {len(rows)} rows; expected one")


def _expect(holds: bool, fault: str, played: Played) -> None:
    if not holds:
        last = played.printed.strip().splitlines()[-5:]
        print(*(f"    {line}" for line in last), sep="\n")
        raise InputError(f"rehearsal: {fault}")


def _teller() -> Callable[[str], None]:
    started = time.monotonic()

    def say(line: str) -> None:
        print(f"rehearsal {time.monotonic() - started:5.0f} s  {line}", flush=True)

    return say


def _other_python() -> str:
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    return "" if here == "3.12" else f" (on Python {here}; Kaggle has 3.12)"
