"""`moshivis report`: a recorded conversation as one page that needs nothing else: what to attach to a bug report."""

from __future__ import annotations

import argparse
import base64
import importlib
import io
import json
import math
import time
from contextlib import ExitStack
from html import escape
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

from moshivis_ros import arguments
from moshivis_ros.audio import SAMPLE_RATE, Float, files
from moshivis_ros.audio.pcm import encode
from moshivis_ros.errors import RecordingError
from moshivis_ros.outputs import OutputFile, TranscriptFile
from moshivis_ros.recording.bag import bag_files, mend
from moshivis_ros.recording.curves import Chart
from moshivis_ros.recording.recorded import ROBOT, USER, Recorded, Said, Seen, follow
from moshivis_ros.shading import printable, shade, words

DESCRIPTION = """\
Writes a page about a conversation that the node `recorder` wrote down (ros2 launch ... record:=true, or make talk): its
timeline, its words, its sound to play, the pictures as the model saw them. One file, without links, to attach to a
report. What a recorder left that was killed is made an ordinary bag first.
"""
QUIET = -60.0  # dB of full scale: the lower edge of the levels
BIT_RATE = 64_000
LEVELS = ("ok", "warning", "error", "stale")  # of diagnostics


class Mp3:
    """Sound as the bytes of an MP3 file: what every browser plays."""

    def __init__(self) -> None:
        av: Any = importlib.import_module("av")
        self._bytes = io.BytesIO()
        self._container = av.open(self._bytes, "w", format="mp3")
        self._stream = self._container.add_stream("libmp3lame", rate=SAMPLE_RATE, layout="stereo")
        self._stream.bit_rate = BIT_RATE
        self._frame = av.AudioFrame.from_ndarray

    def write(self, samples: Float) -> None:
        """float32 [n, 2]"""
        frame = self._frame(encode(samples).reshape(1, -1), format="s16", layout="stereo")
        frame.sample_rate = SAMPLE_RATE
        self._container.mux(self._stream.encode(frame))

    def close(self) -> bytes:
        self._container.mux(self._stream.encode(None))
        self._container.close()
        return self._bytes.getvalue()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = DESCRIPTION
    parser.add_argument("bag", type=Path, help="the folder that was recorded, or an .mcap file")
    parser.add_argument("--out", type=arguments.file, help="the page (default: report.html in the folder)")
    parser.add_argument(
        "--wav", type=arguments.file, help="also its sound, left the robot, right the user (.wav, .flac)"
    )
    parser.add_argument("--transcript", type=arguments.file, help="also its words, as JSON")


def run(args: argparse.Namespace) -> int:
    bag = find_bag(args.bag)
    out = Path(args.out) if args.out else (bag if bag.is_dir() else bag.parent) / "report.html"
    recorded = write(bag, out, args.wav, args.transcript)
    for note in recorded.notes:
        print(f"moshivis: {note}")
    print(f"{out}: {recorded.seconds:.1f} s, {len(recorded.refreshes)} pictures seen")
    return 0


def find_bag(path: Path) -> Path:
    """A bag, or the newest in a folder of them such as `make talk` leaves; one that was killed is mended. Raises
    RecordingError.
    """
    path = path.expanduser()
    if path.is_dir() and not any(path.glob("*.mcap")):
        inner = [folder for folder in path.iterdir() if folder.is_dir() and any(folder.glob("*.mcap"))]
        path = max(inner, key=lambda folder: folder.stat().st_mtime) if inner else path
    if path.is_dir() and (unfinished := mend(path)):
        print(
            f"{path}: {unfinished} file was not complete (its recorder was killed); mended"
        )
    bag_files(path)
    return path


def write(
    bag: Path, page: str | Path, wav: str | Path | None = None, transcript: str | Path | None = None
) -> Recorded:
    """The page about a bag, and what else is wanted. Raises RecordingError, OutputError."""
    recorded, sound = Recorded(), Mp3()
    with ExitStack() as undo:
        output = OutputFile(page)
        undo.callback(output.discard)
        wave = files.Writer(wav, channels=2) if wav else None
        if wave is not None:
            undo.callback(wave.discard)
        text = TranscriptFile(transcript) if transcript else None
        if text is not None:
            undo.callback(text.discard)
        for block in follow(bag, recorded):
            sound.write(block)
            if wave is not None:
                wave.write(block)
        if not (recorded.has_sound or recorded.seen or recorded.health):
            raise RecordingError(f"{bag}: nothing of a conversation is in this recording")
        undo.pop_all()
    if wave is not None:
        wave.close()
    if text is not None:
        text.close(recorded.to_json())
    output.file.write(
        html(recorded, sound.close() if recorded.has_sound else b"", bag.name).encode(errors="replace")
    )
    output.close()
    return recorded


def html(recorded: Recorded, mp3: bytes, name: str) -> str:
    """The page. Its frame is report.html beside this module."""
    parts = {
        "title": escape(name),
        "summary": escape(_summary(recorded)),
        "notes": "".join(f'<p class="note">{escape(note)}</p>' for note in recorded.notes),
        "audio": f'<audio id="sound" controls src="{_uri("audio/mpeg", mp3)}"></audio>'
        if mp3
        else "<p>without sound</p>",
        "pictures": "".join(_figure(recorded, seen) for seen in recorded.refreshes),
        "chart": _chart(recorded).svg,
        "transcript": "".join(_utterance(recorded, said) for said in recorded.said if said.whole),
        "decisions": "".join(_decision(seen) for seen in _changes(recorded.seen)),
        "health": "".join(_health(recorded)),
        "parameters": escape(json.dumps(recorded.parameters, indent=1, ensure_ascii=False)),
    }
    page = resources("moshivis_ros.recording").joinpath("report.html").read_text()
    for key, value in parts.items():
        page = page.replace(f"<!--{key}-->", value)
    return page


