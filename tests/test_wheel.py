"""The built wheel, in an environment of its own, from a folder that is not the repository."""

import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from conftest import REPOSITORY

from mnist_imbalance.__main__ import COMMANDS
from mnist_imbalance.records.table import read

pytestmark = pytest.mark.slow
SHORT = ["data/source=debug", f"data.dir={REPOSITORY / 'data'}", "trainer.max_epochs=1"]
LOSS = "_target_: torch.nn.CrossEntropyLoss\nlabel_smoothing: 0.1\n"
OVERLAY = """# @package _global_
defaults: [override /loss: smooth]
hydra: {sweeper: {params: {model: cnn}}}
"""
# what bash does at a Tab behind the line
TAB = """eval "$(mnist-imbalance train -sc install=bash)"
COMP_LINE='{line}' COMP_POINT={at}; words=($COMP_LINE); COMP_CWORD={at_word}
hydra_bash_completion; echo "${{COMPREPLY[@]}}"
"""
Shell = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A command in a folder, of an environment with the wheel beside our own libraries."""
    place = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(place)]
    subprocess.run([*pip, *build, str(REPOSITORY)], check=True)
    venv.create(place / "env")
    [packages] = (place / "env").rglob("site-packages")
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    programs = place / "env" / "bin"
    [wheel] = place.glob("*.whl")
    into = ["--python", str(programs / "python"), "install", "--no-deps", "--no-index"]
    subprocess.run([*pip, *into, str(wheel)], check=True)
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    env["PATH"] = f"{programs}{os.pathsep}{env['PATH']}"
    return partial(subprocess.run, env=env, capture_output=True, text=True)


def test_a_run_lies_below_the_current_folder(shell: Shell, tmp_path: Path) -> None:
    done = shell(["mnist-imbalance", "train", *SHORT], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    [folder] = read([tmp_path])[0]["folder"]
    assert Path(folder).is_relative_to(tmp_path / "runs" / "default")
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}


def test_a_study_of_a_users_own_conf_and_its_report(shell: Shell, tmp_path: Path) -> None:
    for group, name, content in (("loss", "smooth", LOSS), ("experiment", "mine", OVERLAY)):
        (tmp_path / "mine" / group).mkdir(parents=True)
        (tmp_path / "mine" / group / f"{name}.yaml").write_text(content)
    short = ",".join(f'"{override}"' for override in SHORT)
    given = ["--config-dir", "mine", "records_dirs=[]", "study.experiments=[mine]"]
    given += ["study.extensions=[]", "study.seeds=[0,1]", f"study.overrides=[{short}]"]
    done = shell(["mnist-imbalance", "study", *given], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 of 2 runs ended" in done.stdout
    report = tmp_path / "runs" / "report" / "report.md"
    assert "smooth" in report.read_text()
    report.unlink()
    done = shell(["mnist-imbalance", "report", *given], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert report.exists()


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("mnist-imbalance ", [*COMMANDS]),
        ("mnist-imbalance train model=l", ["model=lstm", "model=lstm_no_relu"]),
        ("mnist-imbalance search search.bu", ["search.budget="]),
    ],
)
def test_tab_completes(shell: Shell, tmp_path: Path, line: str, completed: list[str]) -> None:
    command = TAB.format(line=line, at=len(line), at_word=line.count(" "))
    done = shell(["bash", "-c", command], cwd=tmp_path)
    assert done.stderr == ""
    assert [word for word in done.stdout.split() if word] == completed
