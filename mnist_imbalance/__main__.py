"""``mnist-imbalance train ...``: the commands under one name."""

import os
import re
import sys
from importlib import import_module

COMMANDS = {
    "train": "train.main",
    "study": "study.main",
    "search": "sweeps.search.main",
    "report": "report.__main__.main",
    "counts": "__main__.counts",
    "records": "records.__main__.main",
    **{name: f"report.trained.{name}" for name in ("adjust", "predict", "export", "replay")},
}


def counts() -> None:
    """Print how many images each label has after every step, as of data=augmented_40."""
    import pandas  # --help and a shell's Tab do not wait for these

    from mnist_imbalance.config import build, check, compose_with, parse

    config = compose_with(parse(counts.__doc__, {}, "train").overrides)
    check(config)
    data = build(config, "data")
    data.setup()
    names = [f"{label}: {name}" for label, name in enumerate(data.class_names)]
    table = pandas.DataFrame(data.counts, names or None)
    table.loc["all"] = table.sum()
    print(table.rename_axis("label").to_string())


def main() -> None:
    """Run the command that the first argument names, or complete it for the shell."""
    if sys.argv[1:2] == ["-sc"] and "COMP_LINE" in os.environ:  # after Tab
        line = os.environ["COMP_LINE"]
        named = re.match(r"\s*\S+\s+(train|study|search)\s", line)
        if not named:
            return print(*COMMANDS)
        os.environ["COMP_LINE"] = f"mnist-imbalance {line[named.end() :]}"
        sys.argv.insert(1, named[1])
    if sys.argv[1:2] == [] or sys.argv[1] not in COMMANDS:
        sys.exit(f"usage: mnist-imbalance {{{','.join(COMMANDS)}}} [--help] ...")
    module, _, function = COMMANDS[sys.argv[1]].rpartition(".")
    sys.argv[:2] = [f"mnist-imbalance {sys.argv[1]}"]
    from mnist_imbalance.errors import one_line_errors  # a shell's Tab does not wait for it

    with one_line_errors():
        getattr(import_module(f"mnist_imbalance.{module}"), function)()


if __name__ == "__main__":
    main()
