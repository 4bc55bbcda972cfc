"""The recorded step (a trace on a CPU, a CUDA graph on a GPU) is the plain step, number for number."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from moshivis_ros.model.checkpoint import save_model
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.lm import MoshiVis
from moshivis_ros.model.sampling import GREEDY, Sampling
from moshivis_ros.model.stream import Stream

CONFIG = dataclasses.replace(ModelConfig.preset("tiny"), context=12)
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def random_model(device: str) -> MoshiVis:
    torch.manual_seed(7)
    model = MoshiVis(CONFIG).requires_grad_(False).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.to(device)


def user_codes(steps: int, device: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    codes = torch.randint(0, CONFIG.audio_card, (steps, 1, CONFIG.user_q), generator=generator)
    return codes.to(device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("sampling", [GREEDY, Sampling(), Sampling(text_top_k=2, audio_temperature=1.3)])
def test_recorded_equals_plain(device: str, sampling: Sampling) -> None:
    """Past the end of the window, with pictures that come, change size and go, and after a reset."""
    model = random_model(device)
    pixels = torch.rand(1, 3, 84, 84, generator=torch.Generator().manual_seed(1)).to(device)
    pictures = [None, model.image_kv(pixels[:, :, :56, :56]), model.image_kv(pixels)]
    plain, recorded = Stream(model, max_image_tokens=36), Stream(model, max_image_tokens=36)
    recorded.record()  # before anything is set: settings and pictures must reach what was recorded
    for stream in (plain, recorded):
        stream.set_sampling(sampling, seed=4)
    for conversation in range(2):
        tokens = set()
        for step, codes in enumerate(user_codes(30, device)):
            out = []
            for stream in (plain, recorded):
                stream.set_image(pictures[step // 5 % 3])
                out.append(stream.step(codes))
            assert torch.equal(out[0].tokens, out[1].tokens), (conversation, step)
            torch.testing.assert_close(out[0].gates, out[1].gates)
            tokens.add(tuple(out[0].tokens[0].tolist()))
        assert len(tokens) > 15  # a conversation that goes round in a circle would show nothing
        for stream in (plain, recorded):
            stream.reset()


@pytest.mark.parametrize("device", DEVICES)
def test_record_forgets_what_it_ran(device: str) -> None:
    model = random_model(device)
    fresh, recorded = Stream(model), Stream(model)
    recorded.record()
    for name, buffer in recorded.named_buffers():
        if name not in ("noise", "tokens") and not name.startswith("model."):
            assert torch.equal(buffer, dict(fresh.named_buffers())[name]), name
    assert recorded.steps == 0 and not recorded.warm


@pytest.mark.parametrize("device", DEVICES)
def test_weights_changed_in_place_are_used(device: str) -> None:
    model = random_model(device)
    recorded = Stream(model)
    recorded.record()
    recorded.set_sampling(GREEDY)
    model.llm.text_linear.weight.zero_()
    recorded.step(user_codes(1, device)[0])
    assert int(recorded.tokens[0, 0, 1]) == 0  # all logits are equal: the first of them


def test_a_model_that_has_talked_is_saved_as_it_was(tmp_path: Path) -> None:
    """Recording lays its weights out anew in memory; in a file they have one order."""
    model = random_model("cpu")
    save_model(model, tmp_path / "before")
    stream = Stream(model)
    stream.record()
    stream.step(user_codes(1, "cpu")[0])
    save_model(model, tmp_path / "after")
    before, after = (tmp_path / when / model.config.model for when in ("before", "after"))
    assert before.read_bytes() == after.read_bytes()
