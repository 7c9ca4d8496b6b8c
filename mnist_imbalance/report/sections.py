"""What stands where in the report: headings, paragraphs, tables and figures."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas

from mnist_imbalance.published import OPTIMIZER
from mnist_imbalance.report import figures, finding, wording
from mnist_imbalance.report.claims import NOT_JUDGED
from mnist_imbalance.report.explorer import CURVES, explorer
from mnist_imbalance.report.gather import EPOCHS, GROUNDS, STEPS, Gathered, Missing
from mnist_imbalance.report.images import Images
from mnist_imbalance.report.methods import cliques
from mnist_imbalance.report.names import (
    CONDITIONS,
    condition_title,
    copy_names,
    group_title,
    optimizer_title,
    titled,
)
from mnist_imbalance.report.remedies import REFERENCES, REMEDIES
from mnist_imbalance.report.verdicts import VERDICTS
from mnist_imbalance.report.wording import Judged, Table

OPENING = "What restores the rare labels?"
METHODS = "Methods"
Tidy = Mapping[str, pandas.DataFrame]


@dataclass(frozen=True)
class Picture:
    """A figure and what stands below it.

    Attributes:
        name: Of its file.
        caption: Of the figure.
        figure: The figure.
        note: How it was made.
    """

    name: str
    caption: str
    figure: figures.Figure
    note: str = ""

    @cached_property
    def drawn(self) -> tuple[str, str]:
        """The picture as SVG, for a wide page and for a narrow one."""
        described = self.figure.to_dict(validate=False)
        wide = figures.svg(described)
        return wide, figures.svg(figures.narrow(described, wide))


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it.

    Attributes:
        title: The heading.
        paragraphs: What is said first.
        tables: The last.
        pictures: Before the tables.
        details: Paragraphs between pictures and tables that the page shows when asked.
        claims: What is judged, by sentence; the page shows it, and the tables when asked.
        explorer: What the page's explorer shows, see `explorer`.
    """

    title: str
    paragraphs: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    details: list[str] = field(default_factory=list)
    claims: Mapping[str, list[Judged]] = field(default_factory=dict)
    explorer: Mapping[str, Any] = field(default_factory=dict)


def of_optimizers(rows: pandas.DataFrame) -> Iterator[tuple[str, pandas.DataFrame]]:
    """Go through the optimizers of a table."""
    for optimizer, shown in rows.groupby("optimizer", sort=False):
        yield str(optimizer), shown


def file_name(picture: str, optimizer: str, unnamed: str = OPTIMIZER) -> str:
    """Return a picture's name, which tells the optimizer but one, AI3607's as we read it."""
    return picture if optimizer == unnamed else f"{picture}_{re.sub('[^a-z0-9]+', '-', optimizer)}"


def pictures_of(
    rows: pandas.DataFrame,
    name: str,
    caption: str,
    draw: Callable[[pandas.DataFrame], figures.Figure],
    unnamed: str = OPTIMIZER,
) -> list[Picture]:
    """Return a picture for each optimizer, whose title stands in the caption where {} is."""
    return [
        Picture(
            file_name(name, optimizer, unnamed),
            caption.format(optimizer_title(optimizer)),
            draw(shown),
        )
        for optimizer, shown in of_optimizers(rows)
    ]


def restored_pictures(restored: pandas.DataFrame, ground: str, name: str) -> list[Picture]:
    """Return the picture of what each remedy restores on one ground, where it is known."""
    restored = restored[(restored.ground == ground) & ~restored.condition.isin(REFERENCES)]
    known = restored[restored.n > 0]
    if known.empty:
        return []
    order = list(REMEDIES)
    shown = restored[restored.remedy.isin(known.remedy) & restored.optimizer.isin(known.optimizer)]
    shown = shown.sort_values("condition", key=lambda c: c.map(order.index), kind="stable")
    caption = (
        f"What restores {group_title(known.rare.iloc[0])}, at {ground}: the fraction of what the "
        "imbalance took that each remedy brings back, with 95 % intervals over seeds."
    )
    note = (
        "0 is imbalanced and 1 original on the same ground: at equal steps the original set is "
        "trained for fewer epochs. The intervals are Fieller's. By images: the weighted loss is "
        "divided by the batch's images instead of its weights."
    )
    drawn = figures.draw_restored(shown.drop(columns="condition"))
    return [Picture(name, caption, drawn, note)]


