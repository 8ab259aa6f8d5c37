"""The whole job on simulated fields: what ``make demo`` runs."""

from pathlib import Path

import numpy as np

from hpa_kit.classes import N_CLASSES, NEGATIVE
from hpa_kit.config import DemoSettings
from hpa_kit.script import Run, Script
from hpa_kit.submission import evaluate, prediction_string, read_submission, write_submission
from hpa_kit.submission.table import parse_truth
from hpa_kit.tables import text_table

RULES = {
    "copied": "image scores copied to every cell",
    "cam_share": "image score x CAM in the cell x share",
    "mean_logit": "image score x sigmoid(mean logit)",
    "mean_logit_negative": "  and Negative = what shows nothing else",
}


def demo(settings: DemoSettings, run: Run) -> None:
    """Simulate, find cells, learn from them, infer by each rule, evaluate; print what cell scores gain.

    Args:
        settings: sizes and seed of the demo.
        run: the command line's entry point; each step is a command.

    Raises:
        InputError: a step failed; what it wrote so far is kept and the next demo goes on from there.
    """
    out = settings.out
    data, member, masks = out / "data", out / "run", out / "label_maps"
    step = Script("demo", run)

    classes = ",".join(map(str, settings.classes))
    step("simulate", data, "--train", settings.train, "--test", settings.test, "--size", settings.size,
         "--classes", classes, "--seed", settings.seed)  # fmt: skip
    for split in ("train", "test"):
        step("segment", data, "--split", split, "--out", masks)
    step("train", data, "--out", member, "--masks", masks, "--all-fields", "--backbone", settings.backbone,
         "--stride", settings.stride, "--stride-by", settings.stride_by, "--size", settings.size,
         "--epochs", settings.epochs, "--seed", settings.seed)  # fmt: skip

    scores: dict[tuple[str, str], float] = {}
    for found, folder in {"classical": masks, "true": data / "masks"}.items():
        for rule in RULES:
            csv = out / f"submission_{found}_{rule}.csv"
            step("infer", data, "--members", member, "--masks", folder, "--rule", rule,
                 "--map-size", settings.size, "--out", csv)  # fmt: skip
            step("check", csv, "--sample", data / "sample_submission.csv")
            scores[found, rule] = evaluate(data / "truth.csv", csv).mean_ap or 0.0
    bounds = {
        name: evaluate(data / "truth.csv", copy_truth(data / "truth.csv", out / csv, shares=shares)).mean_ap
        for name, csv, shares in (
            ("true image labels", "submission_true_labels.csv", False),
            ("true shares of cells", "submission_true_shares.csv", True),
        )
    }
    best = out / "submission_classical_mean_logit_negative.csv"
    step("evaluate", data / "truth.csv", best)
    step("picture", best, data, "--out", out / "picture.png")
    copied = ", ".join(f"{name} {score or 0:.3f}" for name, score in bounds.items())
    print(f"\n{_table(scores)}\n\nFor scale, copied to every true cell: {copied}.")
    print(f"Submissions, label maps, the run and picture.png lie in {out}.")


def copy_truth(truth: Path, out: Path, *, shares: bool) -> Path:
    """Write a submission whose masks are all true, and whose cells get what is true of their field.

    Args:
        truth: pairs of class and mask per field.
        out: the CSV to write.
        shares: True gives every cell the share of its field's cells that show a class: more than an image
            label says, and the most that can be copied. False gives it the label: 1 for a class that some
            cell shows, Negative only where nothing else is shown.

    Raises:
        InputError: the truth cannot be read.
    """
    rows = []
    for id, width, height, text in read_submission(truth).itertuples(index=False, name=None):
        cells = parse_truth(text)
        masks = list(dict.fromkeys(cells.masks))
        number = {mask: row for row, mask in enumerate(masks)}
        shown = np.zeros((len(masks), N_CLASSES))
        shown[[number[mask] for mask in cells.masks], cells.classes] = 1
        copied = shown.mean(axis=0) if shares else shown.max(axis=0, initial=0)
        if not shares:
            copied[NEGATIVE] *= not np.delete(copied, NEGATIVE).any()
        every = np.tile(copied, (len(masks), 1))
        rows.append((id, width, height, prediction_string(every, dict(enumerate(masks, 1)))))
    write_submission(out, rows)
    return out


def _table(scores: dict[tuple[str, str], float]) -> str:
    rows = []
    for rule, name in RULES.items():
        row = [name]
        for found in ("classical", "true"):
            score = scores[found, rule]
            row += [f"{score:.3f}", f"{score - scores[found, 'copied']:+.3f}"]
        rows.append(row)
    return text_table(["mAP of cells (IoU 0.6)", "classical cells", "gain", "true cells", "gain"], rows)
