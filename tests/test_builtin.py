"""The miniature in the package: small, loaded like any checkpoint, and right about what it sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from moshivis_ros import Conversation
from moshivis_ros.audio.files import read
from moshivis_ros.conversation import FRAME_SIZE
from moshivis_ros.model.checkpoint import resolve
from moshivis_ros.model.sampling import GREEDY
from moshivis_ros.vision.refresh_policy import Settings
from moshivis_ros.vision.sources import photo

MEDIA = Path(__file__).parents[1] / "media"


def test_it_is_small_and_has_a_model_card() -> None:
    folder = resolve("builtin")
    assert sum(file.stat().st_size for file in folder.iterdir()) < 40e6
    assert "scores" in (folder / "README.md").read_text().lower()


@pytest.mark.parametrize(("picture", "colour"), [("scene_a.jpg", "red"), ("scene_b.jpg", "green")])
def test_it_answers_a_spoken_question_about_the_picture(picture: str, colour: str) -> None:
    question = read(MEDIA / "question.wav")  # "What colour is the ball?"
    sound = np.concatenate([question, np.zeros(40 * FRAME_SIZE, np.float32)])
    with Conversation.load(
        "builtin", device="cpu", sampling=GREEDY, refresh=Settings(policy="manual")
    ) as conversation:
        conversation.see(photo(MEDIA / picture), wait=True)
        frames = [
            conversation.step(sound[n : n + FRAME_SIZE])
            for n in range(0, len(sound) - FRAME_SIZE + 1, FRAME_SIZE)
        ]
    assert not conversation.is_random
    assert f"It is {colour}." in "".join(frame.text or "" for frame in frames)
    assert max(float(np.abs(frame.pcm).max()) for frame in frames) > 0.05  # and aloud
