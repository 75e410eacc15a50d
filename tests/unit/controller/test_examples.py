# SPDX-License-Identifier: Apache-2.0
"""The examples are understood without any problem, and fit together."""

from __future__ import annotations

from pathlib import Path

from manifests import HOST
from pydantic import SecretStr

from epic.controller.classes import CoreSettings, Login
from epic.controller.core import translate
from epic.controller.documents import read_file
from epic.controller.objects import Objects, parse

EXAMPLES = Path(__file__).parents[3] / "examples" / "shop"


def test_the_gateway_and_a_hosts_endpoints_meet_in_one_service(tmp_path: Path) -> None:
    user = CoreSettings("x", login=Login("https://e:1", "shop", SecretStr("p")))
    objects, problems = parse(read_file(EXAMPLES / "gateway.yaml"))
    published = translate(Objects(objects), user)
    (tmp_path / "endpoints.yaml").write_text((EXAMPLES / "endpoints.yaml").read_text())
    (tmp_path / "shop.key").write_text("p")
    hosted, more = parse(read_file(tmp_path / "endpoints.yaml"))
    slices = translate(Objects(hosted), HOST)
    assert not (*problems, *more, *published.problems, *slices.problems)
    (backend,) = published.routes[0].spec["http"]["rules"][0]["backendRefs"]
    assert backend["name"] == slices.slices[0].spec["parentRef"]["uid"]
