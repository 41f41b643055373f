"""What a certificate says, and that nothing of it is quoted."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from btp_reconcile.core.errors import PlatformError
from btp_reconcile.core.model import Secret
from btp_reconcile.edges.certificates import Certificate, belong_together, not_after, read
from tests.edges.papers import paper

BEGINS, ENDS = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 31, 12, 30, tzinfo=UTC)
MINE = paper("client", BEGINS, ENDS)
OTHER = paper("other", BEGINS, datetime(2030, 1, 1, tzinfo=UTC))


def secret(text: str) -> Secret:
    return Secret("pem", text)


def test_a_certificate_says_whose_it_is_and_when_it_ends() -> None:
    assert read(secret(MINE.certificate)) == Certificate(
        "O=Example,CN=client", BEGINS.timestamp(), ENDS.timestamp()
    )


def test_the_first_of_a_chain_is_its_holders() -> None:
    assert not_after(secret(MINE.certificate + OTHER.certificate)) == ENDS.timestamp()


def test_a_key_belongs_to_its_certificate_alone() -> None:
    assert belong_together(secret(MINE.certificate + OTHER.certificate), secret(MINE.key))
    assert not belong_together(secret(MINE.certificate), secret(OTHER.key))


@pytest.mark.parametrize(
    "text", ["", "hunter-2", "-----BEGIN CERTIFICATE-----\nhunter-2\n-----END CERTIFICATE-----\n", MINE.key]
)
def test_a_certificate_that_cannot_be_read_is_not_quoted(text: str) -> None:
    with pytest.raises(PlatformError) as caught:
        read(secret(text))

    assert str(caught.value) == "certificate: the certificate is not readable PEM"
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    "text", ["", "hunter-2", "-----BEGIN PRIVATE KEY-----\nhunter-2\n-----END PRIVATE KEY-----\n", "ä"]
)
def test_a_private_key_that_cannot_be_read_is_not_quoted(text: str) -> None:
    with pytest.raises(PlatformError) as caught:
        belong_together(secret(MINE.certificate), secret(text))

    assert str(caught.value) == "certificate: the private key is not readable PEM"
    assert caught.value.__context__ is None
