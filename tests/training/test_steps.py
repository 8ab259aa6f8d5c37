"""Steps of a run: gathered gradients, averaged weights, learning rates, optimisers, readers."""

import pytest
import torch
from timm.optim import list_optimizers
from torch import nn

from hpa_kit.config import TrainSettings
from hpa_kit.errors import InputError
from hpa_kit.training import Trainer, load_member, read_checkpoint, train
from hpa_kit.training.checkpoint import write_checkpoint
from hpa_kit.training.optimisation import Schedule, make_optimiser, optimiser_state, restore_optimiser
from hpa_kit.training.run_state import random_state, restore_random_state

WITHOUT_BATCH_NORM = {"backbone": "test_convnext", "stride": 32, "ema": 0.0, "optimiser": "sgd", "lr": 0.05}


def last(run):
    return read_checkpoint(run / "last.safetensors").state


@pytest.mark.parametrize(("batch", "accumulate"), [(3, 2), (4, 2), (2, 3)])
def test_gathered_gradients_are_those_of_the_large_batch(settings, tmp_path, batch, accumulate):
    changes = {"epochs": 2, **WITHOUT_BATCH_NORM}
    large = last(train(settings(out=tmp_path / "large", batch=batch * accumulate, **changes)))
    small = last(train(settings(out=tmp_path / "small", batch=batch, accumulate=accumulate, **changes)))
    assert large["step_number"] == small["step_number"] == 4
    for name, value in large["model"].items():
        torch.testing.assert_close(small["model"][name], value, rtol=1e-4, atol=1e-6)
    assert small["history"][-1]["train_loss"] == pytest.approx(large["history"][-1]["train_loss"], rel=1e-5)


class Watched(Trainer):
    """Keeps the head's weights after each update."""

    def after_update(self):
        self.__dict__.setdefault("seen", []).append(self.state.model.head.weight.detach().clone())
        return super().after_update()


def test_weights_are_averaged_evenly_over_the_last_part_of_the_steps(settings):
    trainer = Watched(settings(swa=0.5, ema=0.9))
    run = trainer.fit()
    assert len(trainer.seen) == trainer.total_steps == 9
    even = torch.stack(trainer.seen[4:]).mean(dim=0)
    kept = last(run)
    assert kept["swa_updates"] == 5
    torch.testing.assert_close(kept["swa"]["head.weight"], even)
    member = load_member(run / "last.safetensors")
    assert member.info["averaged"] and torch.equal(member.model.head.weight, kept["swa"]["head.weight"])


def test_evenly_averaged_weights_are_validated_with_batch_norm_statistics_of_their_own(settings):
    trainer = Trainer(settings(swa=0.1, epochs=1))
    run = trainer.fit()
    averaged = trainer.state.averages.best_of(trainer.state.model)
    assert averaged is not trainer.state.model
    name, norm = next(
        (name, part) for name, part in averaged.named_modules() if isinstance(part, nn.BatchNorm2d)
    )
    means = []
    norm.register_forward_pre_hook(lambda _, inputs: means.append(inputs[0].mean(dim=(0, 2, 3))))
    averaged.train()
    kept = last(run)["swa"][f"{name}.running_mean"]
    with torch.no_grad():
        for batch in trainer.load_data().train.epoch(1):
            averaged(batch.fields)
    torch.testing.assert_close(kept, torch.stack(means).mean(dim=0))
    assert not torch.allclose(kept, trainer.state.model.state_dict()[f"{name}.running_mean"])
    best = read_checkpoint(run / "best.safetensors").state
    assert best["averaged"] and torch.equal(best["model"][f"{name}.running_mean"], kept)


def test_while_weights_are_averaged_the_learning_rate_may_be_its_own(settings):
    made = settings(swa=0.75, swa_lr=0.25, lr=0.5, warmup=0.1)
    optimiser = make_optimiser(nn.Linear(2, 2), made)
    rates = []
    schedule = Schedule(optimiser, made, total_steps=40)
    for step in range(40):
        schedule.step_update(step)
        rates.append(optimiser.param_groups[0]["lr"])
    assert rates[30:] == [0.25] * 10
    assert max(rates[:30]) == pytest.approx(0.5) and rates[29] < 0.11


# kron compiles for half a minute; the others need a GPU.
OPTIMISERS = [name for name in list_optimizers() if not name.startswith(("bnb", "fused", "kron"))]


def small_network(name, folder):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(24, 3)
    )
    return model, make_optimiser(model, TrainSettings(data=folder, out=folder, optimiser=name, lr=1e-3))


def one_step(model, optimiser):
    fields = torch.randn(5, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    loss = model(fields).square().mean()
    loss.backward(create_graph=getattr(optimiser, "is_second_order", False))
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)


@pytest.mark.filterwarnings("ignore:Using backward")
@pytest.mark.parametrize("name", [*OPTIMISERS, "nesterov", "lookahead_adamw"])
def test_any_optimiser_of_timm_goes_on_from_a_checkpoint_as_if_nothing_had_been(name, tmp_path):
    model, optimiser = small_network(name, tmp_path)
    before = [value.clone() for value in model.parameters()]
    one_step(model, optimiser)
    state = {
        "model": model.state_dict(), "optimiser": optimiser_state(optimiser), "random": random_state()
    }  # fmt: skip
    write_checkpoint(tmp_path / "a.safetensors", TrainSettings(data=tmp_path, out=tmp_path), state)
    one_step(model, optimiser)
    assert any(not torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))

    kept = read_checkpoint(tmp_path / "a.safetensors").state
    other, restored = small_network(name, tmp_path)
    other.load_state_dict(kept["model"])
    restore_optimiser(restored, kept["optimiser"], torch.device("cpu"))
    restore_random_state(kept["random"])
    one_step(other, restored)
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), other.parameters(), strict=True))


def test_an_optimiser_that_needs_a_gpu_says_so(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    with pytest.raises(InputError, match="optimiser: bnbadam cannot be used"):
        small_network("bnbadam", tmp_path)


def test_how_many_processes_read_changes_nothing(settings, tmp_path):
    runs = [
        train(settings(out=tmp_path / str(workers), workers=workers, cache=False, epochs=2, drop_rate=0.3))
        for workers in (0, 1, 2)
    ]
    kept = [last(run) for run in runs]
    for other in kept[1:]:
        assert other["history"] == kept[0]["history"]
        assert all(torch.equal(value, other["model"][name]) for name, value in kept[0]["model"].items())


def test_readers_compute_with_one_thread_each():
    from hpa_kit.training.data import Loader

    loader = Loader(Threads(), OneBatch(), workers=1, device=torch.device("cpu"))
    (batch,) = loader.epoch(1)
    assert batch.numbers.tolist() == [1, 1]


class Threads(torch.utils.data.Dataset):
    """Gives, in the place of a field's number, how many threads torch and OpenCV have."""

    def __getitem__(self, index):
        import cv2
        import numpy as np

        threads = torch.get_num_threads() if index == 0 else cv2.getNumThreads()
        return np.zeros((2, 2, 4), np.uint8), np.zeros(19, np.float32), threads


class OneBatch:
    epoch = first = 0
    sizes = (2,)

    def __iter__(self):
        return iter([[0, 1]])

    def __len__(self):
        return 1


def test_the_loader_leaves_the_generator_of_the_network_alone(settings):
    trainer = Trainer(settings())
    data = trainer.load_data()
    torch.manual_seed(3)
    list(data.train.epoch(1))
    drawn = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(1))
