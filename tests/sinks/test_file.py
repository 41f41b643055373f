"""The sink `file`, on real files; what is written is read by other people's parsers."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dotenv
import javaproperties
import pytest

from btp_reconcile.core import formats
from btp_reconcile.core.digest import salted
from btp_reconcile.core.errors import PlatformError
from btp_reconcile.core.sink import Held
from btp_reconcile.sinks.file import FileSink
from tests.sinks.deliveries import KEY, NATIVE, PEM, SECRET, around, identity, parcel
from tests.worlds import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from btp_reconcile.core.sink import Consumer

PATH = {"path": "key.json"}
NOBODY = 65534
CONTENT = (json.dumps(NATIVE, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
OLD = b'{\n  "clientSecret": "old"\n}\n'
DELIVERED = Held(digest=salted(KEY, CONTENT), identity=identity())


@pytest.fixture
def sink(tmp_path: Path) -> Consumer:
    return FileSink().open({}, around(tmp_path))


def mode(path: Path) -> int:
    return path.lstat().st_mode & 0o7777


def names(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


def refusal(sink: Consumer, block: dict[str, Any], found: Held | None = None) -> str:
    """The words in which a delivery is refused. They hold nothing of what was to be delivered."""
    with pytest.raises(PlatformError) as caught:
        sink.put(block, parcel(), found)

    assert SECRET not in str(caught.value)
    return caught.value.blame.message


# --- delivering and looking -----------------------------------------------------------------------------


def test_where_nothing_is_nothing_is_seen(sink: Consumer) -> None:
    assert sink.look(PATH) is None
    assert sink.look({"path": "no/such/folder/key.json"}) is None


def test_a_delivery_is_seen_as_it_was_made(sink: Consumer, tmp_path: Path) -> None:
    held = sink.put(PATH, parcel(), None)

    assert held == DELIVERED
    assert sink.look(PATH) == held
    assert (tmp_path / "key.json").read_bytes() == CONTENT
    assert mode(tmp_path / "key.json") == 0o600
    assert names(tmp_path) == [".key.json.reconcile", "key.json"]


def test_the_note_beside_a_file_holds_no_secret_and_is_private(sink: Consumer, tmp_path: Path) -> None:
    sink.put(PATH, parcel(), None)
    note = tmp_path / ".key.json.reconcile"

    assert mode(note) == 0o600
    assert json.loads(note.read_text()) == {
        "version": 1,
        "identity": {
            "owner": "team",
            "spec": "prod",
            "delivery": "delivery:prod/apim/transport/main",
            "key": KEY,
            "generation": 1,
        },
        "digest": DELIVERED.digest,
    }


def test_the_same_delivery_twice_changes_nothing(sink: Consumer, tmp_path: Path) -> None:
    first = sink.put(PATH, parcel(), None)
    before = (tmp_path / "key.json").stat()

    assert sink.put(PATH, parcel(), first) == first
    assert sink.put(PATH, parcel(), None) == first
    assert (tmp_path / "key.json").stat().st_ino == before.st_ino


def test_a_new_generation_takes_the_place_of_the_old_one(sink: Consumer, tmp_path: Path) -> None:
    first = sink.put(PATH, parcel(), None)
    second = sink.put(PATH, parcel(2, clientSecret="new"), first)

    assert json.loads((tmp_path / "key.json").read_text()) == {"clientSecret": "new"}
    assert second.identity == identity(2)
    assert sink.look(PATH) == second


def test_who_has_the_old_file_open_goes_on_reading_the_old_one(sink: Consumer, tmp_path: Path) -> None:
    first = sink.put(PATH, parcel(), None)
    with (tmp_path / "key.json").open("rb") as reader:
        sink.put(PATH, parcel(2, clientSecret="new"), first)

        assert reader.read() == CONTENT


@pytest.mark.parametrize("wished", ["0600", "0640", "0400", "0440"])
def test_the_mode_is_the_one_asked_for_whatever_the_umask(
    sink: Consumer, tmp_path: Path, wished: str
) -> None:
    block = {**PATH, "mode": wished}
    before = os.umask(0o277)
    try:
        sink.put(block, parcel(), None)
    finally:
        os.umask(before)

    assert mode(tmp_path / "key.json") == int(wished, 8)
    assert sink.look(block) == DELIVERED


@pytest.mark.parametrize(
    ("now", "said"),
    [(0o644, "others can read it (mode 0644)"), (0o400, "its mode is not 0600 (mode 0400)")],
)
def test_another_mode_is_wrong_and_mended_by_delivering_again(
    sink: Consumer, tmp_path: Path, now: int, said: str
) -> None:
    sink.put(PATH, parcel(), None)
    (tmp_path / "key.json").chmod(now)
    found = sink.look(PATH)

    assert found == Held(digest=DELIVERED.digest, identity=identity(), wrong=said)
    assert sink.put(PATH, parcel(), found) == DELIVERED
    assert mode(tmp_path / "key.json") == 0o600


def test_a_changed_content_is_seen_without_keeping_it(sink: Consumer, tmp_path: Path) -> None:
    sink.put(PATH, parcel(), None)
    (tmp_path / "key.json").write_text("{}")
    found = sink.look(PATH)

    assert found == Held(
        digest=salted(KEY, b"{}"), identity=identity(), wrong="its content is not what was delivered"
    )
    assert sink.put(PATH, parcel(), found) == DELIVERED


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_another_user_is_wrong_and_replaced(sink: Consumer, tmp_path: Path) -> None:
    sink.put(PATH, parcel(), None)
    os.chown(tmp_path / "key.json", NOBODY, -1)
    found = sink.look(PATH)

    assert found == Held(
        digest=DELIVERED.digest,
        identity=identity(),
        wrong=f"it belongs to another user (uid {NOBODY})",
    )
    assert sink.put(PATH, parcel(), found) == DELIVERED


# --- what is not ours -----------------------------------------------------------------------------------


def test_a_file_without_our_note_is_foreign_and_not_overwritten(sink: Consumer, tmp_path: Path) -> None:
    (tmp_path / "key.json").write_text("theirs")

    assert sink.look(PATH) == Held(foreign="it was not made by reconcile")
    assert refusal(sink, PATH) == (
        f"{tmp_path}/key.json: changed meanwhile: it was not made by reconcile; nothing was written, run again"
    )
    assert (tmp_path / "key.json").read_text() == "theirs"


def test_a_foreign_file_is_taken_over_when_it_was_seen(sink: Consumer, tmp_path: Path) -> None:
    (tmp_path / "key.json").write_text("theirs")

    assert sink.put(PATH, parcel(), sink.look(PATH)) == DELIVERED


def test_what_belongs_to_another_owner_is_taken_over_when_it_was_seen_so(sink: Consumer) -> None:
    theirs = sink.put(PATH, parcel(owner="they"), None)

    with pytest.raises(PlatformError, match="it belongs to they/prod, delivery:prod/apim/transport/main"):
        sink.put(PATH, parcel(), None)
    assert sink.put(PATH, parcel(), replace(theirs, foreign="it belongs to owner 'they'")) == DELIVERED


def test_two_deliveries_that_meet_in_one_file_are_told_to_part(sink: Consumer, tmp_path: Path) -> None:
    """Two spellings of one folder: nothing but the file system knows."""
    (tmp_path / "link").symlink_to(tmp_path)
    sink.put({"path": "key.json"}, parcel(), None)
    other = parcel()
    other = replace(other, identity=replace(other.identity, delivery="delivery:prod/apim/transport/other"))

    with pytest.raises(PlatformError) as caught:
        sink.put({"path": "link/key.json"}, other, None)

    assert caught.value.blame.message == (
        f"{tmp_path}/link/key.json: delivery:prod/apim/transport/other and delivery:prod/apim/transport/main (owner team, "
        "spec prod) both go to this file, perhaps through a link; nothing was written: choose another place for one of them"
    )


def test_what_another_run_delivered_meanwhile_is_not_overwritten(sink: Consumer, tmp_path: Path) -> None:
    first = sink.put(PATH, parcel(), None)
    sink.put(PATH, parcel(3), first)

    with pytest.raises(PlatformError) as caught:
        sink.put(PATH, parcel(2), first)
    assert caught.value.blame.message == (
        f"{tmp_path}/key.json: changed meanwhile: it belongs to team/prod, delivery:prod/apim/transport/main, "
        "generation 3 now; nothing was written, run again"
    )


def test_the_same_parcel_from_another_run_is_fine(sink: Consumer) -> None:
    first = sink.put(PATH, parcel(), None)
    second = sink.put(PATH, parcel(2), first)

    assert sink.put(PATH, parcel(2), first) == second


def test_a_symbolic_link_is_neither_followed_nor_replaced(sink: Consumer, tmp_path: Path) -> None:
    (tmp_path / "aim").write_text("aim")
    (tmp_path / "key.json").symlink_to("aim")

    assert sink.look(PATH) == Held(foreign="it is a symbolic link, which is not followed")
    assert refusal(sink, PATH, sink.look(PATH)) == (
        f"{tmp_path}/key.json: it is a symbolic link, which is not followed; nothing was written"
    )
    assert (tmp_path / "aim").read_text() == "aim"


def test_a_folder_and_a_pipe_are_no_files(sink: Consumer, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")

    assert sink.look({"path": "folder"}) == Held(foreign="it is a folder")
    assert sink.look({"path": "pipe"}) == Held(foreign="it is no ordinary file")
    assert refusal(sink, {"path": "folder"}) == f"{tmp_path}/folder: it is a folder; nothing was written"
    assert refusal(sink, {"path": "/"}) == "/: it is a folder; name a file"


def test_a_note_that_cannot_be_trusted_counts_for_nothing(sink: Consumer, tmp_path: Path) -> None:
    sink.put(PATH, parcel(), None)
    note = tmp_path / ".key.json.reconcile"
    text = note.read_text()

    note.chmod(0o666)
    assert sink.look(PATH) == Held(foreign="others could write .key.json.reconcile, which says whose it is")
    note.chmod(0o600)
    note.write_text("{")
    assert sink.look(PATH) == Held(foreign=".key.json.reconcile, which says whose it is, is damaged")
    note.write_text("[]")
    assert sink.look(PATH) == Held(foreign=".key.json.reconcile, which says whose it is, is damaged")
    note.rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").write_text(text)
    note.symlink_to("elsewhere")
    assert sink.look(PATH) == Held(foreign=".key.json.reconcile, which says whose it is, cannot be read")


# --- folders --------------------------------------------------------------------------------------------


def test_a_missing_folder_is_refused_unless_it_may_be_made(sink: Consumer, tmp_path: Path) -> None:
    block = {"path": "a/b/key.json"}

    assert refusal(sink, block) == (
        f"{tmp_path}/a/b/key.json: its folder {tmp_path}/a/b does not exist; make it, or write make_folder: true"
    )
    before = os.umask(0)
    try:
        held = sink.put({**block, "make_folder": True}, parcel(), None)
    finally:
        os.umask(before)
    assert held == DELIVERED
    assert (mode(tmp_path / "a"), mode(tmp_path / "a/b")) == (0o700, 0o700)


@pytest.mark.parametrize("below", [".", "inner"])
def test_a_folder_that_others_may_write_is_refused(sink: Consumer, tmp_path: Path, below: str) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    (open_to_all / "inner").mkdir(mode=0o700)
    open_to_all.chmod(0o777)
    block = {"path": f"open/{below}/key.json"}
    said = (
        f"others may write the folder {open_to_all} (mode 0777) and could put another file in its place; "
        "take that right away (chmod go-w), or choose another folder"
    )

    assert refusal(sink, block).endswith(said)
    with pytest.raises(PlatformError) as caught:
        sink.look(block)
    assert caught.value.blame.message.endswith(said)
    assert refusal(sink, {"path": "open/new/key.json", "make_folder": True}).endswith(said)
    assert names(open_to_all) == ["inner"]


def test_a_folder_is_judged_behind_symbolic_links_too(sink: Consumer, tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "link").symlink_to("open")

    assert "others may write the folder" in refusal(sink, {"path": "link/key.json"})


def test_a_sticky_folder_is_good_enough(sink: Consumer, tmp_path: Path) -> None:
    (tmp_path / "sticky").mkdir()
    (tmp_path / "sticky").chmod(0o1777)

    assert sink.put({"path": "sticky/key.json"}, parcel(), None) == DELIVERED


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give folders away")
def test_a_folder_of_another_user_is_refused(sink: Consumer, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", NOBODY, -1)

    assert refusal(sink, {"path": "theirs/key.json"}).endswith(
        f"the folder {tmp_path}/theirs belongs to another user, who could put another file in its place; "
        "choose a folder of yours"
    )


def test_a_folder_of_a_group_with_others_in_it_is_refused(sink: Consumer, tmp_path: Path) -> None:
    """65533 is a group that no system names; a user's private group would be fine."""
    if os.geteuid() == 0:
        os.chown(tmp_path, -1, 65533)
        tmp_path.chmod(0o770)

        assert "others may write the folder" in refusal(sink, PATH)
        os.chown(tmp_path, -1, 0)
    tmp_path.chmod(0o770)

    assert sink.look(PATH) is None


