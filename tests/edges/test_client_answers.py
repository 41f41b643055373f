"""What each family of error bodies comes to, and what is never believed."""

import json
from typing import Any

import pytest
from requests.structures import CaseInsensitiveDict

from btp_reconcile.core.errors import Blame
from btp_reconcile.core.said import asked_wait, http_date, line, scrubbed
from btp_reconcile.edges.answers import NotJson, Reply, blame, parsed

NOW = 1_784_542_143.0  # 2026-07-20T10:09:03Z


def reply(status, body: Any = b"", **headers) -> Reply:
    data = (
        body
        if isinstance(body, bytes)
        else body.encode()
        if isinstance(body, str)
        else json.dumps(body).encode()
    )
    return Reply(
        status, CaseInsensitiveDict({key.replace("_", "-"): value for key, value in headers.items()}), data
    )


def told(answer, method="GET", **more) -> Blame:
    return blame(answer, service="s", method=method, url="https://h/p?q=1", now=NOW, **more)


CF_ITEM = {
    "detail": "The service instance name is taken: demo.",
    "title": "CF-UnprocessableEntity",
    "code": 10008,
}


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ({"errors": [CF_ITEM]}, "CF-UnprocessableEntity", "The service instance name is taken: demo."),
        (
            {"errors": [CF_ITEM, {"detail": "And more.", "title": "CF-Other", "code": 1}, "junk"]},
            "CF-UnprocessableEntity",
            "The service instance name is taken: demo.; And more.",
        ),
        ({"errors": [{"code": 10001}]}, "10001", "10001"),
        (
            {"error": {"code": 30009, "message": "Too much.", "details": [{"code": 1, "message": "Left: 2."}, {"message": "Too much."}]}},
            "30009",
            "Too much.; Left: 2.",
        ),
        ({"error": {"code": 30009, "message": "Too much.", "details": "x"}}, "30009", "Too much."),
        ({"code": 30009, "description": "Too much."}, "30009", "Too much."),
        ({"error": {"message": "Text only"}}, "", "Text only"),
        ({"ErrorMessage": "Configuration was not found"}, "", "Configuration was not found"),
        ({"error": "BadRequest", "description": "no such field"}, "BadRequest", "no such field"),
        (
            {"error": "BrokerError", "description": "Failed provisioning", "broker_error": {"StatusCode": 422, "Description": "invalid role"}},
            "BrokerError",
            "Failed provisioning; invalid role",
        ),
        (
            {"error": "BrokerError", "description": "Failed: invalid role", "broker_error": {"Description": "invalid role"}},
            "BrokerError",
            "Failed: invalid role",
        ),
        ({"description": "The allowed request limit of 600"}, "", "The allowed request limit of 600"),
        ({"error": "invalid_client", "error_description": "Bad credentials"}, "invalid_client", "Bad credentials"),
        ({"timestamp": 1, "status": 404, "error": "Not Found", "path": "/x"}, "Not Found", "Not Found"),
        ({"error": {"code": True, "message": ["x"]}}, "", "Bad Request, with an answer that is not the JSON expected (no content type, 43 bytes)"),
    ],
)  # fmt: skip
def test_each_family_is_understood(body, code, message):
    found = told(reply(400, body))

    assert (found.code, found.message) == (code, message)


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        (b"", "text/html", "Bad Gateway, with an empty answer"),
        (b"<html>secret</html>", "text/html; charset=x", "Bad Gateway, with an answer that is not JSON (text/html, 19 bytes)"),
        (b"x" * 1234, "", "Bad Gateway, with an answer that is not JSON (no content type, 1,234 bytes)"),
        (b'{"errors": [{"detail": "tru', "application/json", "Bad Gateway, with an answer that is broken JSON (application/json, 27 bytes)"),
        (b"[" * 100_000, "application/json", "Bad Gateway, with an answer that is broken JSON (application/json, 100,000 bytes)"),
        (b"\xff\xfe\xfa", "a/b", "Bad Gateway, with an answer that is not JSON (a/b, 3 bytes)"),
        (b'{"x": 1' + b"1" * 5000 + b"}", "a/b", "Bad Gateway, with an answer that is broken JSON (a/b, 5,008 bytes)"),
        (b"null", "a/b", "Bad Gateway, with an answer that is not the JSON expected (a/b, 4 bytes)"),
        (b"[1]", "a/b", "Bad Gateway, with an answer that is not the JSON expected (a/b, 3 bytes)"),
        (b'{"errors": 5}', "a/b", "Bad Gateway, with an answer that is not the JSON expected (a/b, 13 bytes)"),
        (b'{"errors": []}', "a/b", "Bad Gateway, with an answer that is not the JSON expected (a/b, 14 bytes)"),
        (b'{"errors": ["s"]}', "a/b", "Bad Gateway, with an answer that is not the JSON expected (a/b, 17 bytes)"),
        (b'{"error": 7}', "a/b", "Bad Gateway, with an answer that is not the JSON expected (a/b, 12 bytes)"),
        (b'{"secret": "s"}', "a/b", "Bad Gateway, with an answer that is not the JSON expected (a/b, 15 bytes)"),
        (b"7", "x" * 500, "Bad Gateway, with an answer that is not the JSON expected (" + "x" * 59 + "…, 1 bytes)"),
    ],
)  # fmt: skip
def test_a_body_of_no_family_is_described_and_never_quoted(body, kind, message):
    headers = {"Content-Type": kind} if kind else {}

    assert told(Reply(502, CaseInsensitiveDict(headers), body)).message == message


