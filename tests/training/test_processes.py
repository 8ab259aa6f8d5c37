"""Two processes that share every batch train what one trains, and none waits for one that is gone."""

import json
import logging
import os
import subprocess

import pytest
import sharing_runs
import timm
import torch
from copied_kit import copy_kit
from safetensors.torch import load_file

import hpa_kit
from hpa_kit.errors import InputError
from hpa_kit.together import run_together
from hpa_kit.training import read_checkpoint, train
from hpa_kit.training.data import EpochBatches
from hpa_kit.training.processes import Processes, processes_for, say_idle_gpus

# Each layer norm sees one field, so that it does not matter how a batch is divided.
CHANGES = {"backbone": "test_convnext", "stride": 32, "epochs": 2, "ema": 0.9, "accumulate": 2}


def test_two_processes_train_what_one_trains(settings, tmp_path, monkeypatch, warm_python):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr("hpa_kit.together.subprocess.Popen", warm_python.start)
    run_together(sharing_runs.train_and_keep, settings(out=tmp_path / "two", **CHANGES), 2)
    weights = [load_file(tmp_path / f"process{rank}.safetensors") for rank in (0, 1)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])

    one = read_checkpoint(train(settings(out=tmp_path / "one", **CHANGES)) / "last.safetensors").state
    two = read_checkpoint(tmp_path / "two" / "last.safetensors").state
    assert len(two["processes"]) == 2 and one["step_number"] == two["step_number"] == 4
    for name, value in one["model"].items():
        assert torch.equal(two["model"][name], weights[0][name])
        torch.testing.assert_close(two["model"][name], value, rtol=1e-3, atol=2e-5)
    # Sessions of a step each, in the same two processes.
    resumed = read_checkpoint(tmp_path / "sessions" / "last.safetensors").state
    ended = [json.loads((tmp_path / f"sessions{rank}.json").read_text()) for rank in (0, 1)]
    assert ended[0] == ended[1] == [[1, 0], [2, 0], [2, 1], [3, 1], [4, 1]]
    assert all(torch.equal(resumed["model"][name], value) for name, value in two["model"].items())
    assert resumed["history"] == two["history"]

    # One process goes on from what two began.
    begun = train(settings(out=tmp_path / "begun", **CHANGES)) / "last.safetensors"
    alone = read_checkpoint(begun).state
    assert len(alone["processes"]) == 1
    for left, right in zip(one["history"], alone["history"], strict=True):
        assert left == pytest.approx(right, rel=1e-4)

    for left, right in zip(one["history"], two["history"], strict=True):
        assert left == pytest.approx(right, rel=1e-4)
    assert (tmp_path / "one" / "folds.csv").read_bytes() == (tmp_path / "two" / "folds.csv").read_bytes()


