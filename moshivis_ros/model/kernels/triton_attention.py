"""Attention of one query in Triton: keys and values are shared out between programs, and only what is there is read."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from moshivis_ros.model.kernels.form import INTERPRETED
from moshivis_ros.model.kernels.state import ImageKV, Position, Window

KEYS = 16  # that a program reads at a time
WINDOW_SPLITS = (
    16  # programs to a head: with 32 heads 4 to a processor of a large GPU, each with at most 188 keys
)
IMAGE_SPLITS = 8
if INTERPRETED:  # what takes its time there is programs
    WINDOW_SPLITS = IMAGE_SPLITS = 2
NOTHING = tl.constexpr(-1e30)  # below any score, and its difference to itself is 0


def attend_window(qkv: Tensor, window: Window, at: Position) -> Tensor:
    """See attention.attend_window."""
    batch, _, heads, context, width = window.kv.shape
    out, parts, marks = _room(qkv, batch, heads, WINDOW_SPLITS, width)
    _window[(WINDOW_SPLITS, heads, batch)](
        qkv.contiguous(),
        at.cos,
        at.sin,
        at.offset,
        window.kv,
        window.kv if window.scales is None else window.scales,
        parts,
        marks,
        context,
        width**-0.5,
        WIDTH=width,
        **_lanes(width, window.kv),
        KEYS=KEYS,
        INT8=window.scales is not None,
        num_warps=4,
    )
    return _combined(out, parts, marks)


def attend_image(q: Tensor, image: ImageKV) -> Tensor:
    """See attention.attend_image."""
    batch, heads, tokens, width = image.k.shape
    out, parts, marks = _room(q, batch, heads, IMAGE_SPLITS, width)
    _image[(IMAGE_SPLITS, heads, batch)](
        q.contiguous(),
        image.k,
        image.v,
        image.mask,
        parts,
        marks,
        tokens,
        image.k.stride(1),  # of the room, which is larger
        width**-0.5,
        WIDTH=width,
        **_lanes(width, image.k),
        KEYS=KEYS,
        num_warps=4,
    )
    return _combined(out, parts, marks)


def attend_codebooks(qkv: Tensor, kv: Tensor, codebook: int) -> Tensor:
    """See attention.attend_codebooks."""
    batch, _, heads, codebooks, width = kv.shape
    out = qkv.new_empty(batch, heads * width)
    _codebooks[(heads, batch)](
        qkv.contiguous(),
        kv,
        out,
        codebook,
        width**-0.5,
        CODEBOOKS=codebooks,
        ROOM=triton.next_power_of_2(codebooks),
        WIDTH=width,
        LANES=triton.next_power_of_2(width),
        num_warps=1,
    )
    return out


def _lanes(width: int, kv: Tensor) -> dict[str, int]:
    """How a key's numbers are shared out: 16 bytes to a thread."""
    vector = 16 // kv.element_size()
    return {"VECTOR": vector, "VECTORS": triton.next_power_of_2(triton.cdiv(width, vector))}


