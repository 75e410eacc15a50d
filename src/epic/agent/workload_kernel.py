"""The kernel state of the workload role. Methods block."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from epic.agent import tunnels
from epic.agent.netlink import HostRoute, Netlink
from epic.agent.settings import UnderlaySettings
from epic.agent.tunnels import WorkloadTunnel
from epic.agent.underlay import Underlay
from epic.bpf import dataplane as bpf

log = logging.getLogger(__name__)


class WorkloadKernel:
    """Tunnels, endpoints and the routes of replies."""

    def __init__(self, dataplane: bpf.Dataplane, underlay: UnderlaySettings) -> None:
        self._dataplane = dataplane
        self._underlay = underlay
        self._netlink = Netlink()
        self._underlay_watch = Underlay(dataplane, self._netlink, underlay.interface, "workload")
        self._set: dict[int, WorkloadTunnel] = {}
        self._said = ""

    @property
    def installed(self) -> Mapping[int, WorkloadTunnel]:
        """The tunnels as this agent has set them."""
        return self._set

    def start(self) -> None:
        """Load the programs and attach them; what was there goes on working."""
        self._dataplane.load()
        self._follow_underlay()

    def _follow_underlay(self) -> None:
        if self._underlay_watch.follow():
            self._set.clear()

    def close(self) -> None:
        """Close the sockets; the kernel state stays."""
        self._netlink.close()

    def observe(self) -> tunnels.Observed:
        """What there is now."""
        self._follow_underlay()
        return tunnels.Observed(
            tunnels={id_: self._set.get(id_) for id_ in self._dataplane.tunnel_ids()},
            endpoints=self._dataplane.endpoints(),
            routes=self._netlink.host_routes(),
        )

    def routes(self, wanted: Mapping[int, WorkloadTunnel]) -> list[HostRoute]:
        """The routes that replies need now."""
        mtu = self._underlay_watch.mtu
        if mtu is None:
            return []
        hops = {
            t.epic_address: hop
            for t in wanted.values()
            if (hop := self._netlink.next_hop(t.epic_address)) is not None
        }
        interface = self._underlay.interface
        found = list(tunnels.routes(wanted, hops, interface, mtu))
        routed = {route.destination for route in found}
        self._complain({str(t.epic_address) for t in wanted.values() if t.inside not in routed})
        return found

    def apply(self, plan: tunnels.Plan) -> bool:
        """Do what the plan says, in order; False when something failed, which is in the log."""
        done = [
            *(self._try(self._netlink.remove_host_route, route) for route in plan.remove_routes),
            *(self._try(self._dataplane.delete_endpoint, *key) for key in plan.delete_endpoints),
            *(self._try(self._delete_tunnel, id_) for id_ in plan.delete_tunnels),
            *(self._try(self._set_tunnel, tunnel) for tunnel in plan.set_tunnels),
            *(self._try(self._dataplane.set_endpoint, *key, id_) for key, id_ in plan.set_endpoints),
            *(self._try(self._netlink.set_host_route, route) for route in plan.set_routes),
        ]
        return all(done)

    def _set_tunnel(self, tunnel: WorkloadTunnel) -> None:
        self._dataplane.set_tunnel(
            bpf.Tunnel(
                id=tunnel.id,
                service=tunnel.service,
                inside=tunnel.inside,
                local=self._underlay.address,
                remote=tunnel.epic_address,
                remote_port=tunnel.epic_port,
                underlay=self._underlay.interface,
                interface=None,
                keys=tunnel.keys,
                active=tunnel.active,
            )
        )
        self._set[tunnel.id] = tunnel

    def _delete_tunnel(self, id_: int) -> None:
        self._dataplane.delete_tunnel(id_)
        self._set.pop(id_, None)

    def _try(self, call: Callable[..., None], *arguments: object) -> bool:
        try:
            call(*arguments)
        except Exception as error:
            # One tunnel's trouble must not hold up the others; the next round tries again. The arguments are
            # not logged: they may hold keys.
            log.error("%s failed: %s", call.__name__, error)
            return False
        return True

    def _complain(self, unreachable: set[str]) -> None:
        where = f"by underlay interface {self._underlay.interface}"
        complaint = f"no route to {', '.join(sorted(unreachable))} {where}: their tunnels cannot work"
        if unreachable and complaint != self._said:
            log.warning("%s", complaint)
        self._said = complaint if unreachable else ""
