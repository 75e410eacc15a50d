"""The kernel state of the gateway role: what is there, and doing what the plan says. Methods block."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from epic.agent import plan
from epic.agent.netlink import Netlink
from epic.agent.nft import PortSet
from epic.agent.settings import UnderlaySettings
from epic.bpf import dataplane as bpf
from epic.model.resources import GUE_PORT

log = logging.getLogger(__name__)

_INSTANCE_PREFIX = "epg"
_UNKNOWN_LINK = 0
_NO_INTERFACE = f"{_INSTANCE_PREFIX}-none"


class GatewayKernel:
    """Tunnels, instances' interfaces and open ports of this node."""

    def __init__(self, dataplane: bpf.Dataplane, underlay: UnderlaySettings) -> None:
        self._dataplane = dataplane
        self._underlay = underlay
        self._netlink = Netlink()
        self._ports = PortSet()
        self._attached: dict[str, int] = {}
        self._placed: dict[int, plan.Placed] = {}

    def start(self) -> None:
        """Load the programs and attach them to the underlay; what was there stays and goes on working."""
        self._dataplane.load()
        self._dataplane.attach_underlay(self._underlay.interface, "gateway")
        links = self._netlink.links()
        # An interface that went while no agent ran left an entry behind; detaching removes all such.
        self._dataplane.detach_instance(_NO_INTERFACE)
        self._attached = {name: _UNKNOWN_LINK for name in links if name.startswith(_INSTANCE_PREFIX)}

    def close(self) -> None:
        """Close the sockets; the kernel state stays."""
        self._netlink.close()

    def observe(self) -> plan.Observed:
        """What there is now."""
        return plan.Observed(
            links=self._netlink.links(),
            attached=dict(self._attached),
            tunnels={id_: self._placed.get(id_) for id_ in self._dataplane.tunnel_ids()},
            endpoints=self._dataplane.endpoints(),
            elements=self._ports.elements(),
        )

    def apply(self, actions: Iterable[plan.Action]) -> list[plan.Action]:
        """Do what the plan says, in order; returns what failed, which is in the log."""
        failed: list[plan.Action] = []
        for action in actions:
            try:
                self._apply(action)
            except Exception:
                # One gateway's trouble must not hold up the others; the next round tries again.
                log.exception("cannot do %s", action)
                failed.append(action)
        return failed

    def _apply(self, action: plan.Action) -> None:
        match action:
            case plan.AttachInstance(instance, link):
                self._dataplane.attach_instance(instance.interface, instance.inside, instance.public)
                self._attached[instance.interface] = link
            case plan.DetachInstance(interface):
                self._dataplane.detach_instance(interface)
                self._attached.pop(interface, None)
            case plan.SetTunnel(placed):
                self._dataplane.set_tunnel(self._tunnel(placed))
                self._placed[placed.tunnel.id] = placed
            case plan.DeleteTunnel(id_):
                self._dataplane.delete_tunnel(id_)
                self._placed.pop(id_, None)
            case plan.SetEndpoint((inside, address), tunnel):
                self._dataplane.set_endpoint(inside, address, tunnel)
            case plan.DeleteEndpoint((inside, address)):
                self._dataplane.delete_endpoint(inside, address)
            case plan.OpenPorts(elements):
                self._ports.change(add=elements)
            case plan.ClosePorts(elements):
                self._ports.change(delete=elements)

    def _tunnel(self, placed: plan.Placed) -> bpf.Tunnel:
        tunnel = placed.tunnel
        return bpf.Tunnel(
            id=tunnel.id,
            service=tunnel.service,
            inside=tunnel.inside,
            local=self._underlay.address,
            remote=None,
            remote_port=GUE_PORT,
            underlay=self._underlay.interface,
            interface=placed.interface,
            keys=tunnel.keys,
            active=tunnel.active,
            mtu=self._netlink.mtu(self._underlay.interface),
        )
