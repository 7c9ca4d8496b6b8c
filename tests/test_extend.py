"""The examples of docs/extend.md and docs/own_data.md, exactly as they are printed."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
from conftest import REPOSITORY
from PIL import Image

from mnist_imbalance.records.result import read_record
from mnist_imbalance.records.table import read

PAGE = (REPOSITORY / "docs" / "extend.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
FILE = re.compile(r"`((?:conf|mnist_imbalance)/[\w/]+\.\w+)`:\n\n```\w+\n(.*?)```", re.DOTALL)
# one module per command, each in a folder of its own; one process per command would take minutes
ONE_BY_ONE = """
import os, runpy, shlex, sys
for folder, command in zip(sys.argv[1::2], sys.argv[2::2]):
    os.chdir(folder)
    python, option, module, *given = shlex.split(command, comments=True)
    assert (python, option) == ("python", "-m")
    sys.argv[:] = [module, *given]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        assert not ended.code, ended.code
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
        [lines] = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
        commands += [part for line in lines.splitlines() for part in (str(root / section), line)]
    run_all(commands, PYTHONPATH=str(root))
    return root


def run_all(commands: list[str], **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", ONE_BY_ONE, *commands],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


KNOWN_BY: dict[str, dict[str, object]] = {
    "A loss": {"loss": "log_weighted"},
    "A mix": {"condition": "imbalanced, data/source=debug, mix=halves"},
    "A sampler": {"condition": "imbalanced, data/sampler=capped, data/source=debug"},
    "A profile": {"condition": "imbalanced, data/profile=linear, data/source=debug"},
    "A source": {"groups": {"label 1": [1], "label 0": [0], "all": [0, 1]}},
    "A model": {"model": "linear"},
    "A metric": {"condition": "imbalanced, data/source=debug"},
    "Transforms": {"condition": "imbalanced, data/source=debug, data/transforms=rotated"},
}


def test_every_example_trains_and_an_overlay_is_in_the_report(
    root: Path,
) -> None:
    assert list(SECTIONS) == [*KNOWN_BY, "An overlay"]
    results = {}
    for section, known_by in KNOWN_BY.items():
        if section != "Transforms":
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


OWN = (REPOSITORY / "docs" / "own_data.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_every_task_with_ones_own_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = numpy.random.default_rng(0)
    for number, (name, count) in enumerate({"ant": 30, "bee": 20, "cat": 10}.items()):
        (tmp_path / "my_images" / name).mkdir(parents=True)
        for image in range(count):
            pixels = rng.integers(0, 90, (40, 60, 3), numpy.uint8)
            pixels[:, 10 + 15 * number : 20 + 15 * number] += 150
            Image.fromarray(pixels).save(tmp_path / "my_images" / name / f"{image}.png")
    blocks = re.findall(r"`(my_[\w/]+\.\w+)`:\n\n```\w+\n(.*?)```", OWN, re.DOTALL)
    for file, text in [*blocks, *re.findall(r"`(my_[\w/]+\.yaml)`: `(.+?)`", OWN)]:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text, encoding="utf-8")
    lines = "\n".join(re.findall(r"```bash\n(.*?)```", OWN, re.DOTALL)).splitlines()
    trained = [line for line in lines if line.startswith("python -m")]
    run_all([part for line in trained for part in (str(tmp_path), line)])

    runs, damaged = read([tmp_path / "runs", tmp_path / "mine"])
    assert damaged == [] and {*map(tuple, runs.class_names)} == {("ant", "bee", "cat")}
    assert {*runs.model} == {"resnet", "cnn", "lstm", "mine"} and {"root", "vs"} <= {*runs.loss}
    for page in (tmp_path / "mine", tmp_path / "runs"):
        report = (page / "report" / "report.md").read_text()
        assert "bee" in report and "AI3607" not in report and "MNIST" not in report
    [sweep] = (tmp_path / "mine").rglob("sweep.csv")
    assert "− first" in sweep.read_text()
    [best] = (tmp_path / "runs").rglob("best.ckpt")
    run = shlex.quote(str(best.parents[1]))
    left = [
        line.replace("mnist-imbalance", "python -m mnist_imbalance").replace("RUN", run)
        for line in lines
        if re.match("mnist-imbalance (predict|export) RUN ", line)
    ]
    left[0] = left[0].replace("IMAGES...", "my_images/bee --csv")
    printed = run_all([part for line in left for part in (str(tmp_path), line)])
    assert printed.count("my_images/bee/") == 20 and "test images" in printed
    [python] = re.findall(r"(from mnist_imbalance import load_run\n.*?)```", OWN, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(python.replace("runs/…/seed=0", str(best.parents[1])), {})
    assert "['ant', 'bee', 'cat'] [[" in capsys.readouterr().out