# --- failures -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def as_an_ordinary_user() -> Iterator[Path]:
    """Root may write anywhere, so the test gives that up for a while. Gives a folder of that user's."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        if os.geteuid() != 0:
            yield folder
            return
        os.chown(folder, NOBODY, NOBODY)
        os.seteuid(NOBODY)
        try:
            yield folder
        finally:
            os.seteuid(0)


def test_a_folder_that_cannot_be_written_is_told_in_words() -> None:
    with as_an_ordinary_user() as folder:
        sink = FileSink().open({}, around(folder))
        folder.chmod(0o500)

        assert refusal(sink, PATH) == f"{folder}/key.json: Permission denied"
        folder.chmod(0o700)
        assert names(folder) == []


def test_a_full_disk_leaves_the_old_file_and_no_copy(sink: Consumer, tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: the write fails in the middle, as it does there."""
    first = sink.put(PATH, parcel(), None)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(PlatformError) as caught:
            sink.put(PATH, parcel(2, clientSecret=SECRET * 1000), first)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))

    assert caught.value.blame.message == f"{tmp_path}/key.json: File too large"
    assert (tmp_path / "key.json").read_bytes() == CONTENT
    assert names(tmp_path) == [".key.json.reconcile", "key.json"]
    found = sink.look(PATH)
    assert found is not None
    assert (found.identity, found.wrong) == (identity(2), "its content is not what was delivered")
    assert sink.put(PATH, parcel(2), found).wrong == ""


