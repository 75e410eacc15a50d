# SPDX-License-Identifier: Apache-2.0
"""Whether these programs can read what is stored: after a rollback they may not."""

from __future__ import annotations

from epic.errors import EpicError
from epic.store.interface import Reader

STATUS = 65
"""The exit status; systemd's unit is told not to start the service again for it."""
_FEW = 3
_NAMED = 5


class TooNew(EpicError):
    """The store is a newer EPIC's."""


def check_readable(reader: Reader) -> None:
    """Raise TooNew when more than a few objects were written by a newer EPIC.

    A few are held as they are, and told of. With many nothing could be done for most of what there is.
    """
    newer = [found for found in reader.unreadable() if found.newer]
    if len(newer) <= _FEW:
        return
    named = ", ".join(str(found.key) for found in newer[:_NAMED])
    more = f" and {len(newer) - _NAMED} more" if len(newer) > _NAMED else ""
    raise TooNew(
        f"{len(newer)} objects of the store were written by a newer EPIC, and cannot be read: {named}{more}. "
        "Nodes go on with what they have. Start the newer programs again "
        "(ansible-playbook epic.gateway.upgrade -e base_version=VERSION), or restore a backup of these "
        "(epicctl restore)"
    )
