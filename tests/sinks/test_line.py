"""The way to consumers that are reached by HTTP."""

from __future__ import annotations

import ssl
import threading
from typing import TYPE_CHECKING

import certifi
import pytest

from btp_reconcile.core.errors import Blame, LostResponse, PlatformError, Unreachable
from btp_reconcile.sinks._line import LARGEST_ANSWER, Answer, Line, trusted
from btp_reconcile.sinks._proxy import proxy_for
from tests.sinks.parcels import NOW, around
from tests.sinks.servers.authority import Authority
from tests.sinks.servers.web import Says, Web

if TYPE_CHECKING:
    from pathlib import Path


def line(web: Web, **world) -> Line:
    return Line("gitlab", f"{web.url}/api/", around(**world))


@pytest.mark.parametrize(
    ("url", "environment", "proxy"),
    [
        ("https://gitlab.com/api", {}, ""),
        ("https://gitlab.com/api", {"https_proxy": "http://proxy:3128"}, "http://proxy:3128"),
        ("https://gitlab.com/api", {"HTTPS_PROXY": "http://proxy:3128"}, "http://proxy:3128"),
        ("https://gitlab.com/api", {"ALL_PROXY": "http://proxy:3128"}, "http://proxy:3128"),
        ("https://gitlab.com/api", {"http_proxy": "http://proxy:3128"}, ""),
        ("https://gitlab.com", {"https_proxy": "http://p", "no_proxy": "github.com, gitlab.com"}, ""),
        ("https://api.gitlab.com", {"https_proxy": "http://p", "NO_PROXY": ".gitlab.com:443"}, ""),
        ("https://notgitlab.com", {"https_proxy": "http://p", "no_proxy": "gitlab.com"}, "http://p"),
        ("https://10.1.2.3", {"https_proxy": "http://p", "no_proxy": "10.0.0.0/8"}, ""),
        ("https://11.1.2.3", {"https_proxy": "http://p", "no_proxy": "10.0.0.0/8,,"}, "http://p"),
        ("https://gitlab.com", {"https_proxy": "http://p", "no_proxy": "*"}, ""),
        ("https://127.0.0.1:1", {"https_proxy": "http://p"}, ""),
        ("http://localhost:1", {"http_proxy": "http://p", "all_proxy": "http://p"}, ""),
        ("https://[::1]:1", {"https_proxy": "http://p"}, ""),
    ],
)
def test_a_proxy_is_taken_from_the_environment_but_never_for_this_machine(url, environment, proxy) -> None:
    assert proxy_for(url, environment) == proxy


def test_an_answer_is_given_as_it_came_and_who_asks_is_said() -> None:
    with Web(lambda _: Says(404, {"message": "no"}, {"X-Thing": "1"})) as web:
        way = line(web)
        answer = way.send("GET", "/x?secret=1", {"PRIVATE-TOKEN": "t"})
        way.close()

    assert (answer.status, answer.good, answer.json, answer.headers["x-thing"]) == (
        404,
        False,
        {"message": "no"},
        "1",
    )
    assert web.asked == ["GET /api/x"]
    assert web.seen[0].headers["User-Agent"].startswith("btp-reconcile/")
    assert {"Cookie", "Authorization"}.isdisjoint(web.seen[0].headers)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b'"x"', b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_object_is_an_empty_one(body) -> None:
    assert Answer(200, {}, body).json == {}


def test_an_answer_without_end_is_cut() -> None:
    with Web(lambda _: Says(200, b"x" * (LARGEST_ANSWER + 1))) as web:
        way = line(web)
        with pytest.raises(PlatformError, match="an answer of more than 8 MB"):
            way.send("GET", "/x", {})
        way.close()


@pytest.mark.parametrize(
    ("method", "kind", "repeatable"),
    [("GET", PlatformError, True), ("PUT", LostResponse, True), ("POST", LostResponse, False)],
)
def test_no_answer_in_time_means_that_a_write_may_have_happened(method, kind, repeatable) -> None:
    done = threading.Event()

    def late(_) -> Says:
        done.wait(5)
        return Says(200)

    with Web(late) as web:
        way = line(web, timeout=0.2)
        with pytest.raises(PlatformError) as caught:
            way.send(method, "/x?y=1", {}, b"{}", repeatable=method != "POST")
        done.set()
        way.close()

    assert type(caught.value) is kind
    assert caught.value.blame == Blame(
        "gitlab",
        method,
        f"{web.url}/api/x",
        message=f"{web.url}/api: no answer within 0.2 s",
        repeatable=repeatable,
    )


def test_a_header_that_cannot_be_sent_is_said_without_quoting_it() -> None:
    with Web(lambda _: Says(200)) as web:
        way = line(web)
        with pytest.raises(Unreachable) as caught:
            way.send("GET", "/x", {"PRIVATE-TOKEN": "two\nlines"})
        way.close()

    assert caught.value.blame.message.endswith("check the address and the credentials")
    assert "lines" not in str(caught.value)
    assert web.seen == []


def test_the_wait_is_counted_by_the_clock_of_who_answers() -> None:
    way = Line("gitlab", "http://127.0.0.1:9", around())
    date = {"Date": "Sun, 22 Nov 2026 10:30:00 GMT"}

    assert way.until(NOW + 30, {}) == 30.0
    assert way.until(NOW + 30, {"Date": "Sun, 22 Nov 2026 10:29:00 GMT"}) == 90.0
    assert way.until(NOW - 30, date) == 0.0
    way.close()


def test_an_authority_of_ones_own_is_named_by_the_environment(tmp_path: Path) -> None:
    authority = Authority()
    bundle = tmp_path / "ca.pem"
    bundle.write_text(authority.certificate)
    with Web(lambda _: Says(204), authority.server("127.0.0.1", clients=False)) as web:
        way = line(web, environment={"REQUESTS_CA_BUNDLE": str(bundle)})
        assert way.send("GET", "/x", {}).status == 204
        way.close()
        astray = line(web)
        with pytest.raises(Unreachable, match="its certificate is not trusted"):
            astray.send("GET", "/x", {})
        astray.close()


def test_certificates_that_cannot_be_read_are_said(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    for name, why in (("ca.pem", "it holds no certificate"), ("none.pem", "No such file or directory")):
        with pytest.raises(PlatformError, match=f"{name} cannot be read: {why}"):
            trusted({"CURL_CA_BUNDLE": str(tmp_path / name)})
    assert len(trusted({"REQUESTS_CA_BUNDLE": str(tmp_path)}).get_ca_certs()) == 0
    usual = ssl.create_default_context(cafile=certifi.where())
    assert len(trusted({}).get_ca_certs()) == len(usual.get_ca_certs())
