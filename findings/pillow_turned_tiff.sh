#!/usr/bin/env bash
# Pillow 13.0.0 and TIFF files with an orientation of 5 to 8.
#
# 1. Image.open reports the turned size of a TIFF before its pixels are read, though the orientation
#    is still in its EXIF; of a JPEG, PNG or WebP it reports the stored size. Who exchanges width and
#    height by the EXIF, for a size from the header alone, exchanges a TIFF's twice.
# 2. An uncompressed TIFF of a mode that Pillow maps into memory (L, RGBA) comes out scrambled, and
#    of the stored size, if it is opened by its path: rows are cut at the turned width, and the result
#    is turned again. The same bytes opened as a file object come out right, as do those of mode RGB.
#
# Exits 0 while Pillow behaves like that, and with another status once it does not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "pillow==13.0.0" "numpy==2.2.6"
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import io
import numpy as np
import PIL
from PIL import Image, ImageOps

print("Pillow", PIL.__version__)
exif = Image.Exif()
exif[0x0112] = 6  # to be turned by 90 degrees to the right
sizes = {}
for name in ("JPEG", "PNG", "WEBP", "TIFF"):
    file = io.BytesIO()
    Image.new("RGB", (40, 24)).save(file, name, exif=exif)
    sizes[name] = Image.open(file).size
    print(f"{name}, stored as 40x24, orientation 6: size at open {sizes[name]}")
good = {}
for mode in ("RGB", "RGBA", "L"):
    shape = (24, 40) if mode == "L" else (24, 40, len(mode))
    stored = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    Image.fromarray(stored).save(f"{mode}.tiff", exif=exif)
    for way, file in (("path", f"{mode}.tiff"), ("file object", open(f"{mode}.tiff", "rb"))):
        upright = np.asarray(ImageOps.exif_transpose(Image.open(file)))
        good[mode, way] = np.array_equal(upright, np.rot90(stored, -1))
        print(f"{mode} TIFF by its {way}: {upright.shape[1]}x{upright.shape[0]}, "
              f"{'right' if good[mode, way] else 'scrambled'}")
turned = sizes == {"JPEG": (40, 24), "PNG": (40, 24), "WEBP": (40, 24), "TIFF": (24, 40)}
scrambled = {case for case, right in good.items() if not right} == {("RGBA", "path"), ("L", "path")}
raise SystemExit(0 if turned and scrambled else 1)
PY
