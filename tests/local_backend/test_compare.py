"""`compare` shows the levels of acceleration side by side, and what they change."""

from __future__ import annotations

import re
from math import inf
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes.model_shelf import write_shelf
from onereward_pack.local_backend.cli import main
from onereward_pack.local_backend.cli.compare import (
    AMPLIFIED,
    Painted,
    choose_backend,
    difference,
    psnr,
)
from onereward_pack.local_backend.cli.contact_sheet import CELL, GAP, LINE, with_mask
from onereward_pack.nodes.edit.run import Edit
from PIL import Image
from torch import Tensor

TOP = 2 * LINE + 2 * GAP + LINE  # of the first line of pictures
BELOW = TOP + CELL + LINE + GAP


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """A picture and a mask."""
    pixels = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    mask = Image.new("L", (128, 128), 0)
    mask.paste(255, (50, 50, 78, 78))
    mask.save(tmp_path / "mask.png")
    return ["--image", str(tmp_path / "photo.png"), "--mask", str(tmp_path / "mask.png")]


def compare(out: Path, *arguments: str) -> np.ndarray:
    assert main.main(["compare", "--output", str(out), *arguments]) == 0
    with Image.open(out) as sheet:
        return np.asarray(sheet).astype(int)


def cell(sheet: np.ndarray, column: int, top: int) -> np.ndarray:
    left = GAP + column * (CELL + GAP)
    return sheet[top : top + CELL, left : left + CELL]


def painted(picture: Tensor, mask: Tensor) -> Painted:
    edit = Edit(picture[None], mask[None], (0,), (False,), "", "", "", (0,))
    return Painted("none", edit, 1.0)


def test_the_sheet_shows_three_results_and_two_differences_to_the_first(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = compare(tmp_path / "sheet.png", *files, "--prompt", "a cat", "--steps", "9")
    assert sheet.shape[1] == GAP + 4 * (CELL + GAP)
    pictures = [cell(sheet, column, TOP) for column in range(4)]
    # a small picture is not made larger; it lies in the middle of its cell's height
    rows = slice((CELL - 128) // 2, (CELL + 128) // 2)
    before, none, regular, high = (picture[rows, :128] for picture in pictures)
    assert (before[64, 64] - np.asarray(Image.open(files[1]))[64, 64])[0] > 0  # red of the mask
    assert (none[:20] == np.asarray(Image.open(files[1]))[:20]).all()
    assert (none != high).any()
    for column, other in ((2, regular), (3, high)):
        shown = cell(sheet, column, BELOW)[rows, :128]
        expected = np.clip(AMPLIFIED * abs(other - none), 0, 255)
        assert abs(shown - expected).max() <= AMPLIFIED + 1  # each was rounded by itself
    out = capsys.readouterr().out
    assert "Painted by the preview model" in out
    assert re.search(r"none: [\d.]+ s\n", out)
    assert re.search(r"high: [\d.]+ s, [\d.]+x, [\d.]+ dB to none", out)


def test_extend_needs_no_mask(files: list[str], tmp_path: Path) -> None:
    arguments = ["--task", "extend", *files[:2], "--to", "left 16", "--steps", "1"]
    sheet = compare(tmp_path / "sheet.png", *arguments)
    wide = cell(sheet, 1, TOP)[CELL // 2]
    assert (wide[: 128 + 16] != 255).any(-1).sum() > 128
    assert (wide[128 + 16 :] == 255).all()


def test_text_writes_words(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compare(tmp_path / "sheet.png", "--task", "text", *files, "--text", "SALE", "--steps", "1")
    assert 'the words "SALE"' in capsys.readouterr().out


def test_a_folder_s_own_model_paints_and_is_named(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "models").mkdir()
    shelf = write_shelf(tmp_path / "models")
    models = ["--models", str(shelf["pipeline"])]
    compare(tmp_path / "sheet.png", "--task", "remove", *files, *models, "--steps", "1")
    out = capsys.readouterr().out
    assert "Painted by transformer/diffusion_pytorch_model.safetensors" in out
    assert "preview" not in out
    backend, _ = choose_backend(shelf["pipeline"])
    assert backend.name == "transformer/diffusion_pytorch_model.safetensors on this machine"


def test_what_is_missing_is_one_line_and_nothing_is_written(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "sheet.png"
    output = ["--output", str(target)]
    assert main.main(["compare", "--task", "remove", *files[:2], *output]) == 1
    assert main.main(["compare", *files, "--prompt", "a cat", "--models", "none", *output]) == 1
    assert main.main(["compare", *files, *output]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[0] == "error: --task remove needs a mask. Give --mask."
    assert "none is no folder" in lines[1]
    assert "The prompt is empty" in lines[2]
    assert not target.exists()


def test_differences_are_amplified_and_cut_at_white() -> None:
    mask, zero = torch.ones(8, 8), torch.zeros(8, 8, 3)
    shown = difference(painted(zero + 0.1, mask), painted(zero, mask))
    assert torch.allclose(shown, torch.full_like(zero, 0.1 * AMPLIFIED))
    assert (difference(painted(zero, mask), painted(zero + 0.9, mask)) == 1).all()


def test_psnr_counts_what_was_replaced_in_full() -> None:
    base, mask = torch.zeros(8, 8, 3), torch.zeros(8, 8)
    mask[:4], mask[4:6] = 1, 0.5
    other = base.clone()
    other[4:] = 1
    assert psnr(painted(other, mask), painted(base, mask)) == inf
    other[:4] = 0.01
    assert psnr(painted(other, mask), painted(base, mask)) == pytest.approx(40, abs=1e-3)


def test_a_mask_is_laid_over_in_red() -> None:
    picture, mask = torch.zeros(4, 4, 4), torch.zeros(4, 4)
    mask[0] = 1
    shown = with_mask(picture, mask)
    assert shown.shape == (4, 4, 3)
    assert (shown[1:] == 0).all()
    assert shown[0, 0, 0] > 0.4
    assert shown[0, 0, 0] > 3 * shown[0, 0, 1]
