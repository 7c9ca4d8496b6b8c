"""Writes the report's folder: pages, figures and CSV files."""

from collections.abc import Sequence
from pathlib import Path

import numpy
import pandas
from rich.console import Console
from rich.progress import Progress

from mnist_imbalance.errors import ConfigError
from mnist_imbalance.files import write_whole
from mnist_imbalance.plan import PlannedRun, StudyKeys, plan
from mnist_imbalance.report import methods, tables
from mnist_imbalance.report.claims import judge_claims
from mnist_imbalance.report.gather import Gathered, find_missing, gather
from mnist_imbalance.report.images import Images, read_images
from mnist_imbalance.report.remedies import compared, restored
from mnist_imbalance.report.render import markdown, plain, render
from mnist_imbalance.report.sections import METHODS, Section, Tidy, how_complete, sections
from mnist_imbalance.report.wording import headline
from mnist_imbalance.runs import files_of_records

STAGES = ("the records", "which runs are missing", "tables and claims", "pages and figures")


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
    of_methods = (
        *(methods.ranked, methods.pairs, methods.metrics),
        *(methods.rules, methods.trainings),
    )
    tidy |= {make.__name__: make(gathered.of_methods) for make in of_methods}
    return tidy | {"claims": judge_claims(gathered), "compared": compared(gathered, labels)}


def place_of_report(keys: StudyKeys) -> Path:
    """Return the folder of the report: with runs of one's own, below these, which git ignores."""
    own = bool(files_of_records(keys.runs_dir))
    return Path(keys.study.report_dir or (f"{keys.runs_dir}/report" if own else "report"))


def write_report(keys: StudyKeys, planned: Sequence[PlannedRun] | None = None) -> Path:
    """Write ``index.html``, ``report.md``, its gist, ``figures/`` and ``tables/``.

    The gist is ``finding.md`` and, where methods were compared, ``ranking.md``.

    How far it is is shown on standard error, where that is a terminal.

    Args:
        keys: Of the study.
        planned: All its runs, if they have been planned.

    Returns:
        The page to open.

    Raises:
        ConfigError: There is nothing to report, or nowhere to write it.
    """
    console = Console(stderr=True)
    quiet = not console.is_terminal
    with Progress(console=console, transient=True, refresh_per_second=2, disable=quiet) as progress:
        bar = progress.add_task("", total=len(STAGES), completed=-1)
        stages = iter(STAGES)

        def begin() -> None:
            progress.update(bar, description=f"report: {next(stages)}", advance=1, refresh=True)

        begin()
        gathered = gather(keys)
        if not gathered.every:
            damaged = f", and {len(gathered.damaged)} damaged ones" if gathered.damaged else ""
            raise ConfigError(
                "runs_dir, records_dirs: no result of a run below "
                f"{', '.join([keys.runs_dir, *keys.records_dirs])}{damaged}"
            )
        begin()
        planned = planned or plan(keys.study)
        missing = find_missing(planned, gathered.every)
        begin()
        images: Images | str
        try:
            images = read_images(keys.study.overrides)
        except ConfigError as error:
            images = str(error)
        labels = None if isinstance(images, str) else images.labels
        tidy = {**tabulate(gathered, labels), "missing": missing.runs}
        begin()
        made = sections(gathered, missing, keys.study.overrides, tidy, images)
        files = contents(made, tidy)
    for line in gathered.damaged:
        print(f"damaged record left out: {line}")
    folder = place_of_report(keys)
    try:
        for name, content in files.items():
            write_whole(folder / name, content)
    except OSError as error:
        raise ConfigError(f"study.report_dir: {error.filename}: {error.strerror}") from error
    page = folder / "index.html"
    print(f"{how_complete(gathered, missing)}; the report: {page}")
    return page


def contents(made: list[Section], tidy: Tidy) -> dict[str, str]:
    """Return what pages, figures and tables hold, by file."""
    first = made[0]
    told = headline(tidy["restored"])
    finding = "\n\n".join([*map(plain, first.paragraphs), *([markdown(told)] if told else [])])
    files = {
        "index.html": render("page.html.j2", made),
        "report.md": render("report.md.j2", made),
        "finding.md": f"{finding}\n",
    }
    for section in made:
        if section.title == METHODS:
            files["ranking.md"] = "".join(f"- {plain(each)}\n" for each in section.paragraphs)
    for name, table in tidy.items():
        csv = table.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        files[f"tables/{name}.csv"] = csv
    for picture in (picture for section in made for picture in section.pictures):
        files[f"figures/{picture.name}.svg"], _ = picture.drawn
    return files
