"""What smaller weights cost and bring: memory counted tensor by tensor at full size, errors on golden data.

    python benchmarks/quantization.py memory
    python benchmarks/quantization.py damage tests/golden/tiny_a tests/golden/tiny_b

`memory` allocates nothing. `damage` feeds every model the golden tokens and compares its logits with float32.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from moshivis_ros.model.checkpoint import load_model
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.lm import MoshiVis
from moshivis_ros.model.quantize import Quantizer, quantize
from moshivis_ros.model.stream import Stream

MIMI_BYTES = 79_300_000 * 4  # float32


def memory() -> None:
    """Bytes of everything that is loaded with the released model, window full, CUDA context apart."""
    config = ModelConfig.preset("moshika-vis")
    with torch.device("meta"):
        model = MoshiVis(config)
    quantised = Quantizer(model, "int8").layers
    small = sum(layer.weight.numel() for layer in quantised)
    rows = sum(layer.weight.shape[0] for layer in quantised)
    encoder = sum(p.numel() for p in model.image_prefix.parameters())
    embeddings = sum(
        p.numel() for name, p in model.named_parameters() if "emb." in name and "image_prefix" not in name
    )
    rest = sum(p.numel() for p in model.parameters()) - small - encoder - embeddings
    window = 2 * config.num_layers * config.context * config.dim
    picture = 2 * config.image_tokens() * config.dim
    forms = {"bf16": 2 * small, "int8": small + 2 * rows, "int4 g128": small // 2 + small // 128 * 4}
    table = {
        form: {
            "linear layers of a step": weights,
            "embeddings, bf16": 2 * embeddings,
            "norms and cross-attention K/V weights, bf16": 2 * rest,
            "image encoder, bf16": 2 * encoder,
            "attention window (3000 frames), bf16": 2 * window,
            "picture K/V, bf16": 2 * picture,
            "Mimi, float32": MIMI_BYTES,
        }
        for form, weights in forms.items()
    }
    print("| GB |" + "".join(f" {form} |" for form in table) + "\n|---|" + "---:|" * len(table))
    for part in table["bf16"]:
        print(f"| {part} |" + "".join(f" {column[part] / 1e9:.2f} |" for column in table.values()))
    print("| **sum** |" + "".join(f" **{sum(column.values()) / 1e9:.2f}** |" for column in table.values()))
    print(
        f"\nint8 embeddings would save {embeddings / 1e9:.2f} GB, an int8 image encoder {encoder / 1e9:.2f} GB,"
    )
    print(f"an int8 window {window * (1 - 2 / 128) / 1e9:.2f} GB (a bf16 scale per 128 numbers).")


def damage(folders: list[str]) -> None:
    print("| golden data | weights | text logits | audio logits | same text token | same audio token |")
    print("|---|---|---:|---:|---:|---:|")
    for folder in map(Path, folders):
        exact = _logits(load_model(folder, "cpu", torch.float32), folder)
        models = {
            "bf16": load_model(folder, "cpu", torch.bfloat16),
            "int8": quantize(load_model(folder, "cpu", torch.float32), "int8"),
            "int8, rest bf16": quantize(load_model(folder, "cpu", torch.bfloat16), "int8"),
            "int4": quantize(load_model(folder, "cpu", torch.float32), "int4"),
        }
        for form, model in models.items():
            found = _logits(model, folder)
            errors = [float((b - a).norm() / a.norm()) for a, b in zip(exact, found, strict=True)]
            same = [
                float((a.argmax(-1) == b.argmax(-1)).float().mean())
                for a, b in zip(exact, found, strict=True)
            ]
            print(
                f"| {folder.name} | {form} | {errors[0]:.2%} | {errors[1]:.2%} | {same[0]:.1%} | {same[1]:.1%} |"
            )


@torch.no_grad()
def _logits(model: MoshiVis, folder: Path) -> tuple[Tensor, Tensor]:
    """Text [steps, card] and audio [steps, dep_q, card] logits of the golden run with a picture."""
    golden = np.load(folder / "golden.npz")
    pixels = torch.from_numpy(golden["image_a_pixel_values"]).reshape(
        1, 3, *golden["image_a_pixel_values"].shape[-2:]
    )
    kv = model.image_kv(pixels)
    stream = Stream(model, max_image_tokens=kv[0].shape[2])
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
        memory()
    elif sys.argv[1:2] == ["damage"] and len(sys.argv) > 2:
        damage(sys.argv[2:])
    else:
        sys.exit(__doc__)
