"""Pictures: one history's graph, and the order in which a trained model fuses its nodes."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from importlib import import_module
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from mmgraph import _checks as check
from mmgraph.graph import SequenceGraph
from mmgraph.introspect import ReadNodes, masks_of_reached
from mmgraph.schema import GraphSchema

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["fusion_order", "history"]

# Okabe and Ito's colours, told apart under every common colour blindness.
_MODALITY_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
_SEQUENCE_COLOUR, _BOTH_COLOUR, _TEXT, _MUTED = "#3A3A3A", "#D55E00", "#222222", "#767676"
# Edges between two modalities of which neither is the first, and relations that a user brings.
_OTHER_COLOURS = ("#CC79A7", "#56B4E9", "#B8A500", "#8C564B", "#7F7F7F", "#999933")
_MARKERS = ("o", "s", "^", "D", "p", "h")
_LABEL_LENGTH, _LABEL_WIDTH = 30, 15  # a name's characters in all, and on a line
_ITEM_GAP, _CODE_GAP = 1.0, 0.72  # the least distance between a row's nodes
_BINS, _SMOOTHING = 120, 2.2  # of the gate's density; the smoothing in bins
_SUM_TOLERANCE = 0.02  # what a softmax in bfloat16 may be off by


def history(
    graph: SequenceGraph,
    *,
    index: int = 0,
    names: Mapping[str, Sequence[str]] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw one history's graph.

    Each modality has a row. Items stand in the order of their first occurrence, with the numbers
    of their steps inside; the other modalities' nodes stand near the items they belong to. Edges
    are drawn once for both directions, coloured by kind, and ``self`` edges not at all.

    Args:
        graph: the batch that holds the history.
        index: which of its histories; negative indices count from the end.
        names: per modality, a name for each node id, such as the items' titles; long ones are
            shortened. Nodes without one are called like ``image 7``.
        ax: where to draw; by default on a new figure of fitting size.

    Returns:
        The axes that were drawn on.

    Raises:
        ImportError: if matplotlib or networkx is missing.
        IndexError: if there is no such history.
        TypeError: if an argument is of another kind.
        ValueError: if ``names`` has an unknown modality or too few names.

    Example:
        >>> schema = GraphSchema(("item", "image"))
        >>> builder = SequenceGraphBuilder(schema, codes={"image": torch.tensor([[0], [1], [0]])})
        >>> axes = mmgraph.plot.history(builder([[2, 0, 1]]), names={"item": ["cup", "pan", "pot"]})
        >>> axes.get_title(loc="left")
        'History 0: 3 steps, 3 item and 2 image nodes'
    """
    _require("history", "matplotlib", "networkx")
    import matplotlib.pyplot as plt
    import networkx as nx

    check.instance("graph", graph, SequenceGraph)
    _check_axes(ax)
    one = graph[index].to("cpu")
    labels = _labels(one, names)
    places = _layout(one)
    span = float(np.ptp(places[:, 0])) if one.num_nodes else 0.0
    if ax is None:
        size = (min(max(1.2 * span + 2.4, 6.5), 30.0), 1.35 * one.schema.num_types + 1.8)
        _, ax = plt.subplots(figsize=size, layout="constrained")
        inches, tall = size
    else:
        extent = ax.get_window_extent()
        inches, tall = extent.width / ax.figure.dpi, extent.height / ax.figure.dpi
    ax.set_axis_off()
    ax.set_title(_history_title(one, index % graph.num_graphs), loc="left", color=_TEXT)
    if not one.num_nodes:
        ax.text(0.5, 0.5, "an empty history", ha="center", color=_MUTED, transform=ax.transAxes)
        return ax

    types = one.node_type.tolist()
    position = dict(enumerate(places.tolist()))
    unit = inches / (span + 1.4)
    crowded = unit < 0.9
    scale = min(1.0, unit / 0.6)  # of markers, where even they would touch
    sizes = [scale**2 * (620 if t == 0 else 260) for t in types]
    families = _families(one)
    drawing = nx.DiGraph()
    drawing.add_nodes_from(range(one.num_nodes))
    for family in families:
        # Inside a modality the items' edges are the sequence; the others' stay in the background.
        looks = {edge: (_bend(places, edge), *_weight(types, edge)) for edge in family.edges}
        for look in sorted(set(looks.values())):
            bend, width, alpha = look
            nx.draw_networkx_edges(
                drawing,
                position,
                edgelist=[edge for edge in family.edges if looks[edge] == look],
                ax=ax,
                arrows=True,
                arrowstyle=family.arrow,
                arrowsize=11,
                connectionstyle=f"arc3,rad={bend}",
                edge_color=family.colour,
                style=family.style,
                width=width,
                alpha=alpha,
                node_size=sizes,
                hide_ticks=False,
            )
    for t, modality in enumerate(one.schema.modalities):
        nodes = [node for node in range(one.num_nodes) if types[node] == t]
        ax.annotate(
            modality,
            (float(places[:, 0].min()), -float(t)),
            xytext=(-34, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            color=_colour(t),
            weight="bold",
        )
        nx.draw_networkx_nodes(
            drawing,
            position,
            nodelist=nodes,
            node_size=[sizes[node] for node in nodes],
            node_color=_colour(t),
            node_shape=_MARKERS[t % len(_MARKERS)],
            edgecolors="white",
            linewidths=1.2,
            ax=ax,
            hide_ticks=False,
        )
    for node, label in enumerate(labels):
        first = types[node] == 0
        ax.annotate(
            label.replace("\n", " ") if crowded else label,
            places[node],
            xytext=(0, 15 if first else -10),
            textcoords="offset points",
            rotation=0 if not crowded else 35 if first else -35,
            rotation_mode="anchor" if crowded else "default",
            ha="left" if crowded else "center",
            va="bottom" if first else "top",
            fontsize=8,
            color=_TEXT,
            linespacing=0.95,
            parse_math=False,
            bbox={"boxstyle": "round,pad=0.1", "facecolor": "white", "alpha": 0.75, "linewidth": 0},
        )
    for node, steps in enumerate(_step_numbers(one)):
        ax.annotate(
            steps,
            places[node],
            ha="center",
            va="center",
            fontsize=scale * (9 if len(steps) < 3 else 7 if len(steps) < 6 else 5.5),
            color="white",
            weight="bold",
        )
    columns = min(len(families) or 1, max(1, int(inches / 1.8)))
    ax.legend(
        handles=[_legend_line(family) for family in families],
        title="numbers are steps; self edges are not drawn",
        title_fontsize=8,
        fontsize=8,
        loc="lower center",
        ncols=columns,
        frameon=False,
    )
    # The legend stands inside the axes, in a strip of its own below the last row.
    strip = 0.35 + 0.18 * -(-len(families) // columns)
    top, bottom = 0.9 if crowded else 0.45, float(places[:, 1].min()) - 0.45
    bottom -= (top - bottom) * strip / max(tall - strip, 0.5)
    ax.set_xlim(places[:, 0].min() - 0.7, places[:, 0].max() + 0.7)
    ax.set_ylim(bottom, top)
    return ax


def fusion_order(
    graph: SequenceGraph,
    gates: Sequence[Tensor],
    *,
    readout: ReadNodes | Tensor = "last",
    ax: Axes | None = None,
) -> Axes:
    """Draw how early or late the nodes of each modality fuse, layer by layer.

    A row is the distribution of the gate's weight for *homogeneous first* over one modality's
    nodes, each scaled to one height: 0 is towards early fusion (heterogeneous first), 1 towards
    late fusion, and the dark tick is the median. A layer counts only the nodes whose gate reaches
    the readout (:func:`mmgraph.reached_nodes`), and the figure says how many these are: the other
    gates get no gradient and tell nothing.

    Args:
        graph: the batch that the model ran on.
        gates: each layer's gate weights ``[N, 2]``, first layer first, column 0 = homogeneous
            first, as :class:`mmgraph.nn.GraphEncoder` returns them with ``return_gates=True``.
        readout: the nodes that the readout reads: ``"last"`` (``Last``), ``"steps"`` (``Mean``,
            ``Max``, ``SoftAttention``), or a boolean mask ``[N]``, as ``Recent`` needs.
        ax: where to draw; by default on a new figure of fitting size.

    Returns:
        The axes that were drawn on.

    Raises:
        ImportError: if matplotlib is missing.
        TypeError: if an argument is of another kind.
        ValueError: if there is no gate, a gate's shape does not fit the graph, or its rows are
            not the weights of a softmax.
    """
    _require("fusion_order", "matplotlib")
    import matplotlib.pyplot as plt

    check.instance("graph", graph, SequenceGraph)
    _check_axes(ax)
    weights = _gate_weights(graph, gates)
    reached = [mask.cpu() for mask in masks_of_reached(graph, len(weights), readout, "readout")]
    modalities = graph.schema.modalities
    node_type = graph.node_type.cpu()
    counted = [
        [weight[mask & (node_type == t)].numpy() for t in range(len(modalities))]
        for weight, mask in zip(weights, reached, strict=True)
    ]
    rows = [[1.0 if values.size else 0.42 for values in layer] for layer in counted]
    height = sum(map(sum, rows)) + 0.75 * len(rows)
    if ax is None:
        _, ax = plt.subplots(figsize=(7.5, 0.55 * height + 1.2), layout="constrained")

    base, ticks = 0.0, []
    for layer, (mask, values) in enumerate(zip(reached, counted, strict=True)):
        base -= 0.45
        ax.text(
            0.0,
            base,
            f"layer {layer + 1}: {int(mask.sum()):,} of {graph.num_nodes:,} nodes counted",
            color=_TEXT,
            weight="bold",
            fontsize=9,
            va="center",
            bbox={"facecolor": "white", "linewidth": 0, "pad": 1.5},
        )
        for t in range(len(modalities)):
            base -= rows[layer][t]
            ticks.append(base)
            _density(ax, values[t], base, _colour(t))
        base -= 0.3
    ax.axvline(0.5, color=_MUTED, linewidth=0.8, linestyle=(0, (3, 3)), zorder=0)
    ax.set_yticks(ticks, labels=list(modalities) * len(weights))
    for t, label in enumerate(ax.get_yticklabels()):
        label.set_color(_colour(t % len(modalities)))
        label.set_verticalalignment("bottom")
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.set_xlim(-0.02, 1.02)
    ax.set_ylim(-height + 0.1, 0.0)
    ax.set_xlabel(
        "\u2190 early fusion (heterogeneous first)      gate weight of homogeneous first"
        "      (homogeneous first) late fusion \u2192",
        fontsize=9,
    )
    ax.set_title("Fusion order", loc="left", color=_TEXT)
    ax.set_title("only nodes whose gate reaches the readout", loc="right", fontsize=9, color=_MUTED)
    return ax


class _Family(NamedTuple):
    """Edges of one kind, each pair of nodes once, and how they are drawn."""

    label: str
    edges: list[tuple[int, int]]
    colour: str
    arrow: str = "-"
    style: Literal["solid", "dashed", "dotted"] = "solid"


def _check_axes(ax: Any) -> None:
    from matplotlib.axes import Axes

    if ax is not None and not isinstance(ax, Axes):
        raise TypeError(f"ax: expected Matplotlib's Axes, got {type(ax).__name__}")


def _families(one: SequenceGraph) -> list[_Family]:
    """The kinds of edges that the graph has, `self` left out."""
    schema = one.schema
    pairs: dict[str, set[tuple[int, int]]] = {}
    for (neighbour, centre), relation in zip(
        one.edge_index.T.tolist(), one.edge_type.tolist(), strict=True
    ):
        name = schema.relations[relation]
        if name == "self":
            continue
        if name == "previous":  # an arrow leads from the earlier node to the later one
            name, edge = "next", (neighbour, centre)
        elif name == "next":
            edge = (centre, neighbour)
        elif name in schema.appended_relations:
            edge = (neighbour, centre)
        else:
            edge = (min(neighbour, centre), max(neighbour, centre))
            if name != "both":
                types = sorted((int(one.node_type[neighbour]), int(one.node_type[centre])))
                name = ">".join(schema.modalities[t] for t in types)
        pairs.setdefault(name, set()).add(edge)

    kinds = {name: kind for name, kind in _kinds(schema).items() if name in pairs}
    return [kind._replace(edges=sorted(pairs[name])) for name, kind in kinds.items()]


def _kinds(schema: GraphSchema) -> dict[str, _Family]:
    """How each kind of edge is drawn, by the name of its relation; matches lie underneath."""
    others = iter(_OTHER_COLOURS * (1 + schema.num_relations))
    kinds = {}
    for a, b in combinations(range(schema.num_types), 2):
        pair = schema.modalities[a], schema.modalities[b]
        kinds[">".join(pair)] = _Family(
            f"same step: {pair[0]} \u2013 {pair[1]}",
            [],
            _colour(b) if a == 0 else next(others),
            style="solid" if a == 0 else "dashed",
        )
    for name in schema.appended_relations:
        kinds[name] = _Family(name, [], next(others), arrow="-|>", style="dotted")
    kinds["next"] = _Family("next / previous", [], _SEQUENCE_COLOUR, arrow="-|>")
    kinds["both"] = _Family("both ways", [], _BOTH_COLOUR, arrow="<|-|>")
    return kinds


def _legend_line(family: _Family) -> Any:
    from matplotlib.lines import Line2D

    return Line2D(
        [],
        [],
        color=family.colour,
        linestyle=family.style,
        linewidth=1.8,
        marker=">" if family.arrow != "-" else "",
        markersize=5,
        label=family.label,
    )


def _layout(one: SequenceGraph) -> npt.NDArray[np.float64]:
    """Places ``[N, 2]``: a row per modality, items in order, the others near their items."""
    num_items, types = int(one.type_ptr[1]), one.node_type.numpy()
    counts = one.type_ptr.diff().tolist()
    places = np.zeros((one.num_nodes, 2))
    places[:, 1] = -types.astype(np.float64)
    # Items that occur in no step, of a graph of the user's own edges, come last.
    first = np.full(num_items, np.inf)
    nodes, steps = one.occurrence_node.numpy(), one.occurrence_position.numpy()
    np.minimum.at(first, nodes[nodes < num_items], steps[nodes < num_items])
    gap = max(_ITEM_GAP, _CODE_GAP * (max(counts[1:], default=0) - 1) / max(num_items - 1, 1))
    places[np.argsort(first, kind="stable"), 0] = min(gap, 2.5) * np.arange(num_items)

    centre, neighbour = one.edge_index[1].numpy(), one.edge_index[0].numpy()
    match = (types[centre] > 0) & (types[neighbour] == 0)
    total = np.bincount(centre[match], places[neighbour[match], 0], one.num_nodes)
    number = np.bincount(centre[match], minlength=one.num_nodes)
    middle = places[:num_items, 0].mean() if num_items else 0.0
    wanted = np.where(number > 0, total / np.maximum(number, 1), middle)
    for a, b in zip(one.type_ptr.tolist()[1:-1], one.type_ptr.tolist()[2:], strict=True):
        places[a:b, 0] = _spread(wanted[a:b], _CODE_GAP)
    return places


def _spread(wanted: npt.NDArray[np.float64], gap: float) -> npt.NDArray[np.float64]:
    """The places nearest to those wanted, in least squares, that keep a distance of ``gap``.

    Without the gaps' share, places must not fall: isotonic regression by pooling neighbours.
    """
    order = np.argsort(wanted, kind="stable")
    shift = gap * np.arange(wanted.shape[0])
    pools: list[tuple[float, int]] = []
    for value in wanted[order] - shift:
        mean, size = float(value), 1
        while pools and pools[-1][0] >= mean:
            other, count = pools.pop()
            mean, size = (mean * size + other * count) / (size + count), size + count
        pools.append((mean, size))
    places = np.empty_like(wanted)
    places[order] = np.repeat([p[0] for p in pools], [p[1] for p in pools]) + shift
    return places


def _bend(places: npt.NDArray[np.float64], edge: tuple[int, int]) -> float:
    """How far an edge bends (matplotlib's arc3): around the nodes it would run through."""
    (x0, y0), (x1, y1) = places[edge[0]], places[edge[1]]
    if y0 != y1:
        return 0.0 if abs(y0 - y1) == 1.0 else 0.13
    between = (places[:, 1] == y0) & (places[:, 0] > min(x0, x1)) & (places[:, 0] < max(x0, x1))
    if not between.any():
        return 0.0
    # A long arc is flatter, so that all are about as high. Labels are avoided: the items', which
    # are above them, by arcs that hang, the others' by arcs that stand.
    height = round(float(min(0.4, 0.55 / abs(x1 - x0))), 3)
    return height if (x1 > x0) == (y0 == 0) else -height


def _weight(types: list[int], edge: tuple[int, int]) -> tuple[float, float]:
    """Line width and opacity: the sequence of items stands out."""
    if types[edge[0]] != types[edge[1]]:
        return 1.2, 0.6
    return (1.7, 0.95) if types[edge[0]] == 0 else (1.1, 0.55)


def _labels(one: SequenceGraph, names: Mapping[str, Sequence[str]] | None) -> list[str]:
    names = {} if names is None else names
    check.instance("names", names, Mapping)
    modalities = one.schema.modalities
    for modality, given in names.items():
        if modality not in modalities:
            raise ValueError(f"names: expected modalities of {modalities}, got {modality!r}")
        if isinstance(given, str) or not isinstance(given, Sequence):
            raise TypeError(
                f"names[{modality!r}]: expected a sequence of names, got {type(given).__name__}"
            )
        bound = one.id_bounds[one.schema.type_id(modality)]
        if len(given) < bound:
            raise ValueError(
                f"names[{modality!r}]: expected a name for each id up to {bound - 1}, "
                f"got {len(given)} names"
            )
    labels = []
    for t, node_id in zip(one.node_type.tolist(), one.node_id.tolist(), strict=True):
        modality = modalities[t]
        name = _shorten(names[modality][node_id]) if modality in names else ""
        labels.append(name or f"{modality} {node_id}")
    return labels


def _shorten(name: str) -> str:
    """A name on at most three short lines; what is cut off is marked by an ellipsis."""
    name = " ".join(str(name).split())
    if len(name) > _LABEL_LENGTH:
        cut = name[: _LABEL_LENGTH - 1]
        head, space, _ = cut.rpartition(" ")
        # A word is cut only where leaving it out would leave too little.
        name = (head if space and len(head) > _LABEL_LENGTH // 2 else cut).rstrip(
            " ,;:-"
        ) + "\u2026"
    return "\n".join(textwrap.wrap(name, _LABEL_WIDTH))


def _step_numbers(one: SequenceGraph) -> list[str]:
    """For each item node the numbers of its steps, counted from 1; nothing for the others."""
    steps: list[list[str]] = [[] for _ in range(int(one.type_ptr[1]))]
    for step, node in enumerate(one.step_node.tolist()):
        steps[node].append(str(step + 1))
    return [
        ",".join(numbers) if len(numbers) < 4 else f"{numbers[0]},{numbers[1]},+{len(numbers) - 2}"
        for numbers in steps
    ]


def _history_title(one: SequenceGraph, index: int) -> str:
    steps = one.step_node.shape[0]
    counts = zip(one.type_ptr.diff().tolist(), one.schema.modalities, strict=True)
    *parts, last = [f"{count} {modality}" for count, modality in counts]
    nodes = f"{', '.join(parts)} and {last}" if parts else last
    return f"History {index}: {steps} step{'' if steps == 1 else 's'}, {nodes} nodes"


def _gate_weights(graph: SequenceGraph, gates: Sequence[Tensor]) -> list[Tensor]:
    """Each layer's weight of homogeneous first, checked, on the CPU."""
    if isinstance(gates, Tensor) or not isinstance(gates, Sequence):
        raise TypeError(
            "gates: expected a list with one [num_nodes, 2] tensor per layer, "
            f"got {type(gates).__name__}"
        )
    if not gates:
        raise ValueError("gates: expected the weights of at least one layer, got none")
    weights = []
    for layer, gate in enumerate(gates):
        name = f"gates[{layer}]"
        check.shape(name, gate, (graph.num_nodes, 2), "one row per node, one weight per order")
        check.floating(name, gate)
        gate = gate.detach().double().cpu()
        fits = (gate >= 0).all(1) & ((gate.sum(1) - 1).abs() <= _SUM_TOLERANCE)
        check.first_bad(
            ~fits,
            lambda i, name=name, gate=gate: (  # type: ignore[misc]
                f"{name}[{i}]: expected two weights of a softmax, got {gate[i].tolist()}"
            ),
        )
        weights.append(gate[:, 0])
    return weights


def _density(ax: Axes, values: npt.NDArray[np.float64], base: float, colour: str) -> None:
    """One row: a smoothed histogram over [0, 1] on its base line, its median, its count."""
    ax.plot([0.0, 1.0], [base, base], color=colour, linewidth=0.8, alpha=0.6, zorder=1)
    if not values.size:
        text, colour = "no gate reaches the readout", _MUTED
        box = {"facecolor": "white", "linewidth": 0, "pad": 1.0}
        ax.text(
            0.5, base + 0.05, text, color=colour, fontsize=8, ha="center", va="bottom", bbox=box
        )
        return
    counts, _ = np.histogram(values, bins=_BINS, range=(0.0, 1.0))
    reach = int(4 * _SMOOTHING)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / _SMOOTHING) ** 2)
    # Mirrored at both ends, so that what piles up at 0 or 1 does not leak out.
    padded = np.pad(counts.astype(np.float64), reach, mode="symmetric")
    density = np.convolve(padded, kernel, mode="valid")
    height = 0.78 * density / density.max()
    centres = np.linspace(0.0, 1.0, _BINS)
    ax.fill_between(centres, base, base + height, color=colour, alpha=0.55, linewidth=0, zorder=2)
    ax.plot(centres, base + height, color=colour, linewidth=1.2, zorder=3)
    median = float(np.median(values))
    ax.plot([median, median], [base - 0.06, base + 0.3], color=_TEXT, linewidth=2.0, zorder=4)
    ax.annotate(
        f"n = {values.size:,}\nmedian {median:.2f}",
        (1.0, base),
        xytext=(10, 0),
        textcoords="offset points",
        annotation_clip=False,
        fontsize=8,
        color=_TEXT,
        va="bottom",
    )


def _colour(modality: int) -> str:
    return _MODALITY_COLOURS[modality % len(_MODALITY_COLOURS)]


def _require(function: str, *packages: str) -> None:
    for package in packages:
        try:
            import_module(package)
        except ImportError as error:
            raise ImportError(
                f"mmgraph.plot.{function} needs {package}, of the extra plot: pip install {package}"
            ) from error
