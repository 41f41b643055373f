"""A version in a KV v2 secrets engine of HashiCorp Vault or OpenBao.

What is looked at is `metadata/…` alone; no secret is ever read. Whose a secret is stands in its `custom_metadata`:
owner, spec, delivery, the key's guid, its generation, and the number of the version that was delivered.

**Order of writing.** First, where it is not there yet, the claim (owner, spec, delivery); then the data, by check-and-set;
then the claim again with key, generation and version. The number is written only by who made that version. So a run
that is killed anywhere leaves something that is known as ours and does not say that it was delivered; and a version that
somebody else wrote in between is never taken for ours. Delivering again is harmless: it makes one more version.

What the policy of the sign-in must allow: read, create and update on `MOUNT/metadata/PATH`, create and update on
`MOUNT/data/PATH`. ("KV secrets engine, version 2 (API)", sections "Create/update secret", "Read secret metadata", "Create/update
metadata".)
"""

from __future__ import annotations

import http.cookiejar
import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from btp_reconcile import __version__
from btp_reconcile.core.digest import plain
from btp_reconcile.core.errors import (
    Blame,
    LostResponse,
    PlatformError,
    SignInRefused,
    SpecError,
    Unreachable,
)
from btp_reconcile.core.model import Problem, Secret
from btp_reconcile.core.said import asked_wait, line, scrubbed
from btp_reconcile.core.sink import Held, Identity
from btp_reconcile.sinks._parcel import from_folder, secrets_of, unsecret
from btp_reconcile.sinks._proxy import proxy_for

if TYPE_CHECKING:
    from btp_reconcile.core.model import Data
    from btp_reconcile.core.sink import Around, Parcel

TOKEN_FILE = "/var/run/secrets/kubernetes.io/serviceaccount/token"
"""Where a pod finds the token of its service account ("Configure Service Accounts for Pods", Kubernetes)."""
MARK = "btp-reconcile-"
_SIGN_INS = ("token", "approle", "kubernetes", "jwt")
_NEEDS = {"approle": ("role_id", "secret_id"), "kubernetes": ("role",), "jwt": ("role", "jwt")}
_OPEN = ("role", "mount", "token_file")
"""What of a sign-in is no secret."""
_LONGEST_MESSAGE = 500


def _map(
    title: str, description: str, required: tuple[str, ...], properties: dict[str, Any]
) -> dict[str, Any]:
    return {
        "title": title,
        "description": description,
        "type": "object",
        "additionalProperties": False,
        **({"required": [*required]} if required else {}),
        "properties": properties,
    }


def _ref(name: str, description: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name}", "description": description}


SCHEMA: Data = _map(
    "a secret in Vault",
    "A version of a secret in a KV v2 secrets engine of Vault or OpenBao.",
    ("path",),
    {
        "path": _ref("text", "Mount and path of the secret: secret/apim/pipeline."),
        "mount": _ref("text", "The engine's mount, if it is not the first part of the path: team/kv."),
        "key": _ref(
            "text", "Keep all credentials as one JSON text under this name, in place of a name each."
        ),
    },
)

ACCESS: Data = _map(
    "access to Vault",
    "Where Vault or OpenBao is, and one way to sign in. Default: VAULT_ADDR, VAULT_TOKEN, VAULT_NAMESPACE, VAULT_CACERT.",
    (),
    {
        "address": _ref("endpoint", "Its URL: https://vault.example.com:8200."),
        "namespace": _ref("referable", "The namespace."),
        "ca_file": _ref("path", "Certificates to trust, as a PEM file; a path from the spec's folder."),
        "token": _ref("secret", "A token."),
        "approle": _map(
            "sign-in by AppRole",
            "Sign in by AppRole.",
            _NEEDS["approle"],
            {
                "role_id": _ref("referable", "The role's ID."),
                "secret_id": _ref("secret", "A secret ID of the role."),
                "mount": _ref("referable", "Mount of the method. Default approle."),
            },
        ),
        "kubernetes": _map(
            "sign-in as a pod",
            "Sign in with the token of a pod's service account.",
            _NEEDS["kubernetes"],
            {
                "role": _ref("referable", "The role."),
                "mount": _ref("referable", "Mount of the method. Default kubernetes."),
                "token_file": _ref(
                    "path", f"File with the token; a path from the spec's folder. Default {TOKEN_FILE}."
                ),
            },
        ),
        "jwt": _map(
            "sign-in by JWT",
            "Sign in with a JWT, for instance the ID token of a pipeline.",
            _NEEDS["jwt"],
            {
                "role": _ref("referable", "The role."),
                "jwt": _ref("secret", "The token."),
                "mount": _ref("referable", "Mount of the method. Default jwt."),
            },
        ),
    },
)


