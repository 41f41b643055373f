"""No cluster can run here. These tests speak to a server that was written from the Kubernetes documentation, keeps the ownership
of fields as server-side apply does, and is strict; the official client is run against it as well.
"""

from __future__ import annotations

import base64
import json
import ssl
import stat
import sys
import tempfile
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from btp_reconcile.core.errors import (
    Blame,
    HostRefused,
    LostResponse,
    PlatformError,
    SignInRefused,
    SpecError,
    Unreachable,
)
from btp_reconcile.core.model import Secret
from btp_reconcile.core.sink import Held, Identity
from btp_reconcile.edges import files, load
from btp_reconcile.sinks import _kubeconfig
from btp_reconcile.sinks.kubernetes import Kubernetes
from tests.sinks.parcels import KEY, NATIVE, NESTED, NEXT, OURS, PEM, SECRET, X509, around, parcel
from tests.sinks.servers.authority import Authority
from tests.sinks.servers.kubernetes import TOKEN, KubernetesServer
from tests.sinks.servers.web import Says, Web

if TYPE_CHECKING:
    from collections.abc import Mapping

BLOCK = {"namespace": "apps", "name": "apim"}
PATH = "/api/v1/namespaces/apps/secrets/apim"
UID = "0c2d5a0e-1f3b-4a57-9d67-000000000001"


def kubeconfig(server: str, user: Mapping[str, Any] | None = None, /, **cluster: Any) -> str:
    """A kubeconfig's text. JSON is YAML too."""
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "main",
            "contexts": [{"name": "main", "context": {"cluster": "here", "user": "ci"}}],
            "clusters": [{"name": "here", "cluster": {"server": server, **cluster}}],
            "users": [{"name": "ci", "user": {"token": TOKEN} if user is None else user}],
        }
    )


def opened(text: str, **world: Any):
    return Kubernetes().open({"kubeconfig": Secret("kubeconfig", text)}, around(**world))


@pytest.fixture
def server():
    with KubernetesServer() as running:
        yield running


@pytest.fixture
def consumer(server):
    consumer = opened(kubeconfig(server.url))
    yield consumer
    consumer.close()


def blame(consumer, block=BLOCK, given=None, found=None) -> Blame:
    with pytest.raises(PlatformError) as caught:
        consumer.put(block, given or parcel(), found)
    return caught.value.blame


# --- delivering -----------------------------------------------------------------------------------------


def test_the_fields_arrive_as_texts_and_a_look_sees_the_same_without_reading_them(server, consumer) -> None:
    assert consumer.look(BLOCK) is None
    held = consumer.put(BLOCK, parcel(), None)

    assert held == Held(version=f"{UID}@2026-11-22T11:00:02Z", identity=OURS)
    assert consumer.look(BLOCK) == held
    assert server.data() == NATIVE
    assert server.secrets["apps", "apim"]["type"] == "Opaque"
    assert server.asked == [f"GET {PATH}", f"GET {PATH}", f"PATCH {PATH}", f"GET {PATH}"]
    assert {one.headers["Accept"] for one in server.seen} == {
        "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
    }


def test_whose_it_is_stands_in_annotations_beside_those_of_the_spec(server, consumer) -> None:
    block = {
        **BLOCK,
        "labels": {"team": "finance"},
        "annotations": {"note": "by reconcile"},
        "type": "btp/key",
    }
    consumer.put(block, parcel(), None)

    secret = server.secrets["apps", "apim"]
    assert (secret["type"], secret["labels"]) == ("btp/key", {"team": "finance"})
    assert secret["annotations"] == {
        "note": "by reconcile",
        "btp-reconcile/owner": "finance-platform",
        "btp-reconcile/spec": "prod",
        "btp-reconcile/delivery": "delivery:prod/apim/transport/main",
        "btp-reconcile/key": KEY,
        "btp-reconcile/generation": "1",
        "btp-reconcile/keys": "clientId,clientSecret,tokenUrl,url",
    }


def test_nested_content_is_json_for_each_field_at_the_top(server, consumer) -> None:
    consumer.put(BLOCK, parcel({**NESTED, "count": 3, "plain text": "x"}), None)

    data = server.data()
    assert {name: json.loads(data[name]) for name in ("uaa", "endpoints", "count")} == {**NESTED, "count": 3}
    assert data["plain_text"] == "x"


