"""Gate, asynchronous and synchronous updates, and the encoder that stacks them."""

from __future__ import annotations

import copy
import pickle
import re
from itertools import product
from typing import Any

import pytest
import torch
from drawn import SCHEMA, draw_graph
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import mmgraph
from mmgraph import SequenceGraph, nn
from mmgraph.nn import (
    AsynchronousUpdate,
    GraphEncoder,
    HeterogeneousAttention,
    HomogeneousAttention,
    SynchronousUpdate,
    UpdateGate,
)

CHANNELS = 6
ORDERS = ("both", "homogeneous-first", "heterogeneous-first")


@pytest.fixture
def graph() -> SequenceGraph:
    return draw_graph(8, count=3)


@pytest.fixture
def x(graph: SequenceGraph) -> Tensor:
    return torch.randn(graph.num_nodes, CHANNELS)


@pytest.mark.parametrize(("order", "invasive"), list(product(ORDERS, (False, True))))
def test_asynchronous_update_is_its_two_orders(
    order: str, invasive: bool, graph: SequenceGraph, x: Tensor
) -> None:
    update = AsynchronousUpdate.from_channels(
        CHANNELS, SCHEMA, heads=2, order=order, invasive=invasive
    )
    ho, he = update.homogeneous, update.heterogeneous
    assert ho.value is he.value
    s_ho, s_he = ho(x, x, graph), he(x, x, graph)
    hohe = he(s_ho, s_ho if invasive else x, graph)
    heho = ho(s_he, s_he if invasive else x, graph)
    if order == "both":
        beta = update.gate.mlp(torch.cat([hohe, heho], 1)).softmax(1)
        expected = beta[:, :1] * hohe + beta[:, 1:] * heho
        out, weights = update(x, graph, return_gate=True)
        torch.testing.assert_close(weights, beta)
    else:
        expected = hohe if order == "homogeneous-first" else heho
        out = update(x, graph)
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("update", [AsynchronousUpdate, SynchronousUpdate])
def test_options_reach_both_attentions(update: Any, graph: SequenceGraph, x: Tensor) -> None:
    made = update.from_channels(CHANNELS, SCHEMA, 2, negative_slope=0.3, dropout=0.5)
    for attention in (made.homogeneous, made.heterogeneous):
        assert (attention.heads, attention.negative_slope, attention.dropout) == (2, 0.3, 0.5)
    assert not torch.equal(made.train()(x, graph), made(x, graph))
    assert torch.equal(made.eval()(x, graph), made(x, graph))


@pytest.mark.parametrize(("order", "invasive"), list(product(ORDERS, (False, True))))
def test_any_two_operators_with_the_call_will_do(
    order: str, invasive: bool, graph: SequenceGraph, x: Tensor
) -> None:
    stepped = AsynchronousUpdate.from_channels(CHANNELS, SCHEMA, order=order, invasive=invasive)
    ho, he = stepped.homogeneous, stepped.heterogeneous
    called = AsynchronousUpdate(
        lambda s, v, g: ho(s, v, g), lambda s, v, g: he(s, v, g), stepped.gate, order, invasive
    )
    torch.testing.assert_close(called(x, graph), stepped(x, graph))


class _CountProducts(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.count += func is torch.ops.mmgraph.segment_matmul.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("invasive", "products"), [(False, 6), (True, 7)])
def test_each_state_meets_each_matrix_once(
    invasive: bool, products: int, graph: SequenceGraph, x: Tensor
) -> None:
    """V x, Q x, K x, Q s, K s, V s'; invasive adds the value of s."""
    update = AsynchronousUpdate.from_channels(CHANNELS, SCHEMA, invasive=invasive)
    with torch.no_grad(), _CountProducts() as counter:
        update(x, graph)
    assert counter.count == products


class _Shifted(HomogeneousAttention):
    """One with values of its own making."""

    def project_values(self, value_state: Tensor, graph: SequenceGraph) -> Tensor:
        return super().project_values(value_state, graph) + 1.0


