"""Work on streams of items."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from hpa_kit.flow import Background, run_ahead


def drained(background: Background, patience: float) -> list:
    items = []
    while (item := background.get(patience)) is not None:
        items.append(item)
    return items


def test_a_background_gives_all_items_in_order(patience) -> None:
    assert drained(Background(iter(range(1, 50))), patience) == list(range(1, 50))


def test_a_background_works_while_nobody_asks_and_no_further_ahead_than_it_may(patience) -> None:
    asked, ahead, fourth = [], [], threading.Event()

    def items():
        for k in range(1, 9):
            ahead.append(k - len(asked))
            if k == 4:
                fourth.set()
            yield k

    background = Background(items(), ahead=3)
    asked.append(1)
    assert background.get(patience) == 1
    assert fourth.wait(patience)
    for expected in range(2, 9):
        asked.append(expected)
        assert background.get(patience) == expected
    assert max(ahead) <= 3
    assert background.get(patience) is None


def test_what_the_iterator_raises_reaches_whoever_asks(patience) -> None:
    def items():
        yield 1
        raise ValueError("by hand")

    background = Background(items())
    assert background.get(patience) == 1
    for _ in range(2):
        with pytest.raises(ValueError, match="by hand"):
            background.get(patience)


def test_waiting_for_an_item_has_an_end(patience) -> None:
    release = threading.Event()

    def items():
        release.wait(patience)
        yield 1

    background = Background(items())
    with pytest.raises(TimeoutError):
        background.get(0.01)
    release.set()
    assert background.get(patience) == 1


def test_an_item_that_nobody_has_taken_keeps_the_next_from_being_begun(patience) -> None:
    begun = []

    def items():
        for k in range(1, 4):
            begun.append(k)
            yield k

    background = Background(items())
    for expected in (1, 2, 3):
        assert background.get(patience) == expected
        assert max(begun) <= expected + 1
    assert background.get(patience) is None


def test_several_iterators_work_side_by_side_and_none_waits_for_another(patience) -> None:
    release = threading.Event()

    def waits():
        release.wait(patience)
        yield "late"

    background = Background(waits(), iter("ab"))
    assert [background.get(patience) for _ in range(2)] == ["a", "b"]
    release.set()
    assert list(background) == ["late"]


def test_what_one_iterator_raises_is_told_while_another_works(patience) -> None:
    release = threading.Event()

    def waits():
        release.wait(patience)
        yield 1

    def raises():
        raise ValueError("by hand")
        yield 1

    background = Background(waits(), raises())
    with pytest.raises(ValueError, match="by hand"):
        background.get(patience)
    release.set()
    background.close(patience)


def test_closing_closes_the_iterator_in_its_thread(patience) -> None:
    closed = []

    def items():
        try:
            while True:
                yield 1
        finally:
            closed.append(threading.current_thread().name)

    background = Background(items())
    background.get(patience)
    background.close(patience)
    assert closed == ["background"]


def test_work_is_taken_so_far_ahead_of_what_is_wanted_and_no_further() -> None:
    taken = []

    def items():
        for k in range(20):
            taken.append(k)
            yield k

    with ThreadPoolExecutor(2) as pool:
        for k, result in enumerate(run_ahead(pool, str, items(), 5)):
            assert result == str(k)
            assert len(taken) == min(20, k + 1 + 5)


def test_what_nobody_wants_any_more_is_not_begun(patience) -> None:
    begun, closed = [], threading.Event()

    def work(item: int) -> int:
        begun.append(item)
        if item:
            closed.wait(patience)
        return item

    with ThreadPoolExecutor(1) as pool:
        results = run_ahead(pool, work, range(100), 50)
        assert next(results) == 0
        results.close()
        closed.set()
    assert begun in ([0], [0, 1])
