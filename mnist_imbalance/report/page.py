"""Records → the report's folder: report.md, its gist, index.html, figures/ and tables/."""

import base64
import io
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from markdown_it import MarkdownIt
from omegaconf import DictConfig
from rich.console import Console
from torchvision.transforms.v2.functional import to_pil_image
from torchvision.utils import make_grid

from mnist_imbalance.config import build, compose_with
from mnist_imbalance.data.copies import Copy, expand
from mnist_imbalance.data.module import MNISTData
from mnist_imbalance.data.sources import Images
from mnist_imbalance.errors import ConfigError, naming
from mnist_imbalance.records import table as records
from mnist_imbalance.records.result import write_whole
from mnist_imbalance.report import figures, ranking, tables
from mnist_imbalance.report.words import group, render, title

BLOCKS = {"explorer": '<div id="explore"></div>', "claims": '<div id="claims-list"></div>'}
ROW, MAX_MISTAKES, MAX_SEEDS = 40, 2, 20  # digits in a row, mistakes per label, seeds on the page


def read_images(overrides: Iterable[str]) -> tuple[Images, list[Copy]]:
    """Return the images of runs with some overrides, and AI3607's copies, or raise ConfigError."""
    own = [override for override in overrides if override.lstrip("+~").startswith("data")]
    data: MNISTData = build(compose_with(["data=augmented_100", *own]), "data")
    if not data.dir.is_dir():
        raise ConfigError(f"data.dir: there is no folder {data.dir}")  # and none is downloaded
    return data.source(data.dir), [*data.copies]


def data_url(pixels: torch.Tensor) -> str:
    """Return an image, (C, H, W) uint8, as an address that needs no file."""
    to_pil_image(pixels).save(content := io.BytesIO(), "png")
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"


def samples(runs: pd.DataFrame, images: Images, copies: Sequence[Copy]) -> pd.DataFrame:
    """Return the first training image of each rare label in all its copies."""
    (pixels, known), rare = images.train, tables.rare_and_frequent(runs)[0]
    first = [int((known == n).int().argmax()) for n in ranking.groups_of(runs).get(rare, [])]
    every, noise = torch.ones(len(first), dtype=torch.bool), torch.Generator().manual_seed(0)
    copied, labels = expand(pixels[first], known[first], every, copies, noise)
    rows = pd.DataFrame([copy.model_dump() for copy in copies for _ in first])
    return rows.assign(label=labels.tolist(), image=[data_url(i) for i in copied])


def explore(runs: pd.DataFrame, images: Images | None, labels: tables.Labels) -> dict[str, Any]:
    """Return for JSON every condition with its curves, confusion matrix and some mistakes."""
    names = [*tables.FAMILY, "condition"]
    parts = tables.select_budget(runs, *tables.BUDGETS)
    drawn = parts.groupby(names, sort=False).head(MAX_SEEDS).drop_duplicates("config_hash")
    groups = [*dict.fromkeys(tables.rare_and_frequent(drawn))]
    curves = tables.validation_curves(drawn)
    curves["accuracy"] = (1000 * curves.accuracy).round().astype(int)
    predicted = tables.predictions(drawn, labels)
    sets: list[dict[str, Any]] = []
    for keys, own in parts.groupby(names, sort=False):
        wide = curves[curves.config_hash.isin(own.config_hash)]
        wide = wide.pivot(index="step", columns=["label", "seed"], values="accuracy").dropna()
        shown = dict(zip(names, map(title, keys), strict=True)) | {
            **{"n": len(own), "steps": wide.index.tolist(), "seed": None, "mistakes": []},
            "curves": [wide[name].T.to_numpy().tolist() for name in groups if len(wide)],
            "confusion": own.test_confusion.sum().tolist(),
        }
        known = own[own.config_hash.isin(predicted)].set_index("seed").config_hash.sort_index()
        for seed, key in known.head(1).items():
            wrong = np.flatnonzero(predicted[key] != labels)
            cells = pd.DataFrame({0: wrong, 1: labels[wrong], 2: predicted[key][wrong]})
            first = cells.groupby(1).head(MAX_MISTAKES).sort_values([1, 0])
            shown |= {"seed": int(seed), "mistakes": first.to_numpy().tolist()}
        sets.append(shown)
    found = {"groups": [*map(group, groups)], "colors": figures.SPARE[: len(groups)], "row": ROW}
    found |= {"rare": ranking.groups_of(drawn).get(groups[0], []), "sets": sets, "images": []}
    chosen = sorted({image for shown in sets for image, *_ in shown["mistakes"]})
    if images and chosen:
        grid = make_grid(images.test[0][chosen], nrow=ROW, padding=0)[: images.test[0].shape[1]]
        found |= {"images": chosen, "digits": data_url(grid)}
    return found


