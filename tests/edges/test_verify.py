"""What trying a key sends, and what each answer means."""

from __future__ import annotations

import base64
import contextlib
import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_plus

import pytest
import requests

from btp_reconcile.core import catalogue
from btp_reconcile.core.digest import hidden
from btp_reconcile.core.merge import Document
from btp_reconcile.core.model import Address, Secret
from btp_reconcile.core.verdict import Candidate, Verdict, Word
from btp_reconcile.edges import load
from btp_reconcile.edges.access import Platform
from btp_reconcile.edges.client import Client
from btp_reconcile.edges.clock import Interrupted, MovingClock
from btp_reconcile.edges.verify import Verifier, try_all
from tests.build import fact, wanted
from tests.edges.papers import Paper, around
from tests.edges.wire import Rig, Said

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from btp_reconcile.core.catalogue import Catalogue
    from tests.edges.wire import Sent

SHIPPED = catalogue.build(load.catalogue())
KEY = Address.parse("key:prod/apim/transport")
START = MovingClock().now()
SECRET = "hunter-2+$|"
CLIENT = "sb-apiaccess1!b10|api-portal-xsuaa!b20"
UAA, CERT = (f"https://acme.authentication.{part}eu10.hana.ondemand.com" for part in ("", "cert."))
API = "https://acme.prod.apimanagement.eu10.hana.ondemand.com"
AFC = "https://afc-production-afc-api.cfapps.eu10.hana.ondemand.com"
PROXIES = f"{API}/apiportal/api/1.0/Management.svc/APIProxies?$top=1&$format=json"

PORTAL_KEY = {"url": API, "tokenUrl": f"{UAA}/oauth/token", "clientId": CLIENT, "clientSecret": SECRET}
AFC_KEY = {
    "endpoints": {"scim2": f"{AFC}/scim/v2", "task-center": f"{AFC}/api/task-provider/v2"},
    "uaa": {"url": UAA, "clientid": "sb-1!b3|afc-api!b4", "clientsecret": SECRET},
}
PORTAL = {"service": "apimanagement-apiportal", "plan": "apiportal-apiaccess"}
HUB = {"service": "apimanagement-devportal", "plan": "devportal-apiaccess"}
CLOSING = {"service": "afc-api-service", "plan": "standard"}
PORTAL_SHAPE = SHIPPED.by_name["api-management"].key_shape
SCOPES = ["api-portal-xsuaa!b20.APIPortal.Administrator", "uaa.resource"]


def jwt(**told: Any) -> str:
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({}, told)]
    return ".".join([*parts, "sig"])


TOKEN = jwt(scope=SCOPES)


def token(**more: Any) -> Said:
    return Said(200, {"access_token": TOKEN, "token_type": "bearer", "expires_in": 43199, **more})


def x509(paper: Paper) -> dict[str, str]:
    """A key with that certificate, its newlines escaped as brokers do."""
    escaped = {"certificate": paper.certificate, "privateKey": paper.key}
    return {
        "url": API,
        "tokenUrl": f"{UAA}/oauth/token",
        "certurl": CERT,
        "clientId": CLIENT,
        **{name: text.replace("\n", "\\n") for name, text in escaped.items()},
    }


def check(rig: Rig, raw: Any = PORTAL_KEY, *, known: Any = SHIPPED, **said: Any) -> Verdict:
    verifier = Verifier(rig.client, rig.clock, known)
    return verifier.check(KEY, 1, hidden(raw, "key"), **{**PORTAL, "role": None, **said})


OWN = {"service": "own", "plan": "own"}


def own(urls: Any = PORTAL_SHAPE.urls, **request: Any) -> Catalogue:
    """A catalogue file of a user's own, for keys of the same shape, with one request."""
    shape = {
        "urls": dict(urls),
        "token_url": PORTAL_SHAPE.token_url,
        "client_id": PORTAL_SHAPE.client_id,
        "client_secret": PORTAL_SHAPE.client_secret,
    }
    data = {"api": "own", "title": "Own", **OWN, "key_shape": shape, "verify": [request]}
    return catalogue.build([Document("_own.yaml", data, {})])


