# SPDX-License-Identifier: Apache-2.0
"""Waking watchers after a commit, those in other processes of this host too."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from epic.store.embedded.database import give_to_owner, private_directory

_RING = b"\n"
_SUFFIX = ".bell"


class Doorbell:
    """A datagram socket of this process in a directory beside the database; who commits rings at all of them.

    A ring can get lost (a full queue, another user's file), so watchers look from time to time all the same.
    """

    def __init__(self, directory: Path, database: Path) -> None:
        self._directory = os.open(private_directory(directory, database), os.O_RDONLY | os.O_DIRECTORY)
        self._name = f"{os.getpid()}-{secrets.token_hex(4)}{_SUFFIX}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(self._path(self._name))
        give_to_owner(directory / self._name, database)
        self._bells: set[asyncio.Event] = set()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._hear)

    @contextmanager
    def listen(self) -> Iterator[asyncio.Event]:
        """An event that is set by each ring, until the block ends."""
        bell = asyncio.Event()
        self._bells.add(bell)
        try:
            yield bell
        finally:
            self._bells.discard(bell)

    def ring(self) -> None:
        """Wake all watchers of all processes; may be called from any thread, and never fails."""
        # Who is told first takes the processor from who rings.
        self.ring_others()
        self.ring_own()

    def ring_own(self) -> None:
        """The same for those of this process."""
        self._ring(self._name)

    def ring_others(self) -> None:
        """The same for those of other processes."""
        with suppress(OSError):
            for name in os.listdir(self._directory):  # noqa: PTH208
                if name.endswith(_SUFFIX) and name != self._name:
                    self._ring(name)

    def close(self) -> None:
        """Wake nobody any more."""
        self._loop.remove_reader(self._socket)
        self._socket.close()
        with suppress(FileNotFoundError):
            os.unlink(self._name, dir_fd=self._directory)
        os.close(self._directory)

    def _ring(self, name: str) -> None:
        try:
            self._socket.sendto(_RING, self._path(name))
        except ConnectionRefusedError:  # its process was killed
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._directory)
        except OSError:  # it is full of rings, or just going away
            pass

    def _hear(self) -> None:
        with suppress(BlockingIOError):
            while True:
                self._socket.recv(len(_RING))
                for bell in self._bells:
                    bell.set()

    def _path(self, name: str) -> str:
        # A socket's path has room for 107 bytes, whatever the directory is called.
        return f"/proc/self/fd/{self._directory}/{name}"
