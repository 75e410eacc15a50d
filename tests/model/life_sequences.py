# SPDX-License-Identifier: Apache-2.0
"""Random sequences of events over the model, replayable by their seed."""

from __future__ import annotations

import random
from collections.abc import Callable

from life_model import ACCOUNTS, WORKLOAD_NODES, Model

from epic.model.resources import GWProxy, Tunnel

_STEPS = 40


def play(model: Model, seed: int, steps: int = _STEPS) -> list[str]:
    """Play a sequence, checking what must hold after each event; returns the events."""
    dice = random.Random(seed)
    events: list[str] = []
    for _ in range(steps):
        name = dice.choices(list(_EVENTS), weights=[weight for weight, _ in _EVENTS.values()])[0]
        events.append(f"{name} {_EVENTS[name][1](model, dice)}")
        try:
            model.check()
            if dice.random() < 0.6:
                _everybody_works(model, dice)
            model.check()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}\n" + "\n".join(events)) from None
    return events


def finish(model: Model, seed: int) -> None:
    """Heal everything, delete everything, and see that nothing stays behind."""
    heal(model)
    for _ in range(2):
        model.settle(turns=4)
        model.check()
        model.pass_time(61)
    try:
        model.check_units()
    except AssertionError as error:
        raise AssertionError(f"seed {seed}: {error}") from None
    for proxy in model.store.list(GWProxy):
        model.delete(proxy.account, proxy.name)
    for _ in range(40):
        model.settle(turns=3)
        model.check()
        if not (model.store.list(GWProxy) or model.store.list(Tunnel)):
            break
        model.pass_time(31)
    model.switch_off_lost()
    try:
        model.check_nothing_left()
    except AssertionError as error:
        left = [(p.name, p.status.instances) for p in model.store.list(GWProxy)]
        raise AssertionError(f"seed {seed}: {error}; {left}") from None


def heal(model: Model) -> None:
    """No fault is left."""
    model.store.full = False
    for execution in model.executions.values():
        execution.hangs = False
    for name, node in model.epic.items():
        if name not in model.lost:
            node.connected = node.agent = True
        node.stuck = False
        node.sessions = None if node.sessions is None else 2
        node.envoys.add("2")
        for unit in node.units.values():
            unit.running = True
    for workload in model.workload.values():
        workload.connected = True


def _everybody_works(model: Model, dice: random.Random) -> None:
    """Some of those who can work do so, in any order."""
    # The control plane is slow at times: then others are done with their work before it is with its own.
    reconcile = dice.choice([model.reconcile, model.turn])
    turns: list[Callable[[], object]] = [reconcile, model.begin_runs, reconcile]
    turns += [lambda n=name: model.node_works(n) for name in model.epic if dice.random() < 0.7]
    turns += [lambda n=name: model.workload_works(n) for name in model.workload if dice.random() < 0.7]
    turns += [lambda n=name: model.end_run(n) for name in model.executions if dice.random() < 0.7]
    dice.shuffle(turns)
    for turn in turns:
        turn()
        model.check()


def _create(model: Model, dice: random.Random) -> str:
    account = dice.choice(ACCOUNTS)
    model.create(account)
    return account


def _move(model: Model, dice: random.Random) -> str:
    proxies = model.store.list(GWProxy)
    if not proxies:
        return ""
    proxy = dice.choice(proxies)
    nodes = sorted(dice.sample(WORKLOAD_NODES, dice.randint(0, len(WORKLOAD_NODES))))
    model.move_endpoints(proxy.account, proxy.name, nodes)
    return f"{proxy.id} {nodes}"


def _delete(model: Model, dice: random.Random) -> str:
    proxies = model.store.list(GWProxy)
    if not proxies:
        return ""
    proxy = dice.choice(proxies)
    model.delete(proxy.account, proxy.name)
    return str(proxy.id)


def _node(change: Callable[[Model, str], None]) -> Callable[[Model, random.Random], str]:
    def event(model: Model, dice: random.Random) -> str:
        name = dice.choice(sorted(model.epic))
        change(model, name)
        return name

    return event


def _set(model: Model, name: str, **update: bool) -> None:
    for field, value in update.items():
        if name not in model.lost or value is False:
            setattr(model.epic[name], field, value)


def _kill_envoy(model: Model, name: str) -> None:
    for gateway, unit in model.epic[name].units.items():
        if unit.running:
            model.epic[name].kill_envoy(gateway)
            return


def _restart_envoys(model: Model, name: str) -> None:
    for unit in model.epic[name].units.values():
        unit.running = True


def _lost_comes_back(model: Model, name: str) -> None:
    if name in model.lost:
        model.epic[name].connected = model.epic[name].agent = True


