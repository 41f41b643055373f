"""Faults on demand: rules that say which request goes wrong, and how.

A rule is JSON: ``{"do": what, "match": {...}, "at": n | "every": n, "times": n, ...}``, kept with the world. ``at`` is the
n-th fitting request counted from when the rule was added, ``every`` each n-th, and neither means each one. ``times``
ends a rule after so many faults. What fits is said by ``match``; what is left out fits everything:

- of requests: ``method``; ``host``, exactly or with ``*``, else the hosts that give such an answer; ``path`` and ``body``
  as regular expressions; ``name`` and ``offering`` for requests about an instance or key of that name, or about
  instances of that offering;
- of operations (the last three below): ``name`` of the instance or key, ``offering``, ``plan``, and ``verb``: provision,
  update, deprovision, bind, unbind or assign.

=====================  =========================================================================================
do                     what happens (in capitals: what the rule can say about it, and what is meant otherwise)
=====================  =========================================================================================
``refuse``             the connection breaks before anything is done
``lose``               the work is done and the answer is lost
``reset``              the work is done and the connection breaks in the middle of the answer
``slow``               the answer takes SECONDS (60)
``status``             an answer of your own: STATUS (500), BODY, HEADERS
``html``               the page of a gateway: STATUS 404, 429, 502 (which it is), 503 or 504
``502``                the same as html
``503``                the gateway's 503 in plain text
``unknown-route``      the router's 404 for a host without an application
``redirect``           STATUS 302 to a foreign host: TO (https://evil.example), then the path that was asked for
``cf-401``             1000, the token is not valid
``cf-409``             60016, another operation is under way
``cf-429``             10013 as text/plain, with Retry-After and X-RateLimit-*: SECONDS (7)
``cf-ip-429``          10014, the same for requests without a token
``cf-broker-429``      10016, too many requests to brokers: SECONDS (30)
``cf-uaa-429``         20008, the UAA's limit
``cf-500``             10001 UnknownError
``cf-10015``           503, ServiceUnavailable
``cf-20004``           503, UaaUnavailable
``cf-503``             the same as cf-20004
``cf-job-gone``        404 for every job
``sm-429``             REQUESTS (600), Retry-After as an HTTP date SECONDS (30) from now
``sm-429-go``          Retry-After as Go writes a date
``sm-429-operator``    the same as sm-429-go
``sm-429-none``        without Retry-After
``sm-broker-422``      502 with broker_error 422: DESCRIPTION
``sm-broker-500``      502 with broker_error 500: DESCRIPTION
``sm-busy``            422, another operation is under way
``sm-operation-gone``  404 for every operation
``cis-429``            11006 and 11007, REQUESTS (5) in WINDOW (3) seconds, X-Ratelimit-Reset SECONDS (10) from now
``cis-429-bare``       the same without the header
``cis-locked``         30004, locked by another change
``cis-job-gone``       404 for every job
``uaa-429``            429 where tokens are issued: SECONDS (5)
``expire-tokens``      every token issued so far is dead from this request on
``lock-account``       USER (everybody) gets no token by password for SECONDS (300)
``empty``              the work is done, and the answer is STATUS 200 without a body
``truncated``          the work is done, and half of the answer's body is missing
``content-type``       the work is done, and the answer says that it is TYPE (text/html)
``huge``               the work is done, and the answer's body has SIZE (20000000) bytes and more
``mutated``            one member of the answer is missing or of another type: HOW (any), MEMBER, SEED (0)
``out-of-order``       lists come shuffled: SEED (0)
``small-pages``        a page holds SIZE (2) things at most
``clock-skew``         the header Date is SECONDS (3600) ahead
``broker-failure``     the broker refuses: STATUS (500) or async, DESCRIPTION, CODE; once, unless TIMES says more
``stuck``              an operation never ends, even if this is cleared: PHASE ("in progress") or "initial"
``async-unbind``       the broker takes time to unbind, so that deleting an instance with keys fails once
=====================  =========================================================================================

Every answer that is given instead of the work can also be given AFTER it, with other STATUS, HEADERS and BODY.
"""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from btp_reconcile.sandbox.fault_answers import SPOILING, answer, spoil
from btp_reconcile.sandbox.fault_catalogue import CATALOGUE, OPTIONS, VERBS, WHICH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from contextlib import AbstractContextManager

    from btp_reconcile.sandbox.http import Request, Response
    from btp_reconcile.sandbox.world import Ticket, World

Rule = dict[str, Any]
ALWAYS = ("do", "match", "at", "every", "times")
COUNTED = ("id", "seen", "struck", "last")
"""What the sandbox notes in a rule."""


