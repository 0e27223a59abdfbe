"""The tables: which compositions stand in them, what is tried for each, the paper's figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from examples.mmsr.items import ScoreConfig
from examples.mmsr.missing import MissingConfig
from examples.mmsr.model import ModelConfig, NodesConfig
from examples.mmsr.sequential import SequentialConfig
from examples.mmsr.zoo import Composition

LAGS = (1, 2, 3, -1)
MMSR = Composition()
BEST = Composition(
    nodes=NodesConfig(kind="features"),
    model=ModelConfig(readout="soft_attention"),
    score=ScoreConfig(features=True, id_dropout=0.3, lags=LAGS, tied=True, similar=4),
    attributes=True,
)


@dataclass(frozen=True)
class Setting:
    """What trials choose by the best MRR on validation."""

    learning_rate: float
    dropout: float


TRIALS = (Setting(0.001, 0.4), Setting(0.001, 0.2), Setting(0.0005, 0.4), Setting(0.002, 0.4))
"""Tried for each row on one data set, and carried over to the others."""

TRIALS_HERE = (TRIALS[0], TRIALS[2])
"""Tried on each other data set for the rows of :data:`TRIED_ANEW`."""

DROPOUTS = {
    "toys": (Setting(0.0005, 0.2), Setting(0.0005, 0.6)),
    "beauty": (Setting(0.0005, 0.6),),
    "sports": (Setting(0.0005, 0.6),),
}
"""Tried beside them for the two headline rows, by data folder."""

TRIED_ANEW: dict[str, dict[str, tuple[Setting, ...]]] = {
    "MMSR, improved": DROPOUTS,
    "MMSR, improved, without similarity": {},
    "SASRec, early fusion, improved": DROPOUTS,
    "SASRec, early fusion, improved, without similarity": {},
}
"""Rows whose settings are tried on the data set itself, whatever the table, and what is tried
beside :data:`TRIALS_HERE`, by data folder. The others' are carried over."""

SHARES = (0.3, 0.5, 0.7, 1.0)
MISSING = {
    "image": MissingConfig(("image",)),
    "text": MissingConfig(("text",)),
    "either": MissingConfig(("image", "text"), which="one"),
    "both": MissingConfig(("image", "text"), which="all"),
}
"""What may be missing from a share of the steps."""


@dataclass(frozen=True)
class Entry:
    """A row of a table.

    Args:
        label: what it is called.
        composition: the model, but for what the trials choose; None for one that only counts, or
            that is not built.
        paper: the paper's figures by data set, as many of HR@5, MRR@5, HR@20, MRR@20 as it prints.
        counts: the name of a recommender that only counts.
        built: whether there is such a model in this example.
        dropped: what is dropped from the test histories of the trained model.
        alike: the label of the row whose trials decide; its own by default.
    """

    label: str
    composition: Composition | None = None
    paper: dict[str, tuple[float, ...]] = field(default_factory=dict)
    counts: str | None = None
    built: bool = True
    dropped: tuple[MissingConfig, ...] = ()
    alike: str | None = None


def _mmsr(**changes: Any) -> Composition:
    return replace(MMSR, model=replace(MMSR.model, **changes))


def _no_similarity(composition: Composition) -> Composition:
    return replace(composition, score=replace(composition.score, similar=0))


def _other(kind: Any, **changes: Any) -> Composition:
    return Composition(kind=kind, sequential=SequentialConfig(**changes))


def recommenders() -> list[Entry]:
    """The paper's main table, and the compositions that go past it."""
    paper = PAPER["recommenders"]
    rows = [
        Entry("popularity", counts="popularity"),
        Entry("Markov", counts="Markov"),
        Entry("GRU4Rec", _other("gru4rec")),
        Entry("SASRec", _other("sasrec", layers=2)),
        Entry("SR-GNN", _other("srgnn")),
        Entry("GRU4Rec, late fusion", _other("gru4rec_late")),
        Entry("SASRec, early fusion", _other("sasrec_early", layers=2)),
        Entry("DIF-SR", _other("dif_sr", layers=2)),
        Entry("MMSR", MMSR),
        Entry("MMSR, improved", BEST),
        Entry("MMSR, improved, without similarity", _no_similarity(BEST)),
        Entry("SASRec, early fusion, improved", BETTER_SASREC),
        Entry("SASRec, early fusion, improved, without similarity", _no_similarity(BETTER_SASREC)),
        Entry("successors and similarity alone", EVIDENCE),
        *(Entry(n, built=False) for n in ("MMGCN", "MGAT", "BM3", "NOVA", "Trans2D", "HGNN")),
        Entry("the paper's best other, by metric"),
    ]
    return [replace(row, paper=paper.get(row.label, {})) for row in rows]


