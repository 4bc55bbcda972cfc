"""Run by test_kernels.py with TRITON_INTERPRET=1: the Triton form of a function beside its torch form, on a CPU.

The torch form runs where gradients could be wanted, the Triton form where they could not.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from moshivis_ros.model.compact import compact
from moshivis_ros.model.kernels import attention, form, products, state, tokens
from moshivis_ros.model.packed import Packed, PackedEmbedding, PackedLinear
from moshivis_ros.model.layers import RMSNorm, TokenEmbedding, rotary, rotary_frequencies
from moshivis_ros.model.quantize import StoredWeight, _by_rows, _int4, _int8
from moshivis_ros.model.sampling import MAX_TOP_K, sample

TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2e-2}  # of the size of a result


def both(function: Callable[..., Any], *arguments: Any, changed: Any = ()) -> tuple[Any, Any]:
    """What torch's and Triton's form give, and leave in the tensors ``changed``."""
    found = []
    before = [tensor.clone() for tensor in changed]
    for grad in (True, False):
        for tensor, old in zip(changed, before, strict=True):
            tensor.copy_(old)
        with torch.set_grad_enabled(grad):
            out = function(*arguments)
        found.append(([out] if isinstance(out, Tensor) else list(out)) + [t.clone() for t in changed])
    return found[0], found[1]


def close(function: Callable[..., Any], *arguments: Any, changed: Any = (), name: str = "") -> None:
    expected, found = both(function, *arguments, changed=changed)
    for a, b in zip(expected, found, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype, name
        a, b = a.float(), b.float()
        allowed = TOLERANCE[arguments[0].dtype] * float(a.square().mean().sqrt())
        torch.testing.assert_close(
            b, a, atol=3 * allowed, rtol=TOLERANCE[arguments[0].dtype], msg=lambda m: f"{name}: {m}"
        )


def linear(rows: int, columns: int, dtype: torch.dtype, kind: str) -> nn.Module:
    weight = torch.randn(rows, columns, dtype=dtype) / columns**0.5
    if kind == "int8":
        return StoredWeight(*_by_rows(weight, _int8)).linear()
    if kind == "int4":
        group = next(size for size in (128, 64, 32) if columns % size == 0)
        return StoredWeight(*_by_rows(weight.unflatten(1, (-1, group)), _int4)).linear()
    layer = nn.Linear(columns, rows, bias=False, dtype=dtype)
    layer.weight = nn.Parameter(weight, requires_grad=False)
    return layer.requires_grad_(False)


def normed(dim: int, dtype: torch.dtype, kind: str) -> RMSNorm:
    norm = RMSNorm(dim, kind).to(dtype).requires_grad_(False)
    norm.alpha.normal_(1, 0.1)
    return norm


def check_products(columns: int, rows: int, dtype: torch.dtype, kind: str, batch: int) -> None:
    name = f"{columns} {rows} {dtype} {kind} {batch}"
    x = torch.randn(batch, columns, dtype=dtype) + 0.3
    add, factor = torch.randn(2, batch, rows, dtype=dtype)
    for norm in (normed(columns, dtype, "real_rms_norm_f32"), normed(columns, dtype, "rms_norm_f32")):
        close(products.project, x, norm, linear(rows, columns, dtype, kind), name=f"project {name}")
    close(products.add_projected, add, x, linear(rows, columns, dtype, kind), name=f"add {name}")
    close(
        products.all_projected, x, [linear(rows, columns, dtype, kind) for _ in range(3)], name=f"all {name}"
    )


def check_pairs(dim: int, hidden: int, dtype: torch.dtype, kind: str, batch: int) -> None:
    name = f"{dim} {hidden} {dtype} {kind} {batch}"
    x, y = torch.randn(2, batch, dim, dtype=dtype)
    norm = normed(dim, dtype, "real_rms_norm_f32")
    layers = linear(2 * hidden, dim, dtype, kind), linear(dim, hidden, dtype, kind)
    close(products.add_swiglu, x, norm, *layers, name=f"swiglu {name}")
    layers = linear(hidden, dim, dtype, kind), linear(dim, hidden, dtype, kind)
    close(products.add_gated, x, 5 * y, *layers, name=f"gated {name}")


def mlx(rows: int, columns: int, bits: int, group: int) -> Packed:
    """Levels 0..15 or 0..255 with scale and offset, as MLX has them."""
    levels = torch.randint(0, 256, (rows, columns * bits // 8), dtype=torch.uint8)
    scales = (torch.rand(rows, columns // group) + 0.1).bfloat16() / 2**bits
    return Packed(levels, scales, -scales * 2 ** (bits - 1))


def check_groups(rows: int, columns: int, dtype: torch.dtype) -> None:
    """int8 in blocks of 32 (as GGUF's q8_0), and with offsets (as MLX's): forms that a layer may bring with it."""

    class Blocks(nn.Module):
        def __init__(self, offsets: bool) -> None:
            super().__init__()
            values = torch.randint(-127, 128, (rows, columns), dtype=torch.int8)
            scales = torch.rand(rows, columns // 32).half() / 127
            self.rows = form.Rows(values, scales, scales * 3 if offsets else None, 32)

        def forward(self, x: Tensor) -> Tensor:
            values, scales, offsets, group, _ = self.rows
            weight = values.float().unflatten(1, (-1, group)) * scales.float()[..., None]
            weight = weight if offsets is None else weight + offsets.float()[..., None]
            return (x.float() @ weight.flatten(1).T).to(x.dtype)

    x = torch.randn(1, columns, dtype=dtype)
    norm = normed(columns, dtype, "real_rms_norm_f32")
    for bits, group in ((4, 32), (4, columns // 3), (8, 32)):
        close(products.project, x, norm, PackedLinear(mlx(rows, columns, bits, group), columns), name=f"MLX {bits} {group}")
        table = PackedEmbedding(mlx(rows, columns, bits, group), columns)
        close(tokens.add_embedded, x, torch.tensor([rows - 1]), table, name=f"MLX {bits} {group} embedded")
    for offsets in (False, True):
        close(products.project, x, norm, Blocks(offsets), name=f"blocks {rows} {columns} {offsets}")


def check_many_vectors(rows: int, columns: int, dtype: torch.dtype) -> None:
    """Torch multiplies them, with weights that Triton unpacked, here in blocks of three rows."""
    whole = products.BLOCK
    products.BLOCK = 3 * columns
    x = torch.randn(form.MOST + 1, columns, dtype=dtype)
    for kind in ("int8", "int4"):
        close(linear(rows, columns, dtype, kind), x, name=f"many {rows} {columns} {kind}")
    values, scales = torch.randint(-127, 128, (rows, columns), dtype=torch.int8), torch.rand(rows, columns // 32)
    packed = form.Rows(values, scales, scales * 3, 32)
    with torch.no_grad():
        torch.testing.assert_close(products._unpacked(packed, torch.float32), form.dense(packed, torch.float32))
    products.BLOCK = whole


def check_attention(
    heads: int, width: int, context: int, dtype: torch.dtype, int8: bool, batch: int = 1
) -> None:
    frequencies = torch.zeros(3, 1, 1, width // 2)
    frequencies[:2] = rotary_frequencies(width, 10000)
    for offset in (0, 1, context // 3, context - 1, context, 3 * context + 7):
        kv = torch.randn(batch, 2, heads, context, width, dtype=dtype)
        kv[:, :, :, min(offset, context) :] = torch.nan  # must not be read
        window = state.Window(kv, None)
        if int8:
            levels = torch.randint(-127, 128, kv.shape, dtype=torch.int8)
            window = state.Window(levels, torch.rand(*kv.shape[:-1], 1).to(dtype) / 127)
        elif offset < context:
            kv[:, :, :, offset:] = 0  # torch reads them, and hides them with its mask
        now = torch.tensor([offset])
        empty = torch.arange(context) > offset
        mask = torch.zeros(context, dtype=dtype).masked_fill(empty, -torch.inf)[None]
        at = state.Position(now, now % context, mask, *rotary(now, frequencies))
        qkv = torch.randn(batch, 3 * heads * width, dtype=dtype)
        changed = [window.kv] if window.scales is None else [window.scales]
        expected, found = both(attention.attend_window, qkv, window, at, changed=[window.kv, *changed])
        size = float(expected[0].float().square().mean().sqrt())
        allowed = TOLERANCE[dtype] * 3 * size
        torch.testing.assert_close(found[0], expected[0], atol=allowed, rtol=TOLERANCE[dtype])
        if int8:  # a rounding may fall the other way
            stored = [levels.float() * scales.float() for _, levels, scales in (found, expected)]
            torch.testing.assert_close(*stored, atol=0.03 * float(stored[1].max()), rtol=0)
        else:
            torch.testing.assert_close(found[1], expected[1], rtol=1e-2, atol=1e-3)
    room, tokens = context + 5, max(1, context - 3)
    k, v = torch.randn(2, batch, heads, room, width, dtype=dtype)
    mask = torch.zeros(1, room, dtype=dtype)
    mask[:, tokens:] = -torch.inf
    image = state.ImageKV(k.narrow(2, 0, context), v.narrow(2, 0, context), mask.narrow(1, 0, context))
    close(attention.attend_image, torch.randn(batch, heads * width, dtype=dtype), image, name="image")


def check_codebooks(heads: int, width: int, codebooks: int, dtype: torch.dtype, batch: int) -> None:
    kv = torch.full((batch, 2, heads, codebooks, width), torch.nan, dtype=dtype)
    for codebook in range(codebooks):
        qkv = torch.randn(batch, 3 * heads * width, dtype=dtype)
        expected, found = both(attention.attend_codebooks, qkv, kv, codebook, changed=[kv])
        torch.testing.assert_close(found[0], expected[0], atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])
        assert torch.equal(found[1].nan_to_num(9), expected[1].nan_to_num(9))


def check_tokens(dim: int, cards: list[int], dtype: torch.dtype, batch: int) -> None:
    plain = [TokenEmbedding(card, dim, dtype=dtype).requires_grad_(False) for card in cards]
    packed = [table for table in map(compact, plain) if table is not None]
    for tables in [plain] + [packed] * bool(packed):
        ids = torch.stack([torch.randint(-1, card, (batch,)) for card in cards], dim=1)
        with torch.no_grad():
            found = tokens.embed(ids, tables, dtype)
        with torch.enable_grad():
            torch.testing.assert_close(
                found, tokens.embed(ids, tables, dtype), atol=0.05 if dtype != torch.float32 else 1e-5, rtol=0.02
            )
        x, known = torch.randn(batch, dim, dtype=dtype), ids[:, 1].clamp(min=0)
        close(tokens.add_embedded, x, known, tables[1], name="embedded")
        ids[0, 0] = cards[0]
        with torch.no_grad():
            assert tokens.embed(ids, tables, dtype)[0].isnan().all()


def check_sample(card: int, batch: int, dtype: torch.dtype) -> None:
    for top_k in (1, 25, 250):
        logits = 3 * torch.randn(batch, card).to(dtype)
        race = -torch.empty(batch, 9, MAX_TOP_K).exponential_().log()
        race[:, :, top_k:] = -torch.inf
        for heat in (0.0, 0.7):
            expected, found = both(sample, logits, torch.tensor(heat), race[:, 3])
            # equal logits (there are such in bfloat16) have no order of ranks
            a, b = (logits.gather(1, tokens[0][:, None]) for tokens in (expected, found))
            assert torch.equal(expected[0], found[0]) or (
                heat > 0 and dtype != torch.float32 and torch.equal(a, b)
            )
    equal = torch.zeros(batch, card, dtype=dtype)
    assert both(sample, equal, torch.tensor(0.0), race[:, 0])[1][0].tolist() == batch * [0]
    with torch.no_grad():
        assert (sample(equal, torch.tensor(1.0), race[:, 0]) < min(card, MAX_TOP_K)).all()


def odd() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        for kind in ("plain", "int8", "int4"):
            check_products(64, 6, dtype, kind, batch=2)
            check_products(352, 3, dtype, kind, batch=1)
            check_pairs(32, 32, dtype, kind, batch=2)
        check_products(72, 5, dtype, "plain", batch=1)
        check_pairs(7, 5, dtype, "plain", batch=2)
        check_groups(5, 1056, dtype)
        check_many_vectors(16, 1056, dtype)
        for int8 in (False, True):
            check_attention(2, 10, 12, dtype, int8, batch=2)
        check_codebooks(3, 10, 8, dtype, 2)
        check_tokens(70, [11, 12, 13], dtype, 2)
        check_sample(37, 2, dtype)
        check_sample(1000, 1, dtype)


def real() -> None:
    """At the widths of the released model; fewer rows, which are all alike."""
    dtype = torch.bfloat16
    for kind in ("plain", "int8", "int4"):
        for columns in (4096, 1024, 11264, 2816, 512):
            check_products(columns, 5, dtype, kind, batch=1)
    for int8 in (False, True):
        check_attention(1, 128, 3000, dtype, int8)
    check_codebooks(4, 64, 8, dtype, 1)
    check_tokens(4096, [301] + 16 * [2049], dtype, 1)
    check_sample(2048, 1, dtype)
    check_sample(32000, 1, dtype)


if __name__ == "__main__":
    torch.manual_seed(0)
    {"odd": odd, "real": real}[sys.argv[1]]()
