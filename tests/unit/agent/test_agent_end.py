# SPDX-License-Identifier: Apache-2.0
"""How the agent ends: what holds it up is named in its log before systemd gives it up."""

from __future__ import annotations

import subprocess
import sys

STUCK = """
import asyncio, logging, os, signal
from epic.agent import main

logging.basicConfig()
main._STUCK_SECONDS = 0.2

async def keep_on(told):
    while not told.is_set():
        try:
            await told.wait()
        except asyncio.CancelledError:
            asyncio.get_running_loop().call_later(0.6, told.set)

async def run():
    stop, told = asyncio.Event(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, main._end, stop)
    task = asyncio.create_task(keep_on(told), name="sticky")
    os.kill(os.getpid(), signal.SIGTERM)
    await stop.wait()
    task.cancel()
    await task

asyncio.run(run())
"""


def test_a_task_that_does_not_end_is_named_with_its_thread() -> None:
    done = subprocess.run([sys.executable, "-c", STUCK], capture_output=True, text=True, check=True)
    assert "the task sticky has not ended: keep_on:" in done.stderr
    assert "most recent call first" in done.stderr
