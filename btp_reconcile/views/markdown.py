"""A plan or a report as one comment of a review: found again by its first line, and never over the size it may have.

Whatever comes from a spec or from the platform stands in a fenced block or in escaped HTML, where neither Markdown nor
what GitHub and GitLab make of `@name` and `#123` is alive. Only numbers and our own words stand outside.
"""

from __future__ import annotations

import hashlib
import re
import textwrap
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from btp_reconcile.core import report
from btp_reconcile.core.report import printable, steps_done
from btp_reconcile.core.verdict import verdicts_text

MAX_SIZE = 65_000
"""Bytes. A comment on GitHub holds 65,536 characters, one on GitLab 1,000,000 (their published limits)."""
LEAST = 2_000
"""Fewer bytes would not hold even what must be said."""

_WIDTH = 100
"""Columns of a fenced block; longer lines are broken, because a review does not."""
_TO_SAY_THE_REST = 400
"""Bytes kept for the words on what was left out."""
_LONG = 200
"""Characters of a reason beside a count."""
_NAME = re.compile(r"[a-z0-9][a-z0-9._/, -]{0,150}")

_Item = Sequence[str]
"""The lines of one change or problem; the first names it."""


@dataclass
class _Section:
    """A heading and what stands below it, folded or not. `noun` is what its items are called when left out."""

    title: str
    noun: str
    items: Sequence[_Item]
    folded: bool = False
    about: str = ""
    """Our own words between heading and items."""
    kept: list[_Item] = field(default_factory=list)
    left_out: int = 0

    def begin(self) -> str:
        said = f"{self.about}\n\n" if self.about else ""
        if self.folded:
            return f"<details><summary>{self.title}</summary>\n\n{said}"
        return f"#### {self.title}\n\n{said}"

    def end(self) -> str:
        return "\n</details>\n\n" if self.folded else "\n"


def plan(data: Mapping[str, Any], max_size: int = MAX_SIZE) -> str:
    """A plan or a drift check: what stands against it and what is lost on top, all else folded, by subaccount."""
    drift = data["kind"] == "drift"
    head = [_marker("drift" if drift else "plan", data), "", *_headline(data), ""]
    table = [*_table(data), ""]
    if _size("\n".join([*head, *table])) <= max_size // 2:
        head += table
    return _whole(head, _plan_sections(data), max_size)


def applied(
    data: Mapping[str, Any],
    reports: Sequence[Mapping[str, Any]],
    verdicts: Mapping[str, Any] | None = None,
    max_size: int = MAX_SIZE,
) -> str:
    """How applying went: what did not work on top, then the plan that was carried out, folded."""
    head = [_marker("apply", data), ""]
    if data["objections"]:
        head += ["### Apply: refused, nothing was done", ""]
    else:
        counts: dict[str, int] = defaultdict(int)
        for one in reports:
            for status, count in one["summary"].items():
                counts[status] += count
        head += [f"### Apply: {steps_done(counts)}", ""]
    outcomes = [one for said in reports for one in said["outcomes"]]
    troubles = [_outcome(one) for one in outcomes if one["status"] != "done"]
    notes = [_outcome(one) for one in outcomes if one["status"] == "done" and one.get("notes")]
    sections = [_Section("Did not work", "step", troubles), _Section("To know", "note", notes)]
    if verdicts is not None:
        lines = [printable(text) for _, text in verdicts_text(verdicts)]
        sections.append(_Section("Keys tried", "key", [[line] for line in lines], folded=True))
    planned = _plan_sections(data)
    if not data["objections"]:
        for section in planned:
            section.folded, section.title = True, f"Planned: {section.title}"
    return _whole(head, [*sections, *planned], max_size)


def _marker(what: str, data: Mapping[str, Any]) -> str:
    """The hidden first line by which a comment is found, to be replaced: the same for the same specs."""
    names = ", ".join(str(one) for one in data.get("specs", ()))
    if not _NAME.fullmatch(names) or "--" in names:  # two hyphens end a comment in some readers
        names = hashlib.sha256(names.encode("utf-8", "replace")).hexdigest()[:16]
    return f"<!-- btp-reconcile:{what} {names} -->"


