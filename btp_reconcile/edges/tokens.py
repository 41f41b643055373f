"""Signing in: who somebody is, how a token is asked for, and when it is asked for again.

A secret goes into the form body and not into a Basic header. UAA and XSUAA both read it there, the body is percent-encoded
once by everybody's rules, and so `+`, `=`, `$` and `|` arrive as they are; in a Basic header UAA decodes a `+` to a blank
unless a header of its own tells it not to. A client without a secret (`cf`) is sent as Basic, because that is what
the platform's own clients do and there is nothing in it to be spoilt.

A wrong password must not be tried twice: a few tries lock the account, and a run may talk to ten landscapes at once. So
one person's passwords are proven one after the other, wherever they are used, and what was refused once is refused here.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeGuard
from urllib.parse import quote

from btp_reconcile.core.errors import Blame, HostRefused, PlatformError, SignInRefused
from btp_reconcile.core.said import line, scrubbed
from btp_reconcile.edges.calls import Form
from btp_reconcile.edges.hosts import shown

if TYPE_CHECKING:
    from btp_reconcile.core.model import Secret

Post = Callable[[Form], Any]
"""How a form is sent: the JSON of the answer, or PlatformError."""

JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
SAP_USERS = "sap.ids"
REFUSALS = {400, 401, 403}
SHORTEST_LIFE = 600.0
"""Seconds that a token lives when nothing says how long: the shortest that SAP's landscapes were seen to give."""
SHOWN = 6
"""Characters of a user name that may stand in an answer: so short a word cannot be told from others."""
_USABLE = re.compile(r"[!-~]+")


@dataclass(frozen=True)
class Credentials:
    """Who signs in, and with what. `user` is a name for sharing, and `shown` one for people; all else is secret.

    `grant` is what a new sign-in is made of: `password`, `client_credentials`, JWT_BEARER, or empty when there is
    nothing but a token.
    """

    user: str
    grant: str = ""
    client_id: str = "cf"
    client_secret: Secret | None = None
    username: str = ""
    password: Secret | None = None
    origin: str = ""
    assertion: Secret | None = None
    access_token: Secret | None = None
    refresh_token: Secret | None = None
    certificate: Secret | None = None
    key: Secret | None = None
    half_life: bool = False
    """Renew at half of a token's life; otherwise a minute before its end."""
    advice: str = ""
    """What a person should look at when the platform says no."""

    @property
    def shown(self) -> str:
        """Who it is, for people. Of a name that somebody typed only the beginning: it may be the password by mistake."""
        if not self.username:
            return self.user
        return self.user.replace(self.username, f"{self.username[: min(2, len(self.username) // 3)]}…", 1)

    @property
    def person(self) -> tuple[str, str]:
        """Whose account would be locked. Who names no origin is in SAP's own user base."""
        return (self.username.lower(), self.origin or SAP_USERS)


class Person:
    """Somebody with passwords, over all the places where they are used in this run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._right: set[str] = set()
        self._wrong: dict[str, Blame] = {}

    def sign_in(self, password: str, ask: Callable[[], Token]) -> Token:
        """Ask with a password; one place at a time until it is known to be right, never again once it is wrong."""
        if password in self._right:
            return ask()
        with self._lock:
            if password in self._wrong:
                raise SignInRefused(self._wrong[password])
            try:
                token = ask()
            except SignInRefused as error:
                self._wrong[password] = error.blame
                raise
            self._right.add(password)
            return token


class People:
    """Everybody with a password."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], Person] = {}

    def find(self, credentials: Credentials) -> Person:
        """The same person for the same name and origin."""
        with self._lock:
            return self._known.setdefault(credentials.person, Person())


@dataclass(frozen=True)
class Token:
    """A token and how long it lives from now."""

    text: str = field(repr=False)
    seconds: float
    refresh: str = field(default="", repr=False)
    scope: str = ""
    """The rights that the answer names, with blanks between them."""


