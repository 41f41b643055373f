"""Does a text look like a secret? A guess, good enough for a warning; the text itself is never shown."""

from __future__ import annotations

import math
import re
from collections import Counter
from functools import lru_cache

_NAMES = re.compile(r"(client_?secret|password|passwd|private_?key|access_?token|refresh_?token|api_?key)$")
_JWT = re.compile(r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*")
_DENSE = re.compile(r"[A-Za-z0-9+/=_$-]{32,}")
_GUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def by_name(name: str) -> bool:
    """Is this the name of a field that holds a secret?"""
    return bool(_NAMES.search(name.lower().replace("-", "_")))


@lru_cache(maxsize=4096)
def by_text(text: str) -> str:
    """What kind of secret the text looks like, in words; empty when it looks like none."""
    if len(text) < 24:
        return ""
    if "-----BEGIN" in text:
        return "a certificate or private key (PEM)"
    if _JWT.search(text):
        return "a token (JWT)"
    if '"clientsecret"' in text.replace(" ", "").lower():
        return "a service key"
    if _DENSE.fullmatch(text) and not _GUID.search(text) and _mixed(text) and _entropy(text) > 3.9:
        return "a password or client secret"
    return ""


def shown(value: object, limit: int = 60) -> str:
    """A value for a message: cut when long, and not at all when it looks like a secret."""
    if not isinstance(value, str):
        return str(value).lower() if isinstance(value, bool) else str(value)[:limit]
    if by_text(value) or len(value) > 4 * limit:
        return f"a text of {len(value)} characters"
    clean = "".join(letter if letter.isprintable() else "�" for letter in value)
    return f"'{clean[:limit]}…'" if len(clean) > limit else f"'{clean}'"


def _mixed(text: str) -> bool:
    return bool(re.search(r"[a-z]", text) and re.search(r"[A-Z]", text) and re.search(r"[0-9]", text))


def _entropy(text: str) -> float:
    """Bits a character, from how often each occurs."""
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())
