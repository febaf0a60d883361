"""SGCN: a dilated ResNet-50, two graph convolutions on Sobel gradients, a U-Net decoder.

Zhou, Chen, Gui, Li, Wang 2022, "Split Depth-Wise Separable Graph-Convolution Network for Road
Extraction in Complex Environments from High-Resolution Remote-Sensing Images", IEEE TGRS 60,
doi 10.1109/TGRS.2021.3128033.

Two slips of the release, which ``graph: release`` brings back: its Sobel filter on the channels is
a full convolution, so that every channel gets the gradient of the channels' sum; and its softmax
runs over the batch, so that a single image's adjacency is all ones and images of a batch meet. Its
adjacency has no gradient. By default (``graph: paper``) the filter is depthwise, rows of the
adjacency sum to 1, gradients flow, and every image stands alone. Parameters and MACs are the same.

Counts with one logit at 1024 px: 42,726,273 parameters, 1234.376 GMACs (the row of SAM2MS, 1234.41:
thop counts the release's softmax, a module). 1,181,184 parameters that the release never uses are
left out. The pooling rounds up, so that maps after it have one row and column more than their
stride says: at 1024 px the graph of positions has 65 x 65 nodes, 68 MiB for each image. Two classes
have one logit, K > 2 classes have K.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from terradapt.config import ConfigPart
from terradapt.models.baselines.layers import full_precision
from terradapt.models.baselines.own import OwnEncoderModel
from terradapt.models.contract import Prediction, class_logits, head_channels
from terradapt.models.encoder import Encoder
from terradapt.models.layers import conv, conv_bn, conv_bn_relu

Graph = Literal["paper", "release"]


class SGCNOptions(ConfigPart):
    """How the adjacency is made."""

    graph: Graph = "paper"


class Bottleneck(nn.Module):
    """ResNet's bottleneck, the stride on its 3x3 convolution."""

    def __init__(self, cin: int, width: int, stride: int, dilation: int) -> None:
        super().__init__()
        cout = 4 * width
        middle = nn.Conv2d(
            width, width, 3, stride=stride, padding=dilation, dilation=dilation, bias=False
        )
        self.convs = nn.Sequential(
            conv_bn_relu(cin, width, 1),
            nn.Sequential(middle, nn.BatchNorm2d(width), nn.ReLU(inplace=True)),
            conv_bn(width, cout, 1),
        )
        self.shortcut = (
            nn.Identity()
            if cin == cout
            else nn.Sequential(
                nn.Conv2d(cin, cout, 1, stride=stride, bias=False), nn.BatchNorm2d(cout)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, 4 width, H / stride, W / stride)."""
        out: Tensor = (self.convs(x) + self.shortcut(x)).relu()
        return out


def stage(cin: int, width: int, stride: int, dilations: tuple[int, ...]) -> nn.Sequential:
    """Return a stage with one bottleneck for each dilation."""
    return nn.Sequential(
        Bottleneck(cin, width, stride, dilations[0]),
        *(Bottleneck(4 * width, width, 1, d) for d in dilations[1:]),
    )


class DilatedResNet(Encoder):
    """A ResNet-50 that stays at stride 8, with two convolution blocks before it."""

    channels = (64, 128, 256, 512)
    strides = (1, 2, 4, 8)
    size_multiple = 16

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.conv0 = nn.Sequential(
            *(conv_bn_relu(c, 64, bias=True) for c in (in_channels, 64, 64)),
        )
        first = nn.Conv2d(64, 64, 3, stride=2, padding=1, bias=False)
        self.conv1 = nn.Sequential(
            nn.Sequential(first, nn.BatchNorm2d(64), nn.ReLU(inplace=True)),
            conv_bn_relu(64, 64),
            conv_bn_relu(64, 128),
        )
        self.pool = nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True)
        self.stage1 = stage(128, 64, 1, (1, 1, 1))
        self.stage2 = stage(256, 128, 2, (1, 1, 1, 1))
        self.stage3 = stage(512, 256, 1, (2, 2, 2, 2, 2, 2))
        self.stage4 = stage(1024, 512, 1, (4, 8, 16))
        self.conv2 = conv_bn_relu(2048, 512)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return maps at strides 1, 2, 4, 8."""
        x0 = self.conv0(x)
        x1 = self.conv1(x0)
        x2 = self.stage1(self.pool(x1))
        return x0, x1, x2, self.conv2(self.stage4(self.stage3(self.stage2(x2))))


def gradients(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``|G_x * x|`` and ``|G_y * x|`` of maps (..., H, W): Sobel, zero padding."""
    x = F.pad(x, (1, 1, 1, 1))
    rows = x[..., :-2, :] + 2 * x[..., 1:-1, :] + x[..., 2:, :]
    columns = x[..., :-2] + 2 * x[..., 1:-1] + x[..., 2:]
    across = rows[..., 2:] - rows[..., :-2]
    down = columns[..., 2:, :] - columns[..., :-2, :]
    return across.abs(), down.abs()


class GraphConvolutions(nn.Module):
    """Three graph layers X <- W(N X), N = D^-1/2 (A + I) D^-1/2, with ReLU between.

    A is the softmax of the products of the nodes' gradients, D the row sums of A + I. W mixes
    channels.

    Args:
        channels: C.
        over: Whether the nodes are the ``channels`` or the ``positions``.
        graph: How A is made.
    """

    def __init__(self, channels: int, over: Literal["channels", "positions"], graph: Graph) -> None:
        super().__init__()
        self.over = over
        self.graph = graph
        self.layers = nn.ModuleList(conv(channels, channels, 1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """Return a map of the same shape (B, C, H, W)."""
        with full_precision(x):  # the products are large
            a = self.adjacency(x.float()).to(x.dtype)
        scale = (a.sum(2, keepdim=True) + 1).rsqrt()
        for index, layer in enumerate(self.layers):
            nodes = scale * self._nodes(x)
            mixed = scale * (a @ nodes + nodes)
            mixed = mixed if self.over == "channels" else mixed.transpose(1, 2)
            x = layer(mixed.reshape(x.shape))
            if index < len(self.layers) - 1:
                x = x.relu()
        return x

    def _nodes(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        return flat if self.over == "channels" else flat.transpose(1, 2)

    def adjacency(self, x: Tensor) -> Tensor:
        """Return A (B, N, N) of a map (B, C, H, W) with N nodes."""
        release = self.graph == "release"
        if self.over == "channels":
            source = x.sum(1, keepdim=True).expand_as(x) if release else x
            across, down = (g.flatten(2) for g in gradients(source))
        else:  # the table of positions and channels is an image
            across, down = gradients(self._nodes(x))
        products = across @ down.transpose(1, 2)
        return products.softmax(0).detach() if release else products.softmax(2)


class TwofoldGCN(nn.Module):
    """Graph convolutions over channels and over positions, beside each other."""

    def __init__(self, channels: int, graph: Graph) -> None:
        super().__init__()
        half = channels // 2
        self.spatial_input = nn.Sequential(
            *(self._depthwise(channels, last=i == 4) for i in range(5)),
            conv_bn_relu(channels, half, bias=True),
        )
        self.channel_input = nn.Sequential(
            *(self._pointwise(channels, last=i == 4) for i in range(5)),
            conv_bn_relu(channels, half, 1, bias=True),
        )
        self.spatial = GraphConvolutions(half, "channels", graph)
        down = nn.Conv2d(half, half, 3, stride=2, padding=1)
        self.down = nn.Sequential(down, nn.BatchNorm2d(half), nn.ReLU(inplace=True))
        self.channel = GraphConvolutions(half, "positions", graph)
        self.out = nn.Sequential(
            conv_bn(channels, channels, 1),
            conv_bn_relu(channels, channels),
            conv(channels, channels, 1, bias=True),
        )

    @staticmethod
    def _depthwise(channels: int, last: bool) -> nn.Sequential:
        layer = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        block = nn.Sequential(layer, nn.BatchNorm2d(channels))
        return block if last else block.append(nn.ReLU(inplace=True))

    @staticmethod
    def _pointwise(channels: int, last: bool) -> nn.Sequential:
        make = conv_bn if last else conv_bn_relu
        return make(channels, channels, 1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return a map of the same shape."""
        s, t = self.spatial_input(x), self.channel_input(x)
        s = s + self.spatial(s)
        t = t + resized(self.channel(self.down(t)), t)
        out: Tensor = self.out(torch.cat([s, t], 1) + x)
        return out


def resized(x: Tensor, like: Tensor) -> Tensor:
    """Resize bilinearly, corners aligned, to the height and width of another map."""
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=True)


class UpConcat(nn.Module):
    """A transposed convolution to twice the size, the skip before it, two convolutions."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(cin, cout, 2, stride=2)
        self.convs = nn.Sequential(
            conv_bn_relu(2 * cout, cout, bias=True), conv_bn_relu(cout, cout, bias=True)
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Return (B, C, H, W) of the skip."""
        out: Tensor = self.convs(torch.cat([skip, resized(self.up(x), skip)], 1))
        return out


class SGCNNet(OwnEncoderModel):
    """SGCN with its ResNet-50.

    Args:
        in_channels: Bands.
        num_classes: K.
        options: How the adjacency is made.
    """

    Options = SGCNOptions
    size_multiple = 16

    def __init__(self, in_channels: int, num_classes: int, options: SGCNOptions) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.encoder = DilatedResNet(in_channels)
        self.gcn = TwofoldGCN(512, options.graph)
        self.up1, self.up2, self.up3 = UpConcat(512, 256), UpConcat(256, 128), UpConcat(128, 64)
        self.head = nn.Conv2d(64, head_channels(num_classes), 1)
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.kaiming_normal_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Prediction:
        """Return logits (B, K, H, W)."""
        x0, x1, x2, deep = self.encoder(x)
        out = self.up3(self.up2(self.up1(self.gcn(deep), x2), x1), x0)
        return Prediction(class_logits(self.head(out)))
