"""What `reconcile keys` knows: arithmetic on facts, their notes and a given time."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from btp_reconcile.core import record
from btp_reconcile.core.keys import keys_json, keys_text
from btp_reconcile.core.model import Address, Facts, Mark, Phase, Resource
from btp_reconcile.core.rotation import jitter
from tests.build import NOW, OWNER, SPEC, fact, resource, wanted

if TYPE_CHECKING:
    from btp_reconcile.core.model import Fact

DAY = 86400
MAIN = Address.parse("delivery:prod/apim/transport/main")
APIM = resource("instance:prod/apim")
KEY = resource("key:prod/apim/transport", rotate_after=20 * DAY)
DELIVERED = Resource(MAIN, {}, Mark(OWNER, SPEC, "transport"), requires=(KEY.address,))
INSTANCE = fact("instance", "apim")


def at(days: float) -> str:
    return record.moment(NOW + days * DAY)


def known(*keys: Resource, facts: tuple[Fact, ...], now: float = NOW, **options: Any) -> list[dict[str, Any]]:
    data = keys_json(wanted(APIM, *keys), Facts((INSTANCE, *facts)), now, **options)
    assert (data["format"], data["version"], data["now"]) == (
        "btp-reconcile/keys",
        1,
        record.moment(now),
    )
    rows: list[dict[str, Any]] = data["keys"]
    return rows


def text(*keys: Resource, facts: tuple[Fact, ...], now: float = NOW) -> list[tuple[str, str]]:
    data = keys_json(wanted(APIM, *keys), Facts((INSTANCE, *facts)), now)
    return list(keys_text(data, now))


def receipt(day: float) -> dict[str, str]:
    given = record.Receipt(str(MAIN), at(day), "c", "7", "d", "vault secret/apim")
    return {record.receipt_name(MAIN): record.receipt_text(given)}


def proof(day: float, verdict: str) -> dict[str, str]:
    return {record.VERIFIED: record.proof_text(record.Proof(at(day), verdict))}


OLD = fact(
    "key",
    "transport",
    created_at=at(-30),
    record={**receipt(-30), record.RETIRE_AFTER: at(3), record.NOT_AFTER: at(-1)},
)
NEW = fact(
    "key",
    "transport-2",
    mark=Mark(OWNER, SPEC, "transport", 2),
    id="id-2",
    created_at=at(-2),
    record={**receipt(-1), **proof(-1, "ok"), record.NOT_AFTER: at(5)},
)


def test_every_generation_has_a_row_the_oldest_first() -> None:
    due = record.moment(NOW - 2 * DAY + 20 * DAY - jitter(KEY))

    assert known(KEY, DELIVERED, facts=(NEW, OLD)) == [
        {
            "address": "key:prod/apim/transport",
            "name": "transport",
            "generation": 1,
            "runtime": "cloudfoundry",
            "state": "superseded",
            "type": "x509",
            "created_at": at(-30),
            "delivered": [{"to": str(MAIN), "place": "vault secret/apim", "at": at(-30)}],
            "age_seconds": 30 * DAY,
            "not_after": at(-1),
            "ends_in_seconds": -DAY,
            "retire_after": at(3),
        },
        {
            "address": "key:prod/apim/transport",
            "name": "transport-2",
            "generation": 2,
            "runtime": "cloudfoundry",
            "state": "current",
            "type": "x509",
            "created_at": at(-2),
            "delivered": [{"to": str(MAIN), "place": "vault secret/apim", "at": at(-1)}],
            "age_seconds": 2 * DAY,
            "not_after": at(5),
            "ends_in_seconds": 5 * DAY,
            "rotation_due": due,
            "verified": {"at": at(-1), "verdict": "ok"},
        },
    ]


def test_people_read_the_same_in_blocks_and_colours_say_what_is_urgent() -> None:
    lines = text(KEY, resource("key:prod/apim/other"), DELIVERED, facts=(NEW, OLD))
    due = next(line for _, line in lines if "rotation" in line)

    assert lines == [
        ("bold", "key:prod/apim/transport"),
        ("dim", "  transport  generation 1, superseded, x509, 30 days old, Cloud Foundry"),
        ("red", "      certificate has ended (2025-12-31 00:00 UTC)"),
        ("dim", "      kept until 2026-01-04 00:00 UTC"),
        ("dim", "      delivery:prod/apim/transport/main: vault secret/apim, 2025-12-02 00:00 UTC"),
        ("", "  transport-2  generation 2, current, x509, 2 days old, Cloud Foundry"),
        ("yellow", "      certificate ends in 5 days (2026-01-06 00:00 UTC)"),
        ("", due),
        ("", "      delivery:prod/apim/transport/main: vault secret/apim, 2025-12-31 00:00 UTC"),
        ("", "      verified 2025-12-31 00:00 UTC: ok"),
        ("", ""),
        ("bold", "key:prod/apim/other"),
        ("yellow", "  missing"),
        ("", ""),
        ("", "2 keys."),
    ]
    assert due.startswith("      rotation is due in 1")


@pytest.mark.parametrize(
    ("keep", "consumers", "wishes", "until"),
    [
        pytest.param(9, (DELIVERED,), {}, 3, id="a longer time does not prolong the day that is noted"),
        pytest.param(2, (DELIVERED,), {}, 1, id="a shorter one counts from when the last consumer had the newest"),
        pytest.param(4, (), {}, 2, id="without consumers it counts from when the newest was made"),
        pytest.param(4, (), {"observe_only": True}, None, id="what is only watched does not go"),
    ],
)  # fmt: skip
def test_until_when_an_old_key_is_kept(
    keep: int, consumers: tuple[Resource, ...], wishes: dict[str, Any], until: float | None
) -> None:
    key = replace(KEY, keep_old_for=keep * DAY, **wishes)
    row = known(key, *consumers, facts=(NEW, OLD))[0]
    assert row.get("retire_after") == (None if until is None else at(until))


def test_without_consumers_each_old_key_has_its_own_day_and_one_without_a_successor_has_none() -> None:
    keys = [
        fact("key", f"k{one}", mark=Mark(OWNER, SPEC, "transport", one), created_at=at(made), record=notes)
        for one, made, notes in ((1, -30, {}), (2, -9, {}), (3, -2, proof(-2, "token-refused")))
    ]
    rows = known(replace(KEY, keep_old_for=10 * DAY), facts=tuple(keys))
    assert [one.get("retire_after") for one in rows] == [at(1), None, None]


def test_what_is_due_and_what_failed_is_said_so() -> None:
    old = fact("key", "transport", created_at=at(-21), record=proof(0, "token-refused"))

    assert text(KEY, facts=(old,))[1:5] == [
        ("", "  transport  generation 1, current, secret, 21 days old, Cloud Foundry"),
        ("", text(KEY, facts=(old,))[2][1]),
        ("red", "      verified 2026-01-01 00:00 UTC: token-refused"),
        ("", ""),
    ]
    assert text(KEY, facts=(old,))[2][1].startswith("      rotation is due (2025-12-")


def test_a_key_that_is_not_there_is_missing_or_absent() -> None:
    gone = resource("key:prod/apim/gone", absent=True)

    assert known(KEY, gone, facts=()) == [
        {"address": "key:prod/apim/transport", "state": "missing"},
        {"address": "key:prod/apim/gone", "state": "absent"},
    ]
    assert text(KEY, gone, facts=())[-1] == ("", "2 keys.")
    assert text(facts=()) == [("", "0 keys.")]


def test_keys_that_are_being_made_or_broken_say_so() -> None:
    states = [
        known(KEY, facts=(fact("key", "transport", phase=phase),))[0]["state"]
        for phase in (Phase.PENDING, Phase.BROKEN, Phase.READY)
    ]

    assert states == ["pending", "broken", "current"]


def test_keys_of_others_and_of_other_instances_are_not_counted() -> None:
    elsewhere = fact("key", "transport", parent="id-other")
    strange = fact("key", "transport", ours=False)

    assert [one["state"] for one in known(KEY, facts=(elsewhere, strange))] == ["missing"]


def test_a_key_that_is_only_watched_is_known_by_its_name() -> None:
    watched = resource("key:prod/apim/transport", observe_only=True)
    strange = fact("key", "transport", ours=False, created_at=at(-1))

    assert [
        (one["state"], one["generation"], one["age_seconds"]) for one in known(watched, facts=(strange,))
    ] == [("current", 1, DAY)]


def test_the_type_is_what_the_spec_asked_for_as_long_as_nothing_is_noted() -> None:
    def said(**spec: Any) -> str:
        key = resource("key:prod/apim/transport", **spec)
        kind: str = known(key, facts=(fact("key", "transport"),))[0]["type"]
        return kind

    assert said() == "secret"
    assert said(parameters={"xsuaa": {"credential-type": "x509"}}) == "x509"
    assert said(parameters={"credential-type": "x509"}) == "x509"
    assert said(parameters={"xsuaa": "odd"}) == "secret"


def test_targets_leave_out_what_was_not_named() -> None:
    other = resource("key:prod/apim/other")
    named = (Address.parse("key:prod/apim/other"),)
    delivery = (MAIN,)

    assert [one["address"] for one in known(KEY, other, facts=(), targets=named)] == ["key:prod/apim/other"]
    assert [one["address"] for one in known(KEY, other, facts=(), targets=delivery)] == [
        "key:prod/apim/transport"
    ]
    assert len(known(KEY, other, facts=(), targets=(Address.parse("instance:prod/apim"),))) == 2


def test_what_a_platform_calls_a_key_cannot_write_to_the_terminal() -> None:
    odd = fact("key", "trans\x1b[31mport", ours="transport", record=receipt(0))

    assert "\x1b" not in "".join(line for _, line in text(KEY, facts=(odd,)))
