"""Golden data at the real widths: run the original beside whose numbers `moshivis verify` puts ours.

    git clone https://github.com/kyutai-labs/moshivis CHECKOUT
    pip install moshi transformers==4.47.0 torchvision
    python benchmarks/original.py CHECKOUT FOLDER [--steps 20]
    moshivis verify FOLDER

Two layers of the temporal transformer and two of the depformer, everything else as released: 1.6 billion random weights,
3.3 GB in bfloat16 on disk, at most 6 GB of memory. The original (kyuteye_pt) is loaded by its own loaders and left as it is;
what it computes on the way is listened to. Greedy, float32, CPU, one conversation at a time: see RUNS of moshivis_ros.verify.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import yaml
from safetensors import safe_open
from torch import Tensor

from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.init import drawn
from moshivis_ros.model.lm import MoshiVis
from moshivis_ros.model.weights import write
from moshivis_ros.verify import RUNS

LAYERS = 2
PICTURES = {"a": ((300, 400), 448), "b": ((480, 320), 336)}  # height and width, and the size that it is resized to
Arrays = dict[str, Any]


def write_weights(config: ModelConfig, folder: Path, seed: int) -> None:
    with torch.device("meta"):
        layout = MoshiVis(config).state_dict()
    names = sorted(layout)

    def tensors() -> Iterator[Tensor]:
        for name, tensor in drawn(layout, torch.Generator().manual_seed(seed)):
            wide = ".gate.alpha." in name or name.endswith("mha.in_proj_weight")  # against the gate's offset of -4
            yield (3 * tensor if wide else tensor).bfloat16()

    write({name: layout[name].bfloat16() for name in names}, folder / config.model, tensors())


def read_weights(path: Path, image: bool) -> dict[str, Tensor]:
    """As the original splits them, in the memory-mapped file."""
    with safe_open(path, framework="pt") as file:
        names = [name for name in file.keys() if name.startswith("image_prefix.") is image]  # noqa: SIM118
        return {name.removeprefix("image_prefix."): file.get_tensor(name) for name in names}


def see(original: Any, golden: Arrays, random: np.random.Generator) -> Arrays:
    """Both pictures through the original's image path: what the conversations attend to, by name."""
    from kyuteye.modules.image_transforms import get_minimal_transforms

    sources = {}
    embeddings = original.enc.model.embeddings
    for name, ((height, width), size) in PICTURES.items():
        raw = torch.from_numpy(random.integers(0, 256, (3, height, width), dtype=np.uint8))
        resized = get_minimal_transforms(size)(raw)
        pixels = original.to_tensor_and_normalize(resized)[None]
        with heard(embeddings, "interpolate_pos_encoding") as positions:
            encoded, _ = original.encode(pixels)
        projected = original.proj_xa(encoded)
        source = original(pixels)["cross_attention_src"]
        sources[name] = source
        stages = {
            "raw_u8": raw,
            "resized_u8": resized,
            "pixel_values": pixels,
            "enc_out": encoded,
            "proj": projected,
            "ca_src": source,
            "pos_embed": positions[-1],
        }
        golden |= {f"image_{name}_{stage}": value.numpy() for stage, value in stages.items()}
    return sources


@contextmanager
def heard(module: Any, method: str) -> Iterator[list[Any]]:
    """What a method of a module returns, inside ``with``."""
    results: list[Any] = []
    original = getattr(module, method)

    def call(*args: Any, **kwargs: Any) -> Any:
        results.append(original(*args, **kwargs))
        return results[-1]

    with mock.patch.object(module, method, call):
        yield results


