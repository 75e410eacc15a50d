"""The recipe of the lab's base image: what makes it another image, and a build that fails."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.epic.gateway.plugins.module_utils import _lab_image as image
from ansible_collections.epic.gateway.plugins.module_utils._lab_shell import LabError

RECIPE = image.recipe("bookworm", ["python3", "curl"], "#!/bin/sh\n")


def fake_debootstrap(directory: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> Path:
    """Put a program called mmdebstrap first in the path; the image cache."""
    program = directory / "mmdebstrap"
    program.write_text(f"#!/bin/sh\nfor tree; do :; done\n{body}\n")
    program.chmod(0o755)
    monkeypatch.setattr(image, "PATH", f"{directory}:/usr/bin:/bin")
    monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")
    cache = directory / "cache"
    cache.mkdir()
    return cache


def test_the_order_and_repetition_of_packages_do_not_matter() -> None:
    assert image.recipe("bookworm", ["curl", "python3", "curl"], "#!/bin/sh\n") == RECIPE


@pytest.mark.parametrize(
    "other",
    [
        image.recipe("trixie", ["python3", "curl"], "#!/bin/sh\n"),
        image.recipe("bookworm", ["python3"], "#!/bin/sh\n"),
        image.recipe("bookworm", ["python3", "curl"], "#!/bin/sh\ntrue\n"),
    ],
)
def test_another_recipe_is_another_image(other: image.Recipe) -> None:
    assert other.digest != RECIPE.digest


def test_an_image_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = fake_debootstrap(tmp_path, monkeypatch, 'mkdir "$tree"; echo built >>"$tree/count"')
    built = [image.build(cache, RECIPE) for _ in range(2)]
    assert built == [image.image_path(cache, RECIPE)] * 2
    assert (built[0] / "count").read_text() == "built\n"


def test_a_failed_build_is_explained_and_leaves_no_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = fake_debootstrap(tmp_path, monkeypatch, 'mkdir "$tree"; echo E: no such package >&2; exit 3')
    with pytest.raises(LabError, match=r"ended with status 3.*\n.*E: no such package"):
        image.build(cache, RECIPE)
    assert not image.image_path(cache, RECIPE).exists()


def test_what_a_cut_build_left_does_not_disturb_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = fake_debootstrap(tmp_path, monkeypatch, 'mkdir "$tree"')
    left = image.image_path(cache, RECIPE).with_suffix(".part")
    left.mkdir()
    (left / "half").touch()
    assert list(image.build(cache, RECIPE).iterdir()) == []