def short(verdict: Verdict) -> tuple[str, int, int]:
    return (str(verdict.verdict), verdict.status, verdict.requests)


# --- what is sent ---------------------------------------------------------------------------------------


def test_a_key_that_works_costs_two_requests() -> None:
    rig = Rig(token(), Said(200, {"d": {"results": []}}))

    found = check(rig)

    assert found == Verdict(
        KEY,
        1,
        Word.OK,
        type="secret",
        client_id=CLIENT,
        token_seconds=43199,
        status=200,
        requests=2,
        scopes="3db266f573c1d8ad",
        rights=("APIPortal.Administrator", "uaa.resource"),
    )
    asked, tried = rig.sent
    assert (asked.method, asked.url) == ("POST", f"{UAA}/oauth/token")
    assert asked.form == {"grant_type": "client_credentials", "client_id": CLIENT, "client_secret": SECRET}
    assert (tried.method, tried.url) == ("GET", PROXIES)
    assert tried.headers["Authorization"] == f"Bearer {TOKEN}"
    assert tried.headers["Accept"] == "application/json"


@pytest.mark.parametrize(
    ("about", "role", "url"),
    [
        (PORTAL, None, PROXIES),
        (PORTAL, "APIPortal.Guest", PROXIES),
        (PORTAL, "APIManagement.SelfService.Administrator", f"{API}/api/1.0/Health"),
        (HUB, None, f"{API}/odata/1.0/data.svc/APIMgmt.Applications?$top=1"),
        (HUB, "AuthGroup.API.ApplicationDeveloper", f"{API}/odata/1.0/data.svc/APIMgmt.Applications?$top=1"),
    ],
)
def test_the_role_decides_what_is_asked(about: Any, role: str | None, url: str) -> None:
    rig = Rig(token(), Said(200, {}))

    assert check(rig, **about, role=role).verdict is Word.OK
    assert [one.url for one in rig.sent] == [f"{UAA}/oauth/token", url]


@pytest.mark.parametrize(
    ("about", "role"),
    [
        (HUB, "AuthGroup.Content.Admin"),
        (PORTAL, "APIPortal.Service.CatalogIntegration"),
        ({"service": "apimanagement-apiportal", "plan": "on-premise-connectivity"}, None),
    ],
)
def test_where_nothing_else_is_harmless_a_token_is_the_proof(about: Any, role: str | None) -> None:
    rig = Rig(token())
    found = check(rig, **about, role=role)

    assert (*short(found), found.detail) == (
        "ok",
        200,
        1,
        "a token was given, which is all that can be tried without changing anything",
    )


def test_of_advanced_financial_closing_only_a_number_of_groups_is_asked_for() -> None:
    rig = Rig(token(), Said(200, {"totalResults": 7}))

    assert check(rig, AFC_KEY, **CLOSING).verdict is Word.OK
    assert rig.sent[1].url == f"{AFC}/scim/v2/Groups?count=1"
    assert rig.sent[1].headers["Accept"] == "application/scim+json"


def test_a_certificate_is_shown_at_its_own_host_and_no_secret_is_sent() -> None:
    paper = around(START)
    rig = Rig(token(), Said(200, {}))

    found = check(rig, x509(paper))

    assert (found.type, found.verdict, found.not_after) == ("x509", Word.OK, "2026-01-31T00:00:00Z")
    asked, tried = rig.sent
    assert asked.url == f"{CERT}/oauth/token"
    assert asked.form == {"grant_type": "client_credentials", "client_id": CLIENT}
    assert asked.certificate == (paper.certificate, paper.key)
    assert tried.certificate == ()


