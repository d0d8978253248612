#!/usr/bin/env bash
# Packages: transformers 4.57.6 and 5.24.0.
# Behaviour: CLIPTokenizer gives Chinese text other ids in 4.57 than in 5.24, from the same vocab.json
#   and merges.txt: the older one is a class of its own that ends a word after every Chinese character
#   (unless the package ftfy is there, too), the newer one and CLIPTokenizerFast of both do not.
# Output seen, for two Chinese characters in a vocabulary of single bytes:
#   4.57.6 CLIPTokenizer     [512, 163, 234, 360, 161, 228, 503, 513]
#   4.57.6 CLIPTokenizerFast [512, 163, 234, 104, 161, 228, 503, 513]
#   5.24.0 CLIPTokenizer     [512, 163, 234, 104, 161, 228, 503, 513]
#   5.24.0 CLIPTokenizerFast [512, 163, 234, 104, 161, 228, 503, 513]
# Exits with 0 while that is so, with 1 once it is not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
cat >"$folder/ids.py" <<'IDS'
import json
import sys
from pathlib import Path

import transformers
from transformers import CLIPTokenizer, CLIPTokenizerFast

folder = Path(sys.argv[1])
# CLIP's letters of the 256 bytes: those that can be printed, then the others from 256 on
printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
letters = [chr(byte) for byte in printed] + [chr(256 + number) for number in range(256 - len(printed))]
words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
(folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
(folder / "merges.txt").write_text("#version: 0.2\n")
(folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))
for kind, name in ((CLIPTokenizer, "CLIPTokenizer"), (CLIPTokenizerFast, "CLIPTokenizerFast")):
    ids = kind.from_pretrained(folder)("\u732b\u5199").input_ids
    print(f"{transformers.__version__} {name:17} {ids}")
IDS
for version in 4.57.6 5.24.0; do
  "$python" -m pip install -q "transformers==$version"
  mkdir "$folder/$version"
  "$python" "$folder/ids.py" "$folder/$version" 2>/dev/null
done | tee "$folder/seen"
old=$(sed -n 's/^4.57.6 CLIPTokenizer  *//p' "$folder/seen")
others=$(sed '1d; s/^[^[]*//' "$folder/seen" | sort -u)
[ "$(wc -l <"$folder/seen")" = 4 ] && [ "$(wc -l <<<"$others")" = 1 ] && [ "$old" != "$others" ]
