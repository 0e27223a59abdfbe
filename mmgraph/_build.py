"""The compiled part of the graph builder.

Two passes, both history by history so that all they touch at a time stays in cache. `adjacency`
finds each history's nodes and sorted rows of neighbours in the history's own numbering; with all
counts known, `fill` writes them to the graph's arrays. Both are linear in the matches visited:
the pairs of entries of adjacent steps in one modality, and of one step in different modalities.
"""

# Numba gives an index its own type in each loop; a type checker sees one variable.
# mypy: disable-error-code="assignment"

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from mmgraph._numba import Compiled

Ints = NDArray[np.int64]
Shorts = NDArray[np.int32]
Words = NDArray[np.uint64]
Marks = NDArray[np.uint8]

# How a neighbour stands to its centre, as bits: `both` is the sum of the two directions.
_NEXT, _PREVIOUS, _OTHER_TYPE = 1, 2, 4

# The place of a word's only bit: each six bits of a De Bruijn sequence occur once.
_DE_BRUIJN = np.uint64(0x03F79D71B4CB0A89)
_BIT = np.zeros(64, np.int64)
_BIT[[((1 << place) * int(_DE_BRUIJN) >> 58) & 63 for place in range(64)]] = np.arange(64)


@numba.njit(error_model="numpy")
def _rows_from_bits(
    bits: Words,
    words: int,
    length: int,
    entry: Shorts,
    entry_ptr: Shorts,
    first_node: Ints,
    neighbours: Shorts,
    degree: Shorts,
    inside: Shorts,
) -> int:
    """Rows of one history's neighbours: each node's row is a bit per node of the history.

    The nodes of each step make one mask; a node's row is the union of its steps' masks (other
    types) and of the masks before and after them (its own type).
    """
    num_types, n = first_node.size - 1, first_node[-1]
    one = np.uint64(1)
    # Masks of the steps, with an empty one at either end; then of each node three rows.
    after, before, other = length + 2, length + 2 + n, length + 2 + 2 * n
    for w in range((other + n) * words):
        bits[w] = 0
    for t in range(num_types):
        for s in range(length):
            for k in range(entry_ptr[t * length + s], entry_ptr[t * length + s + 1]):
                i = entry[k]
                bits[(s + 1) * words + (i >> 6)] |= one << np.uint64(i & 63)
    for t in range(num_types):
        for s in range(length):
            for k in range(entry_ptr[t * length + s], entry_ptr[t * length + s + 1]):
                i = entry[k]
                for w in range(words):
                    bits[(before + i) * words + w] |= bits[s * words + w]
                    bits[(other + i) * words + w] |= bits[(s + 1) * words + w]
                    bits[(after + i) * words + w] |= bits[(s + 2) * words + w]
    size = 0
    for t in range(num_types):
        low, high = first_node[t], first_node[t + 1]
        for i in range(low, high):
            start, own = size, 0
            for w in range(words):
                # The node's own type in this word.
                mask = ~np.uint64(0)
                if low > 64 * w:
                    mask = mask << np.uint64(low - 64 * w) if low < 64 * w + 64 else np.uint64(0)
                if high < 64 * w + 64:
                    mask &= (
                        (one << np.uint64(high - 64 * w)) - one if high > 64 * w else np.uint64(0)
                    )
                following = bits[(after + i) * words + w] & mask
                preceding = bits[(before + i) * words + w] & mask
                if i >> 6 == w:
                    self = one << np.uint64(i & 63)
                    following &= ~self
                    preceding &= ~self
                    same = following | preceding | self
                else:
                    same = following | preceding
                row = same | (bits[(other + i) * words + w] & ~mask)
                while row:
                    lowest = row & (~row + one)
                    b = _BIT[(lowest * _DE_BRUIJN) >> np.uint64(58)]
                    place = np.uint64(b)
                    own += np.int64((same >> place) & one)
                    neighbours[size] = (
                        4 * (64 * w + b)
                        + np.int64((following >> place) & one)
                        + 2 * np.int64((preceding >> place) & one)
                    )
                    size += 1
                    row ^= lowest
            degree[i], inside[i] = size - start, own
    return size