def test_every_key_is_tried_with_a_token_of_its_own() -> None:
    rig = Rig(token(), Said(200, {}), token(), Said(200, {}))
    verifier = Verifier(rig.client, rig.clock, SHIPPED)
    for _ in range(2):
        verifier.check(KEY, 1, hidden(PORTAL_KEY, "key"), **PORTAL, role=None)

    assert [one.method for one in rig.sent] == ["POST", "GET", "POST", "GET"]


def test_a_path_cannot_lead_the_token_to_another_host() -> None:
    rig = Rig(token(), Said(200, {}))

    check(rig, known=own(path=".evil.hana.ondemand.com/x"), **OWN)

    assert rig.sent[1].url == f"{API}/.evil.hana.ondemand.com/x"


# --- the token ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_refused_token_is_asked_for_once(status: int) -> None:
    rig = Rig(Said(status, {"error": "invalid_client", "error_description": f"Bad credentials {SECRET}"}))
    found = check(rig)

    assert short(found) == ("token-refused", status, 1)
    assert "Bad credentials ***" in found.detail
    assert found.hint.endswith("`reconcile rotate key:prod/apim/transport` makes a new key")


@pytest.mark.parametrize(
    "answer", [Said(404, "<html>", {"Content-Type": "text/html"}), Said(200, "<html>", {"Content-Type": "text/html"}), Said(302, "", {"Location": "https://evil.com"})]
)  # fmt: skip
def test_a_token_url_that_leads_elsewhere_is_told_so(answer: Said) -> None:
    found = check(Rig(answer))

    assert short(found) == ("unreachable", answer.status, 1)
    assert found.hint == "the key's token URL leads elsewhere: is its path doubled, or its host wrong?"


@pytest.mark.parametrize("answer", [{}, {"access_token": "a b"}, {"access_token": 5}])
def test_an_answer_without_a_token_is_none(answer: Any) -> None:
    found = check(Rig(Said(200, answer)))

    assert found.verdict is Word.UNREACHABLE
    assert "no usable token" in found.detail


def test_trouble_is_repeated_once_and_no_more_for_the_whole_key() -> None:
    rig = Rig(Said(503), token(), Said(503))
    found = check(rig)

    assert short(found) == ("unreachable", 503, 3)
    assert len(rig.sent) == 3


def test_trouble_at_the_api_is_repeated_once() -> None:
    rig = Rig(token(), Said(503), Said(200, {}))

    assert short(check(rig)) == ("ok", 200, 3)
    assert short(check(Rig(token(), Said(500), Said(500)))) == ("unreachable", 500, 3)


def test_a_limit_is_waited_for() -> None:
    rig = Rig(token(), Said(429, "", {"Retry-After": "7"}), Said(200, {}))

    assert short(check(rig)) == ("ok", 200, 3)
    assert rig.clock.slept == [7.0]


def test_nobody_there_is_unreachable() -> None:
    found = check(Rig(*[requests.exceptions.ConnectTimeout()] * 2))

    assert short(found) == ("unreachable", 0, 2)
    assert "no connection within 10 s" in found.detail


def test_a_secret_goes_to_token_endpoints_only() -> None:
    rig = Rig()
    found = check(rig, {**PORTAL_KEY, "tokenUrl": f"{AFC}/oauth/token"})

    assert short(found) == ("unreachable", 0, 0)
    assert "not one of SAP's" in found.detail
    assert rig.sent == []


def test_a_token_goes_to_hosts_of_saps_only() -> None:
    rig = Rig(token())
    found = check(rig, {**PORTAL_KEY, "url": "https://api.evil.com"})

    assert short(found) == ("unreachable", 200, 1)
    assert "no credential is sent to https://api.evil.com:" in found.detail
    assert len(rig.sent) == 1


