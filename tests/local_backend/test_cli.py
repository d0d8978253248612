from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from onereward_pack.local_backend.cli import edit_job, main
from onereward_pack.nodes.contracts import ACCELERATIONS
from onereward_pack.nodes.edit.run import edit
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
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
    assert main.main(arguments("fill", files, "--prompt", "a cat")) == 0
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
    assert main.main(arguments("remove", files, *more)) == 0
    first, second = (np.asarray(Image.open(tmp_path / f"out-{i}.png")) for i in (1, 2))
    assert (first != second).any()
    assert not target.exists()


@pytest.mark.parametrize(
    ("output", "count", "fault"),
    [
        ("photo.png", 1, "photo.png is the --image"),
        ("mask.png", 1, "mask.png is the --mask"),
        ("photo.png", 2, None),
        ("mask.png", 3, "mask-2.png is the --mask"),
    ],
)
def test_a_picture_and_its_mask_are_never_written_over(
    files: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    output: str,
    count: int,
    fault: str | None,
) -> None:
    if fault and count > 1:
        files["mask"] = files["mask"].rename(tmp_path / "mask-2.png")
    before = {path: path.read_bytes() for path in files.values()}
    more = ("--num-images", str(count), "--output", str(tmp_path / output))
    assert main.main(arguments("remove", files, *more)) == (1 if fault else 0)
    if fault:
        assert f"{fault}. Choose another --output." in capsys.readouterr().err
    assert {path: path.read_bytes() for path in files.values()} == before


def test_extend_makes_the_picture_larger(files: dict[str, Path]) -> None:
    command = ["extend", "--image", str(files["image"]), "--to", "left 40", *FAST]
    assert main.main(command) == 0
    with Image.open(files["image"].with_name("photo-extend.png")) as result:
        assert result.size == (240, 150)