class VaultSink:
    """The sink `vault`."""

    name = "vault"
    title = "a version in a KV v2 secrets engine"
    schema: Data = SCHEMA
    access: Data | None = ACCESS
    extra = "vault"
    can_look = True

    def objections(self, block: Data) -> tuple[str, ...]:  # noqa: ARG002 - its schema says it all
        return ()

    def place(self, block: Data) -> str:
        mount = str(block.get("mount", "")).strip("/")
        return f"{mount}/{block['path']}" if mount else str(block["path"])

    def located(self, access: Data, folder: str) -> Data:
        found = from_folder(access, "ca_file", folder)
        pod = found.get("kubernetes")
        if isinstance(pod, Mapping):
            found = {**found, "kubernetes": from_folder(pod, "token_file", folder)}
        return found

    def open(self, access: Data, around: Around) -> _Vault:
        """Asks nobody. Raises SpecError, and ModuleNotFoundError when the extra is not installed."""
        import hvac  # noqa: F401 - missing, it is missing before anything is done

        return _Vault(_Door(_wanted(access, around), around), around.now)


# --- access ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Wanted:
    """Where to go and as whom."""

    address: str
    namespace: str
    verify: str | bool
    way: str
    """`token`, `approle`, `kubernetes` or `jwt`."""
    who: Mapping[str, Any] = field(repr=False)
    advice: str


def _text(value: Any) -> str:
    """A text of the access; files often end with a line break."""
    return unsecret(value).strip()


def _refused(message: str, hint: str, code: str = "access/none") -> SpecError:
    return SpecError([Problem(code, message, hint=hint)])


def _wanted(access: Data, around: Around) -> _Wanted:
    environment = around.environment
    address = (_text(access.get("address")) or environment.get("VAULT_ADDR", "").strip()).rstrip("/")
    if not address:
        raise _refused(
            "access.vault has no address", "write access.vault.address, or set the variable VAULT_ADDR"
        )
    ways = [way for way in _SIGN_INS if access.get(way)]
    if len(ways) > 1:
        raise _refused(
            f"access.vault gives {' and '.join(ways)}", "give one way to sign in", code="access/key"
        )
    way = ways[0] if ways else "token"
    given = access.get(way)
    if way == "token":
        token = _text(given) or environment.get("VAULT_TOKEN", "").strip()
        if not token:
            hint = f"give one of {', '.join(_SIGN_INS)} in access.vault, or set the variable VAULT_TOKEN"
            raise _refused("access.vault has no way to sign in", hint)
        who = {"token": Secret("access.vault.token", token)}
    else:
        who = dict(given) if isinstance(given, Mapping) else {}
        lacking = [name for name in _NEEDS[way] if not _text(who.get(name))]
        if lacking:
            raise _refused(
                f"access.vault.{way} has no {' and no '.join(lacking)}",
                f"write access.vault.{way}.{lacking[0]}",
            )
    authorities = _text(access.get("ca_file"))
    trusted = around.folder(authorities) if authorities else environment.get("VAULT_CACERT", "").strip()
    return _Wanted(
        address,
        _text(access.get("namespace")) or environment.get("VAULT_NAMESPACE", "").strip(),
        trusted or environment.get("REQUESTS_CA_BUNDLE") or environment.get("CURL_CA_BUNDLE") or True,
        way,
        who,
        f"check access.vault.{way}" if given else "check the variable VAULT_TOKEN",
    )


