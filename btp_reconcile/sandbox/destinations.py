"""The Destination Service: destinations, certificates and fragments of subaccounts and of instances.

SAP/cloud-sdk-python src/sap_cloud_sdk/destination/spec, the swagger of the Destination Service in
SAP/crossplane-provider-btp, SAP-docs/btp-connectivity "Calling the Destination Service REST API". Secrets come back in
clear: whoever may read at all reads them. What is not published is decided by the settings of ``destination_rules`` and
``destination_find``.

This module owns the tables ``destinations``, ``destinations.certificates`` and ``destinations.fragments``, each with a
shelf of things by name for ``subaccount/ID`` and ``instance/ID``, and ``destinations.access``.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from . import accounts, brokers, destination_find, destination_query, destination_rules as rules, tokens
from .http import Request, Response, Router, https

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from .world import World

Json = dict[str, Any]

HOST = "destination-configuration.cfapps.{region}.hana.ondemand.com"
ROOT = "/destination-configuration"
URI_LIMIT = 4000
LEVELS = ("subaccount", "instance")
_MASTER = "destination-xsappname!"
_NAMED_ELSEWHERE = ("clientAssertion.destinationName", "assertionProvider")


@dataclass(frozen=True)
class Kind:
    """One of the three kinds of things; they behave alike."""

    path: str  # what stands behind the level in a path
    table: str
    name_field: str
    problem: Callable[[World, Mapping[str, Any]], str | None]


DESTINATIONS = Kind("Destinations", "destinations", "Name", rules.destination_problem)
CERTIFICATES = Kind("Certificates", "destinations.certificates", "Name", rules.certificate_problem)
FRAGMENTS = Kind("DestinationFragments", "destinations.fragments", "FragmentName", rules.fragment_problem)
KINDS = (DESTINATIONS, CERTIFICATES, FRAGMENTS)


@dataclass(frozen=True)
class Caller:
    """Whom a token speaks for: a subaccount, and the instance whose key asked for it."""

    subaccount_id: str
    instance_id: str

    def owner(self, level: str) -> str:
        return self.subaccount_id if level == "subaccount" else self.instance_id


@dataclass(frozen=True)
class Shelf:
    """The things of one kind that belong to one subaccount or instance."""

    world: World
    kind: Kind
    level: str
    owner: str

    @property
    def key(self) -> str:
        return f"{self.level}/{self.owner}"

    def rows(self) -> Mapping[str, Json]:
        """The things by name, for somebody who only reads."""
        found: Mapping[str, Json] = self.world.rows(self.kind.table).get(self.key, {})
        return found

    def _changing(self) -> dict[str, Json]:
        found: dict[str, Json] = self.world.table(self.kind.table).setdefault(self.key, {})
        return found

    def row(self, name: str) -> Json:
        """One thing, or 404."""
        row = self.rows().get(name)
        if row is None:
            raise rules.not_found(self.world)
        return row

    def put(self, properties: Mapping[str, str], shared: bool | None = None) -> Json:
        """Writes a thing whole; its labels stay, its ETag is another one with each write."""
        name = properties[self.kind.name_field]
        old = self.rows().get(name, {"labels": {}, "shared": False})
        row = {
            "properties": dict(properties),
            "etag": self.world.new_secret(64),
            "modified": self.world.now(),
            "labels": old["labels"],
            "shared": old["shared"] if shared is None else shared,
        }
        self._changing()[name] = row
        return row

    def label(self, name: str, labels: dict[str, list[str]]) -> None:
        self._changing()[name]["labels"] = labels

    def drop(self, name: str) -> None:
        rows = self._changing()
        del rows[name]
        if not rows:
            del self.world.table(self.kind.table)[self.key]


class _Handler(Protocol):
    """A route of one kind at one level."""

    def __call__(self, request: Request, shelf: Shelf, **caught: str) -> Response: ...


# ----------------------------------------------------------------------------------------------------------------------
# Routes


def routes(router: Router) -> None:
    """Every route of the service that the sandbox answers, and those it only names (501)."""
    router.host(HOST)
    table: tuple[tuple[str, str, _Handler], ...] = (
        ("GET", "", _list),
        ("POST", "", _create),
        ("PUT", "", _replace),
        ("PATCH", "", _change),
        ("DELETE", "", _delete_named),
        ("GET", "/{name}", _single),
        ("DELETE", "/{name}", _delete),
        ("GET", "/{name}/labels", _labels),
        ("PUT", "/{name}/labels", _set_labels),
        ("PATCH", "/{name}/labels", _change_labels),
    )
    for kind in KINDS:
        for level in LEVELS:
            base = f"{ROOT}/v1/{level}{kind.path}"
            for method, path, handler in table:
                if (kind, method, path) != (CERTIFICATES, "PATCH", ""):
                    router.add(HOST, method, base + path, functools.partial(_answer, handler, kind, level))
    router.add(HOST, "GET", f"{ROOT}/v1/destinations/{{name}}", _find)
    for method, path in (
        ("GET", "/v1/subaccountCertificates/{name}/publicKeys"),
        ("GET", "/v1/instanceCertificates/{name}/publicKeys"),
        ("GET", "/v1/saml2Metadata"),
        ("GET", "/v1/saml2Metadata/certificate"),
        ("POST", "/v1/saml2Metadata/certificate"),
        ("GET", "/v1/saml2Metadata/certificate/passive"),
        ("POST", "/v1/saml2Metadata/certificate/passive"),
        ("DELETE", "/v1/saml2Metadata/certificate/passive"),
        ("POST", "/v1/saml2Metadata/rotateCertificate"),
        ("GET", "/v2/destinations/{name}"),
        ("DELETE", "/maintenance/v1/caches/ias"),
    ):
        router.lacks(HOST, method, ROOT + path)


def _answer(
    handler: _Handler, kind: Kind, level: str, world: World, request: Request, **caught: str
) -> Response:
    caller = _caller(world, request)
    if level == "instance" and caller.instance_id not in world.rows("broker.instances"):
        raise rules.refusal(world, 404, "The service instance does not exist")
    return handler(request, Shelf(world, kind, level, caller.owner(level)), **caught)


def _caller(world: World, request: Request) -> Caller:
    """The caller of a request that is not too long; a token of another region or service opens nothing."""
    if len(https(request.host, request.raw_target)) > URI_LIMIT:
        status = int(world.settings.get("destination_uri_too_long", 414))
        raise rules.refusal(world, status, f"The URI is longer than {URI_LIMIT} characters")
    try:
        claims = tokens.claims(world, request)
    except tokens.Invalid as problem:
        raise rules.gateway(world, 401) from problem
    attributes = claims.get("ext_attr") or {}
    subaccount = world.rows("subaccounts").get(str(attributes.get("subaccountid") or claims.get("zid")))
    if subaccount is None or subaccount["region"] != request.place.get("region"):
        raise rules.gateway(world, 401)
    if not str(claims.get("client_id")).rpartition("|")[2].startswith(_MASTER):
        raise rules.gateway(world, int(world.settings.get("destination_foreign_token", 403)))
    return Caller(subaccount["id"], str(attributes.get("serviceinstanceid")))


# ----------------------------------------------------------------------------------------------------------------------
# ETags


def _etag(world: World, row: Json) -> tuple[str, str]:
    quoted = world.settings.get("destination_etags", "quoted") == "quoted"
    return "ETag", f'"{row["etag"]}"' if quoted else row["etag"]


def _matches(field: str, row: Json) -> bool:
    """Whether one of the versions of a header is the one of the row; ``*`` is any."""
    given = {one.strip().removeprefix("W/").strip('"') for one in field.split(",")}
    return bool(given & {"*", row["etag"]})


def _precondition(world: World, request: Request, row: Json) -> None:
    """412 when ``If-Match`` names other versions only."""
    wanted = request.headers.get("If-Match")
    if wanted is not None and not _matches(wanted, row):
        raise rules.refusal(world, 412, "Precondition Failed", (_etag(world, row),))


# ----------------------------------------------------------------------------------------------------------------------
# Reading


def _list(request: Request, shelf: Shelf, **_: str) -> Response:
    """GET: a bare array; without a page all of it."""
    return destination_query.answer(shelf.world, request, shelf.rows(), shelf.kind.name_field)


def _single(request: Request, shelf: Shelf, name: str = "", **_: str) -> Response:
    row = shelf.row(name)
    _precondition(shelf.world, request, row)
    known = request.headers.get("If-None-Match")
    if known is not None and _matches(known, row):
        return Response.empty(304, (_etag(shelf.world, row),))
    return Response.json(row["properties"], 200, (_etag(shelf.world, row),))


def _find(world: World, request: Request, name: str = "", **_: str) -> Response:
    """GET /destinations/{name}: that of the instance, else that of the subaccount."""
    caller = _caller(world, request)
    named = destination_query.metadata_of(world, request, frozenset({"labels"}))
    for level in reversed(LEVELS):
        owner = caller.owner(level)
        row = Shelf(world, DESTINATIONS, level, owner).rows().get(name)
        if row is None:
            continue
        _precondition(world, request, row)
        known = request.headers.get("If-None-Match")
        if known is not None and _matches(known, row):
            return Response.empty(304, (_etag(world, row),))
        certificates = {
            name: row
            for each in LEVELS[: LEVELS.index(level) + 1]
            for name, row in Shelf(world, CERTIFICATES, each, caller.owner(each)).rows().items()
        }
        found = destination_find.result(
            world,
            request,
            {
                "SubaccountId": caller.subaccount_id,
                "InstanceId": caller.instance_id if level == "instance" else None,
            },
            destination_find.with_fragments(
                world, request, row["properties"], Shelf(world, FRAGMENTS, level, owner).rows()
            ),
            certificates,
        )
        if named:
            found["destinationConfiguration"][rules.METADATA] = destination_query.metadata(row, named)
        return Response.json(found, 200, (_etag(world, row),))
    raise rules.not_found(world)


# ----------------------------------------------------------------------------------------------------------------------
# Writing


@dataclass(frozen=True)
class _Done:
    """What became of one thing of a body."""

    name: str
    status: int
    row: Json | None = None
    cause: str = ""

    def shown(self, metadata: list[str]) -> Json:
        shown: Json = {"name": self.name, "status": self.status}
        if self.cause:
            shown["cause"] = self.cause
        elif self.row is not None:
            shown["etag"] = self.row["etag"]
        if metadata and self.row is not None:
            shown[rules.METADATA] = destination_query.metadata(self.row, metadata)
        return shown


def _bodies(request: Request, shelf: Shelf) -> tuple[list[Json], bool]:
    """The things of a body, and whether it was an array of them."""
    data = rules.body_of(shelf.world, request)
    several = isinstance(data, list)
    bodies: list[Json] = data if several else [data]
    for body in bodies:
        if shelf.kind is CERTIFICATES and "Attributes" in body:
            raise rules.not_emulated(request, "certificates made from attributes")
        problem = rules.name_problem(shelf.world, shelf.kind.name_field, body.get(shelf.kind.name_field))
        if problem is not None:
            raise rules.bad(shelf.world, problem)
    return bodies, several


def _summary(done: list[_Done], good: int, metadata: list[str]) -> Response:
    """The answer to an array: the good status when all went well, else 207."""
    status = good if all(one.status == good for one in done) else 207
    return Response.json([one.shown(metadata) for one in done], status)


def _made(shelf: Shelf, body: Json) -> _Done:
    name = body[shelf.kind.name_field]
    shared = rules.sharing_of(shelf.world, body, shelf.level)
    problem = shelf.kind.problem(shelf.world, body)
    if problem is not None:
        return _Done(name, 400, None, problem)
    old = shelf.rows().get(name)
    if old is not None:
        return _Done(name, 409, old, rules.DUPLICATE)
    return _Done(name, 201, shelf.put(body, shared))


def _create(request: Request, shelf: Shelf, **_: str) -> Response:
    """POST: 201 without a body for one, 201 or 207 with the outcome of each for an array."""
    world = shelf.world
    allowed = destination_query.METADATA_NAMES - {"labels"}
    named = destination_query.metadata_of(world, request, allowed)
    bodies, several = _bodies(request, shelf)
    if several:
        return _summary([_made(shelf, body) for body in bodies], 201, named)
    done = _made(shelf, bodies[0])
    more = {rules.METADATA: destination_query.metadata(done.row, named)} if named and done.row else {}
    if done.cause:
        raise rules.refusal(world, done.status, done.cause, more=more)
    return Response.json(more, 201) if more else Response.empty(201)


def _replaced(request: Request, shelf: Shelf, body: Json) -> _Done:
    name = body[shelf.kind.name_field]
    shared = rules.sharing_of(shelf.world, body, shelf.level)
    problem = shelf.kind.problem(shelf.world, body)
    if problem is not None:
        return _Done(name, 400, None, problem)
    old = shelf.rows().get(name)
    if old is None:
        return _Done(name, 404, None, rules.NOT_FOUND)
    _precondition(shelf.world, request, old)
    return _Done(name, 200, shelf.put(body, shared))


def _replace(request: Request, shelf: Shelf, **_: str) -> Response:
    """PUT: the name stands in the body, and what the body does not say is lost."""
    bodies, several = _bodies(request, shelf)
    if several:
        if "If-Match" in request.headers:
            raise rules.bad(shelf.world, "If-Match cannot be used with an array")
        return _summary([_replaced(request, shelf, body) for body in bodies], 200, [])
    done = _replaced(request, shelf, bodies[0])
    if done.cause:
        raise rules.refusal(shelf.world, done.status, done.cause)
    return Response.json({"Count": 1})


def _change(request: Request, shelf: Shelf, **_: str) -> Response:
    """PATCH: what is given is written, null takes away, the rest stays; 204."""
    world = shelf.world
    (body, *more), _several = _bodies(request, shelf)
    if more or _several:
        raise rules.bad(world, "The request body must be a JSON object")
    row = shelf.row(body[shelf.kind.name_field])
    merged = {**row["properties"], **body}
    merged = {key: value for key, value in merged.items() if value is not None}
    problem = shelf.kind.problem(world, merged)
    if problem is not None:
        raise rules.bad(world, problem)
    shelf.put(merged)
    return Response.empty(204)


# ----------------------------------------------------------------------------------------------------------------------
# Deleting


def _users(shelf: Shelf, name: str) -> list[str]:
    """The destinations that name another one as the provider of their assertions."""
    if shelf.kind is not DESTINATIONS:
        return []
    return [
        other
        for other, row in shelf.rows().items()
        if other != name and any(row["properties"].get(key) == name for key in _NAMED_ELSEWHERE)
    ]


def _delete(request: Request, shelf: Shelf, name: str = "", **_: str) -> Response:
    """DELETE of one: ``{"Count":1}``; 400 while another destination uses it."""
    del request
    world = shelf.world
    if name not in shelf.rows():
        if world.settings.get("destination_delete_absent", "not-found") == "count":
            return Response.json({"Count": 0})
        raise rules.not_found(world)
    users = _users(shelf, name)
    if users:
        raise rules.bad(
            world,
            f"Cannot perform operation on the destination '{name}' because it is used as an assertion provider "
            f"for destination '{users[0]}'",
        )
    shelf.drop(name)
    return Response.json({"Count": 1})


def _delete_named(request: Request, shelf: Shelf, **_: str) -> Response:
    """DELETE of several: an in-list filter and nothing else; none of them goes while one is used by a stranger."""
    names = destination_query.names_in(request.one("$filter") or "")
    if names is None:
        raise rules.bad(shelf.world, "Query parameter $filter must be an in-list condition")
    names = list(dict.fromkeys(names))
    used = [name for name in names if name in shelf.rows() and set(_users(shelf, name)) - set(names)]
    if used:
        raise rules.bad(shelf.world, f'Unable to remove Configurations "[{", ".join(used)}]".')
    summary: list[Json] = []
    for name in names:
        if name in shelf.rows():
            shelf.drop(name)
            summary.append({"name": name, "status": "DELETED"})
        else:
            reason = "Could not find configuration"
            summary.append({"name": name, "status": "NOT_FOUND", "reason": reason})
    count = sum(one["status"] == "DELETED" for one in summary)
    return Response.json({"Count": count, "Summary": summary})


# ----------------------------------------------------------------------------------------------------------------------
# Labels


def _labels(request: Request, shelf: Shelf, name: str = "", **_: str) -> Response:
    del request
    return Response.json(rules.shown_labels(shelf.row(name)["labels"]))


def _json(world: World, request: Request) -> Any:
    try:
        return request.json()
    except (ValueError, RecursionError) as problem:
        raise rules.bad(world, "The request body is not valid JSON") from problem


def _set_labels(request: Request, shelf: Shelf, name: str = "", **_: str) -> Response:
    shelf.row(name)
    shelf.label(name, rules.labels_of(shelf.world, _json(shelf.world, request)))
    return Response.empty(204)


def _change_labels(request: Request, shelf: Shelf, name: str = "", **_: str) -> Response:
    row = shelf.row(name)
    shelf.label(name, rules.changed_labels(shelf.world, row["labels"], _json(shelf.world, request)))
    return Response.empty(204)


# ----------------------------------------------------------------------------------------------------------------------
# Seed, access, snapshot


def seed(world: World, document: Mapping[str, Any]) -> None:
    """``subaccounts.NAME.destinations``: a list of destinations; what is there by name stays."""
    for name, spec in (document.get("subaccounts") or {}).items():
        shelf = Shelf(world, DESTINATIONS, "subaccount", spec["id"])
        for properties in spec.get("destinations") or ():
            problem = rules.name_problem(world, "Name", properties.get("Name")) or rules.text_problem(
                properties
            )
            if problem is not None:
                raise ValueError(f"a destination of the subaccount '{name}': {problem}")
            if properties["Name"] not in shelf.rows():
                shelf.put(properties)


def access(world: World, url: Callable[[str, str], str] = https) -> Json:
    """A key of the Destination Service for every subaccount."""
    kept = world.table("destinations.access")
    keys = {}
    for row in world.table("subaccounts").values():
        entry = kept.get(row["id"])
        if entry is None:
            entry = kept[row["id"]] = brokers.issue(
                world, "destination", "lite", accounts.context_of(world, row)
            )
        keys[row["id"]] = brokers.localise_with(entry["credentials"], url)
    return {"destination": keys}


def snapshot(world: World) -> Json:
    """Destinations by subaccount and name, those of instances by subaccount, instance and name; the same for the rest.

    A client id or secret of a key that works is shown by the names of the key; any other secret by a short digest.
    """
    known = dict(_known(world))
    shown: Json = {kind.table: {} for kind in KINDS}
    for kind in KINDS:
        for key, rows in world.rows(kind.table).items():
            level, _, owner = key.partition("/")
            place = _place(world, level, owner)
            if place is None or not rows:
                continue
            below = shown[kind.table]
            for step in place:
                below = below.setdefault(step, {})
            for name, row in sorted(rows.items()):
                below[name] = _described(row, kind, known)
    return {
        "destinations": shown[DESTINATIONS.table].get("subaccount", {}),
        "instance_destinations": shown[DESTINATIONS.table].get("instance", {}),
        "destination_certificates": shown[CERTIFICATES.table],
        "destination_fragments": shown[FRAGMENTS.table],
    }


def _place(world: World, level: str, owner: str) -> tuple[str, ...] | None:
    """The names that lead to a shelf; None when its owner is gone."""
    if level == "subaccount":
        row = world.rows("subaccounts").get(owner)
        return None if row is None else (level, str(row["name"]))
    row = world.rows("broker.instances").get(owner)
    subaccount = world.rows("subaccounts").get(row["context"]["subaccount_id"]) if row else None
    if row is None or subaccount is None:
        return None
    return level, str(subaccount["name"]), _instance_name(row)


def _instance_name(row: Mapping[str, Any]) -> str:
    return str(row["context"].get("instance_name") or f"{row['offering']}/{row['plan']}")


def _described(row: Mapping[str, Any], kind: Kind, known: Mapping[str, str]) -> Json:
    described: Json = {
        name: known[value]
        if value in known
        else _digest(value)
        if rules.is_secret(name) or (kind is CERTIFICATES and name == "Content")
        else value
        for name, value in sorted(row["properties"].items())
    }
    if row["labels"]:
        described["$labels"] = {key: sorted(values) for key, values in sorted(row["labels"].items())}
    return described


def _digest(value: str) -> str:
    return "sha256:" + hashlib.sha256(value.encode()).hexdigest()[:12] if value else ""


def _known(world: World) -> Iterator[tuple[str, str]]:
    """Client ids and secrets of keys, with a text that names the key by subaccount, instance and key."""
    instances, subaccounts = world.rows("broker.instances"), world.rows("subaccounts")
    names = {**world.rows("sm.bindings"), **world.rows("cf.service_credential_bindings")}
    for guid, bound in world.rows("broker.bindings").items():
        client = world.rows("clients").get(bound["client"])
        instance = instances.get(bound["instance_id"])
        if client is None or instance is None:
            continue
        subaccount = subaccounts.get(instance["context"]["subaccount_id"], {}).get("name", "")
        key = names.get(guid, {}).get("name") or "key"
        told = f"{subaccount}/{_instance_name(instance)}/{key}"
        yield bound["client"], f"client of {told}"
        if client.get("secret"):
            yield client["secret"], f"secret of {told}"
