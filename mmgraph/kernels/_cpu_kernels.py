"""The loops behind the fused operations on the CPU, as Numba compiles them.

A kernel goes over a range of centres (or, where gradients flow back to neighbours, of the
transposed edge set's), and keeps the row that it makes in registers: nothing is added to memory
that another edge may add to, so that there are no atomics, and what a row holds depends neither on
the number of threads nor on chance. Kernels are made for a number type and for the two numbers of
channels, rounded up to a vector's width (see :mod:`mmgraph.kernels._simd`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from mmgraph.kernels._simd import (
    add,
    arguments,
    array,
    bits,
    choose,
    claim,
    exp,
    fetch,
    fma,
    load,
    mul,
    number,
    pick,
    same,
    splat,
    store,
    sub,
    total,
)

# Centres whose scores are made before the first of them is exponentiated: a vector read soon after
# single numbers were written to it would wait for them.
_TILE = 16
_LANES = 16

# Where the order of the centres is given, the rows of the centre that is so many places ahead are
# asked for: neighbours are near in that order, so each row comes from memory once and in time. Any
# number near that of a history's nodes does.
_AHEAD = 16


def forward_kernel(
    real: Any, ck: int, mk: int, sk: int, cv: int, mv: int, sv: int, relational: int, one_head: int
) -> Callable[..., Any]:
    zero, one, lowest = real(0), real(1), real(-math.inf)

    def forward(task: int) -> None:
        (
            parts,
            order_,
            query_,
            key_,
            value_,
            ptr_,
            index_,
            relation_,
            weight_,
            bias_,
            scale_,
            out_,
            alpha_,
            positive_,
            slope_bits,
            heads_,
            key_channels,
            value_channels,
            query_stride,
            key_stride,
            value_stride,
        ) = arguments(task, 21)
        cuts, order = array(task + 8 * 22, np.int64), array(order_, np.int64)
        query, key, value = array(query_, real), array(key_, real), array(value_, real)
        ptr, index = array(ptr_, np.int64), array(index_, np.int64)
        relation, weight = array(relation_, np.int64), array(weight_, real)
        bias, scale = array(bias_, real), array(scale_, real)
        out, alpha = array(out_, real), array(alpha_, real)
        positive = array(positive_, np.uint8)
        slope = real(number(slope_bits))
        heads = 1 if one_head else heads_
        if sk and not mk:
            key_channels = ck
        if sv and not mv:
            value_channels = cv
        key_end = 1 if sk else max(key_channels, 1)
        value_end = 1 if sv else max(value_channels, 1)

        part = claim(task)
        while part < parts:
            first, last = cuts[part], cuts[part + 1]
            capacity = 0
            for tile in range(first, last, _TILE):
                size = 0
                for n in range(tile, min(tile + _TILE, last)):
                    i = order[n] if order_ else n
                    size += (ptr[i + 1] - ptr[i] + _LANES - 1) // _LANES * _LANES
                capacity = max(capacity, size * heads)
            # Each centre and head has a row of scores, as long as whole vectors are.
            scores = np.empty(capacity, real)
            tops = np.empty(_TILE * heads, real)

            for tile in range(first, last, _TILE):
                end = min(tile + _TILE, last)

                at = 0
                for n in range(tile, end):
                    i = order[n] if order_ else n
                    if order_ and n + _AHEAD < last:
                        i = order[n + _AHEAD]
                        for h in range(heads):
                            for c in range(0, key_end, ck):
                                fetch(query, (i * heads + h) * key_channels + c, ck)
                                fetch(key, (i * heads + h) * key_channels + c, ck)
                            for c in range(0, value_end, cv):
                                fetch(value, (i * heads + h) * value_channels + c, cv)
                        i = order[n]
                    begin = ptr[i]
                    degree = ptr[i + 1] - begin
                    for h in range(heads * (degree > 0)):
                        row = at
                        at += (degree + _LANES - 1) // _LANES * _LANES
                        store(scores, at - _LANES, splat(lowest, _LANES), 0, _LANES, 0)
                        top = lowest
                        for c in range(0, key_end, ck):
                            left = key_channels - c
                            q = load(query, (i * heads + h) * key_channels + c, left, ck, mk)
                            for e in range(degree):
                                neighbour = (index[begin + e] * heads + h) * key_channels + c
                                if relational:
                                    r = relation[begin + e]
                                    if relational and query_stride:
                                        centre = (i * heads + h) * key_channels + c
                                        q = load(query, r * query_stride + centre, left, ck, mk)
                                    neighbour += r * key_stride
                                products = mul(q, load(key, neighbour, left, ck, mk))
                                if relational and weight_:
                                    vector = (r * heads + h) * key_channels + c
                                    products = mul(products, load(weight, vector, left, ck, mk))
                                score = total(products)
                                if not sk and c:
                                    score += scores[row + e]
                                if sk or left <= ck:
                                    if positive_:
                                        above = score > zero
                                        positive[(begin + e) * heads + h] = above
                                        score *= choose(above, one, slope)
                                    if bias_:
                                        score += bias[(begin + e) * heads + h]
                                    if score > top:
                                        top = score
                                scores[row + e] = score
                        tops[(n - tile) * heads + h] = top

                at = 0
                for n in range(tile, end):
                    i = order[n] if order_ else n
                    degree = ptr[i + 1] - ptr[i]
                    for h in range(heads * (degree > 0)):
                        row = at
                        at += (degree + _LANES - 1) // _LANES * _LANES
                        top_lanes = splat(tops[(n - tile) * heads + h], _LANES)
                        sums = splat(zero, _LANES)
                        for e in range(row, at, _LANES):
                            lanes = exp(sub(load(scores, e, 0, _LANES, 0), top_lanes))
                            store(scores, e, lanes, 0, _LANES, 0)
                            sums = add(sums, lanes)
                        inverse = splat(one / total(sums), _LANES)
                        for e in range(row, at, _LANES):
                            lanes = mul(load(scores, e, 0, _LANES, 0), inverse)
                            store(scores, e, lanes, 0, _LANES, 0)

                at = 0
                for n in range(tile, end):
                    i = order[n] if order_ else n
                    begin = ptr[i]
                    degree = ptr[i + 1] - begin
                    for h in range(heads):
                        row = at
                        at += (degree + _LANES - 1) // _LANES * _LANES
                        for c in range(0, value_end, cv):
                            left = value_channels - c
                            sums_ = splat(zero, cv)
                            for e in range(degree):
                                share = scores[row + e]
                                if c == 0:
                                    alpha[(begin + e) * heads + h] = share
                                if scale_:
                                    share *= scale[(begin + e) * heads + h]
                                neighbour = (index[begin + e] * heads + h) * value_channels + c
                                if relational and value_stride:
                                    neighbour += relation[begin + e] * value_stride
                                v = load(value, neighbour, left, cv, mv)
                                sums_ = fma(splat(share, cv), v, sums_)
                            store(out, (i * heads + h) * value_channels + c, sums_, left, cv, mv)
            part = claim(task)

    return forward


def backward_kernel(
    real: Any, ck: int, mk: int, sk: int, cv: int, mv: int, sv: int, relational: int, one_head: int
) -> Callable[..., Any]:
    zero, one = real(0), real(1)

    def backward(task: int) -> None:
        (
            parts,
            order_,
            query_,
            key_,
            value_,
            ptr_,
            index_,
            relation_,
            weight_,
            scale_,
            alpha_,
            positive_,
            grad_out_,
            grad_alpha_,
            grad_score_,
            grad_bias_,
            grad_scale_,
            grad_query_,
            grad_weight_,
            weight_size,
            slope_bits,
            heads_,
            key_channels,
            value_channels,
            query_stride,
            key_stride,
            value_stride,
        ) = arguments(task, 27)
        cuts, order = array(task + 8 * 28, np.int64), array(order_, np.int64)
        query, key, value = array(query_, real), array(key_, real), array(value_, real)
        ptr, index = array(ptr_, np.int64), array(index_, np.int64)
        relation, weight = array(relation_, np.int64), array(weight_, real)
        scale, alpha = array(scale_, real), array(alpha_, real)
        positive = array(positive_, np.uint8)
        grad_out, grad_alpha = array(grad_out_, real), array(grad_alpha_, real)
        grad_score, grad_bias = array(grad_score_, real), array(grad_bias_, real)
        grad_scale, grad_query = array(grad_scale_, real), array(grad_query_, real)
        slope = real(number(slope_bits))
        heads = 1 if one_head else heads_
        if sk and not mk:
            key_channels = ck
        if sv and not mv:
            value_channels = cv
        key_end = 1 if sk else max(key_channels, 1)
        value_end = 1 if sv else max(value_channels, 1)

        part = claim(task)
        while part < parts:
            first, last = cuts[part], cuts[part + 1]
            grad_weight = array(grad_weight_ + part * weight_size, real)
            capacity = 0
            for n in range(first, last):
                i = order[n] if order_ else n
                capacity = max(capacity, ptr[i + 1] - ptr[i])
            grads = np.empty(capacity, real)

            for n in range(first, last):
                i = order[n] if order_ else n
                if order_ and n + _AHEAD < last:
                    i = order[n + _AHEAD]
                    for h in range(heads):
                        for c in range(0, value_end, cv):
                            fetch(grad_out, (i * heads + h) * value_channels + c, cv)
                            fetch(value, (i * heads + h) * value_channels + c, cv)
                        for c in range(0, key_end, ck):
                            fetch(query, (i * heads + h) * key_channels + c, ck)
                            fetch(key, (i * heads + h) * key_channels + c, ck)
                    i = order[n]
                begin = ptr[i]
                degree = ptr[i + 1] - begin
                for h in range(heads):
                    # The weights' gradient, and its mean under the weights.
                    mean = zero
                    for c in range(0, value_end, cv):
                        left = value_channels - c
                        g = load(grad_out, (i * heads + h) * value_channels + c, left, cv, mv)
                        for e in range(degree):
                            neighbour = (index[begin + e] * heads + h) * value_channels + c
                            if relational and value_stride:
                                neighbour += relation[begin + e] * value_stride
                            grad = total(mul(g, load(value, neighbour, left, cv, mv)))
                            if not sv and c:
                                grad += grads[e]
                            if sv or left <= cv:
                                at = (begin + e) * heads + h
                                if grad_scale_:
                                    grad_scale[at] = alpha[at] * grad
                                if scale_:
                                    grad *= scale[at]
                                if grad_alpha_:
                                    grad += grad_alpha[at]
                                mean += alpha[at] * grad
                            grads[e] = grad

                    for c in range(0, key_end, ck):
                        left = key_channels - c
                        centre = (i * heads + h) * key_channels + c
                        q = load(query, centre, left, ck, mk)
                        sums = splat(zero, ck)
                        for e in range(degree):
                            at = (begin + e) * heads + h
                            if not sk and c:
                                grad = grad_score[at]
                            else:
                                grad = alpha[at] * (grads[e] - mean)
                                if grad_bias_:
                                    grad_bias[at] = grad
                                if positive_:
                                    grad *= choose(positive[at] != 0, one, slope)
                                grad_score[at] = grad
                            neighbour = (index[begin + e] * heads + h) * key_channels + c
                            if relational:
                                r = relation[begin + e]
                                neighbour += r * key_stride
                            k = load(key, neighbour, left, ck, mk)
                            if not relational:
                                sums = fma(splat(grad, ck), k, sums)
                            else:
                                k = mul(splat(grad, ck), k)
                                if relational and query_stride:
                                    q = load(query, r * query_stride + centre, left, ck, mk)
                                if weight_:
                                    vector = (r * heads + h) * key_channels + c
                                    w = load(grad_weight, vector, left, ck, mk)
                                    store(grad_weight, vector, fma(k, q, w), left, ck, mk)
                                    k = mul(k, load(weight, vector, left, ck, mk))
                                if relational and query_stride:
                                    to = r * query_stride + centre
                                    k = add(k, load(grad_query, to, left, ck, mk))
                                    store(grad_query, to, k, left, ck, mk)
                                else:
                                    sums = add(sums, k)
                        if not relational or not query_stride:
                            store(grad_query, centre, sums, left, ck, mk)
            part = claim(task)

    return backward


def sum_kernel(
    real: Any, width: int, masked: int, single: int, relational: int, one_head: int
) -> Callable[..., Any]:
    zero, one = real(0), real(1)

    def weighted_sum(task: int) -> None:
        (
            parts,
            order_,
            rows_,
            ptr_,
            index_,
            edge_,
            relation_,
            share_,
            weight_,
            chosen_,
            out_,
            heads_,
            channels,
            row_stride,
            out_stride,
            mean,
        ) = arguments(task, 16)
        cuts, order = array(task + 8 * 17, np.int64), array(order_, np.int64)
        rows, share, weight = array(rows_, real), array(share_, real), array(weight_, real)
        ptr, index = array(ptr_, np.int64), array(index_, np.int64)
        edge, relation = array(edge_, np.int64), array(relation_, np.int64)
        out, chosen = array(out_, real), array(chosen_, real)
        heads = 1 if one_head else heads_
        if single and not masked:
            channels = width
        end = 1 if single else channels

        part = claim(task)
        while part < parts:
            first, last = cuts[part], cuts[part + 1]
            for n in range(first, last):
                i = order[n] if order_ else n
                if order_ and n + _AHEAD < last:
                    i = order[n + _AHEAD]
                    for h in range(heads):
                        for c in range(0, end, width):
                            fetch(rows, (i * heads + h) * channels + c, width)
                    i = order[n]
                begin, after = ptr[i], ptr[i + 1]
                factor = one / real(after - begin) if mean and after > begin else one
                for h in range(heads):
                    for c in range(0, end, width):
                        left = channels - c
                        to = (i * heads + h) * channels + c
                        sums = splat(zero, width)
                        for t in range(begin, after):
                            e = edge[t] if edge_ else t
                            a = share[e * heads + h] if share_ else one
                            at = (index[t] * heads + h) * channels + c
                            if relational:
                                r = relation[e]
                                at += r * row_stride
                            row = load(rows, at, left, width, masked)
                            if chosen_:
                                edges = load(chosen, at, left, width, masked)
                                row = same(edges, bits(e, real, width), row)
                            if relational and weight_:
                                vector = (r * heads + h) * channels + c
                                row = mul(row, load(weight, vector, left, width, masked))
                            if relational and out_stride:
                                into = r * out_stride + to
                                row = fma(
                                    splat(a, width), row, load(out, into, left, width, masked)
                                )
                                store(out, into, row, left, width, masked)
                            else:
                                sums = fma(splat(a, width), row, sums)
                        if not relational or not out_stride:
                            if mean:
                                sums = mul(splat(factor, width), sums)
                            store(out, to, sums, left, width, masked)
            part = claim(task)

    return weighted_sum


def product_kernel(
    real: Any, width: int, masked: int, single: int, relational: int, one_head: int
) -> Callable[..., Any]:
    def products(task: int) -> None:
        (
            parts,
            order_,
            rows_,
            columns_,
            ptr_,
            index_,
            relation_,
            chosen_,
            out_,
            heads_,
            channels,
            column_stride,
        ) = arguments(task, 12)
        cuts, order = array(task + 8 * 13, np.int64), array(order_, np.int64)
        rows, columns, out = array(rows_, real), array(columns_, real), array(out_, real)
        ptr, index = array(ptr_, np.int64), array(index_, np.int64)
        relation, chosen = array(relation_, np.int64), array(chosen_, real)
        heads = 1 if one_head else heads_
        if single and not masked:
            channels = width
        end = 1 if single else max(channels, 1)

        part = claim(task)
        while part < parts:
            first, last = cuts[part], cuts[part + 1]
            for n in range(first, last):
                i = order[n] if order_ else n
                for h in range(heads):
                    for c in range(0, end, width):
                        left = channels - c
                        centre = (i * heads + h) * channels + c
                        grad = load(rows, centre, left, width, masked)
                        for e in range(ptr[i], ptr[i + 1]):
                            at = (index[e] * heads + h) * channels + c
                            if relational:
                                at += relation[e] * column_stride
                            row = grad
                            if chosen_:
                                edges = load(chosen, centre, left, width, masked)
                                row = same(edges, bits(e, real, width), grad)
                            product = total(mul(row, load(columns, at, left, width, masked)))
                            if not single and c:
                                product += out[e * heads + h]
                            out[e * heads + h] = product
            part = claim(task)

    return products


def softmax_kernel(real: Any, one_head: int) -> Callable[..., Any]:
    zero, one, lowest = real(0), real(1), real(-math.inf)

    def softmax(task: int) -> None:
        (
            parts,
            order_,
            scores_,
            ptr_,
            alpha_,
            heads_,
        ) = arguments(task, 6)
        cuts, order = array(task + 8 * 7, np.int64), array(order_, np.int64)
        scores, alpha = array(scores_, real), array(alpha_, real)
        ptr = array(ptr_, np.int64)
        heads = 1 if one_head else heads_

        part = claim(task)
        while part < parts:
            first, last = cuts[part], cuts[part + 1]
            capacity = 0
            for n in range(first, last):
                i = order[n] if order_ else n
                capacity = max(capacity, ptr[i + 1] - ptr[i])
            row = np.empty(capacity + _LANES, real)
            for n in range(first, last):
                i = order[n] if order_ else n
                begin = ptr[i]
                degree = ptr[i + 1] - begin
                for h in range(heads * (degree > 0)):
                    store(row, (degree - 1) // _LANES * _LANES, splat(lowest, _LANES), 0, _LANES, 0)
                    top = lowest
                    for e in range(degree):
                        score = scores[(begin + e) * heads + h]
                        if score > top:
                            top = score
                        row[e] = score
                    top_lanes, sums = splat(top, _LANES), splat(zero, _LANES)
                    for e in range(0, degree, _LANES):
                        lanes = exp(sub(load(row, e, 0, _LANES, 0), top_lanes))
                        store(row, e, lanes, 0, _LANES, 0)
                        sums = add(sums, lanes)
                    inverse = one / total(sums)
                    for e in range(degree):
                        alpha[(begin + e) * heads + h] = row[e] * inverse
            part = claim(task)

    return softmax


def softmax_backward_kernel(real: Any, one_head: int) -> Callable[..., Any]:
    zero = real(0)

    def softmax_backward(task: int) -> None:
        (
            parts,
            order_,
            grad_,
            alpha_,
            ptr_,
            grad_score_,
            heads_,
        ) = arguments(task, 7)
        cuts, order = array(task + 8 * 8, np.int64), array(order_, np.int64)
        grad, alpha = array(grad_, real), array(alpha_, real)
        grad_score, ptr = array(grad_score_, real), array(ptr_, np.int64)
        heads = 1 if one_head else heads_

        part = claim(task)
        while part < parts:
            first, last = cuts[part], cuts[part + 1]
            for n in range(first, last):
                i = order[n] if order_ else n
                begin, end = ptr[i] * heads, ptr[i + 1] * heads
                for h in range(heads):
                    mean = zero
                    for at in range(begin + h, end, heads):
                        mean += alpha[at] * grad[at]
                    for at in range(begin + h, end, heads):
                        grad_score[at] = alpha[at] * (grad[at] - mean)
            part = claim(task)

    return softmax_backward


def max_kernel(
    real: Any, width: int, masked: int, single: int, relational: int, one_head: int
) -> Callable[..., Any]:
    zero = real(0)

    def maximum(task: int) -> None:
        (
            parts,
            order_,
            rows_,
            ptr_,
            index_,
            relation_,
            share_,
            out_,
            chosen_,
            heads_,
            channels,
            row_stride,
        ) = arguments(task, 12)
        cuts, order = array(task + 8 * 13, np.int64), array(order_, np.int64)
        rows, share, out = array(rows_, real), array(share_, real), array(out_, real)
        ptr, index = array(ptr_, np.int64), array(index_, np.int64)
        relation, chosen = array(relation_, np.int64), array(chosen_, real)
        heads = 1 if one_head else heads_
        if single and not masked:
            channels = width
        end = 1 if single else channels

        part = claim(task)
        while part < parts:
            first, last = cuts[part], cuts[part + 1]
            for n in range(first, last):
                i = order[n] if order_ else n
                for h in range(heads):
                    for c in range(0, end, width):
                        left = channels - c
                        best, edge = splat(zero, width), bits(-1, real, width)
                        for e in range(ptr[i], ptr[i + 1]):
                            at = (index[e] * heads + h) * channels + c
                            if relational:
                                at += relation[e] * row_stride
                            message = load(rows, at, left, width, masked)
                            if share_:
                                message = mul(splat(share[e * heads + h], width), message)
                            if e == ptr[i]:
                                best, edge = message, bits(e, real, width)
                            else:
                                edge = pick(message, best, bits(e, real, width), edge)
                                best = pick(message, best, message, best)
                        to = (i * heads + h) * channels + c
                        store(out, to, best, left, width, masked)
                        store(chosen, to, edge, left, width, masked)
            part = claim(task)

    return maximum