def test_delivering_again_changes_nothing_and_the_next_generation_removes_what_it_lacks(
    server, consumer
) -> None:
    first = consumer.put(BLOCK, parcel(), None)
    number = server.secrets["apps", "apim"]["resourceVersion"]

    assert consumer.put(BLOCK, parcel(), first) == first
    assert server.secrets["apps", "apim"]["resourceVersion"] == number

    following = consumer.put(BLOCK, parcel(X509, NEXT), first)
    assert server.data() == X509
    assert following == Held(version=f"{UID}@2026-11-22T11:00:03Z", identity=NEXT)
    assert consumer.look(BLOCK) == following


def test_a_binding_describes_itself_as_the_operator_of_sap_does(server, consumer) -> None:
    described = {
        "type": "apimanagement-apiportal",
        "label": "apimanagement-apiportal",
        "plan": "apiportal-apiaccess",
        "instance_name": "apim",
        "instance_guid": "77aa1f0e-6c1b-4a51-9d67-0a4c4f1f2f10",
        "tags": ["api", "portal"],
    }
    credentials = parcel({**NATIVE, "uaa": NESTED["uaa"]}).content
    consumer.put(BLOCK, replace(parcel(), content={**credentials, **described}), None)

    data = server.data()
    metadata = json.loads(data.pop(".metadata"))
    assert data == {
        **NATIVE,
        **described,
        "uaa": json.dumps(NESTED["uaa"], separators=(",", ":")),
        "tags": '["api","portal"]',
    }
    assert metadata == {
        "metaDataProperties": [
            {"name": "instance_name", "format": "text"},
            {"name": "instance_guid", "format": "text"},
            {"name": "plan", "format": "text"},
            {"name": "label", "format": "text"},
            {"name": "type", "format": "text"},
            {"name": "tags", "format": "json"},
        ],
        "credentialProperties": [
            {"name": "url", "format": "text"},
            {"name": "tokenUrl", "format": "text"},
            {"name": "clientId", "format": "text"},
            {"name": "clientSecret", "format": "text"},
            {"name": "uaa", "format": "json"},
        ],
    }


@pytest.mark.parametrize("name", ["a/b", "..", "..data", "ä", ""])
def test_a_field_that_no_secret_can_hold_is_said(server, consumer, name) -> None:
    found = blame(consumer, given=parcel({name: "x"}))

    assert found == Blame(
        "kubernetes",
        message=f"the credentials have a field {name!r}, which a Secret cannot hold; choose another shape",
    )
    assert server.seen == []


def test_more_than_a_secret_takes_is_not_sent(server, consumer) -> None:
    assert blame(consumer, given=parcel({"big": "x" * (1024 * 1024 + 1)})) == Blame(
        "kubernetes",
        message="the credentials have 1,048,577 bytes, and a Secret takes 1 MiB: deliver them to a file or to Vault",
    )
    assert server.seen == []


# --- others ---------------------------------------------------------------------------------------------


def test_what_others_write_beside_it_is_their_business(server, consumer) -> None:
    held = consumer.put(BLOCK, parcel(), None)
    server.edit("kubectl-edit", {"extra": "theirs"}, labels={"their": "label"}, annotations={"their": "note"})

    assert consumer.look(BLOCK) == held
    assert consumer.put(BLOCK, parcel(), held) == held
    assert server.data() == {**NATIVE, "extra": "theirs"}


def test_a_field_that_others_changed_or_removed_is_seen_by_its_manager(server, consumer) -> None:
    held = consumer.put(BLOCK, parcel(), None)
    server.edit("kubectl-edit", {"clientSecret": "another", "url": None})

    assert consumer.look(BLOCK) == replace(
        held, wrong="clientSecret was changed by kubectl-edit; url was removed"
    )


def test_a_conflict_names_the_other_manager_and_force_takes_over(server, consumer) -> None:
    consumer.put(BLOCK, parcel(), None)
    server.edit("kubectl-edit", {"clientSecret": "another", "url": "https://elsewhere"})
    found = consumer.look(BLOCK)

    assert blame(consumer, found=found) == Blame(
        "kubernetes",
        "PATCH",
        f"{server.url}{PATH}",
        409,
        "Conflict",
        "apps/apim: kubectl-edit holds data.clientSecret, data.url; write force: true to take these fields over, or let "
        "the other manager give them up",
    )
    held = consumer.put({**BLOCK, "force": True}, parcel(), found)

    assert (held.wrong, held.identity) == ("", OURS)
    assert server.data() == NATIVE


def test_labels_of_the_spec_that_others_changed_are_wrong(server, consumer) -> None:
    block = {**BLOCK, "labels": {"team": "finance"}, "annotations": {"note": "x"}}
    held = consumer.put(block, parcel(), None)
    server.edit("kubectl-label", labels={"team": "sales"})

    assert consumer.look(block) == replace(held, wrong="its label team is not what the spec says")
    assert consumer.look({**BLOCK, "annotations": {"note": "y"}}) == replace(
        held, wrong="its annotation note is not what the spec says"
    )


