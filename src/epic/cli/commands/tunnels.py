# SPDX-License-Identifier: Apache-2.0
"""`epicctl tunnels`: how tunnels are, and rotating their keys."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Annotated, Any, cast

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from epic.cli.printing.fields import Row, dig
from epic.cli.printing.listing import accounts
from epic.cli.printing.output import Format, console, lines_of, print_document
from epic.cli.session import Session
from epic.client import PREFIX, EpicClient
from epic.errors import Denied, EpicError, Invalid
from epic.printable import escape

app = typer.Typer(
    help="Tunnels between gateways and workload nodes: show how they are, rotate their keys.",
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Examples:\n\n`epicctl tunnels -A shop --watch`\n\n`epicctl tunnels -o json`",
)
_WATCH_SECONDS = 2.0
_TITLES = ["TUNNEL", "GATEWAY", "EPIC NODE", "WORKLOAD", "STATE", "PEER", "NAT", "RTT", "LOSS"]
_TITLES += ["RECEIVED", "SENT", "HELLO", "KEY"]
_CHANCES = ["hits", "passed-on", "learned", "chain-ends", "over-budget"]
_YES_NO = {"True": "yes", "False": "no"}
_UNITS = ("B", "KB", "MB", "GB", "TB", "PB")


@app.callback()
def show(
    context: typer.Context,
    account: Annotated[
        str, typer.Option("-A", "--account", help="Only of this account; by default the user's own, or all.")
    ] = "",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show them again every two seconds.")] = False,
    output: Annotated[Format, typer.Option("-o", "--output", help="How to print.")] = Format.TABLE,
) -> None:
    """Show each tunnel's far end as observed, round trips, loss, traffic and keys, and what nodes drop.

    Traffic is as the EPIC node counts it: RECEIVED came from the workload node, SENT went there. Below, by
    gateway and EPIC node: clients' packets of connections that the node has (HITS) and those PASSED-ON to the
    node that has them, the connections LEARNED to be elsewhere, packets of connections that no node has
    (CHAIN-ENDS), and those of too many unknown ones (OVER-BUDGET).
    """
    if context.invoked_subcommand is not None:
        return
    client = cast("Session", context.obj).client
    if watch:
        if output is not Format.TABLE:
            raise Invalid("--watch shows a table; -o json and -o yaml show the tunnels once")
        _watch(client, account)
        return
    body = fetch(client, account)
    match output:
        case Format.JSON | Format.YAML:
            print_document(body, output)
        case Format.TABLE:
            for line in table(body):
                console.print(line)


@app.command(epilog="Example:\n\n`epicctl tunnels rotate`")
def rotate(context: typer.Context) -> None:
    """Give every tunnel a new key now (administrators); exit with 1 when some cannot get one yet."""
    done = cast("Session", context.obj).client.post(f"{PREFIX}/tunnels/rotate", {})
    console.print(f"Rotation of {done['started']} tunnels has begun, of {done['under-way']} was under way.")
    if done["waiting"]:
        ids = ", ".join(map(str, done["waiting"]))
        console.print(f"Ends of these do not report the keys they have; see epicctl tunnels: {ids}")
        raise typer.Exit(1)


def fetch(client: EpicClient, account: str) -> dict[str, list[Row]]:
    """Tunnels and nodes: all that the user may see, or one account's."""
    if not account:
        try:
            return _checked(client.get(f"{PREFIX}/tunnels"))
        except Denied:
            (account,) = accounts(client, "")
    return _checked(client.get(f"{PREFIX}/accounts/{account}/tunnels/status"))


def table(body: dict[str, list[Row]]) -> list[Text]:
    """The table of tunnels, a line for each node that drops something, and the table of second chances."""
    chances = chance_lines(body["second-chances"])
    if not body["items"]:
        return [Text("There are no tunnels."), *chances]
    lines = lines_of(_TITLES, [cells(tunnel) for tunnel in body["items"]])
    for line, tunnel in zip(lines[1:], body["items"], strict=True):
        if tunnel.get("state") == "down":
            line.stylize("red")
    return [*lines, *drop_lines(body["nodes"]), *chances]


