"""Two doors, one sandbox: the same answers through the adapter and through the socket."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import threading
from typing import TYPE_CHECKING, Any

import pytest
import requests

from btp_reconcile.sandbox import InProcessAdapter, Sandbox, Served, serve
from tests.sandbox.landscape import API, CONFIG, LOGIN, UAA, document

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

INSTANCES = [{**CONFIG, "name": "ready", "keys": [{"name": "key"}]}]
ME = {"grant_type": "password", "username": "dev@example.com", "password": "secret"}


def made() -> Sandbox:
    sandbox = Sandbox()
    sandbox.seed(document(INSTANCES))
    return sandbox


@contextlib.contextmanager
def through_the_adapter(sandbox: Sandbox) -> Iterator[tuple[requests.Session, str, str]]:
    with requests.Session() as session:
        session.mount("https://", InProcessAdapter(sandbox))
        session.mount("http://", InProcessAdapter(sandbox))
        yield session, f"https://{API}", "https://{}"


@contextlib.contextmanager
def through_the_socket(sandbox: Sandbox) -> Iterator[tuple[requests.Session, str, str]]:
    with serve(sandbox, threads=4) as served, requests.Session() as session:
        session.trust_env = False
        yield session, served.url, served.url + "/{}"


DOORS = {"adapter": through_the_adapter, "socket": through_the_socket}


def story(session: requests.Session, api: str) -> list[Any]:
    """A short life with a key, as a client tells it that follows links and knows nothing about doors."""
    told: list[Any] = []

    def call(method: str, url: str, **more: Any) -> requests.Response:
        answer = session.request(method, url, **more)
        kept = {
            name: value
            for name, value in answer.headers.items()
            if name not in {"Date", "Server", "Content-Length", "Location"} and not name.startswith("X-")
        }
        told.append((method, answer.status_code, kept, answer.text.replace(api, "{api}")))
        return answer

    root = call("GET", api + "/").json()["links"]
    uaa = root["uaa"]["href"]
    told[-1] = told[-1][:3]
    token = session.post(f"{uaa}/oauth/token", data=ME, auth=("cf", "")).json()
    session.headers["Authorization"] = f"bearer {token['access_token']}"
    listed = call("GET", f"{api}/v3/service_instances", params={"names": "ready"}).json()
    instance = listed["resources"][0]
    body = {
        "type": "key",
        "name": "new & <shiny>",
        "relationships": {"service_instance": {"data": {"guid": instance["guid"]}}},
    }
    created = call("POST", f"{api}/v3/service_credential_bindings", json=body)
    while call("GET", created.headers["Location"]).json()["state"] != "COMPLETE":
        pass
    keys = call("GET", instance["links"]["service_credential_bindings"]["href"]).json()["resources"]
    call("GET", keys[1]["links"]["details"]["href"])
    told[-1] = (*told[-1][:3], sorted(json.loads(told[-1][3])["credentials"]))
    call("GET", f"{api}/v3/service_instances?names=a%252Cb,ready&page=1&per_page=1")
    call("GET", f"{api}/v3/service_instances?nonsense=1")
    deleted = call("DELETE", instance["links"]["self"]["href"])
    while call("GET", deleted.headers["Location"]).json()["state"] != "COMPLETE":
        pass
    call("GET", instance["links"]["self"]["href"])
    call("HEAD", f"{api}/v3/spaces")
    call("PUT", f"{api}/v3/spaces")
    return told


def test_both_doors_tell_the_same_story():
    stories, worlds = {}, {}
    for name, door in DOORS.items():
        sandbox = made()
        with door(sandbox) as (session, api, _):
            stories[name] = story(session, api)
        worlds[name] = sandbox.snapshot()

    assert stories["adapter"] == stories["socket"]
    assert worlds["adapter"] == worlds["socket"]
    assert [step[1] for step in stories["adapter"]] == [
        *(200, 200, 202, 200, 200, 200, 200, 400, 202, 200, 404, 200, 404)
    ]


@pytest.mark.parametrize("name", DOORS)
@pytest.mark.parametrize(("when", "spaces_after"), [("before", False), ("after", True)])
def test_a_cut_connection_is_a_connection_error(name: str, when: str, spaces_after: bool):
    sandbox = made()
    with DOORS[name](sandbox) as (session, _, site):
        login = site.format(UAA) + "/oauth/token"
        sandbox.faults.cut(1, when)
        with pytest.raises(requests.ConnectionError):
            session.post(login, data=ME, auth=("cf", ""))
        again = session.post(login, data=ME, auth=("cf", ""))

    assert again.status_code == 200
    with sandbox.hold() as world:
        assert len(world.table("refresh_tokens")) == 1 + spaces_after


def test_a_virtual_host_that_nobody_knows_is_a_connection_error():
    with (
        through_the_adapter(made()) as (session, _, _),
        pytest.raises(requests.ConnectionError, match=r"Failed to resolve 'api\.example\.com'"),
    ):
        session.get("https://api.example.com/v3")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_adapter_may_be_mounted_for_both_schemes(scheme: str):
    with through_the_adapter(made()) as (session, _, _):
        assert session.get(f"{scheme}://{LOGIN}/login").status_code == 200


@pytest.mark.parametrize(("timeout", "times_out"), [(5, True), ((1, 30), False), (None, False)])
def test_a_slow_answer_costs_no_time_in_the_process(timeout: Any, times_out: bool):
    sandbox = made()
    sandbox.faults.add({"do": "slow", "seconds": 20, "at": 1})
    expected = pytest.raises(requests.ReadTimeout) if times_out else contextlib.nullcontext()
    with through_the_adapter(sandbox) as (session, _, _), expected:
        session.post(f"https://{UAA}/oauth/token", data=ME, auth=("cf", ""), timeout=timeout)

    with sandbox.hold() as world:
        assert len(world.table("refresh_tokens")) == 1  # the work was done in any case
        assert world.stamp() == "2026-01-01T00:00:21Z"


def test_cookies_and_redirect_free_answers_arrive_as_from_a_socket():
    with through_the_adapter(made()) as (session, _, _):
        answer = session.post(f"https://{UAA}/oauth/token", data=ME, auth=("cf", ""))

    assert sorted(answer.cookies.keys()) == ["JSESSIONID", "__VCAP_ID__"]
    assert (answer.reason, answer.url) == ("OK", f"https://{UAA}/oauth/token")


def test_the_socket_reads_the_virtual_host_from_path_or_header():
    with through_the_socket(made()) as (session, url, site):
        by_path = session.get(site.format(LOGIN) + "/login", headers={"Accept": "application/json"})
        by_header = session.get(
            f"{url}/login", headers={"Accept": "application/json", "Host": "login.cf.us10.hana.ondemand.com"}
        )
        zone = site.format("main-x1.authentication.eu10.hana.ondemand.com")
        keys = session.get(f"{zone}/token_keys")

    assert by_path.json()["links"]["login"] == url
    assert by_header.json()["links"]["login"] == "http://login.cf.us10.hana.ondemand.com"
    assert [key["kid"] for key in keys.json()["keys"]] == ["default-jwt-key-1"]


def test_access_names_addresses_that_answer_on_the_socket():
    sandbox = made()
    with serve(sandbox, threads=4) as served, requests.Session() as session:
        session.trust_env = False
        access = served.access()
        uaa = access["central"]["uaa"]
        answer = session.post(
            f"{uaa['url']}/oauth/token",
            data={
                "grant_type": "client_credentials",
                "client_id": uaa["clientid"],
                "client_secret": uaa["clientsecret"],
            },
        )

    assert access["cloud_foundry"]["eu10"]["api"] == served.url
    assert answer.status_code == 200


def test_one_connection_carries_many_requests():
    with serve(made(), threads=2) as served:
        connection = http.client.HTTPConnection("127.0.0.1", served.port)
        connection.request("GET", "/")
        socket = connection.sock
        seen = []
        for _ in range(5):
            answer = connection.getresponse()
            seen.append((answer.status, answer.version, len(answer.read()) > 0))
            connection.request("GET", "/v3")
        connection.getresponse().read()
        same = connection.sock is socket
        connection.close()

    assert (seen, same) == ([(200, 11, True)] * 5, True)


def test_many_clients_at_once_all_get_their_answer():
    statuses: list[int] = []

    def work(url: str) -> None:
        with requests.Session() as session:
            session.trust_env = False
            statuses.extend(session.get(f"{url}/v3/info").status_code for _ in range(5))

    sandbox = made()
    with serve(sandbox, threads=8) as served:
        threads = [threading.Thread(target=work, args=(served.url,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert (statuses, sandbox.count) == ([200] * 40, 40)


def test_chunked_bodies_are_read():
    with through_the_socket(made()) as (session, url, _):
        answer = session.post(
            f"{url}/oauth/token",
            data=iter([b"grant_type=password&", b"username=dev@example.com&password=secret"]),
            headers={"Content-Type": "application/x-www-form-urlencoded"},
            auth=("cf", ""),
        )

    assert answer.status_code == 200


def test_https_serves_with_its_own_certificate(tmp_path: Path):
    sandbox = made()
    with serve(sandbox, tls=True, threads=4) as served:
        trust = tmp_path / "trust.pem"
        trust.write_text(served.certificate or "", encoding="utf-8")
        context = ssl.create_default_context(cafile=str(trust))
        connection = http.client.HTTPSConnection("127.0.0.1", served.port, context=context)
        connection.request("GET", "/")
        answer = connection.getresponse()
        found = json.loads(answer.read())
        connection.close()

    assert found["links"]["self"]["href"] == f"https://127.0.0.1:{served.port}"
    with serve(sandbox, tls=True, threads=2) as again:
        assert again.certificate == trust.read_text(encoding="utf-8")


def test_the_certificate_of_a_key_opens_the_certificate_host_over_tls(tmp_path: Path):
    sandbox = Sandbox(time="seconds")
    sandbox.seed(document())
    from btp_reconcile.sandbox import broker_credentials

    form = {"grant_type": "client_credentials", "client_id": "sb-x!b1"}
    with serve(sandbox, tls=True, threads=2) as served, requests.Session() as session:
        with sandbox.hold() as world:
            chain, key = broker_credentials.certificate(world, "client", days=7, length=2048)
            world.table("clients")["sb-x!b1"] = {
                "secret": None,
                "scopes": ["uaa.resource"],
                "zone": "main-x1",
                "region": "eu10",
                "grant_types": ["client_credentials"],
                "certificate": chain,
            }
        (tmp_path / "client.pem").write_text(chain + key, encoding="utf-8")
        session.trust_env = False
        (tmp_path / "trust.pem").write_text(served.certificate or "", encoding="utf-8")
        url = f"{served.url}/main-x1.authentication.cert.eu10.hana.ondemand.com/oauth/token"
        more: dict[str, Any] = {"data": form, "verify": str(tmp_path / "trust.pem")}
        with_it = session.post(url, cert=str(tmp_path / "client.pem"), **more)
        with requests.Session() as bare:
            bare.trust_env = False
            without = bare.post(url, **more)

    assert (with_it.status_code, without.status_code) == (200, 401)


def test_faults_can_be_ordered_over_the_socket():
    with through_the_socket(made()) as (session, url, _):
        control = f"{url}/__sandbox__/faults"
        ordered = session.post(control, json=[{"do": "cf-429", "at": 1}, {"do": "lose", "at": 2}])
        limited = session.get(f"{url}/v3/info")
        with pytest.raises(requests.ConnectionError):
            session.get(f"{url}/v3/info")
        struck = session.get(control)
        wrong = session.post(control, json={"do": "dance"})
        cleared = session.delete(control)

    assert [rule["do"] for rule in ordered.json()["rules"]] == ["cf-429", "lose"]
    assert (limited.status_code, limited.headers["Retry-After"]) == (429, "7")
    assert [rule["struck"] for rule in struck.json()["rules"]] == [1, 1]
    assert wrong.status_code == 400
    assert cleared.json() == {"rules": []}


def test_the_server_listens_on_this_machine_only_and_frees_its_port():
    with serve(made(), threads=2) as served:
        assert served._server.bind_addr[0] == "127.0.0.1"
        port = served.port

    with Served(made(), port=port, threads=2) as again:
        assert again.port == port


def test_the_same_application_runs_under_another_server():
    sandbox = made()
    application = sandbox.wsgi("http://127.0.0.1:9999")
    started: list[str] = []
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "HTTP_HOST": "127.0.0.1:9999"}

    body = application(environ, lambda status, headers: started.append(status))

    assert started == ["200 OK"]
    assert json.loads(b"".join(body))["links"]["uaa"]["href"] == "http://127.0.0.1:9999"