def test_a_path_through_a_file_is_told_in_words(sink: Consumer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    assert refusal(sink, {"path": "file/key.json"}) == f"{tmp_path}/file/key.json: Not a directory"


def test_a_name_that_is_too_long_is_told_in_words(sink: Consumer, tmp_path: Path) -> None:
    name = "n" * 250

    assert refusal(sink, {"path": name}) == f"{tmp_path}/{name}: File name too long"


LEFT_OVER = ".key.json.reconcile.0123456789abcdef"


def test_what_a_killed_run_left_is_seen_and_removed(sink: Consumer, tmp_path: Path) -> None:
    sink.put(PATH, parcel(), None)
    (tmp_path / LEFT_OVER).write_text("half a secret")
    (tmp_path / ".key.json.reconcile.mine").write_text("a name that only looks like it")
    found = sink.look(PATH)

    assert found == Held(
        digest=DELIVERED.digest, identity=identity(), wrong="a copy that a killed run left lies beside it"
    )
    assert sink.put(PATH, parcel(), found) == DELIVERED
    assert names(tmp_path) == [".key.json.reconcile", ".key.json.reconcile.mine", "key.json"]


def test_a_copy_that_another_run_is_writing_is_left_alone(sink: Consumer, tmp_path: Path) -> None:
    with (tmp_path / LEFT_OVER).open("w") as writing:
        fcntl.flock(writing, fcntl.LOCK_EX)

        assert sink.put(PATH, parcel(), None) == DELIVERED
        assert LEFT_OVER in names(tmp_path)


KILLED = """
import json, os, signal, sys
from pathlib import Path
from btp_reconcile.sinks.file import FileSink
from tests.sinks.deliveries import around, parcel

CALLS = {"open", "os.rename", "os.remove", "os.listdir"}
ended, number = [], 0
while not ended or ended[-1]:
    number += 1
    folder = Path(sys.argv[1], str(number))
    folder.mkdir(mode=0o700)
    sink = FileSink().open({}, around(folder))
    if sys.argv[2] != "nothing":
        sink.put({"path": "key.json"}, parcel(1, clientSecret="old"), None)
    found = sink.look({"path": "key.json"})
    child = os.fork()
    if not child:
        left = number

        def count(event, args):
            global left
            if event in CALLS:
                left -= 1
                if not left:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        sink.put({"path": "key.json"}, parcel(2), found)
        os._exit(0)
    ended.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(json.dumps(ended))
"""


@pytest.mark.parametrize("before", ["nothing", "an older generation"])
def test_a_run_killed_at_any_call_is_finished_by_the_next(tmp_path: Path, before: str) -> None:
    """A process is really killed, at the first call for a file that it makes, at the second, and so on."""
    run = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path, before],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        check=True,
    )
    ended = json.loads(run.stdout)
    old = Held(digest=salted(KEY, OLD), identity=identity()) if before != "nothing" else None
    new = Held(digest=DELIVERED.digest, identity=identity(2))
    cut = Held(digest=salted(KEY, OLD), identity=identity(2), wrong="its content is not what was delivered")
    seen = []

    assert ended == [-signal.SIGKILL] * (len(ended) - 1) + [0]
    for number in range(1, len(ended) + 1):
        folder = tmp_path / str(number)
        sink = FileSink().open({}, around(folder))
        assert {mode(one) for one in folder.iterdir()} <= {0o600}
        content = (folder / "key.json").read_bytes() if (folder / "key.json").exists() else None
        found = sink.look(PATH)
        if found is not None and found.wrong.endswith("a copy that a killed run left lies beside it"):
            left = [one for one in names(folder) if len(one) == len(LEFT_OVER)]
            assert len(left) == 1
            wrong = found.wrong.removesuffix("a copy that a killed run left lies beside it")
            found = replace(found, wrong=wrong.removesuffix("; "))
        assert (found, content) in [(old, None if old is None else OLD), (cut, OLD), (new, CONTENT)]
        seen.append(found)

        assert sink.put(PATH, parcel(2), found) == new
        assert names(folder) == [".key.json.reconcile", "key.json"]
    assert seen[0] == old
    assert seen[-1] == new
    assert cut in seen or before == "nothing"


