"""Installing the pack changes no package that ComfyUI has: pip's own word, in four Pythons.

Each is a list of names and versions in data/installs, laid out as the metadata that pip reads.
"""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
import venv
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SETS = Path(__file__).resolve().parent / "data" / "installs"
NEEDED = (ROOT / "requirements.txt", ROOT / "local_backend" / "requirements.txt")
# What diffusers each Python gets: the newest that fits, or none where there is one.
ADDED = {
    "torch-2.6": r"0\.35\.\d+",
    "transformers-4.57": r"0\.37\.\d+",
    "newest": r"\d+\.\d+\.\d+",
    "newest-diffusers": None,
}

Names = dict[str, str]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def read_set(name: str) -> dict[str, tuple[str, list[str]]]:
    """Version and own requirements by the package's name."""
    packages: dict[str, tuple[str, list[str]]] = {}
    package = ""
    for line in (SETS / f"{name}.txt").read_text("utf-8").splitlines():
        if line.startswith("    "):
            packages[package][1].append(line.strip())
        elif not line.startswith("#"):
            package, version = line.split("==")
            packages[package] = (version, [])
    return packages


class Emulated:
    """A Python of its own that has pip, and of all else the metadata."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=True, symlinks=os.name != "nt")
        windows = os.name == "nt"
        self.python = folder / ("Scripts/python.exe" if windows else "bin/python")
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        self.site = folder / ("Lib" if windows else f"lib/{version}") / "site-packages"

    def fill(self, packages: Mapping[str, tuple[str, list[str]]]) -> None:
        for old in self.site.glob("*.dist-info"):
            shutil.rmtree(old)
        for name, (version, needs) in packages.items():
            info = self.site / f"{name.replace('-', '_')}-{version}.dist-info"
            info.mkdir()
            lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
            lines += [f"Requires-Dist: {need}" for need in needs]
            (info / "METADATA").write_text("\n".join(lines) + "\n")
            (info / "RECORD").write_text("")
            (info / "INSTALLER").write_text("pip\n")

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [str(self.python), *map(str, arguments)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)

    def would_install(self, *arguments: str | Path) -> Names:
        """Version by name of all that pip would add or put in the place of another."""
        run = self.run(*arguments, "--dry-run")
        assert run.returncode == 0, run.stdout + run.stderr
        found = re.findall(r"^Would install (.*)$", run.stdout, re.MULTILINE)
        words = [word.rpartition("-") for line in found for word in line.split()]
        return {normal(name): version for name, _, version in words}


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Emulated:
    return Emulated(tmp_path_factory.mktemp("emulated"))


@pytest.fixture(params=ADDED)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_install_py_only_adds(emulated: Emulated, name: str) -> None:
    there = read_set(name)
    emulated.fill(there)
    added = emulated.would_install(ROOT / "install.py")
    assert added.keys() & there.keys() == set()
    assert {"accelerate", "gguf", "protobuf"} <= added.keys()
    expected = ADDED[name]
    assert ("diffusers" in added) is (expected is not None)
    assert expected is None or re.fullmatch(expected, added["diffusers"])


def test_requirements_txt_alone_asks_for_nothing_that_comfyui_has_not(
    emulated: Emulated, name: str
) -> None:
    emulated.fill(read_set(name))
    assert emulated.would_install("-m", "pip", "install", "-r", NEEDED[0]) == {}


def test_pip_alone_would_move_three_packages(emulated: Emulated) -> None:
    """So the metadata say what a real Python says, and a change would be seen."""
    there = read_set("transformers-4.57")
    emulated.fill(there)
    moved = emulated.would_install("-m", "pip", "install", "-r", NEEDED[1]).keys() & there.keys()
    assert {"transformers", "huggingface-hub", "safetensors"} <= moved


def test_a_diffusers_that_is_too_old_for_the_pack_is_replaced_by_one_that_fits(
    emulated: Emulated,
) -> None:
    there = read_set("transformers-4.57") | {"diffusers": ("0.34.0", [])}
    emulated.fill(there)
    added = emulated.would_install(ROOT / "install.py")
    assert added["diffusers"].startswith("0.37.")
    assert added.keys() & there.keys() == {"diffusers"}


def test_a_package_of_comfyui_that_is_too_old_is_told_and_left(emulated: Emulated) -> None:
    emulated.fill(read_set("transformers-4.57") | {"transformers": ("4.49.0", [])})
    run = emulated.run(ROOT / "install.py", "--dry-run")
    assert run.returncode != 0 and "Would install" not in run.stdout
    assert "transformers==4.49.0" in run.stdout + run.stderr
    assert "No package of ComfyUI was changed" in run.stderr


@pytest.mark.parametrize("text", [NEEDED[0].read_text("utf-8")])
def test_requirements_txt_names_no_version(text: str) -> None:
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert lines and all(re.fullmatch("[a-z]+", line) for line in lines)


@pytest.mark.parametrize(
    ("installed", "expected"),
    [
        ({"pip": "23.0", "setuptools": "65.5.0"}, ["pip>=23.0", "setuptools>=65.5.0"]),
        ({"setuptools": "65.5.0", "torch": "2.6.0"}, ["setuptools==65.5.0", "torch==2.6.0"]),
        ({"gguf": "0.9.0", "torch": "2.6.0"}, ["gguf>=0.9.0", "torch==2.6.0"]),
    ],
)
def test_only_a_new_environments_own_tools_may_move(installed: Names, expected: list[str]) -> None:
    """Held at an old setuptools, pip takes an old torch, after it has fetched all newer ones."""
    script = runpy.run_path(str(ROOT / "install.py"))
    assert script["as_constraints"](installed) == expected
