"""The examples of docs/extend.md, exactly as they are printed."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY
from PIL import Image

from mnist_imbalance.records.result import read_record

PAGE = (REPOSITORY / "docs" / "extend.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
FILE = re.compile(r"`((?:conf|mnist_imbalance)/[\w/]+\.\w+)`:\n\n```\w+\n(.*?)```", re.DOTALL)
# one module per command, each in a folder of its own; one process per command would take minutes
ONE_BY_ONE = """
import os, runpy, shlex, sys
for folder, command in zip(sys.argv[1::2], sys.argv[2::2]):
    os.chdir(folder)
    python, option, module, *given = shlex.split(command)
    assert (python, option) == ("python", "-m")
    sys.argv[:] = [module, *given]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with the files of all examples, and a folder for each command."""
    root, commands = tmp_path_factory.mktemp("extended"), list[str]()
    for folder in ("conf", "mnist_imbalance", "hydra_plugins"):
        shutil.copytree(REPOSITORY / folder, root / folder)
    for file, text in FILE.findall(PAGE):
        assert not (root / file).exists(), file
        (root / file).write_text(text, encoding="utf-8")
    for section, text in SECTIONS.items():
        (root / section / "results").mkdir(parents=True)
        (root / section / "data").symlink_to(REPOSITORY / "data")
        for part, label, count in (("train", "cat", 20), ("train", "dog", 9), ("test", "dog", 1)):
            own = root / section / "my_images" / part / label
            own.mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (60, 40), (number, 9, 200)).save(own / f"{number}.png")
        [lines] = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
        commands += [part for line in lines.splitlines() for part in (str(root / section), line)]
    done = subprocess.run(
        [sys.executable, "-c", ONE_BY_ONE, *commands],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return root


KNOWN_BY: dict[str, dict[str, object]] = {
    "Your own images": {"model": "resnet", "loss": "balanced_softmax", "train_counts": [18, 8]},
    "A loss": {"loss": "log_weighted"},
    "A mix": {"condition": "imbalanced, data/source=debug, mix=halves"},
    "A sampler": {"condition": "imbalanced, data/sampler=capped, data/source=debug"},
    "A profile": {"condition": "imbalanced, data/profile=linear, data/source=debug"},
    "A source": {"groups": {"1": [1], "0": [0], "all": [0, 1]}},
    "A model": {"model": "linear"},
    "A metric": {"condition": "imbalanced, data/source=debug"},
    "Transforms": {"condition": "imbalanced, data/source=debug, data/transforms=rotated"},
}


def test_every_example_can_be_trained_and_an_overlay_is_a_condition_of_the_report(
    root: Path,
) -> None:
    assert list(SECTIONS) == [*KNOWN_BY, "An overlay"]
    results = {}
    for section, known_by in KNOWN_BY.items():
        if section not in ("Your own images", "Transforms"):
            files = FILE.findall(SECTIONS[section])
            assert [Path(file).suffix for file, _ in files] == [".py", ".yaml"]
        file = max((root / section / "runs").rglob("result.json"))
        result = read_record(file.parent)
        assert result, section
        assert known_by.items() <= result.model_dump().items()
        results[section] = result
    seen = [sum(row) for row in results["A sampler"].train.confusion]
    assert min(seen) > 0.6 * sum(seen) / 10  # of each label alike, though few of 0-4
    counts = results["A profile"].train_counts
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == 10 * counts[-1]
    test = results["A metric"].test
    assert test.accuracy < (test.metrics["top_two"] or 0) < 1
    assert -1 <= (test.metrics["mcc"] or 0) <= 1
    tables = root / "An overlay" / "runs" / "report" / "tables"
    conditions = (tables / "all_conditions.csv").read_text()
    assert "log_weighted" in conditions and "linear" in conditions
