"""The Secrets of a Kubernetes API server, as "Kubernetes API Concepts" and "Server-Side Apply" describe them.

Field ownership is kept as the server does: an apply that meets a field of another value under another manager is a conflict; one
with the same value shares it; any other write takes it over; what a manager no longer applies and nobody else holds goes away.
The time of an entry moves only when its manager changes something.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING, Any

from tests.sinks.servers.web import Asked, Says, Web

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

TOKEN = "eyJhbGciOiJSUzI1NiJ9.c2VydmljZWFjY291bnQ.c2lnbmF0dXJl"
PARTIAL = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_PATH = re.compile(r"/api/v1/namespaces/([a-z0-9-]+)/secrets/([a-z0-9.-]+)")
_PATCH_OPTIONS = {"fieldManager", "force", "fieldValidation", "dryRun", "pretty"}
Field = tuple[str, ...]


class KubernetesServer(Web):
    """Namespaces, Secrets, and who may do what."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(self._answer, tls)
        self.namespaces = {"apps"}
        self.secrets: dict[tuple[str, str], dict[str, Any]] = {}
        self.tokens = {TOKEN}
        self.verbs = {"get", "create", "patch"}
        self.seconds = 0
        self._number = 0

    # --- others -----------------------------------------------------------------------------------------

    def data(self, namespace: str = "apps", name: str = "apim") -> dict[str, str]:
        """What is mounted into a pod."""
        held = self.secrets[namespace, name]["data"]
        return {field: base64.b64decode(value).decode() for field, value in held.items()}

    def edit(
        self, manager: str, data: Mapping[str, str | None] | None = None, **metadata: Mapping[str, str]
    ) -> None:
        """Somebody writes with `kubectl edit` and the like: what is written is theirs; None removes."""
        secret = self.secrets.setdefault(("apps", "apim"), self._made("apps", "apim"))
        fields: dict[Field, str] = {}
        for name, value in (data or {}).items():
            if value is None:
                secret["data"].pop(name, None)
                for owner in secret["managers"].values():
                    owner["fields"].discard(("data", name))
            else:
                fields["data", name] = base64.b64encode(value.encode()).decode()
        for part in ("labels", "annotations"):
            fields |= {("metadata", part, key): text for key, text in metadata.get(part, {}).items()}
        for field, text in fields.items():
            _put(secret, field, text)
            for owner in secret["managers"].values():
                owner["fields"].discard(field)
        if fields:
            mine = secret["managers"].setdefault((manager, "Update"), {"fields": set(), "time": ""})
            mine["fields"] |= set(fields)
            mine["time"] = self._time()
        self._touch(secret)

    # --- requests ---------------------------------------------------------------------------------------

    def _answer(self, asked: Asked) -> Says:
        token = asked.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in self.tokens:
            return _status(401, "Unauthorized", "Unauthorized")
        accept = asked.headers.get("Accept")
        if accept not in {PARTIAL, "application/json"}:
            return _status(
                406, "NotAcceptable", "only the following media types are accepted: application/json"
            )
        match = _PATH.fullmatch(asked.path)
        if match is None:
            return _status(404, "NotFound", "the server could not find the requested resource")
        where = (match[1], match[2])
        if asked.method == "GET":
            if "get" not in self.verbs:
                return _forbidden("get", where)
            if where not in self.secrets:
                return _status(404, "NotFound", f'secrets "{where[1]}" not found')
            return Says(200, _shown(self.secrets[where], accept))
        if asked.method != "PATCH":
            return _status(
                405, "MethodNotAllowed", "the server does not allow this method on the requested resource"
            )
        if "patch" not in self.verbs:
            return _forbidden("patch", where)
        return self._apply(asked, where, accept)

    def _apply(self, asked: Asked, where: tuple[str, str], accept: str) -> Says:
        if asked.headers.get("Content-Type") != "application/apply-patch+yaml":
            return _status(415, "UnsupportedMediaType", "the body of the request was in an unknown format")
        query = asked.query
        if set(query) - _PATCH_OPTIONS or query.get("force", "false") not in {"true", "false"}:
            return _status(400, "BadRequest", "unknown query parameters")
        manager = query.get("fieldManager", "")
        if not 0 < len(manager) <= 128:
            return _status(
                422, "Invalid", 'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value'
            )
        body = asked.json
        if (wrong := _malformed(body, where)) is not None:
            return wrong
        if where[0] not in self.namespaces:
            return _status(404, "NotFound", f'namespaces "{where[0]}" not found')
        new = where not in self.secrets
        if new and "create" not in self.verbs:
            return _forbidden("create", where)
        secret = self._made(*where) if new else self.secrets[where]
        if (stale := _stale(secret, body["metadata"], new=new)) is not None:
            return stale
        fields = _fields(body)
        conflicts = _conflicts(secret, fields, manager)
        if conflicts and query.get("force") != "true":
            return _conflict(conflicts)
        if not new and secret["type"] != body.get("type", "Opaque"):
            return _status(422, "Invalid", f'Secret "{where[1]}" is invalid: type: field is immutable')
        self._merge(secret, fields, manager)
        if new:
            secret["type"] = body.get("type", "Opaque")
            self.secrets[where] = secret
        return Says(201 if new else 200, _shown(secret, accept))

    def _merge(self, secret: dict[str, Any], fields: Mapping[Field, str], manager: str) -> None:
        mine = secret["managers"].setdefault((manager, "Apply"), {"fields": set(), "time": ""})
        before, changed = set(mine["fields"]), False
        for key, owner in list(secret["managers"].items()):
            if owner is not mine:
                owner["fields"] -= {field for field in fields if _got(secret, field) != fields[field]}
                if not owner["fields"]:
                    del secret["managers"][key]
        for field in before - set(fields):
            if not any(
                field in owner["fields"] for owner in secret["managers"].values() if owner is not mine
            ):
                _drop(secret, field)
        for field, text in fields.items():
            changed = changed or _got(secret, field) != text
            _put(secret, field, text)
        mine["fields"] = set(fields)
        if changed or before != mine["fields"]:
            mine["time"] = self._time()
            self._touch(secret)

    # --- objects ----------------------------------------------------------------------------------------

    def _made(self, namespace: str, name: str) -> dict[str, Any]:
        self._number += 1
        made = {
            "name": name,
            "namespace": namespace,
            "uid": f"0c2d5a0e-1f3b-4a57-9d67-{self._number:012}",
            "type": "Opaque",
            "data": {},
            "labels": {},
            "annotations": {},
            "managers": {},
            "creationTimestamp": self._time(),
        }
        self._touch(made)
        return made

    def _touch(self, secret: dict[str, Any]) -> None:
        self._number += 1
        secret["resourceVersion"] = str(1000 + self._number)

    def _time(self) -> str:
        self.seconds += 1
        return f"2026-11-22T11:{self.seconds // 60:02}:{self.seconds % 60:02}Z"