class Lost(Exception):
    """The connection broke. ``done`` says whether the work had been done before."""

    def __init__(self, *, done: bool) -> None:
        super().__init__(
            "the answer was lost after the work was done" if done else "the connection was refused"
        )
        self.done = done


# ----------------------------------------------------------------------------------------------------------------------
# Rules that make sense


def checked(rule: Mapping[str, Any]) -> Rule:
    """A rule that can be kept; for one that says nothing ``ValueError`` or ``TypeError``, with the nearest right word."""
    if not isinstance(rule, dict):
        raise TypeError(f"a fault is an object, not {rule!r}")
    row: Rule = {name: value for name, value in json.loads(json.dumps(rule)).items() if name not in COUNTED}
    deed = row.get("do")
    if not isinstance(deed, str) or deed not in CATALOGUE:
        raise ValueError(f"a fault named {deed!r} is not known{_nearest(deed, CATALOGUE)}")
    allowed = (*ALWAYS, *CATALOGUE[deed].options)
    for name in row:
        if name not in allowed:
            hint = f"; it has {', '.join(allowed[2:])}" if name in OPTIONS else _nearest(name, allowed)
            raise ValueError(f"a fault {deed} has no {name}{hint}")
    _check_match(deed, row.get("match", {}))
    for name in ("at", "every", "times"):
        if name in row and (not _whole(row[name]) or row[name] < 1):
            raise ValueError(f"a fault's {name} is a whole number from 1, not {row[name]!r}")
    if "at" in row and "every" in row:
        raise ValueError("a fault strikes at one request or at every so many, not both")
    for name in CATALOGUE[deed].options:
        if name in row:
            _check_option(deed, name, row[name])
    return row


def _nearest(word: Any, known: Iterable[str]) -> str:
    names = list(known)
    found = difflib.get_close_matches(str(word), names, 1, 0.5)
    return f"; did you mean {found[0]}?" if found else f"; there are {', '.join(names)}"


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_match(deed: str, match: Any) -> None:
    if not isinstance(match, dict):
        raise TypeError(f"a fault's match is an object, not {match!r}")
    known = WHICH[CATALOGUE[deed].of]
    for name, value in match.items():
        if name not in known:
            elsewhere = any(name in names for names in WHICH.values())
            hint = f"; it can match {', '.join(known)}" if elsewhere else _nearest(name, known)
            raise ValueError(f"a fault {deed} cannot match {name}{hint}")
        if not isinstance(value, str):
            raise TypeError(f"a fault's {name} is a text, not {value!r}")
    for name in ("path", "body"):
        _check_pattern(name, match.get(name, ""))
    verb = match.get("verb", VERBS[0])
    if verb not in VERBS:
        raise ValueError(f"a fault's verb is not {verb}{_nearest(verb, VERBS)}")


def _check_pattern(name: str, pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"a fault's {name} is a regular expression, and {pattern!r} is none: {error}"
        ) from None


def _check_option(deed: str, name: str, value: Any) -> None:
    wanted = "a text"
    right = isinstance(value, str)
    if name == "status":
        orders = deed == "broker-failure"
        wanted = "a number from 400 to 599, or async" if orders else "a number from 200 to 599"
        right = (_whole(value) and (400 if orders else 200) <= value <= 599) or (orders and value == "async")
    elif name == "seconds":
        wanted = "a number" if deed == "clock-skew" else "a number from 0"
        right = isinstance(value, int | float) and not isinstance(value, bool)
        right = right and (deed == "clock-skew" or value >= 0)
    elif name in {"size", "requests", "window", "seed"}:
        wanted = "a whole number" if name == "seed" else "a whole number from 1"
        right = _whole(value) and (name == "seed" or value >= 1)
    elif name == "headers":
        wanted = "an object of texts"
        right = isinstance(value, dict) and all(isinstance(one, str | None) for one in value.values())
    elif name == "after":
        wanted, right = "true or false", isinstance(value, bool)
    elif name == "body":
        right = True
    elif name in {"how", "phase"}:
        choices = ("any", "drop", "retype") if name == "how" else ("in progress", "initial")
        wanted, right = " or ".join(choices), value in choices
    if not right:
        raise ValueError(f"a fault's {name} is {wanted}, not {value!r}")
    if name == "member":
        _check_pattern(name, value)


def described(rule: Mapping[str, Any]) -> str:
    """A rule in words, for people."""
    match = rule.get("match", {})
    parts = [f"{name} {match[name]}" for name in sorted(match)]
    if "at" in rule:
        parts.append(f"at number {rule['at']}")
    if "every" in rule:
        parts.append(f"every {rule['every']}")
    if "times" in rule:
        parts.append(f"{rule['times']} times at most")
    parts += [f"{name} {json.dumps(rule[name])}" for name in OPTIONS if name in rule]
    parts.append(f"seen {rule['seen']}, struck {rule['struck']}")
    if "last" in rule:
        parts.append(f"last: {rule['last']}")
    return f"{rule['do']}: {', '.join(parts)}"


