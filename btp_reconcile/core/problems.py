"""Problems as text, for people: where, what, what to do, and a code to search for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from btp_reconcile.core.model import Source

if TYPE_CHECKING:
    from collections.abc import Iterable

    from btp_reconcile.core.model import Problem

MOST_PLACES = 3
"""How many further places are named; a template may be used a hundred times."""


def text(problems: Iterable[Problem]) -> str:
    """All problems, by file, line and column, an empty line between them. Lines are never wrapped."""
    ordered = sorted(problems, key=_order)
    return "\n".join(_one(problem) for problem in ordered)


def _order(problem: Problem) -> tuple[Source, str, str, str]:
    return (problem.source or Source(""), str(problem.address or ""), problem.code, problem.message)


def _one(problem: Problem) -> str:
    where = [str(place) for place in (problem.source, problem.address) if place]
    lines = ["  ".join(where)] if where else []
    indent = "  " if where else ""
    lines += [indent + line for line in problem.message.splitlines()]
    lines += [f"{indent}also {place}" for place in problem.also[:MOST_PLACES]]
    if len(problem.also) > MOST_PLACES:
        lines.append(f"{indent}and {len(problem.also) - MOST_PLACES} more places")
    hint = [indent + line for line in problem.hint.splitlines()] or [indent.rstrip()]
    hint[-1] = f"{hint[-1]}  [{problem.code}]" if hint[-1].strip() else f"{indent}[{problem.code}]"
    return "\n".join([*lines, *hint]) + "\n"