def test_json_is_read_whatever_the_content_type_says():
    answer = reply(
        429,
        {"errors": [{"title": "CF-RateLimitExceeded", "detail": "Rate Limit Exceeded"}]},
        Content_Type="text/plain",
    )

    assert told(answer).code == "CF-RateLimitExceeded"


def test_a_status_that_nobody_knows_has_words_too():
    assert told(reply(599)).message == "status 599, with an empty answer"


@pytest.mark.parametrize(
    ("headers", "body", "found"),
    [
        ({"X-CorrelationID": "c-1", "X-Vcap-Request-Id": "v-1"}, {}, "c-1"),
        ({"x-vcap-request-id": "a::b"}, {}, "a::b"),
        ({"X-Vcap-Request-Id": "v-1"}, {"error": {"correlationID": "body-1", "message": "x"}}, "body-1"),
        ({}, {"error": {"correlationID": 7, "message": "x"}}, "7"),
        ({}, {}, ""),
        ({"X-CorrelationID": "a\x1b[0m" + "b" * 400}, {}, "a [0m" + "b" * 249 + "…"),
    ],
)
def test_the_correlation_id_is_found(headers, body, found):
    assert told(Reply(500, CaseInsensitiveDict(headers), json.dumps(body).encode())).correlation == found


def test_the_blame_says_where_without_the_query():
    assert told(reply(404, {})).url == "https://h/p"


@pytest.mark.parametrize(
    ("status", "repeated", "post"),
    [
        (400, False, False), (401, False, False), (403, False, False), (404, False, False), (408, False, False),
        (409, False, False), (412, False, False), (422, False, False), (429, True, True), (500, True, False),
        (501, False, False), (502, True, False), (503, True, False), (504, True, False), (505, False, False),
    ],
)  # fmt: skip
def test_what_may_be_sent_again(status, repeated, post):
    for method in ("GET", "PUT", "PATCH", "DELETE"):
        assert told(reply(status), method).repeatable is repeated
    assert told(reply(status), "POST").repeatable is post


def test_a_post_is_sent_again_when_the_service_says_when():
    assert told(reply(503, Retry_After="3"), "POST").repeatable
    assert not told(reply(502, Retry_After="3"), "POST").repeatable


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_safe_post_is_sent_again_like_a_get(status):
    assert told(reply(status), "POST", safe=True).repeatable


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_safe_post_that_was_refused_is_not(status):
    assert not told(reply(status), "POST", safe=True).repeatable


@pytest.mark.parametrize(("broker", "repeated"), [(422, False), (400, False), (409, False), (408, True), (429, True), (500, True), (None, True), ("422", True), (True, True)])  # fmt: skip
def test_a_brokers_own_refusal_is_final_although_it_comes_as_502(broker, repeated):
    body = {"error": "BrokerError", "description": "x", "broker_error": {"StatusCode": broker}}

    assert told(reply(502, body), "DELETE").repeatable is repeated


def test_a_locked_entity_is_worth_another_try():
    for method in ("PUT", "POST"):
        assert told(reply(400, {"error": {"code": 30004, "message": "locked"}}), method).repeatable
    assert not told(reply(400, {"error": {"code": 30005, "message": "no"}}), "PUT").repeatable


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (409, {"errors": [{"title": "CF-AsyncServiceInstanceOperationInProgress", "code": 60016}]}, "CF-AsyncServiceInstanceOperationInProgress"),
        (422, {"error": "ConcurrentOperationInProgress", "description": "x"}, "ConcurrentOperationInProgress"),
        (422, {"error": "OperationInProgress", "description": "x"}, "OperationInProgress"),
    ],
)  # fmt: skip
def test_an_operation_in_progress_is_for_the_engine_to_wait_for(status, body, code):
    found = told(reply(status, body), "PATCH")

    assert (found.repeatable, found.code, found.status) == (False, code, status)


