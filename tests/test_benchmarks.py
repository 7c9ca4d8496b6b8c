"""The benchmarks' own arithmetic; the speed itself is not tested."""

import json

from benchmarks import __main__ as command
from benchmarks.measure import alternate, compare


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
