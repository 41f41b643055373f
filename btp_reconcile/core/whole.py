"""One spec made whole: layers merged, defaults put in, `api` looked up, and the sum checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from re import fullmatch
from typing import TYPE_CHECKING, Any, Protocol

from btp_reconcile.core import across, destinations, lifetimes, merge, recipes, schema as words
from btp_reconcile.core.lifetimes import seconds
from btp_reconcile.core.merge import WRONG, Document, Node, Path
from btp_reconcile.core.model import Address, Source
from btp_reconcile.core.shape import Found, Walker, near, suggestion
from btp_reconcile.core.suspicion import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from btp_reconcile.core.catalogue import Api, Catalogue

ACCESS = "btp-reconcile-access"
"""The instance by whose key we open a subaccount's Destination service, with `bootstrap: true`."""
_PARTS = ("cloud_foundry", "entitlements", "instances", "destinations")
"""What of a template goes into a subaccount."""


@dataclass(frozen=True)
class Spec:
    """One spec, whole: layers merged, defaults put in, `api` looked up. References are still texts."""

    file: str
    owner: str
    owner_was: str | None
    name: str
    data: Mapping[str, Any]
    """`access`, and `subaccounts` with their `entitlements`, `instances` and these their `keys`, `destinations`."""
    places: Mapping[Path, Source]
    """Path in `data` → where it was written. What was not written has no place."""

    def source(self, *path: str | int) -> Source:
        """Where this, or the nearest thing around it, was written."""
        for length in range(len(path), 0, -1):
            place = self.places.get(path[:length])
            if place:
                return place
        return Source(self.file)


class Judge(Protocol):
    """Who knows whether parameters fit what the catalogue says of them."""

    def check(
        self, node: Node | None, owner: Node, api: Api, schema: Mapping[str, Any], address: Address
    ) -> None:
        """Note what is wrong with the parameters at `node`, which stand in `owner`."""


@dataclass
class Reader:
    """What all specs are read with."""

    walker: Walker
    catalogue: Catalogue
    judge: Judge
    found: Found
    warned: Found
    objections: Callable[[str, Mapping[str, Any]], Iterable[str]] = lambda *_: ()
    """What is wrong with what a sink is told."""
    walked: dict[int, Node] = field(default_factory=dict)
    familiar: set[tuple[str, str | None]] = field(default_factory=set)
    """Services and plans about which there is nothing to say."""

    def layered(self, document: Document) -> Node:
        """A document over those it extends. A name is never inherited: it tells specs apart."""
        known = self.walked.get(id(document))
        if known:
            return known
        own = self.walker.walk(merge.nodes(document))
        told = own.value.pop("extends", None)
        result = own
        if document.extends:
            place = told.place if told else own.place
            bases = [merge.borrowed(self.layered(one), place) for one in document.extends]
            below = bases[0]
            for base in bases[1:]:
                below = merge.merge(below, base)
            inherited = {
                name: node for name, node in below.value.items() if name not in {"name", "catalogue"}
            }
            result = merge.merge(below._replace(value=inherited), own)
        self.walked[id(document)] = result
        return result


