"""The fast tokenizers of transformers, under the names that all its versions know at run time."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # to type checkers, transformers 5 shows its new names alone
    from transformers import CLIPTokenizer as CLIPTokenizerFast
    from transformers import T5Tokenizer as T5TokenizerFast
else:
    from transformers import CLIPTokenizerFast, T5TokenizerFast

__all__ = ["CLIPTokenizerFast", "T5TokenizerFast"]
