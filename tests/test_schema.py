"""Names and ids of node types and relations."""

from __future__ import annotations

import pickle

import pytest

from mmgraph import GraphSchema


def test_relations_are_in_the_documented_order() -> None:
    schema = GraphSchema(("item", "image", "text"))
    assert schema.relations == (
        *("self", "next", "previous", "both"),
        *("item>image", "image>item", "item>text", "text>item", "image>text", "text>image"),
    )
    assert schema.num_types == 3
    assert schema.num_relations == 10
    assert schema.homogeneous_relations == (0, 1, 2, 3)


def test_one_modality_has_the_sequence_relations_alone() -> None:
    schema = GraphSchema(["item"])
    assert schema.modalities == ("item",)
    assert schema.relations == ("self", "next", "previous", "both")


def test_appended_relations_come_last() -> None:
    schema = GraphSchema(("item", "image"), relations=("bought-with", "viewed-with"))
    assert schema.relations[4:] == ("item>image", "image>item", "bought-with", "viewed-with")
    assert schema.appended_relations == ("bought-with", "viewed-with")
    assert schema.homogeneous_relations == (0, 1, 2, 3, 6, 7)


def test_ids_lead_back_to_names() -> None:
    schema = GraphSchema(tuple("abcde"), relations=("own",))
    for number, name in enumerate(schema.relations):
        assert schema.relation_id(name) == number
    for t, centre in enumerate(schema.modalities):
        assert schema.type_id(centre) == t
        for u, neighbour in enumerate(schema.modalities):
            if t != u:
                name = schema.relations[schema.cross_relation_id(t, u)]
                assert name == f"{centre}>{neighbour}"


def test_schemas_compare_hash_and_pickle_by_value() -> None:
    schema = GraphSchema(("item", "image"), relations=("own",))
    same = GraphSchema(["item", "image"], relations=["own"])
    assert schema == same
    assert hash(schema) == hash(same)
    assert pickle.loads(pickle.dumps(schema)) == schema
    assert schema != GraphSchema(("item", "image"))
    assert schema != GraphSchema(("image", "item"), relations=("own",))
    assert schema != ("item", "image")


def test_repr_names_everything() -> None:
    assert repr(GraphSchema(("item", "image"))) == "GraphSchema(('item', 'image'))"
    assert repr(GraphSchema(("item",), relations=("own",))) == (
        "GraphSchema(('item',), relations=('own',))"
    )


def test_a_schema_cannot_be_changed() -> None:
    schema = GraphSchema(("item",))
    with pytest.raises(AttributeError):
        schema.modalities = ("other",)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("modalities", "relations", "error", "words"),
    [
        ((), (), ValueError, "modalities: expected at least one name, got none"),
        ("item", (), TypeError, "modalities: expected a sequence of names, got the string 'item'"),
        (("item", 3), (), TypeError, r"modalities\[1\]: expected a string, got int 3"),
        (("item", ""), (), ValueError, r"modalities\[1\]: expected a non-empty name"),
        (("a>b",), (), ValueError, r"modalities\[0\]: .* without '>', got 'a>b'"),
        (("a", "b", "a"), (), ValueError, r"modalities\[2\]: 'a' is named twice"),
        (("a",), ("x", "x"), ValueError, r"relations\[1\]: 'x' is named twice"),
        (("a",), ("x>y",), ValueError, r"relations\[0\]: .* without '>'"),
        (("a",), ("both",), ValueError, r"relations\[0\]: 'both' is a built-in relation"),
        (("a",), "own", TypeError, "relations: expected a sequence of names"),
    ],
)
def test_wrong_names(modalities: object, relations: object, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        GraphSchema(modalities, relations)  # type: ignore[arg-type]


def test_unknown_names_and_types() -> None:
    schema = GraphSchema(("item", "image"))
    with pytest.raises(ValueError, match=r"modality: expected one of .*, got 'sound'"):
        schema.type_id("sound")
    with pytest.raises(ValueError, match=r"relation: expected one of .*, got 'item>sound'"):
        schema.relation_id("item>sound")
    for pair in ((0, 0), (0, 2), (-1, 0)):
        with pytest.raises(ValueError, match="two different types below 2"):
            schema.cross_relation_id(*pair)
