"""The `moshivis` command: chat with a recording and live, init, verify, and its refusals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from moshivis_ros import chat, cli
from moshivis_ros.audio import FRAME_SIZE, SAMPLE_RATE, files
from moshivis_ros.transcript import Transcript

ROOT = Path(__file__).parent.parent
QUESTION = ROOT / "media/question.wav"
PHOTO = ROOT / "media/scene_a.jpg"


class Parrot:
    """Stands in for a Conversation: says what it hears, and notes what it is shown."""

    def __init__(self) -> None:
        self.steps = 0
        self.shown: list[tuple[int, float]] = []  # (steps so far, stamp)
        self.watched = threading.Event()

    def step(self, pcm):
        assert pcm.shape == (FRAME_SIZE,) and pcm.dtype == np.float32
        status = SimpleNamespace(refreshes=len(self.shown), reason="shown")
        self.steps += 1
        return SimpleNamespace(index=self.steps - 1, pcm=pcm, text=" a", gate_normalised=0.5, image=status)

    def watch(self, image, *, stamp):
        self.shown.append((self.steps, stamp))
        self.watched.set()

    def settle(self):
        pass


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("tiny")
    assert cli.main(["init", str(folder), "--seed", "3"]) == 0
    return str(folder)


def moshivis(*arguments: str, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "moshivis_ros.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, **options)


# the loop


def test_the_answer_is_as_long_as_what_was_heard():
    sound = np.random.default_rng(0).uniform(-1, 1, 5 * FRAME_SIZE + 7).astype(np.float32)
    transcript = Transcript()
    answer = chat.answer_recording(Parrot(), sound, iter(()), transcript)
    np.testing.assert_array_equal(answer, sound)
    assert len(transcript.pieces) == 6 and len(transcript.utterances) == 1


def test_pictures_are_offered_at_their_time_and_only_the_newest():
    picture = np.zeros((4, 4, 3), np.uint8)
    parrot = Parrot()
    pictures = iter([(time, picture) for time in (0.0, 0.02, 0.03, 0.09, 0.4, 99.0)])
    chat.answer_recording(parrot, np.zeros(10 * FRAME_SIZE, np.float32), pictures, Transcript())
    assert parrot.shown == [(0, 0.0), (1, 0.03), (2, 0.09), (5, 0.4)]


def test_live_pictures_are_offered_while_the_conversation_runs(capsys):
    def pictures():
        yield 1000.0, np.zeros((4, 4, 3), np.uint8)
        raise chat.MoshiVisError("the second picture is damaged")

    parrot = Parrot()
    with chat._watching(parrot, pictures()):
        assert parrot.watched.wait(10)
    assert parrot.shown == [(0, 1000.0)]
    assert "the second picture is damaged; the conversation goes on" in capsys.readouterr().err


# the command, with a real (random) model


def test_a_recording_is_answered(tiny, tmp_path):
    stereo = np.repeat(files.read(QUESTION, 44100)[:, None], 2, axis=1)
    files.write(tmp_path / "question.wav", stereo, 44100)
    outputs = ["--out", tmp_path / "answer.wav", "--transcript", tmp_path / "answer.json"]
    inputs = [
        "--model",
        tiny,
        "--audio",
        tmp_path / "question.wav",
        "--image",
        PHOTO,
        "--tail",
        "1.5",
        "--seed",
        "1",
    ]
    done = moshivis("chat", *inputs, *outputs)
    assert done.returncode == 0, done.stderr
    assert "this model is random" in done.stderr and chat.RELEASED in done.stderr

    answer = files.read(tmp_path / "answer.wav")
    assert answer.size == round(stereo.shape[0] * SAMPLE_RATE / 44100) + 1.5 * SAMPLE_RATE
    assert not answer[:FRAME_SIZE].any() and answer[FRAME_SIZE:].std() > 0

    said = json.loads((tmp_path / "answer.json").read_text())
    seconds = answer.size / SAMPLE_RATE
    assert said["pieces"] and said["utterances"]
    for piece in said["pieces"]:
        assert set(piece) == {"time", "text", "gate"}
        assert 0 < piece["time"] < seconds and 0 <= piece["gate"] <= 1
    for utterance in said["utterances"]:
        assert set(utterance) == {"start", "end", "text", "gate"}
        assert 0 < utterance["start"] < utterance["end"] <= seconds + 0.08
        assert f"{utterance['start']:.2f} s  {chat._printable(utterance['text'])}" in done.stdout
    assert done.stdout.replace("\n", "").isprintable()
    assert said["refreshes"] == [{"time": 0.0, "reason": "shown"}]

    again = moshivis("chat", *inputs, "--out", tmp_path / "again.wav")
    assert again.returncode == 0, again.stderr
    np.testing.assert_array_equal(files.read(tmp_path / "again.wav"), answer)


def test_a_slide_show_is_looked_at_when_the_policy_says(tiny, tmp_path, capsys):
    arguments = [
        "--model",
        tiny,
        "--audio",
        str(QUESTION),
        "--video",
        str(ROOT / "media"),
        "--slide-seconds",
        "2",
    ]
    arguments += ["--tail", "3.4", "--transcript", str(tmp_path / "t.json"), "--seed", "1"]
    assert cli.main(["chat", *arguments, "--refresh-policy", "interval", "--refresh-interval", "1"]) == 0
    refreshes = json.loads((tmp_path / "t.json").read_text())["refreshes"]
    assert refreshes[0]["time"] <= 0.16 and len(refreshes) == 5  # 5 seconds
    assert [refresh["reason"] for refresh in refreshes[1:]] == ["interval"] * 4
    assert cli.main(["chat", *arguments, "--refresh-policy", "manual"]) == 0
    assert json.loads((tmp_path / "t.json").read_text())["refreshes"] == []


def test_live_until_ctrl_c(tiny, pulse, tmp_path):
    pytest.importorskip("sounddevice")
    command = [sys.executable, "-m", "moshivis_ros.cli", "chat", "--model", tiny, "--video", str(PHOTO)]
    command += ["--microphone", "pulse", "--speaker", "pulse", "--seed", "1"]
    command += ["--out", str(tmp_path / "a.wav"), "--transcript", str(tmp_path / "a.json")]
    with subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **pulse}, bufsize=0, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as live:
        said = live.stdout.read(20)  # blocks until it has said something
        live.send_signal(signal.SIGINT)
        rest, errors = live.communicate(timeout=60)
    assert live.returncode == 0, errors.decode()
    assert b"Listening to 'pulse', speaking through 'pulse'" in errors and b"Traceback" not in errors
    transcript = json.loads((tmp_path / "a.json").read_text())
    assert (said + rest).decode().startswith(chat._printable(transcript["pieces"][0]["text"]))
    assert transcript["refreshes"]
    assert files.read(tmp_path / "a.wav").size % FRAME_SIZE == 0


# refusals


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--audio", "none.wav"], "none.wav: no such recording"),
        (["--audio", QUESTION, "--image", "none.jpg"], "none.jpg: no such picture"),
        (["--audio", QUESTION, "--video", "none.mp4"], "none.mp4: no such video"),
        (["--audio", QUESTION, "--camera", "97"], "camera 97 gives no picture"),
        (["--audio", QUESTION, "--out", "nowhere/a.wav"], "there is no folder nowhere"),
        (["--audio", QUESTION, "--model", "/no/such/folder"], "/no/such/folder"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_exit_2(arguments, says, capsys):
    assert cli.main(["chat", *map(str, arguments)]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("moshivis: ") and says in error


def test_help_teaches_and_is_quick():
    told = moshivis("--help").stdout
    assert all(f"\n    {name}" in told for name in cli.COMMANDS)
    assert "moshivis chat --audio question.wav --image photo.jpg" in moshivis("chat", "--help").stdout
    program = "import sys; from moshivis_ros import cli; cli.main(['chat', '--help'])"
    loaded = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    assert "numpy" in loaded and " torch" not in loaded and " cv2" not in loaded


def test_init_refuses_to_overwrite_unless_told(tiny, capsys):
    assert cli.main(["init", tiny]) == 2
    assert cli.main(["init", tiny, "--seed", "3", "--force"]) == 0


def test_verify_gives_its_verdict_as_exit_status(monkeypatch):
    for verdict, status in ((True, 0), (False, 1)):
        monkeypatch.setattr("moshivis_ros.verify.run", lambda folder, device, dtype, verdict=verdict: verdict)
        assert cli.main(["verify", "some-folder"]) == status
