# SPDX-License-Identifier: Apache-2.0
"""The edge to the kernel: compile with bcc, attach to the pinned programs, read events."""

from __future__ import annotations

import ctypes
import importlib
import os
import platform
import struct
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from epic.bpf.programs import syscalls
from epic.bpf.tables.drop_reasons import DROP_REASONS
from epic.errors import Unavailable
from epic.trace import btf

_SOURCES = [Path(__file__).with_name(name) for name in ("packet.bpf.c", "trace.bpf.c")]
_DEBIAN = "/usr/lib/python3/dist-packages"
_COMPARE = """
BPF_TABLE_PINNED("percpu_array", u32, u64, drops@N@, REASONS, "@PATH@/drops");
BPF_PERCPU_ARRAY(seen@N@, u64, REASONS);
struct cookie@N@ { u64 cookie; };
struct tunnel@N@ { u32 id; };
BPF_TABLE_PINNED("array", u32, struct cookie@N@, settings@N@, 1, "@PATH@/settings");
BPF_TABLE_PINNED("array", u32, struct tunnel@N@, tunnels@N@, 1, "@PATH@/tunnels");
static INLINE int taken_out@N@(u64 cookie, u32 slot, u32 *id)
{
	u32 zero = 0;
	struct cookie@N@ *ours = settings@N@.lookup(&zero);
	struct tunnel@N@ *tunnel = tunnels@N@.lookup(&slot);

	if (!ours || !cookie || ours->cookie != cookie)
		return 0;
	if (tunnel)
		*id = tunnel->id;
	return 1;
}
static INLINE void compare@N@(s32 *found)
{
	for (u32 i = 0; i < REASONS; i++) {
		int index = i;
		u64 *now = drops@N@.lookup(&i), *then = seen@N@.lookup(&index);

		if (now && then && *now != *then) {
			*then = *now;
			*found = i;
		}
	}
}
"""
"""What reads the maps of one version of the tunnel programs. All drops of a CPU pass by compare, so the
counter that moved since the last one tells its reason."""
_MAPS = ("drops", "settings", "tunnels")
_TRACEPOINTS = {
    b"netif_receive_skb": b"on_receive",
    b"net_dev_queue": b"on_send",
    b"consume_skb": b"on_consume",
    b"skb_copy_datagram_iovec": b"on_copy",
    b"tcp_probe": b"on_tcp",
    b"kfree_skb": b"on_free",
    b"sk_data_ready": b"on_ready",
}
_NEW = (b"sk_data_ready",)
"""Older kernels have not got them, and do not need them."""
# Nothing of a kernel's headers is needed but what bcc itself includes, and of that only the names.
_STUBS = {
    "linux/types.h": (
        "typedef unsigned char u8, __u8; typedef unsigned short u16, __u16, __be16, __le16, __sum16;\n"
        "typedef unsigned int u32, __u32, __be32, __le32, __wsum; typedef signed char s8, __s8;\n"
        "typedef unsigned long long u64, __u64, __be64, __le64; typedef short s16, __s16;\n"
        "typedef int s32, __s32; typedef long long s64, __s64; typedef _Bool bool;\n"
        "typedef unsigned long size_t;\n"
        "typedef unsigned long uintptr_t;\n#define CONFIG_BPF_SYSCALL 1\n"
        "#define NULL ((void *)0)\n#define __aligned_u64 __u64 __attribute__((aligned(8)))\n"
    ),
    "linux/bpf_common.h": "",
    "uapi/linux/bpf.h": "#include <linux/types.h>\n#include <bcc/bpf.h>\n",
    "linux/log2.h": "",
    "linux/version.h": "#define LINUX_VERSION_CODE 0\n#define KERNEL_VERSION(a, b, c) 0\n",
    "linux/kconfig.h": "",
    "linux/compiler_types.h": "",
    "linux/compiler.h": "",
    "asm/page.h": "#define PAGE_SIZE 4096\n",
    "asm/types.h": "",
    "uapi/linux/if_ether.h": "",
    "uapi/linux/if_packet.h": "",
    "uapi/linux/ptrace.h": "struct pt_regs { unsigned long regs[32]; };\n",
}


def load_bcc() -> Any:
    """The module bcc, Debian's also from a venv."""
    try:
        return importlib.import_module("bcc")
    except ImportError:
        sys.path.append(_DEBIAN)
    try:
        return importlib.import_module("bcc")
    except ImportError as error:
        raise Unavailable(
            f"bcc is not installed ({error}): apt-get install python3-bpfcc, or the playbook trace.yml"
        ) from error
    finally:
        sys.path.remove(_DEBIAN)


def definitions(types: btf.Btf) -> list[str]:
    """Where members lie in this kernel, and how it numbers the drops of tc where it does."""
    places = {
        "LEN": types.offset("sk_buff", "len"),
        "DATA_LEN": types.offset("sk_buff", "data_len"),
        "DATA": types.offset("sk_buff", "data"),
        "HEAD": types.offset("sk_buff", "head"),
        "END": types.offset("sk_buff", "end"),
        "DEV": types.offset("sk_buff", "dev"),
        "PROTOCOL": types.offset("sk_buff", "protocol"),
        "MAC_HEADER": types.offset("sk_buff", "mac_header"),
        "NETWORK_HEADER": types.offset("sk_buff", "network_header"),
        "META_LEN": types.offset("skb_shared_info", "meta_len"),
        "NAME": types.offset("net_device", "name"),
        "NET": types.offset("net_device", "nd_net.net"),
        "SOCKET_PROTOCOL": types.offset("sock", "sk_protocol"),
        "INUM": types.offset("net", "ns.inum"),
    }
    return [f"-DOFFSET_{name}={value}" for name, value in places.items()] + reason_flags(drop_reasons(types))


