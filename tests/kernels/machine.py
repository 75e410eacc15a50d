# SPDX-License-Identifier: Apache-2.0
"""A virtual machine without a disk image: another kernel under this machine's own files.

The guest sees the host's root directory read-only (9p), under a layer in memory that takes what it writes. It
runs one shell script there as its first process; what that leaves in the directory of results is all that
remains. Files must not change meanwhile: the guest would see them half.
"""

from __future__ import annotations

import lzma
import re
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from packages import Kernel

NEEDED = ("virtio_pci", "9pnet_virtio", "9p", "overlay")
"""What has to be loaded before there is a root to load modules from."""
PROCESSORS, MEGABYTES = 2, 4096

_INIT = """#!/busybox sh
bb=/busybox
$bb mkdir -p /dev /proc /lower /upper /root
$bb mount -t devtmpfs dev /dev
$bb mount -t proc proc /proc
for module in {modules}; do $bb insmod /modules/$module || $bb echo "insmod $module failed"; done
share=trans=virtio,version=9p2000.L,msize=524288
$bb mount -t 9p -o ro,cache=loose,$share host /lower
$bb mount -t tmpfs -o size=2g tmpfs /upper
$bb mkdir /upper/data /upper/work
$bb mount -t overlay -o lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work overlay /root
$bb mkdir -p /root/results /root/lib/modules
$bb mount -t 9p -o $share results /root/results
$bb mount --bind /root{tree} /root/lib/modules
for each in proc sys dev tmp run; do $bb mkdir -p /root/$each; done
$bb mount -t proc proc /root/proc
$bb mount -t sysfs sys /root/sys
$bb mount -t devtmpfs dev /root/dev
for each in tmp run; do $bb mount -t tmpfs tmpfs /root/$each; done
exec $bb switch_root /root /bin/bash /results/script
"""
_SCRIPT = """
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t bpf bpf /sys/fs/bpf
mount -t tracefs tracefs /sys/kernel/tracing
mount -t debugfs debugfs /sys/kernel/debug
ip link set lo up
export HOME=/root PATH={path} PYTHONDONTWRITEBYTECODE=1
cd {directory}
{command} >/results/output 2>&1
echo $? >/results/status
sync
echo o >/proc/sysrq-trigger
sleep 60
"""


class Machine:
    """One kernel, ready to be booted; its results are in `results`."""

    def __init__(self, kernel: Kernel, results: Path) -> None:
        self._kernel, self._results = kernel, results
        self._before = ""
        shutil.rmtree(results, ignore_errors=True)
        results.mkdir(parents=True)

    def give(self, name: str, data: bytes, at: Path) -> None:
        """Have another file there than this machine has."""
        (self._results / name).write_bytes(data)
        self._before += f"mount --bind /results/{name} {at}\n"

    def run(self, command: list[str], directory: Path, path: str, seconds: float) -> int | None:
        """Run a command there; its exit status, or None if the machine did not come to that in time."""
        script = self._before + _SCRIPT.format(
            path=shlex.quote(path), directory=directory, command=shlex.join(command)
        )
        (self._results / "script").write_text(script, "utf-8")
        with tempfile.TemporaryDirectory() as build, (self._results / "console").open("wb") as console:
            initramfs = _initramfs(self._kernel, Path(build))
            try:
                subprocess.run(
                    _qemu(self._kernel, initramfs, self._results),
                    stdin=subprocess.DEVNULL,
                    stdout=console,
                    stderr=subprocess.STDOUT,
                    timeout=seconds,
                    check=True,
                )
            except subprocess.TimeoutExpired:
                return None
        status = self._results / "status"
        return int(status.read_text("ascii")) if status.exists() else None


def _initramfs(kernel: Kernel, build: Path) -> Path:
    """busybox, the modules for the root, and what puts them together."""
    root = build / "root"
    (root / "modules").mkdir(parents=True)
    busybox = shutil.which("busybox")
    if busybox is None:
        raise LookupError("busybox is missing (Debian: busybox-static)")
    shutil.copy(busybox, root / "busybox")
    modules = _needed(kernel)
    for module in modules:
        data = module.read_bytes()
        plain = lzma.decompress(data) if module.suffix == ".xz" else data
        (root / "modules" / module.name).write_bytes(plain)
    init = root / "init"
    init.write_text(
        _INIT.format(modules=" ".join(module.name for module in modules), tree=kernel.modules), "utf-8"
    )
    init.chmod(0o755)
    names = "\n".join(str(each.relative_to(root)) for each in sorted(root.rglob("*")))
    archive = build / "initramfs"
    with archive.open("wb") as out:
        subprocess.run(
            [busybox, "cpio", "-o", "-H", "newc"], cwd=root, input=names.encode(), stdout=out,
            stderr=subprocess.DEVNULL, check=True,
        )  # fmt: skip
    return archive


def _needed(kernel: Kernel) -> list[Path]:
    """The files of the modules, in the order in which they are loaded."""
    base = kernel.modules.parents[1]
    found: dict[Path, None] = {}
    for name in NEEDED:
        done = subprocess.run(
            ["modprobe", "-d", base, "-S", kernel.release, "--show-depends", name],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        for kind, module in (line.split()[:2] for line in done.stdout.splitlines()):
            if kind == "insmod":
                found[Path(module)] = None
    return list(found)


def _has_kvm() -> bool:
    """/dev/kvm alone says little: some of it cannot run a kernel that was not made for it."""
    processor = Path("/proc/cpuinfo").read_text("ascii", "replace")
    return Path("/dev/kvm").exists() and re.search(r"\b(vmx|svm)\b", processor) is not None


def _qemu(kernel: Kernel, initramfs: Path, results: Path) -> list[str]:
    share = "local,security_model=none,multidevs=remap"
    return [
        "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
        "-accel", "kvm" if _has_kvm() else "tcg,thread=multi", "-cpu", "max",
        "-smp", str(PROCESSORS), "-m", str(MEGABYTES),
        "-serial", "stdio", "-device", "virtio-rng-pci",
        "-virtfs", f"{share},path=/,mount_tag=host,readonly=on",
        "-virtfs", f"{share},path={results},mount_tag=results",
        "-kernel", str(kernel.image), "-initrd", str(initramfs),
        "-append", "console=ttyS0 quiet panic=-1 rdinit=/init",
    ]  # fmt: skip
