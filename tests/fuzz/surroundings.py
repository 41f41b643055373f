"""Environments and command lines that are anything but right."""

from __future__ import annotations

import json
import os
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tests.fuzz import mutations, scenes
from tests.fuzz.answers import EVIL
from tests.fuzz.running import SECRET_FIELD, Ran, copied, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TEXTS = (
    *(
        "",
        " ",
        "{",
        "{}",
        "[]",
        "null",
        "true",
        "1",
        '"x"',
        "x",
        "é",
        "名前",
        "\x1b[31m",
        "\u202e",
        "a" * 100_000,
        "[" * 9000,
    ),
    *(
        "/dev/zero",
        ".",
        "..",
        "missing",
        "spec.yaml",
        "~",
        "$HOME",
        "line\nbreak",
        "\ud800",
        "\udcff",
        "-1",
        "0",
        "1e9",
        "NaN",
    ),
    *(
        '{"uaa": null}',
        '{"uaa": {}}',
        '{"endpoints": []}',
        '{"clientid": 1}',
        '{"a": ' * 2000,
        "eyJhbGciOiJub25lIn0.e30.",
        "a.b.c",
    ),
)
NAMES = (
    *(
        "BTP_CIS_CENTRAL_KEY",
        "BTP_SERVICE_MANAGER_KEY",
        "BTP_SM_INTEGRATION_PROD_KEY",
        "CF_USER",
        "CF_PASSWORD",
    ),
    *(
        "CF_ORIGIN",
        "CF_CLIENT_ID",
        "CF_CLIENT_SECRET",
        "CF_ASSERTION_TOKEN",
        "CF_ACCESS_TOKEN",
        "CF_REFRESH_TOKEN",
    ),
    *(
        "CF_HOME",
        "HOME",
        "XDG_STATE_HOME",
        "RECONCILE_SANDBOX",
        "RECONCILE_FILES",
        "RECONCILE_HOSTS",
        "CI",
        "TERM",
    ),
    *(
        "COLUMNS",
        "LINES",
        "NO_COLOR",
        "FORCE_COLOR",
        "HTTPS_PROXY",
        "REQUESTS_CA_BUNDLE",
        "PLANTED",
        "TZ",
        "LC_ALL",
    ),
)
HOSTS = (
    "*",
    "*.",
    "",
    "evil",
    "*.evil.test",
    "[::1]",
    "host:port",
    "host:99999999999",
    "é.example",
    "a,b c",
    "https://x",
    "x:²",
)
ADDRESSES = (
    *(
        "instance:prod/apim",
        "instance:prod",
        "key:prod/apim/transport",
        "prod",
        "",
        ":",
        "/",
        "instance:",
        "x:y/z",
        "instance:é/\x1b",
    ),
    *(
        "entitlement:prod/afc-api-service/standard",
        "instance:prod/" + "a" * 9000,
        "instance:prod/apim/..",
        "key:*/*/*",
        "many",
        "-",
    ),
)


def _key(rng: random.Random, text: str) -> str:
    """A key that somebody copied badly, or that leads elsewhere."""
    data: Any = json.loads(text)
    how = rng.random()
    if how < 0.45:
        for into, key in mutations.spots(data):
            if isinstance(into[key], str) and into[key].startswith("https://") and rng.random() < 0.6:
                into[key] = rng.choice(EVIL)
    elif how < 0.8:
        data = mutations.structure(rng, data, rng.choice([1, 1, 3, 10]), keep=_secret)
    else:
        return text[: rng.randrange(len(text))] if rng.random() < 0.5 else f"{text} {text}"
    return json.dumps(data)


def _secret(into: Any, key: Any) -> bool:
    return isinstance(key, str) and bool(SECRET_FIELD.search(key))


