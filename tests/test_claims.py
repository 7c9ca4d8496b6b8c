"""Every claim, on accuracies that it holds for and on ones that contradict it."""

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_runs import groups, run, weighted
from statsmodels.stats.multitest import multipletests

from mnist_imbalance.report import claims, tables
from mnist_imbalance.report.claims import EFFECTS, PUBLISHED, WEIGHTS, Accuracies
from mnist_imbalance.report.stats import Judgement, judge

ByLabel = Sequence[float]
World = Mapping[str | int, ByLabel]  # by condition, or by weight
GOLDEN = (math.sqrt(5) - 1) / 2  # its multiples, less their whole part, are all different
CLAIMS = PUBLISHED["claims"]


def table_1(
    original: ByLabel, imbalanced: ByLabel, augmented: ByLabel, per_label: ByLabel
) -> dict[str | int, ByLabel]:
    return {
        **{"original": original, "imbalanced": imbalanced, "augmented_40": augmented},
        **{"augmented_100": augmented, "per_label": per_label},
        **{"per_label_chosen": [accuracy + 0.01 for accuracy in per_label]},
    }


def sweep(minority: Mapping[int, float], majority_slope: float) -> dict[str | int, ByLabel]:
    return {w: groups(minority[w], 0.6 + majority_slope * w) for w in WEIGHTS}


def peak_at(best: int) -> dict[int, float]:
    return {weight: 0.65 - 0.02 * abs(weight - best) for weight in WEIGHTS}


IMBALANCED = [0.5, 0.6, 0.3, 0.2, 0.4, *[0.7] * 5]
AUGMENTED = [0.505, 0.605, 0.305, 0.205, 0.405, *[0.7] * 5]
AS_REPORTED = {
    **table_1(groups(0.665, 0.6), IMBALANCED, AUGMENTED, groups(0.66, 0.64)),
    **sweep(peak_at(7), -0.004),
}
BETTER = {name: [accuracy + 0.11 for accuracy in own] for name, own in AS_REPORTED.items()}
OTHERWISE = {
    **table_1(groups(0.4, 0.7), groups(0.7, 0.6), groups(0.76, 0.74), groups(0.65, 0.45)),
    **sweep({weight: 0.5 + 0.02 * weight for weight in WEIGHTS}, 0.01),
}
RESTORED = table_1(groups(0.9, 0.9), groups(0.6, 0.9), groups(0.8, 0.9), groups(0.7, 0.85))
CONTRADICTED_BY: dict[str, World] = {  # where the claim compares more than OTHERWISE turns round
    **dict.fromkeys(("augmented_40_does_not_restore", "augmented_100_does_not_restore"), RESTORED),
    **dict.fromkeys(("weighting_restores", "most_labels_keep_up"), RESTORED),
    "majority_falls_slightly": sweep({w: 0.5 + 0.01 * w for w in WEIGHTS}, -0.02),
}


def runs_of(val: World | None = None, **worlds: World) -> pd.DataFrame:
    """Three runs of each model's world; labels are moved by up to 0.003, each differently."""
    rows = []
    for model, world in worlds.items():
        scale = 0.003 if model == "lstm" else 0.002
        for seed, (position, name) in product(range(3), enumerate(world)):
            moved = scale * (seed - 1) * ((10 * position + np.arange(10)) * GOLDEN % 1)
            scored = ((moved + own[name]).tolist() for own in (world, val or world))
            make: Any = weighted if isinstance(name, int) else run
            rows.append(make(name, seed, *scored, model=model, loss=""))
    return tables.assign_budgets(pd.DataFrame(rows))


def lstm_of(runs: pd.DataFrame) -> Accuracies:
    shown = tables.select_budget(runs, tables.EPOCHS)
    return Accuracies(shown.set_index(["model", "condition", "seed"]).sort_index(), "lstm")


def judged(claim: str, own: Accuracies) -> Judgement:
    return judge(EFFECTS[claim](own))


