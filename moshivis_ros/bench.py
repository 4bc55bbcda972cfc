"""`moshivis bench`: how long a frame takes, stage by stage, against what memory bandwidth allows."""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import platform
import sys
import time
from collections.abc import Callable
from datetime import date
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

import moshivis_ros.model  # noqa: F401  before torch: it says how to install torch when it is missing

# isort: split
import torch
from torch import Tensor, nn

from moshivis_ros.audio import FRAME_SIZE
from moshivis_ros.conversation import FRAME_SECONDS, Conversation
from moshivis_ros.errors import ConfigError, MissingDependencyError
from moshivis_ros.model.checkpoint import load_model, resolve
from moshivis_ros.model.codec import Codec, build_mimi
from moshivis_ros.model.config import ModelConfig, SiglipConfig
from moshivis_ros.model.lm import MoshiVis, window_bytes
from moshivis_ros.model.quantize import FORMS, quantize
from moshivis_ros.model.recorded import record
from moshivis_ros.model.sampling import GREEDY, Sampling, sample
from moshivis_ros.model.stream import Stream
from moshivis_ros.vision.refresh_policy import Settings

WARM_UP = 10  # frames
SECOND_FRAMES = 12  # about one
FRAME_MS = 1000 * FRAME_SECONDS

TINY = ModelConfig.preset("tiny")
_MIMI: dict[str, Any] = copy.deepcopy(TINY.mimi or {})
_MIMI["seanet"] |= {"dimension": 160, "n_filters": 12}
_MIMI["transformer"] |= {"d_model": 160, "num_heads": 4, "num_layers": 2, "dim_feedforward": 480}
_MIMI["transformer"] |= {"input_dimension": 160, "output_dimensions": [160]}
_MIMI["quantizer"] |= {"dimension": 64, "bins": 512, "input_dimension": 160, "output_dimension": 160}
SIZES = {
    "full": ModelConfig.preset("moshika-vis"),
    # 14 M parameters, 256 image tokens: what runs on one core of a robot's CPU
    "builtin": dataclasses.replace(
        TINY,
        dim=256,
        num_layers=6,
        num_heads=8,
        text_card=1000,
        audio_card=512,
        depformer_dim=128,
        depformer_dim_feedforward=528,
        depformer_num_heads=4,
        depformer_num_layers=3,
        image_size=224,
        siglip=SiglipConfig(
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=3,
            num_attention_heads=4,
            image_size=224,
        ),
        mimi=_MIMI,
    ),
    "tiny": TINY,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Measures every stage of a frame (80 ms of sound), and the least that the weights' bytes allow."
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--model", help="checkpoint folder or Hugging Face repo id")
    which.add_argument(
        "--size", choices=SIZES, default="builtin", help="random weights of this size (%(default)s)"
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, ... (auto: the GPU where there is one)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="default: as in talking")
    parser.add_argument("--quantize", choices=FORMS, help="weights of language model and depformer")
    parser.add_argument("--kv-cache", choices=("int8",), help="attention window (default: as the model)")
    parser.add_argument("--compile", action="store_true", help="fuse operations with torch.compile first")
    parser.add_argument("--frames", type=int, default=200, help="frames of each measurement (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (%(default)s)")
    parser.add_argument(
        "--reference", metavar="CHECKOUT", help="a checkout of kyutai-labs/moshivis to run in turns with ours"
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    parser.add_argument("--note", default="", help="kept in the figures: the board, its power mode, ...")


def run(args: argparse.Namespace) -> int:
    torch.set_num_threads(args.threads)
    name = args.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    default = torch.bfloat16 if device.type == "cuda" else torch.float32
    dtype = getattr(torch, args.dtype) if args.dtype else default
    # The reference cannot quantise: it gets the weights before that is done.
    model = _load(args.model, args.size, device, dtype, None if args.reference else args.quantize)
    codec = _codec(args.model, model.config, device)
    reference = (
        _reference(args.reference, model, torch.float32 if device.type == "cpu" else dtype)
        if args.reference
        else None
    )
    if args.reference and args.quantize:
        quantize(model, args.quantize)
    bench = Bench(model, codec, args.frames, args.compile, args.kv_cache)
    result = {
        "date": date.today().isoformat(),
        "device": _device_name(device),
        "command": "moshivis " + " ".join(sys.argv[1:]),
        "note": args.note,
        "torch": torch.__version__,
        "model": args.model or args.size,
        "dtype": str(dtype).removeprefix("torch."),
        "quantize": args.quantize or model.config.quantize,
        "kv_cache": args.kv_cache,
        "threads": args.threads,
        **bench.measure(),
    }
    if reference is not None:
        result["reference"] = bench.compare(reference)
    print(_report(result))
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


class Bench:
    """The measurements of one model, all with a picture and with the attention window full.

    ``codec`` None: Mimi is absent, and a frame is one without it.
    """

    def __init__(
        self,
        model: MoshiVis,
        codec: Codec | None,
        frames: int,
        compile: bool = False,
        kv_cache: str | None = None,
    ) -> None:
        self.model, self.codec, self.frames, self.compile, self.kv_cache = (
            model,
            codec,
            frames,
            compile,
            kv_cache,
        )
        self.device = model.llm.text_emb.weight.device
        self.pixels = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
        codes = torch.randint(model.config.audio_card, (frames + WARM_UP, 1, model.config.user_q))
        self.codes = codes.to(self.device)
        rng = np.random.default_rng(0)
        self.pcm = [0.1 * rng.standard_normal(FRAME_SIZE, dtype=np.float32) for _ in range(frames + WARM_UP)]

    def measure(self) -> dict[str, Any]:
        stages = self._stages()
        manual = Settings(policy="manual")
        codec = self.codec or _Deaf(self.codes[0])
        with Conversation(
            self.model,
            codec,  # type: ignore[arg-type]
            _Silent(),  # type: ignore[arg-type]
            seed=0,
            refresh=manual,
            kv_cache=self.kv_cache,
        ) as talk:
            talk.see(self.pixels, wait=True)
            _fill_window(talk._stream)
            stages["frame"] = self._time(lambda i: talk.step(self.pcm[i]))
            stages["frame_with_refresh"] = self._refreshed(talk)
        bandwidth = read_bandwidth(self.device)
        size = bytes_per_step(self.model, self.kv_cache)
        floor = size / bandwidth * 1e3
        step = float(np.median(stages["step"]))
        cuda = self.device.type == "cuda"
        return {
            "frames": self.frames,
            "mimi": self.codec is not None,
            "stages": {name: _percentiles(times) for name, times in stages.items()},
            "bytes_read": size,
            "bandwidth_gb_s": bandwidth / 1e9,
            "floor_ms": floor,
            "ratio_to_floor": step / floor,
            "memory_mb": {
                part: size / 1e6 for part, size in memory(self.model, self.kv_cache, self.codec).items()
            },
            "peak_memory_mb": torch.cuda.max_memory_allocated() / 1e6 if cuda else _peak_rss() / 1e6,
            "late_frames": sum(
                t > FRAME_MS for name in ("frame", "frame_with_refresh") for t in stages[name]
            ),
        }

    def compare(self, reference: Any) -> dict[str, Any]:
        """The step (LM and depformer), ours and the reference's in turns: same weights, same input.

        A turn is a second of talk: by single frames each would find the other's weights in the processor's caches.
        The reference's attention window starts empty, which spares it work; ours always reads the whole.
        """
        stream = self._stream()
        stream.set_sampling(GREEDY)
        dtype = reference.lm_model.llm.text_emb.weight.dtype
        k, v = (x.transpose(1, 2).flatten(2).to(dtype) for x in (stream.image_k, stream.image_v))
        tokens: list[list[Any]] = [[], []]
        for codes in self.codes[:WARM_UP]:
            tokens[0].append(stream.step(codes).tokens[0].tolist())
            out, _ = reference.step(codes[:, :, None], (k, v))
            tokens[1].append(None if out is None else out[0, :, 0].tolist())
        warm = self.model.config.max_delay
        stream.set_sampling(Sampling(), seed=0)
        reference.use_sampling = True
        times: tuple[list[float], list[float]] = ([], [])
        talk = self.codes[WARM_UP:]
        for start in range(0, len(talk), SECOND_FRAMES):
            turn = talk[start : start + SECOND_FRAMES]
            times[0].extend(self._once(stream.step, codes) for codes in turn)
            times[1].extend(self._once(reference.step, codes[:, :, None], (k, v)) for codes in turn)
        ours, theirs = (_percentiles(t) for t in times)
        return {
            "step": theirs,
            "our_step": ours,
            "ratio_p50": theirs["p50_ms"] / ours["p50_ms"],
            "ratio_of_best": min(times[1]) / min(times[0]),
            "greedy_frames_equal": sum(a == b for a, b in zip(*tokens, strict=True)),
            "greedy_frames": WARM_UP - warm,
        }

    def _stream(self) -> Stream:
        stream = Stream(self.model, kv_cache=self.kv_cache)
        stream.record(self.compile)
        stream.set_image(self._image())
        return stream

    def _image(self) -> tuple[Tensor, Tensor]:
        size = self.model.config.image_size
        with torch.no_grad():
            return self.model.image_kv(torch.randn(1, 3, size, size, device=self.device))

    def _stages(self) -> dict[str, list[float]]:
        stream = self._stream()
        _fill_window(stream)
        config = self.model.config
        lm, depformer = _Lm(stream), _Depformer(stream)
        codes = self.codes[0]
        hidden = torch.randn(1, config.dim, device=self.device, dtype=stream.image_k.dtype)
        replay_lm = record(lm, codes, stream.generator)
        replay_depformer = record(depformer, hidden, stream.generator)
        _fill_window(stream)
        sound = [torch.from_numpy(pcm).to(self.device)[None, None] for pcm in self.pcm]
        stages = {
            "lm": self._time(lambda i: replay_lm(self.codes[i])),
            "depformer": self._time(lambda i: replay_depformer(hidden)),
            "step": self._time(lambda i: stream.step(self.codes[i])),
        }
        if (codec := self.codec) is None:
            return stages
        codec.record()
        return {
            "mimi_encode": self._time(lambda i: codec.encode(sound[i])),
            **stages,
            "mimi_decode": self._time(lambda i: codec.decode(self.codes[i])),
        }

    def _refreshed(self, talk: Conversation) -> list[float]:
        """Frames at their real pace, with a new picture every second."""
        times = []
        start = time.perf_counter()
        for i, pcm in enumerate(self.pcm[: min(self.frames, 125)]):
            time.sleep(max(0.0, start + i * FRAME_SECONDS - time.perf_counter()))
            if i % SECOND_FRAMES == 0:
                talk.see(self.pixels)
            times.append(self._once(talk.step, pcm))
        return times

    def _time(self, work: Callable[[int], Any]) -> list[float]:
        for i in range(WARM_UP):
            work(i)
        return [self._once(work, WARM_UP + i) for i in range(self.frames)]

    def _once(self, work: Callable[..., Any], *arguments: Any) -> float:
        """Milliseconds until the result is there."""
        start = time.perf_counter()
        with torch.no_grad():
            work(*arguments)
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - start) * 1e3


class _Lm(nn.Module):
    """The first half of the step: temporal transformer and text token."""

    def __init__(self, stream: Stream) -> None:
        super().__init__()
        self.stream = stream

    def forward(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        stream = self.stream
        hidden, logits, _ = stream.temporal(stream.write_user(codes))
        return hidden, sample(logits, stream.temperature[0], -stream.noise[:, 0].log())


class _Depformer(nn.Module):
    """The second half: the audio tokens of one frame."""

    def __init__(self, stream: Stream) -> None:
        super().__init__()
        self.stream = stream

    def forward(self, hidden: Tensor) -> tuple[Tensor]:
        stream = self.stream
        race = -stream.noise.log()
        text = stream.initial[:1]
        temperature = stream.temperature[1]
        return (
            stream.depformer(hidden, text, lambda i, logits: sample(logits, temperature, race[:, 1 + i])),
        )


class _Silent:
    """In place of a tokenizer: random weights say nothing."""

    def decoder(self) -> _Silent:
        return self

    def push(self, token: int) -> None:
        return None


class _Deaf:
    """In place of a codec where moshi is not installed: it hears the same codes in every frame, and is silent."""

    def __init__(self, codes: Tensor) -> None:
        self._codes = codes
        self._pcm = torch.zeros(1, 1, FRAME_SIZE, device=codes.device)

    def encode(self, pcm: Tensor) -> Tensor:
        return self._codes

    def decode(self, codes: Tensor) -> Tensor:
        return self._pcm

    def record(self) -> None:
        pass

    def reset(self) -> None:
        pass


def read_bandwidth(device: torch.device) -> float:
    """Bytes per second of the fastest of several passes that only read a quarter (CPU) or two GB (GPU)."""
    rows = (1 << 19) if device.type == "cuda" else (1 << 16)
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
    """What one step must read: every weight of LM and depformer once, the full window, one picture's K/V."""
    parts = memory(model, kv_cache)
    return sum(parts[part] for part in ("linear layers of a step", "norms", "attention window", "picture"))


def _fill_window(stream: Stream) -> None:
    """As late in a conversation as possible: the window full, with random keys and values."""
    if stream.kv_scales is None:
        stream.kv.normal_()
    else:
        stream.kv.random_(-127, 128)
        stream.kv_scales.fill_(1 / 127)
    stream.offset.fill_(stream.config.context)
    stream.tokens.zero_()
    stream.steps = stream.config.context


def _load(
    folder: str | None, size: str, device: torch.device, dtype: torch.dtype, form: str | None
) -> MoshiVis:
    if folder is not None:
        return load_model(resolve(folder), device, dtype, form)
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # made on the device, in the type: no copy is ever larger
    try:
        with device:
            model = MoshiVis(SIZES[size])
    finally:
        torch.set_default_dtype(before)
    if form is not None:
        quantize(model, form)
    return model.requires_grad_(False).eval()


def _codec(folder: str | None, config: ModelConfig, device: torch.device) -> Codec | None:
    try:
        if folder is not None:
            return Codec.load(resolve(folder), config, device)
        with device:
            mimi = build_mimi(config)
    except MissingDependencyError as error:
        print(f"without Mimi: {error}", file=sys.stderr)
        return None
    for name, buffer in mimi.named_buffers():
        if name.endswith("_initialized"):
            buffer.fill_(1)
    return Codec(mimi.requires_grad_(False).eval())


def _reference(checkout: str, model: MoshiVis, dtype: torch.dtype) -> Any:
    """The reference's generator (kyuteye_pt) with the same weights, greedy; in float32 on a CPU, where that is
    the fastest it can do.
    """
    folder = Path(checkout).expanduser() / "kyuteye_pt"
    if not folder.is_dir():
        raise ConfigError(
            f"{checkout} holds no kyuteye_pt: git clone https://github.com/kyutai-labs/moshivis"
        )
    config = model.config
    if config.quantize:
        raise ConfigError("the reference cannot read quantised weights: give the original, and --quantize")
    sys.path.insert(0, str(folder))
    try:
        from kyuteye.models.moshivis import MoshiVis as Reference
        from kyuteye.models.moshivis import MoshiVisGen
    except ImportError as error:
        raise MissingDependencyError(f"the reference cannot be run: {error}") from error
    same = (
        "hidden_scale norm n_q dep_q audio_card depformer_dim depformer_dim_feedforward depformer_num_layers "
        "depformer_num_heads text_card padding_token_id dim num_heads num_layers context max_period"
    )
    weight = model.llm.text_emb.weight
    with weight.device:
        reference = Reference(
            **{name: getattr(config, name) for name in same.split()},
            delays=list(config.delays),
            depformer=True,
            depformer_multi_linear=True,
            depformer_pos_emb="none",
            depformer_weights_per_step=True,
            cross_attention=True,
            xa_gating="sigmoid",
            xa_conditional_gating=True,
            xa_start="start",
            xa_end="end",
            dtype=dtype,
        )
    weights = {k: v for k, v in model.state_dict().items() if not k.startswith("image_prefix.")}
    missing, unexpected = reference.load_state_dict(weights, strict=False)
    wrong = [name for name in missing if "cross_attention.mha" not in name] + unexpected
    if wrong:
        raise ConfigError(f"the checkout's network is another one: {', '.join(wrong[:3])}")
    generator = MoshiVisGen(reference.eval().to(dtype), use_sampling=False)
    generator.streaming_forever(1)  # type: ignore[no-untyped-call]
    return generator


def _percentiles(times: list[float]) -> dict[str, float]:
    p50, p95, p99 = np.percentile(times, (50, 95, 99))
    return {
        "p50_ms": float(p50),
        "p95_ms": float(p95),
        "p99_ms": float(p99),
        "max_ms": max(times),
        "min_ms": min(times),
    }


def _peak_rss() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if "model name" in line] if info.exists() else []
    return names[0].split(":", 1)[1].strip() if names else platform.processor() or platform.machine()


def _report(result: dict[str, Any]) -> str:
    quantized = "".join(
        f", {result[key]} {what}"
        for key, what in (("quantize", "weights"), ("kv_cache", "window"))
        if result[key]
    )
    lines = [
        f"{result['device']}, {result['threads']} thread(s), torch {result['torch']}, {result['date']}",
        f"{result['model']}, {result['dtype']}{quantized}, {result['frames']} frames",
        f"{'ms':20}{'p50':>9}{'p95':>9}{'p99':>9}{'max':>9}",
    ]

    def row(name: str, stage: dict[str, float]) -> str:
        return f"{name:20}" + "".join(
            f"{stage[key]:9.2f}" for key in ("p50_ms", "p95_ms", "p99_ms", "max_ms")
        )

    lines += [row(name, stage) for name, stage in result["stages"].items()]
    if not result["mimi"]:
        lines.append("Mimi is absent (moshi is not installed): a frame is one without it")
    lines += [
        f"floor {result['floor_ms']:.2f} ms: {result['bytes_read'] / 1e6:.0f} MB at "
        f"{result['bandwidth_gb_s']:.1f} GB/s; a step takes {result['ratio_to_floor']:.2f} times that",
        "memory, counted: "
        + ", ".join(f"{part} {size:.1f}" for part, size in result["memory_mb"].items())
        + f"; sum {sum(result['memory_mb'].values()):.1f} MB",
        f"peak memory {result['peak_memory_mb']:.0f} MB; {result['late_frames']} frames over {FRAME_MS:.0f} ms",
    ]
    if "reference" in result:
        reference = result["reference"]
        lines += [
            "LM and depformer, in turns with the reference:",
            row("ours", reference["our_step"]),
            row("reference", reference["step"]),
            f"{reference['ratio_p50']:.2f} times faster by the median, {reference['ratio_of_best']:.2f} by the best; "
            f"same tokens (greedy) in {reference['greedy_frames_equal']} of {reference['greedy_frames']} frames",
        ]
    return "\n".join(lines)
