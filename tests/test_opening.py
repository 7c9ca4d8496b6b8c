"""The finding in sentences and tables, of hand-made estimates."""

import math
import re
from typing import Any

import pandas
import pytest

from mnist_imbalance.report.gather import EPOCHS, STEPS
from mnist_imbalance.report.opening import (
    AUGMENTED,
    BEYOND,
    COPIES,
    WEIGHTED,
    compared_tables,
    finding,
    fraction,
    restored_tables,
)
from mnist_imbalance.report.remedies import REMEDIES

NAN = math.nan
MISSING = (
    "Runs of the original, the imbalanced and a remedied set with as many optimizer steps are "
    "missing, so there is no finding yet."
)


def condition(model: str, name: str, mean: float, **others: Any) -> dict[str, Any]:
    row = {"model": model, "optimizer": "sgd", "condition": name, "label": "0-4", "n": 5}
    return row | {"mean": mean, "low": mean - 0.01, "high": mean + 0.01} | others


def remedy(model: str, name: str, restored: float, **others: Any) -> dict[str, Any]:
    return {
        **{"ground": STEPS, "optimizer": "sgd", "model": model, "condition": name},
        **{"remedy": REMEDIES[name], "n": 5, "lost": 0.3, "fraction": restored},
        **{"low": restored - 0.1, "high": restored + 0.1, "above_0.5": "holds"},
        **{"above_0.8": "undecided", "above_0.95": "contradicted"},
        **{"not_below_original": "contradicted", "minority": 0.84, "majority": 0.9567},
        **others,
    }


def comparison(model: str, effect: float, verdict: str, **others: Any) -> dict[str, Any]:
    return {
        **{"ground": STEPS, "optimizer": "sgd", "model": model, "added": BEYOND},
        **{"first": AUGMENTED, "second": COPIES, "n": 5, "effect": effect},
        **{"low": effect - 0.01, "high": effect + 0.01, "verdict": verdict},
        **{"corrected": "undecided", "p": 0.01, "p_corrected": 0.06, "margin": 0.01},
        **{"seeds_to_decide": NAN, "n_images": 4, "low_images": effect - 0.02},
        **{"high_images": effect + 0.02, "gained": 120.0, "lost": 80.0, "p_images": 0.004},
        **others,
    }


CONDITIONS = pandas.DataFrame(
    [
        condition("lstm", "original", 0.9512),
        condition("lstm", "imbalanced", 0.6049),
        condition("cnn", "original", 0.991),
        condition("cnn", "imbalanced", 0.93),
        condition("lstm", "original", 0.99, optimizer="adam", n=3),
        condition("lstm", "imbalanced", 0.94, optimizer="adam", n=3),
        condition("lstm", "original", 0.22, label="5-9"),
    ]
)
RESTORED = pandas.DataFrame(
    [
        remedy("lstm", COPIES, 0.724),
        remedy("lstm", AUGMENTED, 0.81),
        remedy("lstm", WEIGHTED, 0.5),
        remedy("cnn", COPIES, 0.91),
        remedy("cnn", WEIGHTED, NAN, n=0, low=NAN, high=NAN),
        remedy("lstm", COPIES, 0.33, ground=EPOCHS),
        remedy("lstm", COPIES, 0.22, optimizer="adam"),
    ]
)
COMPARED = pandas.DataFrame(
    [
        comparison("lstm", 0.0234, "holds"),
        comparison("cnn", -0.0011, "no difference"),
        comparison("lstm", 0.5, "holds", added="noise, 10 copies"),
        comparison("lstm", 0.5, "holds", ground=EPOCHS),
        comparison("lstm", 0.5, "holds", optimizer="adam"),
    ]
)
WITHOUT_ADAM = [frame[frame.optimizer == "sgd"] for frame in (CONDITIONS, RESTORED, COMPARED)]


