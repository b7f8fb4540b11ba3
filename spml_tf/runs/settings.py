"""What a training run is told: one field per flag, with defaults derived from one another."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any, ClassVar

from spml_tf.datasets.settings import DataSettings, data_flags_without_effect, resolved
from spml_tf.system import plugins
from spml_tf.system.errors import UserError
from spml_tf.system.flag_checks import check_range
from spml_tf.system.flag_fields import (
    devices_field,
    flag_field,
    plugins_field,
    strategy_field,
    workers_field,
)
from spml_tf.system.json_text import read_json_or_none
from spml_tf.system.options import Option, Options
from spml_tf.training import methods
from spml_tf.training.options import ESTIMATED, PROBABLE, ModelOptions

_IMAGE_SIZES = {
    "resnet50": 448, "small_residual": 64, "efficientnet_lite1": 240, "efficientnet_lite2": 260
}  # fmt: skip

# Of the backbone, by whether it is trained from scratch; and how many times as high that of the
# estimates is.
_LEARNING_RATES = {True: 2e-3, False: 5e-5}
_ESTIMATES_RATIO = 10
# A K that is known is of use to an export, whatever the training does.
_BUT_COUNT = ", but for export --thresholds=count"

# The flags of parts that are fields of `Settings`; others come with plugins.
_OF_PARTS: set[str] = set()


def _flag(declared: Option, options: type[Options], name: str) -> Any:
    derived = declared.required or declared.in_runs is not None
    return flag_field(
        None if derived else declared.default,
        declared.help,
        options.kind(name),
        declared.choices,
        options.group or None,
        words=declared.words,
        low=declared.low,
        high=declared.high,
    )


def with_options_of_parts(settings: type) -> type:
    """Adds the flags of model and parts to a class, before it becomes a dataclass."""
    for flag, found in methods.declared().items():
        if flag not in settings.__annotations__:
            _OF_PARTS.add(flag)
            settings.__annotations__[flag] = "Any"
            setattr(settings, flag, _flag(*found))
    return settings


@dataclasses.dataclass(frozen=True)
@with_options_of_parts
class Settings(DataSettings):
    """The flags of a training run, those about data among them, None where not given.

    Those that `resolve` fills have the type that they have then. The options of the model and of
    the parts of methods are fields too, by the names of their flags. Attributes are described by
    their flags: `python -m spml_tf.train --help`.
    """

    group: ClassVar[str] = "Network and training"

    network: str = flag_field(
        None,
        "resnet50, efficientnet_lite0 to 2, small_residual, applications:NAME for any network of "
        "keras.applications, or keras_hub:PRESET for any image backbone of keras_hub (with the "
        "extra hub; PRESET is a name, a handle or a folder). Default: small_residual for digits, "
        "resnet50 otherwise.",
    )
    weights: str = flag_field(
        None,
        "imagenet, none (train from scratch), or a weights file. Default: none for small_residual, "
        "imagenet otherwise.",
    )
    keep_head: bool = flag_field(
        False,
        "Start from the classifier that the weights come with; the data must have its classes in "
        "its order, as --dataset=imagenet has.",
        bool,
    )
    cam_boost: float = flag_field(
        None,
        "BoostLU: factor of the positive values of class activation maps before pooling, in "
        "training, evaluation and exports; 1: none, 5 in its paper. Goes with every method. "
        "Default: that of the run of --init_from; 5 for --method=recommended from scratch, else 1.",
        float,
        low=0.001,
        high=1000,
    )
    image_size: int = flag_field(
        None,
        "Input side in pixels. Default: 64 small_residual, 448 resnet50, 224 others.",
        int,
        low=8,
        high=1e5,
    )
    method: str = flag_field(
        "en+scl",
        f"{', '.join(methods.METHODS)}, alone or followed by "
        f"{' or '.join(f'+{name}' for name in methods.ADDITIONS)}. After a method that marks "
        "labels may stand one whose loss takes the place of its own, as in en+gr+scl.",
    )
    plugins: str | None = plugins_field()
    epochs: int = flag_field(
        None,
        "All epochs, warm-up included. Default: 50 from scratch, 15 otherwise.",
        int,
        low=1,
        high=1e6,
    )
    record_heatmaps: str | None = flag_field(
        None,
        "Training images whose heatmaps are kept after each epoch, in heatmaps.npz: a number (the "
        "first of each class; 0: none) or NAME,NAME. Default: 8 with +scl, else 0. Without +scl "
        "they are the network's own, not running averages.",
    )
    linear_probe: bool = flag_field(
        False, "Train the head alone: the backbone is frozen in all epochs.", bool
    )
    feature_crops: int = flag_field(
        None,
        "While the backbone is frozen, run it once on so many crops of each image (and on the "
        "validation images) and train the head on what comes out, kept in files; 0: in each step. "
        "Default: 4 with --linear_probe, else 0.",
        int,
        low=0,
        high=1e6,
    )
    feature_dir: str | None = flag_field(
        None,
        "Keep the files of --feature_crops in this folder, for further runs with the same "
        "backbone, images, crops and seed. Default: in the run's folder, until the backbone is "
        "thawed.",
    )
    crop_area: str = flag_field("0.25,1", "LOW,HIGH: interval of the crops' area, in (0, 1].")
    horizontal_flip: bool = flag_field(
        None, "Mirror half of the crops. Default: off for digits, on otherwise.", bool
    )
    colour_changes: int = flag_field(
        0,
        "Change the colours of each training crop so many times, as RandAugment does (brightness, "
        "contrast, saturation, sharpness, posterize, solarize, autocontrast, equalize); 0: never, "
        "2 in its paper.",
        int,
        low=0,
        high=100,
    )
    colour_strength: float | None = flag_field(
        None, "Strength of --colour_changes, in [0, 1]. Default: 0.3.", float, low=0, high=1
    )
    batch_size: int = flag_field(
        None, "Default: 32 from scratch, 16 otherwise.", int, low=1, high=1e6
    )
    learning_rate: float = flag_field(
        None,
        "Adam's, of the backbone. Default: 2e-3 from scratch, 5e-5 otherwise.",
        float,
        low=0,
        high=1e3,
    )
    head_learning_rate: float = flag_field(
        None,
        "Adam's, of the head. Default: --learning_rate from scratch, 1e-3 otherwise.",
        float,
        low=0,
        high=1e3,
    )
    estimates_learning_rate: float = flag_field(
        None,
        "Adam's, of ROLE's label estimates and what else a method's parts train. Default: 10 times "
        "--learning_rate.",
        float,
        low=0,
        high=1e4,
    )
    learning_rate_schedule: str = flag_field(
        "cosine", "cosine: down to 0 over the run; constant.", str, ("cosine", "constant")
    )
    mixed_precision: str = flag_field(
        "none",
        "Compute in half precision; auto: in bfloat16 where that was measured to be faster, which "
        "the run's flags.txt then says.",
        str,
        ("none", "bfloat16", "float16", "auto"),
    )
    initial_banks: str | None = flag_field(
        None,
        "Run folder on the same images whose banks this run starts from; the expected positives "
        "chosen from them stand until --selection_start_epoch.",
    )
    init_from: str | None = flag_field(
        None, "Run folder whose network this run starts from; other classes are allowed."
    )
    seed: int = flag_field(0, "Seed of weights, order and crops.", int, low=0, high=2**31 - 1)
    threads: int = flag_field(0, "CPU threads of TensorFlow; 0: all.", int, low=0, high=1e4)
    checkpoint_minutes: float = flag_field(
        0.0,
        "Write a checkpoint within an epoch too, after so many minutes; 0: only after each epoch, "
        "and where the run is asked to stop.",
        float,
        low=0,
        high=1e6,
    )
    max_loss: float = flag_field(
        1e4,
        "Stop where the mean loss of an epoch is above, which is diverging; 0: never.",
        float,
        low=0,
        high=1e30,
    )
    tracker: str = flag_field(
        "none",
        "Tell an experiment tracker of flags, epochs and results too: mlflow or wandb (Weights & "
        "Biases), with the extra of that name. Where to is said by its own environment variables.",
        str,
        ("none", "mlflow", "wandb"),
    )
    strategy: str = strategy_field()
    devices: int = devices_field()
    workers: int = workers_field()
    shuffle_groups: int = flag_field(
        1,
        "Of the images of each number modulo this one every batch holds equally many. With as many "
        "groups as workers, all have as much to do; the order does not depend on workers.",
        int,
        group="Several devices",
    )
    sync_batch_norm: bool = flag_field(
        False,
        "Batch normalisation by the statistics of the whole batch, instead of each device's part.",
        bool,
        group="Several devices",
    )

    def check_given(self) -> None:
        """Refuses a value that cannot be, whatever the other flags are.

        Raises:
            UserError: naming the first such flag.
        """
        super().check_given()
        try:
            methods.parts_of(self.method)
        except ValueError as error:
            raise UserError(f"--method={self.method}: {error}") from None
        _check_crop_area(self.crop_area)

    def option(self, flag: str) -> Any:
        """An option of the model or of a part by the name of its flag."""
        return getattr(self, flag)

    @property
    def stated_positives_per_image(self) -> float | None:
        """K where it is given as a number; None: counted or estimated."""
        given = self.option("positives_per_image")
        return None if isinstance(given, str) else given

    @property
    def budget(self) -> str | None:
        """The budget that is in force, of the method or of its flag; None where none is chosen."""
        if not methods.selects(self.method):
            return None
        return methods.fixed_budget(self.method) or self.option("selection_budget")

    def of_method(self) -> dict[str, Any]:
        """The options of the method's parts by the names of their flags."""
        return {flag: self.option(flag) for flag in methods.flags_of(self.method)}

    def of_model(self) -> dict[str, Any]:
        """The options of the model."""
        return {flag: self.option(flag) for flag in ModelOptions.flags()}

    @property
    def crop_interval(self) -> tuple[float, float]:
        """(low, high) of --crop_area."""
        low, high = self.crop_area.split(",")
        return float(low), float(high)

    @property
    def augmentation(self) -> dict[str, Any]:
        """How training crops are made, as arguments of `pipeline.training_dataset`."""
        return {
            "seed": self.seed,
            "crop_area": self.crop_interval,
            "horizontal_flip": self.horizontal_flip,
            "colours": (self.colour_changes, self.colour_strength or 0.0),
        }