def propagation() -> list[Entry]:
    """Other graph layers in place of MMSR's."""
    layers = {
        "GCN": "gcn",
        "GraphSAGE": "graphsage",
        "GAT": "gat",
        "Graphormer": "graphormer",
        "RGAT": "rgat",
        "GGNN": "ggnn",
        "HGAT": "hgat",
    }
    paper = PAPER["propagation"]
    rows = [
        Entry(label, _mmsr(update=name), paper.get(label, {})) for label, name in layers.items()
    ]
    named = Entry("HGNN", None, paper["HGNN"], built=False)
    return [*rows, named, Entry("MMSR", MMSR, paper["MMSR"])]


def updates() -> list[Entry]:
    """How the two attentions are joined."""
    settings: dict[str, dict[str, Any]] = {
        "synchronous": {"update": "synchronous"},
        "hohe, non-invasive": {"order": "homogeneous-first"},
        "heho, non-invasive": {"order": "heterogeneous-first"},
        "hohe, invasive": {"order": "homogeneous-first", "invasive": True},
        "heho, invasive": {"order": "heterogeneous-first", "invasive": True},
        "homogeneous only": {"update": "homogeneous"},
        "heterogeneous only": {"update": "heterogeneous"},
        "as released": {"update": "released"},
    }
    paper = PAPER["updates"]
    rows = [
        Entry(label, _mmsr(**changes), paper.get(label, {}), alike="MMSR")
        for label, changes in settings.items()
    ]
    return [*rows, Entry("MMSR", MMSR, paper["MMSR"])]


def parts() -> list[Entry]:
    """What the nodes know, the codes, and the readouts."""
    paper = PAPER["updates"]
    rows = {
        "without position": _mmsr(use_position=False),
        "without type": _mmsr(use_type=False),
        "without codes": replace(MMSR, nodes=NodesConfig(kind="features")),
        "without modalities": replace(MMSR, modalities=False),
        "K = 10, k = 1": replace(MMSR, nodes=NodesConfig(num_codes=10)),
        "K = 30, k = 3": replace(MMSR, nodes=NodesConfig(num_codes=30, k=3)),
        "two layers": _mmsr(layers=2),
        "two heads": _mmsr(heads=2),
        "residual and norm": _mmsr(residual=True, norm=True),
        **{
            f"readout: {name}": _mmsr(readout=name)
            for name in ("mean", "max", "recent", "soft_attention")
        },
        "MMSR": MMSR,
    }
    improved = {
        f"MMSR, improved, readout: {name}": replace(BEST, model=replace(BEST.model, readout=name))
        for name in ("mean", "recent")
    }
    improved["MMSR, improved"] = BEST
    return [
        Entry(label, composition, paper.get(label, {}), alike=base)
        for base, of in (("MMSR", rows), ("MMSR, improved", improved))
        for label, composition in of.items()
    ]


def additions() -> list[Entry]:
    """Each addition alone, to MMSR and to another."""
    early = _other("sasrec_early", layers=2)
    scores = {
        "features": ScoreConfig(features=True),
        "tied features": ScoreConfig(features=True, tied=True),
        "features, embeddings left out": ScoreConfig(
            features=True, id_dropout=BEST.score.id_dropout
        ),
        "successors": ScoreConfig(lags=(1,)),
        "successors, four lags": ScoreConfig(lags=LAGS),
        "features, successors, four lags": ScoreConfig(features=True, lags=LAGS),
        "similarity": ScoreConfig(similar=BEST.score.similar),
    }
    rows = {
        "MMSR": MMSR,
        "MMSR + vectors as nodes": replace(MMSR, nodes=BEST.nodes),
        "MMSR + soft attention": replace(MMSR, model=BEST.model),
    }
    rows |= {f"MMSR + {label}": replace(MMSR, score=score) for label, score in scores.items()}
    rows |= {"MMSR, improved": BEST, "SASRec, early fusion": early}
    rows |= {
        f"SASRec, early fusion + {label}": replace(early, score=score)
        for label, score in scores.items()
    }
    rows |= {"SASRec, early fusion, improved": BETTER_SASREC}
    for label in [label for label in rows if label.endswith(", improved")]:
        rows[f"{label}, without attributes"] = replace(rows[label], attributes=False)
    rows["MMSR, improved, without modalities in histories"] = replace(
        BEST, modalities=False, score=replace(BEST.score, tied=False, similar=0)
    )
    return [
        Entry(label, composition, alike=label.split(" + ")[0].split(", without")[0])
        for label, composition in rows.items()
    ]


