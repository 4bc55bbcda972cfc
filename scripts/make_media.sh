#!/bin/sh
# Writes media/: the spoken question with espeak-ng (apt install espeak-ng; 22.05 kHz, mono, 16 bits), and the pictures.
set -eu
cd "$(dirname "$0")/.."
espeak-ng -v en-us+m3 -s 160 -w media/question.wav "What colour is the ball?"
python3 scripts/draw_scenes.py
