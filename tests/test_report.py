"""The report and its figures, of hand-made runs and of the committed records."""

import json
import math
import re
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import REPOSITORY
from jinja2 import Environment
from made_runs import groups, run

from mnist_imbalance.config import compose_with
from mnist_imbalance.errors import ConfigError
from mnist_imbalance.records import table as records
from mnist_imbalance.report import figures, page, ranking, tables, words
from mnist_imbalance.report.figures import svg
from mnist_imbalance.report.page import write_report

pytest_plugins = ["made_runs"]
USUAL = {"data.keep": 0.1, "optimizer.lr": 0.001}
LAST = USUAL | {"trainer.max_steps": 11650}
DESIGN = {  # numbers that may be typed by hand; every other comes from the records
    r"labels 0–4|digits 0–4|5–9": "AI3607's groups of labels",
    r"\b90 % of (the|MNIST's) (training )?images": "what AI3607 removed",
    r"\b10? % (of the images|kept|are|and)|(with|for) 1 %": "the two degrees of imbalance",
    r"the 10 % that the protocol allows": "docs/protocol_methods.md",
    r"95 % (each|(prediction )?intervals?)|\b5 % (are expected|tells)|exclude at 5 %": "levels",
    r"\b1 point of accuracy|, 0.5 for|under 1 %|that 1 %": "margins of docs/protocol.md",
    r"\b0.8 and 0.95 of the loss|above 0.8|above 0.95|\([01]\)|\b0 is|set, 1 on": "its marks",
    r"[Ww]eight (of )?7\b|weight 1 is|50 epochs|of 0.001|at 0.001|±15°|to (40|100) %": "its design",
    r"11 to 31 values": "the grids of conf/posthoc",
    r"1 : 100|200 epochs": "others' long tail and training",
    r"Figures? \d|Table 1|\| \d(.\d)?(, \d(.\d)?)? \||accuracy 0\.": "places in AI3607",
    r"6, 7, 7, 7 and 5": "AI3607's sentences",
    r"\((20\d\d)\)|May 2023|Python 3.11|versions 0.1 and 0.2": "years and versions",
    r"BY-SA 3.0": "a licence",
    r"\bn > [01]\b|\"0.1.0\"": "queries",
}


def made(**others: Any) -> list[dict[str, Any]]:
    """Two seeds of the original, the imbalanced and the copied set at equal steps."""
    reached = {"original": 0.9, "imbalanced": 0.6, "duplicated_100": 0.7, "augmented_100": 0.75}
    return [
        run(name, s, groups(rare, 0.9), config=USUAL if name == "imbalanced" else LAST, **others)
        for (name, rare), s in product(reached.items(), range(2))
    ]


