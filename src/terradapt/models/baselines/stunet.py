"""ST-UNet: a Swin transformer beside a half-width ResNet50, fused at every stage.

Paper: He, Zhou, Zhao, Zhang, Yao, Xue 2022, "Swin Transformer Embedding UNet for Remote Sensing
Image Semantic Segmentation", IEEE TGRS 60. Spatial interaction (SIM) inside the Swin's stages,
feature compression (FCM) between them, relational aggregation (RAM) from the Swin into the CNN. Its
encoder is its own and has no weights to start from. At 6 classes and 512 px: 81,368,636 parameters,
85.336 GMACs by thop, which sees neither the standardized nor the deformable convolutions.

The released object holds 168,793,924 parameters; 87,425,288 of them never run and are left out.
Slips repaired: tokens become maps by a transpose (the release reshapes them, which scrambles space
and channels), deformable convolutions sample around their own pixel (the release is one pixel off),
windows are cut for any multiple of 32 px. Reproduced: the four batch norms of FCM are one object.

Export: deformable convolution has no operator in ONNX's opset 17; there it is written as nine
sampled maps and a product, with the same values.
"""

from __future__ import annotations

import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import deform_conv2d

from terradapt.config import ConfigPart, ModelConfig
from terradapt.models.baselines.layers import ConcatUp, full_precision
from terradapt.models.baselines.unetformer import relative_index
from terradapt.models.contract import Prediction, SegmentationModel
from terradapt.models.encoder import Encoder
from terradapt.models.layers import conv, conv_bn, conv_bn_relu

WINDOW, SHIFT = 8, 4
DEPTHS, HEADS, DIMS = (2, 2, 6, 2), (3, 6, 12, 24), (96, 192, 384, 768)
UNITS, CHANNELS = (3, 4, 6, 3), (128, 256, 512, 1024)
DROP_PATH = 0.1


