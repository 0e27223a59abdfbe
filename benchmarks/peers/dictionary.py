"""The compiled graph builder against a plain one of dictionaries and lists.

    python -m benchmarks.builder

Both make the same graph, tensor for tensor, which is checked before anything is timed. The
workload is 512 histories of length clip(Geometric(1/8) + 1, 2, 50), items drawn with probability
rank^-0.8 of 12,000, two further modalities with three codes each out of 30. The process restarts
itself pinned to one thread, with an allocator that keeps its memory, without which page faults
of fresh outputs decide the figures; `--default-allocator` shows those.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from collections.abc import Callable
from dataclasses import fields
from itertools import chain, pairwise

import numpy as np
import torch
from torch import Tensor

from mmgraph import EdgeSet, GraphSchema, SequenceGraph, SequenceGraphBuilder

THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
}


def workload(
    num_graphs: int = 512, seed: int = 0, num_items: int = 12_000, k: int = 3, num_codes: int = 30
) -> tuple[GraphSchema, dict[str, Tensor], list[list[int]]]:
    """A schema, the items' codes, and histories as lists."""
    rng = np.random.default_rng(seed)
    lengths = np.clip(rng.geometric(1 / 8, num_graphs) + 1, 2, 50)
    probability = np.arange(1, num_items + 1) ** -0.8
    probability /= probability.sum()
    histories = [rng.choice(num_items, n, p=probability).tolist() for n in lengths]
    codes = {
        name: torch.from_numpy(rng.integers(0, num_codes, (num_items, k)))
        for name in ("image", "text")
    }
    return GraphSchema(("item", "image", "text")), codes, histories


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

        def symmetric(chosen: Tensor, num_relations: int) -> EdgeSet:
            ids = chosen.nonzero().squeeze(1)
            place = torch.cumsum(chosen, 0) - 1
            own_ptr = torch.cat([place.new_zeros(1), place + 1])[ptr]
            own_index, own_centre = neighbour[ids], centre[ids]
            back = EdgeSet(own_ptr, own_index, own_centre, place[back_edge[ids]])
            return EdgeSet(own_ptr, own_index, own_centre, ids, edge_type[ids], num_relations, back)

        count = [len(where) for where in occurrences]
        occurrence_ptr = torch.from_numpy(np.concatenate([[0], np.cumsum(count)]))
        step_node = _tensor([row[0] for rows in entries[0] for row in rows])
        lengths = [len(history) for history in histories]
        step_ptr = torch.from_numpy(np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]))
        step_batch = torch.arange(len(histories)).repeat_interleave(step_ptr.diff())
        position = _tensor(list(chain.from_iterable(occurrences)))
        occurrence_node = nodes.repeat_interleave(occurrence_ptr.diff())
        graph_of = _tensor(batch)
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
                EdgeSet(ptr, neighbour, centre, back_edge),
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
                ),
            ),
            id_bounds=tuple(max(node_id[a:b], default=-1) + 1 for a, b in pairwise(type_ptr)),
            num_positions=max(lengths, default=0),
        )


def _tensor(numbers: list[int]) -> Tensor:
    return torch.from_numpy(np.array(numbers, np.int64))  # faster than torch.tensor


def difference(a: SequenceGraph | EdgeSet, b: SequenceGraph | EdgeSet) -> str | None:
    """The first field in which two graphs differ, by name."""
    for field in fields(a):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if isinstance(x, EdgeSet) and isinstance(y, EdgeSet):
            inner = difference(x, y)
            if inner is not None:
                return f"{field.name}.{inner}"
        elif isinstance(x, Tensor) and isinstance(y, Tensor):
            if not torch.equal(x, y):
                return field.name
        elif x != y:
            return field.name
    return None


def seconds(call: Callable[[], object], repeats: int) -> list[float]:
    """Quartiles of one call's time, in a block of its own after warm-ups, as timeit without gc."""
    for _ in range(3):
        call()
    times = []
    gc.collect()
    gc.disable()
    try:
        for _ in range(repeats):
            start = time.perf_counter()
            result = call()
            times.append(time.perf_counter() - start)
            del result
    finally:
        gc.enable()
    return list(np.percentile(times, [25, 50, 75]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--histories", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3, help="blocks per builder, in turn")
    parser.add_argument("--default-allocator", action="store_true")
    options = parser.parse_args()
    wanted = THREADS if options.default_allocator else THREADS | ALLOCATOR
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        command = [sys.executable, "-m", "benchmarks.builder", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, **wanted})
    torch.set_num_threads(1)

    schema, codes, histories = workload(options.histories, options.seed)
    lengths = [len(history) for history in histories]
    packed = np.concatenate(histories), np.concatenate([[0], np.cumsum(lengths)])
    plain = DictionaryBuilder(schema, codes, max_length=50)
    compiled = SequenceGraphBuilder(schema, codes, max_length=50)
    graph = compiled(histories)
    for other in (plain(histories), compiled(packed)):
        field = difference(graph, other)
        if field is not None:
            raise SystemExit(f"the builders disagree on {field}")
    print(graph)

    names = ["dictionaries, from lists", "compiled, from lists", "compiled, (values, offsets)"]
    calls: list[tuple[Callable[[], object], int]] = [
        (lambda: plain(histories), 10),
        (lambda: compiled(histories), 100),
        (lambda: compiled(packed), 100),
    ]
    rounds = [[seconds(*call) for call in calls] for _ in range(options.rounds)]
    print(f"{'milliseconds':30}{'q1':>9}{'median':>9}{'q3':>9}{'ratio':>8}")
    for times in rounds:
        for name, quartiles in zip(names, times, strict=True):
            q1, median, q3 = (1e3 * t for t in quartiles)
            ratio = times[0][1] / quartiles[1]
            print(f"{name:30}{q1:9.2f}{median:9.2f}{q3:9.2f}{ratio:7.1f}x")
    ratios = [times[0][1] / times[1][1] for times in rounds]
    print(f"compiled against dictionaries, the median round, from lists: {np.median(ratios):.1f}x")


if __name__ == "__main__":
    main()