def test_an_unknown_route_is_no_absence():
    found = told(
        reply(404, "404 Not Found: Requested route does not exist.", X_Cf_RouterError="unknown_route")
    )

    assert (found.status, found.code, found.repeatable) == (503, "unknown_route", True)
    assert not told(reply(404, "", X_Cf_RouterError="unknown_route"), "POST").repeatable
    assert told(reply(404, "", X_Cf_RouterError="endpoint_failure")).status == 404


# --- waits ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status", "wait"),
    [
        ({"Retry-After": "7"}, 429, 7.0),
        ({"retry-after": " 7 "}, 503, 7.0),
        ({"Retry-After": "1.5"}, 429, 1.5),
        ({"Retry-After": "0"}, 429, 0.0),
        ({"Retry-After": "Mon, 20 Jul 2026 10:09:33 GMT"}, 429, 30.0),
        ({"Retry-After": "2026-07-20 10:09:33 +0000 UTC"}, 429, 30.0),
        ({"Retry-After": "2026-07-20 12:09:33.366647 +0200 CEST m=+0.5"}, 429, 30.0),
        ({"Retry-After": "Mon, 20 Jul 2026 10:00:00 GMT"}, 429, 0.0),
        ({"X-RateLimit-Reset": str(int(NOW) + 9)}, 429, 9.0),
        ({"x-ratelimit-reset": str((int(NOW) + 9) * 1000)}, 429, 9.0),
        ({"X-Ratelimit-Reset": str(int(NOW) + 9)}, 503, None),
        ({"Retry-After": "5", "X-RateLimit-Reset": str(int(NOW) + 9)}, 429, 5.0),
        ({"Retry-After": "soon", "X-RateLimit-Reset": str(int(NOW) + 9)}, 429, 9.0),
        ({"Retry-After": "-5"}, 429, None),
        ({"Retry-After": "9" * 5000}, 429, None),
        ({"Retry-After": "inf"}, 429, None),
        ({"Retry-After": "nan"}, 429, None),
        ({"Retry-After": "٣"}, 429, None),
        ({"Retry-After": ""}, 429, None),
        ({"Retry-After": "2026-13-40 10:09:33 +0000 UTC"}, 429, None),
        ({"Retry-After": "Mon, 99 Jul 2026 10:09:33 GMT"}, 429, None),
        ({"X-RateLimit-Reset": "12"}, 429, None),
        ({}, 429, None),
    ],
)
def test_the_wait_that_was_asked_for(headers, status, wait):
    assert asked_wait(CaseInsensitiveDict(headers), status, NOW) == wait


@pytest.mark.parametrize(
    "text", ["", "x", "Mon, 99 Jul 2026 10:09:33 GMT", "Mon, 20 Jul 999999999 10:09:33 GMT"]
)
def test_a_date_that_is_none(text):
    assert http_date(text) is None


# --- texts ----------------------------------------------------------------------------------------------


def test_what_we_sent_in_confidence_does_not_come_back():
    secret = 'p+=$|"ss word/ü'
    text = f"no: {secret} / {json.dumps(secret)} / p%2B%3D%24%7C%22ss%20word%2F%C3%BC / p%2B%3D%24%7C%22ss+word%2F%C3%BC / cCs9JHwic3Mgd29yZC/DvA=="

    assert scrubbed(text, [secret]) == 'no: *** / "***" / *** / *** / ***'


@pytest.mark.parametrize(
    "token",
    [
        "eyJhbGciOi.eyJzdWIi.c2ln",
        "e6a09d73bc57452482b696ab4e539f5c-r",
        "-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----",
        "-----BEGIN RSA PRIVATE KEY-----\nabc",
    ],
)
def test_what_looks_like_a_token_is_not_shown(token):
    found = told(reply(400, {"error": "x", "description": f"bad {token}"}))

    assert found.message == "bad ***"


def test_messages_are_one_printable_line():
    assert line("a\r\n\tb\x1b[31m c\u202ed \ud800") == "a b [31m c d ?"
    assert len(line("x" * 9000)) == 2000


@pytest.mark.parametrize("body", [b"NaN", b'{"a": Infinity}', b"", b"{"])
def test_what_is_no_json(body):
    with pytest.raises(NotJson):
        parsed(Reply(200, CaseInsensitiveDict(), body))


def test_json_may_start_with_a_byte_order_mark():
    assert parsed(Reply(200, CaseInsensitiveDict(), b'\xef\xbb\xbf{"a": 1}')) == {"a": 1}
