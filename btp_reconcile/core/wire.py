"""What drivers need to talk to a service: filters that fit into a request line, and answers read with care.

An answer may lack a field or hold something else than documented. What is missing is told apart from what cannot
be understood; the latter is a `PlatformError`, never a KeyError.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from btp_reconcile.core.errors import Blame, PlatformError

if TYPE_CHECKING:
    from btp_reconcile.core.kind import Query

T = TypeVar("T")

LONGEST = 8000
"""Bytes of a request line that every service takes."""
KEPT_FREE = 200
"""Bytes of it for method, path, and what the client adds to turn pages."""
MOST = 200
"""Values in one filter."""
LONGEST_NAME = 255
"""Characters of the longest names; shorter texts always fit."""
LONGEST_TERM = 4000
"""Bytes that a name or an id may take in a request line, so that one always fits."""


# --- asking ---------------------------------------------------------------------------------------------


def batches(items: Iterable[T], terms: Callable[[T], Sequence[str]], beside: Query = ()) -> Iterator[list[T]]:
    """Groups of items whose filter fits into one request, next to the query `beside`, in order.

    `terms` gives the texts that an item adds to the filters; a text that two items share is written once.
    """
    room = LONGEST - KEPT_FREE - sum(_size(name) + _size(value) + 2 for name, value in beside)
    batch: list[T] = []
    written: set[str] = set()
    size = 0
    for item in items:
        own = dict.fromkeys(terms(item))
        cost = sum(_size(term) for term in own if term not in written)
        if batch and (len(batch) == MOST or size + cost > room):
            yield batch
            batch, written, size = [], set(), 0
            cost = sum(_size(term) for term in own)
        batch.append(item)
        written.update(own)
        size += cost
    if batch:
        yield batch


def _size(text: str) -> int:
    return len(quote(text, safe=""))


def cf_term(value: str) -> str:
    """One value of a Cloud Foundry list filter, with its comma: the API decodes each value once more."""
    return re.sub(r"[%,+]", lambda sign: quote(sign.group(), safe=""), value) + ","


def cf_list(values: Iterable[str]) -> str:
    """The value of a Cloud Foundry list filter: `a,b`, each value once."""
    return "".join(cf_term(value) for value in dict.fromkeys(values)).removesuffix(",")


def sm_term(value: str) -> str:
    """One value of a Service Manager list, quoted as its query language wants it, with its comma."""
    doubled = value.replace("'", "''")
    return f"'{doubled}', "


def sm_in(field: str, values: Iterable[str]) -> str:
    """A Service Manager criterion: `name in ('a', 'b')`, each value once."""
    listed = "".join(sm_term(value) for value in dict.fromkeys(values)).removesuffix(", ")
    return f"{field} in ({listed})"


def given(value: T | None, service: str, what: str) -> T:
    """The value, if it is known. What a write cannot do without is never guessed."""
    if value is None:
        raise PlatformError(
            Blame(service, message=f"{what} is not known, and nothing is sent without it; run again")
        )
    return value


# --- reading --------------------------------------------------------------------------------------------


class Item:
    """One JSON object of an answer. It never shows its content: there may be credentials in it."""

    __slots__ = ("_data", "_service", "_what")

    def __init__(self, data: object, service: str, what: str) -> None:
        self._service = service
        self._what = what
        if not isinstance(data, (dict, Mapping)):
            raise self.unclear(f"is {_type(data)}, not an object")
        self._data = data

    def __repr__(self) -> str:
        return f"<{self._what} of {self._service}>"

    def unclear(self, said: str) -> PlatformError:
        """What to raise when it makes no sense."""
        return PlatformError(
            Blame(self._service, message=f"an answer cannot be understood: {self._what} {said}")
        )

    def text(self, *path: str) -> str:
        """The text at a path; empty when there is none."""
        value = self._at(path)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self._wrong(path, value, "a text")
        return value

    def need(self, *path: str) -> str:
        """The text at a path, which must be there: a name or an id, short enough to stand in a request."""
        value = self.text(*path)
        if not value:
            raise self.unclear(f"has no {'.'.join(path)}")
        if len(value) > LONGEST_NAME and _size(value) > LONGEST_TERM:
            raise self.unclear(f"has {len(value):,} characters at {'.'.join(path)}, too many to ask for it")
        return value

    def flag(self, *path: str) -> bool | None:
        """true, false, or None when it is not said."""
        value = self._at(path)
        if value is not None and not isinstance(value, bool):
            raise self._wrong(path, value, "true or false")
        return value

    def number(self, *path: str) -> int | float | None:
        """A number, whole where it can be; None when it is not said."""
        value = self._at(path)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise self._wrong(path, value, "a number")
        return int(value) if value == int(value) else value

    def texts(self, *path: str) -> tuple[str, ...]:
        """A list of texts; empty when there is none."""
        value = self._at(path)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise self._wrong(path, value, "a list of texts")
        return tuple(value)

    def item(self, *path: str) -> Item:
        """The object at a path; an empty one when there is none."""
        value = self._at(path)
        return Item({} if value is None else value, self._service, f"{self._what}, {'.'.join(path)},")

    def items(self, *path: str) -> list[Item]:
        """The objects of a list; none when there is no list."""
        value = self._at(path)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self._wrong(path, value, "a list")
        return [Item(one, self._service, f"{self._what}, {'.'.join(path)},") for one in value]

    def mapping(self, *path: str) -> Mapping[str, Any]:
        """The plain object at a path, for what has no fixed shape (labels, errors)."""
        value = self._at(path)
        if value is not None and not isinstance(value, Mapping):
            raise self._wrong(path, value, "an object")
        return value or {}

    def only(self, names: Iterable[str]) -> Item:
        """The same object with nothing but these fields: what must not go further stays behind."""
        return Item(
            {name: self._data[name] for name in names if name in self._data}, self._service, self._what
        )

    def any(self, *path: str) -> Any:
        """Whatever stands there, for what comes in several shapes."""
        return self._at(path)

    def _at(self, path: Sequence[str]) -> Any:
        value: Any = self._data
        for index, step in enumerate(path):
            if value is None:
                return None
            if not isinstance(value, (dict, Mapping)):  # what JSON holds first: asking an ABC takes long
                raise self._wrong(path[:index], value, "an object")
            value = value.get(step)
        return value

    def _wrong(self, path: Sequence[str], value: object, due: str) -> PlatformError:
        return self.unclear(f"has {_type(value)} at {'.'.join(path)}, where {due} is due")


def rows(page: object, service: str, name: str, what: str) -> list[Item]:
    """The objects of one page of a list."""
    found = Item(page, service, f"a list of {what}s")
    if found.any(name) is None:
        raise found.unclear(f"has no {name}")
    return [Item(one, service, f"a {what}") for one in _list(found, name)]


def _list(page: Item, name: str) -> list[object]:
    value = page.any(name)
    if not isinstance(value, list):
        raise page.unclear(f"has {_type(value)} at {name}, where a list is due")
    return value


def moment(value: object) -> str:
    """A time as RFC 3339 in UTC, from a text or from epoch milliseconds; empty when it is not said."""
    if isinstance(value, str):
        return "" if value.startswith("0001-01-01") else value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 253402300800000:
        return ""
    return datetime.fromtimestamp(value / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def line(text: str, most: int = 300) -> str:
    """The platform's words on one line, cut where they get too long."""
    flat = " ".join(text.split())
    return flat if len(flat) <= most else flat[: most - 1] + "…"


def _type(value: object) -> str:
    names: dict[type, str] = {
        bool: "true or false",
        str: "a text",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), "nothing")
