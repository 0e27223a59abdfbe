"""A builder of dictionaries and lists that delivers what ours does, tensor for tensor."""

from __future__ import annotations

from itertools import chain, pairwise

import numpy as np
import torch
from torch import Tensor

from mmgraph import EdgeSet, GraphSchema, SequenceGraph


class DictionaryBuilder:
    """The same graphs from dictionaries and lists, as one would write it without a compiler.

    Each item's distinct codes are prepared once. The links of a node are a dictionary from
    neighbour to relation; sorted, they give the rows, and a running place per node gives each
    edge's reverse, so that no tensor is sorted.
    """

    def __init__(
        self, schema: GraphSchema, codes: dict[str, Tensor], max_length: int | None = None
    ) -> None:
        self.schema = schema
        self.max_length = max_length
        self.codes = [
            [[c for c in dict.fromkeys(row) if c >= 0] for row in codes[name].tolist()]
            for name in schema.modalities[1:]
        ]

    def __call__(self, histories: list[list[int]]) -> SequenceGraph:
        schema = self.schema
        types = range(schema.num_types)
        if self.max_length is not None:
            histories = [history[-self.max_length :] for history in histories]

        # Nodes, by type and then by graph; `entries[t][b]` has the nodes of each step.
        node_id: list[int] = []
        node_type: list[int] = []
        batch: list[int] = []
        type_ptr = [0]
        entries: list[list[list[list[int]]]] = []
        occurrences: list[list[int]] = []
        for t in types:
            entries.append([])
            for b, history in enumerate(histories):
                known: dict[int, int] = {}
                rows = []
                steps = (
                    [[i] for i in history] if t == 0 else [self.codes[t - 1][i] for i in history]
                )
                for s, ids in enumerate(steps):
                    row = []
                    for identity in ids:
                        node = known.get(identity)
                        if node is None:
                            node = known[identity] = len(node_id)
                            node_id.append(identity)
                            occurrences.append([])
                        occurrences[node].append(s)
                        row.append(node)
                    rows.append(row)
                entries[t].append(rows)
                batch += [b] * len(known)
            type_ptr.append(len(node_id))
            node_type += [t] * (type_ptr[-1] - type_ptr[-2])
        num_nodes = len(node_id)

        # Links: bit 1 = next, bit 2 = previous, so that both together are `both`.
        links: list[dict[int, int]] = [{node: 0} for node in range(num_nodes)]
        for t in types:
            for rows in entries[t]:
                for now, after in pairwise(rows):
                    for i in now:
                        mine = links[i]
                        for j in after:
                            if i != j:
                                mine[j] = mine.get(j, 0) | 1
                                theirs = links[j]
                                theirs[i] = theirs.get(i, 0) | 2
            for u in range(t):
                there, back = schema.cross_relation_id(t, u), schema.cross_relation_id(u, t)
                for rows, others in zip(entries[t], entries[u], strict=True):
                    for here, other in zip(rows, others, strict=True):
                        for i in here:
                            mine = links[i]
                            for j in other:
                                mine[j] = there
                                links[j][i] = back

        # Rows, sorted by neighbour.
        index: list[int] = []
        relation: list[int] = []
        reverse: list[int] = []
        degree = [len(mine) for mine in links]
        place = np.concatenate([[0], np.cumsum(degree)])
        ptr = torch.from_numpy(place)
        cursor: list[int] = place.tolist()
        for mine in links:
            row = sorted(mine)
            index += row
            relation += [mine[j] for j in row]
            for j in row:
                reverse.append(cursor[j])
                cursor[j] += 1

        nodes, edges = torch.arange(num_nodes), torch.arange(len(index))
        edge_index = torch.stack([_tensor(index), nodes.repeat_interleave(ptr.diff())])
        edge_type, back_edge = _tensor(relation), _tensor(reverse)
        neighbour, centre = edge_index
        types_of = _tensor(node_type)
        inside = edge_type < 4
        graph_of = _tensor(batch)
        order = torch.argsort(graph_of, stable=True)

        def symmetric(chosen: Tensor, num_relations: int) -> EdgeSet:
            ids = chosen.nonzero().squeeze(1)
            place = torch.cumsum(chosen, 0) - 1
            own_ptr = torch.cat([place.new_zeros(1), place + 1])[ptr]
            own_index, own_centre = neighbour[ids], centre[ids]
            transposed = place[back_edge[ids]]
            back = EdgeSet(own_ptr, own_index, own_centre, transposed, order=order)
            return EdgeSet(
                own_ptr, own_index, own_centre, ids, edge_type[ids], num_relations, back, order
            )

        count = [len(where) for where in occurrences]
        occurrence_ptr = torch.from_numpy(np.concatenate([[0], np.cumsum(count)]))
        step_node = _tensor([row[0] for rows in entries[0] for row in rows])
        lengths = [len(history) for history in histories]
        step_ptr = torch.from_numpy(np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]))
        step_batch = torch.arange(len(histories)).repeat_interleave(step_ptr.diff())
        position = _tensor(list(chain.from_iterable(occurrences)))
        occurrence_node = nodes.repeat_interleave(occurrence_ptr.diff())
        item = slice(0, step_node.shape[0])
        by_item = graph_of[occurrence_node[item]]
        return SequenceGraph(
            schema=schema,
            num_graphs=len(histories),
            node_id=_tensor(node_id),
            node_type=types_of,
            batch=graph_of,
            type_ptr=_tensor(type_ptr),
            edge_index=edge_index,
            edge_type=edge_type,
            step_ptr=step_ptr,
            step_node=step_node,
            occurrence_ptr=occurrence_ptr,
            occurrence_node=occurrence_node,
            occurrence_position=position,
            edges=EdgeSet(
                ptr,
                neighbour,
                centre,
                edges,
                edge_type,
                schema.num_relations,
                EdgeSet(ptr, neighbour, centre, back_edge, order=order),
                order,
            ),
            homogeneous=symmetric(inside, schema.homogeneous_relations[-1] + 1),
            heterogeneous=symmetric(~inside | (edge_type == 0), schema.num_relations),
            step_edges=EdgeSet(
                step_ptr,
                step_node,
                step_batch,
                torch.arange(step_node.shape[0]),
                transpose=EdgeSet(
                    occurrence_ptr.clamp(max=step_node.shape[0]),
                    by_item,
                    occurrence_node[item],
                    step_ptr[by_item] + position[item],
                    sources=None if len(histories) == num_nodes else len(histories),
                ),
            ),
            id_bounds=tuple(max(node_id[a:b], default=-1) + 1 for a, b in pairwise(type_ptr)),
            num_positions=max(lengths, default=0),
        )


def _tensor(numbers: list[int]) -> Tensor:
    return torch.from_numpy(np.array(numbers, np.int64))  # faster than torch.tensor
