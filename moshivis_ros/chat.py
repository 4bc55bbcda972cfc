"""`moshivis chat`: a conversation without ROS, with a recording or live with microphone and loudspeaker."""

from __future__ import annotations

import argparse
import logging
import sys
import threading
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import chain
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from rich.console import Console
from rich.progress import track

from moshivis_ros import arguments
from moshivis_ros.audio import FRAME_SECONDS, FRAME_SIZE, Float, files
from moshivis_ros.audio.devices import BLOCKS_PER_SECOND, Microphone, Speaker
from moshivis_ros.audio.framing import AudioInput, Framer, silence
from moshivis_ros.errors import MoshiVisError
from moshivis_ros.kept import Kept
from moshivis_ros.options import OPTIONS, REFRESH, Options
from moshivis_ros.shading import words
from moshivis_ros.terminal import Screen, shaded
from moshivis_ros.transcript import Piece, Transcript, Utterance

if TYPE_CHECKING:
    from moshivis_ros.conversation import Conversation, Frame
    from moshivis_ros.vision.encodings import Picture

    Pictures: TypeAlias = Iterator[tuple[float, Picture]]

RELEASED = "kyutai/moshika-vis-pytorch-bf16"
DESCRIPTION = """\
Talk with the model about what it sees. With --audio it answers a recording as fast as it can; without, it listens
to the microphone and answers through the loudspeaker until Ctrl-C. What it leaves is written while it talks, beside its
place (answer.part.wav), and has its name at the end, also after Ctrl-C.
"""

EXAMPLES = f"""\
examples:
  moshivis chat --audio question.wav --image photo.jpg --out answer.wav --transcript answer.json
  moshivis chat --audio question.wav --video clip.mp4 --refresh-policy interval --refresh-interval 1
  moshivis chat --camera 0                     live (wear headphones, or it hears itself)
  moshivis chat --model my-checkpoint ...      a folder; see `moshivis init --help` for one to try things with
  moshivis chat --model {RELEASED} ...

The last one, the real model, is downloaded once (16.6 GB) and needs a GPU: one with 24 GB takes it as it is, one with 12 GB
in 8 bits, one with 8 GB in 4; --quantize chooses by itself.
Licence: CC-BY 4.0; its image encoder: Gemma terms.
"""

