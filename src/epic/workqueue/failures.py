# SPDX-License-Identifier: Apache-2.0
"""What keys of a queue fail of, in the log: what many meet alike is said once, and once that it is over."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Hashable
from typing import Generic, TypeVar

from epic.errors import NotWritable
from epic.log_rate import LogRate

K = TypeVar("K", bound=Hashable)


class FailureLog(Generic[K]):
    """The failures of one queue's keys."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._rate = LogRate(log)
        self._of: dict[K, str] = {}
        self._keys: Counter[str] = Counter()
        self._written: set[str] = set()

    def failed(self, key: K, what: str, error: Exception) -> None:
        """`what` is the key's work, as users know it."""
        text = repr(error)
        if self._of.get(key) == text:
            return
        self._forget(key)
        self._of[key] = text
        self._keys[text] += 1
        if self._keys[text] > 1 or isinstance(error, NotWritable):
            return
        if self._rate.warning("%s: %s; it is tried again", what, error, exc_info=error):
            self._written.add(text)

    def succeeded(self, key: K, what: str) -> None:
        """The key could be worked on; what it failed of is over when no other key fails of it."""
        text = self._forget(key)
        if text in self._written and text not in self._keys:
            self._written.discard(text)
            self._log.info("%s: it went well again", what)

    def _forget(self, key: K) -> str:
        text = self._of.pop(key, "")
        if text:
            self._keys[text] -= 1
            if not self._keys[text]:
                del self._keys[text]
        return text
