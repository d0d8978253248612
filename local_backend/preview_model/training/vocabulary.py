"""What the preview model can be asked for: backgrounds, colours, shapes, words, captions."""

from __future__ import annotations

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (214, 38, 38),
    "orange": (240, 130, 25),
    "yellow": (246, 212, 40),
    "green": (46, 152, 62),
    "blue": (40, 92, 214),
    "purple": (128, 58, 178),
    "pink": (244, 130, 182),
    "white": (246, 246, 246),
    "black": (24, 24, 26),
    "brown": (124, 78, 42),
    "gray": (128, 128, 130),
    "cyan": (38, 190, 208),
}
SHAPES = (
    "circle",
    "square",
    "triangle",
    "rectangle",
    "star",
    "heart",
    "diamond",
    "hexagon",
    "ring",
    "cross",
)
WORDS = tuple(
    "SALE OPEN HELLO LOVE STOP CAFE PIZZA ZOO TAXI BUS HOTEL MUSIC ART BOOK SHOP FLUX COMFY NODE "
    "YES NO WOW NEW FREE HOT COLD TEA COFFEE EXIT PARK BEACH HAPPY PARTY HOME GAME WIN GO PLAY "
    "STAR MOON SUN SKY DREAM BREAD FISH MILK AI OK HI FUN BIG TOP CAT DOG REWARD ONE".split()
)
#: class of background -> captions used by the "extend" task; the first is the usual one
BACKGROUNDS: dict[str, tuple[str, ...]] = {
    "beach": ("a sandy beach", "a beach", "a beach with the sea and blue sky", "a tropical beach"),
    "field": (
        "a grassy field",
        "a green meadow",
        "a field of grass under a blue sky",
        "grass",
    ),
    "desert": ("a desert", "sand dunes", "a desert with sand dunes"),
    "mountains": ("snowy mountains", "a mountain landscape", "mountains"),
    "ocean": ("the ocean", "the sea", "a calm sea under the sky", "blue water"),
    "night": ("a night sky", "a night sky full of stars", "a starry sky"),
    "sunset": ("a sunset", "a sunset over the sea", "an orange sunset sky"),
    "sky": ("a blue sky with clouds", "a blue sky", "deep blue sky, white clouds", "clouds"),
    "brick": ("a brick wall", "a red brick wall", "bricks"),
    "wood": ("wooden planks", "a wooden floor", "a wooden table", "wood"),
    "checker": ("a checkered floor", "a checkerboard pattern"),
    "stripes": ("a striped pattern", "colorful stripes", "a striped wall"),
    "dots": ("polka dots", "a polka dot pattern"),
    "plain": ("a plain background", "a simple background", "a smooth gradient background"),
    "bokeh": ("blurred lights", "a bokeh background", "bokeh lights"),
    "room": ("an empty room", "a room with a wooden floor", "a living room"),
    "city": ("a city skyline", "a city", "tall buildings in a city"),
    "forest": ("a forest", "a pine forest", "trees in a forest"),
    "stones": ("a stone wall", "stones", "pebbles"),
    "hills": ("green hills", "rolling hills", "a landscape with green hills"),
    "road": ("a road", "a road through the countryside", "an empty road"),
    "abstract": ("an abstract pattern", "abstract shapes"),
    "texture": ("a marble texture", "an abstract texture", "a cloudy texture"),
}
REMOVE = ("remove", "remove the object", "remove it")
EXTEND = "high-definition, perfect composition"
NEGATIVE = "nsfw"