@numba.njit(error_model="numpy")
def _rows_from_lists(
    found: Shorts,
    length: int,
    entry: Shorts,
    entry_ptr: Shorts,
    first_node: Ints,
    occurrence_ptr: Shorts,
    positions: Shorts,
    mark: Marks,
    cursor: Shorts,
    neighbours: Shorts,
    degree: Shorts,
    inside: Shorts,
) -> int:
    """The same rows for a history of so many nodes that rows of bits would be mostly empty.

    Each node's matches are listed once each and then sorted; the structure is symmetric, so their
    number is both the node's degree and the number of rows in which it appears.
    """
    num_types, n = first_node.size - 1, first_node[-1]
    size = 0
    for t in range(num_types):
        for j in range(first_node[t], first_node[t + 1]):
            start = size
            found[size] = 4 * j
            size += 1
            mark[j] = _OTHER_TYPE  # `self` is there, whatever else joins the node to itself
            for o in range(occurrence_ptr[j], occurrence_ptr[j + 1]):
                s = positions[o]
                at = t * length + s
                if s > 0:
                    for k in range(entry_ptr[at - 1], entry_ptr[at]):
                        i = entry[k]
                        found[size] = 4 * i
                        size += mark[i] == 0
                        mark[i] |= _NEXT
                if s + 1 < length:
                    for k in range(entry_ptr[at + 1], entry_ptr[at + 2]):
                        i = entry[k]
                        found[size] = 4 * i
                        size += mark[i] == 0
                        mark[i] |= _PREVIOUS
            mark[j] = 0
            for f in range(start + 1, size):
                i = found[f] >> 2
                found[f] += mark[i]
                mark[i] = 0
            inside[j] = size - start
            middle = size
            for o in range(occurrence_ptr[j], occurrence_ptr[j + 1]):
                s = positions[o]
                for u in range(num_types):
                    if u != t:
                        at = u * length + s
                        for k in range(entry_ptr[at], entry_ptr[at + 1]):
                            i = entry[k]
                            found[size] = 4 * i
                            size += mark[i] == 0
                            mark[i] = _OTHER_TYPE
            for f in range(middle, size):
                mark[found[f] >> 2] = 0
            degree[j] = size - start

    # Sort the rows: neighbours come in ascending order.
    total = 0
    for i in range(n):
        cursor[i] = total
        total += degree[i]
    f = 0
    for j in range(n):
        for _ in range(degree[j]):
            i = found[f] >> 2
            neighbours[cursor[i]] = 4 * j + (found[f] & 3)
            cursor[i] += 1
            f += 1
    return size


