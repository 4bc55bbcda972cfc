"""`moshivis train CONFIG --plan`: what the stage adapters takes, before anything is loaded.

Nothing is estimated that can be counted: one step of the very code that trains is run with tensors that have shapes and no
memory, and what would be allocated and multiplied is added up. Only how much of its peak a GPU reaches is assumed.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from moshivis_ros.errors import ConfigError
from moshivis_ros.model.checkpoint import BUILTIN
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.lm import MoshiVis
from moshivis_ros.model.weights import unfilled
from moshivis_ros.training.batches import NOTHING, Batch
from moshivis_ros.training.learner import Learner, Options, describe, freeze, frozen_layers, put_int8
from moshivis_ros.training.train import TUNED, Settings

UTILISATION = 0.4  # of a GPU's peak, as trainings of such models reach
BESIDE = 0.8e9  # bytes: CUDA's own context, and what its allocator cannot use
GPUS = {  # bfloat16 operations a second without sparsity, by the makers; bytes
    "a100": (312e12, 80e9),
    "h100": (989e12, 80e9),
    "h200": (989e12, 141e9),
    "l40s": (362e12, 48e9),
    "rtx3090": (71e12, 24e9),
    "rtx4090": (165e12, 24e9),
    "rtx5090": (210e12, 32e9),
}


class Memory(NamedTuple):
    """Bytes at the peak of a step, by kind."""

    frozen: int
    learning: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        return sum(self)


class Cost(NamedTuple):
    parameters: str  # how many learn
    memory: Memory
    operations: float  # floating-point ones of a process and step


def plan(settings: Settings, gpu: str, gpus: int, price: float) -> str:
    """A report for so many GPUs of this kind at this price an hour. Raises ConfigError for another stage or GPU."""
    if settings.stage != TUNED:
        raise ConfigError(f"--plan is for the stage {TUNED}, not for {settings.stage}")
    if gpu not in GPUS:
        raise ConfigError(f"no GPU {gpu!r} is known: choose one of {', '.join(GPUS)}")
    options = Options.of(settings.options)
    folder = BUILTIN if options.model == "builtin" else Path(options.model).expanduser()
    here = folder.is_dir()
    config = ModelConfig.load(folder) if here else ModelConfig.preset("moshika-vis")
    cost = count(config, options, settings.bfloat16)
    speed, room = GPUS[gpu]
    needed = cost.memory.total + BESIDE
    seconds = cost.operations / (speed * UTILISATION)
    samples = options.batch * options.accumulate * gpus
    hours = seconds * settings.steps / 3600
    kinds = [f"  {kind:12}{size / 1e9:8.2f} GB" for kind, size in cost.memory._asdict().items()]
    fits = (
        "fits"
        if needed <= room
        else "DOES NOT FIT: try frozen: int8, a smaller batch (accumulate more), fewer seconds"
    )
    lines = [
        *(() if here else (f"{options.model} is not on this machine: with the sizes of the released model",)),
        cost.parameters,
        "memory of a process, at most:",
        *kinds,
        f"  {'in all':12}{cost.memory.total / 1e9:8.2f} GB, {needed / 1e9:.1f} with CUDA's own; {gpu}, {room / 1e9:.0f} GB: {fits}",
        f"a step: {samples} samples, {cost.operations / 1e12:.1f} Tflop a process, {seconds:.2f} s at {UTILISATION:.0%} of {gpu}'s peak",
        f"{settings.steps} steps: {samples * settings.steps:,} samples, {samples / seconds:.1f} a second, {hours:.1f} hours",
    ]
    if price:
        lines.append(f"{hours * gpus:.1f} GPU hours at {price:g}: {hours * gpus * price:.2f}")
    return "\n".join(lines)


def count(config: ModelConfig, options: Options, bfloat16: bool) -> Cost:
    """Of a step whose samples have their full length; operations: with as many of each form as there will be."""
    learner = blank(config, options, bfloat16)
    with FakeTensorMode():
        fill(learner)
        spoken, written = (batch_of(config, options, bfloat16, kind) for kind in (True, False))
        optimizer = torch.optim.AdamW(learner.groups(), lr=1e-3, fused=True)
        remembered(optimizer)
        with Allocated(learner, optimizer) as allocated:
            step(learner, optimizer, spoken)
        # Like lengths are together, and a batch costs what its longest sample does.
        long = math.ceil((1 - options.speechless) * options.accumulate)
        parts = ((long, spoken), (options.accumulate - long, written))
        operations = sum(number * _operations(learner, batch) for number, batch in parts if number)
        memory = _kinds(learner, optimizer, allocated.peak)
    return Cost(describe(learner), memory, operations)


def blank(config: ModelConfig, options: Options, bfloat16: bool) -> Learner:
    """What learns as tune.load makes it, on the device "meta"."""
    with unfilled():
        model = MoshiVis(config).to(torch.bfloat16 if bfloat16 else torch.float32).requires_grad_(False)
        del model.image_prefix.enc
        if options.frozen == "int8":
            put_int8(
                model, frozen_layers(model), lambda weight: (weight.to(torch.int8), weight[:, 0].bfloat16())
            )
        freeze(model, options)
    return Learner(model, options, bfloat16)


def fill(learner: Learner) -> Learner:
    """Give it memory, or what stands for it where this is called, but no weights."""
    for module in learner.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            values = torch.empty(parameter.shape, dtype=parameter.dtype)
            module.register_parameter(name, nn.Parameter(values, requires_grad=parameter.requires_grad))
        for name, buffer in list(module.named_buffers(recurse=False)):
            module.register_buffer(name, torch.empty(buffer.shape, dtype=buffer.dtype))
    return learner


def batch_of(config: ModelConfig, options: Options, bfloat16: bool, spoken: bool) -> Batch:
    """The largest that there can be of a form."""
    size, frames = options.batch, options.limits.spoken if spoken else options.limits.speechless
    slots = options.pictures if spoken else 1
    patches, hidden = config.image_tokens(), config.siglip.hidden_size
    dtype = torch.bfloat16 if bfloat16 else torch.float32
    tokens = torch.zeros(size, 1 + config.n_q, frames, dtype=torch.int64)
    if not spoken:
        tokens[:, 1:] = NOTHING
    return Batch(
        tokens,
        torch.ones(size, frames),
        torch.zeros(size, frames, dtype=torch.int64),
        torch.ones(size, frames, dtype=torch.int64),
        torch.zeros(size, slots, patches, hidden, dtype=dtype),
        torch.full((size,), spoken),
        torch.arange(size * frames if spoken else 0),
    )


def remembered(optimizer: torch.optim.Optimizer) -> None:
    """Make the state that the optimizer has after a first step."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def step(learner: Learner, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
    """As tune's, for one batch."""
    optimizer.zero_grad(set_to_none=True)
    backward(learner, batch)
    optimizer.step()


