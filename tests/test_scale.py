"""The figures behind docs/scale.md, on sizes that mean nothing."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from benchmarks import scale


def test_everything_is_measured():
    rows = [row for part in scale.PARTS for row in part(scale.SMOKE)]
    names = [name for name, _ in rows]
    assert len(set(names)) == len(names) == 14
    assert all(value for _, value in rows)


def test_sampled_loss_and_gradients_approach_the_whole_catalogue():
    torch.manual_seed(0)
    histories = torch.randn(32, 8, dtype=torch.float64, requires_grad=True)
    table = torch.randn(50, 8, dtype=torch.float64, requires_grad=True)
    share = torch.rand(50, dtype=torch.float64).softmax(0)
    target = torch.multinomial(share, 32, replacement=True)
    expected = F.cross_entropy(histories @ table.T, target, reduction="sum")
    found = scale.sampled_cross_entropy(histories, table, target, 200_000, share)
    assert found.item() == pytest.approx(expected.item(), rel=0.01)
    inputs = (histories, table)
    for mine, wanted in zip(
        torch.autograd.grad(found, inputs), torch.autograd.grad(expected, inputs), strict=True
    ):
        mine = mine.to_dense()
        assert (mine - wanted).norm() < 0.03 * wanted.norm()
