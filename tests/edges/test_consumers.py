"""Which sink is opened with what, and what a rehearsal does in its place."""

from __future__ import annotations

import json
import stat
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from btp_reconcile.core.errors import PlatformError, SpecError
from btp_reconcile.core.model import Secret
from btp_reconcile.core.sink import Held
from btp_reconcile.edges.consumers import Consumers, Rehearsed
from btp_reconcile.sinks import SINKS
from tests.build import PLACE
from tests.sinks.parcels import NEXT, OURS, SECRET, around, parcel

if TYPE_CHECKING:
    from pathlib import Path

OTHER = replace(PLACE, name="test", id="77aa1f0e-6c1b-4a51-9d67-0a4c4f1f2f11")
VAULT = "sink/vault"
BLOCK = {"path": "secret/apim"}
TOLD = r"delivered cannot be read: .*`reconcile sandbox reset` starts anew"


def rehearsed(folder: Path, *really: str) -> Rehearsed:
    real = Consumers(SINKS, {}, around(folder=lambda path: str(folder / "real" / path)))
    files = Consumers(SINKS, {}, around(folder=lambda path: str(folder / "scratch" / path)))
    for name in ("real", "scratch"):
        (folder / name).mkdir(exist_ok=True)
    return Rehearsed(SINKS, folder / "delivered", frozenset(really), real, files)


# --- the real ones --------------------------------------------------------------------------------------


def test_equal_access_opens_one_door_and_other_access_another() -> None:
    def vault(token: str) -> dict[str, object]:
        return {"vault": {"address": "http://127.0.0.1:1", "token": Secret("access.vault.token", token)}}

    third = replace(PLACE, name="third")
    consumers = Consumers(SINKS, {"prod": vault("a"), "test": vault("a"), "third": vault("b")}, around())

    prod, test, other = (consumers.door(VAULT, one) for one in (PLACE, OTHER, third))

    assert prod is test
    assert prod is not other
    assert (prod.service, prod.scope, other.scope) == (VAULT, "vault 1", "vault 2")
    consumers.close()


def test_files_need_no_access_and_are_one_door_for_all(tmp_path: Path) -> None:
    consumers = Consumers(SINKS, {}, around(folder=lambda path: str(tmp_path / path)))

    assert consumers.door("sink/file", PLACE) is consumers.door("sink/file", OTHER)


def test_access_that_lacks_something_is_the_specs_problem() -> None:
    with pytest.raises(SpecError) as caught:
        Consumers(SINKS, {}, around()).door("sink/github", PLACE)

    assert [(one.code, one.message) for one in caught.value.problems] == [
        ("access/none", "nothing to sign in at GitHub with")
    ]


# --- rehearsals -----------------------------------------------------------------------------------------


def test_a_rehearsed_sink_holds_what_it_was_given_and_no_secret_of_it(tmp_path: Path) -> None:
    door = rehearsed(tmp_path).door(VAULT, PLACE)

    assert door.consumer.look(BLOCK) is None
    first = door.consumer.put(BLOCK, parcel(), None)
    second = door.consumer.put(BLOCK, parcel(identity=NEXT), first)

    assert (first.version, second.version) == ("1", "2")
    assert (first.identity, second.identity) == (OURS, NEXT)
    assert first.digest != second.digest
    assert rehearsed(tmp_path).door(VAULT, PLACE).consumer.look(BLOCK) == second
    said = (tmp_path / "delivered").read_text(encoding="utf-8")
    assert SECRET not in said
    assert list(json.loads(said)) == [f"{PLACE.id} vault secret/apim"]
    assert [one.name for one in tmp_path.iterdir() if one.is_file()] == ["delivered"]


def test_each_place_and_each_subaccount_has_its_own(tmp_path: Path) -> None:
    sinks = rehearsed(tmp_path)
    sinks.door(VAULT, PLACE).consumer.put(BLOCK, parcel(), None)

    assert sinks.door(VAULT, PLACE).consumer.look({"path": "secret/other"}) is None
    assert sinks.door(VAULT, OTHER).consumer.look(BLOCK) is None
    assert sinks.door("sink/kubernetes", PLACE).consumer.look({"namespace": "secret", "name": "apim"}) is None


def test_what_cannot_be_looked_at_is_not_seen_in_a_rehearsal_either(tmp_path: Path) -> None:
    command = rehearsed(tmp_path).door("sink/command", PLACE).consumer

    held = command.put({"run": ["touch", str(tmp_path / "ran")]}, parcel(), None)

    assert held == Held(identity=OURS)
    assert not (tmp_path / "ran").exists()


def test_files_go_to_the_scratch_folder_and_nowhere_else(tmp_path: Path) -> None:
    sinks = rehearsed(tmp_path)

    held = sinks.door("sink/file", PLACE).consumer.put({"path": "apim.json"}, parcel(), None)

    file = tmp_path / "scratch/apim.json"
    assert json.loads(file.read_text(encoding="utf-8"))["clientSecret"] == SECRET
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert (held.identity, held.wrong) == (OURS, "")
    assert list((tmp_path / "real").iterdir()) == []
    assert not (tmp_path / "delivered").exists()
    sinks.close()


def test_a_sink_that_is_named_is_delivered_to_really(tmp_path: Path) -> None:
    sinks = rehearsed(tmp_path, "file")

    sinks.door("sink/file", PLACE).consumer.put({"path": "apim.json"}, parcel(), None)

    assert (tmp_path / "real/apim.json").exists()
    assert list((tmp_path / "scratch").iterdir()) == []
    sinks.close()


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '"text"',
        json.dumps({f"{PLACE.id} vault secret/apim": {}}),
        json.dumps({f"{PLACE.id} vault secret/apim": {"version": "x", "digest": "", "identity": {}}}),
        json.dumps({f"{PLACE.id} vault secret/apim": {"version": "1", "digest": "", "identity": {"odd": 1}}}),
        json.dumps({f"{PLACE.id} vault secret/apim": []}),
    ],
)
def test_a_record_that_was_damaged_is_told_in_words(tmp_path: Path, text: str) -> None:
    (tmp_path / "delivered").write_text(text, encoding="utf-8")
    consumer = rehearsed(tmp_path).door(VAULT, PLACE).consumer

    with pytest.raises(PlatformError, match=TOLD):
        consumer.look(BLOCK)
    with pytest.raises(PlatformError, match=TOLD):
        consumer.put(BLOCK, parcel(), None)
    assert (tmp_path / "delivered").read_text(encoding="utf-8") == text


def test_deliveries_at_once_are_all_recorded(tmp_path: Path) -> None:
    sinks = rehearsed(tmp_path)
    blocks = [{"path": f"secret/{number}"} for number in range(16)]

    def deliver(path: str) -> None:
        sinks.door(VAULT, PLACE).consumer.put({"path": path}, parcel(), None)

    threads = [threading.Thread(target=deliver, args=(block["path"],)) for block in blocks]
    for one in threads:
        one.start()
    for one in threads:
        one.join()

    assert [sinks.door(VAULT, PLACE).consumer.look(block) is not None for block in blocks] == [True] * 16
