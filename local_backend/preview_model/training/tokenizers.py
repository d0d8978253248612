"""Builds the two tokenizers from our own captions: CLIP's byte-level BPE and T5's unigram."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import regex
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import CLIPTokenizer, PreTrainedTokenizerFast

from .captions import build_captions
from .vocabulary import WORDS

if TYPE_CHECKING:  # transformers 5 adds the old name only when it is asked for
    CLIPTokenizerFast = CLIPTokenizer
else:
    from transformers import CLIPTokenizerFast

CLIP_MERGES = 900
#: training length of a caption in tokens; longer T5 inputs are mixed in
CAPTION_LENGTH = 32
_CLIP_PIECES = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_METASPACE = "\u2581"
_SPECIAL = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}

Pair = tuple[str, str]


@dataclass(frozen=True)
class CaptionIds:
    """All captions as token ids `[captions, CAPTION_LENGTH]`, and the vocabularies' numbers."""

    clip: Tensor
    t5: Tensor
    clip_size: int
    t5_size: int
    clip_start: int
    clip_end: int


def _byte_symbols() -> dict[int, str]:
    """CLIP's printable character for every byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    symbols = {byte: chr(byte) for byte in printable}
    return symbols | {byte: chr(256 + i) for i, byte in enumerate(others)}


def _merge(symbols: list[str], best: Pair) -> list[str]:
    """The word with every occurrence of the pair joined."""
    merged: list[str] = []
    at = 0
    while at < len(symbols):
        if tuple(symbols[at : at + 2]) == best:
            merged.append("".join(best))
            at += 2
        else:
            merged.append(symbols[at])
            at += 1
    return merged


def _learn_merges(texts: Iterable[str], symbols: dict[int, str]) -> list[Pair]:
    """Byte pairs in the order of how often they occur."""
    pieces = regex.compile(_CLIP_PIECES)
    counts = Counter(piece for text in texts for piece in pieces.findall(text.lower()))
    words: dict[str, list[str]] = {}
    for word in counts:
        letters = [symbols[byte] for byte in word.encode()]
        words[word] = [*letters[:-1], letters[-1] + "</w>"]
    merges: list[Pair] = []
    for _ in range(CLIP_MERGES):
        pairs: Counter[Pair] = Counter()
        for word, parts in words.items():
            for left, right in zip(parts, parts[1:], strict=False):
                pairs[left, right] += counts[word]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        words = {word: _merge(parts, best) for word, parts in words.items()}
    return merges


def build_clip_tokenizer(texts: Sequence[str], folder: Path) -> None:
    """Write a CLIPTokenizer folder; vocab.json and merges.txt are for older transformers."""
    symbols = _byte_symbols()
    merges = _learn_merges(texts, symbols)
    single = list(symbols.values())
    vocabulary = single + [s + "</w>" for s in single] + ["".join(pair) for pair in merges]
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    numbers = {token: i for i, token in enumerate(dict.fromkeys(vocabulary))}
    lines = "".join(f"{left} {right}\n" for left, right in merges)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink(missing_ok=True)  # a former run's would be taken instead
    files = {
        "vocab.json": json.dumps(numbers, ensure_ascii=False),
        "merges.txt": "#version: 0.2\n" + lines,
    }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    CLIPTokenizer.from_pretrained(str(folder), model_max_length=77).save_pretrained(folder)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")


def _t5_pieces(texts: Sequence[str]) -> list[tuple[str, float]]:
    """Whole words we know, single characters for the rest: capitals in quotes are spelled."""
    unquoted = (regex.sub(r'"[^"]*"', '"', text) for text in texts)
    known = {word for text in unquoted for word in regex.findall(r"[A-Z]?[a-z]+", text)}
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -30.0)]
    pieces += [(_METASPACE + word, -6.0) for word in sorted(known)]
    pieces += [(word, -6.5) for word in ("high", "definition", "perfect")]
    have = {piece for piece, _ in pieces}
    pieces += [(char, -9.0) for char in [_METASPACE, *map(chr, range(33, 127))]]
    starts = [_METASPACE + char for char in "abcdefghijklmnopqrstuvwxyz"]
    return pieces + [(start, -12.0) for start in starts if start not in have]


def build_t5_tokenizer(texts: Sequence[str], folder: Path) -> None:
    """Write a T5TokenizerFast folder."""
    t5 = Tokenizer(models.Unigram(_t5_pieces(texts), unk_id=2, byte_fallback=False))
    t5.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    )
    marks = pre_tokenizers.Split(Regex(r'[,."!?-]'), "isolated")
    t5.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), marks])
    t5.decoder = decoders.Metaspace()
    t5.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    folder.mkdir(parents=True, exist_ok=True)
    t5.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "T5TokenizerFast",
        "model_max_length": 512,
        **_SPECIAL,
        "extra_ids": 0,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1))
    (folder / "special_tokens_map.json").write_text(json.dumps(_SPECIAL))


def build_tokenizers(assets: Path, work: Path) -> None:
    """Write work/tokenizer (CLIP) and work/tokenizer_2 (T5); random words are left out."""
    with np.load(assets, allow_pickle=False) as archive:
        names = [str(name) for name in archive["names"]]
        words = [str(word) for word in archive["words"]][: len(WORDS)]
    texts = build_captions(names, words).texts
    build_clip_tokenizer(texts, work / "tokenizer")
    build_t5_tokenizer(texts, work / "tokenizer_2")


def caption_ids(work: Path, texts: Sequence[str], device: torch.device) -> CaptionIds:
    """Tokenize all captions with the tokenizers in `work`."""
    clip = CLIPTokenizerFast.from_pretrained(str(work / "tokenizer"))
    file = str(work / "tokenizer_2" / "tokenizer.json")
    t5 = PreTrainedTokenizerFast(tokenizer_file=file, **_SPECIAL)
    clip_ids, t5_ids = [
        tokenizer(
            list(texts),
            padding="max_length",
            max_length=CAPTION_LENGTH,
            truncation=True,
            return_tensors="pt",
        ).input_ids.to(device)
        for tokenizer in (clip, t5)
    ]
    return CaptionIds(clip_ids, t5_ids, len(clip), len(t5), clip.bos_token_id, clip.eos_token_id)