def test_the_finding_is_in_numbers() -> None:
    assert finding(*WITHOUT_ADAM) == (
        "With SGD and as many optimizer steps for every set, test accuracy on labels 0–4 goes from "
        "95.1 to 60.5 % with the LSTM and from 99.1 to 93.0 % with the CNN without 90 % of their "
        "training images (n = 5). Ten unchanged copies of the images that are left bring back 72 % "
        "[62, 82] with the LSTM and 91 % [81, 101] with the CNN. Weight 7, the loss divided by its "
        "images, brings back 50 % [40, 60] with the LSTM. Noise and rotation add to the copies "
        "+2.34 points [+1.34, +3.34] with the LSTM (better) and −0.11 points [−1.11, +0.89] with "
        "the CNN (no difference)."
    )


def test_adam_has_sentences_of_its_own_behind_those_of_sgd() -> None:
    of_sgd, of_all = finding(*WITHOUT_ADAM), finding(CONDITIONS, RESTORED, COMPARED)
    of_adam = (
        "With Adam and as many optimizer steps for every set, test accuracy on labels 0–4 goes "
        "from 99.0 to 94.0 % with the LSTM without 90 % of their training images (n = 3). Ten "
        "unchanged copies of the images that are left bring back 22 % [12, 32] with the LSTM. "
        "Noise and rotation add to the copies +50.00 points [+49.00, +51.00] with the LSTM "
        "(better)."
    )
    assert of_all == f"{of_sgd} {of_adam}"
    only = [frame[frame.optimizer == "adam"] for frame in (CONDITIONS, RESTORED, COMPARED)]
    assert finding(*only) == of_adam


def test_the_finding_of_one_model_only() -> None:
    said = finding(*(frame[frame.model == "cnn"] for frame in (CONDITIONS, RESTORED, COMPARED)))
    assert "goes from 99.1 to 93.0 % with the CNN without" in said
    assert "bring back 91 % [81, 101] with the CNN. Noise" in said
    assert "LSTM" not in said
    assert "Weight 7" not in said  # planned, but no run of it is finished


@pytest.mark.parametrize(
    "restored",
    [RESTORED.assign(n=0), RESTORED[RESTORED.ground == EPOCHS], RESTORED.iloc[:0]],
)
def test_without_runs_there_is_no_finding(restored: pandas.DataFrame) -> None:
    assert finding(CONDITIONS, restored, COMPARED) == MISSING
    assert finding(CONDITIONS.iloc[:0], restored, COMPARED.iloc[:0]) == MISSING


def test_without_comparisons_the_finding_ends_before_them() -> None:
    conditions, restored, compared = WITHOUT_ADAM
    for few in (compared.iloc[:0], compared.assign(n=1)):
        assert finding(conditions, restored, few).endswith("50 % [40, 60] with the LSTM.")


def test_the_findings_n_is_that_of_its_means() -> None:
    def said(*seeds: int) -> str:
        sizes = dict(enumerate(seeds))
        counted = CONDITIONS.assign(n=[sizes.get(place, 5) for place in range(len(CONDITIONS))])
        remedied = RESTORED.assign(n=[3, 4, 5, 6, 7, 8, 9])
        found, _ = re.findall(r"n = ([^)]*)\)", finding(counted, remedied, COMPARED))
        return found

    assert said(5, 5, 5, 5) == "5"
    assert said(10, 10, 5, 5) == "5 to 10"
    assert said(10, 9, 5, 8) == "5 to 10"


def test_undecided_and_worse_are_said() -> None:
    for verdict, word in (("undecided", "undecided"), ("contradicted", "worse")):
        compared = pandas.DataFrame([comparison("lstm", -0.02, verdict)])
        said = finding(*WITHOUT_ADAM[:2], compared)
        assert said.endswith(f"−2.00 points [−3.00, −1.00] with the LSTM ({word}).")


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.625, 0.849, "72 % [62, 85]"),
        (-0.1, 1.2, "72 % [−10, 120]"),
        (-math.inf, math.inf, "72 % [any]"),
        (NAN, NAN, "72 %"),
    ],
)
def test_a_fraction_with_its_interval(low: float, high: float, said: str) -> None:
    rows = pandas.DataFrame([remedy("lstm", COPIES, 0.724, low=low, high=high)])
    assert fraction(rows.iloc[0]) == said


