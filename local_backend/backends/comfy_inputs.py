"""What the ComfyUI backend is given: refuses the wrong models, and reads prompts. Loads nothing."""

from __future__ import annotations

from typing import Any

from ...nodes.errors import InputError

LATENT_CHANNELS = 16
TEXT_LENGTH = 512  # T5 tokens; ComfyUI by itself pads FLUX prompts to 256 only


def check_model(model: Any) -> None:
    """Raises InputError unless it is a MODEL of FLUX.1-Fill's kind."""
    config = getattr(getattr(model, "model", None), "model_config", None)
    shape = getattr(config, "unet_config", {})
    inputs, outputs = shape.get("in_channels", 0), shape.get("out_channels", 0)
    kind = "empty" if model is None else type(config or model).__name__
    if shape.get("image_model") == "flux":
        # Of 96 channels, 16 are noise, 16 the picture and 64 the mask. Nunchaku's loader says 64
        # of the same model; ComfyUI gives a picture and a mask to any with more than 32.
        if outputs == LATENT_CHANNELS and inputs > 2 * LATENT_CHANNELS:
            return
        kind = f"{kind} with {inputs} input channels"
    raise InputError(
        f"MODEL is {kind}; OneReward is a FLUX.1-Fill, with 96 input channels. "
        "Connect a loader of OneReward or FLUX.1-Fill."
    )


def check_vae(vae: Any) -> None:
    """Raises InputError unless it is a VAE of pictures with FLUX's number of channels."""
    channels = getattr(vae, "latent_channels", None)
    if getattr(vae, "first_stage_model", None) is None:
        what = "empty"
    elif vae.latent_dim != 2:
        what = "not one for pictures"
    elif channels != LATENT_CHANNELS:
        what = f"one with {channels} latent channels"
    else:
        return
    raise InputError(
        f"VAE is {what}; FLUX needs its own, with 16 latent channels. "
        "Connect Load VAE with ae.safetensors."
    )


def tokenize(clip: Any, name: str, prompt: str) -> dict[str, Any]:
    """A prompt's tokens as the authors make them: padded to 512, and every sign meant literally,
    where ComfyUI would read parentheses as weights. Leaves the CLIP as it is.

    Args:
        name: what the user calls this prompt.

    Raises:
        InputError: it is no CLIP for FLUX, or there are more tokens than the model reads.
    """
    kinds = set() if clip is None else set(clip.tokenize(""))
    if kinds != {"l", "t5xxl"}:
        raise InputError(
            f"CLIP is {' + '.join(sorted(kinds)) or 'empty'}; FLUX reads l + t5xxl. "
            'Connect DualCLIPLoader with clip_l, t5xxl and the type "flux".'
        )
    # Options given here outweigh those the CLIP carries, and do not stay with it.
    options = {"t5xxl_min_length": TEXT_LENGTH, "t5xxl_min_padding": 0}
    tokens: dict[str, Any] = clip.tokenize(prompt, tokenizer_options=options, disable_weights=True)
    count = max(len(batch) for batch in tokens["t5xxl"])
    if count > TEXT_LENGTH:
        raise InputError(
            f"The {name} has {count} tokens; the model reads at most {TEXT_LENGTH}. Shorten it."
        )
    return tokens
