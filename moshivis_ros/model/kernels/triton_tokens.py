"""Tokens to vectors, and logits to tokens, in Triton."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from moshivis_ros.model.kernels.form import rows_of

LANES = 512  # numbers of a vector to a program
RANKS = 256  # at least as many as ranks that may win
PART = 2048  # logits of a program


def probe() -> None:
    """Compile and start a kernel that does nothing. Raises what Triton raises."""
    _nothing[(1,)]()


def embed(ids: Tensor, tables: Sequence[nn.Module], dtype: torch.dtype, x: Tensor | None = None) -> Tensor:
    """``x`` [B, dim] (None: 0) and the rows of ``tables``, all of one form, for ``ids`` [B, tables]: see tokens.embed."""
    rows = [rows for table in tables if (rows := rows_of(table)) is not None]
    form = rows[0]
    dim = form.columns
    ids = ids.contiguous()
    out = torch.empty(len(ids), dim, dtype=dtype, device=ids.device)
    _embed[(triton.cdiv(dim, LANES), len(ids))](
        ids,
        tuple(table.values for table in rows),
        tuple(table.values if table.scales is None else table.scales for table in rows),
        tuple(table.values if table.offsets is None else table.offsets for table in rows),
        tuple(len(table.values) for table in rows),
        out if x is None else x.contiguous(),
        out,
        dim,
        ADD=x is not None,
        GROUP=form.group,
        OFFSETS=form.offsets is not None,
        HALVES=form.values.shape[1] < dim,
        LANES=LANES,
        num_warps=4,
    )
    return out


def sample(logits: Tensor, temperature: Tensor, race: Tensor) -> Tensor:
    """See sampling.sample. Of many logits each program first keeps those of its part that may win."""
    batch, card = logits.shape
    ranks = min(race.shape[1], card)
    logits, ids = logits.contiguous(), None
    while True:
        parts = triton.cdiv(card, PART) if card > 2 * PART else 1
        lanes = PART if parts > 1 else triton.next_power_of_2(card)
        best = torch.empty(batch, parts, RANKS, dtype=torch.float32, device=logits.device)
        best_ids = torch.empty(batch, parts, RANKS, dtype=torch.int32, device=logits.device)
        out = torch.empty(batch, dtype=torch.int64, device=logits.device)
        _sample[(parts, batch)](
            logits,
            best_ids if ids is None else ids,
            temperature,
            race,
            best,
            best_ids,
            out,
            card,
            ranks,
            race.stride(0),
            LANES=lanes,
            RANKS=RANKS,
            NAMED=ids is not None,
            DRAW=parts == 1,
            num_warps=8,
        )
        if parts == 1:
            return out
        logits, ids, card = best, best_ids, parts * RANKS


@triton.jit
def _nothing():  # type: ignore[no-untyped-def]
    pass


@triton.jit
def _embed(  # type: ignore[no-untyped-def]
    ids,
    tables,
    scales,
    offsets,
    sizes,
    add,
    out,
    dim,
    ADD: tl.constexpr,
    GROUP: tl.constexpr,
    OFFSETS: tl.constexpr,
    HALVES: tl.constexpr,  # two levels to a byte: see form.Rows
    LANES: tl.constexpr,
):
    batch = tl.program_id(1)
    lane = tl.program_id(0) * LANES + tl.arange(0, LANES)
    inside = lane < dim
    total = tl.zeros((LANES,), tl.float32)
    if ADD:
        total += tl.load(add + batch * dim + lane, inside, 0.0).to(tl.float32)
    for table in tl.static_range(len(tables)):
        id = tl.load(ids + batch * len(tables) + table)
        known = (id >= 0) & (id < sizes[table])
        other = tl.where(id == -1, 0.0, float("nan"))
        there = tl.where(known, id, 0)
        if HALVES:
            half = lane // GROUP * (GROUP // 2) + lane % (GROUP // 2)
            byte = tl.load(tables[table] + there * (dim // 2) + half, inside, 0)
            row = tl.where(lane % GROUP < GROUP // 2, byte & 15, byte >> 4).to(tl.float32)
        else:
            row = tl.load(tables[table] + there * dim + lane, inside, 0).to(tl.float32)
        if GROUP:
            group = there * (dim // GROUP) + lane // GROUP
            row *= tl.load(scales[table] + group, inside, 0.0).to(tl.float32)
            if OFFSETS:
                row += tl.load(offsets[table] + group, inside, 0.0).to(tl.float32)
        total += tl.where(known, row, other)
    tl.store(out + batch * dim + lane, total.to(out.dtype.element_ty), inside)


@triton.jit
def _sample(  # type: ignore[no-untyped-def]
    logits,  # [batch, card]
    names,  # [batch, card]: their ids, if NAMED
    temperature,
    race,  # [batch, ranks]
    values,  # [batch, parts, RANKS]: the largest logits, in the order of their ids
    ids,
    out,
    card,
    ranks,  # how many may win
    from_race,  # numbers from one row of race to the next
    LANES: tl.constexpr,
    RANKS: tl.constexpr,
    NAMED: tl.constexpr,
    DRAW: tl.constexpr,
):
    part, batch = tl.program_id(0), tl.program_id(1)
    values += (batch * tl.num_programs(0) + part) * RANKS
    ids += (batch * tl.num_programs(0) + part) * RANKS
    lane = part * LANES + tl.arange(0, LANES)
    there = lane < card
    logit = tl.load(logits + batch * card + lane, there, float("-inf")).to(tl.float32)
    name = lane
    if NAMED:
        name = tl.load(names + batch * card + lane, there, 0)
    # Integers in the order of the logits. Halving an interval finds the one that so many reach as may win.
    bits = (logit + 0.0).to(tl.int32, bitcast=True)  # + 0: of the two zeros only one
    order = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    low = tl.full((), -2147483648, tl.int64)
    high = tl.full((), 2147483648, tl.int64)
    while high - low > 1:
        middle = (low + high) >> 1
        enough = tl.sum(((order >= middle) & there).to(tl.int32), 0) >= ranks
        low = tl.where(enough, middle, low)
        high = tl.where(enough, high, middle)
    above = ((order > low) & there).to(tl.int32)
    equal = ((order == low) & there).to(tl.int32)
    chosen = (above + equal * (tl.cumsum(equal, 0) <= ranks - tl.sum(above, 0))) > 0
    place = tl.cumsum(chosen.to(tl.int32), 0) - 1
    tl.store(values + place, logit, chosen)
    tl.store(ids + place, name, chosen)
    mine = tl.arange(0, RANKS)
    kept = tl.sum(chosen.to(tl.int32), 0)
    tl.store(values + mine, float("-inf"), mine >= kept)
    tl.store(ids + mine, 0, mine >= kept)
    if DRAW:
        tl.debug_barrier()
        value = tl.load(values + mine)
        rank = tl.zeros((RANKS,), tl.int32)
        for start in range(0, RANKS, 16):
            others = start + tl.arange(0, 16)
            other = tl.load(values + others)[None, :]
            first = others[None, :] < mine[:, None]
            rank += tl.sum(((other > value[:, None]) | ((other == value[:, None]) & first)).to(tl.int32), 1)
        heat = tl.load(temperature)
        head_start = tl.load(race + batch * from_race + rank, rank < ranks, float("-inf"))
        score = value / tl.where(heat > 0, heat, 1.0) + head_start
        winner = tl.where(heat > 0, tl.argmax(score, 0), tl.argmax(value, 0))  # of equals the first
        tl.store(out + batch, tl.load(ids + winner).to(tl.int64))
