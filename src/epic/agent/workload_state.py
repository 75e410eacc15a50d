"""What the workload role keeps on disk: the last lists of tunnels, so that a reboot needs no server."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from epic.agent.files import write_atomically
from epic.agent.tunnels import WorkloadTunnel, parse

log = logging.getLogger(__name__)

FILE = "tunnels.json"
COUNTER_FILE = "counter"


class Listed(NamedTuple):
    """What a server listed: as it was, in few bytes, and what it means."""

    content: bytes
    tunnels: tuple[WorkloadTunnel, ...]


def read(data: object) -> Listed:
    """A server's list; ValueError when it makes no sense."""
    return Listed(json.dumps(data, sort_keys=True, separators=(",", ":")).encode(), parse(data))


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
    entries = (json.dumps(label).encode() + b":" + listed.content for label, listed in sorted(lists.items()))
    write_atomically(directory / FILE, b"{" + b",".join(entries) + b"}")


def load_counter(directory: Path) -> int:
    """The number that hellos must go on above."""
    path = directory / COUNTER_FILE
    try:
        return int(path.read_text(encoding="ascii"))
    except FileNotFoundError:
        return 0
    except ValueError:
        log.error("%s is damaged; going on with the clock", path)
        return 0


def save_counter(directory: Path, counter: int) -> None:
    """Keep the number."""
    write_atomically(directory / COUNTER_FILE, str(counter).encode())
