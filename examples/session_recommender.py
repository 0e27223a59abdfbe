"""A session recommender in SR-GNN's manner, from mmgraph's blocks, on sessions drawn here.

A session is a walk through a shop: from an item, people mostly go on to one of a few others, and
sometimes wander off. Items are the only modality. A gated graph network runs over each session's
graph, a soft attention reads it out, and the product with the item table scores every item (Wu et
al., "Session-based Recommendation with Graph Neural Networks", AAAI 2019, arXiv 1811.00855).

It is simpler than SR-GNN, which has separate matrices for edges in and out and normalises both
(`examples/mmsr/srgnn.py` has it so): here neighbours are summed whatever their direction, each node
is its own neighbour, and the positions of items enter, as does a residual.

    python -m examples.session_recommender
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn import functional as F
from torch.utils.data import DataLoader

import mmgraph

NUM_ITEMS, CHANNELS, MAX_LENGTH = 200, 32, 20
Samples = list[tuple[list[int], int]]


class SessionRecommender(Module):
    """Sessions to a score for every item: ``[num_graphs, num_items]``."""

    def __init__(self, schema: mmgraph.GraphSchema) -> None:
        super().__init__()
        self.embedding = mmgraph.nn.NodeEmbedding(
            schema, {"item": NUM_ITEMS}, CHANNELS, MAX_LENGTH, use_type=False
        )
        self.encoder = mmgraph.nn.GraphEncoder([mmgraph.nn.GGNN(CHANNELS)], residual=True)
        self.readout = mmgraph.nn.SoftAttention(CHANNELS)

    def forward(self, graph: mmgraph.SequenceGraph) -> Tensor:
        x = self.encoder(self.embedding(graph), graph)
        return self.readout(x, graph) @ self.embedding.table("item").T


def draw_sessions(count: int, generator: torch.Generator) -> list[list[int]]:
    """Walks in which an item has three likely successors, and one step in ten goes anywhere."""
    likely = torch.randint(NUM_ITEMS, (NUM_ITEMS, 3), generator=torch.Generator().manual_seed(7))
    sessions = []
    for length in torch.randint(4, 12, (count,), generator=generator).tolist():
        session = torch.randint(NUM_ITEMS, (1,), generator=generator).tolist()
        while len(session) < length:
            anywhere, choice, item = torch.rand(3, generator=generator).tolist()
            session.append(
                int(item * NUM_ITEMS)
                if anywhere < 0.1
                else int(likely[session[-1], int(choice * 3)])
            )
        sessions.append(session)
    return sessions


def instances(sessions: list[list[int]]) -> Samples:
    """Every prefix with the item that followed: states look ahead, so a graph is one prefix."""
    return [(session[:n], session[n]) for session in sessions for n in range(1, len(session))]


@torch.no_grad()
def hit_rate(model: Module, loader: DataLoader[tuple[list[int], int]], k: int = 5) -> float:
    """The percentage of targets among the k highest scores."""
    model.eval()
    hits = [
        (model(graph).topk(k).indices == targets.unsqueeze(1)).any(1).float()
        for graph, targets in loader
    ]
    return 100 * torch.cat(hits).mean().item()


def main(sessions: int = 400, epochs: int = 6) -> tuple[float, float]:
    """Train, print and return HR@5 on new sessions, before and after."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    schema = mmgraph.GraphSchema(("item",))
    builder = mmgraph.SequenceGraphBuilder(schema, num_items=NUM_ITEMS, max_length=MAX_LENGTH)
    collate = mmgraph.GraphCollator(builder)
    train, test = (
        DataLoader(instances(draw_sessions(n, generator)), 64, shuffle=s, collate_fn=collate)
        for n, s in ((sessions, True), (100, False))
    )
    model = SessionRecommender(schema)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    before = hit_rate(model, test)
    for epoch in range(epochs):
        model.train()
        total = 0.0
        for graph, targets in train:
            loss = F.cross_entropy(model(graph), targets)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item()
        print(f"epoch {epoch + 1}: loss {total / len(train):.3f}")
    after = hit_rate(model, test)
    print(f"HR@5 on new sessions: {before:.1f} before, {after:.1f} after training")
    return before, after


if __name__ == "__main__":
    main()
