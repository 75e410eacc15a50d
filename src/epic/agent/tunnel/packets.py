# SPDX-License-Identifier: Apache-2.0
"""Pure: hellos and their answers as the two roles need them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from epic.bpf.dataplane import Address
from epic.bpf.packets import wire
from epic.model.values.naming import GUE_PORT

HELLO = wire.Kind.HELLO
HELLO_ACK = wire.Kind.HELLO_ACK


class Keyed(Protocol):
    """A tunnel's end."""

    @property
    def keys(self) -> Iterable[bytes | None]:
        """The keys that verify."""


class Declared(Keyed, Protocol):
    """The EPIC node's end of a tunnel."""

    @property
    def declared(self) -> Address | None:
        """Where the workload node says it is."""


def verified(payload: bytes, tunnels: Mapping[int, Keyed]) -> tuple[wire.Control, bytes] | None:
    """The control packet of one of the tunnels and the key that it is signed with; None for anything else."""
    try:
        tunnel = tunnels.get(wire.tunnel_of(payload))
    except wire.WireError:
        return None
    for key in tunnel.keys if tunnel is not None else ():
        if key is not None:
            try:
                return wire.decode(payload, key), key
            except wire.WireError:
                continue
    return None


def answer(
    payload: bytes,
    tunnels: Mapping[int, Declared],
    now_ns: int,
    source: tuple[Address, int],
    generation: Callable[[int], int],
) -> bytes | None:
    """The hello-ack to a hello that was seen from `source`; None for anything else.

    `generation` is that of a tunnel's counters.
    """
    found = verified(payload, tunnels)
    if found is None or found[0].kind is not HELLO:
        return None
    request, key = found
    direct = source == (tunnels[request.tunnel].declared, GUE_PORT + request.lane)
    ack = wire.Control(
        HELLO_ACK,
        request.tunnel,
        request.counter,
        now_ns,
        request.sent_ns,
        request.lane,
        request.lanes,
        wire.Flags.DIRECT if direct else wire.NO_FLAGS,
        generation(request.tunnel),
    )
    return wire.encode(ack, key)
