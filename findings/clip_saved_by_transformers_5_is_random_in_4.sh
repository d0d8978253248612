#!/usr/bin/env bash
# Packages: torch 2.14.1, numpy 2.4.6, transformers 5.24.0 and 4.57.6.
# Behaviour: a CLIPTextModel that transformers 5.24 saves does not load in 4.57. Its keys have lost their
#   prefix "text_model.", so 4.57 fills every weight with random numbers, warns, and returns a model.
#   The other way round works: 5.24 reads the keys that 4.57 writes.
# Output seen:
#   5.24.0 saves embeddings.position_embedding.weight
#   4.57.6 missing 20 unexpected 20 equal False
#   4.57.6 saves text_model.embeddings.position_embedding.weight
#   5.24.0 missing 0 unexpected 0 equal True
# Exits with 0 while that is so, with 1 once it is not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
cat >"$folder/clip.py" <<'CLIP'
import sys

import torch
import transformers
from safetensors import safe_open
from transformers import CLIPTextConfig, CLIPTextModel

act, folder = sys.argv[1:]
ids = torch.arange(8)[None]
if act == "save":
    torch.manual_seed(0)
    settings = CLIPTextConfig(
        vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, eos_token_id=7,
    )
    model = CLIPTextModel(settings).eval()
    model.save_pretrained(folder)
    torch.save(model(ids).last_hidden_state.detach(), folder + "/answer.pt")
    with safe_open(folder + "/model.safetensors", "pt") as file:
        print(transformers.__version__, "saves", min(file.keys()))
else:
    model, info = CLIPTextModel.from_pretrained(folder, output_loading_info=True)
    answer = torch.load(folder + "/answer.pt", weights_only=True)
    equal = torch.allclose(model.eval()(ids).last_hidden_state, answer, atol=1e-5)
    missing, unexpected = len(info["missing_keys"]), len(info["unexpected_keys"])
    print(transformers.__version__, "missing", missing, "unexpected", unexpected, "equal", equal)
CLIP
{
  "$python" -m pip install -q torch==2.14.1 numpy==2.4.6 transformers==5.24.0
  "$python" "$folder/clip.py" save "$folder/new"
  "$python" -m pip install -q transformers==4.57.6
  "$python" "$folder/clip.py" load "$folder/new"
  "$python" "$folder/clip.py" save "$folder/old"
  "$python" -m pip install -q transformers==5.24.0
  "$python" "$folder/clip.py" load "$folder/old"
} 2>"$folder/warnings" | tee "$folder/seen" || { cat "$folder/warnings"; exit 1; }
grep -q "^4.57.6 missing \([0-9]*\) unexpected \1 equal False" "$folder/seen"
grep -qx "5.24.0 missing 0 unexpected 0 equal True" "$folder/seen"