def _headline(data: Mapping[str, Any]) -> Iterable[str]:
    """The same words as text ends with, the first as a heading."""
    first, *others = list(report.closing_lines(data, where="below"))
    yield f"### {_inert(printable(first[1]))}"
    for colour, text in others:
        ours, colon, reason = printable(text).partition(": ")
        said = _inert(ours) + colon + _code(reason[:_LONG])
        yield ""
        yield f"**{said}**" if colour == "red" else said


_COLUMNS = ("create", "update", "replace", "delete", "adopt", "rotate", "retire", "await", "gate")


def _table(data: Mapping[str, Any]) -> Iterable[str]:
    """Counts by subaccount, as long as it can be read at a glance."""
    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    counts.update((name, defaultdict(int)) for name in data["subaccounts"])
    for one in data["changes"]:
        counts[report.subaccount_of(one)]["gate" if one.get("gate") else one["action"]] += 1
    busy = {name: row for name, row in counts.items() if any(row[one] for one in _COLUMNS)}
    if not 1 < len(busy) <= 20:
        return
    used = [one for one in _COLUMNS if any(row[one] for row in busy.values())]
    yield (
        "| Subaccount | " + " | ".join("waits for a person" if one == "gate" else one for one in used) + " |"
    )
    yield "|---|" + "--:|" * len(used)
    for name, row in busy.items():
        yield f"| {_code(name)} | " + " | ".join(str(row[one] or "") for one in used) + " |"


def _plan_sections(data: Mapping[str, Any]) -> list[_Section]:
    drift = data["kind"] == "drift"
    shown = [one for one in data["changes"] if report.worth_showing(one)]
    lost = [one for one in shown if report.destructive(one)]
    known = [printable(text).strip() for _, text in report.baseline_lines(data)]
    closed = [one for one in data["unseen"] if one["code"] in {"access/none", "access/later", "shard/later"}]
    blind = [one for one in data["unseen"] if one not in closed]
    against = "Stands against it" if drift else "Stands against applying"
    gone = "Deleted or replaced"
    sections = [
        _Section(f"{against} ({len(data['objections'])})", "objection", _problems(data["objections"])),
        _Section(f"Could not be seen ({len(blind)})", "problem", _problems(blind)),
        _Section(f"{gone} ({len(lost)})", "change", [_change(one) for one in lost]),
    ]
    by_subaccount: dict[str, list[Mapping[str, Any]]] = {name: [] for name in data["subaccounts"]}
    for one in shown:
        if not report.destructive(one):
            by_subaccount.setdefault(report.subaccount_of(one), []).append(one)
    for name, changes in by_subaccount.items():
        about = data["subaccounts"].get(name, {})
        title = f"<b>{_code(name)}</b> {_code(about.get('region', ''))} · {_counted(changes)}"
        items = [_change(one) for one in changes]
        place = f"Subaccount {_code(about['id'])}" if about.get("id") else ""
        sections.append(_Section(title, "change", items, folded=True, about=place))
    unmanaged = [[printable(text).strip()] for _, text in report.unmanaged_lines(data["unmanaged"])][1:-2]
    left = f"Unmanaged: carries the mark of a spec that does not name it any more ({len(unmanaged)})"
    sections += [
        _Section("By the baseline", "line", [[one] for one in known if one], folded=True),
        _Section(
            left, "unmanaged thing", unmanaged, folded=True, about="Left as they are; `--prune` deletes them."
        ),
        _Section(f"Not looked at ({len(closed)})", "place", _problems(closed), folded=True),
        _Section(
            f"Worth a look ({len(data['warnings'])})", "warning", _problems(data["warnings"]), folded=True
        ),
    ]
    return sections


def _counted(changes: Iterable[Mapping[str, Any]]) -> str:
    counts: dict[str, int] = defaultdict(int)
    for one in changes:
        action = one["action"]
        counts["waits for a person" if one.get("gate") else "unchanged" if action == "keep" else action] += 1
    return ", ".join(f"{count} {said}" for said, count in counts.items())


# --- items ----------------------------------------------------------------------------------------------


def _change(change: Mapping[str, Any]) -> list[str]:
    """As in text, its sign in the first column, where a block marked `diff` is coloured by it."""
    return _broken(text.removeprefix("  ") for _, text in report.change_lines(change))


