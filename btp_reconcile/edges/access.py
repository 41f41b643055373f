"""Which door for which subaccount: credentials from the spec, the environment, or a session of the `cf` client.

Nothing here asks the platform. A door signs in at its first request, and where that request may go is checked then.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, cast

from btp_reconcile.core.errors import Blame, PlatformError, SpecError
from btp_reconcile.core.model import Problem, Secret, Subaccount
from btp_reconcile.edges.consumers import SINK
from btp_reconcile.edges.door import ServiceDoor
from btp_reconcile.edges.hosts import shown
from btp_reconcile.edges.tokens import JWT_BEARER, Credentials, People, SignIn, named

if TYPE_CHECKING:
    from btp_reconcile.core.catalogue import Catalogue
    from btp_reconcile.core.kind import Door
    from btp_reconcile.edges.client import Client
    from btp_reconcile.edges.consumers import SinkDoor
    from btp_reconcile.edges.verify import Verifier

CENTRAL = {"entitlements": "entitlements_service_url", "accounts": "accounts_service_url"}
KEY_VARIABLES = {
    "central": "BTP_CIS_CENTRAL_KEY",
    "service_manager": "BTP_SERVICE_MANAGER_KEY",
    "destination": "BTP_DESTINATION_KEY",
}
ENDPOINT = {"service_manager": "sm_url", "destination": "uri"}
"""Where a key of a service that has only one endpoint names it."""
CF_VARIABLES = {
    "username": "CF_USER",
    "password": "CF_PASSWORD",
    "origin": "CF_ORIGIN",
    "client_id": "CF_CLIENT_ID",
    "client_secret": "CF_CLIENT_SECRET",
    "assertion": "CF_ASSERTION_TOKEN",
    "access_token": "CF_ACCESS_TOKEN",
    "refresh_token": "CF_REFRESH_TOKEN",
}
LONGEST_ADDRESS = 1000
"""Characters of an endpoint, which leaves room for what is asked there."""
_OPENS = (
    (("username", "password"), "password"),
    (("assertion",), JWT_BEARER),
    (("access_token",), ""),
    (("refresh_token",), ""),
    (("client_id", "client_secret"), "client_credentials"),
)
"""What is enough to sign in, best first; a client alone comes last because it may also stand beside an assertion."""


class Sinks(Protocol):
    """All sinks of one run: `edges.consumers`."""

    def door(self, service: str, subaccount: Subaccount) -> SinkDoor:
        """The sink of that name, opened with the access of this subaccount."""


@dataclass(frozen=True)
class _Entrance:
    """An endpoint, and who signs in there."""

    endpoint: str
    who: Credentials
    token_url: str = ""
    """Empty: the endpoint itself says where (Cloud Foundry)."""


class Platform:
    """All doors of one run."""

    def __init__(
        self,
        client: Client,
        access: Mapping[str, Mapping[str, Any]],
        environment: Mapping[str, str],
        home: Path | None,
        consumers: Sinks | None = None,
        people: People | None = None,
    ) -> None:
        self._client = client
        self._consumers = consumers
        self._access = access
        self._environment = environment
        self._home = home
        self._lock = threading.RLock()
        self._doors: dict[tuple[str, str, str], ServiceDoor] = {}
        self._sign_ins: dict[tuple[str, str], SignIn] = {}
        self._roots: dict[str, _Root] = {}
        self._people = people or People()
        self._session: Mapping[str, Any] | None = None
        self._nameless: list[str] = []
        self._managers: dict[str, str] = {}
        self._entrusted: dict[tuple[str, str], Mapping[str, Any]] = {}
        self._prover: Verifier | None = None

    def has(self, service: str, subaccount: Subaccount) -> bool:
        """Are there credentials at all? Asks nobody; whether they are good shows when they are used."""
        if service.startswith(SINK):
            return self._consumers is not None
        if service == "cloud_foundry":
            return bool(self._cloud_foundry_api(subaccount) and self._cloud_foundry_fields(subaccount))
        return bool(self._key(_section(service), subaccount))

    def unassigned(self, service: str, subaccount: Subaccount) -> bool:
        """Is all there is a key of the environment, which opens one subaccount and does not say which?"""
        if service not in ENDPOINT or (service, subaccount.name) in self._entrusted:
            return False
        said = self._section_of(service, subaccount).get("service_key")
        return not said and bool(self._environment.get(KEY_VARIABLES[service]))

    def door(self, service: str, subaccount: Subaccount) -> Door:
        """What leads to a service, or to a sink: `sink/vault`."""
        if service.startswith(SINK):
            if self._consumers is None:
                raise ValueError("there are no sinks here")
            return cast("Door", self._consumers.door(service, subaccount))
        return self.service(service, subaccount)

    def service(self, service: str, subaccount: Subaccount) -> ServiceDoor:
        """A door that signs in at its first request. Equal endpoint and user: the same door.

        Raises SpecError when there are no credentials, or when they have not the shape that a sign-in needs.
        """
        with self._lock:
            if service == "cloud_foundry":
                entrance = self._cloud_foundry(subaccount)
            else:
                entrance = self._by_key(service, subaccount)
            _sendable(entrance, service if service == "cloud_foundry" else _section(service), subaccount)
            key = (service, entrance.endpoint, entrance.who.user)
            if service in ENDPOINT:
                self._one_subaccount(service, entrance, subaccount)
            if key not in self._doors:
                self._doors[key] = self._open(service, entrance, subaccount)
            return self._doors[key]

    def prover(self, catalogue: Catalogue) -> Verifier:
        """Who tries out keys; one in a run, because what an API takes at once counts for all of them together."""
        from btp_reconcile.edges.verify import Verifier  # planning does not need it, and starts sooner

        with self._lock:
            if self._prover is None:
                self._prover = Verifier(self._client, self._client.clock, catalogue)
            return self._prover

    def clock_off(self) -> float:
        """Seconds that our clock is ahead of the platform's, by the answers so far."""
        return self._client.clock_off()

    def _open(self, service: str, entrance: _Entrance, subaccount: Subaccount) -> ServiceDoor:
        return ServiceDoor(
            service=service,
            scope=f"{shown(entrance.endpoint)} as {entrance.who.user}",
            endpoint=entrance.endpoint,
            user=entrance.who.user,
            bearer=self._sign_in(entrance),
            client=self._client,
            others=lambda other: self.service(other, subaccount),
        )

    def _sign_in(self, entrance: _Entrance) -> SignIn:
        """One sign-in for all services that one user reaches with the same token."""
        place = entrance.token_url or entrance.endpoint
        key = (place, entrance.who.user)
        if key not in self._sign_ins:
            where: Callable[[], str] = lambda: place  # noqa: E731 - beside its twin it reads best
            if not entrance.token_url:
                where = self._roots.setdefault(place, _Root(self._client, place)).token_url
            self._sign_ins[key] = SignIn(
                entrance.who,
                token_url=where,
                post=self._client.post_form,
                clock=self._client.clock.now,
                platform_clock=lambda: self._client.now(entrance.endpoint),
                people=self._people,
            )
        return self._sign_ins[key]

    # --- service keys ------------------------------------------------------------------------------------

    def _section_of(self, section: str, subaccount: Subaccount) -> Mapping[str, Any]:
        given = self._access.get(subaccount.name, {}).get(section)
        if given is None:
            return {}
        if not isinstance(given, Mapping):
            _refuse(section, subaccount, "is no mapping", f"write access.{section} as a mapping")
        return given

    def entrust(self, service: str, subaccount: Subaccount, key: Mapping[str, Any]) -> None:
        """A service key that was read from the platform, in place of one that is given."""
        with self._lock:
            self._entrusted[_section(service), subaccount.name] = key

    def _key(self, section: str, subaccount: Subaccount) -> Any:
        entrusted = self._entrusted.get((section, subaccount.name))
        if entrusted is not None:
            return entrusted
        given = self._section_of(section, subaccount).get("service_key")
        if isinstance(given, Mapping):
            return given
        return _plain(given) or self._environment.get(KEY_VARIABLES[section], "")

    def _by_key(self, service: str, subaccount: Subaccount) -> _Entrance:
        section = _section(service)
        key = _read_key(self._key(section, subaccount), section, subaccount)
        if section == "central":
            endpoints = key.get("endpoints")
            endpoint = _plain(endpoints.get(CENTRAL[service])) if isinstance(endpoints, Mapping) else ""
            client = key.get("uaa")
            where = f"endpoints.{CENTRAL[service]}"
        else:
            where = ENDPOINT[section]
            endpoint, client = _plain(key.get(where)), key
        if not endpoint or not isinstance(client, Mapping):
            lacks = "uaa" if endpoint else where
            _refuse(section, subaccount, f"has no {lacks}", f"take a service key of {_OFFERING[section]}")
        who, token_url = _client_of(client, section, subaccount)
        if _plain(key.get("grant_type")) == "user_token":
            who = self._with_user(who, section, subaccount)
        return _Entrance(endpoint.rstrip("/"), who, token_url)

    def _with_user(self, who: Credentials, section: str, subaccount: Subaccount) -> Credentials:
        given = self._section_of(section, subaccount)
        name, password = _plain(given.get("username")), _plain(given.get("password"))
        if not name or not password:
            _refuse(
                section,
                subaccount,
                "is of grant type user_token, which needs a user",
                f"add username and password to access.{section}, or create the key with client credentials",
            )
        return replace(
            who,
            grant="password",
            user=f"{name} with {who.client_id}",
            username=name,
            password=_secret(f"{section} password", password),
            advice=f"check username and password of access.{section}",
        )

    def _one_subaccount(self, service: str, entrance: _Entrance, subaccount: Subaccount) -> None:
        """Such a key opens the one subaccount that it was made in, and does not say which."""
        first = self._managers.setdefault(f"{entrance.endpoint} {entrance.who.user}", subaccount.id)
        if first != subaccount.id:
            _refuse(
                service,
                subaccount,
                "is also used for another subaccount, and such a key opens only one",
                f"give each subaccount its own access.{service}",
                code="access/shared-key",
            )

    # --- Cloud Foundry -----------------------------------------------------------------------------------

    def _cloud_foundry_api(self, subaccount: Subaccount) -> str:
        given = _plain(self._section_of("cloud_foundry", subaccount).get("api"))
        place = subaccount.cloud_foundry
        return (given or (place.api if place is not None else "")).rstrip("/")

    def _cloud_foundry_fields(self, subaccount: Subaccount) -> dict[str, str]:
        """What there is to sign in with, from the first source that has anything: spec, environment, session."""
        given = self._section_of("cloud_foundry", subaccount)
        own = {name: text for name in CF_VARIABLES if (text := _plain(given.get(name)))}
        if set(own) - {"origin"}:
            return own
        around = {
            name: text
            for name, variable in CF_VARIABLES.items()
            if (text := self._environment.get(variable, ""))
        }
        if _opening(around) is not None:
            return around | own
        session = self._of_session(self._cloud_foundry_api(subaccount))
        return session or (around if set(around) - {"origin"} else {})

    def _cloud_foundry(self, subaccount: Subaccount) -> _Entrance:
        api, fields = self._cloud_foundry_api(subaccount), self._cloud_foundry_fields(subaccount)
        if not api:
            _refuse(
                "cloud_foundry",
                subaccount,
                "leads nowhere",
                f"say subaccounts.{subaccount.name}.cloud_foundry",
                code="access/none",
            )
        grant = _opening(fields)
        if grant is None:
            _refuse(
                "cloud_foundry",
                subaccount,
                f"holds only {' and '.join(sorted(fields))}, which is not enough to sign in"
                if fields
                else "is missing",
                "give username and password, client_id and client_secret, an assertion or a token, in access.cloud_foundry"
                " or as CF_* variables, or sign in with cf login",
                code="access/key" if fields else "access/none",
            )
        return _Entrance(api, self._cloud_foundry_user(fields, grant))

    def _cloud_foundry_user(self, fields: Mapping[str, str], grant: str) -> Credentials:
        secret = {name: _secret(f"cloud_foundry {name}", fields.get(name, "")) for name in CF_VARIABLES}
        origin = fields.get("origin", "")
        owner = fields.get("client_id", "cf")
        advice = "check access.cloud_foundry or the CF_* variables, and the origin if it is not SAP's own user base"
        who = Credentials("", grant, origin=origin, advice=advice)
        if grant == "password":
            user = fields["username"] + (f" ({origin})" if origin else "")
            return replace(who, user=user, username=fields["username"], password=secret["password"])
        if grant == "client_credentials":
            return replace(who, user=owner, client_id=owner, client_secret=secret["client_secret"])
        token = next(
            fields[name] for name in ("assertion", "access_token", "refresh_token") if fields.get(name)
        )
        return replace(
            who,
            user=self._name_of(token),
            client_id=owner,
            client_secret=secret["client_secret"],
            assertion=secret["assertion"] if grant == JWT_BEARER else None,
            access_token=None if grant == JWT_BEARER else secret["access_token"],
            refresh_token=None if grant == JWT_BEARER else secret["refresh_token"],
            advice=advice
            if grant == JWT_BEARER
            else "sign in again and hand over a new token, or run cf login",
        )

    def _name_of(self, token: str) -> str:
        """The user of a token, or a number for one that does not say."""
        name = named(token)
        if name:
            return name
        if token not in self._nameless:
            self._nameless.append(token)
        return f"the holder of token {self._nameless.index(token) + 1}"

    def _of_session(self, api: str) -> dict[str, str]:
        """The session of the `cf` client, if it is signed in at this very endpoint. Read, never written back."""
        session = self._session_file()
        target, client = _plain(session.get("Target")), _plain(session.get("UAAOAuthClient"))
        if not api or target.rstrip("/").lower() != api.lower():
            return {}
        access = _plain(session.get("AccessToken")).strip()
        scheme, _, rest = access.partition(" ")
        found = {
            "access_token": rest.strip() if scheme.lower() == "bearer" else access,
            "refresh_token": _plain(session.get("RefreshToken")),
        }
        tokens = {name: text for name, text in found.items() if text}
        if not tokens:
            return {}
        secret = _plain(session.get("UAAOAuthClientSecret"))
        return (
            tokens | ({"client_id": client} if client else {}) | ({"client_secret": secret} if secret else {})
        )

    def _session_file(self) -> Mapping[str, Any]:
        with self._lock:
            if self._session is None:
                own = self._environment.get("CF_HOME", "")
                folder = Path(own) if own else self._home
                try:
                    text = (
                        ""
                        if folder is None
                        else Path(folder, ".cf", "config.json").read_text(encoding="utf-8")
                    )
                    data = json.loads(text) if text else {}
                except (OSError, ValueError, RecursionError):
                    data = {}  # somebody else's file: what cannot be read is no session
                self._session = data if isinstance(data, Mapping) else {}
            return self._session


