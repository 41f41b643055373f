"""The sink `vault` against a real server, OpenBao. AppRole, JWT and Kubernetes sign-in are really enabled there.

For Kubernetes sign-in there is no cluster: the server asks a small one on this machine, which answers one request, the
TokenReview, as the Kubernetes API does. What the sink sends is judged by the real sign-in method.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import uuid
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from btp_reconcile.cli.talk import EXTRAS
from btp_reconcile.core.errors import (
    HostRefused,
    LostResponse,
    PlatformError,
    SignInRefused,
    SpecError,
    Unreachable,
)
from btp_reconcile.core.model import Secret
from btp_reconcile.core.sink import Held
from btp_reconcile.sinks.vault import VaultSink
from tests.sinks.bao import ROOT_TOKEN, Bao, served
from tests.sinks.deliveries import KEY, NATIVE, SECRET, around, identity, nowhere, parcel
from tests.sinks.relay import Relay, relayed
from tests.worlds import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from btp_reconcile.core.sink import Consumer

NOTE = {
    "btp-reconcile-owner": "team",
    "btp-reconcile-spec": "prod",
    "btp-reconcile-delivery": "delivery:prod/apim/transport/main",
    "btp-reconcile-key": KEY,
    "btp-reconcile-generation": "1",
    "btp-reconcile-version": "1",
}
FIRST = Held("1", identity=identity())


@pytest.fixture(scope="session")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bao]:
    with served(tmp_path_factory.mktemp("bao")) as server:
        yield server


@pytest.fixture
def relay(bao: Bao) -> Iterator[Relay]:
    with relayed(bao) as one:
        yield one


@pytest.fixture
def path() -> str:
    """A path that no other test uses."""
    return uuid.uuid4().hex


@pytest.fixture
def block(path: str) -> dict[str, str]:
    return {"path": f"secret/{path}"}


def opened(
    bao: Bao | Relay, access: Mapping[str, Any] | None = None, *, folder: Path = Path("/"), **more: Any
) -> Consumer:
    trusted = {"ca_file": bao.ca_file} if isinstance(bao, Bao) else {}
    given = {"address": bao.address, **trusted, **({"token": ROOT_TOKEN} if access is None else access)}
    return VaultSink().open(given, around(folder, **more))


@pytest.fixture
def vault(bao: Bao) -> Iterator[Consumer]:
    with contextlib.closing(opened(bao)) as consumer:
        yield consumer


def note(generation: int, version: int) -> dict[str, str]:
    return {**NOTE, "btp-reconcile-generation": str(generation), "btp-reconcile-version": str(version)}


def refused(
    consumer: Consumer, block: dict[str, str], kind: type[PlatformError] = PlatformError
) -> PlatformError:
    """The error of a delivery. It holds nothing of what was sent."""
    with contextlib.closing(consumer), pytest.raises(PlatformError) as caught:
        consumer.put(block, parcel(), None)

    assert type(caught.value) is kind
    assert not any(secret in str(caught.value) for secret in (SECRET, ROOT_TOKEN))
    return caught.value


# --- delivering and looking -----------------------------------------------------------------------------


def test_where_nothing_is_nothing_is_seen(vault: Consumer, block: dict[str, str]) -> None:
    assert vault.look(block) is None


def test_a_delivery_is_seen_as_it_was_made(
    bao: Bao, vault: Consumer, block: dict[str, str], path: str
) -> None:
    held = vault.put(block, parcel(), None)

    assert held == FIRST
    assert vault.look(block) == held
    assert bao.data(path) == NATIVE
    assert bao.metadata(path)["custom_metadata"] == NOTE


def test_a_new_generation_is_a_new_version(
    bao: Bao, vault: Consumer, block: dict[str, str], path: str
) -> None:
    first = vault.put(block, parcel(), None)
    second = vault.put(block, parcel(2, clientSecret="new"), first)

    assert second == Held("2", identity=identity(2))
    assert vault.look(block) == second
    assert bao.data(path) == {"clientSecret": "new"}
    assert bao.metadata(path)["custom_metadata"] == note(2, 2)


def test_the_same_parcel_twice_is_one_more_version(vault: Consumer, block: dict[str, str]) -> None:
    first = vault.put(block, parcel(), None)

    assert vault.put(block, parcel(), first) == Held("2", identity=identity())


def test_all_credentials_can_be_one_json_text(
    bao: Bao, vault: Consumer, block: dict[str, str], path: str
) -> None:
    vault.put({**block, "key": "credentials"}, parcel(), None)
    data = bao.data(path)

    assert list(data) == ["credentials"]
    assert json.loads(data["credentials"]) == NATIVE


def test_settings_and_notes_of_others_stay(
    bao: Bao, vault: Consumer, block: dict[str, str], path: str
) -> None:
    settings = {"max_versions": 5, "delete_version_after": "48h", "custom_metadata": {"team": "red"}}
    bao.ask("POST", f"secret/metadata/{path}", settings)
    first = vault.put(block, parcel(), None)
    vault.put(block, parcel(2), first)
    found = bao.metadata(path)

    assert found["custom_metadata"] == {"team": "red", **note(2, 2)}
    assert (found["max_versions"], found["delete_version_after"]) == (5, "48h0m0s")
    assert vault.look(block) == Held("2", identity=identity(2))  # to be deleted in two days is there


@pytest.mark.parametrize("way", ["delete", "destroy"])
def test_a_deleted_version_is_nothing_and_can_be_followed_by_another(
    bao: Bao, vault: Consumer, block: dict[str, str], path: str, way: str
) -> None:
    first = vault.put(block, parcel(), None)
    bao.ask("POST", f"secret/{way}/{path}", {"versions": [1]})

    assert vault.look(block) is None
    assert vault.put(block, parcel(2), None) == Held("2", identity=identity(2))
    bao.ask("POST", f"secret/{way}/{path}", {"versions": [2]})
    assert vault.put(block, parcel(3), first) == Held("3", identity=identity(3))


def test_looking_needs_no_right_to_read_a_secret(
    bao: Bao, vault: Consumer, block: dict[str, str], path: str
) -> None:
    """The policy is the least one that is documented: the current secret can be written and not read."""
    bao.policy(
        path,
        f"""
        path "secret/metadata/{path}" {{ capabilities = ["read", "create", "update"] }}
        path "secret/data/{path}" {{ capabilities = ["create", "update"] }}
        """,
    )
    least = opened(bao, {"token": Secret("token", bao.token(path) + "\n")})
    with contextlib.closing(least):
        first = least.put(block, parcel(), least.look(block))
        second = least.put(block, parcel(2), first)

    assert second == vault.look(block) == Held("2", identity=identity(2))


def test_a_mount_of_several_parts_is_named(bao: Bao, vault: Consumer, path: str) -> None:
    mount = f"apps/{path}"
    bao.ask("POST", f"sys/mounts/{mount}", {"type": "kv", "options": {"version": "2"}})
    block = {"mount": mount, "path": "apim/ö pipeline"}

    assert vault.put(block, parcel(), None) == FIRST
    assert vault.look(block) == FIRST
    assert bao.ask("GET", f"{mount}/data/apim/ö pipeline")["data"]["data"] == NATIVE
    assert VaultSink().place(block) == f"{mount}/apim/ö pipeline"
    assert VaultSink().place({"path": "secret/apim"}) == "secret/apim"


def test_a_namespace_is_another_world(bao: Bao, vault: Consumer, block: dict[str, str], path: str) -> None:
    bao.ask("POST", f"sys/namespaces/{path}")
    bao.ask("POST", "sys/mounts/secret", {"type": "kv", "options": {"version": "2"}}, namespace=path)
    inside = opened(bao, {"token": ROOT_TOKEN, "namespace": path})
    with contextlib.closing(inside):
        assert inside.put(block, parcel(), None) == FIRST

    assert bao.data(path, namespace=path) == NATIVE
    assert vault.look(block) is None


def test_everything_can_come_from_the_environment(bao: Bao, block: dict[str, str], path: str) -> None:
    bao.ask("POST", f"sys/namespaces/{path}")
    bao.ask("POST", "sys/mounts/secret", {"type": "kv", "options": {"version": "2"}}, namespace=path)
    environment = {
        "VAULT_ADDR": bao.address + "/",
        "VAULT_TOKEN": ROOT_TOKEN,
        "VAULT_NAMESPACE": path,
        "VAULT_CACERT": bao.ca_file,
        "https_proxy": "http://127.0.0.1:1",
    }
    consumer = VaultSink().open({}, around(Path("/"), environment))
    with contextlib.closing(consumer):
        assert consumer.put(block, parcel(), None) == FIRST
    assert bao.data(path, namespace=path) == NATIVE


# --- what is not ours, and who was faster ---------------------------------------------------------------


def test_a_secret_of_others_is_foreign_and_not_overwritten(
    bao: Bao, vault: Consumer, block: dict[str, str], path: str
) -> None:
    bao.ask("POST", f"secret/data/{path}", {"data": {"their": "own"}})
    found = vault.look(block)

    assert found == Held("1", foreign="it was not made by reconcile")
    with pytest.raises(PlatformError) as caught:
        vault.put(block, parcel(), None)
    assert caught.value.blame.message == (
        f"secret/{path}: changed meanwhile: it has version 1, which is not known to be ours; nothing was written, run again"
    )
    assert bao.data(path) == {"their": "own"}
    assert vault.put(block, parcel(), found) == Held("2", identity=identity())


def test_a_version_that_others_wrote_over_ours_is_seen(
    bao: Bao, vault: Consumer, block: dict[str, str], path: str
) -> None:
    first = vault.put(block, parcel(), None)
    bao.ask("POST", f"secret/data/{path}", {"data": {"their": "own"}})
    found = vault.look(block)

    assert found == Held(
        "2",
        identity=identity(),
        wrong="version 2 is not the one that was delivered, which was 1",
    )
    with pytest.raises(PlatformError, match="it has version 2, which is not known to be ours"):
        vault.put(block, parcel(2), first)
    assert vault.put(block, parcel(), found) == Held("3", identity=identity())


def test_what_another_run_delivered_meanwhile_is_not_overwritten(
    vault: Consumer, block: dict[str, str]
) -> None:
    first = vault.put(block, parcel(), None)
    third = vault.put(block, parcel(3), first)

    with pytest.raises(PlatformError, match=r"version 2 belongs to team/prod, .*, generation 3;"):
        vault.put(block, parcel(2), first)
    assert vault.put(block, parcel(3), first) == third


def test_what_belongs_to_another_owner_is_taken_over_when_it_was_seen_so(
    vault: Consumer, block: dict[str, str]
) -> None:
    theirs = vault.put(block, parcel(owner="they"), None)

    with pytest.raises(PlatformError, match="version 1 belongs to they/prod"):
        vault.put(block, parcel(), None)
    seen = replace(theirs, foreign="it belongs to owner 'they'")
    assert vault.put(block, parcel(), seen) == Held("2", identity=identity()) == vault.look(block)


def test_anothers_claim_is_left_alone(vault: Consumer, bao: Bao, block: dict[str, str], path: str) -> None:
    claim = {"btp-reconcile-owner": "they", "btp-reconcile-spec": "x", "btp-reconcile-delivery": "delivery:a"}
    bao.ask("POST", f"secret/metadata/{path}", {"custom_metadata": claim})

    assert vault.look(block) is None
    with pytest.raises(PlatformError, match="changed meanwhile: it is claimed by they/x for delivery:a"):
        vault.put(block, parcel(), None)


@pytest.mark.parametrize("moment", ["metadata", "data"])
def test_a_stranger_who_writes_in_between_is_not_overwritten(
    bao: Bao, relay: Relay, block: dict[str, str], path: str, moment: str
) -> None:
    """Just before the claim is made, or the data written: the version that was seen is not the newest any more."""

    def stranger(method: str, where: str) -> str:
        if (method, where) == ("POST", f"/v1/secret/{moment}/{path}"):
            relay.rule = lambda _method, _path: ""
            bao.ask("POST", f"secret/data/{path}", {"data": {"their": "own"}})
        return ""

    relay.rule = stranger
    error = refused(opened(relay), block)

    assert error.blame.message == (
        f"secret/{path}: changed meanwhile: it has version 1, which is not known to be ours; nothing was written, run again"
    )
    assert bao.data(path) == {"their": "own"}


def test_the_same_parcel_from_another_run_in_between_is_fine(
    vault: Consumer, relay: Relay, block: dict[str, str], path: str
) -> None:
    def other_run(_method: str, where: str) -> str:
        if where == f"/v1/secret/data/{path}":
            relay.rule = lambda _method, _path: ""
            vault.put(block, parcel(), None)
        return ""

    relay.rule = other_run
    with contextlib.closing(opened(relay)) as consumer:
        assert consumer.put(block, parcel(), None) == FIRST
    assert vault.look(block) == FIRST


def persistently(consumer: Consumer, block: dict[str, str]) -> Held:
    """If a claim was written over the note of who was through, the first try says so, and the second makes up for it."""
    try:
        return consumer.put(block, parcel(), None)
    except PlatformError as error:
        if not error.blame.repeatable:
            raise
    return consumer.put(block, parcel(), None)


def test_many_runs_at_once_make_one_version(bao: Bao, block: dict[str, str], path: str) -> None:
    """One writes; the others find that it has, or that somebody is at it and asking again will tell."""
    results: list[Held | PlatformError] = []

    def run() -> None:
        with contextlib.closing(opened(bao)) as consumer:
            try:
                results.append(consumer.put(block, parcel(), None))
            except PlatformError as error:
                results.append(error)

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(results) == 6
    assert FIRST in results
    assert all(one == FIRST or (isinstance(one, PlatformError) and one.blame.repeatable) for one in results)
    assert list(bao.metadata(path)["versions"]) == ["1"]
    with contextlib.closing(opened(bao)) as consumer:
        last = persistently(consumer, block)
        assert last == consumer.look(block)
        assert (last.wrong, last.identity) == ("", FIRST.identity)


def test_a_claim_that_was_written_over_the_note_is_made_up_for_at_the_second_try(
    bao: Bao, block: dict[str, str], path: str
) -> None:
    """A run that saw nothing there yet writes its claim after another one is through with everything."""
    with contextlib.closing(opened(bao)) as consumer:
        assert consumer.put(block, parcel(), None) == FIRST
    assert bao.metadata(path)["custom_metadata"] == NOTE
    claim = {f"btp-reconcile-{name}": NOTE[f"btp-reconcile-{name}"] for name in ("owner", "spec", "delivery")}
    bao.ask("POST", f"secret/metadata/{path}", {"custom_metadata": claim})
    with contextlib.closing(opened(bao)) as consumer:
        with pytest.raises(
            PlatformError, match="not known to be ours; nothing was written, run again"
        ) as caught:
            consumer.put(block, parcel(), None)
        assert caught.value.blame.repeatable
        second = consumer.put(block, parcel(), None)

        assert second == replace(FIRST, version="2") == consumer.look(block)


# --- cut short ------------------------------------------------------------------------------------------

KILLED = """
import json, os, signal, sys
from pathlib import Path
from btp_reconcile.sinks.vault import VaultSink
from tests.sinks.deliveries import around, parcel

