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

import av
import numpy as np
import pytest

from moshivis_ros import chat, cli
from moshivis_ros.audio import FRAME_SIZE, SAMPLE_RATE, files
from moshivis_ros.shading import printable

ROOT = Path(__file__).parent.parent
QUESTION = ROOT / "media/question.wav"
PHOTO = ROOT / "media/scene_a.jpg"


class Parrot:
    """Stands in for a Conversation: says what it hears, and notes what it is shown."""

    is_random = False
    config = SimpleNamespace(about="")
    choice = SimpleNamespace(reason="")

    def __init__(self, ends_at: int = -1) -> None:
        self.ends_at = ends_at  # step in which Ctrl-C is pressed
        self.steps = 0
        self.shown: list[tuple[int, float]] = []  # (steps so far, stamp)
        self.watched = threading.Event()

    def step(self, pcm):
        assert pcm.shape == (FRAME_SIZE,) and pcm.dtype == np.float32
        if self.steps == self.ends_at:
            raise KeyboardInterrupt
        status = SimpleNamespace(refreshes=len(self.shown), reason="shown")
        self.steps += 1
        return SimpleNamespace(index=self.steps - 1, pcm=pcm, text=" a", gate_normalised=0.5, image=status)

    def watch(self, image, *, stamp):
        self.shown.append((self.steps, stamp))
        self.watched.set()

    def settle(self):
        pass

    def see(self, image, *, wait):
        pass

    def close(self):
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
    frames = list(chat.answer_recording(Parrot(), np.split(sound, [100, 5000]), iter(())))
    np.testing.assert_array_equal(np.concatenate([voice for _, voice in frames]), sound)
    assert [frame.index for frame, _ in frames] == [0, 1, 2, 3, 4, 5]


def test_pictures_are_offered_at_their_time_and_only_the_newest():
    picture = np.zeros((4, 4, 3), np.uint8)
    parrot = Parrot()
    pictures = iter([(time, picture) for time in (0.0, 0.02, 0.03, 0.09, 0.4, 99.0)])
    list(chat.answer_recording(parrot, [np.zeros(10 * FRAME_SIZE, np.float32)], pictures))
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


# what it leaves


def answers(monkeypatch, folder: Path, *arguments: str, ends_at: int = -1) -> int:
    """The exit code of a conversation with a parrot of a recording of 4 s, a tone, of which it writes a.wav and a.json."""
    monkeypatch.setattr(chat, "_load", lambda args: Parrot(ends_at))
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(4 * SAMPLE_RATE) / SAMPLE_RATE)
    files.write(folder / "tone.wav", tone.astype(np.float32))
    outputs = ["--out", str(folder / "a.wav"), "--transcript", str(folder / "a.json")]
    return cli.main(["chat", "--audio", str(folder / "tone.wav"), "--tail", "0.5", *outputs, *arguments])


def test_voice_and_transcript_are_as_long_as_what_it_heard(monkeypatch, tmp_path):
    assert answers(monkeypatch, tmp_path) == 0
    assert files.read(tmp_path / "a.wav").size == 4.5 * SAMPLE_RATE
    said = json.loads((tmp_path / "a.json").read_text())
    assert len(said["pieces"]) == 57 and len(said["utterances"]) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.wav", "tone.wav"]


def test_ctrl_c_keeps_what_there_is(monkeypatch, tmp_path, capsys):
    assert answers(monkeypatch, tmp_path, ends_at=25) == 130
    assert "after 2.0 s; what there is of it is kept" in capsys.readouterr().err
    assert files.read(tmp_path / "a.wav").size == 2 * SAMPLE_RATE
    said = json.loads((tmp_path / "a.json").read_text())
    assert len(said["pieces"]) == 25 and said["utterances"][0]["end"] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.wav", "tone.wav"]


def test_a_crash_leaves_the_parts(tmp_path):
    program = f"""
import os, sys
sys.path.insert(0, {str(ROOT / "tests")!r})
import pytest, test_chat
from pathlib import Path
class Dies(test_chat.Parrot):
    def step(self, pcm):
        if self.steps == 25:
            os._exit(9)
        return super().step(pcm)
test_chat.Parrot = lambda ends_at: Dies()
test_chat.answers(pytest.MonkeyPatch(), Path({str(tmp_path)!r}))
"""
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 9
    assert files.read(tmp_path / "a.part.wav").size == 2 * SAMPLE_RATE
    lines = [json.loads(line) for line in (tmp_path / "a.part.json").read_text().splitlines()]
    assert len(lines) == 25 and lines[24] == {"kind": "piece", "time": 1.92, "text": " a", "gate": 0.5, "utterance": 0}
    assert not (tmp_path / "a.wav").exists()


@pytest.mark.parametrize("fails, stays", [("a.wav", "a.json"), ("a.json", "a.wav")])
def test_one_that_cannot_be_written_at_the_end_leaves_the_other(monkeypatch, tmp_path, capsys, fails, stays):
    finish = chat.Kept.finish

    def blocked(kept):
        (tmp_path / fails).mkdir(exist_ok=True)
        return finish(kept)

    monkeypatch.setattr(chat.Kept, "finish", blocked)
    assert answers(monkeypatch, tmp_path) == 2
    assert fails in capsys.readouterr().err
    assert (tmp_path / stays).is_file() and (tmp_path / stays).stat().st_size > 1000
    left = Path(fails)
    assert (tmp_path / f"{left.stem}.part{left.suffix}").stat().st_size > 1000


def test_a_model_that_cannot_be_loaded_leaves_nothing(monkeypatch, tmp_path):
    def fail(args):
        raise chat.MoshiVisError("no such model")

    assert answers(monkeypatch, tmp_path) == 0
    monkeypatch.setattr(chat, "_load", fail)
    before = (tmp_path / "a.wav").read_bytes()
    assert cli.main(["chat", "--audio", str(tmp_path / "tone.wav"), "--out", str(tmp_path / "a.wav")]) == 2
    assert (tmp_path / "a.wav").read_bytes() == before and not list(tmp_path.glob("*.part*"))


def test_what_was_mended_in_a_recording_is_said(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(chat, "_load", lambda args: Parrot())
    with av.open(str(tmp_path / "nan.wav"), "w") as container:
        stream = container.add_stream("pcm_f32le", rate=SAMPLE_RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.full((1, 5000), np.nan, np.float32), format="flt", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        container.mux(stream.encode(frame))
    assert cli.main(["chat", "--audio", str(tmp_path / "nan.wav")]) == 0
    assert "nan.wav: 5000 samples are not finite; they are taken as silence" in capsys.readouterr().err


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
        assert f"{utterance['start']:.2f} s  {printable(utterance['text'])}" in done.stdout
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
    assert (said + rest).decode().startswith(printable(transcript["pieces"][0]["text"]))
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
        (["--audio", QUESTION, "--out", "a.mp3"], "a.mp3: sound is written as .wav or .flac"),
        (["--audio", QUESTION, "--transcript", "/dev/full"], "/dev/full: is a folder or a device"),
        (["--audio", ROOT / "README.md"], "README.md: not a recording"),
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
