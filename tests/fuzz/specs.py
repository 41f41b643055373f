"""Specs that nobody would write: every one ends in words, and all commands agree about it."""

from __future__ import annotations

import copy
import functools
import json
import random
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import yaml

from tests.fuzz import mutations, scenes
from tests.fuzz.running import PLANTED, Ran, copied, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Base = tuple[str, tuple[tuple[str, bytes], ...]]

REFERENCES = (
    *(
        "${env:PLANTED}",
        "x${env:PLANTED}y",
        "${env:UNSET}",
        "${env:}",
        "${env:a b}",
        "${",
        "${}",
        "$${env:PLANTED}",
    ),
    *(
        "${file:planted.txt}",
        "${file:../outside.txt}",
        "${file:/dev/zero}",
        "${file:.}",
        "${file:missing}",
        "${file:}",
    ),
    *(
        "${file:planted.txt\x00}",
        "${file:" + "a" * 5000 + "}",
        "${env:${env:PLANTED}}",
        "${exec:id}",
        "${ENV:PLANTED}",
    ),
    *(
        "spec.yaml",
        "./spec.yaml",
        "../outside.txt",
        "/dev/zero",
        "/dev/stdin",
        ".",
        "missing.yaml",
        "_base.yaml",
        "\x00",
    ),
)
ODD = (*mutations.ODD, *REFERENCES, *REFERENCES)
LIKELY: tuple[Any, ...] = (
    *(
        "x",
        "y",
        "apim",
        "Prod",
        "a.b_c-d",
        "name with blanks",
        "größe",
        "名前",
        "a" * 50,
        "it's",
        "a,b",
        "100%",
        "k~2",
    ),
    *(
        "standard",
        "large",
        "free",
        "sandbox-config",
        "sandbox-slow",
        "apimanagement-apiportal",
        "afc",
        "api-management",
    ),
    *(
        "other",
        "cloudfoundry",
        "absent",
        "observe",
        "eu10",
        "us10",
        "eu10-004",
        "eu20",
        "5d",
        "0m",
        "APIPortal.Guest",
    ),
    *(
        "${env:PLANTED}",
        "${file:planted.txt}",
        "x-${env:PLANTED}",
        True,
        False,
        1,
        2,
        0,
        2.5,
        10**6,
        None,
        {},
        [],
    ),
    *(
        {"size": 3},
        {"size": None},
        {"deep": {"er": [1, {"a": "${env:PLANTED}"}]}},
        {"role": "AuthGroup.API.Admin"},
    ),
    *(
        {"k": {}},
        {"k": {"adopt": True}},
        {"n": {"ensure": "absent"}},
        {"ensure": "absent", "amount": 1},
        ["red", "é"],
    ),
    *(
        {"api": "afc", "runtime": "other", "keys": {"a": {}, "b": {}}},
        {"service": "sandbox-config", "plan": "large"},
    ),
)


@functools.cache
def _bases() -> tuple[Base, ...]:
    """(name, files): the specs of this repository, and those of the cases with the files beside them."""
    found: list[Base] = []
    for name, text in scenes.SPECS.items():
        found += [(name, (("spec.yaml", text.encode()),))] * 120
    for kind in ("messages", "plans"):
        for folder in sorted((scenes.ROOT / "tests/cases" / kind).iterdir()):
            files = tuple(
                (one.name, one.read_bytes())
                for one in sorted(folder.glob("*.yaml"))
                if one.name != "world.yaml"
            )
            if files:
                found.append((folder.name, files))
    return tuple(found)


@functools.cache
def _pool() -> dict[str, list[Any]]:
    """Key → what stands there in good specs."""
    found: dict[str, list[Any]] = {}
    for name, files in _bases():
        if (scenes.ROOT / "tests/cases/messages" / name).exists():
            continue
        for _, raw in files:
            for into, key in mutations.spots(yaml.safe_load(raw)):
                if isinstance(key, str) and into[key] not in found.setdefault(key, []):
                    found[key].append(into[key])
    return found


