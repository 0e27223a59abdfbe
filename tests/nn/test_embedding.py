"""Node embedding: W [e ; type ; mean position], written out node by node."""

from __future__ import annotations

import copy
import math
import re

import pytest
import torch
from drawn import NUM_CODES, NUM_ITEMS, SCHEMA, draw_builder, draw_histories
from torch.autograd import gradcheck

import mmgraph
from mmgraph.nn import CodeCentres, FrozenFeatures, NodeEmbedding

CHANNELS, MAX_LENGTH = 4, 8
SIZES = {"item": NUM_ITEMS, "image": NUM_CODES, "text": NUM_CODES}
HISTORIES = [*draw_histories(3), []]
GRAPH = draw_builder(3)(HISTORIES)


@pytest.mark.parametrize("use_type", [False, True])
@pytest.mark.parametrize("use_position", [False, True])
def test_embedding_is_its_formula(use_type: bool, use_position: bool) -> None:
    embedding = NodeEmbedding(
        SCHEMA,
        SIZES,
        CHANNELS,
        MAX_LENGTH,
        use_type=use_type,
        use_position=use_position,
        dtype=torch.float64,
    )
    x = embedding(GRAPH)
    for n in range(GRAPH.num_nodes):
        t, i = int(GRAPH.node_type[n]), int(GRAPH.node_id[n])
        parts = [embedding.table(SCHEMA.modalities[t])[i]]
        if use_type:
            parts.append(embedding.type_embedding[t])
        if use_position:
            positions = GRAPH.occurrence_position[GRAPH.occurrence_node == n]
            assert len(positions)
            parts.append(embedding.position_embedding[positions].mean(0))
        torch.testing.assert_close(x[n], embedding.weight @ torch.cat(parts))
    parameters = dict(embedding.named_parameters())

    def call(*values: torch.Tensor) -> torch.Tensor:
        replaced = dict(zip(parameters, values, strict=True))
        return torch.func.functional_call(embedding, replaced, (GRAPH,))

    assert gradcheck(call, tuple(parameters.values()))


def test_weights_are_drawn_as_in_the_paper() -> None:
    embedding = NodeEmbedding(SCHEMA, SIZES, 64, MAX_LENGTH)
    for parameter in embedding.parameters():
        assert parameter.abs().max() <= 1 / 8
        assert parameter.std() > 0.05


def test_code_centres_start_the_table() -> None:
    centres = torch.randn(NUM_CODES, CHANNELS) * 7
    embedding = NodeEmbedding(
        SCHEMA, {**SIZES, "image": CodeCentres(centres)}, CHANNELS, MAX_LENGTH
    )
    table = embedding.table("image")
    torch.testing.assert_close(
        table, centres / centres.abs().max() / math.sqrt(CHANNELS), check_stride=False
    )
    assert table.requires_grad
    computed = CodeCentres(centres.requires_grad_() * 1)  # of a graph that is no copy's business
    copied = copy.deepcopy(NodeEmbedding(SCHEMA, {**SIZES, "image": computed}, CHANNELS, 8))
    assert torch.equal(copied.table("image"), table)
    assert embedding(GRAPH).shape == (GRAPH.num_nodes, CHANNELS)


def test_frozen_features_make_each_items_own_vector_its_node() -> None:
    features = torch.randn(NUM_ITEMS, 10)
    features[4] = math.nan
    own = FrozenFeatures(features)
    assert own.codes.flatten().tolist() == [i if i != 4 else -1 for i in range(NUM_ITEMS)]
    codes = {"image": own.codes, "text": torch.arange(NUM_ITEMS).unsqueeze(1)}
    graph = mmgraph.SequenceGraphBuilder(SCHEMA, codes)([[1, 4, 2]])
    embedding = NodeEmbedding(
        SCHEMA,
        {"item": NUM_ITEMS, "image": own, "text": NUM_ITEMS},
        CHANNELS,
        MAX_LENGTH,
        use_type=False,
        use_position=False,
    )
    table = embedding.table("image")
    torch.testing.assert_close(table[1], embedding.tables["image"].projection.weight @ features[1])
    assert (table[4] == 0).all()
    rows = embedding(graph)[graph.node_type == 1]
    torch.testing.assert_close(rows, table[[1, 2]] @ embedding.weight.T)
    assert not any("features" in name for name in embedding.state_dict())
    embedding(graph).sum().backward()
    assert embedding.tables["image"].projection.weight.grad is not None


