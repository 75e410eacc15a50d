# SPDX-License-Identifier: Apache-2.0
"""At which addresses the agent has a gateway announced while, and after, the kernel delivers to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from agent_samples import INSIDE, INSIDE6, INTERFACE, PUBLIC, PUBLIC6, WEB, instance_message

from epic.ads.snapshot import INSTANCE, versioned
from epic.agent.gateway.control.resource_cache import ResourceCache
from epic.agent.gateway.envoy.drain import Drainer
from epic.agent.gateway.envoy.registry import EnvoyRegistry
from epic.agent.gateway.envoy.xds import XdsSockets
from epic.agent.gateway.kernel import KernelState
from epic.agent.gateway.plans import plan
from epic.agent.gateway.plans.failures import Failure
from epic.agent.gateway.reconcile import Envoys, Reconciler
from epic.agent.runtime.worker import Worker
from epic.bpf.dataplane import Address


class Kernel:
    """Has the instance's interface, and notes what is announced while it delivers."""

    idle, stale, found = False, frozenset[int](), frozenset[str]()

    def __init__(self) -> None:
        self.forwards6 = True
        self.takes_ipv6 = True
        self.reconciler: Any = None
        self.meanwhile: list[Sequence[Address]] = []
        self.delivered: dict[Address, int] = {}

    def observe(self, whole: bool) -> KernelState:
        attached = plan.Attachment(9, (INSIDE, INSIDE6), (PUBLIC, PUBLIC6))
        return KernelState(
            {INTERFACE: 9}, {INTERFACE: attached}, dict(self.delivered), self.forwards6, {}, ()
        )

    def apply(self, actions: Iterable[plan.Action]) -> list[Failure]:
        self.meanwhile.append(self.reconciler.addresses[WEB])
        failed = []
        for action in actions:
            assert isinstance(action, plan.DeliverTo)
            if not self.takes_ipv6 and PUBLIC6 in action.addresses:
                failed.append(Failure(action, "Permission denied"))
            else:
                self.delivered.update(dict.fromkeys(action.addresses, action.link))
        return failed

    def check_routes(self) -> bool:
        return False

    def endpoints(self, keys: object = None) -> dict[object, object]:
        return {}

    def tunnels(self, ids: object) -> dict[int, object]:
        return {}

    def release_old_programs(self) -> None:
        pass


class Nothing:
    """Flag routes, firewall and second chance, of which nothing is asked."""

    settled = True
    standing = open = frozenset[Any]()

    async def observe(self) -> None:
        pass

    def take(self, *_: object, **__: object) -> None:
        pass

    def compare(self) -> Iterable[None]:
        return iter(())

    def work(self) -> bool:
        return False


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    cache, registry, found, rest = ResourceCache(), EnvoyRegistry(lambda: None), Kernel(), Nothing()
    message = instance_message(public_addresses=[str(PUBLIC), str(PUBLIC6)])
    cache.update(INSTANCE, {WEB: versioned(message)}, ())
    envoys = Envoys(registry, XdsSockets(registry, tmp_path / "xds"), Drainer(Path, lambda: None))
    others: Any = (rest, rest, rest)
    made: Any = found
    found.reconciler = Reconciler(cache, made, Worker("kernel"), envoys, others[0], others[1], others[2])
    return found


async def test_an_address_is_announced_after_packets_to_it_are_delivered(kernel: Kernel) -> None:
    reconciler, kernel.forwards6 = kernel.reconciler, False
    await reconciler.round()
    assert reconciler.addresses == {WEB: (PUBLIC,)}
    kernel.forwards6 = True
    kernel.meanwhile.clear()
    await reconciler.round()
    assert kernel.meanwhile[0] == (PUBLIC,)
    assert reconciler.addresses == {WEB: (PUBLIC, PUBLIC6)}


async def test_a_node_that_cannot_deliver_to_the_ipv6_address_serves_at_the_other(kernel: Kernel) -> None:
    reconciler, kernel.takes_ipv6 = kernel.reconciler, False
    await reconciler.round()
    assert reconciler.addresses == {WEB: (PUBLIC,)}
    assert reconciler.failures == {}
    assert reconciler.withheld == {WEB: "packets to its IPv6 address cannot be delivered: Permission denied"}
    assert any("Permission denied" in problem for problem in reconciler.problems)
    assert (reconciler._programmed, reconciler._cut_off) == ({WEB}, set())
    kernel.takes_ipv6 = True
    reconciler.wake()
    await reconciler.round()
    assert reconciler.addresses == {WEB: (PUBLIC, PUBLIC6)}
    assert (reconciler.withheld, reconciler.problems) == ({}, ())
