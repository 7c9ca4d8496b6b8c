"""``mnist-imbalance train ...``: the commands under one name."""

import os
import re
import sys
from importlib import import_module

COMMANDS = {
    "train": "mnist_imbalance.train",
    "study": "mnist_imbalance.study",
    "search": "mnist_imbalance.search",
    "report": "mnist_imbalance.report.__main__",
    "counts": "mnist_imbalance.counts",
    "adjust": "mnist_imbalance.adjust",
    "records": "mnist_imbalance.records.__main__",
}


def main() -> None:
    """Run the command that the first argument names, or complete what the shell has of it."""
    if sys.argv[1:2] == ["-sc"] and "COMP_LINE" in os.environ:  # a shell asks, after Tab
        line = os.environ["COMP_LINE"]
        named = re.match(r"\s*\S+\s+(train|study|search)\s", line)
        if not named:
            return print(*COMMANDS)
        os.environ["COMP_LINE"] = f"mnist-imbalance {line[named.end() :]}"
        sys.argv.insert(1, named[1])
    if sys.argv[1:2] == [] or sys.argv[1] not in COMMANDS:
        sys.exit(f"usage: mnist-imbalance {{{','.join(COMMANDS)}}} [--help] [key=value ...]")
    import_module(COMMANDS[sys.argv.pop(1)]).main()


if __name__ == "__main__":
    main()
