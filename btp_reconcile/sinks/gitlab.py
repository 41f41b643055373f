"""GitLab: a CI/CD variable of a project or group.

What is sent follows the pages "Project-level CI/CD variables API" and "Group-level CI/CD variables API", version 4. Whose a
variable is stands in its description, which GitLab keeps since 16.2. The API gives the value back to whoever may write it,
asked or not: it is compared by a salted digest in memory and dropped.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from btp_reconcile.core import digest
from btp_reconcile.core.errors import Blame, PlatformError, SpecError
from btp_reconcile.core.model import Problem
from btp_reconcile.core.sink import Held, Identity
from btp_reconcile.sinks._parcel import FIELD, secrets_of, text_of, undisturbed, unsecret

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from btp_reconcile.core.model import Data
    from btp_reconcile.core.sink import Around, Consumer, Parcel
    from btp_reconcile.sinks._line import Answer, Line

PUBLIC = "https://gitlab.com"
LONGEST_VALUE = 10_000
"""Characters of a variable's value."""
LONGEST_DESCRIPTION = 255
_NAME = re.compile(r"[A-Za-z0-9_]{1,255}", re.ASCII)
_MASKED = re.compile(r"[A-Za-z0-9_+=/@:.~-]{8,}", re.ASCII)
_MASKED_RAW = re.compile(r"\S{8,}")
"""What GitLab can mask in a log (its `Ci::Maskable`): with expansion the Base64 alphabet and @ : . ~, without it anything but
blanks and new lines."""
_IDENTITY = re.compile(
    r"btp-reconcile: (?P<delivery>\S+), generation (?P<generation>[0-9]{1,9}) of key (?P<key>\S+), "
    r"owner (?P<owner>\S+), spec (?P<spec>\S+)",
    re.ASCII,
)
_FLAGS = (("masked", True), ("protected", True), ("raw", True))
"""The switches of a variable, and what they are without a word in the spec."""

SCHEMA: Data = {
    "type": "object",
    "additionalProperties": False,
    "required": ["variable"],
    "properties": {
        "project": {
            "type": "string",
            "description": "Path of a project, finance/closing, or its id in quotes.",
        },
        "group": {
            "type": "string",
            "description": "Path of a group, or its id in quotes; in place of a project.",
        },
        "variable": {
            "type": "string",
            "pattern": f"^{_NAME.pattern}$",
            "description": "Name of the variable: letters, digits and _.",
        },
        "environment_scope": {
            "type": "string",
            "description": "The environments that get it: production, review/*. Default *, all of them.",
        },
        "masked": {
            "type": "boolean",
            "description": "true (default): it is blanked out in logs, which GitLab does only for values without blanks.",
        },
        "protected": {
            "type": "boolean",
            "description": "true (default): only jobs of protected branches and tags get it.",
        },
        "raw": {
            "type": "boolean",
            "description": "true (default): a $ in the value is a $, and expands to nothing.",
        },
        "file": {
            "type": "boolean",
            "description": "true: the job gets the path of a file that holds the value. Default false.",
        },
        "encode": {
            "type": "string",
            "enum": ["base64"],
            "description": "base64: the value as Base64, which can be masked whatever it holds.",
        },
        "field": FIELD,
    },
}

ACCESS: Data = {
    "title": "access to GitLab",
    "description": "A token that may write variables. Without it: the variable GITLAB_TOKEN.",
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "token": {
            "$ref": "#/$defs/secret",
            "description": "Scope `api`; role maintainer in the project, or owner of the group.",
        },
        "url": {
            "$ref": "#/$defs/referable",
            "description": f"The server, if it is neither {PUBLIC} nor the one in CI_API_V4_URL.",
        },
    },
}


