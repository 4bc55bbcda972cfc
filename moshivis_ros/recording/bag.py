"""Bags: MCAP files in the layout of rosbag2, written while things happen, bounded, and read again without ROS.

A bag is a folder with NAME_0.mcap, NAME_1.mcap, ... and metadata.yaml. The file that is being written is NAME_N.part.mcap:
a program that is killed leaves it, complete up to its last chunk, and mend() makes an ordinary bag of that.
"""

from __future__ import annotations

import fcntl
import struct
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from moshivis_ros.errors import MissingDependencyError, OutputError, RecordingError
from moshivis_ros.outputs import OutputFile, make_folder

try:
    from mcap.exceptions import McapError
    from mcap.records import Channel, Message, Schema
    from mcap.stream_reader import CRCValidationError, StreamReader
    from mcap.writer import CompressionType, Writer
    from rosbags.serde import SerdeError
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore
except ImportError as error:
    raise MissingDependencyError(
        "recordings need mcap and rosbags: `pip install mcap rosbags` (or 'moshivis_ros[record]')"
    ) from error

CHUNK = 131_072  # bytes, a second or two of a conversation: what a killed program loses at most
PARTS = 8  # files into which what may be kept is divided: the oldest goes when it is too much
VERSION = 5  # of rosbag2's metadata.yaml that is written: what Humble writes and later ones read
DAMAGE = (McapError, CRCValidationError, EOFError, struct.error, ValueError, RuntimeError)


@dataclass(frozen=True)
class Kind:
    """A type of message, such as std_msgs/msg/Header, and its definition: text of .msg files as MCAP joins them."""

    name: str
    definition: str


@dataclass(frozen=True)
class Entry:
    """A message of a bag. `role`: the relative name of the topic before remapping; `time`: nanoseconds, when it was written
    down.
    """

    topic: str
    role: str
    time: int
    decode: Callable[[], Any]

    @property
    def message(self) -> Any:
        """With the fields of its type as attributes, arrays as numpy arrays; decoded anew each time. Raises
        RecordingError.
        """
        try:
            return self.decode()
        except SerdeError as error:
            raise RecordingError(f"a message on {self.topic} cannot be read: {error}") from error


@dataclass
class _File:
    """What metadata.yaml says about a file."""

    name: str
    topics: dict[str, str] = field(default_factory=dict)  # types by topic
    counts: dict[str, int] = field(default_factory=dict)  # messages by topic
    start: int = 0  # nanoseconds
    end: int = 0
    size: int = 0

    def note(self, topic: str, kind: str, time: int) -> None:
        self.start = min(self.start, time) if self.counts else time
        self.end = max(self.end, time)
        self.topics[topic] = kind
        self.counts[topic] = self.counts.get(topic, 0) + 1


class BagWriter:
    """A new bag. At most about `max_bytes` and `max_seconds` of it are kept: the oldest eighth is deleted for what comes.

    Messages marked `lasting` are written again into every file, so that what is left can be understood.
    Raises OutputError, at once where the folder holds a recording or cannot be written.
    """

    def __init__(self, folder: str | Path, max_bytes: float, max_seconds: float) -> None:
        self.folder = make_folder(folder)
        if any(self.folder.glob("*.mcap")):
            raise OutputError(f"{folder}: there is a recording already; name another folder")
        self._most = max_bytes / PARTS, max_seconds / PARTS * 1e9
        self._kept: deque[_File] = deque()
        self._number = 0
        self._lasting: dict[Any, tuple[str, str, Kind, bytes]] = {}
        self._open()

    def write(self, role: str, topic: str, kind: Kind, time: int, data: bytes, lasting: Any = None) -> None:
        """`data`: CDR; `time`: nanoseconds; `lasting`: a key: the newest of each is written into later files, too."""
        most_bytes, most_time = self._most
        if self._file.size > most_bytes or (self._file.counts and time - self._file.start > most_time):
            self._close()
            while len(self._kept) >= PARTS:
                (self.folder / self._kept.popleft().name).unlink(missing_ok=True)
            self._open()
            for again in self._lasting.values():
                self._write(*again, time)
        if lasting is not None:
            self._lasting[lasting] = role, topic, kind, data
        self._write(role, topic, kind, data, time)

    def close(self) -> None:
        self._close()
        _write_metadata(self.folder, list(self._kept))

    def discard(self) -> None:
        """Nothing of it stays, the folder neither if there is nothing else in it."""
        self._output.discard()
        if not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _open(self) -> None:
        self._file = _File(f"{self.folder.name}_{self._number}.mcap")
        self._number += 1
        self._output = OutputFile(self.folder / self._file.name)
        fcntl.flock(self._output.file, fcntl.LOCK_EX)  # until it is closed, by whatever end: it is being written
        self._writer = Writer(self._output.file, chunk_size=CHUNK, compression=CompressionType.LZ4)
        self._writer.start(profile="ros2", library="moshivis_ros")
        self._channels: dict[str, int] = {}
        self._schemas: dict[str, int] = {}

    def _write(self, role: str, topic: str, kind: Kind, data: bytes, time: int) -> None:
        try:
            if kind.name not in self._schemas:
                definition = kind.definition.encode()
                self._schemas[kind.name] = self._writer.register_schema(kind.name, "ros2msg", definition)
            if topic not in self._channels:
                self._channels[topic] = self._writer.register_channel(
                    topic, "cdr", self._schemas[kind.name], {"offered_qos_profiles": "", "role": role}
                )
            self._writer.add_message(self._channels[topic], time, data, time)
            self._output.file.flush()  # nothing waits but the chunk that is not complete
        except OSError as error:
            raise self._output.failure(error) from error
        self._file.note(topic, kind.name, time)
        self._file.size = self._output.file.tell()

    def _close(self) -> None:
        try:
            self._writer.finish()
        except OSError as error:
            raise self._output.failure(error) from error
        self._output.close()
        self._kept.append(self._file)


