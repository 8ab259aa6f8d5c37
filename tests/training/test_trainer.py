"""A run learns, can be cut off at any moment, and says what is wrong."""

import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from runs_alike import CutOffError, assert_same_run, events_of, metrics

from hpa_kit.config import TrainSettings, to_yaml
from hpa_kit.errors import InputError
from hpa_kit.training import Trainer, load_member, read_checkpoint, train
from hpa_kit.training.objectives import Objective
from hpa_kit.training.subcategories import write_subcategories


def test_a_run_learns_and_leaves_everything_in_its_folder(settings):
    made = settings(epochs=8, lr=3e-3, label_round=0)
    run = train(made)
    assert {path.name for path in run.iterdir()} == {
        "best.safetensors", "last.safetensors", "settings.yaml", "folds.csv", "metrics.csv", "tensorboard"
    }  # fmt: skip
    rows = metrics(run)
    assert [row["epoch"] for row in rows] == [str(epoch) for epoch in range(1, 9)]
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"]) / 2
    assert TrainSettings(**yaml.safe_load((run / "settings.yaml").read_text())) == made
    model, read, info = load_member(run)
    assert read == made and not model.training
    best = min(rows, key=lambda row: float(row["val_loss"]))
    assert (info["epoch"], info["metrics"]["val_loss"]) == (int(best["epoch"]), float(best["val_loss"]))


def test_a_finished_run_returns_at_once(settings, monkeypatch):
    run = train(settings(epochs=1))
    before = (run / "last.safetensors").read_bytes()
    (run / "metrics.csv").unlink()
    monkeypatch.setattr(Trainer, "build", lambda *_: pytest.fail("built a network"))
    assert train(settings(epochs=1)) == run
    assert (run / "last.safetensors").read_bytes() == before and len(metrics(run)) == 1


def test_a_finished_run_of_other_fields_or_labels_is_refused_as_one_that_goes_on_is(
    settings, competition, tmp_path, caplog
):
    run = train(settings(epochs=1))
    other = tmp_path / "other"
    shutil.copytree(competition, other)
    assert train(settings(epochs=1, data=other)) == run
    table = (other / "train.csv").read_text()
    (other / "train.csv").write_text(table.replace("7|16", "5", 1))
    with pytest.raises(InputError, match="started with other fields or labels than data .*other has; give"):
        train(settings(epochs=1, data=other))
    (other / "train.csv").write_text("".join(table.splitlines(keepends=True)[:-1]))
    with pytest.raises(InputError, match="folds.csv"):
        train(settings(epochs=1, data=other))
    shutil.rmtree(other)
    with caplog.at_level("INFO"):
        assert train(settings(epochs=1, data=other)) == run
    assert f"{run} is finished; {other} is gone, and not compared" in caplog.text


@pytest.fixture(scope="module")
def undisturbed(competition, tmp_path_factory):
    """A run with dropout and averaged weights that nothing disturbed."""
    torch.set_num_threads(1)
    made = TrainSettings(
        data=competition, out=tmp_path_factory.mktemp("undisturbed") / "run", backbone="test_resnet",
        stride=8, size=32, epochs=3, batch=3, optimiser="adamw", lr=1e-3, folds=4, workers=0, device="cpu",
        drop_rate=0.3, ema=0.9,
    )  # fmt: skip
    return train(made)


