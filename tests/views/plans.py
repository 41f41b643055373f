"""Plans in their JSON form, for views: every action and state, hostile names, and as many changes as one likes."""

from __future__ import annotations

from typing import Any

from btp_reconcile.core.model import Action

HOSTILE = (
    "<script>alert(1)</script>",
    '"onload=alert(1) x="',
    "'><img src=x onerror=alert(1)>",
    "a\u202egnp.exe",
    "zero\u200bwidth\x1b[31m",
    "| a | b |",
    "```\n# big\n```",
    "`` ` ``` ````",
    "@octocat #123 org/repo#1 GH-26 !7 ~bug",
    "https://evil.example www.evil.example me@evil.example",
    "--> <!-- -->",
    "</pre></code></details></style></script>",
    "[link](javascript:alert(1)) ![image](//evil.example/x.png) <https://evil.example>",
    "&lt;b&gt; &amp; &#60;",
    "line\r\n/close\u2028\u2029",
    "\ud800 half",
    '\\\\ \\n \\" %0A ${x} {{x}}',
)
"""What a name or a message can be when others choose it."""
PLACES = {
    "prod": {"id": "5a7d1f0e-6c1b-4a51-9d67-0a4c4f1f2f10", "region": "eu10"},
    "test": {"id": "0b1f6f4e-2d3c-4c59-8a57-1f0d3c2b4a02", "region": "us10"},
}


def change(address: str, action: str = "create", **more: Any) -> dict[str, Any]:
    drifted = action not in {"keep", "await", "retire"}
    said = {
        "address": address,
        "action": action,
        "reason": "not there yet",
        "generation": 1,
        "drifted": drifted,
    }
    return {**said, "sync": "missing" if drifted else "in-sync", "health": "ready", **more}


def field(path: str, before: Any, after: Any, **more: Any) -> dict[str, Any]:
    return {"path": path, "before": before, "after": after, "seen": "observed", "changes": True, **more}


