# SPDX-License-Identifier: Apache-2.0
"""What nodes report and what becomes of it in the status of gateways and nodes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice

from epic.errors import EpicError, Invalid
from epic.gatewayapi.statuses import accepted
from epic.lifecycle.addresses import unsupported_address
from epic.lifecycle.conditions import readiness, with_proxy_condition
from epic.lifecycle.nodes import is_silent
from epic.live import End, SecondChance
from epic.model.base import Condition
from epic.model.instances import ADDRESS_NOT_ANNOUNCED, CONFIGURATION_REFUSED, NODE_SILENT, NOT_PROGRAMMED
from epic.model.nodes import BGPSession, BGPStatus
from epic.model.resources import GWProxy, Node
from epic.model.values.naming import GatewayId
from epic.proto import epic_pb2
from epic.rotation import Holds

ACCEPTED = "Accepted"

_NEWS_PERIOD = timedelta(seconds=10)
_PROBLEMS_KEPT = 20
_PROBLEM_MAX = 300
_HELD_KEPT = 1000
_SESSIONS_KEPT = 20
_DROPS_KEPT = 200
_SILENT_KEPT = 10_000
_LATEST = 1 << 36
_WORD_MAX = 100
_ERROR_MAX = 4200
"""Agents say less; a node that was taken over must not fill the store."""


def reported(proxy: GWProxy, node: str, states: Mapping[str, epic_pb2.InstanceStatus]) -> GWProxy:
    """The gateway with what `node` says of its instance; `states` is by gateway id."""
    state = states.get(str(proxy.id)) or epic_pb2.InstanceStatus()
    update = {
        "ready": state.ready,
        "announced": state.announced,
        "drained": state.drained,
        "serving_revision": state.serving_revision[:_WORD_MAX],
        "error": _error(state),
    }
    return _with_instance(proxy, node, update)


def _error(state: epic_pb2.InstanceStatus) -> str:
    # Without tunnels nothing is told to the Envoy: what it refused before is the older trouble.
    if state.kernel_error:
        return f"{NOT_PROGRAMMED}: {state.kernel_error[:_PROBLEM_MAX]}"
    if state.error:
        return f"{CONFIGURATION_REFUSED}: {state.error[:_ERROR_MAX]}"
    return f"{ADDRESS_NOT_ANNOUNCED}: {state.address_error[:_PROBLEM_MAX]}" if state.address_error else ""


def applied_siblings(report: epic_pb2.NodeReport, gateways: Iterable[GatewayId]) -> dict[GatewayId, str]:
    """Of those of these gateways of which the node speaks, the list of siblings that it has."""
    said = {state.gateway: state.applied_siblings[:_WORD_MAX] for state in report.instances}
    return {gateway: said[str(gateway)] for gateway in gateways if str(gateway) in said}


def silent_addresses(report: epic_pb2.NodeReport) -> tuple[str, ...]:
    """The addresses of siblings' nodes whose programs do not answer the node."""
    return tuple(address[:_WORD_MAX] for address in report.silent_addresses[:_SILENT_KEPT])


def silent(proxy: GWProxy, node: str) -> GWProxy:
    """The gateway when `node` has not been heard of for too long."""
    error = f"{NODE_SILENT}: the node does not report"
    return _with_instance(proxy, node, {"ready": False, "announced": False, "error": error})


def ends(report: epic_pb2.NodeReport) -> dict[int, End]:
    """The EPIC ends of the node's tunnels."""
    return {
        said.id: End(
            holds=Holds(frozenset(said.epochs), said.signing_epoch),
            rx_packets=said.rx_packets,
            rx_bytes=said.rx_bytes,
            tx_packets=said.tx_packets,
            tx_bytes=said.tx_bytes,
            hello_age=said.hello_age if said.hello_age >= 0 else None,
            observed=(said.observed_address, said.observed_port) if said.observed_address else None,
        )
        for said in report.tunnels
    }


def drops(report: epic_pb2.NodeReport) -> dict[str, int]:
    """What the node drops, by reason."""
    return {reason[:_WORD_MAX]: count for reason, count in islice(report.drops.items(), _DROPS_KEPT)}


def second_chances(report: epic_pb2.NodeReport, gateways: Iterable[GatewayId]) -> dict[str, SecondChance]:
    """What became of packets of those of these gateways of which the node speaks, on the node."""
    here = {str(gateway) for gateway in gateways}
    return {
        said.gateway: SecondChance(
            hits=said.hits,
            passed_on=said.passed_on,
            learned=said.learned,
            chain_ends=said.chain_ends,
            over_budget=said.over_budget,
        )
        for said in report.second_chances
        if said.gateway in here
    }


def heard(node: Node, report: epic_pb2.NodeReport, time: datetime) -> Node:
    """The node after a report that says something new, if only that the node is not silent any more."""
    said = {
        "agent_version": report.agent_version[:_WORD_MAX],
        "applied_digest": report.applied_digest[:_WORD_MAX],
        "held_gateways": tuple(gateway[:_WORD_MAX] for gateway in report.held_gateways[:_HELD_KEPT]),
        "problems": tuple(line[:_PROBLEM_MAX] for line in report.problems[:_PROBLEMS_KEPT]),
        "second_chance": report.second_chance,
        "second_chance_refusal": report.second_chance_refusal[:_PROBLEM_MAX],
        "bgp": _bgp(report.bgp) if report.HasField("bgp") else None,
    }
    last = node.status.last_report
    same = all(getattr(node.status, name) == value for name, value in said.items())
    # Who is not silent any more is called so a moment later: reports that come in between are none.
    is_heard_again = is_silent(node) and (last is None or time - last >= _NEWS_PERIOD)
    if same and last is not None and not is_heard_again:
        return node
    return node.model_copy(update={"status": node.status.model_copy(update={**said, "last_report": time})})


def _bgp(said: epic_pb2.BgpSessions) -> BGPStatus:
    return BGPStatus(
        configured=said.configured,
        established=said.established,
        down=tuple(_session(session) for session in said.down[:_SESSIONS_KEPT]),
        failure=said.failure[:_PROBLEM_MAX],
    )


def _session(said: epic_pb2.BgpSession) -> BGPSession:
    since = datetime.fromtimestamp(min(max(said.since, 0), _LATEST), UTC)
    return BGPSession(
        name=said.name[:_WORD_MAX],
        address=said.address[:_WORD_MAX],
        since=since,
        error=said.error[:_WORD_MAX],
    )


def configured(proxy: GWProxy, revision: str, problem: EpicError | None, left_out: int = 0) -> GWProxy:
    """The gateway with the revision that is served and, if a newer one was refused, why.

    `left_out` is how many routes the gateway has no room for.
    """
    condition = unsupported_address(proxy) or accepted(proxy, left_out)
    if problem is not None:
        condition = Condition(
            type=ACCEPTED,
            status="False",
            reason="InvalidConfiguration" if isinstance(problem, Invalid) else "NotValidated",
            message=str(problem),
            observed_generation=proxy.metadata.generation,
        )
    status = proxy.status.model_copy(update={"revision": revision})
    return with_proxy_condition(proxy.model_copy(update={"status": status}), condition)


def _with_instance(proxy: GWProxy, node: str, update: Mapping[str, object]) -> GWProxy:
    instances = tuple(
        instance.model_copy(update=update) if instance.node == node else instance
        for instance in proxy.status.instances
    )
    proxy = proxy.model_copy(update={"status": proxy.status.model_copy(update={"instances": instances})})
    return with_proxy_condition(proxy, readiness(proxy))
