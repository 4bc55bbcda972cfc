"""Pages of moshivis look: of a stage of training, of a checkpoint, and of nothing. Data sets: test_dialogues."""

from __future__ import annotations

import importlib.util
import json
import re
import wave
from pathlib import Path

import numpy as np
import pytest

from moshivis_ros.cli import main
from moshivis_ros.errors import MissingDependencyError
from moshivis_ros.evaluation.look import PAGE
from moshivis_ros.evaluation.look_training import LOG
from moshivis_ros.training.pictures import pictures
from moshivis_ros.training.pool import pool
from moshivis_ros.training.voices import EspeakVoice


def page(folder: Path, *arguments: str) -> str:
    assert main(["look", str(folder), *arguments]) == 0
    return (folder / PAGE).read_text(encoding="utf-8")


def log(folder: Path, *lines: dict[str, float]) -> None:
    (folder / LOG).write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_stage_shows_every_loss_with_its_numbers_and_the_time_left(tmp_path: Path) -> None:
    log(
        tmp_path,
        *(
            {"step": step, "seconds": step / 2, "loss": 9 - step / 100, "gaze": -0.0}
            for step in (20, 40, 60, 80)
        ),
        # It was killed here and went on from step 20; one loss is not always there.
        {"step": 40, "seconds": 20.0, "loss": 3.25, "gaze": float("nan"), "ear": 0.5},
        {"step": 60, "seconds": 30.0, "loss": 4.125, "gaze": 0.75, "ear": 0.625},
    )
    (tmp_path / "settings.yaml").write_text("stage: lm\nsteps: 180\n")
    text = page(tmp_path)
    assert "Step 60 of 180 after 0:00:30, 2.0 steps a second; 0:01:00 to go." in text
    assert "<b>loss</b> 4.125" in text and "first 8.8, lowest 3.25 at 40" in text
    assert "<b>gaze</b> 0.75" in text and "first 0, lowest 0 at 20" in text
    assert "<b>ear</b> 0.625" in text and "first 0.5, lowest 0.5 at 40" in text
    assert "stage: lm" in text
    curves = re.findall(r"class=raw points='([^']*)'", text)
    assert [len(points.split()) for points in curves] == [3, 2, 2]
    heights = [float(point.split(",")[1]) for point in curves[0].split()]
    assert heights[0] < heights[2] < heights[1]  # down is less


@pytest.mark.parametrize("text", ["", "{}\n", '{"step": 20, "sec'])
def test_a_log_that_says_nothing_is_an_error(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / LOG).write_text(text)
    assert main(["look", str(tmp_path)]) == 2
    assert "not a log of training" in capsys.readouterr().err


def test_a_folder_of_nothing_is_an_error_that_says_what_there_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["look", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "make-dialogues" in error and "moshivis train" in error and "checkpoint" in error
    assert main(["look", str(tmp_path / "nowhere")]) == 2
    assert "there is no folder" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_no_page_is_written_into_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["look", "builtin"]) == 2
    assert "--out" in capsys.readouterr().err


def test_pictures_of_another_size_are_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = {"pixels": np.zeros((1, 56, 56, 3), np.uint8), "patches": np.zeros((1, 4, 4), np.int8)}
    np.savez(tmp_path / "small.npz", **size, things=np.full((1, 4, 5), -1, np.int8))
    arguments = ["--out", str(tmp_path), "--pictures", str(tmp_path / "small.npz")]
    assert main(["look", "builtin", *arguments]) == 2
    assert "56 pixels" in capsys.readouterr().err


@pytest.mark.skipif(not importlib.util.find_spec("mujoco"), reason="mujoco is not installed")
def test_a_checkpoint_answers_about_pictures_aloud(tmp_path: Path) -> None:
    import cv2

    try:
        EspeakVoice().say("Hello.")
    except MissingDependencyError as error:
        pytest.skip(str(error))
    drawn = pool(tmp_path / "pictures.npz", 12, 1, 112, 14, pictures)
    out = tmp_path / "page"
    arguments = ("--pictures", str(tmp_path / "pictures.npz"), "--questions", "2", "--out", str(out))
    assert main(["look", "builtin", *arguments]) == 0
    text = (out / PAGE).read_text(encoding="utf-8")
    images, sounds = re.findall(r"<img src='([^']+)'", text), re.findall(r"<audio [^>]*src='([^']+)'", text)
    assert len(set(images)) == len(set(sounds)) == 2
    for name in images:
        pixels = cv2.imread(str(out / name))[..., ::-1]
        assert any(np.array_equal(pixels, one) for one in drawn.pixels)
    for name in sounds:
        with wave.open(str(out / name)) as file:
            model, user = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2).T / 32768
        assert np.abs(user).max() > 0.05 and np.abs(model).max() > 0.05
        spoken = np.flatnonzero(np.abs(model) > 0.05)[0]
        assert spoken > np.flatnonzero(np.abs(user) > 0.05)[0]  # first the question
    assert len(re.findall("class=word", text)) >= 4  # two answers of two words at least
    assert text.count("class=right>") + text.count("class=wrong>") == 2
