"""Specs → resources: names, references and values from outside, in dependency order. Arithmetic only."""

from __future__ import annotations

import re
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from btp_reconcile.core import digest, recipes, shards
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
    from btp_reconcile.core.shards import Shard
    from btp_reconcile.core.validate import Spec

REFERENCE = re.compile(r"\$\$\{|\$\{(env|file):([^}]+)\}")

SERVICE_OF_RUNTIME = {"cloudfoundry": "cloud_foundry", "other": "service_manager"}
"""Where a runtime's instances live: Cloud Foundry v3, or Service Manager for the runtime `other`."""

VARIABLES = {
    "central": ("BTP_CIS_CENTRAL_KEY",),
    "service_manager": ("BTP_SERVICE_MANAGER_KEY",),
    "destination": ("BTP_DESTINATION_KEY",),
    "cloud_foundry": ("CF_USER", "CF_CLIENT_ID", "CF_ASSERTION_TOKEN", "CF_ACCESS_TOKEN", "CF_REFRESH_TOKEN"),
}
"""The environment variables that open a service when the spec says nothing: one of each row is enough."""


Places = Mapping[str, Callable[[Mapping[str, Any]], str]]


@dataclass(frozen=True)
class Outside:
    """Values from outside the spec. `read(path, spec_file)` returns a file's text or raises SpecError."""

    environment: Mapping[str, str]
    read: Callable[[str, str], str]
    placeholders: bool = False
    """Rehearsal: access is ignored, and what is not set becomes a placeholder."""
    really: frozenset[str] = frozenset()
    """Sinks that are delivered to even in a rehearsal."""
    whole: str = ""
    """Name or id of a subaccount in which everything is looked at, whatever the specs say of it."""


def resources(
    specs: Sequence[Spec],
    catalogue: Catalogue,
    outside: Outside,
    places: Places | None = None,
    shard: Shard | None = None,
) -> Wanted:
    """What all specs together want. Raises SpecError with every value from outside that is missing.

    `places`: sink → how it says where a delivery goes. `shard`: what this part of them wants; of the other subaccounts
    only ids and places are read.
    """
    reader = _Reader(outside)
    builders = [_Builder(spec, catalogue, reader) for spec in specs]
    mine: frozenset[str] | None = None
    if shard is not None:
        ids = {name: one.id for builder in builders for name, one in builder.subaccounts()}
        mine = frozenset(name for name, guid in ids.items() if shard.holds(guid))
        only = shards.near(specs, mine)
        builders = [replace(builder, only=only) for builder in builders]
    subaccounts: dict[str, Subaccount] = {}
    access: dict[str, dict[str, Any]] = {}
    entitlements: dict[Address, Resource] = {}
    instances: list[Resource] = []
    keys: list[Resource] = []
    deliveries: list[Resource] = []
    destinations: list[Resource] = []
    for builder in builders:
        for name, subaccount in builder.subaccounts():
            known = subaccounts.get(name)
            if known is None or (known.cloud_foundry is None and subaccount.cloud_foundry):
                subaccounts[name] = subaccount
        for resource in builder.entitlements():
            entitlements[resource.address] = resource
        instances.extend(builder.instances())
        keys.extend(builder.keys())
        destinations.extend(builder.destinations())
        deliveries.extend(builder.deliveries(places or {}))
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
    ordered = [
        *_accesses(builders, access),
        *sorted(entitlements.values(), key=lambda one: one.address),
        *instances,
        *keys,
        *deliveries,
        *destinations,
    ]
    owners = frozenset((spec.owner, spec.name) for spec in specs)
    wanted = Wanted(tuple(ordered), subaccounts, owners, access)
    if shard is None or mine is None:
        return wanted
    part = shards.Part(shard, shards.digest(specs), frozenset(subaccounts) - mine)
    return shards.narrowed(wanted, part)