def _adjacency(
    values: Ints,
    rows: Ints,
    first: Ints,
    last: Ints,
    table: Ints,
    column_ptr: Ints,
    item_rows: bool,
) -> tuple[Any, ...]:
    """Each history's nodes, occurrences and sorted rows of neighbours, history after history.

    Args:
        values: every step's item.
        rows: each step's row in `table`, unless `item_rows`.
        first, last: `[B]`, each history's kept steps.
        table: `[rows, columns]`, codes, -1 = missing.
        column_ptr: `[T]`, where the columns of modality 1, 2, ... begin and end.
        item_rows: the row in `table` is the item.

    Returns:
        counts `[B, T]`, bounds `[T]` of ids, and lists that run over the histories' nodes, by type
        and first occurrence: id, degree, degree inside the type, number of occurrences; then the
        position of each occurrence, the neighbours (`4 * node + direction`), each kept step's
        item node.
    """
    num_graphs, num_types = first.size, column_ptr.size
    num_steps, longest = 0, 0
    for b in range(num_graphs):
        num_steps += last[b] - first[b]
        longest = max(longest, last[b] - first[b])
    width = 1 + table.shape[1]
    most, widest = longest * width, 1
    for t in range(1, num_types):
        widest = max(widest, column_ptr[t] - column_ptr[t - 1])

    counts = np.zeros((num_graphs, num_types), np.int64)
    bounds = np.zeros(num_types, np.int64)
    ids = np.empty(num_steps * width, np.int64)
    degree = np.empty(num_steps * width, np.int32)
    inside = np.empty(num_steps * width, np.int32)
    occurrences = np.empty(num_steps * width, np.int32)
    positions = np.empty(num_steps * width, np.int32)
    step_node = np.empty(num_steps, np.int32)
    capacity = 64 * num_steps + 64
    neighbours = np.empty(capacity, np.int32)

    # One history's own, in its own numbering.
    slots = 4
    while slots < 2 * longest * widest:
        slots *= 2
    key, slot_node = np.empty(slots, np.int64), np.empty(slots, np.int32)
    entry = np.empty(most, np.int32)
    entry_ptr = np.empty(num_types * longest + 1, np.int32)
    first_node = np.empty(num_types + 1, np.int64)
    last_step = np.empty(most, np.int32)
    occurrence_ptr = np.empty(most + 1, np.int32)
    cursor = np.empty(most + 1, np.int32)
    mark = np.zeros(most, np.uint8)
    found = np.empty(0, np.int32)
    bits = np.empty(0, np.uint64)

    nodes, occurrence, edges, step = 0, 0, 0, 0
    for b in range(num_graphs):
        begin, length = first[b], last[b] - first[b]

        # Nodes: the distinct ids of each type in order of first occurrence; `entry` lists the
        # nodes of each type and step.
        n, e = 0, 0
        for t in range(num_types):
            first_node[t] = n
            low = column_ptr[t - 1] if t else 0
            high = column_ptr[t] if t else 1
            power = 2
            while (1 << power) < 2 * length * (high - low):
                power += 1
            mask, shift = (1 << power) - 1, np.uint64(64 - power)
            for h in range(mask + 1):
                slot_node[h] = -1
            for s in range(length):
                entry_ptr[t * length + s] = e
                row = values[begin + s] if item_rows or t == 0 else rows[begin + s]
                for column in range(low, high):
                    identity = table[row, column] if t else row
                    if identity < 0:
                        continue
                    h = np.int64((np.uint64(identity) * np.uint64(0x9E3779B97F4A7C15)) >> shift)
                    while slot_node[h] >= 0 and key[h] != identity:
                        h = (h + 1) & mask
                    node = slot_node[h]
                    if node < 0:
                        node = n
                        key[h], slot_node[h] = identity, n
                        ids[nodes + n], occurrences[nodes + n], last_step[n] = identity, 0, -1
                        bounds[t] = max(bounds[t], identity + 1)
                        n += 1
                    if last_step[node] != s:  # else: a repeat in the row
                        last_step[node] = s
                        occurrences[nodes + node] += 1
                        entry[e] = node
                        e += 1
            counts[b, t] = n - first_node[t]
        first_node[num_types] = n
        entry_ptr[num_types * length] = e
        for s in range(length):
            step_node[step + s] = entry[s]

        # Where each node occurs.
        total = 0
        for i in range(n):
            occurrence_ptr[i], cursor[i] = total, total
            total += occurrences[nodes + i]
        occurrence_ptr[n] = total
        matches = n
        for t in range(num_types):
            for s in range(length):
                here = entry_ptr[t * length + s + 1] - entry_ptr[t * length + s]
                if s:
                    before = entry_ptr[t * length + s] - entry_ptr[t * length + s - 1]
                    matches += 2 * here * before
                for u in range(t):
                    there = entry_ptr[u * length + s + 1] - entry_ptr[u * length + s]
                    matches += 2 * here * there
                for k in range(entry_ptr[t * length + s], entry_ptr[t * length + s + 1]):
                    i = entry[k]
                    positions[occurrence + cursor[i]] = s
                    cursor[i] += 1

        if capacity < edges + matches:
            capacity = 2 * (edges + matches)
            larger = np.empty(capacity, np.int32)
            larger[:edges] = neighbours[:edges]
            neighbours = larger
        room = neighbours[edges:]
        own_degree, own_inside = degree[nodes : nodes + n], inside[nodes : nodes + n]
        words = (n + 63) >> 6
        if n * words <= matches:
            if bits.size < (3 * n + length + 2) * words:
                bits = np.empty(2 * (3 * n + length + 2) * words, np.uint64)
            size = _rows_from_bits(
                bits, words, length, entry, entry_ptr, first_node, room, own_degree, own_inside
            )
        else:
            if found.size < matches + 1:
                found = np.empty(2 * matches, np.int32)
            size = _rows_from_lists(
                found,
                length,
                entry,
                entry_ptr,
                first_node,
                occurrence_ptr,
                positions[occurrence:],
                mark,
                cursor,
                room,
                own_degree,
                own_inside,
            )
        nodes += n
        occurrence += e
        edges += size
        step += length
    return (
        counts,
        bounds,
        ids[:nodes],
        degree[:nodes],
        inside[:nodes],
        occurrences[:nodes],
        positions[:occurrence],
        neighbours[:edges],
        step_node,
    )


