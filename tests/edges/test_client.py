"""One way out: what is repeated, how long is waited, who waits with it, and what a fault means."""

import errno
import socket
import ssl
import threading
from collections import Counter
from typing import Any

import pytest
import requests
from urllib3 import HTTPSConnectionPool
from urllib3.connection import HTTPSConnection
from urllib3.exceptions import MaxRetryError, NameResolutionError, NewConnectionError, ProtocolError

from btp_reconcile import __version__
from btp_reconcile.core.errors import LostResponse, PlatformError, SignInRefused, Unreachable
from btp_reconcile.edges import client as module
from btp_reconcile.edges.calls import Call
from btp_reconcile.edges.clock import Interrupted, WallClock
from tests.edges.wire import API, SM, Rig, Said

GONE = requests.ConnectionError(ProtocolError("Connection aborted.", ConnectionResetError(104, "reset")))
POOL, CONNECTION = HTTPSConnectionPool("h"), HTTPSConnection("h")
REFUSED = requests.ConnectionError(MaxRetryError(POOL, "/", NewConnectionError(CONNECTION, "refused")))
NAMELESS = requests.ConnectionError(
    MaxRetryError(POOL, "/", NameResolutionError("h", CONNECTION, socket.gaierror("x")))
)
UNTRUSTED = requests.exceptions.SSLError(ssl.SSLCertVerificationError(1, "x"))
CF_500 = Said(
    500, {"errors": [{"title": "UnknownError", "detail": "An unknown error occurred.", "code": 10001}]}
)
CF_429 = {"errors": [{"title": "CF-RateLimitExceeded", "detail": "Rate Limit Exceeded", "code": 10013}]}
OK = Said(200, {"ok": True})


def tries(rig, method="GET") -> Any:
    return rig.door().get("/v3/x") if method == "GET" else rig.door().send(method, "/v3/x", {}).body


# --- what is sent ---------------------------------------------------------------------------------------


def test_a_request_says_who_asks_and_carries_the_token():
    rig = Rig(OK)

    assert tries(rig) == {"ok": True}
    (sent,) = rig.sent
    assert sent.url == API + "/v3/x"
    assert sent.headers["Authorization"] == "Bearer token-1"
    assert sent.headers["User-Agent"] == f"btp-reconcile/{__version__}"
    assert sent.headers["Accept"] == "application/json"
    assert "Cookie" not in sent.headers
    assert sent.timeout == (10.0, 60.0)


def test_cookies_of_an_answer_are_not_kept():
    rig = Rig(Said(200, {}, {"Set-Cookie": "JSESSIONID=1; Path=/"}), OK)
    tries(rig)
    tries(rig)

    assert "Cookie" not in rig.sent[1].headers


def test_requests_are_counted_with_every_repetition():
    rig = Rig(CF_500, OK, Said(202, None))
    tries(rig)
    rig.door("service_manager", SM).send("DELETE", "/v1/x")

    assert rig.client.requests_made == 3
    assert rig.client.counts == Counter({("cloud_foundry", "GET"): 2, ("service_manager", "DELETE"): 1})


