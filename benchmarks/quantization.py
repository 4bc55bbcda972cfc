"""What smaller weights cost and bring: memory counted tensor by tensor at full size, errors on golden data.

    python benchmarks/quantization.py memory
    python benchmarks/quantization.py damage tests/golden/tiny_a tests/golden/tiny_b
    python benchmarks/quantization.py random full 6
    python benchmarks/quantization.py outliers full 6
    python benchmarks/quantization.py answers builtin 56

`memory` allocates nothing. `damage` feeds every model the golden tokens and compares its logits with float32. `random`
does so with random weights of a size of `moshivis bench` and 6 frames; of the full size it takes 6 GB and some minutes.
`outliers` does so with weights and channels that are as uneven as those of trained models (see _uneven).
`answers` asks a trained miniature 56 written questions of each kind, as `moshivis eval` does, and counts the right answers.
"""

from __future__ import annotations

import copy
import dataclasses
import sys
from pathlib import Path
from random import Random

import numpy as np
import torch
from torch import Tensor, nn

from moshivis_ros.bench.sizes import SIZES
from moshivis_ros.evaluation.dialogue_test import KIND_ORDER
from moshivis_ros.evaluation.examination import Examination, look
from moshivis_ros.evaluation.scoring import questions
from moshivis_ros.model.checkpoint import load_model, resolve
from moshivis_ros.model.cost import memory
from moshivis_ros.model.kernels.state import ImageKV, Position, Window
from moshivis_ros.model.layers import RMSNorm, TokenEmbedding, rotary, rotary_frequencies
from moshivis_ros.model.lm import Layer, MoshiVis
from moshivis_ros.model.packed import Packed, PackedEmbedding, PackedLinear
from moshivis_ros.model.quantize import Quantizer, quantize
from moshivis_ros.model.sampling import Sampling
from moshivis_ros.model.stream import Stream
from moshivis_ros.model.tokenizer import Tokenizer
from moshivis_ros.training.pictures import pictures as tables
from moshivis_ros.training.pool import pool

MIMI_BYTES = 79_300_000 * 4  # float32


def released(form: str | None) -> MoshiVis:
    """The released model in bf16 or with smaller weights, of no memory."""
    with torch.device("meta"):
        model = MoshiVis(SIZES["full"]).bfloat16()
    if form is not None:
        Quantizer(model, form).expect()
    return model


