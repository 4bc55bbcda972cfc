"""`make talk`: the whole robot on recorded input, through real nodes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import numpy as np
import soundfile
from robot import executable
from rosbags.highlevel import AnyReader


def nodes_of(marker: Path) -> list[str]:
    """Command lines of running processes that name this folder."""
    lines = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(marker) in line:
                lines.append(line)
    return lines


def run(environment: dict[str, str], *arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [executable("demo"), *arguments],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_the_shipped_model_answers_about_each_scene(environment: dict[str, str], tmp_path: Path) -> None:
    """"What colour is the ball?", of a red one and then of a green one."""
    demo = run(environment, "--out", tmp_path / "out", "--seconds", "6")
    output, _ = demo.communicate(timeout=180)
    assert demo.returncode == 0, output
    assert "it can talk about a table" in output and "kyutai/moshika-vis-pytorch-bf16" in output
    assert output.count("sees a new picture") == 2  # one of each of the two scenes
    sound, rate = soundfile.read(tmp_path / "out" / "conversation.wav")
    assert rate == 24000 and sound.shape[1] == 2 and len(sound) > 4 * rate
    assert (np.abs(sound).max(axis=0) > 0.01).all()  # both sides are heard
    transcript = json.loads((tmp_path / "out" / "transcript.json").read_text())
    first, second = transcript["utterances"]
    assert "red" in first["text"] and "green" in second["text"], output
    assert [refresh["reason"] for refresh in transcript["refreshes"]] == ["first picture", "changed"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count('src="data:image/jpeg') == 2 and 'src="data:audio/mpeg' in page and "> green" in page
    assert "changed</td>" in page and "model builtin, policy gating" in page and "<!--" not in page
    (bag,) = (tmp_path / "out").glob("bag_*")
    with AnyReader([bag]) as reader:  # without ROS
        topics = {connection.topic.removeprefix("/moshivis_demo/"): connection.msgcount for connection in reader.connections}
    assert topics["audio_out"] >= len(sound) // 1920 - 40 and topics["image/compressed"] >= 20
    assert {"audio_in", "transcript", "gate", "image_cache", "/diagnostics", "talk/parameters"} <= set(topics)
    assert not nodes_of(tmp_path)


def test_ctrl_c_ends_all_of_it(environment: dict[str, str], checkpoint: Path, tmp_path: Path) -> None:
    demo = run(environment, "--out", tmp_path / "out", "--model", checkpoint)
    assert demo.stdout is not None
    output = ""
    while "shown" not in output:
        line = demo.stdout.readline()
        assert line, output
        output += line
    assert nodes_of(tmp_path)
    demo.send_signal(signal.SIGINT)
    rest, _ = demo.communicate(timeout=60)
    assert demo.returncode == 130 and "Traceback" not in output + rest, output + rest
    assert not nodes_of(tmp_path) and not nodes_of(checkpoint)


def test_a_model_that_is_not_there_is_said(environment: dict[str, str], tmp_path: Path) -> None:
    demo = run(environment, "--out", tmp_path / "out", "--model", "/no/such/model")
    output, _ = demo.communicate(timeout=120)
    assert demo.returncode == 1
    assert re.search(r"no folder /no/such/model", output) and "demo: the talk node refused" in output
