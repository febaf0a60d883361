"""Four maps from the one map of a plain vision transformer."""

from __future__ import annotations

from torch import Tensor, nn


class SimplePyramid(nn.Module):
    """ViTDet's simple feature pyramid (Li et al. 2022, arXiv 2203.16527), without its tails.

    ::

        1/16, D --+-- up 2, D/2, norm, GELU, up 2, D/4 ---- 1/4
                  +-- up 2, D/2 --------------------------- 1/8
                  +---------------------------------------- 1/16
                  +-- max-pool ---------------------------- 1/32

    Detectron2 ends each level in two convolutions of 256 channels; the decoders here reduce
    channels themselves.

    Args:
        width: D, of the transformer.

    Attributes:
        channels: D/4, D/2, D, D.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        half, quarter = width // 2, width // 4
        self.channels = (quarter, half, width, width)
        self.fine = nn.Sequential(
            nn.ConvTranspose2d(width, half, 2, 2),
            LayerNorm2d(half),
            nn.GELU(),
            nn.ConvTranspose2d(half, quarter, 2, 2),
        )
        self.middle = nn.ConvTranspose2d(width, half, 2, 2)
        self.coarse = nn.MaxPool2d(2, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return maps at strides 4, 8, 16, 32 for one (B, D, h, w) at 16, h and w even."""
        return self.fine(x), self.middle(x), x, self.coarse(x)


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised map, of the same shape."""
        normed: Tensor = super().forward(x.permute(0, 2, 3, 1))
        return normed.permute(0, 3, 1, 2)