class _Root:
    """What a Cloud Foundry endpoint says of itself: where its users sign in. Asked once."""

    def __init__(self, client: Client, api: str) -> None:
        self._client = client
        self._api = api
        self._lock = threading.Lock()
        self._url = ""

    def token_url(self) -> str:
        """The token endpoint, checked to be one that credentials may go to."""
        with self._lock:
            if not self._url:
                self._url = self._found(self._client.read("cloud_foundry", self._api + "/"))
            return self._url

    def _found(self, data: Any) -> str:
        links = data.get("links") if isinstance(data, dict) else None
        for name in ("uaa", "login"):
            link = links.get(name) if isinstance(links, dict) else None
            href = link.get("href") if isinstance(link, dict) else None
            if isinstance(href, str) and href:
                self._client.check("cloud_foundry", href)
                return href.rstrip("/") + "/oauth/token"
        message = "the answer does not say where users sign in: is this the API endpoint of a Cloud Foundry?"
        raise PlatformError(Blame("cloud_foundry", "GET", shown(self._api), message=message))


_OFFERING = {
    "central": "cis with plan central",
    "service_manager": "service-manager with plan subaccount-admin",
    "destination": "destination with plan lite",
}


def _section(service: str) -> str:
    if service in CENTRAL:
        return "central"
    if service in KEY_VARIABLES:
        return service
    raise ValueError(f"there is no service {service!r}")


