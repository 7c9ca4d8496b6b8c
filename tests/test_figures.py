"""The figures of hand-made tables."""

import math
from typing import Any

import numpy
import pandas

from mnist_imbalance.report import figures


def restored(rows: list[tuple[Any, ...]]) -> pandas.DataFrame:
    columns = ["model", "optimizer", "ground", "remedy", "n", "fraction", "low", "high"]
    return pandas.DataFrame(rows, columns=columns)


def drawn(figure: figures.Figure) -> str:
    return figures.svg(figure.to_dict())


def accuracies(**columns: Any) -> pandas.DataFrame:
    return pandas.DataFrame(columns).assign(n=3, mean=0.5, low=0.4, high=0.6)


def test_a_figure_is_the_same_file_at_every_call() -> None:
    sweep = accuracies(model=["lstm"] * 2, weight=[1.0, 2.0], label=["0-4"] * 2)
    first, second = (drawn(figures.draw_groups_over_weight(sweep)) for _ in range(2))
    assert first == second


def test_every_model_has_a_panel_and_a_colour_of_its_own() -> None:
    rows = accuracies(model=["lstm", "cnn", "linear"], weight=[1.0] * 3, label=["0-4"] * 3)
    shown = drawn(figures.draw_groups_over_weight(rows))
    assert all(f">{name}<" in shown for name in ("LSTM", "CNN", "linear"))
    by_name = figures.colors(figures.in_words(rows), "model")
    assert len(set(by_name.values())) == 3
    alone = figures.colors(figures.in_words(rows[rows.model != "lstm"]), "model")
    assert alone == {name: by_name[name] for name in ("CNN", "linear")}


def test_an_interval_that_does_not_end_is_cut_and_marked() -> None:
    rows = restored(
        [
            ("lstm", "sgd", "equal steps", "noise", 3, 0.4, -math.inf, math.inf),
            ("lstm", "sgd", "equal epochs", "noise", 1, 0.5, math.nan, math.nan),
            ("cnn", "sgd", "equal epochs", "noise", 0, math.nan, math.nan, math.nan),
        ]
    )
    described = figures.draw_restored(rows).to_dict()
    [data] = described["datasets"].values()
    assert (data[0]["from"], data[0]["to"]) == (-0.25, 1.25)
    assert data[0]["left"] and data[0]["right"]
    assert data[0]["interval"] == "−∞ to ∞"
    assert data[1]["interval"] == "none"
    assert data[2]["at"] is None
    shown = drawn(figures.draw_restored(rows))
    assert all(f">{text}<" in shown for text in ("SGD, equal steps", "noise", "½", "original"))


def test_curves_have_a_panel_a_model_and_group() -> None:
    many = {"model": ["lstm", "cnn"] * 2, "label": ["0-4", "0-4", "5-9", "5-9"]}
    rows = accuracies(**many, optimizer="sgd", condition="imbalanced", step=10)
    shown = drawn(figures.draw_curves(pandas.concat([rows, rows.assign(step=20)])))
    assert ">CNN, labels 5–9<" in shown
    assert ">SGD" not in shown
    both = pandas.concat([rows, rows.assign(optimizer="adam")])
    assert ">LSTM, Adam, labels 0–4<" in drawn(figures.draw_curves(both))


def test_components_stand_one_after_the_other() -> None:
    rows = pandas.DataFrame(
        {
            "model": "lstm",
            "optimizer": "sgd",
            "condition": "imbalanced",
            "component": ["choice of images", "rest"],
            "share": [0.7, 0.3],
            "sd": [3.04, 2.0],
        }
    )
    described = figures.draw_components(rows).to_dict()
    [data] = described["datasets"].values()
    numpy.testing.assert_allclose([row["from"] for row in data], [0, 0.7])
    assert ">3.0<" in drawn(figures.draw_components(rows))