RANDOM = f"""\
NOTE: this model is random (it was written by `moshivis init`): what it says is noise, only the plumbing is real.
For a real conversation: --model {RELEASED}
(16.6 GB, downloaded by itself, licence CC-BY 4.0; needs a GPU with 8 GB or more).
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = DESCRIPTION
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    hears = parser.add_argument_group("what it hears and sees")
    hears.add_argument("--audio", type=arguments.file, metavar="FILE", help="a recording of any sample rate and channel count")
    hears.add_argument(
        "--tail",
        type=arguments.number(0, 86400),
        default=6.0,
        metavar="S",
        help="seconds of silence after it, for the answer (%(default)s)",
    )
    view = hears.add_mutually_exclusive_group()
    view.add_argument("--image", type=arguments.file, metavar="FILE", help="a photo")
    view.add_argument(
        "--video", type=arguments.file, metavar="FILE", help="a video, or a folder of photos as a slide show"
    )
    view.add_argument("--camera", type=arguments.whole(0, 999), metavar="N", help="a camera: 0 is /dev/video0")
    hears.add_argument(
        "--slide-seconds",
        type=arguments.number(0.1, 3600),
        default=5.0,
        metavar="S",
        help="how long each photo of a folder lasts (%(default)s)",
    )
    hears.add_argument(
        "--microphone", metavar="NAME", help="part of the name, or index, of the device to listen to"
    )

    gives = parser.add_argument_group("what it gives")
    gives.add_argument(
        "--out",
        type=arguments.file,
        metavar="FILE",
        help="its voice, 24 kHz mono, as long as what it heard (.wav, .flac)",
    )
    gives.add_argument(
        "--transcript", type=arguments.file, metavar="FILE", help="what it said and when it looked, as JSON"
    )
    gives.add_argument(
        "--speaker", metavar="NAME", help="part of the name, or index, of the device to speak through"
    )

    model = parser.add_argument_group("the model")
    model.add_argument(
        "--model",
        default="builtin",
        help="a folder, or a Hugging Face repository (%(default)s: the miniature of the package)",
    )
    looks = parser.add_argument_group("when it looks again")
    for option in OPTIONS:
        arguments.add(looks if option.name.startswith(REFRESH) else model, option)


def run(args: argparse.Namespace) -> int:
    """Runs one conversation. Everything that can be wrong with the files is found before the model is loaded."""
    from moshivis_ros.vision import sources  # here, so that --help is quick

    logging.basicConfig(format="moshivis: %(message)s")
    logging.getLogger("moshivis_ros").setLevel(logging.INFO)
    recording = files.Recording(args.audio) if args.audio else None
    photo = sources.photo(args.image) if args.image else None
    video = sources.pictures(args.video, args.slide_seconds) if args.video else iter(())
    camera = sources.camera(args.camera) if args.camera is not None else iter(())
    seconds = (recording.seconds or 0.0) + args.tail if recording else 0.0

    with Kept(args.out, args.transcript, seconds) as kept, closing(_load(args)) as conversation:
        if conversation.is_random:
            print(RANDOM, file=sys.stderr)
        if conversation.choice.reason:
            print(conversation.choice.reason, file=sys.stderr)
        if conversation.config.about:
            print(f"It can talk about {conversation.config.about}.", file=sys.stderr)
        if photo is not None:
            conversation.see(photo, wait=True)
        if recording is not None:
            frames = answer_recording(conversation, chain(recording, silence(args.tail)), video)
            progress = Console(stderr=True)
            listened = track(
                frames,
                "listening",
                seconds / FRAME_SECONDS,
                console=progress,
                disable=not progress.is_terminal,
            )
            with _watching(conversation, camera):
                for frame, voice in listened:
                    kept.add(frame, voice)
            kept.finish()
            _print(kept.transcript)
            for note in recording.notes:
                print(f"moshivis: {note}", file=sys.stderr)
        else:
            with (
                _watching(conversation, video if args.video else camera),
                closing(talk(conversation, args.microphone, args.speaker)) as live,
                Screen() as screen,
            ):
                try:
                    for frame, heard in live:
                        _show(screen, frame, heard, kept.add(frame, frame.pcm))
                except KeyboardInterrupt:
                    pass
            kept.finish()
    return 2 if kept.failed else 0


def answer_recording(
    conversation: Conversation, sound: Iterable[Float], pictures: Pictures
) -> Iterator[tuple[Frame, Float]]:
    """Hears blocks of `sound`, 24 kHz, as fast as it can -> (frame, its voice): together as long as the sound.

    `pictures` are offered at their time in the recording. Encoding them takes no time in the recording's clock, so
    the same seed gives the same answer on a slow and on a fast machine.
    """
    upcoming = next(pictures, None)
    for index, (pcm, size) in enumerate(_frames(sound)):
        newest = None
        while upcoming is not None and upcoming[0] <= index * FRAME_SECONDS:
            newest, upcoming = upcoming, next(pictures, None)
        if newest is not None:
            conversation.watch(newest[1], stamp=newest[0])
        frame = conversation.step(pcm)
        conversation.settle()
        yield frame, frame.pcm[:size]


def _frames(sound: Iterable[Float]) -> Iterator[tuple[Float, int]]:
    """Blocks -> (frame, how much of it is sound)."""
    framer = Framer()
    for block in sound:
        for pcm in framer.push(block):
            yield pcm, FRAME_SIZE
    rest = framer.pending
    for pcm in framer.flush():
        yield pcm, rest


def talk(
    conversation: Conversation, microphone: str | None, speaker: str | None
) -> Generator[tuple[Frame, Float], None, None]:
    """Listens and answers without end -> (frame, the sound that it answers, float32 [1920])."""
    audio = AudioInput()
    with Microphone(microphone) as ear, Speaker(speaker) as mouth:
        print(f"Listening to {ear.name!r}, speaking through {mouth.name!r}. Ctrl-C ends.", file=sys.stderr)
        try:
            while True:
                chunk = ear.read()
                if chunk is None:
                    continue
                for _, pcm in audio.push(
                    chunk.samples, sample_rate=ear.sample_rate, channels=ear.channels, index=chunk.index
                ):
                    frame = conversation.step(pcm)
                    mouth.write(frame.pcm)
                    yield frame, pcm
        finally:
            if audio.counts.lost:
                lost = audio.counts.lost / BLOCKS_PER_SECOND
                print(
                    f"{lost:.1f} s of sound were lost: the model is too slow on this machine.",
                    file=sys.stderr,
                )


def _show(screen: Screen, frame: Frame, heard: Float, news: Iterable[Piece | Utterance]) -> None:
    for item in news:
        if isinstance(item, Piece):
            screen.piece("robot", item.text, item.gate)
        else:
            screen.over("robot")
    screen.level("user", float(np.sqrt(np.mean(heard**2))))
    screen.level("robot", float(np.sqrt(np.mean(frame.pcm**2))))
    screen.gate(frame.gate_normalised)
    sight = frame.image
    words = f"{sight.age:.1f} s old, {sight.decision}: {sight.reason}" if sight.has_image else sight.reason
    screen.tell("picture", words)


def _print(transcript: Transcript) -> None:
    """What was said in answer to a recording, a line for each utterance."""
    console = Console(highlight=False, soft_wrap=True)
    for utterance in transcript.utterances:
        pieces = [(p.time, p.text, p.gate) for p in transcript.pieces if p.utterance == utterance.number]
        pieces[0] = pieces[0][0], pieces[0][1].lstrip(), pieces[0][2]
        console.print(f"{utterance.start:7.2f} s  ", shaded(words(pieces)), f"  (gate {utterance.gate:.2f})", sep="")


@contextmanager
def _watching(conversation: Conversation, pictures: Pictures) -> Iterator[None]:
    """Offers pictures to the conversation, each at its time from now on, while the block runs."""
    over = threading.Event()

    def watch() -> None:
        begin = None
        try:
            for stamp, picture in pictures:
                begin = time.monotonic() - stamp if begin is None else begin
                if over.wait(max(0.0, begin + stamp - time.monotonic())):
                    break
                conversation.watch(picture, stamp=stamp)
        except MoshiVisError as error:
            print(f"moshivis: {error}; the conversation goes on without new pictures", file=sys.stderr)

    thread = threading.Thread(target=watch, name="pictures")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _load(args: argparse.Namespace) -> Conversation:
    # Here, so that a wrong file name is told before torch has taken its seconds to load.
    from moshivis_ros.conversation import Conversation

    return Conversation.load(args.model, Options.of(vars(args)))
