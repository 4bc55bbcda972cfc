"""Run a step once, keep what it did, and do it again without Python: a CUDA graph on a GPU, a trace on a CPU."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from moshivis_ros.model.kernels.form import INTERPRETED

WARM_UP = (
    3  # runs before a CUDA graph is captured, and after a trace was made: both settle in their first runs
)

Outputs = tuple[Tensor, ...]


def record(
    step: nn.Module, codes: Tensor, generator: torch.Generator, pool: Any = None
) -> Callable[[Tensor], Outputs]:
    """``step(codes)``, recorded: the same work on the same buffers, with any ``codes`` of that shape.

    ``step`` must not decide anything by the value of a tensor. Its random numbers come from ``generator``. On
    a GPU the tensors that it returns are overwritten by the next call, also by that of another recording with the
    same memory ``pool`` (torch.cuda.graph_pool_handle).
    """
    if INTERPRETED and not codes.is_cuda:  # a trace keeps torch's operations only, and Triton's run beside them
        return step
    with torch.no_grad():
        return _cuda_graph(step, codes, generator, pool) if codes.is_cuda else trace(step, codes)


def trace(step: nn.Module, codes: Tensor) -> Callable[[Tensor], Any]:
    """``step(codes)`` on a CPU, recorded; see ``record``. What it changes must be buffers of ``step``."""
    with warnings.catch_warnings():
        # Shapes become constants, which is what is wanted here; and TorchScript has no successor that runs
        # without a C++ compiler.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.trace(_Flat(step), (codes,), check_trace=False)
        for _ in range(WARM_UP):
            traced(codes)
    return traced  # type: ignore[no-any-return]


class _Flat(nn.Module):
    """``step`` without its tree of modules, each of which a trace would make anew: only its tensors count."""

    def __init__(self, step: nn.Module) -> None:
        super().__init__()
        self._step = [step]  # a list: a module would be a part of this one
        for i, tensor in enumerate((*step.parameters(), *step.buffers())):
            self.register_buffer(f"tensor_{i}", tensor)

    def forward(self, codes: Tensor) -> Any:
        return self._step[0](codes)


def _cuda_graph(
    step: nn.Module, codes: Tensor, generator: torch.Generator, pool: Any
) -> Callable[[Tensor], Outputs]:
    codes = codes.clone()  # the graph reads from here
    stream = _capture_stream(codes.device)
    with torch.cuda.device(codes.device):
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                step(codes)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(generator)
        with torch.cuda.graph(graph, pool=pool, stream=stream):
            out: Outputs = step(codes)

    def replay(new_codes: Tensor) -> Outputs:
        codes.copy_(new_codes)
        graph.replay()
        return out

    return replay


@lru_cache
def _capture_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all recordings on a device: memory of a pool belongs to a stream, and only there is it used again.

    Kernels keep the priority of the stream they were captured on: a picture being encoded has to wait.
    """
    return torch.cuda.Stream(device, priority=-1)
