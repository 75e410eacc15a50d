# SPDX-License-Identifier: Apache-2.0
"""Nodes as the contract has them: kernels, units, agents and runs of the model of the lives of gateways."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from epic.ads.snapshot import INSTANCE, NODE_STATE, SIBLINGS, TUNNEL, Resources, Snapshot
from epic.proto import epic_pb2
from epic.runs.inventory import NodePlan


@dataclass
class Unit:
    """An Envoy that a run made."""

    gateway: str
    inside: str
    publics: tuple[str, ...]
    version: str
    running: bool = True


@dataclass(frozen=True)
class TunnelEnd:
    """A tunnel in a kernel."""

    gateway: str
    inside: str
    secrets: frozenset[bytes]


@dataclass
class EpicNode:
    """A host: what is on it stays when its agent or the connection goes."""

    name: str
    units: dict[str, Unit] = field(default_factory=dict)
    announced: dict[str, str] = field(default_factory=dict)
    """Public address to the gateway whose Envoy it leads to."""
    tunnels: dict[int, TunnelEnd] = field(default_factory=dict)
    plumbing: dict[str, str] = field(default_factory=dict)
    """What belongs to an inside address (routes, rules), and of which gateway it is."""
    first_announced: dict[str, float] = field(default_factory=dict)
    """When it first announced each gateway that has a unit here."""
    draining: set[str] = field(default_factory=set)
    siblings: Resources = field(default_factory=dict)
    """What its programs know of siblings, by gateway."""
    known_keys: set[bytes] = field(default_factory=set)
    """Every key of siblings that it was ever sent: who takes a host over may remember."""
    held_since: dict[str, float] = field(default_factory=dict)
    """Since when it does not announce a gateway because it is told so."""
    second_chance: bool = True
    sessions: int | None = None
    """How many of its two BGP sessions are established; None: its agent does not know."""
    held: Snapshot | None = None
    """What its agent was told last; it survives the agent."""
    connected: bool = True
    agent: bool = True
    certified: int = 0
    """The store's revision when its certificate was made."""
    envoys: set[str] = field(default_factory=lambda: {"1"})
    applied: str = ""
    stuck: bool = False
    """Its kernel refuses to remove anything but announcements."""

    def power_off(self) -> None:
        """Nothing is left of it."""
        self.units.clear()
        self.stuck = False
        self._drop_everything()
        self.held, self.connected = None, False

    @property
    def is_off(self) -> bool:
        """Nothing there answers."""
        return self.held is None and not self.connected

    def known(self, gateway: str) -> epic_pb2.Siblings:
        """What its programs know of the gateway's siblings; without any: nothing."""
        held = self.siblings.get(gateway)
        return epic_pb2.Siblings() if held is None else epic_pb2.Siblings.FromString(held.body.value)

    def kill_envoy(self, gateway: str) -> None:
        """Its Envoy ends: the unit withdraws the announcement, whether the agent lives or not."""
        self.units[gateway].running = False
        self._withdraw(gateway)

    def work(self, wanted: Snapshot | None, time: float, *, removed: bool = False) -> None:
        """The agent's turn: hears what is wanted, if it is connected, and makes it so."""
        if not self.agent:
            return
        if self.connected and wanted is not None:
            self.held = wanted
            lists = [epic_pb2.Siblings.FromString(r.body.value) for r in wanted[SIBLINGS].values()]
            self.known_keys |= {key.secret for siblings in lists for key in siblings.keys}
        if removed and self.connected:
            self._drop_everything()
            self.held = None
        if self.held is None:
            return
        state = epic_pb2.NodeState.FromString(self.held[NODE_STATE]["node"].body.value)
        if state.removed:
            self._drop_everything()
        else:
            self._carry_out(self.held, time)
        if not self.stuck:
            self.applied = state.digest

    def _carry_out(self, held: Snapshot, time: float) -> None:
        instances = {name: epic_pb2.Instance.FromString(r.body.value) for name, r in held[INSTANCE].items()}
        for public, gateway in list(self.announced.items()):
            wanted = instances.get(gateway)
            if wanted is None or public not in wanted.public_addresses:
                del self.announced[public]
        if not self.stuck:
            self.tunnels, self.plumbing = {}, {}
        self.plumbing |= {instance.inside_address: name for name, instance in instances.items()}
        for resource in held[TUNNEL].values():
            tunnel = epic_pb2.Tunnel.FromString(resource.body.value)
            if tunnel.gateway in instances:
                secrets = frozenset(key.secret for key in tunnel.keys)
                self.tunnels[tunnel.id] = TunnelEnd(tunnel.gateway, tunnel.inside_address, secrets)
        self.draining = {name for name, instance in instances.items() if instance.draining}
        for name, instance in instances.items():
            unit = self.units.get(name)
            ready = unit is not None and unit.running and unit.inside == instance.inside_address
            if not ready or instance.draining:
                self._withdraw(name)
            elif not self._is_held(instance, time):
                self.announced |= dict.fromkeys(instance.public_addresses, name)
                self.first_announced.setdefault(name, time)
        self.held_since = {name: t for name, t in self.held_since.items() if name in instances}
        self.siblings = held[SIBLINGS]

    def _is_held(self, instance: epic_pb2.Instance, time: float) -> bool:
        announced = set(instance.public_addresses) <= self.announced.keys()
        if not instance.hold:
            self.held_since.pop(instance.gateway, None)
            return instance.unconnected and not announced
        if announced:
            return False
        return instance.unconnected or time - self.held_since.setdefault(instance.gateway, time) < 10

    def report(self) -> epic_pb2.NodeReport:
        """What the agent says of the node."""
        gateways = set(self.units) | set(self.announced.values()) | self.draining
        report = epic_pb2.NodeReport(
            node=self.name,
            agent_version="1",
            applied_digest=self.applied,
            second_chance=self.second_chance,
        )
        if self.sessions is not None:
            report.bgp.configured, report.bgp.established = 2, self.sessions
        gateways |= self.siblings.keys()
        for gateway in sorted(gateways):
            unit = self.units.get(gateway)
            announced = gateway in self.announced.values()
            report.instances.add(
                gateway=gateway,
                ready=unit is not None and unit.running,
                announced=announced,
                drained=gateway in self.draining and not announced,
                applied_siblings=self.siblings[gateway].version if gateway in self.siblings else "",
            )
        return report

    def run(self, plan: NodePlan) -> dict[str, tuple[str, str]]:
        """What the module does here: by gateway the action and the error."""
        wanted = {str(i["gateway"]): i for i in plan.instances}
        done: dict[str, tuple[str, str]] = {}
        for gateway in sorted(set(self.units) - set(wanted) - plan.kept):
            self._stop(gateway)
            del self.units[gateway]
            self.first_announced.pop(gateway, None)
            done[gateway] = ("remove", "")
        for gateway, instance in sorted(wanted.items()):
            done[gateway] = self._make(gateway, instance)
        return done

    def _make(self, gateway: str, instance: Mapping[str, object]) -> tuple[str, str]:
        version, inside = str(instance["envoy_version"]), str(instance["inside_address"])
        if version not in self.envoys:
            return "none", f"Envoy {version} is not here"
        unit = self.units.get(gateway)
        if unit is not None and unit.running and (unit.version, unit.inside) == (version, inside):
            return "none", ""
        if unit is not None and unit.running and not instance["may_restart"]:
            return "deferred", ""
        if unit is not None:
            self._stop(gateway)
        publics = tuple(str(instance[name]) for name in ("public_address", "alt_address") if name in instance)
        self.units[gateway] = Unit(gateway, inside, publics, version)
        return "create" if unit is None else "update", ""

    def _stop(self, gateway: str) -> None:
        serves = self.units[gateway].running and gateway in self.announced.values()
        assert not serves, f"{self.name}: {gateway} is stopped while it is announced"

    def _withdraw(self, gateway: str) -> None:
        for public in [public for public, name in self.announced.items() if name == gateway]:
            del self.announced[public]

    def _drop_everything(self) -> None:
        self.announced.clear()
        self.draining.clear()
        self.siblings, self.held_since = {}, {}
        if not self.stuck:
            self.tunnels.clear()
            self.plumbing.clear()


@dataclass
class WorkloadNode:
    """A host of an account's; it has the tunnels that it was told last."""

    account: str
    name: str
    tunnels: dict[int, TunnelEnd] = field(default_factory=dict)
    applied: int = 0
    connected: bool = True
