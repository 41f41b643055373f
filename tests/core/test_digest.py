"""Salted digests, and values whose texts are secrets."""

from __future__ import annotations

import json

from btp_reconcile.core import digest
from btp_reconcile.core.model import Secret


def test_a_digest_depends_on_its_salt_and_its_content_and_on_nothing_else() -> None:
    found = digest.salted("guid-1", b"content")

    assert found == digest.salted("guid-1", b"content")
    assert len({found, digest.salted("guid-2", b"content"), digest.salted("guid-1", b"content ")}) == len(
        ["as it is", "another salt", "another content"]
    )
    assert len(found) == digest.LENGTH
    assert set(found) <= set("0123456789abcdef")


def test_the_order_of_members_does_not_count_and_that_of_items_does() -> None:
    assert digest.of_json("s", {"a": 1, "b": [1, 2]}) == digest.of_json("s", {"b": [1, 2], "a": 1})
    assert digest.of_json("s", {"b": [1, 2]}) != digest.of_json("s", {"b": [2, 1]})


def test_secrets_count_by_what_they_hide_wherever_they_stand() -> None:
    plain = {"a": "x", "b": [{"c": "y"}, "z"], "d": 1}
    hidden = {"a": Secret("a", "x"), "b": [{"c": Secret("c", "y")}, Secret("z", "z")], "d": 1}

    assert digest.plain(hidden) == plain
    assert digest.of_json("s", hidden) == digest.of_json("s", plain)


def test_tuples_and_lists_are_the_same_json() -> None:
    assert digest.plain({"run": ("give", "it")}) == {"run": ["give", "it"]}
    assert digest.of_json("s", ("a",)) == digest.of_json("s", ["a"])


def test_every_text_that_is_hidden_is_named_by_its_path_and_shown_nowhere() -> None:
    raw = {"uaa": {"clientsecret": "hunter2"}, "list": ["hunter2", 5, None, True], "number": 7}

    found = digest.hidden(raw, "key")

    assert digest.plain(found) == raw
    assert "hunter2" not in repr(found)
    assert str(found["uaa"]["clientsecret"]) == str(Secret("key.uaa.clientsecret", "hunter2"))
    assert "key.list.0" in repr(found["list"][0])
    assert json.dumps(found["list"][1:]) == "[5, null, true]"