def settings_class(base: type[Settings] = Settings) -> type[Settings]:
    """`Settings`, or a class that inherits from it, with the flags of parts of plugins.

    Args:
        base: a dataclass.

    Raises:
        UserError: an option of a plugin would be a flag that means something else.
    """
    known = {field.name for field in dataclasses.fields(base)}
    _check_flags_of_plugins(known - _OF_PARTS)
    new = [(f, Any, _flag(*found)) for f, found in methods.declared().items() if f not in known]
    if not new:
        return base
    extended: type[Settings]
    extended = dataclasses.make_dataclass(base.__name__, new, bases=(base,), frozen=True)
    return extended


def _check_flags_of_plugins(others: set[str]) -> None:
    """Refuses flags that are others', or belong to another part that declares them otherwise."""
    classes: list[type[Options]] = [ModelOptions, *(part.options for part in methods.all_parts())]
    taken: dict[str, tuple[Any, ...]] = {}
    for options in sorted(classes, key=_is_ours, reverse=True):
        for flag, name in options.flags().items():
            kind = _kind_of_flag(options, name)
            known = taken.setdefault(flag, kind)
            if not _is_ours(options) and (flag in others or known != kind):
                raise UserError(
                    f"--plugins: the option {name!r} of {options.__name__} would be the flag "
                    f"--{flag}, which means something else; rename it, or name its flag with "
                    "option(flag=...)"
                )


