"""Two hundred secrets in every place that takes one, and more that brokers hand out: none of them is ever seen.

Not in what commands print, on a terminal or to a pipe, nor in logs, plan files, reports, arguments of programs, names of
hosts; and in files only where they were to be delivered, in the mode that was chosen. Any twelve characters of one
count, as they are, escaped, percent-encoded, in base64 or as digits.

The long runs are behind `RECONCILE_SOAK=1`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest

from btp_reconcile import cli, pipeline
from btp_reconcile.cli import planfile, talk, work
from btp_reconcile.core import credentials, diff, digest, fingerprint, plan, report, resolve, validate
from btp_reconcile.core.errors import HostRefused, PlatformError
from btp_reconcile.core.said import Confidential, line, scrubbed
from btp_reconcile.edges import apply, consumers, hosts, keyring, observe, verify
from btp_reconcile.edges.answers import Reply
from btp_reconcile.edges.client import Client
from btp_reconcile.edges.tokens import SignIn
from btp_reconcile.kinds import destination, instance, key
from btp_reconcile.sandbox import serve
from btp_reconcile.sandbox.fault_catalogue import CATALOGUE
from btp_reconcile.sinks import command, file, vault
from tests.commands import LIMIT, PROGRAM, terminal
from tests.edges.wire import Rig, Said, Tokens
from tests.secrets import echoes
from tests.secrets.planted import ALPHABETS, Ledger, forms, some
from tests.secrets.scene import GUID, PRODUCTION, Scene, opened, spec
from tests.secrets.watch import watched
from tests.sinks import bao
from tests.worlds import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SOAK = os.environ.get("RECONCILE_SOAK") == "1"
AUDIT = str(Path(__file__).parent / "secrets" / "audit")
APPLY = ("apply", "spec.yaml", "--yes", "--allow-commands")
DELIVERED = {
    "out/transport.json": "0600",
    "out/transport.env": "0640",
    "out/signed.json": "0600",
}
"""Files that keys are delivered to, and the mode that the spec chooses for each."""
OURS = ("in/", "secret-id", "kubeconfig.json", "destination.json", "processes.jsonl")
"""Files of these tests, which secrets come from, and what the delivered-to program wrote down about itself."""


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """Everything in its place, and nothing applied yet. Whatever a command makes, anybody might read."""
    folder = tmp_path / "scene"
    folder.mkdir(mode=0o700)
    before = os.umask(0)
    try:
        with opened(folder) as made:
            yield made
    finally:
        os.umask(before)


@pytest.fixture
def applied(scene: Scene) -> Scene:
    """The same after an apply that went well."""
    assert scene.run(*APPLY).code == 0, scene.ran[-1]
    return scene


def everything(scene: Scene, *, crashed: bool = False) -> dict[str, Any]:
    """All that got out of a scene, by where it was found; what each command said is told by how it was started.

    A command that ended as a defect said little, which proves nothing.
    """
    if not crashed:
        assert [str(one) for one in scene.ran if one.broken] == []
    out = {" ".join(one.arguments): leaks for one in scene.ran if (leaks := scene.leaks(one))}
    modes = {name: (mode, "") for name, (mode, _) in scene.files(*OURS).items()}
    wrong = {name: found for name, found in modes.items() if DELIVERED.get(name) != found[0]}
    return out | wrong


# --- what is looked for ---------------------------------------------------------------------------------


@pytest.mark.parametrize("alphabet", ALPHABETS)
def test_a_run_of_a_secret_is_found_in_every_form(alphabet: str) -> None:
    ledger = Ledger()
    (secret,) = some(f"found {alphabet}", 1, (alphabet,))
    ledger.add("it", secret)

    assert [form for form in forms(secret) if len(form) >= 24 and not ledger.found(f"a{form[5:20]}b")] == []
    assert ledger.found(f"a{secret[5:16]}b") == {}


def test_there_are_two_hundred_secrets_and_more_that_brokers_hand_out(applied: Scene) -> None:
    names = list(applied.ledger.secrets.values())

    assert (len(set(applied.ledger.secrets)) >= 200, names.count("issued") >= 10) == (True, True)
    assert [one for one in applied.ledger.secrets if not applied.ledger.found(f"x{one}y")] == []


# --- commands that go well ------------------------------------------------------------------------------

CALLS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("validate", "plan", "drift", "keys", "verify", "show", "graph"), ("spec.yaml",)),
    "init": ("specs/first.yaml",),
    "kinds": ("destination",),
    "catalogue": ("afc",),
    "completion": ("bash",),
    "export": ("two", "spec.yaml"),
    "report merge": ("shard.json",),
    "sandbox faults list": (),
    "sandbox reset": (),
    "schema": (),
}
"""Commands that only look, or have nothing to do with a spec."""
ACTS = {"apply", "rotate", "sandbox start"}
TYPED = {"sandbox advance", "sandbox faults add", "sandbox faults clear"}
"""What these say was typed by whoever started them."""


def commands(group: click.Command = cli.cli, path: str = "") -> dict[str, click.Command]:
    """Every command there is, by its words."""
    if not isinstance(group, click.Group):
        return {path: group}
    found: dict[str, click.Command] = {}
    for name, one in group.commands.items():
        found |= commands(one, f"{path} {name}".strip())
    return found


def formats(name: str) -> tuple[str, ...]:
    """The formats of a command's result; none, if there is nothing to choose."""
    choices = (one.type for one in commands()[name].params if one.name == "format_")
    return next((tuple(map(str, one.choices)) for one in choices if isinstance(one, click.Choice)), ())


