"""The benchmarks' own arithmetic; what they measure is not tested."""

import copy
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from benchmarks import __main__ as command
from benchmarks import floor, growth, step
from benchmarks.measure import alternate, compare, row


def test_a_ratio_is_taken_measurement_by_measurement() -> None:
    turns = iter([2.0, 3.0, 4.0, 4.0])
    measured = alternate({"base": lambda: [next(turns)], "other": lambda: [next(turns)]}, rounds=2)
    assert measured == {"base": [2.0, 4.0], "other": [3.0, 4.0]}
    *_, ratio = compare("lstm", "an epoch", measured, "base")
    assert (ratio.subject, ratio.unit, ratio.n) == ("lstm, other", "×", 2)
    assert (ratio.value, ratio.low, ratio.high) == (1.25, 1.0, 1.5)


def test_operations_are_counted() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    assert floor.operations(model) == 2 * 2 * step.BATCH * 784 * 10  # forwards, and the weights'


def test_the_floor_knows_the_lstm() -> None:
    from mnist_imbalance.models.lstm import RowLSTM

    recurrent = 2 * step.BATCH * 28 * (28 + 64) * 4 * 64
    assert floor.operations(RowLSTM(10)) == pytest.approx(3 * recurrent, rel=0.15)


def test_a_timed_step_trains() -> None:
    model, optimizer = step.build("lstm")
    before = copy.deepcopy(model.state_dict())
    assert all(time > 0 for time in step.milliseconds(step.make_step(model, optimizer), 3))
    assert not any(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("runs", [1, 2])
def test_a_point_of_growth(runs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "DEVICE", torch.device("cpu"))
    point = growth.point("lstm", 256, runs, 128)
    assert point["steps"] == 2
    assert point["seconds"] > 0
    assert point["mebibytes"] > 50 or torch.cuda.is_available()


def test_the_pages_show_what_was_measured() -> None:
    kept = sorted(command.RESULTS.glob("*.json"))
    assert kept
    for file in kept:
        known = json.loads(file.read_text(encoding="utf-8"))
        assert file.with_suffix(".md").read_text(encoding="utf-8") == command.tabulate(known)


def test_only_what_is_asked_for_is_kept_and_each_part_with_its_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure_with(part: ModuleType, date: str, *arguments: str) -> str:
        monkeypatch.setattr(part, "measure", lambda rounds: [row("x", "it", [1.5] * rounds, "ms")])
        monkeypatch.setattr(command, "describe_machine", lambda: {"date": date})
        command.main([part.__name__.rpartition(".")[2], "--rounds", "3", *arguments])
        return capsys.readouterr().out

    monkeypatch.setattr(command, "RESULTS", tmp_path)
    assert "| x | it | 1.50 ms [1.50, 1.50] | 3 |" in measure_with(floor, "today")
    assert not list(tmp_path.iterdir())
    measure_with(floor, "yesterday", "--keep", "here")
    measure_with(growth, "today", "--keep", "here")
    page = (tmp_path / "here.md").read_text(encoding="utf-8")
    assert page.index("date yesterday") < page.index("its arithmetic") < page.index("date today")
    assert page.index("date today") < page.index("**Growth**")
    with pytest.raises(SystemExit):
        command.main(["florr"])
    assert "no part florr; there are epoch, floor" in capsys.readouterr().err
