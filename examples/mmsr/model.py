"""MMSR as a composition of mmgraph's blocks, every choice of it in one configuration."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

import mmgraph
from examples.mmsr.data import Dataset
from examples.mmsr.items import ItemFeatures
from examples.mmsr.propagation import PROPAGATION, make_propagation
from examples.mmsr.protocol import Instances
from examples.mmsr.recommender import Recommender
from examples.mmsr.released import ReleasedUpdate
from examples.mmsr.similarity import SimilarityScore
from examples.mmsr.successors import SuccessorScore
from mmgraph.nn import AsynchronousUpdate, CodeCentres, FrozenFeatures, SynchronousUpdate


@dataclass(frozen=True)
class NodesConfig:
    """How an item's features become nodes.

    Args:
        kind: ``codes`` links each item to its nearest code centres; ``features`` makes each item's
            own vector its node.
        num_codes: code centres per modality, K.
        k: codes per item and modality.
        metric: how near a code is.
        from_centres: whether code embeddings start from the centres.
        seed: of the clustering.
    """

    kind: Literal["codes", "features"] = "codes"
    num_codes: int = 20
    k: int = 1
    metric: Literal["cosine", "euclidean"] = "cosine"
    from_centres: bool = True
    seed: int = 0


@dataclass(frozen=True)
class ModelConfig:
    """Which blocks make the model.

    Args:
        channels: width of every state.
        layers: number of layers.
        heads: heads of each attention.
        update: the layer: the paper's with a gate, the one that joins both attentions side by
            side, the one that the authors released, or one of :data:`PROPAGATION`.
        order: of the asynchronous layer's two passes; ``both`` has the gate.
        invasive: whether the second pass of the asynchronous layer aggregates the first's result.
        shared_layers: whether all layers have the same weights, as in the authors' code.
        readout: how a history's nodes become one vector.
        recent: the number of steps of the ``recent`` readout.
        dropout: on each layer's output.
        attention_dropout: on attention weights.
        residual: whether a layer's input is added to its output.
        norm: whether a layer norm follows each layer.
        use_type: whether nodes carry an embedding of their modality.
        use_position: whether nodes carry the mean embedding of their positions.
        max_length: only the last so many steps of a history count.
    """

    channels: int = 128
    layers: int = 1
    heads: int = 1
    update: Literal[
        "asynchronous",
        "synchronous",
        "released",
        "homogeneous",
        "heterogeneous",
        "gcn",
        "graphsage",
        "gat",
        "rgat",
        "ggnn",
        "hgat",
        "graphormer",
    ] = "asynchronous"
    order: Literal["both", "homogeneous-first", "heterogeneous-first"] = "both"
    invasive: bool = False
    shared_layers: bool = False
    readout: Literal["last", "mean", "max", "recent", "soft_attention"] = "last"
    recent: int = 3
    dropout: float = 0.4
    attention_dropout: float = 0.2
    residual: bool = False
    norm: bool = False
    use_type: bool = True
    use_position: bool = True
    max_length: int = 50

    def __post_init__(self) -> None:
        for name in ("channels", "layers", "heads", "recent", "max_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if self.channels % self.heads:
            raise ValueError(
                f"heads: expected a divisor of channels {self.channels}, got {self.heads}"
            )
        for name in ("dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"{name}: expected at least 0 and below 1, got {getattr(self, name)}"
                )


@dataclass(frozen=True)
class ModalityNodes:
    """A modality's nodes: which of them each item has, and what they start from.

    Args:
        codes: ``[num_items, k]``, -1 where the item lacks the modality.
        size: the number of different nodes.
        centres: ``[size, channels]``, where code embeddings start, or None.
        features: ``[size, width]``, frozen feature vectors, or None.
    """

    codes: Tensor
    size: int
    centres: Tensor | None = None
    features: Tensor | None = None

    def source(self) -> int | CodeCentres | FrozenFeatures:
        """What :class:`mmgraph.nn.NodeEmbedding` is to make of them."""
        if self.features is not None:
            return FrozenFeatures(self.features)
        return self.size if self.centres is None else CodeCentres(self.centres)


def make_nodes(data: Dataset, config: NodesConfig, channels: int) -> dict[str, ModalityNodes]:
    """Nodes of every modality of a data set.

    Args:
        data: whose items.
        config: codes, or each item's own vector.
        channels: of the states; centres that nodes start from are reduced to so many.

    Raises:
        ValueError: no codes can be made of a modality; the message begins with its name.
    """
    nodes: dict[str, ModalityNodes] = {}
    for modality, features in data.features.items():
        if config.kind == "features":
            matrix = features if isinstance(features, np.ndarray) else features.toarray()
            own = torch.arange(data.num_items)
            own[~torch.from_numpy(data.has(modality))] = -1
            nodes[modality] = ModalityNodes(
                own[:, None], data.num_items, features=torch.from_numpy(matrix)
            )
            continue
        codebook = mmgraph.ModalityCodebook(
            config.num_codes,
            config.k,
            config.metric,
            components=channels if config.from_centres else None,
            seed=config.seed,
        )
        try:
            codes = codebook.fit_transform(features).codes
        except ValueError as error:
            why = str(error)
            if why.startswith("components: "):  # which is no setting of this example
                why = (
                    "code embeddings start from centres of --model.channels numbers; change it, or "
                    f"give --nodes.from_centres false ({why})"
                )
            raise ValueError(f"{modality}: {why}") from error
        nodes[modality] = ModalityNodes(
            codes, config.num_codes, codebook.centres if config.from_centres else None
        )
    return nodes


class MMSR(Recommender):
    """Graphs of histories, dual attention in both orders, a gate, the last item's state.

    Source: Hu et al., "Adaptive Multi-Modalities Fusion in Sequential Recommendation Systems",
    CIKM 2023, arXiv 2308.15980.

    Args:
        num_items: the size of the catalogue.
        nodes: by modality, in order.
        config: which blocks.
        features: what items' features add to their vectors as candidates.
        successors: what counted successors add to the scores.
        tied: whether ``features`` add to the item nodes' first states, too.

    Raises:
        ValueError: features are tied that are not there, or that the graphs have no nodes of.
    """

    def __init__(
        self,
        num_items: int,
        nodes: dict[str, ModalityNodes],
        config: ModelConfig = ModelConfig(),
        features: ItemFeatures | None = None,
        successors: SuccessorScore | None = None,
        tied: bool = False,
    ) -> None:
        super().__init__()
        if tied and (features is None or not nodes.keys() >= set(features.modalities)):
            got = None if features is None else list(features.modalities)
            raise ValueError(
                f"features: expected those of modalities among {list(nodes)} to be tied, got {got}"
            )
        self.features, self.successors, self.tied = features, successors, tied
        self.num_items, self.nodes, self.config = num_items, nodes, config
        self.schema = mmgraph.GraphSchema(("item", *nodes))
        self.builder = mmgraph.SequenceGraphBuilder(
            self.schema,
            codes={modality: of.codes for modality, of in nodes.items()},
            num_items=num_items,
            max_length=config.max_length,
        )
        self.embedding = mmgraph.nn.NodeEmbedding(
            self.schema,
            {"item": num_items, **{modality: of.source() for modality, of in nodes.items()}},
            config.channels,
            config.max_length,
            use_type=config.use_type,
            use_position=config.use_position,
        )
        if config.shared_layers:
            layers = [make_layer(config, self.schema)] * config.layers
        else:
            layers = [make_layer(config, self.schema) for _ in range(config.layers)]
        self.encoder = mmgraph.nn.GraphEncoder(
            layers,
            dropout=config.dropout,
            residual=config.residual,
            norm=nn.LayerNorm(config.channels) if config.norm else None,
        )
        self.readout = make_readout(config)

    def prepare(self, instances: Instances) -> mmgraph.SequenceGraph:
        absent = self.missing.absent(instances)
        present = {modality: ~rows for modality, rows in absent.items() if modality in self.nodes}
        return self.builder(instances.histories(), present=present)

    def encode(self, inputs: mmgraph.SequenceGraph) -> Tensor:
        return self.readout(self.encoder(self.first_states(inputs), inputs), inputs)

    def item_vectors(self) -> Tensor:
        vectors = self.embedding.table("item")
        return vectors if self.features is None else self.features.join(vectors)

    def first_states(self, graph: mmgraph.SequenceGraph) -> Tensor:
        r"""What the encoder starts from, ``[N, channels]``.

        .. math:: x_i = h_i^0 + \sum_{m \text{ matched with } i} W_m\, z_m(i)

        with :math:`h_i^0` of :class:`mmgraph.nn.NodeEmbedding`; the sum is added to item nodes,
        where features are tied. A modality that an item lost at all of its steps has no node there.
        """
        x: Tensor = self.embedding(graph)
        if not self.tied:
            return x
        assert self.features is not None
        end = int(graph.type_ptr[1])  # items are the first type
        neighbour, centre = graph.edge_index
        matched = torch.zeros(
            graph.num_nodes, self.schema.num_types, dtype=torch.bool, device=x.device
        )
        matched[centre, graph.node_type[neighbour]] = True
        number = self.schema.modalities.index
        absent = {m: ~matched[:end, number(m)] for m in self.features.modalities}
        return torch.cat([x[:end] + self.features(graph.node_id[:end], absent), x[end:]])

    def recipe(self) -> dict[str, Any]:
        """Plain values and tensors that :meth:`from_recipe` makes the same composition from."""
        return {
            "num_items": self.num_items,
            "config": asdict(self.config),
            "nodes": {
                modality: {"codes": of.codes, "size": of.size, "features": of.features}
                for modality, of in self.nodes.items()
            },
            "features": None if self.features is None else self.features.rows(),
            "id_dropout": 0.0 if self.features is None else self.features.id_dropout,
            "successors": None if self.successors is None else self.successors.recipe(),
            "tied": self.tied,
            "similarity": None if self.similarity is None else self.similarity.recipe(),
        }

    @classmethod
    def from_recipe(cls, recipe: dict[str, Any]) -> MMSR:
        """The composition of a recipe, with fresh weights."""
        nodes = {modality: ModalityNodes(**of) for modality, of in recipe["nodes"].items()}
        config = ModelConfig(**recipe["config"])
        features, successors = recipe["features"], recipe["successors"]
        model = cls(
            recipe["num_items"],
            nodes,
            config,
            None
            if features is None
            else ItemFeatures(features, config.channels, recipe["id_dropout"]),
            None if successors is None else SuccessorScore.from_recipe(successors),
            recipe.get("tied", False),
        )
        if (similarity := recipe.get("similarity")) is not None:
            model.similarity = SimilarityScore.from_recipe(similarity)
        return model


def make_layer(config: ModelConfig, schema: mmgraph.GraphSchema) -> nn.Module:
    """One layer of the encoder."""
    if config.update == "released":
        return ReleasedUpdate(
            config.channels, schema, config.heads, dropout=config.attention_dropout
        )
    if config.update in PROPAGATION:
        return make_propagation(
            config.update, config.channels, schema, config.heads, config.attention_dropout
        )
    if config.update == "synchronous":
        return SynchronousUpdate.from_channels(
            config.channels, schema, config.heads, dropout=config.attention_dropout
        )
    return AsynchronousUpdate.from_channels(
        config.channels,
        schema,
        config.heads,
        order=config.order,
        invasive=config.invasive,
        dropout=config.attention_dropout,
    )


def make_readout(config: ModelConfig) -> nn.Module:
    """The readout by its name."""
    arguments = {
        "recent": {"n": config.recent},
        "soft_attention": {"channels": config.channels},
    }
    return mmgraph.nn.resolve_readout(config.readout, **arguments.get(config.readout, {}))