def _opening(fields: Mapping[str, str]) -> str | None:
    """The grant for which these fields are enough."""
    return next((grant for names, grant in _OPENS if all(fields.get(name) for name in names)), None)


def _plain(value: Any) -> str:
    if isinstance(value, Secret):
        return value.reveal()
    return value if isinstance(value, str) else ""


def _secret(name: str, value: str) -> Secret | None:
    return Secret(name, value) if value else None


def _refuse(
    section: str, subaccount: Subaccount, what: str, hint: str, *, code: str = "access/key"
) -> NoReturn:
    """Never with a word of the credentials themselves."""
    raise SpecError(
        [
            Problem(
                code,
                f"access.{section} of subaccount {subaccount.name} {what}",
                subaccount.source,
                hint=hint,
            )
        ]
    )


def _sendable(entrance: _Entrance, section: str, subaccount: Subaccount) -> None:
    """Variables and keys can hold what no request can: bytes that are no text, half characters, endless addresses."""
    held = [entrance.endpoint, entrance.token_url, *vars(entrance.who).values()]
    for value in held:
        text = value.reveal() if isinstance(value, Secret) else str(value)
        if text.encode("utf-8", "replace").decode() != text:
            _refuse(section, subaccount, "holds bytes that are not UTF-8", "set its variables anew, as UTF-8")
    if max(len(entrance.endpoint), len(entrance.token_url)) > LONGEST_ADDRESS:
        said = f"names an address of more than {LONGEST_ADDRESS:,} characters"
        _refuse(section, subaccount, said, "take the credentials anew from where they were made")


