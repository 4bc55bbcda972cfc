"""`moshivis make-dialogues`: samples to train with, in the convention of kyutai-labs/moshi-finetune.

About pictures of the simulator (which needs nothing else), about pictures of yours, or out of a robot's own recordings.
"""

from __future__ import annotations

import argparse
import os
import random
from pathlib import Path
from typing import Any

from moshivis_ros import arguments
from moshivis_ros.data import prompts
from moshivis_ros.data.folder import SampleFolder
from moshivis_ros.errors import ConfigError, EndpointError
from moshivis_ros.training.voices import Voice

EXAMPLES = """\
examples:
  moshivis make-dialogues simulated --count 200
  moshivis make-dialogues kitchen --images photos --endpoint http://localhost:8000/v1 --model Qwen/Qwen2.5-VL-7B-Instruct --plan
  moshivis make-dialogues kitchen --images photos --endpoint http://localhost:11434/v1 --model llava --each 2 \\
    --voice piper:en_US-amy-medium.onnx --user-voice espeak piper:en_US-libritts-high.onnx --align base.en --rooms
  moshivis make-dialogues lived --from-bag recording_2026-05-01_10-00-00
"""
KEY = "OPENAI_API_KEY"
SIMULATED = 20  # dialogues


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description, parser.epilog = __doc__, EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "folder", help="made if it is not there; with --images or --from-bag it goes on where it stopped"
    )
    parser.add_argument(
        "--count", type=arguments.whole(1, 2**31), help=f"dialogues ({SIMULATED}; of --images all)"
    )
    parser.add_argument("--seed", type=arguments.seed, default=0)
    simulated = parser.add_argument_group("about pictures of the simulator")
    simulated.add_argument(
        "--size", type=int, default=112, help="pixels of the square pictures (%(default)s)"
    )
    simulated.add_argument(
        "--held-out", action="store_true", help="the voice and the phrasings that training never has"
    )
    real = parser.add_argument_group("about pictures of yours")
    real.add_argument(
        "--images",
        metavar="FOLDER",
        help="of pictures, with captions or without; or owner/name on Hugging Face",
    )
    real.add_argument(
        "--endpoint",
        metavar="URL",
        help=f"server with OpenAI's chat completions; its key is taken from {KEY}",
    )
    real.add_argument("--model", help="its name on the server")
    real.add_argument(
        "--local", metavar="MODEL", help="instead: a vision-language model for transformers, run here"
    )
    real.add_argument(
        "--kinds", nargs="+", choices=prompts.NAMES, default=list(prompts.NAMES), help="of dialogue (all)"
    )
    real.add_argument(
        "--each", type=arguments.whole(1, 2**31), default=1, help="dialogues about a picture (%(default)s)"
    )
    real.add_argument(
        "--parallel", type=arguments.whole(1, 2**31), default=8, help="requests at a time (%(default)s)"
    )
    real.add_argument(
        "--voice", default="espeak", help="the robot's: espeak, espeak:NAME, miniature, piper:FILE, command:LINE"
    )
    real.add_argument("--user-voice", nargs="+", default=["espeak"], help="the same; drawn for each dialogue")
    real.add_argument(
        "--rooms", action="store_true", help="users in rooms, through microphones (needs pyroomacoustics)"
    )
    real.add_argument(
        "--align", metavar="MODEL", help="times of words by this Whisper: tiny.en, base.en, a folder"
    )
    real.add_argument("--price", nargs=2, type=float, metavar=("READ", "WRITTEN"), help="of a million tokens")
    real.add_argument(
        "--plan", action="store_true", help="make one dialogue, say what all would take, and stop"
    )
    recorded = parser.add_argument_group("out of recordings")
    recorded.add_argument("--from-bag", nargs="+", metavar="BAG", help="folders that the node recorder wrote")


def run(args: argparse.Namespace) -> int:
    if args.images and args.from_bag:
        raise ConfigError("--images and --from-bag make different data sets: give one of them")
    if args.from_bag:
        return _recorded(args)
    if args.images:
        return _real(args)
    from moshivis_ros.training.make_dialogues import make

    count = args.count or SIMULATED
    make(Path(args.folder), count, args.seed, args.size, args.held_out)
    print(f"{args.folder}: {count} dialogues. Look at them: moshivis look {args.folder}")
    return 0


