"""The captions of the training scenes, OneReward's language in small: objects, words, places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .vocabulary import BACKGROUNDS, EXTEND, NEGATIVE, REMOVE, WORDS

OBJECT_TEMPLATES = ("{a} {n}", "{n}", "a photo of {a} {n}", "an image of {a} {n}")
WORD_TEMPLATES = (
    'the word "{w}"',
    'the words "{w}"',
    'the text "{w}"',
    '"{w}"',
    'a sign that says "{w}"',
)
_NO_ARTICLE = (
    "grapes",
    "cheese",
    "bread",
    "glasses",
    "scissors",
    "lightning",
    "fire",
    "corn",
    "ice",
)


@dataclass(frozen=True)
class Captions:
    """All captions as one list, plus index tables that say which fit what; often = likely."""

    texts: list[str]
    sprite: list[list[int]]
    word: list[list[int]]
    background: list[list[int]]
    remove: list[int]
    extend: int
    empty: int
    negative: int


class _Book:
    """Gives every different text one number."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.numbers: dict[str, int] = {}

    def add(self, text: str) -> int:
        text = " ".join(text.split())
        if text not in self.numbers:
            self.numbers[text] = len(self.texts)
            self.texts.append(text)
        return self.numbers[text]


def article(name: str) -> str:
    """ "a", "an" or nothing, as the name asks."""
    if name.split()[0] in _NO_ARTICLE:
        return ""
    return "an" if name[0] in "aeiou" and not name.startswith("uni") else "a"


def phrase(name: str) -> str:
    """The name with its article: "a cat", "an owl", "grapes"."""
    return f"{article(name)} {name}".strip()


def _object_ids(book: _Book, names: Sequence[str]) -> list[int]:
    ids = []
    for i, name in enumerate(names):
        for j, template in enumerate(OBJECT_TEMPLATES):
            if i > 0 and j == 3:
                continue
            weight = (6 if i == 0 else 3) if j == 0 else 1
            ids += [book.add(template.format(a=article(name), n=name))] * weight
        ids.append(book.add(phrase(name).capitalize()))
    return ids


def _word_ids(book: _Book, word: str, known: bool) -> list[int]:
    ids = []
    for j, template in enumerate(WORD_TEMPLATES):
        ids += [book.add(template.format(w=word))] * (4 if j == 0 else 1)
    if known:
        ids.append(book.add(WORD_TEMPLATES[0].format(w=word.lower())))
        ids.append(book.add(WORD_TEMPLATES[4].format(w=word.lower())))
    return ids


def _background_ids(book: _Book, captions: Sequence[str]) -> list[int]:
    ids = []
    for caption in captions:
        weight = 4 if caption == captions[0] else 2
        ids += [book.add(caption)] * weight
        ids.append(book.add(caption.capitalize()))
    return ids


def build_captions(names: Sequence[str], words: Sequence[str]) -> Captions:
    """Captions of sprites ("cat|kitten": one name or more each) and words, WORDS first."""
    book = _Book()
    sprite = [_object_ids(book, alternatives.split("|")) for alternatives in names]
    word = [_word_ids(book, text, k < len(WORDS)) for k, text in enumerate(words)]
    background = [_background_ids(book, captions) for captions in BACKGROUNDS.values()]
    remove = [book.add(REMOVE[0])] * 8 + [book.add(text) for text in REMOVE[1:]]
    extend, empty, negative = book.add(EXTEND), book.add(""), book.add(NEGATIVE)
    return Captions(book.texts, sprite, word, background, remove, extend, empty, negative)
