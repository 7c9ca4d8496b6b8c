"""How numbers and names are written, and in which order: the filters of the templates."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from operator import methodcaller
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mnist_imbalance.report import claims

WEIGHT = "loss.minority_weight="
T_OF_TWO = 12.706204736  # Student's t at 97.5 %, of two seeds
WIDE = 0.2  # an interval with longer halves says less than the values' span
FRACTIONS = ("fraction", "copies", "augmented")  # estimates with Fieller's interval
NAMES = claims.load("names.yaml")
TITLES: dict[str, str] = NAMES["titles"]


def sort_key(column: pd.Series) -> pd.Series:
    """Return the sort key of models, optimizers and conditions; of other columns MNIST is first."""
    if column.name not in ("model", "optimizer", "condition"):
        return column.replace("mnist", "")
    known = {name: rank for rank, name in enumerate(TITLES)}

    def key(name: str) -> tuple[Any, ...]:
        weight, rank = name.partition(WEIGHT)[2], known.get(name.split(", ")[0], len(known))
        rest = re.sub(rf", {WEIGHT}[^,]*", "", name)
        return rank, rest, float(weight.split(",")[0] or 7), name

    return column.map({name: rank for rank, name in enumerate(sorted(column.unique(), key=key))})


def part_title(part: str) -> str:
    """Return a part of a name in words: "γ 0.1", "cRT", "no output ReLU", "root weighted"."""
    key, _, value = part.rpartition("=")
    if part in TITLES or "." not in key:  # a choice
        return TITLES.get(part) or TITLES.get(value) or value.replace("_", " ")
    settings, last = NAMES["settings"], key.rpartition(".")[2]
    said = settings.get(key) or settings.get(last) or last.replace("_", " ")
    said = {"True": said, "False": f"no {said}", "None": f"no {said}"}.get(value, f"{said} {value}")
    return keep_title(value) if key == "data.keep" else said


def title(name: object) -> str:
    """Return what a reader calls a model, a condition, a method, a setting, or two of them."""
    named = str(name)
    for phrase, said in NAMES["phrases"].items():
        named = re.sub(phrase, said, named)
    part = r"[^\s,−][^,−]*?(\[.*?\])?(?=, | − |$)"  # a list is one
    return re.sub(part, lambda found: part_title(found[0]), named)


def method(name: str) -> str:
    """Return what a reader calls a method whose setting stands beside it."""
    return "one weight" if name == "weighted" else title(name)


def group(name: str) -> str:
    """Return what a reader calls a label or a group: "labels 0–4", "label 3", "all labels"."""
    name = name.removeprefix("label ")
    labels = "label" if name.isdigit() else "labels"
    short = "all labels" if name == "all" else name
    return short if name.isalpha() else f"{labels} {name.replace('-', '–')}"


def keep_title(keep: float | str) -> str:
    """Return how many images an imbalance keeps: "10 % kept", "18.01 to 19.36 % kept", or words."""
    if re.search("[:a-df-z]", str(keep)):
        return str(keep)
    kept = [round(100 * float(part), 2) for part in re.findall(r"[\d.e-]+", str(keep))]
    return f"{span([part for part in kept if part < 100] or kept)} % kept"


def number(value: float, form: str = ".1f", scale: float = 100) -> str:
    """Return a number in points or %; nothing for nan."""
    written = "" if math.isnan(value) else format(scale * value, form)
    return written if "g" in form else written.replace("-", "−")


def interval(row: Any, name: str = "effect", form: str = "+.2f", scale: float = 100) -> str:
    """Return an estimate with its interval, if that says anything: "+0.92 [+0.02, +1.82]"."""
    prefix = "" if name in ("effect", "fraction", "mean") else f"{name}_"
    value, low, high = (row[key] for key in (name, f"{prefix}low", f"{prefix}high"))
    if row.get("n") == 2 and name not in FRACTIONS:  # the two seeds' values
        apart = (high - low) / 2 / T_OF_TWO
        return " and ".join(number(end, form, scale) for end in (value - apart, value + apart))
    says_nothing = scale == 100 and high - low > 1  # wider than all that there is
    value, low, high = (number(each, form, scale) for each in (value, low, high))
    return f"{value} [{low}, {high}]" if low and not says_nothing else value


def percent(row: Any) -> str:
    """Return a mean in % ± half of its interval, or the span of the values if that is wide."""
    half = (row["high"] - row["low"]) / 2
    if row["n"] == 2 or half > WIDE:
        between = " and " if row["n"] == 2 else " to "
        return between.join(number(row[end]) for end in ("least", "most"))
    return f"{number(row['mean'])} ± {number(half)}" if half == half else number(row["mean"])


def fraction(row: Any) -> str:
    """Return the fraction of the loss that is restored, in %, with Fieller's interval."""
    if math.isnan(row["fraction"]):
        return "unknown"
    value, *ends = interval(row, "fraction", ".0f").partition(" ")
    return f"{value} %{''.join(ends)}"


