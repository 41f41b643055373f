"""The last line of defence: what a platform says in its own words may repeat a secret that it was sent."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from btp_reconcile.core.errors import SpecError
from btp_reconcile.core.model import Secret

if TYPE_CHECKING:
    from btp_reconcile.core.model import Wanted
    from btp_reconcile.pipeline import World

SENTENCES = frozenset({"error", "gate", "hint", "message", "note", "notes", "reason"})
"""Where people read what others wrote. Names, addresses and ids are our own words, and stay what they are."""
SHORTEST = 8
"""A shorter value stands in every other word, and is no secret."""

Hidden = Mapping[str, str]
"""What must not be shown → what is shown in its place."""


def hidden(wanted: Wanted, world: World) -> Hidden:
    """Every value that came from outside: whole, in its parts, and as it looks inside JSON."""
    found: dict[str, str] = {}
    for resource in wanted.resources:
        for secret in _secrets(resource.spec):
            found[secret.reveal()] = repr(secret)
            for name in secret.name.split(", "):
                found[_part(name, resource.source.file if resource.source else "", world)] = repr(secret)
    for text, name in list(found.items()):
        for plain in (True, False):
            found.setdefault(json.dumps(text, ensure_ascii=plain)[1:-1], name)
    longest_first = sorted(found.items(), key=lambda item: -len(item[0]))
    return {text: name for text, name in longest_first if len(text) >= SHORTEST}


def _secrets(value: Any) -> Iterator[Secret]:
    if isinstance(value, Secret):
        yield value
    elif isinstance(value, (dict, Mapping)):
        for item in value.values():
            yield from _secrets(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _secrets(item)


def _part(name: str, file: str, world: World) -> str:
    """One of the references that a text was put together from."""
    kind, _, rest = name.partition(":")
    if kind == "env":
        return world.environment.get(rest, "")
    try:
        return world.read(rest, file)
    except SpecError:
        return ""


def within(data: Any, what: Hidden, *, sentence: bool = False) -> Any:
    """The same data, with nothing hidden left in its sentences."""
    if not what:
        return data
    if isinstance(data, Mapping):
        return {key: within(item, what, sentence=sentence or key in SENTENCES) for key, item in data.items()}
    if isinstance(data, list):
        return [within(item, what, sentence=sentence) for item in data]
    return _without(data, what) if sentence and isinstance(data, str) else data


def _without(text: str, what: Hidden) -> str:
    for secret, name in what.items():
        text = text.replace(secret, name)
    if text.endswith("…"):  # it was cut, perhaps in the middle of one
        kept = text[:-1]
        for secret, name in what.items():
            for length in range(len(secret) - 1, 3, -1):
                if kept.endswith(secret[:length]):
                    return f"{kept[:-length]}{name}…"
    return text