class SignIn:
    """One user at one place. Gives out a token that is good now, to any number of threads, with one sign-in at a time."""

    def __init__(
        self,
        credentials: Credentials,
        *,
        token_url: Callable[[], str],
        post: Post,
        clock: Callable[[], float],
        platform_clock: Callable[[], float],
        people: People,
    ) -> None:
        self._who = credentials
        self._token_url = token_url
        self._post = post
        self._clock = clock
        self._platform_clock = platform_clock
        self._people = people
        self._lock = threading.Lock()
        self._token = ""
        self._renew_at = 0.0
        self._given = _revealed(credentials.access_token)
        self._refresh = _revealed(credentials.refresh_token)
        self._refused: Blame | None = None

    def __repr__(self) -> str:
        return f"<sign-in of {self._who.shown}>"

    def get(self) -> str:
        """A token that is good now. Raises SignInRefused, every time after the first without asking the platform."""
        with self._lock:
            if self._refused is not None:
                raise SignInRefused(self._refused)
            if not self._token or self._clock() >= self._renew_at:
                try:
                    self._take(self._renewed())
                except SignInRefused as error:
                    self._refused = error.blame
                    raise
            return self._token

    def drop(self, token: str) -> None:
        """A service did not accept this token. Another thread may have replaced it already; then nothing is dropped."""
        with self._lock:
            if token == self._token:
                self._token = ""

    def fresh(self) -> Token:
        """A token that nobody else is given, asked for now. Raises SignInRefused and its kin."""
        return self._renewed()

    def _take(self, token: Token) -> None:
        margin = token.seconds / 2 if self._who.half_life else min(60.0, token.seconds / 2)
        self._token = token.text
        self._refresh = token.refresh or self._refresh
        self._renew_at = self._clock() + token.seconds - margin

    def _renewed(self) -> Token:
        """The next token by the cheapest way that is left: the one that was given, a refresh, a new sign-in."""
        url = self._token_url()
        if self._given:
            given, self._given = self._given, ""
            token = self._still_good(given)
            if token is not None:
                return token
        if self._refresh:
            try:
                return self._ask(self._form(url, "refresh_token", refresh_token=self._refresh))
            except SignInRefused:
                # That a refresh token ended says nothing against a new sign-in.
                self._refresh = ""
                if not self._who.grant:
                    raise
        if self._who.grant == "password":
            password = _revealed(self._who.password)
            form = self._form(url, "password", username=self._who.username, password=password)
            return self._people.find(self._who).sign_in(password, lambda: self._ask(form))
        if self._who.grant == JWT_BEARER:
            return self._ask(self._form(url, JWT_BEARER, assertion=_revealed(self._who.assertion)))
        if self._who.grant:
            return self._ask(self._form(url, self._who.grant))
        raise SignInRefused(
            self._blame(
                url,
                "the token it was given is no longer accepted, and there is nothing to get a new one with",
            )
        )

    def _still_good(self, token: str) -> Token | None:
        """A token that was handed over, for what is left of its life; None when there is nothing left."""
        expiry = claims(token).get("exp")
        if not _number(expiry):
            return Token(token, SHORTEST_LIFE) if _USABLE.fullmatch(token) else None
        left = expiry - self._platform_clock()
        return Token(token, left) if left > 0 and _USABLE.fullmatch(token) else None

    def _form(self, url: str, grant: str, **fields: str) -> Form:
        who = self._who
        rows = {"grant_type": grant, **fields}
        headers: dict[str, str] = {}
        secret = _revealed(who.client_secret)
        certificate = None
        if who.certificate is not None and who.key is not None:
            certificate = (who.certificate.reveal(), who.key.reveal())
            rows["client_id"] = who.client_id
        elif secret:
            rows |= {"client_id": who.client_id, "client_secret": secret}
        else:
            name = quote(who.client_id, safe="")
            headers["Authorization"] = "Basic " + base64.b64encode(f"{name}:".encode()).decode()
            if name != who.client_id:
                headers["X-CF-ENCODED-CREDENTIALS"] = "true"
        hinted = who.origin and grant != "client_credentials"
        hint = json.dumps({"origin": who.origin}, separators=(",", ":"))
        return Form(
            url,
            who.user,
            tuple(rows.items()),
            query=(("login_hint", hint),) if hinted else (),
            headers=headers,
            secrets=tuple(
                one
                for one in (*fields.values(), secret)
                if one and (one != who.username or len(one) >= SHOWN)
            ),
            certificate=certificate,
        )

    def _ask(self, form: Form) -> Token:
        try:
            data = self._post(form)
        except PlatformError as error:
            found = error.blame
            kind = SignInRefused if found.status in REFUSALS else type(error)
            words = self._words("" if isinstance(error, HostRefused) else form.url, found.message)
            failure = kind(replace(found, message=scrubbed(words, form.secrets)))
        else:
            return self._read(form, data)
        raise failure

    def _read(self, form: Form, data: Any) -> Token:
        fields = data if isinstance(data, Mapping) else {}
        text, seconds, refresh, scope = (
            fields.get(name) for name in ("access_token", "expires_in", "refresh_token", "scope")
        )
        if not isinstance(text, str) or not _USABLE.fullmatch(text):
            raise PlatformError(self._blame(form.url, "the answer holds no usable token"))
        if not _number(seconds) or seconds <= 0:
            told = claims(text)
            start, end = told.get("iat"), told.get("exp")
            seconds = end - start if _number(start) and _number(end) and end > start else SHORTEST_LIFE
        usable = isinstance(refresh, str) and _USABLE.fullmatch(refresh)
        return Token(
            text,
            float(seconds),
            refresh if isinstance(refresh, str) and usable else "",
            scope if isinstance(scope, str) else "",
        )

    def _words(self, url: str, message: str) -> str:
        advice = f" ({self._who.advice})" if self._who.advice else ""
        place = "" if not url or shown(url) in message else f" at {shown(url)}"
        return f"{self._who.shown} could not sign in{place}: {message}{advice}"

    def _blame(self, url: str, message: str) -> Blame:
        return Blame("sign_in", "POST", shown(url), message=self._words(url, message))


def claims(token: str) -> Mapping[str, Any]:
    """What a token says of itself. Not checked: for its age and for a name to show, never for a decision about rights."""
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        found = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def named(token: str) -> str:
    """The user that a token speaks for, for people; empty when it does not say."""
    told = claims(token)
    name = next(
        (
            told[key]
            for key in ("user_name", "email", "client_id", "sub")
            if isinstance(told.get(key), str) and told[key]
        ),
        "",
    )
    origin = told.get("origin")
    text = f"{name} ({origin})" if name and isinstance(origin, str) and origin else name
    return line(scrubbed(text), 200)


def _number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -1e15 < value < 1e15


def _revealed(secret: Secret | None) -> str:
    return "" if secret is None else secret.reveal()
