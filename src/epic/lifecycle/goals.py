# SPDX-License-Identifier: Apache-2.0
"""What each instance of a gateway is to come to, pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from epic.model.instances import Goal, ProxyInstance
from epic.placement import Candidate, preference


@dataclass(frozen=True)
class Wanted:
    """What a gateway is to be.

    With `keeps_versions` it is not known which Envoy it is to have: instances keep theirs, and those that
    have none get `envoy_version`, which some other one has; empty: none, so they wait.
    """

    replicas: int
    envoy_version: str
    drain_seconds: int
    deleting: bool = False
    keeps_versions: bool = False


@dataclass(frozen=True)
class Host:
    """A node as the gateway's instances see it.

    `drain`, `removing` and `lost` are the operators' will, and so is `unheard_ok`: what no router hears may
    take the place of what leaves the node; `pending` and `running` tell of runs there;
    `applied`: the node has said that what it was told to drop is gone. Of one that is `unreadable` nothing of
    all that is known: its instances stay as they are.
    """

    candidate: Candidate
    drain: bool = False
    removing: bool = False
    lost: bool = False
    pending: bool = False
    running: bool = False
    applied: bool = False
    unheard_ok: bool = False
    unreadable: bool = False

    @property
    def heard(self) -> bool:
        """Whether a router hears what it announces, as far as is known."""
        return not self.candidate.unheard

    @property
    def takes_new(self) -> bool:
        """Whether a new instance may go there."""
        return self.candidate.has_room and not (self.drain or self.removing or self.lost)


def is_serving(instance: ProxyInstance) -> bool:
    """Whether it carries requests and is to go on."""
    return instance.ready and instance.announced and not instance.draining


def is_coming(instance: ProxyInstance) -> bool:
    """Whether it is on its way to serve, and nothing is known to be in its way."""
    if instance.phase not in {"Planned", "Prepared"} or is_serving(instance):
        return False
    return not (instance.error or instance.run_error or instance.unconnected == "no-room")


def may_stand_in(instance: ProxyInstance, *, for_long: bool = True) -> bool:
    """Whether it serves and can take another's place: it reaches what the other reaches.

    While another restarts it may reach less: that is over in a moment.
    """
    less = not for_long and not instance.waits_for_tunnels
    return is_serving(instance) and (less or not (instance.unconnected or instance.short))


def goals(
    gateway: str, instances: Sequence[ProxyInstance], wanted: Wanted, hosts: Mapping[str, Host]
) -> dict[str, Goal]:
    """The goal of each instance, by node."""
    aims: dict[str, Goal] = {}
    free: list[ProxyInstance] = []
    for instance in instances:
        host = hosts[instance.node]
        if host.unreadable:
            aims[instance.node] = instance.goal
        elif wanted.deleting or host.removing or _is_past_return(instance):
            aims[instance.node] = "remove"
        elif host.drain:
            aims[instance.node] = "park"
        else:
            free.append(instance)
    if wanted.replicas == 1:
        room = any(host.takes_new for name, host in hosts.items() if name not in {i.node for i in instances})
        for instance in [i for i in free if i.unit == "outdated"]:
            # The only one is not restarted but replaced, so that one serves at any time.
            if _is_leaving(instance) or (instance.announced and (room or len(free) > 1)):
                aims[instance.node] = "remove"
                free.remove(instance)
    # Those that stay should reach what is behind the gateway, and routers should hear them.
    free.sort(
        key=lambda i: (
            not _is_leaving(i),
            not i.reaches_less,
            hosts[i.node].heard,
            preference(gateway, i.node),
        )
    )
    surplus = max(0, len(free) - wanted.replicas)
    aims |= {i.node: "remove" for i in free[:surplus]}
    return aims | {i.node: "restart" if i.unit == "outdated" else "serve" for i in free[surplus:]}


def _is_past_return(instance: ProxyInstance) -> bool:
    return instance.phase == "Removed" or instance.unit == "removed"


def _is_leaving(instance: ProxyInstance) -> bool:
    return instance.goal == "remove" and instance.draining
