"""The `moshivis` command. Every subcommand is one function of a few lines, and loads only what it needs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from moshivis_ros import __version__, arguments
from moshivis_ros.errors import ConfigError, MoshiVisError

Parser = argparse.ArgumentParser
Run = Callable[[argparse.Namespace], int]

EPILOG = """\
is everything there?
  moshivis doctor

start here, without the real weights:
  moshivis init tiny                                  a small random checkpoint in the folder tiny
  moshivis chat --model tiny --audio question.wav --image photo.jpg --out answer.wav

`moshivis COMMAND --help` explains a command, with examples.
"""


def of_module(name: str) -> Callable[[Parser], Run]:
    """The command of a module that has `add_arguments` and `run`."""

    def command(parser: Parser) -> Run:
        module = import_module(f"moshivis_ros.{name}")
        module.add_arguments(parser)
        run: Run = module.run
        return run

    return command


def verify(parser: Parser) -> Run:
    parser.description = (
        "Replays the golden.npz of a checkpoint folder and compares with the reference's numbers."
    )
    parser.epilog = "exit status: 0 all equal, 1 something differs, 2 the folder cannot be used"
    parser.add_argument("folder", help="with model.safetensors, config.yaml and golden.npz")
    parser.add_argument(
        "--device", type=arguments.device, default="cpu", help="cpu, cuda, ... (%(default)s)"
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="bfloat16 has its own tolerance (%(default)s)",
    )

    def run(args: argparse.Namespace) -> int:
        from moshivis_ros.model import torch
        from moshivis_ros.model.device import find_device
        from moshivis_ros.verify import run

        return 0 if run(args.folder, find_device(args.device), getattr(torch, args.dtype)) else 1

    return run


def init(parser: Parser) -> Run:
    parser.description = (
        "Writes a checkpoint in the layout of the released one: of random weights, to try everything without the real ones "
        "(what it says is noise); or of base Moshi and a SigLIP image encoder, to train its adapters (docs/fine-tuning.md)."
    )
    parser.add_argument("folder", help="made if it is not there")
    parser.add_argument(
        "--from-moshi", metavar="MOSHI", help="folder or Hugging Face repo of a Moshi, such as kyutai/moshika-pytorch-bf16"
    )
    parser.add_argument(
        "--siglip", help="with it: folder or repo of a SigLIP, such as google/siglip-so400m-patch14-448"
    )
    parser.add_argument("--size", default="tiny", help="of the network: tiny, or full, which is 17.0 GB on disk (%(default)s)")
    parser.add_argument(
        "--seed", type=arguments.seed, default=0, help="the same seed gives the same weights (%(default)s)"
    )
    parser.add_argument("--force", action="store_true", help="overwrite a checkpoint that is there")

    def run(args: argparse.Namespace) -> int:
        if args.from_moshi or args.siglip:
            return _init_from_moshi(args)
        from moshivis_ros.model.init import init_checkpoint

        init_checkpoint(args.folder, args.size, args.seed, args.force)
        print(
            f"{args.folder}: random weights, size {args.size}. Try: moshivis chat --model {args.folder} --help"
        )
        return 0

    return run


def _init_from_moshi(args: argparse.Namespace) -> int:
    from moshivis_ros.model.from_moshi import init_from_moshi

    if not (args.from_moshi and args.siglip):
        raise ConfigError("--from-moshi and --siglip belong together: name both")
    found = init_from_moshi(args.folder, args.from_moshi, args.siglip, args.seed, args.force)
    for file, what in {"moshi": args.from_moshi, "siglip": args.siglip, "new": "nothing: untrained"}.items():
        count = sum(source.file == file for source in found.sources.values())
        print(f"{count:5} tensors of {what}")
    for reason, names in found.left_out.items():
        print(f"{len(names):5} tensors left out: {reason} ({names[0]}, ...)")
    print(f"{args.folder}: it talks as Moshi does, and does not see yet. Train it: docs/fine-tuning.md")
    return 0


def merge(parser: Parser) -> Run:
    parser.description = (
        "Writes a checkpoint with trained adapters in it, in the layout of the released one. (To use them as they are, give "
        "their folder as --adapters.)"
    )
    parser.add_argument("model", help="checkpoint folder or Hugging Face repo id")
    parser.add_argument("adapters", help="folder of `moshivis train`")
    parser.add_argument("out", help="folder to write; made if it is not there")

    def run(args: argparse.Namespace) -> int:
        from moshivis_ros.model.checkpoint import merge_adapters, resolve

        merge_adapters(resolve(args.model), args.adapters, args.out)
        print(f"{args.out}: {args.model} with the adapters of {args.adapters}")
        return 0

    return run


def quantize(parser: Parser) -> Run:
    parser.description = (
        "Writes a checkpoint with smaller weights. It is used like any other, and starts sooner than one that is made "
        "smaller at every start."
    )
    parser.add_argument("model", help="checkpoint folder or Hugging Face repo id")
    parser.add_argument("out", help="folder to write; made if it is not there")
    parser.add_argument(
        "--quantize", choices=("int8", "int4"), default="int8", help="type of the weights (%(default)s)"
    )

    def run(args: argparse.Namespace) -> int:
        from moshivis_ros.model.checkpoint import quantize_checkpoint, resolve

        quantize_checkpoint(resolve(args.model), args.out, args.quantize)
        size = sum(file.stat().st_size for file in Path(args.out).expanduser().iterdir())
        print(f"{args.out}: {args.quantize} weights, {size / 1e6:.1f} MB")
        return 0

    return run


COMMANDS = {
    "chat": (of_module("chat"), "talk with the model: a recording, or live"),
    "doctor": (of_module("doctor.command"), "what is fine on this machine, and what mends the rest"),
    "verify": (verify, "compare the network with the reference's numbers"),
    "init": (init, "write a random checkpoint, or one out of base Moshi"),
    "quantize": (quantize, "write a checkpoint with smaller weights"),
    "bench": (of_module("bench.command"), "measure every stage of a frame"),
    "export-image-encoder": (of_module("model.onnx_encoder"), "write the image encoder as an ONNX file"),
    "report": (of_module("recording.report"), "a page about a recorded conversation"),
    "replay": (of_module("recording.replay"), "a recorded conversation with another policy or model"),
    "watch": (of_module("nodes.watch"), "a running talk node in the terminal (needs ROS 2)"),
    "study-refresh": (of_module("study.command"), "compare policies of looking again"),
    "make-dialogues": (of_module("data.command"), "write a data set of spoken dialogues"),
    "look": (of_module("evaluation.look"), "a page to see and hear: a data set, training, a checkpoint"),
    "train": (of_module("training.train"), "one stage of training, from a configuration file"),
    "merge": (merge, "put trained adapters into a checkpoint"),
    "eval": (of_module("evaluation.command"), "ask a model questions and score its answers"),
}


def told(command: Callable[[], int]) -> int:
    """Its exit code; what a user can mend is one line on stderr and 2, Ctrl-C 130."""
    try:
        return command()
    except MoshiVisError as error:
        print(f"moshivis: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = Parser(
        prog="moshivis",
        description="MoshiVis: a spoken conversation about what a camera sees.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def run() -> int:
        for name, (command, summary) in COMMANDS.items():
            subparser = commands.add_parser(name, help=summary)
            if arguments[:1] == [name]:  # the arguments of the others need not be known
                subparser.set_defaults(run=command(subparser))
        args = parser.parse_args(arguments)
        return int(args.run(args))

    return told(run)


if __name__ == "__main__":
    sys.exit(main())
