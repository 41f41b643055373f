"""Specs → resources: names, references and values from outside, in dependency order. Arithmetic only."""

from __future__ import annotations

import re
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from btp_reconcile.core.errors import SpecError
from btp_reconcile.core.model import (
    Address,
    Adoption,
    CloudFoundry,
    Mark,
    Problem,
    Resource,
    Secret,
    Source,
    Subaccount,
    Wanted,
)

if TYPE_CHECKING:
    from btp_reconcile.core.catalogue import Catalogue
    from btp_reconcile.core.validate import Spec

REFERENCE = re.compile(r"\$\$\{|\$\{(env|file):([^}]+)\}")

SERVICE_OF_RUNTIME = {"cloudfoundry": "cloud_foundry", "other": "service_manager"}
"""Where a runtime's instances live: Cloud Foundry v3, or Service Manager for the runtime `other`."""

VARIABLES = {
    "central": ("BTP_CIS_CENTRAL_KEY",),
    "service_manager": ("BTP_SERVICE_MANAGER_KEY",),
    "cloud_foundry": ("CF_USER", "CF_CLIENT_ID", "CF_ASSERTION_TOKEN", "CF_ACCESS_TOKEN", "CF_REFRESH_TOKEN"),
}
"""The environment variables that open a service when the spec says nothing: one of each row is enough."""


@dataclass(frozen=True)
class Outside:
    """Values from outside the spec. `read(path, spec_file)` returns a file's text or raises SpecError."""

    environment: Mapping[str, str]
    read: Callable[[str, str], str]
    placeholders: bool = False
    """Rehearsal: access is ignored, and what is not set becomes a placeholder."""


def resources(specs: Sequence[Spec], catalogue: Catalogue, outside: Outside) -> Wanted:
    """What all specs together want. Raises SpecError with every value from outside that is missing."""
    reader = _Reader(outside)
    builders = [_Builder(spec, catalogue, reader) for spec in specs]
    subaccounts: dict[str, Subaccount] = {}
    access: dict[str, dict[str, Any]] = {}
    entitlements: dict[Address, Resource] = {}
    instances: list[Resource] = []
    keys: list[Resource] = []
    for builder in builders:
        for name, subaccount in builder.subaccounts():
            known = subaccounts.get(name)
            if known is None or (known.cloud_foundry is None and subaccount.cloud_foundry):
                subaccounts[name] = subaccount
        for resource in builder.entitlements():
            entitlements[resource.address] = resource
        instances.extend(builder.instances())
        keys.extend(builder.keys())
    for builder in builders:
        for implied in builder.implied(instances):
            entitlements.setdefault(implied.address, implied)
    runtimes: dict[str, set[str]] = defaultdict(set)
    for one in instances:
        runtimes[one.address.subaccount].add(one.spec["runtime"])
    for builder in builders:
        for name, services in builder.access(runtimes):
            access.setdefault(name, {}).update(services)
    reader.raise_problems()
    ordered = [*sorted(entitlements.values(), key=lambda one: one.address), *instances, *keys]
    owners = frozenset((spec.owner, spec.name) for spec in specs)
    return Wanted(tuple(ordered), subaccounts, owners, access)


def api_of_landscape(landscape: str) -> str:
    """The Cloud Foundry API of a landscape like `eu10-004` (SAP help, "Regions and API Endpoints")."""
    domain = "platform.sapcloud.cn" if landscape.startswith("cn") else "hana.ondemand.com"
    return f"https://api.cf.{landscape}.{domain}"


@dataclass
class _Reader:
    """Puts in what comes from outside, and remembers what was missing."""

    outside: Outside
    problems: list[Problem] = field(default_factory=list)

    def text(self, value: Any, source: Source, spec_file: str) -> Any:
        """A text with its references filled in, in clear: for ids and names. Not for secrets."""
        filled = self.fill(value, source, spec_file)
        return filled.reveal() if isinstance(filled, Secret) else filled

    def fill(self, value: Any, source: Source, spec_file: str) -> Any:
        """A value with every reference in it replaced; a text that held one becomes a `Secret`."""
        if isinstance(value, Mapping):
            return {key: self.fill(item, source, spec_file) for key, item in value.items()}
        if isinstance(value, list):
            return [self.fill(item, source, spec_file) for item in value]
        if not isinstance(value, str) or "${" not in value:
            return value
        names: list[str] = []

        def one(match: re.Match[str]) -> str:
            if match.group(0) == "$${":
                return "${"
            names.append(f"{match.group(1)}:{match.group(2)}")
            return self._outside(match.group(1), match.group(2), source, spec_file)

        text = REFERENCE.sub(one, value)
        return Secret(", ".join(names), text) if names else text

    def _outside(self, kind: str, name: str, source: Source, spec_file: str) -> str:
        if kind == "env":
            found = self.outside.environment.get(name)
            if found and found.encode("utf-8", "replace").decode() != found:
                said = f"the environment variable {name} holds bytes that are not UTF-8"
                self.problems.append(
                    Problem("input/not-text", said, source, hint=f"set {name} anew, as UTF-8")
                )
                return ""
            if found:
                return found
            if self.outside.placeholders:
                return f"placeholder-for-{name}"
            said = "is empty" if found == "" else "is not set"
            self.problems.append(
                Problem(
                    "input/unset-variable",
                    f"the environment variable {name} {said}",
                    source,
                    hint=f"set {name}, or rehearse without any account: add --sandbox",
                )
            )
            return ""
        try:
            return self.outside.read(name, spec_file)
        except SpecError as error:
            if self.outside.placeholders:
                return f"placeholder-for-{name}"
            self.problems.extend(replace(problem, source=source) for problem in error.problems)
            return ""

    def raise_problems(self) -> None:
        if self.problems:
            unique = {(problem.code, problem.message, problem.source): problem for problem in self.problems}
            raise SpecError(sorted(unique.values(), key=lambda problem: problem.source or Source("")))


