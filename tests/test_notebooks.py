"""The notebooks are stored with what they show, and run from top to bottom."""

import re
from pathlib import Path

import nbformat
import pytest
from conftest import REPOSITORY
from nbformat import NotebookNode

from notebooks.execute import NOTEBOOKS, execute

OF_ONE_RUN = re.compile(r"/tmp|/home|/root|0x[0-9a-f]{6}|\d\d:\d\d|it/s|Warning|Traceback")


def kinds(notebook: NotebookNode) -> list[list[str]]:
    """The kinds of output of each cell."""
    return [
        [kind for each in cell.outputs for kind in each.get("data", [each.output_type])]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_stored_with_what_it_shows_and_nothing_of_when_and_where(path: Path) -> None:
    notebook: NotebookNode = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}
    assert all(cell.metadata == {} for cell in notebook.cells)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
    assert sum(cell.count("image/png") for cell in kinds(notebook)) >= 4
    for output in (output for cell in cells for output in cell.outputs):
        texts = {kind: text for kind, text in output.get("data", {}).items() if "image" not in kind}
        shown = f"{output.get('text', '')} {texts}"
        assert not OF_ONE_RUN.search(shown) and str(REPOSITORY) not in shown
    assert path.stat().st_size < 600_000


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_from_top_to_bottom_and_shows_as_much_as_is_stored(path: Path, tmp_path: Path) -> None:
    quick = r"trainer.max_epochs=1\", \"+trainer.limit_train_batches=20"
    text = path.read_text(encoding="utf-8").replace("trainer.max_epochs=3", quick)
    (tmp_path / path.name).write_text(text, encoding="utf-8")
    assert kinds(execute(tmp_path / path.name)) == kinds(nbformat.read(path, as_version=4))
