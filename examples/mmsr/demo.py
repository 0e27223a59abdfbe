"""A recommender from nothing, in about a minute: generate, train, judge, recommend, draw."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict
from pathlib import Path

from examples.mmsr import checkpoint, gate
from examples.mmsr.baselines import judge_baselines
from examples.mmsr.describe import describe
from examples.mmsr.generate import GenerateConfig, generate
from examples.mmsr.metrics import table
from examples.mmsr.model import MMSR, ModelConfig, NodesConfig, make_nodes
from examples.mmsr.protocol import split
from examples.mmsr.recommend import listing, recommend
from examples.mmsr.train import PHASES, RunError, TrainingConfig, claim, fit

GENERATED = GenerateConfig()
NODES = NodesConfig(num_codes=GENERATED.codes)
MODEL = ModelConfig(channels=64, dropout=0.2, attention_dropout=0.0)
# One thread: its matrices are small, and two that wait for each other on a busy machine took four
# times as long.
TRAINING = TrainingConfig(learning_rate=0.003, epochs=12, patience=3, min_steps=0, threads=1)


def demo(
    out: str = "runs/demo",
    generated: GenerateConfig = GENERATED,
    training: TrainingConfig = TRAINING,
) -> None:
    """Train MMSR on generated histories, judge it, recommend for one history, draw its gates.

    Args:
        out: the run's folder; what an earlier demo left there is replaced.
        generated: what to generate.
        training: how the model is fitted.

    Raises:
        RunError: another command's run is in the folder, or one that nothing tells of.
    """
    began = time.perf_counter()
    folder = Path(out)
    settings = {"generated": asdict(generated), "training": asdict(training.figures())}
    file = folder / "settings.json"
    if file.exists():
        if json.loads(file.read_text(encoding="utf-8")).keys() != settings.keys():
            raise RunError(f"{out} holds a run that is no demo's; name another folder")
        for phase in PHASES:
            shutil.rmtree(folder / phase, ignore_errors=True)
        file.unlink()
    claim(folder, settings, resume=False)

    data = generate(generated).data
    parts = split(data)
    print(describe(data, parts), flush=True)
    nodes = make_nodes(data, NODES, MODEL.channels)
    model, record = fit(
        lambda _: MMSR(data.num_items, nodes, MODEL),
        parts,
        training,
        folder,
        lambda fresh: checkpoint.contents(fresh, data),
    )
    saved = folder / "model.pt"
    checkpoint.save(saved, model, data)
    rows = judge_baselines(parts.train, data.num_items, parts.test)
    rows["MMSR"] = record["test"]
    print(f"\n{table(rows)}\n(percent of the test steps)\n")

    loaded, names = checkpoint.load(saved)
    history = parts.test[:1].histories()[0].tolist()
    print("after")
    print("\n".join(f"             {item}  {data.name_of(item)}" for item in history))
    print(f"the model recommends (and {data.name_of(parts.test.targets[0])} came next):")
    print(listing(recommend(loaded, history, top=5), names))

    picture = folder / "fusion_order.png"
    gate.draw(loaded, parts.test[:512], picture)
    print(f"\nmodel: {saved}\npicture: {picture}\n{time.perf_counter() - began:.0f} s in all")