def test_a_secret_of_somebody_elses_is_foreign_until_it_is_adopted(server, consumer) -> None:
    server.edit("kubectl-create", {"clientSecret": "theirs", "other": "kept"})

    found = consumer.look(BLOCK)
    assert found == Held(foreign="its annotations do not say that reconcile made it; kubectl-create wrote it")

    held = consumer.put(BLOCK, parcel(), found)
    assert (held.foreign, held.identity, held.wrong) == ("", OURS, "")
    assert server.data() == {**NATIVE, "other": "kept"}


def test_one_that_was_deleted_and_made_again_is_another(server, consumer) -> None:
    first = consumer.put(BLOCK, parcel(), None)
    del server.secrets["apps", "apim"]
    again = consumer.put(BLOCK, parcel(), first)

    assert again.version.partition("@")[0] != UID
    assert again.identity == OURS


def test_what_came_or_changed_since_the_look_is_not_overwritten(server, consumer) -> None:
    other = replace(OURS, owner="another")
    first = consumer.put(BLOCK, parcel(identity=other), None)

    assert blame(consumer) == Blame(
        "kubernetes",
        message="apps/apim came into being since it was looked at; it is not overwritten: plan again",
    )
    consumer.put(BLOCK, parcel({**NATIVE, "url": "https://new"}, other), first)
    assert "was changed by others since it was looked at" in blame(consumer, found=first).message
    assert server.data()["url"] == "https://new"


def test_a_change_between_our_look_and_our_write_is_refused_by_the_server_and_worth_another_try(
    server, consumer
) -> None:
    held = consumer.put(BLOCK, parcel(), None)

    def faster(asked):
        if asked.method == "PATCH":
            server.faults.remove(faster)
            server.edit("kubectl-edit", {"clientSecret": "another"})

    server.faults.append(faster)
    found = blame(consumer, found=held)

    assert (found.status, found.repeatable) == (409, True)
    assert found.message.startswith(
        "apps/apim was changed in this very moment: Operation cannot be fulfilled"
    )
    assert server.data()["clientSecret"] == "another"


def test_a_lost_answer_is_told_and_the_next_run_finds_it_ours(server, consumer) -> None:
    server.lost.add("PATCH")
    with pytest.raises(LostResponse) as caught:
        consumer.put(BLOCK, parcel(), None)
    seen = consumer.look(BLOCK)

    assert caught.value.blame.repeatable
    assert seen == Held(version=f"{UID}@2026-11-22T11:00:02Z", identity=OURS)
    assert consumer.put(BLOCK, parcel(), None) == seen


# --- refusals -------------------------------------------------------------------------------------------


def test_a_namespace_that_is_not_there_is_named(consumer) -> None:
    assert blame(consumer, {**BLOCK, "namespace": "elsewhere"}).message == (
        "there is no namespace 'elsewhere', or this server has no Secrets: namespaces \"elsewhere\" not found"
    )


@pytest.mark.parametrize("verb", ["get", "create", "patch"])
def test_a_missing_right_is_named(server, consumer, verb) -> None:
    server.verbs.discard(verb)
    found = blame(consumer)

    assert (found.status, found.code, found.repeatable) == (403, "Forbidden", False)
    assert found.message == (
        'a right is missing: get, create and patch on secrets in apps are needed: secrets "apim" is forbidden: User '
        f'"system:serviceaccount:ci:reconcile" cannot {verb} resource "secrets" in the namespace "apps"'
    )


def test_a_type_can_not_be_changed_and_is_said_to_be_why(consumer) -> None:
    held = consumer.put(BLOCK, parcel(), None)

    assert blame(consumer, {**BLOCK, "type": "kubernetes.io/tls"}, found=held).message == (
        "apps/apim cannot become what the spec says; its type can never change, nor an immutable Secret: Secret "
        '"apim" is invalid: type: field is immutable'
    )


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ({"namespace": "Apps", "name": "apim"}, "namespace is not a name that Kubernetes takes"),
        ({"namespace": "apps/x", "name": "apim"}, "namespace is not a name that Kubernetes takes"),
        ({"namespace": "apps", "name": "a_b"}, "name is not a name that Kubernetes takes"),
        ({"namespace": "apps", "name": "../x"}, "name is not a name that Kubernetes takes"),
        ({"namespace": "apps", "name": "a" * 254}, "name is not a name that Kubernetes takes"),
        (
            {**BLOCK, "labels": {"btp-reconcile/owner": "x"}},
            "labels that start with btp-reconcile/ are written by reconcile itself: btp-reconcile/owner",
        ),
    ],
)
def test_a_block_that_cannot_be_is_said_before_anything_is_sent(server, consumer, block, words) -> None:
    with pytest.raises(PlatformError, match=words):
        consumer.look(block)
    assert words in blame(consumer, block).message
    assert server.seen == []


