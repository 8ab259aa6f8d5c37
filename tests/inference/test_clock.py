"""Inference against the clock, which tests turn by hand: nothing depends on how busy the machine is."""

import logging
import threading
from concurrent.futures import Future

import cv2
import numpy as np
import pytest

from hpa_kit.config import InferSettings, make_settings, write_ensemble
from hpa_kit.errors import InputError
from hpa_kit.flow import Background
from hpa_kit.inference import Ensemble, ensemble, infer, stream
from hpa_kit.inference.growing_table import read_seconds, seconds_of
from hpa_kit.submission import check_submission, read_submission


class Inline:
    """A background that pulls only when asked."""

    def __init__(self, items, ahead: int = 1) -> None:
        self.items = items

    def get(self, seconds: float | None = None):
        return next(self.items, None)

    def __iter__(self):
        return self.items

    def close(self, seconds: float | None = None) -> None:
        self.items.close()


class InlinePool:
    """A pool of threads that has none: what it is given is done at once, before anything else is."""

    def __init__(self, *_) -> None:
        pass

    def __enter__(self) -> "InlinePool":
        return self

    def __exit__(self, *_) -> None:
        pass

    def submit(self, function, *arguments) -> Future:
        future = Future()
        try:
            future.set_result(function(*arguments))
        except BaseException as error:
            future.set_exception(error)
        return future


@pytest.fixture
def fields(competition, cells):
    """Sixteen small fields with a sample."""
    for k in range(16):
        competition.add(f"f{k:02d}", cells(64, 64, 32), seed=k)
    competition.write_sample()
    return competition


def settings(competition, member, **changes) -> InferSettings:
    values = {
        "data": competition.root,
        "members": (member,),
        "out": competition.root / "out" / "submission.csv",
        "masks": competition.masks,
        "rule": "copied",
        "map_size": 128,
        "batch": 2,
        "device": "cpu",
    } | changes
    return make_settings(InferSettings, values)


def found(competition) -> int:
    """How many rows of the CSV find something; Kaggle takes them all."""
    out = competition.root / "out" / "submission.csv"
    assert check_submission(out, competition.root / "sample_submission.csv") == []
    texts = read_submission(out)["PredictionString"]
    return sum(len(set(text.split()[2::3])) == 4 for text in texts)


def slow_members(monkeypatch, clock, seconds) -> list:
    """Let members take simulated seconds per field, by level; returns the levels as they were used.

    A device then does its parts one after another, so that seconds of one are no other's too.
    """
    monkeypatch.setattr(stream, "Background", Inline)
    monkeypatch.setattr(stream, "ThreadPoolExecutor", InlinePool)
    look, used = Ensemble.predict, []

    def slow(self, inputs):
        used.append(self.level)
        clock.seconds += seconds(self.level) * len(inputs)
        return look(self, inputs)

    monkeypatch.setattr(Ensemble, "predict", slow)
    return used


def test_with_time_enough_all_views_are_looked_at(fields, member, clock, monkeypatch) -> None:
    used = slow_members(monkeypatch, clock, lambda level: 10)
    infer(settings(fields, member, budget=1.0), now=clock)
    assert found(fields) == 16
    assert {level.views for level in used} == {0}


def test_with_less_time_views_are_given_up_and_every_field_is_done(
    fields, member, clock, monkeypatch, caplog
) -> None:
    used = slow_members(monkeypatch, clock, lambda level: 30 if level.views == 0 else 10)
    with caplog.at_level(logging.INFO):
        infer(settings(fields, member, budget=300 / 3600), now=clock)
    assert found(fields) == 16
    assert clock() <= 300
    assert {level.views for level in used} == {0, 2}
    assert "no views" in caplog.text


def test_members_of_least_weight_go_first_where_settings_say_so(
    fields, make_member, clock, monkeypatch
) -> None:
    runs = (make_member(seed=1), make_member(seed=2))
    used = slow_members(monkeypatch, clock, lambda level: 15 * level.members)
    infer(settings(fields, None, members=runs, budget=320 / 3600, give_up="members"), now=clock)
    assert found(fields) == 16
    assert {level.members for level in used} == {1, 2}
    assert {level.views for level in used} == {0}
    assert {level.map_size for level in used} == {128}


