"""A drift check as metrics, for the textfile collector of Prometheus' node exporter.

One text that is valid in both formats it may be read as: "Prometheus text-based exposition format 0.0.4" and
"OpenMetrics 1.0". The collector refuses samples with a time of their own, so none has one; and it refuses everything when
two files hold the same sample, so each carries the name of its file as label `run`.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from btp_reconcile.core.fingerprint import epoch
from btp_reconcile.core.report import printable
from btp_reconcile.core.states import Health, Sync
from btp_reconcile.views.rows import rows, unseen

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

HELP: Mapping[str, str] = {
    "reconcile_last_run_timestamp_seconds": "When the last drift check ended, whether it could compare or not.",
    "reconcile_last_run_exit_code": "What the last drift check ended with; see the exit codes of reconcile.",
    "reconcile_resources": "Things that the specs speak of, by whether they are as the specs say.",
    "reconcile_health": "Things that the specs speak of, by whether they can be used.",
    "reconcile_drifted": "Things that differ from the specs, without those that a baseline accepts.",
    "reconcile_accepted": "Things that differ from the specs or wait, and are accepted by a baseline.",
    "reconcile_unknown_fields": "Fields of which nobody can say whether they are as the specs say.",
    "reconcile_objections": "Conflicts, and other things that stand against the specs.",
    "reconcile_unseen": "1 for each service of a subaccount that could not be asked.",
    "reconcile_key_created_seconds": "When this generation of a key was made, in seconds since 1970.",
    "reconcile_key_not_after_seconds": "When the certificate of a key ends, in seconds since 1970.",
    "reconcile_key_rotation_due_seconds": "When a key is due to be made anew, in seconds since 1970.",
    "reconcile_key_retire_after_seconds": "When a superseded key may be deleted, in seconds since 1970.",
    "reconcile_key_verified_seconds": "When a key was last proven to work, in seconds since 1970.",
}
"""Family → what it means. All are gauges. No quote stands here: the two formats escape it differently."""
_TIMES = {
    "reconcile_key_created_seconds": "created_at",
    "reconcile_key_not_after_seconds": "not_after",
    "reconcile_key_rotation_due_seconds": "rotation_due",
    "reconcile_key_retire_after_seconds": "retire_after",
}

Labels = tuple[tuple[str, str], ...]
Samples = dict[str, list[tuple[Labels, float]]]


def text(data: Mapping[str, Any] | None, run: str, at: float, exit_code: int) -> str:
    """The JSON of a drift check as metrics; None: it could not compare, and only that is said."""
    samples: Samples = {name: [] for name in HELP}
    samples["reconcile_last_run_timestamp_seconds"].append(((), round(at, 3)))
    samples["reconcile_last_run_exit_code"].append(((), exit_code))
    if data is not None:
        _things(data, samples)
        _keys(data.get("keys", ()), samples)
    lines = [line for name, said in samples.items() for line in _family(name, run, said)]
    return "\n".join([*lines, "# EOF", ""])


def _things(data: Mapping[str, Any], samples: Samples) -> None:
    syncs: Counter[tuple[str, str, str]] = Counter()
    healths: Counter[tuple[str, str, str]] = Counter()
    drifted: Counter[tuple[str, str]] = Counter()
    accepted: Counter[tuple[str, str]] = Counter()
    unknown: Counter[tuple[str, str]] = Counter()
    where = set()
    for row in rows(data):
        here = (row.subaccount, row.kind)
        where.add(here)
        syncs[(*here, row.sync)] += 1
        healths[(*here, row.health)] += 1
        drifted[here] += row.drifted and not row.accepted
        accepted[here] += row.accepted
        unknown[here] += sum(one["seen"] == "unknown" for one in row.fields)
    for here in sorted(where):
        place = _at(*here)
        for name, counts, words, label in (
            ("reconcile_resources", syncs, Sync, "sync"),
            ("reconcile_health", healths, Health, "health"),
        ):
            # Every word, 0 included: a series that ends says nothing, and an alert on it would not end.
            samples[name].extend(((*place, (label, str(word))), counts[(*here, str(word))]) for word in words)
        samples["reconcile_drifted"].append((place, drifted[here]))
        samples["reconcile_accepted"].append((place, accepted[here]))
        samples["reconcile_unknown_fields"].append((place, unknown[here]))
    samples["reconcile_objections"].append(((), len(data["objections"])))
    blind = sorted({(subaccount, service) for subaccount, service, _ in unseen(data)})
    samples["reconcile_unseen"].extend(
        ((("subaccount", subaccount), ("service", service)), 1) for subaccount, service in blind
    )


def _at(subaccount: str, kind: str) -> Labels:
    return (("subaccount", subaccount), ("kind", kind))


def _keys(keys: Iterable[Mapping[str, Any]], samples: Samples) -> None:
    seen: set[tuple[str, Labels]] = set()
    for row in keys:
        if "generation" not in row:
            continue
        labels = (("address", row["address"]), ("generation", str(row["generation"])))
        times = {name: row.get(key, "") for name, key in _TIMES.items()}
        times["reconcile_key_verified_seconds"] = (row.get("verified") or {}).get("at", "")
        for name, said in times.items():
            moment = epoch(said)
            # Two keys may carry the same generation; a sample may stand here once only.
            if moment is not None and (name, labels) not in seen:
                seen.add((name, labels))
                samples[name].append((labels, moment))


def _family(name: str, run: str, samples: list[tuple[Labels, float]]) -> Iterator[str]:
    if not samples:
        return
    yield f"# HELP {name} {HELP[name]}"
    yield f"# TYPE {name} gauge"
    for labels, value in samples:
        said = ",".join(f'{key}="{escaped(text_)}"' for key, text_ in (("run", run), *labels))
        yield f"{name}{{{said}}} {number(value)}"


def escaped(value: str) -> str:
    """A label's value: backslash, quote and line break are escaped; what has no place in a text is made visible."""
    shown = "\n".join(printable(line) for line in value.split("\n"))
    return shown.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