# --- requests -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Answer:
    """One answer as far as it is needed."""

    method: str
    path: str
    status: int
    data: Any
    """Its JSON; None when there is none."""
    headers: Mapping[str, str]

    @property
    def good(self) -> bool:
        return 200 <= self.status < 300

    @property
    def errors(self) -> tuple[str, ...]:
        said = self.data.get("errors") if isinstance(self.data, Mapping) else None
        return tuple(str(one) for one in said) if isinstance(said, list) else ()

    @property
    def nothing(self) -> bool:
        """Is it the engine's own word that there is no such secret? A missing engine says why in `errors`."""
        known = isinstance(self.data, Mapping) and self.data.get("errors") == []
        return self.status == 404 and known

    def body(self) -> Mapping[str, Any]:
        found = self.data.get("data") if isinstance(self.data, Mapping) else None
        return found if isinstance(found, Mapping) else {}


class _Door:
    """The way to one server: signs in at the first request, once more when a token is refused, and never again after
    the sign-in itself was refused. A token that was given is used as it is. Any number of threads.
    """

    def __init__(self, wanted: _Wanted, around: Around) -> None:
        self.wanted = wanted
        self._around = around
        self._lock = threading.Lock()
        self._client: Any = None
        self._clients: list[Any] = []
        self._refusal: Blame | None = None

    def close(self) -> None:
        with self._lock:
            for client in self._clients:
                client.adapter.close()
            self._clients.clear()
            self._client = None

    def ask(
        self, call: Callable[[Any], Any], *, write: bool = False, secrets: tuple[str, ...] = ()
    ) -> _Answer:
        """The answer to a call of hvac, a bad one too. Raises PlatformError and its kin when there is none."""
        client = self._signed_in(None)
        answer = self._send(client, call, write=write)
        if answer.status == 403 and self.wanted.way != "token":
            answer = self._send(self._signed_in(client), call, write=write)
        if 300 <= answer.status < 400 or answer.status in {429, 500, 502, 503, 504}:
            raise self.refusal(answer, "", secrets, lost=write and answer.status in {500, 502, 504})
        return answer

    def refusal(
        self, answer: _Answer, message: str, secrets: tuple[str, ...] = (), *, lost: bool = False
    ) -> PlatformError:
        """The error for a bad answer: our words, then the server's."""
        if 300 <= answer.status < 400:
            target = _shown(answer.headers.get("Location", "")) or "nowhere"
            message = (
                f"a redirect to {target}, which is not followed: credentials go only where they were meant to go; "
                "give the address of the active node"
            )
        secrets = (*secrets, *self._confided())
        said = line(scrubbed("; ".join(answer.errors), secrets), _LONGEST_MESSAGE)
        message = line(scrubbed(message, secrets))
        request = answer.data.get("request_id") if isinstance(answer.data, Mapping) else None
        blame = Blame(
            "vault",
            answer.method,
            f"{_shown(self.wanted.address)}/v1/{answer.path}",
            answer.status,
            message=": ".join(part for part in (message, said) if part) or f"status {answer.status}",
            correlation=line(scrubbed(str(request or ""), secrets), 100),
            repeatable=answer.status in {412, 429, 503} or (answer.status >= 500 and not lost),
            wait=asked_wait(answer.headers, answer.status, self._around.now()),
        )
        return LostResponse(blame) if lost else PlatformError(blame)

    def _confided(self) -> tuple[str, ...]:
        """What every request of ours may hold: what it signs in with, and the tokens it got."""
        given = (unsecret(value) for name, value in self.wanted.who.items() if name not in _OPEN)
        tokens = (str(client.token or "") for client in list(self._clients))
        return tuple(text.strip() for text in (*given, *tokens) if text.strip())

    def forbidden(self, answer: _Answer, needs: str) -> PlatformError:
        """The error for a 403, which means either the token or its policies; asking about the token tells which."""
        if self.wanted.way == "token":
            about = self._send(self._signed_in(None), lambda client: client.auth.token.lookup_self())
            if about.status == 403:
                return self._remembered(
                    self.refusal(about, f"the token is not accepted; {self.wanted.advice}")
                )
        return self.refusal(answer, f"no right to {answer.method} {answer.path}; {needs}")

    # --- signing in --------------------------------------------------------------------------------------

    def _signed_in(self, refused: Any) -> Any:
        """A client with a token; another one than the one whose token was refused."""
        with self._lock:
            if self._refusal is not None:
                raise SignInRefused(self._refusal)
            if self._client is None or self._client is refused:
                way = self.wanted.way
                token = _text(self.wanted.who["token"]) if way == "token" else self._token(way)
                self._client = self._connect(token)
                self._clients.append(self._client)
            return self._client

    def _token(self, way: str) -> str:
        who = self.wanted.who
        mount = _text(who.get("mount")) or way
        secret = self._shown_by(way)

        def sign_in(client: Any) -> Any:
            if way == "approle":
                role = _text(who["role_id"])
                return client.auth.approle.login(role, secret, use_token=False, mount_point=mount)
            role = _text(who["role"])
            if way == "kubernetes":
                return client.auth.kubernetes.login(role, secret, use_token=False, mount_point=mount)
            return client.auth.jwt.jwt_login(role, secret, use_token=False, path=mount)

        client = self._connect("")
        try:
            answer = self._send(client, sign_in)
        finally:
            client.adapter.close()
        if not answer.good:
            error = self.refusal(
                answer, f"the sign-in by {way} at auth/{mount} is refused; {self.wanted.advice}", (secret,)
            )
            raise self._remembered(error) if answer.status in {400, 401, 403, 404} else error
        auth = answer.data.get("auth") if isinstance(answer.data, Mapping) else None
        token = auth.get("client_token") if isinstance(auth, Mapping) else None
        if not isinstance(token, str) or not token:
            raise self.refusal(answer, f"the sign-in by {way} at auth/{mount} gave no token")
        return token

    def _remembered(self, error: PlatformError) -> SignInRefused:
        """Repeating a sign-in that was refused locks accounts."""
        self._refusal = error.blame
        return SignInRefused(error.blame)

    def _shown_by(self, way: str) -> str:
        """The secret that a sign-in shows."""
        who = self.wanted.who
        if way == "kubernetes":
            return self._pod_token(_text(who.get("token_file")))
        return _text(who["secret_id" if way == "approle" else "jwt"])

    def _pod_token(self, given: str) -> str:
        path = self._around.folder(given) if given else TOKEN_FILE
        try:
            return self._around.read(path).decode("ascii").strip()
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "it holds no token"
            raise PlatformError(Blame("vault", message=f"{path}: {why}; it is needed to sign in")) from None

    # --- one request -------------------------------------------------------------------------------------

    def _connect(self, token: str) -> Any:
        """A client of hvac that keeps no cookies, follows nothing, and takes nothing from the environment by itself."""
        import hvac

        client = hvac.Client(
            url=self.wanted.address,
            token=token,
            cert=(),
            verify=self.wanted.verify,
            timeout=self._around.timeout,
            proxies=_proxies(self.wanted.address, self._around.environment),
            allow_redirects=False,
            namespace=self.wanted.namespace or None,
            adapter=hvac.adapters.RawAdapter,
            ignore_exceptions=True,
        )
        client.session.trust_env = False  # no .netrc
        client.session.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
        client.session.headers["User-Agent"] = f"btp-reconcile/{__version__}"
        return client

    def _send(self, client: Any, call: Callable[[Any], Any], *, write: bool = False) -> _Answer:
        self._around.check(self.wanted.address)
        try:
            response = call(client)
        except (OSError, ValueError) as error:
            raise self._broken(error, write=write) from None
        try:
            data = response.json() if response.content else None
        except ValueError:
            data = None
        path = urlsplit(response.request.url).path.removeprefix(urlsplit(self.wanted.address).path)
        return _Answer(
            response.request.method,
            path.removeprefix("/v1/"),
            response.status_code,
            data,
            response.headers,
        )

    def _broken(self, error: Exception, *, write: bool) -> PlatformError:
        """What it means that there is no answer. What the libraries say may quote what was sent, and is not shown."""
        from requests import exceptions
        from urllib3.exceptions import NewConnectionError

        where = _shown(self.wanted.address)
        sent, again = False, True
        reason = getattr(error.args[0] if error.args else None, "reason", None)
        if isinstance(error, exceptions.SSLError):
            words, again = "its certificate is not trusted, or TLS failed; check access.vault.ca_file", False
        elif isinstance(error, exceptions.ProxyError):
            words = "no connection through the proxy"
        elif isinstance(error, exceptions.ConnectTimeout):
            words = f"no connection within {self._around.timeout:g} s"
        elif isinstance(error, exceptions.ConnectionError) and isinstance(reason, NewConnectionError):
            words = "no connection"
        elif isinstance(error, exceptions.Timeout):
            words, sent = f"no answer within {self._around.timeout:g} s", True
        elif isinstance(error, exceptions.RequestException) and not isinstance(error, ValueError):
            words, sent = "the connection broke", True
        elif isinstance(error, exceptions.RequestException) or not isinstance(error, OSError):
            words, again = (
                "the request could not be put together: check the address and the credentials",
                False,
            )
        else:
            words, again = f"the file of trusted certificates cannot be read ({self.wanted.verify})", False
        blame = Blame("vault", url=where, message=f"{where}: {words}", repeatable=again)
        if not sent:
            return Unreachable(blame)
        return LostResponse(blame) if write else PlatformError(blame)