def opening_section(gathered: Gathered, missing: Missing, tidy: Tidy) -> Section:
    """The answer in sentences, one figure and a table; and how much is missing."""
    restored = tidy["restored"]
    details = finding.finding(restored, tidy["compared"]).split("\n\n")
    if len(missing.runs) or gathered.damaged:
        details.append(
            f"{how_complete(gathered, missing)}; the others are in the report's last table."
        )
    return Section(
        OPENING,
        finding.answer(restored),
        wording.restored_tables(restored)[:1],
        restored_pictures(restored, STEPS, "restored"),
        details if details[0] != finding.NO_FINDING else details[1:],
    )


def how_complete(gathered: Gathered, missing: Missing) -> str:
    """Say how many runs are finished."""
    damaged = f", {len(gathered.damaged)} records are damaged" if gathered.damaged else ""
    return f"{missing}{damaged}"


def remedies_section(gathered: Gathered, tidy: Tidy) -> Section:
    """What the remedies add to each other, and the other grounds and optimizers."""
    paragraphs = [
        "Compared are runs of as many optimizer steps (those of 50 epochs of the imbalanced set), "
        "or of as many epochs (50, as AI3607 trains), paired by seed. The four sets of ten copies "
        "are a 2 × 2 design: with noise or without, rotated or not.",
    ]
    literature = finding.literature(tidy["restored"], tidy["compared"])
    tables = wording.compared_tables(tidy["compared"])
    tables += wording.restored_tables(tidy["restored"])[1:]
    pictures = restored_pictures(tidy["restored"], EPOCHS, "restored_epochs")
    return Section("Remedies", paragraphs, tables, pictures, [literature])


def methods_section(tidy: Tidy) -> Section:
    """Which method is best, and which cannot be told apart."""
    ranked, pairs = (
        tidy[name].assign(panel=[*map(wording.place_title, tidy[name].model, tidy[name].keep)])
        for name in ("ranked", "pairs")
    )
    joined = {str(panel): cliques(rows) for panel, rows in pairs.groupby("panel", sort=False)}
    accuracy = {"seeds": "n", "mean_low": "low", "mean_high": "high"}
    shown = ranked.drop(columns=[*accuracy.values()]).rename(columns=accuracy)
    picture = Picture(
        "ranking",
        "Methods in the order of their balanced test accuracy, with 95 % intervals over seeds; "
        "bars join methods that are not told apart.",
        figures.draw_ranked(shown, joined),
        "Every pair of the methods that a bar joins has a p-value of at least 0.05, by paired "
        "t-tests over seeds, corrected by Holm over all pairs of a panel.",
    )
    tables = [
        wording.ranked_table(rows) for _, rows in ranked.groupby(["model", "keep"], sort=False)
    ]
    tables += [
        wording.metrics_table(rows)
        for _, rows in tidy["metrics"].groupby(["model", "keep"], sort=False)
    ]
    tables += [wording.trainings_table(tidy["trainings"])]
    tables += [wording.rules_table(tidy["rules"])] if len(tidy["rules"]) else []
    text = [*finding.ranking(ranked, pairs), *finding.selected(tidy["rules"])]
    return Section(METHODS, text, tables, [picture])


def spread_section(components: pandas.DataFrame) -> Section:
    """Where the spread of equal runs comes from."""
    text = (
        "Every choice of the images that are kept was combined with every start of the weights and "
        "order of the images; a mixed model splits the variance. With so few of each the split is "
        "rough."
    )
    table = wording.table(
        "Standard deviation, in points, of the rare labels' test accuracy over n runs with crossed "
        "seeds, by a mixed model (REML).",
        {
            **titled(components, "model", "optimizer", "condition"),
            "from": components.component,
            "standard deviation": map("{:.2f}".format, 100 * components.sd),
            "of the variance": map("{:.0f} %".format, 100 * components.share),
            "n": components.n,
        },
    )
    picture = Picture(
        "components",
        "Standard deviation of the rare labels' test accuracy from the choice of images, from the "
        "initial weights and order, and from the rest; crossed seeds.",
        figures.draw_components(components.assign(sd=100 * components.sd)),
    )
    return Section("Spread", [text], [table], [picture])


def models_section(conditions: pandas.DataFrame) -> Section:
    """Figure 6."""
    shown = conditions[conditions.condition.isin(CONDITIONS)]
    tables = [wording.summary(rows) for _, rows in of_optimizers(shown)]
    caption = (
        "The models in every condition of AI3607, {}, at equal epochs, with 95 % intervals over "
        "seeds, and AI3607's LSTM (its Figure 6)."
    )
    pictures = pictures_of(shown, "figure_6", caption, figures.draw_models)
    return Section("Models", [], tables, pictures)


