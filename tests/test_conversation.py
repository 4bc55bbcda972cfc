"""The public API: sound in, sound, text and gate out; pictures that come, go, fail and are refreshed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from moshivis_ros import Conversation, Frame
from moshivis_ros.conversation import FRAME_SIZE
from moshivis_ros.errors import AudioError, ConfigError, ImageError
from moshivis_ros.model.codec import Codec
from moshivis_ros.model.lm import MoshiVis
from moshivis_ros.model.sampling import GREEDY
from moshivis_ros.model.stream import Stream
from moshivis_ros.vision.refresh_policy import Settings

MANUAL = Settings(policy="manual")
NOISE = np.random.default_rng(0)
PHOTO = NOISE.integers(0, 256, (90, 120, 3), dtype=np.uint8)
OTHER = NOISE.integers(0, 256, (48, 64, 3), dtype=np.uint8)


def speech(frames: int, seed: int = 1) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.normal(0, 0.1, FRAME_SIZE).astype(np.float32) for _ in range(frames)]


def talk(conversation: Conversation, frames: int) -> list[Frame]:
    return [conversation.step(pcm) for pcm in speech(frames)]


def voice(frames: list[Frame]) -> np.ndarray:
    return np.concatenate([frame.pcm for frame in frames])


@pytest.fixture
def conversation(tiny: Path) -> Iterator[Conversation]:
    with Conversation.load(tiny, device="cpu", sampling=GREEDY, refresh=MANUAL) as conversation:
        yield conversation


def test_every_frame_is_answered(tiny: Path) -> None:
    with Conversation.load(tiny, device="cpu", seed=0, refresh=MANUAL) as conversation:
        blind = talk(conversation, 5)
        conversation.see(PHOTO, wait=True)
        frames = blind + talk(conversation, 60)
        assert conversation.is_random
    assert [frame.index for frame in frames] == list(range(65))
    assert all(frame.pcm.shape == (FRAME_SIZE,) and frame.pcm.dtype == np.float32 for frame in frames)
    assert not frames[0].pcm.any() and frames[0].text is None
    assert all(frame.pcm.any() for frame in frames[1:])
    assert any(frame.text for frame in frames)
    assert {frame.gate for frame in blind} == {0.0}, "no picture, no gate"


def test_a_seed_repeats_a_conversation(tiny: Path) -> None:
    def once(seed: int) -> np.ndarray:
        with Conversation.load(tiny, device="cpu", seed=seed, refresh=MANUAL) as conversation:
            return voice(talk(conversation, 10))

    first = once(3)
    assert np.array_equal(once(3), first)
    assert not np.array_equal(once(4), first)


def test_reset_begins_again_with_the_same_picture(conversation: Conversation) -> None:
    conversation.see(PHOTO, wait=True)
    before = talk(conversation, 12)
    conversation.reset()
    after = talk(conversation, 12)
    assert np.array_equal(voice(after), voice(before))
    assert after[0].index == 0 and after[-1].gate == before[-1].gate > 0


def test_reset_forgets_what_the_camera_saw_before(conversation: Conversation) -> None:
    conversation.watch(OTHER, stamp=1)
    conversation.reset()
    conversation.refresh()
    assert talk(conversation, 1)[0].image.reason == "no camera"
    conversation.watch(PHOTO, stamp=2)
    talk(conversation, 1)
    conversation.settle()
    assert talk(conversation, 1)[0].image.stamp == 2


def test_gate_belongs_to_the_text_beside_it(conversation: Conversation) -> None:
    """A step's gate comes out one step before the text it was open for; a frame puts them together."""
    talk(conversation, 5)
    conversation.see(PHOTO, wait=True)
    first, second, *_ = talk(conversation, 3)
    assert first.gate == 0, "this text was chosen before the picture came"
    assert second.gate > 0
    assert second.gate == pytest.approx(float(second.gate_per_layer[-10:].mean()))


def test_pictures_may_become_smaller_while_talking(tiny: Path) -> None:
    def gates(conversation: Conversation) -> list[float]:
        conversation.reset()
        conversation.see(PHOTO, wait=True)
        return [frame.gate for frame in talk(conversation, 5)]

    with Conversation.load(tiny, device="cpu", sampling=GREEDY, refresh=MANUAL, image_size=252) as conversation:
        large = gates(conversation)  # 324 tokens
        conversation.image_size = 56
        small = gates(conversation)
        for pixels in (266, 13, 0, -56):
            with pytest.raises(ConfigError, match=f"image_size {pixels} is .* more than there is room"):
                conversation.image_size = pixels
        assert conversation.image_size == 56
    with Conversation.load(tiny, device="cpu", sampling=GREEDY, refresh=MANUAL, image_size=56) as conversation:
        assert small == pytest.approx(gates(conversation), rel=1e-4)
    assert small != pytest.approx(large, rel=1e-4)


def test_picture_is_used_only_when_it_is_ready(conversation: Conversation, monkeypatch: pytest.MonkeyPatch) -> None:
    ready = threading.Event()
    encode = conversation._view._cache.encode

    def slow(image: np.ndarray) -> object:
        assert ready.wait(10)
        return encode(image)

    monkeypatch.setattr(conversation._view._cache, "encode", slow)
    conversation.see(PHOTO)
    assert [frame.image.has_image for frame in talk(conversation, 3)] == [False] * 3
    ready.set()
    conversation.settle()
    frame = talk(conversation, 1)[0]
    assert frame.image.has_image and frame.image.refreshes == 1 and frame.image.encode_ms > 0


