# SPDX-License-Identifier: Apache-2.0
"""What the lives of a gateway's instances mean to the gateway, pure.

Its conditions are read by its owner: they name neither nodes nor what agents and runs said there.
"""

from __future__ import annotations

from collections.abc import Sequence

from epic.lifecycle.addresses import unusable_address
from epic.model.base import Condition, observed, with_condition
from epic.model.instances import ProxyInstance, trouble
from epic.model.resources import GWProxy

READY = "Ready"
_CONNECTED = "Connected"
_PENDING = "Pending"


def with_instances(
    proxy: GWProxy, instances: Sequence[ProxyInstance], unplaced: int | None = None
) -> GWProxy:
    """The gateway with these instances (`unplaced` as before if not given) and the conditions that follow."""
    update: dict[str, object] = {"instances": tuple(instances)}
    if unplaced is not None:
        update["unplaced"] = unplaced
    proxy = proxy.model_copy(update={"status": proxy.status.model_copy(update=update)})
    for condition in (placed(proxy), programmed(proxy), readiness(proxy)):
        proxy = with_proxy_condition(proxy, condition)
    return proxy


def with_proxy_condition(proxy: GWProxy, condition: Condition) -> GWProxy:
    """The gateway with another condition of that type, if it says something else."""
    old = next((c for c in proxy.status.conditions if c.type == condition.type), None)
    # The order of conditions says nothing: a change of it alone must not become a write.
    if old is not None and is_same(old, condition):
        return proxy
    conditions = with_condition(proxy.status.conditions, condition)
    return proxy.model_copy(update={"status": proxy.status.model_copy(update={"conditions": conditions})})


def is_same(one: Condition, other: Condition) -> bool:
    """Whether two conditions of a type say the same."""
    return one.model_copy(update={"last_transition_time": other.last_transition_time}) == other


def placed(proxy: GWProxy) -> Condition:
    """Whether all the instances that the gateway is to have have a node."""
    missing = proxy.status.unplaced
    if not missing:
        return observed(proxy, "Placed", "True", "Placed")
    instances = "one more instance" if missing == 1 else f"{missing} more instances"
    message = f"the platform has no room for {instances} now; its operators can see why"
    return observed(proxy, "Placed", "False", "NoRoom", message)


def with_connected(proxy: GWProxy, limit: int) -> GWProxy:
    """The gateway saying which tunnels it is without, if its account may have `limit` tunnels.

    A gateway to which that never happened says nothing of it.
    """
    unconnected, crowded_out = proxy.status.unconnected, proxy.status.crowded_out
    if unconnected:
        nodes = "one workload node has" if unconnected == 1 else f"{unconnected} workload nodes have"
        said = (
            f"{nodes} no tunnels and get no requests, since the account may have {limit} tunnels; delete "
            "what is not needed, or ask the platform's administrators for a higher tunnelLimit"
        )
        return with_proxy_condition(proxy, _unconnected("TunnelLimit", said))
    if crowded_out:
        tunnels = "one tunnel" if crowded_out == 1 else f"{crowded_out} tunnels"
        said = (
            f"the platform has no room for {tunnels} now, and not all instances reach all workload nodes; "
            "its operators can see why"
        )
        return with_proxy_condition(proxy, _unconnected("NoRoom", said))
    if any(c.type == _CONNECTED for c in proxy.status.conditions):
        return with_proxy_condition(proxy, Condition(type=_CONNECTED, status="True", reason=_CONNECTED))
    return proxy


def with_tunnels_pending(proxy: GWProxy) -> GWProxy:
    """The gateway saying that not all of its tunnels are made yet."""
    return with_proxy_condition(proxy, _unconnected(_PENDING, "its tunnels are being made and deleted"))


def has_tunnels_pending(proxy: GWProxy) -> bool:
    """Whether the gateway says that not all of its tunnels are made yet."""
    return any(c.type == _CONNECTED and c.reason == _PENDING for c in proxy.status.conditions)


def _unconnected(reason: str, message: str) -> Condition:
    return Condition(type=_CONNECTED, status="False", reason=reason, message=message)


def programmed(proxy: GWProxy) -> Condition:
    """Whether the runs have done what the instances need of them, at the address that is asked for."""
    instances = proxy.status.instances
    errors = sorted({i.run_error for i in instances if i.run_error})
    if errors:
        reason = errors[0].partition(":")[0]
        texts = "; ".join(error.partition(": ")[2] for error in errors)
        return Condition(type="Programmed", status="False", reason=reason, message=texts)
    unusable = unusable_address(proxy)
    if unusable is not None:
        return unusable
    waiting = sum(not i.programmed and i.goal != "remove" for i in instances)
    if waiting or not instances:
        message = f"{waiting} of {len(instances)} instances wait for a run"
        return Condition(type="Programmed", status="Unknown", reason="Pending", message=message)
    return Condition(type="Programmed", status="True", reason="Programmed")


def readiness(proxy: GWProxy) -> Condition:
    """Whether the gateway serves, and with how many of the instances that it is to have."""
    instances = proxy.status.instances
    total = len(instances) + proxy.status.unplaced
    serving = sum(instance.announced for instance in instances)
    troubles = sorted({trouble(i.error) for i in instances if i.error})
    message = "; ".join([f"{serving} of {total} instances serve", *troubles]) + "."
    if not serving:
        return observed(proxy, READY, "False", "NoInstanceServes", message)
    reason = "AllInstancesServe" if serving == total else "SomeInstancesServe"
    return observed(proxy, READY, "True", reason, message)
