"""The clock, on simulated time: parts that overlap, disks and GPUs that are as slow as a test wants them."""

import pytest

from hpa_kit.inference.deadline import BatchSeconds, Budget, Deadline

COSTS = (9.0, 3.0, 1.0, 0.5)  # all views, flips, one view, half the members
BATCH = 8


class Machine:
    """Does fields in simulated seconds as a device does: the parts overlap, so the slowest decides."""

    def __init__(self, read: float, per_cost: float, scoring: float = 0.05) -> None:
        self.now, self.read, self.per_cost, self.scoring = 0.0, read, per_cost, scoring
        self.levels: list[int] = []
        self.begun: list[float] = []

    def run(self, deadline: Deadline, fields: int) -> int:
        """How many fields were done before the deadline said that it is enough."""
        done = 0
        while done < fields:
            some = min(BATCH, fields - done)
            asked = self.now
            self.now += (
                max(0.0, self.read - (self.member(deadline.level) if done else 0)) * some
            )  # waits for the disk
            level = deadline.choose(some)
            if level is None:
                break
            self.begun.append(self.now)
            looked = self.member(level) * some
            self.now += looked
            self.levels.append(level)
            deadline.add(
                level,
                some,
                some,
                BatchSeconds(self.read * some, looked, self.scoring * some, self.now - asked),
            )
            done += some
        return done

    def member(self, level: int) -> float:
        return self.per_cost * COSTS[level]

    def longest_batch(self) -> float:
        return max(self.read, self.member(0)) * BATCH


def run(machine: Machine, fields: int, seconds: float, devices: int = 1) -> tuple[int, Deadline]:
    deadline = Deadline(Budget(seconds, now=lambda: machine.now), fields, COSTS, devices)
    return machine.run(deadline, fields), deadline


def test_where_there_is_time_nothing_is_given_up() -> None:
    machine = Machine(read=0.5, per_cost=1.0)
    assert run(machine, 400, seconds=4000)[0] == 400
    assert set(machine.levels) == {0}


def test_twice_the_fields_are_done_in_the_same_time_with_less_for_each() -> None:
    for fields in (400, 800, 1600, 3200):
        machine = Machine(read=0.1, per_cost=1.0)
        assert run(machine, fields, seconds=4000)[0] == fields
        assert machine.now <= 4000
    assert max(machine.levels) == 2


def test_as_much_is_done_as_there_is_time_for() -> None:
    machine = Machine(read=0.1, per_cost=1.0)
    run(machine, 800, seconds=4000)
    assert machine.now > 3000  # all in flips would have taken 2400
    assert {0, 1} <= set(machine.levels)


def test_a_gpu_too_slow_for_the_least_does_what_it_can_and_stops_in_time() -> None:
    machine = Machine(read=0.1, per_cost=40.0)
    done, _ = run(machine, 400, seconds=4000)
    assert 0 < done < 400
    assert machine.now <= 4000
    assert machine.levels[-1] == 3


def test_a_slow_disk_is_no_reason_to_give_views_up() -> None:
    machine = Machine(read=20.0, per_cost=1.0)
    done, _ = run(machine, 400, seconds=4000)
    assert 150 < done < 400
    assert set(machine.levels) == {0}
    assert machine.now <= 4000 + machine.read * BATCH


@pytest.mark.parametrize("seconds", [1.0, 5.0, 60.0])
@pytest.mark.parametrize(("read", "per_cost"), [(0.01, 0.01), (3.0, 0.1), (0.1, 3.0), (10.0, 10.0)])
def test_the_end_is_never_missed_by_more_than_a_batch(seconds, read, per_cost) -> None:
    machine = Machine(read, per_cost)
    run(machine, 1000, seconds)
    assert machine.now <= seconds + machine.longest_batch()
    assert all(begun < seconds for begun in machine.begun)


def test_a_machine_that_gets_slower_is_noticed() -> None:
    machine = Machine(read=0.1, per_cost=0.1)
    deadline = Deadline(Budget(1200, now=lambda: machine.now), 1000, COSTS)
    assert machine.run(deadline, 200) == 200
    assert set(machine.levels) == {0}
    machine.per_cost = 0.5
    assert machine.run(deadline, 800) == 800
    assert machine.now <= 1200
    assert max(machine.levels) >= 1


def test_what_was_given_up_comes_back_when_time_allows() -> None:
    machine = Machine(read=0.01, per_cost=1.0)
    deadline = Deadline(Budget(2000, now=lambda: machine.now), 600, COSTS)
    machine.run(deadline, 200)
    assert machine.levels[-1] >= 1
    machine.per_cost = 0.1
    machine.run(deadline, 400)
    assert machine.levels[-1] == 0


