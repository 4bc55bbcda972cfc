"""Training: the same network on whole sequences, stages that resume, speech with word times."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from moshivis_ros.model.checkpoint import load_model
from moshivis_ros.model.lm import MoshiVis
from moshivis_ros.model.sampling import GREEDY
from moshivis_ros.model.stream import Stream
from moshivis_ros.training import forward

GOLDEN = sorted((Path(__file__).parent / "golden").iterdir())


def streamed(model: MoshiVis, user: torch.Tensor, image: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """What the streaming step reads, thinks and chooses, frame after frame, for user codes [T, user_q]."""
    stream = Stream(model)
    stream.set_sampling(GREEDY)
    if image is not None:
        stream.set_image(model.image_kv(image))
    found: dict[str, list[torch.Tensor]] = {
        "read": [],
        "hidden": [],
        "text": [],
        "chosen": [],
        "logits": [],
        "gates": [],
    }
    for codes in user:
        read = stream.write_user(codes[None])
        hidden, text_logits, gates = stream.temporal(read)
        text = text_logits.argmax(-1)
        logits: list[torch.Tensor] = []

        def choose(codebook: int, scores: torch.Tensor, logits: list[torch.Tensor] = logits) -> torch.Tensor:
            logits.append(scores[0])
            return scores.argmax(-1)

        audio = stream.depformer(hidden, text, choose)
        stream.write_own(text, audio)
        found["read"].append(read[0])
        found["hidden"].append(hidden[0])
        found["text"].append(text_logits[0])
        found["chosen"].append(torch.cat((text, audio[0])))
        found["logits"].append(torch.stack(logits))
        found["gates"].append(gates[0])
    return {name: torch.stack(values) for name, values in found.items()}


@pytest.mark.parametrize("folder", GOLDEN, ids=lambda folder: folder.name)
@pytest.mark.parametrize("with_image", [False, True])
@torch.no_grad()
def test_the_whole_sequence_gives_the_numbers_of_the_streaming_step(folder: Path, with_image: bool) -> None:
    model = load_model(folder, "cpu", torch.float32)
    config = model.config
    generator = torch.Generator().manual_seed(1)
    frames = config.context + 8  # the window must roll
    user = torch.randint(config.audio_card, (frames, config.user_q), generator=generator)
    image = (
        torch.rand(1, 3, config.image_size, config.image_size, generator=generator) * 2 - 1
        if with_image
        else None
    )
    stream = streamed(model, user, image)

    sight = None
    if image is not None:
        sight = forward.Sight(*model.image_kv(image), None, torch.ones(1, frames, 1))
    whole = forward.temporal(model, stream["read"].T[None], sight)
    torch.testing.assert_close(whole.hidden[0], stream["hidden"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(whole.text_logits[0], stream["text"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(whole.gates[0].T, stream["gates"], atol=1e-5, rtol=1e-4)
    logits = forward.audio_logits(model, stream["hidden"], stream["chosen"][:, 0], stream["chosen"][:, 1:])
    torch.testing.assert_close(logits, stream["logits"], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_columns_and_targets_are_what_the_stream_reads_and_chooses() -> None:
    """Aligned tokens, as a data set holds them, must meet the delays in the way the stream does."""
    model = load_model(GOLDEN[0], "cpu", torch.float32)
    config = model.config
    frames = 12
    user = torch.randint(config.audio_card, (frames, config.user_q))
    stream = streamed(model, user, None)
    own, delays = 1 + config.dep_q, config.delays
    # Aligned: what the stream chose at step t for a stream of delay d belongs to frame t - d, and the user's codes of
    # input frame t + 1 belong to frame t.
    aligned = torch.zeros(1, 1 + config.n_q, frames, dtype=torch.int64)
    for k in range(own):
        aligned[0, k, : frames - delays[k]] = stream["chosen"][delays[k] :, k]
    aligned[0, own:, : frames - 1] = user[1:].T
    known = frames - config.max_delay - 1
    assert torch.equal(forward.columns(aligned, config)[0, :, :known], stream["read"].T[:, :known])
    wanted = forward.targets(aligned, config)[0, :, :known]
    delayed = torch.tensor(delays[:own])[:, None] > torch.arange(known)
    assert torch.equal(wanted, torch.where(delayed, -1, stream["chosen"].T[:, :known]))


@torch.no_grad()
def test_gaze_is_the_log_share_of_the_look_on_what_is_talked_about() -> None:
    model = load_model(GOLDEN[0], "cpu", torch.float32)
    config = model.config
    tokens = torch.randint(config.audio_card, (1, 1 + config.n_q, 5)) % config.text_card
    image = torch.rand(1, 3, config.image_size, config.image_size) * 2 - 1
    k, v = model.image_kv(image)

    def gaze(about: torch.Tensor) -> torch.Tensor:
        on = torch.ones(1, 5, 1)
        sight = forward.Sight(k, v, None, on, about.expand(1, 5, -1))
        return forward.temporal(model, forward.columns(tokens, config), sight).gaze

    one = torch.zeros(k.shape[2])
    one[0] = 1.0
    torch.testing.assert_close(gaze(torch.ones(k.shape[2])), torch.zeros(1, config.num_layers, 5))
    others = gaze(1 - one)
    assert (gaze(one) < others).all() and (others < 0).all()
    assert (gaze(torch.zeros(k.shape[2])) < -10).all()
