"""A drift check as SARIF 2.1.0, for code scanning: a result for each address that differs, at its place in the spec.

"Static Analysis Results Interchange Format (SARIF) Version 2.1.0 Plus Errata 01", OASIS. What code scanning of GitHub
reads of it ("SARIF support for code scanning", GitHub Docs): a rule per result, one place, a level, and
`partialFingerprints.primaryLocationLineHash`, by which an alert is the same in the next run.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from btp_reconcile.core import baseline
from btp_reconcile.core.report import plain, printable
from btp_reconcile.views.rows import digest, field_line, objections_by_address, rows, unseen

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from btp_reconcile.views.rows import Row

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
HOME = "https://github.com/btp-reconcile/btp-reconcile"

RULES: Mapping[str, tuple[str, str, str]] = {
    "drift/missing": ("error", "Missing", "The spec wants it, and it is not there."),
    "drift/differs": ("warning", "Differs", "It is there, and differs from the spec."),
    "drift/replaced": (
        "error",
        "DiffersForGood",
        "It differs in what cannot be changed in place: applying would make a new one.",
    ),
    "drift/rotation": ("warning", "RotationDue", "A key is to be made anew."),
    "drift/extra": ("warning", "Extra", "It is there, and the spec says that it must not be."),
    "drift/unmarked": ("warning", "Unmarked", "It is there, and does not carry the mark of this spec yet."),
    "drift/conflict": ("error", "Conflict", "Something else has its name or its place."),
    "drift/waits": ("note", "Waits", "It waits for a person, or for the platform."),
    "drift/unmanaged": ("none", "Unmanaged", "It carries the mark of a spec that does not name it any more."),
    "drift/unknown": ("none", "Unknown", "It could not be compared."),
    "specs/problem": (
        "error",
        "SpecProblem",
        "The specs or their inputs are wrong, so nothing was compared.",
    ),
}
"""Rule → level, name, what it means."""
_BY_ACTION = {
    "create": "drift/missing",
    "update": "drift/differs",
    "replace": "drift/replaced",
    "rotate": "drift/rotation",
    "delete": "drift/extra",
    "adopt": "drift/unmarked",
}
Json = dict[str, Any]


def log(data: Mapping[str, Any], version: str, exit_code: int) -> Json:
    """The JSON of a drift check as a SARIF log."""
    against, files = objections_by_address(data), _files(data)
    results, told = [], set()
    for row in rows(data):
        told.add(row.address)
        if rule := _rule(row):
            source = row.source or files.get(row.subaccount) or files.get("", "")
            mine = against.get(row.address, ())
            results.append(_result(rule, row, source, mine, compared="baseline" in data))
    results += [
        _problem(one, files.get("", "")) for one in data["objections"] if one.get("address") not in told
    ]
    blind = [_notification(*one) for one in unseen(data)]
    return _log(results, blind, version, exit_code, successful=not blind)


def _files(data: Mapping[str, Any]) -> dict[str, str]:
    """Subaccount → a spec that speaks of it: the place of what stands in none. Empty: any subaccount."""
    found: dict[str, str] = {}
    for row in rows(data):
        if row.source:
            file = f"{_place(row.source)[0]}:1:1"
            found.setdefault(row.subaccount, file)
            found.setdefault("", file)
    return found


def problems(found: Sequence[Mapping[str, Any]], version: str, exit_code: int) -> Json:
    """What is wrong with the specs, each at its place."""
    return _log([_problem(one, "") for one in found], [], version, exit_code, successful=False)


def text(log_: Json) -> str:
    return json.dumps(log_, indent=2, ensure_ascii=False) + "\n"


def _log(results: list[Json], blind: list[Json], version: str, exit_code: int, *, successful: bool) -> Json:
    # A result without a place in a file makes code scanning refuse the whole log.
    lost = [one for one in results if "physicalLocation" not in one["locations"][0]]
    results = [one for one in results if "physicalLocation" in one["locations"][0]]
    told = [*blind, *({"level": "note", "message": one["message"]} for one in lost)]
    index = {rule: number for number, rule in enumerate(RULES)}
    for one in results:
        one["ruleIndex"] = index[one["ruleId"]]
    invocation: Json = {"executionSuccessful": successful, "exitCode": exit_code}
    if told:
        invocation["toolExecutionNotifications"] = told
    driver = {
        "name": "reconcile",
        "version": version,
        "informationUri": HOME,
        "rules": [
            {
                "id": rule,
                "name": name,
                "shortDescription": {"text": said},
                "defaultConfiguration": {"level": level},
            }
            for rule, (level, name, said) in RULES.items()
        ],
    }
    run = {
        "tool": {"driver": driver},
        "automationDetails": {"id": "reconcile/drift/"},
        "columnKind": "unicodeCodePoints",
        "invocations": [invocation],
        "results": results,
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(row: Row) -> str:
    """The rule of a row; empty: there is nothing to say about it."""
    if row.sync in {"conflicting", "unmanaged", "unknown"}:
        names = {"conflicting": "conflict", "unmanaged": "unmanaged", "unknown": "unknown"}
        return f"drift/{names[row.sync]}"
    if row.gate or row.action == "await":
        return "drift/waits"
    if not row.drifted:
        return ""
    if row.action in _BY_ACTION:
        return _BY_ACTION[row.action]
    return "drift/missing" if row.sync == "missing" else "drift/differs"


def _result(rule: str, row: Row, source: str, mine: Sequence[Mapping[str, Any]], *, compared: bool) -> Json:
    why = "; ".join(one["message"] for one in mine) or row.gate or row.reason
    lines = [f"{row.address}: {why}", *(field_line(one) for one in row.differing)]
    lines += [one["hint"] for one in mine if one.get("hint")]
    level = RULES[rule][0]
    result: Json = {
        "ruleId": rule,
        "kind": "informational" if level == "none" else "fail",
        "level": level,
        "message": {"text": "\n".join(printable(one) for one in lines)},
        "locations": [_location(source, row.address)],
        "partialFingerprints": {"primaryLocationLineHash": f"{digest(rule, row.address, row.id)}:1"},
        "properties": {"action": row.action or "none", "sync": row.sync, "health": row.health},
    }
    if row.fields:
        result["properties"]["fields"] = [plain(one) for one in row.fields]
    if row.change is not None:
        result["fingerprints"] = {"drift/v1": baseline.digest(row.change)}
    if compared and level != "none":
        result["baselineState"] = "unchanged" if row.accepted else "new"
    if row.accepted:
        result["suppressions"] = [{"kind": "external", "justification": "accepted by the baseline"}]
    return result


def _problem(problem: Mapping[str, Any], file: str) -> Json:
    conflict = problem["code"].startswith("conflict/")
    rule = "drift/conflict" if conflict else "specs/problem"
    said = problem["message"] + (f"\n{problem['hint']}" if problem.get("hint") else "")
    source, address = problem.get("source", "") or file, problem.get("address", "")
    return {
        "ruleId": rule,
        "kind": "fail",
        "level": "error",
        "message": {"text": "\n".join(printable(one) for one in said.splitlines())},
        "locations": [_location(source, address)],
        "partialFingerprints": {
            "primaryLocationLineHash": f"{digest(problem['code'], address, problem['message'])}:1"
        },
        "properties": {"code": problem["code"]},
    }


def _notification(subaccount: str, service: str, problem: Mapping[str, Any]) -> Json:
    where = {"fullyQualifiedName": f"subaccount:{subaccount}", "kind": "resource"}
    return {
        "descriptor": {"id": problem["code"]},
        "level": "error",
        "message": {"text": printable(f"{problem['message']} ({service})")},
        "locations": [{"logicalLocations": [where]}],
    }


def _location(source: str, address: str) -> Json:
    """A place in a spec's file, and the address as a place in the landscape."""
    location: Json = {}
    file, line, column = _place(source)
    if file:
        location["physicalLocation"] = {
            "artifactLocation": _artifact(file),
            "region": {"startLine": line, "startColumn": column},
        }
    if address:
        location["logicalLocations"] = [{"fullyQualifiedName": printable(address), "kind": "resource"}]
    return location


def _place(source: str) -> tuple[str, int, int]:
    file, line, column = [*source.rsplit(":", 2), "", ""][:3]
    if line.isdigit() and column.isdigit():
        return file, max(1, int(line)), max(1, int(column))
    return source, 1, 1


def _artifact(file: str) -> Json:
    path = file.replace("\\", "/").removeprefix("./")
    uri = quote(path.encode("utf-8", "replace"), safe="/~!$&'()*+,;=@:-._")
    if path.startswith("/"):
        return {"uri": f"file://{uri}"}
    # A colon in the first part would be read as a scheme (RFC 3986, section 4.2).
    first, slash, rest = uri.partition("/")
    return {"uri": first.replace(":", "%3A") + slash + rest, "uriBaseId": "%SRCROOT%"}
