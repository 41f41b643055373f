"""Plan files that were damaged, or edited by somebody who also knows the checksum."""

from __future__ import annotations

import functools
import json
import random
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from btp_reconcile.cli import planfile
from tests.fuzz import mutations, scenes
from tests.fuzz.running import Ran, copied, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from btp_reconcile.sandbox import Sandbox

ODD = (
    *mutations.ODD,
    *(
        "instance:two/x",
        "key:two/x/k",
        "instance:prod/apim",
        "instance:prod/none",
        "many",
        "spec.yaml",
        "missing.yaml",
    ),
    *(
        ["instance:two/x"],
        ["spec.yaml"],
        ["spec.yaml", "spec.yaml"],
        [],
        ["/dev/zero"],
        1e10,
        -1e10,
        1e300,
        1_767_225_601.5,
    ),
)


@functools.cache
def _saved(name: str) -> bytes:
    """The plan file of a scene."""
    scene = scenes.SCENES[name]
    with TemporaryDirectory(prefix="fuzz-") as folder:
        Path(folder, "spec.yaml").write_text(scene.spec, encoding="utf-8")
        sandbox = copied(scenes.maker(scene.world))
        told = scenes.environment(sandbox)
        ran = run(
            ["plan", "spec.yaml", "--out", "p.json"], folder=Path(folder), sandbox=sandbox, environment=told
        )
        assert ran.code == 0, ran
        return Path(folder, "p.json").read_bytes()


@functools.cache
def _ends(name: str) -> tuple[str, str]:
    """The world of a scene, as it is and as its plan leaves it."""
    scene = scenes.SCENES[name]
    sandbox = copied(scenes.maker(scene.world))
    before = _seen(sandbox)
    with TemporaryDirectory(prefix="fuzz-") as folder:
        Path(folder, "spec.yaml").write_text(scene.spec, encoding="utf-8")
        Path(folder, "p.json").write_bytes(_saved(name))
        told = scenes.environment(sandbox)
        ran = run(
            ["apply", "p.json", "--parallel", "1"], folder=Path(folder), sandbox=sandbox, environment=told
        )
        assert ran.code in {0, 4, 5, 6}, ran
    return before, _seen(sandbox)


def _seen(sandbox: Sandbox) -> str:
    return json.dumps(sandbox.snapshot(), sort_keys=True)


def _mutated(rng: random.Random, raw: bytes) -> bytes:
    if rng.random() < 0.25:
        return mutations.garble(rng, raw, rng.choice([1, 1, 3]))
    data: Any = json.loads(raw)
    data = mutations.structure(rng, data, rng.choice([1, 1, 1, 2, 5]), ODD)
    if isinstance(data, dict) and rng.random() < 0.9:
        if rng.random() < 0.4 and isinstance(data.get("promise"), dict):
            data["promise"] = mutations.structure(rng, data["promise"], 1, ODD)
        data.pop("checksum", None)
        data["checksum"] = planfile._checksum(json.loads(json.dumps(data)))
    return json.dumps(data).encode("utf-8", "surrogatepass")


def case(index: int, folder: Path) -> Iterator[Ran]:
    """Show it, and apply it: what happens is what the whole file said, or nothing."""
    rng = random.Random(f"plans {index}")
    name = rng.choice(list(scenes.SCENES))
    scene = scenes.SCENES[name]
    (folder / "spec.yaml").write_text(scene.spec, encoding="utf-8")
    (folder / "p.json").write_bytes(_mutated(rng, _saved(name)))
    sandbox = copied(scenes.maker(scene.world))
    told = scenes.environment(sandbox)
    more = rng.choice([[], ["--format", "json"]])
    yield run(["show", "p.json", *more, *rng.choice([[], ["--detailed-exitcode"]])], folder=folder)
    done = run(
        ["apply", "p.json", "--parallel", "1", *more], folder=folder, sandbox=sandbox, environment=told
    )
    yield done
    if _seen(sandbox) not in _ends(name):
        yield replace(done, broken=("did something else than the whole plan file said",))
