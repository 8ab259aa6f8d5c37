"""Running an ablation: every step once, each submission measured, all of it in a table."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hpa_kit.ablation.cells import plan_cells
from hpa_kit.ablation.classifiers import AblationPlan, plan_classifiers
from hpa_kit.ablation.scores import Results
from hpa_kit.ablation.stages import plan_stages
from hpa_kit.ablation.table import markdown
from hpa_kit.cells import label_map_ids
from hpa_kit.config import AblationSettings, make_settings, read_yaml, write_ensemble, write_yaml
from hpa_kit.data import DataFolder, find_fields
from hpa_kit.data.layout import SPLITS
from hpa_kit.errors import InputError
from hpa_kit.files import atomic_text
from hpa_kit.plan import Step
from hpa_kit.resume import depends_on, field_stamps, refuse_other_settings
from hpa_kit.script import Run, Script
from hpa_kit.tables import text_table
from hpa_kit.timing import duration

RESULTS, TABLE, STEPS, SETTINGS = "results.csv", "ablation.md", "steps.csv", "ablation.yaml"
MADE_FROM = "made_from.txt"
OLD_SETTINGS = "ladder.yaml"  # of folders that were begun when variants were called rungs
# These may change between two starts of an ablation: what is compared, not how.
_FREE = frozenset({"data", "out", "seeds", "variants", "rules", "device"})


def ablation(settings: AblationSettings, run: Run) -> Path:
    """Train, infer and measure what the variants need, for every seed; a finished step is not done again.

    ``out`` gets ``results.csv`` (one number per row), ``ablation.md`` (mean and spread over seeds),
    ``steps.csv`` (which commands are done, and how long each took), ``ablation.yaml``, ``made_from.txt`` (a
    fingerprint of fields, tables and label maps, and of the kit), and a folder per seed.

    Args:
        settings: what to compare, on which fields.
        run: the command line's entry point; each step is a command.

    Returns:
        Path of the Markdown table.

    Raises:
        InputError: data lack something, ``out`` holds an ablation of other settings or fields, or a step
            failed; what was done so far is kept and the next ablation goes on from there.
    """
    truth = _truth(settings)
    plan = AblationPlan(settings)
    plan_classifiers(plan)
    plan_stages(plan)
    plan_cells(plan)
    _refuse_other_settings(settings)
    made_from = _made_from(settings)
    _refuse_other_fields(settings, made_from)
    write_yaml(settings, settings.out / SETTINGS)
    atomic_text(settings.out / MADE_FROM, made_from + "\n")
    for path, ensemble in plan.ensembles.items():
        write_ensemble(ensemble, path)
    script = Script("ablation", run, settings.out / STEPS)
    results = Results(settings.out / RESULTS)
    steps = list(plan.steps.values())
    begun = time.monotonic()
    for number, step in enumerate(steps, start=1):
        fresh = _seconds(script, step) is None
        if fresh:
            spent = duration(time.monotonic() - begun)
            print(f"\n[{number}/{len(steps)}] {step.title}; {spent} so far{_left(script, steps)}")
            print(f"took {duration(script(*step.command))}", flush=True)
        score = plan.scores.get(step.out)
        if score is not None and (fresh or not results.has(score)):
            what = f"{score.variant}, seed {score.seed}, {score.masks} cells"
            for measure, value in results.measure(score, truth, step.out).items():
                print(f"{what}: {measure} {value:.4f}")
    table = markdown(results.table(), settings)
    atomic_text(settings.out / TABLE, table)
    print(f"\n{table}\n{_times(script, steps)}")
    return settings.out / TABLE


def _truth(settings: AblationSettings) -> Path:
    """Find the truth of the test fields, and all else that is needed before anything is trained."""
    folder = DataFolder(settings.data)
    folder.labels()
    for split in ("train", "test"):
        folder.images(split)
    truth = folder.truth("test")
    if truth is None:
        raise InputError(
            f"ablation: {settings.data / 'truth.csv'} is missing; expected the truth of every test cell, "
            "as hpa-kit simulate writes it"
        )
    if "tuned" in settings.variants and settings.tune_by == "cells" and folder.truth("train") is None:
        raise InputError(
            f"ablation: {settings.data / 'truth_train.csv'} is missing, by which tune chooses; give it, or "
            "--tune-by images"
        )
    masks = settings.masks or settings.data / "masks"
    if not masks.is_dir():
        raise InputError(
            f"ablation: {masks} is missing; give --masks, a folder of the true cells' label maps"
        )
    return truth


def _refuse_other_settings(settings: AblationSettings) -> None:
    """One folder holds numbers that can be compared."""
    paths = (settings.out / SETTINGS, settings.out / OLD_SETTINGS)
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        return
    renamed = {AblationSettings.renamed.get(name, name): value for name, value in read_yaml(path).items()}
    before = make_settings(AblationSettings, renamed, source=str(path))
    refuse_other_settings("ablation", settings.out, before, settings, _FREE)


def _made_from(settings: AblationSettings) -> str:
    """A fingerprint of what every number depends on: tables, images, label maps, the kit."""
    folder, masks = DataFolder(settings.data), settings.masks or settings.data / "masks"
    tables = [folder.labels(), *map(folder.truth, SPLITS), folder.sample()]
    fields = [folder.images(split) for split in SPLITS]
    stamps = [field_stamps(find_fields(images), images, [(masks, label_map_ids)], {}) for images in fields]
    return depends_on("ablation", tables, stamps)


def _refuse_other_fields(settings: AblationSettings, made_from: str) -> None:
    path = settings.out / MADE_FROM
    if path.is_file() and path.read_text(encoding="utf-8").strip() != made_from:
        raise InputError(
            f"ablation: the run in {settings.out} was started on other fields, tables or label maps than "
            f"{settings.data} has now, or by another version of the kit; give another --out"
        )


def _seconds(script: Script, step: Step) -> float | None:
    """What a step took when it was done, or None where it has to be done."""
    return script.done(*step.command) if step.out.exists() else None


def _seconds_by_kind(script: Script, steps: Sequence[Step]) -> dict[str, list[float]]:
    """What finished steps took, by their kind."""
    taken: dict[str, list[float]] = {}
    for step in steps:
        if (seconds := _seconds(script, step)) is not None:
            taken.setdefault(step.kind, []).append(seconds)
    return taken


def _left(script: Script, steps: Sequence[Step]) -> str:
    """How long the steps that are left will take, as those of their kind took; empty where none is known."""
    taken = _seconds_by_kind(script, steps)
    open_kinds = [step.kind for step in steps if _seconds(script, step) is None]
    known = [float(np.mean(taken[kind])) for kind in open_kinds if kind in taken]
    if not known:
        return ""
    unknown = len(open_kinds) - len(known)
    return f", about {duration(sum(known))} left" + (f" and {unknown} steps of new kinds" if unknown else "")


def _times(script: Script, steps: Sequence[Step]) -> str:
    """Where the time went, by kinds of steps."""
    taken = _seconds_by_kind(script, steps)
    rows = [[kind, str(len(each)), duration(sum(each))] for kind, each in taken.items()]
    total = sum(sum(each) for each in taken.values())
    return text_table(["steps", "number", "time"], [*rows, ["in all", str(len(steps)), duration(total)]])
