# SPDX-License-Identifier: Apache-2.0
"""The REST server's certificate, read anew when its file changes: connections before and after go on."""

from __future__ import annotations

import asyncio
import logging
import ssl

from epic.control.settings import RestSettings

log = logging.getLogger(__name__)

_PAUSE_SECONDS = 10.0


async def follow_certificate(
    context: ssl.SSLContext, rest: RestSettings, pause: float = _PAUSE_SECONDS
) -> None:
    """Give the context what the files hold, each time that they changed, until cancelled.

    What cannot be taken is tried again: both may have been replaced between the trial and its repetition.
    """
    seen, told = _stamps(rest), ""
    while True:
        await asyncio.sleep(pause)
        stamps = _stamps(rest)
        if stamps == seen or stamps is None:
            continue
        try:
            # Tried elsewhere first: a context that fails to load them has lost those before.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(rest.certificate, rest.key)
            context.load_cert_chain(rest.certificate, rest.key)
        except OSError as error:
            if told != str(error):
                log.error("the server's certificate stays as it was: %s", error)
            told = str(error)
            continue
        seen, told = stamps, ""
        log.info("the server's certificate was read anew from %s", rest.certificate)


def _stamps(rest: RestSettings) -> tuple[tuple[int, int], ...] | None:
    """What changes when a file is replaced; None while one is missing."""
    try:
        found = [path.stat() for path in (rest.certificate, rest.key)]
    except OSError:
        return None
    return tuple((status.st_ino, status.st_mtime_ns) for status in found)
