"""Written values that remember where they were written, and how layers of them become one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from btp_reconcile.core.model import Source

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Path = tuple[str | int, ...]


@dataclass(frozen=True, eq=False)
class Document:
    """One YAML file: plain data, and where each key and value of it stands."""

    file: str
    """The path as the user wrote it."""
    data: Any
    places: Mapping[Path, tuple[Source, Source]]
    """Path → (place of the key, place of the value). A list's item has one place, given twice."""
    extends: tuple[Document, ...] = ()
    """What its `extends` names, already loaded."""


class _Marker:
    """A value that no YAML file can hold."""


WRONG = _Marker()
"""Stands where something unusable was written and has been complained about already."""
REMOVED = _Marker()
"""Stands where a `null` took away what a lower layer had."""


class Node(NamedTuple):
    """A value, where it stands, and where else it is used or overridden. Maps hold nodes, and so do lists."""

    value: Any
    at: Source
    key: Source
    also: tuple[Source, ...] = ()

    @property
    def place(self) -> Source:
        """Where to point a reader: a map is known by its key, a scalar by itself."""
        return self.key if isinstance(self.value, (dict, list)) else self.at

    @property
    def gone(self) -> bool:
        """Was it removed, or never really written?"""
        return self.value is None or self.value is REMOVED

    def get(self, *path: str) -> Node | None:
        """What stands below, or None when there is nothing there (null included)."""
        node = self
        for step in path:
            below = node.value.get(step) if isinstance(node.value, dict) else None
            if below is None or below.gone:
                return None
            node = below
        return node

    def items(self) -> Iterable[tuple[str, Node]]:
        """What a map holds, without what was removed. Nothing, if it is no map."""
        if not isinstance(self.value, dict):
            return ()
        return [(name, node) for name, node in self.value.items() if not node.gone]


def nodes(document: Document) -> Node:
    """A document as nodes."""
    return _node(document.data, (), document.places, document.file)


def _node(data: Any, path: Path, places: Mapping[Path, tuple[Source, Source]], file: str) -> Node:
    key, at = places.get(path) or (Source(file), Source(file))
    if isinstance(data, dict):
        return Node(
            {name: _node(value, (*path, name), places, file) for name, value in data.items()}, at, key
        )
    if isinstance(data, list):
        return Node([_node(value, (*path, index), places, file) for index, value in enumerate(data)], at, key)
    return Node(data, at, key)


def merge(low: Node, high: Node) -> Node:
    """Two layers as one: maps merge, lists and scalars replace, null removes. Remembers both places."""
    if isinstance(low.value, dict) and isinstance(high.value, dict):
        merged = dict(low.value)
        for name, node in high.value.items():
            below = merged.get(name)
            merged[name] = node if below is None else merge(below, node)
        return Node(merged, high.at, high.key, _places(high.also, (low.place,), low.also))
    if high.value is None and low.value is not None:
        return high._replace(value=REMOVED)
    return high


def borrowed(node: Node, user: Source) -> Node:
    """The same value, with the place that uses it noted on every part."""
    value = node.value
    if isinstance(value, dict):
        value = {name: borrowed(below, user) for name, below in value.items()}
    elif isinstance(value, list):
        value = [borrowed(below, user) for below in value]
    return Node(value, node.at, node.key, (*node.also, user))


def plain(node: Node) -> Any:
    """The value without its places. What is null or removed in a map is left out."""
    value = node.value
    if isinstance(value, dict):
        return {name: plain(below) for name, below in value.items() if not below.gone}
    if isinstance(value, list):
        return [plain(below) for below in value]
    return value


def places(node: Node, path: Path, into: dict[Path, Source]) -> None:
    """Note where each part of a value stands."""
    into[path] = node.place
    if isinstance(node.value, dict):
        for name, below in node.value.items():
            if not below.gone:
                places(below, (*path, name), into)
    elif isinstance(node.value, list):
        for index, below in enumerate(node.value):
            places(below, (*path, index), into)


def _places(*groups: tuple[Source, ...]) -> tuple[Source, ...]:
    """All of them, each once, in order."""
    return tuple(dict.fromkeys(place for group in groups for place in group))
