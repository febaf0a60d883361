"""Adapters: small residual bottlenecks before the blocks of a frozen trunk.

Shapes: B batch, H W tokens, d the block's input width.
"""

from __future__ import annotations

from torch import Tensor, nn

ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU}


class Adapter(nn.Module):
    """``x + act(W2 act(W1 x))``, W1: d -> width, W2: width -> d, both with bias.

    SAM2-UNet and the releases of SAM2MS and SAM2-ARAFNet use GELU; SAM2MS's text says ReLU.

    Args:
        dim: d, the width of the block that follows.
        width: Hidden width.
        activation: ``"gelu"`` or ``"relu"``.
    """

    def __init__(self, dim: int, width: int = 32, activation: str = "gelu") -> None:
        super().__init__()
        self.down = nn.Linear(dim, width)
        self.up = nn.Linear(width, dim)
        self.act = ACTIVATIONS[activation]()

    def forward(self, x_BHWd: Tensor) -> Tensor:
        """Return the adapted tokens, of the same shape."""
        out: Tensor = x_BHWd + self.act(self.up(self.act(self.down(x_BHWd))))
        return out
