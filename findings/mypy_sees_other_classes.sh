#!/usr/bin/env bash
# mypy 2.4.1 over transformers 5.24.0 and diffusers 0.42.1.
#
# Both libraries import their classes lazily and show type checkers another list than the program
# gets. `from transformers import CLIPTokenizerFast` runs, and mypy says that there is no such name.
# `from diffusers import AutoencoderKL` passes, but what mypy sees is the stand-in for machines without
# torch (diffusers.utils.dummy_pt_objects): any arguments are right, and a method that the class has,
# tiled_decode, is an error. From the module that defines the class, both are seen as they are.
#
# Exits 0 while that is so.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet mypy==2.4.1 transformers==5.24.0 diffusers==0.42.1
cat >"$work/names.py" <<'PYTHON'
from transformers import CLIPTokenizerFast
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL as Defined

reveal_type(AutoencoderKL)
AutoencoderKL(1, 2, no_such_argument=3).tiled_decode
reveal_type(Defined)
PYTHON
"$work/venv/bin/python" -c "from transformers import CLIPTokenizerFast as c; print('runs:', c)"
cd "$work"
found=$("$work/venv/bin/mypy" --ignore-missing-imports --follow-imports silent names.py || true)
printf '%s\n' "$found"
grep -q 'Module "transformers" has no attribute "CLIPTokenizerFast"' <<<"$found"
grep -q 'names.py:5.*dummy_pt_objects.AutoencoderKL' <<<"$found"
grep -q 'names.py:6.*"AutoencoderKL" has no attribute "tiled_decode"' <<<"$found"
if grep -qE 'names.py:7.*dummy|no_such_argument' <<<"$found"; then exit 1; fi
echo "still so: mypy sees other classes than the program gets"
