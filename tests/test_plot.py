"""The pictures, by what they say."""

from __future__ import annotations

import sys

import pytest
import torch

from mmgraph import GraphSchema, SequenceGraph, nn, plot
from mmgraph.builder import SequenceGraphBuilder
from mmgraph.introspect import reached_nodes

matplotlib = pytest.importorskip("matplotlib")
pytest.importorskip("networkx")
matplotlib.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")

SCHEMA = GraphSchema(("item", "image", "text"))
CODES = {
    "image": torch.tensor([[0, 1], [1, 2], [-1, -1], [2, 0], [3, 3]]),
    "text": torch.tensor([[0], [1], [0], [2], [-1]]),
}
BUILDER = SequenceGraphBuilder(SCHEMA, CODES)
HISTORIES = [[0, 1, 2], [3], [], [4, 1, 4, 0]]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def texts(ax):
    """Everything the axes say, line breaks as spaces."""
    found = [text.get_text() for text in ax.texts]
    if ax.get_legend() is not None:
        found += [text.get_text() for text in ax.get_legend().get_texts()]
    return [text.replace("\n", " ") for text in found if text]


def arrows(ax):
    from matplotlib.patches import FancyArrowPatch

    return [patch for patch in ax.patches if isinstance(patch, FancyArrowPatch)]


def places(ax, modality):
    """Where a modality's nodes stand; one collection per modality, in the schema's order."""
    return ax.collections[modality].get_offsets()


# ---------------------------------------------------------------------------------- history


def test_history_draws_on_the_given_axes():
    figure, axes = plt.subplots(1, 2)
    assert plot.history(BUILDER(HISTORIES), ax=axes[1]) is axes[1]
    assert not axes[0].texts
    assert plt.get_fignums() == [figure.number]
    made = plot.history(BUILDER(HISTORIES))
    assert made not in axes
    made.figure.canvas.draw()


def test_history_names_every_node():
    ax = plot.history(BUILDER(HISTORIES), index=0)
    labels = texts(ax)
    for label in (
        "item 0",
        "item 1",
        "item 2",
        "image 0",
        "image 1",
        "image 2",
        "text 0",
        "text 1",
    ):
        assert labels.count(label) == 1, label
    assert labels.count("item") == labels.count("image") == labels.count("text") == 1
    assert ax.get_title(loc="left") == "History 0: 3 steps, 3 item, 3 image and 2 text nodes"


def test_history_takes_one_of_many():
    ax = plot.history(BUILDER(HISTORIES), index=1)
    assert ax.get_title(loc="left") == "History 1: 1 step, 1 item, 2 image and 1 text nodes"
    ax = plot.history(BUILDER(HISTORIES), index=-1)
    assert ax.get_title(loc="left").startswith("History 3: 4 steps, 3 item, 4 image")


def test_history_shortens_names():
    names = {
        "item": [
            "A wooden train with forty pieces of track and a bridge",
            "Pneumonoultramicroscopicsilicovolcanoconiosis",
            " two\n  spaces ",
        ],
        "text": ["short", ""],
    }
    labels = texts(plot.history(BUILDER([[0, 1, 2]]), names=names))
    assert "A wooden train with forty…" in labels
    assert any(
        label.replace(" ", "").startswith("Pneumonoultramicroscopic") and label.endswith("…")
        for label in labels
    )
    assert "two spaces" in labels
    assert "short" in labels
    assert "text 1" in labels  # an empty name is none
    assert "image 0" in labels
    for label in labels[:8]:
        assert len(label) <= 33


def test_history_takes_names_literally():
    names = {"item": ["costs $5 or $x_$", r"\frac{", "~ & % #"]}
    ax = plot.history(BUILDER([[0, 1, 2]]), names=names)
    assert "costs $5 or $x_$" in texts(ax)
    ax.figure.canvas.draw()  # dollars would be read as mathematics here


