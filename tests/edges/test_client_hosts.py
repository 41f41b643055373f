"""Credentials go to SAP's own hosts, to this machine, and to what was allowed outside the spec."""

import pytest

from btp_reconcile.core.errors import HostRefused
from btp_reconcile.edges.hosts import check, objection, shown
from tests.edges.wire import API, Rig, Said


@pytest.mark.parametrize(
    "url",
    [
        "https://api.cf.eu10.hana.ondemand.com",
        "https://API.CF.EU10-004.hana.ondemand.com/v3/spaces?x=1",
        "https://api.cf.cn40.platform.sapcloud.cn",
        "https://uaa.cf.us10-001.hana.ondemand.com:443/oauth/token",
        "https://login.cf.eu20.hana.ondemand.com",
        "https://acme-x1.authentication.eu10.hana.ondemand.com/oauth/token",
        "https://acme.authentication.cert.eu10.hana.ondemand.com",
        "https://accounts-service.cfapps.eu10.hana.ondemand.com",
        "https://entitlements-service.cfapps.eu10.hana.ondemand.com",
        "https://service-manager.cfapps.cn40.platform.sapcloud.cn",
        "https://something.of.cloud.sap/x",
        "http://127.0.0.1:8080/x",
        "http://localhost:1234",
        "http://[::1]:1234/x",
        "https://127.0.0.2:9",
    ],
)
def test_these_may_have_credentials(url):
    assert objection(url, ()) == ""


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.com",
        "http://api.cf.eu10.hana.ondemand.com",
        "ftp://api.cf.eu10.hana.ondemand.com",
        "https://api.cf.eu10.hana.ondemand.com.evil.com",
        "https://evilhana.ondemand.com",
        "https://hana.ondemand.com",
        "https://evil.com#.hana.ondemand.com",
        "https://evil.com/.hana.ondemand.com",
        "https://evil.com?.hana.ondemand.com",
        "https://evil.com\\.hana.ondemand.com",
        "https://api.cf.eu10.hana.ondemand.com\\@evil.com",
        "https://user@api.cf.eu10.hana.ondemand.com",
        "https://api.cf.eu10.hana.ondemand.com@evil.com",
        "https://user:secret@evil.com",
        "https://api.cf.eu10.hana.ondemand.com:8443",
        "https://api.cf.eu10.hana.ondemand.com:99999999",
        "https://api.cf.eu10.hana.ondemand.com.",
        "https://api.cf..hana.ondemand.com",
        "https://api.cf.eu10.hana.ondemand.com/a b",
        "https://api.cf.eu10.hana.ondemand.com/\n",
        "https://api.cf.eu10.hana.ondemand.com/#x",
        "https://аpi.cf.eu10.hana.ondemand.com",
        "https://api.cf.eu10.hana。ondemand.com",
        "https://api.cf.eu10.hana.ondemand.com\x00",
        "https:/api.cf.eu10.hana.ondemand.com",
        "//api.cf.eu10.hana.ondemand.com",
        "api.cf.eu10.hana.ondemand.com",
        "",
        "https://",
        "https://2130706433",
        "http://127.1",
        "http://0x7f000001",
        "http://[::ffff:127.0.0.1]",
        "http://localhost.evil.com",
        "https://127.0.0.1.evil.com",
        "https://sapcloud.cn",
        "https://cloud.sap.evil.com",
        "https://cloud.sap",
    ],
)
def test_these_may_not(url):
    assert objection(url, ()) != ""


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.cfapps.eu10.hana.ondemand.com",
        "https://api-cf.cfapps.eu10.hana.ondemand.com",
        "https://service-manager.evil.cfapps.eu10.hana.ondemand.com",
        "https://service-manager.cfapps.eu10-004.hana.ondemand.com",
        "https://evilsubaccount.hana.ondemand.com",
        "https://app.eu2.hana.ondemand.com",
    ],
)
def test_an_application_that_any_customer_can_publish_is_not_saps(url):
    assert "not one of SAP's" in objection(url, ())


@pytest.mark.parametrize(
    ("url", "allowed", "good"),
    [
        ("https://btp.example.com/x", ["btp.example.com"], True),
        ("https://BTP.example.com", [" btp.EXAMPLE.com "], True),
        ("https://a.example.com", ["*.example.com"], True),
        ("https://a.b.example.com", ["*.example.com"], True),
        ("https://example.com", ["*.example.com"], False),
        ("https://evilexample.com", ["*.example.com"], False),
        ("https://a.example.com.evil.com", ["*.example.com"], False),
        ("https://a.example.com:8443", ["*.example.com"], False),
        ("https://a.example.com:8443", ["*.example.com:8443"], True),
        ("https://a.example.com:8443", ["a.example.com:8443"], True),
        ("https://a.example.com", ["a.example.com:8443"], False),
        ("http://a.example.com", ["a.example.com"], False),
        ("http://a.example.com:80", ["a.example.com:80"], False),
        ("https://evil.com", ["*"], False),
        ("https://evil.com", ["*."], False),
        ("https://evil.com", [""], False),
    ],
)
def test_hosts_allowed_outside_the_spec(url, allowed, good):
    assert (objection(url, allowed) == "") is good


def test_a_refusal_names_the_host_and_no_secret():
    with pytest.raises(HostRefused) as caught:
        check("cloud_foundry", "https://u:hunter2@evil.com/x?token=hunter2#hunter2", ())

    assert "evil.com" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_what_is_shown_is_short_and_printable():
    assert shown("https://a.b/c?d=e#f") == "https://a.b/c"
    assert shown("/v1/x?d") == "/v1/x"
    assert shown("https://a\x1b[31m.b/\u202e") == "https://a?[31m.b/?"
    assert len(shown("https://a.b/" + "c" * 5000)) == 200


def test_nothing_is_sent_to_a_host_that_is_refused_not_even_for_a_token():
    rig = Rig(Said(200, {}))

    with pytest.raises(HostRefused):
        rig.door(endpoint="https://evil.com").get("/v3/spaces")

    assert rig.sent == []
    assert rig.client.requests_made == 0


def test_a_host_allowed_to_the_client_is_asked():
    rig = Rig(Said(200, {}), allow_hosts=["cf.example.com"])

    assert rig.door(endpoint="https://cf.example.com").get("/v3") == {}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 304])
def test_a_redirect_is_an_error_that_says_where_it_pointed(status):
    rig = Rig(Said(status, "", {"Location": "https://evil.com/x?token=abc"}))

    with pytest.raises(Exception, match=r"redirect to https://evil\.com/x, which is not followed"):
        rig.door(endpoint=API).get("/v3")

    assert len(rig.sent) == 1
