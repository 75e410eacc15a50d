"""The gateway role with a real Envoy, nft and kernel.

- A gateway is announced when its Envoy serves the whole configuration, and only then.
- A dead Envoy's gateway is withdrawn at once and comes back by itself.
"""

from __future__ import annotations

import pytest
from control import snapshot
from node import Node, eventually

pytestmark = pytest.mark.root


async def test_a_gateway_is_announced_while_its_envoy_serves(node: Node) -> None:
    node.control.publish(snapshot("192.168.50.11"))
    node.start_agent()
    await eventually((node.run_directory / "xds.sock").exists, 10)
    node.add_instance()
    assert not node.is_announced()

    node.start_envoy()
    await eventually(node.is_announced, 10, "the announcement")
    assert node.get() == "hi\n"

    node.stop_envoy()
    withdrawn = await eventually(lambda: not node.is_announced(), 2, "the withdrawal")
    node.start_envoy()
    back = await eventually(node.is_announced, 10, "the second announcement")
    print(f"withdrawn {withdrawn * 1000:.0f} ms, back {back * 1000:.0f} ms")