def missing() -> list[Entry]:
    """Modalities missing from histories, at test alone and at training too."""
    drops = {
        f"{name} missing from {share:.0%}": replace(case, share=share)
        for name, case in MISSING.items()
        for share in SHARES
    }
    rows = []
    for label, composition in (
        ("MMSR, improved", BEST),
        ("SASRec, early fusion", _other("sasrec_early", layers=2)),
    ):
        rows.append(Entry(label, composition, dropped=tuple(drops.values()), alike=label))
        rows += [
            Entry(
                f"{label}, {name} in training too", replace(composition, missing=case), alike=label
            )
            for name, case in drops.items()
        ]
    return [*rows, Entry("MMSR, improved, on ids and counts alone", IDS)]


BETTER_SASREC = replace(
    _other("sasrec_early", layers=2), score=BEST.score, attributes=BEST.attributes
)
"""The strongest other recommender with all that is added to MMSR."""

IDS = replace(BEST, modalities=False, score=ScoreConfig(lags=LAGS))
"""The improved composition without anything of the modalities."""

EVIDENCE = Composition(
    kind="evidence",
    score=ScoreConfig(lags=LAGS, similar=BEST.score.similar),
    attributes=True,
)
"""Successors and similarity of the improved composition, without a network."""


def smallest() -> list[Entry]:
    """Two rows, for a look at how it works."""
    return [Entry("Markov", counts="Markov"), Entry("MMSR", _mmsr(channels=16))]


TABLES: dict[str, Callable[[], list[Entry]]] = {
    "recommenders": recommenders,
    "propagation": propagation,
    "updates": updates,
    "parts": parts,
    "additions": additions,
    "missing": missing,
    "smallest": smallest,
}


# The paper's figures (arXiv 2308.15980): HR@5, MRR@5, HR@20, MRR@20, or the first two.
PAPER: dict[str, dict[str, dict[str, tuple[float, ...]]]] = {
    "recommenders": {
        "MMSR": {
            "toys": (6.1159, 3.8987, 12.1192, 4.3551),
            "beauty": (7.1563, 4.4429, 14.1470, 5.0433),
            "sports": (3.2657, 1.9846, 7.7466, 2.2826),
        },
        "GRU4Rec": {"toys": (3.8663, 2.0022, 10.0727, 2.7267)},
        "SASRec": {"toys": (5.0902, 2.7536, 11.8668, 3.4228)},
        "SR-GNN": {"toys": (2.7329, 1.4878, 6.7452, 1.8655)},
        "SASRec, early fusion": {"toys": (5.2328, 3.0801, 11.7485, 3.6812)},
        "GRU4Rec, late fusion": {"toys": (2.1974, 1.1576, 6.0638, 1.5230)},
        "the paper's best other, by metric": {
            "toys": (5.2363, 3.1944, 12.0284, 3.8777),
            "beauty": (6.5789, 4.0735, 14.0681, 4.7983),
            "sports": (3.1063, 1.6997, 7.3683, 2.1427),
        },
    },
    "propagation": {
        "GCN": {"beauty": (5.6348, 3.163), "sports": (2.3177, 1.1424)},
        "GraphSAGE": {"beauty": (5.5773, 3.1283), "sports": (2.2496, 1.3473)},
        "GAT": {"beauty": (5.7116, 3.1941), "sports": (2.3452, 1.3825)},
        "Graphormer": {"beauty": (5.9267, 3.3029), "sports": (2.3069, 1.3756)},
        "RGAT": {"beauty": (6.8157, 3.9783), "sports": (2.8609, 1.7133)},
        "HGNN": {"beauty": (6.9701, 4.1276), "sports": (2.9682, 1.7776)},
        "HGAT": {"beauty": (7.0671, 4.2494), "sports": (3.0458, 1.8501)},
        "MMSR": {"beauty": (7.1386, 4.6244), "sports": (3.3255, 1.9916)},
    },
    "updates": {
        "MMSR": {"beauty": (7.1386, 4.6244), "sports": (3.3255, 1.9916)},
        "synchronous": {"beauty": (6.8912, 4.4515), "sports": (3.0924, 1.7849)},
        "hohe, non-invasive": {"beauty": (6.8900, 4.4616), "sports": (3.0616, 1.8792)},
        "heho, non-invasive": {"beauty": (6.8897, 4.5528), "sports": (3.0087, 1.7051)},
        "hohe, invasive": {"beauty": (6.8971, 4.4245), "sports": (3.0565, 1.8793)},
        "heho, invasive": {"beauty": (6.5406, 4.3117), "sports": (2.8871, 1.6654)},
        "homogeneous only": {"beauty": (6.6702, 4.1004), "sports": (3.0306, 1.7412)},
        "heterogeneous only": {"beauty": (6.9354, 4.446), "sports": (3.0047, 1.8648)},
        "without position": {"beauty": (6.9664, 4.5653), "sports": (3.1547, 1.8968)},
        "without type": {"beauty": (6.9390, 4.5074), "sports": (3.2112, 1.9854)},
        "without codes": {"beauty": (7.4263, 4.7469)},
    },
}
