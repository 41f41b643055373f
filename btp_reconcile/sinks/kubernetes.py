"""Kubernetes: a Secret, written by server-side apply under the field manager `btp-reconcile`.

What is sent follows the Kubernetes documentation, "Server-Side Apply" and "Kubernetes API Concepts". Nothing but metadata is
ever read: requests ask for `PartialObjectMetadata`, in answer to a write too. Whose a Secret is stands in its annotations.

A change by others is seen in `managedFields`: whoever writes a field becomes its manager. The time of our own entry there
moves only when we change something, so with the object's uid it is the version; labels, annotations and keys that others
add are their business. Values go out as `data`: "The stringData field of a Secret does not work well with server-side
apply", because what is taken out of it stays in the Secret.

With the shape `binding` the Secret is one that SAP's libraries read where it is mounted: beside the fields there are `type`,
`label`, `plan`, `instance_name`, `instance_guid` and `tags`, and `.metadata` says which is which, as the SAP BTP service
operator writes it (SAP/sap-btp-service-operator, `storeBindingSecret`).
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from btp_reconcile.core import digest
from btp_reconcile.core.errors import Blame, PlatformError, SpecError
from btp_reconcile.core.model import Problem
from btp_reconcile.core.sink import Held, Identity
from btp_reconcile.sinks._parcel import compact, from_folder, secrets_of, undisturbed, unsecret

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from btp_reconcile.core.model import Data
    from btp_reconcile.core.sink import Around, Consumer, Parcel
    from btp_reconcile.sinks._kubeconfig import Cluster, Config
    from btp_reconcile.sinks._line import Answer

MANAGER = "btp-reconcile"
METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
APPLY = "application/apply-patch+yaml"
LARGEST = 1024 * 1024
"""Bytes of a Secret's data: "Individual Secrets are limited to 1MiB in size"."""
_FOLDER = "folder"
"""Beside what a spec says: the folder at which paths in the text of a kubeconfig start."""
_PREFIX = "btp-reconcile/"
_KEYS = f"{_PREFIX}keys"
"""The names of the fields that we wrote, so that one that others took over or removed is missed."""
_SPACE = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_NAME = re.compile(
    r"(?=.{1,253}$)[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*", re.ASCII
)
_FIELD = re.compile(r"(?!\.\.)(?!\.$)[-._A-Za-z0-9]{1,253}", re.ASCII)
_DESCRIBED = ("instance_name", "instance_guid", "plan", "label", "type", "tags")
"""What a binding says beside its credentials, in the operator's order."""
_TEXTS: Data = {"type": "object", "additionalProperties": {"type": "string"}}

SCHEMA: Data = {
    "type": "object",
    "additionalProperties": False,
    "required": ["namespace", "name"],
    "properties": {
        "namespace": {
            "type": "string",
            "pattern": f"^{_SPACE.pattern}$",
            "description": "The namespace; it must exist.",
        },
        "name": {"type": "string", "description": "Name of the Secret."},
        "type": {
            "type": "string",
            "description": "Type of the Secret, which cannot be changed later. Default Opaque.",
        },
        "context": {
            "type": "string",
            "description": "The context of the kubeconfig, if not the one named under access or the current one.",
        },
        "labels": {**_TEXTS, "description": "Labels that the Secret shall have."},
        "annotations": {**_TEXTS, "description": "Annotations that the Secret shall have."},
        "force": {
            "type": "boolean",
            "description": "true: fields that other managers hold are taken over. Default false: a conflict is told.",
        },
    },
}

ACCESS: Data = {
    "title": "access to Kubernetes",
    "description": "Without it: KUBECONFIG, ~/.kube/config, or the service account of the pod this runs in.",
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "kubeconfig": {
            "$ref": "#/$defs/referable",
            "description": "A kubeconfig: a path, or its text by ${file:path} or ${env:NAME}. The path, and "
            "those in the text, start at the spec's folder.",
        },
        "context": {"$ref": "#/$defs/referable", "description": "The context, if not the current one."},
        "in_cluster": {
            "type": "boolean",
            "description": "true: with the service account of the pod this runs in.",
        },
    },
}


