"""Image logits that come from cells: what a cell's logit is, and the poolings by their textbook forms."""

import numpy as np
import pytest
import torch

from hpa_kit.classes import N_CLASSES, NEGATIVE
from hpa_kit.models.cell_pooling import (
    cell_shares,
    cells_with_protein,
    mean_in_cells,
    pool_cells,
    pooled_logits,
    with_negative,
)
from hpa_kit.scoring.mean_logit import mean_logits

POOLINGS = ("linear", "noisy-or", "max", "attention", "lse")


def textbook(p: np.ndarray, z: np.ndarray, pooling: str) -> np.ndarray:
    """The image's probability by the cells' (n, C), in double precision."""
    softmax = np.exp(z) / np.exp(z).sum(axis=0)
    return {
        "linear": (p**2).sum(axis=0) / p.sum(axis=0),
        "noisy-or": 1 - (1 - p).prod(axis=0),
        "max": p.max(axis=0),
        "attention": (softmax * p).sum(axis=0),
        "lse": 1 / (1 + 1 / np.exp(z).mean(axis=0)),
    }[pooling]


def logits(n_cells: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 3, (n_cells, N_CLASSES))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_pooling_is_its_textbook_form_of_the_cells_that_are_there(pooling):
    z = logits(5)
    batch = torch.zeros(2, 7, N_CLASSES)
    batch[0, [0, 1, 3, 4, 6]] = torch.from_numpy(z).float()
    batch[1] = 99.0
    there = torch.zeros(2, 7, dtype=torch.bool)
    there[0, [0, 1, 3, 4, 6]] = True
    found = pool_cells(batch, there, pooling)
    expected = textbook(1 / (1 + np.exp(-z)), z, pooling)
    np.testing.assert_allclose(found[0].sigmoid().numpy(), expected, rtol=1e-5)
    assert (found[1] < -1000).all()  # a field without a cell shows nothing


@pytest.mark.parametrize("pooling", POOLINGS)
def test_of_one_cell_every_pooling_is_the_cell(pooling):
    z = torch.tensor([[[-80.0, -5.0, 0.0, 5.0, 80.0]]])
    torch.testing.assert_close(pool_cells(z, torch.ones(1, 1, dtype=torch.bool), pooling), z[0])


@pytest.mark.parametrize("pooling", POOLINGS)
def test_sure_cells_and_fields_without_cells_have_finite_gradients(pooling):
    z = torch.tensor([-300.0, -30.0, 0.0, 30.0, 300.0]).reshape(1, 5, 1).repeat(2, 1, 1).requires_grad_()
    there = torch.tensor([[True] * 5, [False] * 5])
    pool_cells(z, there, pooling)[0].sum().backward()
    assert torch.isfinite(z.grad).all()
    assert (z.grad[1] == 0).all()


def test_a_cell_counts_by_what_its_pixels_have_above_the_ground_beside_the_richest():
    cells = torch.arange(5).repeat_interleave(2)[None, :, None].repeat(1, 1, 10)
    fields = torch.full((1, 4, 10, 10), 255, dtype=torch.uint8)
    fields[0, 1] = 20
    fields[0, 1, 2, :5] = 220  # a quarter of cell 1: as much as 100 all over
    fields[0, 1, 4:6] = 45  # cell 2, all over: a quarter of that
    fields[0, 1, 6:8] = 44  # cell 3: a little less
    assert cells_with_protein(fields, cells).tolist() == [[True, True, False, False]]


