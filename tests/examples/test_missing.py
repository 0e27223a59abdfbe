"""What is dropped from histories."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from examples.mmsr.generate import GenerateConfig, generate
from examples.mmsr.missing import MissingConfig
from examples.mmsr.model import ModelConfig, NodesConfig
from examples.mmsr.protocol import split
from examples.mmsr.zoo import Composition, Zoo

DATA = generate(GenerateConfig(dial=1, users=40, items=36, codes=6, width=12)).data
PARTS = split(DATA)
FIRST = DATA.modalities[0]


def test_a_step_looks_the_same_in_every_prefix() -> None:
    config = MissingConfig(DATA.modalities, 0.4)
    instances = PARTS.train.prefixes()
    absent = config.absent(instances)
    positions, _ = instances.steps()
    for modality in DATA.modalities:
        dropped = absent[modality]
        by_position = {}
        for position, gone in zip(positions.tolist(), dropped.tolist(), strict=True):
            assert by_position.setdefault(position, gone) == gone
        assert np.mean(list(by_position.values())) == pytest.approx(0.4, abs=0.1)
    one, other = (absent[modality] for modality in DATA.modalities[:2])
    assert (one != other).any()
    again = replace(config, seed=1).absent(instances)
    assert (again[FIRST] != absent[FIRST]).any()


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_nothing_and_everything(share: float) -> None:
    small = replace(Composition(), nodes=NodesConfig(num_codes=4), model=ModelConfig(channels=8))
    model = Zoo(DATA).build(replace(small, missing=MissingConfig((FIRST,), share)), PARTS.fit)
    graph = model.prepare(PARTS.validation)
    counts = dict(zip(model.schema.modalities, graph.type_ptr.diff().tolist(), strict=True))
    model.missing = MissingConfig()
    whole = model.prepare(PARTS.validation)
    before = dict(zip(model.schema.modalities, whole.type_ptr.diff().tolist(), strict=True))
    assert counts == {**before, **({FIRST: 0} if share else {})}


def test_the_share_is_a_share() -> None:
    with pytest.raises(ValueError, match=r"share: expected a number between 0 and 1, got 1\.5"):
        MissingConfig(("image",), 1.5)
