# SPDX-License-Identifier: Apache-2.0
"""What a run's results say of gateways' instances, pure."""

from __future__ import annotations

from epic.lifecycle.conditions import with_instances
from epic.model.instances import ProxyInstance
from epic.model.resources import GWProxy
from epic.runs.inventory import NodePlan
from epic.runs.results import NodeOutcome


def noted(proxy: GWProxy, plan: NodePlan, outcome: NodeOutcome, run: str) -> GWProxy:
    """The gateway after a run on a node; instances that the run did not know stay as they are."""
    instances = tuple(
        _after(str(proxy.id), instance, plan, outcome, run) if instance.node == plan.node.name else instance
        for instance in proxy.status.instances
    )
    return proxy if instances == proxy.status.instances else with_instances(proxy, instances)


def _after(
    gateway: str, instance: ProxyInstance, plan: NodePlan, outcome: NodeOutcome, run: str
) -> ProxyInstance:
    version = plan.version(gateway, instance.inside_address)
    if version is None and (gateway, instance.inside_address) not in plan.removed:
        return instance
    if not outcome.succeeded or gateway in outcome.result.errors:
        return instance.model_copy(update={"run_error": _error(version, outcome, run)})
    if version is None:
        return instance.model_copy(update={"unit": "removed", "run_error": ""})
    if outcome.actions.get(gateway) == "deferred":
        return instance.model_copy(update={"unit": "outdated", "run_error": ""})
    return instance.model_copy(update={"unit": "current", "envoy_version": version, "run_error": ""})


def _error(version: str | None, outcome: NodeOutcome, run: str) -> str:
    """A reason and a text for the gateway's owner: what the node said is for the platform's operators."""
    if version and outcome.envoy_versions and version not in outcome.envoy_versions:
        return f"EnvoyVersionNotInstalled: Envoy {version} is not installed on a node"
    return f"RunFailed: run {run} failed on a node; the platform's operators can see why"
