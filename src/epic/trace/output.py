# SPDX-License-Identifier: Apache-2.0
"""Steps as text and as JSON lines."""

from __future__ import annotations

import json
import time
import zlib
from collections import Counter
from collections.abc import Mapping

from epic.trace.events import Packet, Step

_COLOURS = (31, 32, 33, 34, 35, 36, 91, 92, 93, 94, 95, 96)
_DROPPED = 7


def flow_number(packet: Packet) -> str:
    """Three digits that both directions of a flow share."""
    if packet.source is None:
        return "---"
    ends = sorted(
        [(str(packet.source), packet.source_port), (str(packet.destination), packet.destination_port)]
    )
    return f"{zlib.crc32(repr((ends, packet.protocol)).encode()) % 1000:03d}"


def _end(address: object, port: int) -> str:
    return f"{address}:{port}" if port else str(address)


def as_text(step: Step, clock_ns: int) -> str:
    """One line."""
    at = step.at_ns + clock_ns
    clock = time.strftime("%H:%M:%S", time.localtime(at / 1e9)) + f".{at // 1000 % 10**6:06d}"
    what = f"dropped: {step.reason} ({step.text})" if step.reason else step.step
    parts = [
        clock,
        f"cpu{step.cpu}",
        f"#{flow_number(step.packet)}",
        f"{step.interface} {step.direction}",
        what,
    ]
    packet = step.packet
    if packet.source is None:
        parts.append(packet.protocol)
    else:
        ends = (_end(packet.source, packet.source_port), _end(packet.destination, packet.destination_port))
        parts.append(f"{packet.protocol} {ends[0]} > {ends[1]}")
    parts += [f"[{packet.flags}]"] if packet.flags else []
    if packet.tunnel is not None:
        parts.append(f"tunnel {packet.tunnel}" + (f" outer {packet.outer}" if packet.outer else ""))
    if packet.passage is not None:
        parts += [packet.passage, f"outer {packet.outer}"]
    return "  ".join([*parts, f"{step.length} bytes"])


def coloured(step: Step, line: str) -> str:
    """A colour for each flow, reversed for drops."""
    number = flow_number(step.packet)
    codes = [str(_COLOURS[int(number) % len(_COLOURS)])] if number.isdigit() else []
    codes += [str(_DROPPED)] if step.reason else []
    return f"\x1b[{';'.join(codes)}m{line}\x1b[0m"


def wants_colour(is_terminal: bool, environment: Mapping[str, str]) -> bool:
    """See https://no-color.org."""
    return is_terminal and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


def as_json(step: Step, clock_ns: int, node: str) -> str:
    """The same for programs."""
    inner = {k: v if isinstance(v, int | None) else str(v) for k, v in vars(step.packet).items()}
    own = {key: value for key, value in vars(step).items() if key not in ("packet", "at_ns")}
    when = {"time_ns": step.at_ns + clock_ns, "node": node}
    return json.dumps(when | own | {"flow": flow_number(step.packet)} | inner)


def summary(counted: Counter[str], dropped: Counter[str], lost: tuple[int, int]) -> str:
    """What is said at the end."""
    lines = [f"{number:8d}  {step}" for step, number in counted.most_common()]
    lines += [f"{number:8d}  dropped: {reason}" for reason, number in dropped.most_common()]
    if any(lost):
        lines.append(f"not shown: {lost[0]} events over the rate, {lost[1]} for want of room")
    return "\n".join(lines or ["nothing seen"])
