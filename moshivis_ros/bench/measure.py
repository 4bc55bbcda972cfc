"""The measurements of one model."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import moshivis_ros.model  # noqa: F401  before torch: it says how to install torch when it is missing

# isort: split
import torch
from torch import Tensor, nn

from moshivis_ros.audio import FRAME_SECONDS, FRAME_SIZE
from moshivis_ros.conversation import Conversation
from moshivis_ros.model.codec import Codec
from moshivis_ros.model.cost import bytes_per_step, memory, read_bandwidth
from moshivis_ros.model.lm import MoshiVis
from moshivis_ros.model.recorded import record
from moshivis_ros.model.sampling import GREEDY, sample
from moshivis_ros.model.stream import Stream
from moshivis_ros.sampling import Sampling
from moshivis_ros.vision.refresh_policy import Settings

WARM_UP = 10  # frames
SECOND_FRAMES = 12  # about one
FRAME_MS = 1000 * FRAME_SECONDS


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
        self.device = model.llm.out_norm.alpha.device
        self.pixels = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
        codes = torch.randint(model.config.audio_card, (frames + WARM_UP, 1, model.config.user_q))
        self.codes = codes.to(self.device)
        rng = np.random.default_rng(0)
        self.pcm = [0.1 * rng.standard_normal(FRAME_SIZE, dtype=np.float32) for _ in range(frames + WARM_UP)]

    def measure(self) -> dict[str, Any]:
        stages = self._stages()
        gc.collect()  # the stream and what it recorded hold each other, and with them an attention window
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
        cuda = self.device.type == "cuda"
        peak = torch.cuda.max_memory_allocated(self.device) if cuda else _peak_rss()
        bandwidth = read_bandwidth(self.device)
        size = bytes_per_step(self.model, self.kv_cache)
        floor = size / bandwidth * 1e3
        step = float(np.median(stages["step"]))
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
            "peak_memory_mb": peak / 1e6,
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
        replay_lm = record(lm, codes, stream.generator, stream.pool)
        replay_depformer = record(depformer, hidden, stream.generator, stream.pool)
        _fill_window(stream)
        sound = [torch.from_numpy(pcm).to(self.device)[None, None] for pcm in self.pcm]
        stages = {
            "lm": self._time(lambda i: replay_lm(self.codes[i])),
            "depformer": self._time(lambda i: replay_depformer(hidden)),
            "step": self._time(lambda i: stream.step(self.codes[i])),
        }
        if (codec := self.codec) is None:
            return stages
        codec.record(stream.pool)
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

    def record(self, pool: Any) -> None:
        pass

    def reset(self) -> None:
        pass


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