def calls() -> Iterator[tuple[str, ...]]:
    """Each of them, in each format, with each form of the log."""
    for name, words in CALLS.items():
        for number, format_ in enumerate(formats(name) or ("",)):
            more = ("--format", format_) if format_ else ()
            logged = any(one.name == "log_format" for one in commands()[name].params)
            yield (
                *name.split(),
                *words,
                *more,
                *(("--log-format", ("text", "json")[number % 2]) if logged else ()),
            )


def test_every_command_is_looked_at_here() -> None:
    assert set(commands()) - TYPED - ACTS - set(CALLS) == set()


def test_no_command_that_goes_well_shows_a_secret(scene: Scene) -> None:
    scene.run("plan", "spec.yaml")
    assert scene.run("plan", "spec.yaml", "--out", "plan.json", "--format", "json").code == 0
    for format_ in formats("show"):
        assert scene.run("show", "plan.json", "--format", format_).code == 0, scene.ran[-1]
    assert scene.run("apply", "plan.json", "--allow-commands", "--verify", "--log-format", "json").code == 0
    assert scene.run("plan", "spec.yaml", "--shard", "1/1", "--out", "shard.json").code == 0, scene.ran[-1]
    for one in calls():
        plans_only = one[0] == "show" and one[-1] not in {"text", "json"}
        assert scene.run(*one).code in ({64} if plans_only else {0, 2}), scene.ran[-1]
    scene.write("spec.yaml", spec(1))
    for name in ("plan", "drift"):
        for format_ in formats(name):
            assert scene.run(name, "spec.yaml", "--format", format_).code in {0, 2}, scene.ran[-1]
    files = [one.opts[0] for one in commands()["drift"].params if one.name in {"metrics", "write_baseline"}]
    scene.run("drift", "spec.yaml", *(word for one in files for word in (one, f"made-by{one}.json")))
    for number, format_ in enumerate(formats("apply")):
        scene.write("spec.yaml", spec(number + 1))
        assert scene.run(*APPLY, "--format", format_, "--verify").code in {0, 5}, scene.ran[-1]
    rotated = ("key:two/apim/transport", "key:two/apim/signed", "spec.yaml")
    assert scene.run("rotate", *rotated, "--yes", "--allow-commands").code == 0, scene.ran[-1]
    assert scene.run("rotate", "--due", "spec.yaml", "--yes", "--allow-commands").code == 0, scene.ran[-1]

    assert everything(scene) == {}
    assert {name: f"{(scene.folder / name).stat().st_mode & 0o777:04o}" for name in DELIVERED} == DELIVERED
    assert f"{(scene.folder / 'plan.json').stat().st_mode & 0o777:04o}" == "0600"


