#!/usr/bin/env bash
# Packages: pip 24.3.1, transformers 4.57.6, huggingface-hub 0.36.2, diffusers 0.42.1.
# Behaviour: `pip install diffusers` beside a transformers 4.57 ends with exit code 0 and has replaced
#   huggingface-hub by one that this transformers refuses: it cannot be imported any more. pip says so
#   in a line that begins with ERROR, after it has done it.
# Output seen:
#   before: transformers 4.57.6 huggingface-hub 0.36.2
#   pip install diffusers==0.42.1: exit code 0
#   after: huggingface-hub 2.4.0
#   import transformers: ImportError: huggingface-hub>=0.34.0,<1.0 is required for a normal functioning
# Exits with 0 while that is so, with 1 once it is not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -q pip==24.3.1
"$python" -m pip install -q transformers==4.57.6 huggingface-hub==0.36.2

"$python" -c '
import huggingface_hub, transformers
print("before: transformers", transformers.__version__, "huggingface-hub", huggingface_hub.__version__)'
code=0
"$python" -m pip install -q diffusers==0.42.1 || code=$?
echo "pip install diffusers==0.42.1: exit code $code"
"$python" - "$code" <<'CHECK'
import sys
from importlib.metadata import version

hub = version("huggingface-hub")
print("after: huggingface-hub", hub)
try:
    import transformers  # noqa: F401
except ImportError as error:
    print("import transformers: ImportError:", str(error).splitlines()[0][:70])
    sys.exit(0 if sys.argv[1] == "0" and hub != "0.36.2" else 1)
print("import transformers: works")
sys.exit(1)
CHECK
