"""Lightning's loggers of MLflow and Weights & Biases: one run of ours is one run of theirs.

Neither package is imported before such a logger is made.
"""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from logging import WARNING, getLogger
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock
from lightning.pytorch.loggers import MLFlowLogger, WandbLogger

from mnist_imbalance.errors import ConfigError
from mnist_imbalance.files import write_whole
from mnist_imbalance.runs import RunFolder

STORE = "MLFLOW_TRACKING_URI"
ANSWERS_WITHIN = 10  # seconds


def check_server(uri: str) -> None:
    """Refuse the address of a server that does not answer, which MLflow would ask for minutes.

    Raises:
        ConfigError: It does not.
    """
    server = urlsplit(uri)
    if server.scheme not in ("http", "https"):
        return
    try:
        port = server.port or (443 if server.scheme == "https" else 80)
        socket.create_connection((server.hostname or "", port), ANSWERS_WITHIN).close()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"logger.mlflow.tracking_uri: no server answers at {uri} ({error})"
        ) from error


class MLflow(MLFlowLogger):
    """Lightning's logger; a run that goes on does so in the MLflow run whose id its folder holds.

    Args:
        folder: Of the run.
        runs_dir: Root of the run folders.
        run_name: What MLflow calls it.
        experiment_name: Of the MLflow experiment that it belongs to.
        tracking_uri: Of MLflow's store or server.
        artifact_location: Where files that are logged go, if MLflow has no such experiment yet.
        **settings: Of Lightning's logger.

    Raises:
        ConfigError: MLflow is not installed, or its server does not answer.
    """

    def __init__(
        self,
        folder: RunFolder,
        runs_dir: Path,
        run_name: str,
        experiment_name: str,
        tracking_uri: str,
        artifact_location: str,
        **settings: Any,
    ) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nothing leaves the machine
        try:
            from mlflow import MlflowClient
            from mlflow.exceptions import MlflowException
        except ImportError as error:
            raise ConfigError(
                "logger: mlflow is not installed; pip install 'mnist_imbalance[mlflow]'"
            ) from error
        check_server(tracking_uri)
        getLogger("mlflow").setLevel(WARNING)  # it tells each step of making a store
        self.id_file = folder.mlflow / "run_id"
        self.kept = self.id_file.read_text(encoding="utf-8") if self.id_file.exists() else None
        with FileLock(runs_dir / ".mlflow.lock"):  # two processes would make the store's tables
            client = MlflowClient(tracking_uri)
            if client.get_experiment_by_name(experiment_name) is None:
                client.create_experiment(experiment_name, artifact_location)
        if self.kept:
            try:
                client.update_run(self.kept, "RUNNING")
            except MlflowException:  # its store is another now, or it was deleted there
                self.kept = None
        super().__init__(experiment_name, run_name, tracking_uri, run_id=self.kept, **settings)

    def save(self) -> None:
        """Keep the id, which is known once training begins."""
        if self.run_id and self.run_id != self.kept:
            self.kept = self.run_id
            write_whole(self.id_file, self.kept)


class Wandb(WandbLogger):
    """Lightning's logger; what a run that goes on logs has the id of what it logged before.

    Args:
        folder: Of the run.
        run_name: What Weights & Biases call it.
        **settings: Of Lightning's logger and of ``wandb.init``.

    Raises:
        ConfigError: Weights & Biases is not installed.
    """

    def __init__(self, folder: RunFolder, run_name: str, **settings: Any) -> None:
        os.environ.setdefault("WANDB_SILENT", "true")  # it draws all curves when a run ends
        try:
            import wandb  # noqa: F401
        except ImportError as error:
            raise ConfigError(
                "logger: wandb is not installed; pip install 'mnist_imbalance[wandb]'"
            ) from error
        before = sorted(folder.wandb.glob("*run-*-*"))  # offline-run-<time>-<id>
        known = {"id": before[-1].name.rpartition("-")[2]} if before else {}
        super().__init__(save_dir=folder.path, **{"name": run_name} | known | settings)


@contextmanager
def leaving_trackers() -> Iterator[None]:
    """Let what trackers know of the process's run end with the block, for another run may follow.

    A process has one run of Weights & Biases at a time, which Lightning's logger would give to the
    next; and MLflow writes its store's address into the environment, where the config looks for it.
    """
    store, code = os.environ.get(STORE), 1
    try:
        yield
        code = 0
    finally:
        os.environ.pop(STORE, None)
        if store is not None:
            os.environ[STORE] = store
        if wandb := sys.modules.get("wandb"):
            wandb.finish(exit_code=code)
