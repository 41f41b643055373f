"""Tries keys: a token, then one harmless request. Nothing is written, and no word of an answer's data is kept.

What is asked, and what its status means: SAP help, "Accessing API Management APIs Programmatically" and "Monitor the Health
of APIs" for API Management; RFC 7644 (SCIM) for Advanced Financial Closing, of whose groups only the number is asked for,
so that nothing about a person is read.
"""

from __future__ import annotations

import threading
from concurrent.futures import wait
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn, cast
from urllib.parse import urlsplit

from btp_reconcile.core import credentials as forms, record
from btp_reconcile.core.credentials import ShapeError
from btp_reconcile.core.errors import HostRefused, PlatformError, SignInRefused
from btp_reconcile.core.said import line, scrubbed
from btp_reconcile.core.times import about, day
from btp_reconcile.core.verdict import Verdict, Word, rights, scopes_digest
from btp_reconcile.edges import certificates
from btp_reconcile.edges.calls import Call
from btp_reconcile.edges.clock import Interrupted
from btp_reconcile.edges.observe import Threads
from btp_reconcile.edges.tokens import Credentials, People, SignIn, Token, claims

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from btp_reconcile.core.catalogue import Api, Catalogue, Verify
    from btp_reconcile.core.kind import Driver, KeyDriver
    from btp_reconcile.core.model import Address, Wanted
    from btp_reconcile.core.verdict import Candidate
    from btp_reconcile.edges.answers import Reply
    from btp_reconcile.edges.calls import Form
    from btp_reconcile.edges.client import Client
    from btp_reconcile.edges.clock import Clock
    from btp_reconcile.edges.keyring import Prover
    from btp_reconcile.edges.observe import Platform

SOON = 7 * 86400.0
"""Seconds before the end of a certificate from which on it is spoken of."""
ATTEMPTS = 2
"""How often one request is sent at most. After a repeat for the token there is none for the API."""
LONGEST = 300
"""Characters of what a platform says that are shown."""
MOST_RIGHTS = 100
TOKEN_ALONE = "a token was given, which is all that can be tried without changing anything"
NOTHING_KNOWN = "a token was given; no harmless request is known that would prove more"


class Verifier:
    """Tries keys. Any number of threads; what an API takes at once from all of them together is kept to."""

    def __init__(self, client: Client, clock: Clock, catalogue: Catalogue, *, soon: float = SOON) -> None:
        self._client = client
        self._clock = clock
        self._catalogue = catalogue
        self._soon = soon
        self._lock = threading.Lock()
        self._slots: dict[str, threading.BoundedSemaphore] = {}

    def check(
        self,
        address: Address,
        generation: int,
        raw: Mapping[str, Any],
        *,
        service: str,
        plan: str,
        role: str | None,
        scopes: str = "",
    ) -> Verdict:
        """A token, then one harmless request. `scopes`: the digest that was noted when it was last proven.

        What goes wrong is the verdict. Raises Interrupted alone, when the run is asked to stop.
        """
        api = self._catalogue.offered(service, plan)
        shape = api.key_shape if api is not None and api.key_shape.client_id else None
        blank = Verdict(address, generation, Word.OK)
        try:
            found = forms.read(raw, shape)
        except ShapeError as error:
            return _shapeless(blank, error, known=shape is not None)
        trial = _Trial(self._client, self._clock, found, blank, known=shape is not None)
        try:
            trial.certificate()
            trial.token(scopes)
            request = _request(api, role)
            if api is None or request is None:
                trial.end(Word.SKIPPED, NOTHING_KNOWN)
            if not request.path:
                trial.end(Word.OK, TOKEN_ALONE)
            url = trial.url_of(request)
            with self._slot(api, url):
                trial.api(api.api, url, request)
        except _Over:
            pass
        return trial.judged(self._soon)

    def _slot(self, api: Api, url: str) -> AbstractContextManager[object]:
        """One of the few requests that the API's host takes at once."""
        if not api.at_once:
            return nullcontext()
        with self._lock:
            return self._slots.setdefault(
                urlsplit(url).netloc.lower(), threading.BoundedSemaphore(api.at_once)
            )


def _shapeless(blank: Verdict, error: ShapeError, *, known: bool) -> Verdict:
    if not known:
        said = "nothing is known of the keys of this service"
        return replace(blank, verdict=Word.SKIPPED, detail=said)
    return replace(
        blank,
        verdict=Word.SHAPE_ERROR,
        detail=f"the key has another form than is known: {error}",
        hint="if its broker changed the form, say so in a catalogue file of your own (key_shape)",
    )


def _request(api: Api | None, role: str | None) -> Verify | None:
    """What proves a key of this role; None: nothing is known."""
    if api is None:
        return None
    if role is None:
        role = api.parameters.get("properties", {}).get("role", {}).get("default")
    for_all = next((one for one in api.verify if not one.roles), None)
    return next((one for one in api.verify if role in one.roles), for_all)


class _Over(Exception):
    """The verdict is known."""