@dataclass
class _Builder:
    """One spec's resources."""

    spec: Spec
    catalogue: Catalogue
    reader: _Reader

    def _each(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        yield from (self.spec.data.get("subaccounts") or {}).items()

    def subaccounts(self) -> Iterator[tuple[str, Subaccount]]:
        for name, data in self._each():
            source = self.spec.source("subaccounts", name)
            guid = self._id(name, data)
            foundry = data.get("cloud_foundry")
            yield (
                name,
                Subaccount(
                    name,
                    guid,
                    data["region"],
                    self._foundry(name, foundry, data["region"]) if foundry else None,
                    source,
                ),
            )

    def _id(self, name: str, data: Mapping[str, Any]) -> str:
        source = self.spec.source("subaccounts", name, "id")
        guid = str(self.reader.text(data["id"], source, self.spec.file))
        try:
            return str(uuid.UUID(guid))
        except ValueError:
            if self.reader.outside.placeholders:
                return str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{name}.subaccount.sandbox"))
            if guid:
                self.reader.problems.append(
                    Problem(
                        "input/not-a-guid",
                        f"the id of subaccount {name} is not a guid after its reference was filled in",
                        source,
                        hint="it looks like 5a7d1f0e-6c1b-4a51-9d67-0a4c4f1f2f10; the cockpit shows it as "
                        "the subaccount's ID",
                    )
                )
            return guid

    def _foundry(self, name: str, data: Mapping[str, Any], region: str) -> CloudFoundry:
        def text(key: str) -> str | None:
            if data.get(key) is None:
                return None
            source = self.spec.source("subaccounts", name, "cloud_foundry", key)
            return str(self.reader.text(data[key], source, self.spec.file))

        api = text("api") or api_of_landscape(text("landscape") or region)
        return CloudFoundry(api.rstrip("/"), text("org") or "", text("space"))

    def _filled(self, value: Any, *path: str | int) -> Any:
        """A value of the spec with its references filled in; what is missing is told where it stands."""
        if isinstance(value, Mapping):
            return {key: self._filled(item, *path, key) for key, item in value.items()}
        if isinstance(value, list):
            return [self._filled(item, *path, index) for index, item in enumerate(value)]
        if not isinstance(value, str) or "${" not in value:
            return value
        return self.reader.fill(value, self.spec.source(*path), self.spec.file)

    def _mark(self, name: str) -> Mark:
        return Mark(self.spec.owner, self.spec.name, name)

    def entitlements(self) -> Iterator[Resource]:
        for subaccount, data in self._each():
            for service, plans in (data.get("entitlements") or {}).items():
                for plan, want in plans.items():
                    yield Resource(
                        Address("entitlement", (subaccount, service, plan)),
                        {
                            "service": service,
                            "plan": plan,
                            "unique_id": want.get("unique_id"),
                            "amount": want["amount"],
                            "implied": False,
                        },
                        self._mark(f"{service}.{plan}"),
                        source=self.spec.source("subaccounts", subaccount, "entitlements", service, plan),
                        absent=want.get("ensure") == "absent",
                    )

    def implied(self, instances: Sequence[Resource]) -> Iterator[Resource]:
        """An instance brings its entitlement with it: at least enabled, or 1. It never lowers one."""
        for instance in instances:
            if instance.mark.spec != self.spec.name or instance.absent or not instance.requires:
                continue
            if instance.observe_only:  # it is never made, so nothing is assigned for it
                continue
            _, service, plan = instance.requires[0].path
            yield Resource(
                instance.requires[0],
                {"service": service, "plan": plan, "unique_id": None, "amount": True, "implied": True},
                self._mark(f"{service}.{plan}"),
                source=instance.source,
            )

    def instances(self) -> Iterator[Resource]:
        for subaccount, data in self._each():
            for name, want in (data.get("instances") or {}).items():
                yield self._instance(subaccount, name, want)

    def _instance(self, subaccount: str, name: str, want: Mapping[str, Any]) -> Resource:
        source = self.spec.source("subaccounts", subaccount, "instances", name)
        entitlement = Address("entitlement", (subaccount, want["service"], want["plan"]))
        absent = want.get("ensure") == "absent"
        api = self.catalogue.offered(want["service"], want["plan"])
        space = want.get("space")
        return Resource(
            Address("instance", (subaccount, name)),
            {
                "service": want["service"],
                "plan": want["plan"],
                "runtime": want["runtime"],
                "space": self.reader.text(space, source, self.spec.file) if space else None,
                "tags": tuple(want.get("tags") or ()),
                "parameters": self._filled(
                    want.get("parameters") or {}, "subaccounts", subaccount, "instances", name, "parameters"
                ),
            },
            self._mark(name),
            name=want["name"],
            requires=() if absent or want.get("entitlement") == "external" else (entitlement,),
            source=source,
            absent=absent,
            protect=bool(want.get("protect")),
            observe_only=want.get("manage") == "observe",
            adopt=_adoption(want.get("adopt")),
            owner_was=want.get("owner_was") or self.spec.owner_was,
            ignore=tuple(want.get("ignore") or ()),
            replace_on=tuple(f"parameters.{one}" for one in api.replace_on) if api else (),
            keep_old_for=int(want["keep_old_for"]),
            api=api.api if api else None,
        )

    def keys(self) -> Iterator[Resource]:
        for subaccount, data in self._each():
            for instance, want in (data.get("instances") or {}).items():
                for name, key in (want.get("keys") or {}).items():
                    yield self._key(subaccount, instance, want, name, key)

    def _key(
        self, subaccount: str, instance: str, want: Mapping[str, Any], name: str, key: Mapping[str, Any]
    ) -> Resource:
        path = ("subaccounts", subaccount, "instances", instance, "keys", name)
        return Resource(
            Address("key", (subaccount, instance, name)),
            {
                "service": want["service"],
                "plan": want["plan"],
                "runtime": want["runtime"],
                "parameters": self._filled(key.get("parameters") or {}, *path, "parameters"),
            },
            self._mark(name),
            name=key["name"],
            requires=(Address("instance", (subaccount, instance)),),
            source=self.spec.source(*path),
            absent=key.get("ensure") == "absent" or want.get("ensure") == "absent",
            observe_only=key.get("manage") == "observe" or want.get("manage") == "observe",
            adopt=_adoption(key.get("adopt")),
            owner_was=key.get("owner_was") or want.get("owner_was") or self.spec.owner_was,
            ignore=tuple(key.get("ignore") or ()),
            keep_old_for=int(key["keep_old_for"]),
        )

    def access(self, runtimes: Mapping[str, set[str]]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Credentials per subaccount, nearer wins; only what this spec's things need is read from outside.

        In a rehearsal only their names are there: which services are looked at stays the same.
        """
        everywhere = self.spec.data.get("access") or {}
        for name, data in self._each():
            near = data.get("access") or {}
            wanted = self._services(name, runtimes.get(name, ()))
            services: dict[str, Any] = {}
            for service in ("central", "service_manager", "cloud_foundry", "fingerprint_key"):
                path = (
                    ("subaccounts", name, "access", service)
                    if near.get(service) is not None
                    else ("access", service)
                )
                value = near.get(service) if near.get(service) is not None else everywhere.get(service)
                if value is None or (service != "fingerprint_key" and service not in wanted):
                    continue
                ignored = self.reader.outside.placeholders and service != "fingerprint_key"
                services[service] = {} if ignored else self._filled(value, *path)
            yield name, services

    def _services(self, subaccount: str, runtimes: Iterable[str]) -> set[str]:
        """Which services must be asked about a subaccount with instances in these runtimes.

        A subaccount's other runtime is looked at too if credentials for it are declared: that is where an
        instance that moves between runtimes comes from.
        """
        data = self.spec.data["subaccounts"][subaccount]
        declared = {*(self.spec.data.get("access") or {}), *(data.get("access") or {})}
        needed = {SERVICE_OF_RUNTIME[one] for one in runtimes}
        if "cloud_foundry" in declared and data.get("cloud_foundry"):
            needed.add("cloud_foundry")
        if "service_manager" in declared and needed:
            needed.add("service_manager")
        if "central" in declared:
            needed.add("central")
        return needed


def _adoption(value: Any) -> Adoption | None:
    if value is None:
        return None
    return Adoption(value.get("name"), value.get("id"))
