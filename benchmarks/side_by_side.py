"""The weight sweep with five seeds as one training against one run alone: made for a GPU."""

import subprocess
import sys
import tempfile
import threading
from contextlib import suppress

import torch

from benchmarks.measure import Row, row, timed

EPOCHS = 10
ALONE = ["-m", "mnist_imbalance.train", "loss=weighted", f"trainer.max_epochs={EPOCHS}"]
SWEEP = [
    *("-m", "mnist_imbalance.train", "-m", "loss=weighted", f"trainer.max_epochs={EPOCHS}"),
    *("hydra/launcher=batched", "hydra.launcher.on_cpu=true"),
    *("loss.minority_weight=2,3,4,5,6,7,8,9,10", "seed=0,1,2,3,4"),
]


class Utilization:
    """Asks the driver once a second how busy the card is; it may have no answer."""

    def __enter__(self) -> "Utilization":
        self.shares: list[float] = []
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def watch(self) -> None:
        """Ask until it is over."""
        card = f"--id=GPU-{torch.cuda.get_device_properties(0).uuid}"
        ask = ["nvidia-smi", card, "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        with suppress(OSError, ValueError):
            while not self.ended.wait(1):
                asked = subprocess.run(ask, capture_output=True, text=True)
                self.shares.append(float(asked.stdout))

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()


def measure(rounds: int) -> list[Row]:
    """Compare 45 runs with one, whole commands, start included; nothing where there is no GPU."""
    if not torch.cuda.is_available():
        print("side_by_side: left out, it needs a GPU", file=sys.stderr)
        return []
    rows = []
    for model in ("lstm", "cnn"):
        alone, together, busy = [], [], []
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as root:
                alone.append(timed([*ALONE, f"model={model}", f"runs_dir={root}/alone"]))
                with Utilization() as utilization:
                    together.append(timed([*SWEEP, f"model={model}", f"runs_dir={root}/sweep"]))
            busy += utilization.shares
        rows.append(row(model, f"one run of {EPOCHS} epochs", alone, "s"))
        rows.append(row(model, f"45 runs of {EPOCHS} epochs side by side", together, "s"))
        ratios = [many / one for many, one in zip(together, alone, strict=True)]
        rows.append(row(model, "45 runs over one", ratios, "×"))
        if busy:
            rows.append(row(model, "the card is busy, 45 runs, second by second", busy, "%"))
    return rows
