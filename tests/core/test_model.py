"""Addresses and their text, marks and names, and secrets that stay secret."""

from __future__ import annotations

import json
import pickle

import pytest
from hypothesis import given, strategies as st

from btp_reconcile.core.model import Action, Address, Change, FieldChange, Secret
from tests import build

parts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(kind=st.sampled_from(["instance", "key", "entitlement"]), path=st.lists(parts, min_size=1, max_size=4))
def test_an_address_and_its_text_are_inverse(kind: str, path: list[str]) -> None:
    address = Address(kind, tuple(path))

    assert Address.parse(str(address)) == address


def test_an_address_reads_as_people_write_it() -> None:
    assert str(Address("entitlement", ("prod", "afc-api-service", "standard"))) == (
        "entitlement:prod/afc-api-service/standard"
    )
    assert str(Address("key", ("prod", "a/b", "with space"))) == "key:prod/a%2Fb/with space"


@pytest.mark.parametrize("text", ["", "instance", "instance:", ":prod/apim", "instance:prod//apim", "key:a/"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no address"):
        Address.parse(text)


@pytest.mark.parametrize(
    ("inner", "outer", "within"),
    [
        ("key:prod/apim/k", "instance:prod/apim", True),
        ("instance:prod/apim", "instance:prod/apim", True),
        ("key:prod/apim/k", "key:prod/apim/k", True),
        ("key:prod/apim2/k", "instance:prod/apim", False),
        ("instance:prod/apim", "key:prod/apim/k", False),
        ("entitlement:prod/apim/k", "instance:prod/apim", False),
    ],
)
def test_a_key_is_within_its_instance(inner: str, outer: str, within: bool) -> None:
    assert Address.parse(inner).within(Address.parse(outer)) is within


def test_generations_are_numbered_from_the_second_on() -> None:
    one = build.resource("instance:prod/apim", name="My API")

    assert [one.physical(number) for number in (1, 2, 11)] == ["My API", "My API-2", "My API-11"]


def test_a_secret_shows_its_name_and_nothing_else() -> None:
    secret = Secret("env:PASSWORD", "hunter2")

    assert [str(secret), repr(secret), f"{secret:>30}".strip(), repr({"p": secret})] == [
        "<secret env:PASSWORD>",
        "<secret env:PASSWORD>",
        "<secret env:PASSWORD>",
        "{'p': <secret env:PASSWORD>}",
    ]
    assert secret != Secret("env:PASSWORD", "hunter2")
    assert secret.reveal() == "hunter2"


def test_a_secret_cannot_be_written_down() -> None:
    secret = Secret("env:PASSWORD", "hunter2")

    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        json.dumps(secret)


@pytest.mark.parametrize(
    ("action", "gate", "acts", "drifted"),
    [
        (Action.CREATE, "", True, True),
        (Action.CREATE, "somebody must", False, True),
        (Action.AWAIT, "", True, False),
        (Action.RETIRE, "", True, False),
        (Action.KEEP, "", False, False),
    ],
)
def test_what_acts_and_what_is_drift(action: Action, gate: str, acts: bool, drifted: bool) -> None:
    change = Change(Address("instance", ("prod", "apim")), action, gate=gate)

    assert (change.acts, change.drifted) == (acts, drifted)


def test_an_observed_difference_is_drift_though_nothing_acts() -> None:
    differs = FieldChange("tags", [], ["apis"])
    change = Change(Address("instance", ("prod", "apim")), Action.KEEP, fields=(differs,))

    assert (change.acts, change.drifted) == (False, True)
