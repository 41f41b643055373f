"""Doors: bodies, queries, pages."""

import json

import pytest

from btp_reconcile.core.errors import HostRefused, LostResponse, PlatformError
from btp_reconcile.core.model import Secret
from tests.edges.wire import API, SM, Rig, Said

CENTRAL = "https://entitlements-service.cfapps.eu10.hana.ondemand.com"


def cf_page(rows, following=None) -> Said:
    return Said(200, {"pagination": {"next": following and {"href": following}}, "resources": rows})


# --- writes ---------------------------------------------------------------------------------------------


def test_secrets_are_revealed_in_the_body_and_nowhere_else():
    rig = Rig(Said(422, {"errors": [{"detail": "no role hunter22!", "title": "CF-UnprocessableEntity"}]}))

    with pytest.raises(PlatformError) as caught:
        rig.door().send("POST", "/v3/x", {"a": [Secret("role", "hunter22!")], "b": ({"c": 1},)})

    assert json.loads(rig.sent[0].body) == {"a": ["hunter22!"], "b": [{"c": 1}]}
    assert rig.sent[0].headers["Content-Type"] == "application/json"
    assert caught.value.blame.message == "no role ***"


def test_a_write_without_a_body_has_none():
    rig = Rig(Said(202, None, {"Location": API + "/v3/jobs/1", "Content-Type": "text/html"}))
    answer = rig.door().send("DELETE", "/v3/x")

    assert (answer.status, answer.body, answer.headers["location"]) == (202, None, API + "/v3/jobs/1")
    assert rig.sent[0].body == ""
    assert "Content-Type" not in rig.sent[0].headers


def test_a_write_may_be_bound_to_what_was_read_before():
    rig = Rig(Said(200, {"a": 1}, {"ETag": '"e1"'}), Said(412), Said(200, {"Count": 1}))
    door = rig.door()
    answer = door.read("/v3/x")

    with pytest.raises(PlatformError) as caught:
        door.send("PUT", "/v3/x", {}, match=answer.headers["ETag"])
    door.send("PUT", "/v3/x", {})

    assert (answer.status, answer.body, caught.value.blame.status) == (200, {"a": 1}, 412)
    assert [one.headers.get("If-Match") for one in rig.sent] == [None, '"e1"', None]


@pytest.mark.parametrize(
    ("said", "body"),
    [
        (Said(201, {"a": 1}), {"a": 1}),
        (Said(200, [1]), [1]),
        (Said(200, "null"), None),
        (Said(202, '"job"'), "job"),
        (Said(202, "job 1 accepted", {"Content-Type": "text/plain"}), None),
        (Said(204), None),
        (Said(201), None),
    ],
)
def test_what_a_write_answers(said, body):
    assert Rig(said).door().send("PUT", "/v3/x", {}).body == body


@pytest.mark.parametrize("said", [Said(200, "<html>"), Said(201, "{"), Said(202, "<html>", {"Content-Type": "text/HTML"}), Said(200, "5")])  # fmt: skip
def test_a_write_answered_by_something_else(said):
    """A portal that answers 200 with its own page has not done the work; whether anybody has cannot be known."""
    with pytest.raises(LostResponse):
        Rig(said).door().send("POST", "/v3/x", {})
    with pytest.raises(PlatformError, match="came where JSON is due") as caught:
        Rig(said).door().send("PATCH", "/v3/x", {})
    assert type(caught.value) is PlatformError


def test_only_writes_are_sent():
    with pytest.raises(ValueError, match="GET is no write"):
        Rig().door().send("GET", "/v3/x")


# --- addresses ------------------------------------------------------------------------------------------


def test_queries_are_encoded_once():
    rig = Rig(Said(200, {}))
    rig.door().get("/v3/x", [("names", "a b,c&d"), ("fields[space]", "guid"), ("q", "name eq 'O''Brien'")])

    assert rig.sent[0].url == (
        API + "/v3/x?names=a%20b%2Cc%26d&fields%5Bspace%5D=guid&q=name%20eq%20%27O%27%27Brien%27"
    )


def test_an_endpoint_may_have_a_path():
    rig = Rig(Said(200, {}))
    rig.door(endpoint="http://127.0.0.1:8080/api.cf.eu10").get("/v3/x")

    assert rig.sent[0].url == "http://127.0.0.1:8080/api.cf.eu10/v3/x"


def test_an_address_of_the_service_itself_is_followed():
    rig = Rig(Said(200, {"state": "COMPLETE"}))

    assert rig.door().get(API + "/v3/jobs/1") == {"state": "COMPLETE"}


@pytest.mark.parametrize("url", ["https://uaa.cf.eu10.hana.ondemand.com/x", "https://api.cf.eu20.hana.ondemand.com/x", "http://127.0.0.1/x"])  # fmt: skip
def test_an_address_of_another_host_is_not(url):
    rig = Rig()

    with pytest.raises(PlatformError, match="names a link to another host"):
        rig.door().get(url)


@pytest.mark.parametrize("url", ["https://evil.com/x", "v3/x", "", "http://api.cf.eu10.hana.ondemand.com/x"])
def test_an_address_that_is_not_allowed_is_refused(url):
    with pytest.raises(HostRefused):
        Rig().door().get(url)


