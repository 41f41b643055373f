"""What a service answers to who watches it: `/metrics`, `/healthz`, `/readyz`, and a line for each check.

No secret is in any of it: the JSON of a check holds none, and of broken specs only codes and places are told.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from btp_reconcile.core import record
from btp_reconcile.core.states import Health, Sync
from btp_reconcile.core.watch import FORMAT, RESULTS, VERSION
from btp_reconcile.views import metrics
from btp_reconcile.views.rows import Row, rows, unseen

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from btp_reconcile.core.watch import Status

TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Prometheus' text format, in which these metrics are written."""
RUN = "service"
"""What stands in the label `run`; the file's name stands there in metrics for the node exporter."""
MOST_PROBLEMS = 20


def figures(status: Status, notified: Mapping[str, int]) -> str:
    """The last check as metrics, and how the service itself is doing."""
    lines = [
        *_family("reconcile_checks_total", "counter", "Drift checks that have ended.", status.checks),
        *_family(
            "reconcile_check_failures_total",
            "counter",
            "Drift checks that could not see everything, or could not be made.",
            status.failures,
        ),
        *_family(
            "reconcile_check_interval_seconds", "gauge", "How often the drift is checked.", status.every
        ),
        *_family(
            "reconcile_process_start_time_seconds", "gauge", "When the service started.", status.started
        ),
        *_family(
            "reconcile_spec_errors", "gauge", "Problems of the specs as they are now.", len(status.problems)
        ),
        "# HELP reconcile_requests_total Requests sent to the platforms, repeated ones included.",
        "# TYPE reconcile_requests_total counter",
        *(
            f'reconcile_requests_total{{service="{metrics.escaped(name)}"}} {number}'
            for name, number in sorted(status.requests.items())
        ),
    ]
    lines += [
        "# HELP reconcile_notifications_total Notifications of a new state, by how they went.",
        "# TYPE reconcile_notifications_total counter",
        *(
            f'reconcile_notifications_total{{result="{word}"}} {notified.get(word, 0)}'
            for word in ("failed", "sent")
        ),
    ]
    if status.ended is not None:
        lines += _family(
            "reconcile_check_duration_seconds", "gauge", "How long the last check took.", status.seconds
        )
    if status.succeeded is not None:
        said = "When the last check ended that saw everything, in seconds since 1970."
        lines += _family("reconcile_last_success_timestamp_seconds", "gauge", said, status.succeeded)
    text = "\n".join([*lines, ""])
    if status.ended is None or status.code is None:
        return text
    return text + metrics.text(status.data, RUN, status.ended, status.code)


def _family(name: str, kind: str, said: str, value: float) -> tuple[str, str, str]:
    return f"# HELP {name} {said}", f"# TYPE {name} {kind}", f"{name} {metrics.number(round(value, 3))}"


def health(status: Status, now: float, why: str) -> str:
    """How it is, as JSON. `why` says what is wrong; empty: nothing."""
    data: dict[str, Any] = {
        "status": "failing" if why else "ok",
        **({"why": why} if why else {}),
        "checks": status.checks,
        "failures": status.failures,
        "interval_seconds": status.every,
        "up_seconds": round(max(0.0, now - status.started), 3),
    }
    if status.ended is not None and status.code is not None:
        data["last_check"] = record.moment(status.ended)
        data["last_result"] = RESULTS[status.code]
    if status.succeeded is not None:
        data["last_success"] = record.moment(status.succeeded)
    if status.problems:
        data["spec_errors"] = len(status.problems)
        data["problems"] = list(status.problems[:MOST_PROBLEMS])
    return json.dumps(data, ensure_ascii=False) + "\n"


def check(
    data: Mapping[str, Any] | None, code: int, at: float, seconds: float, problems: int = 0
) -> dict[str, Any]:
    """One check in one line: what differs, what could not be seen, and which keys end soon."""
    found: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "at": record.moment(at),
        "code": code,
        "result": RESULTS[code],
        "seconds": round(seconds, 3),
        "resources": {str(word): 0 for word in Sync},
        "drifted": [],
        "unseen": [],
        "objections": [],
        "expiring": [],
        "spec_errors": problems,
    }
    if data is None:
        return found
    shown = list(rows(data))
    found["resources"] |= Counter(row.sync for row in shown)
    found["drifted"] = [
        {"address": row.address, "sync": row.sync, "reason": row.reason, **_author(row)}
        for row in shown
        if row.drifted and not row.accepted
    ]
    blind = sorted({(subaccount, service) for subaccount, service, _ in unseen(data)})
    found["unseen"] = [{"subaccount": subaccount, "service": service} for subaccount, service in blind]
    found["objections"] = [
        {"code": one["code"], **({"address": one["address"]} if "address" in one else {})}
        for one in data["objections"]
    ]
    found["expiring"] = list(_expiring(data))
    return found


def _author(row: Row) -> dict[str, Any]:
    author = row.change.get("changed_by") if row.change is not None else None
    return {} if author is None else {"changed_by": author}


def _expiring(data: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    soon = {row.address for row in rows(data) if row.health == Health.EXPIRING}
    for one in data.get("keys", ()):
        if one["address"] in soon and one.get("state") == "current" and "not_after" in one:
            yield {"address": one["address"], "not_after": one["not_after"]}


def line(found: Mapping[str, Any]) -> str:
    """One check as a line for people."""
    counts = ", ".join(f"{number} {word}" for word, number in found["resources"].items() if number)
    parts = [f"{found['at']} {found['result']}: {counts or 'nothing could be compared'}"]
    if found["drifted"]:
        parts.append("differs: " + ", ".join(one["address"] for one in found["drifted"]))
    if found["unseen"]:
        parts.append(
            "not seen: " + ", ".join(f"{one['service']} of {one['subaccount']}" for one in found["unseen"])
        )
    if found["expiring"]:
        parts.append("ends soon: " + ", ".join(one["address"] for one in found["expiring"]))
    if found["spec_errors"]:
        parts.append(f"the specs have {found['spec_errors']} problem(s)")
    return "; ".join(parts)
