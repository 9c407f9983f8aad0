"""Read the records of a hub data set."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from trainers.data.file_formats import first_line, index_rows
from trainers.data.record_fields import Row
from trainers.data_config import SourceConfig
from trainers.foundation.errors import InputError, Problem

if TYPE_CHECKING:
    import datasets


def read_hub(source: SourceConfig) -> Iterator[Row]:
    """Yield the records of a split of a hub data set.

    Raises:
        InputError: the data set cannot be reached or loaded.
    """
    yield from index_rows(source.path, source.path, _load(source), is_columnar=True)


def hub_files(source: SourceConfig) -> list[Path]:
    """Return the local files of a hub data set, after downloading them; none if it has no files.

    Raises:
        InputError: the data set cannot be reached or loaded.
    """
    return [Path(file["filename"]) for file in _load(source).cache_files]


def _load(source: SourceConfig) -> "datasets.Dataset":
    import datasets

    try:
        return datasets.load_dataset(
            source.path, name=source.name, revision=source.revision, split=source.split
        )
    except OSError as error:
        raise InputError(
            Problem(
                message="neither a file nor a hub data set that can be reached: "
                + first_line(error),
                where=source.path,
                fix="correct data.path, or connect to the hub",
            )
        ) from None
    except (ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise InputError(
            Problem(
                message=f"the hub data set cannot be loaded: {first_line(error)}",
                where=source.path,
                fix="correct data.path, data.name, data.revision or data.split",
            )
        ) from None
