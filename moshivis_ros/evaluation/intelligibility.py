"""Can the speech be understood? Word error rate of a recogniser that only knows the vocabulary, in any order.

A word loop, not a grammar of sentences: a grammar would make noise legal. Needs `pip install pocketsphinx`.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.signal import resample_poly

from moshivis_ros.errors import MissingDependencyError
from moshivis_ros.training.dialogues import sentences
from moshivis_ros.training.voices import Sound


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


class Recogniser:
    """Any sequence of the words of the dialogues."""

    def __init__(self) -> None:
        try:
            from pocketsphinx import Decoder
        except ImportError as error:
            raise MissingDependencyError(
                "word error rates need pocketsphinx: pip install pocketsphinx"
            ) from error
        known: Any = Decoder(samprate=16000)
        words = sorted({word for text in sentences() for word in words_of(text)})
        self.unknown = [word for word in words if known.lookup_word(word) is None]
        loop = "|".join(word for word in words if word not in self.unknown)
        with tempfile.TemporaryDirectory() as folder:
            grammar = Path(folder) / "loop.gram"
            grammar.write_text(
                f"#JSGF V1.0;\ngrammar loop;\npublic <loop> = ( {loop} )+;\n", encoding="utf-8"
            )
            self._decoder: Any = Decoder(samprate=16000, lm=None, jsgf=str(grammar), loglevel="FATAL")

    def __call__(self, pcm: Sound) -> list[str]:
        """The words of a sound at 24 kHz."""
        quiet = np.zeros(4800, np.float32)
        sound: npt.NDArray[np.float32] = resample_poly(np.concatenate((quiet, pcm, quiet)), 2, 3)
        self._decoder.start_utt()
        self._decoder.process_raw((sound.clip(-1, 1) * 32767).astype("<i2").tobytes(), full_utt=True)
        self._decoder.end_utt()
        found = self._decoder.hyp()
        return words_of(found.hypstr) if found else []


def word_error_rate(pairs: Sequence[tuple[Sequence[str], Sequence[str]]]) -> float:
    """Of (what was said, what was recognised): errors by the number of words that were said."""
    return sum(_distance(said, heard) for said, heard in pairs) / max(1, sum(len(said) for said, _ in pairs))


def _distance(a: Sequence[str], b: Sequence[str]) -> int:
    row = list(range(len(b) + 1))
    for i, word in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (word != other))
    return row[-1]
