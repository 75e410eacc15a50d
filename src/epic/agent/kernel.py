"""The kernel state of the gateway role: what is there, and doing what the plan says. Methods block."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping

from epic.agent import plan
from epic.agent.desired import Tunnel
from epic.agent.netlink import Netlink
from epic.agent.nft import PortSet
from epic.agent.settings import UnderlaySettings
from epic.agent.underlay import Underlay
from epic.bpf import dataplane as bpf
from epic.model.naming import instance_interface
from epic.model.resources import GUE_PORT

log = logging.getLogger(__name__)

_INSTANCE_PREFIX = "epg"
_UNKNOWN_LINK = 0


class GatewayKernel:
    """Tunnels, instances' interfaces and open ports of this node."""

    def __init__(self, dataplane: bpf.Dataplane, underlay: UnderlaySettings) -> None:
        self._dataplane = dataplane
        self._underlay = underlay
        self._netlink = Netlink()
        self._underlay_watch = Underlay(dataplane, self._netlink, underlay.interface, "gateway")
        self._ports = PortSet()
        self._attached: dict[str, int] = {}
        self._tunnels: dict[int, Tunnel] = {}

    @property
    def installed(self) -> Mapping[int, Tunnel]:
        """The tunnels as this agent has set them."""
        return self._tunnels

    def start(self, interfaces: Collection[str]) -> None:
        """Load the programs and attach them to the underlay; what was there stays and goes on working.

        `interfaces` are the instances' that an earlier agent knew; they may be gone and still need detaching.
        """
        self._dataplane.load()
        self._follow_underlay()
        ours = {name for name in self._netlink.links() if name.startswith(_INSTANCE_PREFIX)}
        self._attached = dict.fromkeys(ours | set(interfaces), _UNKNOWN_LINK)

    def _follow_underlay(self) -> None:
        if self._underlay_watch.follow():
            self._tunnels.clear()

    def close(self) -> None:
        """Close the sockets; the kernel state stays."""
        self._netlink.close()

    def observe(self) -> plan.Observed:
        """What there is now."""
        self._follow_underlay()
        return plan.Observed(
            links=self._netlink.links(),
            attached=dict(self._attached),
            tunnels={id_: self._tunnels.get(id_) for id_ in self._dataplane.tunnel_ids()},
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
            case plan.SetTunnel(tunnel):
                self._dataplane.set_tunnel(self._bpf_tunnel(tunnel))
                self._tunnels[tunnel.id] = tunnel
            case plan.DeleteTunnel(id_):
                self._dataplane.delete_tunnel(id_)
                self._tunnels.pop(id_, None)
            case plan.SetEndpoint((inside, address), id_):
                self._dataplane.set_endpoint(inside, address, id_)
            case plan.DeleteEndpoint((inside, address)):
                self._dataplane.delete_endpoint(inside, address)
            case plan.OpenPorts(elements):
                self._ports.change(add=elements)
            case plan.ClosePorts(elements):
                self._ports.change(delete=elements)

    def _bpf_tunnel(self, tunnel: Tunnel) -> bpf.Tunnel:
        return bpf.Tunnel(
            id=tunnel.id,
            service=tunnel.service,
            inside=tunnel.inside,
            local=self._underlay.address,
            remote=None,
            remote_port=GUE_PORT,
            underlay=self._underlay.interface,
            interface=instance_interface(tunnel.inside),
            keys=tunnel.keys,
            active=tunnel.active,
        )
