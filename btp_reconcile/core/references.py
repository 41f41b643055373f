"""The syntax of values from outside: `${env:NAME}`, `${file:path}`, and `$${` for a literal `${`."""

from __future__ import annotations

import re

_TOKEN = re.compile(
    r"\$\$\{|\$\{(?:(env):([A-Za-z_][A-Za-z0-9_]*)|(file):([^}\x00-\x1f]+))\}|\$\{[^}]{0,60}\}?"
)
WHOLE = r"^\$\{(env:[A-Za-z_][A-Za-z0-9_]*|file:[^}]+)\}$"
"""A text that is one reference and nothing else, as a pattern for schemas."""
_WHOLE = re.compile(WHOLE)


def found(text: str) -> bool:
    """Does the text take a value from outside?"""
    return "${" in text and any(match[1] or match[3] for match in _TOKEN.finditer(text))


def malformed(text: str) -> str | None:
    """The first `${…}` that is neither a reference nor escaped."""
    if "${" not in text:
        return None
    for match in _TOKEN.finditer(text):
        if match[0] != "$${" and not match[1] and not match[3]:
            return match[0]
    return None


def whole(text: str) -> bool:
    """Is the text one reference and nothing else?"""
    return bool(_WHOLE.fullmatch(text))


def unescaped(text: str) -> str:
    """The text where no reference may stand, with `$${` read as `${`."""
    return text.replace("$${", "${")
