"""`moshivis eval`: our own questions about our own pictures (dialogue_test), or kyutai's benchmark (babillage_test)."""

from __future__ import annotations

import argparse

from moshivis_ros.evaluation import babillage_test, dialogue_test


def add_arguments(parser: argparse.ArgumentParser) -> None:
    dialogue_test.add_arguments(parser)
    babillage_test.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    return babillage_test.run(args) if args.babillage else dialogue_test.run(args)
