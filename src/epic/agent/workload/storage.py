"""What the workload role keeps on disk: the last lists of tunnels, so that a reboot needs no server."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from epic.agent.runtime.files import write_atomically
from epic.agent.workload import plan
from epic.agent.workload.plan import WorkloadTunnel

log = logging.getLogger(__name__)

FILE = "tunnels.json"


@dataclass(frozen=True, slots=True)
class Listed:
    """A server's list: each tunnel as it was, in few bytes, and what it means."""

    documents: Mapping[str, WorkloadTunnel] = field(repr=False)

    @property
    def tunnels(self) -> tuple[WorkloadTunnel, ...]:
        """What they mean."""
        return tuple(self.documents.values())

    @property
    def content(self) -> str:
        """As it was, in JSON."""
        return f'{{"tunnels":[{",".join(self.documents)}]}}'


def read(data: object, before: Listed | None = None) -> Listed:
    """A server's list; ValueError when it makes no sense. What is in the one `before` is not read again."""
    known = before.documents if before else {}
    found = ((_text(document), document) for document in plan.documents(data))
    return Listed({text: known.get(text) or plan.read(document) for text, document in found})


def _text(document: object) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


def load(directory: Path) -> dict[str, Any]:
    """The last lists by account; empty when there are none that can be read."""
    path = directory / FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        log.error("%s is damaged (%s); waiting for the server to send the tunnels again", path, error)
        return {}
    return data if isinstance(data, dict) else {}


def save(directory: Path, lists: Mapping[str, Listed]) -> None:
    """Keep the lists; they hold keys, so only root reads them."""
    entries = (f"{json.dumps(label)}:{listed.content}" for label, listed in sorted(lists.items()))
    write_atomically(directory / FILE, f"{{{','.join(entries)}}}".encode())
