"""Linear layers in Triton: one vector times a matrix whose weights are read once, 16 bytes by each thread.

The norm before it costs no pass of its own: ``W (x * alpha / |x|)`` is ``W (x * alpha)``, divided at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from moshivis_ros.model.kernels.form import INTERPRETED, Rows, rows_of

THREADS = 128  # of a program
MANY_BYTES = 8192  # of a row in groups, of which four rows at once take more registers than there are
SHORT_BYTES = 4096  # of a row of 8 bits without groups, of which the assembler does no better up to this length
FEW_ROWS = 4096  # of a matrix that one program for every four rows does not spread over a large GPU


def product(
    x: Tensor, layer: nn.Module, norm: nn.Module | None = None, end: str = "", **of_end: Tensor
) -> Tensor:
    """``layer(x)`` [B, rows] of ``x`` [B, columns]; with ``norm`` of ``norm(x)``; and then what ``end`` says.

    add: is added to ``add``. relu. swiglu: ``silu(a) * b`` of the two halves. gate: ``add + factor * gate`` with
    ``gate`` the sigmoid of what is 4 less, and written there.
    """
    return _launch(x, [layer], norm, end, **of_end)[0]


def products(x: Tensor, layers: Sequence[nn.Module]) -> Tensor:
    """``layer(x)`` of every layer, all of one shape and form: [layers, B, rows]."""
    return _launch(x, layers, None, "")


def _launch(x: Tensor, layers: Sequence[nn.Module], norm: Any, end: str, **of_end: Tensor) -> Tensor:
    weights = [rows for rows in map(rows_of, layers) if rows is not None]
    values, scales, offsets, group, zero = weights[0]
    x = x.contiguous()
    batch, columns = x.shape
    rows = len(values) // 2 if end == "swiglu" else len(values)
    out = torch.empty(len(layers), batch, rows, dtype=x.dtype, device=x.device)
    vector = 16 // values.element_size()
    vectors = min(THREADS, triton.next_power_of_2(triton.cdiv(values.shape[1], vector)))
    of_program = 1 if rows < FEW_ROWS // 2 else 2 if rows < FEW_ROWS or end == "swiglu" else 4
    row_bytes, grouped = values.shape[1], group not in (0, columns)
    many = grouped and row_bytes > MANY_BYTES
    short = not grouped and values.dtype == torch.int8 and row_bytes <= SHORT_BYTES
    if many or short:
        of_program = min(of_program, 2)
    of_program = max(of_program, THREADS // vectors)  # 16 bytes for every thread
    if INTERPRETED:
        of_program = 64  # what takes its time there is programs
    _product[(triton.cdiv(rows, of_program), batch, len(layers))](
        x,
        x if norm is None else norm.alpha,
        tuple(w.values for w in weights),
        tuple(x if w.scales is None else w.scales for w in weights),
        tuple(x if w.offsets is None else w.offsets for w in weights),
        of_end.get("add", x),
        of_end.get("factor", x),
        of_end.get("gate", x),
        out,
        rows,
        COLUMNS=columns,
        BYTES=values.shape[1],
        ROWS=of_program,
        VECTOR=vector,
        VECTORS=vectors,
        GROUP=group,
        ZERO=zero,
        OFFSETS=offsets is not None,
        NORM="" if norm is None else "mean square" if norm.mean_square else "variance",
        EPS=0.0 if norm is None else norm.eps,
        END=end,
        num_warps=THREADS // 32,
    )
    return out


def unpacked(packed: Rows, dtype: torch.dtype) -> Tensor:
    """The weight [rows, columns] for products with many vectors, which torch computes: read once, written once."""
    values, scales, offsets, group, zero = packed
    assert scales is not None
    groups = scales.numel() // len(scales)
    columns = groups * group
    out = torch.empty(len(values), columns, dtype=dtype, device=values.device)
    bytes_ = values.shape[1]
    block = min(1024, triton.next_power_of_2(bytes_))
    _unpack[(triton.cdiv(bytes_, block), len(values))](
        values,
        scales,
        scales if offsets is None else offsets,
        out,
        COLUMNS=columns,
        BYTES=bytes_,
        GROUP=group,
        ZERO=zero,
        OFFSETS=offsets is not None,
        BLOCK=block,
        num_warps=2,
    )
    return out


@triton.jit
def _unpack(  # type: ignore[no-untyped-def]
    values,  # see form.Rows
    scales,
    offsets,
    out,  # [rows, COLUMNS]
    COLUMNS: tl.constexpr,
    BYTES: tl.constexpr,  # numbers in memory of one row
    GROUP: tl.constexpr,
    ZERO: tl.constexpr,
    OFFSETS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(1).to(tl.int64)
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = place < BYTES
    column = place
    if BYTES != COLUMNS:  # a byte of a group holds a column of each of its halves
        column = place // (GROUP // 2) * GROUP + place % (GROUP // 2)
    at = row * (COLUMNS // GROUP) + column // GROUP
    scale = tl.load(scales + at, there, 0.0).to(tl.float32)
    offset = 0.0
    if OFFSETS:
        offset = tl.load(offsets + at, there, 0.0).to(tl.float32)
    stored = tl.load(values + row * BYTES + place, there, 0)
    out += row * COLUMNS + column
    if BYTES == COLUMNS:
        tl.store(out, (stored.to(tl.float32) * scale + offset).to(out.dtype.element_ty), there)
    else:
        low = ((stored & 15).to(tl.int32) - ZERO).to(tl.float32) * scale + offset
        high = ((stored >> 4).to(tl.int32) - ZERO).to(tl.float32) * scale + offset
        tl.store(out, low.to(out.dtype.element_ty), there)
        tl.store(out + GROUP // 2, high.to(out.dtype.element_ty), there)


@triton.jit
def _product(  # type: ignore[no-untyped-def]
    x,  # [batch, COLUMNS]
    alpha,  # [COLUMNS], of the norm
    values,  # of each matrix: see form.Rows
    scales,
    offsets,
    add,  # [batch, rows]
    factor,  # [batch, rows]
    gate,  # [batch, rows]
    out,  # [matrices, batch, rows]
    rows,
    COLUMNS: tl.constexpr,
    BYTES: tl.constexpr,  # numbers in memory of one row: half of COLUMNS where two share a byte
    ROWS: tl.constexpr,  # of a program
    VECTOR: tl.constexpr,  # numbers in 16 bytes
    VECTORS: tl.constexpr,  # of a row, at a time
    GROUP: tl.constexpr,
    ZERO: tl.constexpr,
    OFFSETS: tl.constexpr,
    NORM: tl.constexpr,
    EPS: tl.constexpr,
    END: tl.constexpr,
):
    batch = tl.program_id(1)
    matrix = tl.program_id(2)
    weight, scale, offset = values[0], scales[0], offsets[0]
    for other in tl.static_range(1, len(values)):
        weight = tl.where(matrix == other, values[other], weight)
        scale = tl.where(matrix == other, scales[other], scale)
        offset = tl.where(matrix == other, offsets[other], offset)
    weight = tl.multiple_of(weight, 16)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)  # [ROWS]
    first = tl.arange(0, VECTORS)[None, :, None] * VECTOR + tl.arange(0, VECTOR)[None, None, :]
    x += batch * COLUMNS
    total = tl.zeros((ROWS, VECTORS), tl.float32)
    second = tl.zeros((ROWS, VECTORS), tl.float32)
    squares = tl.zeros((1, VECTORS), tl.float32)
    sums = tl.zeros((1, VECTORS), tl.float32)
    for start in tl.static_range(0, BYTES, VECTORS * VECTOR):
        place = start + first  # [1, VECTORS, VECTOR]
        inside = place < BYTES
        if BYTES == COLUMNS:
            column = place
        else:  # a byte of a group holds a column of each of its halves
            column = place // (GROUP // 2) * GROUP + place % (GROUP // 2)
        low = tl.load(x + column, inside, 0.0).to(tl.float32)
        high = low
        if BYTES != COLUMNS:
            high = tl.load(x + column + GROUP // 2, inside, 0.0).to(tl.float32)
        if NORM != "":
            squares += tl.sum(low * low, 2)
            if NORM == "variance":
                sums += tl.sum(low, 2)
            low *= tl.load(alpha + column, inside, 0.0).to(tl.float32)
            if BYTES != COLUMNS:
                squares += tl.sum(high * high, 2)
                if NORM == "variance":
                    sums += tl.sum(high, 2)
                high *= tl.load(alpha + column + GROUP // 2, inside, 0.0).to(tl.float32)
        total += _part(
            weight,
            scale,
            offset,
            row,
            rows,
            start,
            place,
            inside,
            low,
            high,
            COLUMNS,
            BYTES,
            GROUP,
            ZERO,
            OFFSETS,
        )
        if END == "swiglu":
            second += _part(
                weight,
                scale,
                offset,
                row + rows,
                2 * rows,
                start,
                place,
                inside,
                low,
                high,
                COLUMNS,
                BYTES,
                GROUP,
                ZERO,
                OFFSETS,
            )
    there = row < rows
    result = tl.sum(total, 1)
    other = tl.sum(second, 1)
    if GROUP == COLUMNS and not OFFSETS:
        result *= tl.load(scale + row, there, 0.0).to(tl.float32)
        if END == "swiglu":
            other *= tl.load(scale + row + rows, there, 0.0).to(tl.float32)
    if NORM != "":
        square = tl.sum(squares)
        if NORM == "variance":
            mean = tl.sum(sums) / COLUMNS
            spread = (square - mean * mean * COLUMNS) / (COLUMNS - 1)
        else:
            spread = square / COLUMNS
        length = tl.rsqrt(spread + EPS)
        result *= length
        other *= length
    at = batch * rows + row
    if END == "add":
        result += tl.load(add + at, there, 0.0).to(tl.float32)
    elif END == "relu":
        result = tl.maximum(result, 0.0)
    elif END == "swiglu":
        result = result / (1 + tl.exp(-result)) * other
    elif END == "gate":
        opened = 1 / (1 + tl.exp(4 - result))
        tl.store(gate + at, opened.to(gate.dtype.element_ty), there)
        result = tl.load(add + at, there, 0.0).to(tl.float32) + opened * tl.load(factor + at, there, 0.0).to(
            tl.float32
        )
    tl.store(out + matrix * tl.num_programs(1) * rows + at, result.to(out.dtype.element_ty), there)


@triton.jit
def _part(  # type: ignore[no-untyped-def]
    weight,
    scale,
    offset,
    row,  # [ROWS]
    rows,
    start,
    place,  # [1, VECTORS, VECTOR]
    inside,
    low,
    high,
    COLUMNS: tl.constexpr,
    BYTES: tl.constexpr,
    GROUP: tl.constexpr,
    ZERO: tl.constexpr,
    OFFSETS: tl.constexpr,
):
    """[ROWS, VECTORS]: the product of these columns, without the scale that a whole row shares."""
    there = (row < rows)[:, None, None] & inside
    stored = tl.load(weight + row.to(tl.int64)[:, None, None] * BYTES + place, there, 0)
    if BYTES == COLUMNS:
        part = tl.sum(stored.to(tl.float32) * low, 2)
    else:
        part = tl.sum(
            ((stored & 15).to(tl.int32) - ZERO).to(tl.float32) * low
            + ((stored >> 4).to(tl.int32) - ZERO).to(tl.float32) * high,
            2,
        )
    if GROUP != 0 and (GROUP != COLUMNS or OFFSETS):
        VECTORS: tl.constexpr = place.shape[1]
        VECTOR: tl.constexpr = place.shape[2]
        groups: tl.constexpr = COLUMNS // GROUP
        group = (start + tl.arange(0, VECTORS) * VECTOR) // (GROUP * BYTES // COLUMNS)
        mask = (row < rows)[:, None] & (group < groups)[None, :]
        at = row[:, None] * groups + group[None, :]
        part *= tl.load(scale + at, mask, 0.0).to(tl.float32)
        if OFFSETS:
            whole = tl.sum(low, 2)
            if BYTES != COLUMNS:
                whole += tl.sum(high, 2)
            part += tl.load(offset + at, mask, 0.0).to(tl.float32) * whole
    return part
