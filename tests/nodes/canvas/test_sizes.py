from __future__ import annotations

from collections.abc import Callable

import pytest
from onereward_pack.nodes.canvas.sizes import Extension, Target, parse_extend, parse_target
from onereward_pack.nodes.errors import InputError


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("auto", Target("auto")),
        (" Native ", Target("native")),
        ("1 MP", Target("pixels", pixels=1024 * 1024)),
        ("1.5mp", Target("pixels", pixels=1572864)),
        ("1024", Target("side", side=1024)),
        ("1024x768", Target("exact", width=1024, height=768)),
        ("1024 X 768", Target("exact", width=1024, height=768)),
        ("1024\u00d7768", Target("exact", width=1024, height=768)),
        ("16", Target("side", side=16)),
        ("16384", Target("side", side=16384)),
        ("\uff11\uff10\uff12\uff14", Target("side", side=1024)),
        ("1,5 MP", Target("pixels", pixels=1572864)),
    ],
)
def test_targets_are_read(text: str, target: Target) -> None:
    assert parse_target(text) == target


@pytest.mark.parametrize("text", ["", "big", "1.5", "-512", "1024x", "x768", "1024x768x3", "MP"])
def test_an_unknown_target_is_named_with_the_forms_that_are_accepted(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_target(text)
    assert repr(text) in str(caught.value)
    for form in ('"auto"', '"native"', '"1.5 MP"', '"1024"', '"1024x768"'):
        assert form in str(caught.value)


@pytest.mark.parametrize("text", ["0", "15", "16385", "1024x8", "20000x512", "0 MP", "65 MP"])
def test_a_target_out_of_range_is_named_with_the_range(text: str) -> None:
    with pytest.raises(InputError, match=r"out of range\. Use .* to .*, such as") as caught:
        parse_target(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "extension"),
    [
        ("256", Extension(sides=(256, 256, 256, 256))),
        ("256 px", Extension(sides=(256, 256, 256, 256))),
        ("left 256, right 128", Extension(sides=(256, 0, 128, 0))),
        ("Bottom 64px", Extension(sides=(0, 0, 0, 64))),
        ("top 1,left 0", Extension(sides=(0, 1, 0, 0))),
        ("1.5x", Extension(factor=1.5)),
        ("2 x", Extension(factor=2.0)),
        ("16:9", Extension(aspect=16 / 9)),
        ("2.39:1", Extension(aspect=2.39)),
        ("1920x1080", Extension(size=(1920, 1080))),
        ("1920 px \u00d7 1080 px", Extension(size=(1920, 1080))),
        ("\uff11\uff19\uff12\uff10\uff581080", Extension(size=(1920, 1080))),
        ("16\uff1a9", Extension(aspect=16 / 9)),
        ("\uff11\uff16\uff1a\uff19", Extension(aspect=16 / 9)),
        ("16\u22369", Extension(aspect=16 / 9)),
        ("2.39 : 1", Extension(aspect=2.39)),
        ("2,39:1", Extension(aspect=2.39)),
        ("16/9", Extension(aspect=16 / 9)),
        ("1,5x", Extension(factor=1.5)),
        ("150%", Extension(factor=1.5)),
        ("112,5 %", Extension(factor=1.125)),
        ("\uff12\uff10\uff10\uff05", Extension(factor=2.0)),
        ("left: 256\uff0cright=128", Extension(sides=(256, 0, 128, 0))),
        ("left 256\u3001right 128px", Extension(sides=(256, 0, 128, 0))),
    ],
)
def test_extensions_are_read(text: str, extension: Extension) -> None:
    assert parse_extend(text) == extension


@pytest.mark.parametrize("text", ["", "wide", "left", "left 5 right 6", "left -5", "1.5", "16:9:1"])
def test_an_unknown_extension_is_named_with_the_forms_that_are_accepted(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_extend(text)
    assert repr(text) in str(caught.value)
    for form in ('"256"', '"left 256, right 128"', '"1.5x"', '"16:9"', '"1920x1080"'):
        assert form in str(caught.value)


@pytest.mark.parametrize("text", ["0", "left 0", "left 0, top 0"])
def test_an_extension_by_nothing_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="adds nothing"):
        parse_extend(text)


@pytest.mark.parametrize(
    "text", ["1x", "0.5x", "17x", "0:1", "1:0", "17:1", "8x8", "99999", "16385", "0%", "1601%"]
)
def test_an_extension_out_of_range_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="out of range|too far") as caught:
        parse_extend(text)
    assert repr(text) in str(caught.value)


def test_a_side_named_twice_is_refused() -> None:
    with pytest.raises(InputError, match="names left twice"):
        parse_extend("left 5, left 6")


@pytest.mark.parametrize("text", ["16x9", "21 x 9", "4\u00d73"])
def test_an_aspect_written_as_a_canvas_is_answered_with_the_aspect(text: str) -> None:
    width, height = text.replace("\u00d7", "x").replace(" ", "").split("x")
    with pytest.raises(InputError, match=f"out of range.*if you mean the aspect, {width}:{height}"):
        parse_extend(text)


@pytest.mark.parametrize(
    ("text", "meant"), [("50%", "150%"), ("100 %", "200%"), ("0,5%", "100.5%")]
)
def test_a_percentage_that_would_shrink_is_answered_with_the_one_that_adds(
    text: str, meant: str
) -> None:
    with pytest.raises(InputError, match=f"more than 100%.*write {meant}"):
        parse_extend(text)


@pytest.mark.parametrize("read", [parse_extend, parse_target])
@pytest.mark.parametrize("text", ["9" * 5000, "9" * 5000 + "x", "9" * 400 + ":" + "9" * 400])
def test_digits_without_end_are_refused_like_any_other_words(
    read: Callable[[str], object], text: str
) -> None:
    with pytest.raises(InputError):
        read(text)
