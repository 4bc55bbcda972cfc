"""`moshivis eval CHECKPOINT --driving`: what does it see while its robot drives about?

In the room of worlds/talk_room.sdf, which the launch file shows first, and in rooms with furniture that training never
had (simulation.random_scene), from random places of which something to talk about is near.
"""

from __future__ import annotations

import argparse
import math
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from moshivis_ros.evaluation.examination import Examination, look
from moshivis_ros.evaluation.scoring import Score
from moshivis_ros.model.lm import MoshiVis
from moshivis_ros.model.tokenizer import Tokenizer
from moshivis_ros.sampling import Sampling
from moshivis_ros.simulation.random_scene import random_scene
from moshivis_ros.simulation.render import Renderer
from moshivis_ros.simulation.scene import Scene
from moshivis_ros.simulation.talk_room import TALK_ROOM
from moshivis_ros.training import dialogues
from moshivis_ros.training.dialogues import Exchange
from moshivis_ros.training.pictures import LEAST_SHARE, Picture, looked_at, shrunk
from moshivis_ros.training.pool import Pool, pool
from moshivis_ros.training.rooms import FAR, looking_about, named
from moshivis_ros.training.utterances import Library

KINDS = ("colour", "thing", "presence", "place", "misleading", "number", "describe")
KEPT = Path("build/builtin/pictures/driving.npz")
ROOMS, POSES = 20, 60  # random rooms, and pictures of each and of the talk room
WIDTH, HEIGHT = 320, 240  # pixels drawn
_SEED = 90_000  # of the first random room
Scores = dict[str, list[Score]]


def drives(seed: int, size: int, patch: int) -> Iterator[Picture]:
    """POSES pictures of the talk room, then of one random room after the other."""
    rng = random.Random(f"driving {seed}")
    for scene in (TALK_ROOM, *(_in_our_colours(rng, random_scene(seed + k)) for k in range(ROOMS))):
        with Renderer(scene, WIDTH, HEIGHT) as renderer:
            for _ in range(POSES):
                yield _picture(rng, renderer, scene, size, size // patch)


def _in_our_colours(rng: random.Random, scene: Scene) -> Scene:
    """Balls, boxes, bottles and cups that have a name: white or black ones have none."""
    unnamed = {thing.name for thing in scene.things if thing.kind in dialogues.KINDS} - {t.name for t in named(scene.things)}
    things = (replace(t, colour=rng.choice(dialogues.COLOURS)) if t.name in unnamed else t for t in scene.things)
    return replace(scene, things=tuple(things))


def _picture(rng: random.Random, renderer: Renderer, scene: Scene, size: int, grid: int) -> Picture:
    while True:
        if (pose := looking_about(rng, scene.room, scene.things)) is None:
            continue
        there, things = scene.with_robot_at(pose), named(scene.things)
        if (found := looked_at(renderer, there, things, grid)) is None:
            continue
        names = {thing.name for thing in things}
        near = (one for one in renderer.seen(there) if one.name in names and one.share >= LEAST_SHARE)
        if any(math.dist(one.world, (pose.x, pose.y)) <= FAR for one in near):
            return Picture(shrunk(renderer.image(there), size), *found)


def questions(rng: random.Random, pictures: Pool, among: Sequence[int], per_kind: int) -> list[tuple[Exchange, int]]:
    """At most ``per_kind`` questions of each kind, each about another one of the pictures ``among``."""
    found = []
    for kind in KINDS:
        about = rng.sample(among, len(among))
        asked = ((dialogues.QUESTIONS[kind](rng, pictures.views[n], True), n) for n in about)
        found += [(one, n) for one, n in asked if one is not None][:per_kind]
    return found


def run(
    args: argparse.Namespace, model: MoshiVis, tokenizer: Tokenizer, sampling: Sampling, library: Library | None
) -> int:
    """Prints a table with a row for every form and place. library: of the questions, for spoken forms."""
    siglip = model.config.siglip
    pictures = pool(KEPT, POSES * (1 + ROOMS), _SEED, siglip.image_size, siglip.patch_size, drives)
    tokens = look(model, pictures)
    places = {"talk room": range(POSES), "random rooms": range(POSES, len(pictures))}
    lines = [
        f"| where | form | n | all | blind | {' | '.join(KINDS)} | things named | not there |",
        f"|---|---|---|---|---|{'---|' * len(KINDS)}---|---|",
    ]
    for form in args.forms:
        one = Examination(model, tokenizer, pictures, tokens, form, library, sampling, args.seed)
        total: Scores = defaultdict(list)
        blind: Scores = defaultdict(list)
        for place, among in places.items():
            result = one.ask(questions(random.Random(f"driving {args.seed}"), pictures, among, args.per_kind))
            lines.append(_line(f"{place} | {form}", result.scores, result.blind))
            print(lines[-1], flush=True)
            for kind in KINDS:
                total[kind] += result.scores[kind]
                blind[kind] += result.blind[kind]
        lines.append(_line(f"**all** | {form}", total, blind))
    command = f"moshivis eval {args.model} --driving --forms {' '.join(args.forms)} --per-kind {args.per_kind}"
    text = "\n".join((*lines, "", f"`{command} --seed {args.seed}`"))
    print(text)
    if args.write:
        Path(args.write).write_text(text + "\n", encoding="utf-8")
    return 0


def _line(name: str, scores: Scores, blind: Scores) -> str:
    """Percent right, in all and of each kind; of a description, what it names of the things, and what is not there."""
    described = scores["describe"]
    shares = [[score.right for kind in KINDS for score in table[kind]] for table in (scores, blind)]
    shares += [[score.right for score in scores[kind]] for kind in KINDS]
    cells = [f"{100 * np.mean(share):.0f}" if share else "-" for share in shares]
    named = 100 * np.mean([score.named for score in described])
    invented = 100 * sum(score.invented for score in described) / max(1, sum(score.said for score in described))
    return f"| {name} | {len(shares[0])} | {' | '.join(cells)} | {named:.0f} | {invented:.0f} |"
