# SPDX-License-Identifier: Apache-2.0
"""What older kernels ask of the programs, as far as it can be shown on this one.

The oldest supported is Linux 5.15. A verifier that is older than this one learns less from a comparison and
may look at more states before it has understood a program, for which there is a wide margin. Whether it takes
the programs is only known by trying it: tests/kernels runs these tests on other kernels.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from host import Host
from kernel import COUNTS_VERIFIED

from epic.bpf.programs import syscalls
from epic.bpf.programs.loader import PROGRAMS

pytestmark = pytest.mark.root

LAST_HELPER = 175
"""bpf_task_pt_regs, the last one of Linux 5.15."""
UNUSED_HELPERS = {181: "bpf_loop", 195: "bpf_xdp_get_buff_len"}
VERIFIER_LIMIT = 1_000_000
MARGIN = 3

_INFO_SIZE, _VERIFIED, _XLATED = 232, 216, 20
_INFO_COMMAND = 15
_CALL, _LOAD_IMMEDIATE = 0x85, 0x18
_EXECUTABLE = 4


class Instruction(NamedTuple):
    """struct bpf_insn"""

    code: int
    destination: int
    source: int
    offset: int
    immediate: int


def sections(object_file: Path) -> Iterator[tuple[str, bytes]]:
    """The executable sections of an ELF file of 64 bits."""
    data = object_file.read_bytes()
    (table,) = struct.unpack_from("<Q", data, 40)
    size, count, names = struct.unpack_from("<HHH", data, 58)
    headers = [struct.unpack_from("<IIQQQQIIQQ", data, table + size * number) for number in range(count)]
    strings = headers[names][4]
    for name, kind, flags, _, offset, length, *_ in headers:
        if kind == 1 and flags & _EXECUTABLE and length:
            start = strings + name
            yield data[start : data.index(b"\0", start)].decode(), data[offset : offset + length]


def instructions(object_file: Path) -> Iterator[Instruction]:
    """All of the object, without the second halves of long ones."""
    for _, code in sections(object_file):
        second_half = False
        for operation, registers, offset, immediate in struct.iter_unpack("<BBhi", code):
            if not second_half:
                yield Instruction(operation, registers & 15, registers >> 4, offset, immediate)
            second_half = not second_half and operation == _LOAD_IMMEDIATE


def test_there_are_programs_to_look_at(object_file: Path) -> None:
    assert {name for name, _ in sections(object_file)} >= {"tc", "xdp"}
    assert sum(1 for _ in instructions(object_file)) > 1000


def test_no_helper_is_newer_than_the_oldest_kernel(object_file: Path) -> None:
    helpers = {
        each.immediate for each in instructions(object_file) if each.code == _CALL and each.source == 0
    }
    assert helpers
    assert max(helpers) <= LAST_HELPER
    assert not helpers & set(UNUSED_HELPERS)


def test_no_function_of_the_kernels_own_is_called(object_file: Path) -> None:
    assert not [each for each in instructions(object_file) if each.code == _CALL and each.source == 2]


def test_no_instruction_is_newer_than_the_third_set(object_file: Path) -> None:
    """The fourth (Linux 6.6) has sign extension, long jumps, swaps and signed division."""
    for each in instructions(object_file):
        kind = each.code & 7
        moved_or_divided = kind in (4, 7) and each.code >> 4 in (0x3, 0x9, 0xB)
        assert not (moved_or_divided and each.offset), each
        assert each.code not in (0x06, 0xD7), each
        assert not (kind == 1 and each.code >> 5 == 4), each


def test_atomic_instructions_only_add(object_file: Path) -> None:
    """Others came with Linux 5.12, but architectures learnt them later."""
    assert all(each.immediate == 0 for each in instructions(object_file) if each.code in (0xC3, 0xDB))


def info(host: Host, program: str) -> bytes:
    buffer = ctypes.create_string_buffer(_INFO_SIZE)
    held = host.program(program).fd
    syscalls.bpf(_INFO_COMMAND, syscalls.attributes("=IIQ", held, len(buffer), syscalls.address(buffer)))
    return buffer.raw


def test_the_kernel_takes_all_programs(host: Host) -> None:
    for program in PROGRAMS:
        role = "gateway" if program.startswith(("gateway", "instance")) else "workload"
        assert info(host, f"{role} {program}")


@COUNTS_VERIFIED
@pytest.mark.parametrize("program", PROGRAMS)
def test_the_verifier_is_done_soon(host: Host, program: str) -> None:
    role = "gateway" if program.startswith(("gateway", "instance")) else "workload"
    (verified,) = struct.unpack_from("=I", info(host, f"{role} {program}"), _VERIFIED)
    print(f"{program}: {verified} instructions verified")
    assert 0 < verified < VERIFIER_LIMIT // MARGIN