def test_a_netrc_does_not_replace_the_token(tmp_path, monkeypatch):
    (tmp_path / ".netrc").write_text("machine api.cf.eu10.hana.ondemand.com login u password p\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    rig = Rig(OK)
    tries(rig)

    assert rig.sent[0].headers["Authorization"] == "Bearer token-1"


def test_a_token_that_cannot_be_a_header_is_an_error_without_it():
    rig = Rig(OK)
    rig.tokens = type(rig.tokens)("bad\ntoken")

    with pytest.raises(PlatformError, match="could not be put together") as caught:
        tries(rig)

    assert "bad" not in str(caught.value)
    assert caught.value.__context__ is None


# --- what is repeated -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("fault", [CF_500, Said(502), Said(503), Said(504), Said(429), GONE, REFUSED])
def test_what_may_be_repeated_is(method, fault):
    rig = Rig(fault, fault, OK)

    assert tries(rig, method) == {"ok": True}
    assert len(rig.sent) == 3


@pytest.mark.parametrize("fault", [REFUSED, NAMELESS, Said(429), Said(503, None, {"Retry-After": "1"})])
def test_a_post_is_repeated_when_it_surely_did_not_happen(fault):
    rig = Rig(fault, OK)

    assert tries(rig, "POST") == {"ok": True}


@pytest.mark.parametrize(
    "fault", [GONE, requests.ReadTimeout("slow"), requests.exceptions.ChunkedEncodingError("cut")]
)
def test_a_post_whose_answer_was_lost_is_never_repeated(fault):
    rig = Rig(fault)

    with pytest.raises(LostResponse):
        tries(rig, "POST")

    assert len(rig.sent) == 1


@pytest.mark.parametrize("status", [502, 504])
@pytest.mark.parametrize("body", [None, "<html>", "{"])
def test_a_gateway_that_lost_its_service_during_a_post_has_lost_the_answer(status, body):
    rig = Rig(Said(status, body))

    with pytest.raises(LostResponse) as caught:
        tries(rig, "POST")

    assert caught.value.blame.status == status


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_post_that_the_service_itself_answered_is_refused_and_not_lost(status):
    rig = Rig(Said(status, {"error": "BrokerError", "description": "no"}))

    with pytest.raises(PlatformError) as caught:
        tries(rig, "POST")

    assert type(caught.value) is PlatformError
    assert len(rig.sent) == 1


@pytest.mark.parametrize("status", [400, 403, 404, 409, 410, 412, 422])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_a_refusal_is_final(status, method):
    rig = Rig(Said(status))

    with pytest.raises(PlatformError) as caught:
        tries(rig, method)

    assert caught.value.blame.status == status
    assert rig.clock.slept == []


def test_attempts_end():
    rig = Rig(lambda _: CF_500)

    with pytest.raises(PlatformError) as caught:
        tries(rig)

    assert len(rig.sent) == 6
    assert caught.value.blame.attempts == 6
    assert caught.value.blame.repeatable
    assert len(rig.clock.slept) == 5


def test_the_number_of_attempts_can_be_set():
    rig = Rig(lambda _: CF_500, attempts=1)

    with pytest.raises(PlatformError):
        tries(rig)

    assert len(rig.sent) == 1


@pytest.mark.parametrize(("method", "kind"), [("GET", PlatformError), ("PUT", LostResponse), ("DELETE", LostResponse)])  # fmt: skip
def test_an_answer_that_is_lost_every_time(method, kind):
    rig = Rig(lambda _: GONE)

    with pytest.raises(PlatformError) as caught:
        tries(rig, method)

    assert type(caught.value) is kind
    assert caught.value.blame.attempts == 6


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (REFUSED, "no connection"),
        (NAMELESS, "the name of the host is not known"),
        (requests.ConnectTimeout("x"), "no connection within 10 s"),
        (requests.exceptions.ProxyError("x"), "no connection through the proxy"),
    ],
)
def test_no_connection_means_it_did_not_happen(fault, words):
    rig = Rig(lambda _: fault)

    with pytest.raises(Unreachable, match=words):
        tries(rig, "POST")


def test_a_certificate_that_is_not_trusted_is_final():
    UNTRUSTED.args[0].verify_message = "self-signed certificate"
    rig = Rig(UNTRUSTED)

    with pytest.raises(Unreachable, match=r"certificate is not trusted \(self-signed certificate\)"):
        tries(rig)


def test_a_tls_fault_of_another_kind_may_have_come_late():
    rig = Rig(requests.exceptions.SSLError(ssl.SSLEOFError(8, "EOF")))

    with pytest.raises(LostResponse):
        tries(rig, "POST")


def test_a_missing_file_of_authorities_is_final():
    rig = Rig(OSError("Could not find a suitable TLS CA certificate bundle"))

    with pytest.raises(Unreachable, match="cannot be read"):
        tries(rig)


