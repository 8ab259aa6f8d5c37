"""Batches for workers: each field once, what a worker dies of told as failed, what is no job at once."""

import logging
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import cv2
import pytest

from hpa_kit.cluster import Item, done_by_workers, worker
from hpa_kit.cluster.worker import Done, Refused, Task, do_batch, versions
from hpa_kit.errors import InputError
from hpa_kit.flow import Failure


class Squares:
    """A job that squares the number of each field."""

    paths: Sequence[Path] = ()

    def load(self, threads):
        return lambda items: [(item.id, item.more**2) for item in items]


@dataclass
class Reads:
    """A job that says of each field what its member says."""

    member: Path

    @property
    def paths(self) -> Sequence[Path]:
        return [self.member]

    def load(self, threads):
        said = self.member.read_text()
        return lambda items: [(item.id, said) for item in items]


class Died(Exception):
    """What a scheduler says of a batch at which workers died."""


class Processes:
    """Workers in name only: a batch is done when it is sent, and some fields are deadly."""

    def __init__(self, deadly=(), answers=()) -> None:
        self.deadly, self.answers, self.sent = set(deadly), list(answers), []

    def submit(self, function, task):
        self.sent.append([item.id for item in task.items])
        future: Future = Future()
        if self.answers:
            answer = self.answers.pop(0)
            future.cancel() if answer == "cancelled" else future.set_result(answer)
        elif self.deadly & {item.id for item in task.items}:
            future.set_exception(Died())
        else:
            future.set_result(function(task))
        return future

    def count(self) -> int:
        return 2

    def death(self, error):
        return "its worker died" if isinstance(error, Died) else None


def batches(*sizes):
    numbers = iter(range(sum(sizes)))
    return [[Item(f"f{k}", k) for k in (next(numbers) for _ in range(size))] for size in sizes]


@pytest.fixture(autouse=True)
def as_before(monkeypatch, one_thread):
    """Nothing is loaded, and what a worker does to its process is undone."""
    monkeypatch.setattr(worker, "_LOADED", {})
    threads = cv2.getNumThreads()
    yield
    cv2.setNumThreads(threads)


def test_every_field_comes_once_with_what_the_job_makes_of_it() -> None:
    workers = Processes()
    found = list(done_by_workers("test", workers, Squares(), batches(1, 2, 3)))
    assert found == [(f"f{k}", k * k) for k in range(6)]
    assert workers.sent == [["f0"], ["f1", "f2"], ["f3", "f4", "f5"]]


def test_a_batch_at_which_workers_die_is_taken_apart_and_the_field_told_as_failed(caplog) -> None:
    workers = Processes(deadly=["f4"])
    with caplog.at_level(logging.WARNING):
        found = dict(done_by_workers("test", workers, Squares(), batches(3, 3, 3)))
    assert found.pop("f4") == Failure("its worker died")
    assert found == {f"f{k}": k * k for k in range(9) if k != 4}
    assert sorted(map(len, workers.sent)) == [1, 1, 1, 3, 3, 3]
    assert "3 fields from f3 on: its worker died; each is tried alone" in caplog.text


class OneWorker(Processes):
    """What is sent waits at one worker until nobody sends more; where any of it is deadly, all of it dies."""

    def __init__(self, deadly) -> None:
        super().__init__(deadly)
        self._waiting, self._asked = [], 0

    def submit(self, function, task):
        self._waiting.append((future := Future(), function, task))
        self.sent.append([item.id for item in task.items])
        self._asked = 0
        return future

    def count(self) -> int:
        self._asked += 1
        if self._asked > 1:
            waiting, self._waiting = self._waiting, []
            dies = self.deadly & {item.id for _, _, task in waiting for item in task.items}
            for future, function, task in waiting:
                future.set_exception(Died()) if dies else future.set_result(function(task))
        return 2


