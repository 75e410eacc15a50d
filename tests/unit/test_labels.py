# SPDX-License-Identifier: Apache-2.0
"""Label selectors are read as Kubernetes reads them."""

from __future__ import annotations

import pytest

from epic.errors import Invalid
from epic.model.values.labels import parse_selector

SHOP = {"app": "shop", "example.org/tier": "web", "empty": ""}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "app",
        "!other",
        "! other",
        "app=shop",
        "app == shop",
        "app!=bank",
        "other!=x",
        "other notin (x)",
        "app in (bank, shop)",
        "app notin (bank)",
        "empty=",
        "empty in ()",
        "example.org/tier=web,app,app in (shop),!x",
    ],
)
def test_a_selector_matches(text: str) -> None:
    assert parse_selector(text).matches(SHOP)


@pytest.mark.parametrize(
    "text", ["other", "!app", "app=bank", "app!=shop", "app in (bank)", "app notin (shop)"]
)
def test_a_selector_does_not_match(text: str) -> None:
    assert not parse_selector(text).matches(SHOP)


@pytest.mark.parametrize(
    "text",
    ["=x", "app=a b", "app in shop", "app in (a", "app,,x", "app,", "a" * 64, "app in (-)", "x" * 5000],
)
def test_a_selector_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="label selector"):
        parse_selector(text)
