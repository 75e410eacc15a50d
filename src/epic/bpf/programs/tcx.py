# SPDX-License-Identifier: Apache-2.0
"""A second attachment of what guards an interface's egress: TCX, which Linux has from 6.6 on.

`tc` removes a filter, or clsact with all that are in it; it does not reach these links. They run before all
filters, and what they encapsulate no filter sees. They also run before links of others that were there
earlier: one that lets a packet pass for good would hide it from those behind. Their pins are in `links/`
beside a version's programs; a link goes with its pin.
"""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

from epic.bpf.programs import syscalls

log = logging.getLogger(__name__)

_DIRECTORY = "links"
_UNKNOWN = {errno.EINVAL, errno.EOPNOTSUPP}
"""How kernels answer that have no TCX."""


class EgressLinks:
    """The links of all versions under one directory of pins, in the current network namespace."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def holds(self, index: int) -> bool:
        """Whether a link guards the interface."""
        return any(self._is_alive(pin, index) for pin in self._pins(index))

    def hold(self, index: int, program: Path) -> None:
        """Run the pinned program at the interface's egress; what runs there by a link is replaced in place.

        Kernels without TCX are left to their filters.
        """
        self._forget_dead()
        wanted = program.parent.parent / _DIRECTORY / str(index)
        fd = syscalls.open_pinned(program)
        try:
            link = self._replace(index, fd)
            if link is None:
                link = syscalls.create_tcx_egress_link(fd, index)
        except OSError as error:
            if error.errno not in _UNKNOWN:
                raise
            log.debug("interface %d is guarded by its filter alone: this kernel has no TCX", index)
            return
        finally:
            os.close(fd)
        try:
            _pin(link, wanted)
        finally:
            os.close(link)
        for pin in self._pins(index):
            if pin != wanted:
                pin.unlink(missing_ok=True)

    def release(self, index: int) -> None:
        """The inverse."""
        for pin in self._pins(index):
            pin.unlink(missing_ok=True)

    def _replace(self, index: int, program: int) -> int | None:
        """A descriptor of the link that is there, which runs the program now."""
        for pin in self._pins(index):
            if self._is_alive(pin, index):
                link = syscalls.open_pinned(pin)
                try:
                    syscalls.update_link(link, program)
                except OSError:
                    os.close(link)
                    raise
                return link
        return None

    def _pins(self, index: int | None = None) -> list[Path]:
        return sorted(self._root.glob(f"*/{_DIRECTORY}/{'*' if index is None else index}"))

    def _forget_dead(self) -> None:
        """Of interfaces that are gone, whose numbers others may have now."""
        for pin in self._pins():
            if not self._is_alive(pin, int(pin.name)):
                pin.unlink(missing_ok=True)

    def _is_alive(self, pin: Path, index: int) -> bool:
        try:
            link = syscalls.open_pinned(pin)
        except FileNotFoundError:
            return False
        try:
            return syscalls.tcx_link(link).interface == index
        finally:
            os.close(link)


def _pin(link: int, path: Path) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    try:
        syscalls.pin(link, path)
    except FileExistsError:
        # It is this link's, unless it died since it was looked at: then the next look makes another.
        return
