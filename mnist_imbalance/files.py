"""Files that are whole or absent, and no empty folders left behind."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def writing_whole(path: Path) -> Iterator[Path]:
    """Give the place to write a file to, which is at ``path``, whole, when the block has ended.

    Where the block fails, or is killed at any moment, there is no file at ``path``, or the old one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    try:
        yield part
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    os.replace(part, path)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that, killed at any moment, it is there whole or not at all."""
    with writing_whole(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def new_folder(path: Path) -> Iterator[None]:
    """Make a folder for a block's use; where the block fails, unmake what was made and is empty."""
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        with suppress(OSError):
            for folder in made:
                folder.rmdir()
        raise


def remove_if_empty(folder: Path, top: Path) -> None:
    """Remove a folder that holds nothing, and its parents below ``top`` that then hold nothing."""
    with suppress(OSError):
        for path in (folder, *folder.parents):
            if top not in path.parents:
                return
            path.rmdir()


def as_seen_from_here(path: Path) -> Path:
    """Return a path for the screen, relative to the working folder if it is below."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