def claims_section(claims: pandas.DataFrame) -> Section:
    """All verdicts."""
    reports_own = claims[(claims.optimizer == OPTIMIZER) & claims.model.isin(["lstm", "both"])]
    verdicts = Counter(reports_own.verdict)
    counted = ", ".join(f"{verdicts[verdict]} × {verdict}" for verdict in VERDICTS)
    text = (
        f"AI3607's claims about its LSTM, judged by effects paired over seeds: {counted}. The "
        "same questions are asked of the other models and optimizers."
    )
    meant = (
        "To restore labels 0–4 means here to regain at least half of what the imbalance took from "
        "them, and to rebalance to halve the groups' gap; 0.8 and 0.95 of the loss are in the "
        "first tables. Without runs for it, or a certain loss to restore, a claim has no effect "
        "and is undecided. What the augmentation brings is judged here as AI3607 compares it, "
        "without unchanged copies beside."
    )
    tables = [wording.claims_table(claims, optimizer) for optimizer in claims.optimizer.unique()]
    not_judged = wording.table(
        "What AI3607 says and no run here can judge.",
        {
            "sentence": NOT_JUDGED,
            "section": [section for section, _ in NOT_JUDGED.values()],
            "why": [why for _, why in NOT_JUDGED.values()],
        },
    )
    tables.append(not_judged)
    return Section("Claims", [text], tables, details=[meant], claims=wording.judged(claims))


def table_1_section(table_1: pandas.DataFrame) -> Section:
    """Table 1 for each model."""
    text = (
        "AI3607 contradicts itself: for original and imbalanced, its sections give other "
        "accuracies than its Table 1 averages to. Compared is the table, its groups being means of "
        "its labels; the text's numbers stand beside it."
    )
    tables = [wording.table_1(table_1, model) for model in table_1.model.unique()]
    return Section("Table 1", [text], tables)


def differences_section(differences: pandas.DataFrame) -> Section:
    """The paired differences, which AI3607 lacks."""
    shown = differences[~differences.condition.str.contains("model.")]  # these in the table only
    caption = (
        "Test accuracy of every condition less that of imbalanced, {}, paired over seeds, with 95 "
        "% intervals."
    )
    pictures = pictures_of(shown, "differences", caption, figures.draw_differences)
    tables = [
        wording.estimates_table(
            rows,
            f"{optimizer_title(optimizer)}: points more than imbalanced, paired over n seeds.",
            ["model", "condition"],
            "label",
            signed=True,
        )
        for optimizer, rows in of_optimizers(differences)
    ]
    return Section("Differences to the imbalanced set", [], tables, pictures)


def confusion_section(gathered: Gathered) -> Section:
    """Figures 1 and 2."""
    pictures = [
        Picture(
            file_name(f"figure_{number}", optimizer),
            f"Trained on {images} images, {optimizer_title(optimizer)}: confusion matrices of the "
            f"test set, % of the true label, all seeds together (AI3607, Figure {number}).",
            figures.draw_confusion(gathered, optimizer, condition),
        )
        for optimizer, runs in of_optimizers(gathered.runs_on(EPOCHS))
        for number, condition, images in (
            (1, "original", "all"),
            (2, "imbalanced", "imbalanced"),
        )
        if condition in set(runs.condition)
    ]
    return Section("Confusion", pictures=pictures)


def weights_section(sweep: pandas.DataFrame, optimum: pandas.DataFrame) -> Section:
    """Figures 4 and 5."""
    table = wording.table(
        "The weight of the rare labels with the best balanced accuracy on validation data, seed by "
        "seed; where it is the largest tried, the sweep does not tell where the best weight lies.",
        {
            **titled(optimum, "model", "optimizer"),
            "loss divided": [wording.DIVISORS.get(name, name) for name in optimum.normalize],
            "best weight": optimum.by_seed.str.replace(" ", ", "),
            "largest tried": map("{:g}".format, optimum.largest),
            "best at the largest": [f"{row.at_largest} of {row.n}" for row in optimum.itertuples()],
        },
    )
    swept = sweep[sweep.normalize == "weight_sum"]
    # the plain loss and one weight are no sweep
    swept = swept[swept.groupby("optimizer").weight.transform("nunique") > 2]
    labels = (
        "Test accuracy of every label over the weight of the rare ones, {}; weight 1 is the plain "
        "loss (AI3607, Figure 4)."
    )
    groups = (
        "Mean test accuracy of the groups over the weight of the rare labels, {}, with 95 % "
        "intervals over seeds (AI3607, Figure 5)."
    )
    of_labels = pictures_of(swept, "figure_4", labels, figures.draw_labels_over_weight)
    of_groups = pictures_of(swept, "figure_5", groups, figures.draw_groups_over_weight)
    pictures = [each for both in zip(of_labels, of_groups, strict=True) for each in both]
    return Section("Weights", [], [table] if table.rows else [], pictures)