_NAMES = re.compile(rb"(username|client_id|origin|api)\\?[\"']?\s*:[^\n]{0,60}planted", re.IGNORECASE)
NAMED = {
    "instances": "instances",
    "keys": "keys",
    "subaccounts": "subaccounts",
    "entitlements": "entitlements",
}
NEW = (
    "x",
    "new",
    "apim",
    "Größe",
    "with blanks",
    "名前",
    "a" * 50,
    "it's",
    "k~2",
    "100%",
    "a.b_c-d",
    "transport",
)


def _borrowed(rng: random.Random, data: Any, times: int) -> Any:
    """Good words in other places: what stands elsewhere under the same name, or one more of what there is."""
    data = copy.deepcopy(data)
    pool = _pool()
    for _ in range(times):
        places = [one for one in mutations.spots(data) if one[1] in pool]
        if not places:
            break
        into, key = rng.choice(places)
        if key in NAMED and isinstance(into[key], dict) and rng.random() < 0.8:
            others = [one for one in pool[key] if isinstance(one, dict) and one]
            more = rng.choice(others)
            into[key][rng.choice([*NEW, *into[key], *more])] = copy.deepcopy(rng.choice(list(more.values())))
        elif isinstance(into[key], dict) and rng.random() < 0.3:
            others = [one for one in pool[key] if isinstance(one, dict)] or [{}]
            into[key].update(copy.deepcopy(rng.choice(others)))
        else:
            into[key] = copy.deepcopy(rng.choice(pool[key]))
    return data


def _mutated(rng: random.Random, raw: bytes) -> bytes:
    how = rng.random()
    times = rng.choice([1, 1, 1, 1, 2, 3, 8])
    if how < 0.8 and b"*" not in raw:  # aliases would be unfolded, and some stand for billions of values
        try:
            data = json.loads(json.dumps(yaml.safe_load(raw), default=str))
        except (yaml.YAMLError, ValueError, TypeError, RecursionError):
            data = None
        if isinstance(data, dict) and len(repr(data)) < 50_000:
            if rng.random() < 0.55:
                return mutations.as_text(rng, _borrowed(rng, data, times))
            odd = LIKELY if rng.random() < 0.5 else ODD
            raw = mutations.as_text(rng, mutations.structure(rng, data, times, odd))
            if how < 0.7:
                return raw
    return mutations.garble(rng, raw, times)


def case(index: int, folder: Path) -> Iterator[Ran]:
    """One mutated spec, through `validate` and one of the commands that work with it."""
    rng = random.Random(f"spec {index}")
    inside = folder / "specs"
    inside.mkdir()
    (folder / "outside.txt").write_text(PLANTED["outside"], encoding="utf-8")
    (inside / "planted.txt").write_text(PLANTED["planted.txt"], encoding="utf-8")
    name, files = rng.choice(_bases())
    chosen = rng.randrange(len(files))
    for number, (file, raw) in enumerate(files):
        (inside / file).write_bytes(_mutated(rng, raw) if number == chosen else raw)
    paths = [files[0][0]] if len(files) == 1 else ["."]
    format_ = rng.choice([(), ("--format", "json")])
    verb = rng.choice(["plan", "plan", "apply", "apply", "drift", "show"])
    checked = run(["validate", *paths, *format_], folder=inside)
    yield checked
    real = rng.random() < 0.5
    sandbox = copied(scenes.maker(rng.choice(["empty ", ""]) + name)) if name in scenes.SPECS else None
    more: list[Any] = [] if verb == "show" or (real and sandbox) else ["--sandbox"]
    more += ["--yes"] if verb == "apply" else []
    more += ["--prune"] if verb in {"plan", "apply"} and rng.random() < 0.3 else []
    more += [] if verb == "show" else ["--parallel", rng.choice(["1", "1", "4"])]
    environment = scenes.environment(sandbox) if sandbox else {"PLANTED": PLANTED["PLANTED"]}
    done = run([verb, *paths, *format_, *more], folder=inside, sandbox=sandbox, environment=environment)
    if any(_NAMES.search((inside / file).read_bytes()) for file, _ in files):
        kept = tuple(one for one in done.broken if not one.startswith("it shows the secret"))
        done = replace(done, broken=kept)  # who writes a variable where a user's name stands says it is one
    yield done
    if checked.code == 3 and done.code != 3:
        yield Ran(done.arguments, done.code, done.out, done.err, ("goes on with a spec that is not valid",))