def _proxies(address: str, environment: Mapping[str, str]) -> dict[str, str]:
    proxy = proxy_for(address, environment)
    return {urlsplit(address).scheme: proxy} if proxy else {}


def _shown(url: str) -> str:
    """An address without user, password and query."""
    scheme, slashes, rest = url.partition("://")
    text = re.split(r"[?#]", rest if slashes else scheme, maxsplit=1)[0].rpartition("@")[2]
    return re.sub(r"[^!-~]", "?", f"{scheme}://{text}" if slashes else text)[:200]


# --- secrets --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Spot:
    """One secret of one engine."""

    mount: str
    path: str

    @property
    def metadata(self) -> str:
        """The address of its metadata below the server's."""
        return f"/v1/{quote(self.mount)}/metadata/{quote(self.path)}"

    @property
    def needs(self) -> str:
        return (
            f"its policy must allow read, create and update on {self.mount}/metadata/{self.path}, "
            f"create and update on {self.mount}/data/{self.path}"
        )


@dataclass(frozen=True)
class _State:
    """What the engine says of a secret, without its content."""

    version: int = 0
    """The current version, a deleted one too: it is what check-and-set compares."""
    there: bool = False
    """Is its content there: not deleted, not destroyed?"""
    custom: Mapping[str, str] = field(default_factory=dict)

    @property
    def claim(self) -> tuple[str, str, str]:
        owner, spec, delivery = (self.custom.get(MARK + name, "") for name in ("owner", "spec", "delivery"))
        return owner, spec, delivery

    @property
    def identity(self) -> Identity | None:
        if not all(self.claim):
            return None
        generation = self.custom.get(MARK + "generation", "")
        number = int(generation) if re.fullmatch(r"[0-9]{1,9}", generation) else 0
        return Identity(*self.claim, self.custom.get(MARK + "key", ""), number)

    @property
    def unnoted(self) -> bool:
        """Claimed, and nothing says yet that it was delivered."""
        return not self.custom.get(MARK + "version", "")

    def held(self) -> Held | None:
        if not self.there:
            return None
        version, identity = str(self.version), self.identity
        if identity is None:
            return Held(version, foreign="it was not made by reconcile")
        delivered = self.custom.get(MARK + "version", "")
        wrong = ""
        if self.unnoted:
            wrong = "its first delivery was cut short"
        elif delivered != version:
            wrong = f"version {version} is not the one that was delivered, which was {delivered}"
        return Held(version, identity=identity, wrong=wrong)


