"""The loss of a catalogue whose logits are not kept."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from examples.mmsr import loss
from examples.mmsr.generate import GenerateConfig, generate
from examples.mmsr.items import ScoreConfig
from examples.mmsr.loss import cross_entropy
from examples.mmsr.model import ModelConfig, NodesConfig
from examples.mmsr.protocol import split
from examples.mmsr.zoo import Composition, Zoo

DATA = generate(GenerateConfig(dial=1, users=60, items=36, codes=4, width=16, noise=0)).data
PARTS = split(DATA)


@pytest.mark.parametrize("features", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("known", [False, True])
def test_plain_scores_in_pieces(features, smoothing, known, monkeypatch):
    if known:
        pytest.importorskip("torch.nn.modules.linear_cross_entropy")
    else:  # as in an older PyTorch
        monkeypatch.delattr("torch.nn.LinearCrossEntropyOptions", raising=False)
    composition = Composition(
        nodes=NodesConfig(num_codes=4),
        model=ModelConfig(channels=8),
        score=ScoreConfig(features=features, components=8),
    )
    model = Zoo(DATA).build(composition, PARTS.fit).eval()
    batch = model.batch(PARTS.fit.prefixes()[:50], training=True)
    calls = []
    checkpoint = loss.checkpoint
    monkeypatch.setattr(
        loss, "checkpoint", lambda *args, **kw: calls.append(1) or checkpoint(*args, **kw)
    )

    def gradients(total: torch.Tensor) -> list[torch.Tensor]:
        model.zero_grad()
        (0.5 * total).backward()
        return [parameter.grad.clone() for parameter in model.parameters()]

    direct = F.cross_entropy(
        model(batch), batch.targets, reduction="sum", label_smoothing=smoothing
    )
    expected = gradients(direct)
    for rows in (1, 7, 49):
        calls.clear()
        found = cross_entropy(model, batch, smoothing, largest=rows * DATA.num_items)
        torch.testing.assert_close(found, direct, rtol=1e-5, atol=1e-5)
        for mine, wanted in zip(gradients(found), expected, strict=True):
            torch.testing.assert_close(mine, wanted, rtol=1e-4, atol=1e-5)
        assert bool(calls) == (smoothing > 0 or not known)


def test_autocast_keeps_to_the_direct_form():
    composition = Composition(nodes=NodesConfig(num_codes=4), model=ModelConfig(channels=8))
    model = Zoo(DATA).build(composition, PARTS.fit).eval()
    batch = model.batch(PARTS.fit.prefixes()[:50], training=True)
    with torch.autocast("cpu", torch.bfloat16):
        whole = cross_entropy(model, batch)
        pieces = cross_entropy(model, batch, largest=7 * DATA.num_items)
    assert whole.dtype == pieces.dtype == torch.float32
    torch.testing.assert_close(pieces, whole, rtol=1e-3, atol=0)
