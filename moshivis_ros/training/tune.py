"""The stage `adapters`: a MoshiVis of any size learns from folders of samples, on one device or several machines.

    moshivis train CONFIG.yaml                                              one process
    accelerate launch --num_processes 8 -m moshivis_ros.cli train CONFIG    or torchrun: several, by accelerate

The backbone and the image encoder are frozen (see learner.Options for what else is possible), and have neither gradients nor a
state in the optimizer. What a step sees depends on the seed and its number alone: a run that was killed goes on as if it had
not been, and so does one with another number of processes, if batch * accumulate * processes is the same.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from moshivis_ros.errors import ConfigError, MissingDependencyError, OutputError
from moshivis_ros.model import released
from moshivis_ros.model.adapters import Adapters
from moshivis_ros.model.checkpoint import resolve
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.lm import MoshiVis
from moshivis_ros.model.tokenizer import Tokenizer
from moshivis_ros.model.weights import load_into, stored_type, unfilled
from moshivis_ros.training.batches import Batches
from moshivis_ros.training.boards import Boards
from moshivis_ros.training.folder import read
from moshivis_ros.training.hear import Ear
from moshivis_ros.training.learner import SUMS, Learner, Options, describe, freeze, shrinker, trained
from moshivis_ros.training.prepared import Prepared
from moshivis_ros.training.train import Bar, Finite, Settings, plain, rate_at, resume, save

LOG = "log.jsonl"
PATIENCE = timedelta(hours=12)  # with which processes wait for one that still encodes pictures


def tune(settings: Settings) -> bool:
    """Train until `steps` or `minutes` are over. True if the stage is complete: adapters.safetensors is written then.

    Raises ConfigError and CheckpointError for what is wrong before anything is loaded.
    """
    options = Options.of(settings.options)
    accelerator = _accelerator(settings, options)
    # Those of a machine share the work, for another one may have another disk.
    rank, each = accelerator.local_process_index, accelerator.num_processes
    each = int(os.environ.get("LOCAL_WORLD_SIZE", each))
    out = Path(settings.out)
    out.mkdir(parents=True, exist_ok=True)
    data = read(options.data)
    weights, config = checkpoint(options)
    boards = Boards(out, options.wandb, plain(settings))
    tokenizer = Tokenizer.load(weights.parent, config)
    dtype = torch.bfloat16 if settings.bfloat16 else torch.float32
    prepared = Prepared(Path(options.cache or out / "cache"), weights, config, dtype)
    batches = Batches(
        config, tokenizer.encode, data, prepared, options.speechless, options.limits, settings.seed
    )
    sounds = [dialogue.sound for dialogue in data.dialogues]
    if accelerator.is_local_main_process:
        lasting = 2 * _state_bytes(config, options) + options.heard_bytes(settings.steps)
        _check_room(out, lasting, prepared, prepared.absent(data.pictures))
    prepared.prepare(data.pictures[rank::each], sounds[rank::each], accelerator.device)
    accelerator.wait_for_everyone()
    model = load(options, weights, config, accelerator.device, dtype)
    learner = Learner(model, options, settings.bfloat16)
    optimizer = torch.optim.AdamW(
        learner.groups(),
        lr=settings.learning_rate,
        betas=settings.betas,
        weight_decay=settings.weight_decay,
        fused=True,
    )
    step, spent = resume(out, lambda state: _load(learner, state), optimizer)
    steps = accelerator.gather(torch.tensor([step], device=accelerator.device))
    if (steps != step).any():
        raise ConfigError(
            f"the processes find different states in {out}: it must be on a disk that all machines share"
        )
    network, optimizer = accelerator.prepare(learner, optimizer)
    if accelerator.is_main_process:
        (out / "settings.yaml").write_text(yaml.safe_dump(plain(settings)), encoding="utf-8")
        print(describe(model), flush=True)
    ear = Ear(out, weights, config, tokenizer)
    run = _Run(settings, options, accelerator, network, learner, optimizer, batches, ear, boards, out)
    with boards if accelerator.is_main_process else nullcontext():
        step = run.steps(step, spent)
    if step < settings.steps:
        return False
    if accelerator.is_main_process:
        trained(model, options, stored_type(weights)).save(out)
        print(
            f"{out}: adapters. Try: moshivis chat --model {options.model} --adapters {out} --help", flush=True
        )
    accelerator.wait_for_everyone()
    return True


def checkpoint(options: Options) -> tuple[Path, ModelConfig]:
    """The file of the weights to go on from, and its configuration."""
    path = resolve(options.model)
    folder = path if path.is_dir() else path.parent
    config = ModelConfig.load(folder)
    weights = folder / config.model if path.is_dir() else path
    if config.quantize or released.is_released(weights):
        raise ConfigError(
            f"{options.model} holds quantised weights: train the original (frozen: int8 saves as much)"
        )
    return weights, config


def load(
    options: Options, weights: Path, config: ModelConfig, device: torch.device, dtype: torch.dtype
) -> MoshiVis:
    """The network without its image encoder, ready to learn."""
    with unfilled():
        model = MoshiVis(config)
    layout = model.state_dict()
    amend = None
    if options.adapters:
        start = Adapters.load(options.adapters)
        start.check(layout)
        amend = start.put
    shrink = shrinker(model) if options.frozen == "int8" else None

    def wanted(name: str) -> bool:
        return ".enc." not in name

    load_into(model, weights, layout, device, dtype, shrink=shrink, wanted=wanted, amend=amend)
    del model.image_prefix.enc  # what it makes of the pictures is on disk
    freeze(model, options)
    return model


class _Run:
    def __init__(
        self,
        settings: Settings,
        options: Options,
        accelerator: Any,
        network: nn.Module,
        learner: Learner,
        optimizer: torch.optim.Optimizer,
        batches: Batches,
        ear: Ear,
        boards: Boards,
        out: Path,
    ) -> None:
        self.settings, self.options, self.accelerator, self.out = settings, options, accelerator, out
        self.network, self.learner, self.optimizer, self.batches = network, learner, optimizer, batches
        self.ear, self.boards = ear, boards
        self.finite = Finite()
        self.world = accelerator.num_processes
        self.samples = options.batch * options.accumulate * self.world  # of a step
        self.learning = {name: p for name, p in learner.named_parameters() if p.requires_grad}

    def steps(self, step: int, spent: float) -> int:
        """From ``step`` on; ``spent``: seconds until then. Returns the number of the last step and one."""
        settings, main = self.settings, self.accelerator.is_main_process
        if main:
            _forget_after(self.out / LOG, step)
        start = saved = time.monotonic()
        with (
            (self.out / LOG).open("a", encoding="utf-8") as log,
            Bar(settings, step) as bar,
            ThreadPoolExecutor(1) as ahead,
        ):
            drawn = ahead.submit(self._draw, step)
            while step < settings.steps:
                mine = drawn.result()
                drawn = ahead.submit(self._draw, step + 1)
                began = time.monotonic()
                late = settings.minutes is not None and began - start > 60 * settings.minutes
                losses, over = self._step(step, mine, late)
                step += 1
                now = time.monotonic()
                last = over or step == settings.steps
                if main and (step % settings.log_every == 0 or last):
                    values = {name: round(value.item(), 6) for name, value in losses.items()}
                    values["samples/s"] = round(self.samples / (time.monotonic() - began), 3)
                    seconds = round(spent + now - start, 1)
                    log.write(json.dumps({"step": step, "seconds": seconds, **values}) + "\n")
                    log.flush()
                    bar.show(step, values)
                    self.boards.show(values, step)
                if main and (now - saved > settings.save_every or last):
                    save(self.out, self.learning, self.optimizer, step, spent + now - start)
                    saved = now
                if main and (step % self.options.hear_every == 0 or step == settings.steps):
                    self._hear(step)
                if over:
                    break
        return step

    def _draw(self, step: int) -> list[Any]:
        rank, parts = self.accelerator.process_index, self.options.accumulate
        return self.batches.draw(step, self.samples, rank, self.world, parts)

    def _hear(self, step: int) -> None:
        if (batch := self.batches.spoken(self.settings.seed)) is not None:
            self.ear.hear(self.learner, batch.to(self.accelerator.device), step)

    def _step(self, step: int, mine: list[Any], late: bool) -> tuple[dict[str, Tensor], bool]:
        """The losses of the whole step; and whether it is the last, for any of the processes is late."""
        accelerator = self.accelerator
        for group in self.optimizer.param_groups:
            group["lr"] = rate_at(self.settings, step) * group.get("scale", 1.0)
        counts = torch.stack([self.learner.counts(batch) for batch in mine]).sum(0)
        shared = torch.cat([counts, torch.tensor([float(late)])]).to(accelerator.device)
        counts, over = accelerator.reduce(shared, "sum").split([len(SUMS), 1])
        total = torch.zeros(len(SUMS), device=accelerator.device)
        self.optimizer.zero_grad(set_to_none=True)
        for number, batch in enumerate(mine, start=1):
            last = number == len(mine)
            with nullcontext() if last else accelerator.no_sync(self.network):
                sums = self.network(batch.to(accelerator.device))
                # Gradients are averaged over the processes; this is a sum.
                accelerator.backward(self.learner.loss(sums, counts) * self.world)
            total += sums.detach()
        norm = accelerator.clip_grad_norm_(list(self.learning.values()), self.settings.clip)
        if self.finite(norm, step):
            self.optimizer.step()
        total = accelerator.reduce(total, "sum")
        means = {name: total[i] / counts[i] for i, name in enumerate(SUMS) if counts[i] > 0}
        return {"loss": self.learner.loss(total, counts), **means, "norm": norm.detach()}, bool(over > 0)


def _state_bytes(config: ModelConfig, options: Options) -> int:
    """Of what learns, with what the optimizer keeps of it."""
    with unfilled():
        model = MoshiVis(config)
        freeze(model, options)
    return 12 * sum(p.numel() for p in model.parameters() if p.requires_grad)


def _check_room(out: Path, lasting: int, prepared: Prepared, pictures: int) -> None:
    """Raise OutputError where the disks do not hold what will be written, in bytes: in ``out`` a state beside the one before
    and what can be heard, and the pictures.
    """
    needed: dict[int, tuple[Path, int]] = {}
    for folder, size in ((out, lasting), (prepared.folder, pictures)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder} cannot be made ({error}): choose another") from error
        disk = folder.stat().st_dev
        needed[disk] = (folder, size + needed.get(disk, (folder, 0))[1])
    for folder, size in needed.values():
        free = shutil.disk_usage(folder).free
        if size > free:
            raise OutputError(
                f"{folder} needs {size / 1e9:.1f} GB, and its disk has {free / 1e9:.1f} left: free some, or set another `out` "
                "and `cache`"
            )


def _accelerator(settings: Settings, options: Options) -> Any:
    try:
        from accelerate import Accelerator
        from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
    except ImportError as error:
        raise MissingDependencyError(
            "the stage adapters needs the accelerate library: pip install accelerate"
        ) from error
    if (
        settings.device not in ("cpu", "cuda") and "LOCAL_RANK" not in os.environ
    ):  # the one that was asked for
        os.environ["ACCELERATE_TORCH_DEVICE"] = settings.device
    # Without a spoken sample the depformer has no part in a step, and only `all` trains it.
    unused = options.learn == "all"
    several = DistributedDataParallelKwargs(
        broadcast_buffers=False, find_unused_parameters=unused, gradient_as_bucket_view=True
    )
    handlers = [InitProcessGroupKwargs(timeout=PATIENCE), several]
    return Accelerator(cpu=settings.device == "cpu", mixed_precision="no", kwargs_handlers=handlers)


def _load(learner: Learner, state: dict[str, Tensor]) -> None:
    parameters = {name: p for name, p in learner.named_parameters() if p.requires_grad}
    if state.keys() != parameters.keys():
        raise ConfigError(
            "the state of the run is of another kind of learning: choose another `out`, or remove it"
        )
    with torch.no_grad():
        for name, tensor in state.items():
            parameters[name].copy_(tensor)


def _forget_after(path: Path, step: int) -> None:
    """Take out what was logged after the state that the run goes on from."""
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        path.write_text("".join(kept), encoding="utf-8")