# --- the API --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "word", "said"),
    [
        (Said(401, {"error": "invalid_token"}), "token-refused", "the API does not accept its token"),
        (Said(403, {"error": {"code": "403", "message": "no scope"}}), "forbidden", "its token is good and may not do this: no scope"),
        (Said(404, "gone", {"Content-Type": "text/plain"}), "forbidden", "capability not active, or url taken with a suffix"),
        (Said(200, "<html>", {"Content-Type": "text/html;charset=utf-8"}), "unreachable", "a web page answered and not the API"),
        (Said(302, "", {"Location": f"{UAA}/login"}), "unreachable", "which is not followed"),
        (Said(204), "unreachable", "the API answered 204, and 200 is what it should be"),
        (Said(418), "unreachable", "I'm a Teapot"),
    ],
)  # fmt: skip
def test_what_the_api_answers_is_told_apart(answer: Said, word: str, said: str) -> None:
    rig = Rig(token(), answer)
    found = check(rig)

    assert short(found) == (word, answer.status, 2)
    assert said in found.detail
    assert len(rig.sent) == 2


def test_a_router_without_a_route_says_nothing_about_the_capability() -> None:
    away = Said(404, "", {"X-Cf-RouterError": "unknown_route"})
    found = check(Rig(token(), away, away))

    assert (found.verdict, found.status) == (Word.UNREACHABLE, 503)


def test_an_own_catalogue_may_expect_another_status() -> None:
    known = own(path="/ping", status=405)

    assert short(check(Rig(token(), Said(405)), known=known, **OWN)) == ("ok", 405, 2)
    assert short(check(Rig(token(), Said(200, {})), known=known, **OWN)) == ("unreachable", 200, 2)


def test_an_own_catalogue_that_names_no_address_is_told_so() -> None:
    found = check(Rig(token()), known=own(urls={}, path="/ping"), **OWN)

    assert short(found) == ("shape-error", 200, 1)
    assert found.detail == "the key has no address named 'api', which is to be asked"


def test_no_more_is_shown_of_a_text_than_a_few_lines() -> None:
    found = check(Rig(token(), Said(403, {"error": {"code": "1", "message": f"{TOKEN} {'x' * 5000}"}})))

    assert len(found.detail) == 300
    assert TOKEN not in found.detail


# --- shapes ---------------------------------------------------------------------------------------------


def test_a_key_without_what_it_must_have_is_not_tried() -> None:
    rig = Rig()
    found = check(rig, {"url": API, "clientId": CLIENT, "clientSecret": ""})

    assert short(found) == ("shape-error", 0, 0)
    assert found.detail == (
        "the key has another form than is known: missing or not usable: tokenUrl, clientSecret"
    )


@pytest.mark.parametrize(
    ("raw", "verdict", "requests_"),
    [
        ({"username": "u", "password": "p"}, "skipped", 0),
        ({"url": "https://db.example.com", "clientid": "c", "clientsecret": "s"}, "skipped", 0),
        (AFC_KEY, "skipped", 1),
    ],
)
def test_of_an_unknown_service_only_a_token_is_tried(raw: Any, verdict: str, requests_: int) -> None:
    found = check(Rig(token()), raw, service="other", plan="standard")

    assert (str(found.verdict), found.requests) == (verdict, requests_)
    assert "known" in found.detail


def test_a_token_that_an_unknown_service_refuses_is_refused() -> None:
    assert check(Rig(Said(401)), AFC_KEY, service="other", plan="x").verdict is Word.TOKEN_REFUSED


def test_a_role_that_nobody_knows_is_skipped() -> None:
    assert short(check(Rig(token()), role="APIPortal.Tomorrow")) == ("skipped", 200, 1)


# --- certificates ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("days", "word"), [(30, "ok"), (7.01, "ok"), (7, "expires-soon"), (0.5, "expires-soon")]
)
def test_a_certificate_that_ends_within_days_is_told(days: float, word: str) -> None:
    found = check(Rig(token(), Said(200, {})), x509(around(START, days=days)))

    assert short(found) == (word, 200, 2)
    assert found.works


