"""Tables as the data sets of Hugging Face are."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from moshivis_ros.errors import ConfigError, MissingDependencyError


@lru_cache(maxsize=16)
def table(file: Path) -> Any:
    """A ParquetFile, open. Raises ConfigError, MissingDependencyError."""
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise MissingDependencyError(f"parquet files need pyarrow ({error}): pip install 'moshivis_ros[data]'") from error
    try:
        return ParquetFile(file)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: not a parquet file, or damaged ({error}); download it again") from error


@lru_cache(maxsize=4)  # rows are read one after the other
def column(file: Path, group: int, name: str) -> Any:
    """Of a group of rows. Raises the same."""
    try:
        return table(file).read_row_group(group, columns=[name]).column(0)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: damaged ({error}); download it again") from error
