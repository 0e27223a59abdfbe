"""The dial experiment: what a trained gate does as the planted structure moves.

README.md says what was expected, written before any run, and what came out.
"""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Any

from tqdm import tqdm

from examples.mmsr import gate
from examples.mmsr.baselines import judge_baselines
from examples.mmsr.demo import MODEL, NODES, TRAINING
from examples.mmsr.generate import GenerateConfig, generate
from examples.mmsr.model import MMSR, make_nodes
from examples.mmsr.protocol import split
from examples.mmsr.train import fit, write_json


def dial(
    out: str = "runs/dial",
    dials: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
    layers: Sequence[int] = (1, 2),
    invasive: Sequence[bool] = (False, True),
    seeds: Sequence[int] = (0, 1, 2),
) -> None:
    """Train MMSR on generated histories as their planted structure moves, and tell its gates.

    All combinations, going on where an earlier call stopped; a table at the end.

    Args:
        out: where every run's record is kept.
        dials: shares of steps that follow the match between modalities.
        layers: numbers of layers.
        invasive: whether the second pass aggregates the first's result.
        seeds: each draws its own data and weights.
    """
    # Seeds are the outer loop, so that an unfinished experiment has whole rows of fewer seeds.
    settings = list(itertools.product(seeds, layers, invasive, dials))
    records = [run(Path(out), *setting) for setting in tqdm(settings, desc="dial", unit="run")]
    print(report(records))


def run(out: Path, seed: int, layers: int, invasive: bool, dial: float) -> dict[str, Any]:
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
    model, _ = fit(lambda _: MMSR(data.num_items, nodes, config), parts, training, folder)
    found = {
        "layers": layers,
        "invasive": invasive,
        "dial": dial,
        "seed": seed,
        "gate": gate.read(model, parts.test),
        "test": gate.forced(model, parts.test),
        "baselines": judge_baselines(parts.train, data.num_items, parts.test),
    }
    write_json(done, found)
    return found


def report(records: Iterable[dict[str, Any]]) -> str:
    """A markdown table: a row per setting and dial, means over seeds, the gate of each seed."""
    columns = [
        "layers",
        "invasive",
        "dial",
        "weight of homogeneous first, each seed",
        "mean",
        "HR@20, gate as trained",
        "only homogeneous first",
        "only heterogeneous first",
        "Markov",
        "self, homogeneous first",
        "self, heterogeneous first",
    ]
    lines = [f"| {' | '.join(columns)} |", "|---:|---|---:|---|" + "---:|" * 7]
    settings = ("layers", "invasive", "dial")
    ordered = sorted(records, key=itemgetter(*settings))
    for (layers, invasive, share), group in itertools.groupby(ordered, key=itemgetter(*settings)):
        runs = list(group)
        gates = [run["gate"]["mean"] for run in runs]
        means = [
            f"{statistics.mean(values):.{digits}f}"
            for digits, values in (
                (2, gates),
                *(
                    (1, [run["test"][order]["HR@20"] for run in runs])
                    for order in ("gate", "homogeneous-first", "heterogeneous-first")
                ),
                (1, [run["baselines"]["Markov"]["HR@20"] for run in runs]),
                *(
                    (2, [run["gate"][f"self, {order}"] for run in runs])
                    for order in ("homogeneous-first", "heterogeneous-first")
                ),
            )
        ]
        each = ", ".join(f"{value:.2f}" for value in gates)
        kind = "yes" if invasive else "no"
        lines.append(f"| {layers} | {kind} | {share:g} | {each} | {' | '.join(means)} |")
    return "\n".join(lines)
