"""What faults make of answers: the platform's own refusals filled in, and good answers spoilt on their way out."""

from __future__ import annotations

import json
import random
import re
from datetime import UTC, datetime
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from btp_reconcile.sandbox.fault_catalogue import CATALOGUE, CF
from btp_reconcile.sandbox.http import Request, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from btp_reconcile.sandbox.world import World

_HOLE = re.compile(r"\{(\w+)(?::(\d+))?\}")
KEPT = frozenset({"errors", "details", "credentials", "parameters", "prompts"})
"""Members whose lists are not lists of things, or belong to users: their order stays."""


# ----------------------------------------------------------------------------------------------------------------------
# Answers that are given instead


def answer(world: World, request: Request, rule: Mapping[str, Any]) -> Response:
    """The answer that a rule gives: that of the catalogue, with what the rule says otherwise."""
    fault = CATALOGUE[rule["do"]]
    ready = fault.answer or {}
    status = int(rule.get("status", ready.get("status", 500)))
    facts = {
        **fault.defaults,
        **rule,
        "name": (rule.get("match") or {}).get("name", "busy"),
        "path": request.path,
        "host": request.host,
        "target": request.raw_target or request.path,
        "status": status,
        "phrase": _phrase(status),
    }
    body = rule["body"] if "body" in rule else _filled(ready.get("body", ""), world, facts)
    headers = {**ready.get("headers", {}), **(rule.get("headers") or {})}
    if not isinstance(body, str):
        body = json.dumps(body, separators=(",", ":"))
        headers.setdefault("Content-Type", "application/json")
    fields = tuple(
        (name, str(_filled(str(value), world, facts)))
        for name, value in headers.items()
        if value not in {None, ""}
    )
    response = Response(status, fields, body.encode())
    if fault.hosts != CF:
        return response
    from btp_reconcile.sandbox.cloud_controller.basics import dressed

    return dressed(world, request, response, ())


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def _filled(value: Any, world: World, facts: Mapping[str, Any]) -> Any:
    """A tree of JSON with its holes filled."""
    if isinstance(value, str):
        return _HOLE.sub(lambda hole: _fact(world, hole, facts), value)
    if isinstance(value, dict):
        return {key: _filled(below, world, facts) for key, below in value.items()}
    if isinstance(value, list):
        return [_filled(below, world, facts) for below in value]
    return value


def _fact(world: World, hole: re.Match[str], facts: Mapping[str, Any]) -> str:
    """``{in}`` and its sisters are a moment ``seconds`` ahead, or as many as stand in the hole itself."""
    name = hole[1]
    if name == "seconds":
        return str(int(facts["seconds"]))
    if name not in {"in", "ms", "date", "go"}:
        return str(facts.get(name, hole[0]))
    moment = int(world.now()) + int(hole[2] or facts.get("seconds", 0))
    if name == "date":
        return formatdate(moment, usegmt=True)
    if name == "go":
        return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S +0000 UTC")
    return str(moment * 1000) if name == "ms" else str(moment)


# ----------------------------------------------------------------------------------------------------------------------
# Answers that are spoilt


def spoil(world: World, rule: dict[str, Any], response: Response) -> Response:
    """The answer after a rule of this kind has struck; what was mutated is noted in the rule."""
    return _SPOIL[rule["do"]](world, rule, response)


def _with(response: Response, body: bytes, **fields: str) -> Response:
    """Another body, other fields; the length is counted anew."""
    new = {name.replace("_", "-").lower(): value for name, value in fields.items()}
    kept = [one for one in response.headers if one[0].lower() not in {"content-length", *new}]
    added = [(name.replace("_", "-"), value) for name, value in fields.items()]
    return Response(response.status, (*kept, *added), body)


def _option(rule: Mapping[str, Any], name: str) -> Any:
    return rule.get(name, CATALOGUE[rule["do"]].defaults.get(name))


def _empty(world: World, rule: dict[str, Any], response: Response) -> Response:
    del world
    bare = _with(response, b"")
    return Response(int(_option(rule, "status")), bare.headers)