def packed(bits: int, group: int, offsets: bool) -> MoshiVis:
    """The released model as one of the released quantised files holds it, of no memory (see model/released.py)."""
    model = released(None)
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, (nn.Linear, TokenEmbedding)) and parent is not model.image_prefix:
                if hasattr(layer, "bias") and layer.bias is not None:
                    continue  # the image encoder's own
                rows, columns = layer.weight.shape
                levels = torch.empty(rows, columns * bits // 8, dtype=torch.uint8, device="meta")
                scales = torch.empty(rows, columns // group, dtype=torch.bfloat16, device="meta")
                other = torch.empty_like(scales) if offsets else None
                holder = PackedLinear if isinstance(layer, nn.Linear) else PackedEmbedding
                setattr(parent, name, holder(Packed(levels, scales, other), columns))
    return model


def table() -> None:
    """Everything that is loaded with the released model, window full, CUDA context apart."""
    columns = {
        "bf16": memory(released(None), mimi=MIMI_BYTES),
        "int8": memory(released("int8"), mimi=MIMI_BYTES),
        "int8, int8 window": memory(released("int8"), "int8", mimi=MIMI_BYTES),
        "int4 g128": memory(released("int4"), mimi=MIMI_BYTES),
        "int4 g128, int8 window": memory(released("int4"), "int8", mimi=MIMI_BYTES),
        "q8_0": memory(packed(8, 32, False), mimi=MIMI_BYTES),
        "MLX q8": memory(packed(8, 64, True), mimi=MIMI_BYTES),
        "MLX q4": memory(packed(4, 32, True), mimi=MIMI_BYTES),
        "MLX q4, int8 window": memory(packed(4, 32, True), "int8", mimi=MIMI_BYTES),
    }
    print("| GB |" + "".join(f" {form} |" for form in columns) + "\n|---|" + "---:|" * len(columns))
    for part in columns["bf16"]:
        print(f"| {part} |" + "".join(f" {column[part] / 1e9:.2f} |" for column in columns.values()))
    print("| **sum** |" + "".join(f" **{sum(column.values()) / 1e9:.2f}** |" for column in columns.values()))


def damage(folders: list[str]) -> None:
    _head("golden data")
    for folder in map(Path, folders):
        exact = _logits(load_model(folder, "cpu", torch.float32), folder)
        models: dict[str, tuple[MoshiVis, str | None]] = {
            "bf16": (load_model(folder, "cpu", torch.bfloat16), None),
            "int8": (load_model(folder, "cpu", torch.float32, "int8"), None),
            "int8, rest bf16": (load_model(folder, "cpu", torch.bfloat16, "int8"), None),
            "int4": (load_model(folder, "cpu", torch.float32, "int4"), None),
            "float32, int8 window": (load_model(folder, "cpu", torch.float32), "int8"),
            "int8, rest bf16, int8 window": (load_model(folder, "cpu", torch.bfloat16, "int8"), "int8"),
        }
        for form, (model, kv_cache) in models.items():
            _row(folder.name, form, exact, _logits(model, folder, kv_cache))


@torch.no_grad()
def random(size: str, steps: int, outliers: bool = False) -> None:
    """Random weights, layer by layer: memory holds one layer at a time, and the depformer."""
    torch.manual_seed(0)
    config = dataclasses.replace(SIZES[size], context=steps, siglip=SIZES["tiny"].siglip)
    heads, width = config.num_heads, config.dim // config.num_heads
    tokens = torch.randint(config.audio_card, (steps, config.dep_q))
    # as torch makes embeddings and linear layers: the sum of 17 rows, and a picture after its norm
    first = (1 + config.n_q) ** 0.5 * torch.randn(steps, config.dim)
    source = torch.randn(1, 256, config.dim)
    forms = {
        "float32": (torch.float32, None, None),
        "bf16": (torch.bfloat16, None, None),
        "int8, rest bf16": (torch.bfloat16, "int8", None),
        "int4, rest bf16": (torch.bfloat16, "int4", None),
        "float32, int8 window": (torch.float32, None, "int8"),
    }
    depformer_heads = config.depformer_num_heads
    depformer_width = config.depformer_dim // depformer_heads
    hidden = {form: first.to(dtype, copy=True) for form, (dtype, _, _) in forms.items()}
    shared, pictures = {}, {}
    frequencies = torch.zeros(3, 1, 1, width // 2)
    frequencies[:2] = rotary_frequencies(width, config.max_period)
    for index in range(config.num_layers):
        exact = Layer(config, index)
        if outliers:
            _uneven(exact)
        for form, (dtype, weights, window) in forms.items():
            layer = _smaller(copy.deepcopy(exact).to(dtype), weights)
            if index == 0:
                shared[form] = layer.cross_attention.mha
                pictures[form] = ImageKV(
                    *shared[form].keys_values(source.to(dtype)), torch.zeros(1, 256, dtype=dtype)
                )
            ring = torch.zeros(1, 2, heads, steps, width, dtype=torch.int8 if window else dtype)
            scales = torch.zeros(1, 2, heads, steps, 1, dtype=dtype) if window else None
            for t in range(steps):
                mask = torch.zeros(1, steps, dtype=dtype)
                mask[:, t + 1 :] = -torch.inf
                now = torch.tensor([t])
                at = Position(now, now, mask, *rotary(now, frequencies))
                x, _ = layer(hidden[form][t : t + 1], Window(ring, scales), at, shared[form], pictures[form])
                hidden[form][t] = x[0]
        print(f"layer {index + 1} of {config.num_layers}", file=sys.stderr, flush=True)
    _head("weights of size")
    reference: tuple[Tensor, Tensor] | None = None
    for form, (dtype, weights, _) in forms.items():
        torch.manual_seed(1)
        model = MoshiVis(dataclasses.replace(config, num_layers=1)).requires_grad_(False)
        if outliers:
            _uneven(model)
        model.to(dtype)
        if weights:
            quantize(model, weights)
        state = model.llm.out_norm(hidden[form])
        audio = []
        for t in range(steps):
            past = state.new_empty(
                config.depformer_num_layers, 1, 2, depformer_heads, config.dep_q, depformer_width
            )
            previous = [torch.tensor([5]), *tokens[t, :, None]]
            inputs = enumerate(model.depformer_inputs(state[t : t + 1]))
            audio.append(torch.cat([model.depformer_step(i, x, previous[i], past) for i, x in inputs]))
        found = model.llm.text_linear(state).float(), torch.stack(audio).float()
        del model
        if reference is None:
            reference = found
        else:
            _row(size, form, reference, found)


def _uneven(part: nn.Module) -> None:
    """Make weights what those of trained models are like, their mean square kept.

    Each weight is normal times a size of its own (log-normal, 0.5: long tails), rows and columns have sizes too (0.4 and 0.3),
    one column in 200 is 5 times larger, and one channel in 200 leaves a norm 10 times larger (the others: log-normal, 0.3).
    """
    for layer in part.modules():
        if isinstance(layer, nn.Linear):
            old = layer.weight
            new = torch.randn(old.shape) * torch.randn(old.shape).mul_(0.5).exp_()
            new *= torch.exp(0.4 * torch.randn(len(old), 1)) * torch.exp(0.3 * torch.randn(1, old.shape[1]))
            new[:, torch.randperm(old.shape[1])[: max(1, old.shape[1] // 200)]] *= 5
            old.copy_(new * (old.square().mean() / new.square().mean()).sqrt())
        elif isinstance(layer, RMSNorm):
            new = torch.exp(0.3 * torch.randn(layer.alpha.shape))
            new[..., torch.randperm(new.shape[-1])[: max(1, new.shape[-1] // 200)]] *= 10
            layer.alpha.copy_(new / new.square().mean().sqrt())


def _smaller(layer: Layer, form: str | None) -> Layer:
    if form is not None:
        model = nn.Module()
        model.llm = nn.ModuleList([layer])
        model.depformer_in = model.depformer = model.audio_linears = nn.ModuleList()
        quantize(model, form)  # type: ignore[arg-type]
    return layer


def _head(first: str) -> None:
    print(f"| {first} | weights | text logits | audio logits | same text token | same audio token |")
    print("|---|---|---:|---:|---:|---:|")


def _row(name: str, form: str, exact: tuple[Tensor, Tensor], found: tuple[Tensor, Tensor]) -> None:
    errors = [float((b - a).norm() / a.norm()) for a, b in zip(exact, found, strict=True)]
    same = [float((a.argmax(-1) == b.argmax(-1)).float().mean()) for a, b in zip(exact, found, strict=True)]
    print(
        f"| {name} | {form} | {errors[0]:.2%} | {errors[1]:.2%} | {same[0]:.1%} | {same[1]:.1%} |", flush=True
    )


def answers(name: str, per_kind: int) -> None:
    """Right answers to the same written questions, by the type of the weights."""
    folder = resolve(name)
    plain = load_model(folder, "cpu", torch.float32)
    tokenizer = Tokenizer.load(folder, plain.config)
    siglip = plain.config.siglip
    pictures = pool("build/builtin/pictures/test.npz", 1500, 99, siglip.image_size, siglip.patch_size, tables)
    asked = questions(Random("questions 5"), pictures, per_kind, KIND_ORDER)
    kinds = {exchange.kind: sum(e.kind == exchange.kind for e, _ in asked) for exchange, _ in asked}
    print(
        "| weights | all |" + "".join(f" {kind} |" for kind in kinds) + "\n|---|---:|" + "---:|" * len(kinds)
    )
    print(f"| questions | {len(asked)} |" + "".join(f" {count} |" for count in kinds.values()))
    for weights, dtype, form in (
        ("float32", torch.float32, None),
        ("bf16", torch.bfloat16, None),
        ("int8", torch.float32, "int8"),
        ("int8, rest bf16", torch.bfloat16, "int8"),
        ("int4", torch.float32, "int4"),
    ):
        model = load_model(folder, "cpu", dtype, form)
        tokens = look(model, pictures)
        examination = Examination(model, tokenizer, pictures, tokens, "written", None, Sampling(0.0), 5)
        scores = examination.ask(asked, blind=False).scores
        shares = [np.mean([score.right for part in scores.values() for score in part])]
        shares += [np.mean([score.right for score in scores[kind]]) for kind in kinds]
        print(f"| {weights} |" + "".join(f" {share:.1%} |" for share in shares), flush=True)


@torch.no_grad()
def _logits(model: MoshiVis, folder: Path, kv_cache: str | None = None) -> tuple[Tensor, Tensor]:
    """Text [steps, card] and audio [steps, dep_q, card] logits of the golden run with a picture."""
    golden = np.load(folder / "golden.npz")
    pixels = torch.from_numpy(golden["image_a_pixel_values"]).reshape(
        1, 3, *golden["image_a_pixel_values"].shape[-2:]
    )
    kv = model.image_kv(pixels)
    stream = Stream(model, max_image_tokens=kv[0].shape[2], kv_cache=kv_cache)
    stream.set_image(kv)
    text, audio = [], []
    for codes, token, frame in zip(
        golden["image/user_codes"], golden["image/text_token"], golden["image/audio_tokens"], strict=True
    ):
        hidden, logits, _ = stream.temporal(stream.write_user(torch.from_numpy(codes.astype(np.int64))[None]))
        text.append(logits[0].float())
        chosen = torch.tensor([int(token)]), torch.from_numpy(frame.astype(np.int64))[None]
        rows = []

        def choose(codebook: int, logits: Tensor, rows: list = rows, audio: Tensor = chosen[1]) -> Tensor:
            rows.append(logits[0].float())
            return audio[:, codebook]

        stream.write_own(chosen[0], stream.depformer(hidden, chosen[0], choose))
        audio.append(torch.stack(rows))
    return torch.stack(text), torch.stack(audio)


if __name__ == "__main__":
    if sys.argv[1:2] == ["memory"]:
        table()
    elif sys.argv[1:2] == ["damage"] and len(sys.argv) > 2:
        damage(sys.argv[2:])
    elif sys.argv[1:2] in (["random"], ["outliers"]) and len(sys.argv) == 4:
        random(sys.argv[2], int(sys.argv[3]), sys.argv[1] == "outliers")
    elif sys.argv[1:2] == ["answers"] and len(sys.argv) == 4:
        answers(sys.argv[2], int(sys.argv[3]))
    else:
        sys.exit(__doc__)
