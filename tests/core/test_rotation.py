"""What becomes of the old generations of a key with consumers, once these were compared."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from btp_reconcile.core import record
from btp_reconcile.core.model import Action, Address, Fact, Mark, Operation, Phase, Problem, Resource
from tests.build import NOW, OWNER, SPEC, fact, planned, resource

if TYPE_CHECKING:
    from collections.abc import Sequence

    from btp_reconcile.core.model import Change

DAY = 86400
KEY = Address.parse("key:prod/apim/k")
ONE, TWO = (Address.parse(f"delivery:prod/apim/k/{name}") for name in ("one", "two"))
INSTANCE = fact("instance", "apim")
REFUSED = {record.VERIFIED: record.proof_text(record.Proof(record.moment(NOW - DAY), "token-refused"))}


def ago(days: float) -> str:
    return record.moment(NOW - days * DAY)


def given(*to: Address, days: float = 4) -> dict[str, str]:
    """Receipts, as notes on a key."""
    return {
        record.receipt_name(one): record.receipt_text(
            record.Receipt(str(one), ago(days), "c", place="vault p")
        )
        for one in to
    }


def generation(number: int, made: float, **notes: str) -> Fact:
    name = "k" if number == 1 else f"k-{number}"
    mark = Mark(OWNER, SPEC, "k", number)
    return fact("key", name, mark=mark, created_at=ago(made), record=notes)


def goes(days: float) -> dict[str, str]:
    return {record.RETIRE_AFTER: record.moment(NOW + days * DAY)}


def delivery(address: Address, **more: Any) -> Resource:
    spec = {"runtime": "vault", "place": "p", "config": "c", "adopt": False, "block": {}}
    return Resource(
        address, {**spec, "place": f"p{address.path[-1]}"}, Mark(OWNER, SPEC, "k"), requires=(KEY,), **more
    )


def there(address: Address, foreign: str = "") -> Fact:
    said = {"version": "", "digest": "", "wrong": "", "generation": None, "identity": None}
    return Fact("delivery", str(address), "p", "prod", attributes=said, foreign=foreign, runtime="vault")


def decided(
    keys: Sequence[Fact], *more: Fact, keep: int = 7, key: Resource | None = None, **options: Any
) -> Change:
    """The change of a key that two deliveries are filled from."""
    wanted = replace(key or resource(str(KEY)), keep_old_for=keep * DAY)
    resources = [resource("instance:prod/apim"), wanted, delivery(ONE), delivery(TWO)]
    plan = planned(resources, [INSTANCE, *keys, *more], **options)
    return next(one for one in plan.changes if one.address == KEY)


def told(change: Change) -> tuple[str, str, list[str], list[str], tuple[str, ...]]:
    return (
        str(change.action),
        change.reason,
        [one.name for one in change.retired],
        [one.name for one in change.dated],
        change.notes,
    )


BOTH = given(ONE, TWO)
NO_USE = "k is kept: k-2 was no use when it was last tried (token-refused); `apply --verify` tries it again"
UNSEEN = Problem("platform/unseen", "Vault could not be asked")
SEEN = (there(ONE), there(TWO))


@pytest.mark.parametrize(
    ("first", "newest", "keep", "said"),
    [
        pytest.param(
            {}, BOTH, 7,
            ("retire", "every consumer has k-2", [], ["k"], ("k is kept for 7 days more, then deleted",)),
            id="a run was cut off before it noted the day",
        ),
        pytest.param(
            {}, BOTH, 0, ("retire", "superseded by k-2", ["k"], [], ()), id="no time of grace is asked for"
        ),
        pytest.param(
            goes(1), BOTH, 7,
            ("keep", "in sync", [], [], ("k is superseded and kept until 2026-01-02 00:00 UTC",)),
            id="its day is still to come",
        ),
        pytest.param(
            goes(-1), BOTH, 7, ("retire", "superseded by k-2", ["k"], [], ()), id="its day has come"
        ),
        pytest.param(
            goes(-4.5), BOTH, 7,
            ("retire", "every consumer has k-2", [], ["k"], ("k is kept for 7 days more, then deleted",)),
            id="its day was noted before everybody had the newest",
        ),
        pytest.param(
            goes(-1), given(ONE), 7,
            ("retire", f"superseded once {TWO} is served", [], ["k"], ("k is kept for 7 days more, then deleted",)),
            id="its day has come, and this plan serves one more",
        ),
        pytest.param(
            {}, {}, 0, ("retire", f"superseded once {ONE}, {TWO} is served", ["k"], [], ()),
            id="everybody is served by this plan, and no time of grace is asked for",
        ),
        pytest.param(
            goes(1), given(ONE), 7,
            ("keep", "in sync", [], [], (f"k is kept until k-2 is with {TWO}",)),
            id="its day is still to come, and this plan serves one more",
        ),
        pytest.param(
            goes(-1), BOTH | REFUSED, 7,
            (
                "keep", "in sync", [], [],
                (NO_USE,),
            ),
            id="the newest is no use",
        ),
        pytest.param(
            {}, given(ONE) | REFUSED, 7,
            ("retire", f"superseded once {TWO} is served", [], ["k"], ("k is kept for 7 days more, then deleted",)),
            id="the newest was no use, and is tried again before it is given to anybody",
        ),
    ],
)  # fmt: skip
def test_what_becomes_of_the_old_one(
    first: dict[str, str], newest: dict[str, str], keep: int, said: tuple[object, ...]
) -> None:
    assert told(decided([generation(1, 90, **first), generation(2, 5, **newest)], *SEEN, keep=keep)) == said


def test_the_old_one_stays_while_a_consumer_cannot_be_served() -> None:
    keys = [generation(1, 90, **goes(-1)), generation(2, 5, **given(ONE))]
    unseen = {("prod", str(TWO)): UNSEEN}

    found = told(decided(keys, there(ONE), unseen=unseen))

    assert found == ("keep", "in sync", [], [], (f"k is kept until k-2 is with {TWO}",))


def test_each_of_several_old_ones_has_its_own_day() -> None:
    keys = [
        generation(1, 90, **goes(-1)),
        generation(2, 60, **goes(2)),
        generation(3, 30),
        generation(4, 5, **BOTH),
    ]

    action, reason, retired, dated, notes = told(decided(keys, *SEEN))

    assert (action, reason, retired, dated) == ("retire", "superseded by k-4", ["k"], ["k-3"])
    assert notes[-1] == "k-3 is kept for 7 days more, then deleted"


def test_a_key_that_is_changed_itself_leaves_its_old_ones_to_the_next_run() -> None:
    keys = [generation(1, 90, **goes(-1)), generation(2, 5, **BOTH)]
    renamed = replace(resource(str(KEY), mark=Mark(OWNER, SPEC, "new")), renamed_from="k")

    change = decided(keys, *SEEN, key=renamed)

    assert (change.action, change.retired, change.dated) == (Action.UPDATE, (), ())


def test_a_rotation_in_which_nobody_can_be_served_takes_only_what_is_broken_already() -> None:
    failed = Operation("delete", "failed", ago(1))
    broken = replace(generation(2, 5), phase=Phase.BROKEN, operation=failed)
    keys = [generation(1, 90, **goes(-1)), broken]
    unseen = {("prod", str(one)): UNSEEN for one in (ONE, TWO)}

    change = decided(keys, keep=0, unseen=unseen)

    assert (change.action, [one.name for one in change.retired], change.dated) == (Action.ROTATE, ["k-2"], ())


def test_what_a_destination_holds_stays_and_what_is_deleted_all_the_same_is_told() -> None:
    keys = [generation(1, 90, **goes(-1)), generation(2, 5, **BOTH)]
    holds = [
        Fact("destination", name, name, "prod", attributes={"keys": [SimpleNamespace(id="id-k")]})
        for name in ("A", "B")
    ]

    kept = told(decided(keys, *SEEN, *holds))
    assert kept == (
        "keep", "in sync", [], [], ("k is kept: destinations A of prod and B of prod still hold it",)
    )  # fmt: skip
    gone = decided(keys, *SEEN, *holds[:1], key=resource(str(KEY), absent=True))
    assert (gone.action, gone.notes[:1]) == (
        Action.DELETE,
        ("k is deleted: destination A of prod still holds it",),
    )


@pytest.mark.parametrize(
    ("given_at", "said"),
    [
        pytest.param(4, "the key it was given last is gone, and the receipt for it with that", id="before its day was noted"),
        pytest.param(1, "changed by others since 2025-12-31 00:00 UTC", id="once more after that"),
    ],
)  # fmt: skip
def test_who_cannot_say_which_key_it_holds_is_blamed_only_where_no_key_is_gone(
    given_at: float, said: str
) -> None:
    """A key that has its day and is the newest all the same had a successor, which everybody was given."""
    receipt = record.Receipt(str(ONE), ago(given_at), "c", version="1", place="vault pone")
    notes = goes(3) | {record.receipt_name(ONE): record.receipt_text(receipt)}
    held = replace(there(ONE), attributes={**there(ONE).attributes, "version": "2"})
    key = replace(resource(str(KEY)), keep_old_for=5 * DAY)
    resources = [resource("instance:prod/apim"), key, delivery(ONE)]
    plan = planned(resources, [INSTANCE, generation(1, 90, **notes), held])

    change = next(one for one in plan.changes if one.address == ONE)
    assert (change.action, change.reason) == (Action.UPDATE, said)


def test_a_shorter_time_counts_from_when_the_last_consumer_had_the_newest_and_not_before() -> None:
    keys = [generation(1, 90, **goes(9)), generation(2, 5, **given(ONE), **given(TWO, days=2))]
    found = told(decided(keys, *SEEN, keep=3))
    assert found == ("keep", "in sync", [], [], ("k is superseded and kept until 2026-01-02 00:00 UTC",))
    assert told(decided(keys, *SEEN, keep=2))[2] == ["k"]

    lacking = [generation(1, 90, **goes(9)), generation(2, 5, **given(ONE))]
    unseen = {("prod", str(TWO)): UNSEEN}
    assert told(decided(lacking, there(ONE), unseen=unseen, keep=0))[2] == []


@pytest.mark.parametrize(
    ("operation", "runtime", "note", "changed"),
    [
        (Operation("create", "succeeded", ago(1)), "other", "", ""),
        (Operation("update", "failed", ago(1)), "other", "", ""),
        (Operation("update", "succeeded", ago(1)), "other", "", ago(1)),
        (Operation("update", "succeeded", ago(1)), "other", f"v1;at={ago(1 + 20 / DAY)}", ""),
        (Operation("update", "succeeded", ago(1)), "other", f"v1;at={ago(1 + 150 / DAY)}", ago(1)),
        (Operation("update", "succeeded", ago(1)), "cloudfoundry", f"v1;at={ago(1)};before={ago(5)}", ago(5)),
        (Operation("update", "succeeded", ago(1)), "cloudfoundry", f"v1;at={ago(1 + 20 / DAY)}", ago(1)),
        (Operation("update", "succeeded", ago(1)), "cloudfoundry", "anything", ago(1)),
        (Operation("update", "succeeded", "no time"), "other", f"v1;at={ago(1)}", "no time"),
    ],
)
def test_when_more_than_the_name_of_an_instance_was_changed(
    operation: Operation, runtime: str, note: str, changed: str
) -> None:
    notes = {record.ONLY_NAMED: note} if note else {}
    instance = fact("instance", "apim", operation=operation, runtime=runtime, record=notes)
    assert record.changed_at(instance) == changed
