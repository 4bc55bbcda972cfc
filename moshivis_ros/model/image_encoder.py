"""From a picture to cross-attention source tokens: resize, SigLIP, projection, norm.

SigLIP is written out in plain torch because the checkpoint fixes its parameter names.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from moshivis_ros.errors import ImageError
from moshivis_ros.model.config import ModelConfig, SiglipConfig
from moshivis_ros.model.layers import RMSNorm


def resize(image: Tensor, size: int) -> Tensor:
    """``image`` [3, H, W] uint8 -> [3, size, size] uint8.

    Bicubic with antialiasing on the 8-bit values, aspect ratio not kept, as the reference's server does.
    """
    return F.interpolate(image[None], (size, size), mode="bicubic", antialias=True)[0]


def normalize(image: Tensor) -> Tensor:
    """``image`` uint8 0..255 -> float32 -1..1, same shape."""
    return (image.float() / 255 - 0.5) / 0.5


def check_image(image: NDArray[np.uint8]) -> None:
    """Raises ImageError unless ``image`` is [H, W, 3] uint8 and not empty."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        what = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ImageError(f"a picture must be a numpy uint8 array [height, width, 3] in RGB order, not {what}")
    if 0 in image.shape:
        raise ImageError(f"the picture is empty: {image.shape}")


def preprocess(image: NDArray[np.uint8], size: int) -> Tensor:
    """A picture [H, W, 3] uint8 RGB of any size -> pixel values [1, 3, size, size] float32 in -1..1."""
    chw = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
    return normalize(resize(chw, size))[None]


class _Embeddings(nn.Module):
    def __init__(self, config: SiglipConfig) -> None:
        super().__init__()
        self.grid = config.grid
        self.patch_embedding = nn.Conv2d(
            config.num_channels, config.hidden_size, kernel_size=config.patch_size, stride=config.patch_size
        )
        self.position_embedding = nn.Embedding(config.grid**2, config.hidden_size)

    def position_table(self, height: int, width: int) -> Tensor:
        """Learned positions, interpolated (bicubic, no antialiasing) to ``height`` x ``width`` patches: [N,
        hidden].
        """
        table = self.position_embedding.weight
        if height == width == self.grid:
            return table
        square = table.T.reshape(1, -1, self.grid, self.grid)
        resized = F.interpolate(square, (height, width), mode="bicubic", align_corners=False)
        return resized.flatten(2)[0].T

    def forward(self, pixel_values: Tensor) -> Tensor:
        patches = self.patch_embedding(
            pixel_values.to(self.patch_embedding.weight.dtype)
        )  # [B, hidden, h, w]
        positions = self.position_table(*patches.shape[2:])
        out: Tensor = patches.flatten(2).transpose(1, 2) + positions
        return out


class _Attention(nn.Module):
    def __init__(self, config: SiglipConfig) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            projection(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        y = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.out_proj(y.transpose(1, 2).flatten(2))
        return out


class _MLP(nn.Module):
    def __init__(self, config: SiglipConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x), approximate="tanh"))
        return out


class _EncoderLayer(nn.Module):
    def __init__(self, config: SiglipConfig) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = _Attention(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = _MLP(config)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        out: Tensor = x + self.mlp(self.layer_norm2(x))
        return out


class _Encoder(nn.Module):
    def __init__(self, config: SiglipConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_EncoderLayer(config) for _ in range(config.num_hidden_layers))


class Siglip(nn.Module):
    """The SigLIP vision transformer: all tokens after the last norm, no pooling."""

    def __init__(self, config: SiglipConfig) -> None:
        super().__init__()
        self.embeddings = _Embeddings(config)
        self.encoder = _Encoder(config)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, pixel_values: Tensor) -> Tensor:  # [B, 3, S, S] -> [B, (S // patch) ** 2, hidden]
        x = self.embeddings(pixel_values)
        for layer in self.encoder.layers:
            x = layer(x)
        out: Tensor = self.post_layernorm(x)
        return out


class _Wrapper(nn.Module):
    """Adds the level ``enc.model`` of the released names."""

    def __init__(self, config: SiglipConfig) -> None:
        super().__init__()
        self.model = Siglip(config)


class ImagePrefix(nn.Module):
    """Image encoder, projection to the width of the LM, and norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.enc = _Wrapper(config.siglip)
        # As in the reference: equal widths are not projected.
        same = config.siglip.hidden_size == config.dim
        self.proj_xa = nn.Identity() if same else nn.Linear(config.siglip.hidden_size, config.dim)
        self.norm_xa = RMSNorm(config.dim, config.norm_xa)

    def forward(self, pixel_values: Tensor) -> Tensor:  # [B, 3, S, S] in -1..1 -> [B, N, dim]
        out: Tensor = self.norm_xa(self.proj_xa(self.enc.model(pixel_values)))
        return out
