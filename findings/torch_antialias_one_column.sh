#!/usr/bin/env bash
# torch 2.13.0, CPU, torch.nn.functional.interpolate(antialias=True), bilinear and bicubic.
#
# Where the result is one column wide, its height is not filtered: every row of the result is made
# of the first rows of the input. A column 0, 1, .., 7 brought to 4 rows comes out as one value in
# all of them; the same column beside a copy of itself (two columns wide) comes out as the ramp that
# it is. Without antialias, and for one row in place of one column, the result is right.
#
# Exits 0 while that is so.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.1
"$work/venv/bin/python" - <<'PYTHON'
import torch
from torch.nn.functional import interpolate

print("torch", torch.__version__)
column = torch.arange(8.0).reshape(1, 1, 8, 1)
for mode in ("bilinear", "bicubic"):
    one = interpolate(column, (4, 1), mode=mode, antialias=True)[0, 0, :, 0]
    two = interpolate(column.expand(1, 1, 8, 2), (4, 2), mode=mode, antialias=True)[0, 0, :, 0]
    row = interpolate(column.transpose(2, 3), (1, 4), mode=mode, antialias=True)[0, 0, 0]
    plain = interpolate(column, (4, 1), mode=mode)[0, 0, :, 0]
    print(mode, "one column", one.tolist(), "two columns", two.tolist())
    print(mode, "one row", row.tolist(), "one column, no antialias", plain.tolist())
    assert torch.allclose(row, two) and plain[0] < plain[1] < plain[2] < plain[3]
    assert one.unique().numel() == 1 and two.unique().numel() == 4
print("still so: a column of one pixel's width is not filtered downwards")
PYTHON
