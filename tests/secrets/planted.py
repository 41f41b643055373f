"""Secrets unlike any other text, and where any twelve characters of one come up again, whatever was done to them."""

from __future__ import annotations

import base64
import html
import json
import random
import re
import string
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from collections.abc import Iterator

RUN = 12
"""So many characters of a secret in a row give it away."""
LONG = 400
"""Longer secrets are certificates and tokens: few forms of them are looked for, for there are thousands of runs in each."""
_WORD = string.ascii_letters + string.digits
ALPHABETS = {
    "word": _WORD,
    "signs": _WORD + '+=$|"\\&%/<>{}[]()#?;:,~^`*!@-_.',
    "quotes": _WORD + "'\"\\`",
    "foreign": _WORD + "äöüßéñøлд名前漢😀",
    "lines": _WORD + "\n\t",
    "base": _WORD + "+/",
}
HEADER = ("word", "base")
"""What a header field can carry without being changed on the way."""
_TOKEN = re.compile(r"eyJ[\w-]+\.eyJ[\w-]+\.([\w-]+)")
"""The first two parts of a token tell whose it is and what for, in base64; only its signature makes it one."""
_BOUNDARY = re.compile(r"-----(?:BEGIN|END) [A-Z0-9 ]+-----")


def made(rng: random.Random, alphabet: str, length: int = 28) -> str:
    """A text at random, which ends in letters so that nothing that trims it changes it."""
    middle = "".join(rng.choices(ALPHABETS[alphabet], k=length - 4))
    return "".join([*rng.choices(_WORD, k=2), middle, *rng.choices(_WORD, k=2)])


def some(seed: str, count: int, alphabets: tuple[str, ...] = tuple(ALPHABETS)) -> list[str]:
    """So many, taking turns with the alphabets."""
    rng = random.Random(seed)
    return [made(rng, alphabets[number % len(alphabets)]) for number in range(count)]


def forms(secret: str) -> Iterator[str]:
    """A secret as it may be met: plain, escaped, percent-encoded, in base64 at every offset, as digits."""
    raw = secret.encode("utf-8", "surrogatepass")
    yield secret
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    yield "".join(secret.split())
    if len(secret) > LONG:
        yield from _in_base64(raw)
        return
    yield json.dumps(json.dumps(secret)[1:-1])[1:-1]
    yield repr(secret)[1:-1]
    yield html.escape(secret)
    for percent in (quote(raw, safe=""), quote(raw), quote_plus(raw)):
        yield percent
        yield re.sub("%..", lambda found: found[0].lower(), percent)
    yield from _in_base64(raw)
    yield raw.hex()
    yield raw.hex().upper()


def _in_base64(raw: bytes) -> Iterator[str]:
    """In both alphabets, as it looks in the middle of something else: at each of the three offsets."""
    for offset in range(3):
        shifted = base64.b64encode(b"\0" * offset + raw).decode().rstrip("=")
        inner = shifted[(offset * 4 + 2) // 3 : len(shifted) - (1 if (offset + len(raw)) % 3 else 0)]
        yield inner
        yield inner.translate(str.maketrans("+/", "-_"))


def windows(text: str) -> set[str]:
    """Every run of a text."""
    return {text[start : start + RUN] for start in range(len(text) - RUN + 1)}


@dataclass
class Ledger:
    """All secrets there are, by name, and every run of every form of them."""

    secrets: dict[str, str] = field(default_factory=dict)
    _runs: dict[str, str] = field(default_factory=dict)
    _public: set[str] = field(default_factory=set)

    def add(self, name: str, secret: str) -> None:
        """One more. What is shorter than a run cannot be looked for, and the lines around a certificate are no secret."""
        if len(secret) < RUN or secret in self.secrets:
            return
        self.secrets[secret] = name
        token = _TOKEN.fullmatch(secret)
        for part in _BOUNDARY.split(token[1] if token else secret):
            for form in forms(part if part == secret else part.strip()):
                for run in windows(form):
                    self._runs.setdefault(run, name)

    def allow(self, text: str) -> None:
        """No secret, although it stands in some: a token names its client."""
        for form in forms(text):
            self._public |= windows(form)

    def found(self, text: str | bytes) -> dict[str, str]:
        """Which secrets are in a text: their name → the run that gives each away."""
        shown = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
        seen = windows(plain) | windows("".join(plain.split()))
        return {self._runs[run]: run for run in sorted((seen & self._runs.keys()) - self._public)}

    def __len__(self) -> int:
        return len(self.secrets)