def test_frozen_features_on_a_default_device_of_their_own() -> None:
    features = torch.randn(NUM_CODES, 10)
    with torch.device("meta"):
        own = FrozenFeatures(features)
        embedding = NodeEmbedding(SCHEMA, {**SIZES, "image": own}, CHANNELS, MAX_LENGTH)
    assert own.codes.flatten().tolist() == list(range(NUM_CODES))
    embedding = embedding.to_empty(device="cpu")
    embedding.reset_parameters()
    projection = embedding.tables["image"].projection.weight
    torch.testing.assert_close(embedding.table("image"), features @ projection.T)


@pytest.mark.parametrize("assign", [False, True])
def test_loading_gives_frozen_features_back(assign: bool) -> None:
    tables = {**SIZES, "image": FrozenFeatures(torch.randn(NUM_CODES, 10))}
    trained = NodeEmbedding(SCHEMA, tables, CHANNELS, MAX_LENGTH)
    with torch.device("meta"):
        served = NodeEmbedding(SCHEMA, tables, CHANNELS, MAX_LENGTH)
    if not assign:
        served = served.to_empty(device="cpu")
        served.tables["image"].features.fill_(math.nan)
    served.load_state_dict(trained.state_dict(), assign=assign)
    assert served(GRAPH).equal(trained(GRAPH))


def test_frozen_features_follow_the_parameters_that_are_loaded() -> None:
    tables = {**SIZES, "image": FrozenFeatures(torch.randn(NUM_CODES, 10))}
    trained = NodeEmbedding(SCHEMA, tables, CHANNELS, MAX_LENGTH, dtype=torch.float64)
    served = NodeEmbedding(SCHEMA, tables, CHANNELS, MAX_LENGTH)
    served.load_state_dict(trained.state_dict(), assign=True)
    assert served(GRAPH).equal(trained(GRAPH))


def test_frozen_features_serve_several_embeddings() -> None:
    features = FrozenFeatures(torch.randn(NUM_CODES, 10))
    tables = {**SIZES, "image": features}
    single = NodeEmbedding(SCHEMA, tables, CHANNELS, MAX_LENGTH)
    double = NodeEmbedding(SCHEMA, tables, CHANNELS, MAX_LENGTH, dtype=torch.float64)
    assert single(GRAPH).dtype == torch.float32
    assert double(GRAPH).dtype == torch.float64


def test_modalities_may_be_named_like_attributes_of_a_module() -> None:
    schema = mmgraph.GraphSchema(("items", "type", "a.b"))
    embedding = NodeEmbedding(schema, {"items": 3, "type": 4, "a.b": 5}, CHANNELS, MAX_LENGTH)
    again = NodeEmbedding(schema, {"items": 3, "type": 4, "a.b": 5}, CHANNELS, MAX_LENGTH)
    again.load_state_dict(embedding.state_dict())
    for modality, size in (("items", 3), ("type", 4), ("a.b", 5)):
        assert embedding.table(modality).shape == (size, CHANNELS)
        assert torch.equal(embedding.table(modality), again.table(modality))


def test_a_batch_without_a_modality_is_valid() -> None:
    present = {"image": [False] * 3, "text": [False] * 3}
    graph = draw_builder(3)([[1, 2], [3]], present=present)
    embedding = NodeEmbedding(SCHEMA, SIZES, CHANNELS, MAX_LENGTH)
    assert embedding(graph).shape == (3, CHANNELS)
    assert embedding(draw_builder(3)([])).shape == (0, CHANNELS)


class Growing(torch.nn.Module):
    def __init__(self, rows: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(rows, CHANNELS))

    def forward(self, ids: torch.Tensor | None) -> torch.Tensor:
        return self.weight if ids is None else self.weight[ids]

    def reset_parameters(self) -> None:
        torch.nn.init.normal_(self.weight)


