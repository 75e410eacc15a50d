"""What a run's results mean to gateways, pure: their instances' state and the condition Programmed."""

from __future__ import annotations

from collections.abc import Mapping

from epic.model.base import Condition, with_condition
from epic.model.instances import ProxyInstance
from epic.model.resources import GWProxy
from epic.model.runs import NodeResult
from epic.runs.inventory import NodePlan


def programmed(proxy: GWProxy, plans: Mapping[str, NodePlan], results: Mapping[str, NodeResult]) -> GWProxy:
    """The gateway after a run; instances that were not in the run's plan stay as they are."""
    covered = {
        instance.node
        for instance in proxy.status.instances
        if instance.node in results
        and instance.node in plans
        and plans[instance.node].includes(str(proxy.id), instance.inside_address)
    }
    if not covered:
        return proxy
    instances = tuple(
        _after(instance, results[instance.node]) if instance.node in covered else instance
        for instance in proxy.status.instances
    )
    conditions = with_condition(proxy.status.conditions, _condition(instances))
    status = proxy.status.model_copy(update={"instances": instances, "conditions": conditions})
    return proxy.model_copy(update={"status": status})


def _after(instance: ProxyInstance, result: NodeResult) -> ProxyInstance:
    succeeded = result.state in {"ok", "changed"}
    error = "" if succeeded else ": ".join(p for p in (result.state, result.task, result.message) if p)
    unit = "current" if succeeded else instance.unit
    return instance.model_copy(update={"unit": unit, "run_error": error})


def _condition(instances: tuple[ProxyInstance, ...]) -> Condition:
    errors = [f"node {i.node}: {i.run_error}" for i in instances if i.run_error]
    if errors:
        return Condition(type="Programmed", status="False", reason="RunFailed", message="; ".join(errors))
    waiting = [i.node for i in instances if not i.programmed]
    if waiting or not instances:
        message = f"waiting for a run on {', '.join(waiting) or 'a node'}"
        return Condition(type="Programmed", status="Unknown", reason="Pending", message=message)
    return Condition(type="Programmed", status="True", reason="Programmed")
