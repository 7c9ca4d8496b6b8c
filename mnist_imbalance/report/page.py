"""Records → the report's folder: report.md, its gist, index.html, figures/ and tables/."""

import base64
import io
import json
import re
from collections.abc import Iterable, Mapping
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
from mnist_imbalance.data.copies import expand
from mnist_imbalance.data.sources import Images
from mnist_imbalance.errors import ConfigError, naming
from mnist_imbalance.records import table as records
from mnist_imbalance.records.identity import result_config, to_current
from mnist_imbalance.records.result import write_whole
from mnist_imbalance.report import claims, figures, ranking, tables
from mnist_imbalance.report.words import group, render, title
from mnist_imbalance.training.folder import RunFolder

BLOCKS = {"explorer": '<div id="explore"></div>', "claims": '<div id="claims-list"></div>'}
ROW, MAX_MISTAKES, MAX_SEEDS = 40, 2, 20  # digits in a row, mistakes per label, seeds on the page


def read_images(runs: pd.DataFrame, overrides: Iterable[str]) -> dict[str, Images]:
    """Return images by data set: those of run folders, and the set that overrides choose."""
    own = [override for override in overrides if override.lstrip("+~").startswith("data")]
    usual, found = compose_with(own), dict[str, Images]()
    folders = dict(runs[runs.folder != ""][["dataset", "folder"]].to_numpy())
    for dataset in {records.dataset_of(result_config(usual)), *folders} & {*runs.dataset}:
        try:
            here = RunFolder(Path(folders.get(dataset, "")))
            data = build(to_current(here.config()) if dataset in folders else usual, "data")
            if not data.dir.is_dir():
                raise ConfigError(f"data.dir: there is no folder {data.dir}")  # none is downloaded
            found[dataset] = data.source(data.dir)
        except (ConfigError, OSError) as error:
            print(f"images left out: {error}")
    return found


def data_url(pixels: torch.Tensor) -> str:
    """Return an image, (C, H, W) uint8, as an address that needs no file."""
    to_pil_image(pixels).save(content := io.BytesIO(), "png")
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"


def samples(images: Images) -> pd.DataFrame:
    """Return the first training image of each rare label in all of AI3607's copies."""
    copies = build(compose_with(["data=augmented_100"]), "data").copies
    pixels, known = images.train
    first = [int((known == n).int().argmax()) for n in claims.GROUPS[tables.RARE]]
    every, noise = torch.ones(len(first), dtype=torch.bool), torch.Generator().manual_seed(0)
    copied, labels = expand(pixels[first], known[first], every, copies, noise)
    rows = pd.DataFrame([copy.model_dump() for copy in copies for _ in first])
    return rows.assign(label=labels.tolist(), image=[data_url(i) for i in copied])