def cut_off(monkeypatch, function, call):
    """The ``call``-th call of a function ends the process before it does anything."""
    calls = 0
    original = getattr(Trainer, function)

    def counted(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == call:
            raise CutOffError
        return original(*args, **kwargs)

    monkeypatch.setattr(Trainer, function, counted)


@pytest.mark.parametrize(
    ("function", "call"),
    [
        # Within the first epoch and around its end as within the second; tests/kill kills a run anywhere.
        *(pytest.param(*row, marks=pytest.mark.whole_table) for row in (("step", 2), ("_write_last", 1))),
        ("_write_best", 1),
        ("step", 5),
        ("validate", 2),
        pytest.param("_write_last", 3, marks=pytest.mark.whole_table),
    ],
)
def test_a_run_that_was_cut_off_goes_on_to_the_same_curve(settings, undisturbed, monkeypatch, function, call):
    made = settings(drop_rate=0.3, ema=0.9)
    with monkeypatch.context() as patch:
        cut_off(patch, function, call)
        with pytest.raises(CutOffError):
            train(made)
    assert_same_run(train(made), undisturbed)


KILLED = """
import os, signal, sys, torch, yaml
torch.set_num_threads(1)
from hpa_kit.config import TrainSettings, make_settings, read_yaml
from hpa_kit.training import Trainer

class Killed(Trainer):
    def _write_last(self, *args):
        if self.state.epoch == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        super()._write_last(*args)

Killed(make_settings(TrainSettings, read_yaml(sys.argv[1]))).fit()
"""


@pytest.mark.whole_table  # tests/kill kills a training in `make test`
def test_a_killed_run_goes_on_to_the_same_curve(settings, undisturbed, tmp_path):
    made = settings(drop_rate=0.3, ema=0.9)
    (tmp_path / "settings.yaml").write_text(to_yaml(made))
    done = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path / "settings.yaml"], capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert read_checkpoint(made.out / "last.safetensors").state["epoch"] == 1
    assert_same_run(train(made), undisturbed)


def test_a_folder_of_a_run_with_other_settings_is_refused(settings):
    run = train(settings(epochs=1))
    before = (run / "settings.yaml").read_text()
    with pytest.raises(InputError, match=r"lr 0\.001 \(now 0\.002\)"):
        train(settings(epochs=1, lr=2e-3))
    with pytest.raises(InputError, match=r"epochs 1 \(now 2\)"):
        train(settings(epochs=2))
    assert (run / "settings.yaml").read_text() == before
    assert train(settings(epochs=1, workers=1, cache=False)) == run