def _accesses(builders: Sequence[_Builder], access: Mapping[str, Mapping[str, Any]]) -> Iterator[Resource]:
    """Bindings of our own that are to be there before anything can be looked at."""
    given: set[str] = set()
    for builder in builders:
        for name, _ in builder.subaccounts():
            said = access.get(name, {}).get("service_manager")
            if name in given or not _bootstraps(said) or said is None:
                continue
            given.add(name)
            binding = f"btp-reconcile-{builder.spec.owner}"
            yield Resource(
                Address("access", (name, "service_manager")),
                {"runtime": ""},
                Mark(builder.spec.owner, builder.spec.name, "service_manager"),
                name=binding,
                source=builder.spec.source("subaccounts", name, "access"),
                absent=said.get("ensure") == "absent",
            )


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
            return self.outside_value(match.group(1), match.group(2), source, spec_file)

        text = REFERENCE.sub(one, value)
        return Secret(", ".join(names), text) if names else text

    def outside_value(self, kind: str, name: str, source: Source, spec_file: str) -> str:
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
    only: frozenset[str] | None = None
    """Subaccounts whose things are read; None: all."""

    def _each(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for name, data in (self.spec.data.get("subaccounts") or {}).items():
            if self.only is None or name in self.only:
                yield name, data

    def subaccounts(self) -> Iterator[tuple[str, Subaccount]]:
        for name, data in (self.spec.data.get("subaccounts") or {}).items():
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
            renamed_from=want.get("renamed_from"),
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
                "credential_type": (key.get("credential") or {}).get("type", ""),
                "reissue_stale": bool(key.get("reissue_stale")),
                "verify": bool(key.get("verify", True)),
            },
            self._mark(name),
            name=key["name"],
            requires=(Address("instance", (subaccount, instance)),),
            source=self.spec.source(*path),
            absent=key.get("ensure") == "absent" or want.get("ensure") == "absent",
            observe_only=key.get("manage") == "observe" or want.get("manage") == "observe",
            adopt=_adoption(key.get("adopt")),
            owner_was=self._owner_was(subaccount, instance, name),
            renamed_from=key.get("renamed_from"),
            formerly=self._formerly(subaccount, instance, name),
            ignore=tuple(key.get("ignore") or ()),
            keep_old_for=int(key["keep_old_for"]),
            rotate_after=key.get("rotate_after"),
        )

    def _formerly(self, subaccount: str, instance: str, key: str, *rest: str) -> tuple[Address, ...]:
        """What a key, or a delivery of it, was called before its instance or the key itself was renamed."""
        want = self.spec.data["subaccounts"][subaccount]["instances"][instance]
        instances = [instance, want.get("renamed_from")]
        keys = [key, want["keys"][key].get("renamed_from")]
        if not instances[1] and not keys[1]:
            return ()
        names = [(one, other) for one in instances for other in keys if one and other]
        kind = "delivery" if rest else "key"
        return tuple(Address(kind, (subaccount, *both, *rest)) for both in names if both != (instance, key))

    def _owner_was(self, subaccount: str, instance: str, key: str) -> str | None:
        want = self.spec.data["subaccounts"][subaccount]["instances"][instance]
        said = want["keys"][key].get("owner_was") or want.get("owner_was") or self.spec.owner_was
        return str(said) if said else None

    def deliveries(self, places: Places) -> Iterator[Resource]:
        for subaccount, data in self._each():
            for instance, want in (data.get("instances") or {}).items():
                for name, key in (want.get("keys") or {}).items():
                    for where, said in (key.get("deliver") or {}).items():
                        if key.get("ensure") != "absent":
                            yield self._delivery((subaccount, instance, name, where), said, places)

    def _delivery(self, names: tuple[str, ...], said: Mapping[str, Any], places: Places) -> Resource:
        subaccount, instance, name, where = names
        path = ("subaccounts", subaccount, "instances", instance, "keys", name, "deliver", where)
        block = self._filled(said["block"], *path, said["sink"])
        folder = self.spec.file.rpartition("/")[0]
        config = {"sink": said["sink"], "block": block, "shape": said["shape"]}
        return Resource(
            Address("delivery", names),
            {
                "runtime": said["sink"],
                "block": {**block, "base": folder},
                "shape": said["shape"],
                "adopt": said["adopt"],
                "place": places[said["sink"]](block) if said["sink"] in places else said["sink"],
                "config": digest.of_json("config", _named(config))[:8],
            },
            self._mark(where),
            name=where,
            requires=(Address("key", names[:3]),),
            owner_was=self._owner_was(subaccount, instance, name),
            formerly=self._formerly(*names),
            source=self.spec.source(*path),
        )

    def destinations(self) -> Iterator[Resource]:
        for subaccount, data in self._each():
            for name, want in (data.get("destinations") or {}).items():
                yield self._destination(subaccount, name, want)

    def _destination(self, subaccount: str, name: str, want: Mapping[str, Any]) -> Resource:
        path = ("subaccounts", subaccount, "destinations", name)
        absent = want.get("ensure") == "absent"
        properties = {
            one: self._property(text, *path, "properties", one)
            for one, text in ({} if absent else want["properties"]).items()
        }
        keys = recipes.keys_of(want["properties"])
        return Resource(
            Address("destination", (subaccount, name)),
            {
                "runtime": "",
                "properties": properties,
                "keys": keys,
                "secret": tuple(one for one, text in properties.items() if recipes.secret_in(one, text)),
                "recipe": want.get("recipe"),
            },
            self._mark(name),
            name=want["name"],
            requires=keys,
            source=self.spec.source(*path),
            absent=absent,
            protect=bool(want.get("protect")),
            observe_only=want.get("manage") == "observe",
            adopt=Adoption() if want.get("adopt") else None,
            owner_was=want.get("owner_was") or self.spec.owner_was,
            ignore=tuple(want.get("ignore") or ()),
        )

    def _property(self, text: str, *path: str) -> Any:
        """The text with what comes from outside put in; what is to come from keys stays as it is written."""
        source, names = self.spec.source(*path), []

        def one(match: re.Match[str]) -> str:
            if match.group(0) == "$${":
                return "$${"
            names.append(f"{match.group(1)}:{match.group(2)}")
            outside = self.reader.outside_value(match.group(1), match.group(2), source, self.spec.file)
            return recipes.escaped(outside)

        whole = REFERENCE.sub(one, text)
        return Secret(", ".join(names), whole) if names else whole

    def access(self, runtimes: Mapping[str, set[str]]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Credentials per subaccount, nearer wins; only what this spec's things need is read from outside.

        In a rehearsal only their names are there: which services are looked at stays the same.
        """
        everywhere = self.spec.data.get("access") or {}
        for name, data in self._each():
            near = data.get("access") or {}
            wanted = self._services(name, runtimes.get(name, ()))
            services: dict[str, Any] = {}
            sinks = sorted({one["sink"] for one in _deliveries(data)})
            for service in (*_DOORS, "fingerprint_key", *sinks):
                path = (
                    ("subaccounts", name, "access", service)
                    if near.get(service) is not None
                    else ("access", service)
                )
                value = near.get(service) if near.get(service) is not None else everywhere.get(service)
                own = service == "fingerprint_key" or service in self.reader.outside.really
                if value is None or not (own or service in wanted or service in sinks):
                    continue
                ignored = self.reader.outside.placeholders and not own
                kept = {one: value[one] for one in _BOOTSTRAP if one in value} if _bootstraps(value) else {}
                services[service] = kept if ignored or kept else self._filled(value, *path)
            yield name, services

    def _services(self, subaccount: str, runtimes: Iterable[str]) -> set[str]:
        """Which services must be asked about a subaccount with instances in these runtimes.

        A subaccount's other runtime is looked at too if credentials for it are declared: that is where an
        instance that moves between runtimes comes from.
        """
        data = self.spec.data["subaccounts"][subaccount]
        whole = self.reader.outside.whole
        if whole and whole.lower() in {subaccount, self._id(subaccount, data).lower()}:
            return set(_DOORS) - {"destination"}
        declared = {*(self.spec.data.get("access") or {}), *(data.get("access") or {})}
        needed = {SERVICE_OF_RUNTIME[one] for one in runtimes}
        if "cloud_foundry" in declared and data.get("cloud_foundry"):
            needed.add("cloud_foundry")
        if "service_manager" in declared and needed:
            needed.add("service_manager")
        if "central" in declared:
            needed.add("central")
        if "destinations" in data or "destination" in (data.get("access") or {}):
            needed.add("destination")
        return needed


_DOORS = ("central", "service_manager", "cloud_foundry", "destination")


_BOOTSTRAP = ("bootstrap", "key", "ensure")


def _bootstraps(value: Any) -> bool:
    return isinstance(value, Mapping) and value.get("bootstrap") is True


def _deliveries(subaccount: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for instance in (subaccount.get("instances") or {}).values():
        for key in (instance.get("keys") or {}).values():
            yield from (key.get("deliver") or {}).values()


def _named(value: Any) -> Any:
    """A value in which secrets are their names."""
    if isinstance(value, Mapping):
        return {key: _named(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_named(item) for item in value]
    return str(value) if isinstance(value, Secret) else value


def _adoption(value: Any) -> Adoption | None:
    if value is None:
        return None
    return Adoption(value.get("name"), value.get("id"))
