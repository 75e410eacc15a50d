# SPDX-License-Identifier: Apache-2.0
"""`epicctl status`: how nodes, gateways and runs are, and what is wrong. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from epic.cli.printing.fields import addresses, age, condition, dig, span
from epic.cli.printing.phases import counted, instances, is_true, leaving, phase, sessions, waits_for, worries

_SILENT = timedelta(seconds=45)
_MESSAGE_SHOWN = 300
_CONDITIONS = ("Accepted", "Placed", "Programmed", "Ready")
_NOT_SERVED = frozenset({"ListenersNotValid", "RoutesLeftOut", "UnsupportedValue"})
"""Of the reasons why a gateway is accepted those that say that not all of it is served."""
_ASKED_FOR = frozenset({"UnsupportedAddress", "AddressNotUsable", "InvalidParameters"}) | _NOT_SERVED
"""Of the reasons why a gateway is not as it is to be those that its owner has chosen."""
_CHANCE_FAILS = frozenset({"NoIndexFree", "SiblingsLate"})
"""Of the reasons why a gateway has no second chance those that nobody has chosen."""


@dataclass(frozen=True)
class Line:
    """An object's state in a few words, and what is wrong with it.

    `theirs`: that is for the account that has it to mend; the platform's operators can do nothing about it.
    """

    name: str
    state: str
    details: str = ""
    problem: str = ""
    theirs: bool = False


@dataclass(frozen=True)
class Health:
    """The state of the cluster as far as the user may see it."""

    nodes: tuple[Line, ...] = ()
    gateways: tuple[Line, ...] = ()
    runs: tuple[Line, ...] = ()
    silent: tuple[Line, ...] = ()
    """Workload nodes that have stopped reporting."""
    unheard: tuple[Line, ...] = ()
    """What is wrong where workload nodes report to."""
    unreadable: tuple[Line, ...] = ()
    """Stored objects that cannot be read."""
    traffic: tuple[Line, ...] = ()
    """What keeps an account's requests from coming through."""
    hidden: bool = False
    of_account: bool = False
    """Whether it is looked at for one account, which minds what is its own to mend."""

    @property
    def problems(self) -> list[str]:
        """What is wrong, to who looks at it."""
        return [_told(line) for line in self._wrong if self.of_account or not line.theirs]

    @property
    def of_accounts(self) -> list[str]:
        """What is wrong besides, and for accounts to mend."""
        return [_told(line) for line in self._wrong if line.theirs and not self.of_account]

    @property
    def _wrong(self) -> list[Line]:
        lines = (
            *self.unreadable,
            *self.nodes,
            *self.gateways,
            *self.silent,
            *self.unheard,
            *self.traffic,
            *self.runs,
        )
        return [line for line in lines if line.problem]


def _told(line: Line) -> str:
    return f"{line.name}: {line.problem}"


def node_line(node: dict[str, Any], now: datetime) -> Line:
    """How a node is."""
    name, last = node["metadata"]["name"], dig(node, "status", "last-report")
    details = f"{dig(node, 'spec', 'address')}, agent {dig(node, 'status', 'agent-version') or '-'}"
    details += f", {counted(instances(node))}, BGP {sessions(node)}"
    details += f", waits for {waiting}" if (waiting := waits_for(node)) else ""
    problems = worries(node)
    if last is None:
        problems = ["its agent has never reported; see epic-agent.service there"]
    elif condition(node, "Ready").get("reason") == "Silent":
        problems = [f"its agent is silent for {age(last, now)}; see epic-agent.service there"]
    if is_true(node, "DropHeld"):
        problems.append(f"if the drop is meant: epicctl node accept-drop {name}")
    return Line(name, phase(node), details, "; ".join(problems))


def gateway_line(proxy: dict[str, Any], now: datetime) -> Line:
    """How a gateway is: what its conditions say."""
    metadata = proxy["metadata"]
    name = f"{metadata.get('namespace', '')}/{dig(proxy, 'spec', 'display-name')}"
    if metadata.get("deletionTimestamp"):
        return _deleted_line(name, proxy, now)
    states = [f"{kind} {dig(condition(proxy, kind), 'status') or 'Unknown'}" for kind in _CONDITIONS]
    wrong = [c for kind in _CONDITIONS if (c := condition(proxy, kind)).get("status") == "False"]
    chance = condition(proxy, "SecondChance")
    wrong += [chance] if chance.get("reason") in _CHANCE_FAILS else []
    listeners = condition(proxy, "Accepted")
    # With some listeners, fields or routes that cannot be served it is accepted all the same.
    wrong += [listeners] if listeners.get("reason") in _NOT_SERVED and listeners not in wrong else []
    problem = "; ".join(f"{c['type']}: {c.get('message') or c.get('reason')}" for c in wrong)
    # those of a node that is drained are not meant to serve
    meant = [i for i in dig(proxy, "status", "instances") or () if not leaving([i.get("phase", "")])]
    serving = sum(bool(i.get("announced")) for i in meant)
    if not problem and serving < len(meant):
        problem = f"{serving} of {len(meant)} instances serve"
    details = f"{', '.join(addresses(dig(proxy, 'spec') or {})) or '-'}, {metadata['name']}"
    theirs = bool(wrong) and all(c.get("reason") in _ASKED_FOR for c in wrong) and serving == len(meant)
    return Line(name, ", ".join(states), details, problem, theirs)