def plan(*changes: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The JSON form of a plan with these changes."""
    counts = {str(action): 0 for action in Action} | {"gate": 0}
    for one in changes:
        counts["gate" if one.get("gate") else one["action"]] += 1
    return {
        "format": "btp-reconcile/plan",
        "version": 1,
        "kind": "plan",
        "digest": "0" * 64,
        "specs": ["finance-platform/prod"],
        "summary": counts,
        "subaccounts": PLACES,
        "changes": list(changes),
        "unplanned": [],
        "objections": [],
        "unmanaged": [],
        "unseen": [],
        "forecast": {},
        "warnings": [],
        **more,
    }


def found(name: str, **more: Any) -> dict[str, Any]:
    return {"id": f"id-of-{name}", "name": name, "phase": "ready", "runtime": "cloudfoundry", **more}


def every_action(**more: Any) -> dict[str, Any]:
    """One landscape in which everything happens at once."""
    entitled = "entitlement:prod/apimanagement-apiportal/apiportal-apiaccess"
    role = field(
        "parameters.role", "APIPortal.Guest", "APIPortal.Administrator", seen="assumed", forces_replace=True
    )
    unknown = field("parameters.secret", None, "<secret env:X>", seen="unknown", changes=False, note="no key")
    named = {
        "code": "conflict/exists",
        "message": "an instance named 'afc' is there, and nobody's",
        "hint": "adopt it",
    }
    return plan(
        change(entitled, "keep", reason="", found=found("", phase="ready")),
        change("entitlement:test/afc-api-service/standard", reason="not assigned yet"),
        change(
            "instance:prod/apim",
            "replace",
            reason="differs: parameters.role; that cannot be changed in place",
            generation=2,
            creates="apim-2",
            needs=[entitled],
            fields=[role, unknown],
            found=found("apim", space="apis"),
            retired=[found("apim", space="apis")],
            source="specs/prod.yaml:31:7",
            sync="drifted",
        ),
        change(
            "key:prod/apim/transport",
            "rotate",
            generation=2,
            creates="transport-2",
            needs=["instance:prod/apim"],
        ),
        change("key:prod/apim/old", "delete", reason="no spec names it any more", retired=[found("old")]),
        change("key:prod/apim/pipeline", "retire", reason="its time is over", retired=[found("pipeline")]),
        change("delivery:prod/apim/transport/store", "update", needs=["key:prod/apim/transport"]),
        change("destination:prod/APIManagement", "adopt", needs=["key:prod/apim/transport"], sync="drifted"),
        change(
            "instance:test/afc",
            "await",
            gate="somebody must subscribe Advanced Financial Closing first",
            needs=["entitlement:test/afc-api-service/standard"],
            health="blocked",
        ),
        change("key:test/afc/task-center", "await", needs=["instance:test/afc"], health="pending"),
        change(
            "destination:test/APIManagement",
            "update",
            needs=["key:prod/apim/transport"],
            fields=[
                field("URL", "https://old.example", "https://new.example"),
                field("URL.headers", None, {"x": [1, True, None]}),
            ],
        ),
        objections=[{**named, "address": "instance:test/afc", "source": "specs/prod.yaml:40:7"}],
        unseen=[
            {"code": "platform/unseen", "message": "Cloud Foundry of test did not answer"},
            {"code": "access/none", "message": "nobody gave access to the Service Manager of prod"},
        ],
        unmanaged=[
            {
                "address": "key:prod/apim/gone",
                "sync": "unmanaged",
                "health": "ready",
                "kind": "key",
                "subaccount": "prod",
                "instance": "apim",
                "mark": {"spec": "prod", "name": "gone"},
                **found("gone"),
            }
        ],
        unplanned=[
            {
                "address": "key:test/x/y",
                "reason": "it needs instance:test/x",
                "sync": "unknown",
                "health": "blocked",
            }
        ],
        warnings=[
            {"code": "spec/region", "message": "the region is not known", "source": "specs/prod.yaml:3:3"}
        ],
        forecast={"writes": {"x": 100}, "seconds": 240.0, "because": "200 creates at 50 a minute"},
        **more,
    )


def checked(text: str = "key:prod/apim/pipeline") -> dict[str, Any]:
    """What a drift check says more than a plan: ages of keys, and what a baseline knows."""
    row = {
        "address": text,
        "name": text,
        "generation": 2,
        "state": "current",
        "age_seconds": 20 * 86_400 + 5,
        "not_after": "2026-01-05T00:00:00Z",
        "ends_in_seconds": 86_400,
        "rotation_due": "2026-01-02T00:00:00Z",
        "delivered": [
            {"to": f"delivery:prod/apim/pipeline/{text.rpartition('/')[2]}", "place": text, "at": "then"}
        ],
        "verified": {"at": "2026-01-01T00:00:00Z", "verdict": "ok"},
    }
    known = change(f"instance:prod/{text}", "update", reason=text, accepted=True)
    return plan(
        known,
        kind="drift",
        keys=[row, {"address": "key:prod/apim/absent", "state": "missing"}],
        baseline={"accepted": 1, "gone": [{"address": text, "about": text}]},
    )


def hostile(text: str) -> dict[str, Any]:
    """The same text wherever something comes from a spec or a platform."""
    problem = {"code": text, "message": text, "hint": text, "source": text, "address": text}
    return plan(
        change(
            f"instance:prod/{text}",
            "replace",
            reason=text,
            gate="",
            creates=text,
            needs=[f"key:{text}/x", "entitlement:prod/x/y"],
            fields=[
                field(text, text, {text: [text]}, note=text),
                field(text, None, text, seen="unknown", changes=False, note=text),
            ],
            found=found(text, id=text, space=text, phase=text),
            retired=[found(text, id=text)],
            notes=[text],
            name=text,
            source=text,
            sync=text,
            health=text,
        ),
        change(f"key:{text}/x", reason=text, gate=text),
        change("entitlement:prod/x/y", "keep", reason=text, notes=[text]),
        specs=[text],
        subaccounts={**PLACES, text: {"id": text, "region": text}},
        objections=[problem],
        unseen=[problem, {**problem, "code": "access/none"}],
        warnings=[problem],
        unmanaged=[
            {
                "address": text,
                "sync": text,
                "health": text,
                "kind": text,
                "subaccount": text,
                "instance": text,
                "mark": {"spec": text, "name": text},
                **found(text),
            }
        ],
        unplanned=[{"address": text, "reason": text, "sync": text, "health": text}],
        forecast={"writes": {}, "seconds": 90.0, "because": text},
        digest=text,
    )


def large(count: int) -> dict[str, Any]:
    """So many changes, in chains of five, in subaccounts of a hundred."""
    changes = []
    places = {}
    for number in range(count // 5):
        name = f"sub-{number // 20}"
        places[name] = {"id": f"0b1f6f4e-2d3c-4c59-8a57-{number // 20:012}", "region": "eu10"}
        service = f"service-{number % 20}"
        chain = [
            f"entitlement:{name}/{service}/standard",
            f"instance:{name}/{service}",
            f"key:{name}/{service}/pipeline",
            f"delivery:{name}/{service}/pipeline/vault",
            f"destination:{name}/{service}",
        ]
        needs = [None, chain[0], chain[1], chain[2], chain[2]]
        for place, (address, need) in enumerate(zip(chain, needs, strict=True)):
            action = ("create", "update", "keep", "delete", "rotate")[(number + place) % 5]
            changes.append(
                change(
                    address,
                    action,
                    needs=[need] if need else [],
                    fields=[field("parameters.role", "APIPortal.Guest", f"role of {number}")],
                )
            )
    return plan(*changes, subaccounts=places)
