"""As much of GitHub's REST API as the workflows ask of it: comments, issues and labels of one repository.

From "REST API endpoints for issue comments", "… for issues" and "… for labels": lists are paged by `per_page` with a Link
header, new things are answered with 201, and creating a label that is there with 422.
"""

from __future__ import annotations

import json
import socketserver
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BOT = "github-actions[bot]"
REPOSITORY = "/repos/acme/btp"


class GitHub:
    """One repository."""

    def __init__(self) -> None:
        self.labels: list[str] = []
        self.issues: list[dict[str, Any]] = []
        self.comments: list[dict[str, Any]] = []
        self.written: list[str] = []
        """Method and path of each request that was not a GET."""

    def issue(
        self,
        body: str,
        *,
        by: str = BOT,
        labels: tuple[str, ...] = (),
        state: str = "open",
        pull: bool = False,
    ) -> None:
        number = len(self.issues) + 1
        new = {
            "number": number,
            "title": "",
            "body": body,
            "state": state,
            "user": {"login": by},
            "labels": [{"name": one} for one in labels],
        }
        self.issues.append({**new, "pull_request": {}} if pull else new)

    def comment(self, body: str, *, by: str = BOT, on: int = 1) -> None:
        self.comments.append(
            {"id": 1000 + len(self.comments), "body": body, "user": {"login": by}, "issue": on}
        )

    def answer(self, method: str, path: str, query: dict[str, str], sent: dict[str, Any]) -> tuple[int, Any]:
        if method != "GET":
            self.written.append(f"{method} {path}")
        words = path.removeprefix(REPOSITORY).strip("/").split("/")
        match method, words:
            case "GET", ["labels", name]:
                return (200, {"name": name}) if name in self.labels else (404, {"message": "Not Found"})
            case "POST", ["labels"]:
                self.labels.append(sent["name"])
                return 201, {"name": sent["name"]}
            case "GET", ["issues"]:
                return 200, [
                    one
                    for one in self.issues
                    if one["state"] == query["state"] and {"name": query["labels"]} in one["labels"]
                ]
            case "POST", ["issues"]:
                self.issue(sent["body"], labels=tuple(sent["labels"]))
                self.issues[-1]["title"] = sent["title"]
                return 201, self.issues[-1]
            case "PATCH", ["issues", "comments", number]:
                one = next(one for one in self.comments if one["id"] == int(number))
                one.update(sent)
                return 200, one
            case "PATCH", ["issues", number]:
                self.issues[int(number) - 1].update(sent)
                return 200, self.issues[int(number) - 1]
            case "GET", ["issues", number, "comments"]:
                return 200, [one for one in self.comments if one["issue"] == int(number)]
            case "POST", ["issues", number, "comments"]:
                self.comment(sent["body"], on=int(number))
                return 201, self.comments[-1]
        return 404, {"message": f"Not Found: {method} {path}"}


@contextmanager
def served(github: GitHub, folder: Path) -> Iterator[dict[str, str]]:
    """It answers at a socket file; gives the environment in which `gh` asks there."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            url = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(url.query).items()}
            size = int(self.headers.get("Content-Length") or 0)
            sent = json.loads(self.rfile.read(size)) if size else {}
            status, found = github.answer(self.command, url.path, query, sent)
            self.send_response(status)
            if isinstance(found, list):
                size, page = int(query.get("per_page", 30)), int(query.get("page", 1))
                if len(found) > size * page:
                    self.send_header(
                        "Link",
                        f'<https://api.github.com{url.path}?{url.query.partition("&page=")[0]}&page={page + 1}>; rel="next"',
                    )
                found = found[size * (page - 1) : size * page]
            text = json.dumps(found).encode()
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PATCH = _answer  # noqa: N815 - the names that http.server calls

        def address_string(self) -> str:
            return "socket"

        def log_message(self, *_: Any) -> None:
            return

    class Server(socketserver.ThreadingUnixStreamServer):
        daemon_threads = True

    socket = folder / "gh.sock"
    (folder / "gh").mkdir()
    (folder / "gh/config.yml").write_text(f"version: 1\nhttp_unix_socket: {socket}\n", encoding="utf-8")
    with Server(str(socket), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield {
                "GH_CONFIG_DIR": str(folder / "gh"),
                "GH_TOKEN": "token-of-the-job",
                "GH_NO_UPDATE_NOTIFIER": "1",
                "GH_PROMPT_DISABLED": "1",
            }
        finally:
            server.shutdown()
            thread.join()