def test_where_only_the_maps_can_get_smaller_they_do_and_every_field_is_done(
    fields, member, clock, monkeypatch, caplog
) -> None:
    used = slow_members(monkeypatch, clock, lambda level: 40 * (level.map_size / 512) ** 2 + 1)
    chosen = settings(fields, member, budget=240 / 3600, give_up="map_size", map_size=512, views="none")
    with caplog.at_level(logging.INFO):
        infer(chosen, now=clock)
    assert found(fields) == 16
    assert clock() <= 240
    assert {level.map_size for level in used} == {512, 256}
    assert "maps of 256 px" in caplog.text
    assert "not reached" not in caplog.text


def test_maps_get_as_small_as_they_may_before_fields_are_left_out(fields, member, clock, monkeypatch) -> None:
    """However little their pixels cost beside those that the members read."""
    monkeypatch.setattr(ensemble, "MAP_PIXEL", 1e-9)
    used = slow_members(monkeypatch, clock, lambda level: 40 * level.map_size / 512)
    infer(settings(fields, member, budget=300 / 3600, map_size=512, views="none"), now=clock)
    assert found(fields) == 16
    assert {level.map_size for level in used} == {512, 256, 128}


def test_where_nothing_may_be_given_up_the_last_fields_find_nothing(
    fields, member, clock, monkeypatch, caplog
) -> None:
    used = slow_members(monkeypatch, clock, lambda level: 30)
    infer(settings(fields, member, budget=200 / 3600, give_up=()), now=clock)
    assert found(fields) == 5
    assert clock() == 5 * 30  # the next batch, of two, would end after 210 s
    assert len(set(used)) == 1
    assert "were not reached" in caplog.text


def test_a_gpu_too_slow_for_anything_still_gives_a_whole_csv(fields, member, clock, monkeypatch) -> None:
    slow_members(monkeypatch, clock, lambda level: 1000)
    infer(settings(fields, member, budget=500 / 3600), now=clock)
    assert found(fields) == 1
    assert clock() <= 500 + 1000


def test_a_slow_disk_costs_the_last_fields_not_the_views(fields, member, clock, monkeypatch) -> None:
    used = slow_members(monkeypatch, clock, lambda level: 1)
    prepared = stream.load_or_segment

    def slow(ids, *arguments):
        for item in prepared(ids, *arguments):
            clock.seconds += 40
            yield item

    monkeypatch.setattr(stream, "load_or_segment", slow)
    infer(settings(fields, member, budget=400 / 3600), now=clock)
    assert found(fields) == 7  # nine of 41 s would fit, of which two are read ahead when time is up
    assert clock() <= 400 + 2 * 41
    assert {level.views for level in used} == {0}


def test_time_that_is_spent_before_counts(fields, member, clock, monkeypatch) -> None:
    slow_members(monkeypatch, clock, lambda level: 1)
    with pytest.raises(InputError, match="there was no time for any"):
        infer(settings(fields, member, budget=1.0, spent=1.0), now=clock)
    assert found(fields) == 0


def test_fields_left_for_want_of_time_are_done_by_the_next_call(
    fields, member, clock, monkeypatch, caplog
) -> None:
    slow_members(monkeypatch, clock, lambda level: 30)
    chosen = settings(fields, member, budget=200 / 3600, give_up=())
    infer(chosen, now=clock)
    done = [found(fields)]
    while done[-1] < 16 and len(done) < 9:
        infer(chosen, now=clock)
        done.append(found(fields))
    assert done == sorted(set(done))
    assert done[-1] == 16
    assert {path.name for path in chosen.out.parent.iterdir()} == {
        "submission.csv",
        "submission_seconds.yaml",
    }
    taken = read_seconds(seconds_of(chosen.out))["members"]
    assert (taken.seconds_per_field, taken.fields) == (30, 16)


def test_a_disk_that_hangs_is_not_waited_for_beyond_the_end(
    fields, member, clock, monkeypatch, patience
) -> None:
    released, waited = threading.Event(), []
    prepared = stream.load_or_segment

    def hanging(ids, *arguments):
        for k, item in enumerate(prepared(ids, *arguments)):
            if k == 4:
                clock.seconds += 3600
                waited.append(released.wait(patience))
            yield item

    monkeypatch.setattr(stream, "load_or_segment", hanging)
    close = Background.close
    monkeypatch.setattr(Background, "close", lambda self, seconds=5.0: close(self, 0.0 if seconds else None))
    try:
        infer(settings(fields, member, budget=1.0), now=clock)
        assert waited == []  # it hangs still
        assert clock() == 3600
        assert found(fields) <= 4
    finally:
        released.set()