# --- formats --------------------------------------------------------------------------------------------

FLAT = {
    "CERTIFICATE": PEM.replace("\n", "\\n"),
    "CLIENTID": NATIVE["clientId"],
    "CLIENTSECRET": SECRET,
    "UAA_URL": "https://uaa.test.invalid",
    "UAA_VERIFICATIONKEY": "öffentlich",
    "URL": "https://apim.test.invalid",
}


def of_a_shell(path: Path, names: list[str]) -> dict[str, str]:
    """What a POSIX shell makes of a file of variables."""
    script = ". " + str(path) + "; " + "; ".join(f"printf '%s\\0' \"${name}\"" for name in names)
    output = subprocess.run(["sh", "-euc", script], capture_output=True, check=True, env={}).stdout
    return dict(zip(names, output.decode().split("\0"), strict=False))


def of_dotenv(path: Path) -> dict[str, str | None]:
    return dotenv.dotenv_values(path)


def of_docker(path: Path) -> dict[str, str]:
    """`docker run --env-file`: "The value is taken as it is, quotation marks included"."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return {line.partition("=")[0]: line.partition("=")[2] for line in lines}


def test_variables_are_the_same_to_a_shell_and_to_dotenv(sink: Consumer, tmp_path: Path) -> None:
    sink.put({"path": "key.env", "format": "env"}, parcel(), None)

    assert of_a_shell(tmp_path / "key.env", list(FLAT)) == FLAT
    assert of_dotenv(tmp_path / "key.env") == FLAT


ODD: dict[str, Any] = {
    "apostrophe": "it's",
    "backslash": "a\\b\\\\c\\",
    "both": 'say "it\'s \\n"',
    "break": "a\\b\nc",
    "dollar": "$HOME $(id) `id`",
    "empty": "",
    "bare": "Az09_@%+=:,./-",
    "hash": " # no comment ",
    "tilde": "~root",
    "tab": "a\tb",
    "star": "* ? [a] {a,b} !1 & ; <x> (y) ^",
    "number": 12,
    "yes": True,
    "none": None,
    "list": ["a b", {"c": 1.5}],
}


def test_odd_values_are_the_same_to_a_shell_and_to_dotenv(sink: Consumer, tmp_path: Path) -> None:
    sink.put({"path": "key.env", "format": "env", "prefix": "X_"}, parcel(1, **ODD), None)
    expected = {
        "X_APOSTROPHE": "it's",
        "X_BACKSLASH": "a\\b\\\\c\\",
        "X_BARE": "Az09_@%+=:,./-",
        "X_BOTH": 'say "it\'s \\n"',
        "X_BREAK": "a\\b\\nc",
        "X_DOLLAR": "$HOME $(id) `id`",
        "X_EMPTY": "",
        "X_HASH": " # no comment ",
        "X_LIST_0": "a b",
        "X_LIST_1_C": "1.5",
        "X_NONE": "",
        "X_NUMBER": "12",
        "X_STAR": "* ? [a] {a,b} !1 & ; <x> (y) ^",
        "X_TAB": "a\tb",
        "X_TILDE": "~root",
        "X_YES": "true",
    }

    assert of_a_shell(tmp_path / "key.env", list(expected)) == expected
    assert of_dotenv(tmp_path / "key.env") == expected


@pytest.mark.parametrize("value", ["${HOME}", "it's $5", "a\\`"])
def test_a_value_that_no_quotes_protect_is_refused_by_its_name(
    sink: Consumer, tmp_path: Path, value: str
) -> None:
    with pytest.raises(PlatformError) as caught:
        sink.put({"path": "key.env", "format": "env"}, parcel(1, uaa={"clientsecret": value}), None)

    assert caught.value.blame.message == (
        f"{tmp_path}/key.env: uaa.clientsecret holds characters that no quotes protect from a shell and from "
        "python-dotenv alike; take values: base64, values: literal, or the format json"
    )
    assert names(tmp_path) == []


def test_literal_values_are_what_docker_reads(sink: Consumer, tmp_path: Path) -> None:
    sink.put({"path": "key.env", "format": "env", "values": "literal"}, parcel(), None)

    assert of_docker(tmp_path / "key.env") == FLAT


def test_values_in_base64_are_the_same_to_every_reader(sink: Consumer, tmp_path: Path) -> None:
    content: dict[str, Any] = {"pem": PEM, "secret": "${HOME} 'it' \\"}
    sink.put({"path": "key.env", "format": "env", "values": "base64"}, parcel(1, **content), None)
    file = tmp_path / "key.env"
    found = of_docker(file)

    assert of_a_shell(file, ["PEM", "SECRET"]) == of_dotenv(file) == found
    assert {name: base64.b64decode(value).decode() for name, value in found.items()} == {
        "PEM": PEM,
        "SECRET": content["secret"],
    }


@pytest.mark.parametrize(
    ("content", "block", "said"),
    [
        (
            {"a": {"b": "1"}, "a_b": "2"},
            {},
            "a.b and a_b would both become A_B",
        ),
        ({"1st": "x"}, {}, "1st would become 1ST, which is no name of a variable; give a prefix"),
        (
            {"a": "\0"},
            {},
            "a holds a control character; take values: base64, or the format json",
        ),
        (
            {"a": "x"},
            {"prefix": "A-"},
            "its prefix is no beginning of a variable's name: take letters, digits and _",
        ),
        ({"a": "\ud800"}, {}, "a value holds half a character, which no file can hold"),
    ],
)
def test_what_variables_cannot_hold_is_refused(
    sink: Consumer, tmp_path: Path, content: dict[str, Any], block: dict[str, str], said: str
) -> None:
    with pytest.raises(PlatformError) as caught:
        sink.put({"path": "key.env", "format": "env", **block}, parcel(1, **content), None)

    assert caught.value.blame.message == f"{tmp_path}/key.env: {said}"


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"prefix": "A_"}, "a prefix goes with the formats env and properties, not with json"),
        (
            {"format": "properties", "values": "base64"},
            "values goes with the format env, not with properties",
        ),
    ],
)
def test_options_of_another_format_are_refused_when_looking(
    sink: Consumer, tmp_path: Path, block: dict[str, str], said: str
) -> None:
    with pytest.raises(PlatformError) as caught:
        sink.look({**PATH, **block})

    assert caught.value.blame.message == f"{tmp_path}/key.json: {said}"


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({}, ()),
        ({"format": "env", "prefix": "APIM_", "values": "base64"}, ()),
        (
            {"prefix": "APIM_"},
            ("file key.json: a prefix goes with the formats env and properties, not with json",),
        ),
        ({"values": "base64"}, ("file key.json: values goes with the format env, not with json",)),
        (
            {"format": "env", "prefix": "9-"},
            ("file key.json: its prefix is no beginning of a variable's name: take letters, digits and _",),
        ),
        (
            {"path": ".key.json.reconcile"},
            (
                "file .key.json.reconcile: its name is kept for the notes that lie beside files; choose another",
            ),
        ),
    ],
)
def test_what_does_not_go_together_is_known_offline(block: dict[str, str], said: tuple[str, ...]) -> None:
    assert FileSink().objections({**PATH, **block}) == said


def test_properties_are_read_as_java_reads_them(sink: Consumer, tmp_path: Path) -> None:
    content: dict[str, Any] = {
        **NATIVE,
        "odd name:=#!": " leading, = : # ! \\ \t\r\n\f 𝄞 ",
        "list": ["a", None],
    }
    sink.put(
        {"path": "key.properties", "format": "properties", "prefix": "apim."}, parcel(1, **content), None
    )
    with (tmp_path / "key.properties").open(encoding="iso-8859-1", newline="") as stream:
        found = javaproperties.load(stream)

    assert found == {
        "apim.url": NATIVE["url"],
        "apim.clientId": NATIVE["clientId"],
        "apim.clientSecret": SECRET,
        "apim.certificate": PEM,
        "apim.uaa.url": "https://uaa.test.invalid",
        "apim.uaa.verificationkey": "öffentlich",
        "apim.odd name:=#!": content["odd name:=#!"],
        "apim.list.0": "a",
        "apim.list.1": "",
    }


def test_two_properties_of_one_name_are_refused() -> None:
    with pytest.raises(formats.Unwritable, match=r"^two fields would both become a\.b$"):
        formats.text({"a": {"b": "1"}, "a.b": "2"}, "properties")


def test_the_same_content_in_another_order_is_the_same_text() -> None:
    for form in formats.FORMATS:
        assert formats.text({"b": "1", "a": "2"}, form) == formats.text({"a": "2", "b": "1"}, form)


def test_a_sink_says_where_it_delivers() -> None:
    assert FileSink().place({"path": "secrets/key.json"}) == "secrets/key.json"
