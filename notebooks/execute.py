"""Run the notebooks and keep what they show: python -m notebooks.execute."""

from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

NOTEBOOKS = sorted(Path(__file__).parent.glob("*.ipynb"))
SECONDS_A_CELL = 300


def execute(path: Path) -> NotebookNode:
    """Return a notebook with its outputs, and with nothing that tells when and where it ran.

    Raises:
        CellExecutionError: What a cell raises.
    """
    notebook: NotebookNode = nbformat.read(path, as_version=4)
    metadata = notebook.metadata
    where = {"metadata": {"path": str(path.parent)}}  # as Jupyter starts it
    client = NotebookClient(
        notebook, timeout=SECONDS_A_CELL, kernel_name="python3", resources=where
    )
    client.execute()
    notebook.metadata = metadata | {"language_info": {"name": "python"}}
    for cell in notebook.cells:
        cell.metadata = {}
        for output in cell.get("outputs", []):
            if len(output.get("data", {})) > 1:
                del output["data"]["text/plain"]  # may hold an address in memory
    return notebook


if __name__ == "__main__":
    for each in NOTEBOOKS:
        print(each.name, flush=True)
        nbformat.write(execute(each), each)
