# SPDX-License-Identifier: Apache-2.0
"""`epicctl node`: take EPIC nodes out of service and back, remove them."""

from __future__ import annotations

import sys
from typing import Annotated, cast

import typer

from epic.cli import completion
from epic.cli.commands import waiting
from epic.cli.printing.fields import Row
from epic.cli.printing.listing import fetch, kind_of
from epic.cli.printing.output import say, warn
from epic.cli.printing.phases import counted, instances, is_true, reason
from epic.cli.session import Session
from epic.client import PREFIX, EpicClient
from epic.errors import Invalid
from epic.printable import escape

TIMED_OUT = 3

app = typer.Typer(
    help="Take EPIC nodes out of service and back, remove them (administrators).",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 done, 1 refused or failed, 2 wrong use, 3 not done within --timeout (it goes on).",
)


def _complete(context: typer.Context, incomplete: str) -> list[str]:
    return [name for name in completion.names(context, "nodes") if name.startswith(incomplete)]


Name = Annotated[str, typer.Argument(help="The node.", autocompletion=_complete)]
Timeout = Annotated[float, typer.Option("--timeout", min=0, help="How many seconds to wait at most.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Begin it, and do not wait until it is done.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@app.command(epilog="Example:\n\n`epicctl node cordon epic1`")
def cordon(context: typer.Context, name: Name) -> None:
    """Place no further instances on a node; those it has go on."""
    client = _client(context)
    _node(client, name)
    _maintain(client, name, {"schedulable": False})
    say(f"node {name} is cordoned")


@app.command(epilog="Examples:\n\n`epicctl node drain epic1`\n\n`epicctl node drain epic1 --timeout 60`")
def drain(
    context: typer.Context,
    name: Name,
    unheard_ok: Annotated[
        bool,
        typer.Option(
            "--unheard-ok",
            help="Go on where no router hears the nodes that are left with a gateway: it gets no requests "
            "until one does.",
        ),
    ] = False,
    timeout: Timeout = 600,
    no_wait: NoWait = False,
) -> None:
    """Cordon a node and take its instances out of service: connections get their time to end.

    Its gateways are served by the other nodes; `epicctl node uncordon` has its instances serve again.
    """
    client = _client(context)
    _node(client, name)
    _maintain(client, name, {"schedulable": False, "drain": True, "unheard-ok": unheard_ok})
    _wait(client, name, waiting.DRAINED, timeout, begun="drains", no_wait=no_wait)


@app.command(epilog="Example:\n\n`epicctl node uncordon epic1`")
def uncordon(context: typer.Context, name: Name, timeout: Timeout = 600, no_wait: NoWait = False) -> None:
    """Give a node that was cordoned or drained its work back, and wait until all its instances serve."""
    client = _client(context)
    _node(client, name)
    _maintain(client, name, {"schedulable": True, "drain": False})
    _wait(client, name, waiting.SERVING, timeout, begun="comes back", no_wait=no_wait)


@app.command(
    epilog="Examples:\n\n`epicctl node remove epic3`\n\n`epicctl node remove epic3 --force` when it is lost"
)
def remove(
    context: typer.Context,
    name: Name,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="The node is lost and will not confirm: drop its instances now, revoke its certificate.",
        ),
    ] = False,
    yes: Yes = False,
    timeout: Timeout = 600,
    no_wait: NoWait = False,
) -> None:
    """Drain a node for good, and forget it when it has confirmed that nothing of EPIC is in force there.

    Its instances move to other nodes. What EPIC installed on the host stays there; the playbook
    epic.gateway.decommission removes both.
    """
    client = _client(context)
    node = _node(client, name)
    what = f"Node {name} ({counted(instances(node))})"
    if force:
        what += " is lost, and is off or cut off. Forget it"
    else:
        what += ": drain and remove it"
    _ask(f"{what}?", yes=yes)
    client.delete(f"{PREFIX}/nodes/{name}" + ("?force=true" if force else ""))
    _wait(client, name, waiting.GONE, timeout, begun="is being removed", no_wait=no_wait)


@app.command("accept-drop", epilog="Example:\n\n`epicctl node accept-drop epic1`")
def accept_drop(
    context: typer.Context, name: Name, yes: Yes = False, timeout: Timeout = 60, no_wait: NoWait = False
) -> None:
    """Tell a node that an order to drop most of its gateways at once is meant.

    A node holds such an order back and goes on serving: it may come from a store that was lost or restored.
    """
    client = _client(context)
    node = _node(client, name)
    if not is_true(node, "DropHeld"):
        raise Invalid(f"node {name} holds nothing back")
    _ask(f"Node {name}: {reason(node, 'DropHeld')}. Drop them?", yes=yes)
    client.put(f"{PREFIX}/nodes/{name}/accept-drop", {})
    _wait(client, name, waiting.DROPPED, timeout, begun="may drop what it held", no_wait=no_wait)


def at_terminal() -> bool:
    """Whether there is somebody to ask."""
    return sys.stdin.isatty()


def _client(context: typer.Context) -> EpicClient:
    return cast("Session", context.obj).client


def _node(client: EpicClient, name: str) -> Row:
    (found,) = fetch(client, kind_of("nodes").kind, name, "")
    return found


def _maintain(client: EpicClient, name: str, maintenance: dict[str, bool]) -> None:
    client.put(f"{PREFIX}/nodes/{name}/maintenance", {"maintenance": maintenance})


def _ask(question: str, *, yes: bool) -> None:
    if not yes and at_terminal():
        typer.confirm(escape(question), abort=True)


def _wait(
    client: EpicClient, name: str, goal: waiting.Goal, timeout: float, *, begun: str, no_wait: bool
) -> None:
    if no_wait:
        say(f"node {name} {begun}")
        return
    try:
        waiting.wait(client, name, goal, timeout, say)
    except waiting.TimedOut as error:
        warn(error)
        raise typer.Exit(TIMED_OUT) from error