def test_another_table_takes_a_place_with_its_own_size() -> None:
    embedding = NodeEmbedding(SCHEMA, {**SIZES, "item": 1}, CHANNELS, MAX_LENGTH)
    embedding.tables["item"] = Growing(NUM_ITEMS)
    assert embedding(GRAPH).shape == (GRAPH.num_nodes, CHANNELS)
    assert embedding.table("item").shape == (NUM_ITEMS, CHANNELS)
    embedding.tables["item"].num_ids = 2
    with pytest.raises(ValueError, match="expected item ids below 2, the size of its table"):
        embedding(GRAPH)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: NodeEmbedding(SCHEMA, {"item": 3}, 4, 8),
            ValueError,
            "tables: expected one for each of ('item', 'image', 'text'), got ('item',)",
        ),
        (
            lambda: NodeEmbedding(SCHEMA, {**SIZES, "item": torch.zeros(3, 4)}, 4, 8),
            TypeError,
            "tables['item']: expected a number of ids, CodeCentres or FrozenFeatures, got Tensor",
        ),
        (
            lambda: NodeEmbedding(SCHEMA, {**SIZES, "item": True}, 4, 8),
            TypeError,
            "tables['item']: expected an int, got bool True",
        ),
        (
            lambda: NodeEmbedding(SCHEMA, SIZES, 4),
            ValueError,
            "max_length: expected the number of positions, got None",
        ),
        (
            lambda: NodeEmbedding(SCHEMA, {**SIZES, "text": CodeCentres(torch.zeros(5, 3))}, 4, 8),
            ValueError,
            "tables['text']: expected centres of width channels = 4, got 3; fit the codebook with "
            "components=4",
        ),
        (
            lambda: FrozenFeatures(torch.tensor([[0.0, 1.0], [math.nan, math.inf]])),
            ValueError,
            "features[1]: expected finite numbers or a row of NaN, got [nan, inf]",
        ),
        (
            lambda: CodeCentres(torch.tensor([[math.nan]])),
            ValueError,
            "centres[0]: expected finite numbers, got [nan]",
        ),
        (
            lambda: CodeCentres(torch.empty(0, 4)),
            ValueError,
            "centres: expected at least one row, got shape [0, 4]",
        ),
        (
            lambda: NodeEmbedding(SCHEMA, {**SIZES, "item": 3}, 4, 8)(GRAPH),
            ValueError,
            "graph: expected item ids below 3, the size of its table, got ",
        ),
        (
            lambda: NodeEmbedding(SCHEMA, SIZES, 4, 2)(GRAPH),
            ValueError,
            "graph: expected histories of at most max_length = 2 steps, got one of ",
        ),
        (
            lambda: NodeEmbedding(SCHEMA, SIZES, 4, 8)(GRAPH.to("meta")),
            ValueError,
            "graph: expected it on cpu, where the embedding is, got it on meta",
        ),
        (
            lambda: NodeEmbedding(SCHEMA, SIZES, 4, 8).table("audio"),
            ValueError,
            "modality: expected one of ('item', 'image', 'text'), got 'audio'",
        ),
    ],
)
def test_errors_say_what_was_expected(call: object, error: type, message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        call()  # type: ignore[operator]


def test_what_stands_outside_of_the_state_comes_back_after_to_empty() -> None:
    schema = mmgraph.GraphSchema(("item", "text"), relations=("bought", "seen"))
    features = FrozenFeatures(torch.randn(4, 5))
    graph = mmgraph.SequenceGraphBuilder(schema, {"text": torch.tensor([[0], [3], [-1]])})([[0, 1]])

    def make(**factory: object) -> torch.nn.ModuleList:
        tables = {"item": 3, "text": features}
        embedding = NodeEmbedding(schema, tables, 8, 5, **factory)  # type: ignore[arg-type]
        attention = mmgraph.nn.HomogeneousAttention(8, schema, **factory)  # type: ignore[arg-type]
        return torch.nn.ModuleList([embedding, attention])

    def run(modules: torch.nn.ModuleList) -> torch.Tensor:
        embedding, attention = modules
        x = embedding(graph)
        result: torch.Tensor = attention(x, x, graph)
        return result

    first, second = make(), make(device="meta").to_empty(device="cpu")
    for module in second:
        module.reset_parameters()
    second.load_state_dict(first.state_dict())
    assert torch.equal(run(first), run(second))


def test_features_beyond_the_layers_type_are_named() -> None:
    schema = mmgraph.GraphSchema(("item", "text"))
    tables = {"item": 3, "text": FrozenFeatures(torch.full((4, 2), 1e5))}
    with pytest.raises(ValueError, match=r"tables\['text'\]\[0\]: expected finite numbers"):
        NodeEmbedding(schema, tables, 4, 5, dtype=torch.float16)
    for wrong in (None, ("item", "text")):
        with pytest.raises(TypeError, match="tables: expected a mapping from modalities, got"):
            NodeEmbedding(schema, wrong, 4, 5)  # type: ignore[arg-type]
