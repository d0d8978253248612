#!/usr/bin/env bash
# PyAV 18.1.0 (FFmpeg) reads a tiled TIFF without an error, as garbage.
#
# The same 16-bit RGB pixels are written by tifffile once in strips and once in tiles. FFmpeg's TIFF
# decoder knows strips only, but it takes the tiles' data for strips: the frame has the right size
# and format, and no exception or status tells that the pixels are not those of the file. tifffile
# reads both alike. One expects an error for what is not supported.
#
# Exits 0 while PyAV behaves like that, and with another status once it does not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  "av==18.1.0" "numpy==2.2.6" "tifffile==2025.5.10"
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import av
import numpy as np
import tifffile

print("PyAV", av.__version__, "libavcodec", av.library_versions["libavcodec"])
pixels = np.random.default_rng(0).integers(0, 65536, (32, 48, 3)).astype(np.uint16)
tifffile.imwrite("strips.tiff", pixels, photometric="rgb")
tifffile.imwrite("tiles.tiff", pixels, photometric="rgb", tile=(16, 16))
same = {}
for name in ("strips", "tiles"):
    assert np.array_equal(tifffile.imread(f"{name}.tiff"), pixels)
    with av.open(f"{name}.tiff") as file:
        frame = next(file.decode(video=0))
    share = (frame.to_ndarray() == pixels).mean()
    same[name] = share == 1
    print(f"{name}: no error, {frame.width}x{frame.height} {frame.format.name}, "
          f"{share:.1%} of the values right")
raise SystemExit(0 if same == {"strips": True, "tiles": False} else 1)
PY
