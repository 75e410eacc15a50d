"""Loading the object: one directory of pins per version of it.

A version's directory is `PIN_DIRECTORY/HASH` with `programs/` and `maps/` in it. A new version takes over the
maps of the old one, so that it starts with all state; where a map has changed its shape it starts with empty
maps. The old directory goes when no filter runs its programs any more.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import subprocess
from pathlib import Path

from epic.bpf import maps, syscalls
from epic.errors import Unavailable

log = logging.getLogger(__name__)

PROGRAMS = (
    "gateway_underlay_ingress",
    "gateway_underlay_xdp",
    "instance_ingress",
    "pod_ingress",
    "segment_ingress",
    "workload_underlay_egress",
    "workload_underlay_ingress",
    "workload_underlay_xdp",
)
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

    @property
    def directory(self) -> Path:
        """Where the pins of the present object are."""
        return self._root / version_of(self._object)

    def load(self) -> None:
        """See to it that the present object is loaded and pinned."""
        if not _complete(self.directory):
            self._prepare()
            self._load()

    def remove_others(self) -> None:
        """Remove the pins of all other versions."""
        for directory in self._versions():
            if directory != self.directory:
                remove_pins(directory)

    def remove(self) -> None:
        """Remove all pins; what the kernel still runs stays until it is detached."""
        if self._root.is_dir():
            for directory in self._versions():
                remove_pins(directory)
            self._root.rmdir()

    def _versions(self) -> list[Path]:
        return sorted(path for path in self._root.iterdir() if path.is_dir())

    def _prepare(self) -> None:
        place = self._root.parent
        if not syscalls.is_bpffs(place):
            raise Unavailable(f"{place} is no bpf file system; `mount -t bpf bpf {place}` makes it one")
        self._root.mkdir(mode=0o700, exist_ok=True)
        if self.directory.is_dir():
            remove_pins(self.directory)

    def _load(self) -> None:
        predecessor = next(filter(_complete, self._versions()), None)
        self.directory.mkdir(mode=0o700)
        if predecessor is not None:
            try:
                return self._bpftool(predecessor / "maps")
            except Unavailable as error:
                log.warning(
                    "the maps of %s have another shape, beginning with empty ones: %s", predecessor, error
                )
                remove_pins(self.directory)
                self.directory.mkdir(mode=0o700)
        return self._bpftool(None)

    def _bpftool(self, held: Path | None) -> None:
        command = [_bpftool(), "prog", "loadall", str(self._object), str(self.directory / "programs")]
        for name in maps.NAMES if held else ():
            command += ["map", "name", name, "pinned", f"{held}/{name}"]
        command += ["pinmaps", str(self.directory / "maps")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unavailable(f"the kernel does not take the tunnel programs: {_complaint(done.stderr)}")


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
