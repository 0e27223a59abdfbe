"""The vocabulary of a sequence graph: its modalities and relations, as integers with names."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations

SEQUENCE_RELATIONS = ("self", "next", "previous", "both")
"""Relations inside one modality, in id order: how the neighbour stands to the centre."""


class GraphSchema:
    r"""The modalities (node types) of a graph and the relations between its nodes.

    Relation ids are, in order, ``self``, ``next``, ``previous``, ``both``; then for each pair of
    modalities, ``a`` before ``b``, the two cross-modal relations ``a>b`` and ``b>a``
    (``centre>neighbour``), pairs in lexicographic order of position; then the relations a user
    appends. With ``T`` modalities that makes :math:`4 + T (T - 1)` built-in relations.

    A schema is immutable, hashable and compares by value.

    Args:
        modalities: names of the node types; the first is the one that every step has, its item.
        relations: names of further relations, which a user's own edges carry through
            :meth:`SequenceGraph.from_edges`.

    Raises:
        TypeError: if a name is not a string, or one string is given in place of a sequence.
        ValueError: if there is no modality, a name is empty, repeated, or contains ``>``.

    Example:
        >>> schema = GraphSchema(("item", "image", "text"))
        >>> schema.relations[4:]
        ('item>image', 'image>item', 'item>text', 'text>item', 'image>text', 'text>image')
        >>> schema.relation_id("both")
        3
    """

    __slots__ = ("_modalities", "_relations")

    def __init__(self, modalities: Iterable[str], relations: Iterable[str] = ()) -> None:
        types = _names("modalities", modalities)
        if not types:
            raise ValueError("modalities: expected at least one name, got none")
        pairs = tuple(name for a, b in combinations(types, 2) for name in (f"{a}>{b}", f"{b}>{a}"))
        own = _names("relations", relations)
        for position, name in enumerate(own):
            if name in SEQUENCE_RELATIONS:
                raise ValueError(
                    f"relations[{position}]: {name!r} is a built-in relation; "
                    "expected a name of your own"
                )
        self._modalities = types
        self._relations = SEQUENCE_RELATIONS + pairs + own

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the node types, in id order."""
        return self._modalities

    @property
    def relations(self) -> tuple[str, ...]:
        """Names of all relations, in id order."""
        return self._relations

    @property
    def num_types(self) -> int:
        """Number of modalities."""
        return len(self._modalities)

    @property
    def num_relations(self) -> int:
        """Number of relations, appended ones included."""
        return len(self._relations)

    @property
    def appended_relations(self) -> tuple[str, ...]:
        """The relations that the user brought, in id order."""
        return self._relations[self._first_appended :]

    @property
    def homogeneous_relations(self) -> tuple[int, ...]:
        """Ids of the relations that edges inside one modality may carry.

        They are ``self``, ``next``, ``previous``, ``both`` and the appended ones: the rows, in
        this order, of an attention's ``relation`` parameter.
        """
        first = self._first_appended
        return (*range(len(SEQUENCE_RELATIONS)), *range(first, self.num_relations))

    def type_id(self, modality: str) -> int:
        """Id of a modality.

        Raises:
            ValueError: if there is no such modality.
        """
        if modality not in self._modalities:
            raise ValueError(f"modality: expected one of {self._modalities}, got {modality!r}")
        return self._modalities.index(modality)

    def relation_id(self, relation: str) -> int:
        """Id of a relation.

        Raises:
            ValueError: if there is no such relation.
        """
        if relation not in self._relations:
            raise ValueError(f"relation: expected one of {self._relations}, got {relation!r}")
        return self._relations.index(relation)

    def cross_relation_id(self, centre: int, neighbour: int) -> int:
        """Id of the relation ``centre>neighbour`` between two different node types."""
        a, b = min(centre, neighbour), max(centre, neighbour)
        if not 0 <= a < b < self.num_types:
            raise ValueError(
                f"centre, neighbour: expected two different types below {self.num_types}, "
                f"got {centre} and {neighbour}"
            )
        pair = a * self.num_types - a * (a + 1) // 2 + (b - a - 1)
        return len(SEQUENCE_RELATIONS) + 2 * pair + (centre > neighbour)

    @property
    def _first_appended(self) -> int:
        return len(SEQUENCE_RELATIONS) + self.num_types * (self.num_types - 1)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, GraphSchema):
            return NotImplemented
        return (self._modalities, self._relations) == (other._modalities, other._relations)

    def __hash__(self) -> int:
        return hash((self._modalities, self._relations))

    def __repr__(self) -> str:
        own = self.appended_relations
        return f"GraphSchema({self._modalities}{f', relations={own}' if own else ''})"


def _names(argument: str, names: Iterable[str]) -> tuple[str, ...]:
    if isinstance(names, str):
        raise TypeError(f"{argument}: expected a sequence of names, got the string {names!r}")
    if not isinstance(names, Iterable):
        raise TypeError(f"{argument}: expected a sequence of names, got {type(names).__name__}")
    found: tuple[str, ...] = tuple(names)
    for position, name in enumerate(found):
        if not isinstance(name, str):
            raise TypeError(
                f"{argument}[{position}]: expected a string, got {type(name).__name__} {name!r}"
            )
        if not name or ">" in name:
            raise ValueError(
                f"{argument}[{position}]: expected a non-empty name without '>', got {name!r}"
            )
        if name in found[:position]:
            raise ValueError(f"{argument}[{position}]: {name!r} is named twice")
    return found
