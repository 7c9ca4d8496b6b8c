"""Keep the records of many runs as one Parquet file: pack, merge and check them."""

import argparse
from pathlib import Path

from mnist_imbalance.errors import one_line_errors

COMMANDS = "pack (or merge, the same): write all runs to one file, equal ones once; check: read all"


def main() -> None:
    """Run the command line; damaged and disagreeing records are named."""
    parser = argparse.ArgumentParser(prog="mnist-imbalance records", description=__doc__)
    parser.add_argument("command", choices=["pack", "merge", "check"], help=COMMANDS)
    parser.add_argument("folders", nargs="+", type=Path, metavar="folder")
    new = "the new file, *.parquet, or the folder of a new records.parquet"
    parser.add_argument("--into", type=Path, help=new)
    arguments = parser.parse_args()
    if (arguments.command == "check") != (arguments.into is None):
        parser.error("pack and merge need --into, check writes nothing")
    with one_line_errors():
        from mnist_imbalance.records import table  # slow to import; --help does not wait for it

        count, again = table.merge(arguments.folders, arguments.into)
    print(f"{count} runs" + (f", {again} found again and equal" if again else ""))


if __name__ == "__main__":
    main()
