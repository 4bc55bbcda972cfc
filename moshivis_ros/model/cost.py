"""What a model costs by counting: bytes to keep, bytes to read for a step, kernels to launch; and how fast a machine
reads and launches.
"""

from __future__ import annotations

import time
from itertools import chain
from pathlib import Path

import torch

from moshivis_ros.model.codec import Codec
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.lm import MoshiVis, window_bytes

MIMI_LAUNCHES = 1314  # of a frame: encode and decode
WORKING = 500_000_000  # bytes beside what is counted: recorded steps, a picture being encoded, libraries, one tensor while loading


def memory(
    model: MoshiVis, kv_cache: str | None = None, codec: Codec | None = None, mimi: int = 0
) -> dict[str, int]:
    """Bytes of everything that a conversation needs, counted tensor by tensor, the device's own context apart.

    ``mimi``: bytes of Mimi where there is no ``codec`` to be counted.
    """
    parts = dict.fromkeys(("linear layers of a step", "embeddings", "image encoder", "norms"), 0)
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        size = tensor.numel() * tensor.element_size()
        if "image_prefix." in name or "kv_proj." in name:
            parts["image encoder"] += size
        elif "emb." in name:
            parts["embeddings"] += size
        else:
            parts["norms" if name.endswith("alpha") else "linear layers of a step"] += size
    type_ = model.llm.out_norm.alpha.dtype
    return parts | beside_weights(model.config, type_, kv_cache, mimi if codec is None else codec.size)


def beside_weights(
    config: ModelConfig, dtype: torch.dtype, kv_cache: str | None, mimi: int
) -> dict[str, int]:
    """Bytes that a conversation takes for itself, and ``mimi``."""
    return {
        "attention window": window_bytes(config, dtype, kv_cache),
        "picture": 2 * config.image_tokens() * config.dim * dtype.itemsize,
        "Mimi": mimi,
    }


def needed_beside(path: Path, config: ModelConfig, dtype: torch.dtype, kv_cache: str | None) -> int:
    """Bytes that must be free beside the weights ``path`` of a checkpoint, Mimi's file being where it belongs, and beside
    CUDA's own (some 0.5 GB): that has them already when it is asked what is free.
    """
    codec = path.parent / config.mimi_codec
    mimi = codec.stat().st_size if codec.is_file() else 0
    return sum(beside_weights(config, dtype, kv_cache, mimi).values()) + WORKING


def bytes_per_step(model: MoshiVis, kv_cache: str | None = None) -> int:
    """What one step with a picture must read: every weight of LM and depformer, the full window, the picture.

    The cross-attention that all layers share and the picture are read by each of them: together they are larger
    than what a GPU keeps in its cache while a layer's own weights pass through.
    """
    parts = memory(model, kv_cache)
    once = sum(parts[part] for part in ("linear layers of a step", "norms", "attention window", "picture"))
    shared = sum(
        tensor.numel() * tensor.element_size()
        for name, tensor in chain(model.named_parameters(), model.named_buffers())
        if ".mha." in name and "kv_proj." not in name
    )
    return once + (model.config.num_layers - 1) * (shared + parts["picture"])


def launches(config: ModelConfig, fused: bool = True) -> int:
    """Kernels of a step with a picture on a GPU, in whatever form weights and window are: 692 of the released model, and
    2181 where Triton does not run. As benchmarks/launches.py counts them.
    """
    codebook = 5 * config.depformer_num_layers + 3
    count = 12 * config.num_layers + config.dep_q * codebook + 44
    return count if fused else 2181 * count // 692


def launch_seconds(device: torch.device) -> float:
    """Of a kernel with nothing to do among many in a CUDA graph, each of which waits for the one before."""
    many = 500
    with torch.cuda.device(device):
        number = torch.zeros(1, device=device)
        number.add_(1)  # what is loaded at the first call must not be within the graph
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(many):
                number.add_(1)
        best = float("inf")
        for _ in range(5):
            torch.cuda.synchronize()
            start = time.perf_counter()
            graph.replay()
            torch.cuda.synchronize()
            best = min(best, time.perf_counter() - start)
    return best / many


def read_bandwidth(device: torch.device, rows: int | None = None) -> float:
    """Bytes per second of the fastest of several passes that only read ``rows`` of 4 kB: a quarter (CPU) or two GB (GPU)."""
    rows = rows or ((1 << 19) if device.type == "cuda" else (1 << 16))
    data = torch.ones(rows, 1024, device=device)
    vector = torch.ones(1024, device=device)
    best = float("inf")
    for _ in range(5):
        for read in (data.sum, lambda: torch.mv(data, vector)):
            start = time.perf_counter()
            read()  # type: ignore[no-untyped-call]
            if device.type == "cuda":
                torch.cuda.synchronize()
            best = min(best, time.perf_counter() - start)
    return data.numel() * data.element_size() / best
