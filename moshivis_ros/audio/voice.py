"""Text to sound by a command: espeak-ng, Piper, or anything that reads text and writes a recording."""

from __future__ import annotations

import shlex
import subprocess
import tempfile

import numpy as np

from moshivis_ros.audio import FRAME_SIZE, Float
from moshivis_ros.audio.files import read
from moshivis_ros.errors import AudioError, ConfigError, MissingDependencyError, WordsError

VOICE_COMMAND = "espeak-ng --stdin --stdout -v en-us+m3 -s 160"
SECONDS = 30.0  # given to the command
PEAK = 0.5  # of full scale: a voice at an ordinary distance
SILENT = 0.01  # of the peak: what is below it at both ends is cut off


def speak(text: str, command: str = VOICE_COMMAND) -> Float:
    """What ``command`` makes of a text on its standard input: float32 [n * 1920], 24 kHz.

    Its standard output is a recording of any kind that FFmpeg knows, such as WAV.
    Raises WordsError (nothing to say), ConfigError (no command), MissingDependencyError (it is not installed) and
    AudioError (it failed, or gave no sound).
    """
    if not text.split():
        raise WordsError("there is nothing to ask: the text is empty")
    try:
        arguments = shlex.split(command)
    except ValueError as error:
        raise ConfigError(f"the voice command cannot be read ({str(error).lower()}): {command}") from error
    if not arguments:
        raise ConfigError(f"the voice command is empty; try {VOICE_COMMAND!r}")
    try:
        recording = tempfile.NamedTemporaryFile(suffix=".wav")
    except OSError as error:
        raise AudioError(f"there is no room for what the voice command says: {error}") from error
    with recording:
        try:
            subprocess.run(
                arguments,
                input=text.encode(),
                stdout=recording,
                stderr=subprocess.PIPE,
                timeout=SECONDS,
                check=True,
            )
        except OSError as error:
            raise MissingDependencyError(
                f"the voice command {arguments[0]!r} cannot be run ({error}): apt install espeak-ng, or name another"
            ) from error
        except subprocess.TimeoutExpired as error:
            raise AudioError(f"the voice command was not done after {SECONDS:.0f} s: {command}") from error
        except subprocess.CalledProcessError as error:
            said = error.stderr.decode(errors="replace").strip()
            raise AudioError(
                f"the voice command ended with code {error.returncode}: {said or command}"
            ) from error
        sound = read(recording.name)
    loud = np.flatnonzero(np.abs(sound) > SILENT * np.abs(sound).max(initial=0))
    if not loud.size:
        raise AudioError(f"the voice command made silence of {text!r}: {command}")
    sound = sound[loud[0] : loud[-1] + 1]
    sound = sound * np.float32(PEAK / np.abs(sound).max())
    return np.pad(sound, (0, -sound.size % FRAME_SIZE))