class Whole:
    """One spec in the making."""

    def __init__(self, reader: Reader, document: Document) -> None:
        self.reader = reader
        self.found, self.warned, self.catalogue = reader.found, reader.warned, reader.catalogue
        self.document = document
        self.top = reader.layered(document)
        self.places: dict[Path, Source] = {}
        self.declared = across.Declared(document.file)

    def spec(self) -> Spec:
        start = Source(self.document.file)
        if self.top.get("version") is None:
            self.found.say("spec/missing", "'version' is missing", start, "start the file with `version: 1`")
        owner = self._top_text("owner")
        if self.top.get("owner") is None:
            self.found.say(
                "spec/missing",
                "'owner' is missing",
                start,
                "add `owner: my-team`: who answers for what this spec makes; it is stamped on all of it",
            )
        name = self._name()
        self.declared = across.Declared(self.document.file, owner, name)
        data: dict[str, Any] = {"access": self._access(self.top, ()), "subaccounts": {}}
        self._templates()
        subaccounts = self.top.get("subaccounts")
        for subaccount, node in subaccounts.items() if subaccounts else ():
            if node.value is not WRONG:
                data["subaccounts"][subaccount] = self._subaccount(subaccount, node)
        if not data["subaccounts"]:
            self.warned.say(
                "spec/nothing",
                "this spec names no subaccount, so it asks for nothing",
                start,
                "nothing is deleted for that; add a subaccount under `subaccounts`",
            )
        return Spec(self.document.file, owner, self._top_text("owner_was") or None, name, data, self.places)

    def _top_text(self, name: str) -> str:
        node = self.top.get(name)
        return node.value if node and isinstance(node.value, str) else ""

    def _name(self) -> str:
        if self.top.get("name"):
            return self._top_text("name")
        file = self._file()
        stem = file.rpartition(".")[0] or file
        if not fullmatch(words.NAME, stem):
            self.found.say(
                "spec/name",
                f"the file's name would be the spec's name, and {shown(stem)} cannot be one",
                Source(self.document.file),
                "add `name: …`: small letters and digits, with . _ - between them, at most 63",
            )
        return stem

    def _access(self, node: Node, path: Path) -> dict[str, Any]:
        access = node.get("access")
        if access is None or access.value is WRONG:
            return {}
        merge.places(access, (*path, "access"), self.places)
        return dict(merge.plain(access))

    def _templates(self) -> None:
        """Warn of this file's own templates that nobody uses."""
        templates = self.document.data.get("templates")
        used = {
            item.value
            for _, subaccount in (self.top.get("subaccounts") or _NOTHING).items()
            for item in _list(subaccount.get("use"))
        }
        for name in templates if isinstance(templates, dict) and not self._a_base() else ():
            node = self.top.get("templates", name)
            if node and name not in used:
                self.warned.say(
                    "spec/unused-template",
                    f"no subaccount uses the template '{name}'",
                    node,
                    f"add `use: [{name}]` to a subaccount, or take the template away",
                )

    def _a_base(self) -> bool:
        return self._file().startswith("_")

    def _file(self) -> str:
        """The file's name without its folder."""
        return self.document.file.rpartition("/")[2]

    # --- subaccounts -------------------------------------------------------------------------------------

    def _subaccount(self, name: str, node: Node) -> dict[str, Any]:
        node = self._with_templates(node)
        path: Path = ("subaccounts", name)
        self.places[path] = node.place
        for needed, hint in (
            ("id", "add `id: …`, the subaccount's ID as the cockpit shows it"),
            ("region", "add `region: …`, like eu10"),
        ):
            if node.get(needed) is None:
                self.found.say("spec/missing", f"subaccount {name} has no '{needed}'", node, hint)
        data: dict[str, Any] = {"access": self._access(node, path)}
        for simple in ("id", "region"):
            written = node.get(simple)
            if written and isinstance(written.value, str):
                data[simple] = (
                    written.value.lower() if fullmatch(words.GUID, written.value) else written.value
                )
                self.places[(*path, simple)] = written.place
        foundry = self._foundry(node, path, data.get("region"))
        if foundry:
            data["cloud_foundry"] = foundry
        self.declared.subaccounts.append((name, node))
        node = self._bootstrapped(node, data)
        data["entitlements"] = self._entitlements(node, name)
        data["instances"] = self._instances(node, name, data)
        if (
            node.get("destinations") is not None
        ):  # an empty map asks, too: what it no longer names can be pruned
            data["destinations"] = self._destinations(node, name)
        self._opened(node, name)
        return data

    def _bootstrapped(self, node: Node, data: dict[str, Any]) -> Node:
        """What `bootstrap: true` stands for: an instance and a key as anybody could declare them, and access by that key."""
        for service in ("service_manager", "destination"):
            given = node.get("access", service) or self.top.get("access", service)
            asked = given.get("bootstrap") if given is not None else None
            others = [one for one in ("service_key", "key") if given is not None and given.get(one)]
            if asked is not None and asked.value is True and others:
                self.found.say(
                    "spec/access-key",
                    f"access.{service} says both bootstrap and {others[0]}",
                    asked,
                    "keep one of them",
                )
        given = node.get("access", "destination") or self.top.get("access", "destination")
        asked = given.get("bootstrap") if given is not None else None
        if asked is None or asked.value is not True or not node.get("destinations"):
            return node
        if node.get("instances", ACCESS):
            self.found.say(
                "spec/access-key",
                f"the instance name {ACCESS} is taken by bootstrap",
                node.get("instances", ACCESS) or asked,
                "give the instance another name",
            )
            return node
        manager = node.get("access", "service_manager") or self.top.get("access", "service_manager")

        def made(value: Any) -> Node:
            if isinstance(value, dict):
                value = {key: made(below) for key, below in value.items()}
            return Node(value, asked.place, asked.place)

        runtime = "other" if manager is not None else "cloudfoundry"
        said = {"service": "destination", "plan": "lite", "runtime": runtime, "keys": {"destination": {}}}
        data["access"]["destination"] = {"key": f"{ACCESS}/destination", "bootstrap": True}
        instances = node.get("instances")
        below = {**(instances.value if instances else {}), ACCESS: made(said)}
        return node._replace(value={**node.value, "instances": Node(below, asked.place, asked.place)})

    def _with_templates(self, node: Node) -> Node:
        """Templates in the order of `use`, then the subaccount's own words."""
        below: Node | None = None
        known = self.top.get("templates")
        for item in _list(node.get("use")):
            template = known.get(item.value) if known and isinstance(item.value, str) else None
            if template is None or template.value is WRONG:
                if item.value is not WRONG and (template is None):
                    names = [name for name, _ in known.items()] if known else []
                    hint = suggestion(item.value, names, "templates") or "write it under `templates` first"
                    self.found.say(
                        "spec/unknown-template", f"there is no template {shown(item.value)}", item, hint
                    )
                continue
            layer = merge.borrowed(template, item.at)
            below = layer if below is None else merge.merge(below, layer)
        if below is None:
            return node
        layers = {part: below.value[part] for part in _PARTS if part in below.value}
        merged = merge.merge(below._replace(value=layers, also=()), node)
        return merged._replace(also=())

    def _foundry(self, node: Node, path: Path, region: str | None) -> dict[str, Any]:
        foundry = node.get("cloud_foundry")
        if foundry is None or foundry.value is WRONG:
            return {}
        merge.places(foundry, (*path, "cloud_foundry"), self.places)
        api, landscape = foundry.get("api"), foundry.get("landscape")
        if api and landscape:
            self.found.say(
                "spec/landscape-and-api",
                "both a landscape and an API's URL are given",
                api,
                "the one stands for the other: keep one",
                also=(landscape.place,),
            )
        if foundry.get("org") is None:
            self.found.say(
                "spec/missing",
                "cloud_foundry has no 'org'",
                foundry,
                "add `org: …`, the name of the subaccount's organization",
            )
        data = dict(merge.plain(foundry))
        if not api and not landscape and region:
            data["landscape"] = region
        return data

    def _entitlements(self, node: Node, subaccount: str) -> dict[str, Any]:
        data: dict[str, Any] = {}
        written = node.get("entitlements")
        for service, plans in written.items() if written else ():
            self.familiar(service, None, plans)
            for plan, wish in self.present(plans, "entitlement"):
                address = Address("entitlement", (subaccount, service, plan))
                path: Path = ("subaccounts", subaccount, "entitlements", service, plan)
                merge.places(wish, path, self.places)
                said = merge.plain(wish)
                said = said if isinstance(said, dict) else {"amount": said}
                wanted = {"amount": True, "ensure": "present", **said}
                data.setdefault(service, {})[plan] = wanted
                self.declared.entitlements.append(
                    across.Entitlement(address, wish, wanted["amount"], wanted["ensure"] == "absent")
                )
        return data

    def present(self, node: Node | None, what: str) -> Iterator[tuple[str, Node]]:
        """What a map of names holds, usable. Warns of a null that removes nothing: `{}` was meant."""
        for name, below in node.value.items() if node and isinstance(node.value, dict) else ():
            if below.value is None:
                right = "true" if what == "entitlement" else "{}"
                self.warned.say(
                    "spec/empty-removes",
                    f"{what} '{name}' is empty, which means: none",
                    below.key,
                    f"write `{name}: {right}` if you want it with nothing special; else take the line away",
                )
            elif not below.gone and below.value is not WRONG:
                yield name, below

    # --- instances and keys ------------------------------------------------------------------------------

    def _instances(self, node: Node, subaccount: str, data: Mapping[str, Any]) -> dict[str, Any]:
        defaults = self.top.get("defaults")
        result = {}
        for name, written in self.present(node.get("instances"), "instance"):
            inherited = {
                field: merge.borrowed(below, written.key)
                for field, below in (defaults or _NOTHING).items()
                if field not in written.value
            }
            whole = written._replace(value={**inherited, **written.value})
            result[name] = _Instance(self, subaccount, name, whole, data).normalised()
        return result

    def _destinations(self, node: Node, subaccount: str) -> dict[str, Any]:
        defaults = self.top.get("defaults")
        result = {}
        for name, written in self.present(node.get("destinations"), "destination"):
            path: Path = ("subaccounts", subaccount, "destinations", name)
            merge.places(written, path, self.places)
            made = destinations.whole(subaccount, name, written, defaults, self.catalogue, self.found)
            result[name], declared = made
            self.declared.destinations.append(declared)
        return result

    def _opened(self, node: Node, subaccount: str) -> None:
        """The declared key by which the Destination service of this subaccount is opened, if one is named."""
        near = node.get("access", "destination") or self.top.get("access", "destination")
        if near is None or (node.get("access", "destination") is None and not node.get("destinations")):
            return
        written = near.get("key")
        key = (
            recipes.address(written.value, subaccount) if written and isinstance(written.value, str) else None
        )
        if written and near.get("service_key"):
            self.found.say(
                "spec/access-key",
                "access.destination gives both a service key and the name of one",
                written,
                "keep one of them",
            )
        elif written and key:
            self.declared.opened.append(destinations.Opened(subaccount, key, written))

    def familiar(self, service: str, plan: str | None, node: Node) -> None:
        """Warn of a service that is nearly one we know, or of a plan that a service we know does not have."""
        if (service, plan) in self.reader.familiar:
            return
        services = sorted({api.service for api in self.catalogue.apis})
        if service not in services:
            close = near(service, services, 0.88)
            if not close:
                self.reader.familiar.add((service, plan))
            if close:
                self.warned.say(
                    "spec/unfamiliar-service",
                    f"'{service}' is not in the catalogue, and '{close}' is",
                    node,
                    f"write '{close}', if that is meant",
                )
        elif plan is not None:
            plans = sorted({api.plan for api in self.catalogue.apis if api.service == service})
            self.warned.say(
                "spec/unfamiliar-plan",
                f"the catalogue knows no plan '{plan}' of {service}",
                node,
                suggestion(plan, plans, "known plans"),
            )


