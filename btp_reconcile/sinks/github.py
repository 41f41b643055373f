"""GitHub Actions: a secret of a repository, or of one of its environments.

What is sent follows the REST API description, "REST API endpoints for GitHub Actions Secrets", version 2022-11-28. The value is
sealed here with the public key of the repository or environment, so that only GitHub can open it. It can never be read
back, and nothing can be kept beside it: whose it is cannot be told, and a change by others is seen by its time alone.

GitHub keeps secrets out of logs by looking for their whole value. One field is found there; all of a JSON object is not
when a job takes it apart and prints a part. So `field` is the better choice where it is enough.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import importlib
import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from btp_reconcile.core.errors import Blame, PlatformError, SpecError
from btp_reconcile.core.model import Problem
from btp_reconcile.core.sink import Held
from btp_reconcile.sinks._parcel import FIELD, secrets_of, text_of, unsecret

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from btp_reconcile.core.model import Data
    from btp_reconcile.core.sink import Around, Consumer, Parcel
    from btp_reconcile.sinks._line import Answer, Line

VERSION = "2022-11-28"
PUBLIC = "https://api.github.com"
TOKENS = ("GITHUB_TOKEN", "GH_TOKEN")
LARGEST = 48 * 1024
"""Bytes of one secret: "Secrets are limited to 48 KB in size"."""
SHORTEST_WAIT = 60.0
"""Seconds: after a limit without a time, "wait for at least one minute before retrying"."""
_NAME = re.compile(r"(?!GITHUB_)[A-Z_][A-Z0-9_]{0,254}", re.ASCII | re.IGNORECASE)
"""Letters, digits and _; no digit at the start; the prefix GITHUB_ is GitHub's own."""
_REPOSITORY = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,99})/(?!\.\.?$)[A-Za-z0-9._-]{1,100}", re.ASCII)

SCHEMA: Data = {
    "type": "object",
    "additionalProperties": False,
    "required": ["repository", "secret"],
    "properties": {
        "repository": {
            "type": "string",
            "pattern": f"^{_REPOSITORY.pattern}$",
            "description": "Owner and name: finance/closing.",
        },
        "secret": {
            "type": "string",
            "pattern": "^(?![Gg][Ii][Tt][Hh][Uu][Bb]_)[A-Za-z_][A-Za-z0-9_]*$",
            "description": "Name of the secret: letters, digits and _; not GITHUB_….",
        },
        "environment": {
            "type": "string",
            "description": "A deployment environment of the repository; without it, the secret is the repository's.",
        },
        "field": FIELD,
    },
}

ACCESS: Data = {
    "title": "access to GitHub",
    "description": "A token that may write secrets. Without it: the variables GITHUB_TOKEN or GH_TOKEN.",
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "token": {
            "$ref": "#/$defs/secret",
            "description": "Fine-grained: `Secrets` write, or `Environments` write; classic: `repo`.",
        },
        "url": {
            "$ref": "#/$defs/referable",
            "description": f"The API, if it is not {PUBLIC}: https://github.example.com/api/v3.",
        },
    },
}


class GitHub:
    """The sink `github`."""

    name = "github"
    title = "a GitHub Actions secret of a repository or environment"
    extra = "github"
    can_look = True
    schema = SCHEMA
    access = ACCESS

    def place(self, block: Data) -> str:
        environment = f" ({block['environment']})" if block.get("environment") else ""
        return f"{block.get('repository', '')} {str(block.get('secret', '')).upper()}{environment}"

    def objections(self, block: Data) -> tuple[str, ...]:
        """What is wrong with a block as it stands, in words."""
        found = []
        if not _REPOSITORY.fullmatch(str(block.get("repository", ""))):
            found.append("repository is not of the form owner/name")
        if not _NAME.fullmatch(str(block.get("secret", ""))):
            found.append(
                "secret is not a name that GitHub takes: letters, digits and _, no digit at the start, not GITHUB_…"
            )
        if "environment" in block and not str(block["environment"]).strip():
            found.append("environment is empty")
        return tuple(found)

    def located(self, access: Data, folder: str) -> Data:  # noqa: ARG002 - no path stands in it
        return access

    def open(self, access: Data, around: Around) -> Consumer:
        from btp_reconcile.sinks._line import Line

        token = unsecret(access.get("token"))
        names = (name for name in TOKENS if around.environment.get(name))
        token = (token or around.environment.get(next(names, ""), "")).strip()
        if not token:
            message = "nothing to sign in at GitHub with"
            hint = "write access.github.token, or set GITHUB_TOKEN or GH_TOKEN"
            raise SpecError([Problem("access/none", message, hint=hint)])
        importlib.import_module("nacl.public")  # missing, it is missed before there is anything to deliver
        url = unsecret(access.get("url")) or around.environment.get("GITHUB_API_URL") or PUBLIC
        return _Secrets(self, token, Line(self.name, url.strip(), around))


