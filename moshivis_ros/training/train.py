"""`moshivis train CONFIG.yaml`: one stage of training, with progress, checkpoints that survive a kill, and a log.

A stage is a class that knows its network, its data and its losses; everything else is here. What a step does
depends on the seed and the number of the step only, so a run that was stopped goes on as if it had not been.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from moshivis_ros import arguments
from moshivis_ros.errors import ConfigError, OutputError
from moshivis_ros.model import schema
from moshivis_ros.model.device import find_device

STATE = "state.safetensors"
LOST = 20  # steps without a finite gradient
TUNED = "adapters"  # the stage for models of any size, see tune.py
STAGES = {
    "codec": "moshivis_ros.training.codec_stage:CodecStage",
    "image_encoder": "moshivis_ros.training.image_stage:ImageStage",
    "lm": "moshivis_ros.training.lm_stage:LMStage",
    "ungated_lm": "moshivis_ros.training.lm_stage:UngatedStage",
}


@dataclass(frozen=True)
class Settings:
    """A training configuration file. options: what the stage itself wants to know (see its Options)."""

    stage: str
    out: str
    steps: int
    learning_rate: float
    seed: int = 0
    warmup: int = 50
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    clip: float = 1.0
    minutes: float | None = None  # stop in an orderly way after this time; run again to go on
    save_every: float = 120.0  # seconds
    log_every: int = 20  # steps
    device: str = "cpu"
    threads: int = 1
    bfloat16: bool = True  # autocast; weights stay float32
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path | str, **overrides: Any) -> Settings:
        try:
            raw = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
            settings = cls(**{**raw, **{k: v for k, v in overrides.items() if v is not None}})
            first, second = settings.betas
            settings = dataclasses.replace(settings, betas=(first, second))
        except (OSError, TypeError, ValueError, yaml.YAMLError) as error:
            raise ConfigError(f"{path}: {error}") from error
        if wrong := list(schema.problems(settings)):
            raise ConfigError(f"{path}: {'; '.join(wrong)}")
        return dataclasses.replace(settings, device=str(find_device(settings.device)))


class Stage(Protocol):
    """One kind of training."""

    network: nn.Module  # what is saved and resumed; only parameters that require a gradient are trained

    def groups(self) -> list[dict[str, Any]]:
        """Parameter groups of the optimizer; `scale` multiplies the learning rate."""
        ...

    def losses(self, rng: random.Random, step: int, steps: int) -> dict[str, Tensor]:
        """The losses of one step; `loss` is what is minimised, the others are shown."""
        ...

    def finish(self, out: Path) -> None:
        """Write what the next stage needs, and check that it is good."""
        ...


def make_stage(settings: Settings) -> Stage:
    if settings.stage not in STAGES:
        raise ConfigError(f"no stage {settings.stage!r}: choose one of {', '.join([*STAGES, TUNED])}")
    module, name = STAGES[settings.stage].split(":")
    stage: Stage = getattr(import_module(module), name)(settings)
    return stage


def train(settings: Settings) -> bool:
    """Train until `steps` or `minutes` are over. True if the stage is complete."""
    if settings.stage == TUNED:
        from moshivis_ros.training.tune import tune

        return tune(settings)
    torch.manual_seed(settings.seed)
    out = Path(settings.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "settings.yaml").write_text(yaml.safe_dump(plain(settings)), encoding="utf-8")
    stage = make_stage(settings)
    groups = stage.groups()
    optimizer = torch.optim.AdamW(
        groups,
        lr=settings.learning_rate,
        betas=settings.betas,
        weight_decay=settings.weight_decay,
        fused=True,
    )
    step, spent = resume(out, stage.network.load_state_dict, optimizer)
    start = saved = time.monotonic()
    finite = Finite()
    parameters = [p for group in groups for p in group["params"]]
    with (out / "log.jsonl").open("a", encoding="utf-8") as log, Bar(settings, step) as bar:
        while step < settings.steps:
            rate = rate_at(settings, step)
            for group in optimizer.param_groups:
                group["lr"] = rate * group.get("scale", 1.0)
            rng = random.Random(f"{settings.seed} {step}")
            torch.manual_seed(rng.getrandbits(31))
            losses = stage.losses(rng, step, settings.steps)
            optimizer.zero_grad(set_to_none=True)
            losses["loss"].backward()
            norm = torch.nn.utils.clip_grad_norm_(parameters, settings.clip)
            if finite(norm, step):
                optimizer.step()
            step += 1
            now = time.monotonic()
            if step % settings.log_every == 0 or step == settings.steps:
                values = {name: round(value.item(), 4) for name, value in losses.items()}
                seconds = round(spent + now - start, 1)
                log.write(
                    json.dumps({"step": step, "seconds": seconds, **values, "norm": round(float(norm), 3)})
                    + "\n"
                )
                log.flush()
                bar.show(step, values)
            over = settings.minutes is not None and now - start > 60 * settings.minutes
            if now - saved > settings.save_every or over or step == settings.steps:
                save(out, stage.network.state_dict(), optimizer, step, spent + now - start)
                saved = now
            if over:
                break
    if step >= settings.steps:
        stage.finish(out)
        return True
    return False


def rate_at(settings: Settings, step: int) -> float:
    """Linear warm-up, then a cosine down to a twentieth."""
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / settings.warmup
    done = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return settings.learning_rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


def plain(settings: Settings) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(settings).items()}


def save(
    out: Path, network: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, step: int, seconds: float
) -> None:
    """What learns and the optimizer in one safetensors file, replaced at once."""
    tensors = {f"network.{name}": tensor.detach().contiguous() for name, tensor in network.items()}
    for index, state in enumerate(optimizer.state[p] for p in _parameters(optimizer)):
        tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items()}
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}  # shared memory is refused
    partial = out / "state.partial"
    try:
        save_file(tensors, partial, metadata={"step": str(step), "seconds": str(seconds)})
        os.replace(partial, out / STATE)
    except (OSError, SafetensorError) as error:
        raise OutputError(
            f"the state of step {step} cannot be written to {out} ({error}): free some space and run again; it goes on from "
            "the state before"
        ) from error


def resume(
    out: Path, load: Callable[[dict[str, Tensor]], object], optimizer: torch.optim.Optimizer
) -> tuple[int, float]:
    """What ``save`` wrote: the network to ``load``, the optimizer's state; returns step and seconds."""
    path = out / STATE
    if not path.exists():
        return 0, 0.0
    load(network_of(out))
    with safe_open(path, "pt") as file:  # type: ignore[no-untyped-call]
        for index, parameter in enumerate(_parameters(optimizer)):
            prefix = f"optimizer.{index}."
            names = [n for n in file.keys() if n.startswith(prefix)]
            state = {n[len(prefix) :]: file.get_tensor(n).to(parameter.device) for n in names}
            if state:
                optimizer.state[parameter] = state
        meta = file.metadata()
    return int(meta["step"]), float(meta["seconds"])


