"""How a Kubernetes API server is reached, and who we are there: kubeconfig files, or a pod's service account.

Files are read and merged by the official client, which knows the rules. What a kubeconfig may make a program do is decided
here: no check of certificates is skipped, no program is run without leave, and no key is left in a temporary file.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import ssl
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from btp_reconcile.core.errors import Blame, PlatformError, SpecError
from btp_reconcile.core.model import Problem
from btp_reconcile.sinks._line import Line, Trust

if TYPE_CHECKING:
    from btp_reconcile.core.sink import Around

_FILES = ("certificate-authority", "client-certificate", "client-key", "tokenFile", "command")
"""What names a file in a kubeconfig."""
INSIDE = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its service account."""


@dataclass
class Cluster:
    """One API server, and who we are there."""

    line: Line
    read: Callable[[str], bytes] = field(repr=False)
    user: Mapping[str, Any] = field(repr=False)
    """The user of a kubeconfig; `tokenFile` is absolute."""
    renew: Mapping[str, Any] | None = field(default=None, repr=False)
    """The program that gives new credentials."""

    def authorization(self) -> dict[str, str]:
        """The header that signs a request in. Tokens in files are read anew: they are short-lived."""
        token = self.user.get("token")
        if not token and self.user.get("tokenFile"):
            token = _file(str(self.user["tokenFile"]), self.read)
        if token:
            return {"Authorization": f"Bearer {str(token).strip()}"}
        if self.user.get("username") and self.user.get("password"):
            pair = f"{self.user['username']}:{self.user['password']}".encode()
            return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}
        return {}


@dataclass(frozen=True)
class Config:
    """Kubeconfig files, merged; each entry with the folder that its paths start from."""

    current: str
    parts: Mapping[str, Mapping[str, tuple[Mapping[str, Any], str]]] = field(repr=False)

    def cluster(self, context: str, around: Around) -> Cluster:
        """The cluster of a context, ready to be asked. Runs the program that the user signs in with, if that is allowed."""
        name = context or self.current
        said, _ = self._part("contexts", name, "context")
        cluster, folder = self._part("clusters", str(said.get("cluster", "")), "cluster")
        user, home = self._part("users", str(said["user"]), "user") if said.get("user") else ({}, folder)
        server = str(cluster.get("server") or "").rstrip("/")
        if not server:
            raise _unusable(
                f"the cluster of context {name!r} has no server; name another context, or complete it"
            )
        around.check(server)
        if cluster.get("insecure-skip-tls-verify"):
            raise _unusable(
                f"the cluster of context {name!r} skips the check of certificates, which is not done here; "
                "name its certificate-authority instead"
            )
        if "auth-provider" in user:
            raise _unusable(
                f"the user of context {name!r} signs in by an auth-provider, which is not supported: use exec or a token"
            )
        renew = user.get("exec")
        if isinstance(renew, Mapping):
            user = {**user, **_asked(renew, name, home, around)}
        if user.get("tokenFile"):
            user = {**user, "tokenFile": str(Path(home, str(user["tokenFile"])))}
        context_ = None
        if server.startswith("https:"):
            authority = _pem(cluster, "certificate-authority", folder, around)
            pair = (_pem(user, "client-certificate", home, around), _pem(user, "client-key", home, around))
            context_ = _trust(authority, pair) if authority or all(pair) else None
        trust = Trust(
            context_, str(cluster.get("tls-server-name") or ""), str(cluster.get("proxy-url") or "")
        )
        line = Line("kubernetes", server, around, trust)
        return Cluster(line, around.read, user, renew if isinstance(renew, Mapping) else None)

    def _part(self, kind: str, name: str, word: str) -> tuple[Mapping[str, Any], str]:
        part = self.parts[kind].get(name)
        if part is None:
            known = ", ".join(sorted(self.parts[kind])) or "none"
            raise _unusable(f"there is no {word} {name!r}; there is: {known}")
        return part


def _unusable(words: str) -> PlatformError:
    return PlatformError(Blame("kubernetes", message=f"kubeconfig: {words}"))


def is_text(given: str) -> bool:
    """Is this a kubeconfig itself, as YAML or JSON, and no path?"""
    return any(sign in given.strip() for sign in ("\n", "{", ": "))


def names_files(text: str) -> bool:
    """Does the text of a kubeconfig name files or programs that are not in it?"""
    return re.search(rf"""\b(?:{"|".join(_FILES)})["']?\s*:""", text) is not None


def read(given: str, shown: str, around: Around, folder: str = "") -> Config:
    """A kubeconfig: its text, or paths separated as in PATH. `shown` is what a message may say of it; `folder` is where
    paths in a text start.

    Raises SpecError when it is none.
    """
    from kubernetes.config.kube_config import KubeConfigMerger

    text = is_text(given)
    merger: Any = KubeConfigMerger
    try:
        for path in () if text else given.split(os.pathsep):
            if Path(path).exists() and not Path(path).is_dir():
                around.read(path)  # what may have no end is not handed to the library
        merged: Any = merger(StringIO(given) if text else given).config
        whole = getattr(merged, "value", merged)
        folder = around.folder(folder or ".") if text else ""
        parts = {
            kind: dict(_entry(one, kind, folder) for one in whole.get(kind) or ())
            for kind in ("contexts", "clusters", "users")
        }
        return Config(str(whole.get("current-context") or ""), parts)
    except Exception:  # noqa: BLE001 - whatever a parser says of it may quote the file, and it holds secrets
        what = f"the kubeconfig {shown}".strip()
        hint = "it must be a file, or the text of one, as `kubectl config view --raw` prints it"
        raise SpecError([Problem("access/key", f"{what} cannot be read", hint=hint)]) from None


