"""Fills the templates of this folder with sections."""

import json
import math
import re

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from mnist_imbalance.report.sections import Section
from mnist_imbalance.report.verdicts import UNDECIDED, VERDICTS
from mnist_imbalance.report.wording import BETTER, REACHED, Table

# which verdict's colour a cell of a table has
SHADES = {word: verdict for words in (REACHED, BETTER) for verdict, word in words.items()}
SHADES |= {verdict: verdict for verdict in VERDICTS} | {"?": UNDECIDED}
WIDEST = 50  # points, at the ends of the claims' axis


def anchor(text: str) -> str:
    """Return a heading's address within the page."""
    return re.sub(r"\W+", "-", text.lower()).strip("-")


def lines(text: str) -> Markup:
    """Keep line breaks and `code` in HTML."""
    escaped = Markup("<br>").join(escape(line) for line in text.split("\n"))
    return Markup(re.sub("`([^`]*)`", r"<code>\1</code>", str(escaped)))


def in_script(value: object) -> Markup:
    """Give JSON that may stand in a script element."""
    return Markup(json.dumps(value, separators=(",", ":")).replace("<", r"\u003c"))


def root(value: float) -> float:
    """Return where an effect stands on the claims' axis, whose steps are those of square roots."""
    return round(math.copysign(math.sqrt(min(abs(value), WIDEST) / WIDEST), value) * 100, 1)


def inline(svg: str) -> Markup:
    """Give an SVG file's content as it may stand in a page, whose font it has."""
    return Markup(re.sub(r' (?:xmlns(?::xlink)?|version|font-family)="[^"]*"', "", svg))


def plain(text: str) -> str:
    """Return text in which nothing but `code` has a meaning in Markdown or HTML."""
    parts = re.split(r"(`[^`\n<&]*`)", text)
    for place, part in enumerate(parts):
        if place % 2 == 0:
            part = part.replace("&", "&amp;").replace("<", "&lt;")
            part = re.sub(r"[*`\\]|\](?=[(\[])", r"\\\g<0>", part)
        parts[place] = part.replace("|", r"\|")
    return "".join(parts)


def markdown(table: Table) -> str:
    """Return a table for a repository's page."""
    laid_out = [
        "| " + " | ".join(plain(cell).replace("\n", "<br>") for cell in row) + " |"
        for row in (table.columns, *table.rows)
    ]
    laid_out.insert(1, "| " + " | ".join(["---"] * len(table.columns)) + " |")
    return "\n".join([plain(f"{table.caption} {table.note}".strip()), "", *laid_out])


def render(name: str, made: list[Section]) -> str:
    """Fill a template of this folder."""
    environment = Environment(
        loader=PackageLoader("mnist_imbalance.report", "."),
        autoescape=name.endswith(".html.j2"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    filters = (anchor, lines, inline, in_script, root, plain, markdown)
    environment.filters.update({each.__name__: each for each in filters})
    return environment.get_template(name).render(sections=made, verdicts=VERDICTS, shades=SHADES)