def test_a_served_sandbox_shows_nothing_of_the_machine_it_is_served_on(scene: Scene) -> None:
    """It does print its own credentials: they open nothing else, and people need them."""
    own = Ledger()
    for name, text in scene.environment.items():
        if name.startswith(("PLANTED", "PROPERTY", "UNUSED", *PRODUCTION)):
            own.add(name, text)
    environment = {
        **scene.environment,
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join([AUDIT, str(ROOT)]),
    }
    environment["RECONCILE_SANDBOX"] = str(scene.folder / "state" / "world.json")
    with subprocess.Popen(
        [*PROGRAM, "sandbox", "start", "spec.yaml", "--port", "0"],
        cwd=scene.folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as running:
        assert running.stdout is not None
        said = ""
        while "BTP_SERVICE_MANAGER_KEY" not in said and (heard := running.stdout.readline()):
            said += heard
        running.terminate()
        said += running.stdout.read()

    assert ("BTP_SERVICE_MANAGER_KEY" in said, own.found(said)) == (True, {})
    assert f"{(scene.folder / 'state' / 'world.json').stat().st_mode & 0o777:04o}" == "0600"


def test_what_is_written_on_the_way_to_a_file_is_as_private_as_the_file(scene: Scene) -> None:
    with watched(scene.ledger) as watch:
        assert scene.run(*APPLY, "--verify").code == 0, scene.ran[-1]
        assert scene.run("rotate", "key:two/apim/signed", "spec.yaml", "--yes").code == 0, scene.ran[-1]
    modes = {mode for mode, _ in watch.kept.values()}
    inside = [name for name in watch.kept if name.startswith(f"{scene.folder}/out/")]

    assert (modes, len(inside) >= 4) == ({"0600", "0640"}, True)
    assert [
        name for name, (mode, _) in watch.kept.items() if mode == "0640" and "transport.env" not in name
    ] == []


def test_the_program_that_a_key_is_delivered_to_gets_it_on_standard_input_alone(applied: Scene) -> None:
    seen = [json.loads(one) for one in (applied.folder / "processes.jsonl").read_text().splitlines()]
    leaks = [{name: set(applied.ledger.found(text)) for name, text in one.items()} for one in seen]

    assert leaks == [{"cmdline": set(), "environ": {"CARRIED"}, "parent": set()}]


# --- platforms, gateways and consumers that repeat what they were sent ----------------------------------

SHARES = {"token": 0.5, "read": 0.2, "details": 0.8, "write": 0.6, "all": 0.15}


def repeated(scene: Scene, seed: int, which: str) -> None:
    """Plan, apply and verify, while answers repeat what was sent."""
    if seed % 2:
        scene.run(*APPLY)
        scene.write("spec.yaml", spec(1))
    if which in {"write", "all"}:
        for name, server in scene.servers.items():
            server.answer = echoes.consumer(f"{seed} {which} {name}", 0.5, server.answer)
    for verb in (
        ("plan", "spec.yaml", "--out", "plan.json"),
        (*APPLY, "--verify"),
        ("verify", "spec.yaml"),
        ("rotate", "key:two/apim/transport", "spec.yaml", "--yes"),
    ):
        changed = echoes.echoing(f"{seed} {which} {verb[0]}", which, SHARES[which])
        known = formats(verb[0])
        log = ("json", "text")[seed % 2]
        scene.run(
            *verb, "--format", known[(seed + len(which)) % len(known)], "--log-format", log, changed=changed
        )


@pytest.mark.parametrize("which", echoes.PARTS)
@pytest.mark.parametrize("seed", range(2))
def test_an_answer_that_repeats_what_was_sent_gives_nothing_away(scene: Scene, seed: int, which: str) -> None:
    repeated(scene, seed, which)

    assert everything(scene) == {}


@pytest.mark.soak
@pytest.mark.skipif(not SOAK, reason="a long run: RECONCILE_SOAK=1")
@pytest.mark.parametrize("which", echoes.PARTS)
@pytest.mark.parametrize("seed", range(2, 42))
def test_no_answer_that_repeats_what_was_sent_gives_anything_away(
    scene: Scene, seed: int, which: str
) -> None:
    repeated(scene, seed, which)

    assert everything(scene) == {}


FAULTS = sorted(set(CATALOGUE) - {"huge"})


def broken(scene: Scene, faults: list[str]) -> None:
    """A run for each fault, begun in a world that an earlier one left half made."""
    for name in faults:
        match: dict[str, str] = {} if CATALOGUE[name].of == "operation" else {"host": "*"}
        number = scene.sandbox.faults.add({"do": name, "match": match, "every": 7, "times": 3})
        scene.run(*APPLY, "--verify", "--timeout", "10m")
        scene.sandbox.faults.remove([number])


def test_no_fault_of_the_platform_gives_anything_away(scene: Scene) -> None:
    broken(scene, FAULTS[::5])

    assert everything(scene) == {}


@pytest.mark.soak
@pytest.mark.skipif(not SOAK, reason="a long run: RECONCILE_SOAK=1")
@pytest.mark.parametrize("fault", FAULTS)
def test_none_of_the_faults_gives_anything_away(scene: Scene, fault: str) -> None:
    for change in range(3):
        scene.write("spec.yaml", spec(change))
        broken(scene, [fault])

    assert everything(scene) == {}


# --- texts: the smallest cases of what got out ----------------------------------------------------------

SECRET = 'kX3+$="|\\u\nW9/äQ7-zR%5&mN<8'


def test_no_run_of_a_secret_is_left_in_what_others_say() -> None:
    ledger = Ledger()
    ledger.add("it", SECRET)
    said = [
        scrubbed(f"no: {form[at : at + 15]} was wrong", [SECRET])
        for form in forms(SECRET)
        for at in (0, 3, 9)
    ]

    assert [one for one in said if ledger.found(one)] == []


def test_words_around_a_secret_stay_as_they_are() -> None:
    said = scrubbed(f"the value {SECRET} of p1 is wrong", [SECRET])

    assert said == "the value *** of p1 is wrong"


def test_a_short_secret_is_hidden_in_its_forms_and_leaves_words_alone() -> None:
    assert scrubbed('a p"1ss b p\\"1ss c p%221ss', ['p"1ss']) == "a *** b *** c ***"


def test_a_secret_with_line_breaks_is_known_again_on_one_line() -> None:
    secret = "first-half-of-it\nsecond-half-of-it"

    assert Confidential({secret: "<it>"}).without(line(f"no: {secret}.")) == "no: <it>."


TOKEN = "opaque-0f3b7c29e1d84a56b7f0"


@pytest.mark.parametrize(
    "said",
    [
        Said(400, {"errors": [{"title": "no", "detail": f"Bearer {TOKEN}"}]}),
        Said(400, {"errors": [{"title": "no", "detail": f"Bearer {TOKEN[4:20]} and more"}]}),
        Said(400, {"error": {"code": TOKEN, "message": TOKEN.encode().hex()}}, {"X-CorrelationID": TOKEN}),
        Said(302, "", {"Location": f"https://login.example/{'a' * 170}{TOKEN}"}),
        Said(302, "", {"Location": f"https://{TOKEN}.example/"}),
        Said(200, "no", {"Content-Type": f"text/{TOKEN}"}),
        Said(200, "7", {"Content-Type": TOKEN}),
        Said(500, "<html>", {"Content-Type": f"text/{TOKEN}"}),
    ],
)
def test_a_token_that_a_service_repeats_is_taken_out(said: Said) -> None:
    rig = Rig(said, attempts=1)
    rig.tokens = Tokens(TOKEN)
    ledger = Ledger()
    ledger.add("token", TOKEN)
    with pytest.raises(PlatformError) as caught:
        rig.door().get("/v3/spaces")

    assert (len(rig.sent), ledger.found(f"{caught.value} {caught.value.blame!r}")) == (1, {})


def test_an_answer_is_printed_without_its_body() -> None:
    reply = Reply(200, {"X": SECRET}, SECRET.encode(), secrets=(SECRET,))

    assert repr(reply) == "Reply(status=200, attempts=1)"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (f"https://evil.example/{TOKEN}/oauth/token", "https://evil.example"),
        (f"https://user:{TOKEN}@evil.example\\{TOKEN}", "https://evil.example"),
        (TOKEN, "what is given as its address"),
    ],
)
def test_an_address_that_gets_no_credential_is_named_by_its_host_alone(given: str, shown: str) -> None:
    with pytest.raises(HostRefused) as caught:
        hosts.check("cloud_foundry", given, ())

    assert str(caught.value).startswith(f"cloud_foundry: no credential is sent to {shown}: ")
    assert (TOKEN in str(caught.value), TOKEN in repr(caught.value.blame)) == (False, False)