@pytest.mark.parametrize("size", [1, 3])
def test_a_field_that_waits_where_another_ends_the_worker_is_not_blamed(size, monkeypatch) -> None:
    monkeypatch.setattr("hpa_kit.cluster.batches.POLL_SECONDS", 0.001)
    workers = OneWorker(deadly=["f4"])
    found = dict(done_by_workers("test", workers, Squares(), batches(*[size] * (6 // size))))
    assert found.pop("f4") == Failure("its worker died")
    assert found == {f"f{k}": k * k for k in range(6) if k != 4}


def test_a_fault_of_a_job_in_a_batch_costs_the_field_that_has_it() -> None:
    class Divides(Squares):
        def load(self, threads):
            return lambda items: [(item.id, 12 // item.more) for item in items]

    found = dict(done_by_workers("test", Processes(), Divides(), batches(3)))
    assert found["f0"].reason.startswith("ZeroDivisionError")
    assert (found["f1"], found["f2"]) == (12, 6)


def test_a_job_that_cannot_be_loaded_ends_at_once() -> None:
    class Lacks(Squares):
        def load(self, threads):
            raise InputError("members: run is missing")

    workers = Processes()
    with pytest.raises(InputError, match="test: worker here: members: run is missing"):
        list(done_by_workers("test", workers, Lacks(), batches(1, 1, 1, 1)))
    assert len(workers.sent) <= 2


def test_a_job_is_loaded_once_by_a_worker() -> None:
    loads = []

    class Counts(Squares):
        def load(self, threads):
            loads.append(threads)
            return super().load(threads)

    task = Task("1", worker_pickle(Counts()), versions(), [Item("f3", 3)])
    first, second = do_batch(task), do_batch(task)
    assert isinstance(first, Done) and isinstance(second, Done)
    assert (first.loaded, second.loaded) == (True, False)
    assert first.results == second.results == {"f3": 9}


def test_a_command_that_is_given_again_loads_what_its_paths_name_now(tmp_path) -> None:
    found, member = [], tmp_path / "member"
    for said in ("before", "trained anew"):
        member.write_text(said)
        found += done_by_workers("test", Processes(), Reads(member), batches(1))
    assert found == [("f0", "before"), ("f0", "trained anew")]


def worker_pickle(job) -> bytes:
    import cloudpickle

    return cloudpickle.dumps(job)


def test_what_a_worker_warns_of_is_said_where_the_command_runs_once(caplog) -> None:
    class Warns(Squares):
        def load(self, threads):
            def work(items):
                logging.getLogger("hpa_kit.cells").warning("a dark field")
                return [(item.id, 0) for item in items]

            return work

    with caplog.at_level(logging.WARNING):
        list(done_by_workers("test", Processes(), Warns(), batches(1, 1, 1)))
    assert [text for text in caplog.messages if "dark" in text] == ["a dark field"]


def test_a_worker_of_another_environment_is_refused_or_said() -> None:
    task = Task(
        "1", worker_pickle(Squares()), versions() | {"hpa-kit": "0.1", "torch": "0.2"}, [Item("f1", 1)]
    )
    refused = do_batch(task)
    assert isinstance(refused, Refused) and "hpa-kit" in refused.reason and "(here 0.1)" in refused.reason
    done = do_batch(task._replace(versions=versions() | {"torch": "0.2"}))
    assert isinstance(done, Done) and "(here 0.2): its numbers may differ" in done.said[0][1]


def test_a_worker_that_does_not_see_the_data_is_refused(tmp_path) -> None:
    class Elsewhere(Squares):
        paths = (tmp_path / "data",)

    refused = do_batch(Task("1", worker_pickle(Elsewhere()), versions(), [Item("f1", 1)]))
    assert isinstance(refused, Refused) and f"does not see {tmp_path / 'data'}" in refused.reason


def test_a_batch_that_somebody_cancels_is_sent_again_but_not_for_ever() -> None:
    once = Processes(answers=["cancelled"])
    assert dict(done_by_workers("test", once, Squares(), batches(2))) == {"f0": 0, "f1": 1}
    with pytest.raises(InputError, match="others on this cluster cancel"):
        list(done_by_workers("test", Processes(answers=["cancelled"] * 9), Squares(), batches(2)))


def test_a_job_and_its_ids_are_small_on_the_network() -> None:
    import pickle

    from hpa_kit.cells.segment import SegmentJob
    from hpa_kit.config import SegmentSettings

    job = SegmentJob(SegmentSettings(data="/data", out="/out"), Path("/data/test"), {})
    task = Task("1", worker_pickle(job), versions(), [Item(f"{k:032x}") for k in range(8)])
    assert len(pickle.dumps(task)) < 4000
