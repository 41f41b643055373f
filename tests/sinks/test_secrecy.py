"""No error of a sink holds what was delivered, or what it signed in with, whatever the other side says."""

from __future__ import annotations

import base64
import json
import traceback
from typing import Any
from urllib.parse import quote

import pytest

from btp_reconcile.core.errors import PlatformError
from btp_reconcile.sinks.github import GitHub
from btp_reconcile.sinks.gitlab import GitLab
from btp_reconcile.sinks.kubernetes import Kubernetes
from tests.sinks.parcels import SECRET, around, parcel
from tests.sinks.servers import github, gitlab, kubernetes
from tests.sinks.servers.web import Says

TOKENS = (github.TOKEN, gitlab.TOKEN, kubernetes.TOKEN)


def kubeconfig(url: str) -> str:
    return json.dumps(
        {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": url}}],
            "users": [{"name": "u", "user": {"token": kubernetes.TOKEN}}],
        }
    )


SINKS: dict[str, Any] = {
    "github": (
        github.GitHubServer,
        lambda url: GitHub().open({"token": github.TOKEN, "url": url}, around()),
        {"repository": "finance/closing", "secret": "APIM"},
        "PUT",
    ),
    "gitlab": (
        gitlab.GitLabServer,
        lambda url: GitLab().open({"token": gitlab.TOKEN, "url": url}, around()),
        {"project": "finance/closing", "variable": "APIM"},
        "POST",
    ),
    "kubernetes": (
        kubernetes.KubernetesServer,
        lambda url: Kubernetes().open({"kubeconfig": kubeconfig(url)}, around()),
        {"namespace": "apps", "name": "apim"},
        "PATCH",
    ),
}


def forms(secret: str) -> set[str]:
    """How a text may be found again."""
    return {
        secret,
        json.dumps(secret)[1:-1],
        quote(secret, safe=""),
        base64.b64encode(secret.encode()).decode(),
    }


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 409, 418, 422, 429, 500, 503])
@pytest.mark.parametrize("method", ["GET", "write"])
@pytest.mark.parametrize("sink", SINKS)
def test_an_answer_that_echoes_the_request_gives_nothing_away(sink, method, status) -> None:
    start, opened, block, write = SINKS[sink]
    with start() as server:
        usual = server.answer

        def echo(asked):
            if asked.method != (write if method == "write" else method):
                return usual(asked)
            said = f"{dict(asked.headers)} {asked.body.decode()} {SECRET if asked.body else ''}"
            body = {
                "message": said,
                "reason": said,
                "error": said,
                "details": {"causes": [{"message": said}]},
            }
            return Says(status, body, {"Location": f"https://evil.example/{SECRET}"})

        server.answer = echo
        consumer = opened(server.url)
        with pytest.raises(PlatformError) as caught:
            consumer.put(block, parcel(), None)
        shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value.blame) + repr(consumer)
        consumer.close()

    assert (caught.value.blame.status, server.seen[-1].method) == (
        status,
        write if method == "write" else method,
    )
    assert [one for secret in (*TOKENS, SECRET) for one in forms(secret) if one in shown] == []
