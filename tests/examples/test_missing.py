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


def test_of_several_modalities_one_or_all() -> None:
    instances = PARTS.train.prefixes()
    names = DATA.modalities[:2]
    one = MissingConfig(names, 0.5, which="one").absent(instances)
    all_ = MissingConfig(names, 0.5, which="all").absent(instances)
    a, b = (one[name] for name in names)
    assert not (a & b).any()
    assert (a | b).mean() == pytest.approx(0.5, abs=0.1)
    assert a.sum() / (a | b).sum() == pytest.approx(0.5, abs=0.1)
    assert (all_[names[0]] == all_[names[1]]).all()
    assert ((a | b) == all_[names[0]]).all()  # the same steps
    assert all_[names[0]].mean() == pytest.approx(0.5, abs=0.1)
    whole = MissingConfig(names, 1.0, which="one").absent(instances)
    assert (whole[names[0]] ^ whole[names[1]]).all()


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


def test_what_the_data_lack_cannot_be_dropped() -> None:
    one = MissingConfig((FIRST, "sound"), 0.5)
    with pytest.raises(ValueError, match=r"missing: expected some .* of .*, got 'sound'"):
        Zoo(DATA).build(Composition(missing=one), PARTS.fit)


def test_the_share_is_a_share() -> None:
    with pytest.raises(ValueError, match=r"share: expected a number between 0 and 1, got 1\.5"):
        MissingConfig(("image",), 1.5)
    with pytest.raises(ValueError, match=r"which: expected one of \('each', .*\), got 'a'"):
        MissingConfig(("image", "text"), 0.5, which="a")  # type: ignore[arg-type]
