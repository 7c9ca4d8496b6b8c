"""Rebuild AI3607's tables, figures and claims from finished runs, without training."""

from mnist_imbalance import config
from mnist_imbalance.errors import one_line_errors
from mnist_imbalance.sweeps.plan import check_study


def main() -> None:
    """Run the command line."""
    config.prepare_process()
    with one_line_errors():
        overrides = config.parse(__doc__, {}, "study").overrides
        composed = config.compose_with(overrides, name="study", with_hydra=True)
        keys, _ = config.activate_hydra(composed)
        check_study(keys)
        from mnist_imbalance.report.page import write_report  # --help does not wait for it

        write_report(keys)


if __name__ == "__main__":
    main()