def _is_ours(options: type[Options]) -> bool:
    return options.__module__.partition(".")[0] == __name__.partition(".")[0]


def _kind_of_flag(options: type[Options], name: str) -> tuple[Any, ...]:
    """What must be the same where two parts share a flag."""
    declared = options.declared()[name]
    return options.kind(name), declared.default, declared.low, declared.high, declared.choices


def resolve(given: Settings) -> Settings:
    """Fills the settings left open and checks all of them.

    Args:
        given: settings as the user gave them.

    Returns:
        Settings without open fields, but for positives_per_image and heatmap_size, which follow
        from data and network.

    Raises:
        UserError: for a value that cannot be, naming the flag.
    """
    given.check_given()
    earlier = _flags_of(given.init_from)
    network = given.network or earlier.get("network")
    network = network or ("small_residual" if given.dataset == "digits" else "resnet50")
    weights = given.weights or ("none" if network == "small_residual" else "imagenet")
    scratch = weights == "none" and not given.init_from
    epochs = _default(given.epochs, 50 if scratch else 15)
    rate = _default(given.learning_rate, _LEARNING_RATES[scratch])
    values = {
        **resolved(given),
        "network": _with_absolute_folder(network),
        "weights": weights if weights in ("none", "imagenet") else _absolute(weights),
        "image_size": _default(
            given.image_size, earlier.get("image_size", _IMAGE_SIZES.get(network, 224))
        ),
        "cam_boost": _default(
            given.cam_boost, earlier.get("cam_boost", methods.cam_boost(given.method, scratch))
        ),
        "epochs": epochs,
        "horizontal_flip": _default(given.horizontal_flip, given.dataset != "digits"),
        "colour_strength": _default(given.colour_strength, 0.3 if given.colour_changes else None),
        "batch_size": _default(given.batch_size, 32 if scratch else 16),
        "learning_rate": rate,
        "head_learning_rate": _default(given.head_learning_rate, rate if scratch else 1e-3),
        "estimates_learning_rate": _default(given.estimates_learning_rate, _ESTIMATES_RATIO * rate),
        "feature_crops": _default(given.feature_crops, 4 if given.linear_probe else 0),
        "initial_banks": _absolute(given.initial_banks),
        "bank_dir": _absolute(given.option("bank_dir")),
        **{x: _absolute(given.option(x)) for x in ("likely_priors", "selection_priors")},
        "init_from": _absolute(given.init_from),
        "feature_dir": _absolute(given.feature_dir),
        "mixed_precision": _precision(given.mixed_precision, network),
        "plugins": None if given.plugins is None else plugins.absolute(given.plugins),
    }
    settings = dataclasses.replace(given, **values)
    settings = dataclasses.replace(settings, **_derived(settings, scratch))
    _check(settings)
    return settings