def _status(status: int, reason: str, message: str, causes: list[dict[str, str]] | None = None) -> Says:
    details = {"details": {"kind": "secrets", "causes": causes}} if causes else {}
    said = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message}
    return Says(status, {**said, "reason": reason, **details, "code": status})


def _forbidden(verb: str, where: tuple[str, str]) -> Says:
    who = 'User "system:serviceaccount:ci:reconcile"'
    words = f'secrets "{where[1]}" is forbidden: {who} cannot {verb} resource "secrets" in the namespace "{where[0]}"'
    return _status(403, "Forbidden", words)


def _malformed(body: Any, where: tuple[str, str]) -> Says | None:
    if (body.get("apiVersion"), body.get("kind")) != ("v1", "Secret"):
        return _status(400, "BadRequest", "invalid object type")
    if set(body) - {"apiVersion", "kind", "metadata", "type", "data", "stringData", "immutable"}:
        return _status(400, "BadRequest", "strict decoding error: unknown field")
    metadata = body["metadata"]
    if set(metadata) - {"name", "namespace", "labels", "annotations", "uid", "resourceVersion"}:
        return _status(400, "BadRequest", "strict decoding error: unknown field in metadata")
    if (metadata.get("namespace"), metadata.get("name")) != where:
        return _status(400, "BadRequest", "the name of the object does not match the name on the URL")
    texts = (*metadata.get("labels", {}).values(), *metadata.get("annotations", {}).values())
    if not all(isinstance(one, str) for one in texts):
        return _status(400, "BadRequest", "cannot unmarshal into Go struct field ObjectMeta of type string")
    for name, value in body.get("data", {}).items():
        if not re.fullmatch(r"[-._a-zA-Z0-9]{1,253}", name) or name in {".", ".."} or name.startswith(".."):
            return _status(
                422, "Invalid", f"data[{name}]: Invalid value: a valid config key must consist of …"
            )
        try:
            base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError, TypeError):
            return _status(400, "BadRequest", f"illegal base64 data at input byte 4: {value}")
    if sum(len(base64.b64decode(value)) for value in body.get("data", {}).values()) > 1024 * 1024:
        return _status(422, "Invalid", "data: Too long: may not be more than 1048576 bytes")
    return None