@pytest.mark.parametrize("path", ["/v3/a b", "/v3/ä", "/v3/x#y", "/v3\\x", "/v3/\n"])
def test_a_path_must_be_encoded(path):
    with pytest.raises(ValueError, match="percent-encoded"):
        Rig().door().get(path)


def test_a_request_line_has_a_limit():
    rig = Rig(Said(200, {}))
    line = "GET /v3/x?guids= HTTP/1.1"
    rig.door().get("/v3/x", [("guids", "a" * (8000 - len(line)))])

    with pytest.raises(ValueError, match="request line of 8,001 bytes"):
        rig.door().get("/v3/x", [("guids", "a" * (8001 - len(line)))])
    assert len(rig.sent) == 1


# --- pages ----------------------------------------------------------------------------------------------


def test_cloud_controller_pages_are_followed_by_their_links():
    rig = Rig(
        cf_page([{"guid": "1"}], API + "/v3/x?page=2&per_page=5000&names=a"),
        cf_page([{"guid": "2"}], API + "/v3/x?page=3&per_page=5000&names=a"),
        cf_page([]),
    )
    pages = list(rig.door().pages("/v3/x", [("names", "a")]))

    assert [page["resources"] for page in pages] == [[{"guid": "1"}], [{"guid": "2"}], []]
    assert [sent.query for sent in rig.sent] == [
        {"names": "a", "per_page": "5000"},
        {"names": "a", "per_page": "5000", "page": "2"},
        {"names": "a", "per_page": "5000", "page": "3"},
    ]


def test_a_page_size_of_ones_own_is_kept():
    rig = Rig(cf_page([]))
    list(rig.door().pages("/v3/x", [("per_page", "1")]))

    assert rig.sent[0].query == {"per_page": "1"}


@pytest.mark.parametrize(
    "href",
    [
        "https://evil.com/v3/x",
        "https://uaa.cf.eu10.hana.ondemand.com/v3/x",
        "http://api.cf.eu10.hana.ondemand.com/v3/x",
        API + "@evil.com/v3/x",
        API + ":8443/v3/x",
        "//evil.com",
        "x",
    ],
)
def test_a_link_to_elsewhere_is_not_followed(href):
    rig = Rig(cf_page([], href))

    with pytest.raises(PlatformError):
        list(rig.door().pages("/v3/x"))

    assert len(rig.sent) == 1


def test_pages_in_a_circle_end():
    rig = Rig(lambda _: cf_page([], API + "/v3/x?page=2"))

    with pytest.raises(PlatformError, match="circle"):
        list(rig.door().pages("/v3/x"))

    assert len(rig.sent) == 2


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        {"resources": []},
        {"pagination": {}, "resources": 5},
        {"pagination": {"next": 5}, "resources": []},
        {"pagination": {"next": {"href": 5}}, "resources": []},
        {"pagination": [], "resources": []},
        {"pagination": {"next": None}, "resources": [1]},
    ],
)
def test_a_list_of_another_shape_is_an_error(body):
    with pytest.raises(PlatformError, match="a list came without usable"):
        list(Rig(Said(200, body)).door().pages("/v3/x"))


def test_service_manager_pages_are_followed_by_their_tokens():
    rig = Rig(
        Said(200, {"token": "MTIz", "num_items": 3, "items": [{"id": "1"}]}),
        Said(200, {"num_items": 3, "items": [{"id": "2"}], "token": ""}),
    )
    pages = list(rig.door("service_manager", SM).pages("/v1/x", [("fieldQuery", "a eq 'b'")]))

    assert [page["items"][0]["id"] for page in pages] == ["1", "2"]
    assert [sent.query for sent in rig.sent] == [
        {"fieldQuery": "a eq 'b'", "max_items": "200"},
        {"fieldQuery": "a eq 'b'", "max_items": "200", "token": "MTIz"},
    ]


def test_no_items_may_be_null():
    rig = Rig(Said(200, {"num_items": 0, "items": None}))

    assert list(rig.door("service_manager", SM).pages("/v1/x")) == [{"num_items": 0, "items": []}]


@pytest.mark.parametrize("body", [[], {}, {"items": 5}, {"items": ["x"]}])
def test_a_service_manager_list_of_another_shape_is_an_error(body):
    with pytest.raises(PlatformError, match="a list came without usable"):
        list(Rig(Said(200, body)).door("service_manager", SM).pages("/v1/x"))


@pytest.mark.parametrize("token", [5, ["x"], "again"])
def test_tokens_in_a_circle_end(token):
    rig = Rig(lambda _: Said(200, {"items": [], "token": token}))

    with pytest.raises(PlatformError, match="circle"):
        list(rig.door("service_manager", SM).pages("/v1/x"))


@pytest.mark.parametrize("service", ["entitlements", "accounts"])
def test_central_services_have_one_page(service):
    rig = Rig(Said(200, {"value": []}))

    assert list(rig.door(service, CENTRAL).pages("/x", [("a", "b")])) == [{"value": []}]
    assert rig.sent[0].query == {"a": "b"}
