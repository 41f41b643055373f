"""Every code is reached: a case's text shows it, or a test names it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from btp_reconcile.core.codes import CODES

TESTS = Path(__file__).parent


def texts() -> str:
    """All that cases say and tests compare."""
    cases = [*TESTS.glob("cases/**/*.txt")]
    tests = [one for one in TESTS.glob("**/*.py") if one != Path(__file__)]
    return "\n".join(one.read_text(encoding="utf-8") for one in (*cases, *tests))


SAID = texts()


@pytest.mark.parametrize("code", sorted(CODES))
def test_every_code_is_said_somewhere(code: str) -> None:
    assert re.search(rf"(?<![\w/-]){re.escape(code)}(?![\w/-])", SAID)


@pytest.mark.parametrize("code", sorted(CODES))
def test_every_code_means_something(code: str) -> None:
    area, slash, rest = code.partition("/")

    assert area
    assert slash
    assert rest
    assert CODES[code].endswith(".")
