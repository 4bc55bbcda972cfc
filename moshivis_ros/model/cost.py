"""What a model costs by counting: bytes to keep, bytes to read for a step, kernels to launch; and how fast a machine
reads and launches.
"""

from __future__ import annotations

import time
from itertools import chain

import torch

from moshivis_ros.model.codec import Codec
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.lm import MoshiVis, window_bytes

MIMI_LAUNCHES = 1362  # of a frame


def memory(
    model: MoshiVis, kv_cache: str | None = None, codec: Codec | None = None, mimi: int = 0
) -> dict[str, int]:
    """Bytes of everything that a conversation needs, counted tensor by tensor, the device's own context apart.

    ``mimi``: bytes of Mimi where there is no ``codec`` to be counted.
    """
    config = model.config
    type_ = model.llm.out_norm.alpha.dtype
    parts = dict.fromkeys(("linear layers of a step", "embeddings", "image encoder", "norms"), 0)
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        size = tensor.numel() * tensor.element_size()
        if "image_prefix." in name or "kv_proj." in name:
            parts["image encoder"] += size
        elif "emb." in name:
            parts["embeddings"] += size
        else:
            parts["norms" if name.endswith("alpha") else "linear layers of a step"] += size
    parts["attention window"] = window_bytes(config, type_, kv_cache)
    parts["picture"] = 2 * config.image_tokens() * config.dim * type_.itemsize
    parts["Mimi"] = codec.size if codec is not None else mimi
    return parts


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
    """Kernels of a step with a picture on a GPU, in whatever form weights and window are: 687 of the released model, and
    2181 where Triton does not run. As benchmarks/launches.py counts them.
    """
    codebook = 5 * config.depformer_num_layers + 3
    count = 12 * config.num_layers + config.dep_q * codebook + 39
    return count if fused else 2181 * count // 687


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