def test_an_error_of_the_system_without_its_own_words_is_a_defect_like_any_other(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = talk.ended(OSError(SECRET))
    said = capsys.readouterr().err

    assert (code, "this is a defect of reconcile: OSError" in said, SECRET in said) == (
        report.FAILED,
        True,
        False,
    )


# --- consumers that fail --------------------------------------------------------------------------------


def test_a_program_that_fails_and_shows_what_it_was_given_is_not_quoted(scene: Scene) -> None:
    scene.write("ends-with", "1")
    assert scene.run(*APPLY).code == 1
    said = scene.ran[-1].out

    assert "what it wrote" in said
    assert everything(scene) == {}


def test_a_folder_that_cannot_be_written_leaves_no_secret_behind(scene: Scene) -> None:
    outside = scene.folder / "out"
    outside.write_text("a file in the place of a folder", encoding="utf-8")
    assert scene.run(*APPLY).code == 1

    assert everything(scene) == {}


@pytest.mark.parametrize("limit", [0, 40, 700])
def test_a_full_disk_leaves_no_secret_behind(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    """The system refuses to make a file larger than this, as it refuses to fill a disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    written = file._Spot._write

    def scarce(self: Any, name: str, content: bytes, mode: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            written(self, name, content, mode)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    monkeypatch.setattr(file._Spot, "_write", scarce)
    with watched(scene.ledger) as watch:
        assert scene.run(*APPLY).code == 1

    assert "File too large" in scene.ran[-1].out
    assert everything(scene) == {}
    assert {mode for mode, _ in watch.kept.values()} <= {"0600", "0640"}


@pytest.mark.parametrize("sealed", [False, True], ids=["conflict", "sealed"])
def test_a_real_vault_that_does_not_take_a_key_gives_nothing_away(
    scene: Scene, tmp_path: Path, sealed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with bao.served(tmp_path) as server:
        server.policy("all", 'path "secret/*" { capabilities = ["create", "read", "update"] }')
        token = server.token("all")
        scene.ledger.add("BAO_TOKEN", token)
        own = {"BAO_TOKEN": token, "VAULT_AT": server.address, "VAULT_CACERT": server.ca_file}
        approle = '{role_id: "${env:VAULT_ROLE_ID}", secret_id: "${file:secret-id}"}'
        assert approle in spec()
        scene.write("spec.yaml", spec().replace(f"approle: {approle}", 'token: "${env:BAO_TOKEN}"'))
        assert scene.run("plan", "spec.yaml", env=own).code == 0, scene.ran[-1]
        written = vault._Vault._write

        def disturbed(self: Any, *given: Any) -> Any:
            """Somebody is faster, or closes the door, at the last moment."""
            if sealed:
                server.ask("PUT", "sys/seal")
            else:
                server.ask(
                    "POST", "secret/data/apim/transport", {"data": {"theirs": scene.environment["UNUSED_1"]}}
                )
            return written(self, *given)

        monkeypatch.setattr(vault._Vault, "_write", disturbed)
        scene.run(*APPLY, "--format", "json", env=own)

    assert ("Vault is sealed" if sealed else "meanwhile") in scene.ran[-1].out
    assert everything(scene) == {}


# --- what was changed by hand ---------------------------------------------------------------------------


def test_what_others_wrote_into_a_destination_is_not_shown(applied: Scene) -> None:
    """What stands in fields of secrets, and in fields that nobody of ours knows, may be anything."""
    with applied.sandbox.hold() as world:
        (found,) = world.table("destinations").values()
        for name in ("APIManagement", "orders"):
            properties = found[name]["properties"]
            for number, field in enumerate([*properties, "Theirs.Password", "theirs.api.key"]):
                if any(word in field.lower() for word in ("secret", "password", "hidden", "theirs")):
                    properties[field] = applied.environment[f"UNUSED_{number}"]
    for verb in ("plan", "drift"):
        for format_ in formats(verb):
            assert applied.run(verb, "spec.yaml", "--format", format_).code in {0, 2}, applied.ran[-1]
    said = applied.ran[-1].out
    assert applied.run(*APPLY).code == 0, applied.ran[-1]

    assert "orders" in said
    assert everything(applied) == {}


# --- inputs that are wrong ------------------------------------------------------------------------------


def wrong(scene: Scene) -> Iterator[dict[str, str]]:
    """Variables that hold something else than they should: cut, doubled, quoted, of another shape."""
    central = scene.environment["BTP_CIS_CENTRAL_KEY"]
    data = json.loads(central)
    secret = data["uaa"]["clientsecret"]
    for text in (
        central[: len(central) // 2],
        central + central,
        json.dumps(central),
        secret,
        json.dumps(data["uaa"]),
        json.dumps({**data, "uaa": {**data["uaa"], "clientsecret": [secret]}}),
        json.dumps({**data, "uaa": {**data["uaa"], "clientsecret": secret + "\r\nX: y"}}),
        json.dumps({**data, "uaa": {**data["uaa"], "url": f"https://evil.example/{secret}"}}),
        json.dumps({**data, "uaa": {**data["uaa"], "certificate": secret, "key": secret}}),
        json.dumps({secret: secret}),
        f"{secret}.json",
    ):
        yield {"BTP_CIS_CENTRAL_KEY": text}
    for name in ("VAULT_ROLE_ID", "GITHUB_PLANTED", "GITLAB_PLANTED", "CF_PASSWORD", "FINGERPRINT_KEY"):
        yield {name: ""}
        yield {name: scene.environment[name] + "\r\nX-Other: y"}
        yield {name: scene.environment[name] + "\udcff"}
    for name in ("VAULT_AT", "GITHUB_AT", "GITLAB_AT", "FOUNDRY_AT"):
        yield {name: scene.environment["UNUSED_0"]}
        yield {
            name: f"https://user:{scene.environment['UNUSED_2']}@127.0.0.1:1/{scene.environment['UNUSED_0']}"
        }


def test_no_input_that_is_wrong_is_quoted(scene: Scene) -> None:
    for environment in wrong(scene):
        scene.run("plan", "spec.yaml", env=environment)
    kubeconfig = (scene.folder / "kubeconfig.json").read_text(encoding="utf-8")
    for name, text in (
        ("kubeconfig.json", kubeconfig[:-30]),
        ("kubeconfig.json", kubeconfig.replace("{", "[", 1)),
        ("kubeconfig.json", kubeconfig.replace("http://", "https://evil.example/")),
        ("destination.json", "{" + (scene.folder / "destination.json").read_text(encoding="utf-8")),
        ("secret-id", ""),
        ("in/0.txt", ""),
    ):
        before = (scene.folder / name).read_text(encoding="utf-8")
        scene.write(name, text)
        scene.run("plan", "spec.yaml", "--format", "json")
        scene.write(name, before)
    (scene.folder / "in/1.txt").write_bytes(b"\xff" + scene.environment["UNUSED_0"].encode())
    scene.run("plan", "spec.yaml")
    (scene.folder / "in/1.txt").unlink()
    scene.run("plan", "spec.yaml")
    (scene.folder / "in/1.txt").mkdir()
    scene.run("plan", "spec.yaml")

    assert everything(scene) == {}


def test_a_secret_that_was_written_into_the_spec_is_not_repeated(scene: Scene) -> None:
    secret = scene.environment["UNUSED_0"]
    scene.write("own.yaml", spec().replace('"${env:FINGERPRINT_KEY}"', f'"{secret}"'))
    scene.write(
        "keyed.yaml",
        spec().replace('"${env:BTP_CIS_CENTRAL_KEY}"', f"'{scene.environment['BTP_CIS_CENTRAL_KEY']}'"),
    )
    for name in ("own.yaml", "keyed.yaml"):
        for verb in ("validate", "plan", "show"):
            assert scene.run(verb, name).code == report.SPEC, scene.ran[-1]
            assert scene.run(verb, name, "--format", "json").code == report.SPEC

    assert {" ".join(one.arguments): leaks for one in scene.ran if (leaks := scene.leaks(one))} == {}


# --- crashes --------------------------------------------------------------------------------------------

PLACES: tuple[tuple[Any, str], ...] = (
    (validate, "check"),
    (resolve, "resources"),
    (observe, "facts"),
    (diff, "compare"),
    (plan, "arrange"),
    (report, "plan_json"),
    (planfile, "write"),
    (work, "hidden"),
    (Client, "exchange"),
    (Client, "post_form"),
    (SignIn, "_read"),
    (report, "report_json"),
    (talk, "data"),
    (fingerprint, "write"),
    (digest, "plain"),
    (digest, "hidden"),
    (credentials, "read"),
    (credentials, "shaped"),
    (keyring.Keyring, "parcel"),
    (keyring.Keyring, "note"),
    (consumers.Consumers, "door"),
    (apply.Run, "run"),
    (verify.Verifier, "check"),
    (key.CloudFoundryKeys, "credentials"),
    (key.CloudFoundryKeys, "create"),
    (instance.CloudFoundryInstances, "create"),
    (destination.Destinations, "create"),
    (file._Spot, "_write"),
    (command._Commands, "_start"),
)
"""Where something unexpected happens, at its next call."""
PLANNING = 11
"""The first so many are met while planning."""


def unexpected(number: int, secret: str) -> Exception:
    """An exception with a secret in it, wherever exceptions keep what they are about."""
    kinds: tuple[Exception, ...] = (
        RuntimeError(secret),
        KeyError(secret),
        UnicodeDecodeError("utf-8", secret.encode(), 0, 1, secret),
        json.JSONDecodeError(secret, secret, 0),
        subprocess.CalledProcessError(1, ["program", secret], secret),
        AttributeError(secret, name=secret, obj=secret),
        OSError(secret),
        TypeError({"client_secret": secret}),
        ExceptionGroup(secret, [ValueError(secret)]),
        AssertionError(secret),
    )
    error = kinds[number % len(kinds)]
    error.__cause__ = ValueError(secret)
    error.add_note(secret)
    return error


def crashed(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, places: list[tuple[int, tuple[Any, str]]]
) -> list[str]:
    """A run in an empty world for each place; gives those at which nothing happened."""
    missed = []
    for number, (place, name) in places:
        happened: list[str] = []

        def fail(*_: Any, number: int = number, happened: list[str] = happened, **__: Any) -> Any:
            held = scene.environment[f"UNUSED_{number}"]
            happened.append(held)
            raise unexpected(number, held)

        scene.anew()
        with monkeypatch.context() as patched:
            patched.setattr(place, name, fail)
            verb = ("plan", "spec.yaml", "--out", "plan.json") if number < PLANNING else (*APPLY, "--verify")
            scene.run(*verb, "--format", ("json", "text")[number % 2])
        if not happened:
            missed.append(name)
    return missed


def test_a_crash_is_told_without_what_it_was_about(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    missed = crashed(scene, monkeypatch, list(enumerate(PLACES))[::3])

    assert (everything(scene, crashed=True), missed) == ({}, [])
    assert {one.code for one in scene.ran} <= {0, 1, 5}


@pytest.mark.soak
@pytest.mark.skipif(not SOAK, reason="a long run: RECONCILE_SOAK=1")
def test_no_crash_is_told_with_what_it_was_about(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    missed = crashed(scene, monkeypatch, list(enumerate(PLACES)))

    assert (everything(scene, crashed=True), missed) == ({}, [])
    assert {one.code for one in scene.ran} <= {0, 1, 5}


def test_the_trace_of_a_defect_names_types_and_places_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECONCILE_DEBUG", "1")
    try:
        try:
            raise KeyError(SECRET)
        except KeyError as cause:
            raise RuntimeError(SECRET) from cause
    except RuntimeError as error:
        code = talk.ended(error)
    said = capsys.readouterr().err
    ledger = Ledger()
    ledger.add("it", SECRET)

    assert (code, ledger.found(said)) == (report.FAILED, {})
    assert ["builtins.KeyError" in said, "builtins.RuntimeError" in said, "test_secrets.py" in said] == [
        True
    ] * 3


# --- values ---------------------------------------------------------------------------------------------


def nouns(value: Any, depth: int = 12) -> Iterator[Any]:
    """A value and everything of ours inside it."""
    yield value
    if depth and dataclasses.is_dataclass(value):
        for one in dataclasses.fields(value):
            yield from nouns(getattr(value, one.name), depth - 1)
    elif depth and isinstance(value, dict):
        for item in value.values():
            yield from nouns(item, depth - 1)
    elif depth and isinstance(value, (list, tuple)):
        for item in value:
            yield from nouns(item, depth - 1)


def test_no_value_of_the_line_prints_or_pickles_a_secret(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[Any] = []
    inner: list[Any] = []
    for place, name in (
        (pipeline, "make_plan"),
        (pipeline, "prepare"),
        (pipeline, "carry_out"),
        (pipeline, "verify"),
    ):
        real = getattr(pipeline, name)

        def kept(*given: Any, real: Any = real, **more: Any) -> Any:
            found = real(*given, **more)
            held.extend([*given, found])
            return found

        monkeypatch.setattr(place, name, kept)
    for owner, name in (
        (Client, "exchange"),
        (SignIn, "_ask"),
        (keyring.Keyring, "parcel"),
        (keyring.Keyring, "credentials"),
    ):
        method = getattr(owner, name)

        def asked(self: Any, *given: Any, method: Any = method) -> Any:
            found = method(self, *given)
            inner.extend([self, *given, found])
            return found

        monkeypatch.setattr(owner, name, asked)
    assert scene.run(*APPLY, "--verify").code == 0, scene.ran[-1]
    values = distinct(one for whole in held if not isinstance(whole, pipeline.World) for one in nouns(whole))
    shown = distinct([*values, *(one for whole in inner for one in nouns(whole))])
    leaks = {type(one).__name__: found for one in shown if (found := scene.ledger.found(repr(one)))}
    pickled = {
        type(one).__name__: found for one in values if (found := scene.ledger.found(pickled_or_not(one)))
    }

    assert (leaks, pickled) == ({}, {})
    assert {"Planned", "Wanted", "Facts", "Plan", "Report", "Verdict", "Call", "Reply"} <= {
        type(one).__name__ for one in shown
    }


def distinct(values: Iterable[Any]) -> list[Any]:
    """Ours among these, each once."""
    return list({id(one): one for one in values if ours(one)}.values())


def ours(value: Any) -> bool:
    """Is it a value of this program, and not one of the language's?"""
    return type(value).__module__.startswith("btp_reconcile") and not isinstance(value, type)


def pickled_or_not(value: Any) -> bytes:
    """A value as bytes; nothing, where it refuses."""
    try:
        return pickle.dumps(value)
    except Exception:  # noqa: BLE001 - refused is what it should be
        return b""


# --- no way out -----------------------------------------------------------------------------------------


def production(scene: Scene) -> dict[str, str]:
    """What is set where people really work: hosts that exist, and what opens them."""
    key = {
        "clientid": "sb-real",
        "clientsecret": scene.environment["UNUSED_0"],
        "url": "https://acme.authentication.eu10.hana.ondemand.com",
    }
    real = {
        "BTP_CIS_CENTRAL_KEY": json.dumps(
            {
                "uaa": key,
                "endpoints": {
                    "entitlements_service_url": "https://entitlements-service.cfapps.eu10.hana.ondemand.com",
                    "accounts_service_url": "https://accounts-service.cfapps.eu10.hana.ondemand.com",
                },
            }
        ),
        "BTP_SERVICE_MANAGER_KEY": json.dumps(
            {**key, "sm_url": "https://service-manager.cfapps.eu10.hana.ondemand.com"}
        ),
        "BTP_DESTINATION_KEY": json.dumps(
            {**key, "uri": "https://destination-configuration.cfapps.eu10.hana.ondemand.com"}
        ),
        "CF_USER": "someone@example.com",
        "FOUNDRY_AT": "https://api.cf.eu10.hana.ondemand.com",
        "CF_HOME": str(scene.folder),
        "VAULT_AT": "https://vault.example.com:8200",
        "VAULT_ADDR": "https://vault.example.com:8200",
        "GITHUB_AT": "https://api.github.com",
        "GITHUB_API_URL": "https://api.github.com",
        "GITLAB_AT": "https://gitlab.com",
        "CI_API_V4_URL": "https://gitlab.com/api/v4",
        "KUBERNETES_SERVICE_HOST": "10.0.0.1",
        "KUBERNETES_SERVICE_PORT": "443",
        "HTTPS_PROXY": "http://proxy.example.com:3128",
        "HTTP_PROXY": "http://proxy.example.com:3128",
    }
    return {**scene.environment, **real}


REHEARSED = (
    ("plan", "spec.yaml", "--sandbox", "--out", "rehearsed.json"),
    ("apply", "spec.yaml", "--sandbox", "--yes", "--allow-commands", "--verify"),
    ("drift", "spec.yaml", "--sandbox", "--format", "json"),
    ("keys", "spec.yaml", "--sandbox"),
    ("verify", "spec.yaml", "--sandbox", "--log-format", "json"),
    ("export", "two", "spec.yaml", "--sandbox"),
    ("rotate", "key:two/apim/transport", "spec.yaml", "--sandbox", "--yes"),
    ("apply", "rehearsed.json", "--sandbox"),
    ("show", "rehearsed.json"),
    ("plan", "spec.yaml", "--sandbox", "--sandbox-deliver", "file", "--format", "json"),
)


OFFLINE = tuple(
    (*name.split(), *words)
    for name, words in CALLS.items()
    if name not in {"plan", "drift", "keys", "verify", "export"}
)


def test_a_rehearsal_reaches_for_no_host_at_all(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.chdir(scene.folder)
    for name, text in production(scene).items():
        monkeypatch.setenv(name, text)
    monkeypatch.setenv("RECONCILE_SANDBOX", str(scene.folder / "state" / "world.json"))
    codes, said = [], ""
    for arguments in (*REHEARSED, *OFFLINE):
        with watched() as watch:
            codes.append(cli.run(arguments))
        captured = capfd.readouterr()
        said += captured.out + captured.err

        assert (arguments, watch.asked) == (arguments, [])
    scratch = scene.folder / "state" / "world.json.files"

    assert codes[:7] == [0] * 7
    assert scene.ledger.found(said) == {}
    assert [name for name in scene.files(*OURS) if not name.startswith("state/")] == []
    assert {f"{one.stat().st_mode & 0o777:04o}" for one in scratch.rglob("*.json") if one.is_file()} <= {
        "0600"
    }
    assert {server.asked == [] for server in scene.servers.values()} == {True}


@pytest.mark.parametrize("arguments", [REHEARSED[1], REHEARSED[0]], ids=["apply", "plan"])
def test_a_rehearsal_in_a_process_of_its_own_reaches_for_no_host(
    scene: Scene, arguments: tuple[str, ...]
) -> None:
    audited = scene.folder / "audited"
    environment = {
        **production(scene),
        **{name: os.environ[name] for name in ("PATH", "HOME")},
        "PYTHONPATH": os.pathsep.join([AUDIT, str(ROOT)]),
        "AUDITED": str(audited),
        "RECONCILE_SANDBOX": str(scene.folder / "state" / "world.json"),
    }
    ended = subprocess.run(
        [*PROGRAM, *arguments],
        cwd=scene.folder,
        env=environment,
        capture_output=True,
        timeout=LIMIT,
        check=False,
    )

    assert (ended.returncode, audited.exists()) == (0, False), ended.stderr.decode()
    assert scene.ledger.found(ended.stdout + ended.stderr) == {}


def test_the_audit_of_a_process_sees_whatever_it_reaches_for(tmp_path: Path) -> None:
    audited = tmp_path / "audited"
    script = (
        "import socket, contextlib\n"
        "with contextlib.suppress(AssertionError): socket.getaddrinfo('host.example', 443)\n"
        "with contextlib.suppress(AssertionError): socket.create_connection(('10.0.0.1', 443), 1)\n"
        "with contextlib.suppress(OSError): socket.create_connection(('127.0.0.1', 1), 1)\n"
    )
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": AUDIT, "AUDITED": str(audited)}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=LIMIT)
    seen = audited.read_text(encoding="utf-8").splitlines()

    assert [one for one in seen if "getaddrinfo" not in one] == [
        "refused ('host.example', 0)",
        "refused ('10.0.0.1', 0)",
        "socket.connect ('127.0.0.1', 1)",
    ]


@dataclasses.dataclass
class Served:
    """A scene whose platform is a server on this machine."""

    scene: Scene
    environment: dict[str, str]
    port: int


@pytest.fixture
def served(applied: Scene) -> Iterator[Served]:
    with serve(applied.sandbox, port=0) as running:
        access = running.access()
        applied.write("destination.json", json.dumps(access["destination"][GUID]))
        foundry = access["cloud_foundry"]["eu10"]
        environment = {
            **applied.environment,
            **{name: os.environ[name] for name in ("PATH", "HOME")},
            "BTP_CIS_CENTRAL_KEY": json.dumps(access["central"]),
            "BTP_SERVICE_MANAGER_KEY": json.dumps(access["service_manager"][GUID]),
            "FOUNDRY_AT": foundry["api"],
            "CF_USER": foundry["username"],
            "CF_PASSWORD": foundry["password"],
            "PYTHONPATH": os.pathsep.join([AUDIT, str(ROOT)]),
            "AUDITED": str(applied.folder / "audited"),
        }
        yield Served(applied, environment, int(running.url.rpartition(":")[2]))


def test_only_the_platform_and_the_consumers_are_asked(served: Served) -> None:
    scene = served.scene
    for arguments in (
        ("plan", "spec.yaml"),
        ("drift", "spec.yaml"),
        ("keys", "spec.yaml", "--format", "json"),
    ):
        ended = subprocess.run(
            [*PROGRAM, *arguments],
            cwd=scene.folder,
            env=served.environment,
            capture_output=True,
            timeout=LIMIT,
            check=False,
        )
        assert ended.returncode in {0, 2}, ended.stderr.decode()
        assert scene.ledger.found(ended.stdout + ended.stderr) == {}
    asked = {
        one
        for one in (scene.folder / "audited").read_text(encoding="utf-8").splitlines()
        if "getaddrinfo" not in one
    }
    ports = {served.port, *(int(one.url.rpartition(":")[2]) for one in scene.servers.values())}

    assert asked == {f"socket.connect ('127.0.0.1', {port})" for port in ports}


def test_a_terminal_shows_no_secret(served: Served) -> None:
    scene = served.scene
    scene.write("spec.yaml", spec(1))
    for arguments in (
        ("plan", "spec.yaml"),
        ("verify", "spec.yaml"),
        ("apply", "spec.yaml", "--format", "json"),
    ):
        with terminal(scene.folder, *arguments, env=served.environment) as screen:
            if arguments[0] == "apply":
                screen.until("[y/N]")
                screen.type("n\n")
            code = screen.end()
            assert code in {0, 1, 5}, screen.shown
            assert scene.ledger.found(screen.shown) == {}


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_ended_from_outside_leaves_no_secret_that_others_can_read(
    served: Served, how: signal.Signals
) -> None:
    """The program that it delivers to stops it from outside, in the middle of its deliveries."""
    scene = served.scene
    shutil.rmtree(scene.folder / "out")
    scene.write("carrier.py", f"import os, signal\nos.kill(os.getppid(), {int(how)})\n")
    words = ("spec.yaml", "--yes", "--allow-commands", "--reapply", "delivery:two/apim/transport/run")
    running = subprocess.run(
        [*PROGRAM, "apply", *words],
        cwd=scene.folder,
        env=served.environment,
        capture_output=True,
        timeout=LIMIT,
        check=False,
    )
    found = scene.files(*OURS)

    assert running.returncode in {-int(how), 0, 5}, running.stderr.decode()
    assert scene.ledger.found(running.stdout + running.stderr) == {}
    assert [name for name, (mode, _) in found.items() if mode not in {"0600", DELIVERED.get(name)}] == []