@pytest.mark.parametrize(("kind", "heads"), [(HomogeneousAttention, 2), (_Shifted, 1)])
@pytest.mark.parametrize("order", ORDERS[1:])
def test_shared_matrices_that_are_used_differently(
    kind: type[HomogeneousAttention], heads: int, order: str, graph: SequenceGraph, x: Tensor
) -> None:
    he = HeterogeneousAttention(CHANNELS, SCHEMA)
    ho = kind(CHANNELS, SCHEMA, heads, value=he.value)
    first, second = (ho, he) if order == "homogeneous-first" else (he, ho)
    expected = second(first(x, x, graph), x, graph)
    torch.testing.assert_close(AsynchronousUpdate(ho, he, order=order)(x, graph), expected)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_share_as_the_original_does(again: Any, graph: SequenceGraph, x: Tensor) -> None:
    update = AsynchronousUpdate.from_channels(CHANNELS, SCHEMA)
    made = again(update)
    assert torch.equal(made(x, graph), update(x, graph))
    other = AsynchronousUpdate.from_channels(CHANNELS, SCHEMA)
    other.load_state_dict(update.state_dict())
    assert torch.equal(other(x, graph), update(x, graph))
    for copied in (made, other.double()):
        assert copied.homogeneous.value is copied.heterogeneous.value
        assert copied.homogeneous.value is not update.homogeneous.value


def test_gate_weighs_two_candidates() -> None:
    gate = UpdateGate(CHANNELS)
    a, b = torch.randn(2, 5, CHANNELS)
    mixed, weights = gate(a, b)
    torch.testing.assert_close(weights.sum(1), torch.ones(5))
    torch.testing.assert_close(mixed, weights[:, :1] * a + weights[:, 1:] * b)
    with torch.no_grad():
        gate.mlp[-1].bias.copy_(torch.tensor([50.0, -50.0]))
    torch.testing.assert_close(gate(a, b)[0], a)


def test_synchronous_update_is_a_linear_map_of_both(graph: SequenceGraph, x: Tensor) -> None:
    update = SynchronousUpdate.from_channels(CHANNELS, SCHEMA)
    both = torch.cat([update.homogeneous(x, x, graph), update.heterogeneous(x, x, graph)], 1)
    expected = both @ update.join.weight.T + update.join.bias
    torch.testing.assert_close(update(x, graph), expected)


def test_encoder_stacks_blocks(graph: SequenceGraph, x: Tensor) -> None:
    layers = [AsynchronousUpdate.from_channels(CHANNELS, SCHEMA) for _ in range(2)]
    encoder = GraphEncoder(layers, residual=True, norm=torch.nn.LayerNorm(CHANNELS))
    first = encoder.norms[0](x + layers[0](x, graph))
    second = encoder.norms[1](first + layers[1](first, graph))
    out, gates = encoder(x, graph, return_gates=True)
    torch.testing.assert_close(out, second)
    torch.testing.assert_close(gates[1], layers[1](first, graph, return_gate=True)[1])
    assert encoder.norms[0].weight is not encoder.norms[1].weight


