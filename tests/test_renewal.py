"""The context that begins anew in the middle of a conversation: what is carried over, when it happens, what stays."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from moshivis_ros.model.checkpoint import load_model
from moshivis_ros.model.quantize import quantize
from moshivis_ros.model.sampling import GREEDY
from moshivis_ros.model.stream import Stream

GOLDEN = Path(__file__).parent / "golden"
KEEP = 20  # frames


class Listening:
    """A stream, with what it hears, what it says and how sure it is of its words."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.heard: list[Tensor] = []
        self.said: list[Tensor] = []
        self.logits: list[Tensor] = []

    def hear(self, codes: Tensor) -> None:
        def keep(_: object, __: object, logits: Tensor) -> None:
            self.logits.append(logits)

        with self.stream.model.llm.text_linear.register_forward_hook(keep):
            self.stream.step(codes)
        self.heard.append(codes)
        next_column = self.stream.steps % self.stream.tokens.shape[2]
        self.said.append(self.stream.tokens[:, : 1 + self.stream.config.dep_q, next_column].clone())


@torch.no_grad()
@pytest.mark.parametrize("form", ["float32", "int8", "int8 window"])
@pytest.mark.parametrize("frames", [KEEP, 75])  # all that there was; the window is long full
def test_only_the_last_frames_are_carried_over(form: str, frames: int) -> None:
    """From a renewal on it is the stream of a conversation that began with those frames, and the picture stays."""
    model = load_model(GOLDEN / "tiny_a", "cpu", torch.float32)
    if form == "int8":
        quantize(model, "int8")
    kv_cache = "int8" if form == "int8 window" else None
    old = Listening(Stream(model, kv_cache=kv_cache, keep=KEEP))
    fresh = Listening(Stream(model, kv_cache=kv_cache))
    random = torch.Generator().manual_seed(1)
    picture = model.image_kv(torch.randn(1, 3, 56, 56, generator=random))
    for listening in (old, fresh):
        listening.stream.set_sampling(GREEDY)
        listening.stream.set_image(picture)

    def codes() -> Tensor:
        return torch.randint(model.config.audio_card, (1, model.config.user_q), generator=random)

    for _ in range(frames):
        old.hear(codes())
    old.stream.renew()
    assert old.stream.steps == KEEP and old.stream.warm
    for heard, said in zip(old.heard[-KEEP:], old.said[-KEEP:], strict=True):
        column = fresh.stream.write_user(heard)
        fresh.stream.temporal(column)
        fresh.stream.write_own(said[:, 0], said[:, 1:])
        fresh.stream.steps += 1
    different = set()
    for _ in range(40):
        new = codes()
        old.hear(new)
        fresh.hear(new)
        torch.testing.assert_close(old.logits[-1], fresh.logits[-1], rtol=1e-3, atol=1e-3)
        assert torch.equal(old.said[-1], fresh.said[-1])
        different.add(tuple(old.said[-1][0].tolist()))
    assert len(different) > 20