access, block, number = json.loads(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3])
requests = 0

def count(url):
    global requests
    requests += 1
    if requests == number:
        os.kill(os.getpid(), signal.SIGKILL)

sink = VaultSink().open(access, around(Path("/"), check=lambda url: None))
found = sink.look(block)
sink.close()
VaultSink().open(access, around(Path("/"), check=count)).put(block, parcel(2), found)
"""


@pytest.mark.parametrize("before", ["nothing", "an older generation"])
def test_a_run_killed_at_any_request_is_finished_by_the_next(bao: Bao, vault: Consumer, before: str) -> None:
    """A process is really killed, before the first request of a delivery, before the second, and so on."""
    access = {"address": bao.address, "ca_file": bao.ca_file, "token": ROOT_TOKEN}
    seen = []
    number, ended = 0, -1
    while ended != 0:
        number += 1
        path = uuid.uuid4().hex
        block = {"path": f"secret/{path}"}
        old = vault.put(block, parcel(1, clientSecret="old"), None) if before != "nothing" else None
        ended = subprocess.run(
            [sys.executable, "-c", KILLED, json.dumps(access), json.dumps(block), str(number)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=False,
        ).returncode
        assert ended in {0, -signal.SIGKILL}
        found = vault.look(block)
        seen.append(found)

        assert found is None or not found.foreign
        assert found == old or bao.data(path) == NATIVE
        again = vault.put(block, parcel(2), found)
        assert again.identity == identity(2)
        assert again == vault.look(block)
        assert bao.data(path) == NATIVE

    if before == "nothing":
        # the engine is asked, the metadata read, the claim made, the data written, the note made
        owner_only = identity(0, key="")
        cut = Held("1", identity=owner_only, wrong="its first delivery was cut short")
        assert seen == [None, None, None, None, cut, Held("1", identity=identity(2))]
    else:
        cut = Held(
            "2", identity=identity(1), wrong="version 2 is not the one that was delivered, which was 1"
        )
        assert seen == [FIRST, FIRST, FIRST, cut, Held("2", identity=identity(2))]


@pytest.mark.parametrize("where", ["data", "metadata"])
def test_a_lost_answer_to_a_write_is_called_lost_and_the_next_run_mends_it(
    vault: Consumer, relay: Relay, block: dict[str, str], path: str, where: str
) -> None:
    relay.rule = lambda method, at: "lose" if (method, at) == ("POST", f"/v1/secret/{where}/{path}") else ""

    error = refused(opened(relay), block, LostResponse)
    assert error.blame.message == f"{relay.address}: the connection broke"
    assert vault.put(block, parcel(), vault.look(block)).identity == identity()


def test_a_lost_answer_to_a_look_is_no_lost_write(relay: Relay, block: dict[str, str]) -> None:
    relay.rule = lambda method, _at: "lose" if method == "GET" else ""

    error = refused(opened(relay), block)
    assert error.blame.repeatable


# --- refusals -------------------------------------------------------------------------------------------


def test_no_credential_goes_to_a_host_that_is_not_allowed(relay: Relay, block: dict[str, str]) -> None:
    assert refused(opened(relay, check=nowhere), block, HostRefused).blame.code == "host"
    assert relay.seen == []


def test_a_wrong_token_is_told_from_a_missing_right_and_not_tried_again(
    relay: Relay, block: dict[str, str]
) -> None:
    with contextlib.closing(opened(relay, {"token": "hvs.wrong-token"})) as consumer:
        for _ in range(2):
            with pytest.raises(SignInRefused) as caught:
                consumer.look(block)

    assert caught.value.blame.message == (
        "the token is not accepted; check access.vault.token: permission denied"
    )
    assert len(relay.seen) == 2


def test_a_missing_right_is_told_with_what_the_policy_must_allow(
    bao: Bao, block: dict[str, str], path: str
) -> None:
    bao.policy(
        path,
        f'path "secret/metadata/{path}" {{ capabilities = ["read", "create", "update"] }}\n'
        'path "auth/token/lookup-self" { capabilities = ["read"] }',
    )
    error = refused(opened(bao, {"token": bao.token(path)}), block)

    assert error.blame.status == 403
    assert error.blame.message == (
        f"no right to POST secret/data/{path}; its policy must allow read, create and update on "
        f"secret/metadata/{path}, create and update on secret/data/{path}: 1 error occurred: * permission denied"
    )


def test_an_engine_that_is_not_there_is_told_in_words(bao: Bao) -> None:
    error = refused(opened(bao), {"path": "nowhere/apim"})

    assert error.blame.message.startswith(
        "no right to GET sys/internal/ui/mounts/nowhere/apim; is there a KV v2 engine at 'nowhere'? If there is, "
        "its policy must allow read, create and update on nowhere/metadata/apim, create and update on "
        "nowhere/data/apim: "
    )


def test_an_engine_of_another_kind_is_never_written_to(bao: Bao, vault: Consumer, path: str) -> None:
    first, other, below = f"v1-{path}", f"transit-{path}", f"below-{path}"
    bao.ask("POST", f"sys/mounts/{first}", {"type": "kv", "options": {"version": "1"}})
    bao.ask("POST", f"sys/mounts/{other}", {"type": "transit"})
    bao.ask("POST", f"sys/mounts/{below}/kv", {"type": "kv", "options": {"version": "2"}})

    assert refused(opened(bao), {"path": f"{first}/apim"}).blame.message == (
        f"the engine at '{first}' is KV version 1, which knows no versions; enable version 2 "
        f"(vault kv enable-versioning {first})"
    )
    assert refused(opened(bao), {"path": f"{other}/apim"}).blame.message == (
        f"the engine at '{other}' is no KV engine but transit"
    )
    assert refused(opened(bao), {"path": f"{below}/kv/apim"}).blame.message == (
        f"the engine here is mounted at '{below}/kv'; write mount: {below}/kv, and path without it"
    )


@pytest.mark.parametrize("path", ["secret", "secret/../sys/seal", "/", "secret//x", "secret/\u0007"])
def test_a_path_that_leads_elsewhere_is_refused_unsent(relay: Relay, path: str) -> None:
    assert "is no path of a secret" in refused(opened(relay), {"path": path}).blame.message
    assert relay.seen == []


def test_a_sealed_server_can_be_asked_again_later(bao: Bao, block: dict[str, str]) -> None:
    bao.ask("PUT", "sys/seal")
    try:
        error = refused(opened(bao), block)
    finally:
        bao.ask("PUT", "sys/unseal", {"key": bao.unseal_key})

    assert error.blame.status == 503
    assert error.blame.repeatable
    assert error.blame.message == "Vault is sealed"


def test_a_rate_limit_can_be_asked_again_later(bao: Bao, path: str) -> None:
    mount = f"limited-{path}"
    bao.ask("POST", f"sys/mounts/{mount}", {"type": "kv", "options": {"version": "2"}})
    bao.ask("POST", f"sys/quotas/rate-limit/{mount}", {"path": mount, "rate": 1, "interval": "600s"})
    error = refused(opened(bao), {"path": f"{mount}/apim"})

    assert error.blame.status == 429
    assert error.blame.repeatable
    assert error.blame.message.endswith("rate limit quota exceeded")


@pytest.mark.parametrize(
    ("status", "kind", "repeatable"),
    [
        (500, LostResponse, False),
        (502, LostResponse, False),
        (503, PlatformError, True),
        (429, PlatformError, True),
    ],
)
def test_a_write_that_may_have_happened_is_called_lost(
    relay: Relay, block: dict[str, str], path: str, status: int, kind: type[PlatformError], repeatable: bool
) -> None:
    relay.rule = lambda _method, at: (
        (status, {"Retry-After": "7"}, b"<html>") if at == f"/v1/secret/data/{path}" else ""
    )
    error = refused(opened(relay), block, kind)

    assert (error.blame.status, error.blame.repeatable, error.blame.wait) == (status, repeatable, 7.0)
    assert error.blame.message == f"status {status}"


def test_a_redirect_is_not_followed(bao: Bao, relay: Relay, block: dict[str, str]) -> None:
    elsewhere = {"Location": f"{bao.address}/v1/secret?token=x"}
    relay.rule = lambda _method, _at: (307, elsewhere, b"")
    error = refused(opened(relay), block)

    assert error.blame.message == (
        f"a redirect to {bao.address}/v1/secret, which is not followed: credentials go only where they were "
        "meant to go; give the address of the active node"
    )


def test_what_the_server_says_back_of_a_secret_is_not_shown(
    relay: Relay, block: dict[str, str], path: str
) -> None:
    said = json.dumps({"errors": [f"cannot store {SECRET}\nfor 'key'"]}).encode()
    relay.rule = lambda _method, at: (413, {}, said) if at == f"/v1/secret/data/{path}" else ""

    assert refused(opened(relay), block).blame.message == "cannot store *** for 'key'"


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"data": {"current_version": "1"}}'])
def test_an_answer_without_metadata_is_not_taken_for_nothing(
    relay: Relay, block: dict[str, str], path: str, body: bytes
) -> None:
    relay.rule = lambda _method, at: (200, {}, body) if at == f"/v1/secret/metadata/{path}" else ""

    error = refused(opened(relay), block)
    assert error.blame.message == "the answer holds no metadata of a secret"


def test_a_404_of_something_else_is_not_taken_for_nothing(
    relay: Relay, block: dict[str, str], path: str
) -> None:
    relay.rule = lambda _method, at: (404, {}, b"<html>") if at == f"/v1/secret/metadata/{path}" else ""

    assert refused(opened(relay), block).blame.message == "is there a KV v2 engine at 'secret'?"


def test_an_answer_that_names_no_version_is_a_lost_one(
    relay: Relay, block: dict[str, str], path: str
) -> None:
    relay.rule = lambda _method, at: (200, {}, b"{}") if at == f"/v1/secret/data/{path}" else ""

    error = refused(opened(relay), block, LostResponse)
    assert error.blame.message == "the answer does not say which version was made"


def test_a_server_that_is_not_there_was_not_reached(block: dict[str, str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        consumer = VaultSink().open({"address": address, "token": "t"}, around(Path("/")))
        error = refused(consumer, block, Unreachable)

    assert error.blame.message == f"{address}: no connection"
    assert error.blame.repeatable


def test_a_server_that_does_not_answer_is_not_waited_for(block: dict[str, str]) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        consumer = VaultSink().open({"address": address, "token": "t"}, around(Path("/"), timeout=0.2))
        error = refused(consumer, block)

    assert error.blame.message == f"{address}: no answer within 0.2 s"


def test_a_certificate_that_is_not_trusted_ends_it(bao: Bao, block: dict[str, str], tmp_path: Path) -> None:
    for trusted in ({}, {"ca_file": "none.pem"}):
        access = {"address": bao.address, "token": ROOT_TOKEN, **trusted}
        error = refused(VaultSink().open(access, around(tmp_path)), block, Unreachable)
        assert not error.blame.repeatable
        words = (
            "the file of trusted certificates cannot be read" if trusted else "its certificate is not trusted"
        )
        assert words in error.blame.message


def test_a_token_that_no_header_can_hold_is_not_quoted(bao: Bao, block: dict[str, str]) -> None:
    error = refused(opened(bao, {"token": f"{ROOT_TOKEN}\nX: y"}), block, Unreachable)

    assert error.blame.message.endswith(
        "the request could not be put together: check the address and the credentials"
    )


def test_nothing_is_kept_and_nothing_is_taken_from_a_netrc(
    relay: Relay, block: dict[str, str], nobodys_machine: Path
) -> None:
    netrc = nobodys_machine / ".netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password hidden\n")
    netrc.chmod(0o600)
    with contextlib.closing(opened(relay)) as consumer:
        consumer.put(block, parcel(), None)

    assert len(relay.headers) == 5
    for headers in relay.headers:
        assert headers["X-Vault-Token"] == ROOT_TOKEN
        assert headers["X-Vault-Request"] == "true"
        assert not {"Cookie", "Authorization"} & set(headers)


def test_a_proxy_of_the_environment_is_used_except_on_this_machine() -> None:
    environment = {"https_proxy": "http://127.0.0.1:9"}
    there = VaultSink().open(
        {"address": "https://vault.invalid", "token": "t"}, around(Path("/"), environment)
    )
    error = refused(there, {"path": "secret/x"}, Unreachable)

    assert error.blame.message == "https://vault.invalid: no connection through the proxy"


# --- signing in -----------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def writers(bao: Bao) -> str:
    """A policy for all that a delivery needs."""
    bao.policy(
        "writers",
        'path "secret/metadata/*" { capabilities = ["read", "create", "update"] }\n'
        'path "secret/data/*" { capabilities = ["create", "update"] }',
    )
    return "writers"


@pytest.fixture(scope="session")
def approle(bao: Bao, writers: str) -> dict[str, Any]:
    bao.ask("POST", "sys/auth/approle", {"type": "approle"})
    bao.ask("POST", "auth/approle/role/ci", {"token_policies": [writers], "token_ttl": "1h"})
    role_id = bao.ask("GET", "auth/approle/role/ci/role-id")["data"]["role_id"]
    secret_id = bao.ask("POST", "auth/approle/role/ci/secret-id")["data"]["secret_id"]
    return {"role_id": role_id, "secret_id": Secret("secret_id", secret_id)}


def test_approle_signs_in_once(relay: Relay, block: dict[str, str], approle: dict[str, Any]) -> None:
    with contextlib.closing(opened(relay, {"approle": approle})) as consumer:
        first = consumer.put(block, parcel(), consumer.look(block))
        assert consumer.look(block) == first == FIRST

    assert [one for one in relay.seen if "/auth/" in one] == ["POST /v1/auth/approle/login"]


def test_many_threads_sign_in_once(relay: Relay, approle: dict[str, Any]) -> None:
    with contextlib.closing(opened(relay, {"approle": approle})) as consumer:
        blocks = [{"path": f"secret/{uuid.uuid4().hex}"} for _ in range(6)]
        threads = [threading.Thread(target=consumer.put, args=(one, parcel(), None)) for one in blocks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [consumer.look(one) for one in blocks] == [FIRST] * 6

    assert relay.seen.count("POST /v1/auth/approle/login") == 1


def test_a_token_that_died_is_replaced_by_signing_in_again_once(
    bao: Bao, relay: Relay, block: dict[str, str], approle: dict[str, Any]
) -> None:
    with contextlib.closing(opened(relay, {"approle": approle})) as consumer:
        consumer.look(block)
        bao.ask("POST", "auth/token/revoke", {"token": relay.headers[-1]["X-Vault-Token"]})

        assert consumer.put(block, parcel(), None) == FIRST
        assert relay.seen.count("POST /v1/auth/approle/login") == 2
        with pytest.raises(PlatformError, match="no right to GET sys/internal/ui/mounts/nowhere/x"):
            consumer.look({"path": "nowhere/x"})
        assert relay.seen.count("POST /v1/auth/approle/login") == 3


def test_a_refused_sign_in_is_final(relay: Relay, block: dict[str, str], approle: dict[str, Any]) -> None:
    wrong = {**approle, "secret_id": Secret("secret_id", "wrong-secret-id")}
    with contextlib.closing(opened(relay, {"approle": wrong})) as consumer:
        for _ in range(2):
            with pytest.raises(SignInRefused) as caught:
                consumer.look(block)

    assert caught.value.blame.message == (
        "the sign-in by approle at auth/approle is refused; check access.vault.approle: invalid role or secret ID"
    )
    assert relay.seen == ["POST /v1/auth/approle/login"]


def test_a_sign_in_method_that_is_not_there_is_told_in_words(
    bao: Bao, block: dict[str, str], approle: dict[str, Any]
) -> None:
    error = refused(opened(bao, {"approle": {**approle, "mount": "none"}}), block, SignInRefused)

    assert "the sign-in by approle at auth/none is refused" in error.blame.message


def test_a_sign_in_without_an_answer_can_be_tried_again(
    relay: Relay, block: dict[str, str], approle: dict[str, Any]
) -> None:
    relay.rule = lambda _method, at: (503, {}, b"") if "/auth/" in at else ""
    with contextlib.closing(opened(relay, {"approle": approle})) as consumer:
        with pytest.raises(PlatformError) as caught:
            consumer.look(block)
        assert caught.value.blame.repeatable
        relay.rule = lambda _method, at: (200, {}, b"{}") if "/auth/" in at else ""
        with pytest.raises(PlatformError, match="gave no token"):
            consumer.look(block)
        relay.rule = lambda _method, _at: ""
        assert consumer.look(block) is None


def pem(key: Any) -> str:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return str(key.public_bytes(serialization.Encoding.PEM, form), "ascii")


def test_a_jwt_signs_in(bao: Bao, block: dict[str, str], writers: str, path: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    bao.ask("POST", f"sys/auth/{path}", {"type": "jwt"})
    bao.ask("POST", f"auth/{path}/config", {"jwt_validation_pubkeys": [pem(key.public_key())]})
    bao.ask(
        "POST",
        f"auth/{path}/role/ci",
        {
            "role_type": "jwt",
            "bound_audiences": ["vault"],
            "user_claim": "sub",
            "token_policies": [writers],
        },
    )
    claims = {"sub": "pipeline", "aud": "vault", "iat": 1_700_000_000, "exp": 4_000_000_000}
    token = Secret("jwt", jwt.encode(claims, key, algorithm="ES256"))
    access = {"jwt": {"role": "ci", "jwt": token, "mount": path}}
    with contextlib.closing(opened(bao, access)) as consumer:
        assert consumer.put(block, parcel(), None) == FIRST

    other = Secret("jwt", jwt.encode({**claims, "aud": "elsewhere"}, key, algorithm="ES256"))
    error = refused(opened(bao, {"jwt": {**access["jwt"], "jwt": other}}), block, SignInRefused)
    assert other.reveal() not in str(error)


@contextlib.contextmanager
def reviewing(asked: list[tuple[str, Any]]) -> Iterator[str]:
    """The one request of the Kubernetes API that the sign-in method sends: who is it whose token this is?"""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((self.path, body["spec"]["token"]))
            user = {"username": "system:serviceaccount:ci:reconcile", "uid": "u1"}
            answer = {**body, "status": {"authenticated": True, "user": user}}
            content = json.dumps(answer).encode()
            self.send_response(201)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_parts: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_a_pod_signs_in_with_the_token_of_its_service_account(
    bao: Bao, block: dict[str, str], writers: str, path: str, tmp_path: Path
) -> None:
    claims = {
        "iss": "kubernetes/serviceaccount",
        "sub": "system:serviceaccount:ci:reconcile",
        "kubernetes.io": {"namespace": "ci", "serviceaccount": {"name": "reconcile", "uid": "u1"}},
        "iat": 1_700_000_000,
        "exp": 4_000_000_000,
    }
    key = ec.generate_private_key(ec.SECP256R1())
    token = jwt.encode(claims, key, algorithm="ES256")
    (tmp_path / "token").write_text(token + "\n")
    asked: list[tuple[str, Any]] = []
    with reviewing(asked) as cluster:
        bao.ask("POST", f"sys/auth/{path}", {"type": "kubernetes"})
        bao.ask(
            "POST",
            f"auth/{path}/config",
            {
                "kubernetes_host": cluster,
                "kubernetes_ca_cert": Path(bao.ca_file).read_text(),
                "token_reviewer_jwt": "reviewer",
                "disable_local_ca_jwt": True,
            },
        )
        bao.ask(
            "POST",
            f"auth/{path}/role/ci",
            {
                "bound_service_account_names": ["reconcile"],
                "bound_service_account_namespaces": ["ci"],
                "token_policies": [writers],
            },
        )
        access = {"kubernetes": {"role": "ci", "mount": path, "token_file": "token"}}
        with contextlib.closing(opened(bao, access, folder=tmp_path)) as consumer:
            assert consumer.put(block, parcel(), None) == FIRST

    assert asked == [("/apis/authentication.k8s.io/v1/tokenreviews", token)]


def test_a_pods_token_that_cannot_be_read_is_told_with_its_place(bao: Bao, block: dict[str, str]) -> None:
    error = refused(opened(bao, {"kubernetes": {"role": "ci"}}), block)

    assert error.blame.message == (
        "/var/run/secrets/kubernetes.io/serviceaccount/token: No such file or directory; it is needed to sign in"
    )


@pytest.mark.parametrize(
    ("access", "code", "message", "hint"),
    [
        (
            {},
            "access/none",
            "access.vault has no address",
            "write access.vault.address, or set the variable VAULT_ADDR",
        ),
        (
            {"address": "https://vault.invalid"},
            "access/none",
            "access.vault has no way to sign in",
            "give one of token, approle, kubernetes, jwt in access.vault, or set the variable VAULT_TOKEN",
        ),
        (
            {"address": "https://vault.invalid", "approle": {"role_id": "r"}},
            "access/none",
            "access.vault.approle has no secret_id",
            "write access.vault.approle.secret_id",
        ),
        (
            {"address": "https://vault.invalid", "token": "t", "jwt": {"role": "r", "jwt": "j"}},
            "access/key",
            "access.vault gives token and jwt",
            "give one way to sign in",
        ),
    ],
)
def test_access_that_lacks_something_is_told_before_anything_is_asked(
    access: dict[str, Any], code: str, message: str, hint: str
) -> None:
    with pytest.raises(SpecError) as caught:
        VaultSink().open(access, around(Path("/")))

    (problem,) = caught.value.problems
    assert (problem.code, problem.message, problem.hint) == (code, message, hint)


def test_without_the_extra_opening_says_which_module_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hvac", None)

    with pytest.raises(ModuleNotFoundError) as caught:
        VaultSink().open({"address": "https://vault.invalid", "token": "t"}, around(Path("/")))
    assert EXTRAS[str(caught.value.name)] == VaultSink.extra