def _truncated(world: World, rule: dict[str, Any], response: Response) -> Response:
    del world, rule
    return _with(response, response.body[: len(response.body) // 2])


def _reset(world: World, rule: dict[str, Any], response: Response) -> Response:
    """Half of the body, under the length of all of it."""
    del world, rule
    half = _with(response, response.body[: len(response.body) // 2])
    return Response(half.status, (*half.headers, ("Content-Length", str(len(response.body)))), half.body)


def _content_type(world: World, rule: dict[str, Any], response: Response) -> Response:
    del world
    return _with(response, response.body, Content_Type=str(_option(rule, "type")))


def _huge(world: World, rule: dict[str, Any], response: Response) -> Response:
    """Still the same JSON, with one member more; or many blanks, where it is none."""
    del world
    size = int(_option(rule, "size"))
    if response.body.startswith(b"{") and response.body.endswith(b"}") and len(response.body) > 2:
        return _with(response, response.body[:-1] + b',"padding":"' + b"x" * size + b'"}')
    return _with(response, response.body + b" " * size)


def _clock_skew(world: World, rule: dict[str, Any], response: Response) -> Response:
    moment = world.now() + float(_option(rule, "seconds"))
    kept = tuple(one for one in response.headers if one[0].lower() != "date")
    return Response(response.status, (*kept, ("Date", formatdate(moment, usegmt=True))), response.body)


def _mutated(world: World, rule: dict[str, Any], response: Response) -> Response:
    del world
    data = _json(response)
    dice = random.Random(f"{_option(rule, 'seed')}/{rule['struck']}")
    wanted = re.compile(str(_option(rule, "member")))
    places = [one for one in _members(data, "") if wanted.search(one[2])]
    if not places:
        rule["last"] = "nothing to change"
        return response
    holder, key, path = dice.choice(places)
    how = _option(rule, "how")
    if how == "any":
        how = dice.choice(("drop", "retype"))
    if how == "drop":
        del holder[key]
        rule["last"] = f"dropped {path}"
    else:
        holder[key] = dice.choice([other for other in STRANGERS if not _alike(other, holder[key])])
        rule["last"] = f"{path} became {json.dumps(holder[key])}"
    return _with(response, json.dumps(data, separators=(",", ":")).encode())


STRANGERS: tuple[Any, ...] = (None, True, 7, -1.5, "", "other", [], ["other"], {}, {"other": 7})


def _alike(one: Any, other: Any) -> bool:
    kinds = (bool, (int, float), str, list, dict, type(None))
    return any(isinstance(one, kind) and isinstance(other, kind) for kind in kinds)


def _members(value: Any, path: str) -> Iterator[tuple[dict[str, Any], str, str]]:
    """Every member of every object: what holds it, its name, and its path without the numbers of lists."""
    if isinstance(value, dict):
        for key, below in value.items():
            where = f"{path}.{key}" if path else key
            yield value, key, where
            yield from _members(below, where)
    elif isinstance(value, list):
        for below in value:
            yield from _members(below, path)


def _out_of_order(world: World, rule: dict[str, Any], response: Response) -> Response:
    del world
    data = _json(response)
    if data is None:
        return response
    dice = random.Random(f"{_option(rule, 'seed')}/{rule['struck']}")
    mixed = json.dumps(_shuffled(data, dice), separators=(",", ":"), ensure_ascii=False)
    return _with(response, mixed.encode())


def _shuffled(value: Any, dice: random.Random) -> Any:
    if isinstance(value, dict):
        return {key: below if key in KEPT else _shuffled(below, dice) for key, below in value.items()}
    if isinstance(value, list):
        below = [_shuffled(one, dice) for one in value]
        if all(isinstance(one, dict) for one in below):
            dice.shuffle(below)
        return below
    return value


def _json(response: Response) -> Any:
    try:
        return json.loads(response.body)
    except ValueError:
        return None


def _bent_before(world: World, rule: dict[str, Any], response: Response) -> Response:
    """Small pages are cut by the services themselves."""
    del world, rule
    return response


_SPOIL: dict[str, Callable[[World, dict[str, Any], Response], Response]] = {
    "empty": _empty,
    "truncated": _truncated,
    "reset": _reset,
    "content-type": _content_type,
    "huge": _huge,
    "mutated": _mutated,
    "out-of-order": _out_of_order,
    "small-pages": _bent_before,
    "clock-skew": _clock_skew,
}
SPOILING = frozenset(_SPOIL)