def test_looking_away_and_back(conversation: Conversation) -> None:
    conversation.see(PHOTO, wait=True)
    assert talk(conversation, 3)[-1].gate > 0
    conversation.see(None)
    away = talk(conversation, 3)
    assert away[-1].gate == 0 and not away[-1].image.has_image and away[-1].image.reason == "looking away"
    conversation.watch(OTHER)
    assert not talk(conversation, 3)[-1].image.has_image, "a camera does not undo it"
    conversation.see(PHOTO, wait=True)
    assert talk(conversation, 3)[-1].gate > 0


def test_another_picture_makes_another_conversation(conversation: Conversation) -> None:
    conversation.see(PHOTO, wait=True)
    first = voice(talk(conversation, 25))
    conversation.reset()
    conversation.see(OTHER, wait=True)
    assert not np.array_equal(voice(talk(conversation, 25)), first)


def test_an_encode_that_fails_keeps_the_old_picture(
    conversation: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation.see(PHOTO, wait=True, stamp=1.0)

    def broken(image: np.ndarray) -> object:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(conversation._view._cache, "encode", broken)
    conversation.see(OTHER, stamp=2.0)
    conversation._view._cache.wait()
    frame, later = talk(conversation, 2)
    assert frame.image.reason == "encode failed: out of memory"
    assert later.image.has_image and later.image.stamp == 1.0 and later.gate > 0


def test_newest_picture_wins(conversation: Conversation, monkeypatch: pytest.MonkeyPatch) -> None:
    started, ready, encoded = threading.Event(), threading.Event(), []
    encode = conversation._view._cache.encode

    def slow(image: np.ndarray) -> object:
        encoded.append(int(image[0, 0, 0]))
        started.set()
        assert ready.wait(10)
        return encode(image)

    monkeypatch.setattr(conversation._view._cache, "encode", slow)
    conversation.see(np.full((8, 8, 3), 1, np.uint8))
    assert started.wait(10)
    for value in (2, 3, 4):
        conversation.see(np.full((8, 8, 3), value, np.uint8), stamp=value)
    ready.set()
    conversation.settle()
    assert encoded == [1, 4]
    assert talk(conversation, 1)[0].image.stamp == 4


def test_manual_policy_refreshes_on_request_only(conversation: Conversation) -> None:
    conversation.watch(PHOTO, stamp=7.0)
    assert not talk(conversation, 3)[-1].image.has_image
    conversation.refresh()
    assert talk(conversation, 1)[0].image.decision == "refresh"
    conversation.settle()
    assert talk(conversation, 1)[0].image.stamp == 7.0


def test_interval_policy_refreshes_by_the_clock(tiny: Path) -> None:
    every = Settings(policy="interval", interval=0.4)
    with Conversation.load(tiny, device="cpu", sampling=GREEDY, refresh=every) as conversation:
        counts = []
        for pcm in speech(25):
            conversation.watch(PHOTO)
            counts.append(conversation.step(pcm).image.refreshes)
            conversation.settle()
        assert counts[-1] in (4, 5), "2 seconds, every 0.4"
        conversation.freeze()
        frozen = talk(conversation, 10)
        assert frozen[-1].image.refreshes - frozen[0].image.refreshes == 0 and frozen[-1].image.reason == "frozen"
        conversation.freeze(False)
        conversation.watch(PHOTO)
        assert talk(conversation, 1)[0].image.decision == "refresh"


def test_a_camera_that_stops_is_no_view(tiny: Path) -> None:
    with Conversation.load(tiny, device="cpu", refresh=Settings(policy="interval", interval=0.1)) as conversation:
        conversation.watch(PHOTO)
        reasons = [frame.image.reason for frame in talk(conversation, 40)]
        assert reasons[0] == "first picture" and reasons[-1] == "no camera"


@pytest.mark.parametrize(
    "pcm, message",
    [
        (np.zeros(1919, np.float32), r"float32 array \[1920\].*\(1919,\)"),
        (np.zeros(FRAME_SIZE, np.int16), "not int16"),
        (np.full(FRAME_SIZE, np.nan, np.float32), "NaN or infinite"),
        (np.full(FRAME_SIZE, np.inf, np.float32), "NaN or infinite"),
        ([0.0] * FRAME_SIZE, "not list"),
    ],
)
def test_sound_that_is_no_frame_is_refused(conversation: Conversation, pcm: np.ndarray, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        conversation.step(pcm)
    assert conversation.step(np.zeros(FRAME_SIZE, np.float32)).index == 0, "and the conversation goes on"


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8), "photo.jpg"]
)
def test_what_is_no_picture_is_refused(conversation: Conversation, image: np.ndarray) -> None:
    for offer in (conversation.see, conversation.watch):
        with pytest.raises(ImageError, match="picture"):
            offer(image)


def test_every_thread_computes_on_the_device_of_the_model(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread's current GPU is the first one until it says otherwise: codec, step and image encoder must all say so."""
    chosen = threading.local()

    @contextmanager
    def computing(device: torch.device, priority: int) -> Iterator[None]:
        before, chosen.here = getattr(chosen, "here", False), True
        yield
        chosen.here = before

    monkeypatch.setattr("moshivis_ros.conversation.computing", computing)
    used = set()
    for owner, name in ((Codec, "encode"), (Codec, "decode"), (Stream, "step"), (MoshiVis, "image_kv")):
        real = getattr(owner, name)

        def work(self: Any, *args: Any, name: str = name, real: Any = real) -> Any:
            assert chosen.here, name
            used.add((name, threading.get_ident() == own))
            return real(self, *args)

        monkeypatch.setattr(owner, name, work)
    own = threading.get_ident()
    with Conversation.load(tiny, device="cpu") as conversation:
        conversation.see(np.zeros((20, 20, 3), np.uint8), wait=True)
        for _ in range(3):
            conversation.step(np.zeros(1920, np.float32))
    assert {("encode", True), ("decode", True), ("step", True), ("image_kv", False)} <= used
