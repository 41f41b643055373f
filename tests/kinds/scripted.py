"""A door that plays answers and writes down what was asked; and short builders for what drivers are handed."""

from __future__ import annotations

import copy
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from btp_reconcile.core.kind import Answer, Query, Task
from btp_reconcile.core.model import (
    Address,
    CloudFoundry,
    Fact,
    Mark,
    Operation,
    Phase,
    Resource,
    Step,
    StepId,
    Subaccount,
    Verb,
    Wanted,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

GUID = "5a7d1f0e-6c1b-4a51-9d67-0a4c4f1f2f10"
OTHER = "77777777-6c1b-4a51-9d67-0a4c4f1f2f10"
NOW = 1_800_000_000.0
PROD = Subaccount(
    "prod", GUID, "eu10", CloudFoundry("https://api.cf.eu10.hana.ondemand.com", "acme-prod", "apis")
)
TEST = Subaccount(
    "test", OTHER, "eu10", CloudFoundry("https://api.cf.eu10.hana.ondemand.com", "acme-test", "apis")
)
MARK = Mark("acme", "base", "apim")
OFFERING, PLAN = "apimanagement-apiportal", "apiportal-apiaccess"


class ScriptedDoor:
    """Answers by path, in the order they are asked for; one answer is a body, or a list of pages."""

    scope = "scripted"

    def __init__(
        self, service: str, answers: Mapping[str, Sequence[Any]] | None = None, tenant: str = ""
    ) -> None:
        self.service = service
        self._tenant = tenant
        self.answers: dict[str, list[Any]] = defaultdict(list)
        for path, bodies in (answers or {}).items():
            self.answers[path] = list(bodies)
        self.reads: list[tuple[str, dict[str, str]]] = []
        self.writes: list[tuple[str, str, dict[str, str], Any]] = []
        self.siblings: dict[str, ScriptedDoor] = {}

    def get(self, path: str, query: Query = ()) -> Any:
        assert len(dict(query)) == len(query), "a parameter is sent twice"
        self.reads.append((path, dict(query)))
        assert self.answers[path], f"nobody expected GET {path} {dict(query)}"
        return copy.deepcopy(self.answers[path].pop(0))

    def read(self, path: str, query: Query = ()) -> Answer:
        """A body that stands for its ETag, too, when it is a pair."""
        found = self.get(path, query)
        body, tag = found if isinstance(found, tuple) else (found, "")
        return Answer(200, {"ETag": tag} if tag else {}, body)

    def pages(self, path: str, query: Query = ()) -> Iterator[Any]:
        answer = self.get(path, query)
        yield from answer if isinstance(answer, list) else [answer]

    def send(self, method: str, path: str, body: Any = None, query: Query = (), match: str = "") -> Answer:
        self.writes.append((method, path, {**dict(query), **({"If-Match": match} if match else {})}, body))
        return Answer(202, {})

    def sibling(self, service: str) -> ScriptedDoor:
        return self.siblings[service]

    def tenant(self) -> str:
        return self._tenant

    def now(self) -> float:
        return NOW


def instance(
    name: str = "apim", place: str = "prod", runtime: str = "cloudfoundry", **changes: Any
) -> Resource:
    spec = {
        "service": changes.pop("service", OFFERING),
        "plan": changes.pop("plan", PLAN),
        "runtime": runtime,
        "space": "apis" if runtime == "cloudfoundry" else None,
        "tags": (),
        "parameters": {},
    }
    mark = changes.pop("mark", Mark("acme", "base", name))
    return Resource(Address("instance", (place, name)), spec, mark, name=name, **changes)


def key(name: str = "k", place: str = "prod", runtime: str = "cloudfoundry", **changes: Any) -> Resource:
    spec = {"service": OFFERING, "plan": PLAN, "runtime": runtime, "parameters": {}}
    return Resource(
        Address("key", (place, "apim", name)),
        spec,
        Mark("acme", "base", name),
        name=name,
        requires=(Address("instance", (place, "apim")),),
        **changes,
    )


def entitlement(service: str, plan: str, place: str = "prod", **changes: Any) -> Resource:
    spec = {
        "service": service,
        "plan": plan,
        "unique_id": changes.pop("unique_id", None),
        "amount": changes.pop("amount", True),
        "implied": False,
    }
    return Resource(
        Address("entitlement", (place, service, plan)),
        spec,
        Mark("acme", "base", f"{service}.{plan}"),
        **changes,
    )


def wanted(
    *resources: Resource, owners: frozenset[tuple[str, str]] = frozenset({("acme", "base")})
) -> Wanted:
    return Wanted(resources, {"prod": PROD, "test": TEST}, owners)


def task(
    verb: Verb,
    resource: Resource | None = None,
    *,
    place: Subaccount = PROD,
    generation: int = 1,
    name: str = "",
    **known: Any,
) -> Task:
    address = resource.address if resource else known.pop("address", Address("instance", ("prod", "apim")))
    name = name or (resource.physical(generation) if resource else "")
    if resource and verb is Verb.CREATE:
        known.setdefault("spec", resource.spec)
    step = Step(
        StepId(f"{verb} {address} {generation}"), verb, address, generation, (), known.get("found"), name
    )
    return Task(step, resource, place, **known)


def seen(
    kind: str = "instance",
    guid: str = "i1",
    name: str = "apim",
    runtime: str = "cloudfoundry",
    **changes: Any,
) -> Fact:
    changes.setdefault("attributes", {"service": OFFERING, "plan": PLAN, "plan_id": "p1"})
    return Fact(kind, guid, name, changes.pop("subaccount", "prod"), runtime=runtime, **changes)


SPACE = Fact(
    "space", "s1", "apis", "prod", attributes={"org": "acme-prod", "org_id": "o1"}, runtime="cloudfoundry"
)
CF_PLAN = Fact("plan", "p1", PLAN, "prod", attributes={"service": OFFERING}, runtime="cloudfoundry")
SM_PLAN = Fact("plan", "p1", PLAN, "prod", attributes={"service": OFFERING}, runtime="other")

__all__ = [
    "CF_PLAN",
    "GUID",
    "MARK",
    "NOW",
    "OFFERING",
    "OTHER",
    "PLAN",
    "PROD",
    "SM_PLAN",
    "SPACE",
    "TEST",
    "Fact",
    "Mark",
    "Operation",
    "Phase",
    "ScriptedDoor",
    "entitlement",
    "instance",
    "key",
    "seen",
    "task",
    "wanted",
]