def drop_reasons(types: btf.Btf) -> dict[int, str]:
    """The kernel's names of its own drops; none before Linux 5.17."""
    try:
        return types.enumerators("skb_drop_reason")
    except Unavailable:
        return {}


def reason_flags(names: dict[int, str]) -> list[str]:
    """Without the two numbers of tc (before 5.18) every freed packet is asked for one of our reasons."""
    numbers = {name.removeprefix("SKB_DROP_REASON_"): number for number, name in names.items()}
    tc = [name for name in ("TC_INGRESS", "TC_EGRESS") if name in numbers]
    flags = [f"-D{name}={numbers[name]}" for name in tc] if len(tc) == 2 else []
    return flags + (["-DREASONS_NAMED"] if names else [])


@contextmanager
def _stub_headers() -> Iterator[None]:
    before = os.environ.get("BCC_KERNEL_SOURCE")
    with tempfile.TemporaryDirectory(prefix="epic-trace-") as directory:
        for name, text in _STUBS.items():
            path = Path(directory, "include", name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="ascii")
        os.environ["BCC_KERNEL_SOURCE"] = directory
        try:
            yield
        finally:
            if before is None:
                del os.environ["BCC_KERNEL_SOURCE"]
            else:
                os.environ["BCC_KERNEL_SOURCE"] = before


class Tracer:
    """The compiled programs, attached until close()."""

    def __init__(self, flags: list[str], pins: list[Path]) -> None:
        directories = sorted(
            found
            for place in pins
            for found in place.glob("*")
            if all((found / "maps" / name).exists() for name in _MAPS)
        )
        if not directories:
            raise Unavailable(
                f"no tunnel programs are pinned under {', '.join(map(str, pins))}: is epic-agent running?"
            )
        self._bpf = self._compile(flags, directories)
        self._forget_before(len(directories))
        self._come: list[bytes] = []
        self._bpf[b"events"].open_ring_buffer(
            lambda _, data, size: self._come.append(ctypes.string_at(data, size))
        )
        try:
            for name, function in _TRACEPOINTS.items():
                self._attach(name, function)
        except Unavailable:
            self.close()
            raise

    def _attach(self, tracepoint: bytes, function: bytes) -> None:
        try:
            self._bpf.load_func(function, load_bcc().BPF.RAW_TRACEPOINT)
        except Exception as error:
            raise Unavailable(
                f"this kernel refuses the tracing program {function.decode()} (its log is above): {error}"
            ) from error
        try:
            self._bpf.attach_raw_tracepoint(tracepoint, function)
        except Exception as error:
            if tracepoint in _NEW:
                return
            raise Unavailable(f"this kernel has no raw tracepoint {tracepoint.decode()}: {error}") from error

    def _compile(self, flags: list[str], directories: list[Path]) -> Any:
        bcc = load_bcc()
        everything = [*definitions(btf.kernel()), *flags, f"-DREASONS={len(DROP_REASONS)}", "-Wno-everything"]
        with _stub_headers():
            try:
                return bcc.BPF(text=source(directories).encode(), cflags=everything)
            except Exception as error:
                raise Unavailable(f"bcc cannot compile the tracing programs: {error}") from error

    def _forget_before(self, versions: int) -> None:
        """Count drops from now on."""
        size = 8 * syscalls.possible_cpus()
        for version in range(versions):
            drops, seen = (self._bpf[f"{name}{version}".encode()].map_fd for name in ("drops", "seen"))
            for index in range(len(DROP_REASONS)):
                key = struct.pack("=I", index)
                if (value := syscalls.lookup(drops, key, size)) is not None:
                    syscalls.update(seen, key, value)

    def poll(self, seconds: float) -> list[bytes]:
        """What has come, waiting so long for something."""
        self._bpf.ring_buffer_poll(max(0, int(seconds * 1000)))
        come, self._come[:] = list(self._come), []
        return come

    def lost(self) -> tuple[int, int]:
        """Events left out: over the rate, and for want of room in the ring buffer."""
        rate, full = (sum(self._bpf[b"lost"][ctypes.c_int(index)]) for index in range(2))
        return rate, full

    def close(self) -> None:
        """Detach all."""
        self._bpf.cleanup()


def source(directories: list[Path]) -> str:
    """The program's text, able to name the drops counted in these directories of pins."""
    compare, taken_out, text = "", "0", "#define INLINE inline __attribute__((always_inline))\n"
    for number, directory in enumerate(directories):
        text += _COMPARE.replace("@N@", str(number)).replace("@PATH@", str(directory / "maps"))
        compare += f" compare{number}(found);"
        taken_out += f" || taken_out{number}(cookie, slot, id)"
    text += f"#define COMPARE{compare}\n#define TAKEN_OUT(cookie, slot, id) ({taken_out})\n"
    return text + "".join(path.read_text(encoding="utf-8") for path in _SOURCES)


def require_root() -> None:
    """Tracing is root's."""
    if os.geteuid():
        raise Unavailable("only root may trace: run it with sudo")
    if platform.system() != "Linux":
        raise Unavailable("epic-trace runs on Linux")