class _Trial:
    """One key being tried."""

    def __init__(
        self, client: Client, clock: Clock, found: forms.Credentials, blank: Verdict, *, known: bool
    ) -> None:
        self._client = client
        self._clock = clock
        self._found = found
        self._known = known
        self._verdict = replace(blank, type=found.type, client_id=line(found.client_id, LONGEST))
        self._ends: float | None = None
        self._token = ""
        self._repeated = False
        self._place = found.cert_token_url or found.token_url

    def end(self, word: Word, detail: str, hint: str = "") -> NoReturn:
        """This is the verdict."""
        self._verdict = replace(self._verdict, verdict=word, detail=line(detail, LONGEST), hint=hint)
        raise _Over

    def judged(self, soon: float) -> Verdict:
        """The verdict; what works and ends within days is told to do so."""
        if self._ends is None or self._verdict.verdict not in {Word.OK, Word.SKIPPED}:
            return self._verdict
        left = self._ends - self._client.now(self._place)
        if left > soon:
            return self._verdict
        return replace(
            self._verdict,
            verdict=Word.EXPIRES_SOON,
            detail=f"its certificate ends on {day(self._ends)}, in {about(max(left, 0))}",
            hint=self._anew,
        )

    @property
    def _means(self) -> str:
        return "certificate" if self._found.certificate is not None else "secret"

    @property
    def _anew(self) -> str:
        return f"`reconcile rotate {self._verdict.address}` makes a new key"

    def certificate(self) -> None:
        """What can be known of a certificate without asking anybody."""
        chain, key = self._found.certificate, self._found.private_key
        if chain is None or key is None:
            return
        try:
            said, fits = certificates.read(chain), certificates.belong_together(chain, key)
        except PlatformError as error:
            self.end(Word.SHAPE_ERROR, error.blame.message, self._anew)
        self._verdict = replace(self._verdict, not_after=record.moment(said.not_after))
        if not fits:
            self.end(
                Word.SHAPE_ERROR, "its certificate and its private key do not belong together", self._anew
            )
        if said.not_after <= self._client.now(self._place):
            self.end(Word.TOKEN_REFUSED, f"its certificate ended on {day(said.not_after)}", self._anew)
        self._ends = said.not_after

    def token(self, recorded: str) -> None:
        """A token of its own, which nobody else is given, and what it says."""
        found = self._found
        who = Credentials(
            self._verdict.client_id,
            "client_credentials",
            client_id=found.client_id,
            client_secret=found.client_secret,
            certificate=found.certificate,
            key=found.private_key,
        )
        sign_in = SignIn(
            who,
            token_url=lambda: self._place,
            post=self._post,
            clock=self._clock.now,
            platform_clock=self._clock.now,
            people=People(),
        )
        try:
            token = sign_in.fresh()
        except PlatformError as error:
            self._no_token(error)
        self._token = token.text
        scopes = _scopes(token)
        digest = scopes_digest(scopes)
        self._verdict = replace(
            self._verdict,
            token_seconds=int(token.seconds),
            scopes=digest,
            rights=tuple(line(one, LONGEST) for one in rights(scopes)[:MOST_RIGHTS]),
            scope_changed=bool(recorded and digest and recorded != digest),
        )

    def _no_token(self, error: PlatformError) -> NoReturn:
        said = error.blame
        if isinstance(error, HostRefused):
            if not self._known:
                self.end(Word.SKIPPED, "nothing is known of the keys of this service")
            self.end(Word.UNREACHABLE, said.message)
        if isinstance(error, SignInRefused):
            self.end(
                Word.TOKEN_REFUSED,
                said.message,
                f"the key was revoked, or its {self._means} is not accepted any more; {self._anew}",
            )
        if said.code == "tls" and self._found.certificate is not None:
            self.end(
                Word.TOKEN_REFUSED,
                f"its certificate was not accepted: {said.message}",
                f"it has ended or its chain is broken; {self._anew}",
            )
        elsewhere = said.status == 404 or 200 <= said.status < 400
        self.end(
            Word.UNREACHABLE,
            said.message,
            "the key's token URL leads elsewhere: is its path doubled, or its host wrong?"
            if elsewhere
            else "",
        )

    def url_of(self, request: Verify) -> str:
        """The address to ask. Its host is the one that the key names, whatever the path says."""
        base = self._found.urls.get(request.url, "")
        if not base:
            self.end(
                Word.SHAPE_ERROR,
                f"the key has no address named {request.url!r}, which is to be asked",
                "name it in the catalogue file, under key_shape.urls",
            )
        return f"{base.rstrip('/')}/{request.path.lstrip('/')}"

    def api(self, name: str, url: str, request: Verify) -> None:
        """One harmless request, and what its status means."""
        secrets = [self._token]
        if self._found.client_secret is not None:
            secrets.append(self._found.client_secret.reveal())
        call = Call(
            name,
            "GET",
            url,
            user=self._verdict.client_id,
            headers={"Accept": request.accept, "Authorization": f"Bearer {self._token}"},
            secrets=tuple(secrets),
            attempts=1 if self._repeated else ATTEMPTS,
            issued=True,
        )
        try:
            reply = self._counted(call)
        except PlatformError as error:
            self._no_answer(error, request)
            return
        if reply.status != request.status:
            self.end(
                Word.UNREACHABLE,
                f"the API answered {reply.status}, and {request.status} is what it should be",
            )
        if "html" in reply.headers.get("Content-Type", "").lower():
            self.end(
                Word.UNREACHABLE,
                scrubbed(f"a web page answered and not the API: {reply.described}", reply.secrets),
                _SUFFIX_HINT,
            )

    def _no_answer(self, error: PlatformError, request: Verify) -> None:
        said = error.blame
        if said.status == request.status:
            return
        if said.status == 401:
            self.end(Word.TOKEN_REFUSED, f"the API does not accept its token: {said.message}", self._anew)
        if said.status == 403:
            self.end(
                Word.FORBIDDEN,
                f"its token is good and may not do this: {said.message}",
                "is the role of its instance the right one? A key keeps the rights it was made with: after a change of "
                "role it must be made anew",
            )
        if said.status == 404:
            self.end(
                Word.FORBIDDEN,
                f"the API is not there ({said.message}): capability not active, or url taken with a suffix",
                _SUFFIX_HINT,
            )
        self.end(Word.UNREACHABLE, said.message)

    # --- what is sent ------------------------------------------------------------------------------------

    def _post(self, form: Form) -> Any:
        call = replace(self._client.call_of(form), attempts=ATTEMPTS)
        return self._client.json_of(call, self._counted(call))

    def _counted(self, call: Call) -> Reply:
        """Send, and note how often, with what status, and how long it took."""
        begun = self._clock.now()
        try:
            reply = self._client.exchange(call)
        except HostRefused:
            raise
        except PlatformError as error:
            self._note(error.blame.attempts, error.blame.status, begun)
            raise
        self._note(reply.attempts, reply.status, begun)
        return reply

    def _note(self, times: int, status: int, begun: float) -> None:
        self._repeated = self._repeated or times > 1
        self._verdict = replace(
            self._verdict,
            requests=self._verdict.requests + times,
            status=status,
            seconds=max(0.0, self._clock.now() - begun),
        )


