"""What holds for every layer: no history sees another, and node numbers mean nothing."""

from __future__ import annotations

from collections.abc import Callable

import hypothesis.strategies as st
import pytest
import torch
from drawn import (
    NUM_CODES,
    NUM_ITEMS,
    SCHEMA,
    draw_builder,
    draw_histories,
    node_keys,
)
from hypothesis import given, settings
from torch.nn import Module

import mmgraph
from mmgraph import nn

CHANNELS = 6
SIZES = {"item": NUM_ITEMS, "image": NUM_CODES, "text": NUM_CODES}


BLOCKS: dict[str, Callable[[], Module]] = {
    "homogeneous": lambda: nn.HomogeneousAttention(CHANNELS, SCHEMA, 2),
    "heterogeneous": lambda: nn.HeterogeneousAttention(CHANNELS, SCHEMA, 2),
    "asynchronous": lambda: nn.AsynchronousUpdate.from_channels(CHANNELS, SCHEMA),
    "invasive": lambda: nn.AsynchronousUpdate.from_channels(CHANNELS, SCHEMA, invasive=True),
    "synchronous": lambda: nn.SynchronousUpdate.from_channels(CHANNELS, SCHEMA),
    "encoder": lambda: nn.GraphEncoder(
        [nn.AsynchronousUpdate.from_channels(CHANNELS, SCHEMA, 2) for _ in range(2)],
        residual=True,
        norm=torch.nn.LayerNorm(CHANNELS),
    ),
}


@pytest.mark.parametrize("name", BLOCKS)
@given(seed=st.integers(0, 10_000), count=st.integers(2, 5), data=st.data())
@settings(max_examples=8)
def test_a_history_alone_equals_itself_in_any_batch(
    name: str, seed: int, count: int, data: st.DataObject
) -> None:
    torch.manual_seed(seed)
    block = BLOCKS[name]().double().eval()
    embedding = nn.NodeEmbedding(SCHEMA, SIZES, CHANNELS, 8, dtype=torch.float64)
    readouts = [nn.Last(), nn.Mean(), nn.Max(), nn.Recent(2)]
    readouts.append(nn.SoftAttention(CHANNELS, dtype=torch.float64))
    builder = draw_builder(seed)
    histories = [*draw_histories(seed, count), []]
    # Whole modalities may be missing, from a history or from the batch.
    lost = {
        m: [data.draw(st.booleans(), label=f"{m} of {h} missing") for h in histories]
        for m in ("image", "text")
    }

    def build(chosen: list[int]) -> mmgraph.SequenceGraph:
        present = {
            m: [not lost[m][h] for h in chosen for _ in histories[h]] for m in ("image", "text")
        }
        return builder([histories[h] for h in chosen], present=present)

    order = data.draw(st.permutations(range(len(histories))), label="order")
    batch = build(order)
    x = block(embedding(batch), batch)
    states = dict(zip(node_keys(batch), x, strict=True))
    read = [readout(x, batch) for readout in readouts]
    for place, h in enumerate(order):
        alone = build([h])
        expected = block(embedding(alone), alone)
        for (_, t, i), state in zip(node_keys(alone), expected, strict=True):
            torch.testing.assert_close(states[place, t, i], state)
        for readout, all_at_once in zip(readouts, read, strict=True):
            torch.testing.assert_close(all_at_once[place], readout(expected, alone)[0])


@pytest.mark.parametrize("name", BLOCKS)
@given(seed=st.integers(0, 10_000))
@settings(max_examples=8)
def test_relabelling_nodes_permutes_outputs(name: str, seed: int) -> None:
    torch.manual_seed(seed)
    block = BLOCKS[name]().double().eval()
    graph = draw_builder(seed)(draw_histories(seed, 1, longest=12))
    # Any order inside a type will do: old node `order[n]` becomes node n.
    order = torch.cat(
        [a + torch.randperm(int(b - a)) for a, b in zip(graph.type_ptr, graph.type_ptr[1:])]  # noqa: B905
    )
    new = torch.empty_like(order)
    new[order] = torch.arange(graph.num_nodes)
    relabelled = mmgraph.SequenceGraph.from_edges(
        SCHEMA,
        graph.node_type[order],
        new[graph.edge_index],
        graph.edge_type,
        node_id=graph.node_id[order],
        step_node=new[graph.step_node],
    )
    x = torch.randn(graph.num_nodes, CHANNELS, dtype=torch.float64)
    torch.testing.assert_close(block(x[order], relabelled), block(x, graph)[order])