class GitLab:
    """The sink `gitlab`."""

    name = "gitlab"
    title = "a GitLab CI/CD variable of a project or group"
    extra = ""
    can_look = True
    schema = SCHEMA
    access = ACCESS

    def place(self, block: Data) -> str:
        scope = _scope(block)
        return f"{_owner(block)[1]} {block.get('variable', '')}{'' if scope == '*' else f' ({scope})'}"

    def objections(self, block: Data) -> tuple[str, ...]:
        """What is wrong with a block as it stands, in words."""
        found = []
        if bool(block.get("project")) == bool(block.get("group")):
            found.append("either project or group is needed, and not both")
        if not _NAME.fullmatch(str(block.get("variable", ""))):
            found.append("variable is not a name that GitLab takes: letters, digits and _, at most 255")
        if not _scope(block).strip():
            found.append("environment_scope is empty; * means all")
        return tuple(found)

    def located(self, access: Data, folder: str) -> Data:  # noqa: ARG002 - no path stands in it
        return access

    def open(self, access: Data, around: Around) -> Consumer:
        from btp_reconcile.sinks._line import Line

        token = (unsecret(access.get("token")) or around.environment.get("GITLAB_TOKEN", "")).strip()
        if not token:
            message = "nothing to sign in at GitLab with"
            raise SpecError(
                [Problem("access/none", message, hint="write access.gitlab.token, or set GITLAB_TOKEN")]
            )
        url = unsecret(access.get("url")).strip().rstrip("/").removesuffix("/api/v4")
        base = f"{url}/api/v4" if url else around.environment.get("CI_API_V4_URL", "") or f"{PUBLIC}/api/v4"
        return _Variables(self, token, Line(self.name, base.strip(), around))


class _Variables:
    """One server, with one token."""

    def __init__(self, sink: GitLab, token: str, line: Line) -> None:
        self._sink = sink
        self._line = line
        self._token = token
        self._headers = {"Accept": "application/json", "PRIVATE-TOKEN": token}

    def look(self, block: Data) -> Held | None:
        self._check(block)
        path = _path(block)
        answer = self._line.send("GET", path, self._headers)
        if answer.status == 404:
            # The same status says that there is no variable, no project, or no right to see it.
            place = _place(block)
            answer = self._line.send("GET", place, self._headers)
            if answer.good:
                return None
            raise self._refusal(answer, "GET", place, block)
        if not answer.good:
            raise self._refusal(answer, "GET", path, block)
        return self._held(answer.json, block)

    def put(self, block: Data, parcel: Parcel, found: Held | None) -> Held:
        self._check(block)
        value = self._value(block, parcel)
        wanted = {
            "value": value,
            "description": self._description(parcel.identity),
            "variable_type": _type(block),
            **{flag: block.get(flag, default) for flag, default in _FLAGS},
        }
        now = self.look(block)
        undisturbed(self._sink.name, self._sink.place(block), parcel, found, now)
        if now is None:
            method, path = "POST", f"{_place(block, whole=True)}/variables"
            wanted |= {"key": block["variable"], "environment_scope": _scope(block)}
        else:
            method, path = "PUT", _path(block)
        headers = {**self._headers, "Content-Type": "application/json"}
        body = json.dumps(wanted).encode()
        answer = self._line.send(method, path, headers, body, repeatable=method == "PUT")
        if not answer.good:
            secrets = (value, *secrets_of(parcel.content))
            raise self._refusal(answer, method, path, block, secrets)
        held = self._held(answer.json, block)
        if held.identity != parcel.identity:
            words = (
                "GitLab did not keep the description that says whose the variable is; it does so since 16.2"
            )
            raise PlatformError(self._line.blame(method, path, words))
        return held

    def close(self) -> None:
        self._line.close()

    def _check(self, block: Data) -> None:
        if wrong := self._sink.objections(block):
            raise PlatformError(Blame(self._sink.name, message="; ".join(wrong)))

    def _held(self, said: Mapping[str, Any], block: Data) -> Held:
        """What an answer says, without its value."""
        identity = _identity(str(said.get("description") or ""))
        value = said.get("value")
        seen = ""
        if identity is not None and isinstance(value, str):
            seen = digest.salted(identity.key, value.encode("utf-8", "replace"))
        foreign = "" if identity else "its description does not say that reconcile made it"
        return Held(digest=seen, identity=identity, foreign=foreign, wrong="; ".join(_faults(said, block)))

    def _value(self, block: Data, parcel: Parcel) -> str:
        """The value as the variable shall hold it. Raises PlatformError when GitLab could not keep or mask it."""
        value = text_of(self._sink.name, parcel.content, str(block.get("field") or ""))
        if block.get("encode") == "base64":
            value = base64.b64encode(value.encode()).decode()
        raw, masked = block.get("raw", True), block.get("masked", True)
        words = ""
        if len(value) > LONGEST_VALUE:
            words = f"the value has {len(value):,} characters, and GitLab takes {LONGEST_VALUE:,}: deliver one field"
        elif not raw and "$" in value:
            words = "the value holds a $, which GitLab would expand: leave raw as it is, true"
        elif masked and not (_MASKED_RAW if raw else _MASKED).fullmatch(value):
            words = (
                "GitLab cannot mask the value: it is too short, or holds blanks, line breaks"
                f"{'' if raw else ' or special characters'}. Write encode: base64, or masked: false"
            )
        if words:
            raise PlatformError(Blame(self._sink.name, message=f"{self._sink.place(block)}: {words}"))
        return value

    def _description(self, identity: Identity) -> str:
        text = (
            f"btp-reconcile: {identity.delivery}, generation {identity.generation} of key {identity.key}, "
            f"owner {identity.owner}, spec {identity.spec}"
        )
        if len(text) > LONGEST_DESCRIPTION or _identity(text) != identity:
            words = f"the names are too long to be written beside the variable: GitLab takes {LONGEST_DESCRIPTION} characters"
            raise PlatformError(Blame(self._sink.name, message=words))
        return text

    def _refusal(
        self, answer: Answer, method: str, path: str, block: Data, secrets: Iterable[str] = ()
    ) -> PlatformError:
        said = _said(answer.json)
        kind, name = _owner(block)
        again = None
        if answer.status == 401:
            said = f"GitLab does not accept the token: {said}"
        elif answer.status == 403:
            role = "maintainer of the project" if kind == "project" else "owner of the group"
            said = f"the token lacks a right: it needs the scope api and the role {role} {name!r}; GitLab says {said}"
        elif answer.status == 404:
            said = f"the {kind} {name!r} is not there for this token: check the name, and that the token may see it"
        elif answer.status == 400:
            fields = _fields(answer.json)
            again = method == "POST" and "key" in fields  # the name was checked: somebody else was faster
            said = f"GitLab does not take the variable: {said}"
            if "value" in fields and block.get("masked", True):
                said += (
                    "; older versions mask the Base64 alphabet alone: write encode: base64, or masked: false"
                )
        all_secrets = (self._token, *secrets)
        return self._line.refusal(answer, method, path, said, secrets=all_secrets, repeatable=again)