def _room(x: Tensor, batch: int, heads: int, splits: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """The result [B, dim]; of each split its weighted sum of values, and the largest score and the sum of weights."""
    parts = torch.empty(batch, heads, splits, width, dtype=torch.float32, device=x.device)
    marks = torch.empty(batch, heads, splits, 2, dtype=torch.float32, device=x.device)
    return x.new_empty(batch, heads * width), parts, marks


def _combined(out: Tensor, parts: Tensor, marks: Tensor) -> Tensor:
    batch, heads, splits, width = parts.shape
    lanes = triton.next_power_of_2(width)
    _combine[(heads, batch)](parts, marks, out, SPLITS=splits, WIDTH=width, LANES=lanes, num_warps=4)
    return out


@triton.jit
def _window(  # type: ignore[no-untyped-def]
    qkv,  # [batch, 3, heads, WIDTH]
    cos,  # [3, WIDTH]; those of the query are the key's
    sin,
    offset,
    kv,  # [batch, 2, heads, context, WIDTH]
    scales,  # [batch, 2, heads, context]
    parts,
    marks,
    context,
    scale,
    WIDTH: tl.constexpr,
    VECTOR: tl.constexpr,
    VECTORS: tl.constexpr,
    KEYS: tl.constexpr,
    INT8: tl.constexpr,
):
    split, head, batch = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    splits, heads = tl.num_programs(0), tl.num_programs(1)
    now = tl.load(offset)
    slot = (now % context).to(tl.int32)
    filled = tl.minimum(now + 1, context).to(tl.int32)
    each = tl.cdiv(tl.cdiv(filled, splits), KEYS)
    first = split * each * KEYS
    last = tl.minimum(first + each * KEYS, filled)

    one = tl.arange(0, VECTORS)[None, :, None]  # [1, VECTORS, 1]: for each vector of a key, so that no thread asks another
    lane = one * VECTOR + tl.arange(0, VECTOR)[None, None, :]  # [1, VECTORS, VECTOR]
    inside = lane < WIDTH
    turn = tl.load(cos + lane, inside, 0.0)
    swap = tl.load(sin + lane, inside, 0.0)
    new = qkv + (batch * 3 * heads + head) * WIDTH
    q = _turned(new, lane, inside, turn, swap) * scale
    k_new = _turned(new + heads * WIDTH, lane, inside, turn, swap)
    v_new = tl.load(new + 2 * heads * WIDTH + lane, inside, 0.0).to(tl.float32)

    row = (batch * 2 * heads + head).to(tl.int64) * context
    k_at, v_at = kv + row * WIDTH, kv + (row + heads * context) * WIDTH
    k_scales, v_scales = scales + row, scales + row + heads * context
    here = (slot >= first) & (slot < last)
    if INT8:
        k_scale, k_new = _small(k_new, scales)
        v_scale, v_new = _small(v_new, scales)
        tl.store(k_scales + slot + one * 0, k_scale.to(scales.dtype.element_ty), here & (one == 0))
        tl.store(v_scales + slot + one * 0, v_scale.to(scales.dtype.element_ty), here & (one == 0))
    tl.store(k_at + slot * WIDTH + lane, k_new.to(kv.dtype.element_ty), here & inside)
    tl.store(v_at + slot * WIDTH + lane, v_new.to(kv.dtype.element_ty), here & inside)

    most = tl.full((KEYS, VECTORS, 1), NOTHING, tl.float32)
    total = tl.zeros((KEYS, VECTORS, 1), tl.float32)
    values = tl.zeros((KEYS, VECTORS, VECTOR), tl.float32)
    # Each row has neighbours one after the other: were they side by side, their scales would be loaded by other threads.
    row = first + tl.arange(0, KEYS)[:, None, None] * each + one * 0
    for next in range(each):
        key = row + next  # [KEYS, VECTORS, 1]
        there = key < last
        k = tl.load(k_at + key * WIDTH + lane, there & inside, 0).to(tl.float32)
        v = tl.load(v_at + key * WIDTH + lane, there & inside, 0).to(tl.float32)
        k = tl.where(key == slot, k_new, k)  # what was written above need not be visible yet
        v = tl.where(key == slot, v_new, v)
        score = _scores(q, k)
        v_factor = tl.full((KEYS, VECTORS, 1), 1.0, tl.float32)
        if INT8:
            k_factor = tl.load(k_scales + key, there, 0.0).to(tl.float32)
            v_factor = tl.load(v_scales + key, there, 0.0).to(tl.float32)
            score *= tl.where(key == slot, k_scale, k_factor)
            v_factor = tl.where(key == slot, v_scale, v_factor)
        most, total, values = _seen(score, there, v, v_factor, most, total, values)
    _write((batch * heads + head) * splits + split, most, total, values, lane, inside, parts, marks, WIDTH)


@triton.jit
def _image(  # type: ignore[no-untyped-def]
    q,  # [batch, heads, WIDTH]
    k_image,  # [batch, heads, tokens, WIDTH], room apart
    v_image,
    mask,  # [tokens]
    parts,
    marks,
    tokens,
    room,  # numbers from head to head
    scale,
    WIDTH: tl.constexpr,
    VECTOR: tl.constexpr,
    VECTORS: tl.constexpr,
    KEYS: tl.constexpr,
):
    split, head, batch = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    splits, heads = tl.num_programs(0), tl.num_programs(1)
    each = tl.cdiv(tl.cdiv(tokens, splits), KEYS)
    first = split * each * KEYS
    last = tl.minimum(first + each * KEYS, tokens)
    vector = tl.arange(0, VECTORS)[None, :, None]
    lane = vector * VECTOR + tl.arange(0, VECTOR)[None, None, :]  # [1, VECTORS, VECTOR]
    inside = lane < WIDTH
    wanted = tl.load(q + (batch * heads + head) * WIDTH + lane, inside, 0.0).to(tl.float32) * scale
    k_at, v_at = k_image + (batch * heads + head) * room, v_image + (batch * heads + head) * room
    most = tl.full((KEYS, VECTORS, 1), NOTHING, tl.float32)
    total = tl.zeros((KEYS, VECTORS, 1), tl.float32)
    values = tl.zeros((KEYS, VECTORS, VECTOR), tl.float32)
    row = first + tl.arange(0, KEYS)[:, None, None] * each + vector * 0
    for next in range(each):
        key = row + next  # [KEYS, VECTORS, 1]
        there = key < last
        there = there & (tl.load(mask + key, there, 0.0).to(tl.float32) == 0)
        k = tl.load(k_at + key * WIDTH + lane, there & inside, 0).to(tl.float32)
        v = tl.load(v_at + key * WIDTH + lane, there & inside, 0).to(tl.float32)
        most, total, values = _seen(_scores(wanted, k), there, v, 1.0, most, total, values)
    _write((batch * heads + head) * splits + split, most, total, values, lane, inside, parts, marks, WIDTH)


@triton.jit
def _turned(x, lane, inside, cos, sin):  # type: ignore[no-untyped-def]
    """The interleaved pairs turned, as the model's type holds them."""
    a = tl.load(x + lane, inside, 0.0).to(tl.float32)
    b = tl.load(x + (lane ^ 1), inside, 0.0).to(tl.float32)
    return (a * cos + b * sin).to(x.dtype.element_ty).to(tl.float32)


@triton.jit
def _small(x, scales):  # type: ignore[no-untyped-def]
    """Scale [1, 1, 1] and levels [1, VECTORS, VECTOR] of one head's key or value, in float32: as Window.put makes them."""
    scale = tl.maximum(tl.max(tl.max(tl.abs(x), 2, keep_dims=True), 1, keep_dims=True) / 127, 1e-6)
    scale = scale.to(scales.dtype.element_ty).to(tl.float32)
    level = (x / scale + 12582912.0) - 12582912.0  # rounds to the nearest integer, to the even one of two
    return scale, tl.minimum(tl.maximum(level, -127.0), 127.0)


@triton.jit
def _scores(q, k):  # type: ignore[no-untyped-def]
    """[KEYS, 1, 1]"""
    return tl.sum(tl.sum(q * k, 2, keep_dims=True), 1, keep_dims=True)


@triton.jit
def _seen(score, there, v, v_factor, most, total, values):  # type: ignore[no-untyped-def]
    """One more key for each of KEYS running sums: they meet only at the end, so that no thread waits for others."""
    score = tl.where(there, score, NOTHING)
    now = tl.maximum(most, score)
    fade = tl.exp(most - now)
    weight = tl.where(there, tl.exp(score - now), 0.0)
    return now, total * fade + weight, values * fade + v * (weight * v_factor)


@triton.jit
def _write(index, most, total, values, lane, inside, parts, marks, WIDTH: tl.constexpr):  # type: ignore[no-untyped-def]
    top = tl.max(most, 0, keep_dims=True)  # the same for every vector
    fade = tl.exp(most - top)
    tl.store(parts + index * WIDTH + lane, tl.sum(values * fade, 0, keep_dims=True), inside)
    tl.store(marks + index * 2, tl.max(top))
    tl.store(marks + index * 2 + 1, tl.max(tl.sum(total * fade, 0)))


@triton.jit
def _combine(parts, marks, out, SPLITS: tl.constexpr, WIDTH: tl.constexpr, LANES: tl.constexpr):  # type: ignore[no-untyped-def]
    index = tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
    split = index * SPLITS + tl.arange(0, SPLITS)[:, None]
    lane = tl.arange(0, LANES)[None, :]
    inside = lane < WIDTH
    most = tl.load(marks + split * 2)
    fade = tl.exp(most - tl.max(most, 0, keep_dims=True))
    total = tl.sum(tl.load(marks + split * 2 + 1) * fade, 0, keep_dims=True)
    values = tl.sum(tl.load(parts + split * WIDTH + lane, inside, 0.0) * fade, 0, keep_dims=True)
    tl.store(out + index * WIDTH + lane, (values / total).to(out.dtype.element_ty), inside)


@triton.jit(do_not_specialize=["codebook"])
def _codebooks(  # type: ignore[no-untyped-def]
    qkv,  # [batch, 3, heads, WIDTH]
    kv,  # [batch, 2, heads, CODEBOOKS, WIDTH]
    out,  # [batch, heads, WIDTH]
    codebook,
    scale,
    CODEBOOKS: tl.constexpr,
    ROOM: tl.constexpr,
    WIDTH: tl.constexpr,
    LANES: tl.constexpr,
):
    head, batch = tl.program_id(0), tl.program_id(1)
    heads = tl.num_programs(0)
    lane = tl.arange(0, LANES)[None, :]
    past = tl.arange(0, ROOM)[:, None]
    inside = lane < WIDTH
    new = qkv + (batch * 3 * heads + head) * WIDTH + lane
    q = tl.load(new, inside, 0.0).to(tl.float32) * scale
    k_new = tl.load(new + heads * WIDTH, inside, 0.0)
    v_new = tl.load(new + 2 * heads * WIDTH, inside, 0.0)
    k_at = kv + (batch * 2 * heads + head) * CODEBOOKS * WIDTH + lane
    v_at = k_at + heads * CODEBOOKS * WIDTH
    tl.store(k_at + codebook * WIDTH, k_new, inside)
    tl.store(v_at + codebook * WIDTH, v_new, inside)
    k = tl.load(k_at + past * WIDTH, (past < codebook) & inside, 0.0)
    v = tl.load(v_at + past * WIDTH, (past < codebook) & inside, 0.0)
    k = tl.where(past == codebook, k_new, k).to(tl.float32)
    v = tl.where(past == codebook, v_new, v).to(tl.float32)
    score = tl.where(past <= codebook, tl.sum(q * k, 1, keep_dims=True), NOTHING)
    weight = tl.exp(score - tl.max(score, 0, keep_dims=True))
    y = tl.sum(weight * v, 0, keep_dims=True) / tl.sum(weight, 0, keep_dims=True)
    tl.store(out + (batch * heads + head) * WIDTH + lane, y.to(out.dtype.element_ty), inside)