class Kubernetes:
    """The sink `kubernetes`."""

    name = "kubernetes"
    title = "a Kubernetes Secret"
    extra = "kubernetes"
    can_look = True
    schema = SCHEMA
    access = ACCESS

    def place(self, block: Data) -> str:
        context = f" ({block['context']})" if block.get("context") else ""
        return f"{block.get('namespace', '')}/{block.get('name', '')}{context}"

    def objections(self, block: Data) -> tuple[str, ...]:
        """What is wrong with a block as it stands, in words."""
        found = []
        if not _SPACE.fullmatch(str(block.get("namespace", ""))):
            found.append(
                "namespace is not a name that Kubernetes takes: small letters, digits and -, at most 63"
            )
        if not _NAME.fullmatch(str(block.get("name", ""))):
            found.append(
                "name is not a name that Kubernetes takes: small letters, digits, - and ., at most 253"
            )
        for part in ("labels", "annotations"):
            ours = [name for name in block.get(part) or {} if str(name).startswith(_PREFIX)]
            if ours:
                found.append(
                    f"{part} that start with {_PREFIX} are written by reconcile itself: {', '.join(ours)}"
                )
        return tuple(found)

    def located(self, access: Data, folder: str) -> Data:
        from btp_reconcile.sinks._kubeconfig import is_text, names_files

        given = unsecret(access.get("kubeconfig"))
        if not given or not is_text(given):
            return from_folder(access, "kubeconfig", folder)
        # Said only where it matters, because equal access is one place.
        return {**access, _FOLDER: folder} if names_files(given) else access

    def open(self, access: Data, around: Around) -> Consumer:
        from btp_reconcile.sinks._kubeconfig import is_text, read

        environment = around.environment
        written = access.get("kubeconfig")
        given = unsecret(written)
        if access.get("in_cluster"):
            return _Secrets(self, around, None, "")
        if not given:
            usual = str(Path(environment.get("HOME") or "/") / ".kube" / "config")
            given = written = environment.get("KUBECONFIG") or (usual if Path(usual).is_file() else "")
        elif not is_text(given):
            given = around.folder(given)
        if given:
            # What a reference stands for is never shown: it may be a key where a path was meant.
            shown = given if isinstance(written, str) and not is_text(given) else ""
            return _Secrets(
                self,
                around,
                read(given, shown, around, str(access.get(_FOLDER) or "")),
                unsecret(access.get("context")),
            )
        if environment.get("KUBERNETES_SERVICE_HOST"):
            return _Secrets(self, around, None, "")
        message = "nothing to sign in at Kubernetes with"
        hint = "write access.kubernetes.kubeconfig, set KUBECONFIG, or in_cluster: true in a pod"
        raise SpecError([Problem("access/none", message, hint=hint)])