def _entry(one: Any, kind: str, folder: str) -> tuple[str, tuple[Mapping[str, Any], str]]:
    """One named entry. What was merged from files remembers its file."""
    said = getattr(one, "value", one)
    path = getattr(one, "path", None)
    content = said.get(kind.removesuffix("s")) or {}
    if not isinstance(content, Mapping):
        raise TypeError(kind)
    return str(said["name"]), (content, os.path.dirname(os.path.abspath(path)) if path else folder)  # noqa: PTH100, PTH120 - a text stays a text


def as_map(value: Any) -> Mapping[str, Any]:
    """A map as it is; an empty one for anything else."""
    return value if isinstance(value, Mapping) else {}


def _file(path: str, read: Callable[[str], bytes]) -> str:
    try:
        return read(path).decode("utf-8")
    except (OSError, ValueError) as error:
        raise _unusable(f"{path} cannot be read: {getattr(error, 'strerror', None) or 'not text'}") from None


def _pem(said: Mapping[str, Any], name: str, folder: str, around: Around) -> str:
    """PEM that stands in a kubeconfig, or in a file that it names; empty: neither."""
    inside = said.get(f"{name}-data")
    if inside:
        try:
            return base64.b64decode(str(inside), validate=True).decode()
        except (binascii.Error, ValueError):
            raise _unusable(f"{name}-data is no PEM in Base64; copy it anew, as it came") from None
    return _file(str(Path(folder, str(said[name]))), around.read) if said.get(name) else ""


def _trust(authority: str, pair: tuple[str, str]) -> ssl.SSLContext:
    """Certificates to trust and to show. TLS reads a key from files alone: they are gone when this returns."""
    try:
        context = ssl.create_default_context(cadata=authority or None)
        if authority:
            # Authorities that clusters make for themselves often lack what RFC 5280 demands of public ones.
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if all(pair):
            with tempfile.TemporaryDirectory(prefix="reconcile-") as folder:
                names = []
                for name, text in zip(("certificate.pem", "key.pem"), pair, strict=True):
                    path = Path(folder, name)
                    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                        file.write(text)
                    names.append(str(path))
                context.load_cert_chain(*names)
    except (OSError, ValueError):
        raise _unusable(
            "a certificate or key in it is not usable: each must be PEM, and the key its certificate's own; get it anew"
        ) from None
    return context


def _asked(program: Mapping[str, Any], context: str, folder: str, around: Around) -> dict[str, Any]:
    """What the user's program gives to sign in with: "client-go credential plugins", as fields of a kubeconfig's user."""
    command = str(program.get("command") or "")
    if not around.commands:
        raise _unusable(
            f"the user of context {context!r} signs in by the program {command!r}, which is run only with --allow-commands"
        )
    version = str(program.get("apiVersion") or "")
    ask = {"apiVersion": version, "kind": "ExecCredential", "spec": {"interactive": False}}
    more = {
        str(as_map(one).get("name")): str(as_map(one).get("value", "")) for one in program.get("env") or ()
    }
    environment = {**around.environment, **more, "KUBERNETES_EXEC_INFO": json.dumps(ask)}
    name = str(Path(folder, command)) if os.sep in command else command
    try:
        done = subprocess.run(  # noqa: S603 - the user named it, and allowed it on the command line
            [name, *map(str, program.get("args") or ())],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=around.timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _unusable(
            f"the program {command!r} gave no credentials within {around.timeout:g} s; "
            "run it by hand: it may wait for somebody to sign in"
        ) from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "its arguments cannot be used"
        raise _unusable(
            f"the program {command!r} cannot be run: {why}; install it, or correct the user's command"
        ) from None
    if done.returncode:
        raise _unusable(f"the program {command!r} ended with {done.returncode}; run it by hand to see why")
    status: Mapping[str, Any] = {}
    try:
        said = as_map(json.loads(done.stdout))
        status = as_map(said.get("status")) if said.get("apiVersion") == version else {}
    except (ValueError, RecursionError):
        pass
    found: dict[str, Any] = {}
    if status.get("token"):
        found["token"] = str(status["token"])
    if status.get("clientCertificateData") and status.get("clientKeyData"):
        for field_, said_ in (
            ("client-certificate-data", "clientCertificateData"),
            ("client-key-data", "clientKeyData"),
        ):
            found[field_] = base64.b64encode(str(status[said_]).encode()).decode()
    if not found:
        raise _unusable(
            f"the program {command!r} gave no credentials of {version or 'any version'}; "
            "run it by hand: it must print an ExecCredential of the user's apiVersion"
        )
    return found


def inside(around: Around) -> Cluster:
    """The API server of the cluster this runs in: "Accessing the Kubernetes API from a Pod"."""
    host, port = (around.environment.get(f"KUBERNETES_SERVICE_{name}", "") for name in ("HOST", "PORT"))
    if not host:
        words = (
            "in_cluster is true, and this does not run in a pod; elsewhere write access.kubernetes.kubeconfig"
        )
        raise PlatformError(Blame("kubernetes", message=words))
    server = f"https://{f'[{host}]' if ':' in host else host}:{port or '443'}"
    around.check(server)
    line = Line(
        "kubernetes", server, around, Trust(_trust(_file(str(INSIDE / "ca.crt"), around.read), ("", "")))
    )
    return Cluster(line, around.read, {"tokenFile": str(INSIDE / "token")})
