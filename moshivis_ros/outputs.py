"""Files that a conversation leaves: checked before it begins, written while it goes on, in their place when it is over."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from moshivis_ros.errors import OutputError

ROOM = 1_000_000  # bytes that must be free at least
TRIES = 1000  # names


class OutputFile:
    """A new file at `path`, binary: written under another name beside it, NAME.part.wav, and moved there by close().

    What stood at `path` stays until then. What a program leaves that ends without close() is under the other name, and no
    later one writes over it. Raises OutputError, before anything is written, for all that is known to fail:
    no folder, no permission, something at `path` that is not a file, less than `room` bytes on the disk.
    """

    def __init__(self, path: str | Path, room: int = ROOM) -> None:
        self.path = Path(os.path.expanduser(path))
        try:
            target = Path(os.path.realpath(self.path))  # a link stays one
            if not target.parent.is_dir():
                raise OutputError(f"{path}: there is no folder {Path(path).parent}")
            if target.exists() and not target.is_file():
                raise OutputError(f"{path}: is a folder or a device; name a file to write")
            if target.exists() and not os.access(target, os.W_OK):
                raise OutputError(
                    f"{path}: must not be overwritten; change its permissions or name another file"
                )
            free = shutil.disk_usage(target.parent).free
            if free < room:
                raise OutputError(
                    f"{path}: {room / 1e6:.1f} MB are needed and {free / 1e6:.1f} MB free; make room or name another disk"
                )
            self._open(target)
        except (OSError, ValueError) as error:
            raise OutputError(f"{path}: cannot be written ({_why(error)}); name another file") from error
        self._target = target

    def _open(self, target: Path) -> None:
        stem = os.fsdecode(os.fsencode(target.stem)[:200])  # a long name leaves no room for more
        for number in range(1, TRIES):
            part = target.with_name(f"{stem}.part{'' if number == 1 else number}{target.suffix}")
            try:
                self.file = part.open("x+b")
            except FileExistsError:
                continue
            self.part = part
            return
        raise OutputError(f"{target}: {TRIES} unfinished files lie beside it; delete {stem}.part*")

    def close(self) -> None:
        """Moves what was written to its place. Raises OutputError; it is under its other name then."""
        try:
            self.file.flush()
            os.fsync(self.file.fileno())
            try:
                os.replace(self.part, self._target)
            except FileNotFoundError:
                # Somebody removed the folder: what was written is still there to be read.
                self._target.parent.mkdir(parents=True, exist_ok=True)
                self.file.seek(0)
                with self.part.open("wb") as copy:
                    shutil.copyfileobj(self.file, copy)
                os.replace(self.part, self._target)
        except OSError as error:
            raise self.failure(error) from error
        finally:
            self.file.close()

    def discard(self) -> None:
        """Nothing of it stays."""
        self.file.close()
        self.part.unlink(missing_ok=True)

    def failure(self, error: Exception) -> OutputError:
        """For an error in writing."""
        return OutputError(
            f"{self.path}: cannot be written ({_why(error)}); what was written is in {self.part}"
        )


class Outputs:
    """Files that are open, by name: one that fails is told to `say`, counted in `failed`, and ends alone."""

    def __init__(self, say: Callable[[str], Any], **openers: Callable[[], Any]) -> None:
        """`openers` open one each; where one fails, none of them stays."""
        self.failed = False
        self._say = say
        self._files: dict[str, Any] = {}
        try:
            for name, opener in openers.items():
                self._files[name] = opener()
        except OutputError:
            self.discard()
            raise

    def attempt(self, name: str, do: Callable[[Any], Any]) -> None:
        """With a file, if it is open still."""
        if (file := self._files.get(name)) is not None:
            try:
                do(file)
            except OutputError as error:
                del self._files[name]
                self.failed = True
                self._say(str(error))

    def discard(self) -> None:
        for file in self._files.values():
            file.discard()


class TranscriptFile:
    """What is said, a line of JSON each as it comes, and a JSON object in its place when it is over."""

    def __init__(self, path: str | Path) -> None:
        self._lines = OutputFile(path)

    def add(self, kind: str, entry: dict[str, Any]) -> None:
        """Raises OutputError."""
        try:
            self._lines.file.write(_json({"kind": kind, **entry}))
            self._lines.file.flush()
        except OSError as error:
            raise self._lines.failure(error) from error

    def close(self, transcript: dict[str, Any]) -> None:
        """Raises OutputError; the lines are there then."""
        try:
            self._lines.path.parent.mkdir(parents=True, exist_ok=True)
            whole = OutputFile(self._lines.path, room=0)
            whole.file.write(_json(transcript, indent=1))
            whole.close()
        except OSError as error:
            raise self._lines.failure(error) from error
        self._lines.discard()

    def discard(self) -> None:
        self._lines.discard()


def make_folder(path: str | Path) -> Path:
    """A folder to write to, made where it is missing. Raises OutputError."""
    folder = Path(os.path.expanduser(path))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise OutputError(f"{path}: there can be no such folder ({_why(error)}); name another") from error
    return folder


def _json(data: Any, indent: int | None = None) -> bytes:
    return (json.dumps(data, indent=indent, ensure_ascii=False) + "\n").encode(errors="replace")


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