class _Secrets:
    """One API, with one token."""

    def __init__(self, sink: GitHub, token: str, line: Line) -> None:
        self._sink = sink
        self._line = line
        self._token = token
        self._headers = {
            "Accept": "application/vnd.github+json",
            "Authorization": f"Bearer {token}",
            "X-GitHub-Api-Version": VERSION,
        }

    def look(self, block: Data) -> Held | None:
        self._check(block)
        path = f"{_folder(block)}/{_name(block)}"
        answer = self._line.send("GET", path, self._headers)
        if answer.status == 404:
            # The same answer says that there is no secret, no repository, or no right. The key is there for whoever
            # may write secrets.
            self._public_key(block)
            return None
        if not answer.good:
            raise self._refusal(answer, "GET", path, block)
        changed = answer.json.get("updated_at")
        if not isinstance(changed, str) or not changed:
            raise self._odd("GET", path, "says nothing of the time of the last change")
        return Held(version=changed[:64])

    def put(self, block: Data, parcel: Parcel, found: Held | None) -> Held:
        del found  # GitHub knows no check-and-set, and nothing tells whose a secret is
        self._check(block)
        text = text_of(self._sink.name, parcel.content, str(block.get("field") or ""))
        value = text.encode()
        if len(value) > LARGEST:
            words = (
                f"the value has {len(value):,} bytes, and GitHub takes {LARGEST:,}: deliver one field of it"
            )
            raise PlatformError(Blame(self._sink.name, message=words))
        key_id, sealed = _sealed(self._public_key(block), value)
        if not sealed:
            raise self._odd("GET", f"{_folder(block)}/public-key", "is no public key")
        path = f"{_folder(block)}/{_name(block)}"
        body = json.dumps({"encrypted_value": sealed, "key_id": key_id}).encode()
        answer = self._line.send("PUT", path, {**self._headers, "Content-Type": "application/json"}, body)
        if answer.status not in {201, 204}:
            raise self._refusal(answer, "PUT", path, block, (text, *secrets_of(parcel.content)))
        held = self.look(block)
        if held is None:
            raise PlatformError(
                self._line.blame("GET", path, "the secret was written and is not there", repeatable=True)
            )
        return held

    def close(self) -> None:
        self._line.close()

    def _check(self, block: Data) -> None:
        if wrong := self._sink.objections(block):
            raise PlatformError(Blame(self._sink.name, message="; ".join(wrong)))

    def _public_key(self, block: Data) -> Mapping[str, Any]:
        path = f"{_folder(block)}/public-key"
        answer = self._line.send("GET", path, self._headers)
        if not answer.good:
            raise self._refusal(answer, "GET", path, block)
        return answer.json

    def _odd(self, method: str, path: str, words: str) -> PlatformError:
        return PlatformError(self._line.blame(method, path, f"the answer {words}"))

    def _refusal(
        self, answer: Answer, method: str, path: str, block: Data, secrets: Iterable[str] = ()
    ) -> PlatformError:
        said = str(answer.json.get("message") or "no reason given")
        headers = answer.headers
        limited = answer.status == 429 or (
            answer.status == 403 and ("Retry-After" in headers or headers.get("X-RateLimit-Remaining") == "0")
        )
        wait = self._wait(headers) if limited else None
        if limited:
            said = f"a limit of GitHub's is used up: {said}"
        elif answer.status == 401:
            said = f"GitHub does not accept the token: {said}"
        elif answer.status == 403:
            needed = headers.get("X-Accepted-GitHub-Permissions", "")
            single = "; the token must be authorized for single sign-on" if "X-GitHub-SSO" in headers else ""
            said = f"the token lacks a right{f' ({needed})' if needed else ''}: {said}{single}"
        elif answer.status == 404:
            what = f"environment {block['environment']!r}" if block.get("environment") else "Actions secrets"
            said = (
                f"{block['repository']} or its {what} is not there for this token: check the names, and that the token "
                "may write secrets there"
            )
        return self._line.refusal(
            answer,
            method,
            path,
            said,
            secrets=(self._token, *secrets),
            repeatable=True if limited else None,
            wait=wait,
        )

    def _wait(self, headers: Mapping[str, str]) -> float | None:
        """Seconds: "Rate limits for the REST API". None: the header Retry-After says it."""
        if "Retry-After" in headers:
            return None
        reset = headers.get("X-RateLimit-Reset", "")
        if headers.get("X-RateLimit-Remaining") == "0" and re.fullmatch(r"[0-9]{1,12}", reset, re.ASCII):
            return self._line.until(float(reset), headers)
        return SHORTEST_WAIT


def _folder(block: Data) -> str:
    """Where secrets of this repository or environment are. Both parts were checked, but an environment may hold anything."""
    repository = f"/repos/{block['repository']}"
    environment = block.get("environment")
    if environment:
        return f"{repository}/environments/{quote(str(environment), safe='')}/secrets"
    return f"{repository}/actions/secrets"


def _name(block: Data) -> str:
    """GitHub keeps names in capitals, however they are written."""
    return str(block["secret"]).upper()


def _sealed(key: Mapping[str, Any], value: bytes) -> tuple[str, str]:
    """(key's id, the value in a sealed box, Base64); empty texts when the key is none."""
    from nacl.exceptions import CryptoError
    from nacl.public import PublicKey, SealedBox

    with contextlib.suppress(KeyError, TypeError, ValueError, binascii.Error, CryptoError):
        box = SealedBox(PublicKey(base64.b64decode(key["key"], validate=True)))
        return str(key["key_id"]), base64.b64encode(box.encrypt(value)).decode()
    return "", ""