_SUFFIX_HINT = 'activate the capability ("Manage APIs" in Integration Suite), and check that the key\'s url is the host alone'


def _scopes(token: Token) -> list[str]:
    """The rights that a token names: itself, or else the answer it came with."""
    said = claims(token.text).get("scope")
    if isinstance(said, list):
        return [one for one in said if isinstance(one, str) and one]
    return (said if isinstance(said, str) else token.scope).split()


# --- all keys of a run ----------------------------------------------------------------------------------


def try_all(
    candidates: Sequence[Candidate],
    wanted: Wanted,
    platform: Platform,
    drivers: Mapping[str, Driver],
    prover: Prover,
    events: Callable[[str, Mapping[str, Any]], None],
    parallel: int = 8,
    stopped: Callable[[], bool] = lambda: False,
) -> list[Verdict]:
    """The verdict on every key, in their order. Raises Interrupted when asked to stop."""

    def tried(one: Candidate) -> Verdict:
        said = {"verb": "verify", "address": str(one.address)}
        events("step", {**said, "status": "started"})
        verdict = _tried(one, wanted, platform, drivers, prover)
        ended = "pending" if verdict.waits else "done" if verdict.works else "failed"
        events("step", {**said, "status": ended, "verdict": str(verdict.verdict)})
        return verdict

    with Threads(min(parallel, len(candidates))) as pool:
        jobs = [pool.submit(tried, one) for one in candidates]
        while wait(jobs, timeout=1.0).not_done:
            if stopped():
                raise Interrupted("stopped while keys were tried; nothing was changed")
    return [job.result() for job in jobs]


def _tried(
    one: Candidate, wanted: Wanted, platform: Platform, drivers: Mapping[str, Driver], prover: Prover
) -> Verdict:
    if one.found is None:
        return one.untried()
    driver = cast("KeyDriver", drivers[one.found.runtime])
    try:
        door = platform.door(driver.service, wanted.subaccounts[one.found.subaccount])
        raw = driver.credentials(door, one.found)
    except PlatformError as error:
        return _unread(one, error)
    return prover.check(
        one.address,
        one.generation,
        raw,
        service=one.service,
        plan=one.plan,
        role=one.role,
        scopes=one.recorded,
    )


def _unread(one: Candidate, error: PlatformError) -> Verdict:
    """A key whose credentials the platform does not give."""
    said = error.blame
    word = Word.FORBIDDEN if said.status == 403 else Word.UNREACHABLE
    hint = (
        "who may read keys: a space developer; in Service Manager the key of the subaccount"
        if said.status == 403
        else ""
    )
    return Verdict(
        one.address,
        one.generation,
        word,
        status=said.status,
        detail=line(f"its credentials could not be read: {error}", LONGEST),
        hint=hint,
    )
