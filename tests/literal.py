"""The graph's definition read out literally, and equality of graphs field by field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import pairwise

import torch
from torch import Tensor

from mmgraph import EdgeSet, GraphSchema, SequenceGraph

Steps = list[list[list[int]]]  # per step, per type, ids


def assert_same(got: object, expected: object, path: str = "") -> None:
    """Every field of two graphs or edge sets is equal, types and shapes included."""
    for field in fields(expected):  # type: ignore[arg-type]
        name = f"{path}{field.name}"
        a, b = getattr(got, field.name), getattr(expected, field.name)
        assert type(a) is type(b), name
        if isinstance(b, EdgeSet):
            assert_same(a, b, f"{name}.")
        elif isinstance(b, Tensor):
            assert a.dtype == b.dtype, name
            assert a.shape == b.shape, name
            assert torch.equal(a, b), name
        else:
            assert a == b, name


def step_ids(
    schema: GraphSchema,
    history: Sequence[int],
    codes: Mapping[str, Sequence[Sequence[int]]],
    present: Mapping[str, Sequence[bool]],
    max_length: int | None,
) -> Steps:
    """The ids that each kept step has of each type; `codes` and `present` are per step."""
    steps = []
    for position, item in enumerate(history):
        step = [[item]]
        for modality in schema.modalities[1:]:
            there = present[modality][position] if modality in present else True
            row = codes[modality][position] if there else []
            step.append([code for code in row if code != -1])
        steps.append(step)
    return steps if max_length is None else steps[-max_length:]


def relation_between(
    schema: GraphSchema, steps: Steps, centre: tuple[int, int], neighbour: tuple[int, int]
) -> str | None:
    """The relation of two nodes, each a type and an id, of one history."""
    if centre == neighbour:
        return "self"
    (t, a), (u, b) = centre, neighbour
    if t != u:
        matched = any(a in step[t] and b in step[u] for step in steps)
        return f"{schema.modalities[t]}>{schema.modalities[u]}" if matched else None
    pairs = list(pairwise(steps))
    after = any(a in now[t] and b in then[t] for now, then in pairs)
    before = any(b in now[t] and a in then[t] for now, then in pairs)
    return {
        (True, True): "both",
        (True, False): "next",
        (False, True): "previous",
        (False, False): None,
    }[after, before]


def literal_graph(schema: GraphSchema, histories: Sequence[Steps]) -> SequenceGraph:
    """All pairs of nodes of each history, asked one by one how they stand to each other."""
    nodes: list[tuple[int, int, int]] = []  # type, graph, id
    for t in range(schema.num_types):
        for b, steps in enumerate(histories):
            ids = dict.fromkeys(identity for step in steps for identity in step[t])
            nodes += [(t, b, identity) for identity in ids]
    edges, relations, occurrences = [], [], []
    for i, (t, b, a) in enumerate(nodes):
        occurrences += [(i, s) for s, step in enumerate(histories[b]) if a in step[t]]
        for j, (u, c, d) in enumerate(nodes):
            if b == c:
                relation = relation_between(schema, histories[b], (t, a), (u, d))
                if relation is not None:
                    edges.append((j, i))
                    relations.append(schema.relation_id(relation))
    step_node = [
        nodes.index((0, b, step[0][0])) for b, steps in enumerate(histories) for step in steps
    ]
    step_ptr = [0]
    for steps in histories:
        step_ptr.append(step_ptr[-1] + len(steps))

    def column(rows: Sequence[tuple[int, ...]], number: int) -> Tensor:
        return torch.tensor([row[number] for row in rows], dtype=torch.int64)

    return SequenceGraph.from_edges(
        schema,
        column(nodes, 0),
        torch.stack([column(edges, 0), column(edges, 1)]),
        torch.tensor(relations, dtype=torch.int64),
        node_id=column(nodes, 2),
        batch=column(nodes, 1),
        num_graphs=len(histories),
        step_node=torch.tensor(step_node, dtype=torch.int64),
        step_ptr=torch.tensor(step_ptr),
        occurrence_node=column(occurrences, 0),
        occurrence_position=column(occurrences, 1),
        add_self=False,
    )
