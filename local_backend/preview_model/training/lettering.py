"""Writes words into pictures, on a plate or outlined."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .assets import WORD_HEIGHT, WORD_WIDTH
from .draws import Draws
from .sprites import sprite_grid
from .vocabulary import COLORS, WORDS

INKS = ("white", "black", "red", "blue", "yellow", "green")
#: light inks, which get a dark plate or outline
LIGHT_INKS = ("white", "yellow")


class Lettering:
    """The alpha of every word on a device."""

    def __init__(self, archive: Any, draws: Draws, dtype: torch.dtype, plates: float) -> None:
        """`archive` is the opened assets file; `plates` the share of words written on a plate."""
        self.draws = draws
        self.dtype = dtype
        self.plates = plates
        self.words = [str(word) for word in archive["words"]]
        #: the words of WORDS come first, then random letters
        self.known = sum(word in WORDS for word in self.words)
        self.alpha = torch.from_numpy(archive["word_alpha"]).to(draws.device)
        self.fit = torch.from_numpy(archive["word_fit"]).to(draws.device)

    def __len__(self) -> int:
        return len(self.words)

    def _colors(self, n: int) -> tuple[Tensor, Tensor]:
        """Ink, and the plate's or outline's colour, both `[n, 3, 1, 1]`."""
        device = self.draws.device
        inks = torch.tensor([COLORS[name] for name in INKS], device=device).float() / 255
        is_light = torch.tensor([name in LIGHT_INKS for name in INKS], device=device)
        which = self.draws.pick(n, len(INKS))
        dark = torch.tensor([[0.08, 0.08, 0.1]], device=device).expand(n, 3)
        light = torch.tensor([[0.97, 0.97, 0.95]], device=device).expand(n, 3)
        under = torch.where(is_light[which].view(n, 1), dark, light)
        return inks[which].view(n, 3, 1, 1), under.view(n, 3, 1, 1)

    def _plate(self, grid: Tensor, fit: Tensor, scale: Tensor) -> Tensor:
        """A soft-edged rectangle 6 px larger than the word, `[n, 1, h, w]`."""
        n = len(fit)
        over_x = grid[..., 0].abs() - fit[:, 0].view(n, 1, 1)
        over_y = grid[..., 1].abs() - fit[:, 1].view(n, 1, 1)
        over_x = over_x * (WORD_WIDTH / 2 * scale).view(n, 1, 1)
        over_y = over_y * (WORD_HEIGHT / 2 * scale).view(n, 1, 1)
        return torch.sigmoid(6 - torch.maximum(over_x, over_y))[:, None]

    def draw(
        self,
        picture: Tensor,
        index: Tensor,
        center: tuple[Tensor, Tensor],
        box: tuple[Tensor, Tensor],
    ) -> Tensor:
        """Write word `index` into a box of width and height `box` px at `center` (x, y)."""
        n, _, height, width = picture.shape
        fit = self.fit[index]
        wide = box[0] / (fit[:, 0] * WORD_WIDTH)
        scale = torch.minimum(wide, box[1] / (fit[:, 1] * WORD_HEIGHT)) * 0.92
        extent = (WORD_WIDTH * scale, WORD_HEIGHT * scale)
        turn = self.draws.uniform(n, -0.05, 0.05)
        grid = sprite_grid((height, width), center, extent, turn)
        alpha = self.alpha[index][:, None].to(self.dtype) / 255
        alpha = F.grid_sample(alpha, grid.to(self.dtype), align_corners=False).float()
        ink, other = self._colors(n)
        halo = (F.max_pool2d(alpha, 5, 1, 2) * 1.2).clamp(0, 1)
        plated = (self.draws.rand(n) < self.plates).float().view(n, 1, 1, 1)
        under = plated * self._plate(grid, fit, scale) + (1 - plated) * halo
        picture = picture * (1 - under) + other * under
        return picture * (1 - alpha) + ink * alpha
