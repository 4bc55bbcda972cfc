#!/bin/sh
# Writes media/: the spoken questions and commands with espeak-ng (apt install espeak-ng; 22.05 kHz, mono, 16 bits), and the pictures.
set -eu
cd "$(dirname "$0")/.."
say() { espeak-ng -v en-us+m3 -s 160 -w "media/$1.wav" "$2"; }
say question "What colour is the ball?"
say turn_left "Turn left."
say what_do_you_see "What do you see?"
python3 scripts/draw_scenes.py
