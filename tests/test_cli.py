from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onereward_pack.local_backend import cli
from onereward_pack.nodes.contracts import ACCELERATIONS
from onereward_pack.nodes.editing import edit
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
FAST = ["--steps", "2", "--seed", "3"]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    rng = np.random.default_rng(0)
    picture, mask = tmp_path / "photo.png", tmp_path / "mask.png"
    Image.fromarray(rng.integers(0, 256, (150, 200, 3), np.uint8)).save(picture)
    painted = Image.new("L", (200, 150), 0)
    painted.paste(255, (60, 50, 110, 100))
    painted.save(mask)
    return {"image": picture, "mask": mask}


def arguments(task: str, files: dict[str, Path], *more: str) -> list[str]:
    return [task, "--image", str(files["image"]), "--mask", str(files["mask"]), *FAST, *more]


def test_fill_writes_a_file_beside_the_picture_with_only_the_mask_changed(
    files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments("fill", files, "--prompt", "a cat")) == 0
    result = files["image"].with_name("photo-fill.png")
    before, after = np.asarray(Image.open(files["image"])), np.asarray(Image.open(result))
    changed = (before != after).any(-1)
    far = np.ones_like(changed)
    far[50 - 25 : 100 + 25, 60 - 25 : 110 + 25] = False
    assert changed[55:95, 65:105].mean() > 0.9
    assert not changed[far].any()
    out = capsys.readouterr().out
    assert str(result) in out
    assert "fill: a cat" in out


def test_several_images_get_numbered_files(files: dict[str, Path], tmp_path: Path) -> None:
    target = tmp_path / "out.png"
    more = ("--num-images", "2", "--output", str(target))
    assert cli.main(arguments("remove", files, *more)) == 0
    first, second = (np.asarray(Image.open(tmp_path / f"out-{i}.png")) for i in (1, 2))
    assert (first != second).any()
    assert not target.exists()


def test_extend_makes_the_picture_larger(files: dict[str, Path]) -> None:
    command = ["extend", "--image", str(files["image"]), "--to", "left 40", *FAST]
    assert cli.main(command) == 0
    with Image.open(files["image"].with_name("photo-extend.png")) as result:
        assert result.size == (240, 150)


def test_text_lines_are_split_at_backslash_n(
    files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments("text", files, "--text", r"SALE\nNOW")) == 0
    assert 'the words "SALE", and in the next line "NOW"' in capsys.readouterr().out


def test_acceleration_is_the_user_s_to_choose_and_regular_by_default(
    files: dict[str, Path], tmp_path: Path
) -> None:
    def painted(*more: str) -> bytes:
        target = ("--output", str(tmp_path / "out.png"), "--steps", "12")
        assert cli.main(arguments("remove", files, *more, *target)) == 0
        return (tmp_path / "out.png").read_bytes()

    none, regular, high = (painted("--acceleration", level) for level in ACCELERATIONS)
    assert painted() == regular
    assert len({none, regular, high}) == 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image": "missing.png"}, "Cannot read .*missing.png"),
        ({"mask": "missing.png"}, "Cannot read .*missing.png"),
        ({"mask": "wrong.png"}, "50x80.*200x150"),
        ({"image": "broken.png"}, "not a readable picture"),
    ],
)
def test_a_bad_file_is_one_line_on_stderr_and_nothing_is_written(
    files: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, str],
    words: str,
) -> None:
    Image.new("L", (50, 80), 255).save(tmp_path / "wrong.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    files |= {name: tmp_path / value for name, value in change.items()}
    before = set(tmp_path.iterdir())
    assert cli.main(arguments("fill", files, "--prompt", "a cat")) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert re.search(words, error)
    assert set(tmp_path.iterdir()) == before


def test_ctrl_c_writes_nothing(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    assert cli.edit is edit
    monkeypatch.setattr(cli, "edit", interrupted)
    before = set(tmp_path.iterdir())
    assert cli.main(arguments("fill", files, "--prompt", "a cat")) == cli.INTERRUPTED
    assert set(tmp_path.iterdir()) == before


def test_it_runs_as_a_module_from_the_packs_folder() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "local_backend", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(
        word in run.stdout
        for word in ("demo", "fill", "remove", "extend", "text", "compare", "bench")
    )
