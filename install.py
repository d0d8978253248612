"""Installs what the pack needs, and changes no package that ComfyUI has: python install.py

Run it with ComfyUI's own Python; ComfyUI-Manager does. Left to itself, pip takes the newest
diffusers, which asks for a newer huggingface-hub, which asks for a newer transformers. So every
package that is there goes to pip as a constraint, and pip chooses a diffusers that fits. Arguments
are handed on: python install.py --dry-run says what would be added.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent
NEEDED = (ROOT / "requirements.txt", ROOT / "local_backend" / "requirements.txt")
# ComfyUI does not bring these: one that is too old for the pack may be replaced by a newer one.
ADDED = frozenset({"diffusers", "accelerate", "gguf", "cachetools"})
# diffusers 0.35 asks for huggingface-hub 0.34, for downloads that the pack never makes, and runs
# on the older ones that go with transformers 4.50. So there it is installed without its own list,
# of which ComfyUI has everything but importlib-metadata.
ASKED_HUB = (0, 34)
ALONE = "diffusers>=0.35,<0.36"
BESIDE = "importlib-metadata"
# What a new virtual environment begins with: old, and nobody's yet where torch is not there.
BUILDERS = frozenset({"pip", "setuptools", "wheel"})
VERSION = re.compile(r"(\d+!)?\d+(\.\d+)*((a|b|rc|\.post|\.dev)\d+)*(\+[a-z0-9]+(\.[a-z0-9]+)*)?")


def main(arguments: list[str]) -> int:
    installed = installed_packages()
    with TemporaryDirectory() as folder:
        constraints = Path(folder) / "installed.txt"
        constraints.write_text("\n".join(as_constraints(installed)), encoding="utf-8")
        for needs in steps(installed):
            command = [*installer(), *needs, "-c", str(constraints), *arguments]
            code = subprocess.run(command).returncode
            if code:
                sys.stderr.write(
                    "OneReward could not be installed, for the reason above. No package of ComfyUI "
                    "was changed. If one of them is too old, update ComfyUI and its requirements, "
                    "and run install.py again.\n"
                )
                return code
    return 0


def installed_packages() -> dict[str, str]:
    """Version by name, of what this Python finds first; names as pip normalises them."""
    found: dict[str, str] = {}
    for package in distributions():
        name = package.metadata["Name"]  # a broken folder has none
        if name and VERSION.fullmatch(package.version or ""):
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), package.version)
    return found


def as_constraints(installed: Mapping[str, str]) -> list[str]:
    """Each package as pip is to leave it. Without torch this is no ComfyUI's Python, and torch asks
    for newer builders than a new virtual environment has.
    """
    free = ADDED if "torch" in installed else ADDED | BUILDERS
    return [
        f"{name}{'>=' if name in free else '=='}{version}"
        for name, version in sorted(installed.items())
    ]


def steps(installed: Mapping[str, str]) -> list[list[str]]:
    """What pip is asked for, one call after the other."""
    needs = [line for file in NEEDED for line in _lines(file)]
    hub = installed.get("huggingface-hub")
    if hub is None or _numbers(hub) >= ASKED_HUB:
        return [needs]
    rest = [need for need in needs if not need.startswith("diffusers")]
    return [[*rest, BESIDE], ["--no-deps", ALONE]]


def installer() -> list[str]:
    """pip of this Python, or uv where there is no pip."""
    if find_spec("pip"):
        return [sys.executable, "-m", "pip", "install"]
    uv = [sys.executable, "-m", "uv"] if find_spec("uv") else [shutil.which("uv") or ""]
    if not uv[0]:
        sys.exit(f"{sys.executable} has neither pip nor uv. Install pip: python -m ensurepip")
    return [*uv, "pip", "install", "--python", sys.executable]


def _lines(file: Path) -> list[str]:
    lines = file.read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
