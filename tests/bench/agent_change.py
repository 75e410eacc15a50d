"""What one changed endpoint costs an agent of an EPIC node that holds 10,000 tunnels and 100,000 endpoints.

All in one process, without a kernel: from the resource that arrives to what is to be done. Needs no root.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "src"))

from epic.ads.snapshot import ENDPOINT, INSTANCE, TUNNEL, Versioned, versioned  # noqa: E402
from epic.agent import plan  # noqa: E402
from epic.agent.held import Held  # noqa: E402
from epic.model.naming import instance_interface  # noqa: E402
from epic.proto import epic_pb2  # noqa: E402

GATEWAYS, TUNNELS, ENDPOINTS = 10, 10_000, 100_000
ROUNDS = 9


def main() -> None:
    """Fill, change one endpoint some times, print."""
    held = Held()
    filling = _milliseconds(lambda: _fill(held))
    full = held.desired()
    links = {instance.interface: n for n, instance in enumerate(full.instances.values(), 1)}
    observed = plan.Observed(links, dict(links), full.tunnels, full.endpoints, frozenset(full.elements))
    changes = [_milliseconds(lambda: _change(held, observed)) for _ in range(ROUNDS)]
    middle = median(changes)
    print(
        f"one endpoint of {ENDPOINTS:,} changed: {middle:.0f} ms "
        f"[{min(changes):.0f}..{max(changes):.0f}], {middle / filling:.2f} of taking in all ({filling:.0f})"
    )


def _change(held: Held, observed: plan.Observed) -> None:
    name, resource = _endpoint(ENDPOINTS, 0)
    held.update(ENDPOINT, {name: resource})
    wanted = held.desired()
    plan.additions(wanted, observed)
    plan.removals(wanted, observed, ())
    plan.waiting(wanted, observed)
    held.update(ENDPOINT, {}, [name])


def _fill(held: Held) -> None:
    held.update(INSTANCE, dict(_instance(number) for number in range(GATEWAYS)))
    held.update(TUNNEL, dict(_tunnel(number) for number in range(TUNNELS)))
    held.update(ENDPOINT, dict(_endpoint(number, number % TUNNELS) for number in range(ENDPOINTS)))
    held.heard_all()


def _inside(gateway: int) -> IPv4Address:
    return IPv4Address("100.64.0.1") + gateway


def _instance(gateway: int) -> tuple[str, Versioned]:
    name = f"shop.web{gateway}"
    public = IPv4Address("203.0.113.1") + gateway
    message = epic_pb2.Instance(
        gateway=name,
        service=gateway + 1,
        public_address=str(public),
        inside_address=str(_inside(gateway)),
        interface=instance_interface(_inside(gateway)),
    )
    return name, versioned(message)


def _tunnel(number: int) -> tuple[str, Versioned]:
    gateway = number % GATEWAYS
    message = epic_pb2.Tunnel(
        id=number + 1,
        gateway=f"shop.web{gateway}",
        service=gateway + 1,
        inside_address=str(_inside(gateway)),
        keys=[epic_pb2.Key(epoch=1, secret=bytes(16))],
    )
    return str(number + 1), versioned(message)


def _endpoint(number: int, tunnel: int) -> tuple[str, Versioned]:
    gateway, address = f"shop.web{tunnel % GATEWAYS}", str(IPv4Address("10.0.0.0") + number)
    inside = str(_inside(tunnel % GATEWAYS))
    message = epic_pb2.Endpoint(gateway=gateway, inside_address=inside, address=address, tunnel=tunnel + 1)
    return f"{gateway}/{address}", versioned(message)


def _milliseconds(work: Callable[[], None]) -> float:
    begun = time.perf_counter()
    work()
    return (time.perf_counter() - begun) * 1000


if __name__ == "__main__":
    main()