def test_history_puts_items_in_order_on_one_row():
    ax = plot.history(BUILDER([[4, 1, 4, 0]]))
    items, images, captions = places(ax, 0), places(ax, 1), places(ax, 2)
    assert items[:, 0].tolist() == sorted(items[:, 0].tolist())
    for row in (items, images, captions):
        assert len(set(row[:, 1].tolist())) == 1
    assert items[0, 1] > images[0, 1] > captions[0, 1]
    steps = [text.get_text() for text in ax.texts if text.get_text()[0].isdigit()]
    assert steps == ["1,3", "2", "4"]  # item 4 is both the first and the third step


def test_history_keeps_nodes_of_a_row_apart():
    codes = {"image": torch.arange(12).reshape(3, 4)}
    builder = SequenceGraphBuilder(GraphSchema(("item", "image")), codes)
    ax = plot.history(builder([[0, 1, 2]]))
    assert (places(ax, 1)[:, 0].data[1:] - places(ax, 1)[:, 0].data[:-1]).min() > 0.5


def test_history_draws_each_pair_once():
    """a b c: two pairs in a row per modality, and each step's matches; self edges are left out."""
    codes = {"image": torch.tensor([[0], [1], [2]])}
    builder = SequenceGraphBuilder(GraphSchema(("item", "image")), codes)
    ax = plot.history(builder([[0, 1, 2]]))
    assert len(arrows(ax)) == 2 + 2 + 3
    assert len(arrows(plot.history(builder([[1]])))) == 1
    ax = plot.history(builder([[0, 1, 0]]))  # back and forth
    assert len(arrows(ax)) == 1 + 1 + 2
    assert "both ways" in texts(ax)
    assert "next / previous" not in texts(ax)


def test_history_arrows_lead_forward_in_time():
    builder = SequenceGraphBuilder(GraphSchema(("item",)), {}, num_items=9)
    (arrow,) = arrows(plot.history(builder([[7, 2]])))
    start, end = arrow._posA_posB
    assert start[0] < end[0]


def test_history_colours_edges_by_kind():
    ax = plot.history(BUILDER([[0, 1]]))
    legend = [t for t in texts(ax) if t.startswith(("same", "next", "both"))]
    assert legend == [
        "same step: item – image",
        "same step: item – text",
        "same step: image – text",
        "next / previous",
    ]
    lines = ax.get_legend().get_lines()
    looks = {(line.get_color(), line.get_linestyle()) for line in lines}
    assert len(looks) == 4
    drawn = {matplotlib.colors.to_hex(arrow.get_edgecolor()).upper() for arrow in arrows(ax)}
    assert drawn == {line.get_color().upper() for line in lines}
    assert "self edges are not drawn" in ax.get_legend().get_title().get_text()


def test_history_of_the_users_own_edges():
    schema = GraphSchema(("item", "image"), relations=("bought with",))
    graph = SequenceGraph.from_edges(
        schema,
        torch.tensor([0, 0, 0, 1]),
        torch.tensor([[0, 0, 1, 3], [1, 1, 2, 0]]),
        torch.tensor(
            [schema.relation_id("bought with")] * 2 + [2, schema.relation_id("item>image")]
        ),
    )
    ax = plot.history(graph)
    assert len(arrows(ax)) == 3  # parallel edges are drawn once
    assert {"bought with", "next / previous", "same step: item – image"} <= set(texts(ax))


@pytest.mark.parametrize("histories", [[[]], [[0, 1], []]])
def test_an_empty_history(histories):
    ax = plot.history(BUILDER(histories), index=-1)
    assert "an empty history" in texts(ax)
    assert "0 steps" in ax.get_title(loc="left")


def test_a_long_history_in_a_narrow_figure():
    builder = SequenceGraphBuilder(SCHEMA, {m: c.repeat(20, 1) for m, c in CODES.items()})
    _, ax = plt.subplots(figsize=(5, 4))
    plot.history(builder([list(range(60))]), ax=ax)
    assert {f"item {i}" for i in range(60)} <= set(texts(ax))
    ax.figure.canvas.draw()


