"""Every recommender by its configuration: the compositions that the tables compare."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from scipy import sparse
from torch import Tensor

from examples.mmsr.data import Dataset, without_attributes
from examples.mmsr.evidence import Evidence
from examples.mmsr.items import ItemFeatures, ScoreConfig, reduced, weighed
from examples.mmsr.missing import MissingConfig
from examples.mmsr.model import MMSR, ModalityNodes, ModelConfig, NodesConfig, make_nodes
from examples.mmsr.protocol import Parts
from examples.mmsr.recommender import Recommender
from examples.mmsr.sequential import DIFSR, GRU4Rec, SASRec, SequentialConfig
from examples.mmsr.similarity import SimilarityScore
from examples.mmsr.srgnn import SRGNN
from examples.mmsr.successors import SuccessorScore, count

Kind = Literal[
    "mmsr", "gru4rec", "gru4rec_late", "sasrec", "sasrec_early", "srgnn", "dif_sr", "evidence"
]

SIDED = ("gru4rec_late", "sasrec_early", "dif_sr")
"""Kinds whose histories features enter by a projection; MMSR's enter as nodes."""


@dataclass(frozen=True)
class Composition:
    """What decides a model, but for its training.

    Args:
        kind: MMSR, or what it is compared with; ``late`` and ``early`` say how features enter, and
            ``evidence`` has no network, only what ``score`` adds.
        nodes: how features become MMSR's nodes.
        model: MMSR's blocks.
        sequential: the other recommenders' sizes.
        score: what enters the scores of any of them.
        missing: what is dropped from histories, in training and in evaluation.
        modalities: whether MMSR has them as nodes; without them its graphs are of ids alone.
        attributes: whether attributes are a modality beside feature matrices, too.
    """

    kind: Kind = "mmsr"
    nodes: NodesConfig = field(default_factory=NodesConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    sequential: SequentialConfig = field(default_factory=SequentialConfig)
    score: ScoreConfig = field(default_factory=ScoreConfig)
    missing: MissingConfig = field(default_factory=MissingConfig)
    modalities: bool = True
    attributes: bool = False


class Zoo:
    """Builds recommenders for a data set; what is made of its features is made once.

    Args:
        data: histories and features.
    """

    def __init__(self, data: Dataset) -> None:
        self.data = data
        self.nodes = functools.cache(self._nodes)
        self.reduced = functools.cache(lambda name, size: reduced(data.only((name,)), size)[name])
        self.weighed = functools.cache(lambda name: weighed(data.features[name]))
        self.count = functools.cache(lambda parts, lags: count(parts, data.num_items, lags))

    def build(self, composition: Composition, counted: Parts) -> Recommender:
        """A recommender with fresh weights from PyTorch's generator.

        Args:
            composition: which.
            counted: the parts whose transitions it may count.

        Raises:
            ValueError: the composition needs modalities and the data set has none, it drops one
                that it does not take, it ties features of a recommender that they do not enter, or
                it is of evidence and has neither lags nor similarity, or features.
        """
        self.check_missing(composition, composition.missing)
        names = self.modalities(composition)
        score = composition.score
        if not names and (composition.kind in SIDED or score.features or score.similar):
            raise ValueError(
                f"composition: expected modalities for {composition.kind!r} with "
                f"{score}, got none in {self.data.name}"
            )
        if composition.kind == "evidence" and (score.features or not (score.lags or score.similar)):
            raise ValueError(
                "composition: expected lags or similar, and no features, for 'evidence', got "
                f"{score}"
            )
        has_nodes = composition.kind == "mmsr" and composition.modalities
        if score.tied and not (has_nodes or composition.kind in SIDED):
            raise ValueError(
                f"composition: expected a model that features enter beside tied, got "
                f"{composition.kind!r} with modalities={composition.modalities}"
            )
        model = self._model(composition, names, counted)
        model.missing = composition.missing
        if score.similar:
            features = {name: self._comparable(name, score.components) for name in names}
            model.similarity = SimilarityScore(features, score.similar)
        return model

    def modalities(self, composition: Composition) -> tuple[str, ...]:
        """Those of the data set's that a composition takes."""
        names = self.data.modalities
        return names if composition.attributes else without_attributes(names)

    def check_missing(self, composition: Composition, missing: MissingConfig) -> None:
        """Make sure that what is to be dropped from a composition's histories is there.

        Raises:
            ValueError: a modality is not.
        """
        names = self.modalities(composition)
        for name in missing.modalities:
            if name not in names:
                raise ValueError(
                    f"missing: expected some of the modalities {list(names)} that are taken of "
                    f"{self.data.name}, got {name!r}"
                )

    def _model(
        self, composition: Composition, names: tuple[str, ...], counted: Parts
    ) -> Recommender:
        kind, score, items = composition.kind, composition.score, self.data.num_items
        channels = composition.sequential.channels
        if kind == "mmsr":
            channels = composition.model.channels

        def rows() -> dict[str, Tensor]:
            return {name: self.reduced(name, score.components) for name in names}

        features = ItemFeatures(rows(), channels, score.id_dropout) if score.features else None
        successors = SuccessorScore(self.count(counted, score.lags)) if score.lags else None
        if kind == "evidence":
            return Evidence(items, successors)
        if kind == "mmsr":
            nodes = self.nodes(composition.nodes, names, channels) if composition.modalities else {}
            return MMSR(items, nodes, composition.model, features, successors, score.tied)
        sizes = composition.sequential
        if kind == "srgnn":
            return SRGNN(items, sizes, features, successors)
        side = None
        if kind in SIDED:
            side = features if score.tied else ItemFeatures(rows(), channels)
        if kind == "dif_sr":
            assert side is not None
            return DIFSR(items, sizes, side, features, successors)
        make = GRU4Rec if kind.startswith("gru4rec") else SASRec
        return make(items, sizes, side, features, successors)

    def _comparable(self, name: str, components: int) -> Tensor | sparse.csr_array:
        if isinstance(self.data.features[name], np.ndarray):
            return self.reduced(name, components)
        return self.weighed(name)

    def _nodes(
        self, config: NodesConfig, names: tuple[str, ...], channels: int
    ) -> dict[str, ModalityNodes]:
        return make_nodes(self.data.only(names), config, channels)
