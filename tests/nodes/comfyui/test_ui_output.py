"""What a finished edit shows on its node, read back from the files it writes."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from onereward_pack.nodes.edit.run import Edit
from PIL import Image
from torch import Tensor

MODULE = "onereward_pack.nodes.comfyui.ui_output"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module, with a ComfyUI whose temp folder is this test's and does not exist yet."""
    folder = SimpleNamespace(get_temp_directory=lambda: str(tmp_path / "temp"))
    monkeypatch.setitem(sys.modules, "folder_paths", folder)
    sys.modules.pop(MODULE, None)
    yield importlib.import_module(MODULE)
    sys.modules.pop(MODULE, None)


def edit_of(images: Tensor, mask: Tensor, **changes: Any) -> Edit:
    count = len(images)
    facts: dict[str, Any] = {
        "seeds": tuple(range(count)), "flagged": (False,) * count, "report": "the report",
        "summary": "a summary", "badge": "a badge", "sources": (0,) * count,
    }  # fmt: skip
    return Edit(images=images, mask=mask, **(facts | changes))


def read(folder: Path, file: dict[str, str]) -> Image.Image:
    assert (file["subfolder"], file["type"]) == ("", "temp")
    with Image.open(folder / "temp" / file["filename"]) as image:
        image.load()
        return image


def pixels(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).float() / 255


def test_every_result_has_its_source_itself_and_the_words(
    module: ModuleType, tmp_path: Path
) -> None:
    sources = torch.rand(2, 20, 30, 3).mul(255).round().div(255)
    images = torch.rand(4, 20, 30, 3).mul(255).round().div(255)
    done = edit_of(
        images, torch.zeros(4, 20, 30), sources=(0, 0, 1, 1), seeds=(2**63, 1, 2, 3),
        flagged=(False, True, False, False),
    )  # fmt: skip
    [said] = module.ui_output(sources, done)["onereward"]
    assert (said["badge"], said["summary"], said["report"]) == (
        "a badge", "a summary", "the report",
    )  # fmt: skip
    assert said["size"] == [30, 20]
    pairs = said["pairs"]
    assert [pair["flagged"] for pair in pairs] == [False, True, False, False]
    assert pairs[0]["seed"] == str(2**63)
    for number, pair in enumerate(pairs):
        assert torch.equal(pixels(read(tmp_path, pair["before"])), sources[number // 2])
        assert torch.equal(pixels(read(tmp_path, pair["after"])), images[number])
    assert pairs[0]["before"] == pairs[1]["before"]  # written once


def test_the_files_hold_pixels_and_no_words(module: ModuleType, tmp_path: Path) -> None:
    module.ui_output(torch.rand(1, 8, 8, 3), edit_of(torch.rand(1, 8, 8, 3), torch.ones(1, 8, 8)))
    for file in (tmp_path / "temp").iterdir():
        with Image.open(file) as image:
            assert image.info == {}


def test_what_an_extension_added_is_transparent_before(module: ModuleType, tmp_path: Path) -> None:
    done = edit_of(torch.rand(1, 30, 50, 3), torch.zeros(1, 30, 50), origin=(4, 6))
    source = torch.ones(1, 20, 30, 3)
    [said] = module.ui_output(source, done)["onereward"]
    before = pixels(read(tmp_path, said["pairs"][0]["before"]))
    assert before.shape == (30, 50, 4)
    assert torch.equal(before[4:24, 6:36], torch.ones(20, 30, 4))
    assert before[..., 3].sum() == 20 * 30


def test_the_outline_lies_on_the_edge_of_the_blend_alone(
    module: ModuleType, tmp_path: Path
) -> None:
    mask = torch.zeros(1, 20, 20)
    mask[0, 5:15, 5:15] = 0.01
    [said] = module.ui_output(torch.rand(1, 20, 20, 3), edit_of(torch.rand(1, 20, 20, 3), mask))[
        "onereward"
    ]
    outline = pixels(read(tmp_path, said["pairs"][0]["outline"]))
    assert outline[5, 5:15].tolist() == [[1, 1, 1, 1]] * 10
    assert outline[4, 4:16].tolist() == [[0, 0, 0, 1]] * 12
    assert outline[6:14, 6:14, 3].sum() == 0
    assert outline[:3, :, 3].sum() == 0


def test_a_picture_beyond_the_limit_is_shown_reduced(module: ModuleType, tmp_path: Path) -> None:
    image = torch.rand(1, 30, 4100, 4)
    [said] = module.ui_output(image, edit_of(image, torch.ones(1, 30, 4100)))["onereward"]
    [pair] = said["pairs"]
    assert {read(tmp_path, pair[what]).size for what in ("before", "after", "outline")} == {
        (2048, 15)
    }
    assert said["size"] == [4100, 30]
