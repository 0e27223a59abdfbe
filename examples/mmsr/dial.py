"""The dial experiment: what a trained gate does as the planted structure moves.

README.md says what was expected, written before any run, and what came out.
"""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from examples.mmsr.baselines import judge_baselines
from examples.mmsr.demo import MODEL, NODES, TRAINING, gate_weights
from examples.mmsr.generate import GenerateConfig, generate
from examples.mmsr.model import MMSR, make_nodes
from examples.mmsr.protocol import Instances, split
from examples.mmsr.train import fit, write_json
from mmgraph import reached_nodes


def dial(
    out: str = "runs/dial",
    dials: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
    layers: Sequence[int] = (1, 2),
    invasive: Sequence[bool] = (False, True),
    seeds: Sequence[int] = (0, 1, 2),
) -> None:
    """Train over all combinations, going on where an earlier call stopped, and print a table.

    Args:
        out: where every run's record is kept.
        dials: shares of steps that follow the match between modalities.
        layers: numbers of layers.
        invasive: whether the second pass aggregates the first's result.
        seeds: each draws its own data and weights.
    """
    settings = list(itertools.product(layers, invasive, dials, seeds))
    records = [run(Path(out), *setting) for setting in tqdm(settings, desc="dial", unit="run")]
    print(report(records))


def run(out: Path, layers: int, invasive: bool, dial: float, seed: int) -> dict[str, Any]:
    """One setting's record: the gate where it reaches the loss, and metrics on the test steps."""
    folder = out / f"layers{layers}-{'invasive' if invasive else 'plain'}-dial{dial:g}-seed{seed}"
    done = folder / "gate.json"
    if done.exists():
        known: dict[str, Any] = json.loads(done.read_text(encoding="utf-8"))
        return known
    data = generate(GenerateConfig(dial=dial, seed=seed)).data
    parts = split(data)
    config = replace(MODEL, layers=layers, invasive=invasive)
    nodes = make_nodes(data, NODES, config.channels)
    training = replace(TRAINING, seed=seed, progress=False)
    model, record = fit(lambda: MMSR(data.num_items, nodes, config), parts, training, folder)
    found = {
        "layers": layers,
        "invasive": invasive,
        "dial": dial,
        "seed": seed,
        "gate": read_gates(model, parts.test),
        "test": record["test"],
        "baselines": judge_baselines(parts.train, data.num_items, parts.test),
    }
    write_json(done, found)
    return found


def read_gates(model: MMSR, instances: Instances) -> list[dict[str, float]]:
    """Each layer's weight on homogeneous first, over the nodes whose gate reaches the readout.

    Args:
        model: with a gate in every layer, behind the ``last`` readout.
        instances: whose graphs to read.

    Returns:
        Per layer, first to last: the ``mean`` and standard deviation (``spread``) over nodes.
    """
    graph, gates = gate_weights(model, instances)
    read = []
    for weights, reached in zip(gates, reached_nodes(graph, len(gates)), strict=True):
        first = weights[reached, 0]
        read.append({"mean": float(first.mean()), "spread": float(first.std(correction=0))})
    return read


def report(records: Iterable[dict[str, Any]]) -> str:
    """A markdown table: a row per setting and dial, seeds side by side."""
    lines = [
        "| layers | invasive | dial | homogeneous first, last layer: each seed | mean | "
        "HR@20 MMSR | Markov | popularity |",
        "|---:|---|---:|---|---:|---:|---:|---:|",
    ]

    def setting(record: dict[str, Any]) -> tuple[int, bool, float]:
        return record["layers"], record["invasive"], record["dial"]

    for (layers, invasive, dial_), group in itertools.groupby(
        sorted(records, key=setting), key=setting
    ):
        runs = list(group)
        gates = [record["gate"][-1]["mean"] for record in runs]
        hits = [
            statistics.mean(hr)
            for hr in (
                [record["test"]["HR@20"] for record in runs],
                [record["baselines"]["Markov"]["HR@20"] for record in runs],
                [record["baselines"]["popularity"]["HR@20"] for record in runs],
            )
        ]
        lines.append(
            f"| {layers} | {'yes' if invasive else 'no'} | {dial_:g} | "
            f"{', '.join(f'{gate:.2f}' for gate in gates)} | {statistics.mean(gates):.2f} | "
            + " | ".join(f"{hit:.1f}" for hit in hits)
            + " |"
        )
    return "\n".join(lines)
