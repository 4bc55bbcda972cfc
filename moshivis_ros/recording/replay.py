"""`moshivis replay`: a recorded conversation once more, with another policy or model, beside what happened."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from moshivis_ros import arguments
from moshivis_ros.audio import Float
from moshivis_ros.chat import answer_recording
from moshivis_ros.errors import ConfigError, RecordingError
from moshivis_ros.options import OPTIONS, Options
from moshivis_ros.outputs import OutputFile
from moshivis_ros.recording.recorded import USER, Recorded, follow, load
from moshivis_ros.recording.report import find_bag
from moshivis_ros.shading import words
from moshivis_ros.terminal import shaded
from moshivis_ros.transcript import Transcript

if TYPE_CHECKING:
    from moshivis_ros.conversation import Conversation
    from moshivis_ros.vision.encodings import Picture

DESCRIPTION = """\
Lets a model hear and see once more what a bag of the node `recorder` holds, and prints what it looked at, when, and what it
said, beside what happened then. Settings are those of the recorded node unless --set gives others, by the names of its
parameters. Pictures are those in the bag: between two of them (parameter picture_rate of the recorder) nothing is seen, and
encoding them takes no time, so that the same seed gives the same on every machine.
"""
EXAMPLES = """\
examples:
  moshivis replay recording_2026-05-01_10-00-00 --set refresh_policy=on_change
  moshivis replay recording_2026-05-01_10-00-00 --set refresh_hold=1 --set seed=3 --json replayed.json
  moshivis replay recording_2026-05-01_10-00-00 --set model=my-checkpoint --set device=cuda
"""


@dataclass(frozen=True)
class Row:
    """Something that happened: in the recording, or when it was replayed. `gate` of words."""

    time: float
    text: str
    words: Text | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("bag", type=Path, help="the folder that was recorded, or an .mcap file")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="another value of a parameter")
    parser.add_argument("--json", type=arguments.file, metavar="FILE", help="also what was said and looked at, both times")


def run(args: argparse.Namespace) -> int:
    bag = find_bag(args.bag)
    recorded = load(bag)
    if not recorded.has_sound:
        raise RecordingError(f"{bag}: the robot is not heard in it (audio_out), so there is no time to replay it in")
    model, options = with_changes(recorded.parameters, args.set)
    output = OutputFile(args.json) if args.json else None
    with closing(_load(model, options)) as conversation:
        transcript = replay(bag, recorded, conversation)
    changed = ", ".join(args.set) or "nothing changed"
    show(Console(highlight=False), recorded, transcript, changed)
    if output is not None:
        both = {"recorded": recorded.to_json(), "replayed": transcript.to_json(), "changed": args.set}
        output.file.write(json.dumps(both, indent=1, ensure_ascii=False).encode(errors="replace"))
        output.close()
    return 0


def with_changes(parameters: dict[str, Any], changes: list[str]) -> tuple[str, Options]:
    """The model and options of a recorded talk node, with changes such as "refresh_hold=1". Raises ConfigError."""
    known = {"model": "builtin", **{option.name: option.default for option in OPTIONS}}
    # The device is that of this machine, not of the recorded one.
    settings = known | {name: value for name, value in parameters.items() if name in known and name != "device"}
    for change in changes:
        name, equals, value = change.partition("=")
        if name not in known or not equals:
            raise ConfigError(f"--set {change}: give NAME=VALUE, with a name out of {', '.join(known)}")
        settings[name] = yaml.safe_load(value) if value else ""
    return str(settings.pop("model")), Options.of(settings)


def replay(bag: Path, recorded: Recorded, conversation: Conversation) -> Transcript:
    transcript = Transcript()
    for frame, _ in answer_recording(conversation, _user(bag), _pictures(recorded)):
        transcript.add(frame)
    transcript.finish()
    return transcript


def show(console: Console, recorded: Recorded, replayed: Transcript, changed: str) -> None:
    """A table of both, in order of time."""
    table = Table("time", "recorded", f"replayed: {changed}", title_justify="left")
    then = [(row, True) for row in _recorded_rows(recorded)]
    now = [(row, False) for row in _replayed_rows(replayed)]
    for row, before in sorted(then + now, key=lambda entry: entry[0].time):
        cell = Text.assemble(row.text, row.words or "")
        table.add_row(f"{row.time:.2f} s", cell if before else "", "" if before else cell)
    console.print(table)
    console.print(
        f"looked {len(recorded.refreshes)} times then and {len(replayed.refreshes)} times now; "
        f"{sum(1 for s in recorded.said if s.whole and s.speaker == 'robot')} utterances then and "
        f"{len(replayed.utterances)} now"
    )


def _recorded_rows(recorded: Recorded) -> Iterator[Row]:
    for seen in recorded.refreshes:
        yield Row(seen.time, f"looks: {seen.reason}")
    for whole in recorded.said:
        if whole.whole:
            yield Row(whole.start, f"{whole.speaker}:", shaded(words(recorded.pieces_of(whole))))


def _replayed_rows(transcript: Transcript) -> Iterator[Row]:
    for refresh in transcript.refreshes:
        yield Row(refresh.time, f"looks: {refresh.reason}")
    for utterance in transcript.utterances:
        pieces = [(p.time, p.text, p.gate) for p in transcript.pieces if p.utterance == utterance.number]
        yield Row(utterance.start, "robot:", shaded(words(pieces)))


def _user(bag: Path) -> Iterator[Float]:
    """What the robot heard, from the first sound of its own on."""
    for block in follow(bag, Recorded()):
        yield block[:, USER].copy()


def _pictures(recorded: Recorded) -> Iterator[tuple[float, Picture]]:
    """In order of time; those from before its first sound at 0."""
    from moshivis_ros.vision.encoded import decode_compressed

    for stamp in sorted(recorded.pictures):
        yield max(0.0, recorded.time_of(stamp)), decode_compressed(recorded.pictures[stamp])


def _load(model: str, options: Options) -> Conversation:
    # Here, so that a wrong name is told before torch has taken its seconds to load.
    from moshivis_ros.conversation import Conversation

    return Conversation.load(model, options)