def test_what_does_not_work_is_not_called_by_its_certificate() -> None:
    assert check(Rig(token(), Said(403)), x509(around(START, days=1))).verdict is Word.FORBIDDEN


def test_a_certificate_that_has_ended_is_not_shown_to_anybody() -> None:
    rig = Rig()
    found = check(rig, x509(around(START, days=0)))

    assert short(found) == ("token-refused", 0, 0)
    assert found.detail == "its certificate ended on 2026-01-01 00:00 UTC"
    assert rig.sent == []


def test_a_certificate_and_a_key_that_do_not_belong_together_are_not_sent() -> None:
    raw = x509(Paper(around(START).certificate, around(START, "other").key))

    assert short(check(Rig(), raw)) == ("shape-error", 0, 0)
    assert short(check(Rig(), {**raw, "certificate": "hunter"})) == ("shape-error", 0, 0)


# --- scopes ---------------------------------------------------------------------------------------------


def test_other_rights_than_recorded_are_told() -> None:
    before = check(Rig(token(), Said(200, {})))
    same = check(Rig(token(), Said(200, {})), scopes=before.scopes)
    other = check(Rig(token(access_token=jwt(scope=SCOPES[1:])), Said(200, {})), scopes=before.scopes)

    assert (before.scope_changed, same.scope_changed, other.scope_changed) == (False, False, True)


@pytest.mark.parametrize(
    ("answer", "rights"),
    [
        ({"access_token": "opaque", "scope": "b!t1.Read uaa.resource"}, ("Read", "uaa.resource")),
        ({"access_token": jwt(scope="a!b1|b!t1.Read")}, ("Read",)),
        ({"access_token": jwt(scope=[5, "", "b!t1.Read"])}, ("Read",)),
        ({"access_token": jwt(), "scope": 5}, ()),
    ],
)
def test_rights_are_read_from_the_token_or_else_from_the_answer(answer: Any, rights: tuple[str, ...]) -> None:
    found = check(Rig(token(**answer), Said(200, {})), scopes="recorded")

    assert found.rights == rights
    assert found.scope_changed is bool(rights)


# --- many at once ---------------------------------------------------------------------------------------


def test_no_more_requests_are_under_way_than_the_api_takes() -> None:
    lock, together = threading.Lock(), threading.Barrier(3)
    under_way, most = [0], [0]

    def answer(sent: Sent) -> Said:
        if sent.method == "POST":
            return token()
        with lock:
            under_way[0] += 1
            most[0] = max(most[0], under_way[0])
        together.wait(10)  # three do get in; a fourth would be counted
        with lock:
            under_way[0] -= 1
        return Said(200, {})

    rig = Rig(answer, parallel=32)
    verifier = Verifier(rig.client, rig.clock, SHIPPED)
    found: list[Verdict] = []

    def run(number: int) -> None:
        uaa = {**AFC_KEY["uaa"], "clientid": f"sb-{number}"}
        raw = hidden({**AFC_KEY, "uaa": uaa}, "key")
        found.append(verifier.check(KEY, 1, raw, **CLOSING, role=None))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert [str(one.verdict) for one in found] == ["ok"] * 9
    assert most[0] == 3


class _Slow:
    """A driver of keys whose platform takes its time."""

    service = "cloud_foundry"

    def __init__(self) -> None:
        self.answer = threading.Event()

    def credentials(self, *_: object) -> Any:
        self.answer.wait(20)
        return hidden(PORTAL_KEY, "key")


def test_who_is_asked_to_stop_does_not_wait_for_answers() -> None:
    rig, driver = Rig(token(), Said(200, {})), _Slow()
    one = Candidate(KEY, 1, PORTAL["service"], PORTAL["plan"], found=fact("key", "transport"))
    signed_in = {"cloud_foundry": {"username": "dev", "password": Secret("password", "secret")}}
    place = Platform(rig.client, {"prod": signed_in}, {}, None)
    try:
        with pytest.raises(Interrupted, match="nothing was changed"):
            try_all(
                [one],
                wanted(),
                place,
                {"cloudfoundry": driver},  # type: ignore[dict-item] # all that is asked of it
                place.prover(SHIPPED),
                lambda *_: None,
                stopped=lambda: True,
            )
    finally:
        driver.answer.set()