def network_of(out: Path | str) -> dict[str, Tensor]:
    """The network's state dict in the state file of a stage."""
    with safe_open(Path(out) / STATE, "pt") as file:  # type: ignore[no-untyped-call]
        return {n[len("network.") :]: file.get_tensor(n) for n in file.keys() if n.startswith("network.")}


def _parameters(optimizer: torch.optim.Optimizer) -> Iterator[nn.Parameter]:
    for group in optimizer.param_groups:
        yield from group["params"]


class Bar:
    def __init__(self, settings: Settings, step: int) -> None:
        console = Console()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[losses]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task(settings.stage, total=settings.steps, completed=step, losses="")
        self._plain = not console.is_terminal

    def show(self, step: int, values: dict[str, float]) -> None:
        text = "  ".join(f"{name} {value:.3f}" for name, value in values.items())
        self._progress.update(self._task, completed=step, losses=text)
        if self._plain:
            print(f"{step}  {text}", flush=True)

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Runs one stage of training. Run it again to go on where it stopped."
    parser.add_argument("config", help="yaml file; examples are in moshivis_ros/training/configs")
    parser.add_argument("--out", help="folder for state, log and result (default: that of the file)")
    parser.add_argument("--minutes", type=float, help="stop in an orderly way after this time")
    parser.add_argument("--steps", type=int, help="another number of steps")
    parser.add_argument("--device", type=arguments.device, help="cpu, cuda, ...")
    planning = parser.add_argument_group("before the stage adapters")
    planning.add_argument(
        "--plan", action="store_true", help="only tell what it takes: parameters, memory, time, cost; loads nothing"
    )
    planning.add_argument("--gpu", default="h100", help="to plan for: h100, a100, rtx4090, ... (%(default)s)")
    planning.add_argument("--gpus", type=arguments.whole(1, 10_000), default=1, help="how many (%(default)s)")
    planning.add_argument("--price", type=arguments.number(0, 1e6), default=0.0, help="of a GPU and hour")


class Finite:
    """A step whose gradient is not finite is left out, and said; LOST of them running end the training (ConfigError)."""

    def __init__(self) -> None:
        self._lost = 0

    def __call__(self, norm: Tensor, step: int) -> bool:
        self._lost = 0 if torch.isfinite(norm) else self._lost + 1
        if self._lost == LOST:
            raise ConfigError(
                f"the gradient was not finite in {LOST} steps running, up to step {step}: lower learning_rate, or look for "
                "what is wrong with the data"
            )
        if self._lost:
            print(f"moshivis: step {step} is left out: its gradient is not finite", file=sys.stderr)
        return not self._lost


def flush_denormals() -> None:
    """They would make training many times slower."""
    for kind in (np.float32, np.float64):
        np.finfo(kind)  # which NumPy computes once, and complains where there are no denormals
    torch.set_flush_denormal(True)


def run(args: argparse.Namespace) -> int:
    overrides = {"out": args.out, "minutes": args.minutes, "steps": args.steps, "device": args.device}
    settings = Settings.load(args.config, **overrides)
    if args.plan:
        from moshivis_ros.training.plan import plan

        print(plan(settings, args.gpu, args.gpus, args.price))
        return 0
    torch.set_num_threads(settings.threads)
    flush_denormals()
    train(settings)
    return 0


if __name__ == "__main__":
    main = argparse.ArgumentParser()
    add_arguments(main)
    raise SystemExit(run(main.parse_args()))
