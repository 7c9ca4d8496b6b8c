"""Dead labels and confusion matrices, on hand-made records."""

from collections.abc import Sequence
from pathlib import Path

import pandas
import pytest
from handmade import groups, result_of, scores, study_of, write_record

from mnist_imbalance.report.gather import EPOCHS, Gathered, gather
from mnist_imbalance.report.tables import confusion, dead_labels, is_dead, optimum
from mnist_imbalance.runs import OnDemand, Result

OWN = 1000  # training images of each label
FEW, ENOUGH = OWN // 100 - 1, OWN // 100
ALIVE = [0.5] * 10
ALL = [OWN] * 10


def trained(
    positive: Sequence[int], of_own: Sequence[int] | None, test: Sequence[float] = ALIVE
) -> Result:
    """A run whose labels' outputs are positive for so many training images."""
    _, runs = study_of("study.experiments=[per_label]", "study.extensions=[]", "study.seeds=[0]")
    train = scores(ALIVE, positive)
    if of_own:
        train = train.model_copy(update={"positive_of_own": list(of_own)})
    return result_of(runs[0].choices, runs[0].config, scores(test), train=train)


def dead(result: Result) -> list[int]:
    return [label for label in range(10) if is_dead(result, label)]


def test_a_label_is_dead_below_one_percent_of_its_own_images() -> None:
    own = [0, FEW, ENOUGH, *[OWN] * 7]
    assert dead(trained(ALL, own)) == [0, 1]


def test_images_of_other_labels_keep_no_label_alive() -> None:
    assert dead(trained(ALL, [0, *[OWN] * 9])) == [0]


def test_a_record_that_does_not_tell_its_own_counts_any() -> None:
    assert dead(trained([0, FEW, ENOUGH, *[OWN] * 7], None)) == [0, 1]


@pytest.mark.parametrize("of_own", [None, ALL])
def test_a_label_that_is_never_recognized_is_dead(of_own: list[int] | None) -> None:
    assert dead(trained(ALL, of_own, test=[*[0.5] * 4, 0.0, 0.001, *[0.5] * 4])) == [4]


def test_dead_labels_are_counted_and_named_by_seed(tmp_path: Path) -> None:
    overlays = ("study.experiments=[output_relu]", "study.extensions=[]", "study.seeds=[0,1,2]")
    keys, runs = study_of(*overlays, f"runs_dir={tmp_path}", "records_dirs=[]")
    for run in runs:
        lost = run.config["model.output_relu"] and run.config["model.output_bias"] is None
        counts = [0, *[OWN] * 8, 0] if lost and run.config["seed"] else ALL
        train = scores(ALIVE).model_copy(update={"positive_of_own": counts})
        write_record(tmp_path, run, scores(ALIVE), train=train)
    found = dead_labels(gather(keys))
    rows = {
        (row.output_relu, str(row.output_bias)): (row.n, row.mean, row.by_seed)
        for row in found.itertuples()
    }
    none = "0: none, 1: none, 2: none"
    assert rows == {
        (True, "nan"): (3, pytest.approx(4 / 3), "0: none, 1: 0 9, 2: 0 9"),
        **{(relu, bias): (3, 0, none) for relu, bias in [(True, "5.0"), (False, "5.0")]},
        (False, "nan"): (3, 0, none),
    }
    assert found.accuracy.tolist() == pytest.approx([0.5] * 4)


def test_confusion_matrices_are_of_equal_epochs_and_each_seeds_own_images() -> None:
    at = {"counted": 0.9, "too": 0.7, "seed": 0.5, "steps": 0.4, "model": 0.3, "adam": 0.2}
    runs = pandas.DataFrame(
        [
            ("counted", "lstm", "sgd", 0, 0, True),
            ("counted", "lstm", "sgd", 0, 0, True),  # of another overlay
            ("too", "lstm", "sgd", 1, 1, True),
            ("seed", "lstm", "sgd", 0, 1, True),
            ("steps", "lstm", "sgd", 0, 0, False),
            ("model", "cnn", "sgd", 0, 0, True),
            ("adam", "lstm", "adam", 0, 0, True),
        ],
        columns=["config_hash", "model", "optimizer", "seed", "data_seed", EPOCHS],
    ).assign(condition="original")
    results = {key: trained(ALL, ALL, test=[accuracy] * 10) for key, accuracy in at.items()}
    gathered = Gathered(runs, pandas.DataFrame(), results, OnDemand({}), OnDemand({}), [])
    assert confusion(gathered, "lstm", "sgd", "original").diagonal().tolist() == [900 + 700] * 10
    assert confusion(gathered, "lstm", "sgd", "original").sum() == 2 * 10 * 1000
    assert confusion(gathered, "cnn", "sgd", "original").diagonal().tolist() == [300] * 10
    assert confusion(gathered, "cnn", "sgd", "imbalanced").sum() == 0


def test_the_best_weight_is_that_of_the_groups_balance_on_validation_data(tmp_path: Path) -> None:
    overlays = ("study.experiments=[weight_sweep]", "study.extensions=[]", "study.seeds=[0,1]")
    keys, runs = study_of(*overlays, f"runs_dir={tmp_path}", "records_dirs=[]")
    for run in runs:
        weight, seed = run.config["loss.minority_weight"], run.config["seed"]
        best = 10 if seed else 4
        minority = 0.5 + weight / 100  # by these labels alone, the largest weight is always best
        majority = 0.9 - abs(weight - best) / 10
        val = scores(groups(minority, majority))
        if run.choices["model"] == "lstm" or weight != 5:
            write_record(tmp_path, run, scores(ALIVE), val=val)
    table = optimum(gather(keys)).set_index("model")
    assert table.loc["lstm", "by_seed"] == "4 10"
    assert table.loc["lstm", ["n", "largest", "at_largest"]].tolist() == [2, 10, 1]
    assert table.loc["cnn", "by_seed"] == "4 10"  # of the weights that were tried
