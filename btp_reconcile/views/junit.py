"""A drift check as JUnit XML, for what CI systems show of tests.

JUnit has no standard. What is written here is valid by `junit-10.xsd` of Jenkins' xUnit plugin, which the others read too:
`testsuites` › a `testsuite` per subaccount › a `testcase` per address.

    failure    it differs, is missing, or is in conflict
    error      it could not be seen
    skipped    it waits for a person or for the platform; it is known and accepted; it is unmanaged
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET  # only written here, never read

from btp_reconcile.core.report import printable
from btp_reconcile.views.rows import field_line, objections_by_address, rows, unseen

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from btp_reconcile.views.rows import Row

SPECS = "specs"
"""The suite of what belongs to no subaccount."""
_RESULTS = ("failure", "error", "skipped")


def text(data: Mapping[str, Any]) -> str:
    """The JSON of a drift check as JUnit XML. Characters that XML or a terminal cannot bear are made visible."""
    suites: dict[str, list[ET.Element]] = {name: [] for name in data["subaccounts"]}
    told = set()
    against = objections_by_address(data)
    blind = {subaccount for subaccount, _, _ in unseen(data)}
    for row in rows(data):
        case = _case(row, against.get(row.address, ()), blind=row.subaccount in blind)
        suites.setdefault(row.subaccount, []).append(case)
        told.add(row.address)
    for subaccount, service, problem in unseen(data):
        case = _named(f"{subaccount}.{service}", f"subaccount:{subaccount} {service}")
        _result(case, "error", problem["code"], problem["message"], [problem.get("hint", "")])
        suites.setdefault(subaccount, []).append(case)
    for problem in data["objections"]:
        if problem.get("address") not in told:
            suites.setdefault(SPECS, []).append(_problem(problem, "failure"))
    return _written(suites, data.get("now", ""))


def problems(found: Sequence[Mapping[str, Any]]) -> str:
    """What is wrong with the specs, as a suite of its own: nothing was compared."""
    return _written({SPECS: [_problem(one, "error") for one in found]}, "")


def _case(row: Row, against: Sequence[Mapping[str, Any]], *, blind: bool) -> ET.Element:
    case = _named(f"{row.subaccount}.{row.kind}", f"{row.address} {row.id}".rstrip())
    lines = [field_line(one) for one in (row.differing or row.fields)]
    lines += [f"note: {one}" for one in row.notes]
    lines += [f"at: {row.source}"] if row.source else []
    if row.accepted:
        _result(case, "skipped", row.sync, f"known and accepted: {row.gate or row.reason}", lines)
    elif row.sync == "conflicting":
        _result(case, "failure", row.sync, *_against(row, against, lines))
    elif row.sync == "unknown":
        _result(case, "error" if blind else "skipped", row.sync, row.reason, lines)
    elif row.gate or row.action == "await":
        _result(case, "skipped", row.health, row.gate or row.reason, lines)
    elif row.sync == "unmanaged":
        _result(case, "skipped", row.sync, row.reason, lines)
    elif row.drifted:
        _result(case, "failure", row.sync, row.reason, lines)
    return case


def _against(row: Row, mine: Sequence[Mapping[str, Any]], lines: list[str]) -> tuple[str, list[str]]:
    """The conflict, and what can be done about it."""
    message = "; ".join(one["message"] for one in mine) or row.reason
    return message, [*lines, *(one["hint"] for one in mine if one.get("hint"))]


def _problem(problem: Mapping[str, Any], how: str) -> ET.Element:
    where = problem.get("address") or problem.get("source") or problem["code"]
    case = _named(f"{SPECS}.{problem['code'].partition('/')[0]}", f"{problem['code']} {where}")
    lines = [problem.get("hint", ""), f"at: {problem['source']}" if problem.get("source") else ""]
    _result(case, how, problem["code"], problem["message"], lines)
    return case


def _named(group: str, name: str) -> ET.Element:
    return ET.Element("testcase", classname=printable(group), name=printable(name), time="0")


def _result(case: ET.Element, what: str, kind: str, message: str, lines: Iterable[str]) -> None:
    found = ET.SubElement(case, what, type=printable(kind), message=printable(message))
    found.text = "\n".join(printable(one) for one in (message, *lines) if one)


def _written(suites: Mapping[str, Sequence[ET.Element]], now: str) -> str:
    count = {
        one: _count(case for cases in suites.values() for case in cases if case.find(one) is not None)
        for one in _RESULTS
    }
    root = ET.Element(
        "testsuites",
        name="reconcile drift",
        tests=str(sum(map(len, suites.values()))),
        failures=str(count["failure"]),
        errors=str(count["error"]),
    )
    for name, cases in suites.items():
        if not cases:
            continue
        tally = {one: str(_count(case for case in cases if case.find(one) is not None)) for one in _RESULTS}
        suite = ET.SubElement(
            root,
            "testsuite",
            name=printable(name),
            tests=str(len(cases)),
            failures=tally["failure"],
            errors=tally["error"],
            skipped=tally["skipped"],
            time="0",
        )
        if now:
            suite.set("timestamp", now.removesuffix("Z"))
        suite.extend(cases)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _count(some: Iterable[Any]) -> int:
    return sum(1 for _ in some)
