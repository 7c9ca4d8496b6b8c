"""What the README's commands leave in a clone: nothing that git would ask about."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY


def git(place: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=place, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of its own with this one's files, changed ones as they are."""
    place = tmp_path_factory.mktemp("clone")
    listed = ["ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    for name in git(REPOSITORY, *listed).split("\0"):
        if (REPOSITORY / name).is_file() and not name.startswith("results/"):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, place / name)
    git(place, "init", "--quiet")
    git(place, "add", "--all")
    author = ["-c", "user.name=someone", "-c", "user.email=someone@example.org"]
    git(place, *author, "commit", "--quiet", "--message", "all")
    return place


SHORT = ["data/source=debug", "trainer.max_epochs=1"]
TRAIN = ["mnist_imbalance.train"]


@pytest.mark.parametrize(
    "command",
    [
        [*TRAIN, "model=lstm", "data=imbalanced", "loss=weighted", *SHORT],
        [*TRAIN, "-m", "hydra/launcher=joblib", "loss=weighted", "seed=0,1", *SHORT],
        [*TRAIN, "--help"],
        [
            "mnist_imbalance",
            "search",
            "search.space={optimizer.lr: [0.01]}",
            "search.budget=1",
            *SHORT,
        ],
        ["mnist_imbalance", "counts", "data=augmented_40"],
        ["benchmarks", "startup", "--rounds", "1"],
    ],
    ids=lambda command: " ".join(command[:4]),
)
def test_git_has_nothing_to_ask_about(clone: Path, command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=clone,
        env={**os.environ, "PYTHONPATH": str(clone)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert git(clone, "status", "--porcelain") == ""
