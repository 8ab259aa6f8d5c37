"""The whole job on simulated fields: what ``make demo`` runs."""

from hpa_kit.config import DemoSettings
from hpa_kit.report.copied import copy_truth
from hpa_kit.report.text import text_table
from hpa_kit.script import Run, Script
from hpa_kit.submission import evaluate

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


def _table(scores: dict[tuple[str, str], float]) -> str:
    rows = []
    for rule, name in RULES.items():
        row = [name]
        for found in ("classical", "true"):
            score = scores[found, rule]
            row += [f"{score:.3f}", f"{score - scores[found, 'copied']:+.3f}"]
        rows.append(row)
    return text_table(["mAP of cells (IoU 0.6)", "classical cells", "gain", "true cells", "gain"], rows)
