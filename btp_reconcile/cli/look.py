"""Views of plans and reports, printed; and what depends on what, from specs or a saved plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from btp_reconcile import pipeline
from btp_reconcile.cli import planfile, talk
from btp_reconcile.core import report
from btp_reconcile.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CHANGED = (KeyError, TypeError, AttributeError, ValueError)
"""What a view raises for a plan file that somebody wrote by hand."""


def room(max_size: int | None, format_: str) -> int:
    """How many bytes a comment may have. Raises UsageError when it is said for something that is none."""
    if max_size is not None and format_ != "markdown":
        raise UsageError("--max-size is for --format markdown: nothing else is cut")
    if max_size is not None or format_ != "markdown":
        return max_size or 0
    from btp_reconcile.views import markdown

    return markdown.MAX_SIZE


def plan(data: Mapping[str, Any], format_: str, most: int) -> None:
    """Print a plan's JSON form in one of its formats."""
    if format_ == "json":
        talk.data(data)
    elif format_ == "text":
        talk.lines(report.plan_text(data), wrap=True)
    else:
        talk.document(_page(data, format_, most))


def saved(data: Mapping[str, Any], format_: str, most: int, file: str) -> None:
    """Print a saved plan. Raises UsageError for one that was changed by hand."""
    try:
        lines = list(report.plan_text(data))
        page = _page(data, format_, most) if format_ in {"markdown", "html"} else ""
    except CHANGED:
        raise UsageError(f"{file} was changed after it was written: plan again") from None
    if format_ == "json":
        talk.data(data)
    elif page:
        talk.document(page)
    else:
        talk.lines(lines, wrap=True)


def _page(data: Mapping[str, Any], format_: str, most: int) -> str:
    if format_ == "html":
        from btp_reconcile.views import html

        return html.page(data)
    from btp_reconcile.views import markdown

    return markdown.plan(data, most)


def applied(
    data: Mapping[str, Any],
    reports: Sequence[Mapping[str, Any]],
    verdicts: Mapping[str, Any] | None,
    most: int,
) -> None:
    """Print how applying went, as a comment."""
    from btp_reconcile.views import markdown

    talk.document(markdown.applied(data, reports, verdicts, most))


def graph(specs: Sequence[str], format_: str) -> int:
    """What depends on what: from specs alone, or with what would happen to it, from a saved plan."""
    from btp_reconcile.cli.work import paths
    from btp_reconcile.views import graph as drawing

    found = planfile.read(specs)
    try:
        if found is None:
            drawn = drawing.of_wanted(pipeline.sketch(paths(specs)))
        else:
            drawn = drawing.of_plan(found)
    except CHANGED:
        if found is None:
            raise
        raise UsageError(f"{specs[0]} was changed after it was written: plan again") from None
    talk.document({"mermaid": drawing.mermaid, "dot": drawing.dot, "svg": drawing.svg}[format_](drawn))
    if format_ == "mermaid" and len(drawn.edges) > drawing.MERMAID_EDGES:
        talk.say(
            f"{len(drawn.edges)} arrows: where Mermaid is drawn at most {drawing.MERMAID_EDGES} are shown; "
            "name fewer specs, or take --format svg"
        )
    return report.DONE
