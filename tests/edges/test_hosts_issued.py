"""A key's token goes where the key itself says, as long as that is SAP's; its secret still goes to token endpoints only."""

from __future__ import annotations

import pytest

from btp_reconcile.core.errors import HostRefused
from btp_reconcile.edges.calls import Call
from btp_reconcile.edges.hosts import check, check_issued
from tests.edges.wire import Rig, Said

APPLICATION = "https://afc-production-afc-api.cfapps.eu10.hana.ondemand.com"


@pytest.mark.parametrize(
    "url",
    [
        APPLICATION,
        "https://acme.prod.apimanagement.eu10.hana.ondemand.com/apiportal/api/1.0",
        "https://ACME.apiportal.cfapps.EU10.hana.ondemand.com?x=1",
        "https://acme.integrationsuite.cfapps.cn40.platform.sapcloud.cn",
        "https://x.eu10.task-center.cloud.sap",
        "https://eu10.cloud.sap:443/x",
        "http://127.0.0.1:8080/x",
        "https://localhost",
    ],
)
def test_an_api_of_saps_may_have_a_token(url: str) -> None:
    check_issued("afc", url, ())


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.com",
        "http://afc.cfapps.eu10.hana.ondemand.com",
        "ftp://afc.cfapps.eu10.hana.ondemand.com",
        "https://afc.cfapps.eu10.hana.ondemand.com.evil.com",
        "https://evilhana.ondemand.com",
        "https://hana.ondemand.com",
        "https://cloud.sap",
        "https://evilcloud.sap",
        "https://platform.sapcloud.cn",
        "https://evil.com/afc.hana.ondemand.com",
        "https://evil.com?.hana.ondemand.com",
        "https://evil.com#.hana.ondemand.com",
        "https://evil.com\\.hana.ondemand.com",
        "https://evil.com\\@afc.hana.ondemand.com",
        "https://afc.hana.ondemand.com\\@evil.com",
        "https://afc.hana.ondemand.com@evil.com",
        "https://user:pass@afc.hana.ondemand.com",
        "https://afc.hana.ondemand.com:8443",
        "https://afc.hana.ondemand.com.",
        "https://afc..hana.ondemand.com",
        "https://.hana.ondemand.com",
        "https://afc.hana。ondemand.com",
        "https://аfc.hana.ondemand.com",
        "https://afc.hana.ondemand.com\n",
        "https://afc.hana.ondemand.com\t.evil.com",
        "https://afc.hana.ondemand.com%2eevil.com",
        "https://2130706433",
        "https://hana.ondemand.com.evil.com",
        "https://ondemand.com",
        "",
    ],
)
def test_nobody_else_gets_one(url: str) -> None:
    with pytest.raises(HostRefused, match="no credential is sent to"):
        check_issued("afc", url, ())


def test_what_was_allowed_outside_the_spec_may_have_one() -> None:
    check_issued("afc", "https://api.acme.example/x", ["api.acme.example"])
    check_issued("afc", "https://api.acme.example:8443/x", ["*.acme.example:8443"])


def test_an_application_gets_no_secret_although_it_may_have_a_token() -> None:
    with pytest.raises(HostRefused, match="not one of SAP's"):
        check("sign_in", APPLICATION + "/oauth/token", ())


def test_the_client_tells_the_two_apart() -> None:
    rig = Rig(Said(200, {}))

    assert rig.client.exchange(Call("afc", "GET", APPLICATION, issued=True)).status == 200
    with pytest.raises(HostRefused):
        rig.client.exchange(Call("afc", "GET", APPLICATION))
    with pytest.raises(HostRefused):
        rig.client.exchange(Call("afc", "GET", "https://evil.com", issued=True))
    assert len(rig.sent) == 1