def selection_section(selection: pandas.DataFrame) -> Section:
    """What choosing on the test set adds."""
    text = (
        "AI3607 picks the weights that are best on the test set. Chosen on validation data "
        "instead, the weights must prove themselves on images that did not choose them; the "
        "difference is what choosing on the test set adds."
    )
    return Section("Choosing on the test set", [text], [wording.selection_table(selection)])


def learning_section(curves: pandas.DataFrame) -> Section:
    """Accuracy over steps."""
    caption = (
        "Validation accuracy over optimizer steps, {}, mean and 95 % interval over seeds, at equal "
        "steps."
    )
    pictures = pictures_of(curves, "learning", caption, figures.draw_curves, unnamed="")
    return Section("Over the steps", pictures=pictures)


def output_relu_section(dead_labels: pandas.DataFrame) -> Section:
    """What the literal ReLU on the outputs does."""
    text = (
        "AI3607 puts a ReLU after its last layer; where that layer's bias starts decides which "
        "labels live."
    )
    biases = wording.numbers(dead_labels.output_bias, "{:g}")
    table = wording.table(
        "Imbalanced, plain loss: labels of whose own training images under 1 % get a "
        "positive output in the last epoch, or with test accuracy 0. Records of schema 1 do not "
        "tell the own images apart; there, images of all labels are counted against that 1 %.",
        {
            **titled(dead_labels, "model", "optimizer"),
            "ReLU on the outputs": ["yes" if relu else "no" for relu in dead_labels.output_relu],
            "output bias": [bias or "PyTorch's" for bias in biases],
            "seed: dead labels": [labels or "no seed has all" for labels in dead_labels.by_seed],
            "mean": map("{:.1f}".format, dead_labels["mean"]),
            "accuracy %": map("{:.1f}".format, 100 * dead_labels.accuracy),
            "n": dead_labels.n,
        },
    )
    return Section("The ReLU on the outputs", [text], [table])


def normalization_section(normalization: pandas.DataFrame) -> Section:
    """Whether it is the weights or the step size."""
    text = (
        "PyTorch divides a weighted batch by the sum of its weights; divided by its images, "
        "larger weights also mean larger steps."
    )
    table = wording.estimates_table(
        normalization,
        "Test accuracy % by the divisor of the weighted loss, and the difference in points, "
        "paired over n seeds.",
        ["model", "optimizer", "weight", "label"],
        "normalize",
    )
    return Section("Weights or step size", [text], [table])


def augmentation_section(images: Images | str) -> Section:
    """Figure 3, or why there is none."""
    if isinstance(images, str):
        return Section("Augmentation", [f"Figure 3 is missing: {images}"])
    picture = Picture(
        "figure_3",
        "A training image of each rare label and its copies: to 40 % by the first noise and ±15° "
        "alone, to 100 % by all ten (AI3607, Figure 3).",
        figures.draw_samples(images.samples, copy_names(images.copies)),
    )
    return Section("Augmentation", pictures=[picture])


def explorer_section(gathered: Gathered, images: Images | str) -> Section:
    """All conditions, one at a time; on the page alone."""
    text = "One condition at a time: how it learned, what it takes for what, and some mistakes."
    known = None if isinstance(images, str) else images
    by = ["optimizer", "model", "condition"]
    if any((gathered.runs_on(ground).groupby(by).size() > CURVES).any() for ground in GROUNDS):
        text += f" Learning curves are those of the {CURVES} smallest seeds."
    return Section("Explorer", [text], explorer=explorer(gathered, known))


