"""Files that are whole or absent, and no empty folders left behind."""

import os
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Write a file so that, killed at any moment, it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def remove_if_empty(folder: Path, top: Path) -> None:
    """Remove a folder that holds nothing, and its parents up to ``top`` that then hold nothing."""
    for path in (folder, *folder.parents):
        if not path.is_relative_to(top):
            return
        try:
            path.rmdir()
        except OSError:
            return