def _fail_run(model: Model, dice: random.Random) -> str:
    model.begin_runs()
    names = sorted(model.executions)
    if not names:
        return ""
    name, when = dice.choice(names), dice.choice(["before", "after"])
    model.end_run(name, failure=when)
    return f"{name} {when}"


def _hang_run(model: Model, dice: random.Random) -> str:
    model.begin_runs()
    if not model.executions:
        return ""
    name = dice.choice(sorted(model.executions))
    model.executions[name].hangs = not model.executions[name].hangs
    return f"{name} {model.executions[name].hangs}"


def _replace(model: Model, dice: random.Random) -> str:
    """A node is lost while a run for it hangs, and another one of its name joins before that ends."""
    name = dice.choice(sorted(model.epic))
    if model.store.full or name in model.lost:
        return ""
    model.begin_runs()
    if name in model.executions:
        model.executions[name].hangs = True
    model.epic[name].connected = False
    model.remove_node(name, force=True)
    model.reconcile()
    same_host = dice.random() < 0.5
    model.register(name, same_host=same_host)
    return f"{name} same host: {same_host}"


def _group(model: Model, dice: random.Random) -> str:
    account = dice.choice(ACCOUNTS)
    change = dice.choice([{"envoy_version": "2"}, {"envoy_version": None}, *_REPLICAS])
    model.change_group(account, **change)
    return f"{account} {change}"


def _install(model: Model, name: str) -> None:
    model.epic[name].envoys.add("2")


def _stick(model: Model, name: str) -> None:
    model.epic[name].stuck = not model.epic[name].stuck


def _second_chance(model: Model, name: str) -> None:
    model.epic[name].second_chance = not model.epic[name].second_chance


def _sessions(model: Model, dice: random.Random) -> str:
    name = dice.choice(sorted(model.epic))
    model.epic[name].sessions = dice.choice([0, 0, 1, 2, None])
    return f"{name} {model.epic[name].sessions}"


def _disk(model: Model, dice: random.Random) -> str:
    model.store.full = not model.store.full
    return "full" if model.store.full else "has room"


def _time(model: Model, dice: random.Random) -> str:
    seconds = dice.choice([1, 5, 20, 61, 200])
    model.pass_time(seconds)
    model.notice_silence()
    return str(seconds)


def _control(model: Model, dice: random.Random) -> str:
    if not model.store.full:
        model.restart_control()
    return ""


def _workload(model: Model, dice: random.Random) -> str:
    node = model.workload[dice.choice(sorted(model.workload))]
    node.connected = not node.connected
    return f"{node.account} {node.connected}"


_REPLICAS: list[dict[str, object]] = [{"envoy_replica_count": count} for count in (1, 2, 3)]

_EVENTS: dict[str, tuple[int, Callable[[Model, random.Random], str]]] = {
    "create": (12, _create),
    "delete": (6, _delete),
    "endpoints move": (5, _move),
    "node away": (3, _node(lambda m, n: _set(m, n, connected=False))),
    "node back": (4, _node(lambda m, n: _set(m, n, connected=True))),
    "node removed": (1, _node(lambda m, n: m.remove_node(n, force=False))),
    "node lost": (2, _node(lambda m, n: m.remove_node(n, force=True))),
    "lost node comes back": (1, _node(_lost_comes_back)),
    "node joins": (2, _node(lambda m, n: m.register(n))),
    "drain": (2, _node(lambda m, n: m.maintain(n, schedulable=False, drain=True, unheard_ok=False))),
    "drain whoever is heard": (
        1,
        _node(lambda m, n: m.maintain(n, schedulable=False, drain=True, unheard_ok=True)),
    ),
    "cordon": (1, _node(lambda m, n: m.maintain(n, schedulable=False))),
    "uncordon": (3, _node(lambda m, n: m.maintain(n, schedulable=True, drain=False, unheard_ok=False))),
    "run fails": (3, _fail_run),
    "run hangs or goes on": (3, _hang_run),
    "node replaced": (2, _replace),
    "agent killed": (3, _node(lambda m, n: _set(m, n, agent=False))),
    "agent starts": (4, _node(lambda m, n: _set(m, n, agent=True))),
    "Envoy killed": (3, _node(_kill_envoy)),
    "Envoys start": (4, _node(_restart_envoys)),
    "template changes": (3, _group),
    "Envoy 2 is installed": (1, _node(_install)),
    "kernel refuses": (3, _node(_stick)),
    "second chance is switched": (1, _node(_second_chance)),
    "BGP sessions": (5, _sessions),
    "disk": (2, _disk),
    "time passes": (4, _time),
    "control plane restarts": (1, _control),
    "workload node": (2, _workload),
}
