"""What jobs make their models from."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples.mmsr.items import ScoreConfig
from examples.mmsr.jobs import Desk, Job, Source, open_source
from examples.mmsr.protocol import Parts, split
from examples.mmsr.recommender import Recommender
from examples.mmsr.train import TrainingConfig
from examples.mmsr.zoo import Composition, Zoo

QUICK = TrainingConfig(epochs=1, batch_size=512, progress=False)


@pytest.mark.parametrize("trial", [True, False])
def test_models_count_in_the_parts_that_they_are_fitted_on(
    trial: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted, build = [], Zoo.build

    def spy(zoo: Zoo, composition: Composition, given: Parts) -> Recommender:
        counted.append(given.end.tolist())
        return build(zoo, composition, given)

    monkeypatch.setattr(Zoo, "build", spy)
    composition = Composition(kind="evidence", score=ScoreConfig(lags=(1,)))
    Desk(tmp_path / "runs", tmp_path / "results").do(Job(Source(), composition, QUICK, trial))
    parts = split(open_source(Source()))
    expected = [parts.fit] if trial else [parts.fit, parts.train]
    assert counted == [each.end.tolist() for each in expected]
