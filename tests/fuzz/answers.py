"""Answers that no platform gives, or only on its worst days, between the client and a sandbox that did the work."""

from __future__ import annotations

import gzip
import json
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import requests
from urllib3 import HTTPSConnectionPool
from urllib3.exceptions import ProtocolError, ReadTimeoutError

from tests.fuzz import mutations, scenes
from tests.fuzz.running import SECRET_FIELD, Ran, copied, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from btp_reconcile.sandbox import Sandbox
    from btp_reconcile.sandbox.http import Response

EVIL = (
    *(
        "https://evil.example/x",
        "http://evil.example",
        "https://evil.cfapps.eu10.hana.ondemand.com/v3/spaces",
    ),
    *(
        "https://api.cf.eu10.hana.ondemand.com.evil.example/",
        "https://api.cf.eu10.hana.ondemand.com@evil.example/",
    ),
    *(
        "https://evil.example\\.hana.ondemand.com/",
        "http://api.cf.eu10.hana.ondemand.com/v3",
        "//evil.example/x",
    ),
    *(
        "https://evil.example#.hana.ondemand.com",
        "https://api.cf.eu10.hana.ondemand.com:8443/v3",
        "file:///etc/passwd",
    ),
    *(
        "https://user:pw@evil.example/",
        "https://[::ffff:7f00:1]/",
        "https://2130706433/",
        "ftp://evil.example",
        "/v3",
        "",
    ),
    *(
        "https://аpi.cf.eu10.hana.ondemand.com",
        "javascript:alert(1)",
        "https://",
        "https://evil.example/\x1b[2J",
        "%",
    ),
)
STATUSES = (
    *(
        200,
        201,
        202,
        203,
        204,
        205,
        206,
        226,
        299,
        300,
        301,
        302,
        303,
        304,
        305,
        307,
        308,
        400,
        401,
        402,
        403,
        404,
        405,
    ),
    *(
        406,
        408,
        409,
        410,
        411,
        412,
        413,
        414,
        415,
        418,
        422,
        423,
        425,
        426,
        428,
        429,
        431,
        451,
        499,
        500,
        501,
        502,
        503,
    ),
    *(504, 505, 507, 511, 520, 599, 600, 999, 199, 0),
)
TIMES = (
    *(
        "-1",
        "0",
        "1",
        "7",
        "1e3",
        "3600",
        "999999999",
        "99999999999999999999",
        "NaN",
        "inf",
        "",
        "soon",
        "é",
        "5, 7",
    ),
    *(
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "Mon, 01 Jan 0001 00:00:00 GMT",
        "Thu, 01 Jan 1970 00:00:00 GMT",
        "0000-00-00",
    ),
    *(
        "Thu, 01 Jan 2026 00:10:00 GMT",
        "Thu, 01 Jan 2026 00:10:00 +9999",
        "Thu, 99 Foo 2026",
        "1767226000000",
        "1767226000",
    ),
    *(
        "2026-01-01 00:10:00.5 +0000 UTC m=+1.5",
        "9999-12-31 23:59:59 +0000 UTC",
        "2026-13-41 99:00:00 +0000 UTC",
    ),
)
HTML = b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\x00\x1b[31m</body>\r\n</html>\r\n"
LARGE = 20_000_000


def _secret(into: Any, key: Any) -> bool:
    """What stands in fields of secrets is not moved elsewhere: then it would be no secret any more."""
    below = into[key] if isinstance(into, (dict, list)) else None
    return isinstance(key, str) and bool(SECRET_FIELD.search(key)) and isinstance(below, (str, dict))


def _data(answer: Response) -> Any:
    try:
        return json.loads(answer.body)
    except ValueError:
        return {}


def _with(answer: Response, data: Any) -> Response:
    return replace(answer, body=json.dumps(data).encode("utf-8", "surrogatepass"))


def _header(answer: Response, name: str, value: str | None) -> Response:
    kept = tuple((key, text) for key, text in answer.headers if key.lower() != name.lower())
    return replace(answer, headers=kept if value is None else (*kept, (name, value)))


def _fields(rng: random.Random, request: Any, answer: Response) -> Response:
    data = _data(answer)
    keep = _secret if rng.random() < 0.9 else None
    changed = mutations.structure(rng, data, rng.choice([1, 1, 1, 2, 3, 10]), keep=keep or _secret)
    return _with(answer, changed)


def _every(rng: random.Random, request: Any, answer: Response) -> Response:
    """One field, in every object of the answer."""
    data = _data(answer)
    places = [one for one in mutations.spots(data) if isinstance(one[0], dict) and not _secret(*one)]
    if places:
        name = rng.choice(places)[1]
        odd = rng.choice(mutations.ODD)
        drop = rng.random() < 0.4
        for into, key in places:
            if key == name and key in into:
                if drop:
                    del into[key]
                else:
                    into[key] = odd
    return _with(answer, data)


def _root(rng: random.Random, request: Any, answer: Response) -> Response:
    return _with(answer, rng.choice(mutations.ODD))


def _cut(rng: random.Random, request: Any, answer: Response) -> Response:
    return replace(answer, body=answer.body[: rng.randint(0, len(answer.body))])


def _bytes(rng: random.Random, request: Any, answer: Response) -> Response:
    if b"secret" in answer.body or b"token" in answer.body:
        return _cut(rng, request, answer)
    return replace(answer, body=mutations.garble(rng, answer.body, rng.choice([1, 2, 5])))


def _page(rng: random.Random, request: Any, answer: Response) -> Response:
    found = _header(
        answer, "Content-Type", rng.choice(["text/html", "text/html; charset=utf-8", "", "x/\x00y"])
    )
    return replace(found, status=rng.choice([answer.status, 404, 502, 503]), body=HTML)


def _kind(rng: random.Random, request: Any, answer: Response) -> Response:
    kinds = [
        None,
        "text/plain",
        "text/html",
        "application/xml",
        "é",
        "a" * 5000,
        "application/json; charset=utf-7",
    ]
    return _header(answer, "Content-Type", rng.choice(kinds))


def _empty(rng: random.Random, request: Any, answer: Response) -> Response:
    return replace(answer, body=rng.choice([b"", b"", b" ", b"\n", b"null", b'""', b"\xef\xbb\xbf", b"\x00"]))


def _status(rng: random.Random, request: Any, answer: Response) -> Response:
    body = (
        answer.body
        if rng.random() < 0.5
        else rng.choice([b"", b"{}", b"[]", HTML, b'{"errors":[{}]}', b'{"error":{}}'])
    )
    return replace(answer, status=rng.choice(STATUSES), body=body)


def _redirect(rng: random.Random, request: Any, answer: Response) -> Response:
    return replace(
        _header(answer, "Location", rng.choice(EVIL)), status=rng.choice([301, 302, 303, 307, 308])
    )


def _links(rng: random.Random, request: Any, answer: Response) -> Response:
    """Addresses in the body and the headers that lead elsewhere."""
    data = _data(answer)
    evil = rng.choice(EVIL)
    hit = rng.choice([0.3, 1.0])
    for into, key in mutations.spots(data):
        value = into[key]
        if isinstance(value, str) and value.startswith("https://") and rng.random() < hit:
            into[key] = evil
        if key == "pagination" and isinstance(value, dict):
            value["next"] = {"href": rng.choice([evil, str(request.url), _another(rng, str(request.url))])}
    found = _with(answer, data)
    return (
        _header(found, "Location", evil) if any(name == "Location" for name, _ in answer.headers) else found
    )


def _another(rng: random.Random, url: str) -> str:
    return url + ("&" if "?" in url else "?") + f"page={rng.randint(2, 10**9)}"


def _onward(rng: random.Random, request: Any, answer: Response) -> Response:
    """A list that never ends."""
    data = _data(answer)
    if isinstance(data, dict) and "items" in data:
        data["token"] = rng.choice([str(rng.random()), "same", 7, "", "\x00", "é", "a" * 9000])
        if rng.random() < 0.3:
            data["items"] = []
    elif isinstance(data, dict) and "pagination" in data:
        data["pagination"] = {**(data["pagination"] or {}), "next": {"href": _another(rng, str(request.url))}}
        if rng.random() < 0.3:
            data["resources"] = []
    return _with(answer, data)


def _lists(rng: random.Random, request: Any, answer: Response) -> Response:
    data = _data(answer)
    how = rng.choice(["shuffle", "double", "halve", "null", "mixed"])
    for into, key in mutations.spots(data):
        value = into[key]
        if not isinstance(value, list) or not value:
            continue
        if how == "shuffle":
            rng.shuffle(value)
        elif how == "double":
            into[key] = [*value, *value]
        elif how == "halve":
            into[key] = value[::2]
        elif how == "null":
            into[key] = [*value, None]
        else:
            into[key] = [*value, {}, "x", 1]
    return _with(answer, data)


def _huge(rng: random.Random, request: Any, answer: Response) -> Response:
    how = rng.random()
    if how < 0.25:
        body = b" " * LARGE + answer.body
    elif how < 0.5:
        body = b"[" * 500_000
    elif how < 0.7:
        body = b'{"errors":[' + b",".join([b'{"detail":"' + b"x" * 90 + b'"}'] * 20_000) + b"]}"
    elif how < 0.85:
        body = json.dumps({"error": {"message": "x" * LARGE}}).encode()
    else:
        body = b"9" * rng.choice([4000, 5000, 200_000])
    return replace(answer, status=rng.choice([answer.status, 200, 500, 400]), body=body)


def _headers(rng: random.Random, request: Any, answer: Response) -> Response:
    for _ in range(rng.choice([1, 1, 3])):
        name = rng.choice(
            ["Retry-After", "Date", "X-RateLimit-Reset", "Location", "Content-Encoding", "X-CorrelationID"]
        )
        value = rng.choice(TIMES)
        if name == "Location":
            value = rng.choice([*EVIL, "/v3/jobs/none", "/v1/none", "x" * 9000])
        if name == "Content-Encoding":
            value = rng.choice(["gzip", "deflate", "br", "identity", "gzip, gzip", "é"])
        if name == "X-CorrelationID":
            value = rng.choice(["\x1b[2J", "é" * 400, "\u202e".encode().decode("latin-1"), ""])
        answer = _header(answer, name, value if rng.random() < 0.9 else None)
    if rng.random() < 0.4:
        answer = replace(answer, status=rng.choice([429, 503, 202, answer.status]))
    if rng.random() < 0.1:
        answer = _header(replace(answer, body=gzip.compress(answer.body)), "Content-Encoding", "gzip")
    if rng.random() < 0.1:
        answer = _header(answer, "Content-Length", rng.choice(["0", "1", "999999", "-1", "x", "é"]))
    if rng.random() < 0.1:
        answer = _header(replace(answer, status=404), "X-Cf-RouterError", "unknown_route")
    return answer


def _echo(rng: random.Random, request: Any, answer: Response) -> Response:
    """An error that repeats what it was sent in confidence."""
    body = request.body or b""
    sent = f"{request.headers.get('Authorization', '')} {body if isinstance(body, str) else body.decode('utf-8', 'replace')}"
    shapes: list[Any] = [
        {"errors": [{"title": "CF-X", "code": 1, "detail": sent}]},
        {"error": {"code": 1, "message": sent}},
        {"error": "BadRequest", "description": sent},
        {"error": "unauthorized", "error_description": sent},
        {"error": sent, "correlationID": sent},
        {"error": "x", "broker_error": {"StatusCode": 422, "Description": sent}},
    ]
    return _with(replace(answer, status=rng.choice([400, 401, 403, 422, 500, 502])), rng.choice(shapes))


def _broken(rng: random.Random, request: Any, answer: Response) -> Exception:
    return rng.choice(
        [
            requests.ConnectionError("Connection aborted."),
            requests.ReadTimeout("Read timed out."),
            requests.ConnectTimeout("timed out"),
            requests.exceptions.ChunkedEncodingError("broken"),
            requests.exceptions.SSLError("bad"),
            requests.exceptions.InvalidHeader("x"),
            requests.exceptions.ContentDecodingError("x"),
            ProtocolError("x"),
            ReadTimeoutError(HTTPSConnectionPool("h"), "/", "x"),
            ConnectionResetError(104, "reset"),
            TimeoutError("x"),
        ]
    )


CHANGES: tuple[Any, ...] = (
    *(
        _fields,
        _fields,
        _fields,
        _fields,
        _every,
        _every,
        _every,
        _root,
        _cut,
        _bytes,
        _page,
        _kind,
        _empty,
        _status,
    ),
    *(_status, _redirect, _links, _links, _onward, _lists, _lists, _headers, _headers, _echo, _broken),
)


class Liar:
    """Changes some answers: the n-th, each with a chance, or all of one place in the same way."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._how = rng.choice(["once", "once", "often", "place", "place"])
        self._at = rng.randint(0, rng.choice([6, 12, 50]))
        self._chance = rng.choice([0.03, 0.1, 0.5])
        self._change = _huge if rng.random() < 0.02 else rng.choice(CHANGES)
        self._place: tuple[str, str] | None = None
        self._count = 0
        self._pages: dict[str, Response] = {}
        self.told: list[str] = []

    def __call__(self, request: requests.PreparedRequest, answer: Response) -> Response | Exception:
        self._count += 1
        place = str(request.method), str(request.url).partition("?")[0].rpartition("/")[0]
        if self._how == "once" and self._count != self._at + 1:
            return answer
        if self._how == "often":
            if self._rng.random() > self._chance:
                return answer
            self._change = self._rng.choice(CHANGES)
        if self._how == "place":
            if self._place is None and self._count > self._at // 2:
                self._place = place
            if place != self._place:
                return answer
        if self._change is _onward:  # the pages that it invents are there
            answer = self._pages.setdefault(str(request.url).partition("?")[0], answer)
        found = self._change(self._rng, request, answer)
        self.told.append(f"{request.method} {request.url} {self._change.__name__}")
        return found


def case(index: int, folder: Path) -> Iterator[Ran]:
    """One command against a platform that lies; then the same against one that does not."""
    rng = random.Random(f"answers {index}")
    scene = scenes.SCENES[rng.choice(list(scenes.SCENES))]
    sandbox = copied(scenes.maker(scene.world))
    (folder / "spec.yaml").write_text(scene.spec, encoding="utf-8")
    verb = rng.choice([["apply", "--yes"], ["apply", "--yes"], ["apply", "--yes"], ["plan"], ["drift"]])
    more = [
        *(["--prune"] if verb[0] != "drift" and rng.random() < 0.3 else []),
        *(["--format", "json"] if rng.random() < 0.3 else []),
        *(["--log-format", "json"] if rng.random() < 0.1 else []),
        *(["--parallel", "4" if rng.random() < 0.2 else "1"]),
    ]
    environment = scenes.environment(sandbox)
    before = _strangers(sandbox)
    liar = Liar(rng)
    ran = run(
        [*verb, "spec.yaml", *more], folder=folder, sandbox=sandbox, environment=environment, changed=liar
    )
    told = [] if not ran.broken else [f"lies: {liar.told[-3:]}"]
    if _strangers(sandbox) != before:
        told.append(f"strangers were touched; lies: {liar.told[-3:]}")
    yield replace(ran, broken=(*ran.broken, *told))
    if verb[0] == "apply" and rng.random() < 0.3:
        yield run(["plan", "spec.yaml"], folder=folder, sandbox=sandbox, environment=environment)


def _strangers(sandbox: Sandbox) -> list[str]:
    """The things that nobody marked as ours, and that no spec adopts."""
    snapshot: Any = sandbox.snapshot()
    return [json.dumps(into[key]) for into, key in mutations.spots(snapshot) if key == "stranger"]
