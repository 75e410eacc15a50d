"""What an instance cannot reach, whatever its Envoy were made to do."""

from __future__ import annotations

from typing import Any

import pytest
from hosts import Lab

ATTEMPT = """
import socket, sys
source, target, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
with socket.socket() as sock:
    sock.settimeout(1)
    sock.bind((source, 0))
    try:
        sock.connect((target, port))
        print("connected")
    except OSError as error:
        print(type(error).__name__)
"""


@pytest.mark.parametrize("source", ["public", "inside"])
@pytest.mark.parametrize("target", [("169.254.0.1", 22), ("172.30.11.2", 8443), ("172.30.12.2", 22)])
def test_from_an_instances_namespace_no_service_of_the_nodes_is_reached(
    lab: Lab, web: dict[str, Any], source: str, target: tuple[str, int]
) -> None:
    gateway = f"{web['metadata']['namespace']}.{web['metadata']['name']}"
    inside = next(i["inside-address"] for i in web["status"]["instances"] if i["node"] == "epic1")
    address = web["spec"]["public-address"] if source == "public" else inside
    said = lab["epic1"].run(
        f"ip netns exec epic-{gateway} python3 - {address} {target[0]} {target[1]}", stdin=ATTEMPT
    )
    assert said.strip() == "TimeoutError"
