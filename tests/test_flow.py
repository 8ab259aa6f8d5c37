"""Work on streams of items."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from hpa_kit.flow import Background, run_ahead


def drained(background: Background) -> list:
    items = []
    while (item := background.get(5)) is not None:
        items.append(item)
    return items


def test_a_background_gives_all_items_in_order() -> None:
    assert drained(Background(iter(range(1, 50)))) == list(range(1, 50))


def test_a_background_works_while_nobody_asks() -> None:
    pulled = []

    def items():
        for k in range(1, 9):
            pulled.append(k)
            yield k

    background = Background(items(), most=2)
    assert background.get(5) == 1
    ends = time.monotonic() + 5
    while len(pulled) < 4 and time.monotonic() < ends:
        time.sleep(0.01)
    time.sleep(0.1)
    assert pulled == [1, 2, 3, 4]  # two ready, one in hand
    assert drained(background) == [2, 3, 4, 5, 6, 7, 8]
    assert background.get(5) is None


def test_what_the_iterator_raises_reaches_whoever_asks() -> None:
    def items():
        yield 1
        raise ValueError("by hand")

    background = Background(items())
    assert background.get(5) == 1
    for _ in range(2):
        with pytest.raises(ValueError, match="by hand"):
            background.get(5)


def test_waiting_for_an_item_has_an_end() -> None:
    release = threading.Event()

    def items():
        release.wait(10)
        yield 1

    background = Background(items())
    with pytest.raises(TimeoutError):
        background.get(0.01)
    release.set()
    assert background.get(5) == 1


def test_closing_closes_the_iterator_in_its_thread() -> None:
    closed = []

    def items():
        try:
            while True:
                yield 1
        finally:
            closed.append(threading.current_thread().name)

    background = Background(items())
    background.get(5)
    background.close()
    assert closed == ["background"]


def test_what_nobody_wants_any_more_is_not_begun() -> None:
    begun = []

    def work(item: int) -> int:
        begun.append(item)
        time.sleep(0.02)
        return item

    with ThreadPoolExecutor(1) as pool:
        results = run_ahead(pool, work, range(100), 50)
        next(results)
        results.close()
    assert len(begun) < 10
