"""Encoders: images in, four maps at strides 4, 8, 16, 32 out; asked, never guessed.

Four kinds behind one interface: any timm backbone through ``features_only``, timm's plain vision
transformers through a pyramid, the MiT encoders of SegFormer (segmentation_models_pytorch), and
SAM2's Hiera (timm) with adapters on a frozen trunk.
Shapes: B batch, C channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import timm
import torch
from segmentation_models_pytorch.encoders import get_encoder
from timm.models import model_entrypoint
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from terradapt.errors import ConfigError
from terradapt.models.adapters import Adapter
from terradapt.models.pyramid import SimplePyramid
from terradapt.weights import from_hub

SAM2_TRUNKS = ("sam2_hiera_tiny", "sam2_hiera_small", "sam2_hiera_base_plus", "sam2_hiera_large")
MIT_ENCODERS = ("mit_b0", "mit_b1", "mit_b2", "mit_b3", "mit_b4", "mit_b5")
STUDENTS = (
    "efficientnet_b0",
    "efficientnet_b1",
    "mobilenetv3_large_100",
    "mobilenetv3_small_100",
    "resnet18",
    "resnet50",
    "mit_b0",
    "mit_b1",
    "ghostnetv3_100",
)
"""The nine student backbones of KD-ARAFNet (ARAFNet Table 4)."""
STRIDES = (4, 8, 16, 32)
HUB = "hub"
AROUND = "encoder.around."
"""Names within a model of what :meth:`Encoder.add_context` adds."""
_PLAIN = (
    "timm.models.vision_transformer",
    "timm.models.eva",
)  # timm's modules of transformers with one map


class Encoder(nn.Module):
    """Base of the encoders: ``forward(x_BCHW) -> (F1, F2, F3, F4)``, finest first.

    Attributes:
        in_channels: Bands of the input.
        channels: C1..C4.
        strides: 4, 8, 16, 32, but for a timm backbone that is dilated or gives its stem too.
        size_multiple: The input's sides must be multiples of this, px.
        context: How many windows wide the ground around is that it sees too; 0: none.
    """

    in_channels: int
    channels: tuple[int, ...]
    strides: tuple[int, ...] = STRIDES
    size_multiple: int = 32
    frozen: bool = False
    context: int = 0

    def __init__(self) -> None:
        super().__init__()
        self.film: nn.ParameterList | None = None
        self.around: nn.ModuleList | None = None

    def add_context(self, times: int) -> None:
        """Look at the ground around the window too, the second half of the input's bands.

        One set of weights sees both, so that a trunk keeps all that it knows::

            ground around, times as wide          window
            +---------------+
            |     +---+     |  the middle, by a 1x1 convolution
            |     |   |     |  (at first 0), then enlarged:   + map of the window
            |     +---+     |
            +---------------+

        They lie side by side in the batch: normalisation counts both, in training as later.

        Args:
            times: 2, 4 or 8.
        """
        self.context, self.in_channels = times, 2 * self.in_channels
        self.size_multiple *= 2  # the middle of a map lies between two of its pixels
        added = [nn.Conv2d(c, c, 1, bias=False) for c in self.channels]
        for convolution in added:
            nn.init.zeros_(convolution.weight)
        self.around = nn.ModuleList(added)

    def add_film(self) -> None:
        """Let each map be scaled by the input's last channel, which is taken off: FiLM.

        Perez et al., AAAI 2018, arXiv 1709.07871, with gains and shifts that are linear in octaves
        of metres per pixel from the training's: 2 C numbers a map, at first 0.
        """
        self.in_channels += 1
        self.film = nn.ParameterList(torch.zeros(c) for c in self.channels for _ in range(2))

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the maps of bands, those of the ground around, and a scale: as was added."""
        if self.film is None:
            return self._maps(x)
        octaves = x[:, -1].mean((1, 2)).view(-1, 1, 1, 1)
        gains, shifts = self.film[::2], self.film[1::2]
        return tuple(
            m * (1 + octaves * gain.view(-1, 1, 1)) + octaves * shift.view(-1, 1, 1)
            for m, gain, shift in zip(self._maps(x[:, :-1]), gains, shifts, strict=True)
        )

    def _maps(self, x: Tensor) -> tuple[Tensor, ...]:
        if self.around is None:
            maps: tuple[Tensor, ...] = super().__call__(x)
            return maps
        bands, count = x.shape[1] // 2, x.shape[0]
        both = super().__call__(torch.cat([x[:, :bands], x[:, bands:]]))
        return tuple(
            m[:count] + enlarged_middle(m[count:], self.context, convolution)
            for m, convolution in zip(both, self.around, strict=True)
        )

    def freeze(self) -> None:
        """Stop training of every weight; normalisation layers stay in evaluation mode."""
        self.frozen = True
        self.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Encoder:
        """Switch the mode; a frozen encoder stays in evaluation mode."""
        super().train(mode and not self.frozen)
        return self


