"""M2SNet: MSNet whose differences are also taken of 3x3 and 5x5 sums over all channels.

Zhao, Jia, Pang, Lv, Tian, Zhang, Sun, Lu 2023, "M2SNet: Multi-scale in Multi-scale Subtraction
Network for Medical Image Segmentation", arXiv 2303.10894. The paper's "filters" are convolutions
with constant kernels of ones: each output channel is the same sum over a window and all channels,
which is what is computed here. The 1x1 filter is the identity, as in the release. One pair of batch
norms serves all ten units and both operands, so their statistics move 20 times a step.

Counts with one logit at 1024 px: 27,692,585 parameters, 144.413 GMACs (the row of SAM2MS: 144.41).
thop sees the batch norms, not the sums. The release's kernels are neither buffers nor parameters;
here nothing is stored either.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from terradapt.models.baselines.layers import full_precision
from terradapt.models.baselines.msnet import WIDTH, MSNet, MSNetOptions
from terradapt.models.encoder import Encoder

KERNELS = (3, 5)


class WindowDifference(nn.Module):
    """``|a - b| + |P3(a) - P3(b)| + |P5(a) - P5(b)|``, P the normalised sum over a window."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm2d(WIDTH) for _ in KERNELS)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the difference of two maps (B, 64, H, W)."""
        total = (a - b).abs()
        for kernel, norm in zip(KERNELS, self.norms, strict=True):
            total = total + (self._sums(a, kernel, norm) - self._sums(b, kernel, norm)).abs()
        return total

    def _sums(self, x: Tensor, kernel: int, norm: nn.Module) -> Tensor:
        with full_precision(x):  # sums of 1600 values overflow float16
            total = x.float().sum(1, keepdim=True)
            total = kernel**2 * F.avg_pool2d(total, kernel, stride=1, padding=kernel // 2)
            out: Tensor = norm(total.expand(-1, WIDTH, -1, -1)).relu()
            return out


class M2SNet(MSNet):
    """M2SNet on any timm backbone whose stem has 64 channels at stride 2.

    Args:
        encoder: Maps at strides 2, 4, 8, 16, 32.
        num_classes: K.
        options: None to choose.
    """

    def __init__(self, encoder: Encoder, num_classes: int, options: MSNetOptions) -> None:
        super().__init__(encoder, num_classes, options)
        self.difference = WindowDifference()
