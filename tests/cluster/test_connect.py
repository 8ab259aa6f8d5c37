"""Addresses of clusters: what each means, and what is told where nobody is there."""

import socket
import subprocess
import sys

import pytest

from hpa_kit.cluster import connect, with_whole_paths
from hpa_kit.cluster.connect import connected, worker_options
from hpa_kit.config import FeaturesSettings, PredictSettings, SegmentSettings, make_settings
from hpa_kit.config.kinds import known_cluster, local_workers
from hpa_kit.errors import InputError


@pytest.mark.parametrize(
    ("address", "n"),
    [("local:1", 1), ("local:64", 64), ("tcp://10.0.0.1:8786", None), ("tls://node-1:8786", None),
     ("scheduler.json", None)],
)  # fmt: skip
def test_an_address_is_taken_as_it_is(address, n) -> None:
    assert known_cluster(address) == address
    assert local_workers(address) == n


@pytest.mark.parametrize("address", ["local:", "local:0", "local:x", "http://a:1", "tcp://a", "", "tcp://:x"])
def test_another_text_is_refused_with_the_settings(address) -> None:
    with pytest.raises(InputError, match=r"cluster: expected local:N"):
        make_settings(SegmentSettings, {"data": "d", "out": "o", "cluster": address})


def test_features_of_whole_fields_take_no_cluster() -> None:
    with pytest.raises(InputError, match="cluster needs cells"):
        make_settings(FeaturesSettings, {"data": "d", "member": "m", "out": "f.npz", "cluster": "local:2"})


def test_workers_share_processors_and_have_a_gpu_each(monkeypatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    options = worker_options(4, 16, ["0", "3"])
    assert [one["nthreads"] for one in options] == [4] * 4
    assert [one["env"]["OMP_NUM_THREADS"] for one in options] == ["4"] * 4
    assert [one["env"]["CUDA_VISIBLE_DEVICES"] for one in options] == ["0", "3", "0", "3"]
    assert [one["nthreads"] for one in worker_options(8, 2, [])] == [1] * 8
    assert "CUDA_VISIBLE_DEVICES" not in worker_options(1, 2, [])[0]["env"]


def test_a_scheduler_s_file_that_is_none_is_told(tmp_path) -> None:
    with (
        pytest.raises(InputError, match="nothing.json is missing; expected local:N"),
        connected(str(tmp_path / "nothing.json"), "predict", None),
    ):
        pass
    (tmp_path / "other.json").write_text('{"a": 1}')
    with (
        pytest.raises(InputError, match="other.json is no scheduler's file"),
        connected(str(tmp_path / "other.json"), "predict", None),
    ):
        pass


def test_nobody_at_an_address_is_told_in_one_line(monkeypatch) -> None:
    monkeypatch.setattr(connect, "CONNECT_SECONDS", 0.2)
    with socket.socket() as taken:  # a port at which nobody listens
        taken.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        with (
            pytest.raises(InputError, match=f"nobody answers at {address}") as told,
            connected(address, "predict", None),
        ):
            pass
    assert "\n" not in str(told.value)


def test_what_is_missing_names_the_extra(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(InputError, match=r"distributed is missing: pip install 'hpa-kit\[distributed\]'"),
        connected("local:2", "predict", None),
    ):
        pass


def test_paths_are_whole_for_workers_that_run_elsewhere(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = PredictSettings(data="d", members=("a", "/b"), out="t.parquet", batch=3)
    whole = with_whole_paths(settings)
    assert whole.data == tmp_path / "d" and whole.members[0] == tmp_path / "a"
    assert str(whole.members[1]) == "/b" and whole.batch == 3 and whole.masks is None


def test_without_a_cluster_dask_is_not_imported(warm_python, tmp_path) -> None:
    code = """
import sys
from hpa_kit.cluster import connected
import hpa_kit.cells.segment, hpa_kit.inference.predict_cells
with connected(None, "predict", "cpu") as workers:
    assert workers is None
print({"dask", "distributed", "bokeh", "pyarrow.parquet"} & set(sys.modules))
"""
    done = warm_python.run(["-c", code], "networks", check=True, stdout=subprocess.PIPE, text=True)
    assert done.stdout.strip() == "set()"
