"""Adjust a trained run without training it again: run=runs/.../seed=0.

The ten adjustments of conf/adjust.yaml: logit adjustment, normalized weights, a temperature, a
re-trained or re-scaled last layer, and others. Each makes its choices on the validation images and
is scored once on the test images; do not choose by these numbers. Nothing is written.
"""

from collections.abc import Callable

from mnist_imbalance.config import build, compose_with, overrides_from_arguments, prepare_process
from mnist_imbalance.errors import ConfigError, naming, one_line_errors


def main() -> None:
    """Run the command line."""
    prepare_process()
    with one_line_errors():
        config = compose_with(overrides_from_arguments(__doc__, "adjust"), name="adjust")

        import pandas  # --help does not wait for these

        from mnist_imbalance.methods.metrics import balanced_accuracy, ece, nll, select_group
        from mnist_imbalance.methods.posthoc import logits_of
        from mnist_imbalance.training.run import adjust, load_run

        with naming("run"):
            run = load_run(config.run)
        if run.result is None or run.posthoc:
            raise ConfigError(f"run: {config.run} must be a finished run without a posthoc")
        data, model = run.data, run.classifier.model
        models, refused = {"as trained": model}, []
        for name in config.posthoc:
            try:
                step = build(config, f"posthoc.{name}", {"seed": run.config.seed}, Callable)
                adjusted = adjust(model, data, step)
                models[f"{name}, {getattr(adjusted, 'summary', 'done')}"] = adjusted
            except ConfigError as error:
                refused.append(f"{name}: {error}")

    rows = {}
    for name, model in models.items():
        logits, labels = logits_of(model, data.test[0]), data.test[1]
        rows[name] = {
            "balanced": balanced_accuracy(logits, labels),
            "minority": balanced_accuracy(*select_group(logits, labels, data.minority, "minority")),
            "majority": balanced_accuracy(*select_group(logits, labels, data.minority, "majority")),
            "NLL": nll(logits, labels),
            "ECE": ece(logits, labels),
            "val": balanced_accuracy(logits_of(model, data.val[0]), data.val[1]),
        }
    print("test scores; val: balanced accuracy")
    print(pandas.DataFrame(rows, dtype=float).T.to_string(float_format="%.3f"))
    print("\n".join(refused))


if __name__ == "__main__":
    main()