def _fill(
    counts: Ints,
    ids: Ints,
    degree: Shorts,
    inside: Shorts,
    occurrences: Shorts,
    positions: Shorts,
    neighbours: Shorts,
    step_local: Shorts,
    lengths: Ints,
    relation: Ints,
    node_id: Ints,
    node_type: Ints,
    batch: Ints,
    order: Ints,
    step_ptr: Ints,
    step_node: Ints,
    step_batch: Ints,
    step_id: Ints,
    by_item_ptr: Ints,
    by_item_graph: Ints,
    by_item_node: Ints,
    by_item_step: Ints,
    occurrence_ptr: Ints,
    occurrence_node: Ints,
    occurrence_position: Ints,
    ptr: Ints,
    edge_index: Ints,
    edge_type: Ints,
    edge_id: Ints,
    reverse: Ints,
    ho_ptr: Ints,
    ho_index: Ints,
    ho_centre: Ints,
    ho_type: Ints,
    ho_id: Ints,
    ho_reverse: Ints,
    he_ptr: Ints,
    he_index: Ints,
    he_centre: Ints,
    he_type: Ints,
    he_id: Ints,
    he_reverse: Ints,
) -> None:
    """Write what `adjacency` found to the graph's arrays; `relation` is `[T, T]`."""
    num_graphs, num_types = counts.shape
    base = np.empty((num_graphs, num_types), np.int64)
    total, most = 0, 0
    for t in range(num_types):
        for b in range(num_graphs):
            base[b, t] = total
            total += counts[b, t]
    for b in range(num_graphs):
        most = max(most, counts[b].sum())

    # Row pointers: first each node's counts, one place on, then their sums.
    node = 0
    for b in range(num_graphs):
        for t in range(num_types):
            for i in range(base[b, t], base[b, t] + counts[b, t]):
                node_id[i], node_type[i], batch[i] = ids[node], t, b
                order[node] = i
                ptr[i + 1] = degree[node]
                ho_ptr[i + 1] = inside[node]
                he_ptr[i + 1] = degree[node] - inside[node] + 1
                occurrence_ptr[i + 1] = occurrences[node]
                by_item_ptr[i + 1] = 0 if t else occurrences[node]
                node += 1
    ptr[0] = ho_ptr[0] = he_ptr[0] = occurrence_ptr[0] = by_item_ptr[0] = 0
    for i in range(total):
        ptr[i + 1] += ptr[i]
        ho_ptr[i + 1] += ho_ptr[i]
        he_ptr[i + 1] += he_ptr[i]
        occurrence_ptr[i + 1] += occurrence_ptr[i]
        by_item_ptr[i + 1] += by_item_ptr[i]

    # Of a history's nodes: the global number, the type, and the next free place in the node's rows.
    number = np.empty(most, np.int64)
    kind = np.empty(most, np.int64)
    cursor = np.empty(most, np.uint64)
    ho_cursor = np.empty(most, np.uint64)
    he_cursor = np.empty(most, np.uint64)
    row_relation = np.empty(most, np.int64)
    # Indices that are unsigned need no test for counting from the end: a quarter of the time.
    zero, one, two = np.uint64(0), np.uint64(1), np.uint64(2)
    step_ptr[0] = 0
    node, occurrence, edge, step = 0, 0, 0, 0
    for b in range(num_graphs):
        n = 0
        for t in range(num_types):
            for i in range(counts[b, t]):
                number[n], kind[n] = base[b, t] + i, t
                cursor[n] = ptr[number[n]]
                ho_cursor[n] = ho_ptr[number[n]]
                he_cursor[n] = he_ptr[number[n]]
                n += 1

        for s in range(step, step + lengths[b]):
            step_node[s] = number[step_local[s]]
            step_batch[s] = b
            step_id[s] = s

        for local in range(n):
            i, t = number[local], kind[local]
            if local == 0 or t != kind[local - 1]:
                first_own = local
                for j in range(n):
                    row_relation[j] = relation[t, kind[j]]

            o = occurrence_ptr[i]
            for _ in range(occurrences[node]):
                occurrence_node[o] = i
                occurrence_position[o] = positions[occurrence]
                if t == 0:
                    by_item_graph[o] = b
                    by_item_node[o] = i
                    by_item_step[o] = step + positions[occurrence]
                occurrence += 1
                o += 1

            # The row: neighbours of lower types, of the node's own, of higher ones.
            own = edge
            while neighbours[own] < 4 * first_own:
                own += 1
            higher, stop = own + inside[node], edge + degree[node]
            loop = np.uint64(he_ptr[i] + own - edge)
            he_index[loop] = he_centre[loop] = i
            he_type[loop] = 0
            he_id[loop] = cursor[local]
            he_reverse[loop] = he_cursor[local]
            he_cursor[local] += one

            p, he = np.uint64(ptr[i]), np.uint64(he_ptr[i])
            for k in range(np.uint64(edge), np.uint64(own)):
                j = np.uint64(neighbours[k]) >> two
                edge_index[zero, p] = he_index[he] = number[j]
                edge_index[one, p] = he_centre[he] = i
                edge_type[p] = he_type[he] = row_relation[j]
                edge_id[p] = he_id[he] = p
                reverse[p] = cursor[j]
                cursor[j] += one
                he_reverse[he] = he_cursor[j]
                he_cursor[j] += one
                p += one
                he += one
            ho = np.uint64(ho_ptr[i])
            for k in range(np.uint64(own), np.uint64(higher)):
                j = np.uint64(neighbours[k]) >> two
                edge_index[zero, p] = ho_index[ho] = number[j]
                edge_index[one, p] = ho_centre[ho] = i
                edge_type[p] = ho_type[ho] = neighbours[k] & 3
                edge_id[p] = ho_id[ho] = p
                reverse[p] = cursor[j]
                cursor[j] += one
                ho_reverse[ho] = ho_cursor[j]
                ho_cursor[j] += one
                p += one
                ho += one
            he += one  # past `self`
            for k in range(np.uint64(higher), np.uint64(stop)):
                j = np.uint64(neighbours[k]) >> two
                edge_index[zero, p] = he_index[he] = number[j]
                edge_index[one, p] = he_centre[he] = i
                edge_type[p] = he_type[he] = row_relation[j]
                edge_id[p] = he_id[he] = p
                reverse[p] = cursor[j]
                cursor[j] += one
                he_reverse[he] = he_cursor[j]
                he_cursor[j] += one
                p += one
                he += one
            edge = stop
            node += 1
        step += lengths[b]
        step_ptr[b + 1] = step


adjacency = Compiled(_adjacency, "the graph builder")
fill = Compiled(_fill, "the graph builder")
