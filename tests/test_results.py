"""The committed records and what is said about them."""

from pathlib import Path

import pytest
from conftest import REPOSITORY

from mnist_imbalance.plan import read_study
from mnist_imbalance.report.write import write_report


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rebuilt")
    overrides = [f"runs_dir={folder / 'runs'}", f"records_dirs=[{REPOSITORY / 'results'}]"]
    return write_report(read_study([*overrides, f"study.report_dir={folder}"])).parent


def test_the_committed_report_is_what_the_committed_records_give(rebuilt: Path) -> None:
    committed = REPOSITORY / "report"
    tables = sorted(path.name for path in (rebuilt / "tables").iterdir())
    assert tables == sorted(path.name for path in (committed / "tables").iterdir())
    for name in ["report.md", "finding.md", "ranking.md", *(f"tables/{table}" for table in tables)]:
        assert (committed / name).read_text() == (rebuilt / name).read_text(), name
    for picture in (rebuilt / "figures").iterdir():
        assert (committed / "figures" / picture.name).exists()


def test_the_readme_opens_with_the_finding_and_the_ranking(rebuilt: Path) -> None:
    readme = (REPOSITORY / "README.md").read_text()
    finding = (rebuilt / "finding.md").read_text()
    assert f"mnist_imbalance.report -->\n{finding}<!-- end of" in readme
    ranking = (rebuilt / "ranking.md").read_text()
    assert f"mnist_imbalance.report -->\n{ranking}<!-- end of" in readme
    assert readme.index(finding) < readme.index(ranking) < readme.index("## ")
