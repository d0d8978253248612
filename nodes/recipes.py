"""From the socket's words (ComfyUI's) to the request's (diffusers'): one recipe per task."""

from __future__ import annotations

from .contracts import (
    ACCELERATION,
    EXTEND_PROMPT,
    NEGATIVE_PROMPT,
    REMOVE_PROMPT,
    EditRecipe,
    EditTask,
)
from .errors import InputError

MAX_SEED = 0xFFFFFFFFFFFFFFFF


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
) -> EditRecipe:
    """The recipe of a task, with the authors' own prompt where they fix one.

    Args:
        prompt: what to paint. Extend without words uses the authors' fixed prompt; Remove always
            does, so it wants an empty one here; Fill without words is refused.

    Raises:
        InputError: the task needs words and there are none.
    """
    return EditRecipe(
        task=task,
        prompt=_task_prompt(task, prompt.strip()),
        negative_prompt=negative_prompt,
        seed=seed,
        num_inference_steps=steps,
        guidance_scale=guidance,
        true_cfg=cfg,
        num_images=num_images,
        acceleration=acceleration,
    )


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