def converse(generator: Any, name: str, codes: np.ndarray, picture_at: Any) -> Arrays:
    """One run: every array that `moshivis verify` knows, with a row for each step."""
    model = generator.lm_model
    rows: dict[str, list[Any]] = {}
    generator.reset_streaming()
    with ExitStack() as stack:
        read: list[Tensor] = []
        layers: list[Tensor] = []
        gates: list[Tensor] = []
        ends: list[Tensor] = []

        def listen(module: Any, into: list[Tensor], pick: Any) -> None:
            handle = module.register_forward_hook(lambda _, given, out: into.append(pick(given, out).clone()))
            stack.callback(handle.remove)

        listen(model.llm.text_emb, read, lambda given, _: given[0])
        for embedding in model.audio_emb:
            listen(embedding, read, lambda given, _: given[0])
        for layer in model.llm.transformer.layers:
            listen(layer, layers, lambda _, out: out[0] if isinstance(out, tuple) else out)
            listen(layer.cross_attention.gate, gates, lambda _, out: out[1].mean())
        for linear in model.audio_linears:
            listen(linear, ends, lambda given, _: given[0])
        temporal = stack.enter_context(heard(model, "forward_text"))
        depformer = stack.enter_context(heard(model, "forward_depformer"))
        for step, row in enumerate(codes):
            for found in (read, layers, gates, ends, temporal, depformer):
                found.clear()
            out, returned = generator.step(torch.from_numpy(row)[None, :, None], ca_src=picture_at(step))
            hidden, text_logits, alpha = temporal[0]
            audio_logits = torch.stack([logits.flatten() for logits in depformer])
            values = {
                "input_tokens": torch.stack([tokens.flatten()[0] for tokens in read]),
                "text_token": text_logits.argmax(),
                "audio_tokens": audio_logits.argmax(-1),
                "text_logits": text_logits.flatten(),
                "audio_logits": audio_logits,
                "gate_alpha": torch.as_tensor(alpha, dtype=torch.float32),
                "gate_returned": torch.as_tensor(returned, dtype=torch.float32),
                "gate_per_layer": torch.stack(gates) if gates else torch.zeros(LAYERS),
                "out_tokens": torch.full((9,), -1) if out is None else out.flatten(),
                "transformer_out": hidden.flatten(),
                "layer_out": torch.stack([layer.flatten() for layer in layers]),
                "dep_out": torch.stack([end.flatten() for end in ends]),
            }
            for key, value in values.items():
                rows.setdefault(key, []).append(value.numpy())
    return {f"{name}/{key}": np.stack(row) for key, row in rows.items()}


def margin(golden: Arrays) -> float:
    """The smallest gap between the most likely token and the next."""
    logits = [array for key, array in golden.items() if key.endswith("logits")]
    best = [np.partition(array, -2, axis=-1)[..., -2:] for array in logits]
    return min(float((pair[..., 1] - pair[..., 0]).min()) for pair in best)


@torch.no_grad()
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, help="of kyutai-labs/moshivis")
    parser.add_argument("folder", type=Path, help="to write")
    parser.add_argument("--steps", type=int, default=20, help="of each of the five runs (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    sys.path.insert(0, str(args.checkout / "kyuteye_pt"))
    from kyuteye.config.kyuteye_config import KyuteyeConfig
    from kyuteye.models.image_projection import ImageProjection
    from kyuteye.models.moshivis import MoshiVisGen

    config = dataclasses.replace(
        ModelConfig.preset("moshika-vis"), num_layers=LAYERS, depformer_num_layers=LAYERS, trained=False
    )
    args.folder.mkdir(parents=True, exist_ok=True)
    weights = args.folder / config.model
    if not weights.exists():
        write_weights(config, args.folder, args.seed)
    released = yaml.safe_load((args.checkout / "kyuteye_pt" / "configs" / "moshika-vis.yaml").read_text())
    theirs = KyuteyeConfig(**{**released, "num_layers": LAYERS, "depformer_num_layers": LAYERS})

    random = np.random.default_rng(args.seed + 1)
    golden: Arrays = {}
    image = ImageProjection.from_config(theirs, config.dim, read_weights(weights, image=True))
    sources = see(image.float().eval(), golden, random)
    del image
    generator = MoshiVisGen.from_config(
        theirs, read_weights(weights, image=False), dtype=torch.float32, use_sampling=False
    )
    generator.to(torch.float32).streaming_forever(1)
    pictures = {name: generator.precompte_ca_kv(source) for name, source in sources.items()}
    for name, (k, v) in pictures.items():
        golden |= {f"image_{name}_k": k.numpy(), f"image_{name}_v": v.numpy()}

    swap, late = args.steps // 2, args.steps // 3
    shape = (args.steps, config.user_q)
    codes = random.integers(0, config.audio_card, shape)
    gaps = random.integers(0, config.audio_card, shape)
    gaps[random.random(shape) < 0.25] = -1
    golden |= {"image/user_codes": codes, "zerotok/user_codes": gaps}
    for name in RUNS:

        def picture_at(step: int, name: str = name) -> Any:
            if name == "noimage" or (name == "late" and step < late):
                return None
            return pictures["b" if name == "swap" and step >= swap else "a"]

        golden |= converse(generator, name, gaps if name == "zerotok" else codes, picture_at)
        print(f"{name}: {args.steps} steps of the original", flush=True)
    np.savez(args.folder / "golden.npz", **golden)
    config.save(args.folder)
    path = args.folder / "config.yaml"
    settings = {
        "images": {name: {"raw_hw": list(raw), "resized": size} for name, (raw, size) in PICTURES.items()},
        "swap_at_step": swap,
        "late_at_step": late,
        "steps": args.steps,
        "min_top1_top2_logit_margin": margin(golden),
    }
    written = {**yaml.safe_load(path.read_text()), "golden": settings}
    path.write_text(yaml.safe_dump(written))
    print(f"{args.folder}: smallest gap between the two most likely tokens {margin(golden):.1e}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