def known_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What the template is filled with."""
    raw = pd.DataFrame(rows)
    runs = tables.assign_budgets(raw)
    tabulated = tables.all_tables(raw, runs, {})
    known = {"tables": tabulated, "runs": runs, "records": raw, "damaged": ["a file"]}
    return known | {"figures": {}}


@pytest.mark.usefixtures("kept_in_memory")
def test_the_finding_names_models_and_numbers() -> None:
    known = known_of(rows := made() + made(model="cnn") + made(optimizer="adam"))
    finding, whole = (words.render("report.md.j2", **known, part=p) for p in ("finding", ""))
    for text in (
        "images of labels 0–4 are removed, small networks lose 30.0 points of test accuracy",
        "an LSTM whose training is unfinished loses 30.0.",
        "restores part of this in unfinished training and 33 % in networks that are trained",
    ):
        assert text in finding
    rows[2] |= run("imbalanced", 0, groups(0.5, 0.9), config=USUAL)
    assert words.render("report.md.j2", **known_of(rows), part="finding") != finding
    assert "Figure 3 is missing: there are no images." in whole and "record: a file" in whole


def test_one_seed_gives_no_finding_and_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    none = pd.DataFrame(columns=["epoch", "stage", "config_hash"])  # nothing beside the records
    monkeypatch.setattr(records, "epochs", lambda runs: none)
    monkeypatch.setattr(records, "predictions", lambda runs: {})
    known = known_of([row for row in made() if row["seed"] == 0])
    finding, whole = (words.render("report.md.j2", **known, part=p) for p in ("finding", ""))
    assert finding.startswith("There is no finding yet")
    assert "lose" not in whole.partition("## Tables")[0]
    assert set(known["tables"]["claims"].verdict) == {"undecided"}


def test_no_result_is_typed_by_hand_in_the_template_or_the_readme() -> None:
    template = Path(words.__file__).with_name("report.md.j2").read_text()
    prose = [text for _, kind, text in Environment().lex(template) if kind in ("data", "string")]
    beside = r"<!-- report/.*?<!-- end|^```.*?^```|`[^`]*`|^\|.*?$|\]\(.*?\)"
    readme = (REPOSITORY / "README.md").read_text()
    prose.append(re.sub(beside, "", readme, flags=re.DOTALL | re.MULTILINE))
    left = re.sub("|".join(DESIGN), "", " ".join(" ".join(prose).split()))
    assert re.findall(r".{0,40}(?<![\w.-])\d+(?!\w).{0,20}", left) == []


@pytest.mark.usefixtures("kept_in_memory")
def test_another_study_has_a_report_of_its_own() -> None:
    three = {"many": [0, 1], "medium": [2], "few": [3, 4], "all": [*range(5)]}
    names = ["ant", "bee", "cat", "dog", "eel"]
    own = {"groups": three, "class_names": names, "model": "vit", "dataset": "folder"}
    levels = {"mine": 0.6, "mine, focal, loss.gamma=2": 0.7, "<b>|[x](y)": 0.4}
    rows = [
        run(f"{name}, data/source=folder", s, [0.9, 0.8, 0.7, level + s / 10, 0.5])
        | {**own, "loss": "plain" * (name == "mine")}
        for name, level in levels.items()
        for s in range(2)
    ]
    known = known_of(rows)
    text, finding = (words.render("report.md.j2", **known, part=p) for p in ("", "finding"))
    assert text.startswith("# Class imbalance on a folder of images\n\nAll numbers come from 6 rec")
    assert "5 classes with 5964 training images (ant 5964, bee 5964" in text
    assert "AI3607" not in text and "MNIST" not in text and "nan" not in text
    assert "| condition | many | medium | few | all | balanced | n |" in text
    assert "| mine, focal loss, γ 2 | 85.0 and 85.0 |" in text
    assert "| &lt;b>\\|[x\\](y) |" in text  # what a record says is no markup
    assert "| dog | 40.0 and 50.0 | 60.0 and 70.0 | 70.0 and 80.0 |" in text
    assert "Points more than mine, paired over n seeds" in text
    assert finding.startswith(
        "Of 2 conditions beside mine (a folder of images, vit, SGD, 50 epochs)"
    )
    shown = page.explore(tables.by_training(pd.DataFrame(rows)), {})
    assert [each["n"] for each in shown["sets"]] == [2, 2, 2]
    about = shown["data"]["a folder of images"]
    assert (about["classes"], about["rare"]) == (names, [0, 1])


def test_numbers_and_names_as_a_reader_writes_them() -> None:
    row = {"n": 5, "mean": 0.551, "low": 0.515, "high": 0.587, "effect": -0.02}
    row |= {"least": 0.548, "most": 0.554}
    assert words.percent(row) == "55.1 ± 3.6"
    assert words.interval(row | {"low": -0.03, "high": 0.01}) == "−2.00 [−3.00, +1.00]"
    assert words.percent(row | {"n": 2}) == "54.8 and 55.4"
    assert words.percent(row | {"low": -0.023, "high": 0.702}) == "54.8 to 55.4"
    assert words.interval(row | {"n": 2, "low": -0.147062, "high": 0.107062}) == "−3.00 and −1.00"
    ends = {(0.625, 0.849): " [62, 85]", (-0.1, 1.2): "", (math.nan,) * 2: ""}
    ends |= {(-math.inf, math.inf): ""}  # which say nothing
    for (low, high), said in ends.items():
        assert words.fraction({"fraction": 0.724, "low": low, "high": high}) == f"72 %{said}"
    assert words.fraction({"fraction": math.nan}) == "unknown"
    names = ["weighted, loss.minority_weight=3, loss.normalize=count", "data.keep=[0.1, 0.2, 1.0]"]
    names += ["posthoc=crt, posthoc.smoothing=0.1", "root_weighted, mix.even=True, mix.new_key=3"]
    titled = ["weight 3, divided by images", "10 to 20 % kept", "cRT with smoothing 0.1"]
    assert [*map(words.title, names)] == [*titled, "root weighted, even, new key 3"]
    names = ["weighted", "mine", "imbalanced", "weighted, loss.minority_weight=10", "original"]
    sorted_names = pd.Series(names, name="condition").sort_values(key=words.sort_key).tolist()
    assert sorted_names == ["original", "imbalanced", "weighted", names[3], "mine"]


def test_no_name_is_a_key_or_stands_for_two() -> None:
    runs, _ = records.read([REPOSITORY / "results"])
    rows = ranking.select_comparable(runs)
    settings = [(words.title, own) for _, own in rows.groupby("method").setting]
    for write, names in [(words.title, runs.condition), (words.method, rows.method), *settings]:
        said = [*map(write, names.unique())]
        assert len({*said}) == len(said) and not re.search("[=_]", "".join(said))


def test_the_committed_report_is_what_the_committed_records_give(tmp_path: Path) -> None:
    keys = [f"runs_dir={tmp_path / 'runs'}", f"records_dirs=[{REPOSITORY / 'results'}]"]
    keys += [f"study.report_dir={tmp_path / 'report'}"]
    html = write_report(compose_with(keys, name="study"))
    rebuilt, committed = html.parent, REPOSITORY / "report"
    made = sorted(path.name for path in (rebuilt / "tables").iterdir())
    assert made == sorted(path.name for path in (committed / "tables").iterdir())
    for name in ["report.md", "finding.md", *(f"tables/{table}" for table in made)]:
        assert (committed / name).read_text() == (rebuilt / name).read_text(), name
    readme = (REPOSITORY / "README.md").read_text()
    finding = (rebuilt / "finding.md").read_text().rstrip()
    assert f"mnist_imbalance.report -->\n{finding}\n<!-- end of" in readme
    assert readme.index(finding) < readme.index("## ")
    pages = [(folder / "index.html").read_text() for folder in (rebuilt, committed)]
    drawn = r"<svg.*?</svg>|data:image[^\"]*"  # by libraries, whose versions may differ
    assert len({re.sub(drawn, "", page, flags=re.DOTALL) for page in pages}) == 1
    check_page(pages[0], rebuilt)
    check_mistakes(pages[0])


def check_page(html: str, report: Path) -> None:
    """It needs no network and holds every figure and table; report.md has the short ones."""
    markdown = (report / "report.md").read_text()
    assert not re.search(r"(src|href)=.?(http|//)|@import|url\((?!\$)", html)
    names = sorted(path.stem for path in (report / "figures").iterdir())
    assert names == sorted(path.stem for path in (REPOSITORY / "report/figures").iterdir())
    plots = re.findall(r'<figure id="(\w+)"><div class="plot" role="img" aria-label="[^"]', html)
    assert sorted(plots) == names
    assert {*re.findall(r"\]\(figures/(\w+)\.svg\)", markdown)} <= {*names}
    assert 5 < len(re.findall(r"^\| ---", markdown, re.MULTILINE)) < html.count("<table>")
    assert len(markdown.encode()) < 40_000
    assert "<code>docs/protocol.md</code>" in html
    assert "images: 4696 of 4900" in html


def check_mistakes(html: str) -> None:
    """The explorer shows mistakes of the run that it names, and curves over the same steps."""
    [data] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html)
    runs, _ = records.read([REPOSITORY / "results" / "full.parquet"])
    runs = tables.by_training(runs[(runs.model == "lstm") & (runs.optimizer == "adam")])
    images = page.read_images(runs, [])["mnist"]
    chosen = {"dataset": "MNIST", "model": "LSTM", "optimizer": "Adam", "condition": "imbalanced"}
    [shown, *_] = [s for s in json.loads(data)["sets"] if chosen.items() <= s.items()]
    own = runs[(runs.condition == "imbalanced") & (runs.training == shown["training"])]
    own = own[own.seed == shown["seed"]]
    [predicted] = records.predictions(own).values()
    assert len(shown["mistakes"]) > 5
    for image, label, other in shown["mistakes"]:
        assert images.test[1][image] == label != other == predicted[image]
    assert len(shown["curves"]) == 2
    assert {len(curve) for group in shown["curves"] for curve in group} == {len(shown["steps"])}
    table = page.samples(images)
    assert table.groupby("label", sort=False).size().to_dict() == dict.fromkeys(range(5), 10)


def test_equal_records_give_equal_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = [f"runs_dir={tmp_path}", "records_dirs=[]", f"study.report_dir={tmp_path}/out"]
    with pytest.raises(ConfigError, match=f"records_dirs: no result below {tmp_path}"):
        write_report(compose_with(keys, name="study"))
    every, _ = records.read([REPOSITORY / "results" / "full.parquet"])
    few = every[(every.optimizer == "adam") & (every.model == "cnn") & (every.seed < 2)]
    records.pack(few, tmp_path / "records" / "adam.parquet")
    (tmp_path / "records" / "damaged.parquet").write_bytes(b"")
    keys[1] = f"records_dirs=[{tmp_path / 'records'}]"
    keys.append(f"study.overrides=['data.dir={tmp_path / 'none'}']")
    html = write_report(compose_with(keys, name="study"))
    assert html == tmp_path / "out" / "index.html"
    printed = capsys.readouterr().out
    assert "damaged record left out: " in printed and "the report:" in printed
    assert "images left out: data.dir: there is no folder" in printed
    assert '"images":[]' in html.read_text()
    first = html.read_bytes()
    assert write_report(compose_with(keys, name="study")).read_bytes() == first
    figure = (tmp_path / "out" / "figures" / "learning_adam.svg").read_text()
    assert figure.startswith('<svg role="img" aria-label="Validation accuracy over the optimizer')
    with pytest.raises(ConfigError, match="must be one of original; "):
        write_report(compose_with([*keys, "study.baseline=x"], name="study"))
    records.pack(few[:1].assign(data_sha256="a" * 64), tmp_path / "records" / "others.parquet")
    records.pack(few[1:].assign(data_sha256="b" * 64), tmp_path / "records" / "adam.parquet")
    write_report(compose_with(keys, name="study"))
    assert (
        "MNIST, images bbbb and MNIST, images aaaa" in (tmp_path / "out" / "report.md").read_text()
    )


def test_models_have_panels_and_colours_alike_in_every_figure() -> None:
    names = pd.DataFrame({"model": ["lstm", "cnn", "linear"], "optimizer": "sgd", "label": "0-4"})
    rows = names.assign(weight=2.0, n=3, mean=0.5, low=0.4, high=0.6)
    shown = svg(figures.draw_over_weight(rows, by_label=False))
    assert shown == svg(figures.draw_over_weight(rows, by_label=False))
    assert all(f">{name}<" in shown for name in ("LSTM", "CNN", "linear"))
    assert 'fill="white"' not in shown
    assert {figures.GREY} == {*re.findall(r'<text [^>]*?fill="(.*?)"', shown)}
    first, *_ = re.findall('aria-label="(.*?)"', shown)
    assert first.replace("&#xA;", "; ") == (
        "model: LSTM; optimizer: SGD; label: labels 0–4; weight: 2; n: 3; test accuracy: 50.0 %; "
        "95 % interval: 40.0 % to 60.0 %"
    )


@pytest.mark.usefixtures("kept_in_memory")
def test_what_has_no_rows_is_not_drawn() -> None:
    known = known_of(made())  # at equal steps alone
    shown = {"confusion": tables.confusion(known["runs"]), "samples": pd.DataFrame()}
    drawn = figures.draw(known["tables"] | shown)
    assert "learning_sgd" in drawn
    assert not {"figure_1", "figure_3"} & {*drawn}
