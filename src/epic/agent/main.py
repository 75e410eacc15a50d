# SPDX-License-Identifier: Apache-2.0
"""The command `epic-agent`."""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import logging
import signal
import sys
from pathlib import Path

from epic.agent import settings as configuration
from epic.errors import EpicError
from epic.log_lines import log_to_stderr

log = logging.getLogger(__name__)

# Before systemd gives it up.
_STUCK_SECONDS = 7.0


def main() -> None:
    """Run the agent, or clean up after it."""
    options = _options()
    log_to_stderr(options.log_level)
    # An agent that systemd's watchdog ends says where it was.
    faulthandler.enable()
    # Their debug messages would drown ours, and what urllib3 tries again is told when it is given up.
    for noisy, least in (("pyroute2", logging.INFO), ("asyncio", logging.INFO), ("urllib3", logging.ERROR)):
        logging.getLogger(noisy).setLevel(max(least, logging.getLogger().level))
    try:
        settings = configuration.load(options.config)
        if options.cleanup:
            from epic.agent.cleanup import clean_up  # noqa: PLC0415

            clean_up(settings)
        else:
            asyncio.run(_run(settings))
    except EpicError as error:
        sys.exit(f"epic-agent: {error}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("epic-agent", description="EPIC's agent on a node.")
    parser.add_argument("--config", type=Path, default=Path("/etc/epic/agent.yaml"), metavar="FILE")
    parser.add_argument(
        "--cleanup",
        action="store_true",
        help="remove all kernel state of the agent (it must be stopped) and exit",
    )
    parser.add_argument("--log-level", default="INFO", choices=("DEBUG", "INFO", "WARNING", "ERROR"))
    return parser.parse_args()


async def _run(settings: configuration.Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _end, stop)
    # A node has one role, and the other one's libraries would take megabytes.
    if isinstance(settings, configuration.GatewaySettings):
        from epic.agent.gateway.agent import GatewayAgent  # noqa: PLC0415

        await GatewayAgent(settings).run(stop)
    else:
        from epic.agent.workload.agent import WorkloadAgent  # noqa: PLC0415

        await WorkloadAgent(settings).run(stop)


def _end(stop: asyncio.Event) -> None:
    """End, and say in time what holds it up, be it a thread or a task."""
    faulthandler.dump_traceback_later(_STUCK_SECONDS)
    asyncio.get_running_loop().call_later(_STUCK_SECONDS, _tell_tasks)
    stop.set()


def _tell_tasks() -> None:
    for task in asyncio.all_tasks():
        where = [f"{frame.f_code.co_qualname}:{frame.f_lineno}" for frame in task.get_stack()]
        log.warning("the task %s has not ended: %s", task.get_name(), " < ".join(where) or "not begun")