def _read_key(given: Any, section: str, subaccount: Subaccount) -> Mapping[str, Any]:
    """A service key as a mapping, without the wrapper that Cloud Foundry puts around it."""
    hint = f"give a service key of {_OFFERING[section]} as JSON, e.g. by ${{env:{KEY_VARIABLES[section]}}}"
    if not given:
        _refuse(section, subaccount, "is missing", hint, code="access/none")
    data = given
    if not isinstance(data, Mapping):
        try:
            data = json.loads(data)
        except (ValueError, RecursionError):
            data = None
    if not isinstance(data, Mapping):
        _refuse(section, subaccount, "is no JSON object", hint)
    inner = data.get("credentials")
    return inner if isinstance(inner, Mapping) else data


def _client_of(client: Mapping[str, Any], section: str, subaccount: Subaccount) -> tuple[Credentials, str]:
    """Who a key signs in as, and where: with a secret at `url`, or with a certificate at `certurl`."""
    name, secret = _plain(client.get("clientid")), _plain(client.get("clientsecret"))
    certificate, key = _pem(client.get("certificate")), _pem(client.get("key"))
    certified = bool(certificate and key)
    if certified:
        url = _plain(client.get("certurl")) or _plain(client.get("certUrl"))
    else:
        url = _plain(client.get("url"))
    if not name or not url or not (certified or secret):
        _refuse(
            section,
            subaccount,
            "lacks one of clientid, clientsecret and url, or of clientid, certificate, key and certurl",
            f"take a new service key of {_OFFERING[section]}; one with hidden secrets cannot be used",
        )
    who = Credentials(
        name,
        "client_credentials",
        client_id=name,
        client_secret=None if certified else _secret(f"{section} client secret", secret),
        certificate=_secret(f"{section} certificate", certificate) if certified else None,
        key=_secret(f"{section} private key", key) if certified else None,
        half_life=True,
        advice=f"check the service key of access.{section}; it may have been deleted or replaced",
    )
    url = url.rstrip("/")
    return who, url if url.endswith("/oauth/token") else url + "/oauth/token"


def _pem(value: Any) -> str:
    """A PEM text; its line ends may have been written as two characters on the way through an environment."""
    text = _plain(value).replace("\\n", "\n").strip()
    return text + "\n" if text.startswith("-----BEGIN") else ""
