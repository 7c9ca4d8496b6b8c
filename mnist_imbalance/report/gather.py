"""What a study's runs reached, as data frames; planned runs without a result included."""

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas

from mnist_imbalance.labels import GROUPS, NUM_LABELS
from mnist_imbalance.plan import CHOSEN, SWEPT, StudyKeys, plan, with_chosen_weights
from mnist_imbalance.runs import Result, find_records

UNIFORM = r"weight_[\d.]+"  # names of the conditions of the weight sweep
LABELS = [*map(str, range(NUM_LABELS)), *GROUPS]


@dataclass(frozen=True)
class Gathered:
    """A study's runs.

    Attributes:
        runs: A row a planned run: experiment, model, optimizer, condition, weight, normalize,
            output_bias, output_relu, seed, config_hash, weights ("???" while they wait for their
            sweep) and finished. Overlays may share a run.
        scores: A row a planned run, scored set ("val", "test") and label: what tells the run
            apart, and its accuracy in [0, 1], nan where the run is missing.
        results: Finished runs of the study by config hash.
        folders: Where each is kept.
        damaged: A line for each record that cannot be read.
        overrides: Of the study, for every run.
    """

    runs: pandas.DataFrame
    scores: pandas.DataFrame
    results: dict[str, Result]
    folders: dict[str, Path]
    damaged: list[str]
    overrides: list[str]

    @property
    def missing(self) -> pandas.DataFrame:
        """The planned runs that have no result."""
        return self.runs[~self.runs.finished]

    def how_complete(self) -> str:
        """Say how many runs are finished."""
        planned = self.runs.config_hash.nunique()
        said = f"{len(self.results)} of {planned} planned runs have a result"
        return f"{said}, {len(self.damaged)} records are damaged" if self.damaged else said

    @cached_property
    def conditions(self) -> pandas.DataFrame:
        """The scores of all runs, each once."""
        return self.scores.drop_duplicates(
            ["model", "optimizer", "condition", "seed", "scored", "label"]
        )


def gather(keys: StudyKeys) -> Gathered:
    """Find the results of all runs of a study below its run and record folders."""
    records = find_records([keys.runs_dir, *keys.records_dirs])
    planned = plan(keys.study)
    models = list(dict.fromkeys(run.choices["model"] for run in planned))
    runs, scores, results = [], [], {}
    for waiting in sorted(planned, key=lambda run: models.index(run.choices["model"])):
        run = with_chosen_weights(waiting, planned, records.results) if waiting.waits else waiting
        result = records.results.get(run.config_hash)
        if result:
            results[run.config_hash] = result
        told_apart = {
            "experiment": run.experiment,
            "model": run.choices["model"],
            "optimizer": run.choices["optimizer"],
            "condition": run.condition,
            "weight": run.values.get(SWEPT),
            "normalize": run.values.get("loss.normalize"),
            "output_bias": run.values.get("model.output_bias"),
            "output_relu": run.values.get("model.output_relu"),
            "seed": run.values["seed"],
        }
        runs.append(
            {
                **told_apart,
                "config_hash": run.config_hash,
                "weights": run.values.get(CHOSEN),
                "finished": result is not None,
            }
        )
        for scored in ("val", "test"):
            missing = dict.fromkeys(LABELS, math.nan)
            reached = getattr(result, scored).by_name() if result else missing
            scores += [
                {**told_apart, "scored": scored, "label": label, "accuracy": accuracy}
                for label, accuracy in reached.items()
            ]
    return Gathered(
        pandas.DataFrame(runs),
        pandas.DataFrame(scores),
        results,
        {key: records.folders[key] for key in results},
        records.damaged,
        keys.study.overrides,
    )
