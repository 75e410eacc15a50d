# SPDX-License-Identifier: Apache-2.0
"""The recipe of the lab's base image and of layers over it: what makes them others, and builds that fail."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.epic.gateway.plugins.module_utils import _lab_image as image
from ansible_collections.epic.gateway.plugins.module_utils._lab_shell import LabError

RECIPE = image.recipe("bookworm", ["python3", "curl"], ["bird2"], "#!/bin/sh\n")
LAYER = image.Layer("image-1", ("frr", "tcpdump"), "")


def fake(directory: Path, monkeypatch: pytest.MonkeyPatch, body: str, name: str = "mmdebstrap") -> Path:
    """Put a program of that name first in the path; the image cache."""
    program = directory / name
    program.write_text(f"#!/bin/sh\nfor tree; do :; done\n{body}\n")
    program.chmod(0o755)
    monkeypatch.setattr(image, "PATH", f"{directory}:/usr/bin:/bin")
    monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")
    cache = directory / "cache"
    cache.mkdir()
    return cache


def test_the_order_and_repetition_of_packages_do_not_matter() -> None:
    assert image.recipe("bookworm", ["curl", "python3", "curl"], ["bird2"], "#!/bin/sh\n") == RECIPE


@pytest.mark.parametrize(
    "other",
    [
        image.recipe("trixie", ["python3", "curl"], ["bird2"], "#!/bin/sh\n"),
        image.recipe("bookworm", ["python3"], ["bird2"], "#!/bin/sh\n"),
        image.recipe("bookworm", ["python3", "curl", "bird2"], [], "#!/bin/sh\n"),
        image.recipe("bookworm", ["python3", "curl"], ["bird2"], "#!/bin/sh\ntrue\n"),
    ],
)
def test_another_recipe_is_another_image(other: image.Recipe) -> None:
    assert other.digest != RECIPE.digest


def test_an_image_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = fake(tmp_path, monkeypatch, 'mkdir "$tree"; echo built >>"$tree/count"')
    built = [image.build(cache, RECIPE) for _ in range(2)]
    assert built == [image.image_path(cache, RECIPE)] * 2
    assert (built[0] / "count").read_text() == "built\n"


def test_a_failed_build_is_explained_and_leaves_no_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = fake(tmp_path, monkeypatch, 'mkdir "$tree"; echo E: no such package >&2; exit 3')
    with pytest.raises(LabError, match=r"was not built: status 3.*\n.*E: no such package"):
        image.build(cache, RECIPE)
    assert not image.image_path(cache, RECIPE).exists()


def test_what_a_cut_build_left_does_not_disturb_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = fake(tmp_path, monkeypatch, 'mkdir "$tree"')
    left = image.image_path(cache, RECIPE).with_suffix(".part")
    left.mkdir()
    (left / "half").touch()
    assert list(image.build(cache, RECIPE).iterdir()) == []


def test_what_hosts_can_install_is_named_to_the_program_that_finishes_the_image() -> None:
    command = RECIPE.command(Path("tree"), Path("finish.sh"))
    assert '--customize-hook=finish.sh "$1" bird2' in command
    assert "--include=curl,python3" in command


@pytest.mark.parametrize(
    "other", [replace(LAYER, image="image-2"), replace(LAYER, packages=("frr",)), replace(LAYER, install="x")]
)
def test_another_image_or_package_is_another_layer(other: image.Layer) -> None:
    assert other.digest != LAYER.digest


def test_an_unknown_package_of_a_layer_is_named_and_leaves_no_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = fake(tmp_path, monkeypatch, "echo E: Unable to locate package frrr; exit 100", "unshare")
    with pytest.raises(
        LabError, match=r"layer-.* was not built: status 100.*\n.*Unable to locate package frrr"
    ):
        image.build_layer(cache, LAYER)
    assert not list(cache.glob("layer-*"))