def missing_section(gathered: Gathered, missing: Missing, left_out: pandas.DataFrame) -> Section:
    """Which runs are missing or stand in no comparison, and which records are damaged."""
    by = ["model", "optimizer", "experiment", "condition"]
    untrained = missing.runs.groupby(by, sort=False).seed.unique().reset_index()
    tables = [
        wording.table(
            "Runs of another length, and others that are in no comparison.",
            {
                "why": left_out.why,
                **titled(left_out, "model", "optimizer", "condition"),
                **{name: left_out[name] for name in ("epochs", "steps", "seeds")},
            },
        ),
        wording.table(
            "Runs without a result; `python -m mnist_imbalance.study` trains them.",
            {
                **titled(untrained, "model", "optimizer"),
                "overlay": untrained.experiment,
                "condition": map(condition_title, untrained.condition),
                "seeds": [", ".join(map(str, sorted(seeds))) for seeds in untrained.seed],
            },
        ),
    ]
    damaged = [f"Damaged record: {line}" for line in gathered.damaged]
    return Section("Missing runs", damaged, tables if len(left_out) else tables[1:])


def method_section(gathered: Gathered, overrides: Sequence[str]) -> Section:
    """How the numbers came about."""
    told = gathered.told

    def counted(values: Iterable[object]) -> str:
        return ", ".join(
            f"{value} ({count})" for value, count in Counter(map(str, values)).most_common()
        )

    made = Section(
        "Method",
        [
            "A run trains on MNIST less a validation set of held-out images; the test set is "
            "scored once, after the last epoch. A seed changes the initial weights, the order of "
            "the images and, unless `data.seed` is set, the choice of the images that are held out "
            "and kept. Differences are paired by seed.",
            "The rules were written down in `docs/protocol.md` before the controls were trained; "
            "AI3607's claims are judged mostly on runs that had been seen by then. "
            "An interval is Student's t-interval of the mean over seeds, 95 % each, given this "
            "test set. A claim holds if every comparison's interval lies above zero "
            "(intersection–union), is contradicted if some comparison lies below zero after Holm's "
            "correction, and is no difference if every interval lies within the margin (two "
            "one-sided tests): 1 point of accuracy for the LSTM, 0.5 for any other model and for "
            "models compared. Otherwise, and with one seed, it is undecided. Verdicts are shown "
            "raw and after Holm's correction within their family.",
            "The augmented and the original sets hold more images than the imbalanced one, so that "
            "their runs take more steps in as many epochs, as in AI3607. At equal steps they are "
            "trained for fewer epochs.",
        ],
    )
    if overrides:
        changed = ", ".join(f"`{override}`" for override in overrides)
        made.paragraphs.append(f"Every run was changed by {changed}.")
    if told:
        hours = sum(each.seconds for each in told) / 3600
        held_out, epochs, devices, threads, torch = (
            counted(values) for values in zip(*(each.origin for each in told), strict=True)
        )
        made.paragraphs.append(
            f"Runs: {len(told)}, {hours:.1f} hours of training in all. Epochs: {epochs}. Images "
            f"held out of each label: {held_out}. Device: {devices}. Threads a run: {threads}. "
            f"torch: {torch}."
        )
    return made


def sections(
    gathered: Gathered,
    missing: Missing,
    overrides: Sequence[str],
    tidy: Tidy,
    images: Images | str,
) -> list[Section]:
    """Return everything in order; that of which there are no runs is left out.

    Args:
        gathered: Finished runs.
        missing: Those that the study plans beside them.
        overrides: Of the study, for every run.
        tidy: The tables, by name.
        images: Of the data set, or the reason why there are none.
    """
    of_tables: dict[str, Callable[[pandas.DataFrame], Section]] = {
        "learning_curves": learning_section,
        "claims": claims_section,
        "all_conditions": models_section,
        "table_1": table_1_section,
        "differences": differences_section,
        "weight_sweep": lambda sweep: weights_section(sweep, tidy["optimum"]),
        "selection": selection_section,
        "components": spread_section,
        "dead_labels": output_relu_section,
        "normalization": normalization_section,
    }
    made = [opening_section(gathered, missing, tidy)]
    if not gathered.runs.empty:
        made.append(explorer_section(gathered, images))
    if (tidy["compared"].n > 0).any():
        made.append(remedies_section(gathered, tidy))
    if len(tidy["ranked"]):
        made.append(methods_section(tidy))
    made += [make(tidy[name]) for name, make in of_tables.items() if not tidy[name].empty]
    made += [
        *(confusion_section(gathered), augmentation_section(images)),
        method_section(gathered, overrides),
    ]
    if len(missing.runs) or gathered.damaged or len(tidy["left_out"]):
        made.append(missing_section(gathered, missing, tidy["left_out"]))
    return [each for each in made if each.paragraphs or each.pictures or each.tables]
