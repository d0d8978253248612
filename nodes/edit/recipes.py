"""One recipe per task: its prompt and sampling numbers (canvas defaults are in edit/plan.py).

It turns the socket's names (ComfyUI's) into the request's (diffusers').
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..contracts import (
    ACCELERATION,
    EXTEND_PROMPT,
    NEGATIVE_PROMPT,
    REMOVE_PROMPT,
    EditRecipe,
    EditTask,
)
from ..errors import InputError

# What ComfyUI's and other text encoders take out of a prompt, and OneReward's recipe does not.
_SYNTAX = (
    re.compile(r"\([^()]+:\s*-?\d+(?:\.\d+)?\)"),
    re.compile(r"<(?:lora|lyco|hypernet):[^>]*>", re.IGNORECASE),
)
_EMBEDDING = re.compile(r"\bembedding:[^\s,]+", re.IGNORECASE)
CUSTOM = "custom"


@dataclass(frozen=True)
class Preset:
    """Numbers that belong together."""

    steps: int
    cfg: float
    guidance: float

    @property
    def text(self) -> str:
        return f"{self.steps} steps, cfg {self.cfg:g}, guidance {self.guidance:g}"


# The first two are the authors', with fal's number of steps and with their own. "fast" is what
# ComfyUI's own template for OneReward does, with one pass per step in place of two.
PRESETS: dict[str, Preset | None] = {
    CUSTOM: None,
    "28": Preset(28, 4.0, 1.0),
    "quality 50": Preset(50, 4.0, 1.0),
    "fast (cfg 1)": Preset(20, 1.0, 30.0),
    "plain FLUX Fill": Preset(28, 1.0, 30.0),
}


def make_recipe(
    task: EditTask,
    *,
    prompt: str,
    seed: int,
    steps: int,
    cfg: float,
    num_images: int,
    negative_prompt: str = NEGATIVE_PROMPT,
    guidance: float = 1.0,
    acceleration: str = ACCELERATION,
    preset: str = CUSTOM,
) -> EditRecipe:
    """The recipe of a task, with the authors' own prompt where they fix one.

    Args:
        prompt: what to paint. Extend without a prompt uses the authors' fixed one; Remove always
            does, so it wants an empty one here; Fill without a prompt is refused.
        preset: one of PRESETS, whose numbers go before steps, cfg and guidance.

    Raises:
        InputError: the task needs a prompt and there is none, or there is no such preset.
    """
    numbers = _preset(preset) or Preset(steps, cfg, guidance)
    return EditRecipe(
        task=task,
        prompt=_task_prompt(task, prompt.strip()),
        negative_prompt=negative_prompt,
        seed=seed,
        num_inference_steps=numbers.steps,
        guidance_scale=numbers.guidance,
        true_cfg=numbers.cfg,
        num_images=num_images,
        acceleration=acceleration,
    )


def preset_line(name: str) -> str:
    """What a preset did, for the report; nothing for the inputs' own numbers."""
    numbers = _preset(name)
    return f"preset {name}: {numbers.text}" if numbers else ""


def _preset(name: str) -> Preset | None:
    if name not in PRESETS:
        raise InputError(f'There is no preset "{name}". Use one of: {", ".join(PRESETS)}.')
    return PRESETS[name]


def _task_prompt(task: EditTask, prompt: str) -> str:
    if task is EditTask.REMOVE:
        return REMOVE_PROMPT
    if task is EditTask.EXTEND:
        return prompt or EXTEND_PROMPT
    if not prompt:
        raise InputError(
            'The prompt is empty. Say what should appear in the mask, such as "a cat"; '
            "to take something away, use OneReward Remove."
        )
    return prompt


def literal_note(prompt: str, embeddings: bool = False) -> str:
    """A note on a prompt that is written for other nodes; "" for plain text.

    Args:
        embeddings: whoever reads it knows embeddings.
    """
    plain = re.sub('"[^"]*"', "", prompt)  # what is to be written may look as it likes
    patterns = _SYNTAX if embeddings else (*_SYNTAX, _EMBEDDING)
    found = [match[0] for pattern in patterns if (match := pattern.search(plain))]
    if not found:
        return ""
    return f"Prompts are read literally, so this is no weight, LoRA or embedding: {' '.join(found)}"


def text_prompt(text: str, scene: str = "") -> str:
    """The authors' pattern for words in a picture: one quoted part per line of `text`.

    >>> text_prompt("Byte\\nDance", "on a red sign")
    'the words "Byte", and in the next line "Dance", on a red sign'

    Raises:
        InputError: there is no word in `text`.
    """
    # A double quote inside a line would end the quoted part early.
    lines = [line.strip().replace('"', "'") for line in text.splitlines() if line.strip()]
    if not lines:
        raise InputError("The text is empty. Type the words to write, one line of text per line.")
    quoted = ", and in the next line ".join(f'"{line}"' for line in lines)
    scene = scene.strip()
    return f"the words {quoted}" + (f", {scene}" if scene else "")
