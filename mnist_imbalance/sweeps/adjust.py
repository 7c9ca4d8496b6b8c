"""Adjust a trained run without training it again: run=runs/.../seed=0.

Every choice of the config group posthoc: logit adjustment, normalized weights, a temperature, a
re-trained or re-scaled last layer. What is chosen is chosen on the validation images; the test
images are scored once. Nothing is written.
"""

from omegaconf import OmegaConf

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
        from mnist_imbalance.methods.metrics import Of, balanced_accuracy, ece, nll, part
        from mnist_imbalance.methods.posthoc import adjusted, logits_of, told_of

        run = load_run(folder)
        if run.result is None:
            raise ConfigError(f"run: {folder} is not finished")
        if run.config.get("posthoc"):
            raise ConfigError(f"run: {folder} has a posthoc of its own; give a run without one")
        data, model = run.data, run.classifier.model
        rows, refused = {"as trained": model}, []
        for name, step in config.posthoc.items():
            try:
                made = adjusted(
                    OmegaConf.create({"posthoc": step, "seed": run.config.seed}), data, model
                )
                rows[f"{name}, {told_of(made)}"] = made
            except ConfigError as error:
                refused.append(f"{name}: {error}")

    table = Table(
        title="test scores, % but NLL; val: balanced accuracy", box=SIMPLE, pad_edge=False
    )
    table.add_column()
    groups: tuple[Of, Of] = ("minority", "majority")
    columns = ["balanced", *groups, "NLL", "ECE", "val"]
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for name, made in rows.items():
        test, labels = logits_of(made, data.test[0]), data.test[1]
        scored = [
            balanced_accuracy(test, labels),
            *(balanced_accuracy(*part(test, labels, data.minority, of)) for of in groups),
            nll(test, labels),
            ece(test, labels),
            balanced_accuracy(logits_of(made, data.val[0]), data.val[1]),
        ]
        shown = [
            f"{score:.3f}" if column == "NLL" else f"{100 * score:.1f}"
            for column, score in zip(columns, scored, strict=True)
        ]
        table.add_row(name, *shown)
    Console().print(table)
    for line in refused:
        print(line)


if __name__ == "__main__":
    main()