def test_history_refuses_wrong_arguments():
    graph = BUILDER(HISTORIES)
    for index in (4, -5):
        with pytest.raises(IndexError, match=f"index: expected one of 4 graphs, got {index}"):
            plot.history(graph, index=index)
    with pytest.raises(TypeError, match="graph: expected a SequenceGraph, got list"):
        plot.history([[0, 1]])
    with pytest.raises(ValueError, match=r"names: expected modalities of \('item', .* got 'sound'"):
        plot.history(graph, names={"sound": ["a"]})
    with pytest.raises(ValueError, match=r"names\['item'\]: expected a name for each id up to 2, "):
        plot.history(graph, names={"item": ["a", "b"]})
    with pytest.raises(TypeError, match=r"names\['item'\]: expected a sequence of names, got str"):
        plot.history(graph, names={"item": "abcdefgh"})
    with pytest.raises(TypeError, match="names: expected a Mapping, got list"):
        plot.history(graph, names=["a"])
    assert not plt.get_fignums()  # nothing is drawn before everything is checked


# ----------------------------------------------------------------------------- fusion_order


def gates_of(graph, *weights):
    """Gates that give every node of a layer one weight."""
    return [torch.tensor([w, 1 - w]).expand(graph.num_nodes, 2) for w in weights]


def test_fusion_order_draws_on_the_given_axes():
    graph = BUILDER(HISTORIES)
    figure, ax = plt.subplots()
    assert plot.fusion_order(graph, gates_of(graph, 0.5), ax=ax) is ax
    assert plt.get_fignums() == [figure.number]
    ax.figure.canvas.draw()
    assert plot.fusion_order(graph, gates_of(graph, 0.5)) is not ax


def test_fusion_order_counts_what_reaches_the_readout():
    graph = BUILDER(HISTORIES)
    first, last = reached_nodes(graph, 2)
    assert 3 == int(last.sum()) < int(first.sum()) < graph.num_nodes
    ax = plot.fusion_order(graph, gates_of(graph, 0.25, 0.75))
    found = texts(ax)
    assert f"layer 1: {int(first.sum())} of {graph.num_nodes} nodes counted" in found
    assert f"layer 2: 3 of {graph.num_nodes} nodes counted" in found
    assert "reaches the readout" in ax.get_title(loc="right")
    rows = [text for text in found if text.startswith(("n =", "no gate"))]
    images, captions = (int((first & (graph.node_type == t)).sum()) for t in (1, 2))
    items = int(first.sum()) - images - captions
    assert rows == [
        f"n = {items} median 0.25",
        f"n = {images} median 0.25",
        f"n = {captions} median 0.25",
        "n = 3 median 0.75",
        "no gate reaches the readout",
        "no gate reaches the readout",
    ]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["item", "image", "text"] * 2
    assert "early fusion (heterogeneous first)" in ax.get_xlabel()
    assert "(homogeneous first) late fusion" in ax.get_xlabel()


def test_fusion_order_leaves_the_others_out():
    """Gates of nodes that reach nothing do not change the picture."""
    graph = BUILDER(HISTORIES)
    (reached,) = reached_nodes(graph, 1)
    (gate,) = gates_of(graph, 0.9)
    noise = torch.where(reached.unsqueeze(1), gate, 1 - gate)
    for given in (gate, noise):
        ax = plot.fusion_order(graph, [given])
        assert "n = 3 median 0.90" in texts(ax)
        (ridge,) = ax.collections  # the density has its peak where the weights are
        outline = ridge.get_paths()[0].vertices
        assert outline[outline[:, 1].argmax(), 0] == pytest.approx(0.9, abs=0.02)


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_fusion_order_at_the_ends(weight):
    graph = BUILDER(HISTORIES)
    ax = plot.fusion_order(graph, gates_of(graph, weight))
    assert f"n = 3 median {weight:.2f}" in texts(ax)
    outline = ax.collections[0].get_paths()[0].vertices
    assert outline[outline[:, 1].argmax(), 0] == pytest.approx(weight, abs=0.01)


