"""The figures of hand-made tables."""

import math
import re
from typing import Any

import pandas as pd
import pytest

from mnist_imbalance.report import figures
from mnist_imbalance.report.figures import svg


def estimates(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"optimizer": "sgd", **columns}).assign(n=3, mean=0.5, low=0.4, high=0.6)


def marks(figure: figures.Figure) -> list[str]:
    """The descriptions of the marks of a figure, facts apart by "; "."""
    return [text.replace("&#xA;", "; ") for text in re.findall('aria-label="(.*?)"', svg(figure))]


def test_models_have_panels_and_colours_alike_in_every_figure() -> None:
    rows = estimates(model=["lstm", "cnn", "linear"], weight=[2.0] * 3, label=["0-4"] * 3)
    shown = svg(figures.draw_over_weight(rows, of_labels=False))
    assert shown == svg(figures.draw_over_weight(rows, of_labels=False))
    assert all(f">{name}<" in shown for name in ("LSTM", "CNN", "linear"))
    assert 'fill="white"' not in shown
    assert {figures.GREY} == {*re.findall(r'<text [^>]*?fill="(.*?)"', shown)}
    first, *_ = marks(figures.draw_over_weight(rows, of_labels=False))
    assert first == (
        "model: LSTM; optimizer: SGD; label: labels 0–4; weight: 2; n: 3; test accuracy: 50.0 %; "
        "95 % interval: 40.0 % to 60.0 %"
    )
    named = figures.described(rows, "accuracy")
    colors: Any = figures.color(named, "model").to_dict()
    assert len({*colors["scale"]["range"]}) == 3
    alone: Any = figures.color(named[named.model == "CNN"], "model").to_dict()
    assert alone["scale"]["range"] == colors["scale"]["range"][1:2]


def test_an_interval_that_does_not_end_is_cut_and_marked() -> None:
    names = ["model", "optimizer", "ground", "condition", "remedy", "n", "fraction", "low", "high"]
    rows = [
        ("lstm", "sgd", "equal steps", "noise_100", "noise", 3, 0.4, -math.inf, math.inf),
        ("cnn", "adam", "equal steps", "noise_100", "noise", 1, 0.5, math.nan, math.nan),
        ("cnn", "sgd", "equal steps", "weighted", "weight", 0, math.nan, math.nan, math.nan),
    ]
    figure = figures.draw_restored(pd.DataFrame(rows, columns=names))
    first, second = marks(figure)
    assert "restored: 0.40; 95 % interval: −∞ to ∞" in first
    assert "restored: 0.50; 95 % interval: none" in second
    shown = svg(figure)
    arrows = re.findall(r'transform="translate\((\d+)[^"]*"[^>]*?d="M-?\d[^"]*L[^"]*Z"', shown)
    assert len(arrows) == 2
    assert all(f">{text}<" in shown for text in ("SGD, equal steps", "noise", "½", "original"))
    assert ">weight<" not in shown


@pytest.mark.parametrize("apart", [True, False])
def test_methods_that_are_not_told_apart_are_joined(apart: bool) -> None:
    ranked = pd.DataFrame(
        {"method": ["vs", "plain"], "setting": "", "seeds": 5, "mean": [0.9, 0.8]}
    )
    ranked = ranked.assign(model="cnn", keep=0.1, n=0, low=0, high=0, mean_low=0.7, mean_high=0.95)
    pairs = pd.DataFrame({"model": ["cnn"], "keep": 0.1, "first": "vs", "second": "plain"})
    figure = figures.draw_ranked(ranked, pairs.assign(p_corrected=0.01 if apart else 0.2))
    assert ">CNN, 10 % kept<" in svg(figure)
    [data] = figure.to_dict()["datasets"].values()
    assert [row["last"] for row in data if pd.notna(row["last"])] == ([] if apart else ["plain"])


def test_confusion_is_shown_in_percent_of_the_true_label() -> None:
    cells = [("cnn", "0-4", 0, 0, 90), ("cnn", "0-4", 0, 1, 10), ("cnn", "5-9", 1, 1, 100)]
    names = ["model", "group", "true label", "predicted label", "count"]
    figure = figures.draw_confusion(pd.DataFrame(cells, columns=names).assign(total=100))
    assert [text in svg(figure) for text in (">90<", ">10<", ">100<")] == [True] * 3
    described = "model: CNN; true label: 0; predicted label: 1; images: 10 of 100; fraction: 10.0 %"
    assert described in marks(figure)