def _precision(given: str, network: str) -> str:
    if given != "auto":
        return given
    from spml_tf.networks import precision

    return precision.automatic(network)[0]


def options_of_others(method: str) -> set[str]:
    """The options that neither a method's parts nor the model have, by flag."""
    return (
        methods.declared_options().keys() - methods.flags_of(method) - ModelOptions.flags().keys()
    )


def _unused_flags(settings: Settings) -> dict[str, Any]:
    """What was asked of parts that the method does not have, by flag."""
    others = options_of_others(settings.method)
    scratch = settings.weights == "none" and not settings.init_from
    values = {**dataclasses.asdict(settings), "from_scratch": scratch}
    found = {}
    for flag, declared in methods.declared_options().items():
        default = None if declared.required else declared.default
        if declared.in_runs is not None:
            default = declared.in_runs(values)
        if flag in others and values[flag] not in (None, default):
            found[flag] = values[flag]
    if not isinstance(found.get("positives_per_image"), str):
        found.pop("positives_per_image", None)  # see `_BUT_COUNT`
    return found


def flags_without_effect(settings: Settings) -> dict[str, str]:
    """What was given and is not looked at, by `--flag=value`: what it has no effect with.

    Args:
        settings: resolved. Defaults do not count, whether given or not.
    """
    method = f"--method={settings.method}"
    found = data_flags_without_effect(settings)
    found |= {f"--{flag}={value}": method for flag, value in _unused_flags(settings).items()}
    found |= _of_optimizer_without_effect(settings)
    if settings.sync_batch_norm and settings.strategy == "none" and settings.workers <= 1:
        found["--sync_batch_norm"] = "--strategy=none"
    budget = settings.budget
    if budget is None:
        return found
    chosen_by = method if methods.fixed_budget(settings.method) else f"--selection_budget={budget}"
    probability, mean = map(settings.option, ("selection_probability", "positives_per_image"))
    but = "" if isinstance(mean, str) else _BUT_COUNT
    if (
        budget != PROBABLE
        and probability != methods.declared_options()["selection_probability"].default
    ):
        found[f"--selection_probability={probability}"] = chosen_by
    if mean is not None and budget in ("validation", "mime", "training"):
        found[f"--positives_per_image={mean}"] = chosen_by + but
    if mean is not None and budget == ESTIMATED and settings.option("selection_priors"):
        found[f"--positives_per_image={mean}"] = "--selection_priors" + but
    return found


