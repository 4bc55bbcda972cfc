"""Two sides of a conversation in one recording, as it comes."""

from __future__ import annotations

import numpy as np
import pytest

from moshivis_ros.audio import FRAME_SIZE, SAMPLE_RATE
from moshivis_ros.audio.mix import Arrivals, Mix

ROBOT, USER = 0, 1
FRAME = 80_000_000  # nanoseconds
NOW = 1_700_000_000_000_000_000


def sound(level: float, size: int = FRAME_SIZE) -> np.ndarray:
    return np.full(size, level, np.float32)


def levels(blocks: list[np.ndarray]) -> list[list[float]]:
    """Of every 80 ms, per side."""
    whole = np.concatenate(blocks)
    whole = whole[: len(whole) // FRAME_SIZE * FRAME_SIZE]
    return np.abs(whole.reshape(-1, FRAME_SIZE, 2)).max(axis=1).T.astype(float).round(3).tolist()


def test_sound_is_where_its_stamps_say_and_nothing_is_from_before_the_robot() -> None:
    mix = Mix(sides=2)
    blocks = []
    for n in range(4):  # the user has begun earlier, and comes first
        blocks += mix.add(USER, NOW + (n - 2) * FRAME, sound(0.1 * (n + 1)))
    assert not mix.begun
    for n in (0, 1, 4):
        blocks += mix.add(ROBOT, NOW + n * FRAME, sound(0.5))
    blocks += mix.rest()
    assert levels(blocks) == [[0.5, 0.5, 0, 0, 0.5], [0.3, 0.4, 0, 0, 0]]
    assert mix.seconds(NOW + FRAME) == 0.08 and mix.end(ROBOT) == NOW + 5 * FRAME and mix.late == 0


def test_stamps_that_wander_leave_no_holes() -> None:
    mix = Mix(sides=2)
    wander = np.random.default_rng(0).integers(-15_000_000, 15_000_000, 50)
    blocks = [
        block for n in range(50) for block in mix.add(ROBOT, NOW + n * FRAME + int(wander[n]), sound(0.5))
    ]
    blocks += mix.rest()
    whole = np.concatenate(blocks)
    assert (whole[:, ROBOT] == 0.5).all() and len(whole) == 50 * FRAME_SIZE


@pytest.mark.parametrize(
    "late",
    [
        pytest.param([0, 0, 200, 120, 40, 0, 300, 230, 160], id="a busy machine"),
        pytest.param([-80 * n for n in range(9)], id="all at once"),
    ],
)
def test_sound_without_stamps_is_whole_however_unevenly_it_arrives(late: list[int]) -> None:
    arrivals, mix, rng = Arrivals(), Mix(sides=2), np.random.default_rng(0)
    sent = rng.uniform(-1, 1, (9, FRAME_SIZE)).astype(np.float32)
    for n, chunk in enumerate(sent):
        number, stamp = arrivals.take(NOW + n * FRAME + late[n] * 1_000_000, 0.08)
        assert number == n
        list(mix.add(ROBOT, stamp, chunk))
    (block,) = mix.rest()
    np.testing.assert_array_equal(block[:, ROBOT], sent.reshape(-1))


@pytest.mark.parametrize("seconds", [1, 60, -3600])
def test_a_pause_of_sound_without_stamps_is_one_in_the_recording(seconds: int) -> None:
    """So is a clock that was set back."""
    arrivals = Arrivals()
    assert [arrivals.take(NOW, 0.08), arrivals.take(NOW + FRAME, 0.08)] == [(0, NOW), (1, NOW + FRAME)]
    assert arrivals.take(NOW + seconds * 1_000_000_000, 0.08) == (2, NOW + seconds * 1_000_000_000)


def test_an_hour_is_given_as_it_comes_with_ten_seconds_behind() -> None:
    mix = Mix(sides=2)
    given = 0
    for n in range(0, 45000, 100):  # every 8 s a word, for an hour
        for block in mix.add(ROBOT, NOW + n * FRAME, sound(0.5)):
            assert block.shape == (SAMPLE_RATE, 2)
            given += 1
        assert n * 0.08 - 11 <= given <= max(0, n * 0.08 - 8)
    assert given > 3580


def test_what_is_too_late_is_left_out_and_counted() -> None:
    mix = Mix(sides=2)
    blocks = [block for n in range(250) for block in mix.add(ROBOT, NOW + n * FRAME, sound(0.5))]  # 20 s
    blocks += mix.add(USER, NOW + 15_000_000_000, sound(0.3))  # 5 s behind
    blocks += mix.add(USER, NOW + 5_000_000_000, sound(0.2))  # 15 s behind
    blocks += mix.rest()
    assert mix.late == FRAME_SIZE
    user = levels(blocks)[USER]
    assert max(user) == 0.3 and len(user) == 250 and user.index(0.3) in (187, 188)


@pytest.mark.parametrize("seconds", [-(10**9), -40, 50_000, 10**9])
def test_a_clock_that_is_set_does_not_end_or_stretch_the_recording(seconds: int) -> None:
    mix = Mix(sides=2)
    blocks: list[np.ndarray] = []
    for n in range(500):
        shift = seconds * 10**9 if n >= 250 else 0
        blocks += mix.add(ROBOT, NOW + n * FRAME + shift, sound(0.5))
    blocks += mix.rest()
    robot = levels(blocks)[ROBOT]
    assert robot.count(0.5) == 500 and len(robot) == 500
