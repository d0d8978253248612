"""Crop and stitch: cutting a crop out of the picture for the model, and pasting its answer back."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import InputError, LocalBackendError
from .geometry import Crop
from .image_ops import pad_reflect, resize, resize_known
from .seam import SeamCorrection, correct_seam, seam_step


def cut(picture: Tensor, crop: Crop) -> tuple[Tensor, Tensor]:
    """What the model gets of a picture [H, W, 3|4]; only the crop's box is read.

    Returns (image float32 [1, h, w, 3] in 0..1, mask float32 [1, h, w], 1 = change, binary), both
    of crop.size. The mask covers every source pixel of crop.model_mask. Where it is 0, the image
    depends on no source pixel of crop.model_mask: what is repainted never counts as known, not
    by the filter that scales, nor by the padding, which mirrors picture and mask alike.
    """
    source = _visible(picture, crop)
    # Max over all source pixels that a model pixel touches: none is lost, whatever the scale.
    touched = functional.adaptive_max_pool2d(crop.model_mask.float()[None, None], crop.scaled)
    mask = touched[0, 0, :, :, None]
    image = resize(source, crop.scaled)
    if image is not source:
        image = torch.where(mask > 0, image, resize_known(source, ~crop.model_mask, crop.scaled))
    image = pad_reflect(image.clamp(0.0, 1.0), crop.size)
    return image[None], pad_reflect(mask, crop.size)[None, :, :, 0]


def paste(
    out: Tensor, crop: Crop, generated: Tensor, seam: float, *, opaque: bool = False
) -> SeamCorrection:
    """Mix the model's answer into `out`, in place, by the crop's blend mask.

    `out` is the caller's own copy of the picture [H, W, 3|4] (any float dtype). It is written only
    where blend > 0: with the answer itself where blend is 1, with a mixture where it is between.
    All other values keep their bits, and so does alpha, unless `opaque`.

    Args:
        generated: float [h, w, 3] of crop.size; clamped to 0..1.
        seam: strength of the seam correction, 0 (off) to 1.
        opaque: alpha is mixed, too, towards 1.

    Returns the colour step across the seam, without and with the correction.

    Raises:
        InputError: `generated` has another size.
        LocalBackendError: it holds values that are no numbers.
    """
    _check_answer(generated, crop)
    scaled = generated[: crop.scaled[0], : crop.scaled[1]].to(out.device)
    patch = resize(scaled, (crop.box.height, crop.box.width)).clamp(0.0, 1.0)
    original = _visible(out, crop)
    blend = crop.blend.to(out.device)
    touched = blend > 0
    without = corrected = seam_step(_covered(original, patch, touched), blend)
    if seam:
        # The feather counts as known: the original shows through it, so a difference is seen.
        patch = correct_seam(original, patch, blend < 1, seam).clamp(0.0, 1.0)
        corrected = seam_step(_covered(original, patch, touched), blend)
    if opaque and out.shape[2] == 4:
        patch = functional.pad(patch, (0, 1), value=1.0)
    _mix(out, crop, patch, blend)
    return SeamCorrection(without, corrected)


def _check_answer(generated: Tensor, crop: Crop) -> None:
    height, width = crop.size
    if tuple(generated.shape) != (height, width, 3):
        came = "x".join(str(side) for side in generated.shape)
        raise InputError(
            f"The generated picture is {came} (height x width x channels), but the crop sent to "
            f"the model was {height}x{width}x3. Use a backend that returns the size it was given."
        )
    if not generated.isfinite().all():
        raise LocalBackendError(
            "The model's picture holds values that are no numbers (NaN or infinity), as half "
            "precision gives where it overflows. Nothing of it was used. Run the model or its VAE "
            "in bf16 or fp32."
        )


def _visible(picture: Tensor, crop: Crop) -> Tensor:
    """The box as a model can see it: float32 RGB in 0..1. What is not a number becomes black."""
    rows, columns = crop.box.slices
    return picture[rows, columns, :3].float().nan_to_num(nan=0.0).clamp(0.0, 1.0)


def _covered(original: Tensor, patch: Tensor, touched: Tensor) -> Tensor:
    """Patch over original, without the feather, which seam_step does not look at."""
    covered = original.clone()
    covered[touched] = patch[touched]
    return covered


def _mix(out: Tensor, crop: Crop, patch: Tensor, blend: Tensor) -> None:
    """Mix `patch` [h, w, 3|4] into the channels of `out` that it has."""
    rows, columns = crop.box.slices
    target = out[rows, columns, : patch.shape[2]]
    touched = blend > 0
    source, answer, weight = target[touched].float(), patch[touched], blend[touched].float()
    # A source value that is not finite cannot be mixed; the answer stands alone there.
    source = torch.where(source.isfinite(), source, answer)
    mixed = torch.lerp(source, answer, weight[:, None])
    opaque = weight >= 1
    mixed[opaque] = answer[opaque]  # lerp may miss it by a rounding
    target[touched] = mixed.to(out.dtype)
