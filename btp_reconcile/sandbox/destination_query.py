"""How lists of the Destination Service are asked for: filters, names only, pages, metadata.

Swagger of the Destination Service in SAP/crossplane-provider-btp: a list has one mode at a time. ``$filter`` and
``$includeMetadata`` belong to the default mode and go together, ``$select`` and ``$page`` are modes of their own.
"""

from __future__ import annotations

import hashlib
import random
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from .destination_rules import METADATA, SHARED, bad, shown_labels
from .http import Request, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .world import World

Json = dict[str, Any]

METADATA_NAMES = frozenset({"modification_time", "etag", SHARED, "labels"})
_QUOTED = r"'[^']*'"
_LIST = rf"\(\s*({_QUOTED}(?:\s*,\s*{_QUOTED})*)\s*\)"
_IN = re.compile(rf"Name\s+in\s*{_LIST}")
_ENDS = re.compile(r"(startswith|endswith)\(\s*Name\s*,\s*'((?:[^']|'')*)'\s*\)")
_WITHIN = re.compile(r"modifiedwithin\(\s*'(\d{1,4})'\s*,\s*'minutes'\s*\)")
_LABEL = re.compile(rf"Label\['([^']+)'\]\s+HAS\s*{_LIST}")


def names_in(text: str) -> list[str] | None:
    """The names of ``Name in ('a','b')``, percent-encoded within the quotes; None when it is no such filter."""
    match = _IN.fullmatch(text.strip())
    return None if match is None else [unquote(item) for item in re.findall(r"'([^']*)'", match[1])]


def _test(world: World, text: str) -> Callable[[str, Json], bool]:
    names = names_in(text)
    if names is not None:
        wanted = set(names)
        return lambda name, _: name in wanted
    match = _ENDS.fullmatch(text.strip())
    if match is not None:
        part = match[2].replace("''", "'")
        if match[1] == "startswith":
            return lambda name, _: name.startswith(part)
        return lambda name, _: name.endswith(part)
    match = _WITHIN.fullmatch(text.strip())
    if match is not None and 1 <= int(match[1]) <= 1440:
        since = world.now() - 60 * int(match[1])
        return lambda _, row: bool(row["modified"] >= since)
    match = _LABEL.fullmatch(text.strip())
    if match is not None:
        key, values = match[1], set(re.findall(r"'([^']*)'", match[2]))
        return lambda _, row: values <= set(row["labels"].get(key, ()))
    raise bad(world, f"The filter '{text}' is not valid")


def metadata_of(world: World, request: Request, allowed: frozenset[str] = METADATA_NAMES) -> list[str]:
    """The names in ``$includeMetadata``."""
    text = request.one("$includeMetadata")
    if text is None:
        return []
    names = [name.strip() for name in text.split(";") if name.strip()]
    if not names or not set(names) <= allowed:
        raise bad(world, f"The value '{text}' of query parameter $includeMetadata is not valid")
    return names


def metadata(row: Json, names: list[str]) -> Json:
    """What ``$metadata`` says of a thing; times are milliseconds in a string."""
    known: Json = {
        "modification_time": str(int(row["modified"] * 1000)),
        "etag": row["etag"],
        SHARED: row["shared"],
        "labels": shown_labels(row["labels"]),
    }
    return {name: known[name] for name in names}


@dataclass(frozen=True)
class _Pages:
    number: int
    size: int
    pages: bool
    entities: bool


def _number(world: World, request: Request, name: str, default: int, most: int | None) -> int:
    text = request.one(name)
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < 1 or (most is not None and int(text) > most):
        raise bad(world, f"The value '{text}' of query parameter {name} is not valid")
    return int(text)


def flag(world: World, request: Request, name: str) -> bool:
    """A parameter that is true or false, and false when it is not there."""
    text = request.one(name)
    if text is None:
        return False
    if text.lower() not in {"true", "false"}:
        raise bad(world, f"The value '{text}' of query parameter {name} is not valid")
    return text.lower() == "true"


def _pages(world: World, request: Request) -> _Pages | None:
    if request.one("$page") is None:
        for name in ("$pageSize", "$pageCount", "$entityCount"):
            if request.one(name) is not None:
                raise bad(world, f"Query parameter {name} is allowed only together with $page")
        return None
    size = _number(world, request, "$pageSize", 10, 1000)
    return _Pages(
        _number(world, request, "$page", 1, None),
        min(size, world.bent.get("page_size", size)),
        flag(world, request, "$pageCount"),
        flag(world, request, "$entityCount"),
    )


def _ordered(world: World, rows: Mapping[str, Json]) -> list[tuple[str, Json]]:
    """No order is published, so nobody may rely on one: neither by name nor by age, but the same for each page."""
    found = sorted(rows.items(), key=lambda item: hashlib.sha256(item[0].encode()).digest())
    if "shuffle" in world.bent:
        random.Random(world.bent["shuffle"]).shuffle(found)
    return found


def answer(world: World, request: Request, rows: Mapping[str, Json], name_field: str) -> Response:
    """The list that a request asks for: a bare JSON array in each mode."""
    given = {name for name, _ in request.query}
    for one, other in (
        ("$filter", "$select"),
        ("$filter", "$page"),
        ("$select", "$page"),
        ("$includeMetadata", "$select"),
        ("$includeMetadata", "$page"),
    ):
        if {one, other} <= given:
            raise bad(world, f"Query parameter {one} cannot be combined with {other}")
    select, pages = request.one("$select"), _pages(world, request)
    named = metadata_of(world, request)
    found = _ordered(world, rows)
    if select is not None:
        if select != "Name":
            raise bad(world, f"The value '{select}' of query parameter $select is not valid")
        return Response.json([{name_field: name} for name, _ in found])
    text = request.one("$filter")
    if text is not None:
        holds = _test(world, text)
        found = [(name, row) for name, row in found if holds(name, row)]
    headers: tuple[tuple[str, str], ...] = ()
    if pages is not None:
        headers = _headers(request, pages, len(found))
        start = (pages.number - 1) * pages.size
        found = found[start : start + pages.size]
    if not named:
        return Response.json([row["properties"] for _, row in found], 200, headers)
    return Response.json([{**row["properties"], METADATA: metadata(row, named)} for _, row in found])


def _headers(request: Request, pages: _Pages, entities: int) -> tuple[tuple[str, str], ...]:
    count = -(-entities // pages.size)
    where = quote(request.path.rpartition("/")[2])
    links = [
        f"</{where}?$page={number}&$pageSize={pages.size}>; rel='{relation}'"
        for number, relation in ((pages.number - 1, "previous"), (pages.number + 1, "next"))
        if 1 <= number <= count
    ]
    headers: tuple[tuple[str, str], ...] = (("Link", ", ".join(links)),) if links else ()
    if pages.pages:
        headers += (("Page-Count", str(count)),)
    if pages.entities:
        headers += (("Entity-Count", str(entities)),)
    return headers