@pytest.fixture(scope="module")
def worlds() -> dict[str, Accuracies]:
    contradicting = {"": OTHERWISE, **CONTRADICTED_BY}
    found = {name: lstm_of(runs_of(lstm=w, cnn=AS_REPORTED)) for name, w in contradicting.items()}
    return found | {"as reported": lstm_of(runs_of(lstm=AS_REPORTED, cnn=BETTER))}


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_claim_can_hold_and_be_contradicted(claim: str, worlds: dict[str, Accuracies]) -> None:
    holding = judged(claim, worlds["as reported"])
    assert (holding.n, holding.verdict) == (3, "holds")
    assert holding.low > 0
    contradicted = judged(claim, worlds[claim if claim in worlds else ""])
    assert (contradicted.n, contradicted.verdict) == (3, "contradicted")
    assert contradicted.high < 0


def test_a_missing_run_leaves_its_seed_out(worlds: dict[str, Accuracies]) -> None:
    assert [*CLAIMS] == [*EFFECTS]
    own = Accuracies(worlds["as reported"].runs.drop(index=("lstm", "original", 2)), "lstm")
    for claim in CLAIMS:
        needs_it = "original" in CLAIMS[claim]["statistic"] or "loss" in CLAIMS[claim]["statistic"]
        assert not needs_it or judged(claim, own).n == 2, claim
    assert judged("the_peak_is_7", own).n == 3


@pytest.mark.parametrize("lost", [-0.1, 0.0])
def test_without_a_certain_loss_nothing_is_judged_restored(lost: float) -> None:
    own = lstm_of(runs_of(lstm=table_1(*[groups(0.5 + up, 0.5) for up in (lost, 0, 0.1, 0.1)])))
    for claim in ("augmented_40_does_not_restore", "weighting_restores"):
        judgement = judged(claim, own)
        assert (judgement.n, judgement.verdict) == (0, "undecided")
    with pytest.raises(KeyError):  # no sweep
        judged("the_peak_is_7", own)


def test_a_weight_is_chosen_on_validation_data(worlds: dict[str, Accuracies]) -> None:
    own = lstm_of(runs_of(lstm=sweep(peak_at(7), 0.0), val=sweep(peak_at(3), 0.0)))
    assert judged("minority_peaks_inside", own).effect == pytest.approx(0.57 - 0.59, abs=0.004)
    largest = judged("minority_peaks_inside", worlds[""])
    assert largest.effect == pytest.approx(0.68 - 0.70, abs=0.004)  # is none of the lower
    others: World = {1: groups(0.99, 0.1), 15: groups(0.99, 0.1), 50: groups(0.99, 0.1)}
    more = lstm_of(runs_of(lstm={**AS_REPORTED, **others}))
    for claim in ("the_peak_is_7", "majority_falls_with_weight", "large_weights_cost"):
        assert judged(claim, more) == judged(claim, worlds["as reported"])


def test_verdicts_are_corrected_within_a_model_and_both_belong_to_the_first() -> None:
    runs = [runs_of(lstm=AS_REPORTED, cnn=BETTER), runs_of(lstm=OTHERWISE).assign(optimizer="adam")]
    found = tables.judged_claims(pd.concat(runs, ignore_index=True))
    sizes = {"both": 3, "lstm": len(CLAIMS) - 3, "cnn": len(CLAIMS) - 3}
    assert found[found.optimizer == "sgd"].model.value_counts().to_dict() == sizes
    assert {*found[found.optimizer == "adam"].model} == {"lstm"}
    first = found[(found.optimizer == "sgd") & found.model.isin(["lstm", "both"])]
    holm = multipletests(first.p, method="holm")[1]
    assert first.p_corrected.to_numpy() == pytest.approx(holm)
    assert found.margin.dropna().unique().tolist() == [0.01, 0.005]


def test_published_numbers() -> None:
    assert claims.published_accuracy("original", "all") == pytest.approx(0.851, abs=0.0005)
    assert claims.published_accuracy("imbalanced", "0-4") == pytest.approx(0.6374)
    for name, label in (("weighted", "0"), ("original", "12"), ("original", "many")):
        assert math.isnan(claims.published_accuracy(name, label))