@pytest.mark.parametrize(("status", "wait"), [(429, 9.0), (500, None), (503, None)])
def test_passing_faults_may_be_tried_again(server, consumer, status, wait) -> None:
    headers = {"Retry-After": "9"} if wait else {}
    server.once("PATCH", Says(status, b"upstream connect error", headers))

    assert blame(consumer) == Blame(
        "kubernetes",
        "PATCH",
        f"{server.url}{PATH}",
        status,
        message="no reason given",
        repeatable=True,
        wait=wait,
    )


def test_what_the_server_quotes_of_us_is_taken_out(server, consumer) -> None:
    encoded = base64.b64encode(SECRET.encode()).decode()
    said = {"kind": "Status", "reason": "Invalid", "message": f"{SECRET}, {encoded} and {TOKEN} are odd"}
    server.once("PATCH", Says(422, said))

    assert blame(consumer).message.endswith("nor an immutable Secret: ***, *** and *** are odd")


def test_a_server_that_gives_more_than_metadata_is_not_read(server, consumer) -> None:
    server.once("GET", Says(200, {"kind": "Secret", "metadata": {"uid": "1"}, "data": {"a": "YQ=="}}))
    with pytest.raises(PlatformError, match="the server does not give metadata alone"):
        consumer.look(BLOCK)


def test_a_404_of_a_proxy_in_front_is_not_taken_for_an_absent_secret(server, consumer) -> None:
    server.once("GET", Says(404, b"404 page not found"))
    with pytest.raises(PlatformError, match="there is no namespace 'apps', or this server has no Secrets"):
        consumer.look(BLOCK)


def test_an_identity_that_is_not_whole_is_none(server, consumer) -> None:
    consumer.put(BLOCK, parcel(), None)
    server.secrets["apps", "apim"]["annotations"]["btp-reconcile/generation"] = "many"

    held = consumer.look(BLOCK)
    assert held is not None
    assert (held.identity, held.foreign) == (None, "its annotations do not say that reconcile made it")


# --- access ---------------------------------------------------------------------------------------------


def test_a_kubeconfig_may_be_a_path_or_named_by_the_environment_or_at_home(server, tmp_path: Path) -> None:
    home = tmp_path / ".kube"
    home.mkdir()
    (home / "config").write_text(kubeconfig(server.url))
    (tmp_path / "other.yaml").write_text(kubeconfig("http://127.0.0.1:9", {"token": "x"}))
    given = Kubernetes().open(
        {"kubeconfig": "config"}, around({"KUBECONFIG": "/nowhere"}, folder=lambda path: str(home / path))
    )
    named = Kubernetes().open({}, around({"KUBECONFIG": str(home / "config"), "HOME": "/nowhere"}))
    usual = Kubernetes().open({}, around({"HOME": str(tmp_path)}))

    for consumer in (given, named, usual):
        assert consumer.look(BLOCK) is None
        consumer.close()


def test_several_kubeconfigs_are_merged_and_their_paths_start_at_their_folders(
    server, tmp_path: Path
) -> None:
    (tmp_path / "tokens").mkdir()
    (tmp_path / "tokens/ci").write_text(f"{TOKEN}\n")
    whole = json.loads(kubeconfig(server.url, {"tokenFile": "tokens/ci"}))
    (tmp_path / "users.yaml").write_text(json.dumps({"users": whole.pop("users")}))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "clusters.yaml").write_text(json.dumps(whole))
    paths = f"{elsewhere / 'clusters.yaml'}:{tmp_path / 'users.yaml'}"
    consumer = Kubernetes().open({}, around({"KUBECONFIG": paths}))

    assert consumer.look(BLOCK) is None
    server.tokens = {"renewed"}
    (tmp_path / "tokens/ci").write_text("renewed")
    assert consumer.look(BLOCK) is None
    consumer.close()


