"""Keep the records of many runs as one Parquet file: pack, merge and check them."""

import argparse
from pathlib import Path

from mnist_imbalance.errors import one_line_errors

COMMANDS = {
    "pack": "write all runs below a folder to one file",
    "merge": "write all runs below several folders to one file, equal ones once",
    "check": "read every record, and name damaged and disagreeing ones",
}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="mnist-imbalance records", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary)
        command.add_argument("folders", nargs="+", type=Path, metavar="folder")
        if name != "check":
            new = "the new file, *.parquet, or the folder of a new records.parquet"
            command.add_argument("--into", type=Path, required=True, help=new)
    arguments = parser.parse_args()
    with one_line_errors():
        from mnist_imbalance.records import table  # slow to import; --help does not wait for it

        if arguments.command == "check":
            runs = table.check(arguments.folders)
            print(f"{runs.config_hash.nunique()} runs, all whole")
        else:
            count, again = table.merge(arguments.folders, arguments.into)
            print(f"{count} runs" + (f", {again} found again and equal" if again else ""))


if __name__ == "__main__":
    main()