def _recorded(args: argparse.Namespace) -> int:
    from moshivis_ros.data.bag import add_bag

    with SampleFolder(args.folder, {"of": "recordings"}) as folder:
        for bag in args.from_bag:
            if note := add_bag(folder, bag):
                print(f"note: {note}")
        print(f"{args.folder}: {len(folder.done)} recordings. Look at them: moshivis look {args.folder}")
    return 0


def _real(args: argparse.Namespace) -> int:
    from moshivis_ros.data.about_pictures import Estimate, Plan, make
    from moshivis_ros.data.pictures import find

    writer = _writer(args)
    voices = _voices(args)
    plan = Plan(find(args.images), args.kinds, args.each, args.seed, parallel=args.parallel)
    with SampleFolder(args.folder, _made(args)) as folder:
        estimate = Estimate.of(plan, len(folder.done) + len(folder.rejected), args.count)
        print(
            f"{len(plan.photos)} pictures, {sum(p.caption is None for p in plan.photos)} of them without a caption"
        )
        print(f"to make: {estimate}")
        if args.price:
            print(
                f"cost: about {estimate.cost(*args.price):.2f}, at {args.price[0]:g} and {args.price[1]:g} a million tokens"
            )
        if not estimate.dialogues:
            print("all of it is there")
            return 0
        folder.need(estimate.bytes)
        first = make(folder, plan, writer, voices, most=1)
        left = estimate.dialogues - 1
        print(
            f"the first took {first.seconds:.1f} s ({first.asking:.1f} s for the lines, {first.speaking:.1f} s for the sound): the "
            f"other {left} about {_time(max(first.asking / args.parallel, first.speaking) * left)}"
        )
        if not args.plan:
            most = None if args.count is None else args.count - 1
            print(make(folder, plan, writer, voices, most))
        _tell(args, folder)
        if not folder.done:
            raise EndpointError("not one dialogue could be used: see rejected.log, and try another model")
    return 0


def _writer(args: argparse.Namespace) -> Any:
    if args.local and (args.endpoint or args.model):
        raise ConfigError("--local runs a model here, --endpoint asks a server: give one of them")
    if args.local:
        from moshivis_ros.data.local import LocalModel

        return LocalModel(args.local)
    if not args.endpoint or not args.model:
        raise ConfigError("who writes the dialogues? Give --endpoint URL and --model NAME, or --local MODEL")
    from moshivis_ros.data.writer import Endpoint

    return Endpoint(args.endpoint, args.model, os.environ.get(KEY, ""))


def _voices(args: argparse.Namespace) -> Any:
    """What draws the two who speak. A voice that does not speak is told here, before anything is asked."""
    from moshivis_ros.data.voices import Aligned, Somewhere, voice

    robot, users = voice(args.voice, user=False), [voice(name, user=True) for name in args.user_voice]
    aligner = None
    if args.align:
        from moshivis_ros.data.aligner import WhisperAligner

        aligner = WhisperAligner(args.align)

    def draw(rng: random.Random) -> tuple[Voice, Voice]:
        speaks, asks = robot(rng), rng.choice(users)(rng)
        if aligner is not None:
            speaks = Aligned(speaks, aligner)
        return speaks, Somewhere(asks, rng.getrandbits(32)) if args.rooms else asks

    rng = random.Random("try")
    for one in (robot, *users):
        one(rng).say("Hello there.")
    draw(rng)[1].say("Hello there.")
    return draw


def _made(args: argparse.Namespace) -> dict[str, Any]:
    """What makes two runs the same data set."""
    names = ("images", "kinds", "each", "seed", "voice", "user_voice", "rooms", "align")
    return {**{name: getattr(args, name) for name in names}, "model": args.local or args.model}


def _tell(args: argparse.Namespace, folder: SampleFolder) -> None:
    print(f"{args.folder}: {len(folder.done)} dialogues, {len(folder.captions)} pictures")
    if folder.reasons:
        told = ", ".join(f"{reason} {count}" for reason, count in folder.reasons.most_common())
        print(f"left out: {len(folder.rejected)} ({told})")
    print(f"Look at them: moshivis look {args.folder}")


def _time(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds > 5400 else f"{seconds / 60:.0f} minutes"
