#!/bin/sh
# Writes the spoken questions of media/ with espeak-ng (apt install espeak-ng): 22.05 kHz, mono, 16 bits.
set -eu
cd "$(dirname "$0")/../media"
say() { espeak-ng -v en-us+m3 -s 150 -w "$1" "$2"; }
say question.wav "Hello! What do you see in front of you?"
say question2.wav "And what has changed now?"
