"""`python -m local_backend`, run in the pack's folder.

The pack is a package only inside ComfyUI, which gives it a name of its own. This does the same, so
that relative imports reach ../nodes, but leaves the pack's __init__ (it needs ComfyUI) unrun.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "comfyui_onereward"


def register() -> None:
    """Makes the pack the package of that name in this process, once."""
    if PACKAGE in sys.modules:
        return
    spec = spec_from_file_location(
        PACKAGE, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    if spec is None:
        raise ImportError(f"{ROOT / '__init__.py'} is missing. Install the pack again.")
    sys.modules[PACKAGE] = module_from_spec(spec)


def main() -> int:
    # Beside other programs, torch's waiting threads slow each other down many times over if they
    # spin. It is read where torch is imported, and is this process's own to set: others import us.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    register()
    try:
        command_line = import_module(f"{PACKAGE}.local_backend.cli.main")
    except ModuleNotFoundError as error:
        if (error.name or PACKAGE).startswith(PACKAGE):
            raise
        sys.stderr.write(
            f"error: The package {error.name} is not installed. Run: "
            f'"{sys.executable}" "{ROOT / "install.py"}"\n'
        )
        return 1
    return int(command_line.main(sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(main())