@pytest.mark.parametrize("owner", ["homogeneous", "heterogeneous"])
@pytest.mark.parametrize("kind", [AsynchronousUpdate, SynchronousUpdate])
def test_parameters_are_drawn_anew_and_shared_again_after_to_empty(
    kind: Any, owner: str, graph: SequenceGraph, x: Tensor
) -> None:
    def encoder(device: str) -> GraphEncoder:
        if owner == "heterogeneous":
            layer = kind.from_channels(CHANNELS, SCHEMA, device=device)
        else:
            ho = HomogeneousAttention(CHANNELS, SCHEMA, device=device)
            he = HeterogeneousAttention(CHANNELS, SCHEMA, value=ho.value, device=device)
            if kind is AsynchronousUpdate:
                layer = kind(ho, he, UpdateGate(CHANNELS, device=device))
            else:
                layer = kind(ho, he, CHANNELS, device=device)
        norm = torch.nn.LayerNorm(CHANNELS, device=device)
        return GraphEncoder([layer, MeanOfNeighbours()], norm=norm)

    made, fresh = encoder("meta").to_empty(device="cpu"), encoder("cpu")
    for parameter in made.parameters():
        torch.nn.init.constant_(parameter, torch.nan)
    made.reset_parameters()
    first = made.layers[0]
    assert first.homogeneous.value is first.heterogeneous.value
    assert [p.shape for p in made.parameters()] == [p.shape for p in fresh.parameters()]
    before = made(x, graph)
    assert before.isfinite().all()
    made.reset_parameters()
    assert not torch.equal(made(x, graph), before)


LAYERS = {
    "GAT": lambda: nn.GAT(CHANNELS, 2),
    "GCN": lambda: nn.GCN(CHANNELS),
    "GGNN": lambda: nn.GGNN(CHANNELS, 2),
    "RGAT": lambda: nn.RGAT(CHANNELS, SCHEMA, 2),
    "AsynchronousUpdate": lambda: AsynchronousUpdate.from_channels(CHANNELS, SCHEMA),
    "GraphEncoder": lambda: GraphEncoder([nn.GCN(CHANNELS)]),
    "GraphSAGE": lambda: nn.GraphSAGE(CHANNELS),
    "HeterogeneousAttention": lambda: HeterogeneousAttention(CHANNELS, SCHEMA),
    "HomogeneousAttention": lambda: HomogeneousAttention(CHANNELS, SCHEMA),
    "NodeEmbedding": lambda: nn.NodeEmbedding(
        SCHEMA,
        {
            "item": 5,
            "image": nn.CodeCentres(torch.randn(4, CHANNELS)),
            "text": nn.FrozenFeatures(torch.randn(2, 3)),
        },
        CHANNELS,
        max_length=8,
    ),
    "SoftAttention": lambda: nn.SoftAttention(CHANNELS),
    "SynchronousUpdate": lambda: SynchronousUpdate.from_channels(CHANNELS, SCHEMA),
    "UpdateGate": lambda: UpdateGate(CHANNELS),
}


@pytest.mark.parametrize(
    "name", [name for name in nn.__all__ if hasattr(getattr(nn, name), "reset_parameters")]
)
def test_every_parameter_of_every_layer_is_drawn_anew(name: str) -> None:
    layer, fresh = LAYERS[name](), LAYERS[name]()
    for parameter in layer.parameters():
        torch.nn.init.constant_(parameter, torch.nan)
    layer.reset_parameters()
    for (path, drawn), made in zip(layer.named_parameters(), fresh.parameters(), strict=True):
        assert drawn.isfinite().all(), path
        assert bool(drawn.any()) == bool(made.any()), path  # zeros are drawn where it is made so


class MeanOfNeighbours(torch.nn.Module):
    """A block without parameters."""

    def forward(self, x: Tensor, graph: SequenceGraph) -> Tensor:
        return mmgraph.kernels.aggregate(x.unsqueeze(1), graph.edges, reduce="mean").squeeze(1)


def test_encoder_shares_weights_where_a_block_is_given_twice(
    graph: SequenceGraph, x: Tensor
) -> None:
    layer = AsynchronousUpdate.from_channels(CHANNELS, SCHEMA)
    encoder = GraphEncoder([layer, layer])
    assert len(list(encoder.parameters())) == len(list(layer.parameters()))
    torch.testing.assert_close(encoder(x, graph), layer(layer(x, graph), graph))