@pytest.mark.parametrize("label", [0, 1])
def test_where_no_cell_holds_any_protein_or_there_is_no_cell_none_is_left_out(label):
    fields, cells = torch.full((2, 3, 4, 4), 7, dtype=torch.uint8), torch.full((2, 4, 4), label)
    found = cells_with_protein(fields, cells)
    assert found.shape == (2, label) and found.dtype == torch.bool and found.all()


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_class_that_an_image_shows_is_looked_for_where_its_protein_is(pooling):
    maps = torch.tensor([[[[4.0, -4.0]], [[4.0, -4.0]]]])  # two classes, a cell on the left and one beside it
    cells, shown = torch.tensor([[[1, 2]]]), torch.tensor([[1.0, 0.0]])
    found = pooled_logits(maps, cells, pooling, torch.tensor([[False, True]]), shown)[0]
    everywhere = pooled_logits(maps, cells, pooling)[0]
    torch.testing.assert_close(found, torch.stack([torch.tensor(-4.0), everywhere[1]]))
    nowhere = pooled_logits(maps, cells, pooling, torch.tensor([[False, False]]), shown)[0]
    torch.testing.assert_close(nowhere, everywhere)


def test_a_batch_without_any_cell_says_no_everywhere():
    found = pool_cells(torch.zeros(2, 0, N_CLASSES), torch.zeros(2, 0, dtype=torch.bool))
    assert found.shape == (2, N_CLASSES) and (found < -1000).all()


def test_linear_softmax_pooling_pulls_cells_apart():
    z = torch.tensor([[[2.0], [1.0], [-3.0]]], requires_grad=True)
    pool_cells(z, torch.ones(1, 3, dtype=torch.bool), "linear").sum().backward()
    strong, medium, weak = z.grad.flatten().tolist()
    assert min(strong, medium) > 0 > weak


def test_shares_of_a_cell_are_its_areas_in_the_pixels_of_the_map():
    cells = torch.zeros(1, 8, 8, dtype=torch.long)
    cells[0, :4, :6] = 1  # 16 pixels in the left map pixel, 8 in the right one
    cells[0, 7, 7] = 3
    shares = cell_shares(cells, (2, 2))
    torch.testing.assert_close(shares[0, 0], torch.tensor([2 / 3, 1 / 3, 0.0, 0.0]))
    assert (shares[0, 1] == 0).all()
    assert shares[0, 2].tolist() == [0.0, 0.0, 0.0, 1.0]


def test_a_label_map_that_is_coarser_than_the_map_covers_all_of_it():
    shares = cell_shares(torch.tensor([[[1, 2], [1, 0]]]), (3, 4))
    assert (shares[0, 0].reshape(3, 4) > 0).tolist() == [[True, True, False, False]] * 3
    torch.testing.assert_close(
        cell_shares(torch.ones(1, 1, 1, dtype=torch.long), (3, 4))[0, 0], torch.full((12,), 1 / 12)
    )


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_label_maps_of_any_whole_numbers_and_sides_have_shares(dtype):
    cells = torch.randint(0, 5, (2, 50, 37), generator=torch.Generator().manual_seed(0)).to(dtype)
    shares = cell_shares(cells, (7, 5), n_cells=6)
    assert shares.shape == (2, 6, 35)
    torch.testing.assert_close(shares.sum(dim=2), torch.tensor([[1.0, 1, 1, 1, 0, 0]] * 2))


def test_the_mean_of_a_map_in_a_cell_is_what_scoring_takes_for_the_cells_logit():
    maps = torch.randn(1, N_CLASSES, 16, 16, generator=torch.Generator().manual_seed(0))
    cells = np.zeros((16, 16), np.int32)
    cells[2:7, 3:9], cells[9:15, 1:12] = 1, 2
    shares = cell_shares(torch.from_numpy(cells)[None], (16, 16))
    np.testing.assert_allclose(mean_in_cells(maps, shares)[0], mean_logits(maps[0], cells), atol=1e-5)


def test_negative_is_what_the_other_classes_leave():
    z = with_negative(torch.from_numpy(logits(4)))
    others = np.delete(z.sigmoid().numpy(), NEGATIVE, axis=1)
    np.testing.assert_allclose(z[:, NEGATIVE].sigmoid(), 1 - others.max(axis=1), atol=1e-12)


def test_sub_categories_have_no_negative_of_their_own():
    maps = torch.randn(1, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    cells = torch.ones(1, 6, 6, dtype=torch.long)
    torch.testing.assert_close(pooled_logits(maps, cells)[0], maps.mean(dim=(-2, -1))[0])