# --- nothing secret is shown ----------------------------------------------------------------------------


@pytest.mark.parametrize("raw", [PORTAL_KEY, AFC_KEY, x509(around(START))])
@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 500])
@pytest.mark.parametrize("at", ["token", "api"])
def test_whatever_is_answered_no_secret_is_in_the_verdict(raw: Any, status: int, at: str) -> None:
    """A platform that repeats all it was sent."""

    def answer(sent: Sent) -> Said:
        if sent.method == "POST" and at == "api":
            return token()
        said = f"{sent.body} {unquote_plus(sent.body)} {dict(sent.headers)}"
        return Said(status, {"error": "odd", "error_description": said, "access_token": f"{TOKEN} x"})

    about = CLOSING if raw is AFC_KEY else PORTAL
    shown = repr(check(Rig(answer), raw, **about))

    assert not [one for one in (SECRET, TOKEN, "hunter", "PRIVATE", "hunter-2%2B") if one in shown]


# --- real TLS -------------------------------------------------------------------------------------------


class _Uaa(BaseHTTPRequestHandler):
    """Gives a token to whoever came through its TLS, and an empty object to who asks."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(json.dumps({"access_token": TOKEN, "expires_in": 60}).encode())

    def do_GET(self) -> None:
        self._answer(b"{}")

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *said: object) -> None:
        """Nothing is logged."""


class _Server(HTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A refused handshake is what is wanted."""


@contextlib.contextmanager
def serving(folder: Path, trusted: Paper) -> Iterator[tuple[str, str]]:
    """A token service that wants a client certificate it trusts: its address, and the file of its own certificate."""
    own = around(_today(), "server")
    for name, text in (("own", own.certificate), ("key", own.key), ("trusted", trusted.certificate)):
        (folder / name).write_text(text, encoding="utf-8")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "own", folder / "key")
    context.load_verify_locations(folder / "trusted")
    context.verify_mode = ssl.CERT_REQUIRED
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # its refusal comes with the handshake, and not after
    with _Server(("127.0.0.1", 0), _Uaa) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"https://127.0.0.1:{server.server_port}", str(folder / "own")
        finally:
            server.shutdown()
            thread.join(10)


def _today() -> float:
    import time

    return time.time() // 86400 * 86400


def tried_by_tls(folder: Path, trusted: Paper, shown: Paper) -> Verdict:
    with serving(folder, trusted) as (url, authorities):
        clock = MovingClock(_today())
        raw = {
            **x509(shown),
            "certurl": url,
            "tokenUrl": f"{url}/oauth/token",
            "url": url,
            "clientSecret": "",
        }
        with Client(clock=clock, events=lambda *_: None, verify=authorities) as client:
            verifier = Verifier(client, clock, SHIPPED)
            # The API is served by the same door, and would want a certificate: the token is the proof here.
            said = {"service": "apimanagement-apiportal", "plan": "on-premise-connectivity"}
            return verifier.check(KEY, 1, hidden(raw, "key"), **said, role=None)


def test_a_certificate_signs_in_by_mutual_tls(tmp_path: Path) -> None:
    mine = around(_today())

    assert short(tried_by_tls(tmp_path, mine, mine)) == ("ok", 200, 1)


def test_a_certificate_that_tls_refuses_is_refused(tmp_path: Path) -> None:
    found = tried_by_tls(tmp_path, around(_today(), "somebody"), around(_today()))

    assert (str(found.verdict), found.status) == ("token-refused", 0)
    assert found.detail.startswith("its certificate was not accepted")
