"""What a key of Advanced Financial Closing opens: SCIM and the task provider.

Sections are those of the reference page on AFC and API Management ("AFC 3.3"), or of RFC 7644.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
import requests

from btp_reconcile.sandbox import InProcessAdapter, Request, Response, Sandbox, serve
from tests.sandbox.api_keys import AFC, ON_PREMISE, PORTAL, WORLD, basic, get, issue, made, send, token

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.sandbox.api_keys import Key

BASE = "https://afc-production-afc-api.cfapps.eu10.hana.ondemand.com"
SCIM, TASKS = f"{BASE}/scim/v2", f"{BASE}/api/task-provider/v2"
LIST = "urn:ietf:params:scim:api:messages:2.0:ListResponse"
ERROR = "urn:ietf:params:scim:api:messages:2.0:Error"
PEOPLE = ["closing.manager@example.com", "Accountant@example.com", "auditor@example.com"]


@pytest.fixture
def sandbox() -> Sandbox:
    return made()


@pytest.fixture
def key(sandbox: Sandbox) -> Key:
    return issue(sandbox, AFC)


def ask(sandbox: Sandbox, path: str, bearer: str | None = None, base: str = SCIM) -> Response:
    """A GET with a fresh token, or with this one."""
    if bearer is None:
        bearer = token(sandbox, issue(sandbox, AFC))
    return get(sandbox, base + path, bearer, Accept="application/scim+json")


def names(answer: Response) -> list[str]:
    assert answer.status == 200, answer.body
    return [row.get("userName") or row["displayName"] for row in answer.data()["Resources"]]


# What is there ---------------------------------------------------------------------------------------------------------


def test_afc_3_3_one_user_and_how_many_there_are(sandbox: Sandbox, key: Key):
    answer = ask(sandbox, "/Users?count=1", token(sandbox, key))
    first = answer.data()["Resources"][0]

    assert key["endpoints"] == {"scim2": SCIM, "task-center": TASKS}
    assert answer.header("Content-Type") == "application/scim+json"
    assert {name: value for name, value in answer.data().items() if name != "Resources"} == {
        "schemas": [LIST],
        "totalResults": 3,
        "startIndex": 1,
        "itemsPerPage": 1,
    }
    assert first == {
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
        "id": first["id"],
        "userName": PEOPLE[0],
        "name": {"familyName": "closing.manager"},
        "displayName": "closing.manager",
        "active": True,
        "emails": [{"value": PEOPLE[0], "primary": True}],
        "meta": {
            "resourceType": "User",
            "created": "2026-01-01T00:00:00Z",
            "lastModified": "2026-01-01T00:00:00Z",
            "location": f"{SCIM}/Users/{first['id']}",
        },
    }


def test_every_user_and_group_is_found_by_its_id(sandbox: Sandbox):
    for kind in ("Users", "Groups"):
        for row in ask(sandbox, f"/{kind}").data()["Resources"]:
            assert ask(sandbox, f"/{kind}/{row['id']}").data() == row


def test_ids_are_case_sensitive_and_those_of_one_tenant(sandbox: Sandbox):
    guid = ask(sandbox, "/Users?count=1").data()["Resources"][0]["id"]
    other = token(sandbox, issue(sandbox, AFC, "other"))
    answers = [ask(sandbox, f"/Users/{guid.upper()}"), ask(sandbox, f"/Users/{guid}", other)]

    assert [answer.status for answer in answers] == [404, 404]
    assert answers[1].data() == {"schemas": [ERROR], "status": "404", "detail": f"Resource {guid} not found"}


def test_members_of_groups_are_users(sandbox: Sandbox):
    users = {row["id"]: row["userName"] for row in ask(sandbox, "/Users").data()["Resources"]}
    groups = ask(sandbox, "/Groups").data()["Resources"]

    assert {row["displayName"]: [users[one["value"]] for one in row["members"]] for row in groups} == {
        "Closing Managers": PEOPLE[:1],
        "Accountants": PEOPLE[:2],
    }


def test_users_and_groups_can_be_seeded_for_a_tenant(sandbox: Sandbox):
    wanted = {"users": ["a@x", {"userName": "b@x", "active": False}], "groups": []}
    sandbox.seed({"subaccounts": {"prod": {"afc": wanted}}})

    assert names(ask(sandbox, "/Users")) == ["a@x", "b@x"]
    assert names(ask(sandbox, "/Users?filter=active%20eq%20false")) == ["b@x"]
    assert ask(sandbox, "/Groups").data()["totalResults"] == 0
    assert names(ask(sandbox, "/Users", token(sandbox, issue(sandbox, AFC, "other")))) == PEOPLE
    assert sandbox.snapshot()["afc"] == {
        "prod": {"users": [{"userName": "a@x"}, {"userName": "b@x", "active": False}], "groups": []}
    }


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", PEOPLE),
        ("?count=2", PEOPLE[:2]),
        ("?count=0", []),
        ("?count=-5", []),
        ("?startIndex=2&count=1", PEOPLE[1:2]),
        ("?startIndex=0", PEOPLE),
        ("?startIndex=-1", PEOPLE),
        ("?startIndex=4", []),
        ("?sortBy=userName&nonsense=1", PEOPLE),
    ],
)
def test_rfc_3_4_2_4_pages(sandbox: Sandbox, query: str, found: list[str]):
    answer = ask(sandbox, f"/Users{query}")

    assert names(answer) == found
    assert (answer.data()["totalResults"], answer.data()["itemsPerPage"]) == (3, len(found))


def test_a_page_has_its_limit():
    assert names(ask(made(afc_page_size=2), "/Users?count=50")) == PEOPLE[:2]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f'userName eq "{PEOPLE[0]}"', PEOPLE[:1]),
        ('userName eq "ACCOUNTANT@example.com"', []),
        ('USERNAME EQ "Accountant@example.com"', PEOPLE[1:2]),
        ('userName sw "a"', PEOPLE[2:]),
        ('userName co "@example"', PEOPLE),
        ('emails.value co "manager"', PEOPLE[:1]),
        ('name.familyName eq "auditor"', PEOPLE[2:]),
        ("active eq true", PEOPLE),
        ('active eq true and userName sw "c" and userName co "."', PEOPLE[:1]),
        ('userName co "x and userName"', []),
    ],
)
def test_afc_1_5_filters_are_eq_sw_and_co_and_mind_the_case(sandbox: Sandbox, text: str, found: list[str]):
    assert names(ask(sandbox, f"/Users?filter={quote(text)}")) == found


def test_groups_are_filtered_by_their_name(sandbox: Sandbox):
    text = quote('displayName eq "Accountants"')

    assert names(ask(sandbox, f"/Groups?filter={text}")) == ["Accountants"]


@pytest.mark.parametrize(
    ("query", "kind"),
    [
        ("count=ten", "invalidValue"),
        ("count=", "invalidValue"),
        ("count=1.0", "invalidValue"),
        ("startIndex=first", "invalidValue"),
        ("filter=", "invalidFilter"),
        ("filter=userName", "invalidFilter"),
        ("filter=" + quote('userName gt "a"'), "invalidFilter"),
        ("filter=" + quote('shoeSize eq "44"'), "invalidFilter"),
        ("filter=" + quote("userName eq 'a'"), "invalidFilter"),
        ("filter=" + quote('userName eq "a" or userName eq "b"'), "invalidFilter"),
        ("filter=" + quote('userName eq "a" and '), "invalidFilter"),
        ("filter=" + quote('userName eq "\\q"'), "invalidFilter"),
        ("filter=" + quote("active sw true"), "invalidFilter"),
    ],
)
def test_rfc_3_12_what_is_not_understood_is_400(sandbox: Sandbox, query: str, kind: str):
    answer = ask(sandbox, f"/Users?{query}")

    assert (answer.status, answer.data()["schemas"]) == (400, [ERROR])
    assert (answer.data()["status"], answer.data()["scimType"]) == ("400", kind)
    assert answer.header("Content-Type") == "application/scim+json"


@pytest.mark.parametrize(
    ("query", "left"),
    [
        ("attributes=userName", {"schemas", "id", "userName"}),
        ("attributes=emails.value,NAME", {"schemas", "id", "emails", "name"}),
        ("excludedAttributes=emails,name,meta,id", {"schemas", "id", "userName", "displayName", "active"}),
    ],
)
def test_rfc_3_9_attributes_can_be_chosen(sandbox: Sandbox, query: str, left: set[str]):
    assert set(ask(sandbox, f"/Users?{query}").data()["Resources"][0]) == left


def test_rfc_4_the_service_describes_itself(sandbox: Sandbox):
    said = ask(sandbox, "/ServiceProviderConfig").data()
    supported = {
        name: value["supported"]
        for name, value in said.items()
        if isinstance(value, dict) and "supported" in value
    }

    assert said["schemas"] == ["urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig"]
    assert supported == {
        "patch": True,
        "bulk": False,
        "filter": True,
        "changePassword": False,
        "sort": False,
        "etag": False,
    }
    assert said["filter"]["maxResults"] == 100


def test_whether_the_service_describes_itself_is_a_setting():
    answer = ask(made(afc_service_provider_config=False), "/ServiceProviderConfig")

    assert (answer.status, answer.data()["schemas"]) == (404, [ERROR])


def test_an_unknown_endpoint_is_scim_s_404_and_an_unknown_path_a_page(sandbox: Sandbox):
    bearer = token(sandbox, issue(sandbox, AFC))
    endpoint, path = ask(sandbox, "/Robots", bearer), ask(sandbox, "/nothing", bearer, base=BASE)

    assert (endpoint.status, endpoint.data()["schemas"]) == (404, [ERROR])
    assert (path.status, path.header("Content-Type")) == (404, "text/html;charset=utf-8")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/Users"),
        ("PUT", "/Users/1"),
        ("PATCH", "/Groups/1"),
        ("DELETE", "/Groups/1"),
        ("GET", "/Roles"),
    ],
)
def test_what_is_not_emulated_says_so(sandbox: Sandbox, key: Key, method: str, path: str):
    answer = send(sandbox, method, SCIM + path, token=token(sandbox, key))

    assert (answer.status, answer.data()["error"]["code"]) == (501, "NotEmulated")


# Who may ---------------------------------------------------------------------------------------------------------------


def of_cloud_foundry(sandbox: Sandbox) -> str:
    login = sandbox.access()["cloud_foundry"]["eu10-004"]
    form = f"grant_type=password&username={login['username']}&password={login['password']}".encode()
    url = "https://uaa.cf.eu10-004.hana.ondemand.com/oauth/token"
    return str(send(sandbox, "POST", url, headers=basic("cf", ""), body=form).data()["access_token"])


def expired(sandbox: Sandbox) -> str:
    found = token(sandbox, issue(sandbox, AFC))
    with sandbox.hold() as world:
        world.advance(43200)
    return found


PATHS = [
    SCIM + "/Users",
    SCIM + "/ServiceProviderConfig",
    TASKS + "/capabilities",
    TASKS + "/taskDefinitions",
]


@pytest.mark.parametrize(
    "bearer",
    [
        lambda sandbox: "",
        lambda sandbox: "a.b.c",
        expired,
        of_cloud_foundry,
        lambda sandbox: token(sandbox, issue(sandbox, AFC, "far")),
    ],
    ids=["missing", "no token", "expired", "of Cloud Foundry", "of another region"],
)
@pytest.mark.parametrize("url", PATHS)
def test_afc_3_3_a_token_that_does_not_count_is_401(sandbox: Sandbox, bearer: Any, url: str):
    answer = ask(sandbox, "", bearer(sandbox), base=url)

    assert (answer.status, answer.header("WWW-Authenticate")) == (401, 'Bearer error="invalid_token"')


@pytest.mark.parametrize("plan", [PORTAL, ON_PREMISE], ids="/".join)
@pytest.mark.parametrize("url", PATHS)
def test_a_token_of_another_service_is_403(sandbox: Sandbox, plan: tuple[str, str], url: str):
    assert ask(sandbox, "", token(sandbox, issue(sandbox, plan)), base=url).status == 403


def test_a_narrowed_token_opens_what_it_was_narrowed_to(sandbox: Sandbox, key: Key):
    app = key["uaa"]["xsappname"]
    bearers = {name: token(sandbox, key, f"{app}.{name}") for name in ("scim.read", "task-center")}
    statuses = {
        name: [ask(sandbox, "", bearer, base=url).status for url in (PATHS[0], PATHS[2])]
        for name, bearer in bearers.items()
    }

    assert statuses == {"scim.read": [200, 403], "task-center": [403, 200]}


# How often (AFC 1.5: 10,000 requests per hour and 3 at the same time) --------------------------------------------------


def test_afc_1_5_the_hour_has_its_limit_for_each_tenant_and_then_begins_again():
    sandbox = made(afc_limits={"requests": 3, "seconds": 3600, "at_once": 3})
    bearer, other = (token(sandbox, issue(sandbox, AFC, name)) for name in ("prod", "other"))
    statuses = [ask(sandbox, "/Users?count=1", bearer).status for _ in range(4)]
    refused = ask(sandbox, "/Groups", bearer)
    spared = [ask(sandbox, "/Users", other).status, ask(sandbox, "/capabilities", bearer, base=TASKS).status]
    with sandbox.hold() as world:
        world.advance(3600)

    assert statuses == [200, 200, 200, 429]
    assert refused.data()["status"] == "429"
    assert spared == [200, 200]
    assert ask(sandbox, "/Users", bearer).status == 200


def test_the_limit_is_ten_thousand_unless_it_is_switched_off():
    for settings, status in (({}, 429), ({"afc_limits": None}, 200)):
        sandbox = made(**settings)
        bearer = token(sandbox, issue(sandbox, AFC))
        with sandbox.hold() as world:
            tenant = next(row["id"] for row in world.rows("subaccounts").values() if row["name"] == "prod")
            world.table("afc.rate")[tenant] = {"since": world.now(), "requests": 10000}
        assert ask(sandbox, "/Users", bearer).status == status


def test_a_refused_token_does_not_count_against_the_hour():
    sandbox = made(afc_limits={"requests": 1, "seconds": 3600, "at_once": 3})
    for _ in range(3):
        ask(sandbox, "/Users", "nonsense")

    assert ask(sandbox, "/Users").status == 200


def through_the_adapter(sandbox: Sandbox) -> Iterator[Callable[[str, str], int]]:
    def get_one(bearer: str, path: str) -> int:
        with requests.Session() as session:
            session.mount("https://", InProcessAdapter(sandbox))
            return session.get(SCIM + path, headers={"Authorization": f"Bearer {bearer}"}).status_code

    yield get_one


def through_the_socket(sandbox: Sandbox) -> Iterator[Callable[[str, str], int]]:
    with serve(sandbox, threads=10) as served:

        def get_one(bearer: str, path: str) -> int:
            url = SCIM.replace("https:/", served.url, 1) + path
            with requests.Session() as session:
                session.trust_env = False
                return session.get(url, headers={"Authorization": f"Bearer {bearer}"}).status_code

        yield get_one


DOORS = {"in the process": through_the_adapter, "over a socket": through_the_socket}


def at_once(sandbox: Sandbox, get_one: Callable[[str, str], int], bearers: list[str]) -> list[int]:
    """The answers to requests none of which is answered before all have come."""
    meeting = threading.Barrier(len(bearers))

    def meet(number: int, request: Request) -> None:
        meeting.wait(30)

    sandbox.on_request = meet
    statuses: list[int] = []

    def work(bearer: str) -> None:
        statuses.append(get_one(bearer, "/Users?count=1"))

    threads = [threading.Thread(target=work, args=(bearer,)) for bearer in bearers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sandbox.on_request = None
    return sorted(statuses)


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_afc_1_5_of_more_than_three_at_the_same_time_the_rest_is_429(sandbox: Sandbox, door: Any):
    one, same, other = (
        token(sandbox, issue(sandbox, AFC, name)) for name in ("prod", "prod", "other")
    )  # two keys of one tenant
    for get_one in door(sandbox):
        three = at_once(sandbox, get_one, [one, one, same])
        five = at_once(sandbox, get_one, [one, same, one, same, one])
        shared = at_once(sandbox, get_one, [one, one, one, other, other, other])
        later = get_one(one, "/Users?count=1")

    assert three == [200] * 3
    assert five == [200] * 3 + [429] * 2
    assert shared == [200] * 6
    assert later == 200
    assert sandbox._under_way == {}


def test_a_request_whose_answer_is_slow_is_under_way_until_it_is_out(sandbox: Sandbox):
    bearer = token(sandbox, issue(sandbox, AFC))
    sandbox.faults.add(
        {"do": "slow", "seconds": 1, "match": {"host": "afc-production-afc-api.*"}, "times": 3}
    )
    begun = threading.Semaphore(0)
    sandbox.on_request = lambda *_: begun.release()
    statuses: list[int] = []
    for get_one in through_the_socket(sandbox):
        threads = [
            threading.Thread(target=lambda one=get_one: statuses.append(one(bearer, "/Users")))
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for _ in threads:
            begun.acquire()
        refused = get_one(bearer, "/Users")
        for thread in threads:
            thread.join()

    assert (refused, statuses) == (429, [200] * 3)


def test_a_broken_connection_is_no_longer_under_way(sandbox: Sandbox):
    bearer = token(sandbox, issue(sandbox, AFC))
    sandbox.faults.add({"do": "lose", "match": {"host": "afc-production-afc-api.*"}, "times": 5})
    for get_one in through_the_adapter(sandbox):
        for _ in range(5):
            with pytest.raises(requests.ConnectionError):
                get_one(bearer, "/Users")

    assert sandbox._under_way == {}


# The task provider (AFC 3.3) -------------------------------------------------------------------------------------------


def test_afc_3_3_the_task_provider_tells_what_it_can_and_has(sandbox: Sandbox, key: Key):
    bearer = token(sandbox, key)
    base = key["endpoints"]["task-center"]
    capabilities = get(sandbox, f"{base}/capabilities", bearer)
    definitions = get(sandbox, f"{base}/taskDefinitions?$top=1&languages=en-US", bearer)

    assert capabilities.data() == {"version": "2", "capabilities": ["tasks", "taskDefinitions"]}
    assert definitions.data() == {
        "value": [{"id": "closing-task", "names": [{"language": "en-US", "text": "Closing Task"}]}]
    }
    assert len(get(sandbox, f"{base}/taskDefinitions", bearer).data()["value"]) == 2


@pytest.mark.parametrize("query", ["$top=x", "$top=-1", "$skip=all"])
def test_pages_of_task_definitions_are_numbers(sandbox: Sandbox, query: str):
    assert ask(sandbox, f"/taskDefinitions?{query}", base=TASKS).status == 400


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("path", ["/capabilities", "/taskDefinitions?$top=1&languages=en-US"])
def test_what_the_task_provider_says_to_a_token_without_a_user_is_a_setting(status: int, path: str):
    sandbox = made(afc_task_center=status)

    assert ask(sandbox, path, base=TASKS).status == status
    assert ask(sandbox, "/Users").status == 200


# The world -------------------------------------------------------------------------------------------------------------


def test_another_process_finds_the_same_users_and_the_same_hour(tmp_path: Path):
    limits = {"afc_limits": {"requests": 3, "seconds": 3600, "at_once": 3}}
    first = Sandbox(tmp_path / "world.json", settings=limits)
    first.seed(WORLD)
    first.seed({"subaccounts": {"prod": {"afc": {"users": ["a@x"]}}}})
    bearer = token(first, issue(first, AFC))
    found = [names(ask(first, "/Users", bearer)) for _ in range(2)]
    second = Sandbox(tmp_path / "world.json")
    found.append(names(ask(second, "/Users", bearer)))

    assert found == [["a@x"]] * 3
    assert ask(second, "/Users", bearer).status == 429
    assert second.snapshot() == first.snapshot()


def test_a_snapshot_tells_only_of_what_was_seeded(sandbox: Sandbox):
    before = sandbox.snapshot()
    ask(sandbox, "/Users")

    assert sandbox.snapshot() == before
    assert "afc" not in before


def test_both_doors_name_the_addresses_of_their_own(sandbox: Sandbox, key: Key):
    bearer = token(sandbox, key)
    with serve(sandbox, threads=2) as served, requests.Session() as session:
        session.trust_env = False
        base = f"{served.url}/{SCIM.removeprefix('https://')}"
        headers = {"Authorization": f"Bearer {bearer}"}
        first = session.get(f"{base}/Users?count=1", headers=headers).json()["Resources"][0]
        again = session.get(first["meta"]["location"], headers=headers).json()

    assert first["meta"]["location"] == f"{base}/Users/{first['id']}"
    assert again == first


@pytest.mark.parametrize(
    ("rule", "status"),
    [
        ({"do": "status", "status": 503, "match": {"host": "afc-production-afc-api.*"}}, 503),
        ({"do": "html", "match": {"host": "afc-*", "path": "/Users$"}}, 502),
        ({"do": "status", "status": 503, "match": {"host": "afc-*", "path": "/Groups$"}}, 200),
    ],
)
def test_faults_find_the_host(sandbox: Sandbox, rule: dict[str, Any], status: int):
    bearer = token(sandbox, issue(sandbox, AFC))
    sandbox.faults.add(rule)

    assert ask(sandbox, "/Users", bearer).status == status