def _stale(secret: Mapping[str, Any], metadata: Mapping[str, Any], *, new: bool) -> Says | None:
    if "uid" in metadata and (new or metadata["uid"] != secret["uid"]):
        return _status(409, "Conflict", f"Precondition failed: UID in precondition: {metadata['uid']}")
    if "resourceVersion" in metadata and (new or metadata["resourceVersion"] != secret["resourceVersion"]):
        words = "the object has been modified; please apply your changes to the latest version and try again"
        return _status(
            409, "Conflict", f'Operation cannot be fulfilled on secrets "{secret["name"]}": {words}'
        )
    return None


def _fields(body: Mapping[str, Any]) -> dict[Field, str]:
    found: dict[Field, str] = {("data", name): value for name, value in body.get("data", {}).items()}
    for part in ("labels", "annotations"):
        found |= {("metadata", part, name): text for name, text in body["metadata"].get(part, {}).items()}
    return found


def _got(secret: Mapping[str, Any], field: Field) -> str | None:
    held: dict[str, str] = secret[field[-2]]
    return held.get(field[-1])


def _put(secret: dict[str, Any], field: Field, text: str) -> None:
    secret[field[-2]][field[-1]] = text


def _drop(secret: dict[str, Any], field: Field) -> None:
    secret[field[-2]].pop(field[-1], None)


def _conflicts(
    secret: Mapping[str, Any], fields: Mapping[Field, str], manager: str
) -> list[tuple[tuple[str, str], str, Field]]:
    return [
        (who, owner["time"], field)
        for who, owner in secret["managers"].items()
        if who != (manager, "Apply")
        for field in sorted(owner["fields"] & set(fields))
        if _got(secret, field) != fields[field]
    ]


def _conflict(conflicts: list[tuple[tuple[str, str], str, Field]]) -> Says:
    causes = [
        {
            "reason": "FieldManagerConflict",
            "message": f'conflict with "{who}"' + (f" using v1 at {time}" if operation == "Update" else ""),
            "field": "." + ".".join(field),
        }
        for (who, operation), time, field in conflicts
    ]
    count = f"{len(causes)} conflict" + ("s" if len(causes) > 1 else "")
    words = f"Apply failed with {count}: " + "\n".join(f"{one['message']}: {one['field']}" for one in causes)
    return _status(409, "Conflict", words, causes)


def _shown(secret: Mapping[str, Any], accept: str) -> dict[str, Any]:
    metadata = {
        name: secret[name]
        for name in (
            "name",
            "namespace",
            "uid",
            "resourceVersion",
            "creationTimestamp",
            "labels",
            "annotations",
        )
        if secret[name]
    }
    metadata["managedFields"] = [
        {
            "manager": manager,
            "operation": operation,
            "apiVersion": "v1",
            "time": owner["time"],
            "fieldsType": "FieldsV1",
            "fieldsV1": _nested(owner["fields"]),
        }
        for (manager, operation), owner in secret["managers"].items()
    ]
    if accept == PARTIAL:
        return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}
    return {
        "kind": "Secret",
        "apiVersion": "v1",
        "metadata": metadata,
        "type": secret["type"],
        "data": secret["data"],
    }


def _nested(fields: set[Field]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in sorted(fields):
        below = found
        for part in field[:-1]:
            below = below.setdefault(f"f:{part}", {".": {}} if part == "data" else {})
        below[f"f:{field[-1]}"] = {}
    return found