def page(text: str, drawn: dict[str, str], explored: dict[str, Any]) -> str:
    """Return the page of a report in Markdown, its figures in place of their names."""
    body = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    body = body.replace("<table>", '<div class="scroll" tabindex="0"><table>')
    body = body.replace("</table>", "</table></div>")
    body = re.sub(r"<!-- (\w+) -->", lambda figure: drawn[figure[1]], body)
    # a heading may end with its name in the navigation, as a comment
    _, name, _, intro, *parts = re.split("<h[12]>(.*?)(?: <!-- in short: (.*) -->)?</h[12]>", body)
    sections = [
        (re.sub(r"\W+", "-", (short or heading).lower()), short or heading, heading, text)
        for heading, short, text in zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    ]
    data = json.dumps(explored, separators=(",", ":")).replace("<", r"\u003c")
    return render("page.html.j2", title=name, intro=intro, sections=sections, data=data)


def contents(runs: pd.DataFrame, damaged: list[str], overrides: Iterable[str]) -> dict[str, str]:
    """Return the content of all files by name, from runs that all had some overrides."""
    images, no_images, copies = None, "", list[Copy]()
    try:
        images, copies = read_images(overrides)
    except ConfigError as error:
        no_images = str(error)
    every, runs = runs, tables.assign_budgets(runs)
    labels = images.test[1].numpy() if images else np.array([], int)
    tidy = tables.all_tables(every, runs, labels)
    shown = {"confusion": tables.confusion(runs)}
    shown["samples"] = samples(runs, images, copies) if images else pd.DataFrame()
    drawn = {name: figures.svg(figure) for name, figure in figures.draw(tidy | shown).items()}
    known: dict[str, Any] = {"tables": tidy, "runs": runs, "records": every}
    known |= {"groups": tables.rare_and_frequent(runs), "damaged": damaged}
    known |= {"no_images": no_images, "figures": {name: f"<!-- {name} -->" for name in drawn}}
    text = render("report.md.j2", **known, blocks=BLOCKS)
    files = {"index.html": page(text, drawn, explore(runs, images, labels))}
    files["report.md"] = render("report.md.j2", **known)
    files["finding.md"] = render("report.md.j2", **known, part="finding")
    for name, table in tidy.items():
        files[f"tables/{name}.csv"] = table.to_csv(index=False, float_format="%.6g")
    return files | {f"figures/{name}.svg": content for name, content in drawn.items()}


def write_report(config: DictConfig) -> Path:
    """Write the report, to ``<runs_dir>/report`` if runs_dir has results, else to ``report/``."""
    roots, own = [config.runs_dir, *config.records_dirs], Path(config.runs_dir).rglob("result.json")
    usual = Path(config.runs_dir, "report") if any(own) else "report"
    folder = Path(config.study.report_dir or usual)
    with Console(stderr=True).status("writing the report"):
        runs, damaged = records.read(roots)
        for line in damaged:
            print(f"damaged record left out: {line}")
        if runs.empty:
            raise ConfigError(f"runs_dir, records_dirs: no result below {', '.join(roots)}")
        files = contents(runs, damaged, config.study.overrides)
    with naming("study.report_dir"):
        for name, content in files.items():
            write_whole(folder / name, content)
    print(f"{len(runs)} runs; the report: {folder / 'index.html'}")
    return folder / "index.html"
