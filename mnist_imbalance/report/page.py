"""Records → the report's folder: report.md, its gist, index.html, figures/ and tables/."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from markdown_it import MarkdownIt
from omegaconf import DictConfig
from rich.console import Console

from mnist_imbalance.config import build, compose_with
from mnist_imbalance.data.copies import Copy
from mnist_imbalance.data.module import MNISTData
from mnist_imbalance.data.sources import Images
from mnist_imbalance.errors import ConfigError
from mnist_imbalance.records import table as records
from mnist_imbalance.records.result import write_whole
from mnist_imbalance.report import explorer, figures, tables
from mnist_imbalance.report.words import render

BLOCKS = {"explorer": '<div id="explore"></div>', "claims": '<div id="claims-list"></div>'}


def read_images(overrides: Iterable[str]) -> tuple[Images, list[Copy]]:
    """Return the images of runs with some overrides, and AI3607's copies, or raise ConfigError."""
    own = [override for override in overrides if override.lstrip("+~").startswith("data")]
    data: MNISTData = build(compose_with(["data=augmented_100", *own]), "data")
    if not data.dir.is_dir():
        raise ConfigError(f"data.dir: there is no folder {data.dir}")  # and none is downloaded
    return data.source(data.dir), [*data.copies]


def page(text: str, drawn: dict[str, str], explored: dict[str, Any]) -> str:
    """Return the page of a report in Markdown, its figures in place of their names."""
    body = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    body = body.replace("<table>", '<div class="scroll" tabindex="0"><table>')
    body = body.replace("</table>", "</table></div>")
    body = re.sub(r"<!-- (\w+) -->", lambda name: drawn[name[1]], body)
    _, title, _, *parts = re.split("<h[12]>(.*)</h[12]>", body)
    sections = [
        (re.sub(r"\W+", "-", heading.lower()).strip("-"), heading, content)
        for heading, content in zip(parts[::2], parts[1::2], strict=True)
    ]
    data = json.dumps(explored, separators=(",", ":")).replace("<", r"\u003c")
    return render("page.html.j2", title=title, sections=sections, data=data)


def contents(runs: pd.DataFrame, damaged: list[str], overrides: Iterable[str]) -> dict[str, str]:
    """Return the content of all files by name, from runs that all had some overrides."""
    images, no_images, copies = None, "", list[Copy]()
    try:
        images, copies = read_images(overrides)
    except ConfigError as error:
        no_images = str(error)
    tidy = tables.tabulate(runs, images.test[1].numpy() if images else None)
    runs = tables.on_grounds(runs)
    shown = {"confusion": explorer.confusion(runs)}
    shown["samples"] = explorer.samples(runs, images, copies) if images else pd.DataFrame()
    drawn = {name: figures.svg(figure) for name, figure in figures.draw(tidy | shown).items()}
    known: dict[str, Any] = {"tables": tidy, "runs": runs, "damaged": damaged}
    known |= {"no_images": no_images, "figures": {name: f"<!-- {name} -->" for name in drawn}}
    text = render("report.md.j2", **known, blocks=BLOCKS)
    files = {"index.html": page(text, drawn, explorer.explorer(runs, images))}
    files["report.md"] = render("report.md.j2", **known)
    files["finding.md"] = render("report.md.j2", **known, part="finding")
    if len(tidy["ranked"]):
        files["ranking.md"] = render("report.md.j2", **known, part="ranking")
    for name, table in tidy.items():
        csv = table.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        files[f"tables/{name}.csv"] = csv
    return files | {f"figures/{name}.svg": content for name, content in drawn.items()}


def write_report(config: DictConfig) -> Path:
    """Write the report of ``conf/study.yaml``, below one's own runs if any, and return its page."""
    roots, own = [config.runs_dir, *config.records_dirs], Path(config.runs_dir).rglob("result.json")
    usual = Path(config.runs_dir, "report") if any(own) else "report"
    folder = Path(config.study.report_dir or usual)
    with Console(stderr=True).status("writing the report"):
        runs, damaged = records.read(roots)
        if runs.empty:
            also = f", and {len(damaged)} damaged ones" if damaged else ""
            raise ConfigError(f"runs_dir, records_dirs: no result below {', '.join(roots)}{also}")
        files = contents(runs, damaged, config.study.overrides)
    for line in damaged:
        print(f"damaged record left out: {line}")
    try:
        for name, content in files.items():
            write_whole(folder / name, content)
    except OSError as error:
        raise ConfigError(f"study.report_dir: {error.filename}: {error.strerror}") from error
    print(f"{len(runs)} runs; the report: {folder / 'index.html'}")
    return folder / "index.html"
