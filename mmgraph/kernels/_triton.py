"""The Triton kernels of :mod:`mmgraph.kernels.fused_cuda`, which imports this when first used.

A program makes the results of one row (a centre, or a neighbour of the transposed edge set) and
one head. It goes over the row's edges in blocks of ``BLOCK_E``, for each of which it reads a tile
of rows ``[BLOCK_E, channels]`` once, sums in float32 lane by lane, and folds the lanes at the end.
No two programs write one number: there are no atomics, and every run gives the same bits.

Tensors are contiguous. ``None`` stands for a tensor that is not there, and code for it is not
compiled. Where ``..._TYPED`` is set, rows ``[R, N, H, C]`` are read at the edge's relation, with
``..._rows`` = ``N * H`` from one relation's rows to the next one's.
"""

# Triton compiles these functions itself, and reads an annotation as a type of its own.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _tile(base, row, live, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """Rows of ``WIDTH`` numbers, ``[len(row), BLOCK]``; zeros where not live."""
    c = tl.arange(0, BLOCK)
    mask = live[:, None] & (c < WIDTH)[None, :]
    tile = tl.load(base + row[:, None] * WIDTH + c[None, :], mask=mask, other=0.0)
    return tile.to(tl.float32)


@triton.jit
def _line(base, row, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """One row of ``WIDTH`` numbers as a tile ``[1, BLOCK]``."""
    c = tl.arange(0, BLOCK)
    line = tl.load(base + row * WIDTH + c, mask=c < WIDTH, other=0.0)
    return line.to(tl.float32)[None, :]


@triton.jit
def _store_line(base, row, line, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    c = tl.arange(0, BLOCK)
    tl.store(base + row * WIDTH + c, line.to(base.dtype.element_ty), mask=c < WIDTH)


@triton.jit
def _fold_exponentials(highest, total):
    """Lanes' maxima and sums of exponentials as one maximum and one sum, along the first axis."""
    top = tl.max(highest, 0)
    # exp(-inf - -inf) would be NaN where a lane is empty: its sum is 0 whatever the factor.
    shift = tl.where(top == float("-inf"), 0.0, top)
    return top, tl.sum(total * tl.exp(highest - shift), 0)


@triton.jit
def attention_forward(
    query,
    key,
    value,
    ptr,
    index,
    relation,
    weight,
    bias,
    scale,
    out,
    alpha,
    positive,
    slope,
    heads,
    query_rows,
    key_rows,
    value_rows,
    CK: tl.constexpr,
    CV: tl.constexpr,
    QUERY_TYPED: tl.constexpr,
    KEY_TYPED: tl.constexpr,
    VALUE_TYPED: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_V: tl.constexpr,
):
    program = tl.program_id(0)
    i = (program // heads).to(tl.int64)
    h = program % heads
    begin = tl.load(ptr + i)
    end = tl.load(ptr + i + 1)
    row = i * heads + h

    # Scores, and their maximum and sum of exponentials. The last block's stay in registers, so
    # that most rows never read theirs back; the others' wait in alpha.
    highest = tl.full([BLOCK_E], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_E], tl.float32)
    last = tl.full([BLOCK_E], float("-inf"), tl.float32)
    for start in range(begin, end, BLOCK_E):
        e = start + tl.arange(0, BLOCK_E)
        live = e < end
        j = tl.load(index + e, mask=live, other=0)
        key_row = j * heads + h
        if QUERY_TYPED or KEY_TYPED or weight is not None:
            r = tl.load(relation + e, mask=live, other=0)
        if KEY_TYPED:
            key_row += r * key_rows
        if QUERY_TYPED:
            products = _tile(query, r * query_rows + row, live, CK, BLOCK_K)
        else:
            products = _line(query, row, CK, BLOCK_K)
        products = products * _tile(key, key_row, live, CK, BLOCK_K)
        if weight is not None:
            products = products * _tile(weight, r * heads + h, live, CK, BLOCK_K)
        score = tl.sum(products, 1)
        if positive is not None:
            above = score > 0
            score = tl.where(above, score, score * slope)
            tl.store(positive + e * heads + h, above.to(tl.uint8), mask=live)
        if bias is not None:
            score += tl.load(bias + e * heads + h, mask=live, other=0.0).to(tl.float32)
        last = tl.where(live, score, float("-inf"))
        if start + BLOCK_E < end:
            tl.store(alpha + e * heads + h, last)
        higher = tl.maximum(highest, last)
        shift = tl.where(higher == float("-inf"), 0.0, higher)
        total = total * tl.exp(highest - shift) + tl.exp(last - shift)
        highest = higher
    top, sum_ = _fold_exponentials(highest, total)

    tl.debug_barrier()  # what one thread wrote to alpha, another may read
    sums = tl.zeros([BLOCK_E, BLOCK_V], tl.float32)
    for start in range(begin, end, BLOCK_E):
        e = start + tl.arange(0, BLOCK_E)
        live = e < end
        score = last
        if start + BLOCK_E < end:
            score = tl.load(alpha + e * heads + h)
            tl.debug_barrier()  # every thread has read before one writes
        share = tl.exp(score - top) / sum_
        tl.store(alpha + e * heads + h, share, mask=live)
        if scale is not None:
            share *= tl.load(scale + e * heads + h, mask=live, other=0.0).to(tl.float32)
        value_row = tl.load(index + e, mask=live, other=0) * heads + h
        if VALUE_TYPED:
            value_row += tl.load(relation + e, mask=live, other=0) * value_rows
        sums += share[:, None] * _tile(value, value_row, live, CV, BLOCK_V)
    _store_line(out, row, tl.sum(sums, 0), CV, BLOCK_V)


@triton.jit
def attention_backward(
    grad_out,
    grad_alpha,
    key,
    value,
    ptr,
    index,
    relation,
    weight,
    scale,
    alpha,
    positive,
    grad_score,
    grad_query,
    grad_bias,
    grad_scale,
    slope,
    heads,
    key_rows,
    value_rows,
    CK: tl.constexpr,
    CV: tl.constexpr,
    KEY_TYPED: tl.constexpr,
    VALUE_TYPED: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_V: tl.constexpr,
):
    """A centre's gradients: of its edges' scores before LeakyReLU, bias and scale, of its query."""
    program = tl.program_id(0)
    i = (program // heads).to(tl.int64)
    h = program % heads
    begin = tl.load(ptr + i)
    end = tl.load(ptr + i + 1)
    row = i * heads + h
    grad_row = _line(grad_out, row, CV, BLOCK_V)

    # The gradients of alpha, and their mean weighted by alpha; kept as the scores are in forward.
    means = tl.zeros([BLOCK_E], tl.float32)
    last = tl.zeros([BLOCK_E], tl.float32)
    for start in range(begin, end, BLOCK_E):
        e = start + tl.arange(0, BLOCK_E)
        live = e < end
        share = tl.load(alpha + e * heads + h, mask=live, other=0.0)
        value_row = tl.load(index + e, mask=live, other=0) * heads + h
        if VALUE_TYPED:
            value_row += tl.load(relation + e, mask=live, other=0) * value_rows
        last = tl.sum(grad_row * _tile(value, value_row, live, CV, BLOCK_V), 1)
        if grad_scale is not None:
            grad = (share * last).to(grad_scale.dtype.element_ty)
            tl.store(grad_scale + e * heads + h, grad, mask=live)
        if scale is not None:
            last *= tl.load(scale + e * heads + h, mask=live, other=0.0).to(tl.float32)
        if grad_alpha is not None:
            last += tl.load(grad_alpha + e * heads + h, mask=live, other=0.0).to(tl.float32)
        if start + BLOCK_E < end:
            tl.store(grad_score + e * heads + h, last)
        means += tl.where(live, share * last, 0.0)
    mean = tl.sum(means, 0)

    tl.debug_barrier()
    sums = tl.zeros([BLOCK_E, BLOCK_K], tl.float32)
    for start in range(begin, end, BLOCK_E):
        e = start + tl.arange(0, BLOCK_E)
        live = e < end
        grad = last
        if start + BLOCK_E < end:
            grad = tl.load(grad_score + e * heads + h)
            tl.debug_barrier()
        grad = tl.load(alpha + e * heads + h, mask=live, other=0.0) * (grad - mean)
        if grad_bias is not None:
            tl.store(grad_bias + e * heads + h, grad.to(grad_bias.dtype.element_ty), mask=live)
        if positive is not None:
            above = tl.load(positive + e * heads + h, mask=live, other=0) != 0
            grad = tl.where(above, grad, grad * slope)
        tl.store(grad_score + e * heads + h, grad, mask=live)
        if grad_query is not None:
            grad = tl.where(live, grad, 0.0)
            key_row = tl.load(index + e, mask=live, other=0) * heads + h
            if KEY_TYPED or weight is not None:
                r = tl.load(relation + e, mask=live, other=0)
            if KEY_TYPED:
                key_row += r * key_rows
            products = grad[:, None] * _tile(key, key_row, live, CK, BLOCK_K)
            if weight is not None:
                products = products * _tile(weight, r * heads + h, live, CK, BLOCK_K)
            sums += products
    if grad_query is not None:
        _store_line(grad_query, row, tl.sum(sums, 0), CK, BLOCK_K)


@triton.jit
def gather_sums(
    ptr,
    index,
    edge_id,
    relation,
    rows_a,
    factor_a,
    weight_a,
    out_a,
    rows_b,
    factor_b,
    scale_b,
    degree_b,
    first_b,
    out_b,
    heads,
    rows_a_rows,
    rows_b_rows,
    CA: tl.constexpr,
    CB: tl.constexpr,
    A_TYPED: tl.constexpr,
    B_TYPED: tl.constexpr,
    OUT_TYPED: tl.constexpr,
    MEAN: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_A: tl.constexpr,
    BLOCK_B: tl.constexpr,
):
    """Weighted sums of gathered rows: up to two, ``a`` and ``b``, over one row's edges.

    The factors are per edge, at ``edge_id`` (in a transposed set) or in the set's own order.
    ``weight_a`` is a vector per relation. ``b`` is divided by the number of edges, of the row with
    ``MEAN``, of the gathered rows (``degree_b``, their ``ptr``) in the mean's gradient; with
    ``first_b`` only those numbers count for which it names the edge. With ``OUT_TYPED`` a program
    sums the edges of one relation.
    """
    program = tl.program_id(0)
    n = (program // heads).to(tl.int64)
    h = program % heads
    begin = tl.load(ptr + n)
    end = tl.load(ptr + n + 1)
    out_row = n * heads + h
    if OUT_TYPED:
        out_row += tl.program_id(1).to(tl.int64) * tl.num_programs(0)

    if out_a is not None:
        sums_a = tl.zeros([BLOCK_E, BLOCK_A], tl.float32)
    if out_b is not None:
        sums_b = tl.zeros([BLOCK_E, BLOCK_B], tl.float32)
    for start in range(begin, end, BLOCK_E):
        t = start + tl.arange(0, BLOCK_E)
        live = t < end
        e = t
        if edge_id is not None:
            e = tl.load(edge_id + t, mask=live, other=0)
        if OUT_TYPED or A_TYPED or B_TYPED or weight_a is not None:
            r = tl.load(relation + e, mask=live, other=0)
        if OUT_TYPED:  # other relations' rows are not read
            live = live & (r == tl.program_id(1))
        i = tl.load(index + t, mask=live, other=0)
        row = i * heads + h
        if out_a is not None:
            row_a = row
            if A_TYPED:
                row_a = row + r * rows_a_rows
            factor = tl.load(factor_a + e * heads + h, mask=live, other=0.0).to(tl.float32)
            products = factor[:, None] * _tile(rows_a, row_a, live, CA, BLOCK_A)
            if weight_a is not None:
                products = products * _tile(weight_a, r * heads + h, live, CA, BLOCK_A)
            sums_a += products
        if out_b is not None:
            row_b = row
            if B_TYPED:
                row_b = row + r * rows_b_rows
            products = _tile(rows_b, row_b, live, CB, BLOCK_B)
            if first_b is not None:
                c = tl.arange(0, BLOCK_B)
                mask = live[:, None] & (c < CB)[None, :]
                first = tl.load(first_b + row[:, None] * CB + c[None, :], mask=mask, other=-1)
                products = tl.where(first == e[:, None], products, 0.0)
            if degree_b is not None:
                degree = tl.load(degree_b + i + 1, mask=live, other=1)
                degree -= tl.load(degree_b + i, mask=live, other=0)
                products = products / degree.to(tl.float32)[:, None]
            if factor_b is not None:
                factor = tl.load(factor_b + e * heads + h, mask=live, other=0.0).to(tl.float32)
                if scale_b is not None:
                    factor *= tl.load(scale_b + e * heads + h, mask=live, other=0.0).to(tl.float32)
                products = products * factor[:, None]
            sums_b += products
    if out_a is not None:
        _store_line(out_a, out_row, tl.sum(sums_a, 0), CA, BLOCK_A)
    if out_b is not None:
        line = tl.sum(sums_b, 0)
        if MEAN:
            line = line / tl.maximum(end - begin, 1).to(tl.float32)
        _store_line(out_b, out_row, line, CB, BLOCK_B)


@triton.jit(do_not_specialize=["num_edges", "span"])
def relation_partials(
    query,
    key,
    grad_score,
    index,
    relation,
    transpose_index,
    transpose_edge,
    partial,
    num_edges,
    span,
    heads,
    query_rows,
    key_rows,
    C: tl.constexpr,
    QUERY_TYPED: tl.constexpr,
    KEY_TYPED: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """The gradient of one relation's vector over one part of the edges, ``span`` of them."""
    part = tl.program_id(0).to(tl.int64)
    h = tl.program_id(1)
    which = tl.program_id(2)
    begin = part * span
    end = tl.minimum(begin + span, num_edges)
    sums = tl.zeros([BLOCK_E, BLOCK_C], tl.float32)
    for start in range(begin, end, BLOCK_E):
        t = start + tl.arange(0, BLOCK_E)
        e = tl.load(transpose_edge + t, mask=t < end, other=0)
        r = tl.load(relation + e, mask=t < end, other=-1)
        live = r == which  # each edge's rows are read by its own relation's program alone
        query_row = tl.load(transpose_index + t, mask=live, other=0) * heads + h
        key_row = tl.load(index + e, mask=live, other=0) * heads + h
        if QUERY_TYPED:
            query_row += r * query_rows
        if KEY_TYPED:
            key_row += r * key_rows
        grad = tl.load(grad_score + e * heads + h, mask=live, other=0.0)
        products = _tile(query, query_row, live, C, BLOCK_C)
        sums += grad[:, None] * products * _tile(key, key_row, live, C, BLOCK_C)
    row = (part * tl.num_programs(2) + which) * heads + h
    _store_line(partial, row, tl.sum(sums, 0), C, BLOCK_C)


@triton.jit
def maxima(
    value,
    weight,
    ptr,
    index,
    relation,
    out,
    first,
    heads,
    value_rows,
    C: tl.constexpr,
    TYPED: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """The largest number of each channel, NaN above all, and the first edge that brings it."""
    program = tl.program_id(0)
    i = (program // heads).to(tl.int64)
    h = program % heads
    begin = tl.load(ptr + i)
    end = tl.load(ptr + i + 1)
    row = i * heads + h
    best = tl.full([BLOCK_C], float("-inf"), tl.float32)
    edge = tl.full([BLOCK_C], -1, tl.int64)
    for start in range(begin, end, BLOCK_E):
        e = start + tl.arange(0, BLOCK_E)
        live = e < end
        j = tl.load(index + e, mask=live, other=0)
        value_row = j * heads + h
        if TYPED:
            value_row += tl.load(relation + e, mask=live, other=0) * value_rows
        tile = _tile(value, value_row, live, C, BLOCK_C)
        if weight is not None:
            factor = tl.load(weight + e * heads + h, mask=live, other=0.0).to(tl.float32)
            # As the result is rounded, so that numbers which it cannot tell apart are ties.
            tile = (tile * factor[:, None]).to(out.dtype.element_ty).to(tl.float32)
        nan = (tile != tile) & live[:, None]
        any_nan = tl.max(nan.to(tl.int32), 0) > 0
        tile = tl.where(live[:, None] & (tile == tile), tile, float("-inf"))
        block_best = tl.max(tile, 0)
        brings = tl.where(any_nan[None, :], nan, tile == block_best[None, :]) & live[:, None]
        block_edge = tl.min(tl.where(brings, e[:, None], end), 0)
        block_best = tl.where(any_nan, float("nan"), block_best)
        better = (edge < 0) | (block_best > best) | (any_nan & (best == best))
        best = tl.where(better, block_best, best)
        edge = tl.where(better, block_edge, edge)
    best = tl.where(edge < 0, 0.0, best)
    _store_line(out, row, best, C, BLOCK_C)
    _store_line(first, row, edge, C, BLOCK_C)


@triton.jit
def edge_products(
    grad_out,
    value,
    ptr,
    index,
    relation,
    first,
    out,
    heads,
    value_rows,
    C: tl.constexpr,
    TYPED: tl.constexpr,
    MEAN: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """The gradients of a centre's edge weights: its row times each neighbour's."""
    program = tl.program_id(0)
    i = (program // heads).to(tl.int64)
    h = program % heads
    begin = tl.load(ptr + i)
    end = tl.load(ptr + i + 1)
    row = i * heads + h
    grad = _line(grad_out, row, C, BLOCK_C)
    if MEAN:
        grad = grad / tl.maximum(end - begin, 1).to(tl.float32)
    if first is not None:
        c = tl.arange(0, BLOCK_C)
        edge = tl.load(first + row * C + c, mask=c < C, other=-1)[None, :]
    for start in range(begin, end, BLOCK_E):
        e = start + tl.arange(0, BLOCK_E)
        live = e < end
        j = tl.load(index + e, mask=live, other=0)
        value_row = j * heads + h
        if TYPED:
            value_row += tl.load(relation + e, mask=live, other=0) * value_rows
        row_grad = grad
        if first is not None:
            row_grad = tl.where(edge == e[:, None], grad, 0.0)
        products = row_grad * _tile(value, value_row, live, C, BLOCK_C)
        product = tl.sum(products, 1).to(out.dtype.element_ty)
        tl.store(out + e * heads + h, product, mask=live)


@triton.jit
def softmax_forward(
    scores,
    ptr,
    alpha,
    heads,
    BLOCK_E: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    """The softmax of one centre's edges, all heads at once."""
    i = tl.program_id(0).to(tl.int64)
    begin = tl.load(ptr + i)
    end = tl.load(ptr + i + 1)
    h = tl.arange(0, BLOCK_H)
    highest = tl.full([BLOCK_E, BLOCK_H], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_E, BLOCK_H], tl.float32)
    for start in range(begin, end, BLOCK_E):
        e = start + tl.arange(0, BLOCK_E)
        live = (e < end)[:, None] & (h < heads)[None, :]
        at = e[:, None] * heads + h[None, :]
        score = tl.load(scores + at, mask=live, other=float("-inf")).to(tl.float32)
        higher = tl.maximum(highest, score)
        shift = tl.where(higher == float("-inf"), 0.0, higher)
        total = total * tl.exp(highest - shift) + tl.exp(score - shift)
        highest = higher
    top, sum_ = _fold_exponentials(highest, total)
    for start in range(begin, end, BLOCK_E):
        e = start + tl.arange(0, BLOCK_E)
        live = (e < end)[:, None] & (h < heads)[None, :]
        at = e[:, None] * heads + h[None, :]
        score = tl.load(scores + at, mask=live, other=0.0).to(tl.float32)
        share = tl.exp(score - top[None, :]) / sum_[None, :]
        tl.store(alpha + at, share.to(alpha.dtype.element_ty), mask=live)


@triton.jit
def softmax_backward(
    grad_alpha,
    alpha,
    ptr,
    grad_scores,
    heads,
    BLOCK_E: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    i = tl.program_id(0).to(tl.int64)
    begin = tl.load(ptr + i)
    end = tl.load(ptr + i + 1)
    h = tl.arange(0, BLOCK_H)
    means = tl.zeros([BLOCK_E, BLOCK_H], tl.float32)
    for start in range(begin, end, BLOCK_E):
        e = start + tl.arange(0, BLOCK_E)
        live = (e < end)[:, None] & (h < heads)[None, :]
        at = e[:, None] * heads + h[None, :]
        share = tl.load(alpha + at, mask=live, other=0.0).to(tl.float32)
        means += share * tl.load(grad_alpha + at, mask=live, other=0.0).to(tl.float32)
    mean = tl.sum(means, 0)
    for start in range(begin, end, BLOCK_E):
        e = start + tl.arange(0, BLOCK_E)
        live = (e < end)[:, None] & (h < heads)[None, :]
        at = e[:, None] * heads + h[None, :]
        share = tl.load(alpha + at, mask=live, other=0.0).to(tl.float32)
        grad = tl.load(grad_alpha + at, mask=live, other=0.0).to(tl.float32)
        grad = share * (grad - mean[None, :])
        tl.store(grad_scores + at, grad.to(grad_scores.dtype.element_ty), mask=live)


INTERPRETED = not isinstance(attention_forward, triton.JITFunction)
"""Whether ``TRITON_INTERPRET=1`` was set, under which the kernels run on CPU tensors, slowly."""
