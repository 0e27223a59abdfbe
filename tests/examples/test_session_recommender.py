"""The session recommender learns what follows what."""

from __future__ import annotations

from examples.session_recommender import main


def test_it_learns() -> None:
    before, after = main(sessions=200, epochs=3)
    assert before < 10.0
    assert after > 25.0
