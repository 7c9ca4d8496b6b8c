"""The benchmarks' own arithmetic; the speed itself is not tested."""

import json
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import growth
from benchmarks.measure import alternate, compare, row


def test_a_ratio_is_taken_measurement_by_measurement() -> None:
    turns = iter([2.0, 3.0, 4.0, 4.0])
    measured = alternate({"base": lambda: [next(turns)], "other": lambda: [next(turns)]}, rounds=2)
    assert measured == {"base": [2.0, 4.0], "other": [3.0, 4.0]}
    *_, ratio = compare("lstm", "an epoch", measured, "base")
    assert (ratio.subject, ratio.unit, ratio.n) == ("lstm, other", "×", 2)
    assert (ratio.value, ratio.low, ratio.high) == (1.25, 1.0, 1.5)


def test_the_page_shows_the_measurements() -> None:
    for file in command.RESULTS.glob("*.json"):
        known = json.loads(file.read_text(encoding="utf-8"))
        assert file.with_suffix(".md").read_text(encoding="utf-8") == command.tabulate(known)


def test_each_part_is_kept_with_its_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(part: str, date: str, *arguments: str) -> str:
        monkeypatch.setattr(command, "describe_machine", lambda: {"date": date})
        command.main([part, "--rounds", "3", *arguments])
        return capsys.readouterr().out

    monkeypatch.setattr(command, "RESULTS", tmp_path)
    for function in ("measure", "many"):
        monkeypatch.setattr(growth, function, lambda n: [row("x", "it", [1.5] * n, "ms")])
    assert "| x | it | 1.50 ms [1.50, 1.50] | 3 |" in measure("growth", "today")
    assert not list(tmp_path.iterdir())
    measure("growth", "yesterday", "--keep", "here")
    measure("many", "today", "--keep", "here")
    page = (tmp_path / "here.md").read_text(encoding="utf-8")
    assert page.index("date yesterday") < page.index("**Growth**") < page.index("date today")
    with pytest.raises(SystemExit):
        command.main(["florr"])
    assert "no part florr; there are epoch, startup" in capsys.readouterr().err