def read_bag(path: str | Path) -> Iterator[Entry]:
    """The messages of a bag (a folder, or one .mcap file), in the order in which they were written, of one that was killed
    up to its end. Raises RecordingError where there is none, or nothing in it.
    """
    store = get_typestore(Stores.EMPTY)
    any_message = False
    for file in bag_files(path):
        for schema, channel, message in _messages(file):
            if schema.name not in store.types:
                store.register(
                    {
                        name: definition
                        for name, definition in get_types_from_msg(schema.data.decode(), schema.name).items()
                        if name not in store.types
                    }
                )
            any_message = True
            role = channel.metadata.get("role") or channel.topic.rsplit("/", 1)[-1]
            decode = partial(store.deserialize_cdr, message.data, schema.name)
            yield Entry(channel.topic, role, message.log_time, decode)
    if not any_message:
        raise RecordingError(f"{path}: there is no message in this recording")


def bag_files(path: str | Path) -> list[Path]:
    """The files of a bag, in their order. Raises RecordingError."""
    path = Path(path).expanduser()
    files = [path] if path.is_file() else sorted(path.glob("*.mcap"), key=_order)
    if not files:
        raise RecordingError(f"{path}: not a recording: no .mcap file; name the folder that `recorder` wrote")
    return files


def mend(folder: str | Path) -> int:
    """Make an ordinary bag of what a killed recorder left: the number of files that were not complete. One that is being
    recorded still is left alone.
    """
    folder = Path(folder)
    parts = [file for file in bag_files(folder) if ".part" in file.name]
    if any(_is_being_written(part) for part in parts):
        return 0
    files = []
    for file in bag_files(folder):
        whole = _File(file.name.split(".part")[0].removesuffix(".mcap") + ".mcap")
        if file in parts:
            output = OutputFile(folder / whole.name)
            writer = Writer(output.file, chunk_size=CHUNK, compression=CompressionType.LZ4)
            writer.start(profile="ros2", library="moshivis_ros")
            schemas: dict[int, int] = {}
            channels: dict[int, int] = {}
        for schema, channel, message in _messages(file):
            whole.note(channel.topic, schema.name, message.log_time)
            if file in parts:
                if schema.id not in schemas:
                    schemas[schema.id] = writer.register_schema(schema.name, schema.encoding, schema.data)
                if channel.id not in channels:
                    channels[channel.id] = writer.register_channel(
                        channel.topic, channel.message_encoding, schemas[schema.id], channel.metadata
                    )
                writer.add_message(
                    channels[channel.id],
                    message.log_time,
                    message.data,
                    message.publish_time,
                    message.sequence,
                )
        if file in parts:
            writer.finish()
            output.close()
            file.unlink()
        if whole.counts:
            files.append(whole)
    _write_metadata(folder, files)
    return len(parts)


def _messages(file: Path) -> Iterator[tuple[Schema, Channel, Message]]:
    """Up to where the file ends or is damaged."""
    schemas: dict[int, Schema] = {}
    channels: dict[int, Channel] = {}
    try:
        with file.open("rb") as stream:
            try:
                for record in StreamReader(stream).records:
                    if isinstance(record, Schema):
                        schemas[record.id] = record
                    elif isinstance(record, Channel):
                        channels[record.id] = record
                    elif isinstance(record, Message):
                        channel = channels[record.channel_id]
                        yield schemas[channel.schema_id], channel, record
            except DAMAGE:
                if not channels and not file.name.endswith(".part.mcap"):
                    raise RecordingError(f"{file}: not an MCAP file, or damaged from its beginning") from None
    except OSError as error:
        raise RecordingError(f"{file}: cannot be read ({error.strerror})") from error


def _is_being_written(file: Path) -> bool:
    with file.open("rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _order(file: Path) -> tuple[int, str]:
    number = file.name.split(".")[0].rsplit("_", 1)[-1]
    return int(number) if number.isdecimal() else 0, file.name


def _write_metadata(folder: Path, files: list[_File]) -> None:
    topics = {topic: kind for file in files for topic, kind in file.topics.items()}
    counts = {topic: sum(file.counts.get(topic, 0) for file in files) for topic in topics}
    start = min((file.start for file in files), default=0)
    end = max((file.end for file in files), default=0)
    information = {
        "version": VERSION,
        "storage_identifier": "mcap",
        "duration": {"nanoseconds": end - start},
        "starting_time": {"nanoseconds_since_epoch": start},
        "message_count": sum(counts.values()),
        "topics_with_message_count": [
            {
                "topic_metadata": {
                    "name": topic, "type": kind, "serialization_format": "cdr", "offered_qos_profiles": "",
                },
                "message_count": counts[topic],
            }
            for topic, kind in topics.items()
        ],
        "compression_format": "",
        "compression_mode": "",
        "relative_file_paths": [file.name for file in files],
        "files": [
            {
                "path": file.name,
                "starting_time": {"nanoseconds_since_epoch": file.start},
                "duration": {"nanoseconds": file.end - file.start},
                "message_count": sum(file.counts.values()),
            }
            for file in files
        ],
    }  # fmt: skip
    output = OutputFile(folder / "metadata.yaml", room=0)
    output.file.write(yaml.safe_dump({"rosbag2_bagfile_information": information}, sort_keys=False).encode())
    output.close()
