"""Where time goes, and how long it will take."""

import logging
import subprocess
import sys

import pytest

from hpa_kit.timing import Forecast, Stopwatch, duration


def taking(clock, items, seconds: float):
    for item in items:
        clock.seconds += seconds
        yield item


def test_a_part_gets_its_own_time_not_that_of_what_it_pulls_from(clock) -> None:
    watch = Stopwatch(clock)
    read = watch.watch("reading", taking(clock, range(5), 2))
    cells = watch.watch("cells", taking(clock, read, 3))
    for _ in cells:
        clock.seconds += 100  # whoever wants the items has a time of its own
    assert watch.seconds == {"reading": 10, "cells": 15}


def test_watching_changes_no_item_and_closes_what_it_watches(clock) -> None:
    closed = []

    def items():
        try:
            yield from "abc"
        finally:
            closed.append(True)

    watched = Stopwatch(clock).watch("x", items())
    assert next(watched) == "a"
    watched.close()
    assert closed == [True]


def say(caplog) -> list[str]:
    return [record.message for record in caplog.records]


def test_the_forecast_is_said_once_and_without_the_slow_start(clock, caplog) -> None:
    with caplog.at_level(logging.INFO):
        forecast = Forecast("segment", 1000, warmup=10, now=clock)
        for k in range(100):
            clock.seconds += 50 if k < 10 else 2
            forecast.add(1)
            assert len(say(caplog)) == (k >= 19)
    assert say(caplog)[0].startswith("segment: expect 41 min for 1000 fields, 2 s each; memory ")


def test_a_short_run_says_what_it_took(clock, caplog) -> None:
    with caplog.at_level(logging.INFO):
        forecast = Forecast("infer", 3, warmup=8, now=clock, note="; 8.5 h allowed")
        clock.seconds = 12
        forecast.add(3, {"members": 4.0})
    assert say(caplog)[0].startswith("infer: expect 12 s for 3 fields, 4 s each (members 4); memory ")
    assert say(caplog)[0].endswith("GiB; 8.5 h allowed")


def test_nothing_to_do_needs_no_forecast(clock, caplog) -> None:
    with caplog.at_level(logging.INFO):
        Forecast("infer", 0, now=clock).add(0)
    assert say(caplog) == []


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (40.4, "40 s"), (100, "2 min"), (3600, "60 min"), (30600, "8.5 h")]
)
def test_durations_are_said_as_people_say_them(seconds, text) -> None:
    assert duration(seconds) == text


def test_the_most_memory_held_is_at_least_what_is_held() -> None:
    """In a process of its own: one that has held much would have to hold more."""
    code = (
        "from hpa_kit.timing import peak_memory\n"
        "held = bytearray(b'1') * (peak_memory() + 2**24)\n"
        "assert peak_memory() >= len(held)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
