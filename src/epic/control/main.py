# SPDX-License-Identifier: Apache-2.0
"""The command epic-control: serve, or make the first administrator."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
from collections import Counter
from collections.abc import Set
from contextlib import closing
from datetime import timedelta
from functools import partial
from pathlib import Path

from epic.ads.identity.credentials import ServerFiles
from epic.ads.service import AdsService
from epic.ads.settings import AdsSettings as AdsServiceSettings
from epic.api.app import create_app, make_ready
from epic.api.context import Context
from epic.cache.store import CachedStore
from epic.control.admin import ensure_admin
from epic.control.check import check
from epic.control.metrics import ControlMetrics
from epic.control.readable import STATUS, TooNew, check_readable
from epic.control.rotate import Rotator
from epic.control.serve import Service, end_process_soon, serve
from epic.control.settings import ControlSettings, load_settings
from epic.errors import EpicError
from epic.live import Live
from epic.log_lines import log_to_stderr
from epic.model.values.naming import GatewayId
from epic.reconcile.lifecycle import Lifecycle
from epic.reconcile.service import ReconcilerService
from epic.reconcile.siblings_keeper import SiblingsKeeper
from epic.reconcile.turn import LifecycleSettings
from epic.runs.ansible import AnsibleExecutor
from epic.runs.events import EventHub
from epic.runs.queue import RunQueue
from epic.siblings.heard import AppliedLists
from epic.supervise import keep_running
from epic.workloads.identity import Enrolment
from epic.workloads.service import WorkloadService, WorkloadSettings

_CONFIG = Path("/etc/epic/control.yaml")
_SWITCH_SECONDS = 0.001
"""How long a thread keeps others from running Python. Configurations are built in several, and a request has
to wait for that long a dozen times; the default is 5 ms."""


def run() -> None:
    """Read the command line and do what it says."""
    arguments = _parser().parse_args()
    log_to_stderr(logging.INFO)
    try:
        if arguments.command == "check":
            check(arguments.config, arguments.user, arguments.instead_of)
            return
        settings = load_settings(arguments.config)
        if arguments.command == "ensure-admin":
            with closing(CachedStore(settings.store)) as store:
                changed = ensure_admin(store, arguments.credential_file)
            print(json.dumps({"changed": changed}))
        else:
            asyncio.run(control(settings))
    except EpicError as error:
        print(f"epic-control: {error}", file=sys.stderr)
        sys.exit(STATUS if isinstance(error, TooNew) else 1)


async def control(settings: ControlSettings) -> None:
    """Be the control plane until a signal."""
    sys.setswitchinterval(_SWITCH_SECONDS)
    store = CachedStore(settings.store)
    check_readable(store)
    hub = EventHub()
    executor = AnsibleExecutor(settings.run_settings())
    queue = RunQueue(store, executor, hub, settings.envoy_version, settings.inside_pool6)
    live = Live()
    applied = AppliedLists()
    keeper = SiblingsKeeper(store, applied, settings.tunnels.policy())
    siblings = ReconcilerService(store, keeper)

    def hear_applied(gateways: Set[GatewayId]) -> None:
        keeper.hear(gateways)
        siblings.wake()

    ads = AdsService(store, _ads_settings(settings), live, applied, hear_applied)
    workloads = WorkloadService(store, _workload_settings(settings), live)
    lifecycle = Lifecycle(store, _lifecycle_settings(settings), ads.tunnel_evidence, live.heartbeats)
    context = Context(
        store=store,
        inside_pool=settings.inside_pool,
        pools=settings.pools(),
        address_quarantine=timedelta(seconds=settings.address_quarantine_seconds),
        run_events=hub,
        live=live,
        world=lifecycle.current,
        limits=settings.rest.limits(),
        enrolment=Enrolment(settings.ads.issuer(), settings.ads.workload_port),
    )

    rotator = Rotator(store, live, settings.tunnels.policy())
    service = ReconcilerService(store, lifecycle)
    failures = Counter({"xDS": 0})
    metrics = ControlMetrics(store, live.heartbeats, {"lives": service, "siblings": siblings}, failures)

    def kept(name: str, part: Service) -> Service:
        # From 0 on: else a first failure would be no increase.
        failures[name] = 0
        return partial(keep_running, name, part, failures=failures)

    services: dict[str, Service] = {
        "xDS": partial(ads.run, failures),
        "workload nodes": workloads.run,
        "runs": kept("runs", queue.run),
        "keys": kept("keys", rotator.run),
        "lives": kept("lives", service.run),
        "siblings": kept("siblings", siblings.run),
        "metrics": kept("metrics", partial(metrics.serve, settings.metrics)),
    }

    def on_stop(status: int) -> None:
        context.closing.set()
        executor.cancel()
        end_process_soon(status)

    app = create_app(context)
    await make_ready(app)
    await serve(app, settings.rest, services, on_stop)


def _lifecycle_settings(settings: ControlSettings) -> LifecycleSettings:
    return LifecycleSettings(settings.inside_pool, settings.envoy_version, settings.drain_seconds)


def _ads_settings(settings: ControlSettings) -> AdsServiceSettings:
    ads = settings.ads
    return AdsServiceSettings(
        listen=str(ads.listen),
        port=ads.port,
        certificate=ads.certificate,
        key=ads.key,
        issuer=ads.issuer(),
        envoy_binary=settings.envoy_binary,
        revisions=settings.revisions,
        pools=settings.pools(),
    )


def _workload_settings(settings: ControlSettings) -> WorkloadSettings:
    ads, issuer = settings.ads, settings.ads.issuer()
    files = ServerFiles(ads.certificate, ads.key, issuer.certificate)
    return WorkloadSettings(str(ads.listen), ads.workload_port, files, issuer, settings.pools())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("epic-control", description="EPIC's control plane")
    parser.add_argument("--config", type=Path, default=_CONFIG, metavar="FILE", help=f"default: {_CONFIG}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands (default: serve)")
    admin = commands.add_parser("ensure-admin", help="make the first administrator")
    trial = commands.add_parser("check", help="try the configuration and its store; change nothing")
    for command in (admin, trial):
        # Without a default of its own, so that --config before the command is not overridden.
        command.add_argument("--config", type=Path, default=argparse.SUPPRESS, metavar="FILE")
    trial.add_argument("--user", metavar="NAME", help="try it as this user")
    trial.add_argument("--instead-of", type=Path, metavar="FILE", help="the configuration that is in use")
    admin.add_argument("--credential-file", type=Path, required=True, metavar="FILE")
    return parser
