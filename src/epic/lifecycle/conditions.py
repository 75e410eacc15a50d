# SPDX-License-Identifier: Apache-2.0
"""What the lives of a gateway's instances mean to the gateway, pure."""

from __future__ import annotations

from collections.abc import Sequence

from epic.model.base import Condition, with_condition
from epic.model.instances import ProxyInstance
from epic.model.resources import GWProxy


def with_instances(proxy: GWProxy, instances: Sequence[ProxyInstance]) -> GWProxy:
    """The gateway with these instances, and the condition Programmed that follows."""
    status = proxy.status.model_copy(update={"instances": tuple(instances)})
    return with_programmed(proxy.model_copy(update={"status": status}), programmed(instances))


def with_programmed(proxy: GWProxy, condition: Condition) -> GWProxy:
    """The gateway with another condition of that type, if it says something else."""
    old = next((c for c in proxy.status.conditions if c.type == condition.type), None)
    if old is not None and (old.status, old.reason, old.message) == (
        condition.status,
        condition.reason,
        condition.message,
    ):
        return proxy
    conditions = with_condition(proxy.status.conditions, condition)
    return proxy.model_copy(update={"status": proxy.status.model_copy(update={"conditions": conditions})})


def programmed(instances: Sequence[ProxyInstance]) -> Condition:
    """Whether the runs have done what the instances need of them."""
    errors = sorted({i.run_error for i in instances if i.run_error})
    if errors:
        reason = errors[0].partition(":")[0]
        texts = "; ".join(error.partition(": ")[2] for error in errors)
        return Condition(type="Programmed", status="False", reason=reason, message=texts)
    waiting = [i.node for i in instances if not i.programmed and i.goal != "remove"]
    if waiting or not instances:
        message = f"waiting for a run on {', '.join(waiting) or 'a node'}"
        return Condition(type="Programmed", status="Unknown", reason="Pending", message=message)
    return Condition(type="Programmed", status="True", reason="Programmed")