def test_what_is_restored_as_tables() -> None:
    tables = restored_tables(RESTORED)
    named = [table.caption.partition(":")[0] for table in tables]
    assert named == ["SGD, equal steps", "SGD, equal epochs", "Adam, equal steps"]
    columns = ["model", "remedy", "restored", "above ½", "above 0.8", "above 0.95"]
    columns += ["not below original", "labels 0–4", "labels 5–9", "n"]
    assert all(table.columns == columns for table in tables)
    rest = ["yes", "?", "no", "no", "84.0", "95.7", "5"]
    assert tables[0].rows == [
        ["LSTM", "10 unchanged copies", "72 % [62, 82]", *rest],
        ["LSTM", "10 copies, rotated and noise", "81 % [71, 91]", *rest],
        ["LSTM", "weight 7, by images", "50 % [40, 60]", *rest],
        ["CNN", "10 unchanged copies", "91 % [81, 101]", *rest],
    ]
    assert tables[2].rows == [["LSTM", "10 unchanged copies", "22 % [12, 32]", *rest]]


def test_each_verdict_at_each_mark_is_said_in_its_column() -> None:
    marks = ["above_0.5", "above_0.8", "above_0.95", "not_below_original"]
    for place, mark in enumerate(marks):
        for verdict, word in (("holds", "yes"), ("contradicted", "no"), ("undecided", "?")):
            others = dict.fromkeys(marks, "undecided" if word != "?" else "holds")
            row = remedy("lstm", COPIES, 0.7, **(others | {mark: verdict}))
            [table] = restored_tables(pandas.DataFrame([row]))
            other = "?" if word != "?" else "yes"
            expected = [word if place == at else other for at in range(4)]
            assert table.rows[0][3:7] == expected


def test_comparisons_as_tables() -> None:
    tables = compared_tables(COMPARED)
    named = [table.caption.partition(":")[0] for table in tables]
    assert named == ["SGD, equal steps", "SGD, equal epochs", "Adam, equal steps"]
    columns = ["model", "what is added", "verdict", "corrected", "points", "seeds × images"]
    assert tables[0].columns == [*columns, "images won : lost", "n", "seeds needed"]
    first = ["LSTM", BEYOND, "better", "undecided", "+2.34 [+1.34, +3.34]"]
    images = ["[+0.34, +4.34], n = 4", "120 : 80 (p 0.004)", "5", ""]
    assert tables[0].rows[0] == [*first, *images]
    assert tables[0].rows[1][:4] == ["CNN", BEYOND, "no difference", "undecided"]


def test_comparisons_without_predictions_and_without_a_verdict() -> None:
    gone = dict.fromkeys(("low_images", "high_images", "gained", "lost", "p_images"), NAN)
    row = comparison("lstm", 0.01, "undecided", n_images=0, seeds_to_decide=12.0, **gone)
    [table] = compared_tables(pandas.DataFrame([row | {"corrected": "contradicted"}]))
    assert table.rows[0][2:4] == ["undecided", "worse"]
    assert table.rows[0][5:] == ["no predictions", "", "5", "12"]


def test_one_seed_gives_no_interval() -> None:
    ends = {"low": NAN, "high": NAN}
    marks = ["above_0.5", "above_0.8", "above_0.95", "not_below_original"]
    one = remedy("lstm", COPIES, 0.724, n=1, **ends, **dict.fromkeys(marks, "undecided"))
    [table] = restored_tables(pandas.DataFrame([one]))
    assert table.rows[0][2:7] == ["72 %", *"????"]
    said = finding(CONDITIONS, pandas.DataFrame([one]), COMPARED.assign(n=1))
    assert said.endswith("bring back 72 % with the LSTM.")
    images = {"n_images": 1, "low_images": NAN, "high_images": NAN}
    pair = comparison("lstm", 0.0234, "undecided", n=1, **ends, **images)
    [table] = compared_tables(pandas.DataFrame([pair]))
    assert table.rows[0][4:7] == ["+2.34", "one seed", "120 : 80 (p 0.004)"]


def test_what_has_no_run_is_in_no_table() -> None:
    assert restored_tables(RESTORED.assign(n=0)) == []
    assert compared_tables(COMPARED.assign(n=0)) == []
