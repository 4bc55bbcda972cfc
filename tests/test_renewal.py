"""The context that begins anew in the middle of a conversation: what is carried over, when it happens, what stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from moshivis_ros import Conversation
from moshivis_ros.audio import FRAME_SIZE, Float
from moshivis_ros.audio.files import read
from moshivis_ros.errors import ConfigError
from moshivis_ros.model.checkpoint import load_model
from moshivis_ros.model.quantize import quantize
from moshivis_ros.model.sampling import GREEDY
from moshivis_ros.model.stream import Stream
from moshivis_ros.renewal import Renewal
from moshivis_ros.vision.refresh_policy import Settings
from moshivis_ros.vision.sources import photo

GOLDEN = Path(__file__).parent / "golden"
MEDIA = Path(__file__).parents[1] / "media"
MANUAL = Settings(policy="manual")
SILENCE = np.zeros(FRAME_SIZE, np.float32)
TONE = np.sin(np.arange(FRAME_SIZE, dtype=np.float32) / 9) * np.float32(0.2)
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


def due(renewal: Renewal, frame: int, context: int, *, heard: Float = SILENCE, said: Float = SILENCE, wordless: int = 1) -> bool:
    return renewal.due(frame, context, wordless, heard, said)


@pytest.mark.parametrize("speaking", [{"heard": TONE}, {"said": TONE}, {"wordless": 0}])
def test_it_waits_for_a_pause_of_both(speaking: dict[str, Float]) -> None:
    renewal = Renewal(4.0, 1.6, context=100)  # 50 and 20 frames
    assert renewal.keep == 20
    short = [due(renewal, n, n) for n in range(50)]
    talking = [due(renewal, n, n, **speaking) for n in range(50, 70)]
    pause = [due(renewal, n, n) for n in range(70, 78)]
    assert not any(short + talking + pause[:7])
    assert pause[7] and renewal.count == 1
    assert not due(renewal, 78, 21), "it is short again"
    assert due(renewal, 120, 50), "and was quiet all the time"


def test_what_it_keeps_must_fit() -> None:
    assert Renewal(60.0, 10.0, context=80).keep == 80, "no more than the window holds"
    assert Renewal(0.0, 10.0, context=80).keep == 0
    for after, keep in ((10.0, 10.0), (10.0, 0.1)):
        with pytest.raises(ConfigError, match="must be less than renew_after .10.0 s., and 0.32 s at least"):
            Renewal(after, keep, context=3000)


def test_questions_are_answered_across_renewals(caplog: pytest.LogCaptureFixture) -> None:
    """In the pauses after each; for who listens nothing changes: no frame is lost, and nothing is heard of it."""
    question = read(MEDIA / "question.wav")  # "What colour is the ball?"
    sound = np.concatenate([question, np.zeros(45 * FRAME_SIZE, np.float32)])
    caplog.set_level("INFO", "moshivis_ros")
    frames, renewed = [], []
    with Conversation.load(
        "builtin", device="cpu", sampling=GREEDY, refresh=MANUAL, renew_after=4.0, renew_keep=2.0
    ) as conversation:
        conversation.see(photo(MEDIA / "scene_a.jpg"), wait=True)
        for _ in range(3):
            frames.append([])
            for n in range(0, len(sound) - FRAME_SIZE + 1, FRAME_SIZE):
                before = conversation.renewal.count
                frames[-1].append(conversation.step(sound[n : n + FRAME_SIZE]))
                if conversation.renewal.count > before:
                    renewed.append(frames[-1][-1].index)
        assert conversation.image_in_cache is not None and conversation.image_status.refreshes == 1
    for answer in frames:
        assert "It is red." in "".join(frame.text or "" for frame in answer)
    every = sum(frames, [])
    assert [frame.index for frame in every] == list(range(len(every)))
    assert len(renewed) == len(caplog.messages) >= 3
    assert min(np.diff(renewed)) >= 25, "each made the context 2 s shorter"
    assert caplog.messages[0].endswith("begins anew with its last 2.0 s")
    voice = np.concatenate([frame.pcm for frame in every])
    assert np.abs(voice).max() > 0.05
    for index in renewed:
        after = voice[index * FRAME_SIZE : (index + 6) * FRAME_SIZE]
        assert np.abs(after).max() < 0.01, "a pause, without a click"
