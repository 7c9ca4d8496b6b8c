"""Rebuild AI3607's tables, figures and claims from finished runs, without training."""

import gc

from mnist_imbalance.commandline import hush_libraries, one_line_errors, overrides_from_arguments
from mnist_imbalance.plan import read_study


def main() -> None:
    """Run the command line."""
    hush_libraries()
    with one_line_errors():
        gc.disable()  # a sixth of the time; what is made here is needed to the end
        keys = read_study(overrides_from_arguments(__doc__, "study"))
        from mnist_imbalance.report.write import write_report  # --help does not wait for it

        write_report(keys)


if __name__ == "__main__":
    main()
