"""Where keys are delivered. To add a sink, write its file and name it here."""

from btp_reconcile.core.sink import Sink
from btp_reconcile.sinks.command import CommandSink
from btp_reconcile.sinks.file import FileSink
from btp_reconcile.sinks.github import GitHub
from btp_reconcile.sinks.gitlab import GitLab
from btp_reconcile.sinks.kubernetes import Kubernetes
from btp_reconcile.sinks.vault import VaultSink

SINKS: tuple[Sink, ...] = (FileSink(), VaultSink(), CommandSink(), Kubernetes(), GitHub(), GitLab())

__all__ = ["SINKS"]
