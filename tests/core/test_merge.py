"""Layers of written values."""

from __future__ import annotations

from typing import Any

from hypothesis import given, strategies as st

from btp_reconcile.core import merge
from btp_reconcile.core.merge import REMOVED, Document, Node
from btp_reconcile.core.model import Source

VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3) | st.lists(inner, max_size=2),
    max_leaves=8,
)
MAPS = st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3)


def node(data: object, file: str = "x") -> Node:
    return merge.nodes(Document(file, data, {}))


def layers(*data: object) -> Any:
    whole = node(data[0])
    for one in data[1:]:
        whole = merge.merge(whole, node(one))
    return merge.plain(whole)


def test_maps_merge_and_all_else_replaces() -> None:
    low = {"a": {"x": 1, "y": [1, 2]}, "b": 1, "c": {"z": 1}}
    high = {"a": {"y": [3]}, "b": {"n": 2}, "c": "text"}

    assert layers(low, high) == {"a": {"x": 1, "y": [3]}, "b": {"n": 2}, "c": "text"}


def test_null_removes() -> None:
    assert layers({"a": {"x": 1, "y": 2}, "b": 1}, {"a": {"x": None}, "b": None}) == {"a": {"y": 2}}


def test_what_was_removed_can_be_given_again() -> None:
    assert layers({"a": {"x": 1}}, {"a": None}, {"a": {"y": 2}}) == {"a": {"y": 2}}


def test_a_null_in_the_middle_still_removes_what_is_put_below_it_later() -> None:
    """Defaults come below a template that was merged with own words before."""
    upper = merge.merge(node({"a": 1}), node({"a": None}))

    assert merge.plain(merge.merge(node({"a": 0}), upper)) == {}


def test_nulls_in_lists_stay() -> None:
    assert layers({"a": 1}, {"a": [None, 1]}) == {"a": [None, 1]}


def test_a_null_that_removes_something_is_told_from_one_that_does_not() -> None:
    merged = merge.merge(node({"a": 1}), node({"a": None, "b": None}))

    assert (merged.value["a"].value, merged.value["b"].value) == (REMOVED, None)


def test_a_merged_map_remembers_both_places() -> None:
    low = Node({"a": Node(1, Source("low", 2), Source("low", 2))}, Source("low", 1), Source("low", 1))
    high = Node({}, Source("high", 9), Source("high", 8))

    assert merge.merge(low, high).place == Source("high", 8)
    assert merge.merge(low, high).also == (Source("low", 1),)


def test_what_is_borrowed_names_its_user_everywhere() -> None:
    used = merge.borrowed(node({"a": [1]}), Source("user", 7))

    assert used.value["a"].value[0].also == (Source("user", 7),)


def test_places_are_of_keys_for_maps_and_of_values_for_scalars() -> None:
    data = {"a": {"b": "x"}}
    written: dict[merge.Path, tuple[Source, Source]] = {
        ("a",): (Source("f", 1, 1), Source("f", 2, 3)),
        ("a", "b"): (Source("f", 2, 3), Source("f", 2, 6)),
    }
    found: dict[merge.Path, Source] = {}
    merge.places(merge.nodes(Document("f", data, written)), (), found)

    assert found == {(): Source("f"), ("a",): Source("f", 1, 1), ("a", "b"): Source("f", 2, 6)}


@given(MAPS, MAPS)
def test_what_the_upper_layer_says_holds(low: object, high: dict[str, object]) -> None:
    merged = layers(low, high)

    assert [name for name in high if high[name] is None and name in merged] == []
    assert {name for name in merged if name not in high} == {name for name in layers(low) if name not in high}


@given(MAPS)
def test_an_empty_layer_changes_nothing(data: object) -> None:
    assert layers({}, data) == layers(data, {}) == layers(data)


@given(MAPS)
def test_a_layer_over_itself_changes_nothing(data: object) -> None:
    assert layers(data, data) == layers(data)
