"""Two workers against one, on processors of one machine, and what a field takes over the network.

``python -m pytest tests/benchmarks/test_bench_cluster.py -s --override-ini addopts=``
"""

import pickle
import re
import time
from collections import defaultdict
from pathlib import Path

import pandas as pd
import pytest
import torch

from hpa_kit.cluster import Item, batches, connect, connected, done_by_workers
from hpa_kit.config import PredictSettings, SimulateSettings
from hpa_kit.data.simulate import simulate
from hpa_kit.devices import cpus
from hpa_kit.inference import predict
from hpa_kit.inference.growing_table import PARTS
from hpa_kit.inference.results import Journal

FIELDS, SIDE = 48, 512
BATCHES, RESULTS, ROWS_BYTES = 500, 100_000, 5000


class Watch:
    """What workers did in a run: processor seconds by worker, bytes there and back, most memory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        came, submit = batches._came, connect.Cluster.submit

        def sent(cluster, function, task):
            self.there += len(pickle.dumps(task))
            return submit(cluster, function, task)

        def back(*arguments):
            done = came(*arguments)
            self.back += len(pickle.dumps(done))
            self.seconds[done.worker] += done.seconds
            self.memory = max(self.memory, done.memory)
            return done

        self.begin()
        monkeypatch.setattr(batches, "_came", back)
        monkeypatch.setattr(connect.Cluster, "submit", sent)

    def begin(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.there = self.back = self.memory = 0


@pytest.mark.timeout(3600)
def test_two_workers_do_nearly_twice_as_much_as_one(tmp_path, monkeypatch, make_member) -> None:
    if cpus() < 2:
        pytest.skip("two workers need two processors")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    watch = Watch(monkeypatch)
    simulate(SimulateSettings(out=tmp_path / "data", train=0, test=FIELDS, size=SIDE))
    member = make_member(size=256)

    def run(name: str, cluster: str | None) -> tuple[float, pd.DataFrame]:
        settings = PredictSettings(
            data=tmp_path / "data", members=(member,), out=tmp_path / name / "cells.parquet", batch=4,
            device="cpu", cluster=cluster,
        )  # fmt: skip
        watch.begin()
        begun = time.perf_counter()
        table = predict(settings)
        return time.perf_counter() - begun, pd.read_parquet(table)

    walls, works, tables = {}, {}, {}
    for n in (1, 2):
        with connect._local(n, "cpu") as cluster:
            run(f"warm{n}", cluster.scheduler_address)  # imports, compilers
            walls[n], tables[n] = run(f"by{n}", cluster.scheduler_address)
        works[n] = max(watch.seconds.values())
        print(
            f"\n{n} workers: {walls[n]:.1f} s by wall, {works[n]:.1f} processor seconds of the busiest, "
            f"{sum(watch.seconds.values()) / FIELDS:.2f} of a field; {watch.memory / 2**30:.2f} GiB of a "
            f"worker; {watch.there / FIELDS:.0f} bytes a field there, {watch.back / FIELDS:.0f} back"
        )
    torch.set_num_threads(2)
    run("warm", None)
    alone, _ = run("alone", None)
    print(f"without a cluster, two threads: {alone:.1f} s by wall")
    wall, work = walls[1] / walls[2], works[1] / works[2]
    print(f"two workers against one: {wall:.2f} x by wall, {work:.2f} x by processor seconds")
    pd.testing.assert_frame_equal(tables[1], tables[2], check_exact=True)
    assert work >= 1.8
    assert wall >= 1.6


@pytest.mark.timeout(3600)
def test_what_batches_take_beside_the_work(tmp_path) -> None:
    class Nothing:  # a job that gives back at once as much as a field's rows are
        paths = ()

        def load(self, threads):
            return lambda items: [(item.id, "x" * ROWS_BYTES) for item in items]

    items = [[Item(f"{8 * k + j:032x}") for j in range(8)] for k in range(BATCHES)]
    with connected("local:1", "nothing", None) as workers:
        list(done_by_workers("nothing", workers, Nothing(), items[:8]))
        begun, own = time.perf_counter(), time.process_time()
        found = sum(1 for _ in done_by_workers("nothing", workers, Nothing(), items))
        own, wall = time.process_time() - own, time.perf_counter() - begun
    print(
        f"\nbatches of 8 fields: {1000 * own / BATCHES:.1f} ms of a processor each where command and "
        f"scheduler run, {BATCHES / wall:.0f} a second by one worker"
    )
    before, path = resident(), tmp_path / "journal"
    with Journal(path) as journal:
        journal.resume("", {})
        begun = time.process_time()
        for number in range(RESULTS):
            seconds = dict.fromkeys(PARTS, number / 7)
            facts = {
                "size": (2048, 2048),
                "made": True,
                "actual": (2048, 2048),
                "cells": 20,
                "seconds": seconds,
            }
            journal.add(f"{number:032x}", "x" * ROWS_BYTES, stamp=f"{number:032X}", **facts)
        took, grown = time.process_time() - begun, resident() - before
    begun = time.process_time()
    with Journal(path) as journal:
        stamps = {f"{number:032x}": f"{number:032X}" for number in range(RESULTS)}
        assert journal.resume("", stamps) == RESULTS
    print(
        f"results kept: {1e6 * took / RESULTS:.0f} µs, {path.stat().st_size / RESULTS:.0f} bytes on disk "
        f"and {grown / RESULTS:.0f} in memory each; taken up again in "
        f"{1e6 * (time.process_time() - begun) / RESULTS:.0f} µs"
    )
    assert found == 8 * BATCHES


def resident() -> int:
    return 1024 * int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1])