# ----------------------------------------------------------------------------------------------------------------------
# Which rule strikes


def _struck(rule: Rule) -> bool:
    """Counts what fits, and says whether this one goes wrong."""
    rule["seen"] += 1
    times = rule.get("times", CATALOGUE[rule["do"]].defaults.get("times"))
    if times is not None and rule["struck"] >= times:
        return False
    if ("at" in rule and rule["seen"] != rule["at"]) or ("every" in rule and rule["seen"] % rule["every"]):
        return False
    rule["struck"] += 1
    return True


def _rules(world: World, of: str) -> list[Rule]:
    rules: list[Rule] = world.state["faults"].get("rules", [])
    return [rule for rule in rules if CATALOGUE[rule["do"]].of == of]


def _fits(world: World, rule: Rule, request: Request) -> bool:
    fault, match = CATALOGUE[rule["do"]], rule.get("match", {})
    hosts = (match["host"],) if "host" in match else fault.hosts
    match = {**fault.match, **match}
    return (
        match.get("method", request.method).upper() == request.method
        and (not hosts or any(fnmatchcase(request.host, host.lower()) for host in hosts))
        and ("path" not in match or re.search(match["path"], request.path) is not None)
        and (
            "body" not in match
            or re.search(match["body"], request.body.decode("utf-8", "replace")) is not None
        )
        and all(_about(world, request, what, match[what]) for what in ("name", "offering") if what in match)
    )


def _about(world: World, request: Request, what: str, value: str) -> bool:
    """Whether a request is about an instance or key of this name, or about instances of this offering."""
    sent = request.body.decode("utf-8", "replace")
    try:
        said = set(_texts(json.loads(sent)))
    except ValueError:
        said = set()
    for _, text in request.query:
        said |= {*text.split(","), *re.findall(r"'([^']*)'", text)}
    if value in said:
        return True
    everywhere = f"{request.path} {' '.join(said)}"
    return any(one in everywhere for one in _ids(world, what, value))


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for below in value.values() if isinstance(value, dict) else value:
            yield from _texts(below)


def _ids(world: World, what: str, value: str) -> set[str]:
    """The ids of instances, of what is bound to them, and of the jobs that work on any of these."""
    found: set[str] = set()
    if what == "offering":
        from btp_reconcile.sandbox.cloud_controller import catalogue
        from btp_reconcile.sandbox.sm_instances import every_plan, plan_id

        found.update(plan_id(item, plan) for item, plan in every_plan(world) if item.name == value)
        spaces = world.rows("cf.spaces").values()
        for landscape in {row["landscape"] for row in spaces}:
            listed = catalogue.plans(world, landscape)
            found.update(guid for guid, plan in listed.items() if plan.offering.name == value)
    for name in ("cf.service_instances", "sm.instances"):
        found.update(guid for guid, row in world.rows(name).items() if row.get(what) == value)
    for name, instance in (
        ("cf.service_credential_bindings", "instance"),
        ("sm.bindings", "service_instance_id"),
    ):
        rows = world.rows(name).items()
        found.update(guid for guid, row in rows if row[instance] in found or row.get(what) == value)
    found.update(guid for guid, job in world.rows("cf.jobs").items() if job["resource"] in found)
    return found


@dataclass
class Verdict:
    """What the rules say about one request."""

    refuse: bool = False
    lose: bool = False
    cut: bool = False
    response: Response | None = None
    after: bool = False
    delay: float = 0.0
    spoiling: list[Rule] = field(default_factory=list)
    bent: dict[str, int] = field(default_factory=dict)

    def spoilt(self, world: World, response: Response) -> Response:
        """The answer after all that befalls it on its way."""
        for rule in self.spoiling:
            response = spoil(world, rule, response)
            self.cut |= rule["do"] == "reset"
        return response


def judge(world: World, request: Request) -> Verdict:
    """Counts one request against every rule, and says what befalls it."""
    verdict = Verdict()
    for rule in _rules(world, "request"):
        if _fits(world, rule, request) and _struck(rule):
            _condemn(world, request, rule, verdict)
    return verdict