def test_no_error_quotes_what_the_libraries_say():
    fault = requests.ConnectionError("https://x/oauth/token?secret=hunter2")
    rig = Rig(lambda _: fault)

    with pytest.raises(PlatformError) as caught:
        tries(rig)

    assert "hunter2" not in str(caught.value)
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None


# --- waits ----------------------------------------------------------------------------------------------


def test_the_wait_that_was_asked_for_is_kept():
    rig = Rig(Said(429, CF_429, {"Retry-After": "7"}), Said(503, None, {"Retry-After": "11"}), OK)
    tries(rig)

    assert rig.clock.slept == [7.0, 11.0]


def test_a_moment_is_measured_by_the_platforms_clock():
    """Our clock may be wrong by hours; the answer says what time it is over there."""
    headers = {"Date": "Mon, 20 Jul 2026 10:09:03 GMT", "Retry-After": "Mon, 20 Jul 2026 10:09:33 GMT"}
    rig = Rig(Said(429, CF_429, headers), OK)
    tries(rig)

    assert rig.clock.slept == [30.0]


def test_a_wait_of_nothing_is_a_second():
    rig = Rig(Said(429, CF_429, {"Retry-After": "0"}), OK)
    tries(rig)

    assert sum(rig.clock.slept) == 1.0


def test_without_a_word_the_waits_grow():
    rig = Rig(*[CF_500] * 5, OK)
    tries(rig)

    for number, slept in enumerate(rig.clock.slept):
        assert 0.75 * 2**number <= slept <= 1.25 * 2**number


def test_a_wait_beyond_patience_ends_at_once_and_says_how_long():
    rig = Rig(Said(429, CF_429, {"Retry-After": "3000"}))

    with pytest.raises(PlatformError) as caught:
        tries(rig)

    assert caught.value.blame.wait == 3000.0
    assert rig.clock.slept == []


def test_the_waits_of_one_request_are_limited_in_all():
    rig = Rig(lambda _: Said(429, CF_429, {"Retry-After": "90"}))

    with pytest.raises(PlatformError):
        tries(rig)

    assert sum(rig.clock.slept) == 270.0


def test_each_repetition_is_an_event():
    rig = Rig(Said(429, CF_429, {"Retry-After": "7"}), OK)
    tries(rig)

    assert rig.events == [
        ("retry", {"service": "cloud_foundry", "method": "GET", "path": "/v3/x", "status": 429, "wait": 7.0, "attempt": 1}),
    ]  # fmt: skip


def test_the_first_real_error_is_kept_beside_a_later_429():
    rig = Rig(CF_500, Said(429, CF_429, {"Retry-After": "1"}), Said(429, CF_429, {"Retry-After": "900"}))

    with pytest.raises(PlatformError) as caught:
        tries(rig)

    blame = caught.value.blame
    assert (blame.status, blame.code, blame.attempts) == (429, "CF-RateLimitExceeded", 3)
    assert blame.first == "cloud_foundry: An unknown error occurred. [500 UnknownError]"


def test_an_error_that_stays_the_same_is_not_said_twice():
    rig = Rig(lambda _: CF_500)

    with pytest.raises(PlatformError) as caught:
        tries(rig)

    assert caught.value.blame.first == ""


def test_an_interruption_ends_the_wait():
    rig = Rig(CF_500)

    def stop(_seconds):
        raise Interrupted("stop")

    rig.clock.sleep = stop  # type: ignore[method-assign] # a clock that is asked to stop

    with pytest.raises(Interrupted):
        tries(rig)


def test_a_real_clock_wakes_when_the_run_is_stopped():
    clock = WallClock()
    clock.sleep(0)
    threading.Timer(0.01, clock.stop).start()

    with pytest.raises(Interrupted):
        clock.sleep(60)
    assert clock.now() > 1_700_000_000


# --- limits ---------------------------------------------------------------------------------------------


def test_after_a_429_everybody_of_that_host_and_user_waits():
    """The second door learns it from the first one's answer, and asks only when the time has come."""
    rig = Rig(Said(429, CF_429, {"Retry-After": "200"}), OK, OK, OK, attempts=1)

    with pytest.raises(PlatformError):
        tries(rig)
    assert rig.clock.slept == []
    tries(rig)

    assert rig.clock.slept == [200.0]


