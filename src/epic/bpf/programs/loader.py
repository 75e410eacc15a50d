# SPDX-License-Identifier: Apache-2.0
"""Loading the object: one directory of pins per version of it.

A version's directory is `PIN_DIRECTORY/HASH` with `programs/` and `maps/` in it. A new version takes over the
maps of the old one that have the same shape; the others begin empty. Until the agent has filled these, and
no filter runs the old programs any more, the old directory stays, and an empty directory `due/` in the new
one says so. Versions come and go whole, by renaming: what is in `unfinished/` is of no use.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterable
from contextlib import closing
from functools import cached_property
from pathlib import Path

from epic.bpf.programs import syscalls
from epic.bpf.tables import maps, records
from epic.errors import Unavailable

PROGRAMS = (
    "gateway_underlay_egress",
    "gateway_underlay_ingress",
    "gateway_underlay_xdp",
    "instance_ingress",
    "pod_ingress",
    "segment_ingress",
    "workload_underlay_egress",
    "workload_underlay_ingress",
    "workload_underlay_xdp",
)
_UNFINISHED = "unfinished"
_DUE = "due"
_BPFTOOL_PLACES = (Path("/usr/sbin/bpftool"), Path("/usr/local/sbin/bpftool"))


def version_of(object_file: Path) -> str:
    """Name of the directory of pins of this object."""
    try:
        return hashlib.sha256(object_file.read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise Unavailable(f"cannot read the tunnel programs: {error}; `make bpf` compiles them") from error


class Loader:
    """The pins of one object under one directory."""

    def __init__(self, pin_directory: Path, object_file: Path) -> None:
        self._root, self._object = pin_directory, object_file

    @cached_property
    def directory(self) -> Path:
        """Where the pins of the object are; the file may be replaced by a newer one meanwhile."""
        return self._root / version_of(self._object)

    @property
    def due(self) -> bool:
        """Whether programs of an older version may be running."""
        return (self.directory / _DUE).is_dir()

    def load(self) -> bool:
        """See to it that the present object is loaded and pinned; False: the agent must fill maps first."""
        if _complete(self.directory):
            return not self.due
        self._prepare()
        before = self._predecessor()
        self._bpftool(())
        filled = True
        if before is not None:
            kept = maps.inherited(_same(before / "maps", self._unfinished / "maps"))
            remove_pins(self._unfinished)
            self._bpftool(before / "maps" / name for name in kept)
            if "settings" not in kept:
                _copy_cookie(before / "maps/settings", self._unfinished / "maps/settings")
            (self._unfinished / _DUE).mkdir()
            filled = kept >= maps.FILLED
        remove_pins(self.directory)
        self._unfinished.rename(self.directory)
        return filled

    def finish(self) -> None:
        """No program of another version runs any more: remove their pins."""
        for directory in self._versions():
            if directory != self.directory:
                remove_pins(self._unfinished)
                directory.rename(self._unfinished)
        remove_pins(self._unfinished)
        if self.due:
            (self.directory / _DUE).rmdir()

    def remove(self) -> None:
        """Remove all pins; what the kernel still runs stays until it is detached."""
        remove_pins(self._root)

    @property
    def _unfinished(self) -> Path:
        return self._root / _UNFINISHED

    def _versions(self) -> list[Path]:
        return sorted(path for path in self._root.iterdir() if path != self._unfinished)

    def _predecessor(self) -> Path | None:
        """The version whose programs run; one that never took over only if there is no other."""
        return min(self._versions(), key=lambda version: (version / _DUE).is_dir(), default=None)

    def _prepare(self) -> None:
        place = self._root.parent
        if not syscalls.is_bpffs(place):
            raise Unavailable(f"{place} is no bpf file system; `mount -t bpf bpf {place}` makes it one")
        self._root.mkdir(mode=0o700, exist_ok=True)
        remove_pins(self._unfinished)

    def _bpftool(self, held: Iterable[Path]) -> None:
        self._unfinished.mkdir(mode=0o700)
        command = [_bpftool(), "prog", "loadall", str(self._object), str(self._unfinished / "programs")]
        for pin in held:
            command += ["map", "name", pin.name, "pinned", str(pin)]
        command += ["pinmaps", str(self._unfinished / "maps")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unavailable(f"the kernel does not take the tunnel programs: {_complaint(done.stderr)}")


def _same(before: Path, now: Path) -> set[str]:
    """Names of the maps that have the same shape in both directories."""
    return {name for name in maps.NAMES if _shape(before / name) == _shape(now / name)}


def _shape(pin: Path) -> syscalls.MapShape | None:
    try:
        fd = syscalls.open_pinned(pin)
    except FileNotFoundError:
        return None
    try:
        return syscalls.map_shape(fd)
    finally:
        os.close(fd)


def _copy_cookie(before: Path, now: Path) -> None:
    """So that the filters of both versions know what the XDP program of either has taken out."""
    shape = _shape(before)
    if shape is not None:
        with closing(maps.Map(before, shape.key_size, shape.value_size)) as old:
            cookie = (old.get(records.ID.pack(0)) or b"")[: records.COUNT.size]
        with closing(maps.Map(now, records.ID.size, records.SETTINGS.size)) as new:
            new.set(records.ID.pack(0), cookie.ljust(records.SETTINGS.size, b"\0"))


def _complaint(output: str) -> str:
    """Without the verifier's account of every instruction, unless there is nothing else."""
    said = [line for line in output.splitlines() if line.startswith(("libbpf:", "Error:"))]
    return "; ".join(said[-4:]) or output.strip()[-2000:]


def _complete(directory: Path) -> bool:
    pins = [directory / "programs" / name for name in PROGRAMS] + [
        directory / "maps" / name for name in maps.NAMES
    ]
    return all(pin.exists() for pin in pins)


def remove_pins(directory: Path) -> None:
    """Remove a directory of pins."""
    shutil.rmtree(directory, ignore_errors=True)


def _bpftool() -> str:
    found = shutil.which("bpftool") or next((str(path) for path in _BPFTOOL_PLACES if path.exists()), None)
    if found is None:
        raise Unavailable("bpftool is not installed; it loads the tunnel programs")
    return found