def test_fusion_order_behind_other_readouts():
    graph = BUILDER(HISTORIES)
    items = int((graph.node_type == 0).sum())
    found = texts(plot.fusion_order(graph, gates_of(graph, 0.5), readout="steps"))
    assert f"layer 1: {items} of {graph.num_nodes} nodes counted" in found
    everything = torch.ones(graph.num_nodes, dtype=torch.bool)
    found = texts(plot.fusion_order(graph, gates_of(graph, 0.5), readout=everything))
    assert f"layer 1: {graph.num_nodes} of {graph.num_nodes} nodes counted" in found


def test_fusion_order_of_a_model():
    graph = BUILDER(HISTORIES)
    encoder = nn.GraphEncoder([nn.AsynchronousUpdate.from_channels(8, SCHEMA) for _ in range(2)])
    _, gates = encoder(torch.randn(graph.num_nodes, 8), graph, return_gates=True)
    (reached,) = reached_nodes(graph, 1)
    median = float(gates[1][reached, 0].detach().median())
    assert f"n = 3 median {median:.2f}" in texts(plot.fusion_order(graph, gates))
    plot.fusion_order(graph, [gate.bfloat16() for gate in gates])


def test_fusion_order_of_a_batch_without_nodes():
    graph = BUILDER([[]])
    ax = plot.fusion_order(graph, [torch.empty(0, 2)])
    assert "layer 1: 0 of 0 nodes counted" in texts(ax)
    ax.figure.canvas.draw()


def test_fusion_order_refuses_wrong_arguments():
    graph = BUILDER(HISTORIES)
    size = graph.num_nodes
    good = gates_of(graph, 0.5)[0]
    with pytest.raises(
        TypeError, match=r"gates: expected a list with one \[num_nodes, 2\] .*Tensor"
    ):
        plot.fusion_order(graph, good)
    with pytest.raises(ValueError, match="gates: expected the weights of at least one layer"):
        plot.fusion_order(graph, [])
    with pytest.raises(
        ValueError, match=rf"gates\[1\]: expected shape \[{size}, 2\].*got \[3, 2\]"
    ):
        plot.fusion_order(graph, [good, good[:3]])
    with pytest.raises(ValueError, match=rf"gates\[0\]: expected shape \[{size}, 2\].*, 1\]"):
        plot.fusion_order(graph, [good[:, :1]])
    with pytest.raises(TypeError, match=r"gates\[0\]: expected a Tensor, got NoneType"):
        plot.fusion_order(graph, [None])
    with pytest.raises(
        TypeError, match=r"gates\[0\]: expected floating-point numbers, got .*int64"
    ):
        plot.fusion_order(graph, [good.long()])
    for bad in ([0.5, 0.6], [1.5, -0.5], [float("nan"), 0.5]):
        wrong = good.clone()
        wrong[2] = torch.tensor(bad)
        with pytest.raises(ValueError, match=r"gates\[0\]\[2\]: expected two weights of a softmax"):
            plot.fusion_order(graph, [wrong])
    with pytest.raises(
        ValueError, match="readout: expected 'last', 'steps' or a boolean mask, got"
    ):
        plot.fusion_order(graph, [good], readout="mean")
    with pytest.raises(ValueError, match=r"readout: expected shape"):
        plot.fusion_order(graph, [good], readout=torch.ones(3, dtype=torch.bool))
    with pytest.raises(TypeError, match="graph: expected a SequenceGraph"):
        plot.fusion_order(None, [good])
    assert not plt.get_fignums()


def test_without_matplotlib(monkeypatch):
    graph = BUILDER(HISTORIES)
    monkeypatch.setitem(sys.modules, "networkx", None)
    with pytest.raises(
        ImportError, match=r"plot\.history needs networkx, of the extra plot: pip install networkx"
    ):
        plot.history(graph)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"plot\.fusion_order needs matplotlib, of the extra"):
        plot.fusion_order(graph, gates_of(graph, 0.5))
