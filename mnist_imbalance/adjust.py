"""Adjust a trained run without training it again: run=runs/.../seed=0.

Logit adjustment, normalized weights and a temperature, each chosen on the validation images, then
scored once on the test images. Nothing is written.
"""

from mnist_imbalance.commandline import hush_libraries, one_line_errors, overrides_from_arguments
from mnist_imbalance.config import compose_with
from mnist_imbalance.errors import ConfigError


def main() -> None:
    """Run the command line."""
    hush_libraries()
    with one_line_errors():
        config = compose_with(overrides_from_arguments(__doc__, "adjust"), name="adjust")
        folder = config.run

        from rich.box import SIMPLE  # --help does not wait for these
        from rich.console import Console
        from rich.table import Table

        from mnist_imbalance.load import load_run
        from mnist_imbalance.metrics import Of, balanced_accuracy, ece, nll, part
        from mnist_imbalance.posthoc import adjustments

        run = load_run(folder)
        if run.result is None:
            raise ConfigError(f"run: {folder} is not finished")
        data = run.data
        rows = adjustments(run.classifier.model, data.val, data.test[0], data.class_counts)

    table = Table(
        title="test scores, % but NLL; val: balanced accuracy", box=SIMPLE, pad_edge=False
    )
    table.add_column(no_wrap=True)
    groups: tuple[Of, Of] = ("minority", "majority")
    columns = ["balanced", *groups, "NLL", "ECE", "val"]
    for column in columns:
        table.add_column(column, justify="right")
    for name, (val, test) in rows.items():
        labels = data.test[1]
        scored = [
            balanced_accuracy(test, labels),
            *(balanced_accuracy(*part(test, labels, data.minority, of)) for of in groups),
            nll(test, labels),
            ece(test, labels),
            balanced_accuracy(val, data.val[1]),
        ]
        shown = [
            f"{score:.3f}" if column == "NLL" else f"{100 * score:.1f}"
            for column, score in zip(columns, scored, strict=True)
        ]
        table.add_row(name, *shown)
    Console().print(table)


if __name__ == "__main__":
    main()