def test_a_slow_first_batch_does_not_decide() -> None:
    machine = Machine(read=0.1, per_cost=10.0)
    deadline = Deadline(Budget(4000, now=lambda: machine.now), 400, COSTS)
    machine.run(deadline, BATCH)
    machine.per_cost = 0.5
    machine.run(deadline, 392)
    assert machine.levels[-1] == 0


def test_two_devices_have_time_for_more() -> None:
    one, two = Machine(read=0.1, per_cost=1.0), Machine(read=0.1, per_cost=1.0)
    # Of two devices the second does as many in the same time, so that one device's share is half.
    run(one, 800, seconds=4000)
    deadline = Deadline(Budget(4000, now=lambda: two.now), 400, COSTS, 1)
    two.run(deadline, 400)
    assert two.levels.count(0) * BATCH == 400
    assert one.levels.count(0) * BATCH < 400
    shared = Deadline(Budget(4000, now=lambda: 0.0), 800, COSTS, 2)
    shared.add(0, 8, 8, BatchSeconds(0.8, 72.0, 0.4, 72.0))
    assert shared.choose(8) == 0
    alone = Deadline(Budget(4000, now=lambda: 0.0), 800, COSTS, 1)
    alone.add(0, 8, 8, BatchSeconds(0.8, 72.0, 0.4, 72.0))
    assert alone.choose(8) == 1


def test_time_that_is_gone_before_counts() -> None:
    assert Budget(100, spent=30, now=lambda: 5.0).left() == 70
    deadline = Deadline(Budget(100, spent=100, now=lambda: 0.0), 10, COSTS)
    assert deadline.choose(8) is None


def test_time_for_the_end_itself_is_kept_back() -> None:
    budget = Budget(100, now=lambda: 0.0)
    budget.reserve = 99
    assert budget.left() == 1


def test_a_batch_of_unreadable_fields_tells_nothing_of_the_members() -> None:
    deadline = Deadline(Budget(4000, now=lambda: 0.0), 800, COSTS)
    deadline.add(0, 8, 8, BatchSeconds(0.8, 72.0, 0.4, 72.0))
    before = deadline.per_field(0)
    deadline.add(0, 8, 0, BatchSeconds(0.1, 0.0, 0.0, 0.1))
    assert deadline.per_field(0) == pytest.approx(before)
    assert deadline.left == 784


SMALLER = (1.0, 0.999, 0.998)  # what little the members' time gets less by


def scored_in(seconds, done: int = 64, budget: float = 400.0) -> Deadline:
    """A deadline after some of 800 fields, of which scoring takes so long at each level."""
    clock = [0.0]
    deadline = Deadline(Budget(budget, now=lambda: clock[0]), 800, SMALLER, scoring_costs=(4.0, 1.0, 0.25))
    before = (0, 0)
    for _ in range(done // BATCH):
        level = deadline.choose(BATCH)
        took = seconds[before[0]] * before[1]
        clock[0] += max(took, 0.1 * BATCH)
        deadline.add(level, BATCH, BATCH, BatchSeconds(0.08, 0.1 * BATCH, took, took, before))
        before = (level, BATCH)
    return deadline


def test_where_scoring_is_slowest_smaller_maps_are_what_saves_time() -> None:
    deadline = scored_in((1.0, 0.3, 0.1))
    assert deadline.level == 1
    assert deadline.expected() < deadline.budget.left()


def test_scores_are_counted_for_the_effort_that_they_were_made_at() -> None:
    deadline = Deadline(Budget(1e9, now=lambda: 0.0), 800, SMALLER, scoring_costs=(4.0, 1.0, 0.25))
    deadline.add(0, 1, 1, BatchSeconds(0.1, 0.1, 0.0, 0.1, (0, 0)))
    for _ in range(2):
        deadline.add(1, 2, 2, BatchSeconds(0.1, 0.1, 8.0, 8.0, (0, 1)))
    assert deadline.parts()["scoring"] == pytest.approx(8.0)  # at full, where the deadline stands
    deadline.level = 1
    assert deadline.parts()["scoring"] == pytest.approx(2.0)


def test_what_costs_say_saves_nothing_is_tried_once_before_fields_are_left_undone() -> None:
    machine = Machine(read=0.01, per_cost=1.0)
    machine.member = lambda level: (10.0, 9.0, 2.0)[level]
    deadline = Deadline(Budget(2000, now=lambda: machine.now), 800, SMALLER)
    assert machine.run(deadline, 800) == 800
    assert machine.levels[:4] == [0, 1, 2, 2]
    assert machine.levels.count(2) > 80


def test_what_was_tried_in_vain_is_not_done_again() -> None:
    machine = Machine(read=0.01, per_cost=1.0)
    machine.member = lambda level: 10.0
    deadline = Deadline(Budget(1000, now=lambda: machine.now), 800, SMALLER)
    assert 80 < machine.run(deadline, 800) < 800
    assert machine.levels.count(1) == machine.levels.count(2) == 1
    assert machine.levels[-1] == 0
