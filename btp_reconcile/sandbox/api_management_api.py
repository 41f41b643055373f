"""The APIs behind a key of API Management: those of the API portal and those of the Developer Hub.

SAP-docs/btp-integration-suite "Accessing API Management APIs Programmatically", "Accessing Developer Hub APIs
Programmatically", "Monitor the Health of Certificates Using SAP Cloud ALM" and "Create API Management Destination":
each account has hosts of its own, and the role of the instance decides which paths a key opens (``MAY``). Lists are those
of OData 2.0. A request that writes needs an x-csrf-token of an earlier GET; what it would write is not emulated.

A capability that is not active is a path that nobody serves: 404. A subaccount of a seed may say ``capabilities:
{"api_management": false, "developer_hub": true}`` (both active where nothing is said; seeding again changes it), and
``api_management: {"proxies": [...], "products": [...], "virtual_hosts": [...], "applications": [...], "developers":
[...]}``: names, or objects.

Settings, where the platform's behaviour is nowhere published: ``apim_transport`` (200: the status that a GET of the
transport path gives an administrator's token).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Protocol
from xml.sax.saxutils import escape

from . import bearers
from .broker_credentials import ROLE_SCOPES
from .http import Refusal, Request, Response, Router, not_emulated

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .world import World

Json = dict[str, Any]

PORTAL = "{subdomain}-apiportal.cfapps.{region}.hana.ondemand.com"
HUB = "{subdomain}-devportal.cfapps.{region}.hana.ondemand.com"
FAMILY = "api-portal-xsuaa"

MANAGEMENT = "/apiportal/api/1.0/Management.svc"
CONFIGURATION = "/apiportal/operations/1.0/Configuration.svc"
TRANSPORT = "/api/1.0/transportmodule/Transport"
HEALTH = "/api/1.0/Health"
HUB_DATA = "/odata/1.0/data.svc"
REGISTRATIONS = "/api/1.0/registrations"

_READERS = ("APIPortal.Administrator", "APIPortal.Guest")
_SELF_SERVICE = ("APIManagement.SelfService.Administrator",)
_HUB_READERS = ("AuthGroup.API.Admin", "AuthGroup.API.ApplicationDeveloper")
MAY: Mapping[str, tuple[str, ...]] = {
    f"{MANAGEMENT}/APIProxies": _READERS,
    f"{MANAGEMENT}/APIProducts": _READERS,
    f"{MANAGEMENT}/$metadata": _READERS,
    f"{MANAGEMENT}/VirtualHosts": _SELF_SERVICE,
    f"{CONFIGURATION}/VirtualHostRequests": _SELF_SERVICE,
    TRANSPORT: ("APIPortal.Administrator",),
    HEALTH: (*_SELF_SERVICE, "AuthGroup.API.Admin"),
    f"{HUB_DATA}/APIMgmt.Applications": _HUB_READERS,
    REGISTRATIONS: ("AuthGroup.API.Admin",),
}
"""Which role opens which path."""

WRITERS = (
    "APIPortal.Administrator",
    *_SELF_SERVICE,
    "AuthGroup.API.Admin",
    "AuthGroup.API.ApplicationDeveloper",
)

# collection: type, key, member of the seed
_SETS: Mapping[str, tuple[str, str, str]] = {
    "APIProxies": ("apiportal.APIProxy", "name", "proxies"),
    "APIProducts": ("apiportal.APIProduct", "name", "products"),
    "VirtualHosts": ("apiportal.VirtualHost", "id", "virtual_hosts"),
    "APIMgmt.Applications": ("APIMgmt.Application", "id", "applications"),
}
_OPTIONS = ("$top", "$skip", "$format", "$inlinecount")
_LACKING = ("$filter", "$orderby", "$select", "$expand")


class ApiHandler(Protocol):
    """A route of API Management: it also gets the account."""

    def __call__(
        self, world: World, request: Request, account: Mapping[str, Any], **caught: str
    ) -> Response: ...


# ----------------------------------------------------------------------------------------------------------------------
# Who may


def _refusal(status: int, message: str, code: str = "") -> Refusal:
    body = {"error": {"code": code or str(status), "message": {"lang": "en", "value": message}}}
    return Refusal(Response.json(body, status, (bearers.CHALLENGE,) if status == 401 else ()))


def _route(
    capability: str, roles: Sequence[str], handler: ApiHandler
) -> Callable[[World, Request], Response]:
    """The account of the host, the capability, the token, the role, and for writes the token against forgery."""

    def answer(world: World, request: Request, **caught: str) -> Response:
        region, subdomain = request.place["region"], request.place["subdomain"]
        account = bearers.account_of(world, region, subdomain)
        if account is None:
            return bearers.no_application(request)
        if not _active(world, str(account["id"]), capability):
            return bearers.not_found(request)
        try:
            found = bearers.claims(world, request, region, subdomain)
        except bearers.Denied as denied:
            raise _refusal(denied.status, str(denied)) from denied
        scopes = [scope for role in roles for scope in ROLE_SCOPES[role]]
        if not bearers.has(found, FAMILY, *scopes):
            raise _refusal(403, "The token lacks the scope for this resource")
        forgery = _forgery(world, request, str(found["client_id"]))
        response = handler(world, request, account, **caught)
        return Response(response.status, (*response.headers, *forgery), response.body)

    return answer


def _active(world: World, guid: str, capability: str) -> bool:
    active: bool = world.rows("apim.capabilities").get(guid, {}).get(capability, True)
    return active


def _forgery(world: World, request: Request, client: str) -> tuple[tuple[str, str], ...]:
    """The x-csrf-token: given to a GET that fetches one, demanded from everything that writes."""
    sent = request.headers.get("x-csrf-token")
    if request.method in {"GET", "HEAD"}:
        if sent is None or sent.lower() != "fetch":
            return ()
        fetched = world.table("apim.csrf")[client] = world.new_secret(32).upper()
        return (("x-csrf-token", fetched),)
    if sent is None or sent != world.rows("apim.csrf").get(client):
        page = Response.text("CSRF token required", 403, headers=(("x-csrf-token", "Required"),))
        raise Refusal(page)
    return ()


# ----------------------------------------------------------------------------------------------------------------------
# OData 2.0


def _contents(world: World, account: Mapping[str, Any]) -> Json:
    found: Json = world.rows("apim.contents").get(str(account["id"]), {})
    return found


def _collection(name: str) -> ApiHandler:
    kind, key, member = _SETS[name]

    def answer(world: World, request: Request, account: Mapping[str, Any], **caught: str) -> Response:
        options = {option for option, _ in request.query if option.startswith("$")}
        if options & set(_LACKING):
            return not_emulated(world, request, **caught)
        if options - set(_OPTIONS):
            raise _refusal(400, f"The system query option {min(options - set(_OPTIONS))} is not known")
        rows = [
            {
                "__metadata": {
                    "id": request.url(request.host, f"{request.path}('{row[key]}')"),
                    "uri": request.url(request.host, f"{request.path}('{row[key]}')"),
                    "type": kind,
                },
                **row,
            }
            for row in _rows(world, account, name, key, member)
        ]
        return _listed(request, name, rows)

    return answer


def _rows(world: World, account: Mapping[str, Any], name: str, key: str, member: str) -> list[Json]:
    rows: list[Json] = _contents(world, account).get(member, [])
    if name == "VirtualHosts" and not rows:  # every account that is set up has its first one
        host = f"{account['subdomain']}.prod.apimanagement.{account['region']}.hana.ondemand.com"
        return [{key: "default", "name": "default", "virtual_host": host, "isDefault": True, "port": 443}]
    return rows


def _listed(request: Request, name: str, rows: list[Json]) -> Response:
    try:
        top, skip = bearers.whole(request, "$top"), bearers.whole(request, "$skip")
    except ValueError as error:
        raise _refusal(400, str(error)) from error
    if min(top or 0, skip or 0) < 0:
        raise _refusal(400, "$top and $skip are numbers from 0")
    count = request.one("$inlinecount") or "none"
    if count not in {"none", "allpages"}:
        raise _refusal(400, f"$inlinecount is none or allpages, not {count}")
    page = rows[skip or 0 :][: len(rows) if top is None else top]
    wanted = request.one("$format") or ("json" if "json" in request.headers.get("Accept", "") else "atom")
    if wanted not in {"json", "atom", "xml"}:
        raise _refusal(415, f"The format {wanted} is not supported")
    version = ("DataServiceVersion", "2.0")
    if wanted == "json":
        total = {"__count": str(len(rows))} if count == "allpages" else {}
        return Response.json({"d": {**total, "results": page}}, 200, (version,))
    entries = "".join(f"<entry><id>{escape(row['__metadata']['id'])}</id></entry>" for row in page)
    feed = f'<feed xmlns="http://www.w3.org/2005/Atom"><title>{name}</title>{entries}</feed>'
    return Response.text(feed, 200, "application/atom+xml;type=feed;charset=utf-8", (version,))


def _metadata(world: World, request: Request, account: Mapping[str, Any], **_: str) -> Response:
    del world, request, account
    namespace = "apiportal"
    mine = {name: row for name, row in _SETS.items() if row[0].startswith(f"{namespace}.")}
    types = "".join(
        f'<EntityType Name="{kind.partition(".")[2]}"><Key><PropertyRef Name="{key}"/></Key>'
        f'<Property Name="{key}" Type="Edm.String" Nullable="false"/></EntityType>'
        for kind, key, _ in mine.values()
    )
    sets = "".join(f'<EntitySet Name="{name}" EntityType="{row[0]}"/>' for name, row in mine.items())
    document = (
        '<?xml version="1.0" encoding="utf-8"?>'
        '<edmx:Edmx Version="1.0" xmlns:edmx="http://schemas.microsoft.com/ado/2007/06/edmx">'
        '<edmx:DataServices m:DataServiceVersion="2.0"'
        ' xmlns:m="http://schemas.microsoft.com/ado/2007/08/dataservices/metadata">'
        f'<Schema Namespace="{namespace}" xmlns="http://schemas.microsoft.com/ado/2008/09/edm">'
        f'{types}<EntityContainer Name="Management" m:IsDefaultEntityContainer="true">{sets}</EntityContainer>'
        "</Schema></edmx:DataServices></edmx:Edmx>"
    )
    return Response.text(document, 200, "application/xml;charset=utf-8", (("DataServiceVersion", "2.0"),))


# ----------------------------------------------------------------------------------------------------------------------
# The other endpoints


def _health(world: World, request: Request, account: Mapping[str, Any], **_: str) -> Response:
    """The health of certificates: when those of the virtual hosts end."""
    del request
    hosts = _rows(world, account, "VirtualHosts", "id", "virtual_hosts")
    certificates = [{"virtualHost": row.get("name", row["id"]), "status": "OK"} for row in hosts]
    return Response.json({"status": "OK", "certificates": certificates})


def _registrations(world: World, request: Request, account: Mapping[str, Any], **_: str) -> Response:
    kind = request.one("type")
    if kind not in {"registered", "pending"}:
        raise _refusal(400, "type is registered or pending")
    developers = _contents(world, account).get("developers", [])
    return Response.json([one for one in developers if one.get("type", "registered") == kind])


def _transport(world: World, request: Request, account: Mapping[str, Any], **_: str) -> Response:
    del request, account
    status = int(world.settings.get("apim_transport", 200))
    if status != 200:
        raise _refusal(status, "This request is not one for the transport module")
    return Response.json({"status": "OK"})


def _written(world: World, request: Request, account: Mapping[str, Any], **caught: str) -> Response:
    del account
    return not_emulated(world, request, **caught)


def _unknown(world: World, request: Request) -> Response:
    if bearers.account_of(world, request.place["region"], request.place["subdomain"]) is None:
        return bearers.no_application(request)
    return bearers.not_found(request)


def routes(router: Router) -> None:
    """What ``MAY`` lists, at the hosts that have it."""
    portal: dict[str, ApiHandler] = {
        f"{MANAGEMENT}/APIProxies": _collection("APIProxies"),
        f"{MANAGEMENT}/APIProducts": _collection("APIProducts"),
        f"{MANAGEMENT}/VirtualHosts": _collection("VirtualHosts"),
        f"{MANAGEMENT}/$metadata": _metadata,
        f"{CONFIGURATION}/VirtualHostRequests": _written,
        TRANSPORT: _transport,
        HEALTH: _health,
    }
    hub: dict[str, ApiHandler] = {
        f"{HUB_DATA}/APIMgmt.Applications": _collection("APIMgmt.Applications"),
        REGISTRATIONS: _registrations,
        HEALTH: _health,
    }
    for host, capability, paths in ((PORTAL, "api_management", portal), (HUB, "developer_hub", hub)):
        router.host(host, _unknown)
        for path, handler in paths.items():
            roles = MAY[path]
            router.add(host, "GET", path, _route(capability, roles, handler))
            writers = [role for role in roles if role in WRITERS]
            for method in ("POST", "PUT", "PATCH", "DELETE"):
                router.add(host, method, path, _route(capability, writers, _written))
    router.lacks(HUB, "GET", "/api/1.0/user")


def seed(world: World, document: Mapping[str, Any]) -> None:
    """Capabilities of accounts, and what is in them."""
    for spec in (document.get("subaccounts") or {}).values():
        for name, wanted in (spec.get("capabilities") or {}).items():
            world.table("apim.capabilities").setdefault(spec["id"], {})[name] = bool(wanted)
        if "api_management" in spec:
            row = world.table("apim.contents").setdefault(spec["id"], {})
            keys = {member: key for _, key, member in _SETS.values()} | {"developers": "userId"}
            for member, wanted in spec["api_management"].items():
                named = [{keys[member]: one} if isinstance(one, str) else dict(one) for one in wanted]
                row[member] = named


def snapshot(world: World) -> Json:
    """Capabilities and contents that were seeded, by the name of the subaccount."""
    names = {guid: row["name"] for guid, row in world.rows("subaccounts").items()}
    found: Json = {}
    for what in ("capabilities", "contents"):
        for guid, row in world.rows(f"apim.{what}").items():
            found.setdefault(names.get(guid, guid), {})[what] = json.loads(json.dumps(row))
    return {"api_management": found} if found else {}
