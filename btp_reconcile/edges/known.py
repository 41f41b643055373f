"""What is known of the platform while a run goes on: facts of the plan, and what the run has made since."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from btp_reconcile.core import fingerprint
from btp_reconcile.core.errors import Blame, PlatformError
from btp_reconcile.core.kind import Task
from btp_reconcile.core.model import Address, Fact, Secret, Seen, Verb

if TYPE_CHECKING:
    from collections.abc import Mapping

    from btp_reconcile.core.model import Change, Facts, Plan, Step, Wanted


class Known:
    """What is known of the platform while the run goes on, and the tasks made from it."""

    def __init__(self, plan: Plan, wanted: Wanted, facts: Facts) -> None:
        self.wanted = wanted
        self.plans: dict[tuple[str, str, str, str], Fact] = {}
        self.spaces: dict[tuple[str, str], Fact] = {}
        self.instances: dict[str, Fact] = {}
        self.newest: dict[Address, Fact] = {}
        """The newest generation of each instance and key, as far as it is there."""
        for fact in facts.all:
            if fact.kind == "plan":
                service = str(fact.attributes.get("service"))
                self.plans.setdefault((fact.subaccount, fact.runtime, service, fact.name), fact)
            elif fact.kind == "space":
                self.spaces[fact.subaccount, fact.name] = fact
            elif fact.kind == "instance":
                self.instances[fact.id] = fact
        for change in (*plan.beside, *plan.changes):
            if change.address.kind in {"instance", "key"} and change.found is not None:
                self.newest[change.address] = change.found

    def key(self, address: Address) -> Fact:
        """The newest generation of a key, to be tried or handed over. Raises PlatformError when there is none."""
        found = self.newest.get(address)
        if found is None:
            said = f"{address} was neither found nor made, so there is nothing to try or to hand over"
            raise PlatformError(Blame("apply", message=f"{said}; run again: it is planned anew"))
        return found

    def task(self, step: Step, change: Change) -> Task:
        """A step with all that is known about it now."""
        spec: Mapping[str, Any] = change.send
        if step.verb is Verb.CREATE and change.wanted is not None and not spec:
            spec = change.wanted.spec
        return Task(
            step,
            change.wanted,
            self.wanted.subaccounts[step.address.subaccount],
            step.found,
            self._parent(step, change),
            self._plan(step, change),
            spec,
            self._fingerprint(step, change),
        )

    def _parent(self, step: Step, change: Change) -> Fact | None:
        if step.address.kind == "instance" and change.wanted is not None:
            return self.spaces.get((step.address.subaccount, str(change.wanted.spec.get("space"))))
        if step.address.kind == "delivery" and change.wanted is not None:
            return self.newest.get(change.wanted.requires[0])
        if step.address.kind != "key":
            return None
        if step.found is not None and step.verb is not Verb.CREATE:
            return self.instances.get(step.found.parent or "")
        return self.newest.get(Address("instance", step.address.path[:2]))

    def _plan(self, step: Step, change: Change) -> Fact | None:
        """The service plan as the marketplace shows it; or as the generation of before names it, if it is the same."""
        if step.address.kind != "instance" or change.wanted is None:
            return None
        spec, found = change.wanted.spec, change.found
        runtime, service, plan = spec["runtime"], spec["service"], spec["plan"]
        known = self.plans.get((step.address.subaccount, runtime, service, plan))
        if known is not None or found is None or not found.attributes.get("plan_id"):
            return known
        said = (found.runtime, found.attributes.get("service"), found.attributes.get("plan"))
        if said != (runtime, service, plan):
            return None
        plan_id = str(found.attributes["plan_id"])
        return Fact("plan", plan_id, plan, found.subaccount, attributes={"service": service}, runtime=runtime)

    def _fingerprint(self, step: Step, change: Change) -> str:
        """The record to write beside the thing: of what is sent, or what is there if that can be believed."""
        if change.wanted is None or step.address.kind not in {"instance", "key"}:
            return ""
        key = self.wanted.access.get(step.address.subaccount, {}).get("fingerprint_key")
        if step.verb is Verb.CREATE or "parameters" in change.send:
            parameters = change.wanted.spec.get("parameters", {})
            return fingerprint.write(parameters, key if isinstance(key, Secret) else None)
        if step.found is not None:
            believed = fingerprint.trust(step.found.fingerprint, step.found.operation).seen is Seen.ASSUMED
            return fingerprint.bare(step.found.fingerprint) if believed else ""
        return ""