def _deleted_line(name: str, proxy: dict[str, Any], now: datetime) -> Line:
    """A gateway that is going: since when, and which nodes have not let go of it yet."""
    metadata = proxy["metadata"]
    waits = [
        f"{i.get('node', 'an instance')} {i.get('phase')}" for i in dig(proxy, "status", "instances") or ()
    ]
    details = f"{metadata['name']}, waits for {', '.join(waits) or 'its addresses to be free'}"
    return Line(name, f"being deleted for {age(metadata['deletionTimestamp'], now)}", details)


def silent_lines(workload_nodes: Iterable[dict[str, Any]]) -> tuple[Line, ...]:
    """The workload nodes of which nothing was heard lately."""
    return tuple(
        Line(
            f"{node['account']}: {node['cluster']}/{node['node']}",
            f"silent for {span(node['silent'])}",
            f"tunnels {node['tunnels']}",
            f"it has not reported for {span(node['silent'])}; see epic-agent.service there: it may be "
            "stopped, or its service-key is not the password of the account's user any more",
            theirs=True,
        )
        for node in workload_nodes
        if is_silent(node)
    )


def unheard_lines(workload_nodes: Iterable[dict[str, Any]]) -> tuple[Line, ...]:
    """What is the platform's to mend: most accounts have no workload node that is heard of.

    One of them may name hosts that never report, however many.
    """
    heard: dict[str, bool] = {}
    for node in workload_nodes:
        heard[node["account"]] = heard.get(node["account"], False) or not is_silent(node)
    unheard = [account for account, any_heard in heard.items() if not any_heard]
    if len(unheard) < 2 or 2 * len(unheard) <= len(heard):
        return ()
    problem = (
        f"all those of {len(unheard)} of {len(heard)} accounts are silent: see whether they reach the REST "
        "API (its port, its certificate, epic-control.service)"
    )
    return (Line("workload nodes", "silent", problem=problem),)


def is_silent(node: dict[str, Any]) -> bool:
    """Whether nothing was heard of a workload node lately."""
    return bool(node["silent"] > _SILENT.total_seconds())


def unreadable_lines(items: Iterable[dict[str, Any]]) -> tuple[Line, ...]:
    """The stored objects that cannot be read."""
    lines = []
    for item in items:
        kind, account, name, reason = (item[key] for key in ("kind", "account", "name", "reason"))
        of_account = f" -A {account}" if account else ""
        remedy = f"all goes on without it; replace it, or: epicctl discard {kind} {name}{of_account}"
        what = f"{kind} {account}/{name}" if account else f"{kind} {name}"
        lines.append(Line(what, "cannot be read", reason, f"it cannot be read ({reason}); {remedy}"))
    return tuple(lines)


def run_lines(runs: Iterable[dict[str, Any]], shown: int) -> tuple[Line, ...]:
    """The last runs; only the newest finished one of a node says how the node is."""
    judged: set[str] = set()
    lines: list[Line] = []
    for run in runs:
        state = dig(run, "status", "state") or "queued"
        results = dig(run, "status", "nodes") or {}
        failed = []
        for node in dig(run, "spec", "nodes") or ():
            if state in {"succeeded", "failed"} and node not in judged:
                judged.add(node)
                failed += _failure(node, results.get(node, {}))
        summary = ", ".join(f"{n}: {r.get('state')}" for n, r in sorted(results.items()))
        problem = "; ".join(failed) or (
            dig(run, "status", "message") if state == "failed" and not results else ""
        )
        if len(lines) < shown:
            lines.append(Line(f"run {run['metadata']['name']}", state, summary, problem or ""))
    return tuple(lines)


def _failure(node: str, result: dict[str, Any]) -> list[str]:
    if result.get("state") not in {"failed", "unreachable"}:
        return []
    task = f" at task {result['task']!r}" if result.get("task") else ""
    return [f"{node} {result['state']}{task}: {result.get('message', '')[:_MESSAGE_SHOWN]}"]


def judge(
    nodes: Iterable[dict[str, Any]] | None,
    proxies: Iterable[dict[str, Any]],
    runs: Iterable[dict[str, Any]] | None,
    now: datetime | None = None,
    *,
    workload_nodes: Iterable[dict[str, Any]] = (),
    unreadable: Iterable[dict[str, Any]] = (),
    of_account: bool = False,
) -> Health:
    """The whole, or of one account; `nodes` and `runs` are None for those who may not see them."""
    time = now or datetime.now(UTC)
    workloads = list(workload_nodes)
    return Health(
        nodes=tuple(node_line(node, time) for node in nodes or ()),
        gateways=tuple(gateway_line(proxy, time) for proxy in proxies),
        runs=run_lines(runs or (), shown=5),
        silent=silent_lines(workloads),
        unheard=unheard_lines(workloads),
        unreadable=unreadable_lines(unreadable),
        hidden=nodes is None,
        of_account=of_account or nodes is None,
    )
