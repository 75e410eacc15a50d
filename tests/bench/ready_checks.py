# SPDX-License-Identifier: Apache-2.0
"""What an agent spends on asking Envoys whether they live, in percent of one core.

Envoys' admin interfaces are played by one other process, on Unix sockets; answers are as long as Envoy's.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

from epic.agent.gateway.envoy.ready_check import ReadyCheck

ENVOYS = (250, 1000)
SECONDS = 10.0
_ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/plain; charset=UTF-8\r\ncache-control: no-cache, max-age=0\r\n"
    b"x-content-type-options: nosniff\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\nserver: envoy\r\n"
    b"transfer-encoding: chunked\r\n\r\n5\r\nLIVE\n\r\n0\r\n\r\n"
)


class _Admin(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(_ANSWER)


async def _serve(directory: Path, count: int) -> None:
    loop = asyncio.get_running_loop()
    for number in range(count):
        await loop.create_unix_server(_Admin, directory / f"{number}.sock")
    await asyncio.Event().wait()


def _play(directory: Path, count: int) -> None:
    asyncio.run(_serve(directory, count))


async def _measure(directory: Path, count: int) -> float:
    answers = 0

    def tell(state: str) -> None:
        nonlocal answers
        answers += state == "LIVE"

    tasks = [
        asyncio.create_task(ReadyCheck(directory / f"{number}.sock", tell).run()) for number in range(count)
    ]
    while answers < count:  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    answers = 0
    before, begun = _spent(), time.monotonic()
    await asyncio.sleep(SECONDS)
    part = (_spent() - before) / (time.monotonic() - begun)
    assert answers >= count * SECONDS * 0.8
    for task in tasks:
        task.cancel()
    return part


def _spent() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Measure and print."""
    for count in ENVOYS:
        with tempfile.TemporaryDirectory() as name:
            envoys = multiprocessing.Process(target=_play, args=(Path(name), count), daemon=True)
            envoys.start()
            part = asyncio.run(_measure(Path(name), count))
            print(f"asking {count} Envoys: {part * 100:.1f} % of a core")
            envoys.kill()


if __name__ == "__main__":
    main()
