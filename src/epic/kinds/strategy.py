# SPDX-License-Identifier: Apache-2.0
"""What of an object is the client's and what is EPIC's: a client's write changes nothing of EPIC's.

The spec is the client's, except for fields that EPIC fills in, and so are labels and annotations, except for
those with a key of EPIC's. All else, the status above all, is EPIC's, and is written by itself. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from epic.kinds.kind import Kind, T

OWN_PREFIX = "epic.acnodal.io/"
"""Of labels and annotations that EPIC writes."""


def prepare_for_create(kind: Kind[T], given: T, now: datetime) -> T:
    """The object that a client creates: all that is EPIC's is as in any new object."""
    metadata = given.metadata.model_copy(
        update={
            "labels": _clients(given.metadata.labels),
            "annotations": _clients(given.metadata.annotations),
            "creation_timestamp": now,
            "deletion_timestamp": None,
            "generation": 1,
            "resource_version": 0,
        }
    )
    spec = _spec(given)
    fields = type(spec).model_fields
    spec = spec.model_copy(update={name: fields[name].get_default() for name in kind.filled_in})
    changed: dict[str, Any] = {"metadata": metadata, "spec": spec}
    if "status" in kind.model.model_fields:
        changed["status"] = kind.model.model_fields["status"].get_default()
    return given.model_copy(update=changed)


def prepare_for_update(kind: Kind[T], given: T, stored: T) -> T:
    """The stored object with what a client changes of it; the revision is the one that the client saw.

    The generation is as it was: the store counts it.
    """
    spec, before = _spec(given), _spec(stored)
    theirs = kind.filled_in | (kind.kept - spec.model_fields_set)
    spec = spec.model_copy(update={name: getattr(before, name) for name in theirs})
    metadata = stored.metadata.model_copy(
        update={
            "labels": _clients(given.metadata.labels) | _epics(stored.metadata.labels),
            "annotations": _clients(given.metadata.annotations) | _epics(stored.metadata.annotations),
            "resource_version": given.metadata.resource_version,
        }
    )
    return stored.model_copy(update={"metadata": metadata, "spec": spec})


def prepare_for_status(given: T, stored: T) -> T:
    """The stored object with another status and nothing else changed; the revision is that of `given`."""
    status = getattr(given, "status")  # noqa: B009
    return stored.at(given.metadata.resource_version).model_copy(update={"status": status})


def _spec(obj: T) -> Any:
    return getattr(obj, "spec")  # noqa: B009


def _clients(texts: Mapping[str, str]) -> dict[str, str]:
    return {key: text for key, text in texts.items() if not key.startswith(OWN_PREFIX)}


def _epics(texts: Mapping[str, str]) -> dict[str, str]:
    return {key: text for key, text in texts.items() if key.startswith(OWN_PREFIX)}