def _owner(block: Data) -> tuple[str, str]:
    """(project or group, its path or id)."""
    kind = "project" if block.get("project") else "group"
    return kind, str(block.get(kind) or "").strip("/")


def _scope(block: Data) -> str:
    return str(block.get("environment_scope", "*"))


def _type(block: Data) -> str:
    return "file" if block.get("file") else "env_var"


def _place(block: Data, *, whole: bool = False) -> str:
    """The project or group. Asked for alone, without all that GitLab would tell of it."""
    kind, name = _owner(block)
    path = f"/{kind}s/{quote(name, safe='')}"
    return path if whole or kind == "project" else f"{path}?with_projects=false"


def _path(block: Data) -> str:
    """The variable. The same name may exist with several scopes, so the scope is always said."""
    query = urlencode({"filter[environment_scope]": _scope(block)})
    return f"{_place(block, whole=True)}/variables/{block['variable']}?{query}"


def _identity(description: str) -> Identity | None:
    match = _IDENTITY.fullmatch(description)
    if match is None:
        return None
    said = match.groupdict()
    return Identity(said["owner"], said["spec"], said["delivery"], said["key"], int(said["generation"]))


def _faults(said: Mapping[str, Any], block: Data) -> Sequence[str]:
    """In what a variable is not as the spec wants it. What GitLab does not say is not held against it."""
    found = []
    for flag, default in _FLAGS:
        wanted = block.get(flag, default)
        if isinstance(said.get(flag), bool) and said[flag] is not wanted:
            found.append(f"it is {'not ' if wanted else ''}{flag}")
    if said.get("variable_type", _type(block)) != _type(block):
        found.append("it is no file" if block.get("file") else "it is a file")
    return found


def _fields(said: Mapping[str, Any]) -> frozenset[str]:
    """The fields that a refusal of GitLab's names."""
    message = said.get("message")
    return frozenset(map(str, message)) if isinstance(message, Mapping) else frozenset()


def _said(said: Mapping[str, Any]) -> str:
    """GitLab's words: a text, or texts by field."""
    message = said.get("message") or said.get("error_description") or said.get("error")
    if isinstance(message, Mapping):
        parts = []
        for name, texts in message.items():
            words = ", ".join(map(str, texts)) if isinstance(texts, list) else str(texts)
            parts.append(f"{name} {words}")
        return "; ".join(parts)
    return str(message or "no reason given")
