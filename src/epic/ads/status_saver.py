# SPDX-License-Identifier: Apache-2.0
"""What is to be noted of gateways' configurations: the newest of each, in turns of their accounts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from epic.errors import EpicError, NotWritable
from epic.model.values.naming import GatewayId
from epic.supervise import TellOnce
from epic.workqueue.gateways import WaitingGateways

Save = Callable[[GatewayId, str, EpicError | None, int], Awaitable[None]]
"""Writes down which revision a gateway has, why not a newer one, and how many routes are left out of it.

Raises NotWritable.
"""


class StatusSaver:
    """Saves one after the other; `fault` is told of a gateway whose status could not be saved."""

    def __init__(self, save: Save, fault: Callable[[GatewayId], None], tell: TellOnce, again: float) -> None:
        """`again`: seconds after which it is tried again when nothing could be written."""
        self._save = save
        self._fault = fault
        self._tell = tell
        self._again = again
        self._unsaved: dict[GatewayId, tuple[str, EpicError | None, int]] = {}
        self._waiting = WaitingGateways()
        self._wake = asyncio.Event()

    def note(self, gateway: GatewayId, revision: str, problem: EpicError | None, left_out: int) -> None:
        """Have it saved."""
        self._unsaved[gateway] = (revision, problem, left_out)
        self._waiting.add([gateway])
        self._wake.set()

    async def run(self) -> None:
        """Save until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while turn := self._waiting.take(1):
                if not await self._save_each(turn):
                    # All of them would meet the same.
                    asyncio.get_running_loop().call_later(self._again, self._wake.set)
                    break

    async def _save_each(self, gateways: list[GatewayId]) -> bool:
        """Save these; False: nothing can be written now, and those that are left wait."""
        for number, gateway in enumerate(gateways):
            if not await self._try_to_save(gateway):
                self._waiting.add(gateways[number:])
                return False
        return True

    async def _try_to_save(self, gateway: GatewayId) -> bool:
        what = f"noting the configuration of gateway {gateway}"
        newest = self._unsaved.pop(gateway, None)
        if newest is None:  # it was noted again while it waited, and is saved
            return True
        try:
            await self._save(gateway, *newest)
        except NotWritable:
            # What has come in the meantime is newer.
            self._unsaved.setdefault(gateway, newest)
            return False
        except Exception as error:
            self._tell.fault(what, error)
            self._fault(gateway)
        else:
            self._tell.success(what)
        return True
