"""A run that its time limit or a kill ends in the middle goes on to the same curve, here or elsewhere."""

import logging
import shutil

import pytest
import torch
from runs_alike import CutOffError, assert_same_run, events_of

from hpa_kit.errors import InputError
from hpa_kit.training import Trainer, find_start, load_member, read_checkpoint, run_folds, train
from hpa_kit.training.clock import Clock, Verdict, Work

NO_TIME = 1e-9  # hours; one step of a session, or one validation, is done in any case
CHANGES = {"drop_rate": 0.3, "ema": 0.9, "epochs": 2, "swa": 0.4}


@pytest.fixture(scope="module")
def undisturbed(make_run_settings, tmp_path_factory):
    """A run with dropout and averaged weights that nothing disturbed."""
    torch.set_num_threads(1)
    return train(make_run_settings(out=tmp_path_factory.mktemp("undisturbed") / "run", **CHANGES))


def finished(run, epochs=CHANGES["epochs"]):
    return read_checkpoint(run / "last.safetensors", only=("epoch",)).state["epoch"] == epochs


def test_sessions_of_one_step_each_end_at_the_same_weights(settings, undisturbed, caplog):
    caplog.set_level(logging.INFO)
    made = settings(time_limit=NO_TIME, **CHANGES)
    steps = [0]
    for _ in range(20):
        run = train(made)
        steps.append(read_checkpoint(run / "last.safetensors", only=("step_number",)).state["step_number"])
        if finished(run):
            break
    assert steps == [0, 1, 2, 3, 3, 4, 5, 6, 6]  # three steps and a validation, twice
    assert_same_run(run, undisturbed)
    assert "stopped by the time limit" in caplog.text and "1 of 3 batches" in caplog.text


def test_a_run_goes_on_from_the_folder_of_an_earlier_session_which_is_only_read(
    settings, undisturbed, tmp_path
):
    earlier, sessions = None, 0
    while earlier is None or not finished(earlier):
        sessions += 1
        out = tmp_path / f"session{sessions}"
        run = train(settings(out=out, resume_from=earlier, time_limit=NO_TIME, **CHANGES))
        before = None if earlier is None else contents(earlier)
        if earlier is not None:
            assert contents(earlier) == before
        for path in run.rglob("*"):
            path.chmod(0o555 if path.is_dir() else 0o444)
        earlier = run
    assert sessions == 8
    assert_same_run(earlier, undisturbed)
    assert (earlier / "folds.csv").read_bytes() == (undisturbed / "folds.csv").read_bytes()
    assert shown_epochs(earlier) == shown_epochs(undisturbed) == [1, 2]


def contents(run):
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def shown_epochs(run):
    return [event.step for event in events_of(run).Scalars("val_loss")]


@pytest.fixture
def three_sessions(settings, tmp_path):
    """Folders of a run after one, two and three steps."""
    made = []
    for number in range(3):
        made.append(tmp_path / f"after{number + 1}")
        if number:
            shutil.copytree(made[number - 1], made[number])
        train(settings(out=made[number], time_limit=NO_TIME, **CHANGES))
    return made


def steps_of(run):
    return read_checkpoint(run / "last.safetensors", only=("step_number",)).state["step_number"]


def test_the_run_that_is_further_wins(settings, three_sessions):
    one, two, three = three_sessions
    before = contents(two)
    train(settings(out=three, resume_from=two, time_limit=NO_TIME, **CHANGES))  # validates after three steps
    assert finished(three, epochs=1)
    train(settings(out=one, resume_from=two, time_limit=NO_TIME, **CHANGES))
    assert steps_of(one) == 3
    assert contents(two) == before


def test_where_a_run_will_go_on_from_is_told_and_nothing_is_written(settings, three_sessions, tmp_path):
    one, two, three = three_sessions
    before = [contents(run) for run in three_sessions]

    def told(**changes):
        return find_start(settings(**CHANGES, **changes))

    assert str(told(out=tmp_path / "none")) == "nothing"
    assert str(told(out=two)) == f"{two} (epochs done: 0, steps: 2)"
    assert told(out=one, resume_from=three).folder == told(out=tmp_path / "none", resume_from=three).folder
    assert told(out=one, resume_from=three) == (three, 0, 3, three / "folds.csv")
    assert told(out=three, resume_from=two) == (three, 0, 3, three / "folds.csv")
    # The folds of the run that is gone on from are those that it has, whatever the next would make.
    table = (one / "folds.csv").read_text()
    (three / "folds.csv").write_text(
        table.replace(",0\n", ",9\n").replace(",1\n", ",0\n").replace(",9\n", ",1\n")
    )
    first = run_folds(settings(out=tmp_path / "none", **CHANGES))["fold"]
    taken = run_folds(settings(out=tmp_path / "none", resume_from=three, **CHANGES))["fold"]
    assert taken.tolist() == first.map({0: 1, 1: 0, 2: 2, 3: 3}).tolist()
    (three / "folds.csv").write_text(table)
    assert [contents(run) for run in three_sessions] == before
    assert not (tmp_path / "none").exists()
    with pytest.raises(
        InputError, match=r"lr 0\.001 \(now 0\.5\); give these again to go on, or no resume_from"
    ):
        told(out=tmp_path / "none", resume_from=three, lr=0.5)


