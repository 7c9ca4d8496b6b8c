"""Print the images of each label before and after every step: data=augmented_40, say."""

from mnist_imbalance.commandline import one_line_errors, overrides_from_arguments
from mnist_imbalance.config import compose_with


def main() -> None:
    """Run the command line."""
    with one_line_errors():
        config = compose_with(overrides_from_arguments(__doc__))

        from rich.console import Console  # --help does not wait for these
        from rich.table import Table

        from mnist_imbalance.config import build, check
        from mnist_imbalance.data import MNISTData

        check(config)
        data = build(config, "data", kind=MNISTData)
        data.setup()
    table = Table("label", *data.counts, title="images")
    for column in table.columns:
        column.justify = "right"
    for label in range(data.num_classes):
        table.add_row(str(label), *(str(counts[label]) for counts in data.counts.values()))
    table.add_section()
    table.add_row("all", *(str(sum(counts)) for counts in data.counts.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
