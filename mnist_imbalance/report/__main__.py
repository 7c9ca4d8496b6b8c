"""Rebuild AI3607's tables, figures and claims from finished runs, without training."""

from mnist_imbalance.config import (
    compose_with,
    overrides_from_arguments,
    silence_warnings,
    take_apart,
)
from mnist_imbalance.errors import one_line_errors


def main() -> None:
    """Run the command line."""
    silence_warnings()
    with one_line_errors():
        overrides = overrides_from_arguments(__doc__, "study")
        config, _ = take_apart(compose_with(overrides, name="study", with_hydra=True))
        from mnist_imbalance.report.page import write_report  # --help does not wait for it

        write_report(config)


if __name__ == "__main__":
    main()
