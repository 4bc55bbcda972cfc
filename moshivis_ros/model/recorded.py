"""Run a step once, keep what it did, and do it again without Python: a CUDA graph on a GPU, a trace on a CPU."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from moshivis_ros.model.device import STEP, computing, stream_of
from moshivis_ros.model.kernels.form import INTERPRETED

WARM_UP = (
    3  # runs before a CUDA graph is captured, and after a trace was made: both settle in their first runs
)


def record(
    step: nn.Module, codes: Tensor, generator: torch.Generator | None = None, pool: Any = None
) -> Callable[[Tensor], Any]:
    """``step(codes)``, recorded: the same work on the same buffers, with any ``codes`` of that shape.

    ``step`` must not decide anything by the value of a tensor. Its random numbers come from ``generator``. What it changes
    must be parameters and buffers of ``step``. On a GPU the tensors that it returns are overwritten by the next call, also by
    that of another recording with the same memory ``pool`` (see new_pool): recordings never run at the same time, so that
    what they need only while they run may be the same memory.
    """
    if (
        INTERPRETED and not codes.is_cuda
    ):  # a trace keeps torch's operations only, and Triton's run beside them
        return step
    with torch.no_grad():
        return _cuda_graph(step, codes, generator, pool) if codes.is_cuda else _trace(step, codes)


def new_pool(device: torch.device) -> Any:
    """Memory for recordings on that device. It ends with the last of them: a conversation has one of its own."""
    return torch.cuda.graph_pool_handle() if device.type == "cuda" else None


def _trace(step: nn.Module, codes: Tensor) -> Callable[[Tensor], Any]:
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
    step: nn.Module, codes: Tensor, generator: torch.Generator | None, pool: Any
) -> Callable[[Tensor], Any]:
    codes = codes.clone()  # the graph reads from here
    with computing(codes.device, STEP):
        for _ in range(WARM_UP):
            step(codes)
        graph = torch.cuda.CUDAGraph()
        if generator is not None:
            graph.register_generator_state(generator)
        with torch.cuda.graph(graph, pool=pool, stream=torch.cuda.current_stream()):
            out = step(codes)
    torch.cuda.current_stream(codes.device).wait_stream(stream_of(codes.device, STEP))

    def replay(new_codes: Tensor) -> Any:
        codes.copy_(new_codes)
        graph.replay()
        return out

    return replay
