#!/usr/bin/env bash
# Pillow 13.0.0: Image.open(file, formats=[..., "MPO"]) fails for valid files of other formats.
#
# "MPO" is what Image.format says of an opened MPO file, and what save() takes, but no opener is
# registered under that name: MPO files are opened by JPEG's. Image.open walks the given formats in
# order, so every file that none before "MPO" accepts ends in KeyError: 'MPO', even if its own
# format is in the list behind it. One expects the file to be opened, or a ValueError that names the
# unknown format.
#
# Exits 0 while Pillow behaves like that, and with another status once it does not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "pillow==13.0.0"
"$folder/venv/bin/python" - <<'PY'
import io
import PIL
from PIL import Image

print("Pillow", PIL.__version__)
picture, formats, seen = Image.new("RGB", (8, 8)), ["PNG", "JPEG", "MPO", "WEBP", "TIFF", "BMP"], {}
for name in ("MPO", "WEBP", "TIFF", "BMP"):
    file = io.BytesIO()
    picture.save(file, name)
    try:
        seen[name] = f"opened as {Image.open(file, formats=formats).format}"
    except KeyError as error:
        seen[name] = f"KeyError: {error}"
    print(f"a {name} file, formats={formats}: {seen[name]}")
file = io.BytesIO()
picture.save(file, "MPO", save_all=True, append_images=[picture])
print("an MPO file of two pictures, formats=['JPEG']:", Image.open(file, formats=["JPEG"]).format)
expected = {name: "KeyError: 'MPO'" for name in ("WEBP", "TIFF", "BMP")}
raise SystemExit(0 if {name: seen[name] for name in expected} == expected else 1)
PY