def test_text_lines_are_split_at_backslash_n(
    files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(arguments("text", files, "--text", r"SALE\nNOW")) == 0
    assert 'the words "SALE", and in the next line "NOW"' in capsys.readouterr().out


def test_acceleration_is_the_user_s_to_choose_and_regular_by_default(
    files: dict[str, Path], tmp_path: Path
) -> None:
    def painted(*more: str) -> bytes:
        target = ("--output", str(tmp_path / "out.png"), "--steps", "12")
        assert main.main(arguments("remove", files, *more, *target)) == 0
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
        ({"image": "broken.png"}, "broken.png is not a readable picture"),
        ({"mask": "broken.png"}, "broken.png is not a readable picture"),
        ({"image": "empty.png"}, r"empty.png is empty \(0 bytes\)"),
        ({"image": "."}, "Cannot read .*: Is a directory"),
        ({"mask": "clear.png"}, "clear.png is empty: all of it is transparent.*Paint white"),
        ({"mask": "black.png"}, "black.png is empty: all of it is black"),
        ({"mask": "hidden.png"}, "hidden.png is empty: it is transparent where it is white"),
        ({"mask": "faint.png"}, "faint.png is empty: it is at most 7.8% white, and less than 10%"),
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
    (tmp_path / "empty.png").touch()
    strokes = Image.open(files["mask"]).point(lambda value: 255 - value)
    for name, white, opaque in (("clear", 255, 0), ("black", 0, 255), ("faint", 20, 255)):
        Image.merge("LA", [Image.new("L", (200, 150), v) for v in (white, opaque)]).save(
            tmp_path / f"{name}.png"
        )
    Image.merge("LA", [strokes, strokes.point(lambda value: 255 - value)]).save(
        tmp_path / "hidden.png"
    )
    files |= {name: tmp_path / value for name, value in change.items()}
    before = set(tmp_path.iterdir())
    assert main.main(arguments("fill", files, "--prompt", "a cat")) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert re.search(words, error)
    assert set(tmp_path.iterdir()) == before


def test_ctrl_c_writes_nothing(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    assert edit_job.edit is edit
    monkeypatch.setattr(edit_job, "edit", interrupted)
    before = set(tmp_path.iterdir())
    assert main.main(arguments("fill", files, "--prompt", "a cat")) == main.INTERRUPTED
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


def written(path: Path) -> np.ndarray:
    with av.open(io.BytesIO(path.read_bytes()), format="png_pipe") as file:
        return next(file.decode(video=0)).to_ndarray()


@pytest.mark.parametrize("channels", [3, 4])
def test_a_16_bit_picture_keeps_all_16_bits_outside_the_mask(
    files: dict[str, Path], channels: int
) -> None:
    values = np.random.default_rng(1).integers(0, 65536, (150, 200, channels)).astype(np.uint16)
    codec = av.CodecContext.create("png", "w")
    codec.pix_fmt = {3: "rgb48be", 4: "rgba64be"}[channels]
    codec.width, codec.height, codec.time_base = 200, 150, 1
    frame = av.VideoFrame.from_ndarray(values, codec.pix_fmt)
    files["image"].write_bytes(b"".join(map(bytes, [*codec.encode(frame), *codec.encode()])))
    assert np.array_equal(written(files["image"]), values)
    assert main.main(arguments("remove", files)) == 0
    after = written(files["image"].with_name("photo-remove.png"))
    assert after.dtype.itemsize == 2 and after.shape == values.shape
    changed = (after != values).any(-1)
    far = np.ones_like(changed)
    far[50 - 28 : 100 + 28, 60 - 28 : 110 + 28] = False  # grow 12 and blend 16
    assert not changed[far].any() and changed[55:95, 65:105].mean() > 0.9
    assert np.array_equal(after[..., 3:], values[..., 3:])


def test_a_mask_of_opaque_strokes_on_nothing_paints_the_strokes_alone(
    files: dict[str, Path],
) -> None:
    white = Image.new("L", (200, 150), 255)
    Image.merge("LA", [white, Image.open(files["mask"])]).save(files["mask"])
    assert main.main(arguments("fill", files, "--prompt", "a cat")) == 0
    before, after = (
        np.asarray(Image.open(files["image"].with_name(name)))
        for name in ("photo.png", "photo-fill.png")
    )
    changed = (before != after).any(-1)
    assert changed[55:95, 65:105].mean() > 0.9 and not changed[:, 160:].any()


@pytest.mark.parametrize("kind", ["WEBP", "TIFF", "BMP", "GIF", "JPEG"])
def test_every_format_is_edited_and_comes_out_as_an_8_bit_png(
    files: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    for name, path in files.items():
        files[name] = path.with_suffix("." + kind.lower())
        Image.open(path).save(files[name], kind, **({"lossless": True} if kind == "WEBP" else {}))
    assert main.main(arguments("remove", files)) == 0
    with Image.open(tmp_path / "photo-remove.png") as made:
        assert (made.format, made.mode, made.size) == ("PNG", "RGB", (200, 150))


def test_a_colour_profile_and_the_first_of_several_pictures_are_kept_and_said(
    files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    profile = b"\0" * 16 + b"RGB " + b"\0" * 200
    with Image.open(files["image"]) as picture:
        more = picture.transpose(Image.Transpose.ROTATE_180)
        picture.save(files["image"], icc_profile=profile, save_all=True, append_images=[more])
    assert main.main(arguments("remove", files)) == 0
    assert "photo.png holds 2 pictures; the first one is used." in capsys.readouterr().out
    with Image.open(files["image"].with_name("photo-remove.png")) as made:
        assert made.info["icc_profile"] == profile


@pytest.mark.parametrize(
    ("task", "more", "words"),
    [
        ("extend", ["--to", "wide"], "Extend 'wide' is not understood"),
        ("extend", ["--to", "16x9"], "if you mean the aspect, 16:9"),
        ("extend", ["--to", "100x100"], "smaller than the picture, which is 200x150"),
        ("extend", ["--overlap", "-1"], "--overlap is -1. Give 0 to"),
        ("remove", ["--steps", "0"], "--steps is 0. Give a whole number from 1"),
        ("remove", ["--num-images", "0"], "--num-images is 0. Give a whole number from 1"),
        ("remove", ["--seed", "-1"], "--seed is -1. Give a whole number from 0"),
        ("remove", ["--cfg", "nan"], "--cfg is nan. Give a number from 0 to 100"),
        ("compare", ["--task", "remove", "--cfg", "101"], "--cfg is 101.0. Give a number from 0"),
        ("fill", ["--prompt", " "], "The prompt is empty"),
        (
            "remove",
            ["--output", "made.tif"],
            "made.tif, but what is written is a PNG. Name it made",
        ),
        ("remove", ["--output", "."], "--output is ., which is a folder. Name a file in it"),
        ("compare", ["--task", "remove", "--output", "no/a.png"], "there is no folder no. Make it"),
    ],
)
def test_words_and_numbers_are_refused_before_any_model_is_loaded(
    files: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    task: str,
    more: list[str],
    words: str,
) -> None:
    monkeypatch.setattr(main, "resolve_preview", lambda: pytest.fail("a model is loaded"))
    monkeypatch.chdir(tmp_path)
    if "100x100" not in more:  # which only the picture can tell
        files["image"].write_bytes(b"not even opened")
    mask = [] if task == "extend" else ["--mask", str(files["mask"])]
    before = set(tmp_path.iterdir())
    assert main.main([task, "--image", str(files["image"]), *mask, *more]) == 1
    assert words in capsys.readouterr().err
    assert set(tmp_path.iterdir()) == before


def test_a_file_that_cannot_be_written_leaves_nothing_behind(
    files: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(path: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    before = set(tmp_path.iterdir())
    assert main.main(arguments("remove", files)) == 1
    assert "No space left on device. Choose --output" in capsys.readouterr().err
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize(("set_by_user", "found"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_waiting_threads_sleep_in_the_command_lines_own_process(
    set_by_user: str | None, found: str
) -> None:
    code = (
        "import os, sys, runpy, importlib\n"
        "class Finder:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'torch': print('torch', os.environ.get('OMP_WAIT_POLICY'))\n"
        "sys.meta_path.insert(0, Finder())\n"
        "sys.argv[1:] = ['--help']\n"
        "runpy.run_module('local_backend', run_name='__main__')"
    )
    env = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    env |= {"OMP_WAIT_POLICY": set_by_user} if set_by_user else {}
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True
    )
    assert run.stdout.startswith(f"torch {found}\n")


def test_who_imports_the_pack_keeps_their_own_wait_policy() -> None:
    code = (
        "import os; from local_backend.__main__ import register; register()\n"
        "import comfyui_onereward.local_backend.cli; print(os.environ.get('OMP_WAIT_POLICY'))"
    )
    env = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True
    )
    assert run.stdout == "None\n"


def test_without_torch_the_command_line_says_how_it_is_installed(tmp_path: Path) -> None:
    code = (
        f"import runpy, sys; sys.argv = ['x', 'demo']; sys.path.insert(0, {str(ROOT)!r}); "
        "runpy.run_module('local_backend', run_name='__main__')"
    )
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode == 1 and "Traceback" not in run.stderr
    assert re.match(r"error: The package \w+ is not installed\. Run: .*install\.py", run.stderr)