def backward(learner: Learner, batch: Batch) -> None:
    sums = learner(batch)
    counts = torch.ones(sums.shape, device=sums.device, dtype=torch.float64)
    learner.loss(sums, counts).backward()


class Allocated(TorchDispatchMode):
    """Bytes of all tensors that are there: of the module, of the optimizer, and of what is computed inside ``with``;
    ``peak``: the most that there were at a time.
    """

    def __init__(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._known: set[int] = set()
        self._add([*module.parameters(), *module.buffers(), *tree_leaves(list(optimizer.state.values()))])

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self._add(tree_leaves(out))
        return out

    def _add(self, values: Iterable[Any]) -> None:
        for value in values:
            if not isinstance(value, Tensor):
                continue
            storage = value.untyped_storage()
            if storage._cdata in self._known:
                continue
            self._known.add(storage._cdata)
            self.now += storage.nbytes()
            weakref.finalize(storage, self._remove, storage._cdata, storage.nbytes())
        self.peak = max(self.peak, self.now)

    def _remove(self, storage: int, size: int) -> None:
        self._known.discard(storage)
        self.now -= size


def _kinds(learner: Learner, optimizer: torch.optim.Optimizer, peak: int) -> Memory:
    learning = [p for p in learner.parameters() if p.requires_grad]
    frozen = [*(p for p in learner.parameters() if not p.requires_grad), *learner.buffers()]
    states = [t for state in optimizer.state.values() for t in state.values() if isinstance(t, Tensor)]
    kinds = (frozen, learning, learning, states)
    held, learns, gradients, state = (sum(t.numel() * t.element_size() for t in kind) for kind in kinds)
    return Memory(held, learns, gradients, state, peak - held - learns - gradients - state)


def _operations(learner: Learner, batch: Batch) -> float:
    with FlopCounterMode(display=False) as counter:
        backward(learner, batch)
    return float(counter.get_total_flops())