def _condemn(world: World, request: Request, rule: Rule, verdict: Verdict) -> None:
    deed, options = rule["do"], {**CATALOGUE[rule["do"]].defaults, **rule}
    if deed == "refuse":
        verdict.refuse = True
    elif deed == "lose":
        verdict.lose = True
    elif deed == "slow":
        verdict.delay += float(options["seconds"])
    elif deed == "expire-tokens":
        from btp_reconcile.sandbox import tokens

        tokens.expire_all(world)
    elif deed == "lock-account":
        from btp_reconcile.sandbox import tokens

        tokens.lock(world, options.get("user"), float(options["seconds"]))
    elif deed in SPOILING:
        verdict.spoiling.append(rule)
        if deed == "small-pages":
            verdict.bent["page_size"] = int(options["size"])
        elif deed == "out-of-order":
            verdict.bent["shuffle"] = int(options["seed"])
    else:
        verdict.response, verdict.after = answer(world, request, rule), bool(rule.get("after"))


# ----------------------------------------------------------------------------------------------------------------------
# What brokers and workers ask


def _operation(
    world: World, deed: str, verb: str, names: tuple[Any, ...], offering: str, plan: str
) -> Rule | None:
    """The rule that strikes an operation; each that fits counts it."""
    found = None
    for rule in _rules(world, "operation"):
        match = {**CATALOGUE[rule["do"]].match, **rule.get("match", {})}
        fits = (
            rule["do"] == deed
            and match.get("verb", verb) == verb
            and match.get("offering", offering) == offering
            and match.get("plan", plan) == plan
            and ("name" not in match or match["name"] in names)
        )
        if fits and _struck(rule) and found is None:
            found = rule
    return found


def broker_failure(
    world: World, verb: str, names: tuple[Any, ...], offering: str, plan: str
) -> Mapping[str, Any] | None:
    """How a broker refuses this: ``status``, ``description``, and perhaps ``code``."""
    rule = _operation(world, "broker-failure", verb, names, offering, plan)
    return None if rule is None else {**CATALOGUE["broker-failure"].defaults, **rule}


def async_unbind(world: World, names: tuple[Any, ...], offering: str, plan: str) -> bool:
    """Whether a broker that unbinds at once takes its time for this one."""
    return _operation(world, "async-unbind", "unbind", names, offering, plan) is not None


def stuck(
    world: World, verb: str, names: tuple[Any, ...], offering: str, plan: str
) -> tuple[str, Ticket] | None:
    """The phase in which an operation stays for ever, and the ticket of that; None if it goes on."""
    rule = _operation(world, "stuck", verb, names, offering, plan)
    if rule is None:
        return None
    return str(rule.get("phase", CATALOGUE["stuck"].defaults["phase"])), world.never()


# ----------------------------------------------------------------------------------------------------------------------
# The rules of one sandbox


class Faults:
    """The rules of one sandbox."""

    def __init__(self, hold: Callable[[], AbstractContextManager[World]]) -> None:
        self._hold = hold

    def add(self, rule: Mapping[str, Any]) -> int:
        """One more rule; it counts requests from now on. Returns its number."""
        row = checked(rule)
        with self._hold() as world:
            rules: list[Rule] = world.state["faults"].setdefault("rules", [])
            number = 1 + max((int(one.get("id", 0)) for one in rules), default=0)
            rules.append({"id": number, **row, "seen": 0, "struck": 0})
        return number

    def cut(self, n: int, when: str) -> None:
        """Cuts the n-th request from now: ``before`` or ``after`` the work is done, or ``amid`` the answer."""
        self.add({"at": n, "do": {"before": "refuse", "after": "lose", "amid": "reset"}[when]})

    def remove(self, names: Iterable[str | int]) -> int:
        """Takes away the rules with these numbers, or that do this; says how many. ``LookupError`` if one is unknown."""
        with self._hold() as world:
            rules: list[Rule] = world.state["faults"].get("rules", [])
            known = {str(rule.get("id", 0)): int(rule.get("id", 0)) for rule in rules}
            gone: set[int] = set()
            for name in map(str, names):
                found = {int(rule.get("id", 0)) for rule in rules if rule["do"] == name}
                if name in known:
                    found.add(known[name])
                if not found:
                    here = [rule["do"] for rule in rules] + list(known)
                    raise LookupError(f"there is no fault {name}" + (_nearest(name, here) if here else ""))
                gone |= found
            world.state["faults"]["rules"] = [rule for rule in rules if rule.get("id", 0) not in gone]
            return len(gone)

    def clear(self) -> None:
        """No rules any more."""
        with self._hold() as world:
            world.state["faults"].pop("rules", None)

    def rules(self) -> list[Rule]:
        """The rules, with what they have seen and struck."""
        with self._hold() as world:
            rows: list[Rule] = json.loads(json.dumps(world.state["faults"].get("rules", [])))
            return rows
