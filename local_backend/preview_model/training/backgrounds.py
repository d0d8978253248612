"""A bank of painted backgrounds and photo crops, from which scenes take their ground."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from .draws import Draws
from .painter import Painter
from .vocabulary import BACKGROUNDS


class Backgrounds:
    """Pictures as bytes on a device, `per_class` of every class, photos (one class more) last."""

    def __init__(
        self, archive: Any, draws: Draws, dtype: torch.dtype, per_class: int, size: int
    ) -> None:
        """`archive` is the opened assets file; `dtype` is the one crops are resampled in."""
        self.draws = draws
        self.dtype = dtype
        self.painter = Painter(size, draws.device, draws.generator)
        self.classes = list(BACKGROUNDS)
        painted, numbers = self._paint_all(per_class)
        self.painted = len(numbers)
        count = int(archive["n_photos"])
        self.photos = [self._decode(archive[f"photo{i}"]) for i in range(count)]
        crops = [
            self._photo_crop(photo, size)
            for photo in self.photos
            for _ in range(max(1, per_class // 3))
        ]
        self.pictures = torch.cat(painted + crops)
        numbers += [len(self.classes)] * len(crops)
        self.numbers = torch.tensor(numbers, device=draws.device)

    def __len__(self) -> int:
        return len(self.pictures)

    def _paint_all(self, per_class: int) -> tuple[list[Tensor], list[int]]:
        pictures: list[Tensor] = []
        numbers: list[int] = []
        for number, name in enumerate(self.classes):
            for start in range(0, per_class, 32):
                n = min(32, per_class - start)
                pictures.append((self.painter.paint(name, n) * 255).round().byte())
                numbers += [number] * n
        return pictures, numbers

    def _decode(self, jpeg: np.ndarray[Any, Any]) -> Tensor:
        image = np.array(Image.open(io.BytesIO(jpeg.tobytes())).convert("RGB"))
        return torch.from_numpy(image).to(self.draws.device).permute(2, 0, 1).float() / 255

    def _photo_crop(self, photo: Tensor, size: int) -> Tensor:
        side = self.draws.integer(200, min(photo.shape[1:]) + 1)
        y = self.draws.integer(0, photo.shape[1] - side + 1)
        x = self.draws.integer(0, photo.shape[2] - side + 1)
        crop = photo[None, :, y : y + side, x : x + side]
        crop = F.interpolate(crop, (size, size), mode="bilinear", antialias=True)
        return (crop * 255).round().clamp(0, 255).byte()

    def drop_photos(self) -> None:
        """Keep painted pictures only: the photos were all trained on, so they measure nothing."""
        self.pictures = self.pictures[: self.painted]
        self.numbers = self.numbers[: self.painted]

    def refresh(self, count: int = 32) -> None:
        """Repaint some pictures of one class, so that the bank never goes stale."""
        number = int(torch.randint(0, len(self.classes), (1,)))
        index = (self.numbers[: self.painted] == number).nonzero()[:, 0]
        index = index[torch.randperm(len(index), device=self.draws.device)[:count]]
        fresh = self.painter.paint(self.classes[number], len(index))
        self.pictures[index] = (fresh * 255).round().byte()

    def crops(self, index: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Random crops, `[n, 3, height, width]` in 0..1, of the pictures `index`; their classes."""
        n = len(index)
        draws = self.draws
        zoom = draws.uniform(n, 0.72, 1.0)
        aspect = width / height
        sx = zoom * min(1, aspect)
        sy = zoom * min(1, 1 / aspect)
        tx = (draws.rand(n) * 2 - 1) * (1 - sx)
        ty = (draws.rand(n) * 2 - 1) * (1 - sy)
        theta = torch.zeros(n, 2, 3, device=draws.device)
        theta[:, 0, 0] = sx * draws.flips(n)
        theta[:, 0, 2] = tx
        theta[:, 1, 1] = sy
        theta[:, 1, 2] = ty
        grid = F.affine_grid(theta, [n, 3, height, width], align_corners=False).to(self.dtype)
        source = self.pictures[index].to(self.dtype) / 255
        ground = F.grid_sample(
            source, grid, mode="bilinear", padding_mode="reflection", align_corners=False
        ).float()
        gain = draws.uniform(n, 0.85, 1.12).view(n, 1, 1, 1)
        tint = 1 + (draws.rand(n, 3, 1, 1) - 0.5) * 0.12
        lift = draws.uniform(n, -0.04, 0.04).view(n, 1, 1, 1)
        return (ground * gain * tint + lift).clamp(0, 1), self.numbers[index]
