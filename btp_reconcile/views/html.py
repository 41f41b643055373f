"""A plan or a drift check as one page that needs nothing else: no network, no other file, and no script to be read.

Everything said by a spec or the platform is escaped text. The policy in its head lets nothing be loaded and runs the
one script whose digest it names (Content Security Policy Level 3).
"""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from btp_reconcile import __version__
from btp_reconcile.core import report
from btp_reconcile.core.report import SIGNS, printable
from btp_reconcile.views import graph

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_SMALL = 40
"""The graphs of a plan with so many things stand open; of a larger one they are unfolded by who looks for them."""
_DAY = 86_400
_SOON = 7 * _DAY
"""Seconds before its end from which a certificate's end stands out."""
_MANY = 200
"""From so many changes on, what is out of sight is laid out only when it comes into sight."""
_WORDS = {
    "create": "create",
    "update": "update",
    "replace": "replace",
    "delete": "delete",
    "adopt": "adopt",
    "rotate": "rotate",
    "retire": "retire",
    "await": "await",
    "waits": "waits for a person",
    "keep": "unchanged",
}
"""What is done, in the order of the boxes that choose it."""


def page(data: Mapping[str, Any]) -> str:
    """The whole page of a plan's JSON form."""
    specs = ", ".join(str(one) for one in data.get("specs", ()))
    name = "Drift" if data["kind"] == "drift" else "Plan"
    title = _text(f"{name}: {specs}" if specs else name)
    style, script = _resource("page.css") + graph.STYLE, _resource("page.js")
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return "".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n',
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
            '<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">\n',
            f"<title>{title}</title>\n<style>{style}</style>\n</head>\n",
            '<body class="many">\n' if len(data["changes"]) > _MANY else "<body>\n",
            '<a class="skip" href="#changes">Skip to the changes</a>\n',
            *_header(data, title),
            "<main>\n",
            *_against(data),
            *_changes(data),
            *_rest(data),
            "</main>\n",
            *_footer(data),
            f"<script>{script}</script>\n</body>\n</html>\n",
        ]
    )