def _session(rng: random.Random, folder: Path, environment: dict[str, str]) -> None:
    """The file of the `cf` client."""
    data: Any = {
        "Target": rng.choice(["https://api.cf.eu10.hana.ondemand.com", *EVIL]),
        "AccessToken": "bearer "
        + rng.choice(["", "eyJhbGciOiJub25lIn0.e30.x", "a.b.c", "planted-access-token\r\nX: y"]),
        "RefreshToken": rng.choice(["", "planted-refresh-token", "é", "x" * 9000]),
        "UAAOAuthClient": rng.choice(["cf", "", "é:"]),
        "UAAOAuthClientSecret": "",
    }
    (folder / ".cf").mkdir(exist_ok=True)
    if rng.random() < 0.5:
        data = mutations.structure(rng, data, 2, keep=_secret)
    raw = json.dumps(data).encode()
    if rng.random() < 0.2:
        raw = mutations.garble(rng, raw, 2)
    (folder / ".cf" / "config.json").write_bytes(raw)
    environment["CF_HOME"] = str(folder)
    for name in ("CF_USER", "CF_PASSWORD"):
        environment.pop(name, None)


def _options(rng: random.Random) -> list[str]:
    found: list[str] = []
    for option, values in (
        ("--target", ADDRESSES),
        ("--allow", ADDRESSES),
        ("--reapply", ADDRESSES),
        ("--allow-host", HOSTS),
        ("--parallel", ("0", "1", "33", "-1", "x", "1.5", "9" * 50, "é", "٣")),
        ("--timeout", ("0s", "30m", "999999w", "1", "-1m", "", "٣m", "5 m", "1e3s", "000001s")),
        ("--log-format", ("json", "text", "x")),
        ("--format", ("json", "text", "")),
        (
            "--out",
            (
                "p.json",
                "p",
                "",
                ".",
                "no/p.json",
                "spec.yaml",
                "é\x1b.json",
                "a" * 300 + ".json",
                "/dev/null",
                "/proc/x.json",
            ),
        ),
        ("--state", ("w.json", "spec.yaml", ".", "no/w.json", "/dev/null", "")),
        ("--sandbox", ()),
        ("--prune", ()),
        ("--yes", ()),
        ("--detailed-exitcode", ()),
        ("--" + "x" * 50, ()),
        ("--help", ()),
    ):
        if rng.random() < (0.02 if option in {"--help", "--" + "x" * 50} else 0.12):
            found += [option, rng.choice(values)] if values else [option]
    return found


def case(index: int, folder: Path) -> Iterator[Ran]:
    """One command in an odd environment, with odd options, or both."""
    rng = random.Random(f"surroundings {index}")
    scene = scenes.SCENES[rng.choice(list(scenes.SCENES))]
    sandbox = copied(scenes.maker(scene.world))
    (folder / "spec.yaml").write_text(scene.spec, encoding="utf-8")
    environment = scenes.environment(sandbox)
    odd_options = rng.random() < 0.4
    if not odd_options or rng.random() < 0.3:
        for name in list(environment):
            if name.endswith("_KEY") and rng.random() < 0.5:
                environment[name] = _key(rng, environment[name])
        for _ in range(rng.choice([0, 0, 1, 2, 4])):
            environment[rng.choice(NAMES)] = rng.choice([*TEXTS, *EVIL, *HOSTS]).replace("\x00", "")
        for name in [one for one in environment if rng.random() < 0.05]:
            del environment[name]
        if rng.random() < 0.25:
            _session(rng, folder, environment)
    environment = {
        name: text for name, text in environment.items() if len(os.fsencode(_plain(text))) < 130_000
    }
    environment = {name: _plain(text) for name, text in environment.items()}
    verb = rng.choice(["plan", "plan", "plan", "drift", "apply", "apply", "show", "validate"])
    specs = rng.choice(
        [["spec.yaml"]] * 12
        + [[], ["."], ["missing"], ["spec.yaml", "spec.yaml"], ["/dev/zero"], ["é\x1b"], [""], ["-"]]
    )
    options = _options(rng) if odd_options else (["--yes"] if verb == "apply" else [])
    ran = run([verb, *specs, *options], folder=folder, sandbox=sandbox, environment=environment)
    if ran.code == 0 and "--help" not in options and verb in {"plan", "drift", "apply"} and not ran.out:
        ran = replace(ran, broken=(*ran.broken, "it went well, and says nothing"))
    yield ran


def _plain(text: str) -> str:
    """What an environment can hold: half of a character only as the byte that could not be read."""
    return text.encode("utf-8", "surrogateescape" if "\udcff" in text else "replace").decode(
        "utf-8", "surrogateescape"
    )