def _summary(recorded: Recorded) -> str:
    said = [one for one in recorded.said if one.whole]
    model = recorded.parameters.get("model")
    facts = [
        f"{recorded.seconds:.1f} s",
        f"{len([one for one in said if one.speaker == 'robot'])} utterances",
        f"{len(recorded.refreshes)} pictures seen",
        *([f"model {model}, policy {recorded.parameters.get('refresh_policy')}"] if model else []),
        time.strftime("written %Y-%m-%d %H:%M"),
    ]
    return ", ".join(facts)


def _chart(recorded: Recorded) -> Chart:
    chart = Chart(recorded.seconds)
    for side, name, kind in ((USER, "user, level", "user"), (ROBOT, "robot, level", "robot")):
        loud = [
            (t, (max(_decibel(level), QUIET) - QUIET) / -QUIET)
            for s, t, level in recorded.levels
            if s == side
        ]
        chart.row(name, [(kind, loud)], 1.0)
    marks = [(s.time, s.decision, f"{s.decision}: {s.reason}") for s in _changes(recorded.seen)]
    chart.row("gate: how much it looks", [("gate", recorded.gates)], 1.0, marks=marks)
    change = recorded.parameters.get("refresh_change_distance")
    chart.row(
        "distance of the camera's picture to the one it sees",
        [("distance", [(s.time, s.distance) for s in recorded.seen])],
        max([0.3, *(s.distance for s in recorded.seen)]),
        [(change, "changed")] if change else [],
        marks,
    )
    chart.row("age of what it sees, s", [("age", [(s.time, s.age) for s in recorded.seen])],
              max([5.0, *(s.age for s in recorded.seen)]))  # fmt: skip
    times = {key: _frame_times(recorded, key) for key in ("p50", "p99")}
    chart.row("time of a frame, ms (p50, p99)", list(times.items()), 100.0, [(80.0, "80 ms")])
    return chart


def _decibel(level: float) -> float:
    return 20 * math.log10(max(level, 1e-6))


def _frame_times(recorded: Recorded, key: str) -> list[tuple[float, float]]:
    name = f"frame time {key} (ms)"
    return [(t, float(values[name])) for t, *_, values in recorded.health if name in values]


def _changes(seen: list[Seen]) -> list[Seen]:
    """Where a decision, its reason or the picture is another than before."""
    told = [(s.decision, s.reason, s.picture) for s in seen]
    return [s for k, s in enumerate(seen) if k == 0 or told[k] != told[k - 1]]


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _clock(seconds: float) -> str:
    sign = "-" if seconds < 0 else ""
    minutes, rest = divmod(abs(seconds), 60)
    return f"{sign}{minutes:.0f}:{rest:05.2f}"


def _figure(recorded: Recorded, seen: Seen) -> str:
    data = recorded.pictures.get(seen.picture or 0)
    kind = "image/png" if data and data.startswith(b"\x89PNG") else "image/jpeg"
    picture = f'<img alt="" src="{_uri(kind, data)}">' if data else "<p>not recorded</p>"
    words = f"{_clock(seen.time)} {seen.reason}, encoded in {seen.encode_ms:.0f} ms"
    return f'<figure data-t="{seen.time}">{picture}<figcaption>{escape(words)}</figcaption></figure>'


def _utterance(recorded: Recorded, whole: Said) -> str:
    spoken = words(recorded.pieces_of(whole))
    marked = "".join(
        f'<span data-t="{word.time}" style="background:{shade(word.gate)}" title="gate {word.gate:.2f}">'
        f"{escape(printable(word.text))}</span>"
        for word in spoken
    )
    return f'<p class="{whole.speaker}"><a data-t="{whole.start}">{_clock(whole.start)}</a> <b>{whole.speaker}</b> {marked}</p>'


def _decision(seen: Seen) -> str:
    cells = (
        _clock(seen.time), seen.decision, seen.reason, f"{seen.distance:.3f}", f"{seen.age:.1f} s",
        f"{seen.encode_ms:.0f} ms" if seen.decision == "refresh" else "",
    )  # fmt: skip
    row = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f'<tr class="{escape(seen.decision)}" data-t="{seen.time}">{row}</tr>'


def _health(recorded: Recorded) -> list[str]:
    """What the nodes said of themselves, each time that it changed."""
    told: dict[str, tuple[int, str]] = {}
    rows = []
    for at, name, level, message, _ in recorded.health:
        if told.get(name) != (level, message):
            told[name] = level, message
            kind = LEVELS[level] if level < len(LEVELS) else str(level)
            rows.append(
                f'<tr class="{kind}" data-t="{at}"><td>{_clock(at)}</td><td>{escape(name)}</td><td>{kind}</td>'
                f"<td>{escape(message)}</td></tr>"
            )
    return rows
