"""One conversation with the network: everything that changes from frame to frame, in buffers of fixed shape.

``Stream.forward`` is the whole step as tensor code without a data-dependent branch, an allocation that
outlives it or a host synchronisation, so that it can be recorded once and replayed (model/recorded.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from moshivis_ros.errors import ConfigError, ImageError
from moshivis_ros.model.kernels.state import ImageKV, Position, Window
from moshivis_ros.model.layers import lay_out_by_columns, rotary, rotary_frequencies
from moshivis_ros.model.lm import MoshiVis
from moshivis_ros.model.recorded import new_pool, record
from moshivis_ros.model.sampling import sample
from moshivis_ros.model.script import FIRST, FREE, HUSH, Script, free_rows, kinds
from moshivis_ros.sampling import MAX_TOP_K, Sampling

UNGENERATED = -2
# Image tokens that a step is recorded for: of pictures of 224, 336, 448 and 504 pixels. The step takes the smallest
# that holds the picture, and masks what is left of it.
BUCKETS = (256, 576, 1024, 1296)


class StepOutput(NamedTuple):
    """What one step gives. ``tokens`` is aligned over the streams: text, and the audio spoken with it."""

    tokens: Tensor  # [B, 1 + dep_q] int64; meaningless in the first max_delay steps (see Stream.warm)
    # [B, layers] float32, mean gate of each layer in THIS step (one later than tokens); 0: no picture
    gates: Tensor


class Stream(nn.Module):
    """State of ``batch_size`` conversations that run in step.

    ``bucket`` is the number of image tokens that the next step reads: one of ``buckets``, or 0 without a picture.
    ``kv_cache`` int8 halves the memory of the attention window (see lm.Window). ``keep``: frames that ``renew`` keeps;
    0: it is never called.
    """

    kv: Tensor
    kv_scales: Tensor | None
    offset: Tensor
    tokens: Tensor
    image_k: Tensor
    image_v: Tensor
    image_mask: Tensor
    script: Tensor
    place: Tensor
    kinds: Tensor
    noise: Tensor
    temperature: Tensor
    outside: Tensor
    frequencies: Tensor
    delays: Tensor
    initial: Tensor

    def __init__(
        self,
        model: MoshiVis,
        *,
        batch_size: int = 1,
        max_image_tokens: int | None = None,
        kv_cache: str | None = None,
        keep: int = 0,
    ) -> None:
        super().__init__()
        if kv_cache not in (None, "int8"):
            raise ConfigError(f"kv_cache must be int8 or None (the model's type), not {kv_cache!r}")
        config = model.config
        weight = model.llm.out_norm.alpha
        device, dtype = weight.device, weight.dtype
        self.model = model
        self.config = config
        self.steps = 0  # frames since reset, known to the host without asking the device
        self.bucket = 0
        self.keep = keep
        self.generator = torch.Generator(device)
        self.pool: Any = None  # memory of what is recorded for this conversation

        B, H, D = batch_size, config.num_heads, config.dim // config.num_heads
        N = max_image_tokens or config.image_tokens()
        self.buckets = (*(bucket for bucket in BUCKETS if bucket < N), N)
        self._steps: dict[int, Callable[[Tensor], tuple[Tensor, ...]]]
        self._steps = dict.fromkeys((0, *self.buckets), _Step(self, self.forward))
        K = 1 + config.n_q

        def buffer(name: str, *shape: int, dtype: torch.dtype, fill: float = 0) -> None:
            self.register_buffer(name, torch.full(shape, fill, dtype=dtype, device=device), persistent=False)

        window = (config.num_layers, B, 2, H, config.context)
        buffer("kv", *window, D, dtype=torch.int8 if kv_cache else dtype)
        if kv_cache:
            buffer("kv_scales", *window, 1, dtype=dtype)
        else:
            self.kv_scales = None
        buffer("offset", 1, dtype=torch.int64)
        # what was read (one column for the output, or all that is kept), and what is still to be read
        buffer("tokens", B, K, max(keep, 1) + config.max_delay + 1, dtype=torch.int64, fill=UNGENERATED)
        buffer("image_k", B, H, N, D, dtype=dtype)
        buffer("image_v", B, H, N, D, dtype=dtype)
        buffer("image_mask", 1, N, dtype=dtype)
        padding, end = config.padding_token_id, config.end_of_text_padding_id
        table = torch.from_numpy(free_rows(padding)).flatten(0, 1)
        self.register_buffer("script", table.to(device), persistent=False)  # [3 * rows, 3]: see script.py
        buffer("place", B, dtype=torch.int64)  # row in use, times 3
        text_kinds = torch.from_numpy(kinds(config.text_card, padding, end))
        self.register_buffer("kinds", text_kinds.to(device), persistent=False)
        buffer("noise", B, 1 + config.dep_q, MAX_TOP_K, dtype=torch.float32, fill=1)
        buffer("temperature", 2, dtype=torch.float32)  # text, audio
        buffer("outside", 1 + config.dep_q, MAX_TOP_K, dtype=torch.bool)  # ranks beyond top-k
        self.register_buffer("delays", torch.tensor(config.delays, device=device), persistent=False)
        initial = torch.tensor([config.text_card] + [config.audio_card] * config.n_q, device=device)
        self.register_buffer("initial", initial, persistent=False)
        frequencies = torch.zeros(3, 1, 1, D // 2)  # a value is not turned
        frequencies[:2] = rotary_frequencies(D, config.max_period)
        self.register_buffer("frequencies", frequencies.to(device), persistent=False)
        self.set_sampling(Sampling())

    @property
    def has_image(self) -> bool:
        return self.bucket > 0

    @property
    def warm(self) -> bool:
        """False while the delayed streams of the last step's output do not exist yet."""
        return self.steps > self.config.max_delay

    def set_sampling(self, sampling: Sampling, seed: int | None = None) -> None:
        """Temperatures, top-k and (if given) the seed for all steps from now on."""
        config, text, audio = self.config, sampling.text_temperature, sampling.audio_temperature
        suited = [
            config.text_temperature if text is None else text,
            config.audio_temperature if audio is None else audio,
        ]
        self.temperature.copy_(torch.tensor(suited))
        top_k = torch.tensor([sampling.text_top_k] + [sampling.audio_top_k] * config.dep_q)
        self.outside.copy_(torch.arange(MAX_TOP_K) >= top_k[:, None])
        if seed is not None:
            self.generator.manual_seed(seed)

    def reset(self) -> None:
        """Forget the conversation. The picture stays."""
        self.steps = 0
        self.offset.zero_()
        self.place.fill_(3 * FREE)
        self.tokens.fill_(UNGENERATED)
        self.kv.zero_()  # stale keys are masked out, but 0 * NaN would not be
        if self.kv_scales is not None:
            self.kv_scales.zero_()

    @torch.no_grad()
    def renew(self) -> None:
        """Begin the context anew with the last ``keep`` frames: as if the conversation had begun with them.

        They are replayed all at once, so that every weight is read once, into the front of the window; what is behind
        them there is not read any more. The picture stays. For one conversation (batch size 1) of at least ``keep``
        frames.
        """
        tokens = self.tokens.roll(self.keep - self.steps, 2)
        frame = torch.arange(self.keep, device=tokens.device)
        kept = torch.where(frame <= self.delays[:, None], self.initial[:, None], tokens[0, :, : self.keep])
        tokens[0, :, : self.keep] = kept
        self.tokens.copy_(tokens)
        mask = torch.full(
            (self.keep, self.keep), -torch.inf, dtype=self.image_mask.dtype, device=tokens.device
        )
        at = Position(frame, frame, mask.triu(1), *rotary(frame[:, None, None, None, None], self.frequencies))
        window = Window(self.kv, self.kv_scales).first(self.keep)
        self.model.temporal_step(kept.T, window, at, self._image)
        self.offset.fill_(self.keep)
        self.steps = self.keep

    def set_image(self, kv: tuple[Tensor, Tensor] | None) -> None:
        """Attend to these keys and values [B, H, N, D] from the next step on; None: to no picture."""
        if kv is None:
            self.bucket = 0
            return
        k, v = kv
        n, room = k.shape[2], self.buckets[-1]
        if n > room:
            raise ImageError(
                f"the picture has {n} tokens, the image cache holds {room}: use a smaller image_size"
            )
        self.image_k[:, :, :n].copy_(k)
        self.image_v[:, :, :n].copy_(v)
        self.image_mask[:, :n] = 0
        self.image_mask[:, n:] = -torch.inf
        self.bucket = next(bucket for bucket in self.buckets if bucket >= n)

    def hush(self, quiet: bool = True) -> None:
        """From the next step on say nothing; or, not ``quiet``, what the network wants. Either ends a script."""
        self.place.fill_(3 * (HUSH if quiet else FREE))

    def write_script(self, script: Script, begin: bool = False) -> None:
        """Put as much of it into the table as there is room for; ``begin``: the next step says its first word."""
        while (chunk := script.chunk()) is not None:
            place, rows = chunk
            table = self.script[3 * place : 3 * (place + len(rows))]
            table.copy_(torch.from_numpy(rows).flatten(0, 1))
        if begin:
            self.place.fill_(3 * FIRST)

    def record(self, compile: bool = False) -> None:
        """Record the step, without a picture and for every bucket: from now on ``step`` replays it, without
        Python.

        ``compile`` fuses its operations first, which takes minutes, a C++ compiler and, on a GPU, Triton.
        Forgets the conversation. Weights may still be changed in place, not replaced.
        """
        codes = self.tokens.new_zeros(self.tokens.shape[0], self.config.user_q)
        if codes.device.type == "cpu":
            lay_out_by_columns(self.model)
        forward = torch.compile(self.forward, fullgraph=True, dynamic=False) if compile else self.forward
        shown = self.bucket
        self.pool = new_pool(codes.device)
        for bucket in self._steps:
            self.bucket = bucket
            self._steps[bucket] = record(_Step(self, forward), codes, self.generator, self.pool)
            if self.keep:  # nothing is left to be prepared in the middle of a conversation
                self.tokens.zero_()
                self.renew()
        self.bucket = shown
        self.reset()

    @torch.no_grad()
    def step(self, codes: Tensor) -> StepOutput:
        """Hear one frame and answer with one. The answer's tensors are valid until the next step.

        ``codes`` [B, user_q] int64: the user's audio codes of this frame, each 0..audio_card, or -1 for "no
        token". Any other id raises ValueError (on a GPU, where looking would stall the stream, a device-side
        assertion).
        """
        if codes.device.type == "cpu":
            self._check(codes)
        out = self._steps[self.bucket](codes)
        self.steps += 1
        return StepOutput(*out)

    def forward(self, codes: Tensor) -> StepOutput:
        """The step itself, with the noise that is there: see ``step``."""
        column = self.write_user(codes)
        hidden, text_logits, gates = self.temporal(column)
        race = (-self.noise.log()).masked_fill(self.outside, -torch.inf).unbind(1)
        text_temperature, audio_temperature = self.temperature.unbind()
        text = self.follow(sample(text_logits, text_temperature, race[0]))
        audio = self.depformer(
            hidden, text, lambda codebook, logits: sample(logits, audio_temperature, race[1 + codebook])
        )
        return StepOutput(self.write_own(text, audio), gates)

    def write_user(self, codes: Tensor) -> Tensor:
        """Put the user's codes into the token ring; returns the column [B, 1 + n_q] that this step reads."""
        first_user = 1 + self.config.dep_q
        width = self.tokens.shape[2]
        place = (self.offset + self.delays[first_user:]) % width
        self.tokens[:, first_user:].scatter_(2, place.expand(codes.shape).unsqueeze(2), codes.unsqueeze(2))
        now = self.offset % width
        column = self.tokens.index_select(2, now)[:, :, 0]
        # Streams that are still inside their delay have no token yet. Note that this hides the first user
        # frame.
        column = torch.where(self.offset <= self.delays, self.initial, column)
        self.tokens.index_copy_(2, now, column.unsqueeze(2))
        return column

    def temporal(self, column: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Temporal transformer on one column [B, 1 + n_q]; see MoshiVis.temporal_step. Advances the time."""
        context = self.config.context
        empty = torch.arange(context, device=column.device) > self.offset
        mask = torch.zeros_like(empty, dtype=self.image_mask.dtype).masked_fill(empty, -torch.inf)[None]
        at = Position(self.offset, self.offset % context, mask, *rotary(self.offset, self.frequencies))
        out = self.model.temporal_step(column, Window(self.kv, self.kv_scales), at, self._image)
        self.offset.add_(1)
        return out

    @property
    def _image(self) -> ImageKV | None:
        """What the next step reads of the picture."""
        if not self.bucket:
            return None
        k, v = (x.narrow(2, 0, self.bucket) for x in (self.image_k, self.image_v))
        return ImageKV(k, v, self.image_mask.narrow(1, 0, self.bucket))

    def follow(self, chosen: Tensor) -> Tensor:
        """What becomes of the text [B] that the network chose: see script.py. Goes on to the next row."""
        row = self.script.index_select(0, self.place + self.kinds.index_select(0, chosen))  # [B, 3]
        keep, token, place = row.unbind(1)
        self.place.copy_(place)
        return torch.addcmul(token, chosen, keep)

    def depformer(self, hidden: Tensor, text: Tensor, choose: Callable[[int, Tensor], Tensor]) -> Tensor:
        """The frame's audio tokens [B, dep_q], one after the other; ``choose(codebook, logits)`` picks
        each.
        """
        config, heads = self.config, self.config.depformer_num_heads
        width = config.depformer_dim // heads
        kv = hidden.new_empty(config.depformer_num_layers, len(hidden), 2, heads, config.dep_q, width)
        token, audio = text, []
        for codebook, x in enumerate(self.model.depformer_inputs(hidden)):
            token = choose(codebook, self.model.depformer_step(codebook, x, token, kv))
            audio.append(token)
        return torch.stack(audio, dim=1)

    def write_own(self, text: Tensor, audio: Tensor) -> Tensor:
        """Put the chosen tokens into the ring; returns the newest aligned output [B, 1 + dep_q]."""
        own = 1 + self.config.dep_q
        width = self.tokens.shape[2]
        chosen = torch.cat((text[:, None], audio), dim=1)
        self.tokens[:, :own].index_copy_(2, self.offset % width, chosen.unsqueeze(2))
        place = (self.offset - self.config.max_delay + self.delays[:own]) % width
        return self.tokens[:, :own].gather(2, place.expand(chosen.shape).unsqueeze(2))[:, :, 0]

    def _check(self, codes: Tensor) -> None:
        shape = (self.tokens.shape[0], self.config.user_q)
        if tuple(codes.shape) != shape or codes.dtype != torch.int64:
            raise ValueError(f"codes must be int64 {list(shape)}, not {codes.dtype} {list(codes.shape)}")
        low, high = int(codes.min()), int(codes.max())
        if low < -1 or high > self.config.audio_card:
            raise ValueError(
                f"audio codes must be -1 (none) or 0..{self.config.audio_card}, not {low}..{high}"
            )


class _Step(nn.Module):
    """The step of the stream's bucket, with new noise, as a function of the user's codes alone."""

    def __init__(self, stream: Stream, run: Callable[[Tensor], StepOutput]) -> None:
        super().__init__()
        self.stream = stream
        self.run = run

    def forward(self, codes: Tensor) -> StepOutput:
        self.stream.noise.exponential_(generator=self.stream.generator)
        return self.run(codes)
