# SPDX-License-Identifier: Apache-2.0
"""The commands of epicctl."""

from __future__ import annotations

import getpass
import sys
from dataclasses import replace
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Annotated, Any

import typer

from epic.cli.commands import apply as manifests
from epic.cli.commands import backup, node, removal, tunnels
from epic.cli.commands.manifests import read_manifests
from epic.cli.completion import complete_kind, complete_name
from epic.cli.printing import listing
from epic.cli.printing.fields import Row
from epic.cli.printing.health import Line, is_silent, judge
from epic.cli.printing.output import Format, console, print_health, print_rows, say, warn
from epic.cli.printing.traffic import traffic_lines
from epic.cli.session import Session
from epic.client import PREFIX, EpicClient
from epic.controller.classes import CoreSettings
from epic.controller.objects import EpicParameters
from epic.errors import Denied, EpicError, Invalid
from epic.printable import escape

app = typer.Typer(
    help="Gateways as a service: create, look at and remove what is on an EPIC cluster.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
runs_app = typer.Typer(help="Playbook runs.", no_args_is_help=True)
app.add_typer(runs_app, name="runs")
app.add_typer(node.app, name="node")
app.add_typer(tunnels.app, name="tunnels")
app.command("backup")(backup.backup)
app.command("restore")(backup.restore)


Files = Annotated[
    list[Path],
    typer.Option("-f", "--filename", help="A manifest, a directory of them, or - for standard input."),
]
Account = Annotated[
    str,
    typer.Option("-A", "--account", help="The account; by default the user's own, or the manifests'."),
]
Template = Annotated[
    str, typer.Option("--template", help="Gateway template for Gateways whose class is not in the manifests.")
]
Cluster = Annotated[
    str,
    typer.Option("--cluster", help="The client's cluster, where the manifests' configuration names none."),
]


@app.callback()
def main(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", envvar="EPICCTL_CONFIG", help="Configuration file [default: ~/.epicctl.yaml]."
        ),
    ] = None,
) -> None:
    """Read the configuration's place."""
    context.obj = Session(config)


@app.command(
    epilog="Examples:\n\n`epicctl apply -f platform.yaml -f gateway.yaml`\n\n"
    "`epicctl apply -A shop --template http -f - < gateway.yaml`"
)
def apply(
    context: typer.Context,
    filename: Files,
    account: Account = "",
    template: Template = "",
    cluster: Cluster = "",
) -> None:
    """Create or change what the manifests describe.

    Objects of epic.acnodal.io/v1 (Account, ServicePrefix, LBServiceGroup, Node, User) are written as they
    are. Objects of the Gateway API (Gateway, routes, Service, EndpointSlice) become gateways,
    routes and slices, in the account and by the template that their GatewayClassConfig names, or the options.
    """
    session: Session = context.obj
    core = _core(session, account, template, cluster)
    found = read_manifests(filename, account)
    _end(manifests.apply(session.client, found, core, _new_password, account))


@app.command(
    epilog="Examples:\n\n`epicctl delete -f gateway.yaml`\n\n`epicctl delete gateway 6f3c0a12 -A shop`\n\n"
    "`epicctl delete routes R1 R2`"
)
def delete(
    context: typer.Context,
    kind: Annotated[
        str,
        typer.Argument(
            help="A kind, as in `epicctl get`.", autocompletion=removal.complete_kind, metavar="KIND"
        ),
    ] = "",
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="The objects of that kind to delete.", autocompletion=complete_name, metavar="NAME"
        ),
    ] = None,
    filename: Annotated[
        list[Path] | None,
        typer.Option("-f", "--filename", help="A manifest, a directory of them, or - for standard input."),
    ] = None,
    account: Account = "",
    template: Template = "",
    cluster: Cluster = "",
) -> None:
    """Delete what the manifests describe, or objects by kind and name.

    What hosts ask for stays, and unless you confirm it a gateway that other routes than these lead to.
    A gateway and a node are deleted when their nodes have let go of them, which is not waited for.
    """
    session: Session = context.obj
    if bool(kind) == bool(filename):
        raise typer.BadParameter("give a kind and names, or -f with manifests")
    if filename:
        core = _core(session, account, template, cluster)
        found = read_manifests(filename, account)
        report = manifests.delete(session.client, found, core, _confirm, account)
    else:
        if template or cluster:
            raise typer.BadParameter("--template and --cluster are for manifests")
        chosen = removal.kind_of(kind)
        if not names:
            raise typer.BadParameter(f"name the {chosen.plural} to delete, as epicctl get shows them")
        report = removal.delete_named(session.client, chosen, names, account)
    _end(report)


@app.command(epilog="Examples:\n\n`epicctl get gateways -A shop`\n\n`epicctl get runs 17 -o yaml`")
def get(
    context: typer.Context,
    kind: Annotated[
        str,
        typer.Argument(
            help=", ".join(listed.kind.plural for listed in listing.KINDS),
            autocompletion=complete_kind,
            metavar="KIND",
        ),
    ],
    name: Annotated[
        str, typer.Argument(help="Only the object of this name.", autocompletion=complete_name)
    ] = "",
    account: Account = "",
    output: Annotated[Format, typer.Option("-o", "--output", help="How to print.")] = Format.TABLE,
) -> None:
    """Show objects."""
    session: Session = context.obj
    chosen = listing.kind_of(kind)
    rows = listing.fetch(session.client, chosen.kind, name, account)
    print_rows(chosen, rows, output, single=bool(name))


