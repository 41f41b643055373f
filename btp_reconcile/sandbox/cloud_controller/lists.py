"""Lists: which parameters they take, what these select, and in which pages the result comes.

Sources: cloudfoundry/cloud_controller_ng app/messages/list_message.rb, base_message.rb and validators/,
app/presenters/v3/paginated_list_presenter.rb, app/fetchers/label_selector_query_generator.rb.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlencode

from btp_reconcile.sandbox.cloud_controller.basics import Call, Row, bad_query, rails_json

if TYPE_CHECKING:
    from btp_reconcile.sandbox.http import Response

COMMON = ("page", "per_page", "order_by", "created_ats", "updated_ats", "guids")
ORDERS = ("created_at", "updated_at", "name")
OPERATORS: dict[str, Callable[[str, str], bool]] = {
    "lt": lambda value, limit: value < limit,
    "lte": lambda value, limit: value <= limit,
    "gt": lambda value, limit: value > limit,
    "gte": lambda value, limit: value >= limit,
}
_STAMP = re.compile(r"\d{4}-[01]\d-[0-3]\dT[0-2]\d:[0-5]\d:[0-6]\dZ")
_KEY = re.compile(r"(\w+)(?:\[(.*)\])?")

# Resources and keys that fields[...] may name, in the order in which errors list them.
Fields = Mapping[str, tuple[str, ...]]


@dataclass
class Query:
    """The checked parameters of one GET."""

    call: Call
    filters: dict[str, list[str]] = field(default_factory=dict)
    times: list[tuple[str, str, list[str]]] = field(default_factory=list)
    labels: list[Callable[[Mapping[str, str]], bool]] = field(default_factory=list)
    include: list[str] = field(default_factory=list)
    fields: dict[str, list[str]] = field(default_factory=dict)
    page: int = 1
    per_page: int = 50
    order: str | None = None
    sent: dict[str, str] = field(default_factory=dict)

    def selects(self, row: Mapping[str, Any]) -> bool:
        """Whether guid, times and labels of a row fit; the endpoint compares the rest itself."""
        if "guids" in self.filters and row["guid"] not in self.filters["guids"]:
            return False
        for column, operator, values in self.times:
            if operator == "in":
                if row[column] not in values:
                    return False
            elif not OPERATORS[operator](row[column], values[0]):
                return False
        return all(fits(row["labels"]) for fits in self.labels)

    def wants(self, name: str, value: str | None) -> bool:
        """Whether a filter is absent or names the value."""
        return name not in self.filters or value in self.filters[name]

    def wants_any(self, name: str, values: Iterable[str]) -> bool:
        """Whether a filter is absent or names one of the values."""
        return name not in self.filters or not set(self.filters[name]).isdisjoint(values)


def split(text: str) -> list[str]:
    """The values of a filter: separated by commas, each decoded once more; an empty text is one empty value."""
    return [unquote(part) for part in re.split(r"\s*,\s*", text)]


def read(
    call: Call,
    own: Sequence[str] = (),
    *,
    single: bool = False,
    includes: Sequence[str] = (),
    fields: Fields | None = None,
    choices: Mapping[str, Sequence[str]] | None = None,
    orders: Sequence[str] = ORDERS,
    labelled: bool = True,
    excluding: Sequence[str] = (),
) -> Query:
    """Checks the parameters of a list, or of a single GET, and says which one the platform would refuse."""
    allowed = tuple(own) if single else (*COMMON, *own, *(("label_selector",) if labelled else ()))
    query = Query(call)
    unknown: list[str] = []
    problems: list[str] = []
    for key, value in call.request.query:
        match = _KEY.fullmatch(key)
        name, inner = (match[1], match[2]) if match else (key, None)
        excludes = name in excluding and inner == "not"
        if name not in allowed or (
            inner is not None and name not in {"fields", "created_ats", "updated_ats"} and not excludes
        ):
            unknown.append(name)
            continue
        query.sent[key] = value
        if name == "fields":
            problems += _take_fields(query, inner, value, fields or {})
        elif name in {"created_ats", "updated_ats"}:
            problems += _take_times(query, name, inner, value)
        elif name == "include":
            problems += _take_include(query, value, includes)
        elif name == "label_selector":
            problems += _take_labels(query, value)
        elif name in {"page", "per_page", "order_by"}:
            problems += _take_paging(query, name, value, orders)
        else:
            query.filters[key if excludes else name] = split(value)
    if unknown:
        wrong = ", ".join(f"'{name}'" for name in dict.fromkeys(unknown))
        valid = ", ".join(f"'{name}'" for name in allowed)
        problems.insert(0, f"Unknown query parameter(s): {wrong}. Valid parameters are: {valid}")
    for name, values in (choices or {}).items():
        given = query.filters.get(name)
        if given is not None and (len(given) != 1 or given[0] not in values):
            said = ", ".join(f"'{value}'" for value in values)
            problems.append(f"{name.capitalize().replace('_', ' ')} must be one of {said}")
    query.per_page = min(query.per_page, call.world.bent.get("page_size", query.per_page))
    limit = call.settings["max_total_results"]
    if not single and limit is not None and query.page * query.per_page > limit:
        problems.append(f"Maximum result (page * per_page) must be less than {limit}")
    if problems:
        raise bad_query(*problems)
    return query


def _take_paging(query: Query, name: str, value: str, orders: Sequence[str]) -> list[str]:
    if name == "order_by":
        column = value.lstrip("+- ") if value[:1] in {"+", "-", " "} else value
        if column not in orders:
            return ["Order by can only be: " + ", ".join(f"'{order}'" for order in orders)]
        query.order = ("-" if value.startswith("-") else "+") + column
        return []
    label = "Page" if name == "page" else "Per page"
    if not re.fullmatch(r"\d+", value) or int(value) < 1:
        return [f"{label} must be a positive integer"]
    if name == "per_page":
        if int(value) > 5000:
            return ["Per page must be between 1 and 5000"]
        query.per_page = int(value)
    else:
        query.page = int(value)
    return []


def _take_times(query: Query, name: str, operator: str | None, value: str) -> list[str]:
    label = name.capitalize().replace("_", " ")
    if operator is not None and operator not in OPERATORS:
        return [f"{label} has an invalid operator '{operator}'"]
    values = split(value)
    if operator is not None and len(values) > 1:
        return [f"{label} only accepts one value when using a relational operator"]
    for text in values:
        if not _STAMP.fullmatch(text):
            form = "Timestamps should be formatted as 'YYYY-MM-DDThh:mm:ssZ'"
            return [f"{label} has an invalid timestamp format. {form}"]
    query.times.append((name.removesuffix("s"), operator or "in", values))
    return []


def _take_include(query: Query, value: str, includes: Sequence[str]) -> list[str]:
    problems = []
    wanted = split(value)
    for name in dict.fromkeys(wanted):
        if name not in includes:
            valid = ", ".join(f"'{include}'" for include in includes)
            problems.append(f"Invalid included resource: '{name}'. Valid included resources are: {valid}")
        elif wanted.count(name) > 1:
            problems.append(f"Duplicate included resource: '{name}'")
        else:
            query.include.append(name)
    return problems


def _take_fields(query: Query, resource: str | None, value: str, fields: Fields) -> list[str]:
    if resource is None or resource not in fields:
        valid = ", ".join(f"'{name}'" for name in fields)
        return [f"Fields [{resource or ''}] valid resources are: {valid}"]
    keys = split(value)
    if any(key not in fields[resource] for key in keys):
        valid = ", ".join(f"'{key}'" for key in fields[resource])
        return [f"Fields valid keys for '{resource}' are: {valid}"]
    query.fields[resource] = keys
    return []


# ----------------------------------------------------------------------------------------------------------------------
# label_selector

_LABEL_KEY = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?/)?[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?"
_LABEL_VALUE = r"(?:[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?)?"
_IN_SET = re.compile(rf"({_LABEL_KEY})\s+(in|notin)\s*\(\s*({_LABEL_VALUE}(?:\s*,\s*{_LABEL_VALUE})*)\s*\)")
_EQUALS = re.compile(rf"({_LABEL_KEY})\s*(==|=|!=)\s*({_LABEL_VALUE})")
_EXISTS = re.compile(rf"(!?)\s*({_LABEL_KEY})")


def requirement(text: str) -> Callable[[Mapping[str, str]], bool] | None:
    """One requirement of a label selector as a test of labels; None when it is none."""
    match = _IN_SET.fullmatch(text)
    if match:
        key, values = match[1], set(re.split(r"\s*,\s*", match[3]))
        if match[2] == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    match = _EQUALS.fullmatch(text)
    if match:
        key, value = match[1], match[3]
        if match[2] == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    match = _EXISTS.fullmatch(text)
    if match:
        key = match[2]
        if match[1]:
            return lambda labels: key not in labels
        return lambda labels: key in labels
    return None


def _take_labels(query: Query, value: str) -> list[str]:
    if not value.strip():
        return ["Missing label_selector value"]
    texts = [text.strip() for text in re.split(r",(?![^()]*\))", value)]
    if len(texts) > 50:
        return ["Too many label_selector requirements (maximum is 50)"]
    for text in texts:
        fits = requirement(text)
        if fits is None:
            return ["Invalid label_selector value"]
        query.labels.append(fits)
    return []


# ----------------------------------------------------------------------------------------------------------------------
# Pages


def arranged(query: Query, rows: Iterable[Row], default: str | None = None) -> list[Row]:
    """The rows in the order asked for; without one, in the order of creation. Ties go by guid."""
    order = query.order or default
    if "shuffle" in query.call.world.bent and query.order is None:
        found = list(rows)
        random.Random(query.call.world.bent["shuffle"]).shuffle(found)  # the same for each page of a list
        return found
    if order is None:
        return list(rows)
    column = order[1:]
    if order.startswith("+"):
        return sorted(rows, key=lambda row: (row[column] or "", row["guid"]))
    found = sorted(rows, key=lambda row: row["guid"])
    found.sort(key=lambda row: row[column] or "", reverse=True)
    return found


def cut(query: Query, rows: list[Row]) -> list[Row]:
    """The rows of the page asked for."""
    start = (query.page - 1) * query.per_page
    return rows[start : start + query.per_page]


def page(
    query: Query,
    total: int,
    resources: list[dict[str, Any]],
    included: Mapping[str, Any] | None = None,
) -> Response:
    """One page with its block of links."""
    if not resources:
        total = 0  # the count comes out of the page's own rows, so a page beyond the last knows none
    pages = max(1, -(-total // query.per_page))
    path = query.call.api + query.call.request.path
    kept = {key: value for key, value in query.sent.items() if key not in {"page", "per_page", "order_by"}}
    if "order_by" in query.sent and query.order is not None:
        kept["order_by"] = query.order

    def link(number: int) -> dict[str, str]:
        parameters = {**kept, "page": str(number), "per_page": str(query.per_page)}
        return {"href": f"{path}?{urlencode(sorted(parameters.items()))}"}

    body: dict[str, Any] = {
        "pagination": {
            "total_results": total,
            "total_pages": pages,
            "first": link(1),
            "last": link(pages),
            "next": link(query.page + 1) if query.page < pages else None,
            "previous": link(query.page - 1) if query.page > 1 else None,
        },
        "resources": resources,
    }
    if included:
        body["included"] = dict(included)
    return rails_json(body)
