"""What is told of a package that is missing, too old, somebody else's copy, or does not fit."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest
from onereward_pack.nodes.backends import PREVIEW, resolve_backend
from onereward_pack.nodes.errors import MissingDependencyError
from onereward_pack.nodes.packages import (
    FLOORS,
    INSTALL,
    PROJECTS,
    Found,
    check_floors,
    find_package,
    imported_packages,
)

ROOT = Path(__file__).resolve().parents[2]
RESOLVE = (
    "import sys; sys.path.insert(0, 'tests'); import conftest; sys.path[:0] = sys.argv[1:]\n"
    "from pathlib import Path\n"
    "from onereward_pack.nodes.backends import PREVIEW, resolve_backend\n"
    "from onereward_pack.nodes.errors import OneRewardError\n"
    "try:\n    print(resolve_backend(PREVIEW, Path()).name)\n"
    "except OneRewardError as error:\n    print(type(error).__name__, error)\n"
)


def write_package(folder: Path, name: str, code: str) -> Path:
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(code)
    return folder


def told(folder: Path) -> str:
    """What a run says with this folder first on Python's path."""
    run = subprocess.run(
        [sys.executable, "-c", RESOLVE, str(folder)], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_this_machine_s_packages_are_new_enough_and_found_where_they_are() -> None:
    check_floors()
    for name in FLOORS:
        found = find_package(name)
        assert found is not None and found.installed
        assert found.version.split("+")[0] == version(PROJECTS.get(name, name)).split("+")[0]


def test_another_pack_s_old_diffusers_is_named_with_its_place(tmp_path: Path) -> None:
    folder = write_package(tmp_path / "OtherPack", "diffusers", "__version__ = '0.20.2'\n")
    words = told(folder)
    assert words.startswith(f"MissingDependencyError diffusers 0.20.2 in {folder} is too old: ")
    assert "OneReward needs 0.35.0 or newer" in words and "Switch that custom node off" in words
    assert words.endswith(f"run: {INSTALL}") and "upgrade" not in words


def test_another_pack_s_broken_copy_is_named_with_its_reason(tmp_path: Path) -> None:
    code = "__version__ = '0.36.0'\nimport torch\ntorch.no_such_device\n"
    words = told(write_package(tmp_path, "diffusers", code))
    assert words.startswith(f"MissingDependencyError diffusers 0.36.0 in {tmp_path} does not go")
    assert "module 'torch' has no attribute 'no_such_device'" in words
    assert "Switch that custom node off" in words


def test_a_copy_that_lacks_what_is_imported_is_at_fault_itself(tmp_path: Path) -> None:
    words = told(write_package(tmp_path, "diffusers", "__version__ = '0.36.0'\n"))
    assert words.startswith(f"MissingDependencyError diffusers 0.36.0 in {tmp_path} does not go")
    assert re.search("cannot import name|No module named 'diffusers", words)


def test_the_one_who_asked_is_at_fault_not_the_one_who_was_asked(tmp_path: Path) -> None:
    """As diffusers, whose lazy modules wrap what their packages raise."""
    asked = "def __getattr__(name):\n    raise AttributeError(f'no {name} in transformers')\n"
    write_package(tmp_path, "transformers", "__version__ = '4.57.6'\n" + asked)
    code = (
        "__version__ = '0.36.0'\nimport transformers\n"
        "try:\n    transformers.T5\n"
        "except AttributeError as error:\n    raise RuntimeError('Failed to import') from error\n"
    )
    words = told(write_package(tmp_path, "diffusers", code))
    assert words.startswith(f"MissingDependencyError diffusers 0.36.0 in {tmp_path} does not go")
    assert "beside it: no T5 in transformers. " in words


def test_an_old_torch_is_told_before_diffusers_meets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch, "__version__", "2.4.1+cu121")
    words = r"torch 2\.4\.1\+cu121 in .* is too old: OneReward needs 2\.6\.0 .* update ComfyUI"
    with pytest.raises(MissingDependencyError, match=words) as failure:
        resolve_backend(PREVIEW, tmp_path)
    assert "pip" not in str(failure.value)


@pytest.mark.parametrize(("name", "old"), [("scipy", "1.11.2"), ("PIL", "10.0.1")])
def test_what_would_cut_wrongly_runs_no_edit_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, old: str
) -> None:
    monkeypatch.setattr(import_module(name), "__version__", old)
    with pytest.raises(MissingDependencyError, match=f"{PROJECTS.get(name, name)} {old} in "):
        resolve_backend(PREVIEW, tmp_path)


def test_a_missing_package_is_named_with_the_command_that_moves_nothing() -> None:
    with pytest.raises(MissingDependencyError) as failure, imported_packages():
        import no_such_package.models  # type: ignore[import-not-found]  # noqa: F401
    assert str(failure.value) == f"The package no_such_package is not installed. Run: {INSTALL}"
    assert INSTALL == f'"{sys.executable}" "{ROOT / "install.py"}"'
    assert (ROOT / "install.py").is_file()


def test_an_installed_diffusers_that_does_not_fit_may_be_chosen_anew(tmp_path: Path) -> None:
    folder = write_package(tmp_path / "site-packages", "diffusers", "__version__ = '0.30.3'\n")
    words = told(folder)
    assert f"-m pip uninstall diffusers, and then: {INSTALL}" in words


def test_a_fault_of_the_pack_is_not_blamed_on_a_package() -> None:
    with pytest.raises(AttributeError), imported_packages():
        ModuleType("ours").missing  # noqa: B018


@pytest.mark.parametrize(
    ("folder", "installed"), [("/a/lib/python3.12/site-packages", True), ("/a/custom", False)]
)
def test_where_pip_installs_is_known(folder: str, installed: bool) -> None:
    assert Found("diffusers", "0.35.0", Path(folder)).installed is installed


def test_the_floors_are_those_of_pyproject() -> None:
    said = dict(
        re.findall(r'^    "([\w-]+)>=([\d.]+)",$', (ROOT / "pyproject.toml").read_text(), re.M)
    )
    for name, floor in FLOORS.items():
        assert f"{said[PROJECTS.get(name, name)]}.0".startswith(floor.removesuffix(".0"))
