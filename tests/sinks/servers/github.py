"""GitHub's REST API for Actions secrets, as its OpenAPI description (github/rest-api-description, 2022-11-28) has it.

It opens what it is sent with its own secret key, so that tests see what a job would get.
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from nacl.exceptions import CryptoError
from nacl.public import PrivateKey, SealedBox

from tests.sinks.servers.web import Asked, Says, Web

if TYPE_CHECKING:
    from collections.abc import Mapping

TOKEN = "github_pat_11ABCDEFG0123456789"
_REPOSITORY = re.compile(r"/repos/([^/]+)/([^/]+)/(?:actions|environments/([^/]+))/secrets/([^/]+)")
DOCUMENTS = "https://docs.github.com/rest"


class GitHubServer(Web):
    """Repositories, their environments, and secrets in both."""

    def __init__(self) -> None:
        super().__init__(self._answer)
        self.repositories: dict[str, set[str]] = {"finance/closing": {"production", "acceptance/eu"}}
        self.secrets: dict[tuple[str, str, str], str] = {}
        """(repository, environment or nothing, name) → value."""
        self.times: dict[tuple[str, str, str], tuple[str, str]] = {}
        self.seconds = 0
        self.may_write = True
        self._key = PrivateKey.generate()
        self.key_id = "568250167242549743"

    def change(self, repository: str, name: str, value: str, environment: str = "") -> None:
        """Somebody else writes a secret."""
        where = (repository, environment, name)
        self.seconds += 60
        now = f"2026-11-22T10:{self.seconds // 60 % 60:02}:{self.seconds % 60:02}Z"
        self.times[where] = (self.times.get(where, (now, now))[0], now)
        self.secrets[where] = value

    def _answer(self, asked: Asked) -> Says:
        if not asked.headers.get("User-Agent"):
            return _no(403, "Request forbidden by administrative rules.")
        if asked.headers.get("X-GitHub-Api-Version") != "2022-11-28":
            return _no(400, "The requested API version is not supported")
        if asked.headers.get("Accept") != "application/vnd.github+json":
            return _no(415, "Unsupported 'Accept' header")
        if asked.headers.get("Authorization") != f"Bearer {TOKEN}":
            return _no(401, "Bad credentials")
        match = _REPOSITORY.fullmatch(asked.path)
        if match is None or asked.query:
            return _no(404, "Not Found")
        owner, name, environment, secret = (unquote(part) if part else "" for part in match.groups())
        repository = f"{owner}/{name}"
        known = self.repositories.get(repository)
        if known is None or (environment and environment not in known):
            return _no(404, "Not Found")
        if not self.may_write:
            needed = {"X-Accepted-GitHub-Permissions": "secrets=write"}
            return _no(403, "Resource not accessible by personal access token", needed)
        if secret == "public-key":
            return self._public_key(asked)
        if asked.method == "GET":
            return self._show((repository, environment, secret))
        return (
            self._write(asked, (repository, environment, secret))
            if asked.method == "PUT"
            else _no(404, "Not Found")
        )

    def _public_key(self, asked: Asked) -> Says:
        if asked.method != "GET":
            return _no(404, "Not Found")
        key = base64.b64encode(bytes(self._key.public_key)).decode()
        return Says(200, {"key_id": self.key_id, "key": key})

    def _show(self, where: tuple[str, str, str]) -> Says:
        where = (*where[:2], where[2].upper())
        if where not in self.secrets:
            return _no(404, "Not Found")
        made, changed = self.times[where]
        return Says(200, {"name": where[2], "created_at": made, "updated_at": changed})

    def _write(self, asked: Asked, where: tuple[str, str, str]) -> Says:
        if asked.headers.get("Content-Type") != "application/json":
            return _no(415, "Unsupported Media Type")
        said: Any = asked.json
        if set(said) != {"encrypted_value", "key_id"} or not all(
            isinstance(one, str) for one in said.values()
        ):
            return _no(422, 'Invalid request.\n\n"encrypted_value", "key_id" weren\'t supplied.')
        name = where[2].upper()
        if not re.fullmatch(r"(?!GITHUB_)[A-Z_][A-Z0-9_]*", name):
            return _no(422, "Secret names can only contain alphanumeric characters")
        if said["key_id"] != self.key_id:
            return _no(422, "Bad request - public key is outdated")
        try:
            value = SealedBox(self._key).decrypt(base64.b64decode(said["encrypted_value"], validate=True))
        except (CryptoError, ValueError):
            return _no(422, "Improperly encrypted secret")
        if len(value) > 48 * 1024:
            return _no(422, "Secret value is too large")
        new = (*where[:2], name) not in self.secrets
        self.change(where[0], name, value.decode(), where[1])
        return Says(201, {}) if new else Says(204)


def _no(status: int, message: str, headers: Mapping[str, str] | None = None) -> Says:
    said = {"message": message, "documentation_url": DOCUMENTS, "status": str(status)}
    return Says(status, said, headers or {})
