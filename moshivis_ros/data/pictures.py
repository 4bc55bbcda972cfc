"""Pictures to talk about, with what is known of them: a folder, or a data set in parquet files (of Hugging Face's hub)."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

from moshivis_ros.errors import ConfigError, ImageError, OutputError
from moshivis_ros.training import parquet

KINDS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
METADATA = ("metadata.jsonl", "metadata.csv")  # as Hugging Face's imagefolder has them
CAPTIONS = ("caption", "text", "description")  # columns, in the order in which they are looked for
LONGEST = 1024  # pixels of the longer side that are kept: the network sees 448
HUB = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Photo:
    """name: unique in its source, and fit to be a file's. caption: what the picture shows, where that is known."""

    name: str
    caption: str | None
    read: Callable[[], bytes]


def find(source: str) -> list[Photo]:
    """All pictures of a folder (files, or parquet files with a column `image`) or of a data set of the hub ("owner/name").

    Captions stand in metadata.jsonl or metadata.csv (file_name, and caption or text), in NAME.txt beside NAME.jpg, or in
    a column caption or text. Raises ConfigError where there is no picture, or where a caption has none.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir():
        if folder.exists() or not HUB.fullmatch(source):
            raise ConfigError(
                f"{source} is no folder of pictures, and no data set's name on Hugging Face (owner/name)"
            )
        folder = _download(source)
    tables = sorted(folder.rglob("*.parquet"))
    photos = [photo for table in tables for photo in _of_table(table, folder)] or _of_folder(folder)
    if not photos:
        raise ConfigError(
            f"{source}: there is no picture in it; wanted: {', '.join(KINDS)}, or .parquet with a column `image`"
        )
    return photos


def encoded(photo: Photo) -> tuple[bytes, str]:
    """The picture as it is kept, and the ending of its name: at most LONGEST pixels long. Raises ImageError."""
    import cv2
    import numpy as np

    data = photo.read()
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if pixels is None:
        raise ImageError(f"{photo.name}: not a picture that can be read")
    longest = max(pixels.shape[:2])
    if longest <= LONGEST and data[:3] == b"\xff\xd8\xff":
        return data, ".jpg"
    if longest <= LONGEST and data[:4] == b"\x89PNG":
        return data, ".png"
    scale = min(1.0, LONGEST / longest)
    size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
    smaller = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", smaller, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes(), ".jpg"


def _of_folder(folder: Path) -> list[Photo]:
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in KINDS)
    there = {file.relative_to(folder).as_posix() for file in files}
    captions = dict(_captions(folder))
    if missing := sorted(set(captions) - there):
        shown = ", ".join(missing[:5]) + (", ..." if missing[5:] else "")
        raise ConfigError(f"{folder}: {len(missing)} captions are of pictures that are not there: {shown}")
    photos: dict[str, Photo] = {}
    for file in files:
        place = file.relative_to(folder)
        beside = file.with_suffix(".txt")
        caption = captions.get(place.as_posix()) or (beside.read_text("utf-8") if beside.is_file() else "")
        name = safe(place.with_suffix("").as_posix())
        if name in photos:
            name += "-" + hashlib.sha1(place.as_posix().encode()).hexdigest()[:8]
        photos[name] = Photo(name, caption.strip() or None, partial(_read, file))
    return list(photos.values())


def _captions(folder: Path) -> Iterator[tuple[str, str]]:
    for name in METADATA:
        for file in sorted(folder.rglob(name)):
            place = file.parent.relative_to(folder)
            for row in _rows(file):
                if "file_name" not in row:
                    raise ConfigError(f"{file}: every line needs `file_name`, and `caption` or `text`")
                caption = next((str(row[column]) for column in CAPTIONS if row.get(column)), "")
                yield (place / str(row["file_name"])).as_posix(), caption


def _rows(file: Path) -> Iterable[dict[str, Any]]:
    lines = file.read_text("utf-8").splitlines()
    if file.suffix == ".csv":
        return csv.DictReader(lines)
    try:
        return [json.loads(line) for line in lines if line.strip()]
    except ValueError as error:
        raise ConfigError(f"{file}: not a line of JSON for each picture ({error})") from error


def _of_table(file: Path, folder: Path) -> Iterator[Photo]:
    table = parquet.table(file)
    columns = set(table.schema_arrow.names)
    if "image" not in columns:
        raise ConfigError(
            f"{file}: there is no column `image` in it, but {', '.join(sorted(columns))}; name a data set of pictures"
        )
    captioned = next((name for name in CAPTIONS if name in columns), None)
    stem = safe(file.relative_to(folder).with_suffix("").as_posix())
    for group in range(table.num_row_groups):
        captions = parquet.column(file, group, captioned) if captioned else None
        for row in range(table.metadata.row_group(group).num_rows):
            caption = str(captions[row].as_py() or "").strip() if captions is not None else ""
            yield Photo(f"{stem}-{group}-{row:05}", caption or None, partial(_cell, file, group, row))


def _cell(file: Path, group: int, row: int) -> bytes:
    cell = parquet.column(file, group, "image")[row].as_py()
    return bytes(cell["bytes"] if isinstance(cell, dict) else cell or b"")


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ImageError(f"{file}: cannot be read ({error.strerror})") from error


def safe(name: str) -> str:
    """`name` as a part of a file's name: no dot either, which would begin an ending."""
    return re.sub(r"[^\w-]+", "-", name)


def _download(name: str) -> Path:
    """A data set of the hub, as far as it is pictures, captions or tables; how large it is is said first."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    patterns = ["*.parquet", *(f"*{file}" for file in METADATA), *(f"*{kind}" for kind in KINDS)]
    try:
        files = HfApi().dataset_info(name, files_metadata=True).siblings or []
        wanted = [file for file in files if any(fnmatch(file.rfilename, pattern) for pattern in patterns)]
        size = sum(file.size or 0 for file in wanted)
        free = shutil.disk_usage(
            next(p for p in (Path(HF_HUB_CACHE), *Path(HF_HUB_CACHE).parents) if p.exists())
        ).free
        print(f"{name}: {len(wanted)} files, {size / 1e9:.2g} GB, unless they are here already")
        if size > free:
            raise OutputError(
                f"{name}: {size / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB free where Hugging Face keeps its files "
                f"({HF_HUB_CACHE}); make room, or set HF_HOME to a larger disk"
            )
        return Path(snapshot_download(name, repo_type="dataset", allow_patterns=patterns))
    except GatedRepoError as error:
        raise ConfigError(
            f"{name}: accept its terms on Hugging Face, then `huggingface-cli login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise ConfigError(
            f"{name}: there is no such folder here, and no such data set on Hugging Face"
        ) from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        why = str(error).splitlines()[0][:200]
        raise ConfigError(
            f"{name}: no folder here, and it cannot be downloaded from Hugging Face ({why})"
        ) from error
