"""One spec with a secret in every place that takes one, a sandbox that plays the platform, and the consumers of its keys."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from btp_reconcile.sandbox import Sandbox
from tests.fuzz.running import Ran, run, secrets_in
from tests.secrets.planted import HEADER, Ledger, made, some
from tests.sinks.servers import github, gitlab, kubernetes
from tests.sinks.servers.web import Asked, Says, Web

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from requests import PreparedRequest

    from btp_reconcile.sandbox.http import Response

GUID = "22222222-2222-4222-8222-222222222222"
PARAMETERS, FILES, PROPERTIES, UNUSED = 88, 30, 28, 56
PRODUCTION = (
    *("BTP_DESTINATION_KEY", "BTP_LOCAL_KEY", "CF_CLIENT_SECRET", "CF_ACCESS_TOKEN", "CF_REFRESH_TOKEN"),
    *("GITHUB_TOKEN", "GH_TOKEN", "GITLAB_TOKEN", "CI_JOB_TOKEN", "VAULT_TOKEN", "AWS_SECRET_ACCESS_KEY"),
)
"""What a machine in production has set, and no command here needs."""

HEAD = """\
version: 1
owner: finance
name: secrets
access:
  central: {service_key: "${env:BTP_CIS_CENTRAL_KEY}"}
  service_manager: {service_key: "${env:BTP_SERVICE_MANAGER_KEY}"}
  destination: {service_key: "${file:destination.json}"}
  cloud_foundry: {username: "${env:CF_USER}", password: "${env:CF_PASSWORD}"}
  fingerprint_key: "${env:FINGERPRINT_KEY}"
  vault:
    address: "${env:VAULT_AT}"
    approle: {role_id: "${env:VAULT_ROLE_ID}", secret_id: "${file:secret-id}"}
  github: {token: "${env:GITHUB_PLANTED}", url: "${env:GITHUB_AT}"}
  gitlab: {token: "${env:GITLAB_PLANTED}", url: "${env:GITLAB_AT}"}
  kubernetes: {kubeconfig: "${file:kubeconfig.json}"}
defaults: {keep_old_for: 0d}
"""
CARRIER = """\
import hashlib, json, os, pathlib, sys
here, given = pathlib.Path(__file__).parent, sys.stdin.read()
parent = pathlib.Path(f"/proc/{os.getppid()}/cmdline").read_bytes()
seen = {name: pathlib.Path(f"/proc/self/{name}").read_bytes().decode("utf-8", "replace") for name in ("cmdline", "environ")}
seen["parent"] = parent.decode("utf-8", "replace")
with (here / "processes.jsonl").open("a") as out:
    out.write(json.dumps(seen) + "\\n")
print(given)
print(given, file=sys.stderr)
sys.exit(int((here / "ends-with").read_text()))
"""


@dataclass
class Vault(Web):
    """Just enough of a KV v2 engine behind an AppRole; tests of the sink itself use a real server."""

    role_id: str
    secret_id: str
    ledger: Ledger

    def __post_init__(self) -> None:
        super().__init__(self._answer)
        self.kept: dict[str, Any] = {}
        self.rng = random.Random("vault")

    def _answer(self, asked: Asked) -> Says:
        path = asked.path.removeprefix("/v1/")
        if path == "auth/approle/login":
            token = "hvs." + made(self.rng, "word", 60)
            self.ledger.add("a token of vault's", token)
            return Says(200, {"auth": {"client_token": token, "accessor": "a", "lease_duration": 3600}})
        if path.startswith("sys/internal/ui/mounts/"):
            return Says(200, {"data": {"path": "secret/", "type": "kv", "options": {"version": "2"}}})
        kind, _, name = path.removeprefix("secret/").partition("/")
        if asked.method == "GET":
            found = self.kept.get(name)
            return Says(200, {"data": found}) if found else Says(404, {"errors": []})
        row = self.kept.setdefault(name, {"current_version": 0, "custom_metadata": None, "versions": {}})
        if kind == "data":
            row["current_version"] += 1
            row["versions"][str(row["current_version"])] = {"deletion_time": "", "destroyed": False}
            return Says(200, {"data": {"version": row["current_version"]}})
        row["custom_metadata"] = asked.json.get("custom_metadata")
        return Says(204)


def spec(change: int = 0) -> str:
    """The spec; with another number its parameters, keys and properties change."""
    own = [PARAMETERS // 4 * quarter + change for quarter in range(4)]
    texts = [
        ", ".join(
            f'p{one}: "${{env:PLANTED_{(start + one) % PARAMETERS}}}"' for one in range(PARAMETERS // 4 - 1)
        )
        for start in own
    ]
    files = [f'f{one}: "${{file:in/{one}.txt}}"' for one in range(FILES)]
    mixed = '"a ${env:PLANTED_0} b ${file:in/0.txt} c"'
    properties = "\n".join(f'          hidden.{one}: "${{env:PROPERTY_{one}}}"' for one in range(PROPERTIES))
    return (
        HEAD
        + f"""\
