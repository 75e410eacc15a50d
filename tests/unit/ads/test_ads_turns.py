# SPDX-License-Identifier: Apache-2.0
"""Configurations are built in turns of the accounts: those of one keep nobody else's waiting."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from ads_site import eventually, proxy

from epic.ads.desired import configurations as desired_configurations
from epic.ads.desired.configurations import Configurations, Key, key_of
from epic.ads.desired.objects import Inputs
from epic.ads.desired.revisions import Revisions
from epic.envoy.resources import Bundle
from epic.model.base import ClientRef
from epic.model.resources import EnvoyResources
from epic.model.values.naming import GatewayId


def inputs(account: str, name: str) -> Inputs:
    gateway = proxy()
    metadata = gateway.metadata.model_copy(update={"name": name, "namespace": account})
    return Inputs(gateway.model_copy(update={"metadata": metadata}), (), (), (), EnvoyResources(), {})


async def test_an_account_whose_configurations_take_long_keeps_another_from_nothing(tmp_path: Path) -> None:
    judged: list[str] = []
    slow = asyncio.Event()

    async def validate(bundle: Bundle) -> None:
        judged.append(next(iter(bundle.listeners)))
        if len(judged) <= 3:
            await slow.wait()

    settled: list[GatewayId] = []
    configurations = Configurations(validate, settled.append, Revisions(tmp_path))
    for number in range(20):
        configurations.want(inputs("greedy", f"U{number}"))
    await eventually(lambda: len(judged) == 3)
    configurations.want(inputs("modest", "U1"))
    await eventually(lambda: bool(settled))
    assert settled == [GatewayId("modest", "U1")]
    slow.set()
    await eventually(lambda: len(settled) == 21)


async def test_what_a_configuration_depends_on_is_found_once_each_time_that_it_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Inputs] = []

    def counted(wanted: Inputs) -> Key:
        found.append(wanted)
        return key_of(wanted)

    monkeypatch.setattr(desired_configurations, "key_of", counted)

    async def validate(_: Bundle) -> None:
        """Take all."""

    settled: list[GatewayId] = []
    configurations = Configurations(validate, settled.append, Revisions(tmp_path))
    configurations.want(inputs("modest", "U1"))
    assert len(found) == 1
    await eventually(lambda: bool(settled))


def test_a_gateway_that_has_come_to_another_namespace_gets_another_configuration() -> None:
    """As when the first of those who share it leaves: other routes may be of its namespace now."""
    before = inputs("modest", "U1")
    client = ClientRef(namespace="bank")
    spec = before.proxy.spec.model_copy(update={"client_ref": client})
    moved = replace(before, proxy=before.proxy.model_copy(update={"spec": spec}))
    assert key_of(before) == key_of(inputs("modest", "U1"))
    assert key_of(moved) != key_of(before)
