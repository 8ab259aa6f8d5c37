"""What a step of training takes on a GPU, told before it runs."""

import pytest
import torch
from tiny_transformers import DINOV2, PLAIN
from torch.nn import functional

from hpa_kit.training.member import build_network
from hpa_kit.training.memory import GIB, step_memory, what_does_not_fit


def told(settings, half=False, **changes):
    made = settings(ema=0.0, **changes)
    return step_memory(made, lambda: build_network(made), half)


def really_kept(model, fields):
    """Bytes that torch keeps for the way back of a real forward, but for weights and attention's matrices."""
    own = {weight.untyped_storage().data_ptr() for weight in [*model.parameters(), *model.buffers()]}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes(), tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(fields)
    return sum(size for size, _ in kept.values())


@pytest.mark.parametrize(
    ("backbone", "stride", "size"), [("test_resnet", 8, 64), (PLAIN, 16, 64), (DINOV2, 14, 70)]
)
def test_what_is_told_is_what_torch_keeps(settings, monkeypatch, backbone, stride, size):
    monkeypatch.setattr(functional, "scaled_dot_product_attention", fused)
    made = {"backbone": backbone, "stride": stride, "size": size}
    memory = told(settings, **made)
    model = build_network(settings(**made)).train()
    kept = really_kept(model, torch.zeros(2, 4, size, size))
    assert 2 * memory.per_field == pytest.approx(kept, rel=0.02)
    assert memory.parameters == sum(weight.numel() for weight in model.parameters())
    assert memory.fixed == memory.parameters * (4 + 4 + 8)


def fused(query, key, value, **_):
    """Attention that keeps what a fused one does."""
    from hpa_kit.training.memory import _Attention

    return _Attention.apply(query, key, value)


@pytest.mark.whole_table
def test_half_precision_keeps_less_and_blocks_computed_again_and_frozen_ones_far_less(settings):
    options = {"backbone": DINOV2, "stride": 14, "size": 224}
    whole, half = told(settings, **options), told(settings, True, **options)
    assert 0.4 * whole.per_field < half.per_field < 0.8 * whole.per_field
    again = told(settings, gradient_checkpointing=True, **options)
    assert again.per_field < 0.75 * whole.per_field
    frozen = told(settings, trainable="frozen", **options)
    last = told(settings, trainable="last:1", **options)
    assert frozen.per_field < 0.1 * whole.per_field < last.per_field < 0.5 * whole.per_field
    assert told(settings, puzzle="cam", **options).per_field == 2 * whole.per_field


def test_a_step_that_does_not_fit_is_told_with_what_would_and_one_that_does_is_not(settings):
    made = settings(backbone=DINOV2, stride=14, size=504, batch=16, amp=True)

    def build():
        return build_network(made)

    memory = step_memory(made, build)
    capacity = memory.of(8) + 1
    line = what_does_not_fit(made, build, capacity)
    assert f"train: a step of 16 fields is expected to take {memory.of(16) / GIB:.1f} GiB, more than" in line
    assert "of 1296 places; try --batch 8 --accumulate 2, or --gradient-checkpointing" in line
    assert what_does_not_fit(made, build, capacity, world=2) is None
    assert what_does_not_fit(made, build, memory.of(16)) is None