def enlarged_middle(x: Tensor, times: int, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the middle of maps, changed pixel by pixel, at the maps' own size (bilinear).

    Args:
        x: (B, C, H, W), H and W even.
        times: How many times as long the map's sides are as the middle's, 2 or more.
        change: Of (B, C, h, w), each pixel for itself.
    """
    starts = [(side * (times - 1) - times) // (2 * times) for side in x.shape[2:]]
    spans = [slice(a, a + side // times + 3) for a, side in zip(starts, x.shape[2:], strict=True)]
    near = change(x[:, :, spans[0], spans[1]])  # with the pixels that interpolation reads
    large = functional.interpolate(near, scale_factor=times, mode="bilinear", align_corners=False)
    rows, cols = (
        slice(side * (times - 1) // 2 - a * times, side * (times + 1) // 2 - a * times)
        for a, side in zip(starts, x.shape[2:], strict=True)
    )
    return large[:, :, rows, cols]


class TimmEncoder(Encoder):
    """A timm backbone's last stages.

    Args:
        name: Of the backbone.
        in_channels: Bands of the input.
        strides: Of the wanted maps: the last four, or five with the stem's; repeated ones mean
            dilation, (4, 8, 8, 8) an output stride of 8.
        pretrained: Whether timm loads weights from its hub.
        checkpointing: Whether stages are recomputed in the backward pass.
        args: Further arguments of ``timm.create_model``.

    Raises:
        ConfigError: No such backbone, unknown arguments, or no maps at these strides.
    """

    def __init__(
        self,
        name: str,
        in_channels: int,
        *,
        strides: tuple[int, ...] = STRIDES,
        pretrained: bool,
        checkpointing: bool,
        args: Any,
    ) -> None:
        super().__init__()
        if strides[-1] != STRIDES[-1]:
            args = {"output_stride": strides[-1], **args}
        self.body = create_timm(
            name,
            in_chans=in_channels,
            pretrained=pretrained,
            features_only=True,
            out_indices=tuple(range(-len(strides), 0)),
            args=args,
        )
        info = self.body.feature_info
        self.channels = tuple(info.channels())
        self.channels_last = getattr(self.body, "output_fmt", "NCHW") == "NHWC"
        self.strides = strides
        if tuple(info.reduction()) != strides:
            raise ConfigError(
                f"encoder '{name}' has maps at strides {tuple(info.reduction())}, not {strides}",
                f"use a hierarchical backbone, for example: {', '.join(STUDENTS)}",
            )
        if checkpointing:
            self.body.set_grad_checkpointing(True)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return F1..F4 for normalised pixels (B, C, H, W)."""
        maps = self.body(x)
        return tuple(m.permute(0, 3, 1, 2) for m in maps) if self.channels_last else tuple(maps)


class MitEncoder(Encoder):
    """SegFormer's MiT encoder of segmentation_models_pytorch.

    Its code is under NVIDIA's licence for SegFormer, which allows research use only.
    """

    def __init__(
        self, name: str, in_channels: int, *, pretrained: bool, checkpointing: bool, args: Any
    ) -> None:
        super().__init__()
        make = partial(built_mit, get_encoder, name, in_channels=in_channels, depth=5, **args)
        self.body = from_hub(partial(make, weights="imagenet"), name) if pretrained else make()
        self.channels = tuple(self.body.out_channels[-4:])
        self.checkpointing = checkpointing

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return F1..F4 for normalised pixels (B, C, H, W)."""
        features = []
        for level in range(1, 5):
            x = getattr(self.body, f"patch_embed{level}")(x)
            for block in getattr(self.body, f"block{level}"):
                x = self._call(block, x)
            x = getattr(self.body, f"norm{level}")(x).contiguous()
            features.append(x)
        return tuple(features)

    def _call(self, block: nn.Module, x: Tensor) -> Tensor:
        if self.checkpointing and torch.is_grad_enabled():
            return _recomputed(block, x)
        out: Tensor = block(x)
        return out


class VitEncoder(Encoder):
    """A plain vision transformer of timm's (DINOv3, DINOv2, PE, EVA-02 ...) under a pyramid.

    Its last map, with the transformer's final norm as DINOv2's and DINOv3's own heads have it,
    becomes maps at strides 4 to 32. A transformer with patches of 14 px sees the image at 14/16 of
    its size, so that its tokens lie 16 px apart, too. Frozen, the transformer stands still and the
    pyramid trains.

    Args:
        name: Of the transformer, with timm's tag if wanted.
        in_channels: Bands of the input.
        pretrained: Whether timm loads weights from its hub. Their licence is the user's affair:
            DINOv3's, for one, binds whoever passes on what was trained from them.
        checkpointing: Whether blocks are recomputed in the backward pass.
        args: Further arguments of ``timm.create_model``.

    Raises:
        ConfigError: It cannot be built, or its patches are larger than 16 px.
    """

    def __init__(
        self, name: str, in_channels: int, *, pretrained: bool, checkpointing: bool, args: Any
    ) -> None:
        super().__init__()
        args = {"dynamic_img_size": True, **args}
        self.body = create_timm(
            name, in_chans=in_channels, pretrained=pretrained, num_classes=0, args=args
        )
        self.patch = int(self.body.patch_embed.patch_size[0])
        if self.patch > STRIDES[2]:
            raise ConfigError(
                f"encoder '{name}' has patches of {self.patch} px, which is too coarse",
                "use one with patches of 14 or 16 px, for example vit_small_patch16_dinov3",
            )
        self.pyramid = SimplePyramid(self.body.embed_dim)
        self.channels = self.pyramid.channels
        self.body.set_grad_checkpointing(checkpointing)

    def freeze(self) -> None:
        """Stop training of the transformer; the pyramid goes on."""
        self.body.requires_grad_(False)

    def settle(self, side: int) -> None:
        """Lay the position embedding out for images of one size for good, px.

        Raises:
            ConfigError: Rotary embeddings of interleaved pairs (PE, EVA-02): the tracing exporter
                writes a wrong graph for them.
        """
        rotary = getattr(self.body, "rope", None) is not None
        if rotary and not getattr(self.body.blocks[0].attn, "rotate_half", False):
            raise ConfigError(
                "a transformer with interleaved rotary embeddings has no form in ONNX opset 17",
                "export a model on DINOv3 or DINOv2, or distil it to a student and export that",
            )
        self.body.set_input_size(img_size=side // STRIDES[2] * self.patch)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return F1..F4 for normalised pixels (B, C, H, W), H and W multiples of 32."""
        if self.patch != STRIDES[2]:
            size = [side // STRIDES[2] * self.patch for side in x.shape[2:]]
            x = functional.interpolate(
                x, size, mode="bilinear", align_corners=False, antialias=False
            )
        (tokens,) = self.body.forward_intermediates(
            x, indices=1, norm=True, output_fmt="NCHW", intermediates_only=True
        )
        maps: tuple[Tensor, ...] = self.pyramid(tokens)
        return maps


class Sam2Encoder(Encoder):
    """SAM2's Hiera trunk (timm), with an adapter before every block.

    The trunk's names stay those of timm under ``trunk.``, the adapters' lie under ``adapters.``,
    so that a checkpoint can hold one without the other.

    Args:
        name: One of :data:`SAM2_TRUNKS`, with timm's tag if wanted.
        in_channels: Bands of the input.
        adapters: Whether to put adapters before the blocks.
        width: Hidden width of the adapters.
        activation: ``"gelu"`` or ``"relu"``.
        pretrained: Whether timm loads the trunk from its hub.
        checkpointing: Whether blocks are recomputed in the backward pass.
        args: Further arguments of ``timm.create_model``.
    """

    def __init__(
        self,
        name: str,
        in_channels: int = 3,
        *,
        adapters: bool = True,
        width: int = 32,
        activation: str = "gelu",
        pretrained: bool = False,
        checkpointing: bool = False,
        args: Any = None,
    ) -> None:
        super().__init__()
        self.trunk = create_timm(name, in_chans=in_channels, pretrained=pretrained, args=args or {})
        self.trunk.head = nn.Identity()  # timm's classifier norm is no part of SAM2
        self.channels = tuple(info["num_chs"] for info in self.trunk.feature_info)
        self.adapters = nn.ModuleList(
            Adapter(block.dim, width, activation) for block in self.trunk.blocks if adapters
        )
        self.checkpointing = checkpointing

    def freeze(self) -> None:
        """Stop training of the trunk; the adapters, if any, go on."""
        self.trunk.requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return F1..F4 for normalised pixels (B, C, H, W), H and W multiples of 32."""
        tokens = self.trunk._pos_embed(self.trunk.patch_embed(x))
        features = []
        for index in range(len(self.trunk.blocks)):
            if self.checkpointing and torch.is_grad_enabled():
                tokens = _recomputed(self._block, index, tokens)
            else:
                tokens = self._block(index, tokens)
            if index in self.trunk.stage_ends:
                features.append(tokens.permute(0, 3, 1, 2))
        return tuple(features)

    def _block(self, index: int, tokens_BHWC: Tensor) -> Tensor:
        if len(self.adapters):
            tokens_BHWC = self.adapters[index](tokens_BHWC)
        out: Tensor = self.trunk.blocks[index](tokens_BHWC)
        return out


def _recomputed(function: Callable[..., Tensor], *inputs: Any) -> Tensor:
    out: Tensor = checkpoint(function, *inputs, use_reentrant=False)
    return out


def create_timm(name: str, *, pretrained: bool, args: dict[str, Any], **kwargs: Any) -> Any:
    """Return ``timm.create_model``'s network.

    Args:
        name: A name of timm's, with its tag if wanted.
        pretrained: Whether timm loads the weights from its hub.
        args: The user's arguments.
        kwargs: The caller's own arguments.

    Raises:
        ConfigError: No such network, or arguments that it does not take.
        CheckpointError: The weights cannot be fetched.
    """
    if name.split(".", maxsplit=1)[0] not in timm.list_models():
        raise ConfigError(
            f"no encoder '{name}'",
            f"use a timm backbone, for example: {', '.join(STUDENTS)}; or {', '.join(SAM2_TRUNKS)}",
        )
    try:
        made = timm.create_model(name, **kwargs, **args)
    except IndexError as error:
        raise ConfigError(
            f"encoder '{name}' has too few stages for the wanted strides",
            "use a backbone with more, for example resnet18 or resnet50",
        ) from error
    except (TypeError, RuntimeError, ValueError, AssertionError) as error:
        raise ConfigError(
            f"encoder '{name}' cannot be built: {error}",
            "check encoder.args, or use a backbone with four stages",
        ) from error
    make = partial(timm.create_model, name, pretrained=True, **kwargs, **args)
    return from_hub(make, name) if pretrained else made


def built_mit(make: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Return what ``make`` builds with a MiT encoder, on any device.

    Its code reads numbers from tensors while it is built, which the meta device has not.
    """
    device = torch.get_default_device()
    with torch.device("cpu"):
        made = make(*args, **kwargs)
    return made.to(device)


def is_vit(name: str) -> bool:
    """Tell whether a name is one of timm's plain vision transformers (with or without a tag)."""
    base = name.split(".", maxsplit=1)[0]
    return timm.is_model(base) and model_entrypoint(base).__module__ in _PLAIN


def is_sam2(name: str) -> bool:
    """Tell whether a name is one of SAM2's Hiera trunks (with or without timm's tag)."""
    return name.split(".", maxsplit=1)[0] in SAM2_TRUNKS
