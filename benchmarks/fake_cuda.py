"""A GPU made of shapes alone: a CUDA path runs without a GPU, and every launch is seen with its tensors.

``fake_cuda()`` opens it; ``Launches`` collects what is launched inside. Needs a C++ compiler once, for
no_op_guard.cpp, and Triton for what is written in it.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from moshivis_ros.model.kernels import form

# Of one kernel on a GPU, and taken apart by FakeTensorMode.
ONE_KERNEL = (F.scaled_dot_product_attention, F.rms_norm)
# Views that their schema does not call so, and what only takes memory.
NO_LAUNCH = ("aten._unsafe_view", "aten._reshape_alias", "aten.empty", "aten.new_empty", "aten.empty_like")


class Launch(NamedTuple):
    name: str
    bytes: int  # of the tensors that it reads and writes, each once and whole
    kernel: Any = None  # Triton's function, its arguments by name, its grid and options; None: torch's own
    arguments: dict[str, Any] | None = None
    grid: tuple[int, ...] = ()


class Launches(TorchDispatchMode):
    """All launches inside ``with``, in their order. Fails when a tensor's value is brought to the host."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[Launch] = []
        self._whole = _Whole(self)
        self._paused = False
        self._stack = ExitStack()

    def __enter__(self) -> Launches:
        super().__enter__()
        self._stack.enter_context(self._whole)
        try:
            from triton.runtime.jit import JITFunction
        except ImportError:
            return self
        launches = self

        def run(kernel: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> None:
            names = [parameter.name for parameter in kernel.params]
            arguments = {**dict(zip(names, args, strict=False)), **options}
            grid = grid(arguments) if callable(grid) else grid
            launches._add(kernel.__name__, arguments, kernel=kernel, arguments=arguments, grid=tuple(grid))

        self._stack.enter_context(mock.patch.object(JITFunction, "run", run))
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()
        super().__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = str(func).rsplit(".", 1)[0]
        assert name != "aten._local_scalar_dense", "the host waits for the value of a tensor"
        if name in ("aten._to_copy", "aten.copy_"):  # no recording may hold such a thing
            copied = {t.device.type for t in tree_leaves((args, out)) if isinstance(t, Tensor)}
            assert len(copied) == 1, "a copy between host and device"
        if not (self._paused or name.startswith("prim") or func.is_view or name in NO_LAUNCH):
            self._add(name, (args, kwargs, out))
        return out

    def _add(self, name: str, tensors: Any, **more: Any) -> None:
        each = {id(t): t for t in tree_leaves(tensors) if isinstance(t, Tensor)}
        self.all.append(Launch(name, sum(t.numel() * t.element_size() for t in each.values()), **more))


class _Whole(TorchFunctionMode):
    """Counts what is one kernel as one."""

    def __init__(self, launches: Launches) -> None:
        super().__init__()
        self.launches = launches

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        whole = func in ONE_KERNEL and not self.launches._paused
        if not whole:
            return func(*args, **(kwargs or {}))
        self.launches._paused = True
        try:
            out = func(*args, **(kwargs or {}))
        finally:
            self.launches._paused = False
        self.launches._add(func.__name__, (args, kwargs, out))
        return out


@lru_cache
def _register_guard() -> None:
    folder = Path(torch.__file__).parent
    with tempfile.TemporaryDirectory() as build:
        library = Path(build) / "guard.so"
        source = Path(__file__).with_name("no_op_guard.cpp")
        headers = [f"-I{folder / 'include'}"]
        command = ["g++", "-std=c++20", "-O0", "-shared", "-fPIC", *headers, source, "-o", library]
        subprocess.run([*command, f"-L{folder / 'lib'}", "-lc10"], check=True)
        torch.ops.load_library(str(library))


class _Generator:
    """FakeTensorMode has random numbers, but a CPU build has no generator for a GPU."""

    def __init__(self, device: Any = None) -> None:
        self.device = device

    def manual_seed(self, seed: int) -> None:
        pass


@contextmanager
def fake_cuda() -> Iterator[None]:
    """Inside, tensors on "cuda" have a shape and a type, and no values."""
    _register_guard()
    triton_is_there = find_spec("triton") is not None  # it cannot be tried out here
    with (
        FakeTensorMode(),
        mock.patch.object(torch, "Generator", _Generator),
        mock.patch.object(form, "triton_runs", lambda: triton_is_there),
    ):
        yield