@pytest.mark.parametrize("other", [{"user": "somebody else"}, {"endpoint": SM}])
def test_another_user_or_host_does_not_wait(other):
    rig = Rig(Said(429, CF_429, {"Retry-After": "200"}), OK, attempts=1)

    with pytest.raises(PlatformError):
        tries(rig)
    rig.door(**other).get("/v3/x")

    assert rig.clock.slept == []


def test_who_would_have_to_wait_too_long_is_told_so_without_a_request():
    rig = Rig(Said(429, CF_429, {"Retry-After": "3000"}), OK)

    with pytest.raises(PlatformError):
        tries(rig)
    rig.clock.sleep(100)
    with pytest.raises(PlatformError) as caught:
        tries(rig)

    assert len(rig.sent) == 1
    assert (caught.value.blame.status, caught.value.blame.wait) == (429, 2900.0)
    rig.clock.sleep(2901)
    assert tries(rig) == {"ok": True}


def test_a_429_without_a_time_holds_the_others_for_the_back_off():
    rig = Rig(Said(429, CF_429), OK)
    client, call = rig.client, Call("cloud_foundry", "GET", API + "/x", user="dev")
    first = module._Tries(client, call)

    with pytest.raises(PlatformError):
        first._once()
    first._pause(type("State", (), {"attempt_number": 1})())
    client.exchange(call)

    assert 0.75 <= sum(rig.clock.slept) <= 1.25


