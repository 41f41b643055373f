"""What drivers share: filters that fit, answers read with care, marks and operations as values."""

from __future__ import annotations

from urllib.parse import quote, urlencode

import pytest
from hypothesis import given as for_any, strategies as st

from btp_reconcile.core import marks
from btp_reconcile.core.errors import PlatformError
from btp_reconcile.core.model import Mark
from btp_reconcile.core.wire import Item, batches, cf_list, cf_term, given, line, moment, sm_in, sm_term

NAMES = st.lists(st.text(min_size=1, max_size=60), unique=True, max_size=400)


@for_any(NAMES)
def test_batches_lose_nothing_and_fit(names: list[str]) -> None:
    beside = (("include", "organization"), ("per_page", "5000"))
    found = list(batches(names, lambda name: (cf_term(name),), beside))

    assert [name for batch in found for name in batch] == names
    for batch in found:
        query = urlencode([("names", cf_list(batch)), *beside], quote_via=quote, safe="")
        assert len(batch) <= 200
        assert len(f"GET /v3/spaces?{query}&page=100 HTTP/1.1") <= 8000


@for_any(NAMES)
def test_service_manager_lists_fit_too(names: list[str]) -> None:
    for batch in batches(names, lambda name: (sm_term(name),)):
        query = urlencode([("fieldQuery", sm_in("name", batch))], quote_via=quote, safe="")
        assert len(f"GET /v1/service_instances?{query}&max_items=200&token=0123456789 HTTP/1.1") <= 8000


def test_a_shared_term_is_counted_once() -> None:
    pairs = [(f"name-{number}", "s" * 36) for number in range(200)]

    assert len(list(batches(pairs, lambda pair: (cf_term(pair[0]), cf_term(pair[1]))))) == 1


def test_an_item_that_is_too_long_still_goes_alone() -> None:
    assert list(batches(["x" * 9000, "y"], lambda name: (name,))) == [["x" * 9000], ["y"]]


def test_values_in_filters_are_written_once() -> None:
    assert cf_list(["a", "b,c", "a"]) == "a,b%2Cc"
    assert sm_in("name", ["a", "O'Brien", "a"]) == "name in ('a', 'O''Brien')"


class TestReading:
    item = Item(
        {
            "a": {
                "b": "text",
                "n": 2.0,
                "half": 2.5,
                "yes": True,
                "list": ["x"],
                "none": None,
                "o": [{"c": "d"}],
            }
        },
        "some_service",
        "a thing",
    )

    def test_what_is_there_is_read(self) -> None:
        assert self.item.need("a", "b") == "text"
        assert self.item.number("a", "n") == 2
        assert isinstance(self.item.number("a", "n"), int)
        assert self.item.number("a", "half") == 2.5
        assert self.item.flag("a", "yes") is True
        assert self.item.texts("a", "list") == ("x",)
        assert [one.text("c") for one in self.item.items("a", "o")] == ["d"]
        assert self.item.item("a").text("b") == "text"

    @pytest.mark.parametrize("path", [("a", "none"), ("a", "x"), ("x", "y", "z"), ("a", "none", "x")])
    def test_what_is_missing_is_empty(self, path: tuple[str, ...]) -> None:
        assert self.item.text(*path) == ""
        assert self.item.number(*path) is None
        assert self.item.flag(*path) is None
        assert self.item.texts(*path) == ()
        assert self.item.items(*path) == []
        assert self.item.mapping(*path) == {}

    @pytest.mark.parametrize(
        ("read", "path"),
        [
            ("text", ("a", "n")),
            ("need", ("a", "none")),
            ("number", ("a", "yes")),
            ("number", ("a", "b")),
            ("flag", ("a", "n")),
            ("texts", ("a", "b")),
            ("texts", ("a", "o")),
            ("items", ("a", "b")),
            ("items", ("a", "list")),
            ("item", ("a", "b")),
            ("mapping", ("a", "list")),
            ("text", ("a", "b", "c")),
        ],
    )
    def test_what_makes_no_sense_is_told_without_its_content(self, read: str, path: tuple[str, ...]) -> None:
        with pytest.raises(
            PlatformError, match="some_service: an answer cannot be understood: a thing"
        ) as caught:
            getattr(self.item, read)(*path)

        assert "'text'" not in str(caught.value)

    def test_it_never_shows_its_content(self) -> None:
        assert repr(Item({"credentials": "s3cret"}, "x", "a binding")) == "<a binding of x>"
        assert (
            Item({"credentials": "s3cret", "id": "i"}, "x", "y").only(("id", "name")).any("credentials")
            is None
        )

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_numbers_that_are_none(self, value: float) -> None:
        with pytest.raises(PlatformError):
            Item({"n": value}, "x", "y").number("n")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1768900004000, "2026-01-20T09:06:44.000Z"),
        ("2026-07-20T10:09:03.366647Z", "2026-07-20T10:09:03.366647Z"),
        ("0001-01-01T00:00:00Z", ""),
        (None, ""),
        (True, ""),
        (-1, ""),
        (1e300, ""),
        ([], ""),
    ],
)
def test_times_become_rfc_3339(value: object, text: str) -> None:
    assert moment(value) == text


def test_words_are_one_short_line() -> None:
    assert line(" a\n\tb ") == "a b"
    assert len(line("x" * 999)) == 300


def test_what_is_not_known_is_not_sent() -> None:
    with pytest.raises(
        PlatformError, match="the space of x is not known, and nothing is sent without it; run again"
    ):
        given(None, "cloud_foundry", "the space of x")


NAME = st.from_regex(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?", fullmatch=True)


@for_any(
    st.builds(Mark, NAME, NAME, NAME, st.integers(1, 999999)),
    st.sampled_from([marks.CLOUD_FOUNDRY, marks.SERVICE_MANAGER]),
)
def test_marks_are_read_as_they_were_written(mark: Mark, prefix: str) -> None:
    assert marks.read(prefix, marks.labels(prefix, mark, mark.generation)) == mark


def test_the_other_runtime_s_marks_are_none() -> None:
    assert (
        marks.read(marks.CLOUD_FOUNDRY, marks.labels(marks.SERVICE_MANAGER, Mark("a", "b", "c"), 1)) is None
    )


LABELS = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.lists(st.sampled_from("xyz"), unique=True))


@for_any(LABELS, st.dictionaries(st.sampled_from(["a", "b", "c"]), st.sampled_from("xyz")))
def test_label_changes_lead_to_what_is_wanted(before: dict[str, list[str]], after: dict[str, str]) -> None:
    now = {key: list(values) for key, values in before.items()}
    for change in marks.label_changes(before, after):
        if change["op"] == "remove_values":
            now[change["key"]] = [one for one in now[change["key"]] if one not in change["values"]]
        else:
            assert (change["op"] == "add") == (not now.get(change["key"]))
            now.setdefault(change["key"], []).extend(change["values"])

    assert {**before, **{key: [value] for key, value in after.items()}} == now