def cells(tunnel: Row) -> list[str]:
    """A tunnel's line."""
    trip = dig(tunnel, "workload-end", "round-trip")
    observed = tunnel.get("observed-address")
    return [
        str(tunnel["id"]),
        str(tunnel["gateway"]),
        str(tunnel.get("epic-node", "-")),
        f"{tunnel['cluster']}/{tunnel['node']}",
        str(tunnel["state"]),
        _socket(str(observed), tunnel["observed-port"]) if observed else "-",
        _YES_NO.get(str(tunnel.get("nat")), "-"),
        f"{_milliseconds(trip['last'])}/{_milliseconds(trip['avg'])} ms" if trip else "-",
        _percent(dig(tunnel, "workload-end", "loss")),
        _traffic(tunnel, "rx"),
        _traffic(tunnel, "tx"),
        _ago(_hello_age(tunnel)),
        _key(tunnel.get("key", {})),
    ]


def drop_lines(nodes: Iterable[Row]) -> list[Text]:
    """What nodes have dropped since their programs were loaded."""
    return [
        Text(escape(f"{_node(node)} dropped: " + ", ".join(f"{name} {n}" for name, n in drops.items())))
        for node in nodes
        if (drops := node.get("drops"))
    ]


def chance_lines(chances: Iterable[Row]) -> list[Text]:
    """What became of gateways' packets, where any was not of a connection that the node has."""
    rows = [
        [str(chance["gateway"]), str(chance.get("epic-node", "-")), *(str(chance[name]) for name in _CHANCES)]
        for chance in chances
        if any(chance[name] for name in _CHANCES[1:])
    ]
    titles = ["GATEWAY", "EPIC NODE", *(name.upper() for name in _CHANCES)]
    return [Text(), *lines_of(titles, rows)] if rows else []


def _checked(body: dict[str, Any]) -> dict[str, list[Row]]:
    return {name: body.get(name, []) for name in ("items", "nodes", "second-chances")}


def _watch(client: EpicClient, account: str) -> None:
    with Live(console=console, auto_refresh=False) as live:
        while True:
            try:
                shown = Group(*table(fetch(client, account)))
            except EpicError as error:
                shown = Group(Text(escape(f"{error}; trying again", lines=True), style="red"))
            live.update(shown, refresh=True)
            time.sleep(_WATCH_SECONDS)


def _node(node: Row) -> str:
    return f"{node['cluster']}/{node['node']}" if node.get("cluster") else str(node["node"])


def _hello_age(tunnel: Row) -> Any:
    age = dig(tunnel, "epic-end", "hello-age")
    return dig(tunnel, "workload-end", "hello-age") if age is None else age


def _traffic(tunnel: Row, way: str) -> str:
    end, mine = tunnel.get("epic-end"), way
    if end is None:
        # The workload end counts the same the other way round.
        end, mine = tunnel.get("workload-end"), {"rx": "tx", "tx": "rx"}[way]
    if end is None:
        return "-"
    return f"{_bytes(end[f'{mine}-bytes'])} ({end[f'{mine}-packets']})"


def _bytes(count: float) -> str:
    unit = 0
    while count >= 1000 and unit < len(_UNITS) - 1:
        count /= 1000
        unit += 1
    return f"{count:.1f} {_UNITS[unit]}" if unit else f"{count:.0f} B"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.2f}"


def _socket(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _percent(part: Any) -> str:
    return "-" if part is None else f"{part * 100:.1f} %"


def _ago(seconds: Any) -> str:
    if seconds is None:
        return "-"
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f}{unit}"
    return f"{seconds:.0f}s"


def _key(key: Row) -> str:
    text = f"{key.get('epoch', '-')} ({_ago(key.get('age'))})"
    if len(key.get("epochs", ())) > 1:
        text += ", rotating"
    waits = key.get("waits-for")
    return f"{text}, waits for {', '.join(waits)}" if waits else text
