"""What a conversation is made of, on a GPU as on a CPU: the same tests run on every device, those of a GPU where there is
one.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from moshivis_ros import cli
from moshivis_ros.conversation import Conversation, Frame
from moshivis_ros.model.checkpoint import load_model
from moshivis_ros.model.codec import Codec
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.lm import MoshiVis
from moshivis_ros.model.recorded import new_pool
from moshivis_ros.model.sampling import GREEDY
from moshivis_ros.model.stream import Stream

SECOND = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two NVIDIA GPUs")
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.gpu),
    pytest.param("cuda:1", marks=[pytest.mark.gpu, SECOND]),
]
FRAMES = 8
RNG = np.random.default_rng(0)
SOUND = [0.1 * RNG.standard_normal(1920, dtype=np.float32) for _ in range(FRAMES)]
PICTURES = RNG.integers(0, 256, (2, 70, 90, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of a GPU in full float32, so that they are those of a CPU."""
    torch.backends.cuda.matmul.allow_tf32 = False
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def talk(conversation: Conversation) -> list[Frame]:
    """A picture, another after half of the frames."""
    frames = []
    for i, pcm in enumerate(SOUND):
        if i % (FRAMES // 2) == 0:
            conversation.see(PICTURES[i * 2 // FRAMES], wait=True)
        frames.append(conversation.step(pcm))
    return frames


@pytest.mark.parametrize("device", DEVICES)
def test_a_conversation(tiny: Path, device: str) -> None:
    """Its gates show which picture was seen when; after a reset all is as it was at first, and as on a CPU not recorded."""
    more = {"dtype": "float32", "sampling": GREEDY}
    with Conversation.load(tiny, device=device, **more) as conversation:
        frames = talk(conversation)
        conversation.reset()
        again = talk(conversation)
    for frame, second in zip(frames, again, strict=True):
        np.testing.assert_array_equal(frame.gate_per_layer, second.gate_per_layer)
        np.testing.assert_array_equal(frame.pcm, second.pcm)
    assert max(abs(frame.pcm).max() for frame in frames) > 0

    model = load_model(tiny, "cpu", torch.float32)
    stream, codec = Stream(model), Codec.load(tiny, model.config, "cpu")
    stream.set_sampling(GREEDY)
    with Conversation.load(tiny, device="cpu", **more) as other:  # only for its view of a picture
        seen = [other._encode(picture) for picture in PICTURES]
    gates = []
    for i, pcm in enumerate(SOUND):
        stream.set_image(seen[i * 2 // FRAMES])
        gates.append(stream.step(codec.encode(torch.from_numpy(pcm)[None, None])).gates[0].clone())
    for frame, expected in zip(frames[1:], gates, strict=False):  # a frame tells of the gate before it
        np.testing.assert_allclose(frame.gate_per_layer, expected, atol=1e-3)


@pytest.mark.parametrize("device", DEVICES)
def test_the_codec(tiny: Path, device: str) -> None:
    """Recorded, in the memory of a conversation: the codes of a CPU, but for near ties, and its sound, also after a reset."""
    config = ModelConfig.load(tiny)
    plain, recorded = Codec.load(tiny, config, "cpu"), Codec.load(tiny, config, device)
    recorded.record(new_pool(torch.device(device)))
    for _ in range(2):
        equal = []
        for pcm in SOUND:
            sound = torch.from_numpy(pcm)[None, None]
            codes = plain.encode(sound)
            equal.append(recorded.encode(sound.to(device)).cpu() == codes)
            found = recorded.decode(codes.to(device)).cpu()
            torch.testing.assert_close(found, plain.decode(codes), atol=1e-3, rtol=1e-3)
        assert torch.stack(equal).float().mean() > 0.9
        plain.reset()
        recorded.reset()


@pytest.mark.parametrize("device", DEVICES)
def test_the_int8_window(device: str) -> None:
    """Longer than the window is: gates within what 8 bits of keys and values cost."""
    torch.manual_seed(5)
    model = MoshiVis(dataclasses.replace(ModelConfig.preset("tiny"), context=6)).requires_grad_(False).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    picture = model.image_kv(torch.rand(1, 3, 56, 56))
    codes = torch.randint(0, model.config.audio_card, (FRAMES, 1, model.config.user_q))
    gates = []
    for where, kv_cache in (("cpu", None), (device, "int8")):
        stream = Stream(model.to(where), kv_cache=kv_cache)
        if kv_cache:
            stream.record()
        stream.set_sampling(GREEDY)
        stream.set_image(tuple(x.to(where) for x in picture))
        gates.append([stream.step(c.to(where)).gates[0].cpu().clone() for c in codes])
    for found, expected in zip(gates[1], gates[0], strict=True):
        torch.testing.assert_close(found, expected, atol=0.02, rtol=0.1)


@pytest.mark.parametrize("device", DEVICES)
def test_bench(tmp_path: Path, device: str) -> None:
    file = tmp_path / "figures.json"
    more = ["--quantize", "int8", "--kv-cache", "int8", "--json", str(file)]
    assert cli.main(["bench", "--size", "tiny", "--frames", "2", "--device", device, *more]) == 0
    result = json.loads(file.read_text())
    assert result["mimi"] and result["ratio_to_floor"] > 1
    assert result["device"] != "" and result["stages"]["frame_with_refresh"]["p50_ms"] > 0
