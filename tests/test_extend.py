"""The examples of docs/extend.md."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from conftest import REPOSITORY

from mnist_imbalance.runs import find_records

PAGE = (REPOSITORY / "docs" / "extend.md").read_text(encoding="utf-8")
NAMED = r"`((?:conf|mnist_imbalance)/[\w/]+\.\w+)`[^`]*\n\n```\w+\n(.*?)```"
FILES = re.findall(NAMED, PAGE, re.DOTALL)


def test_what_extend_shows_can_be_trained(tmp_path: Path) -> None:
    for folder in ("conf", "mnist_imbalance"):
        shutil.copytree(REPOSITORY / folder, tmp_path / folder)
    (tmp_path / "data").symlink_to(REPOSITORY / "data")
    added = {file for file, _ in FILES}
    assert {path.rpartition("/")[0] for path in added} >= {
        *("conf/loss", "conf/model", "conf/data", "conf/experiment"),
        *("mnist_imbalance", "mnist_imbalance/models"),
    }
    for file, text in FILES:
        assert not (tmp_path / file).exists()
        (tmp_path / file).write_text(text, encoding="utf-8")
    command = [
        *("-m", "mnist_imbalance.train", "model=linear", "loss=smoothed", "data=balanced"),
        *("trainer=cpu", "trainer.max_epochs=1", "+trainer.limit_train_batches=60"),
    ]
    done = subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [result] = find_records([tmp_path / "runs"]).results.values()
    assert (result.model, result.loss, result.data) == ("linear", "smoothed", "balanced")
    assert result.config["loss.label_smoothing"] == 0.1
    seen = [sum(row) for row in result.train.confusion]
    assert min(seen) > 0.8 * sum(seen) / 10  # of each label alike