def test_the_context_of_the_block_goes_before_that_of_the_access(server) -> None:
    config = json.loads(kubeconfig(server.url))
    config["contexts"] += [
        {"name": "broken", "context": {"cluster": "here", "user": "nobody"}},
        {"name": "second", "context": {"cluster": "here", "user": "ci"}},
    ]
    text = json.dumps(config)
    consumer = Kubernetes().open({"kubeconfig": text, "context": "broken"}, around())

    with pytest.raises(PlatformError, match="kubeconfig: there is no user 'nobody'; there is: ci"):
        consumer.look(BLOCK)
    with pytest.raises(
        PlatformError, match="kubeconfig: there is no context 'third'; there is: broken, main, second"
    ):
        consumer.look({**BLOCK, "context": "third"})
    assert consumer.look({**BLOCK, "context": "second"}) is None
    assert Kubernetes().place({**BLOCK, "context": "second"}) == "apps/apim (second)"
    consumer.close()


@pytest.mark.parametrize(
    "text",
    ["clusters: [", "- a\n- list", "clusters: {}\nusers: 5\n", f"token: {SECRET}: :", SECRET, f"/a/{SECRET}"],
)
def test_a_kubeconfig_that_is_none_is_said_without_a_word_of_it(text) -> None:
    with pytest.raises(SpecError) as caught:
        opened(text)

    (problem,) = caught.value.problems
    assert (problem.code, problem.message) == ("access/key", "the kubeconfig cannot be read")
    assert SECRET not in repr(problem)
    assert caught.value.__cause__ is None


def test_a_kubeconfig_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        Kubernetes().open({"kubeconfig": str(tmp_path / "none")}, around())

    assert caught.value.problems[0].message == f"the kubeconfig {tmp_path / 'none'} cannot be read"


def test_without_any_access_it_says_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        Kubernetes().open({}, around({"HOME": str(tmp_path)}))

    assert [(one.code, one.message) for one in caught.value.problems] == [
        ("access/none", "nothing to sign in at Kubernetes with")
    ]


def test_the_token_goes_to_no_server_that_is_not_allowed() -> None:
    consumer = opened(kubeconfig("https://kubernetes.example:6443"))
    with pytest.raises(HostRefused, match=r"no credential is sent to https://kubernetes\.example:6443"):
        consumer.look(BLOCK)


def test_credentials_that_are_not_accepted_are_final(server) -> None:
    consumer = opened(kubeconfig(server.url, {"token": "wrong"}))
    with pytest.raises(
        SignInRefused, match=r"Kubernetes does not accept the credentials: Unauthorized \[401"
    ):
        consumer.look(BLOCK)
    consumer.close()


def test_a_user_may_have_a_name_and_a_password(server) -> None:
    pair = base64.b64encode(b"ci:pass").decode()
    server.tokens = {f"Basic {pair}"}
    consumer = opened(kubeconfig(server.url, {"username": "ci", "password": "pass"}))

    assert consumer.look(BLOCK) is None
    consumer.close()


@pytest.mark.parametrize(
    ("user", "cluster", "words"),
    [
        (
            {},
            {"insecure-skip-tls-verify": True},
            "the cluster of context 'main' skips the check of certificates, which is not done here; name",
        ),
        ({"auth-provider": {"name": "oidc"}}, {}, "the user of context 'main' signs in by an auth-provider"),
        (
            {"client-certificate-data": "%%", "client-key-data": "%%"},
            {"server": "https://127.0.0.1:9"},
            "no PEM in Base64; copy it anew, as it came",
        ),
        ({"tokenFile": "/nowhere/token"}, {}, "/nowhere/token cannot be read: No such file or directory"),
        (
            {},
            {
                "server": "https://127.0.0.1:9",
                "certificate-authority-data": base64.b64encode(PEM.encode()).decode(),
            },
            "a certificate or key in it is not usable: each must be PEM, and the key its certificate's own; get it anew",
        ),
        (
            {},
            {"server": ""},
            "the cluster of context 'main' has no server; name another context, or complete it",
        ),
    ],
)
def test_what_cannot_be_used_of_a_kubeconfig_is_said(server, user, cluster, words) -> None:
    consumer = opened(kubeconfig(server.url, user, **cluster))
    with pytest.raises(PlatformError, match=words):
        consumer.look(BLOCK)
    assert server.seen == []


def test_nobody_at_the_other_end_means_that_nothing_happened() -> None:
    with KubernetesServer() as gone:
        url = gone.url
    consumer = opened(kubeconfig(url))
    with pytest.raises(Unreachable):
        consumer.look(BLOCK)
    consumer.close()