class _Vault:
    """Looks and delivers."""

    def __init__(self, door: _Door, now: Callable[[], float]) -> None:
        self._door = door
        self._now = now
        self._engines: set[str] = set()
        self._unfinished: dict[_Spot, int] = {}
        """Secret → the version that a first delivery of ours had, and no note yet, when it was asked for before."""

    def look(self, block: Data) -> Held | None:
        return self._state(self._spot(block)).held()

    def put(self, block: Data, parcel: Parcel, found: Held | None) -> Held:
        spot = self._spot(block)
        identity = parcel.identity
        state = self._state(spot)
        now = state.held()
        if now is None:
            self._unclaimed(spot, state, identity)
        elif found is None and self._left_alone(spot, state, identity):
            pass
        elif found is None or (now.version, now.identity) != (found.version, found.identity):
            return self._settled(spot, state, identity)
        claim = (identity.owner, identity.spec, identity.delivery)
        if state.claim != claim:
            self._note(spot, state, zip(("owner", "spec", "delivery"), claim, strict=True))
        version = self._write(spot, state, block, parcel)
        if version is None:
            return self._settled(spot, self._state(spot), identity)
        told = {
            "owner": identity.owner,
            "spec": identity.spec,
            "delivery": identity.delivery,
            "key": identity.key,
            "generation": str(identity.generation),
            "version": str(version),
        }
        self._note(spot, state, told.items())
        return Held(str(version), identity=identity)

    def close(self) -> None:
        self._door.close()

    def _unclaimed(self, spot: _Spot, state: _State, identity: Identity) -> None:
        """Nothing is there; but another's run may be just about to write, or its content may have been deleted."""
        owner, spec, delivery = state.claim
        if any(state.claim) and (owner, spec) != (identity.owner, identity.spec):
            raise self._changed(spot, f"it is claimed by {owner}/{spec} for {delivery}")

    def _settled(self, spot: _Spot, state: _State, identity: Identity) -> Held:
        """Somebody was faster. Fine if it was another run with the same parcel.

        Another run of ours may have written the data and be just about to write the note: then asking again helps.
        """
        now = state.held()
        if now is not None and now.identity == identity and not now.wrong:
            return now
        if now is None:
            whose = "it was deleted"
        elif now.identity is None or now.wrong:
            whose = f"it has version {now.version}, which is not known to be ours"
        else:
            other = now.identity
            whose = (
                f"version {now.version} belongs to {other.owner}/{other.spec}, {other.delivery}, "
                f"generation {other.generation}"
            )
        claim = (identity.owner, identity.spec, identity.delivery)
        again = now is not None and bool(now.wrong) and state.claim == claim
        if again and state.unnoted:
            self._unfinished[spot] = state.version
        raise self._changed(spot, whose, again=again)

    def _left_alone(self, spot: _Spot, state: _State, identity: Identity) -> bool:
        """Is it a first delivery of ours that nobody finishes? Whoever wrote it was cut short; or it was noted, and
        another run, which had seen nothing there yet, wrote its claim over that.
        """
        claim = (identity.owner, identity.spec, identity.delivery)
        return state.claim == claim and state.unnoted and self._unfinished.get(spot) == state.version

    def _changed(self, spot: _Spot, whose: str, *, again: bool = False) -> PlatformError:
        message = f"{spot.mount}/{spot.path}: changed meanwhile: {whose}; nothing was written, run again"
        return PlatformError(Blame("vault", message=message, repeatable=again))

    # --- single requests ---------------------------------------------------------------------------------

    def _spot(self, block: Data) -> _Spot:
        """Where it is, once it is known that a KV v2 engine is there.

        The request is the one that `vault kv` sends before every other; any token with a right below the mount may send
        it. Without it an engine of version 1 would be taken for an empty one, and written to at wrong places.
        """
        path = str(block["path"]).strip("/")
        mount = str(block.get("mount", "")).strip("/")
        if not mount:
            mount, _, path = path.partition("/")
        parts = [*mount.split("/"), *path.split("/")]
        if any(part in {"", ".", ".."} or not part.isprintable() for part in parts):
            said = "is no path of a secret; write mount and path, like secret/apim/pipeline"
            raise PlatformError(Blame("vault", message=f"{block['path']} {said}"))
        spot = _Spot(mount, path)
        if mount not in self._engines:
            self._check_engine(spot)
            self._engines.add(mount)
        return spot

    def _check_engine(self, spot: _Spot) -> None:
        url = f"/v1/sys/internal/ui/mounts/{quote(spot.mount)}/{quote(spot.path)}"
        answer = self._door.ask(lambda client: client.adapter.get(url))
        if not answer.good:
            why = f"is there a KV v2 engine at '{spot.mount}'? If there is, {spot.needs}"
            raise self._door.forbidden(answer, why)
        engine = answer.body()
        options = engine.get("options")
        at = str(engine.get("path", "")).strip("/")
        kind = str(engine.get("type", ""))
        if at != spot.mount:
            hint = f"the engine here is mounted at '{at}'; write mount: {at}, and path without it"
        elif kind not in {"kv", "generic"}:
            hint = f"the engine at '{at}' is no KV engine but {kind}"
        elif not isinstance(options, Mapping) or options.get("version") != "2":
            hint = f"the engine at '{at}' is KV version 1, which knows no versions; enable version 2 (vault kv enable-versioning {at})"
        else:
            return
        raise PlatformError(Blame("vault", answer.method, message=line(hint)))

    def _state(self, spot: _Spot) -> _State:
        answer = self._door.ask(
            lambda client: client.secrets.kv.v2.read_secret_metadata(spot.path, mount_point=spot.mount)
        )
        if answer.nothing:
            return _State()
        self._expect(answer, spot)
        data = answer.body()
        custom = data.get("custom_metadata")
        versions = data.get("versions")
        version = data.get("current_version")
        if not isinstance(version, int) or not isinstance(versions, Mapping):
            raise self._door.refusal(answer, "the answer holds no metadata of a secret")
        current = versions.get(str(version))
        there = (
            isinstance(current, Mapping)
            and current.get("destroyed") is not True
            and not self._past(current.get("deletion_time"))
        )
        texts = (
            {str(name): str(value) for name, value in custom.items()} if isinstance(custom, Mapping) else {}
        )
        return _State(version, there, texts)

    def _past(self, moment: Any) -> bool:
        """Is it over? With `delete_version_after` the time of deletion is known beforehand."""
        if not isinstance(moment, str) or not moment:
            return False
        try:
            when = datetime.fromisoformat(moment)
        except ValueError:
            return True
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() <= self._now()

    def _write(self, spot: _Spot, state: _State, block: Data, parcel: Parcel) -> int | None:
        """The number of the version that was made; None when the secret has changed meanwhile."""
        content = plain(parcel.content)
        data = {block["key"]: json.dumps(content)} if "key" in block else content
        secrets = tuple(secrets_of(parcel.content))
        answer = self._door.ask(
            lambda client: client.secrets.kv.v2.create_or_update_secret(
                spot.path, data, cas=state.version, mount_point=spot.mount
            ),
            write=True,
            secrets=secrets,
        )
        if answer.status == 400 and self._state(spot).version != state.version:
            return None
        self._expect(answer, spot, secrets)
        version = answer.body().get("version")
        if not isinstance(version, int):
            raise self._door.refusal(answer, "the answer does not say which version was made", lost=True)
        return version

    def _note(self, spot: _Spot, state: _State, told: Any) -> None:
        """Write whose it is; what others keep in the same place stays."""
        others = {name: value for name, value in state.custom.items() if not name.startswith(MARK)}
        custom = others | {MARK + name: value for name, value in told}
        # hvac's own call for this would also reset `delete_version_after`.
        answer = self._door.ask(
            lambda client: client.adapter.post(spot.metadata, json={"custom_metadata": custom}), write=True
        )
        self._expect(answer, spot)

    def _expect(self, answer: _Answer, spot: _Spot, secrets: tuple[str, ...] = ()) -> None:
        if answer.good:
            return
        if answer.status == 403:
            raise self._door.forbidden(answer, spot.needs)
        message = f"is there a KV v2 engine at '{spot.mount}'?" if answer.status == 404 else ""
        raise self._door.refusal(answer, message, secrets)
