"""Which picture of a batch goes with which mask."""

from __future__ import annotations

from ..errors import InputError


def pair_batches(images: int, masks: int) -> list[tuple[int, int]]:
    """(image index, mask index) of every edit for batches of these sizes, in order.

    One image meets every mask, one mask meets every image, equal batches go side by side. Raises
    InputError with both counts for all else.
    """
    if images == masks and images > 0:
        return [(i, i) for i in range(images)]
    if images == 1 and masks > 0:
        return [(0, m) for m in range(masks)]
    if masks == 1 and images > 0:
        return [(i, 0) for i in range(images)]
    raise InputError(
        f"{images} images do not pair with {masks} masks. "
        "Connect one mask, one image, or as many masks as images."
    )
