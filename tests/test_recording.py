"""Bags without ROS: their bounds, damage, and the page about them."""

from __future__ import annotations

import base64
import json
import random
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("mcap", reason="pip install 'moshivis_ros[record]'")

import bags  # noqa: E402

from moshivis_ros.audio import files  # noqa: E402
from moshivis_ros.cli import main  # noqa: E402
from moshivis_ros.errors import OutputError, RecordingError  # noqa: E402
from moshivis_ros.recording.bag import BagWriter, Kind, bag_files, mend, read_bag  # noqa: E402
from moshivis_ros.shading import shade  # noqa: E402

BYTES = Kind("test_msgs/msg/Bytes", "int32 number\nuint8[] data\n")


def cdr(number: int, size: int) -> bytes:
    return b"\0\1\0\0" + struct.pack("<iI", number, size) + bytes((number * 7 + k * k) % 251 for k in range(size))


def numbers(folder: Path, topic: str = "/a") -> list[int]:
    return [entry.message.number for entry in read_bag(folder) if entry.topic == topic]


def test_the_oldest_goes_when_it_is_too_much(tmp_path: Path) -> None:
    bag = BagWriter(tmp_path / "bag", max_bytes=1e12, max_seconds=80)
    bag.write("first", "/lasting", BYTES, 0, cdr(77, 4), lasting="key")
    assert mend(tmp_path / "bag") == 0 and list((tmp_path / "bag").glob("*.part.mcap"))  # it is being written
    for number in range(300):  # one a second
        bag.write("a", "/a", BYTES, number * 1_000_000_000, cdr(number, 100))
    bag.close()
    kept = numbers(tmp_path / "bag")
    assert kept == list(range(300 - len(kept), 300)) and 70 <= len(kept) <= 110
    assert set(numbers(tmp_path / "bag", "/lasting")) == {77}  # again and again
    assert next(iter(read_bag(bag_files(tmp_path / "bag")[0]))).topic == "/lasting"


def test_the_size_is_bounded(tmp_path: Path) -> None:
    bag = BagWriter(tmp_path / "bag", max_bytes=3_000_000, max_seconds=1e9)
    noise = random.Random(0).randbytes(20_000)
    for number in range(400):
        data = b"\0\1\0\0" + struct.pack("<iI", number, len(noise)) + noise[number:] + noise[:number]
        bag.write("a", "/a", BYTES, number, data)
        assert sum(file.stat().st_size for file in (tmp_path / "bag").iterdir()) < 4_000_000
    bag.close()
    assert numbers(tmp_path / "bag")[-1] == 399 and len(numbers(tmp_path / "bag")) > 100


def test_a_file_that_was_cut_anywhere_gives_what_is_before_the_cut(tmp_path: Path) -> None:
    bag = BagWriter(tmp_path / "bag", 1e9, 1e9)
    for number in range(3000):
        bag.write("a", "/a", BYTES, number, cdr(number, 200))
    bag.close()
    whole = (tmp_path / "bag" / "bag_0.mcap").read_bytes()
    assert numbers(tmp_path / "bag") == list(range(3000))
    counts = []
    for tenth in range(2, 10, 3):
        cut = tmp_path / f"cut{tenth}"
        cut.mkdir()
        (cut / "bag_0.part.mcap").write_bytes(whole[: len(whole) * tenth // 10])
        left = numbers(cut)
        assert left == list(range(len(left)))
        assert mend(cut) == 1 and mend(cut) == 0
        assert numbers(cut) == left and (cut / "metadata.yaml").exists()
        assert [file.name for file in bag_files(cut)] == ["bag_0.mcap"]
        counts.append(len(left))
    assert counts == sorted(counts) and 0 < counts[0] < counts[-1] < 3000


def test_what_is_no_recording_is_said(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="not a recording"):
        list(read_bag(tmp_path))
    (tmp_path / "x.mcap").write_bytes(b"no")
    with pytest.raises(RecordingError, match="damaged from its beginning"):
        list(read_bag(tmp_path))
    with pytest.raises(OutputError, match="there is a recording already"):
        BagWriter(tmp_path, 1e9, 1e9)


def test_a_report_is_one_page_with_everything_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bag = bags.question(tmp_path / "bag")
    assert main(["report", str(bag), "--transcript", str(tmp_path / "t.json"), "--wav", str(tmp_path / "s.wav")]) == 0
    assert "6.0 s, 1 pictures seen" in capsys.readouterr().out
    page = (bag / "report.html").read_text()
    assert not re.search(r'(src|href)="(?!data:)', page) and "<!--" not in page and "<red>" not in page
    sound = base64.b64decode(re.search(r'src="data:audio/mpeg;base64,([^"]+)"', page)[1])
    (tmp_path / "sound.mp3").write_bytes(sound)
    assert files.read(tmp_path / "sound.mp3").size == pytest.approx(6.0 * 24000, abs=3000)
    picture = base64.b64decode(re.search(r'src="data:image/jpeg;base64,([^"]+)"', page)[1])
    assert picture == (bags.ROOT / "media/scene_b.jpg").read_bytes()
    assert f'data-t="3.36" style="background:{shade(0.9)}"' in page and "&lt;red&gt;." in page
    assert "model builtin, policy gating" in page and "first picture" in page
    said = json.loads((tmp_path / "t.json").read_text())
    assert said["utterances"] == [{"start": 3.2, "end": 3.44, "text": "It is <red>.", "gate": 0.9}]
    assert said["user"] == [{"start": 0.8, "end": 2.3, "text": "what colour is the ball", "gate": 0.0}]
    assert "what colour is the ball" in page and "what color<" not in page
    assert said["refreshes"] == [{"time": 0.16, "reason": "first picture"}]
    left, right = np.abs(soundfile.read(tmp_path / "s.wav")[0].reshape(-1, 1920, 2).max(axis=1)).T
    assert (left > 0.2).tolist() == [40 <= n < 50 for n in range(75)] and right[:10].max() == 0 and right.max() > 0.1


def test_a_conversation_is_replayed_with_another_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The miniature sees the green ball, whatever the robot of the recording said."""
    bag = bags.question(tmp_path / "bag")
    changes = ["seed=1", "refresh_policy=interval", "refresh_interval=1.2"]
    options = [word for change in changes for word in ("--set", change)]
    assert main(["replay", str(bag), "--set", "device=cpu", *options, "--json", str(tmp_path / "r.json")]) == 0
    printed = capsys.readouterr().out
    assert "It is green." in printed and "looked 1 times then and 5 times now" in printed
    both = json.loads((tmp_path / "r.json").read_text())
    assert both["recorded"]["utterances"][0]["text"] == "It is <red>."
    assert [refresh["reason"] for refresh in both["replayed"]["refreshes"]] == ["first picture"] + ["interval"] * 4
    assert main(["replay", str(bag), "--set", "refresh_polcy=manual"]) == 2
    assert "refresh_policy" in capsys.readouterr().err
