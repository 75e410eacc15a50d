# SPDX-License-Identifier: Apache-2.0
"""A second run of the playbook changes nothing."""

from __future__ import annotations

import re

import pytest
from hosts import run_site

RECAP = re.compile(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)


@pytest.mark.parametrize("options", [(), ("--check",)], ids=["run", "check"])
def test_site_yml_on_a_converged_lab_changes_nothing(options: tuple[str, ...]) -> None:
    done = run_site(*options)
    recap = RECAP.findall(done.stdout)
    assert recap, done.stdout[-3000:] + done.stderr[-2000:]
    changed = [line for line in recap if line[1:] != ("0", "0", "0")]
    assert not changed, done.stdout[-6000:]