def _of_optimizer_without_effect(settings: Settings) -> dict[str, str]:
    """As `flags_without_effect`, of learning rates that nothing is trained with."""
    rate, of_estimates = settings.learning_rate, settings.estimates_learning_rate
    follows, found = of_estimates == _ESTIMATES_RATIO * rate, {}
    estimates = methods.trains_weights(settings.method)
    if not estimates and not follows:
        found[f"--estimates_learning_rate={of_estimates}"] = f"--method={settings.method}"
    used = estimates and follows
    if settings.linear_probe and not used and rate != _LEARNING_RATES[False]:
        found[f"--learning_rate={rate}"] = "--linear_probe"
    return found


def _derived(settings: Settings, scratch: bool) -> dict[str, Any]:
    """The options of model and parts that follow from the run's other flags."""
    given = {**dataclasses.asdict(settings), "from_scratch": scratch}
    options = {**methods.declared_options(), **methods.flags_of(settings.method)}
    values = methods.derived(options, given)
    return {flag: values[flag] for flag in methods.declared_options()}


def _default(value: Any, otherwise: Any) -> Any:
    return otherwise if value is None else value


def _absolute(path: str | None) -> str | None:
    return os.path.abspath(path) if path else None


def _flags_of(run_dir: str | None) -> dict[str, Any]:
    """The flags of an earlier run; {} where there is none that can be read, which is told later."""
    if not run_dir:
        return {}
    record = read_json_or_none(Path(run_dir, "run.json"))
    flags = record.get("flags") if isinstance(record, dict) else None
    return flags if isinstance(flags, dict) else {}


def _with_absolute_folder(network: str) -> str:
    """The network; where a preset of keras_hub is a folder here, with its whole path."""
    source, _, preset = network.partition(":")
    found = source == "keras_hub" and os.path.isdir(preset)
    return f"{source}:{os.path.abspath(preset)}" if found else network


def _check(settings: Settings) -> None:
    settings.check_given()  # what was derived too
    if settings.workers > 1 and settings.strategy == "mirrored":
        raise UserError("--workers: means --strategy=multi_worker, not mirrored; drop one")
    if settings.keep_head and (settings.init_from or settings.weights == "none"):
        other = "--init_from" if settings.init_from else "--weights=none"
        raise UserError(f"--keep_head: means the head of --weights, not with {other}; drop one")
    if settings.colour_strength is not None and not settings.colour_changes:
        raise UserError("--colour_strength: is that of --colour_changes; give that from 1")
    _check_frozen(settings)
    check_range("warmup_epochs", settings.option("warmup_epochs"), 0, settings.epochs)
    check_range("shuffle_groups", settings.shuffle_groups, 1, settings.batch_size)


def _check_frozen(settings: Settings) -> None:
    warmup = settings.option("warmup_epochs")
    if settings.linear_probe and warmup != settings.epochs:
        raise UserError(
            f"--warmup_epochs={warmup}: with --linear_probe it is --epochs={settings.epochs}; "
            "drop one of the two"
        )
    if settings.linear_probe and settings.weights == "none" and not settings.init_from:
        raise UserError(
            "--linear_probe: trains the head alone, on a backbone that --weights=none leaves "
            "untrained; name weights, or a run with --init_from"
        )
    if settings.feature_crops and not warmup:
        raise UserError(
            f"--feature_crops={settings.feature_crops}: the backbone is never frozen; give "
            "--linear_probe, or --warmup_epochs from 1"
        )
    if settings.feature_dir and not settings.feature_crops:
        raise UserError("--feature_dir: holds the files of --feature_crops; give that from 1")


def _check_crop_area(text: str) -> None:
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--crop_area={text}: give LOW,HIGH, such as 0.25,1") from None
    if not 0.0 < low <= high <= 1.0:
        raise UserError(f"--crop_area={text}: needs 0 < LOW <= HIGH <= 1")
