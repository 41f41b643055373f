"""The query language of Service Manager: ``fieldQuery`` and ``labelQuery``.

Peripli/service-manager pkg/query/Query.g4 and selection.go, with the operator names of SAP-docs/btp-service-manager
"Filtering Parameters and Operators". One blank exactly stands between the words of a criterion; ``and`` is the only
conjunction.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_KEY = re.compile(r"[-_/a-zA-Z0-9\\]+")
_STRING = re.compile(r"'((?:''|[^'])*)'")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?(?:Z|[+-]\d{2}:\d{2})")
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")
_BOOLEAN = re.compile(r"true|false")
ONE = ("eq", "ne", "en", "contains", "gt", "ge", "lt", "le")
MANY = ("in", "notin")
ORDERED = frozenset({"gt", "ge", "lt", "le"})


class QueryError(ValueError):
    """The query is not in the language; the message is for the client."""


@dataclass(frozen=True)
class Criterion:
    """One ``key op literal``; ``kinds`` tells how each literal was written."""

    key: str
    operator: str
    values: tuple[str, ...]
    kinds: tuple[str, ...]


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def take(self, pattern: re.Pattern[str]) -> str | None:
        match = pattern.match(self.text, self.at)
        if match is None:
            return None
        self.at = match.end()
        return match[0]

    def expect(self, literal: str) -> None:
        if not self.text.startswith(literal, self.at):
            raise self.error()
        self.at += len(literal)

    def error(self) -> QueryError:
        rest = self.text[self.at : self.at + 20]
        return QueryError(
            f"error while parsing query \"{self.text}\" at column {self.at}: unexpected '{rest}'"
        )


_WORD = re.compile(r"[a-z]+")


def _value(reader: _Reader) -> tuple[str, str]:
    for kind, pattern in (("date", _DATE), ("number", _NUMBER), ("boolean", _BOOLEAN)):
        found = reader.take(pattern)
        if found is not None:
            return found, kind
    found = reader.take(_STRING)
    if found is None:
        raise reader.error()
    return found[1:-1].replace("''", "'"), "string"


def _criterion(reader: _Reader) -> Criterion:
    key = reader.take(_KEY)
    if key is None:
        raise reader.error()
    reader.expect(" ")
    start = reader.at
    operator = reader.take(_WORD)
    if operator in MANY:
        reader.expect(" ")
        reader.expect("(")
        values: list[tuple[str, str]] = []
        while not reader.text.startswith(")", reader.at):
            if values:
                reader.expect(",")
                if reader.text.startswith(" ", reader.at):
                    reader.at += 1
            values.append(_value(reader))
        reader.expect(")")
        return Criterion(key, str(operator), tuple(v for v, _ in values), tuple(k for _, k in values))
    if operator not in ONE:
        reader.at = start
        raise reader.error()
    reader.expect(" ")
    value, kind = _value(reader)
    return Criterion(key, str(operator), (value,), (kind,))


def parse(text: str, *, labels: bool) -> tuple[Criterion, ...]:
    """The criteria of a query, or a :class:`QueryError`."""
    if not text:
        raise QueryError("the query must not be empty")
    if "\n" in text:
        raise QueryError("the query contains a forbidden new line character")
    reader = _Reader(text)
    found = [_criterion(reader)]
    while reader.at < len(text):
        reader.expect(" and ")
        found.append(_criterion(reader))
    for criterion in found:
        _check(criterion, labels=labels)
    keys = [criterion.key for criterion in found]
    if labels and len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise QueryError(f"duplicate label query key: {twice}")
    return tuple(found)


def _check(criterion: Criterion, *, labels: bool) -> None:
    if labels and criterion.operator == "en":
        raise QueryError("nullable operations are supported only for field queries")
    if criterion.operator not in ORDERED:
        return
    if labels:
        raise QueryError(f"{criterion.operator} is supported only for field queries")
    if criterion.kinds[0] not in {"number", "date"}:
        raise QueryError(
            f"{criterion.operator} is numeric operator, but the right operand {criterion.values[0]} is not numeric"
        )


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _moment(text: str) -> tuple[str, str]:
    """A date-time in a form that compares: whole seconds, then the fraction filled up."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    return whole, fraction.ljust(9, "0")


def holds(criterion: Criterion, value: Any) -> bool:
    """Whether one value satisfies a criterion; a missing one satisfies only ``en``."""
    operator = criterion.operator
    if value is None:
        return operator == "en"
    text = _text(value)
    first = criterion.values[0] if criterion.values else ""
    if operator in {"eq", "en"}:
        return text == first or (criterion.kinds[0] == "date" and _moment(text) == _moment(first))
    if operator == "ne":
        return text != first
    if operator == "contains":
        return first in text
    if operator == "in":
        return text in criterion.values
    if operator == "notin":
        return text not in criterion.values
    return _ordered(operator, text, first, criterion.kinds[0])


def _ordered(operator: str, text: str, first: str, kind: str) -> bool:
    left: Any
    right: Any
    if kind == "date":
        left, right = _moment(text), _moment(first)
    else:
        try:
            left, right = float(text), float(first)
        except ValueError:
            return False
    return bool({"gt": left > right, "ge": left >= right, "lt": left < right, "le": left <= right}[operator])


Row = dict[str, Any]


def select(
    rows: Iterable[Row],
    fields: Mapping[str, Callable[[Row], Any]],
    field_query: str | None,
    label_query: str | None,
    labels: Callable[[Row], Mapping[str, list[str]]],
) -> list[Row]:
    """The rows that satisfy both queries; a field that nobody has is an error."""
    found = list(rows)
    if field_query is not None:
        for criterion in parse(field_query, labels=False):
            if criterion.key not in fields:
                raise QueryError(f"unsupported field query key: {criterion.key}")
            read = fields[criterion.key]
            found = [row for row in found if holds(criterion, read(row))]
    if label_query is not None:
        for criterion in parse(label_query, labels=True):
            found = [
                row
                for row in found
                if any(holds(criterion, value) for value in labels(row).get(criterion.key) or ())
            ]
    return found