def test_a_run_does_not_go_on_with_other_labels(settings, competition, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        cut_off(patch, "step", 5)
        with pytest.raises(CutOffError):
            train(settings())
    other = tmp_path / "other"
    shutil.copytree(competition, other)
    table = other / "train.csv"
    table.write_text(table.read_text().replace("7|16", "5", 1))
    with pytest.raises(InputError, match="other fields or labels"):
        train(settings(data=other))


def test_a_run_does_not_go_on_where_its_policy_has_changed_under_the_same_name(
    settings, tmp_path, monkeypatch
):
    policy = tmp_path / "policy.yaml"
    policy.write_text("- HorizontalFlip: {p: 0.5}\n")
    made = settings(augmentation=policy, epochs=2)
    with monkeypatch.context() as patch:
        cut_off(patch, "step", 5)
        with pytest.raises(CutOffError):
            train(made)
    policy.write_text("- VerticalFlip: {p: 0.5}\n")
    with pytest.raises(InputError, match=r"another content of augmentation .*policy\.yaml"):
        train(made)
    policy.write_text("- HorizontalFlip: {p: 0.5}\n")
    (tmp_path / "elsewhere").mkdir()
    moved = policy.rename(tmp_path / "elsewhere" / "policy.yaml")
    run = train(settings(augmentation=moved, epochs=2))
    assert read_checkpoint(run / "last.safetensors").state["epoch"] == 2


def test_a_finished_run_is_not_taken_for_one_of_another_table_of_sub_categories(settings, tmp_path):
    table = tmp_path / "table.csv"
    rows = [
        [0 if at % 2 else -1, *[-1] * 6, -1 if at % 2 else 0, *[-1] * 8, -1 if at % 2 else 0, -1, -1]
        for at in range(13)
    ]
    ids = [f"00{at}e1" for at in range(13)]
    write_subcategories(table, ids, np.array(rows))
    made = settings(round=1, subcategories=table, epochs=1)
    run = train(made)
    assert train(made) == run
    rows[1][0] = 1
    write_subcategories(table, ids, np.array(rows))
    with pytest.raises(InputError, match=r"another content of subcategories .*table\.csv"):
        train(made)
    table.unlink()
    assert train(made) == run  # what is finished needs no table


def test_a_pretrained_file_is_not_needed_to_go_on(settings, tmp_path, monkeypatch):
    import timm
    from safetensors.torch import save_file

    path = tmp_path / "weights.safetensors"
    save_file(timm.create_model("test_resnet").state_dict(), path)
    made = settings(pretrained=path, epochs=2)
    with monkeypatch.context() as patch:
        cut_off(patch, "step", 5)
        with pytest.raises(CutOffError):
            train(made)
    path.unlink()
    assert load_member(train(made)).info["epoch"] in (1, 2)


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_what_there_was(settings):
    class NotANumber(Objective):
        def losses(self, batch, progress):
            losses = super().losses(batch, progress)
            return losses if progress < 1 / 3 else {"focal": losses["focal"] * float("nan")}

    class Diverging(Trainer):
        def build_objective(self, model, ids):
            return NotANumber(model)

    with pytest.raises(
        InputError, match=r"loss became nan in epoch 2, epoch 1 is kept .*lower lr than 0\.001"
    ):
        Diverging(settings()).fit()
    for name in ("best.safetensors", "last.safetensors"):
        state = read_checkpoint(settings().out / name).state
        assert state["epoch"] == 1
        assert all(torch.isfinite(value).all() for value in state["model"].values())


def test_a_variant_overrides_its_loss_and_each_part_is_logged(settings):
    class SmallMaps(Objective):
        def losses(self, batch, progress):
            maps = self.model.forward_maps(batch.fields)
            return super().losses(batch, progress) | {"maps": maps.square().mean()}

    class Variant(Trainer):
        def build_objective(self, model, ids):
            return SmallMaps(model)

    (row,) = metrics(Variant(settings(epochs=1)).fit())
    assert float(row["train_loss"]) == pytest.approx(float(row["train_focal"]) + float(row["train_maps"]))


def test_averaged_weights_are_validated_and_kept(undisturbed):
    last, best = (
        read_checkpoint(undisturbed / name).state for name in ("last.safetensors", "best.safetensors")
    )
    assert not torch.equal(last["ema"]["head.weight"], last["model"]["head.weight"])
    member = load_member(undisturbed / "last.safetensors")
    assert torch.equal(member.model.head.weight, last["ema"]["head.weight"])
    assert best["averaged"] and load_member(undisturbed).info["averaged"]


def test_tensorboard_shows_scalars_once_per_epoch_and_hyper_parameters(settings, monkeypatch):
    with monkeypatch.context() as patch:
        cut_off(patch, "_write_last", 2)
        with pytest.raises(CutOffError):
            train(settings())
    run = train(settings())
    events = events_of(run)
    assert {"val_loss", "train_loss", "macro_f1", "lr"} <= set(events.Tags()["scalars"])
    shown = events.Scalars("val_loss")
    assert [event.step for event in shown] == [1, 2, 3]
    assert [event.value for event in shown] == pytest.approx([float(row["val_loss"]) for row in metrics(run)])
    hyper = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert b"test_resnet" in hyper and b"weight_decay" in hyper
    assert "tensorflow" not in sys.modules


def test_missing_images_stop_a_run_before_it_starts(settings, competition, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(competition, other)
    (other / "train" / "003e1_yellow.png").unlink()
    with pytest.raises(InputError, match=r"1 of 13 labelled fields.*ID 003e1 \(yellow\)"):
        train(settings(data=other))


def test_a_fold_that_is_not_there_is_named(settings, competition, tmp_path):
    other = tmp_path / "other"
    (other / "train").mkdir(parents=True)
    for path in (competition / "train").glob("00[012]e1_*"):
        shutil.copy(path, other / "train")
    (other / "train.csv").write_text("ID,Label\n000e1,0\n001e1,7\n002e1,0\n")
    with (
        pytest.warns(UserWarning, match="3 made|too rare"),
        pytest.raises(InputError, match="0 in fold 3 of 3"),
    ):
        train(settings(data=other, fold=3))


def test_a_file_where_the_run_should_go_is_refused(settings, tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(InputError, match="is a file"):
        train(settings())