def test_at_most_so_many_are_in_flight():
    most, now, lock = [0], [0], threading.Lock()
    full = threading.Barrier(3)

    def answer(_sent):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        full.wait(10)  # lets go only when three are inside at once
        with lock:
            now[0] -= 1
        return OK

    rig = Rig(answer, parallel=3)
    threads = [threading.Thread(target=tries, args=(rig,)) for _ in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert most == [3]
    assert rig.client.requests_made == 9


# --- 401 ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_a_token_that_died_early_is_replaced_once(method):
    rig = Rig(Said(401), OK)

    assert tries(rig, method) == {"ok": True}
    assert rig.tokens.dropped == ["token-1"]
    assert [sent.headers["Authorization"] for sent in rig.sent] == ["Bearer token-1", "Bearer token-2"]
    assert rig.clock.slept == []


def test_a_second_401_is_final():
    rig = Rig(
        Said(401), Said(401, {"errors": [{"title": "CF-InvalidAuthToken", "detail": "Invalid Auth Token"}]})
    )

    with pytest.raises(PlatformError, match="CF-InvalidAuthToken"):
        tries(rig)

    assert len(rig.sent) == 2


def test_the_one_replacement_is_for_the_whole_request():
    rig = Rig(Said(401), CF_500, Said(401))

    with pytest.raises(PlatformError) as caught:
        tries(rig)

    assert caught.value.blame.status == 401
    assert len(rig.sent) == 3


def test_a_sign_in_that_fails_is_not_repeated_by_the_service_that_needed_it():
    rig = Rig()

    class Refusing:
        asked = 0

        def get(self):
            self.asked += 1
            raise SignInRefused(module._blank(Call("cloud_foundry", "POST", API), "no"))

    refusing = Refusing()
    rig.tokens = refusing  # type: ignore[assignment] # tokens that are refused

    with pytest.raises(SignInRefused):
        tries(rig)

    assert refusing.asked == 1


# --- answers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", ["", "<html>", "{", "5", "null", '"x"', "NaN"])
def test_a_good_status_without_json_is_an_error(body):
    rig = Rig(Said(200, body))

    with pytest.raises(PlatformError, match="came where JSON is due") as caught:
        tries(rig)

    assert caught.value.blame.status == 200
    assert len(rig.sent) == 1


def test_an_answer_is_not_read_without_end(monkeypatch):
    monkeypatch.setattr(module, "LARGEST_ANSWER", 1024 * 1024)
    rig = Rig(Said(200, b"[" + b"1," * 1024 * 1024 + b"1]"))

    with pytest.raises(PlatformError, match="more than 1 MB"):
        tries(rig)


def test_the_platforms_clock_is_that_of_its_last_answer():
    rig = Rig(Said(200, {}, {"Date": "Mon, 20 Jul 2026 10:09:03 GMT"}), Said(200, {}, {"Date": "no date"}))
    door, elsewhere = rig.door(), rig.door("service_manager", SM)

    assert door.now() == rig.clock.now()
    door.get("/v3/x")
    assert door.now() == 1_784_542_143.0
    door.get("/v3/x")
    assert door.now() == 1_784_542_143.0
    assert elsewhere.now() == rig.clock.now()


def test_our_clock_is_compared_with_the_host_that_agrees_best():
    rig = Rig(
        *(Said(200, {}, {"Date": date}) for date in ("Thu, 01 Jan 2026 00:30:00 GMT", "no date")),
        Said(200, {}, {"Date": "Wed, 31 Dec 2025 23:59:00 GMT"}),
    )
    began = rig.clock.now()
    door, elsewhere = rig.door(), rig.door("service_manager", SM)

    assert (began, rig.client.clock_off()) == (1_767_225_600.0, 0.0)
    door.get("/v3/x")
    assert rig.client.clock_off() == -1800.0
    door.get("/v3/x")
    assert rig.client.clock_off() == -1800.0
    elsewhere.get("/v1/x")
    assert rig.client.clock_off() == 60.0


def test_a_rehearsed_world_counts_its_own_time():
    rig = Rig(Said(200, {}, {"Date": "Thu, 01 Jan 2026 00:30:00 GMT"}), compare_clocks=False)
    rig.door().get("/v3/x")

    assert (rig.door().now(), rig.client.clock_off()) == (1_767_227_400.0, 0.0)


# --- settings -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "verify", "found"),
    [
        ({}, True, True),
        ({"REQUESTS_CA_BUNDLE": "/ca.pem"}, True, "/ca.pem"),
        ({"CURL_CA_BUNDLE": "/curl.pem"}, True, "/curl.pem"),
        ({"REQUESTS_CA_BUNDLE": "/ca.pem", "CURL_CA_BUNDLE": "/curl.pem"}, True, "/ca.pem"),
        ({"REQUESTS_CA_BUNDLE": "/ca.pem"}, "/own.pem", "/own.pem"),
        ({"REQUESTS_CA_BUNDLE": "/ca.pem"}, False, False),
    ],
)
def test_the_trusted_authorities(variables, verify, found, monkeypatch):
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    rig = Rig(OK, verify=verify)
    tries(rig)

    assert rig.sent[0].verify == found


def test_proxies_are_the_environments_but_not_for_this_machine(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    client = module.Client(clock=Rig().clock, events=lambda *_: None)

    assert client._proxies(API)["https"] == "http://proxy.example:3128"
    assert client._proxies("http://127.0.0.1:8080/x") == {}
    assert client._proxies("http://localhost:8080/x") == {}
    client.close()


def test_a_client_certificate_is_a_file_for_as_long_as_it_is_needed():
    rig = Rig(OK)
    call = Call("sign_in", "POST", API + "/oauth/token", safe=True, certificate=("CERT\n", "KEY\n"))
    rig.client.exchange(call)

    assert rig.sent[0].certificate == ("CERT\n", "KEY\n")
    assert "KEY" not in repr(call)


def test_the_client_can_be_closed():
    with Rig(OK).client as client:
        client.exchange(Call("cloud_foundry", "GET", API + "/"))


def test_a_full_disk_is_not_taken_for_a_fault_of_the_connection() -> None:
    """As when the file in which a rehearsed platform lives cannot be written."""
    full = OSError(errno.ENOSPC, "No space left on device")

    assert module._diagnosis(full, (1.0, 1.0)) == (
        False,
        False,
        "this machine cannot go on: No space left on device",
    )
