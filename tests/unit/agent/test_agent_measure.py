"""What a workload node tells of its tunnels, and what happens to tunnels at their EPIC end."""

from __future__ import annotations

from agent_samples import A, workload_tunnel

from epic.agent.events import between, look
from epic.agent.hello_sender import Health, answered, sent
from epic.agent.measure import Look, body
from epic.bpf.dataplane import TunnelCounters
from epic.proto.epic_pb2 import TunnelStatus


def test_a_node_tells_each_server_only_of_the_tunnels_that_it_listed() -> None:
    health = answered(sent(Health(), 1, 100, 0), 1, 100.002, 0.002)
    tunnels = {id_: workload_tunnel(A, id_=id_) for id_ in (7, 8)}
    counters = {7: TunnelCounters(1, 2, 3, 4)}
    seen = Look(tunnels, counters, {"tag_wrong": 2, "too_big": 0}, {7: health}, 105)
    assert body(seen, {7, 9}) == {
        "tunnels": [
            {
                "id": 7,
                "epochs": [1],
                "signing-epoch": 1,
                "rx-packets": 1,
                "rx-bytes": 2,
                "tx-packets": 3,
                "tx-bytes": 4,
                "hello-age": 4.998,
                "round-trip": {"last": 0.002, "min": 0.002, "avg": 0.002},
                "loss": 0,
            }
        ],
        "drops": {"tag_wrong": 2},
    }
    assert body(seen, {8})["tunnels"] == [{"id": 8, "epochs": [1], "signing-epoch": 1}]


def status(age: float = 1, address: str = "198.51.100.1", port: int = 6080) -> TunnelStatus:
    return TunnelStatus(id=7, hello_age=age, observed_address=address, observed_port=port)


def happened(before: TunnelStatus | None, after: TunnelStatus | None) -> list[str]:
    events = between(look([before] if before else []), look([after] if after else []))
    return [event.what for event in events]


def test_tunnels_come_up_move_and_go_down() -> None:
    never = TunnelStatus(id=7, hello_age=-1)
    assert happened(None, never) == []
    assert happened(never, status()) == ["up"]
    assert happened(status(), status(5)) == []
    assert happened(status(), status(port=7000)) == ["moved"]
    assert happened(status(), status(17)) == ["down"]
    assert happened(status(17), status(20)) == []
    assert happened(status(17), status(address="198.51.100.2")) == ["moved", "up"]
    assert happened(status(), None) == []


def test_an_event_says_where_from_and_where_to() -> None:
    (event,) = between(look([status()]), look([status(port=7000)]))
    assert event.text == "tunnel 7 moved from 198.51.100.1:6080 to 198.51.100.1:7000"