class _Secrets:
    """One kubeconfig, or the pod's own service account, and a cluster for each context that is asked for."""

    def __init__(self, sink: Kubernetes, around: Around, config: Config | None, context: str) -> None:
        self._sink = sink
        self._around = around
        self._config = config
        self._context = context
        self._lock = threading.Lock()
        self._clusters: dict[str, Cluster] = {}

    def look(self, block: Data) -> Held | None:
        self._check(block)
        found = self._metadata(block)
        return None if found is None else _held(found, block)

    def put(self, block: Data, parcel: Parcel, found: Held | None) -> Held:
        self._check(block)
        data = _data(parcel.content)
        metadata = self._metadata(block)
        now = None if metadata is None else _held(metadata, block)
        undisturbed(self._sink.name, self._sink.place(block), parcel, found, now)
        wanted = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": block["name"],
                "namespace": block["namespace"],
                "labels": dict(block.get("labels") or {}),
                "annotations": {**(block.get("annotations") or {}), **_noted(parcel.identity, data)},
                # The very object that was looked at, or none: the server compares.
                **{
                    name: metadata[name]
                    for name in ("uid", "resourceVersion")
                    if metadata and name in metadata
                },
            },
            "type": block.get("type", "Opaque"),
            "data": {name: base64.b64encode(value.encode()).decode() for name, value in data.items()},
        }
        adopted = found is not None and bool(found.foreign)
        force = "true" if block.get("force") or adopted else "false"
        path = f"{_path(block)}?fieldManager={MANAGER}&fieldValidation=Strict&force={force}"
        answer = self._send(block, "PATCH", path, {"Content-Type": APPLY}, json.dumps(wanted).encode())
        if not answer.good:
            secrets = (*data.values(), *secrets_of(parcel.content))
            raise self._refusal(answer, "PATCH", path, block, secrets)
        return _held(_of(answer), block)

    def close(self) -> None:
        for cluster in self._clusters.values():
            cluster.line.close()

    def _check(self, block: Data) -> None:
        if wrong := self._sink.objections(block):
            raise PlatformError(Blame(self._sink.name, message="; ".join(wrong)))

    def _metadata(self, block: Data) -> Mapping[str, Any] | None:
        path = _path(block)
        answer = self._send(block, "GET", path, {})
        if answer.status == 404 and answer.json.get("kind") == "Status":
            return None
        if not answer.good:
            raise self._refusal(answer, "GET", path, block)
        found = _of(answer)
        if answer.json.get("kind") != "PartialObjectMetadata" or not found.get("uid"):
            words = "the server does not give metadata alone; it must know PartialObjectMetadata (Kubernetes 1.15)"
            raise PlatformError(self._cluster(block).line.blame("GET", path, words))
        return found

    # --- the cluster -------------------------------------------------------------------------------------

    def _cluster(self, block: Data) -> Cluster:
        from btp_reconcile.sinks._kubeconfig import inside

        name = str(block.get("context") or self._context)
        with self._lock:
            if name not in self._clusters:
                self._clusters[name] = (
                    inside(self._around) if self._config is None else self._config.cluster(name, self._around)
                )
            return self._clusters[name]

    def _send(
        self, block: Data, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> Answer:
        cluster = self._cluster(block)
        answer = self._once(cluster, method, path, headers, body)
        if answer.status == 401 and cluster.renew is not None and self._config is not None:
            # What the program gave is short-lived. Once, a new one is worth a try.
            name = str(block.get("context") or self._context)
            with self._lock:
                if self._clusters.get(name) is cluster:
                    cluster.line.close()
                    self._clusters[name] = self._config.cluster(name, self._around)
                cluster = self._clusters[name]
            answer = self._once(cluster, method, path, headers, body)
        return answer

    @staticmethod
    def _once(
        cluster: Cluster, method: str, path: str, headers: Mapping[str, str], body: bytes | None
    ) -> Answer:
        return cluster.line.send(
            method, path, {"Accept": METADATA, **cluster.authorization(), **headers}, body
        )

    def _refusal(
        self, answer: Answer, method: str, path: str, block: Data, secrets: Iterable[str] = ()
    ) -> PlatformError:
        status = answer.json
        code = str(status.get("reason") or "")
        said = str(status.get("message") or "no reason given")
        cluster, again = self._cluster(block), None
        place = self._sink.place(block)
        if answer.status == 401:
            said = f"Kubernetes does not accept the credentials: {said}"
        elif answer.status == 403:
            said = f"a right is missing: get, create and patch on secrets in {block['namespace']} are needed: {said}"
        elif answer.status == 404:
            said = f"there is no namespace {block['namespace']!r}, or this server has no Secrets: {said}"
        elif answer.status == 409 and (taken := _conflicts(status)):
            said = f"{place}: {taken}; write force: true to take these fields over, or let the other manager give them up"
            again = False
        elif answer.status == 409:
            said = f"{place} was changed in this very moment: {said}"
            again = True
        elif answer.status == 422:
            said = f"{place} cannot become what the spec says; its type can never change, nor an immutable Secret: {said}"
        hidden = (*cluster.authorization().values(), *secrets)
        return cluster.line.refusal(answer, method, path, said, code=code, secrets=hidden, repeatable=again)


# --- objects --------------------------------------------------------------------------------------------


def _path(block: Data) -> str:
    return f"/api/v1/namespaces/{block['namespace']}/secrets/{block['name']}"


def _of(answer: Answer) -> Mapping[str, Any]:
    metadata = answer.json.get("metadata")
    return metadata if isinstance(metadata, Mapping) else {}


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _held(metadata: Mapping[str, Any], block: Data) -> Held:
    """What metadata alone says."""
    notes = _map(metadata.get("annotations"))
    identity = _identity(notes)
    entries = [_map(one) for one in metadata.get("managedFields") or ()]
    ours = next(
        (one for one in entries if one.get("manager") == MANAGER and one.get("operation") == "Apply"), None
    )
    others = sorted({str(one.get("manager")) for one in entries} - {MANAGER})
    version = f"{metadata.get('uid', '')}@{ours.get('time', '')}"[:64] if ours else ""
    if identity is None:
        by = f"; {', '.join(others)} wrote it" if others else ""
        return Held(version=version, foreign=f"its annotations do not say that reconcile made it{by}")
    wrong = list(_lost(notes, ours, entries)) if entries else []
    for part in ("labels", "annotations"):
        there = _map(metadata.get(part))
        wrong += [
            f"its {part.removesuffix('s')} {name} is not what the spec says"
            for name, value in _map(block.get(part)).items()
            if there.get(name) != value
        ]
    return Held(version=version, identity=identity, wrong="; ".join(wrong))


def _lost(
    notes: Mapping[str, Any], ours: Mapping[str, Any] | None, entries: Sequence[Mapping[str, Any]]
) -> Iterable[str]:
    """Fields that we wrote and that others hold now, or that are gone."""
    kept = _fields(ours) if ours else frozenset()
    for name in filter(None, str(notes.get(_KEYS, "")).split(",")):
        if name in kept:
            continue
        holders = sorted(str(one.get("manager")) for one in entries if name in _fields(one))
        yield f"{name} was changed by {', '.join(holders)}" if holders else f"{name} was removed"


def _fields(entry: Mapping[str, Any]) -> frozenset[str]:
    """The names in `data` that a manager holds."""
    data = _map(_map(entry.get("fieldsV1")).get("f:data"))
    return frozenset(name.removeprefix("f:") for name in data)


def _identity(notes: Mapping[str, Any]) -> Identity | None:
    said = {name: str(notes.get(_PREFIX + name) or "") for name in ("owner", "spec", "delivery", "key")}
    generation = str(notes.get(f"{_PREFIX}generation") or "")
    if not all(said.values()) or not re.fullmatch(r"[0-9]{1,9}", generation, re.ASCII):
        return None
    return Identity(**said, generation=int(generation))


def _noted(identity: Identity, data: Mapping[str, str]) -> dict[str, str]:
    said = {
        "owner": identity.owner,
        "spec": identity.spec,
        "delivery": identity.delivery,
        "key": identity.key,
        "generation": str(identity.generation),
    }
    return {**{_PREFIX + name: value for name, value in said.items()}, _KEYS: ",".join(sorted(data))}


def _conflicts(status: Mapping[str, Any]) -> str:
    """Who holds what, in words; empty when it is no conflict of managers."""
    causes = [_map(one) for one in _map(status.get("details")).get("causes") or ()]
    taken: dict[str, list[str]] = {}
    for one in causes:
        if one.get("reason") == "FieldManagerConflict":
            match = re.search(r'"([^"]*)"', str(one.get("message")))
            taken.setdefault(match[1] if match else "another manager", []).append(
                str(one.get("field", "")).strip(".")
            )
    return "; ".join(f"{who} holds {', '.join(sorted(what))}" for who, what in sorted(taken.items()))


def _data(content: Data) -> dict[str, str]:
    """The Secret's fields: texts as they are, all else as JSON. Raises PlatformError when they cannot be."""
    binding = all(
        isinstance(content.get(name), str) for name in ("type", "label", "instance_name", "instance_guid")
    )
    data: dict[str, str] = {}
    described: list[dict[str, Any]] = []
    fields: list[dict[str, Any]] = []
    for given, value in content.items():
        name = str(given).replace(" ", "_")
        shown = digest.plain(value)
        text = shown if isinstance(shown, str) else compact(shown)
        if name in data or not _FIELD.fullmatch(name) or (binding and name == ".metadata"):
            words = f"the credentials have a field {name!r}, which a Secret cannot hold; choose another shape"
            raise PlatformError(Blame("kubernetes", message=words))
        data[name] = text
        entry = {"name": name, "format": "text" if isinstance(shown, str) else "json"}
        (described if name in _DESCRIBED and not _hidden(value) else fields).append(entry)
    if binding:
        described.sort(key=lambda one: _DESCRIBED.index(one["name"]))
        data[".metadata"] = compact({"metaDataProperties": described, "credentialProperties": fields})
    size = sum(len(value.encode()) for value in data.values())
    if size > LARGEST:
        words = f"the credentials have {size:,} bytes, and a Secret takes 1 MiB: deliver them to a file or to Vault"
        raise PlatformError(Blame("kubernetes", message=words))
    return data


def _hidden(value: Any) -> bool:
    return any(True for _ in secrets_of(value))
