"""Fills the templates of this folder with sections."""

import base64
import re

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.figure import Figure
from plotly import graph_objects as go
from plotly.offline import get_plotlyjs

from mnist_imbalance.report import figures
from mnist_imbalance.report.claims import VERDICTS
from mnist_imbalance.report.sections import Section
from mnist_imbalance.report.wording import Table


def anchor(text: str) -> str:
    """Give a heading's address within the page."""
    return text.lower().replace(" ", "-")


def lines(text: str) -> Markup:
    """Keep line breaks and `code` in HTML."""
    escaped = Markup("<br>").join(escape(line) for line in text.split("\n"))
    return Markup(re.sub("`([^`]*)`", r"<code>\1</code>", escaped))


def data_url(figure: Figure) -> str:
    """Give a figure as the address of an image that needs no file."""
    return "data:image/png;base64," + base64.b64encode(figures.render(figure, "png")).decode()


def plot_json(plot: go.Figure) -> Markup:
    """Give a plot as JSON that may stand in a script element."""
    return Markup(plot.to_json().replace("</", "<\\/"))


def markdown(table: Table) -> str:
    """Write a table for a repository's page."""
    rows = [table.columns, ["---"] * len(table.columns), *table.rows]
    laid_out = [
        "| " + " | ".join(cell.replace("\n", "<br>") for cell in row) + " |" for row in rows
    ]
    return "\n".join([f"{table.caption}\n", *laid_out])


def render(name: str, made: list[Section]) -> str:
    """Fill a template of this folder."""
    environment = Environment(
        loader=PackageLoader("mnist_imbalance.report", "."),
        autoescape=name.endswith(".html.j2"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    filters = (anchor, lines, data_url, plot_json, markdown)
    environment.filters.update({each.__name__: each for each in filters})
    return environment.get_template(name).render(
        sections=made, verdicts=VERDICTS, plotly_js=Markup(get_plotlyjs())
    )
