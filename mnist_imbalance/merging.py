"""Packing, merging and checking the records of many runs."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import numpy
import pyarrow

from mnist_imbalance.errors import ConfigError
from mnist_imbalance.files import new_folder
from mnist_imbalance.packed import Packed, row_of, tabulate, write
from mnist_imbalance.runs import (
    PACKED,
    Result,
    RunFolder,
    files_of_records,
    hash_config,
)
from mnist_imbalance.scores import Epochs, Predictions


def check_roots(roots: Iterable[Path]) -> None:
    """Refuse what holds no records.

    Raises:
        ConfigError: A folder is not there.
    """
    for root in roots:
        if not root.is_dir():
            raise ConfigError(f"records: there is no folder {root}")


def check_whole(result: Result, epochs: Epochs | None, predictions: Predictions | None) -> None:
    """Refuse what cannot be of one run.

    Raises:
        ValueError: The predicted labels are not those that its confusion matrices count.
    """
    for split, predicted in (predictions or {}).items():
        counted = numpy.array(getattr(result, split).confusion).sum(axis=0)
        if not numpy.array_equal(numpy.bincount(predicted, minlength=len(counted)), counted):
            raise ValueError(
                f"the predicted labels of {split} are not those of its confusion matrix"
            )


def read_folder(file: Path, root: Path) -> dict[str, Any] | None:
    """Return the row of the run beside a ``result.json``.

    Raises:
        ConfigError: One of its files is damaged.
    """
    folder = RunFolder(file.parent)
    result = folder.result()
    if result is None:
        return None
    epochs, predictions = folder.epochs(result), folder.predictions()
    try:
        check_whole(result, epochs, predictions)
    except ValueError as error:
        raise ConfigError(f"{folder.predictions_file} is damaged ({error})") from error
    place = str(file.parent.relative_to(root))
    return row_of(result.model_dump(by_alias=True), epochs, predictions, place)


class Merged:
    """The runs below some folders, each once, and what is wrong with their records.

    Args:
        roots: Below which there are folders of runs, files of packed records, or both; of equal
            runs the first is taken.

    Attributes:
        again: How many records were left out, as equal ones came before.
        disagreeing: A line for each run that comes again with other numbers.
        damaged: Each file, of a run or of many, that cannot be read, and a line about it.
        known: Checksums and place of each run, by config hash.
    """

    def __init__(self, roots: Sequence[Path]) -> None:
        check_roots(roots)
        self.roots = roots
        self.again = 0
        self.disagreeing: list[str] = []
        self.damaged: list[tuple[Path, str]] = []
        self.known: dict[str, tuple[str, str | None, str]] = {}

    def wrong(self) -> list[str]:
        """Return a line for each record so far that is damaged or disagrees with another."""
        return [*(line for _, line in self.damaged), *self.disagreeing]

    def _is_new(self, key: str, reached: str, images: str | None, place: str) -> bool:
        """Tell whether a run has not come before.

        Args:
            key: Its config hash.
            reached: Checksum, see `row_of`.
            images: Checksum, see `row_of`; runs agree where one has none.
            place: Where its record is, for a reader.
        """
        if key not in self.known:
            self.known[key] = (reached, images, place)
            return True
        its_reached, its_images, before = self.known[key]
        if reached == its_reached and (images == its_images or None in (images, its_images)):
            self.again += 1
        else:
            self.disagreeing.append(f"{before} and {place} are of one run and differ")
        return False

    def tables(self) -> Iterator[pyarrow.Table]:
        """Go through the runs in the order of their files, some at a time."""
        for root in self.roots:
            for packed, files in groupby(files_of_records(root), lambda file: file.name == PACKED):
                if packed:
                    for file in files:
                        yield from self._of_packed(file)
                else:
                    yield from tabulate(self._of_folders(files, root))

    def _of_folders(self, files: Iterable[Path], root: Path) -> Iterator[dict[str, Any]]:
        for file in files:
            try:
                row = read_folder(file, root)
            except ConfigError as error:
                self.damaged.append((file, str(error)))
                continue
            if row and self._is_new(
                row["config_hash"], row["reached"], row["images"], str(file.parent)
            ):
                yield row

    def _of_packed(self, file: Path) -> Iterator[pyarrow.Table]:
        try:
            packed, begin = Packed(file), 0
            for table in packed.tables():
                rows = range(begin, begin + len(table))
                begin = rows.stop
                new = [
                    self._is_new(packed.hashes[row], *packed.checksums(row), packed.place(row))
                    for row in rows
                ]
                yield table.filter(pyarrow.array(new, pyarrow.bool_()))
        except ConfigError as error:
            self.damaged.append((file, str(error)))


def merge(roots: Sequence[Path], into: Path) -> tuple[int, int]:
    """Write all runs below some folders to one file, and return how many, and how many came again.

    Args:
        roots: See `Merged`.
        into: The folder that gets the file.

    Raises:
        ConfigError: A record is damaged, two of one run differ, there are none, or the file is
            there already. Nothing is written then.
    """
    file = into / PACKED
    if into.exists() and not into.is_dir():
        raise ConfigError(f"--into: {into} is no folder")
    if file.exists():
        raise ConfigError(f"--into: {file} is there already; choose another folder")
    merged = Merged(roots)

    def tables() -> Iterator[pyarrow.Table]:
        yield from merged.tables()
        if wrong := merged.wrong():
            raise ConfigError(f"nothing is written: {summarize(wrong)}")
        if not merged.known:
            raise ConfigError(f"records: no result of a run below {', '.join(map(str, roots))}")

    with new_folder(into):
        count = write(file, tables())
    return count, merged.again


def summarize(lines: Sequence[str]) -> str:
    """Return the first line and how many more there are."""
    return lines[0] + (f"; and {len(lines) - 1} more" if len(lines) > 1 else "")


def check_row(packed: Packed, row: int) -> None:
    """Refuse a row that is not what `row_of` makes of the run that it tells.

    Raises:
        ValueError: It tells what cannot be true of one run, or was changed.
    """
    result = Result.model_validate(packed.record(row))
    if hash_config(result.config) != result.config_hash:
        raise ValueError("config_hash is not that of config")
    epochs, predictions = packed.epochs(row), packed.predictions(row)
    check_whole(result, epochs, predictions)
    made = row_of(result.model_dump(by_alias=True), epochs, predictions, "")
    if (made["reached"], made["images"]) != packed.checksums(row):
        raise ValueError("its checksums are not those of its scores, epochs and predicted labels")


def check(roots: Sequence[Path]) -> tuple[int, list[str]]:
    """Read every record below some folders and all that is kept beside it.

    Returns:
        How many runs there are, and a line for each that is damaged or disagrees with another.

    Raises:
        ConfigError: A folder is not there, or holds no records.
    """
    merged = Merged(roots)
    count = sum(map(len, merged.tables()))
    lines = merged.wrong()
    damaged = {file for file, _ in merged.damaged}
    for file in chain.from_iterable(map(files_of_records, roots)):
        if file.name == PACKED and file not in damaged:
            packed = Packed(file)
            for row in range(len(packed.hashes)):
                try:
                    check_row(packed, row)
                except ValueError as error:  # pydantic's, too
                    lines.append(f"{packed.place(row)} is damaged ({' '.join(str(error).split())})")
    if not count and not lines:
        raise ConfigError(f"records: no result of a run below {', '.join(map(str, roots))}")
    return count, lines
