"""What docs/cluster.md has one type: workers of this machine, some started by hand, Slurm's script."""

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from hpa_kit.cli import main
from hpa_kit.config import PredictSettings
from hpa_kit.config.kinds import known_cluster
from hpa_kit.inference import predict

TEXT = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text(encoding="utf-8")
BLOCKS = [block.splitlines() for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)]
_INSTALL, (LOCAL,), (SCHEDULER, WORKER, PREDICT) = BLOCKS
QUICK = "--views none --map-size 64 --batch 2 --segmenter classical"


@pytest.fixture
def place(fields, member, tmp_path, monkeypatch):
    """A folder with the names that the page has."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    Path("run").symlink_to(member)
    return tmp_path


def run(command: str) -> pd.DataFrame:
    program, *words = command.split()
    assert program == "hpa-kit"
    assert main([*words, *QUICK.split()]) == 0
    return pd.read_parquet("cells.parquet")


def here() -> pd.DataFrame:
    assert main([*f"predict data --members run --out here.csv --device cpu {QUICK}".split()]) == 0
    return pd.read_csv("here.csv", dtype={"ID": str})


def test_the_page_names_what_the_option_takes() -> None:
    for command in (LOCAL, PREDICT):
        assert known_cluster(command.split("--cluster ")[1])


@pytest.mark.whole_table
@pytest.mark.usefixtures("one_thread")
def test_scheduler_and_workers_are_started_as_the_page_says(place) -> None:
    started = []
    try:
        for command in (SCHEDULER, WORKER):
            program, *words = command.split()
            assert program == "dask"
            options = [
                "--host",
                "127.0.0.1",
                *(["--no-dashboard", "--port", "0"] if words[0] == "scheduler" else []),
            ]
            started.append(
                subprocess.Popen(
                    [sys.executable, "-m", "dask", *words, *options], stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            )  # fmt: skip
            while not Path("scheduler.json").exists():
                assert started[0].poll() is None
        found = run(PREDICT)
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait()
    pd.testing.assert_frame_equal(found, here(), check_dtype=False, rtol=1e-6)


@pytest.mark.whole_table
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("one_thread")
def test_workers_of_this_machine_that_die_are_started_again(place, fields, member, caplog) -> None:
    fields.rule("always-6")
    settings = {
        "data": fields.root, "members": (member,), "views": "none", "map_size": 64, "batch": 2,
        "device": "cpu", "segmenter": "deadly",
    }  # fmt: skip
    found = pd.read_parquet(predict(PredictSettings(**settings, out="there.parquet", cluster="local:2")))
    assert set(fields.ids) - set(found["ID"]) == {"f6"}
    assert "f6 has no rows: 2 workers ended at it" in caplog.text
    (fields.rules / "always-6").unlink()
    expected = pd.read_csv(predict(PredictSettings(**settings, out="here.csv")), dtype={"ID": str})
    expected = expected[expected["ID"] != "f6"].reset_index(drop=True)
    pd.testing.assert_frame_equal(found, expected, check_dtype=False, rtol=1e-6)


@pytest.mark.whole_table
@pytest.mark.usefixtures("one_thread")
def test_the_command_with_workers_of_this_machine_gives_the_rows_of_one(place) -> None:
    found = run(LOCAL)
    pd.testing.assert_frame_equal(found, here(), check_dtype=False, rtol=1e-6)


def test_slurms_script_calls_what_is_there() -> None:
    (script,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    compile(script, "on_slurm.py", "exec")
    words = re.search(r'words = "(.*)"', script)[1].split()
    from hpa_kit.cli.main import make_parser, settings_of

    arguments = make_parser(words).parse_args([*words, "--cluster", "tcp://10.0.0.1:8786"])
    assert settings_of(arguments.settings_command, arguments).workers == 8
