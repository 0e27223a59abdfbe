"""Who is trained on what, and tested on what: the protocol of the paper, with validation.

Per user the last ``int(0.2 n)`` steps are test, the rest train. Every prefix of the train part is
an instance, and every test step is one whose history is all that came before it. The paper names
no validation set. Ours is the last training step of every second user, drawn by seed, or of every
user of a data set with fewer than 10,000; while the number of steps is chosen, it is a target of no
training instance and, being the last, in no training history either. The refit trains on it too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from examples.mmsr.data import Dataset

SMALL = 10_000
"""Data sets with fewer users than this validate on every user."""


@dataclass(frozen=True)
class Instances:
    """Histories and the items that followed them, as positions in one array of interactions.

    Instance ``i`` has the history ``items[start[i]:target[i]]`` and the target
    ``items[target[i]]``; no history is copied before a batch asks for it.

    Args:
        items: ``[interactions]``, the data set's.
        user: ``[instances]``, whose it is.
        start: ``[instances]``, where its history begins.
        target: ``[instances]``, where its target stands.
    """

    items: np.ndarray
    user: np.ndarray
    start: np.ndarray
    target: np.ndarray

    def __len__(self) -> int:
        return len(self.target)

    def __getitem__(self, rows: np.ndarray | slice) -> Instances:
        """The instances of these rows."""
        return Instances(self.items, self.user[rows], self.start[rows], self.target[rows])

    @property
    def targets(self) -> np.ndarray:
        """The items to be predicted, ``[instances]``."""
        return self.items[self.target]

    @property
    def last_items(self) -> np.ndarray:
        """The item before each target, ``[instances]``."""
        return self.items[self.target - 1]

    def steps(self) -> tuple[np.ndarray, np.ndarray]:
        """Where each history's steps stand: ``(positions in items, offsets [instances + 1])``."""
        offsets = np.zeros(len(self) + 1, dtype=np.int64)
        np.cumsum(self.target - self.start, out=offsets[1:])
        return np.arange(offsets[-1]) + np.repeat(
            self.start - offsets[:-1], np.diff(offsets)
        ), offsets

    def histories(self) -> tuple[np.ndarray, np.ndarray]:
        """All histories, one after another: ``(values, offsets [instances + 1])``."""
        positions, offsets = self.steps()
        return self.items[positions], offsets


@dataclass(frozen=True, eq=False)
class Parts:
    """The first steps of every user's history, as positions in one array of interactions.

    Args:
        items: ``[interactions]``, the data set's.
        begin, end: ``[users]``; user ``u`` has ``items[begin[u]:end[u]]``.
    """

    items: np.ndarray
    begin: np.ndarray
    end: np.ndarray

    def values(self) -> np.ndarray:
        """The items of all the parts."""
        inside = np.zeros(len(self.items) + 1, dtype=np.int64)
        np.add.at(inside, self.begin, 1)
        np.add.at(inside, self.end, -1)
        return self.items[np.cumsum(inside)[:-1] > 0]

    def prefixes(self) -> Instances:
        """Every prefix of every part with the item that follows it."""
        return _instances(self.items, self.begin, self.begin + 1, self.end)


@dataclass(frozen=True)
class Split:
    """What the protocol makes of a data set.

    Args:
        fit: the train parts without the validation steps; what choices are made on is fitted on
            these.
        validation: instances that choices are made on.
        train: the train parts, validation steps included: what the reported model is fitted on.
        test: instances that the reported model is judged by.
    """

    fit: Parts
    validation: Instances
    train: Parts
    test: Instances

    def check(self) -> None:
        """Make sure that there is something to fit, to choose by, and to judge by.

        Raises:
            ValueError: a part is empty.
        """
        for name, instances, least in (
            ("step to train on", self.fit.prefixes(), 3),
            ("validation step", self.validation, 2),
            ("test step", self.test, 5),
        ):
            if not len(instances):
                raise ValueError(
                    f"histories: expected some that are long enough, got none with a {name}, "
                    f"which takes at least {least} steps"
                )


def split(data: Dataset, seed: int = 0) -> Split:
    """Split a data set as the protocol asks.

    Args:
        data: the histories.
        seed: draws the users whose last training step is validation.
    """
    begin, end = data.offsets[:-1], data.offsets[1:]
    train_end = end - (0.2 * (end - begin)).astype(np.int64)
    users = np.random.default_rng(seed).permutation(data.num_users)
    if data.num_users >= SMALL:
        users = users[::2]
    held_out = np.zeros(data.num_users, dtype=bool)
    held_out[users] = True
    held_out &= train_end - begin >= 2  # a lone step has no history to be predicted from
    fit_end = train_end - held_out
    return Split(
        fit=Parts(data.items, begin, fit_end),
        validation=_instances(data.items, begin, fit_end, np.where(held_out, train_end, fit_end)),
        train=Parts(data.items, begin, train_end),
        test=_instances(data.items, begin, np.maximum(train_end, begin + 1), end),
    )


def _instances(
    items: np.ndarray, start: np.ndarray, first: np.ndarray, end: np.ndarray
) -> Instances:
    """One instance for every target position in ``first[u] .. end[u] - 1``."""
    counts = np.maximum(end - first, 0)
    user = np.repeat(np.arange(len(start)), counts)
    before = np.cumsum(counts) - counts
    target = np.arange(len(user)) + np.repeat(first - before, counts)
    return Instances(items, user, start[user], target)
