"""Which runs of a sweep a job of a cluster does."""

import json
from itertools import product
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.experimental.callback import Callback
from hydra.types import HydraContext

from hydra_plugins.mnist_imbalance_ray import RayLauncher
from mnist_imbalance.batched.fit import begun_together
from mnist_imbalance.chunks import chunks
from mnist_imbalance.config import compose_with, hydra_at_conf
from mnist_imbalance.errors import ConfigError
from mnist_imbalance.jobs import check_launcher
from mnist_imbalance.runs import RunFolder

SWEEP = [[f"seed={seed}", f"model={model}"] for seed, model in product(range(4), ("lstm", "cnn"))]
ALONE = ["mix=mixup"]  # no program trains several such runs


def numbers(
    jobs: dict[int, list[str]], side_by_side: int, root: Path = Path("runs")
) -> list[list[int]]:
    """The runs of each job."""
    launcher = RayLauncher(None, 0, 0, side_by_side)
    with hydra_at_conf():
        launcher.config = compose_with(["hydra.mode=MULTIRUN", f"runs_dir={root}"], with_hydra=True)
        launcher.hydra_context = HydraContext(
            GlobalHydra.instance().config_loader(),
            Callback(),  # type: ignore[arg-type]  # Hydra's class for several is private
        )
        return [[*chunk] for chunk in chunks(launcher, jobs)]


def test_a_job_has_runs_that_share_a_program() -> None:
    jobs = dict(enumerate([*SWEEP, ALONE, [*ALONE, "seed=1"]], start=5))
    assert numbers(jobs, 1) == [[number] for number in jobs]
    assert numbers(jobs, 3) == [[5, 7, 9], [11], [6, 8, 10], [12], [13], [14]]
    assert numbers(jobs, 9) == [[5, 7, 9, 11], [6, 8, 10, 12], [13], [14]]


def test_runs_that_were_begun_together_go_on_together(tmp_path: Path) -> None:
    jobs = dict(enumerate(SWEEP))
    *_, (second, fourth), _ = numbers(jobs, 2, tmp_path)
    assert (second, fourth) == (1, 3)
    for name, begun in (("both", [SWEEP[1], SWEEP[3]]), ("gone", [SWEEP[5], ["seed=9"]])):
        folder = RunFolder(tmp_path / ".batched" / name)
        folder.last_checkpoint.parent.mkdir(parents=True)
        (folder.path / "overrides.json").write_text(json.dumps(begun))
        assert begun_together(tmp_path) == []
        folder.last_checkpoint.touch()
        assert begun_together(tmp_path) == [begun]
        if name == "both":
            assert numbers(jobs, 3, tmp_path) == [[1, 3], [0, 2, 4], [6], [5, 7]]
            assert numbers({1: SWEEP[1]}, 3, tmp_path) == [[1]]
            assert numbers({1: SWEEP[1], 3: SWEEP[3], 4: SWEEP[3]}, 3, tmp_path) == [[1, 4], [3]]
            folder.last_checkpoint.unlink()
    assert numbers({5: SWEEP[5], 7: SWEEP[7]}, 3, tmp_path) == [[5, 7]]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("side_by_side=0", "side_by_side: Input should be greater than 0, got 0"),
        ("side_by_side=many", "side_by_side: Input should be a valid integer, got 'many'"),
        ("num_gpus=-1", "num_gpus: Input should be greater than or equal to 0, got -1"),
        ("max_retries=x", "max_retries: Input should be a valid integer, got 'x'"),
    ],
)
def test_a_wrong_key_of_a_launcher_is_one_line(override: str, said: str) -> None:
    overrides = ["hydra/launcher=ray", f"hydra.launcher.{override}"]
    launcher = compose_with(overrides, with_hydra=True).hydra.launcher
    with pytest.raises(ConfigError, match=f"^hydra.launcher.{said}$"):
        check_launcher(launcher)