def test_the_proxy_of_a_kubeconfig_is_used(server) -> None:
    with Web(server.handle) as proxy:
        consumer = opened(kubeconfig("http://127.0.0.1:9", **{"proxy-url": proxy.url}))
        held = consumer.put(BLOCK, parcel(), None)

        assert consumer.look(BLOCK) == held
        assert {one.target.partition("?")[0] for one in proxy.seen} == {f"http://127.0.0.1:9{PATH}"}
        consumer.close()


def test_a_proxy_of_a_kind_that_is_not_known_is_said() -> None:
    consumer = opened(kubeconfig("http://127.0.0.1:9", **{"proxy-url": "socks5://127.0.0.1:1"}))
    with pytest.raises(Unreachable, match="the request could not be put together"):
        consumer.look(BLOCK)


# --- programs that sign in ------------------------------------------------------------------------------


def program(folder: Path, *tokens: str, kind: str = "token", exits: int = 0) -> dict[str, Any]:
    """A credential plugin that gives one token after another."""
    script = folder / "plugin"
    script.write_text(
        textwrap.dedent(
            f"""\
            #!{sys.executable}
            import json, os, pathlib, sys
            asked = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
            assert asked["kind"] == "ExecCredential" and os.environ["CLUSTER"] == "here" and sys.argv[1:] == ["get-token"]
            count = pathlib.Path(__file__).with_name("count")
            number = int(count.read_text()) if count.exists() else 0
            count.write_text(str(number + 1))
            tokens = {list(tokens)!r}
            sys.stderr.write("the secret is {SECRET}")
            status = {{{kind!r}: tokens[min(number, len(tokens) - 1)]}} if tokens else {{}}
            print(json.dumps({{"apiVersion": asked["apiVersion"], "kind": "ExecCredential", "status": status}}))
            sys.exit({exits})
            """
        )
    )
    script.chmod(0o700)
    return {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": str(script),
            "args": ["get-token"],
            "env": [{"name": "CLUSTER", "value": "here"}],
        }
    }


def test_a_program_is_run_only_with_leave(server, tmp_path: Path) -> None:
    consumer = opened(kubeconfig(server.url, program(tmp_path, TOKEN)))
    with pytest.raises(PlatformError, match=r"which is run only with --allow-commands"):
        consumer.look(BLOCK)

    assert not (tmp_path / "count").exists()


def test_no_program_is_run_for_a_server_that_is_not_allowed(tmp_path: Path) -> None:
    consumer = opened(kubeconfig("https://kubernetes.example", program(tmp_path, TOKEN)), commands=True)
    with pytest.raises(HostRefused):
        consumer.look(BLOCK)

    assert not (tmp_path / "count").exists()


def test_a_program_is_asked_once_and_again_when_its_token_has_died(server, tmp_path: Path) -> None:
    consumer = opened(kubeconfig(server.url, program(tmp_path, TOKEN, "the-second-token")), commands=True)
    consumer.put(BLOCK, parcel(), None)
    assert (tmp_path / "count").read_text() == "1"

    server.tokens = {"the-second-token"}
    assert consumer.look(BLOCK) is not None
    assert (tmp_path / "count").read_text() == "2"

    server.tokens = {"another"}
    with pytest.raises(SignInRefused):
        consumer.look(BLOCK)
    assert (tmp_path / "count").read_text() == "3"
    consumer.close()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"exits": 3}, "ended with 3; run it by hand to see why"),
        (
            {"kind": "nothing"},
            "gave no credentials of client.authentication.k8s.io/v1; run it by hand: it must print",
        ),
    ],
)
def test_a_program_that_fails_is_said_without_its_output(server, tmp_path: Path, more, words) -> None:
    consumer = opened(kubeconfig(server.url, program(tmp_path, TOKEN, **more)), commands=True)
    with pytest.raises(PlatformError) as caught:
        consumer.look(BLOCK)

    assert words in caught.value.blame.message
    assert SECRET not in str(caught.value)


def test_what_a_program_says_is_believed_only_as_it_was_asked_for(server, tmp_path: Path) -> None:
    user = program(tmp_path, TOKEN)
    script = tmp_path / "plugin"
    for said in ("not JSON", json.dumps({"apiVersion": "another", "status": {"token": TOKEN}}), "[]"):
        script.write_text(f"#!/bin/sh\ncat <<'END'\n{said}\nEND\n")
        consumer = opened(kubeconfig(server.url, user), commands=True)
        with pytest.raises(PlatformError, match="gave no credentials of client"):
            consumer.look(BLOCK)

    assert server.seen == []


