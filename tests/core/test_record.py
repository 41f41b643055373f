"""Our own notes beside a key: what is written can be read, fits, and what others write there harms nobody."""

from __future__ import annotations

from dataclasses import replace

import pytest

from btp_reconcile.core import record
from btp_reconcile.core.model import Address
from btp_reconcile.core.record import LIMIT, Proof, Receipt
from tests.build import fact

MAIN = Address.parse("delivery:prod/apim/transport/main")
FULL = Receipt(
    str(MAIN), "2026-01-01T00:00:00Z", "a1b2c3d4", "17", "0123456789abcdef", "vault secret/apim/pipeline"
)


def noted(name: str, text: str) -> dict[str, Receipt]:
    return record.receipts(fact("key", "transport", record={name: text}))


@pytest.mark.parametrize(
    "receipt",
    [
        FULL,
        Receipt(str(MAIN), "2026-01-01T00:00:00Z"),
        replace(FULL, place="command ./give.sh --to 'the team; and=all, 100%'"),
        replace(FULL, place="file /srv/Schlüssel für später/鍵.json", version="", digest=""),
    ],
)
def test_what_a_receipt_says_can_be_read_again(receipt: Receipt) -> None:
    name = record.receipt_name(MAIN)
    text = record.receipt_text(receipt)

    assert noted(name, text) == {name: receipt}
    assert record.receipt_of(fact("key", "transport", record={name: text}), MAIN) == receipt
    assert text.isprintable()
    assert text.isascii()


@pytest.mark.parametrize("sign", ["a", "ü", "鍵", "%", ";", "😀", "'"])
@pytest.mark.parametrize("length", [1, 50, 99, 100, 101, 150, 300, 5000])
def test_a_receipt_fits_into_a_label_however_long_its_place_is(sign: str, length: int) -> None:
    receipt = replace(FULL, place=sign * length)

    text = record.receipt_text(receipt)
    found = noted("to-1", text)["to-1"]

    assert len(text) <= LIMIT
    assert replace(found, place="") == replace(FULL, place="")
    assert found.place == receipt.place or (
        found.place.endswith("…") and receipt.place.startswith(found.place[:-1])
    )


def test_a_receipt_fits_into_a_label_however_long_everything_else_is() -> None:
    names = "/".join(["n" * 63] * 4)
    receipt = Receipt(f"delivery:{names}", "2026-01-01T00:00:00Z", "c" * 8, "v" * 64, "d" * 16, "p" * 300)

    text = record.receipt_text(receipt)

    assert len(text) <= LIMIT
    assert noted("to-1", text)["to-1"].of == f"delivery:{names}"[:89] + "…"


def test_receipts_of_two_deliveries_have_two_names_that_fit_a_label() -> None:
    names = {record.receipt_name(Address.parse(f"delivery:prod/apim/transport/d{one}")) for one in range(500)}

    assert len(names) == 500
    assert {len(one) for one in names} == {13}
    assert record.receipt_name(MAIN) == record.receipt_name(Address.parse(str(MAIN)))


@pytest.mark.parametrize(
    "text", ["", "v2;at=2026-01-01T00:00:00Z;of=x", "v1", "v1;at=x", "v1;of=x", "nonsense;;==", "v1;at=;of="]
)
def test_what_cannot_be_read_is_no_receipt(text: str) -> None:
    assert noted("to-1", text) == {}


def test_only_notes_of_their_own_name_are_receipts() -> None:
    text = record.receipt_text(FULL)

    assert noted("verified", text) == {}
    assert record.receipt_of(None, MAIN) is None
    assert record.receipt_of(fact("key", "transport", record={"to-other": text}), MAIN) is None


def test_how_a_key_was_proven_can_be_read_again() -> None:
    proof = Proof("2026-01-01T00:00:00Z", "expires-soon", "0123456789abcdef")
    short = Proof("2026-01-01T00:00:00Z", "ok")

    for one in (proof, short):
        found = record.proof_of(fact("key", "transport", record={"verified": record.proof_text(one)}))
        assert found == one
    assert record.proof_of(None) is None
    assert record.proof_of(fact("key", "transport")) is None
    assert record.proof_of(fact("key", "transport", record={"verified": "v1;at=x"})) is None


def test_times_are_read_as_they_are_written_and_what_is_none_is_none() -> None:
    written = record.moment(1_767_225_600.0)
    key = fact("key", "transport", record={"not-after": written, "retire-after": written})
    odd = fact("key", "transport", record={"not-after": "soon", "retire-after": "32.1.2026"})

    assert written == "2026-01-01T00:00:00Z"
    assert (record.not_after(key), record.retire_after(key)) == (1_767_225_600.0, 1_767_225_600.0)
    assert (record.not_after(odd), record.retire_after(odd)) == (None, None)
    assert (record.not_after(None), record.not_after(fact("key", "transport"))) == (None, None)
