"""Writes the report's folder: pages, figures and CSV files."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy
import pandas
from rich.console import Console

from mnist_imbalance.config import compose_with
from mnist_imbalance.errors import ConfigError
from mnist_imbalance.files import write_whole
from mnist_imbalance.plan import StudyKeys
from mnist_imbalance.report import figures, tables
from mnist_imbalance.report.claims import judge_claims
from mnist_imbalance.report.gather import Gathered, find_missing, gather
from mnist_imbalance.report.names import copy_names
from mnist_imbalance.report.remedies import compared, restored
from mnist_imbalance.report.render import markdown, plain, render
from mnist_imbalance.report.sections import Picture, Section, Tidy, how_complete, sections

if TYPE_CHECKING:
    from mnist_imbalance.data import MNISTData


def read_images(overrides: Sequence[str]) -> "MNISTData | str":
    """Read the images of the study's augmented set, or say why not.

    Args:
        overrides: Of every run of the study.
    """
    from mnist_imbalance.config import build  # here only: the rest needs no torch

    of_data = [override for override in overrides if override.lstrip("+~").startswith("data")]
    try:
        data: MNISTData = build(compose_with(["data=augmented_100", *of_data]), "data")
        data.setup()
    except ConfigError as error:
        return str(error)
    return data


def figure_3(data: "MNISTData") -> Picture:
    """Draw the copies that augmentation makes."""
    names = copy_names([dict(copy) for copy in data.copies])
    samples = data.sample().numpy()
    samples = samples.reshape(len(names), -1, *samples.shape[-2:])
    return Picture(
        "figure_3",
        "A kept training image of each rare label and its copies: to 40 % by the first noise "
        "and ±15° alone, to 100 % by all ten (AI3607, Figure 3).",
        figures.draw_samples(samples, names),
    )


def tabulate(gathered: Gathered, labels: numpy.ndarray | None) -> dict[str, pandas.DataFrame]:
    """Make all tidy tables, by name.

    Args:
        gathered: Finished runs.
        labels: (N,) of the test set, for what predictions tell; None where they are unknown.
    """
    makers = (
        *(
            restored,
            tables.components,
            tables.table_1,
            tables.all_conditions,
            tables.at_equal_steps,
        ),
        *(tables.differences, tables.weight_sweep, tables.selection, tables.optimum),
        *(tables.dead_labels, tables.normalization, tables.learning_curves, tables.runs),
        tables.left_out,
    )
    tidy = {make.__name__: make(gathered) for make in makers}
    return tidy | {"claims": judge_claims(gathered), "compared": compared(gathered, labels)}


def write_report(keys: StudyKeys) -> Path:
    """Write ``index.html``, ``report.md``, ``finding.md``, ``figures/`` and ``tables/``.

    What is under way is shown on standard error, where that is a terminal.

    Returns:
        The page to open.

    Raises:
        ConfigError: There is nothing to report, or nowhere to write it.
    """
    with Console(stderr=True).status("report: the records") as status:
        gathered = gather(keys)
        if not gathered.results:
            damaged = f", and {len(gathered.damaged)} damaged ones" if gathered.damaged else ""
            raise ConfigError(
                "runs_dir, records_dirs: no result of a run below "
                f"{', '.join([keys.runs_dir, *keys.records_dirs])}{damaged}"
            )
        status.update("report: which runs are missing")
        missing = find_missing(keys.study, gathered.results)
        status.update("report: the images")
        data = read_images(keys.study.overrides)
        labels = None if isinstance(data, str) else data.test[1].numpy()
        status.update("report: tables and claims")
        tidy = {**tabulate(gathered, labels), "missing": missing.runs}
        samples = data if isinstance(data, str) else figure_3(data)
        made = sections(gathered, missing, keys.study.overrides, tidy, samples)
        status.update("report: pages and figures")
        write_files(Path(keys.study.report_dir), made, tidy)
    for line in gathered.damaged:
        print(f"damaged record left out: {line}")
    page = Path(keys.study.report_dir) / "index.html"
    print(f"{how_complete(gathered, missing)}; the report: {page}")
    return page


def write_files(folder: Path, made: list[Section], tidy: Tidy) -> None:
    """Write pages, figures and tables."""
    first = made[0]
    finding = "\n\n".join([*map(plain, first.paragraphs), *map(markdown, first.tables)])
    files: dict[str, str | bytes] = {
        "index.html": render("page.html.j2", made),
        "report.md": render("report.md.j2", made),
        "finding.md": f"{finding}\n",
    }
    for name, table in tidy.items():
        csv = table.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        files[f"tables/{name}.csv"] = csv
    for picture in (picture for section in made for picture in section.pictures):
        files[f"figures/{picture.name}.svg"] = picture.svg
        files[f"figures/{picture.name}.png"] = figures.png(picture.svg)
    try:
        for name, content in files.items():
            write_whole(folder / name, content)
    except OSError as error:
        raise ConfigError(f"study.report_dir: {error.filename}: {error.strerror}") from error