def test_a_program_that_never_ends_is_ended(server, tmp_path: Path) -> None:
    user = program(tmp_path, TOKEN)
    (tmp_path / "plugin").write_text("#!/bin/sh\nexec tail -f /dev/null\n")
    consumer = opened(kubeconfig(server.url, user), commands=True, timeout=0.2)
    with pytest.raises(PlatformError, match=r"gave no credentials within 0\.2 s; run it by hand"):
        consumer.look(BLOCK)


def test_a_program_may_stand_beside_the_kubeconfig_and_give_a_certificate(authority, tmp_path: Path) -> None:
    certificate, key = authority.client("ci")
    status = {"clientCertificateData": certificate, "clientKeyData": key, "token": TOKEN}
    said = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}
    (tmp_path / "said.json").write_text(json.dumps(said))
    (tmp_path / "plugin").write_text(f"#!/bin/sh\ncat {tmp_path}/said.json\n")
    (tmp_path / "plugin").chmod(0o700)
    user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "./plugin"}}
    ca = {"certificate-authority": "ca.pem"}
    (tmp_path / "ca.pem").write_text(authority.certificate)
    with KubernetesServer(authority.server("127.0.0.1")) as server:
        (tmp_path / "config").write_text(kubeconfig(server.url, user, **ca))
        consumer = Kubernetes().open(
            {}, around({"KUBECONFIG": str(tmp_path / "config"), "PATH": "/bin:/usr/bin"}, commands=True)
        )

        assert consumer.look(BLOCK) is None
        consumer.close()


def test_a_program_that_is_not_there_is_said(server, tmp_path: Path) -> None:
    user = program(tmp_path, TOKEN)
    user["exec"]["command"] = "no-such-program"
    consumer = opened(kubeconfig(server.url, user), commands=True)
    with pytest.raises(
        PlatformError, match="'no-such-program' cannot be run: No such file or directory; install it"
    ):
        consumer.look(BLOCK)


# --- certificates ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority():
    return Authority()


def test_the_clusters_own_authority_is_trusted_and_the_users_certificate_shown(
    authority, tmp_path: Path
) -> None:
    certificate, key = authority.client("ci")
    user = {
        "token": TOKEN,
        "client-certificate-data": base64.b64encode(certificate.encode()).decode(),
        "client-key-data": base64.b64encode(key.encode()).decode(),
    }
    ca = base64.b64encode(authority.certificate.encode()).decode()
    with KubernetesServer(authority.server("127.0.0.1")) as server:
        consumer = opened(kubeconfig(server.url, user, **{"certificate-authority-data": ca}))
        held = consumer.put(BLOCK, parcel(), None)

        assert consumer.look(BLOCK) == held
        consumer.close()


def test_without_the_users_certificate_or_with_another_authority_nothing_is_delivered(authority) -> None:
    ca = base64.b64encode(authority.certificate.encode()).decode()
    other = base64.b64encode(Authority().certificate.encode()).decode()
    with KubernetesServer(authority.server("127.0.0.1")) as server:
        bare = opened(kubeconfig(server.url, **{"certificate-authority-data": ca}))
        with pytest.raises(PlatformError):
            bare.look(BLOCK)
        for more in ({"certificate-authority-data": other}, {}):
            astray = opened(kubeconfig(server.url, **more))
            with pytest.raises(Unreachable, match="its certificate is not trusted"):
                astray.look(BLOCK)
            astray.close()
        bare.close()

        assert server.seen == []


def test_a_certificate_for_another_name_is_trusted_only_by_that_name(authority) -> None:
    certificate, key = authority.client("ci")
    user = {
        "token": TOKEN,
        "client-certificate-data": base64.b64encode(certificate.encode()).decode(),
        "client-key-data": base64.b64encode(key.encode()).decode(),
    }
    ca = {"certificate-authority-data": base64.b64encode(authority.certificate.encode()).decode()}
    with KubernetesServer(authority.server("kubernetes.default.svc")) as server:
        named = opened(kubeconfig(server.url, user, **ca, **{"tls-server-name": "kubernetes.default.svc"}))
        assert named.look(BLOCK) is None
        named.close()
        bare = opened(kubeconfig(server.url, user, **ca))
        with pytest.raises(Unreachable, match="its certificate is not trusted"):
            bare.look(BLOCK)
        bare.close()


