"""The last line of defence: what a platform says in its own words may repeat a secret that it was sent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from btp_reconcile.core.errors import SpecError
from btp_reconcile.core.model import Secret
from btp_reconcile.core.said import Confidential

if TYPE_CHECKING:
    from btp_reconcile.core.model import Wanted
    from btp_reconcile.pipeline import World

SENTENCES = frozenset({"detail", "error", "gate", "hint", "message", "note", "notes", "reason"})
"""Where people read what others wrote. Names, addresses and ids are our own words, and stay what they are."""
SHORTEST = 8
"""A shorter value stands in every other word, and is no secret."""

_PLAIN = frozenset({str, bool, int, float, type(None)})
Hidden = Confidential
"""What must not be shown, and what is shown in its place."""


def hidden(wanted: Wanted, world: World) -> Hidden:
    """Every value that came from outside: whole, in its parts, and however it is written."""
    found: dict[str, str] = {}
    for resource in wanted.resources:
        for secret in _secrets([resource.spec]):
            found[secret.reveal()] = repr(secret)
            for name in secret.name.split(", "):
                found[_part(name, resource.source.file if resource.source else "", world)] = repr(secret)
    return Confidential(found, SHORTEST)


def _secrets(values: Iterable[Any]) -> Iterator[Secret]:
    for value in values:
        if type(value) in _PLAIN:  # nearly all of them, and there are many
            continue
        if isinstance(value, Secret):
            yield value
        elif isinstance(value, Mapping):
            yield from _secrets(value.values())
        elif isinstance(value, (list, tuple)):
            yield from _secrets(value)


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
    return what.without(data) if sentence and isinstance(data, str) else data
