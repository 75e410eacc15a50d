# SPDX-License-Identifier: Apache-2.0
"""From Ansible's events to each node's result and to the few events that a reader wants, pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from epic.model.runs import NodeResult

_MESSAGE_MAX = 2000
_State = Literal["ok", "changed", "failed", "unreachable"]
_OUTCOMES: dict[str, _State] = {
    "runner_on_ok": "ok",
    "runner_on_failed": "failed",
    "runner_on_unreachable": "unreachable",
}


def reader_event(raw: Mapping[str, Any]) -> dict[str, Any] | None:
    """The event as EPIC publishes it; None for those that say nothing to a reader."""
    data = raw.get("event_data") or {}
    if raw.get("event") == "playbook_on_task_start":
        return {"event": "task", "task": data.get("task", ""), "state": "started"}
    state = _OUTCOMES.get(raw.get("event", ""))
    if state is None:
        return None
    result = data.get("res") or {}
    if state == "failed" and data.get("ignore_errors"):
        state = "ok"
    if state == "ok" and result.get("changed"):
        state = "changed"
    found = {"event": "task", "task": data.get("task", ""), "node": data.get("host", ""), "state": state}
    message = _message(result) if state in {"failed", "unreachable"} else ""
    return found | ({"message": message} if message else {})


@dataclass(frozen=True)
class NodeOutcome:
    """What a run did on a node: its result, and by gateway id what was done about each instance.

    `envoy_versions` are those that the node has; none: it did not say.
    """

    result: NodeResult
    actions: Mapping[str, str] = field(default_factory=dict)
    envoy_versions: tuple[str, ...] = ()

    @property
    def succeeded(self) -> bool:
        """Whether the module did its work, though perhaps not for every instance."""
        return self.result.state in {"ok", "changed"}

    @property
    def failed(self) -> bool:
        """Whether anything has to be tried again."""
        return not self.succeeded or bool(self.result.errors)


def ends_node(raw: Mapping[str, Any]) -> str | None:
    """The node for which this is the last event that matters."""
    data = raw.get("event_data") or {}
    kind, result = raw.get("event"), data.get("res") or {}
    failed = kind == "runner_on_failed" and not data.get("ignore_errors")
    if failed or kind == "runner_on_unreachable" or (kind == "runner_on_ok" and "instances" in result):
        return str(data.get("host", "")) or None
    return None


def outcome(result: NodeResult, raws: Iterable[Mapping[str, Any]]) -> NodeOutcome:
    """A node's outcome from its result and Ansible's events of it."""
    actions: dict[str, str] = {}
    errors: dict[str, str] = {}
    versions: tuple[str, ...] = ()
    for raw in raws:
        found = (raw.get("event_data") or {}).get("res") or {}
        for item in found.get("instances") or ():
            actions[str(item.get("gateway"))] = str(item.get("action"))
            if item.get("error"):
                errors[str(item.get("gateway"))] = str(item["error"])[:_MESSAGE_MAX]
        versions = tuple(map(str, found.get("envoy_versions") or versions))
    return NodeOutcome(result.model_copy(update={"errors": errors}), actions, versions)


def node_results(
    nodes: Iterable[str], events: Iterable[Mapping[str, Any]], failure: str
) -> dict[str, NodeResult]:
    """Each node's result. A node without an event did not get its turn: it failed, and `failure` says why."""
    found: dict[str, NodeResult] = {}
    for event in events:
        node, state = event.get("node"), event["state"]
        known = found.get(node) if node else None
        if node and not (known and _rank(known.state) >= _rank(state)):
            found[node] = NodeResult(state=state, task=event["task"], message=event.get("message", ""))
    return {node: found.get(node) or NodeResult(state="failed", message=failure) for node in nodes}


def _rank(state: str) -> int:
    return ("ok", "changed", "unreachable", "failed").index(state)


def _message(result: Mapping[str, Any]) -> str:
    parts = [result.get(key) for key in ("msg", "stderr", "module_stderr", "exception")]
    texts = [str(part).strip() for part in parts if part]
    # The module's own words first; a traceback only where there are no others that help.
    text = texts[0] if texts else ""
    if text.upper().startswith("MODULE FAILURE") and len(texts) > 1:
        text = f"{text}: {texts[1][-_MESSAGE_MAX:]}"
    return text[:_MESSAGE_MAX]