def test_a_finished_run_is_taken_over_whole(settings, undisturbed):
    run = train(settings(resume_from=undisturbed, **CHANGES))
    assert run != undisturbed
    assert_same_run(run, undisturbed)
    assert torch.equal(load_member(run).model.head.weight, load_member(undisturbed).model.head.weight)


def test_a_folder_that_is_no_run_or_another_is_refused(settings, undisturbed, tmp_path):
    with pytest.raises(InputError, match=r"resume_from: .*nothing holds no last\.safetensors"):
        train(settings(resume_from=tmp_path / "nothing"))
    with pytest.raises(InputError, match=r"undisturbed.* was started with lr 0\.001 \(now 0\.5\)"):
        train(settings(resume_from=undisturbed, lr=0.5, **CHANGES))
    assert not (tmp_path / "run" / "last.safetensors").exists()


@pytest.mark.parametrize(("function", "call", "kept"), [("step", 3, 2), ("validate", 1, 3), ("step", 5, 4)])
def test_a_kill_within_an_epoch_costs_no_more_than_what_follows_the_last_checkpoint(
    settings, undisturbed, monkeypatch, function, call, kept
):
    made = settings(checkpoint_minutes=1e-9, **CHANGES)
    calls, original = 0, getattr(Trainer, function)

    def counted(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == call:
            raise CutOffError
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, function, counted)
        with pytest.raises(CutOffError):
            train(made)
    assert steps_of(made.out) == kept
    assert_same_run(train(made), undisturbed)


def test_files_may_lie_elsewhere_in_the_next_session_but_not_be_others(settings, tmp_path):
    import timm
    from safetensors.torch import save_file

    for folder, name in (("a", "weights"), ("b", "weights"), ("b", "others")):
        (tmp_path / folder).mkdir(exist_ok=True)
        save_file(timm.create_model("test_resnet").state_dict(), tmp_path / folder / f"{name}.safetensors")
    train(settings(pretrained=tmp_path / "a" / "weights.safetensors", time_limit=NO_TIME))
    run = train(settings(pretrained=tmp_path / "b" / "weights.safetensors", time_limit=NO_TIME))
    assert steps_of(run) == 2
    with pytest.raises(InputError, match=r"pretrained .*weights.safetensors \(now .*others"):
        train(settings(pretrained=tmp_path / "b" / "others.safetensors"))


class Seconds:
    """A clock that a test winds."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def wound(settings, **changes):
    seconds = Seconds()
    return seconds, Clock(settings(**changes).limits, now=seconds)


def tick(seconds, clock, duration):
    seconds.now += duration
    return clock.tick()


def test_a_checkpoint_is_due_every_few_minutes(settings):
    seconds, clock = wound(settings, checkpoint_minutes=2)
    assert [tick(seconds, clock, 50) for _ in range(3)] == [Verdict.GO_ON, Verdict.GO_ON, Verdict.SAVE]
    with clock.writing():
        seconds.now += 10
    assert [tick(seconds, clock, 50) for _ in range(3)] == [Verdict.GO_ON, Verdict.GO_ON, Verdict.SAVE]


def test_a_run_stops_while_a_step_and_a_checkpoint_still_fit(settings):
    seconds, clock = wound(settings, time_limit=1.0, checkpoint_minutes=600)
    clock.start()
    assert tick(seconds, clock, 10) == Verdict.GO_ON
    with clock.writing():
        seconds.now += 60
    while tick(seconds, clock, 10) == Verdict.GO_ON:
        pass
    left = 3600 - seconds.now
    assert 60 + 10 < left < 60 * 1.5 + 0.02 * 3600 + 2 * 10


def test_a_validation_starts_only_where_it_fits(settings):
    seconds, clock = wound(settings, time_limit=1.0, checkpoint_minutes=600)
    assert clock.validation_fits(100)  # a session that has done nothing else goes on in any case
    clock.start()
    tick(seconds, clock, 10)
    with clock.validating():
        seconds.now += 600
    seconds.now = 2600.0
    assert clock.validation_fits(100)
    seconds.now = 3000.0
    assert not clock.validation_fits(100)


def test_what_a_run_takes_is_said_once_after_its_first_steps(settings):
    seconds, clock = wound(settings, time_limit=2.0, checkpoint_minutes=600)
    clock.expect(state_bytes=0, validation_share=0.5)
    clock.start()
    said = []
    for step in range(1, 30):
        tick(seconds, clock, 100 if step == 1 else 2)
        left = Work(steps=10_000 - step, validations=10, steps_per_epoch=1000, epoch=0, epochs=10)
        said.append(clock.forecast(left, torch.device("cpu")))
    (line,) = [line for line in said if line]
    assert said[19] == line and "2 s a step" in line and "9,980 steps and 10 validations" in line
    # 9,980 steps of 2 s, and 10 validations of 500 steps at 0.6 of a step's time.
    assert "about 7.2 h" in line and "GiB of memory" in line
    assert "time limit of 2.0 h ends it at about epoch 2.7 of 10" in line
