"""Which parameters can learn: all of them, but for the queries that no readout sees."""

from __future__ import annotations

import pytest
import torch
from drawn import NUM_CODES, NUM_ITEMS, SCHEMA, draw_builder, draw_histories

from mmgraph import nn

CHANNELS = 8


@pytest.mark.parametrize("layers", [1, 2])
def test_every_slice_that_can_reach_the_readout_gets_a_gradient(layers: int) -> None:
    graph = draw_builder(0)([*draw_histories(0, 40), [1, 2, 1], [4, 5, 4, 5]])
    sizes = {"item": NUM_ITEMS, "image": NUM_CODES, "text": NUM_CODES}
    embedding = nn.NodeEmbedding(SCHEMA, sizes, CHANNELS, 8)
    encoder = nn.GraphEncoder(
        [nn.AsynchronousUpdate.from_channels(CHANNELS, SCHEMA) for _ in range(layers)]
    )
    scores = nn.Last()(encoder(embedding(graph), graph), graph) @ embedding.table("item").T
    target = torch.randint(NUM_ITEMS, (graph.num_graphs,))
    torch.nn.functional.cross_entropy(scores, target).backward()

    for name, parameter in (*embedding.named_parameters(), *encoder.named_parameters()):
        assert parameter.grad is not None, name
        if ".gate." in name:  # a ReLU may be silent for all of these nodes
            assert parameter.grad.abs().sum() > 0, name
            continue
        # Per type, per relation, per id or position: the first dimension.
        untouched = parameter.grad.flatten(1).abs().sum(1) == 0
        silent = {i for i, zero in enumerate(untouched) if zero}
        if name == f"layers.{layers - 1}.heterogeneous.query":
            # Last reads an item's state, so of the last layer's queries only the item's matter.
            assert silent == {SCHEMA.type_id("image"), SCHEMA.type_id("text")}
        elif name in ("tables.image.weight", "tables.text.weight"):
            modality = SCHEMA.type_id(name.split(".")[1])
            occurring = graph.node_id[graph.node_type == modality].tolist()
            assert silent == set(range(NUM_CODES)) - set(occurring)
        else:
            assert not silent, f"{name}: {silent}"
