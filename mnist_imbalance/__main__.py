"""``mnist-imbalance train ...``: the commands under one name."""

import os
import re
import sys
from importlib import import_module

COMMANDS = {
    "train": "train",
    "study": "study",
    "search": "sweeps.search",
    "report": "report.__main__",
    "counts": "__main__",
    "adjust": "sweeps.adjust",
    "records": "records.__main__",
}


def counts() -> None:
    """Print the images of each label before and after every step: data=augmented_40, say."""
    import pandas  # --help and a shell's Tab do not wait for these

    from mnist_imbalance.config import build, check, compose_with, overrides_from_arguments
    from mnist_imbalance.errors import one_line_errors

    with one_line_errors():
        config = compose_with(overrides_from_arguments(counts.__doc__))
        check(config)
        data = build(config, "data")
        data.setup()
        table = pandas.DataFrame(data.counts)
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
        sys.exit(f"usage: mnist-imbalance {{{','.join(COMMANDS)}}} [--help] [key=value ...]")
    command = sys.argv.pop(1)
    if command == "counts":
        return counts()
    import_module(f"mnist_imbalance.{COMMANDS[command]}").main()


if __name__ == "__main__":
    main()
