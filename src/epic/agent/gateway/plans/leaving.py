# SPDX-License-Identifier: Apache-2.0
"""Pure: endpoints that are wanted no more while Envoys may still send to them, and what waits for them.

The programs have room for a bounded number of endpoints: what the Envoys of an account do not let go of takes
room from what is to come for the same account, not from others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Set

from epic.agent.gateway.plans.dirty import Difference
from epic.agent.tunnel.endpoints import EndpointKey
from epic.bpf.dataplane import Address
from epic.model.values.naming import GatewayId

_SHARED = 8192
"""As many endpoints of all accounts may be leaving in equal shares, and as many in shares of what they have.

Together they are half of what the programs have room for beyond what the control plane gives to a node.
"""

Told = Callable[[str, Collection[EndpointKey]], frozenset[EndpointKey]]
"""Those of a gateway's endpoints that its Envoy was told last."""


def most_leaving(accounts: int, endpoints: int, total: int) -> int:
    """How many of an account's endpoints may be leaving before more are made; `total` are those of all."""
    return _SHARED // max(accounts, 1) + endpoints * _SHARED // max(total, _SHARED)


def held_back(
    differences: Mapping[EndpointKey, Difference],
    gateways: Mapping[Address, str],
    endpoints: Mapping[str, int],
) -> frozenset[EndpointKey]:
    """New endpoints that are not made before others of their accounts are gone.

    They are those of the gateways that lose some, and others of the account only as far as these are too few.
    `gateways` are those here by inside addresses, `endpoints` says how many each is to have.
    """
    leaving = Counter(
        gateways[key[0]]
        for key, (there, wanted) in differences.items()
        if wanted is None and there is not None and key[0] in gateways
    )
    if not leaving:
        return frozenset()
    accounts = {gateway: GatewayId.parse(gateway).account for gateway in {*gateways.values(), *endpoints}}
    excess = _excess(leaving, accounts, endpoints)
    if not excess:
        return frozenset()
    new = [
        key
        for key, (there, wanted) in differences.items()
        if there is None and wanted is not None and accounts.get(gateways.get(key[0], "")) in excess
    ]
    new.sort(key=lambda key: gateways[key[0]] not in leaving)
    return frozenset(_held_back(((key, accounts[gateways[key[0]]]) for key in new), excess))


def _excess(
    leaving: Mapping[str, int], accounts: Mapping[str, str], endpoints: Mapping[str, int]
) -> dict[str, int]:
    """How many more leave than may, by account; what is given is by gateway."""
    left, wanted = Counter[str](), Counter[str]()
    for gateway, count in leaving.items():
        left[accounts[gateway]] += count
    for gateway, count in endpoints.items():
        wanted[accounts[gateway]] += count
    number, total = len(set(accounts.values())), wanted.total()
    most = {account: most_leaving(number, wanted[account], total) for account in left}
    return {account: count - most[account] for account, count in left.items() if count > most[account]}


def _held_back(keys: Iterable[tuple[EndpointKey, str]], excess: dict[str, int]) -> Iterator[EndpointKey]:
    for key, account in keys:
        if excess[account] > 0:
            excess[account] -= 1
            yield key


class Leaving:
    """Since when endpoints that are wanted no more are not among what their Envoys were told.

    What this costs is the keys' hashes: sets and dictionaries are made of each other, where these are known.
    """

    def __init__(self) -> None:
        self._since: dict[str, dict[EndpointKey, float]] = {}

    def follow(
        self,
        leaving: Mapping[str, Set[EndpointKey]],
        doubtful: Collection[str],
        told: Told,
        told_at: Callable[[str], float],
    ) -> None:
        """These leave, by gateway, and no others. Those of `doubtful` gateways may have been told again.

        `told_at` says when the gateway's Envoy was told something last, in monotonic seconds.
        """
        before, self._since = self._since, {}
        for gateway, keys in leaving.items():
            since = before.get(gateway, {})
            for key in set(since) - keys:
                del since[key]
            new = keys - set(since)
            asked = keys if gateway in doubtful else new
            used = told(gateway, asked) if asked else frozenset()
            since.update(dict.fromkeys(new, told_at(gateway)))
            for key in used:
                del since[key]
            self._since[gateway] = since

    def released(self, until: Callable[[str], float]) -> frozenset[EndpointKey]:
        """Those that may go: their Envoys were not told them since `until` or longer."""
        return frozenset[EndpointKey]().union(
            *(_not_after(since, until(gateway)) for gateway, since in self._since.items())
        )


def _not_after(since: dict[EndpointKey, float], until: float) -> Iterable[EndpointKey]:
    if max(since.values(), default=until) <= until:
        return since
    return [key for key, at in since.items() if at <= until]