subaccounts:
  two:
    id: {GUID}
    region: eu10
    cloud_foundry: {{org: org-two, space: a, api: "${{env:FOUNDRY_AT}}"}}
    instances:
      x:
        service: sandbox-config
        plan: standard
        runtime: cloudfoundry
        parameters: {{{texts[0]}, deep: {{{texts[1]}}}, mixed: {mixed}}}
        keys: {{k: {{parameters: {{{", ".join(files[:6])}}}}}}}
      y:
        service: sandbox-config
        plan: standard
        runtime: other
        parameters: {{{texts[2]}, list: [{{{texts[3]}}}]}}
        keys: {{k: {{parameters: {{{", ".join(files[6:12])}}}}}}}
      z:
        service: sandbox-slow
        plan: standard
        runtime: other
        parameters: {{{", ".join(files[12:])}}}
      apim:
        api: api-management
        runtime: cloudfoundry
        parameters: {{role: APIPortal.Administrator}}
        keys:
          transport:
            deliver:
              main: {{file: {{path: out/transport.json, make_folder: true}}}}
              env: {{file: {{path: out/transport.env, format: env, mode: "0640", make_folder: true}}}}
              run: {{command: {{run: [{json.dumps(sys.executable)}, ./carrier.py, --for, transport], environment: [CARRIED]}}, shape: uaa}}
              kv: {{vault: {{path: secret/apim/transport}}, shape: piper}}
          signed:
            credential: {{type: x509, validity: 30d}}
            deliver:
              main: {{file: {{path: out/signed.json, make_folder: true}}}}
              hub: {{github: {{repository: finance/closing, secret: APIM}}}}
      closing:
        api: afc
        runtime: other
        keys:
          task-center:
            deliver:
              lab: {{gitlab: {{project: finance/closing, variable: AFC, encode: base64, field: client_secret}}}}
              pod: {{kubernetes: {{namespace: apps, name: afc}}, shape: binding}}
    destinations:
      APIManagement: {{recipe: api-management-transport, key: apim/transport}}
      orders:
        properties:
          Type: HTTP
          URL: "${{key:apim/transport#url}}/orders"
          ProxyType: Internet
          Authentication: BasicAuthentication
          User: "${{env:PROPERTY_0}}"
          Password: "${{env:PROPERTY_1}}{change or ""}"
{properties}
"""
    )


@dataclass
class Scene:
    """A folder, a platform, and everything in it that must never be seen."""

    folder: Path
    ledger: Ledger
    environment: dict[str, str]
    servers: dict[str, Web]
    sandbox: Sandbox
    ran: list[Ran] = field(default_factory=list)

    def run(self, *arguments: str, changed: Any = None, env: dict[str, str] | None = None) -> Ran:
        """Run a command in this process; all that brokers and token endpoints hand out meanwhile is a secret."""

        def heard(request: PreparedRequest, answer: Response) -> Response | Exception:
            self.learn(answer.body)
            said: Response | Exception = answer if changed is None else changed(request, answer)
            return said

        ran = run(
            arguments,
            folder=self.folder,
            sandbox=self.sandbox,
            environment={**self.environment, **(env or {})},
            changed=heard,
        )
        self.ran.append(ran)
        return ran

    def anew(self) -> None:
        """The same world as it was at first, and nobody holds anything."""
        self.sandbox = _platform()
        for name in ("kept", "secrets", "variables"):
            for server in self.servers.values():
                getattr(server, name, {}).clear()
        shutil.rmtree(self.folder / "out", ignore_errors=True)

    def learn(self, body: bytes) -> None:
        """Keep what an answer of the platform gives away."""
        with contextlib.suppress(ValueError):
            data = json.loads(body)
            for name in _clients_in(data):
                self.ledger.allow(name)
            for secret in secrets_in(data):
                self.ledger.add("issued", secret)

    def leaks(self, ran: Ran) -> dict[str, str]:
        """What one command let out."""
        return self.ledger.found(ran.out) | self.ledger.found(ran.err)

    def write(self, name: str, text: str, mode: int = 0o600) -> str:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(mode)
        return name

    def files(self, *apart: str) -> dict[str, tuple[str, dict[str, str]]]:
        """Every file below the folder that holds a secret: its mode, and what is in it."""
        found = {}
        for path in sorted(self.folder.rglob("*")):
            name = str(path.relative_to(self.folder))
            if path.is_file() and not name.startswith(apart):
                leaks = self.ledger.found(path.read_bytes())
                if leaks:
                    found[name] = (f"{path.stat().st_mode & 0o777:04o}", leaks)
        return found


def _platform() -> Sandbox:
    sandbox = Sandbox()
    place = {"landscape": "eu10", "org": "org-two", "spaces": ["a"]}
    sandbox.seed({"subaccounts": {"two": {"id": GUID, "region": "eu10", "cloud_foundry": place}}})
    return sandbox


def _clients_in(value: Any) -> Iterator[str]:
    """Names of clients, and where they sign in: a token holds them, and they are no secrets."""
    if isinstance(value, dict):
        for key, below in value.items():
            if isinstance(below, str) and key in {"clientid", "clientId", "url", "tokenUrl", "certurl"}:
                yield below
            yield from _clients_in(below)
    elif isinstance(value, list):
        for below in value:
            yield from _clients_in(below)


def _planted(ledger: Ledger) -> tuple[dict[str, str], dict[str, str]]:
    """Variables and files with secrets in them."""
    environment, files = {}, {}
    for number, secret in enumerate(some("parameters", PARAMETERS)):
        environment[f"PLANTED_{number}"] = secret
    for number, secret in enumerate(some("properties", PROPERTIES, ("word", "signs", "quotes", "foreign"))):
        environment[f"PROPERTY_{number}"] = secret
    for number, secret in enumerate(some("unused", UNUSED)):
        environment[f"UNUSED_{number}"] = secret
    environment |= dict(zip(PRODUCTION, some("production", len(PRODUCTION), HEADER), strict=True))
    fingerprint, carried = some("own", 2, ("signs",))
    environment |= {"FINGERPRINT_KEY": fingerprint, "CARRIED": carried}
    role, secret_id = some("approle", 2, ("signs",))
    hub, lab, pod = some("tokens", 3, ("word",))
    environment |= {"VAULT_ROLE_ID": role, "GITHUB_PLANTED": hub, "GITLAB_PLANTED": lab}
    for number, secret in enumerate(some("files", FILES)):
        files[f"in/{number}.txt"] = secret
    files["secret-id"] = secret_id
    for name, secret in (environment | files).items():
        ledger.add(name, secret)
    ledger.add("kubeconfig", pod)
    return environment, {**files, "pod": pod}


def _kubeconfig(url: str, token: str) -> str:
    return json.dumps(
        {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": url}}],
            "users": [{"name": "u", "user": {"token": token}}],
        }
    )


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Scene]:
    """Everything in its place."""
    ledger = Ledger()
    environment, files = _planted(ledger)
    pod = files.pop("pod")
    sandbox = _platform()
    access = sandbox.access()
    for secret in secrets_in(access):
        ledger.add("access", secret)
    for name in ("client_credentials", access["cloud_foundry"]["eu10"]["username"], *_clients_in(access)):
        ledger.allow(name)
    files["destination.json"] = json.dumps(access["destination"][GUID])
    environment |= {
        "BTP_CIS_CENTRAL_KEY": json.dumps(access["central"]),
        "BTP_SERVICE_MANAGER_KEY": json.dumps(access["service_manager"][GUID]),
        "FOUNDRY_AT": access["cloud_foundry"]["eu10"]["api"],
        "CF_USER": access["cloud_foundry"]["eu10"]["username"],
        "CF_PASSWORD": access["cloud_foundry"]["eu10"]["password"],
    }
    vault = Vault(environment["VAULT_ROLE_ID"], files["secret-id"], ledger)
    with (
        vault,
        patch.object(github, "TOKEN", environment["GITHUB_PLANTED"]),
        patch.object(gitlab, "TOKEN", environment["GITLAB_PLANTED"]),
        github.GitHubServer() as hub,
        gitlab.GitLabServer() as lab,
        kubernetes.KubernetesServer() as pods,
    ):
        pods.tokens = {pod}
        environment |= {"VAULT_AT": vault.url, "GITHUB_AT": hub.url, "GITLAB_AT": lab.url}
        files["kubeconfig.json"] = _kubeconfig(pods.url, pod)
        servers: dict[str, Web] = {"vault": vault, "github": hub, "gitlab": lab, "kubernetes": pods}
        scene = Scene(folder, ledger, environment, servers, sandbox)
        for name, text in files.items():
            scene.write(name, text)
        scene.write("carrier.py", CARRIER)
        scene.write("ends-with", "0")
        scene.write("spec.yaml", spec())
        yield scene
