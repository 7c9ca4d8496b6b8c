import re
from pathlib import Path

import nbformat
import pytest
from conftest import REPOSITORY
from nbformat import NotebookNode

from notebooks.execute import NOTEBOOKS, execute

OF_ONE_RUN = re.compile(r"/tmp|/home|/root|0x[0-9a-f]{6}|\d\d:\d\d|it/s|Warning|Traceback")


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def texts(notebook: NotebookNode) -> list[str]:
    """All that is printed or laid out, pictures left out."""
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    printed = [output.get("text", "") for output in outputs]
    data = [output.get("data", {}) for output in outputs]
    return printed + [str(each[kind]) for each in data for kind in each if "image" not in kind]


def pictures(notebook: NotebookNode) -> int:
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return sum("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_stored_with_what_it_shows_and_nothing_of_when_and_where(path: Path) -> None:
    notebook: NotebookNode = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
    assert all(cell.metadata == {} for cell in notebook.cells)
    assert pictures(notebook) >= 4
    for text in texts(notebook):
        assert not OF_ONE_RUN.search(text)
        assert str(REPOSITORY) not in text
    assert path.stat().st_size < 600_000


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_from_top_to_bottom_and_shows_as_much_as_is_stored(path: Path) -> None:
    stored: NotebookNode = nbformat.read(path, as_version=4)
    shown = execute(path)
    for before, after in zip(code_cells(stored), code_cells(shown), strict=True):
        kinds = [[*each.get("data", [each.output_type])] for each in before.outputs]
        assert kinds == [[*each.get("data", [each.output_type])] for each in after.outputs]
    assert not any(OF_ONE_RUN.search(text) for text in texts(shown))
