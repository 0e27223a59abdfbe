"""Draws docs/_static/overview-{light,dark}.svg: `python docs/overview.py`.

The history is small, and its graph is what the builder makes of it: change STEPS, and nodes, edges
and relations follow.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch

import mmgraph

OUT = Path(__file__).parent / "_static"

ITEMS = ("mug", "pan", "pot", "lid")
# Each item's image and text code; -1: the lid has no picture.
CODES = {"image": (3, 7, 1, -1), "text": (2, 5, 5, 8)}
STEPS = (0, 1, 2, 1, 3)

WIDTH, HEIGHT = 1130, 304
ROWS = {"image": 92, "item": 162, "text": 232}  # y of each modality's row
FIRST_STEP, STEP = 92, 46  # x of the history's first column, and their distance
FIRST_NODE, NODE = 386, 94  # x of the graph's first item, and their distance
ORDERS, GATE, SCORES = 752, 976, 1075  # x of the first pills, the gate and the readout


class Palette(NamedTuple):
    text: str
    muted: str
    homogeneous: str
    heterogeneous: str
    on_node: str
    item: str
    image: str
    text_code: str


# Okabe and Ito's hues for the modalities, as in mmgraph.plot; greys are those of GitHub's themes.
PALETTES = {
    "light": Palette(
        "#1f2328", "#59636e", "#57606a", "#b05cc6", "#ffffff", "#0072b2", "#bf7a00", "#00866a"
    ),
    "dark": Palette(
        "#e6edf3", "#9198a1", "#9ea7b3", "#c58af0", "#0d1117", "#56b4e9", "#e69f00", "#2cc39d"
    ),
}


def build() -> mmgraph.SequenceGraph:
    """The graph of the one history."""
    schema = mmgraph.GraphSchema(("item", *CODES))
    codes = {name: torch.tensor(column)[:, None] for name, column in CODES.items()}
    return mmgraph.SequenceGraphBuilder(schema, codes)([STEPS])


def places(graph: mmgraph.SequenceGraph) -> list[tuple[float, float]]:
    """Items in the order of their first step, every code at the mean of its items."""
    order = list(dict.fromkeys(STEPS))
    found = []
    for node, kind in zip(graph.node_id.tolist(), graph.node_type.tolist(), strict=True):
        modality = graph.schema.modalities[kind]
        items = [i for i in order if (i if kind == 0 else CODES[modality][i]) == node]
        column = sum(order.index(i) for i in items) / len(items)
        found.append((FIRST_NODE + NODE * column, float(ROWS[modality])))
    return found


class Drawing:
    """SVG elements of one palette."""

    def __init__(self, palette: Palette) -> None:
        self.palette = palette
        self.parts: list[str] = []

    def add(self, element: str) -> None:
        self.parts.append(element)

    def write(
        self,
        x: float,
        y: float,
        text: str,
        colour: str | None = None,
        *,
        size: float = 14,
        weight: int = 400,
        anchor: str = "middle",
    ) -> None:
        """Text whose middle line is at y."""
        self.add(
            f'<text x="{x:g}" y="{y + 0.35 * size:g}" font-size="{size:g}" font-weight="{weight}" '
            f'text-anchor="{anchor}" fill="{colour or self.palette.text}">{text}</text>'
        )

    def line(self, path: str, colour: str, *, ends: str = "", dashed: bool = False) -> None:
        """A stroke; ends: "e" has an arrow at its end, "se" at its start too."""
        marker = {"#": "", self.palette.homogeneous: "ho", self.palette.heterogeneous: "he"}
        name = marker.get(colour, "muted")
        heads = f' marker-end="url(#{name})"' if "e" in ends else ""
        heads += f' marker-start="url(#{name})"' if "s" in ends else ""
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self.add(
            f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.8"{dash}{heads}/>'
        )

    def node(self, x: float, y: float, modality: str, label: str, radius: float) -> None:
        """An item as a disc, an image code as a square, a text code as a diamond."""
        palette = self.palette
        colour = {"item": palette.item, "image": palette.image, "text": palette.text_code}[modality]
        if modality == "item":
            self.add(f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" fill="{colour}"/>')
        else:
            side = 1.56 * radius
            turn = f' transform="rotate(45 {x:g} {y:g})"' if modality == "text" else ""
            side *= 0.94 if modality == "text" else 1.0
            corner = f'x="{x - side / 2:g}" y="{y - side / 2:g}"'
            size = f'width="{side:g}" height="{side:g}"'
            self.add(f'<rect {corner} {size} rx="4" fill="{colour}"{turn}/>')
        self.write(x, y, label, palette.on_node, size=0.68 * radius, weight=600)

    def pill(self, x: float, y: float, lines: tuple[str, str], colour: str, dashed: bool) -> None:
        """An attention, outlined like the edges that it runs over."""
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self.add(
            f'<rect x="{x:g}" y="{y - 22:g}" width="82" height="44" rx="9" fill="{colour}" '
            f'fill-opacity="0.10" stroke="{colour}" stroke-width="1.8"{dash}/>'
        )
        for offset, text in zip((-8, 9), lines, strict=True):
            self.write(x + 41, y + offset, text, size=13)


def history(d: Drawing) -> None:
    """One column per step, a dash where a modality is missing."""
    last = FIRST_STEP + STEP * (len(STEPS) - 1)
    d.write((FIRST_STEP + last) / 2, 22, "a history", weight=600, size=16)
    for modality, y in ROWS.items():
        d.write(FIRST_STEP - 34, y, modality, d.palette.muted, anchor="end")
    for step, item in enumerate(STEPS):
        x = FIRST_STEP + STEP * step
        for modality, y in ROWS.items():
            code = item if modality == "item" else CODES[modality][item]
            if code < 0:
                d.write(x, y, "\N{EN DASH}", d.palette.muted)
            else:
                d.node(x, y, modality, ITEMS[item] if modality == "item" else str(code), 18)
        d.write(x, 282, str(step + 1), d.palette.muted, size=13)
    d.write(FIRST_STEP - 34, 282, "step", d.palette.muted, size=13, anchor="end")


def edges(d: Drawing, graph: mmgraph.SequenceGraph, at: list[tuple[float, float]]) -> None:
    """Each pair once: inside a modality with its direction in time, between modalities plain."""
    names = graph.schema.relations
    found = zip(*graph.edge_index.tolist(), graph.edge_type.tolist(), strict=True)
    for neighbour, centre, relation in found:
        (x1, y1), (x2, y2) = at[centre], at[neighbour]
        middle = (x1 + x2) / 2
        side = 1 if x2 > x1 else -1
        name = names[relation]
        if name == "next" or (name == "both" and centre < neighbour):
            if abs(x2 - x1) < 1.6 * NODE:
                path = f"M{x1 + 27 * side:g} {y1:g}H{x2 - 27 * side:g}"
            else:  # round what stands between
                start, end = x1 + 19 * side, x2 - 19 * side
                path = f"M{start:g} {y1 - 19:g}Q{middle:g} {y1 - 46:g} {end:g} {y2 - 19:g}"
            d.line(path, d.palette.homogeneous, ends="e" if name == "next" else "se")
        elif ">" in name and centre < neighbour:
            bow = 0
            if abs(y2 - y1) > 100:  # round what stands in the row between
                bow = -62 if x1 == x2 else 12 * side
            path = f"M{x1:g} {y1:g}Q{middle + bow:g} {(y1 + y2) / 2:g} {x2:g} {y2:g}"
            d.line(path, d.palette.heterogeneous, dashed=True)


def typed_graph(d: Drawing) -> None:
    """What the builder makes of the history."""
    graph = build()
    at = places(graph)
    middle = FIRST_NODE + 1.5 * NODE
    d.write(middle, 22, "its typed graph", weight=600, size=16)
    edges(d, graph, at)
    for (x, y), node, kind in zip(
        at, graph.node_id.tolist(), graph.node_type.tolist(), strict=True
    ):
        modality = graph.schema.modalities[kind]
        d.node(x, y, modality, ITEMS[node] if kind == 0 else str(node), 22)
    left = middle - 150
    d.line(f"M{left:g} 282h26", d.palette.homogeneous, ends="e")
    d.write(left + 36, 282, "homogeneous", d.palette.muted, size=13, anchor="start")
    d.line(f"M{left + 156:g} 282h26", d.palette.heterogeneous, dashed=True)
    d.write(left + 190, 282, "heterogeneous", d.palette.muted, size=13, anchor="start")


def layer(d: Drawing) -> None:
    """Both orders, the gate and the readout."""
    ho = (("inside", "modalities"), d.palette.homogeneous, False)
    he = (("between", "modalities"), d.palette.heterogeneous, True)
    middle, fork, grey = ROWS["item"], ORDERS - 24, d.palette.muted
    d.write((ORDERS + GATE) / 2, 22, "both orders, a gate per node", weight=600, size=16)
    for y, pair, note, below in (
        (ROWS["image"], (ho, he), "homogeneous first: late fusion", -1),
        (ROWS["text"], (he, ho), "heterogeneous first: early fusion", 1),
    ):
        for x, pill in zip((ORDERS, ORDERS + 106), pair, strict=True):
            d.pill(x, y, *pill)
        d.line(f"M{fork:g} {middle:g}Q{fork:g} {y:g} {ORDERS - 4:g} {y:g}", grey, ends="e")
        d.line(f"M{ORDERS + 82:g} {y:g}h20", grey, ends="e")
        into_gate = f"Q{GATE:g} {y:g} {GATE:g} {middle + 31 * below:g}"
        d.line(f"M{ORDERS + 188:g} {y:g}{into_gate}", grey, ends="e")
        d.write(ORDERS + 94, y + 36 * below, note, grey, size=13)
    d.add(
        f'<circle cx="{GATE}" cy="{middle}" r="26" fill="none" stroke="{d.palette.text}" '
        'stroke-width="1.8"/>'
    )
    d.write(GATE, middle, "gate", weight=600)
    d.line(f"M{GATE + 26} {middle}H{SCORES - 44}", grey, ends="e")
    for offset, text in zip((-10, 10), ("readout", "and scores"), strict=True):
        d.write(SCORES, middle + offset, text)


def draw(palette: Palette) -> str:
    """The whole picture."""
    d = Drawing(palette)
    history(d)
    x = (FIRST_STEP + STEP * (len(STEPS) - 1) + FIRST_NODE) / 2 - 16
    d.line(f"M{x:g} {ROWS['item']}h28", palette.muted, ends="e")
    typed_graph(d)
    x = FIRST_NODE + 3 * NODE + 30
    d.line(f"M{x:g} 68q8 0 8 8V248q0 8 -8 8M{x + 8:g} {ROWS['item']}H{ORDERS - 24}", palette.muted)
    layer(d)
    heads = "".join(
        f'<marker id="{name}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="6" '
        f'markerHeight="6" orient="auto-start-reverse"><path d="M0 0L10 5L0 10z" fill="{colour}"/>'
        "</marker>"
        for name, colour in (
            ("ho", palette.homogeneous),
            ("he", palette.heterogeneous),
            ("muted", palette.muted),
        )
    )
    body = "\n".join(d.parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif">\n'
        f"<defs>{heads}</defs>\n{body}\n</svg>\n"
    )


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    for theme, colours in PALETTES.items():
        (OUT / f"overview-{theme}.svg").write_text(draw(colours), encoding="utf-8")
