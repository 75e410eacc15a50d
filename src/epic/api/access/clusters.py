# SPDX-License-Identifier: Apache-2.0
"""What a user may change who speaks for some of the account's clusters only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from epic.api.context import Principal
from epic.errors import Conflict, Forbidden
from epic.model.base import ClientRef, Resource
from epic.model.values.naming import SOURCES_ANNOTATION, sources_of


def refuse_cluster(asking: Principal, cluster: str, what: str) -> None:
    """Raise Forbidden if `what` is of a cluster that the user does not speak for."""
    if asking.cluster_ids and cluster not in asking.cluster_ids:
        theirs = f"of cluster {cluster!r}" if cluster else "of no cluster"
        raise Forbidden(f"{what} is {theirs}, and {_says_for(asking)}")


def refuse_sources(asking: Principal, given: Mapping[str, str], stored: Resource | None) -> None:
    """Raise Forbidden if a host of a cluster that the user does not speak for would ask, or ask no more."""
    if SOURCES_ANNOTATION not in given:
        return
    before = stored.metadata.annotations.get(SOURCES_ANNOTATION, "") if stored is not None else ""
    for source in sorted(sources_of(given[SOURCES_ANNOTATION]) ^ sources_of(before)):
        what = f"host {source!r} in the annotation {SOURCES_ANNOTATION}"
        refuse_cluster(asking, source.partition("/")[0], what)


def refuse_unknown_owner(asking: Principal, what: str) -> None:
    """Raise Forbidden if the user speaks for some clusters only: nobody knows of which one `what` is."""
    if asking.cluster_ids:
        raise Forbidden(
            f"{what} cannot be read, so it may be of any cluster, and {_says_for(asking)}; "
            "ask the platform's administrators"
        )


def refuse_another_cluster(given: ClientRef, stored: ClientRef, what: str) -> None:
    """Raise Conflict if the object is another cluster's: two that claim it would take it from each other."""
    if stored.cluster_id and given.cluster_id not in {"", stored.cluster_id}:
        raise Conflict(
            f"{what} is that of cluster {stored.cluster_id!r} ({stored.namespace}/{stored.name}), and not of "
            f"{given.cluster_id!r}; delete it first if it is to be"
        )


def _says_for(asking: Principal) -> str:
    return f"user {asking.name!r} speaks for {_in_words(asking.cluster_ids)} only"


def _in_words(clusters: Iterable[str]) -> str:
    return ", ".join(repr(cluster) for cluster in sorted(clusters))
