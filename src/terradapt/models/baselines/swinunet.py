"""Swin-Unet: a U-shaped network of shifted-window transformers, without convolutions between.

Cao, Wang, Chen, Jiang, Zhang, Tian, Wang, "Swin-Unet: Unet-Like Pure Transformer for Medical Image
Segmentation", ECCV 2022 Workshops, doi 10.1007/978-3-031-25066-8_9. SAM2MS cites Ge et al. 2022
(ITSC), whose code is not public, but its row (27.14 M, 123.59 G) is this network with window 8.

timm's Swin-T blocks, two a stage. The skips are the tokens that enter a stage, as in the release;
the paper's figure takes those that leave it. Weights of timm's Swin-T go into the encoder and,
mirrored, into the decoder; their tables of relative positions are interpolated to window 8.
Sides that are no multiples of 256 are padded within each stage, and maps of a single window are
shifted too, where the release has one fixed size.

Counts with one logit at 1024 px: 27,175,524 parameters, of which thop sees 27,145,824 (no tables of
relative positions), 123.588 GMACs. Two classes have one logit, K > 2 classes have K.
"""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import timm
import torch
from timm.models.swin_transformer import SwinTransformerStage, checkpoint_filter_fn
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from terradapt.config import ConfigPart, EncoderConfig, ModelConfig
from terradapt.errors import CheckpointError, ConfigError
from terradapt.models.contract import (
    Prediction,
    SegmentationModel,
    class_logits,
    head_channels,
)
from terradapt.models.encoder import HUB, Encoder, create_timm
from terradapt.weights import State, fit_shape, from_hub, read_state

BLOCKS = 2
DROP_PATH = 0.1


class SwinUnetOptions(ConfigPart):
    """Window of the attention."""

    window: int = 8  # tokens; 8 at 1024 px is the row of SAM2MS


