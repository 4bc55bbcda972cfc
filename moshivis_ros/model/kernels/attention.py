"""Attention of one query to the window, to a picture, to the codebooks of a frame."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from moshivis_ros.model.kernels.form import fused
from moshivis_ros.model.kernels.state import ImageKV, Position, Window


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the interleaved pairs (2i, 2i + 1) of ``x`` [..., D] by the angles of ``layers.rotary``, in float32."""
    y = x.float()
    swapped = y.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
    return torch.addcmul(y * cos, swapped, sin).to(x.dtype)


def attend_window(qkv: Tensor, window: Window, at: Position) -> Tensor:
    """Write key and value of ``qkv`` [B, 3 * dim] to the window and attend to it: [B, dim].

    Where ``at`` is several steps of one conversation, the rows of ``qkv`` are those.
    """
    if fused(qkv) and len(at.slot) == 1:
        from moshivis_ros.model.kernels import triton_attention

        return triton_attention.attend_window(qkv, window, at)
    qkv = qkv.unflatten(-1, (3, window.kv.shape[2], 1, -1))  # [B, 3, H, 1, D]
    qkv = rotate(qkv, at.cos, at.sin)
    k, v = window.put(at.slot, qkv.narrow(1, 1, 2))
    return _attend(qkv.select(1, 0), k, v, at.mask)


def attend_image(q: Tensor, image: ImageKV) -> Tensor:
    """Attend with ``q`` [B, dim], or several steps of one conversation, to a picture: [B, dim]."""
    if fused(q) and len(q) == len(image.k):
        from moshivis_ros.model.kernels import triton_attention

        return triton_attention.attend_image(q, image)
    q = q.unflatten(-1, (image.k.shape[1], 1, -1))  # [B, H, 1, D]
    return _attend(q, image.k, image.v, image.mask)


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """[B, dim] of queries [B, H, 1, D], or of several of one conversation, which then are what others have along N."""
    if len(q) == len(k):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).flatten(1)
    y = F.scaled_dot_product_attention(q.transpose(0, 2), k, v, attn_mask=mask)
    return y.transpose(0, 2).flatten(1)


def attend_codebooks(qkv: Tensor, kv: Tensor, codebook: int) -> Tensor:
    """Attend with ``qkv`` [B, 3 * dim] to this frame's codebooks up to this one: [B, dim].

    ``kv`` [B, 2, H, codebooks, D] holds the keys and values of the earlier ones, and gets those of this one.
    """
    if fused(qkv):
        from moshivis_ros.model.kernels import triton_attention

        return triton_attention.attend_codebooks(qkv, kv, codebook)
    qkv = qkv.unflatten(-1, (3, kv.shape[2], 1, -1))  # [B, 3, H, 1, D]
    kv.narrow(3, codebook, 1).copy_(qkv.narrow(1, 1, 2))
    k, v = kv.narrow(3, 0, codebook + 1).unbind(1)
    return F.scaled_dot_product_attention(qkv.select(1, 0), k, v).flatten(1)