@cache
def _resource(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _text(value: Any) -> str:
    """Escaped for text and for attributes in quotes; what would turn or hide a text is made visible first."""
    return escape(printable(str(value)), quote=True)


# --- head and foot --------------------------------------------------------------------------------------


def _header(data: Mapping[str, Any], title: str) -> Iterator[str]:
    yield f"<header>\n<h1>{title}</h1>\n"
    for number, (colour, line) in enumerate(report.closing_lines(data, where="below")):
        look = "verdict" if not number else "bad" if colour == "red" else "dim"
        yield f'<p class="{look}">{_text(line)}</p>\n'
    yield "</header>\n"


def _footer(data: Mapping[str, Any]) -> Iterator[str]:
    digest = f" · digest {_text(data['digest'])}" if data.get("digest") else ""
    yield f"<footer><p>Made by reconcile {_text(__version__)}{digest}</p></footer>\n"


# --- problems -------------------------------------------------------------------------------------------


def _against(data: Mapping[str, Any]) -> Iterator[str]:
    """What must be read first."""
    closed = [one for one in data["unseen"] if one["code"] in {"access/none", "access/later", "shard/later"}]
    blind = [one for one in data["unseen"] if one not in closed]
    said = "Stands against it" if data["kind"] == "drift" else "Stands against applying"
    yield from _problems("objections", said, data["objections"], "against")
    yield from _problems("unseen", "Could not be seen", blind, "against")
    numbered = enumerate(data["changes"], 1)
    lost = [(number, one) for number, one in numbered if report.destructive(one) and not one.get("accepted")]
    if lost:
        yield '<section aria-labelledby="lost">\n'
        yield f'<h2 id="lost">Deleted or replaced ({len(lost)})</h2>\n'
        opened = " open" if len(lost) <= _SMALL else ""
        yield f"<details{opened}><summary>All of them</summary>\n<ul>\n"
        for number, one in lost:
            yield f'<li><a href="#c{number}"><code>{_text(one["address"])}</code></a> {_text(one["reason"])}</li>\n'
        yield "</ul></details>\n</section>\n"


def _rest(data: Mapping[str, Any]) -> Iterator[str]:
    closed = [one for one in data["unseen"] if one["code"] in {"access/none", "access/later", "shard/later"}]
    yield from _keys(data.get("keys", ()))
    yield from _unplanned(data.get("unplanned", ()))
    yield from _unmanaged(data["unmanaged"])
    gone = (data.get("baseline") or {}).get("gone", ())
    if gone:
        yield '<section aria-labelledby="gone">\n'
        yield f'<h2 id="gone">In the baseline, and not so any more ({len(gone)})</h2>\n<ul class="problems">\n'
        for one in gone:
            yield f'<li><p class="address">{_text(one["address"])}</p><p class="said">{_text(one["about"])}</p></li>\n'
        yield "</ul>\n</section>\n"
    yield from _problems("closed", "Not looked at", closed)
    yield from _problems("warnings", "Worth a look", data["warnings"])


def _problems(
    name: str, title: str, problems: Sequence[Mapping[str, Any]], look: str = "worth"
) -> Iterator[str]:
    if not problems:
        return
    yield f'<section class="{look}" aria-labelledby="{name}">\n'
    yield f'<h2 id="{name}">{title} ({len(problems)})</h2>\n<ul class="problems">\n'
    for one in problems:
        where = "  ".join(part for part in (one.get("address", ""), one.get("source", "")) if part)
        yield "<li>"
        if where:
            yield f'<p class="address">{_text(where)}</p>'
        yield f'<p class="said">{_text(one["message"])}</p>'
        hint = f"{one['hint']} " if one.get("hint") else ""
        yield f'<p class="dim">{_text(hint)}<code>{_text(one["code"])}</code></p></li>\n'
    yield "</ul>\n</section>\n"


def _unplanned(things: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not things:
        return
    yield f'<section aria-labelledby="unplanned">\n<h2 id="unplanned">Nothing can be said of ({len(things)})</h2>\n'
    yield '<ul class="problems">\n'
    for one in things:
        yield f'<li><p class="address">{_text(one["address"])}</p><p class="said">{_text(one.get("reason", ""))}</p></li>\n'
    yield "</ul>\n</section>\n"


def _keys(keys: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Ages and ends of keys; a drift check knows them."""
    if not keys:
        return
    yield f'<section aria-labelledby="keys">\n<h2 id="keys">Keys ({len(keys)})</h2>\n'
    yield '<div class="scroll" tabindex="0" role="region" aria-label="Ages and ends of keys">'
    yield '<table class="keys"><thead><tr>'
    for title in ("Key", "Generation", "State", "Age", "Ends", "Rotation due", "Delivered to", "Proven"):
        yield f'<th scope="col">{title}</th>'
    yield "</tr></thead>\n<tbody>\n"
    for one in keys:
        age = f"{one['age_seconds'] // _DAY} d" if "age_seconds" in one else ""
        soon = ' class="bad"' if one.get("ends_in_seconds", _SOON) < _SOON else ""
        proof = one.get("verified") or {}
        told = [str(where["to"]).rpartition("/")[2] for where in one.get("delivered", ())]
        yield f'<tr><th scope="row"><code>{_text(one["address"])}</code></th>'
        yield f"<td>{_text(one.get('generation', ''))}</td><td>{_text(one['state'])}</td><td>{_text(age)}</td>"
        yield f"<td{soon}>{_text(one.get('not_after', ''))}</td><td>{_text(one.get('rotation_due', ''))}</td>"
        yield f"<td>{_text(', '.join(told))}</td><td>{_text(proof.get('verdict', ''))} {_text(proof.get('at', ''))}</td></tr>\n"
    yield "</tbody></table></div>\n</section>\n"


def _unmanaged(facts: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not facts:
        return
    lines = [text.strip() for _, text in report.unmanaged_lines(facts)]
    yield f'<section aria-labelledby="unmanaged">\n<h2 id="unmanaged">Unmanaged ({len(facts)})</h2>\n'
    yield "<p>Carries the mark of a spec that does not name it any more; left as it is, <code>--prune</code> deletes it.</p>\n"
    yield '<ul class="problems">\n'
    yield from (f'<li><p class="said">{_text(line)}</p></li>\n' for line in lines[1 : len(facts) + 1])
    yield "</ul>\n</section>\n"


# --- changes --------------------------------------------------------------------------------------------


def _changes(data: Mapping[str, Any]) -> Iterator[str]:
    changes = data["changes"]
    yield f'<section aria-labelledby="changes">\n<h2 id="changes" tabindex="-1">{"Checked" if data["kind"] == "drift" else "Changes"} ({len(changes)})</h2>\n'
    if not changes:
        yield "<p>There is nothing here.</p>\n</section>\n"
        return
    found: dict[str, list[tuple[str, Mapping[str, Any]]]] = {name: [] for name in data["subaccounts"]}
    links = {}
    for number, one in enumerate(changes, 1):
        links[str(one["address"])] = f"c{number}"
        found.setdefault(report.subaccount_of(one), []).append((f"c{number}", one))
    groups = {name: mine for name, mine in found.items() if mine}
    yield from _counts(groups)
    yield from _filters(changes, list(groups))
    drawn = dict(graph.of_plan(data).clusters())
    for number, (name, mine) in enumerate(groups.items(), 1):
        about = data["subaccounts"].get(name, {})
        place = " ".join(str(about[one]) for one in ("region", "id") if about.get(one))
        yield f'<section class="subaccount" aria-labelledby="s{number}">\n'
        yield f'<h3 id="s{number}">{_text(name)} <span class="place">{_text(place)}</span></h3>\n'
        if name in drawn and drawn[name].edges:
            opened = " open" if len(changes) <= _SMALL else ""
            yield f'<details class="graphs"{opened}><summary>What depends on what in {_text(name)}</summary>\n'
            yield '<div class="scroll" tabindex="0" role="region" aria-label="Graph of '
            yield f'{_text(name)}">{graph.inline(drawn[name], name, links)}</div></details>\n'
        yield '<ol class="changes">\n'
        for anchor, one in mine:
            yield from _change(anchor, one, links)
        yield "</ol>\n</section>\n"
    yield "</section>\n"


def _done(change: Mapping[str, Any]) -> str:
    return "waits" if change.get("gate") else str(change["action"])


def _counts(groups: Mapping[str, Sequence[tuple[str, Mapping[str, Any]]]]) -> Iterator[str]:
    """Counts by subaccount, when there are several."""
    if len(groups) < 2:
        return
    rows = {name: [_done(one) for _, one in mine] for name, mine in groups.items()}
    used = [one for one in _WORDS if any(one in row for row in rows.values())]
    yield '<div class="scroll" tabindex="0" role="region" aria-label="Counts by subaccount"><table class="counts">\n'
    yield '<thead><tr><th scope="col">Subaccount</th>'
    yield from (f'<th scope="col" class="number">{_WORDS[one]}</th>' for one in used)
    yield "</tr></thead>\n<tbody>\n"
    for number, (name, row) in enumerate(rows.items(), 1):
        yield f'<tr><th scope="row"><a href="#s{number}">{_text(name)}</a></th>'
        yield from (f'<td class="number">{row.count(one) or ""}</td>' for one in used)
        yield "</tr>\n"
    yield "</tbody></table></div>\n"


def _filters(changes: Sequence[Mapping[str, Any]], subaccounts: Sequence[str]) -> Iterator[str]:
    """Hidden until the script that makes them work takes the hiding away."""
    actions = [_done(one) for one in changes]
    yield '<form class="filters" role="search" aria-label="Filter the changes" hidden autocomplete="off">\n'
    yield '<div class="field"><label for="f-text">Text</label>'
    yield '<input type="search" id="f-text" name="text" placeholder="address, reason, field"></div>\n'
    yield from _select("subaccount", "Subaccount", subaccounts)
    kinds = [str(one["address"]).partition(":")[0] for one in changes]
    yield from _select("kind", "Kind", list(dict.fromkeys(kinds)))
    for name, title in (("sync", "State"), ("health", "Health")):
        yield from _select(name, title, sorted({str(one[name]) for one in changes if one.get(name)}))
    yield "<fieldset><legend>Action</legend>\n"
    for one, words in _WORDS.items():
        if one in actions:
            checked = "" if one == "keep" and len(set(actions)) > 1 else " checked"
            box = f'<input type="checkbox" name="action" value="{one}"{checked}>'
            yield f"<label>{box} {words} ({actions.count(one)})</label>\n"
    yield '</fieldset>\n<button type="button" data-do="reset">Show all</button>\n'
    yield '<button type="button" data-do="open">Open or close all</button>\n'
    yield '<output role="status"></output>\n</form>\n'


def _select(name: str, title: str, values: Sequence[str]) -> Iterator[str]:
    if len(values) < 2:
        return
    yield f'<div class="field"><label for="f-{name}">{title}</label>'
    yield f'<select id="f-{name}" name="{name}"><option value="">all</option>'
    yield from (f'<option value="{_text(one)}">{_text(one)}</option>' for one in values)
    yield "</select></div>\n"


def _change(anchor: str, one: Mapping[str, Any], links: Mapping[str, str]) -> Iterator[str]:
    done, address = _done(one), str(one["address"])
    kind, _, path = address.partition(":")
    states = [str(one[name]) for name in ("sync", "health") if one.get(name)]
    states += ["accepted by the baseline"] if one.get("accepted") else []
    marks = "".join(
        f' data-{name}="{_text(value)}"'
        for name, value in (
            ("action", done),
            ("subaccount", path.partition("/")[0]),
            ("kind", kind),
            ("sync", one.get("sync", "")),
            ("health", one.get("health", "")),
        )
        if value
    )
    sign = "!" if done == "waits" else SIGNS[done]
    yield f'<li class="{done}"{marks}><details><summary><span class="sign" aria-hidden="true">{sign}</span>'
    yield f'<span class="address">{_text(address)}</span><span class="labels">'
    yield f'<span class="label {done}">{_WORDS[done]}</span>'
    yield from (
        f'<span class="label {_text(state.partition(" ")[0])}">{_text(state)}</span>' for state in states
    )
    yield f'</span><span class="why">{_text(one["reason"])}</span></summary><div class="body" id="{anchor}">'
    yield from _details(one, links)
    yield "</div></details></li>\n"


def _details(one: Mapping[str, Any], links: Mapping[str, str]) -> Iterator[str]:
    """What is known of one change, in the words of text."""
    yield "<dl>"
    if one.get("gate"):
        yield f"<dt>Waits for a person</dt><dd>{_text(one['gate'])}</dd>"
    if one.get("creates"):
        yield f"<dt>Named</dt><dd><code>{_text(one['creates'])}</code></dd>"
    if one["generation"] > 1:
        yield f"<dt>Generation</dt><dd>{_text(one['generation'])}</dd>"
    for title, found in (
        ("There now", [one["found"]] if one.get("found") else []),
        ("Deletes", one.get("retired", ())),
    ):
        if found:
            yield f"<dt>{title}</dt><dd>{'<br>'.join(_found(fact) for fact in found)}</dd>"
    if one.get("needs"):
        yield f"<dt>Needs</dt><dd>{', '.join(_linked(need, links) for need in one['needs'])}</dd>"
    if one.get("source"):
        yield f"<dt>Written at</dt><dd><code>{_text(one['source'])}</code></dd>"
    for note in one.get("notes", ()):
        yield f"<dt>Note</dt><dd>{_text(note)}</dd>"
    yield "</dl>"
    yield from _fields(one)


def _found(fact: Mapping[str, Any]) -> str:
    place = fact.get("space") or fact.get("runtime") or ""
    said = f"<code>{_text(fact['name'] or fact['id'])}</code>, {_text(fact['phase'])}"
    said += f", in {_text(place)}" if place else ""
    return said + (f", <code>{_text(fact['id'])}</code>" if fact["name"] else "")


def _linked(address: str, links: Mapping[str, str]) -> str:
    shown = f"<code>{_text(address)}</code>"
    return f'<a href="#{links[address]}">{shown}</a>' if address in links else shown


def _fields(one: Mapping[str, Any]) -> Iterator[str]:
    fields = one.get("fields", ())
    if not fields:
        return
    fresh = all(said["before"] is None for said in fields)
    yield '<div class="scroll" tabindex="0" role="region" aria-label="Fields of '
    yield f'{_text(one["address"])}"><table><thead><tr><th scope="col">Field</th>'
    yield '<th scope="col">Value</th>' if fresh else '<th scope="col">Now</th><th scope="col">Then</th>'
    yield '<th scope="col">How it is known</th></tr></thead><tbody>'
    for said in fields:
        yield f'<tr><th scope="row"><code>{_text(said["path"])}</code></th>'
        yield "" if fresh else f"<td>{_value(said['before'])}</td>"
        known = "as it is" if not said["changes"] and said["seen"] == "observed" else said["seen"]
        notes = [known, "makes it anew" if said.get("forces_replace") else "", said.get("note", "")]
        yield f"<td>{_value(said['after'])}</td><td>{_text(', '.join(filter(None, notes)))}</td></tr>"
    yield "</tbody></table></div>"


def _value(value: Any) -> str:
    """The whole of it: a reviewer approves what stands here."""
    if value is None:
        return '<span class="dim">none</span>'
    text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
    return f"<pre>{escape(_lines(text))}</pre>"


def _lines(text: str) -> str:
    """Printable, line by line."""
    return "\n".join(printable(line) for line in text.split("\n"))


__all__ = ["page"]
