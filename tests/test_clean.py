"""What the README's commands leave in a clone: nothing that git would ask about."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from conftest import REPOSITORY


def git(place: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=place, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_git_has_nothing_to_ask_about_after_a_sweep(tmp_path: Path) -> None:
    listed = ["ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    for name in git(REPOSITORY, *listed).split("\0"):
        if (REPOSITORY / name).is_file() and not name.startswith("results/"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, tmp_path / name)
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "--all")
    author = ["-c", "user.name=someone", "-c", "user.email=someone@example.org"]
    git(tmp_path, *author, "commit", "--quiet", "--message", "all")
    sweep = ["-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=1", "seed=0,1"]
    short = ["data/source=debug", "trainer.max_epochs=1"]
    done = subprocess.run(
        [sys.executable, "-m", "mnist_imbalance.train", *sweep, *short],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert len([*tmp_path.rglob("result.json")]) == 2
    assert git(tmp_path, "status", "--porcelain") == ""