class SwinEncoder(Encoder):
    """timm's Swin with two blocks a stage; gives the tokens that enter the stages 1 to 3.

    Args:
        config: The encoder's config; a Swin of timm's.
        in_channels: Bands.
        window: Side of a window, tokens.
    """

    def __init__(self, config: EncoderConfig, in_channels: int, window: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        if not config.name.startswith("swin_"):
            raise ConfigError(
                f"swin-unet has no encoder '{config.name}'", "use swin_tiny_patch4_window7_224"
            )
        own = {"depths": (BLOCKS,) * 4, "window_size": window, "drop_path_rate": DROP_PATH}
        self.body = create_timm(
            config.name,
            pretrained=False,
            args={**own, **config.args},
            in_chans=in_channels,
            num_classes=0,
            always_partition=True,
            strict_img_size=False,
        )
        self.body.head = nn.Identity()
        self.channels = tuple(info["num_chs"] for info in self.body.feature_info)
        self.checkpointing = config.checkpointing

    def load(self, source: State, path: str) -> None:
        """Load timm's weights of the same Swin; of each stage the first two blocks.

        Raises:
            CheckpointError: A weight is missing or has another shape.
        """
        own = self.body.state_dict()
        known = {k: v for k, v in source.items() if k in own or "downsample" in k}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the interpolation's speed
            known = checkpoint_filter_fn(known, self.body)
        missing = next((key for key in own if key not in known), None)
        if missing is not None:
            raise CheckpointError(
                f"{path}: weight '{missing}' is missing; the file is of another encoder or partial",
                "use the encoder that the file was made for (encoder.name)",
            )
        fitted = {k: fit_shape(k, value, known[k], path) for k, value in own.items()}
        self.body.load_state_dict(fitted)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return tokens (B, H, W, C) entering the stages at strides 4, 8, 16; the last at 32."""
        tokens = self.body.patch_embed(x)
        maps = []
        for stage in self.body.layers:
            tokens = stage.downsample(tokens)
            maps.append(tokens)
            if self.checkpointing and torch.is_grad_enabled():
                tokens = checkpoint(stage.blocks, tokens, use_reentrant=False)
            else:
                tokens = stage.blocks(tokens)
        return (*maps[:-1], self.body.norm(tokens))


class Expand(nn.Module):
    """Tokens to ``factor`` times the sides: a linear layer, a pixel shuffle, a norm."""

    def __init__(self, cin: int, cout: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.linear = nn.Linear(cin, cout * factor**2, bias=False)
        self.norm = nn.LayerNorm(cout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (B, f H, f W, C) for (B, H, W, C')."""
        b, h, w, _ = tokens.shape
        f = self.factor
        tokens = self.linear(tokens).reshape(b, h, w, f, f, -1).permute(0, 1, 3, 2, 4, 5)
        out: Tensor = self.norm(tokens.reshape(b, h * f, w * f, -1))
        return out


class SwinUnet(SegmentationModel):
    """Swin-Unet on any Swin of timm's with patches of 4 px.

    Args:
        encoder: The Swin.
        num_classes: K.
        options: Window of the attention.
    """

    Options = SwinUnetOptions

    def __init__(self, encoder: SwinEncoder, num_classes: int, options: SwinUnetOptions) -> None:
        super().__init__()
        self.encoder: SwinEncoder = encoder
        self.num_classes = num_classes
        widths = encoder.channels
        self.bottom = Expand(widths[3], widths[2], 2)
        self.concat = nn.ModuleList(nn.Linear(2 * c, c) for c in widths[2::-1])
        self.stages = nn.ModuleList(
            self._mirrored(encoder.body.layers[i], c, options.window)
            for i, c in zip((2, 1, 0), widths[2::-1], strict=True)
        )
        self.expand = nn.ModuleList(Expand(c, c // 2, 2) for c in widths[2:0:-1])
        self.norm = nn.LayerNorm(widths[0])
        self.last = Expand(widths[0], widths[0], 4)
        for layer in [m for part in self.children() if part is not encoder for m in part.modules()]:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        self.head = nn.Conv2d(widths[0], head_channels(num_classes), 1, bias=False)

    @staticmethod
    def _mirrored(stage: Any, channels: int, window: int) -> nn.Module:
        """Return a decoder stage with the heads and drop paths of the encoder's of its width."""
        return SwinTransformerStage(
            channels,
            channels,
            stage.output_resolution,
            BLOCKS,
            downsample=False,
            num_heads=stage.blocks[0].attn.num_heads,
            window_size=window,
            always_partition=True,
            dynamic_mask=True,
            drop_path=[getattr(block.drop_path1, "drop_prob", 0.0) for block in stage.blocks],
        )

    @classmethod
    def from_config(cls, config: ModelConfig, num_classes: int, options: Any) -> SegmentationModel:
        """Build the model; the encoder's weights are loaded into the decoder's stages too."""
        chosen = config.encoder
        encoder = SwinEncoder(chosen, config.in_channels, options.window)
        model = cls(encoder, num_classes, options)
        if chosen.weights is not None:
            if chosen.weights == HUB:
                make = partial(timm.create_model, chosen.name, pretrained=True)
                encoder.load(from_hub(make, chosen.name).state_dict(), chosen.name)
            else:
                encoder.load(read_state(chosen.weights), chosen.weights)
            for stage, index in zip(model.stages, (2, 1, 0), strict=True):
                stage.load_state_dict(
                    encoder.body.layers[index].blocks.state_dict(prefix="blocks.")
                )
        if chosen.freeze:
            encoder.freeze()
        return model

    def forward(self, x: Tensor) -> Prediction:
        """Return logits (B, K, H, W)."""
        tokens = self.encoder(x)
        *skips, out = tokens
        out = self.bottom(out)
        for index, skip in enumerate(reversed(skips)):
            out = self.stages[index](self.concat[index](torch.cat([out, skip], 3)))
            if index < len(self.expand):
                out = self.expand[index](out)
        z = self.head(self.last(self.norm(out)).permute(0, 3, 1, 2))
        return Prediction(class_logits(z), (), tuple(t.permute(0, 3, 1, 2) for t in tokens))