def span(counts: Iterable[float]) -> str:
    """Return the least and the most: "3 to 5"."""
    ordered = sorted({*counts})
    return " to ".join(f"{count:g}" for count in ordered[:: max(1, len(ordered) - 1)])


def counted(values: Iterable[Any], key: str = "") -> str:
    """Return values, or those of a key, with their counts: "50 (275), 28 (80)"."""
    counts = Counter(str(value.get(key) if key else value) for value in values)
    return ", ".join(f"{value} ({count})" for value, count in counts.most_common())


def header(columns: list[str]) -> Markup:
    """Return the first two lines of a table."""
    return Markup(f"| {' | '.join(map(plain, columns))} |\n|{' --- |' * len(columns)}")


def pivot(table: pd.DataFrame, by: list[str], column: str) -> Iterator[tuple[Any, Any]]:
    """Yield for each line of a table its keys, and its cells by the value of another column."""
    for keys, cells in table.groupby(by, sort=False):
        yield keys, cells.set_index(column, drop=False).to_dict("index")


def file_name(picture: str, optimizer: str, unnamed: str = "sgd") -> str:
    """Return a picture's name, which tells the optimizer unless it is the usual one."""
    return picture if optimizer == unnamed else f"{picture}_{re.sub('[^a-z0-9]+', '-', optimizer)}"


def plain(value: object) -> Markup:
    """Escape what has a meaning in Markdown or HTML, but for `code`."""
    if isinstance(value, Markup):
        return value
    code_or_mark, html = r"(`[^`\n<&]*`)|[&<*`\\]|\](?=[(\[])", {"&": "&amp;", "<": "&lt;"}
    text = re.sub(code_or_mark, lambda m: m[1] or html.get(m[0], f"\\{m[0]}"), str(value))
    return Markup(text.replace("|", r"\|"))


def tidy(markdown: str) -> str:
    """Return Markdown with one line per paragraph, and one blank line between paragraphs."""
    parts = [part.strip() for part in re.split(r"\n\s*\n", markdown)]
    whole = ("|", "- ", "<", "#", "```")
    lines = (part if part.startswith(whole) else re.sub(r"\s*\n\s*", " ", part) for part in parts)
    return "\n\n".join(filter(None, lines)) + "\n"


def render(template: str, **context: Any) -> str:
    """Fill a template of this folder; in Markdown every value is escaped by `plain`."""
    markdown = template.endswith(".md.j2")
    escaping = {"finalize": plain, "lstrip_blocks": True, "trim_blocks": True}
    options: dict[str, Any] = escaping if markdown else {}
    loader = PackageLoader("mnist_imbalance.report", ".")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, **options)
    filters = (counted, file_name, fraction, group, header, interval, keep_title, method)
    environment.filters |= {f.__name__: f for f in (*filters, number, percent, pivot, span, title)}
    environment.filters["rows"] = methodcaller("to_dict", "records")
    environment.globals |= {**NAMES, "claims": claims, "blocks": {}, "part": ""}
    filled = environment.get_template(template).render(context)
    return tidy(filled) if markdown else filled