def explore(runs: pd.DataFrame, images: Mapping[str, Images]) -> dict[str, Any]:
    """Return for JSON every condition with its curves, confusion matrix and some mistakes."""
    sets, data = list[dict[str, Any]](), dict[str, Any]()
    labels = {name: own.test[1].numpy() for name, own in images.items()}
    for dataset, every in runs.groupby("dataset", sort=False):
        drawn = every.groupby(tables.CONDITION, sort=False).head(MAX_SEEDS)
        drawn, mistaken = drawn.drop_duplicates("config_hash"), set[int]()
        groups = ranking.groups_of(drawn) or {ranking.ALL: []}
        curves, predicted = tables.validation_curves(drawn), tables.predictions(drawn, labels)
        curves["accuracy"] = (1000 * curves.accuracy).round().astype(int)
        for keys, own in every.groupby(tables.CONDITION, sort=False):
            wide = curves[curves.config_hash.isin(own.config_hash)]
            wide = wide.pivot(index="step", columns=["label", "seed"], values="accuracy").dropna()
            shown: dict[str, Any] = dict(zip(tables.CONDITION, map(title, keys), strict=True))
            shown |= {
                **{"n": len(own), "steps": wide.index.tolist(), "seed": None, "mistakes": []},
                "curves": [wide[name].T.to_numpy().tolist() for name in groups if len(wide)],
                "confusion": own.test_confusion.sum().tolist(),
            }
            known = own[own.config_hash.isin(predicted)].set_index("seed").config_hash.sort_index()
            for seed, key in known.head(1).items():
                wrong = np.flatnonzero(predicted[key] != labels[dataset])
                cells = {0: wrong, 1: labels[dataset][wrong], 2: predicted[key][wrong]}
                first = pd.DataFrame(cells).groupby(1).head(MAX_MISTAKES).sort_values([1, 0])
                shown |= {"seed": int(seed), "mistakes": first.to_numpy().tolist()}
                mistaken |= {*first[0].tolist()}
            sets.append(shown)
        about: dict[str, Any] = {"groups": [*map(group, groups)], "images": sorted(mistaken)}
        about["rare"] = next(iter(groups.values()))
        about["classes"] = [*getattr(next(drawn.itertuples()), "class_names", ())]
        if mistaken:
            pixels = images[dataset].test[0][about["images"]]
            grid = make_grid(pixels, nrow=ROW, padding=0)[: pixels.shape[1]]
            about["digits"] = data_url(grid)
        data[title(dataset)] = about
    return {"colors": figures.SPARE, "row": ROW, "sets": sets, "data": data}


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


def contents(every: pd.DataFrame, damaged: list[str], study: Any) -> dict[str, str]:
    """Return the content of all files by name, from runs of a study, see ``conf/study``."""
    images = read_images(every, study.overrides)
    runs, studied = tables.assign_budgets(every), tables.by_training(every)
    if study.baseline not in {None, *studied.condition}:
        raise ConfigError(f"study.baseline: must be one of {'; '.join(studied.condition.unique())}")
    labels = {dataset: own.test[1].numpy() for dataset, own in images.items()}
    tidy = tables.all_tables(every, runs, labels, study.baseline or "")
    shown = {"confusion": tables.confusion(runs), "samples": pd.DataFrame()}
    if len(runs) and ranking.MNIST in images:
        shown["samples"] = samples(images[ranking.MNIST])
    drawn = {name: figures.svg(figure) for name, figure in figures.draw(tidy | shown).items()}
    known: dict[str, Any] = {"tables": tidy, "runs": runs, "records": every}
    known |= {"damaged": damaged, "figures": {name: f"<!-- {name} -->" for name in drawn}}
    text = render("report.md.j2", **known, blocks=BLOCKS)
    files = {"index.html": page(text, drawn, explore(studied, images))}
    files["report.md"] = render("report.md.j2", **known)
    files["finding.md"] = render("report.md.j2", **known, part="finding")
    for name, table in [own for own in tidy.items() if len(own[1])]:
        files[f"tables/{name}.csv"] = table.to_csv(index=False, float_format="%.6g")
    for name, label in re.findall(r'<figure id="(\w+)">.*? aria-label="([^"]*)"', text):
        named = f'<svg role="img" aria-label="{label}"'
        files[f"figures/{name}.svg"] = drawn[name].replace("<svg", named, 1)
    return files


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
        of_others = runs.groupby("dataset").data_sha256.transform("nunique") > 1  # other images
        runs.loc[of_others, "dataset"] += ", images " + runs.data_sha256.str[:4].fillna("unknown")
        # beside run folders, packed runs count if they are on the same data
        runs = runs[runs.dataset.isin({*runs.dataset[runs.folder != ""]} or {*runs.dataset})]
        files = contents(runs, damaged, config.study)
    with naming("study.report_dir"):
        for name, content in files.items():
            write_whole(folder / name, content)
    print(f"{len(runs)} runs; the report: {folder / 'index.html'}")
    return folder / "index.html"
