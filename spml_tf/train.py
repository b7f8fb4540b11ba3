"""Trains a run: `python -m spml_tf.train --flagfile=FILE --output_dir=DIR`."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from spml_tf.runs import rounds
from spml_tf.runs.result_lines import summary
from spml_tf.runs.settings import Settings, resolve, settings_class
from spml_tf.system import cli, launcher, presets, strategies
from spml_tf.system.errors import UserError
from spml_tf.system.flag_fields import flag_field, list_presets_field, preset_field

USAGE = """Trains a multi-label classifier from single positive or any partial labels.

usage: python -m spml_tf.train [--preset=NAME] [--flagfile=FILE] [--output_dir=DIR] [--flag=value]

Started again on the same folder it resumes; a finished run prints its results."""


@dataclasses.dataclass(frozen=True)
class _Options(Settings):
    output_dir: str | None = flag_field(
        None, "Folder of the run. Default: runs/DATASET_METHOD_SEED."
    )
    preset: str | None = preset_field()
    list_presets: bool = list_presets_field(presets.flagfiles)
    rounds: int = flag_field(
        1,
        "Train so many runs one after the other, in the folders round_1, round_2, ... of "
        "--output_dir; each starts from fresh weights and the banks of the one before, which "
        "choose its expected positives. For methods that select (en, ep).",
        int,
    )
    find_learning_rate: bool = flag_field(
        False,
        "Do not train the run: raise the learning rates over 200 steps, draw the loss over them "
        "into --output_dir, and print rates to take.",
        bool,
    )


def _action(options: _Options) -> None:
    if options.find_learning_rate:
        _find_learning_rate(options)
        return
    if options.rounds != 1:
        rounds.train(_settings(options), options.rounds, _output_dir(options))
        return
    if options.workers > 1:
        resolve(options)  # a mistake is told of once
        launcher.launch("spml_tf.train", cli.flags_of_workers(options), options.workers)
        return
    from spml_tf.runs import training_run  # needs TensorFlow, without which --help answers

    settings, output_dir = _settings(options), _output_dir(options)
    _tell_precision(settings)
    results = training_run.train(settings, output_dir)
    if settings.strategy == "multi_worker" and not strategies.is_first_worker():
        return
    print(summary(results))
    print(f"results in {Path(output_dir) / 'metrics.json'}")


def _find_learning_rate(options: _Options) -> None:
    from spml_tf.runs import learning_rate_finder

    if options.rounds != 1:
        raise UserError("--find_learning_rate: trains no rounds; drop --rounds")
    folder = Path(_output_dir(options) + "_rates" * (not options.output_dir))
    settings = _settings(options)
    _tell_precision(settings)
    rates = learning_rate_finder.find(settings, folder)
    words = [f"--{name}={rate:.2g}" for name, rate in rates.items()]
    print(f"take {' '.join(words)} (a tenth of where the loss was lowest)")
    print(f"results in {folder / 'learning_rates.png'}")


def _settings(options: _Options) -> Settings:
    own = {field.name for field in dataclasses.fields(_Options)}
    own -= {field.name for field in dataclasses.fields(Settings)}
    values = {name: x for name, x in dataclasses.asdict(options).items() if name not in own}
    return settings_class()(**values)


def _output_dir(options: _Options) -> str:
    return options.output_dir or f"runs/{options.dataset}_{options.method}_{options.seed}"


def _tell_precision(settings: Settings) -> None:
    if settings.mixed_precision != "auto":
        return
    from spml_tf.networks import precision

    chosen, reason = precision.automatic(resolve(settings).network)
    print(f"--mixed_precision=auto: {chosen} ({reason})")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; see `cli.run` for the exit codes."""
    return cli.run(argv, _Options, USAGE, _action, extend=settings_class)


if __name__ == "__main__":
    sys.exit(main())