def test_encoder_drops_channels_in_training_only(graph: SequenceGraph, x: Tensor) -> None:
    encoder = GraphEncoder([SynchronousUpdate.from_channels(CHANNELS, SCHEMA)], dropout=0.5)
    dropped = (encoder(x, graph) == 0).float().mean()
    assert 0.3 < dropped < 0.7
    assert (encoder.eval()(x, graph) != 0).all()


def test_dropout_spares_what_the_residual_adds(graph: SequenceGraph, x: Tensor) -> None:
    block = MeanOfNeighbours()
    out = GraphEncoder([block], dropout=0.5, residual=True)(x, graph)
    dropped = out == x
    assert 0.3 < dropped.float().mean() < 0.7
    torch.testing.assert_close(out, torch.where(dropped, x, x + 2 * block(x, graph)))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: AsynchronousUpdate(len, len, order="both"),
            ValueError,
            "gate: expected a gate for order='both', got None",
        ),
        (
            lambda: AsynchronousUpdate(len, len, gate="soft"),
            TypeError,
            "gate: expected a module, got str",
        ),
        (
            lambda: AsynchronousUpdate(len, len, UpdateGate(2), "homogeneous-first"),
            ValueError,
            "gate: expected None for order='homogeneous-first'",
        ),
        (
            lambda: AsynchronousUpdate(len, len, UpdateGate(2), "early"),
            ValueError,
            "order: expected one of ('both', 'homogeneous-first', 'heterogeneous-first'), got",
        ),
        (
            lambda: AsynchronousUpdate(3, len, UpdateGate(2)),
            TypeError,
            "homogeneous: expected an operator, got int",
        ),
        (
            lambda: AsynchronousUpdate.from_channels(4, SCHEMA, order="homogeneous-first")(
                None, None, return_gate=True
            ),
            ValueError,
            "return_gate: expected False, as order='homogeneous-first' has no gate",
        ),
        (
            lambda: UpdateGate(4)(torch.zeros(2, 4), torch.zeros(3, 4)),
            ValueError,
            "b: expected shape [2, 4] (nodes and channels of a), got [3, 4]",
        ),
        (lambda: GraphEncoder([]), ValueError, "layers: expected at least one block, got none"),
        (lambda: GraphEncoder([len]), TypeError, "layers[0]: expected a Module, got builtin"),
    ],
)
def test_errors_say_what_was_expected(call: object, error: type, message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        call()  # type: ignore[operator]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype: torch.dtype) -> None:
    graph = draw_graph(8, count=3)
    block = AsynchronousUpdate.from_channels(8, graph.schema)
    x = torch.randn(graph.num_nodes, 8, requires_grad=True)
    expected = block(x, graph)
    with torch.autocast("cpu", dtype=dtype):
        out = block(x, graph)
    torch.testing.assert_close(out.float(), expected, rtol=0.05, atol=0.05)
    (gradient,) = torch.autograd.grad(out.float().sum(), x)
    assert gradient.isfinite().all()


class Sevens(HomogeneousAttention):
    """A call of its own above steps that it inherits."""

    def forward(self, *arguments: Any, **options: Any) -> Any:
        return super().forward(*arguments, **options) * 0 + 7


def test_an_overridden_call_is_what_runs(graph: SequenceGraph, x: Tensor) -> None:
    heterogeneous = HeterogeneousAttention(CHANNELS, SCHEMA)
    for sevens in (Sevens(CHANNELS, SCHEMA), HomogeneousAttention(CHANNELS, SCHEMA)):
        if not isinstance(sevens, Sevens):  # on the instance alone
            sevens.forward = lambda score, value, graph: torch.full_like(value, 7.0)  # type: ignore[method-assign]
        update = AsynchronousUpdate(sevens, heterogeneous, order="heterogeneous-first")
        assert (update(x, graph) == 7).all()


class Rectified(HomogeneousAttention):
    """A call and one of its steps overridden, the others inherited."""

    def project_scores(self, score_state: Tensor, graph: SequenceGraph) -> Tensor:
        return 2 * super().project_scores(score_state, graph)

    def forward(self, *arguments: Any, **options: Any) -> Any:
        return super().forward(*arguments, **options).relu()


class Doubling(Rectified):
    def project_values(self, value_state: Tensor, graph: SequenceGraph) -> Tensor:
        return 2 * super().project_values(value_state, graph)


@pytest.mark.parametrize("kind", [Rectified, Doubling])
def test_a_call_that_is_overridden_beside_a_step_is_what_runs(
    kind: type[HomogeneousAttention], graph: SequenceGraph, x: Tensor
) -> None:
    update = AsynchronousUpdate(
        kind(CHANNELS, SCHEMA),
        HeterogeneousAttention(CHANNELS, SCHEMA),
        order="heterogeneous-first",
    )
    assert (update(x, graph) >= 0).all()


class Valued(torch.nn.Module):
    """An operator with a value matrix, which another may borrow."""

    def __init__(self) -> None:
        super().__init__()
        shape = SCHEMA.num_types, CHANNELS, CHANNELS
        self.value = torch.nn.Parameter(torch.empty(shape, device="meta"))

    def reset_parameters(self) -> None:
        torch.nn.init.ones_(self.value)

    def forward(self, score: Tensor, value: Tensor, graph: SequenceGraph) -> Tensor:
        return value


def test_a_value_that_is_borrowed_from_any_operator_is_shared_again() -> None:
    owner = Valued()
    borrower = HeterogeneousAttention(CHANNELS, SCHEMA, value=owner.value, device="meta")
    update = AsynchronousUpdate(owner, borrower, UpdateGate(CHANNELS, device="meta"))
    update.to_empty(device="cpu")
    update.reset_parameters()
    assert borrower.value is owner.value
    assert (owner.value == 1).all()


class Unchanged(torch.nn.Module):
    """An operator without parameters."""

    def forward(self, score: Tensor, value: Tensor, graph: SequenceGraph) -> Tensor:
        return value


def test_an_update_with_another_operator_in_its_place_is_reset() -> None:
    update = AsynchronousUpdate.from_channels(CHANNELS, SCHEMA)
    kept = update.heterogeneous.value  # type: ignore[attr-defined]
    update.homogeneous = HomogeneousAttention(CHANNELS, SCHEMA)
    update.reset_parameters()
    assert update.heterogeneous.value is kept  # type: ignore[attr-defined]
    assert update.homogeneous.value is not kept  # type: ignore[attr-defined]
    update.homogeneous = Unchanged()
    update.reset_parameters()


def test_hooks_of_an_operator_fire(graph: SequenceGraph, x: Tensor) -> None:
    update = AsynchronousUpdate.from_channels(CHANNELS, SCHEMA)
    expected = update(x, graph)
    calls: list[Any] = []
    handle = update.heterogeneous.register_forward_hook(lambda *_: calls.append(1))  # type: ignore[attr-defined]
    torch.testing.assert_close(update(x, graph), expected)
    assert len(calls) == 2  # first and second
    handle.remove()
    assert torch.equal(update(x, graph), expected)


@pytest.mark.parametrize("backend", ["auto", "torch"])
@pytest.mark.parametrize("invasive", [False, True])
def test_the_gate_joins_what_autocast_made_different(
    backend: str, invasive: bool, graph: SequenceGraph, x: Tensor
) -> None:
    update = AsynchronousUpdate.from_channels(CHANNELS, SCHEMA, invasive=invasive)
    expected = update(x, graph)
    with mmgraph.use_backend(backend), torch.autocast("cpu", torch.bfloat16):
        out = update(x, graph)
    torch.testing.assert_close(out.float(), expected, atol=0.05, rtol=0.05)


def test_an_encoder_takes_several_blocks() -> None:
    with pytest.raises(TypeError, match="layers: expected several blocks, got UpdateGate"):
        GraphEncoder(UpdateGate(CHANNELS))  # type: ignore[arg-type]
