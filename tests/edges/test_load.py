"""YAML in, documents or problems out; and nothing else, whatever the bytes."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from hypothesis import example, given, settings, strategies as st

from btp_reconcile.core import catalogue, problems, validate
from btp_reconcile.core.errors import SpecError
from btp_reconcile.core.model import Source
from btp_reconcile.edges import load
from btp_reconcile.kinds import KINDS
from btp_reconcile.kinds.key import EXAMPLES

if TYPE_CHECKING:
    from btp_reconcile.core.merge import Document

GOOD = EXAMPLES[-1]
CATALOGUE = catalogue.build(load.catalogue())


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, text: str | bytes) -> str:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return name


def loaded(text: str | bytes) -> Document:
    return load.documents([write("spec.yaml", text)])[0]


def codes(*paths: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        load.documents(paths)
    return [problem.code for problem in caught.value.problems]


def test_scalars_are_read_as_in_yaml_1_2() -> None:
    text = (
        "text: [no, on, yes, off, 12:30, 2024-01-01, 1_000, 0b1, '1', \"true\", 1.2.3, =, +]\n"
        "numbers: [0, -3, +4, 0x1F, 0o17, 012, 1.5, .5, 5., 1e3, -1.5E-3]\n"
        "constants: [true, False, TRUE, null, ~, NULL, ]\n"
        "empty:\n"
    )

    assert loaded(text).data == {
        "text": [
            "no",
            "on",
            "yes",
            "off",
            "12:30",
            "2024-01-01",
            "1_000",
            "0b1",
            "1",
            "true",
            "1.2.3",
            "=",
            "+",
        ],
        "numbers": [0, -3, 4, 31, 15, 12, 1.5, 0.5, 5.0, 1000.0, -0.0015],
        "constants": [True, False, True, None, None, None],
        "empty": None,
    }


def test_every_key_and_value_knows_its_place() -> None:
    document = loaded("a: 1\nb:\n  c: [x,  y]\n")

    assert document.places == {
        (): (Source("spec.yaml"), Source("spec.yaml")),
        ("a",): (Source("spec.yaml", 1, 1), Source("spec.yaml", 1, 4)),
        ("b",): (Source("spec.yaml", 2, 1), Source("spec.yaml", 3, 3)),
        ("b", "c"): (Source("spec.yaml", 3, 3), Source("spec.yaml", 3, 6)),
        ("b", "c", 0): (Source("spec.yaml", 3, 7), Source("spec.yaml", 3, 7)),
        ("b", "c", 1): (Source("spec.yaml", 3, 11), Source("spec.yaml", 3, 11)),
    }


def test_a_byte_order_mark_is_skipped() -> None:
    assert loaded("\ufeffa: 1").data == {"a": 1}


def test_aliases_stand_for_what_they_name() -> None:
    document = loaded("a: &x {b: [1]}\nc: *x\n")

    assert document.data == {"a": {"b": [1]}, "c": {"b": [1]}}
    assert document.places[("c",)][1] == Source("spec.yaml", 2, 4)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a: &x [*x]", "spec/alias"),
        ("a: *x", "spec/yaml"),
        ("a: !!str 1", "spec/tag"),
        ("a: ! 1", "spec/tag"),
        ("? {a: 1}\n: b", "spec/key-not-text"),
        ("&a 5: 1\nb: {*a : 2}", "spec/key-not-text"),
        ("a: .nan", "spec/number"),
        ("a: " + "1" * 5000, "spec/number"),
        ('a: "\\ud800"', "spec/yaml"),
        ('a: "\\0"', "spec/control-character"),
        ('a: "\\x7f"', "spec/control-character"),
        ("a: \ufffe", "spec/control-character"),
        ("a: 1\n--- \nb: 1", "spec/several-documents"),
        ("just text", "spec/no-map"),
        ("null", "spec/empty"),
        ("---\n...\n", "spec/empty"),
        ("%FOO\n---\na: 1\n--- x", "spec/yaml"),
        (b"\x00a\x00:\x00 \x001", "spec/encoding"),
        (b"a: \xc3\x28", "spec/encoding"),
    ],
)
def test_what_is_no_spec_is_refused_in_words(text: str | bytes, code: str) -> None:
    write("spec.yaml", text)

    assert set(codes("spec.yaml")) == {code}


@pytest.mark.parametrize(
    "text",
    [
        "[" * 200_000,
        "{" * 200_000,
        "- " * 200_000,
        "? " * 200_000,
        "a: " + "!" * 200_000,
        "a: &a [x]\n" + "".join(f"b{i}: &a [{'*a,' * 50}]\n" for i in range(500)),
        "".join(f"k{i}: 1\n" for i in range(800_000)),
        "a: 1\n" * 500_000,
        "'" + "x" * 9_000_000,
        "x" * 11_000_000,
        "a: [" + "1," * 3_000_000,
        "\n" * 9_000_000,
        "# comment\n" * 900_000,
    ],
    ids=lambda text: f"{text[:6].strip()!r}-{len(text)}",
)
def test_no_file_takes_long_to_refuse(text: str) -> None:
    write("spec.yaml", text)
    started = time.process_time()

    assert codes("spec.yaml")
    assert time.process_time() - started < 10, "a second or two, but tracing for coverage slows it down"


def test_all_problems_of_all_files_come_at_once() -> None:
    write("a.yaml", "a: 1\na: 2\n1: b\n")
    write("b.yaml", "- x")

    assert codes("a.yaml", "b.yaml", "c.yaml") == [
        "spec/duplicate-key",
        "spec/key-not-text",
        "spec/no-map",
        "spec/file-missing",
    ]


def test_the_python_reader_says_the_same_where_libyaml_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    with_libyaml = loaded(GOOD)
    monkeypatch.setattr(load, "_LOADER", yaml.SafeLoader)

    assert (with_libyaml.data, with_libyaml.places) == (loaded(GOOD).data, loaded(GOOD).places)


# --- files and folders ----------------------------------------------------------------------------------


def test_a_folder_stands_for_its_specs_sorted() -> None:
    for name in (
        "b.yaml",
        "a.yml",
        "sub/c.yaml",
        "_base.yaml",
        ".x.yaml",
        ".hidden/d.yaml",
        "_own/e.yaml",
        "f.txt",
    ):
        write(f"specs/{name}", "a: 1")

    assert [one.file for one in load.documents(["specs"])] == [
        "specs/a.yml",
        "specs/b.yaml",
        "specs/sub/c.yaml",
    ]


def test_a_file_named_twice_is_loaded_once() -> None:
    write("specs/a.yaml", "a: 1")

    assert [one.file for one in load.documents(["specs/a.yaml", "specs", "./specs/a.yaml"])] == [
        "specs/a.yaml"
    ]


def test_a_folder_without_specs_is_a_problem() -> None:
    write("specs/_base.yaml", "a: 1")

    assert codes("specs") == ["spec/no-specs"]


@pytest.mark.parametrize("name", ["/dev/zero", "a\0b", "x" * 5000])
def test_what_is_no_file_is_a_problem(name: str) -> None:
    assert codes(name) == ["spec/file-unreadable"]


def test_a_pipe_is_not_waited_for() -> None:
    os.mkfifo("pipe.yaml")

    assert codes("pipe.yaml") == ["spec/file-unreadable"]


def test_extends_is_loaded_along_from_the_files_own_folder() -> None:
    write("specs/prod.yaml", "extends: [../_base.yaml]")
    write("_base.yaml", "extends: specs/_more.yaml")
    write("specs/_more.yaml", "a: 1")

    (document,) = load.documents(["specs/prod.yaml"])

    assert [one.file for one in document.extends] == ["_base.yaml"]
    assert [one.file for one in document.extends[0].extends] == ["specs/_more.yaml"]


def test_a_circle_of_extends_is_refused() -> None:
    write("a.yaml", "extends: b.yaml")
    write("b.yaml", "extends: a.yaml")

    assert codes("a.yaml") == ["spec/extends-cycle"]


def test_a_chain_of_extends_has_an_end() -> None:
    for number in range(100):
        write(f"a{number}.yaml", f"extends: [a{number + 1}.yaml, a{number + 1}.yaml]")
    write("a100.yaml", "a: 1")

    assert codes("a0.yaml") == ["spec/extends-cycle"]


def test_a_broken_base_is_told_once() -> None:
    write("_base.yaml", "a: [")
    write("a.yaml", "extends: _base.yaml")
    write("b.yaml", "extends: _base.yaml")

    assert codes("a.yaml", "b.yaml") == ["spec/yaml"]


def test_own_catalogue_files_are_found_where_specs_name_them() -> None:
    write("specs/a.yaml", "catalogue: [../_own.yaml]\nextends: _base.yaml")
    write("specs/_base.yaml", "catalogue: [_more.yaml, 7]")
    write("_own.yaml", "api: own")
    write("specs/_more.yaml", "api: more")

    own = load.own_catalogues(load.documents(["specs/a.yaml"]))

    assert [one.path for one in own] == ["_own.yaml", "specs/_more.yaml"]
    assert [one.data for one in load.catalogue(own)[-2:]] == [{"api": "own"}, {"api": "more"}]


def test_a_missing_catalogue_file_is_told_where_it_is_named() -> None:
    with pytest.raises(SpecError) as caught:
        load.catalogue(load.own_catalogues([loaded("catalogue: [x.yaml]")]))

    assert [one.source for one in caught.value.problems] == [Source("spec.yaml", 1, 13)]


# --- values from files ----------------------------------------------------------------------------------


def test_a_file_value_loses_its_last_line_break_only() -> None:
    write("specs/key.json", "{}\n\n")

    assert load.outside("key.json", "specs/a.yaml") == "{}\n"


@pytest.mark.parametrize("path", ["../key", "/etc/hostname", "link", "sub/../../key"])
def test_a_file_value_comes_from_the_specs_folder(path: str) -> None:
    write("key", "secret")
    write("specs/sub/x", "")
    Path("specs/link").symlink_to("../key")

    with pytest.raises(SpecError) as caught:
        load.outside(path, "specs/a.yaml")

    assert [one.code for one in caught.value.problems] == ["input/file-outside"]


def test_a_file_value_from_elsewhere_must_be_allowed() -> None:
    write("key", "secret")

    assert load.outside("../key", "specs/a.yaml", anywhere=True) == "secret"


@pytest.mark.parametrize("content", [None, b"\xff"])
def test_a_file_value_that_cannot_be_read_is_a_problem(content: bytes | None) -> None:
    if content:
        write("key", content)

    with pytest.raises(SpecError) as caught:
        load.outside("key", "a.yaml")

    assert [one.code for one in caught.value.problems] == ["input/file"]


# --- anything at all ------------------------------------------------------------------------------------


def digest(text: bytes) -> None:
    """Load and check; every SpecError must also be tellable."""
    write("spec.yaml", text)
    try:
        validate.check(load.documents(["spec.yaml"]), KINDS, CATALOGUE)
    except SpecError as error:
        told = problems.text(error.problems)
    else:
        told = "nothing wrong"
    assert told


@given(st.binary(max_size=300))
@settings(deadline=None, max_examples=150)
def test_no_bytes_give_anything_but_a_spec_error(text: bytes) -> None:
    digest(text)


@given(st.data())
@settings(deadline=None, max_examples=250)
def test_no_change_of_a_good_spec_gives_anything_but_a_spec_error(data: st.DataObject) -> None:
    text = bytearray(GOOD.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text) - 1))
        width = data.draw(st.integers(0, 12))
        text[at : at + width] = data.draw(
            st.sampled_from(
                [
                    b"",
                    b"\n",
                    b"  ",
                    b"\t",
                    b": ",
                    b"- ",
                    b"{",
                    b"]",
                    b"${",
                    b"${env:X}",
                    b"&a ",
                    b"*a",
                    b"!!x ",
                    b"null",
                    b"1",
                ]
            )
            | st.binary(max_size=3)
        )
    digest(bytes(text))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def spots(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    found = [path]
    if isinstance(value, dict):
        for key, below in value.items():
            found += spots(below, (*path, key))
    return found


@given(st.data())
@settings(deadline=None, max_examples=250)
def test_no_other_structure_gives_anything_but_a_spec_error(data: st.DataObject) -> None:
    whole = yaml.safe_load(Path(__file__).parents[2].joinpath("specs/landscape.yaml").read_text())
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(spots(whole)[1:]))
        target = whole
        for part in path[:-1]:
            target = target[part]
        target[path[-1]] = data.draw(JSON)
    digest(yaml.safe_dump(whole, allow_unicode=True).encode("utf-8", "surrogatepass"))


@example(
    {"version": 1, "owner": "x", "subaccounts": {"a": {"instances": {"i": {"keys": {"k": {"adopt": []}}}}}}}
)
@given(
    st.recursive(
        JSON,
        lambda inner: st.dictionaries(
            st.sampled_from(
                [
                    "version",
                    "owner",
                    "name",
                    "access",
                    "defaults",
                    "templates",
                    "subaccounts",
                    "id",
                    "region",
                    "use",
                    "instances",
                    "keys",
                    "entitlements",
                    "api",
                    "runtime",
                    "parameters",
                    "adopt",
                    "ensure",
                    "cloud_foundry",
                    "catalogue",
                    "extends",
                    "tags",
                    "ignore",
                    "a",
                    "b",
                ]
            ),
            inner,
            max_size=4,
        ),
        max_leaves=25,
    )
)
@settings(deadline=None, max_examples=250)
def test_no_words_in_any_order_give_anything_but_a_spec_error(value: object) -> None:
    digest(yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "surrogatepass"))