@pytest.mark.whole_table  # as in tests/test_together.py, in the midst of what processes say to each other
def test_a_process_that_fails_ends_the_others_and_its_error_is_raised(settings, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with pytest.raises(InputError, match=r"^fields: the second process cannot read on$"):
        run_together(sharing_runs.fail, settings(**CHANGES), 2)
    assert not (tmp_path / "run" / "metrics.csv").exists()


def test_every_field_of_a_batch_is_in_the_share_of_one_process(competition):
    numbers = torch.arange(100, 123).numpy()
    whole = EpochBatches(numbers, 5, seed=3)
    shares = [EpochBatches(numbers, 5, seed=3, rank=rank, world=2) for rank in (0, 1)]
    for batches in (whole, *shares):
        batches.epoch = 4
    for batch, *parts in zip(whole, *shares, strict=True):
        assert sorted(batch) == sorted(parts[0] + parts[1]) and min(map(len, parts)) >= 1
    assert whole.sizes == shares[1].sizes == [5, 5, 5, 5, 3]


@pytest.mark.parametrize(("fields", "batch"), [(13, 4), (9, 4), (4, 4), (10, 4), (7, 5)])
def test_no_process_of_several_is_left_without_a_field(fields, batch):
    for rank in range(4):
        batches = EpochBatches(torch.arange(fields).numpy(), batch, seed=0, rank=rank, world=4)
        assert all(len(share) >= 1 for share in batches) and sum(batches.sizes) == fields


def test_fewer_fields_a_step_than_processes_are_refused():
    with pytest.raises(InputError, match="batches of 2 cannot be shared by 4 processes"):
        EpochBatches(torch.arange(9).numpy(), 2, seed=0, rank=0, world=4)


def test_an_epoch_can_begin_with_a_later_batch():
    batches = EpochBatches(torch.arange(11).numpy(), 3, seed=1)
    batches.epoch = 2
    whole = list(batches)
    batches.first = 2
    assert list(batches) == whole[2:] and len(whole) == 4


def test_a_start_without_torchrun_is_one_process(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert Processes.here() == Processes() and Processes.here().first


def test_torchrun_is_read_from_the_environment(monkeypatch):
    values = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2",
              "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}  # fmt: skip
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    assert Processes.here() == Processes(rank=3, world=4, local_rank=1, local_world=2)
    monkeypatch.delenv("MASTER_PORT")
    with pytest.raises(InputError, match="WORLD_SIZE is 4 but MASTER_PORT is not set"):
        Processes.here()
    monkeypatch.setenv("WORLD_SIZE", "many")
    with pytest.raises(InputError, match="WORLD_SIZE is 'many'"):
        Processes.here()


def test_each_process_has_the_gpu_of_its_number(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr("hpa_kit.training.processes.pick_device", lambda name: name)
    second = Processes(rank=1, world=2, local_rank=1, local_world=2)
    assert second.device("auto") == second.device("cuda") == torch.device("cuda:1")
    assert second.device("cpu") == torch.device("cpu")
    with pytest.raises(InputError, match=r"cuda:0 for 2 processes; give auto, cuda or cpu"):
        second.device("cuda:0")
    with pytest.raises(InputError, match=r"4 processes for 2 GPUs; give --nproc-per-node 2"):
        Processes(rank=1, world=4, local_rank=1, local_world=4).device("auto")


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


def test_all_gpus_train_unless_one_is_named_or_a_batch_is_one_field(settings, two_gpus, monkeypatch):
    assert [processes_for(settings(device="auto", batch=batch)) for batch in (None, 8, 2, 1)] == [2, 2, 2, 1]
    assert [processes_for(settings(device=name)) for name in ("cpu", "cuda:1", "cuda")] == [1, 1, 1]
    for name, value in {
        "WORLD_SIZE": "2",
        "RANK": "0",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": "1",
    }.items():
        monkeypatch.setenv(name, value)
    assert processes_for(settings(device="auto")) == 1
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert processes_for(settings(device="auto")) == 1


def test_a_backbone_of_the_notebooks_own_trains_where_it_is_known(settings, two_gpus, caplog):
    @timm.models.register_model
    def own_of_a_notebook(pretrained=False, **options):
        raise NotImplementedError

    caplog.set_level(logging.INFO)
    own = settings(device="auto", backbone="own_of_a_notebook")
    assert processes_for(own) == 1
    assert "the others' processes do not know own_of_a_notebook" in caplog.text
    assert processes_for(settings(device="auto", backbone="resnet10t.c3_in1k")) == 2


def test_the_command_for_all_gpus_that_is_said_works_where_nothing_is_installed(
    settings, two_gpus, caplog, tmp_path, monkeypatch
):
    copy = copy_kit(tmp_path / "a kit" / "hpa_kit")
    (copy / "__init__.py").open("a").write("\nimport sys\nsys.stdout.write(f'from {__file__}\\n')\n")
    monkeypatch.setattr(hpa_kit, "__file__", str(copy / "__init__.py"))
    caplog.set_level(logging.INFO)
    say_idle_gpus(settings(device="cuda:0"))
    assert not caplog.text
    say_idle_gpus(settings(device="auto"))
    command = caplog.messages[0].partition("all are by ")[2].removesuffix("train ...")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        f"{command} --version",
        shell=True,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"from {copy / '__init__.py'}") == 2 == done.stdout.count("hpa-kit ")


def test_batch_norms_of_several_gpus_see_the_whole_batch():
    from timm import create_model

    model = create_model("test_resnet")
    names = set(model.state_dict())
    two = Processes(rank=0, world=2, local_rank=0, local_world=2)
    assert two.synchronised(model, torch.device("cpu")) is model
    converted = two.synchronised(model, torch.device("cuda", 0))
    norms = [part for part in converted.modules() if isinstance(part, torch.nn.modules.batchnorm._BatchNorm)]
    assert norms and all(isinstance(norm, torch.nn.SyncBatchNorm) for norm in norms)
    assert set(converted.state_dict()) == names


def test_reading_processes_are_no_more_than_the_processors(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    assert [Processes().workers(wanted) for wanted in (0, 2, 6)] == [0, 2, 4]
    two = Processes(rank=0, world=2, local_rank=0, local_world=2)
    assert [two.workers(wanted) for wanted in (0, 2, 6)] == [0, 2, 2]