@app.command(epilog="Example:\n\n`epicctl status && echo all is well`")
def status(context: typer.Context, account: Account = "") -> None:
    """Show how nodes, gateways, workload nodes and runs are; exit with 1 when something is wrong.

    What accounts are to mend themselves, such as hosts of theirs that do not report, is shown to
    administrators, and counts for them with --account only, or when most accounts have no host that is heard.
    Of one account routes without a gateway, Services without a ready endpoint and tunnels that are down are
    told, too.
    """
    session: Session = context.obj
    client = session.client
    proxies = listing.fetch(client, listing.kind_of("gateways").kind, "", account)
    nodes, runs = _if_allowed(client, "nodes"), _if_allowed(client, "runs")
    workload_nodes = listing.workload_nodes(client, account)
    health = judge(
        nodes,
        proxies,
        runs,
        workload_nodes=workload_nodes,
        unreadable=() if nodes is None else client.list_all(f"{PREFIX}/unreadable"),
        of_account=bool(account),
    )
    if place := account or (listing.accounts(client, "")[0] if nodes is None else ""):
        health = replace(health, traffic=_traffic(client, place, proxies, workload_nodes))
    print_health(health)
    if health.problems:
        raise typer.Exit(1)


@app.command(epilog="Example:\n\n`epicctl discard GWRoute 7f3c -A shop`")
def discard(
    context: typer.Context,
    kind: Annotated[str, typer.Argument(help="The object's kind, as `epicctl status` names it.")],
    name: Annotated[str, typer.Argument(help="The object's name.")],
    account: Account = "",
) -> None:
    """Remove a stored object that cannot be read.

    What EPIC derives, such as tunnels, is made anew; addresses of a gateway are nobody's for ten minutes.
    """
    session: Session = context.obj
    session.client.delete(f"{PREFIX}/unreadable/{kind}/{account or '-'}/{name}")
    say(f"{kind} {name} is removed")


@runs_app.command("watch", epilog="Example:\n\n`epicctl runs watch 17`")
def watch_run(context: typer.Context, run: Annotated[str, typer.Argument(help="The run's number.")]) -> None:
    """Show what a run does, until it ends; exit with 1 when it fails."""
    session: Session = context.obj
    with session.client.watch(f"{PREFIX}/runs/{run}/events") as events:
        for event in events:
            say(_event_line(event))
            if event.get("event") == "finished" and event.get("state") != "succeeded":
                raise typer.Exit(1)


@app.command()
def version() -> None:
    """Show the version of epicctl."""
    console.print(f"epicctl {package_version('epic-gateway')}")


def _core(session: Session, account: str, template: str, cluster: str) -> CoreSettings:
    fallback = None
    if template:
        if not account:
            raise Invalid("--template needs --account: the account that has the template")
        fallback = EpicParameters(user_namespace=account, gateway_template=template)
    return CoreSettings(cluster=cluster or "epicctl", login=session.login, fallback=fallback)


def _end(report: manifests.Report) -> None:
    if report.problems:
        raise typer.Exit(1)


def _if_allowed(client: EpicClient, kind: str) -> list[dict[str, Any]] | None:
    try:
        return listing.fetch(client, listing.kind_of(kind).kind, "", "")
    except Denied:
        return None


def _event_line(event: dict[str, Any]) -> str:
    name = event.get("event", "")
    words = [escape(str(event[key])) for key in ("node", "task", "state", "message") if event.get(key)]
    nodes = event.get("nodes")
    if nodes:
        words.append(
            ", ".join(f"{n}: {r['state']}" for n, r in nodes.items()) if isinstance(nodes, dict) else ""
        )
    return f"{name:9} {' · '.join(filter(None, words))}".rstrip()


def _traffic(
    client: EpicClient, account: str, proxies: list[Row], workload_nodes: list[Row]
) -> tuple[Line, ...]:
    routes, slices = (
        listing.fetch(client, listing.kind_of(kind).kind, "", account) for kind in ("routes", "slices")
    )
    found = tunnels.fetch(client, account)["items"]
    return traffic_lines(proxies, routes, slices, found, [n for n in workload_nodes if is_silent(n)])


def _confirm(question: str) -> bool:
    return sys.stdin.isatty() and typer.confirm(question, err=True)


def _new_password(question: str) -> str:
    if not sys.stdin.isatty():
        raise Invalid(f"{question}: there is no terminal to ask at; name a file by spec.password-file")
    first = getpass.getpass(f"{question}: ")
    if first != getpass.getpass("Once more: "):
        raise Invalid("the two passwords differ")
    return first


def run() -> None:
    """Run epicctl; errors end with a line that says what is wrong, and status 1 (2: wrong use)."""
    try:
        app()
    except EpicError as error:
        warn(error)
        sys.exit(1)