@dataclass
class _Instance:
    """One instance of one subaccount, merged."""

    whole: Whole
    subaccount: str
    name: str
    node: Node
    around: Mapping[str, Any]
    """The normalised subaccount, as far as it is known."""

    def __post_init__(self) -> None:
        self.address = Address("instance", (self.subaccount, self.name))
        self.path: Path = ("subaccounts", self.subaccount, "instances", self.name)

    def say(self, code: str, message: str, node: Node | Source, hint: str, *also: Source) -> None:
        self.whole.found.say(code, message, node, hint, self.address, also)

    def value(self, name: str, default: Any = None) -> Any:
        """A field's plain value; None when it is not given or not usable."""
        node = self.node.get(name)
        if node is None:
            return default
        return None if node.value is WRONG else merge.plain(node)

    def normalised(self) -> dict[str, Any]:
        merge.places(self.node, self.path, self.whole.places)
        api = self._api()
        service, plan = self._service(api)
        runtime = self._runtime()
        space = self._space(runtime)
        known = api or (self.whole.catalogue.offered(service, plan) if service and plan else None)
        if known:
            self._against(known)
        elif service:
            self.whole.familiar(service, plan, self.node.get("service") or self.node)
        self._ignored("instance", self.node)
        data: dict[str, Any] = {
            **({"api": api.api} if api else {}),
            "service": service,
            "plan": plan,
            "runtime": runtime,
            "name": self.value("name", self.name),
            **({"space": space} if space else {}),
            "parameters": self.value("parameters", {}),
            "tags": self.value("tags", []),
            "entitlement": self.value("entitlement", "managed"),
            "protect": self.value("protect", known.protect if known else False),
            "ensure": self.value("ensure", "present"),
            "adopt": _adoption(self.value("adopt")),
            "manage": self.value("manage", "full"),
            "ignore": self.value("ignore", []),
            "keep_old_for": seconds(self.value("keep_old_for")),
            **{one: self.value(one) for one in ("owner_was", "renamed_from") if self.node.get(one)},
        }
        data["keys"] = self._keys(data, known)
        self.whole.declared.instances.append(
            across.Instance(
                self.address,
                self.node,
                data["name"] or self.name,
                (self.subaccount, runtime or "", space or ""),
                (service or "", plan or ""),
                data["ensure"] == "absent",
            )
        )
        return data

    def _api(self) -> Api | None:
        node = self.node.get("api")
        if node is None or not isinstance(node.value, str):
            return None
        api = self.whole.catalogue.named(node.value)
        if api is None:
            names = [one.api for one in self.whole.catalogue.apis]
            service = next((one for one in self.whole.catalogue.apis if one.service == node.value), None)
            hint = (
                f"'{node.value}' is a service; write `api: {service.api}`"
                if service
                else suggestion(node.value, names)
            )
            self.say(
                "spec/unknown-api",
                f"the catalogue knows no API {shown(node.value)}",
                node,
                f"{hint.rstrip('?')}{'?' if hint.endswith('?') else ''} (any other service works with `service` and `plan`)",
            )
        return api

    def _service(self, api: Api | None) -> tuple[str | None, str | None]:
        service, plan = self.node.get("service"), self.node.get("plan")
        if api:
            for field_name, node, right in (("service", service, api.service), ("plan", plan, api.plan)):
                if node and node.value not in (right, WRONG):
                    self.say(
                        "spec/api-and-service",
                        f"`api: {api.api}` stands for {field_name} '{right}', and {shown(node.value)} is written",
                        node,
                        f"keep `api`, or `service` and `plan`: take `{field_name}` or `api` away",
                    )
            return api.service, api.plan
        if self.node.get("api") is None and not (service and plan):
            if service or plan:
                missing = "plan" if service else "service"
                message = f"instance {self.name} has no '{missing}'"
                hint = f"add `{missing}: …`, or give `api: NAME` in place of both"
            else:
                message = f"instance {self.name} does not say what it is an instance of"
                hint = "add `api: NAME` (`reconcile catalogue` lists the names), or `service` and `plan`"
            self.say("spec/missing", message, self.node, hint)
        return self.value("service"), self.value("plan")

    def _runtime(self) -> str | None:
        if self.node.get("runtime") is None:
            self.say(
                "spec/missing",
                f"instance {self.name} has no 'runtime'",
                self.node,
                "add `runtime: cloudfoundry` (in a space) or `runtime: other` (Service Manager), here or under "
                "`defaults`; it is never guessed",
            )
        runtime = self.value("runtime")
        tags = self.node.get("tags")
        if runtime == "other" and tags and tags.value:
            self.say("spec/tags", "tags exist on Cloud Foundry only", tags, "take `tags` away")
        if tags and sum(len(tag.value) for tag in _list(tags) if isinstance(tag.value, str)) > 2048:
            self.say("spec/tags", "the tags have more than 2048 characters together", tags, "shorten them")
        return runtime if isinstance(runtime, str) else None

    def _space(self, runtime: str | None) -> str | None:
        own, foundry = self.node.get("space"), self.around.get("cloud_foundry") or {}
        if runtime != "cloudfoundry":
            if own and runtime == "other":
                self.say(
                    "spec/space",
                    "spaces exist on Cloud Foundry only, and this instance's runtime is other",
                    own,
                    "take `space` away, or write `runtime: cloudfoundry`",
                )
            return None
        place = self.whole.places.get(self.path[:2])
        also = (place,) if place else ()
        if not foundry.get("org"):
            if "cloud_foundry" not in self.around:
                self.say(
                    "spec/no-org",
                    f"instance {self.name} is for Cloud Foundry, and subaccount {self.subaccount} names no organization",
                    self.node,
                    "add `cloud_foundry: {org: …, space: …}` to the subaccount",
                    *also,
                )
            return None
        space: str | None = self.value("space") or foundry.get("space")
        if not space and not own:
            self.say(
                "spec/no-space",
                f"instance {self.name} has no space",
                self.node,
                "add `space: …` here, or under the subaccount's `cloud_foundry`",
                *also,
            )
        return space

    def _against(self, api: Api) -> None:
        """What the catalogue knows of this service and plan."""
        self.whole.reader.judge.check(
            self.node.get("parameters"), self.node, api, api.parameters, self.address
        )
        region = self.around.get("region")
        if region and api.regions and str(region)[:4] not in api.regions:
            place = self.whole.places.get((*self.path[:2], "region"), self.node.place)
            self.whole.warned.say(
                "spec/region-not-known",
                f"{api.api} is not known to be offered in {region}",
                place,
                f"known: {', '.join(api.regions)}; the platform has the last word",
                self.address,
                (self.node.place,),
            )

    def _ignored(self, kind: str, node: Node) -> None:
        """Paths under `ignore` must begin with a field."""
        fields = self.whole.reader.walker.language["$defs"][kind]["properties"]
        for item in _list(node.get("ignore")):
            head = item.value.split(".")[0] if isinstance(item.value, str) else ""
            if head and head not in fields:
                self.say(
                    "spec/ignore",
                    f"'{head}' is no field, so there is nothing to ignore",
                    item,
                    f"write for instance parameters.{head}"
                    if head.isidentifier()
                    else "write for instance tags",
                )

    def _keys(self, instance: Mapping[str, Any], api: Api | None) -> dict[str, Any]:
        result = {}
        for name, node in self.whole.present(self.node.get("keys"), "key"):
            address = Address("key", (*self.address.path, name))
            if api:
                schema = api.key_parameters
                self.whole.reader.judge.check(node.get("parameters"), node, api, schema, address)
            key = _Instance(self.whole, self.subaccount, self.name, node, self.around)
            key.address = address
            result[name] = key._as_key(name, instance)
            self.whole.declared.keys.append(
                across.Key(address, node, result[name]["name"] or name, self.address)
            )
        return result

    def _as_key(self, name: str, instance: Mapping[str, Any]) -> dict[str, Any]:
        ensure = self.value("ensure", instance["ensure"])
        if instance["ensure"] == "absent" and ensure == "present":
            self.say(
                "spec/absent-instance",
                f"key {name} is to be present in an instance that is to be absent",
                self.node.get("ensure") or self.node,
                "take `ensure` away from one of the two",
            )
        self._ignored("key", self.node)
        own_time = self.value("keep_old_for")
        kept = seconds(own_time) if own_time else instance["keep_old_for"]
        api = self.whole.catalogue.offered(instance["service"] or "", instance["plan"] or "")
        credential = lifetimes.credential(self, api)
        return {
            "name": self.value("name", name),
            "parameters": lifetimes.parameters(self, api, credential),
            **lifetimes.said(self, credential, kept, self.whole.reader.objections),
            "ensure": ensure,
            "adopt": _adoption(self.value("adopt")),
            "manage": self.value("manage", instance["manage"]),
            "ignore": self.value("ignore", []),
            "keep_old_for": kept,
            **{one: self.value(one) for one in ("owner_was", "renamed_from") if self.node.get(one)},
        }


_NOTHING = Node({}, Source(""), Source(""))


def _list(node: Node | None) -> list[Node]:
    return node.value if node and isinstance(node.value, list) else []


def _adoption(said: Any) -> dict[str, str] | None:
    """`adopt` in one form: None, {} for the declared name, {name} or {id}."""
    if isinstance(said, dict):
        return said
    return {} if said is True else None