def test_no_key_of_a_user_is_left_in_a_file(
    authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = authority.client("ci")
    modes: list[int] = []
    real = ssl.SSLContext.load_cert_chain

    def watched(context, *names):
        modes.extend(stat.S_IMODE(Path(name).stat().st_mode) for name in names)
        return real(context, *names)

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", watched)
    user = {
        "client-certificate-data": base64.b64encode(certificate.encode()).decode(),
        "client-key-data": base64.b64encode(key.encode()).decode(),
    }
    consumer = opened(kubeconfig("https://127.0.0.1:9", user))
    with pytest.raises(Unreachable):
        consumer.look(BLOCK)
    consumer.close()

    assert modes == [0o600, 0o600]
    assert list(tmp_path.iterdir()) == []


def test_in_a_pod_the_service_account_is_used_and_its_token_read_anew(
    authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_kubeconfig, "INSIDE", tmp_path)
    (tmp_path / "ca.crt").write_text(authority.certificate)
    (tmp_path / "token").write_text(TOKEN)
    with KubernetesServer(authority.server("127.0.0.1", clients=False)) as server:
        port = server.url.rpartition(":")[2]
        inside = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": port}
        for access in ({"in_cluster": True}, {}):
            consumer = Kubernetes().open(access, around({**inside, "HOME": str(tmp_path)}))
            assert consumer.look(BLOCK) is None
            server.tokens = {"rotated"}
            (tmp_path / "token").write_text("rotated\n")
            assert consumer.look(BLOCK) is None
            consumer.close()


def test_outside_a_pod_in_cluster_is_said_to_be_wrong() -> None:
    consumer = Kubernetes().open({"in_cluster": True}, around())
    with pytest.raises(
        PlatformError, match="in_cluster is true, and this does not run in a pod; elsewhere write"
    ):
        consumer.look(BLOCK)


# --- the official client --------------------------------------------------------------------------------


def test_the_server_of_these_tests_speaks_to_the_official_client_as_well(server, consumer) -> None:
    from kubernetes import client

    settings = client.Configuration(host=server.url)
    settings.api_key["BearerToken"] = f"Bearer {TOKEN}"
    held = consumer.put(BLOCK, parcel(), None)
    with client.ApiClient(settings) as api:
        secrets = client.CoreV1Api(api)
        read = secrets.read_namespaced_secret("apim", "apps").to_dict()
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "apim", "namespace": "apps"},
            "type": "Opaque",
            "data": {"url": base64.b64encode(b"https://theirs").decode()},
        }
        with pytest.raises(client.ApiException) as caught:
            secrets.patch_namespaced_secret(
                "apim", "apps", body, field_manager="helm", _content_type="application/apply-patch+yaml"
            )
        secrets.patch_namespaced_secret(
            "apim",
            "apps",
            body,
            field_manager="helm",
            force=True,
            _content_type="application/apply-patch+yaml",
        )

    assert {name: base64.b64decode(value).decode() for name, value in read["data"].items()} == NATIVE
    assert [one["manager"] for one in read["metadata"]["managed_fields"]] == ["btp-reconcile"]
    assert json.loads(str(caught.value.body))["details"]["causes"] == [
        {"reason": "FieldManagerConflict", "message": 'conflict with "btp-reconcile"', "field": ".data.url"}
    ]
    assert consumer.look(BLOCK) == replace(held, wrong="url was changed by helm")


def test_identities_survive_the_annotations() -> None:
    """What is written and what is read are inverse, for names as long as they may be."""
    from btp_reconcile.sinks.kubernetes import _identity, _noted

    long = Identity("o" * 63, "s" * 63, "delivery:" + "/".join(["x" * 63] * 4), KEY, 999_999_999)

    assert _identity(_noted(long, {"a": ""})) == long


def test_paths_in_the_text_of_a_kubeconfig_start_at_the_specs_folder(tmp_path: Path) -> None:
    text = "users:\n- name: ci\n  user: {tokenFile: token}\ncontexts: []\nclusters: []\n"
    world = around(folder=lambda path: str(tmp_path / path))
    access = Kubernetes().located({"kubeconfig": text}, "specs")

    config = _kubeconfig.read(text, "", world, str(access["folder"]))

    assert config.parts["users"]["ci"] == ({"tokenFile": "token"}, str(tmp_path / "specs"))


@pytest.mark.parametrize("name", ["/dev/zero", "large"])
def test_a_kubeconfig_that_has_no_end_is_not_read(tmp_path: Path, name: str) -> None:
    with (tmp_path / "large").open("wb") as large:
        large.truncate(load.MAX_BYTES + 1)
    world = around(
        folder=lambda path: str(tmp_path / path), read=lambda path: files.whole(path, load.MAX_BYTES)
    )

    with pytest.raises(SpecError) as caught:
        Kubernetes().open({"kubeconfig": name}, world)

    assert caught.value.problems[0].message.endswith("cannot be read")