def _problems(problems: Sequence[Mapping[str, Any]]) -> list[_Item]:
    return [_broken(text.removeprefix("  ") for _, text in _problem(one)) for one in problems]


def _problem(problem: Mapping[str, Any]) -> list[tuple[str, str]]:
    return list(report.problem_lines("", "", [problem]))[1:-1]


def _outcome(one: Mapping[str, Any]) -> list[str]:
    said = one["address"] if one["status"] == "done" else f"{one['status']}: {one['verb']} {one['address']}"
    more = [one.get("error", ""), one.get("hint", ""), *(f"note: {note}" for note in one.get("notes", ()))]
    return _broken([said, *(f"    {text}" for text in more if text)])


def _broken(lines: Iterable[str]) -> list[str]:
    """Printable lines that are not too long, what follows indented, so that no sign stands at its beginning."""
    found: list[str] = []
    for line in lines:
        text = printable(line)
        indent = " " * (len(text) - len(text.lstrip()) + 2)
        found.extend(
            textwrap.wrap(
                text, _WIDTH, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
            )
        )
    return found


# --- one comment ----------------------------------------------------------------------------------------


def _whole(head: Sequence[str], sections: Iterable[_Section], max_size: int) -> str:
    """Everything that fits, in this order; and, if something did not, how much that is."""
    filled = [one for one in sections if one.items]
    top = "\n".join(head) + "\n"
    room = max_size - _size(top) - _TO_SAY_THE_REST
    for one in filled:
        room = _fill(one, room)
    body = "".join(_section(one) for one in filled if one.kept)
    left: dict[str, int] = defaultdict(int)
    for one in filled:
        left[one.noun] += one.left_out
    said = ", ".join(f"{count:,} {noun}{'' if count == 1 else 's'}" for noun, count in left.items() if count)
    more = (
        f"**Left out, because a comment holds no more: {said}.** The whole is in the output of the job, or in "
        "`reconcile show` of the saved plan.\n"
    )
    return (top + body + (more if said else "")).rstrip("\n") + "\n"


def _fill(section: _Section, room: int) -> int:
    """Keep the items that there is room for, and give what room is left. Of what is too long its name is kept."""
    fence = _fence(section.items)
    cost = _size(section.begin() + section.end()) + 2 * len(fence) + len("diff\n\n\n")
    for number, item in enumerate(section.items):
        whole, short = _size("\n".join(item)) + 1, _size(item[0]) + _size(_SHORT) + 2
        if cost + whole <= room:
            section.kept.append(item)
            cost += whole
        elif cost + short <= room and len(item) > 1:
            section.kept.append([item[0], _SHORT])
            cost += short
        else:
            section.left_out = len(section.items) - number
            break
    return room - cost if section.kept else room


_SHORT = "      (more than a comment holds)"


def _section(section: _Section) -> str:
    fence = _fence(section.kept)
    lines = "\n".join(line for item in section.kept for line in item)
    return f"{section.begin()}{fence}diff\n{lines}\n{fence}\n{section.end()}"


def _fence(items: Iterable[_Item]) -> str:
    """Longer than any row of backticks within, so that nothing within ends the block (CommonMark, 4.5)."""
    runs = (len(run) for item in items for line in item for run in re.findall("`+", line))
    return "`" * max(3, 1 + max(runs, default=0))


def _size(text: str) -> int:
    return len(text.encode("utf-8", "replace"))


def _code(text: Any) -> str:
    """A name in a line of HTML: nothing in it is Markdown, a table's border or a reference to anybody."""
    return f"<code>{_inert(printable(str(text)))}</code>" if text else ""


def _inert(text: str) -> str:
    """A line outside of any block: all but letters, digits and plain punctuation is written as its number, and what
    begins a reference on GitHub or GitLab is followed by a space of no width.
    """
    return _LIVE.sub(lambda found: f"&#{ord(found[0])};" + ("&#8203;" if found[0] in _BEGINS else ""), text)


_LIVE = re.compile(r"[^\w ,;().:]|_|[.:](?=\S)")
_BEGINS = "@#!$%&~^*"