def test_what_it_expects_to_take_is_said_once(fields, member, clock, monkeypatch, caplog) -> None:
    slow_members(monkeypatch, clock, lambda level: 90)
    with caplog.at_level(logging.INFO):
        infer(settings(fields, member, budget=8.5), now=clock)
    lines = [record.message for record in caplog.records if "expect" in record.message]
    assert len(lines) == 1
    assert "infer: expect 24 min for 16 fields, 90 s each" in lines[0]
    assert "members 90" in lines[0]
    assert "GiB" in lines[0]
    assert "8.5 h allowed" in lines[0]


def test_a_field_on_which_the_members_fail_costs_no_other(fields, member, monkeypatch, caplog) -> None:
    look, calls = Ensemble.predict, []

    def brittle(self, inputs):
        calls.append(len(inputs))
        if any(int(one.fields[64].astype(int).sum()) == poison for one in inputs):
            raise RuntimeError("cuDNN error by hand")
        return look(self, inputs)

    planes = [cv2.imread(str(fields.test / f"f05_{c}.png"), 0) for c in ("red", "green", "blue", "yellow")]
    poison = int(np.stack(planes).astype(int).sum())
    monkeypatch.setattr(Ensemble, "predict", brittle)
    infer(settings(fields, member))
    assert found(fields) == 15
    assert "f05 finds nothing: RuntimeError: cuDNN error by hand" in caplog.text
    assert calls.count(1) == 2 + 2  # its batch one by one, and the batches at both ends


def test_a_broken_device_is_left_alone_and_what_was_found_stays(fields, member, monkeypatch, caplog) -> None:
    look, calls = Ensemble.predict, []

    def breaks(self, inputs):
        calls.append(len(inputs))
        if len(calls) > 2:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return look(self, inputs)

    monkeypatch.setattr(Ensemble, "predict", breaks)
    infer(settings(fields, member))
    assert found(fields) == 3
    assert "cpu failed on 3 batches in a row" in caplog.text
    assert len(calls) == 2 + 3 * 3


def test_two_devices_share_the_fields_and_change_nothing(fields, member, monkeypatch, patience) -> None:
    """While one device looks at its first batch the other has work left; what is read ahead is kept small."""
    chosen = settings(fields, member, batch=1, workers=1)
    alone = infer(chosen).read_bytes()
    look, by, both = Ensemble.predict, {}, threading.Barrier(2)

    def together(self, inputs):
        if id(self) not in by:
            by[id(self)] = 0
            both.wait(patience)
        by[id(self)] += len(inputs)
        return look(self, inputs)

    monkeypatch.setattr("hpa_kit.cells.segmenters.READ_AHEAD", 1)
    monkeypatch.setattr(Ensemble, "predict", together)
    assert infer(chosen.model_copy(update={"device": "cpu,cpu"})).read_bytes() == alone
    assert len(by) == 2
    assert sum(by.values()) == 16


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"members": ()}, "no members; give members .* or ensemble"),
        ({"ensemble": "e.yaml"}, "both members and ensemble"),
        ({"members": (), "ensemble": "gone.yaml"}, r"gone\.yaml is missing"),
        ({"budget": 0}, "budget"),
        ({"give_up": "views,views"}, "once at most"),
        ({"give_up": "fields"}, "give_up"),
        ({"device": "gpu"}, "'gpu' cannot be used"),
        ({"device": ","}, "names no device"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(fields, member, changes, message) -> None:
    with pytest.raises(InputError, match=message):
        infer(settings(fields, member, **changes))


def test_an_ensemble_yaml_gives_what_its_members_would(fields, member, tmp_path) -> None:
    out = infer(settings(fields, member, map_size=64, rule="mean_logit"))
    expected = out.read_bytes()
    chosen = settings(fields, member, map_size=64, rule="mean_logit").of_ensemble()
    write_ensemble(chosen, tmp_path / "e.yaml")
    short = {"data": fields.root, "ensemble": tmp_path / "e.yaml", "out": out, "batch": 2, "device": "cpu"}
    assert infer(make_settings(InferSettings, short)).read_bytes() == expected
    other = infer(make_settings(InferSettings, short | {"rule": "copied"}))
    assert other.read_bytes() != expected
