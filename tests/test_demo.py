"""The demo: the whole job on simulated fields, in small."""

import re

from hpa_kit.cli import main
from hpa_kit.submission import evaluate


def test_the_demo_does_the_whole_job_and_tells_what_cell_scores_gain(tmp_path, capsys):
    out = tmp_path / "demo"
    small = "--train 10 --test 5 --size 64 --epochs 1 --stride 16 --stride-by cut"
    assert main(["demo", "--out", str(out), *small.split()]) == 0
    said = capsys.readouterr().out
    table = said[said.index("mAP of cells") :]
    rows = re.findall(r"(?m)^.*?([01]\.\d{3}) +[+-]\d\.\d{3} +([01]\.\d{3}) +[+-]\d\.\d{3}$", table)
    rules = ("copied", "cam_share", "mean_logit", "mean_logit_negative")
    for rule, row in zip(rules, rows, strict=True):
        for found, score in zip(("classical", "true"), row, strict=True):
            submission = out / f"submission_{found}_{rule}.csv"
            assert score == f"{evaluate(out / 'data' / 'truth.csv', submission).mean_ap or 0:.3f}"
    bounds = re.search(r"true image labels ([01]\.\d{3}), true shares of cells ([01]\.\d{3})", table)
    assert bounds is not None and float(bounds[1]) > 0 and float(bounds[2]) > 0
    assert (out / "picture.png").stat().st_size > 1000
