"""What depends on what, drawn: Mermaid, DOT, and SVG with a layout of its own.

An arrow leads from what is needed to what needs it: entitlement → instance → key → delivery, destination. What follows
from other arrows is left out.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

from btp_reconcile.core.report import SIGNS, printable
from btp_reconcile.views.addressed import Addressed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from btp_reconcile.core.model import Wanted

MERMAID_EDGES = 500
"""Mermaid draws no more unless its page is told to (`maxEdges`, Mermaid's configuration schema); GitHub does not tell."""


@dataclass(frozen=True)
class Node(Addressed):
    """One address. `said` is what happens to it, in a word; empty for a graph of specs alone."""

    said: str = ""
    sign: str = ""

    @property
    def words(self) -> str:
        """What it is, and what happens to it."""
        return f"{self.sign} {self.said} {self.kind}".strip()


@dataclass(frozen=True)
class Graph:
    """Nodes in their order, and (what is needed, what needs it), both by address."""

    nodes: tuple[Node, ...]
    edges: tuple[tuple[str, str], ...] = ()
    by_address: Mapping[str, Node] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_address", {node.address: node for node in self.nodes})

    def clusters(self) -> Iterator[tuple[str, Graph]]:
        """Subaccount by subaccount: its nodes, what they need elsewhere, and the arrows that end here."""
        own: dict[str, list[Node]] = defaultdict(list)
        ending: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for node in self.nodes:
            own[node.subaccount].append(node)
        for edge in self.edges:
            ending[self.by_address[edge[1]].subaccount].append(edge)
        for name, nodes in own.items():
            elsewhere = {
                one: self.by_address[one]
                for one, _ in ending[name]
                if self.by_address[one].subaccount != name
            }
            yield name, Graph((*elsewhere.values(), *nodes), tuple(ending[name]))


def of_plan(data: Mapping[str, Any]) -> Graph:
    """The graph of a plan's JSON form."""
    nodes, needs = [], {}
    for change in data["changes"]:
        gate = bool(change.get("gate"))
        action = str(change["action"])
        said = "waits" if gate else "in sync" if action == "keep" else action
        nodes.append(Node(str(change["address"]), said, "!" if gate else SIGNS[action]))
        needs[str(change["address"])] = [str(one) for one in change.get("needs", ())]
    for node in nodes:
        if not needs[node.address]:
            needs[node.address] = [_stands_in(node)]
    return _drawn(nodes, needs)


def of_wanted(wanted: Wanted) -> Graph:
    """The graph of what specs want, before anybody was asked."""
    nodes = [Node(str(one.address), "absent" if one.absent else "") for one in wanted.resources]
    needs = {str(one.address): [str(need) for need in one.requires] for one in wanted.resources}
    return _drawn(nodes, needs)


def _stands_in(node: Node) -> str:
    """What no spec names any more still stands in something, by its address."""
    inside = {"key": "instance", "delivery": "key"}
    outer = node.path.rpartition("/")[0]
    return f"{inside[node.kind]}:{outer}" if node.kind in inside else ""


def _drawn(nodes: Sequence[Node], needs: Mapping[str, Sequence[str]]) -> Graph:
    """Only what is there can be pointed at; an arrow that follows from others is left out."""
    there = {node.address for node in nodes}
    known = {
        one: [need for need in dict.fromkeys(needs[one]) if need in there and need != one] for one in needs
    }
    order = _order(known)
    behind: dict[str, set[str]] = {}
    edges: list[tuple[str, str]] = []
    for one in order:
        indirect = {far for need in known[one] for far in behind.get(need, ())}
        behind[one] = {*known[one], *indirect}
        edges.extend((need, one) for need in known[one] if need not in indirect)
    place = {node.address: number for number, node in enumerate(nodes)}
    edges.sort(key=lambda edge: (place[edge[1]], place[edge[0]]))
    return Graph(tuple(nodes), tuple(edges))


def _order(needs: Mapping[str, Sequence[str]]) -> list[str]:
    """What is needed first. What goes round in circles comes last, and is not lost."""
    waiting = {one: len(needed) for one, needed in needs.items()}
    followers: dict[str, list[str]] = defaultdict(list)
    for one, needed in needs.items():
        for need in needed:
            followers[need].append(one)
    order = [one for one, count in waiting.items() if not count]
    for one in order:
        for follower in followers[one]:
            waiting[follower] -= 1
            if not waiting[follower]:
                order.append(follower)
    return [*order, *(one for one in needs if waiting[one])]


# --- Mermaid --------------------------------------------------------------------------------------------

_FILLS = {
    "create": ("#dafbe1", "#116329"),
    "update": ("#fff8c5", "#6a4a00"),
    "replace": ("#fbefff", "#6639ba"),
    "delete": ("#ffebe9", "#a40e26"),
    "adopt": ("#ddf4ff", "#0550ae"),
    "rotate": ("#ddf4ff", "#0550ae"),
    "retire": ("#ffebe9", "#a40e26"),
    "await": ("#fff8c5", "#6a4a00"),
    "waits": ("#fff8c5", "#6a4a00"),
    "absent": ("#ffebe9", "#a40e26"),
    "in sync": ("#f6f8fa", "#424a53"),
    "": ("#f6f8fa", "#24292f"),
}
"""What is said of a node → fill and text; the text is readable on the fill in every theme."""


def _class(said: str) -> str:
    return said.replace(" ", "-") or "plain"


def mermaid(graph: Graph) -> str:
    """A flowchart for Markdown pages. Names can hold anything: all but letters and digits is written as its number."""
    names = {node.address: f"n{number}" for number, node in enumerate(graph.nodes)}
    lines = ["flowchart LR"]
    groups: dict[str, list[Node]] = defaultdict(list)
    for node in graph.nodes:
        groups[node.subaccount].append(node)
    for number, (subaccount, nodes) in enumerate(groups.items()):
        lines.append(f'  subgraph s{number}["{_numbered(subaccount)}"]')
        lines.extend(
            f'    {names[node.address]}["{_numbered(node.words)}<br/>{_numbered(node.label)}"]'
            for node in nodes
        )
        lines.append("  end")
    lines.extend(f"  {names[need]} --> {names[one]}" for need, one in graph.edges)
    for said in dict.fromkeys(node.said for node in graph.nodes):
        fill, ink = _FILLS[said]
        members = ",".join(names[node.address] for node in graph.nodes if node.said == said)
        lines.extend(
            [
                f"  classDef {_class(said)} fill:{fill},stroke:{ink},color:{ink}",
                f"  class {members} {_class(said)}",
            ]
        )
    return "\n".join(lines) + "\n"


def _numbered(text: str) -> str:
    """Mermaid reads `#35;` as the character of that number (its page "Flowcharts", entity codes)."""
    return "".join(
        char if char.isascii() and (char.isalnum() or char == " ") else f"#{ord(char)};"
        for char in printable(text)
    )


# --- DOT ------------------------------------------------------------------------------------------------


def dot(graph: Graph) -> str:
    """For Graphviz: `reconcile graph --format dot | dot -Tsvg`."""
    names = {node.address: f"n{number}" for number, node in enumerate(graph.nodes)}
    lines = [
        "digraph reconcile {",
        "  rankdir=LR;",
        '  node [shape=box, style="rounded,filled", fontname="sans-serif"];',
    ]
    groups: dict[str, list[Node]] = defaultdict(list)
    for node in graph.nodes:
        groups[node.subaccount].append(node)
    for number, (subaccount, nodes) in enumerate(groups.items()):
        lines.append(f"  subgraph cluster_{number} {{")
        lines.append(f"    label={_quoted(subaccount)};")
        for node in nodes:
            fill, ink = _FILLS[node.said]
            label = _quoted(node.words)[:-1] + "\\n" + _quoted(node.label)[1:]
            lines.append(
                f"    {names[node.address]} [label={label}, tooltip={_quoted(node.address)}, "
                f'fillcolor="{fill}", color="{ink}", fontcolor="{ink}"];'
            )
        lines.append("  }")
    lines.extend(f"  {names[need]} -> {names[one]};" for need, one in graph.edges)
    return "\n".join([*lines, "}"]) + "\n"


def _quoted(text: str) -> str:
    """A text of the DOT language: in quotes, with a backslash before quotes and backslashes."""
    inner = printable(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{inner}"'


# --- SVG ------------------------------------------------------------------------------------------------

_CELL, _HEIGHT, _ROW, _GAP, _PAD, _TITLE = 7.3, 38, 48, 56, 8, 26
"""Width of a character, height of a box, of a row, width between columns, room around, height of a title."""
_LONGEST = 46
"""Cells of a name that are shown; the whole stands in its title."""

STYLE = """\
.graph text{font:12px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;fill:var(--g-ink)}
.graph .what{font-size:11px;fill:var(--g-dim)}
.graph .title{font-weight:600}
.graph rect{fill:var(--g-box);stroke:var(--g-line);stroke-width:1.2}
.graph .edges{fill:none;stroke:var(--g-line);stroke-width:1.2}
.graph .heads{fill:var(--g-line)}
.graph .elsewhere rect{stroke-dasharray:4 3}
.graph .create rect{stroke:var(--g-green)}.graph .create .what{fill:var(--g-green)}
.graph .update rect,.graph .await rect,.graph .waits rect{stroke:var(--g-amber)}
.graph .update .what,.graph .await .what,.graph .waits .what{fill:var(--g-amber)}
.graph .replace rect{stroke:var(--g-violet)}.graph .replace .what{fill:var(--g-violet)}
.graph .adopt rect,.graph .rotate rect{stroke:var(--g-blue)}.graph .adopt .what,.graph .rotate .what{fill:var(--g-blue)}
.graph .delete rect,.graph .retire rect,.graph .absent rect{stroke:var(--g-red)}
.graph .delete .what,.graph .retire .what,.graph .absent .what{fill:var(--g-red)}
"""
LIGHT = (
    "--g-ink:#1f2328;--g-dim:#59636e;--g-box:#ffffff;--g-line:#818b98;--g-green:#116329;--g-amber:#7a4e00;"
    "--g-violet:#6639ba;--g-blue:#0550ae;--g-red:#a40e26"
)
DARK = (
    "--g-ink:#e6edf3;--g-dim:#9ea7b3;--g-box:#161b22;--g-line:#6e7781;--g-green:#56d364;--g-amber:#e3b341;"
    "--g-violet:#d2a8ff;--g-blue:#79c0ff;--g-red:#ff9a92"
)


@dataclass
class _Placed:
    """Where the nodes of one graph stand: column and row of each."""

    column: dict[str, int] = field(default_factory=dict)
    row: dict[str, float] = field(default_factory=dict)
    rows: int = 0


def svg(graph: Graph) -> str:
    """One picture of all subaccounts, one below the other, that stands alone and follows the reader's theme."""
    drawn, top, width = [], float(_PAD), 0.0
    for name, cluster in graph.clusters():
        body, wide, high = _picture(cluster, name, {})
        title = escape(printable(name))
        drawn.append(f'<g transform="translate({_PAD} {_number(top)})">')
        drawn.append(f'<text class="title" x="0" y="14">{title}</text>')
        drawn.append(f'<g transform="translate(0 {_TITLE})">{body}</g></g>')
        width, top = max(width, wide, len(name) * _CELL), top + _TITLE + high + _PAD
    whole = f'width="{_number(width + 2 * _PAD)}" height="{_number(top)}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="graph" {whole} '
        f'viewBox="0 0 {_number(width + 2 * _PAD)} {_number(top)}" role="img" aria-label="What depends on what">'
        f"<style>:root{{color-scheme:light dark}}.graph{{{LIGHT}}}"
        f"@media (prefers-color-scheme:dark){{.graph{{{DARK};background:#0d1117}}}}\n{STYLE}</style>\n"
        + "\n".join(drawn)
        + "\n</svg>\n"
    )


def inline(graph: Graph, subaccount: str, links: Mapping[str, str]) -> str:
    """A picture of one subaccount inside a page, whose style it takes. `links`: address → where it is told."""
    body, wide, high = _picture(graph, subaccount, links)
    width, height = _number(wide + 2), _number(high + 2)
    name = escape(f"What depends on what in subaccount {printable(subaccount)}")
    return (
        f'<svg class="graph" width="{width}" height="{height}" viewBox="-1 -1 {width} {height}" '
        f'role="group" aria-label="{name}">{body}</svg>'
    )


def _picture(graph: Graph, subaccount: str, links: Mapping[str, str]) -> tuple[str, float, float]:
    """(drawn, width, height) of one graph."""
    placed = _layout(graph)
    shown = {node.address: _shown(node, subaccount) for node in graph.nodes}
    widths: dict[int, float] = defaultdict(float)
    for node in graph.nodes:
        cells = max(_cells(shown[node.address]), len(node.words))
        column = placed.column[node.address]
        widths[column] = max(widths[column], cells * _CELL + 2 * _PAD)
    left, total = {}, 0.0
    for column in sorted(widths):
        left[column] = total
        total += widths[column] + _GAP

    lines, heads, boxes = [], [], []
    for need, one in graph.edges:
        begin = left[placed.column[need]] + widths[placed.column[need]]
        end = left[placed.column[one]]
        up, down = (placed.row[at] * _ROW + _HEIGHT / 2 for at in (need, one))
        bend = begin + _GAP / 2 if end > begin else (begin + end) / 2
        x0, y0, x1, y1, mid = map(_number, (begin, up, end - 6, down, bend))
        lines.append(f"M{x0} {y0}C{mid} {y0} {mid} {y1} {x1} {y1}")
        heads.append(f"M{_number(end)} {y1}l-7 -3.5v7z")
    for node in graph.nodes:
        column = placed.column[node.address]
        where = left[column], placed.row[node.address] * _ROW, widths[column]
        boxes.append(_box(node, shown[node.address], where, links, foreign=node.subaccount != subaccount))
    arrows = f'<path class="edges" d="{"".join(lines)}"/><path class="heads" d="{"".join(heads)}"/>'
    height = placed.rows * _ROW - (_ROW - _HEIGHT)
    return (arrows if lines else "") + "".join(boxes), max(0.0, total - _GAP), max(0.0, float(height))


def _box(
    node: Node, name: str, where: tuple[float, float, float], links: Mapping[str, str], *, foreign: bool
) -> str:
    left, top, width = where
    address = escape(printable(node.address))
    said = escape(printable(f"{node.said} {node.address}".strip()))
    look = f"node {_class(node.said)}" + (" elsewhere" if foreign else "")
    link = links.get(node.address)
    begin, end, title = f'<g class="{look}">', "</g>", f"<title>{address}</title>"
    if link is not None:
        begin, end = f'<a class="{look}" href="#{escape(link)}" aria-label="{said}">', "</a>"
        if name == node.label:
            title = ""  # its link says it
    x = _number(left + _PAD)
    return (
        f"{begin}{title}"
        f'<rect x="{_number(left)}" y="{_number(top)}" width="{_number(width)}" height="{_HEIGHT}" rx="5"/>'
        f'<text class="what" x="{x}" y="{_number(top + 15)}">{escape(printable(node.words))}</text>'
        f'<text x="{x}" y="{_number(top + 30)}">{escape(name)}</text>{end}'
    )


def _shown(node: Node, subaccount: str) -> str:
    """Its name as it fits into a box; what is elsewhere is named with its subaccount."""
    text = printable(node.label if node.subaccount == subaccount else f"{node.subaccount}/{node.label}")
    if _cells(text) <= _LONGEST:
        return text
    kept, used = [], 1
    for char in text:
        used += _cells(char)
        if used > _LONGEST:
            break
        kept.append(char)
    return "".join(kept) + "…"


def _cells(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _layout(graph: Graph) -> _Placed:
    """Columns by the longest way from a beginning; rows so that what stands on one thing stands beside it."""
    needs: dict[str, list[str]] = {node.address: [] for node in graph.nodes}
    for need, one in graph.edges:
        needs[one].append(need)
    placed = _Placed()
    for one in _order(needs):
        placed.column[one] = max(
            (placed.column[need] + 1 for need in needs[one] if need in placed.column), default=0
        )
    children: dict[str, list[str]] = defaultdict(list)
    roots = []
    for node in graph.nodes:
        before = [one for one in needs[node.address] if placed.column[one] < placed.column[node.address]]
        if before:
            children[max(before, key=placed.column.__getitem__)].append(node.address)
        else:
            roots.append(node.address)
    for root in roots:
        for one in _leaves_first(root, children):
            under = [placed.row[child] for child in children[one]]
            if under:
                placed.row[one] = (under[0] + under[-1]) / 2
            else:
                placed.row[one] = placed.rows
                placed.rows += 1
    return placed


def _leaves_first(root: str, children: Mapping[str, Sequence[str]]) -> Iterable[str]:
    """Each after its children; no recursion, however deep it is."""
    waiting = [(root, False)]
    while waiting:
        one, seen = waiting.pop()
        if seen:
            yield one
            continue
        waiting.append((one, True))
        waiting.extend((child, False) for child in reversed(children.get(one, ())))