class StandardizedConv(nn.Conv2d):
    """A convolution without bias whose kernels have mean 0 and variance 1."""

    def __init__(self, cin: int, cout: int, kernel: int, stride: int = 1) -> None:
        super().__init__(cin, cout, kernel, stride=stride, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolved map."""
        centred = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        scale = (centred.square().mean((1, 2, 3), keepdim=True) + 1e-5).sqrt()
        return F.conv2d(x, centred / scale, None, self.stride, self.padding)


class ChannelNorm(nn.GroupNorm):
    """A group norm of one channel a group, which maps of a single pixel pass too."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the normed map."""
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


class StandardizedBottleneck(nn.Module):
    """A bottleneck of standardized convolutions and group norms."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        mid = cout // 4
        self.body = nn.Sequential(
            *_standardized(cin, mid, 1),
            *_standardized(mid, mid, 3, stride),
            StandardizedConv(mid, cout, 1),
            nn.GroupNorm(32, cout, 1e-6),
        )
        self.short: nn.Module = nn.Identity()
        if cin != cout or stride != 1:
            self.short = nn.Sequential(StandardizedConv(cin, cout, 1, stride), ChannelNorm(cout))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, cout, H / stride, W / stride)."""
        return F.relu(self.body(x) + self.short(x))


class ShiftedWindows:
    """One axis of a padded map: where its pixels go when windows are shifted, and what may meet.

    As a tensor of the size, so that an exported graph takes every size; no shift where there is
    only one window.
    """

    def __init__(self, side: int, device: torch.device) -> None:
        there = torch.arange(side, device=device)
        by = SHIFT * (there.amax() >= WINDOW).long()
        self.there, self.back = (there + by) % side, (there - by) % side
        self.region = (there >= side - WINDOW).long() + (there >= side - by).long()


class ShiftedWindowAttention(nn.Module):
    """Swin's attention in windows of 8 x 8 with relative positions; shifted by 4 if wanted."""

    index: Tensor

    def __init__(self, dim: int, heads: int, *, shifted: bool) -> None:
        super().__init__()
        self.heads, self.shifted = heads, shifted
        self.qkv, self.project = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.table = nn.Parameter(torch.zeros((2 * WINDOW - 1) ** 2, heads))
        nn.init.trunc_normal_(self.table, std=0.02)
        self.register_buffer("index", relative_index(WINDOW), persistent=False)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Return (B, H, W, C); maps are padded by zeros to whole windows."""
        _, height, width, _ = x_BHWC.shape
        x = F.pad(x_BHWC, (0, 0, 0, -width % WINDOW, 0, -height % WINDOW))
        if not self.shifted:
            return self._attend(x, None)[:, :height, :width]
        rows, columns = (ShiftedWindows(n, x.device) for n in x.shape[1:3])
        region = 3 * rows.region[:, None] + columns.region
        region = _windows(region[None, :, :, None])[0, :, :, 0]
        mask = -100.0 * (region[:, None] != region[:, :, None]).to(x.dtype)
        x = x.index_select(1, rows.there).index_select(2, columns.there)
        x = self._attend(x, mask[:, None])
        return x.index_select(1, rows.back).index_select(2, columns.back)[:, :height, :width]

    def _attend(self, x_BHWC: Tensor, mask: Tensor | None) -> Tensor:
        b, h, w, c = x_BHWC.shape
        qkv = self.qkv(_windows(x_BHWC))
        _, count, tokens, _ = qkv.shape
        q, k, v = qkv.reshape(b, count, tokens, 3, self.heads, -1).permute(3, 0, 1, 4, 2, 5)
        logits = (q * q.shape[4] ** -0.5) @ k.transpose(3, 4)
        logits = logits + self.table[self.index].permute(2, 0, 1)
        if mask is not None:
            logits = logits + mask
        out: Tensor = self.project((logits.softmax(4) @ v).transpose(2, 3).flatten(3))
        out = out.reshape(b, h // WINDOW, w // WINDOW, WINDOW, WINDOW, c)
        return out.transpose(2, 3).reshape(b, h, w, c)


class SwinUnit(nn.Module):
    """Attention and an MLP of four times the width, each on a layer norm and added."""

    def __init__(self, dim: int, heads: int, *, shifted: bool, drop_path: float) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = ShiftedWindowAttention(dim, heads, shifted=shifted)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.drop = DropPath(drop_path)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Return (B, H, W, C)."""
        x = x_BHWC + self.drop(self.attention(self.norm_1(x_BHWC)))
        out: Tensor = x + self.drop(self.mlp(self.norm_2(x)))
        return out


class SpatialInteraction(nn.Module):
    """SIM: the outer product of a map's means along rows and along columns."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.enter = conv_bn(dim, dim // 2, dilation=2, bias=True).append(nn.GELU())
        self.leave = conv_bn(dim // 2, dim, 1, bias=True).append(nn.GELU())

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Return what is to be added, (B, H, W, C)."""
        s = self.enter(x_BHWC.permute(0, 3, 1, 2))
        out: Tensor = self.leave(s.mean(3, keepdim=True) @ s.mean(2, keepdim=True))
        return out.permute(0, 2, 3, 1)


class SwinStage(nn.Module):
    """Pairs of units, the second one shifted; one SIM is added after every pair."""

    def __init__(self, dim: int, heads: int, drop_paths: list[float]) -> None:
        super().__init__()
        self.interaction = SpatialInteraction(dim)
        self.units = nn.ModuleList(
            SwinUnit(dim, heads, shifted=i % 2 == 1, drop_path=p) for i, p in enumerate(drop_paths)
        )

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Return (B, H, W, C)."""
        for i in range(0, len(self.units), 2):
            interaction = self.interaction(x_BHWC)
            x_BHWC = self.units[i + 1](self.units[i](x_BHWC)) + interaction
        return x_BHWC


class FeatureCompression(nn.Module):
    """FCM: half the size and twice the channels, by convolutions beside a soft pooling."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        wide = 2 * dim
        self.norm = nn.BatchNorm2d(wide)  # all four norms are this one
        self.expand, self.dilate = nn.Conv2d(dim, wide, 1), conv(wide, wide, dilation=2, bias=True)
        self.halve = nn.Conv2d(wide, wide, 1, stride=2)
        self.pool_norm, self.pool_expand = nn.GroupNorm(dim // 2, dim), nn.Conv2d(dim, wide, 1)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Return (B, H/2, W/2, 2C)."""
        x = x_BHWC.permute(0, 3, 1, 2)
        main = self.norm(self.dilate(F.gelu(self.norm(self.expand(x)))))
        main = F.gelu(self.norm(self.halve(main)))
        b, c, h, w = x.shape
        cells = x.reshape(b, c, h // 2, 2, w // 2, 2).transpose(3, 4).flatten(4)
        short = self.pool_expand(self.pool_norm(_soft_mean(cells)))
        return (main + F.gelu(self.norm(short))).permute(0, 2, 3, 1)


class ModulatedDeformConv(nn.Module):
    """A 3x3 convolution whose taps are displaced and weighed by the map itself."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, channels, 3, 3))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        self.offset, self.mask = conv(channels, 18, bias=True), conv(channels, 9, bias=True)
        for layer in (self.offset, self.mask):
            nn.init.zeros_(layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H, W)."""
        offset, mask = self.offset(x), torch.sigmoid(self.mask(x))
        if torch.onnx.is_in_onnx_export():
            return self.sampled(x, offset, mask)
        with full_precision(x):
            x, offset, mask = x.float(), offset.float(), mask.float()
            out: Tensor = deform_conv2d(x, offset, self.weight, padding=1, mask=mask)
        return out

    def sampled(self, x: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
        """Return the same by nine bilinear samples of the map and one product.

        Args:
            x: (B, C, H, W).
            offset: (B, 18, H, W), px, (down, right) of each tap.
            mask: (B, 9, H, W), the taps' weights.
        """
        b, c, h, w = x.shape
        tap = torch.arange(9, device=x.device)
        down = (tap // 3 - 1)[:, None, None] + torch.arange(h, device=x.device)[:, None]
        right = (tap % 3 - 1)[:, None, None] + torch.arange(w, device=x.device)
        moved = offset.reshape(b, 9, 2, h, w)
        # grid_sample's places: -1 and 1 are the outer edges of the first and the last pixel
        places = [
            (2 * (right + moved[:, :, 1]) + 1) / w - 1,
            (2 * (down + moved[:, :, 0]) + 1) / h - 1,
        ]
        grid = torch.stack(places, 4).reshape(b, 9 * h, w, 2)
        taps = F.grid_sample(x, grid, align_corners=False).reshape(b, c, 9, h, w) * mask[:, None]
        return (self.weight.flatten(1) @ taps.reshape(b, 9 * c, h * w)).reshape(b, c, h, w)


class RelationalAggregation(nn.Module):
    """RAM: the CNN's map, deformed, is gated by the Swin's and gets it added."""

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.deform = ModulatedDeformConv(channels)
        norm = nn.BatchNorm2d(channels, momentum=0.01)
        self.align = nn.Sequential(conv(dim, channels, 1), norm, nn.ReLU())
        self.squeeze = nn.Sequential(nn.Linear(channels, channels // 2), nn.ReLU())
        self.excite = nn.Sequential(nn.Linear(channels // 2, channels), nn.Sigmoid())

    def forward(self, x_BCHW: Tensor, tokens_BHWC: Tensor) -> Tensor:
        """Return (B, C, H, W)."""
        x, seen = self.deform(x_BCHW), self.align(tokens_BHWC.permute(0, 3, 1, 2))
        pixels = seen.flatten(2)
        mean, peak, soft = (
            self.squeeze(v) for v in (pixels.mean(2), pixels.amax(2), _soft_mean(pixels))
        )
        out: Tensor = x + x * self.excite(soft * (mean + peak))[:, :, None, None] + seen
        return out


class DualEncoder(Encoder):
    """The CNN of width 32 and the Swin; a stage of the CNN gets the fused map of the one before.

    Args:
        in_channels: Bands of the input.
    """

    channels = CHANNELS

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.root = nn.Sequential(
            *_standardized(in_channels, 32, 7, 2), nn.MaxPool2d(3, stride=2, padding=1)
        )
        self.cnn = nn.ModuleList(
            _cnn_stage(cin, cout, units, 1 if i == 0 else 2)
            for i, (cin, cout, units) in enumerate(
                zip((32, *CHANNELS[:-1]), CHANNELS, UNITS, strict=True)
            )
        )
        self.embed = nn.Conv2d(in_channels, DIMS[0], 8, stride=4, padding=2)
        self.embed_norm = nn.LayerNorm(DIMS[0])
        ends = [sum(DEPTHS[: i + 1]) for i in range(4)]
        rates = [DROP_PATH * i / (ends[-1] - 1) for i in range(ends[-1])]
        self.swin = nn.ModuleList(
            SwinStage(dim, heads, rates[end - depth : end])
            for dim, heads, depth, end in zip(DIMS, HEADS, DEPTHS, ends, strict=True)
        )
        self.compress = nn.ModuleList(map(FeatureCompression, DIMS[:-1]))
        self.aggregate = nn.ModuleList(map(RelationalAggregation, CHANNELS, DIMS))
        for module in self.swin.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the four fused maps for normalised pixels (B, C, H, W)."""
        tokens = self.embed_norm(self.embed(x).permute(0, 2, 3, 1))
        x = self.root(x)
        fused = []
        for i in range(4):
            tokens = self.swin[i](self.compress[i - 1](tokens) if i else tokens)
            x = self.aggregate[i](self.cnn[i](x), tokens)
            fused.append(x)
        return tuple(fused)


class STUNet(SegmentationModel):
    """The dual encoder and a U-Net's decoder, logits at full resolution.

    Args:
        encoder: Its own.
        num_classes: K.
        options: None.
    """

    def __init__(self, encoder: Encoder, num_classes: int, options: ConfigPart) -> None:
        super().__init__()
        c1, c2, c3, c4 = encoder.channels
        self.encoder = encoder
        self.num_classes = num_classes
        self.bridge = conv_bn_relu(c4, c4)
        self.ups = nn.ModuleList(
            ConcatUp(cin, skip, skip, bias=False) for cin, skip in ((c4, c3), (c3, c2), (c2, c1))
        )
        self.last = ConcatUp(c1, 0, 64, bias=False)
        self.head = nn.Sequential(
            nn.ConvTranspose2d(64, 16, 2, stride=2), nn.Conv2d(16, num_classes, 3, padding=1)
        )

    @classmethod
    def from_config(cls, config: ModelConfig, num_classes: int, options: ConfigPart) -> STUNet:
        """Build the model; its encoder is its own."""
        return cls(DualEncoder(config.in_channels), num_classes, options)

    def forward(self, x: Tensor) -> Prediction:
        """Return logits (B, K, H, W)."""
        *skips, deep = features = self.encoder(x)
        out = self.bridge(deep)
        for up, skip in zip(self.ups, skips[::-1], strict=True):
            out = up(out, skip)
        return Prediction(self.head(self.last(out)), (), features)


def _standardized(cin: int, cout: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        StandardizedConv(cin, cout, kernel, stride), nn.GroupNorm(32, cout, 1e-6), nn.ReLU()
    )


def _cnn_stage(cin: int, cout: int, units: int, stride: int) -> nn.Sequential:
    first = StandardizedBottleneck(cin, cout, stride)
    return nn.Sequential(first, *(StandardizedBottleneck(cout, cout, 1) for _ in range(units - 1)))


def _windows(x_BHWC: Tensor) -> Tensor:
    """Cut a map into windows: (B, windows, 64, C)."""
    b, h, w, c = x_BHWC.shape
    x = x_BHWC.reshape(b, h // WINDOW, WINDOW, w // WINDOW, WINDOW, c)
    return x.transpose(2, 3).reshape(b, -1, WINDOW * WINDOW, c)


def _soft_mean(x: Tensor) -> Tensor:
    """SoftPool over the last axis: the mean, weighed by the softmax."""
    return (x.softmax(-1) * x).sum(-1)
