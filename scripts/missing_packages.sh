#!/usr/bin/env bash
# Prints the Debian and Ubuntu packages that are needed and not there. With "all" also what only some tests need.
set -u

need() { # need PACKAGE COMMAND...: the package, if the command fails
  local package=$1; shift
  "$@" >/dev/null 2>&1 || echo "$package"
}
library() { "$PYTHON" -c 'import ctypes, sys; ctypes.CDLL(sys.argv[1])' "$1"; }
header() { "$PYTHON" -c 'import os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")'; }

PYTHON=${PYTHON:-python3}
need python3 command -v "$PYTHON"
need python3-venv "$PYTHON" -c 'import ensurepip, venv'
need python3-dev header
need g++ command -v c++
need libgl1 library libGL.so.1
need libglib2.0-0 library libgthread-2.0.so.0
need libegl1 library libEGL.so.1

if [ "${1:-}" = all ]; then
  need libportaudio2 library libportaudio.so.2
  need espeak-ng command -v espeak-ng
  need flite command -v flite
  need libespeak-ng1 library libespeak-ng.so.1
  # Ubuntu's is a snap, which a container cannot run: there the tests in a browser are skipped.
  grep -q '^ID=debian' /etc/os-release && need chromium command -v chromium
  need pulseaudio command -v pulseaudio
  need pulseaudio-utils command -v pactl
  need libasound2-plugins test -e /etc/alsa/conf.d/50-pulseaudio.conf -o -e /usr/share/alsa/alsa.conf.d/50-pulseaudio.conf
fi
