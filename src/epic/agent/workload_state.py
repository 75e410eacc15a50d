"""What the workload role keeps on disk: the last lists of tunnels, so that a reboot needs no server."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from epic.agent.files import write_atomically

log = logging.getLogger(__name__)

FILE = "tunnels.json"
COUNTER_FILE = "counter"


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


def save(directory: Path, lists: dict[str, Any]) -> None:
    """Keep the lists; they hold keys, so only root reads them."""
    write_atomically(directory / FILE, json.dumps(lists, sort_keys=True).encode())


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
