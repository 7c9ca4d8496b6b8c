"""The report of hand-made records."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas
import pytest
from conftest import REPOSITORY
from handmade import groups, planned, scores, study_of, write_record, write_study

from mnist_imbalance.plan import PlannedRun, StudyKeys, plan, read_study
from mnist_imbalance.report import tables
from mnist_imbalance.report.claims import judge_claims
from mnist_imbalance.report.gather import EPOCHS, STEPS, Gathered, find_missing, gather
from mnist_imbalance.report.render import render
from mnist_imbalance.report.sections import claims_section, sections
from mnist_imbalance.report.wording import summary
from mnist_imbalance.report.write import place_of_report, tabulate, write_report
from mnist_imbalance.runs import hash_config
from mnist_imbalance.scores import Scores

SEEDS = (
    "study.experiments=[data_sweep,weight_sweep,per_label,per_label_chosen,equal_steps]",
    "study.extensions=[adam,output_relu,normalize]",
    "study.seeds=[0,1,2]",
    "study.extension_seeds=[0,1]",
)
BY_CONDITION = {
    "original": (0.9, 0.8),
    "imbalanced": (0.6, 0.9),
    "augmented_40": (0.65, 0.9),
    "per_label": (0.85, 0.85),
}
COPIED = (0.7, 0.9)
MISSING_WEIGHT = 5


def reached(run: PlannedRun) -> Scores | None:
    """CNN ten points above the LSTM, a seed a point above the one before."""
    weight = run.config.get("loss.minority_weight")
    if weight == MISSING_WEIGHT and run.choices["model"] == "cnn" and run.config["seed"] == 2:
        return None
    name = "per_label" if run.choices["loss"] == "per_label" else run.choices["data"]
    minority, majority = BY_CONDITION.get(name, COPIED)
    if weight:
        minority, majority = 0.8 - abs(weight - 7) / 100, 0.9 - weight / 100
    if run.config.get("loss.normalize") == "count" and run.experiment == "normalize":
        minority -= 0.02 * run.config["seed"]
    more = run.config["seed"] / 100 + (0.08 if run.choices["model"] == "cnn" else 0)
    dead = [0, 9] if run.config.get("model.output_bias", 0) is None else [10, 1000]
    dead = [*dead, *[1000] * 8]  # images with a positive output, of 1000
    per_label = groups(minority + more, majority + more)
    return scores(per_label, dead)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Records in ``records``, one of them damaged, and the report in ``report``."""
    place = tmp_path_factory.mktemp("report")
    _, runs = study_of(*SEEDS)
    for run in runs:
        test = None if run.waits else reached(run)
        if test:
            write_record(place / "records", run, test)
    damaged = write_record(place / "damaged", runs[0], scores([0.5] * 10)) / "result.json"
    damaged.write_text("{}")
    command = """
import sys
from mnist_imbalance.report.__main__ import main
main()
assert not {"torch", "lightning"} & set(sys.modules)
for room in ("training", "classifier", "losses", "models", "train"):
    assert f"mnist_imbalance.{room}" not in sys.modules, room
"""
    report = subprocess.run(
        [
            *[sys.executable, "-c", command, *SEEDS, f"runs_dir={place / 'records'}"],
            *[f"records_dirs=[{place / 'damaged'}]", f"study.report_dir={place / 'report'}"],
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert report.returncode == 0, report.stderr
    (place / "printed").write_text(report.stdout)
    yield place
    shutil.rmtree(place)


def table(folder: Path, name: str) -> pandas.DataFrame:
    return pandas.read_csv(folder / "report" / "tables" / f"{name}.csv")


def test_table_1_holds_means_intervals_and_the_published_numbers(folder: Path) -> None:
    table_1 = table(folder, "table_1")
    columns = ["model", "condition", "label", "n", "mean", "low", "high", "published"]
    assert list(table_1.columns[:8]) == columns
    rows = table_1.set_index(["model", "condition", "label"])
    row = rows.loc["lstm", "imbalanced", "3"]
    half = 4.302653 * 0.01 / 3**0.5
    assert row.n == 3
    assert row["mean"] == pytest.approx(0.61)
    assert (row.low, row.high) == pytest.approx((0.61 - half, 0.61 + half), rel=1e-4)
    assert row.published == 0.209
    assert row.difference == pytest.approx(0.61 - 0.209)
    group = rows.loc["lstm", "imbalanced", "0-4"]
    assert group.published == pytest.approx((0.858 + 0.909 + 0.514 + 0.209 + 0.697) / 5)
    assert group.published_in_text == 0.665
    assert pandas.isna(rows.loc["cnn", "imbalanced", "3"].published)
    assert len(table_1) == 2 * 5 * 13  # no validated weights: nothing was trained with them


def test_claims_come_with_their_statistics(folder: Path) -> None:
    claims = table(folder, "claims")
    columns = ["claim", "section", "model", "optimizer", "n", "effect", "low", "high", "verdict"]
    assert list(claims.columns[:9]) == columns
    rows = claims.set_index(["claim", "model", "optimizer"])
    lowers = rows.loc["imbalance_lowers_0_4", "lstm", "sgd"]
    assert (lowers.n, lowers.verdict) == (3, "holds")
    assert (lowers.effect, lowers.low, lowers.high) == pytest.approx((0.3, 0.3, 0.3))
    assert rows.loc["augmented_40_does_not_restore", "lstm", "sgd"].verdict == "holds"
    assert rows.loc["cnn_beats_lstm", "both", "sgd"].verdict == "holds"
    assert rows.loc["best_lstm_is_below_the_cnn", "both", "sgd"].verdict == "contradicted"
    assert rows.loc["the_peak_is_7", "lstm", "sgd"].verdict == "holds"
    assert rows.loc["the_peak_is_7", "cnn", "sgd"].n == 2
    assert rows.loc["imbalance_lowers_0_4", "cnn", "adam"].n == 2
    assert ("the_peak_is_7", "lstm", "adam") not in rows.index
    report = (folder / "report" / "report.md").read_text()
    assert "| The CNN beats the LSTM in every condition. | both | holds | holds |" in report
    assert "What AI3607 says and no run here can judge." in report


def test_missing_runs_are_named(folder: Path) -> None:
    report = (folder / "report" / "report.md").read_text()
    assert "| CNN | SGD | weight_sweep | weight 5 | 2 |" in report
    assert "| CNN | SGD | per_label_chosen | validated weights | 0, 1, 2 |" in report
    assert len(table(folder, "missing")) == 1 + 6
    runs = table(folder, "runs")
    on_both = runs[runs["equal steps"] & runs["equal epochs"]]
    assert {"imbalanced", "weighted", "per_label"} <= set(on_both.condition)
    assert "original" not in set(on_both.condition)
    original = runs[runs.condition == "original"]
    assert set(zip(original["equal steps"], original["equal epochs"], strict=True)) == {
        (True, False),
        (False, True),
    }
    assert runs.left_out.isna().all()


def test_a_damaged_record_is_named(folder: Path) -> None:
    printed = (folder / "printed").read_text()
    assert "1 records are damaged" in printed
    for text in (printed, (folder / "report" / "report.md").read_text()):
        assert "damaged" in text
        assert str(next((folder / "damaged").rglob("result.json"))) in text


def test_dead_labels_are_counted(folder: Path) -> None:
    dead = table(folder, "dead_labels").set_index(["output_relu", "output_bias"])
    assert list(dead["mean"]) == [2, 0, 2, 0]
    assert list(dead.n) == [2] * 4
    assert dead.by_seed.iloc[0] == "0: 0 1, 1: 0 1"
    assert dead.by_seed.iloc[1] == "0: none, 1: none"


def test_the_divisors_are_paired(folder: Path) -> None:
    rows = table(folder, "normalization").set_index(["weight", "label", "normalize"])
    difference = rows.loc[7, "0-4", "count - weight_sum"]
    assert difference["mean"] == pytest.approx(-0.01)
    assert difference.n == 2
    assert rows.loc[7, "5-9", "count - weight_sum"]["mean"] == pytest.approx(0)


def test_differences_to_imbalanced_are_paired(folder: Path) -> None:
    rows = table(folder, "differences").set_index(["model", "optimizer", "condition", "label"])
    row = rows.loc["lstm", "sgd", "original", "0-4"]
    assert (row["mean"], row.low, row.high) == pytest.approx((0.3, 0.3, 0.3))


def test_the_page_stands_alone_and_every_figure_is_written(folder: Path) -> None:
    page = (folder / "report" / "index.html").read_text()
    assert "http" not in page
    assert len(page.encode()) < 3_000_000
    assert "&lt;code&gt;" not in page
    assert "<code>docs/protocol.md</code>" in page
    figures = {path.name for path in (folder / "report" / "figures").iterdir()}
    named = [f"figure_{number}" for number in range(1, 7)]
    named += ["restored", "restored_epochs", "differences", "learning_sgd", "learning_adam"]
    named += [f"{name}_adam" for name in ("figure_1", "figure_2", "figure_6", "differences")]
    assert figures == {f"{name}.svg" for name in named}
    report = (folder / "report" / "report.md").read_text()
    for name in named:
        assert f"(figures/{name}.svg)" in report
        assert f'<figure id="{name}">' in page


def test_the_finding_is_in_numbers(folder: Path) -> None:
    finding = (folder / "report" / "finding.md").read_text()
    assert (
        "labels 0–4 lose test accuracy: 30.0 points with the LSTM and 30.0 points with" in finding
    )
    assert "bring back 33 % with the LSTM and 33 % with the CNN" in finding
    assert "| lost, points | 30.0 [30.0, 30.0] | 30.0 [30.0, 30.0] |" in finding
    assert "| 10 unchanged copies | 33 % [33, 33] | 33 % [33, 33] |" in finding
    report = (folder / "report" / "report.md").read_text()
    assert "| LSTM | imbalanced | 61.0 ± 2.5 | 91.0 ± 2.5 | 76.0 ± 2.5 | 63.7 | 3 |" in report


def test_one_seed_gives_no_interval_and_no_verdict(tmp_path: Path) -> None:
    overrides = ("study.seeds=[0]", "study.extensions=[]", f"runs_dir={tmp_path}")
    keys, runs = study_of(*overrides, "records_dirs=[]")
    for run in runs:
        test = None if run.waits else reached(run)
        if test:
            write_record(tmp_path, run, test)
    gathered = gather(keys)
    table_1 = tables.table_1(gathered)
    assert set(table_1.n) == {1}
    assert table_1.low.isna().all()
    claims = judge_claims(gathered)
    assert set(claims.verdict) == {"undecided"}
    assert set(claims.n) == {0, 1}  # one seed makes no loss certain, so none is restored
    assert ["LSTM", "imbalanced", "60.0", "90.0", "75.0", "63.7", "1"] in summary(
        tables.all_conditions(gathered)
    ).rows


def test_conditions_are_named_by_what_was_done() -> None:
    _, runs = study_of()
    run = runs[0]

    def named(**choices: str) -> str:
        return replace(run, choices={**run.choices, **choices}).condition

    assert named(data="original", loss="plain") == "original"
    assert named(data="imbalanced", loss="per_label") == "per_label"
    assert named(data="imbalanced", loss="focal") == "focal"
    changed = replace(run, choices={**run.choices, "data": "imbalanced"}, changes={"data.keep": 1})
    assert changed.condition == "imbalanced, data.keep=1"
    assert named(data="augmented_40", loss="focal") == "augmented_40, focal"


def test_choosing_on_the_test_set_is_compared_with_validation(tmp_path: Path) -> None:
    overrides = ("study.seeds=[0]", "study.extensions=[]", "study.experiments=[weight_sweep]")
    keys, runs = study_of(*overrides, f"runs_dir={tmp_path}", "records_dirs=[]")
    for run in runs:
        weight = run.config["loss.minority_weight"]
        test = scores(groups(weight / 20, 0.5))
        write_record(tmp_path, run, test, val=scores(groups(1 - weight / 20, 0.5)))
    selection = tables.selection(gather(keys))
    assert len(selection) == 4
    for row in selection.itertuples():
        assert row.on_validation == pytest.approx(2 / 20)
        assert row.on_test == pytest.approx(10 / 20)
        assert row.mean == pytest.approx(8 / 20)


def test_an_own_overlay_is_a_condition_of_its_own(tmp_path: Path, own_conf: Path) -> None:
    (own_conf / "experiment" / "rarer.yaml").write_text(
        "# @package _global_\ndata: {keep: 0.05}\n"
        "hydra: {sweeper: {params: {model: 'lstm,linear', loss: 'plain,weighted'}}}\n"
    )
    (own_conf / "model" / "linear.yaml").write_text(
        "_target_: mnist_imbalance.models.linear.Linear\n"
    )
    overrides = ["study.experiments=[rarer,data_sweep]", "study.extensions=[]"]
    keys = read_study([*overrides, "study.seeds=[0,1]", f"runs_dir={tmp_path}", "records_dirs=[]"])
    for run in plan(keys.study):
        reached = [0.3] * 10 if run.experiment == "rarer" else groups(0.6, 0.9)
        write_record(tmp_path, run, scores(reached))
    gathered = gather(keys)
    rows = tables.all_conditions(gathered)
    rows = rows[rows.optimizer == "sgd"].set_index(["model", "condition", "label"])
    assert rows.loc["lstm", "imbalanced", "0-4"]["mean"] == pytest.approx(0.6)
    assert rows.loc["lstm", "imbalanced, data.keep=0.05", "0-4"]["mean"] == pytest.approx(0.3)
    assert rows.loc["linear", "weighted, data.keep=0.05", "0-4"].n == 2
    assert tables.confusion(gathered, "lstm", "sgd", "imbalanced").sum() == 2 * 10 * 1000
    assert tables.weight_sweep(gathered).empty
    report = report_of(gathered, keys)
    assert "| LSTM | imbalanced, data.keep=0.05 |" in report


def test_runs_that_differ_are_conditions_apart(tmp_path: Path, own_conf: Path) -> None:
    first_line = "# @package _global_\n"
    for name, overlay in {
        "own_weights": "defaults: [override /loss: per_label]\n"
        "loss: {weights: [2, 2, 2, 2, 2, 1, 1, 1, 1, 1]}\n",
        "same_images": "data: {seed: 0}\n",
        "rarer": "hydra: {sweeper: {params: {data.keep: '0.1,0.05'}}}\n",
    }.items():
        (own_conf / "experiment" / f"{name}.yaml").write_text(first_line + overlay)
    overlays = "own_weights,same_images,rarer,data_sweep,per_label"
    overrides = [f"study.experiments=[{overlays}]", "study.extensions=[]", "study.seeds=[0,1]"]
    keys = read_study([*overrides, f"runs_dir={tmp_path}", "records_dirs=[]"])
    for run in plan(keys.study):
        write_record(tmp_path, run, scores(groups(0.6, 0.9)))
    gathered = gather(keys)
    named = set(gathered.runs.condition)
    assert {"per_label, loss.weights=[2, 2, 2, 2, 2, 1, 1, 1, 1, 1]", "per_label"} < named
    assert {"imbalanced", "imbalanced, data.keep=0.05"} < named
    of_other_images = gathered.runs[gathered.runs.seed != gathered.runs.data_seed]
    assert list(of_other_images.condition) == ["imbalanced"]
    shown = gathered.on(EPOCHS)
    assert (shown.seed == shown.data_seed).all()
    by = ["model", "condition", "seed", "data_seed"]
    assert set(gathered.runs.groupby(by).config_hash.nunique()) == {1}


def test_of_an_uncertain_loss_no_share_is_regained(tmp_path: Path) -> None:
    overlays = "study.experiments=[data_sweep,per_label]"
    keys, runs = study_of(
        *(overlays, "study.extensions=[]", "study.seeds=[0,1]"),
        *(f"runs_dir={tmp_path}", "records_dirs=[]"),
    )
    for run in runs:
        before = run.choices["data"] == "original"
        minority = (0.65, 0.61)[run.config["seed"]] if before else 0.6
        write_record(tmp_path, run, scores(groups(minority, 0.9)))
    claims = judge_claims(gather(keys))
    [first, *_] = claims_section(claims).tables
    restores = [row for row in first.rows if row[0] == "The weighted loss restores labels 0–4."]
    assert [row[2:6] for row in restores] == [["undecided", "undecided", "none", "0"]] * 2


def test_a_study_without_any_record_has_a_report(tmp_path: Path) -> None:
    overrides = ("study=quick", f"runs_dir={tmp_path}", "records_dirs=[]")
    keys, runs = study_of(*overrides)
    report = report_of(gather(keys), keys)
    assert f"0 of {len({run.config_hash for run in runs})} planned runs have a result" in report
    assert "Figure 3 is missing: no images" in report


def report_of(gathered: Gathered, keys: StudyKeys) -> str:
    missing = find_missing(planned(keys.study.model_dump_json()), gathered.results)
    tidy = tabulate(gathered, None)
    made = sections(gathered, missing, [], tidy, "no images")
    page = render("page.html.j2", made)
    assert all(f"<h{1 + bool(n)}>{each.title}</h" in page for n, each in enumerate(made))
    assert "<script>alert" not in page
    return render("report.md.j2", made)


@pytest.fixture
def trained(tmp_path: Path) -> tuple[StudyKeys, list[PlannedRun]]:
    """Records of two seeds of the original and the imbalanced set, and what wrote them."""
    keys, runs = study_of(
        *("study.experiments=[data_sweep]", "study.extensions=[]", "study.seeds=[0,1]"),
        *(f"runs_dir={tmp_path}", "records_dirs=[]"),
    )
    wanted = [run for run in runs if run.condition in ("original", "imbalanced")]
    write_study(tmp_path, wanted, reached)
    return keys, wanted


def test_the_report_is_alike_at_every_call_and_leaves_git_clean(
    tmp_path: Path, trained: tuple[StudyKeys, list[PlannedRun]]
) -> None:
    keys, _ = trained
    page = write_report(keys)
    assert page == tmp_path / "report" / "index.html"  # below the runs, which git ignores
    first = {path: path.read_bytes() for path in page.parent.rglob("*.*")}
    write_report(keys)
    assert first == {path: path.read_bytes() for path in page.parent.rglob("*.*")}
    assert place_of_report(read_study([f"runs_dir={tmp_path / 'none'}"])) == Path("report")
    git = ["git", "check-ignore", "runs/report/index.html", "report/index.html"]
    ignored = subprocess.run(git, cwd=REPOSITORY, capture_output=True, text=True).stdout
    assert ignored.split() == ["runs/report/index.html"]


def other(run: PlannedRun, choices: dict[str, str], **values: object) -> PlannedRun:
    """A run that no study plans."""
    named = {key.replace("__", "."): value for key, value in values.items()}
    changed = {key: value for key, value in named.items() if not key.startswith("trainer.max")}
    return replace(
        run,
        choices={**run.choices, **choices},
        changes={**run.changes, **changed},
        config={**run.config, **named, "model.of": choices.get("model")},
    )


def test_what_no_study_plans_is_in_the_report(
    tmp_path: Path, trained: tuple[StudyKeys, list[PlannedRun]]
) -> None:
    keys, runs = trained
    theirs = {"model": "transformer", "optimizer": "adagrad"}
    of_lstm = [run for run in runs if run.choices["model"] == "lstm"]
    write_study(tmp_path, [other(run, theirs) for run in of_lstm], reached)
    focal = [other(run, {"loss": "focal"}, loss__gamma=2) for run in runs]
    write_study(tmp_path, focal, reached)
    gathered = gather(keys)
    assert gathered.runs.left_out.isna().all()
    report = report_of(gathered, keys)
    lost = tables.differences(gathered).set_index(["model", "optimizer", "condition", "label"])
    assert lost.loc["transformer", "adagrad", "original", "0-4"].n == 2
    assert "| LSTM | focal, loss.gamma=2 |" in report
    assert "| transformer | original |" in report
    for picture in ("figure_1_adagrad", "figure_6_adagrad", "differences_adagrad"):
        assert f"(figures/{picture}.svg)" in report
    assert "AI3607's claims with adagrad" in report


def test_runs_of_another_length_are_in_no_comparison(
    tmp_path: Path, trained: tuple[StudyKeys, list[PlannedRun]]
) -> None:
    keys, runs = trained
    before = gather(keys)
    on_trial = [other(run, {}, trainer__max_epochs=1) for run in runs]
    longer = [other(run, {}, trainer__max_epochs=200) for run in runs[:2]]
    limited = [other(run, {}, trainer__limit_train_batches=0.1) for run in runs]
    for each in (on_trial, longer, limited):
        write_study(tmp_path, each, lambda run: scores([0.1] * 10))
    gathered = gather(keys)
    for ground in (EPOCHS, STEPS):
        pandas.testing.assert_frame_equal(
            gathered.on(ground).reset_index(drop=True),
            before.on(ground).reset_index(drop=True),
            check_categorical=False,  # whose names may be of runs that are left out
        )
    assert set(gathered.runs.left_out.dropna()) == {
        "of another length",
        "trained on a part of the images",
    }
    report = report_of(gathered, keys)
    assert "Runs of another length, and others that are in no comparison." in report
    assert "| of another length | LSTM | SGD | imbalanced | 1 | 233 | 0, 1 |" in report


def test_the_longest_of_equally_many_lengths_is_common(tmp_path: Path) -> None:
    keys, runs = study_of(
        *("study.experiments=[data_sweep]", "study.extensions=[]", "study.seeds=[0]"),
        *(f"runs_dir={tmp_path}", "records_dirs=[]"),
    )
    for epochs in (1, 50):
        write_study(tmp_path, [other(r, {}, trainer__max_epochs=epochs) for r in runs], reached)
    runs_found = gather(keys).runs
    assert set(runs_found[runs_found[EPOCHS]].epochs) == {50}


def test_chosen_weights_are_those_of_the_sweep_in_the_records(tmp_path: Path) -> None:
    keys, runs = study_of(
        *("study.experiments=[weight_sweep,per_label_chosen]", "study.extensions=[]"),
        *("study.seeds=[0]", f"runs_dir={tmp_path}", "records_dirs=[]"),
    )
    write_study(tmp_path, runs, reached)
    waiting = next(run for run in runs if run.waits)
    for weights in ([7] * 5 + [1] * 5, [3] * 5 + [1] * 5):
        run = replace(waiting, config={**waiting.config, "loss.weights": weights})
        write_record(tmp_path, run, scores([0.5] * 10))
    known = set(gather(keys).runs.condition)
    assert {name for name in known if name.startswith("per_label")} == {
        "per_label_chosen",
        "per_label_chosen, loss.weights=[3, 3, 3, 3, 3, 1, 1, 1, 1, 1]",
    }


def test_groups_and_labels_are_those_of_the_records(
    tmp_path: Path, trained: tuple[StudyKeys, list[PlannedRun]]
) -> None:
    keys, _ = trained
    for file in tmp_path.rglob("result.json"):
        record = json.loads(file.read_text())
        record["groups"] = {"few": [0, 9], "many": [*range(1, 9)], "all": [*range(10)]}
        file.write_text(json.dumps(record))
    gathered = gather(keys)
    assert (gathered.rare, gathered.frequent) == ("few", "many")
    rows = tables.all_conditions(gathered).set_index(["model", "condition", "label"])
    assert rows.loc["lstm", "original", "few"]["mean"] == pytest.approx((0.905 + 0.805) / 2)
    report = report_of(gathered, keys)
    assert "| model | condition | labels few | labels many | all |" in report
    assert "labels 0–4" not in report.partition("## Claims")[0]


def test_damaged_files_beside_a_record_leave_the_rest(
    tmp_path: Path, trained: tuple[StudyKeys, list[PlannedRun]]
) -> None:
    keys, runs = trained
    folder = tmp_path / runs[0].config_hash[:12]
    whole = (folder / "metrics.csv").read_text()
    (folder / "metrics.csv").write_text(whole[: len(whole) // 2])
    (folder / "predictions.npz").write_bytes(b"")
    gathered = gather(keys)
    assert len(gathered.results) == len(runs)
    report = report_of(gathered, keys)
    for name in ("metrics.csv", "predictions.npz"):
        assert f"Damaged record: {folder / name} is damaged" in report


@pytest.mark.parametrize(
    ("key", "value"),
    [("data.batch_size", 0), ("data.val_per_label", {}), ("loss.weights", "all"), ("versions", {})],
)
def test_a_config_of_strange_values_leaves_the_rest(
    tmp_path: Path, trained: tuple[StudyKeys, list[PlannedRun]], key: str, value: object
) -> None:
    keys, runs = trained
    file = tmp_path / runs[0].config_hash[:12] / "result.json"
    record = json.loads(file.read_text())
    record.update({key: value} if key in record else {})
    record["config"][key] = value
    record["config_hash"] = hash_config(record["config"])
    file.write_text(json.dumps(record))
    gathered = gather(keys)
    assert len(gathered.results) == len(runs)
    assert bool(gathered.damaged) == (key == "data.batch_size")
    assert "## Method" in report_of(gathered, keys)


def test_what_a_record_says_is_no_markup(
    tmp_path: Path, trained: tuple[StudyKeys, list[PlannedRun]]
) -> None:
    keys, runs = trained
    note = "<script>alert(1)</script>|[x](y)"
    write_study(tmp_path, [other(run, {}, data__note=note) for run in runs], reached)
    report = report_of(gather(keys), keys)
    assert "<script>" not in report
    assert "&lt;script>alert(1)&lt;/script>\\|[x\\](y)" in report
