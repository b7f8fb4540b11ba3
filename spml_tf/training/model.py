"""Training of a network of class activation maps with eq. 8, as a Keras model."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import inspect
import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike, NDArray

from spml_tf.banks import ema_bank
from spml_tf.banks.heatmap_bank import HeatmapBank
from spml_tf.banks.image_tables import ImageTable, name_apart
from spml_tf.labels import POSITIVE, validate_labels
from spml_tf.networks.cam import CAM_LAYER
from spml_tf.networks.freezing import BackboneSwitch
from spml_tf.networks.preprocessing import zero_colour
from spml_tf.networks.scores import scores_network
from spml_tf.system import replicas
from spml_tf.system.options import plain
from spml_tf.system.private_api import BuildsMetrics, flatten_layers, loss_tracker, saving
from spml_tf.training import batches, keras_checks, optimizers, replica_batches
from spml_tf.training.class_priors import ClassPriors
from spml_tf.training.label_store import LabelEstimates, LabelStore, merged_marks
from spml_tf.training.label_weights import LabelWeights, label_weights
from spml_tf.training.options import ModelOptions
from spml_tf.training.own_callbacks import with_own
from spml_tf.training.parts import Facts, Part, Step, Term
from spml_tf.training.recipes import check_reduction, recipe_of
from spml_tf.training.terms import LabelTerm


@keras.saving.register_keras_serializable("spml_tf")
class SPMLModel(BuildsMetrics, keras.Model, ModelOptions):
    """Trains a network of CAM logits from single positive or any partial labels.

    Batches are `(x, y)` or `(x, y, sample_weight)`. `x` is a dict of "image" [B, S, S, 3] (0..255,
    RGB), "index" [B] int (the image's row in the banks), and, where the image is a crop, "box"
    [B, 4] float (y1, x1, y2, x2 in [0, 1] of the whole image) and "flip" [B] bool (mirrored after
    cropping); without these it is the whole image. `y` is [B, L] in {1, 0, -1 (unknown)}.
    `spml_tf.with_index` makes such batches. In warm-up epochs "features" [B, G, G, C], what the
    frozen backbone makes of the images, may stand in place of "image". Evaluation and prediction
    need only the image, as a dict or as a tensor, and yield scores f = sigmoid(mean of F), [B, L]
    float32.

    Epochs count from 1; `fit` begins with the one after `initial_epoch`, so that a second `fit`
    that should go on needs it. `sample_weight` is [B] or [B, L]; `class_weight` of `fit` is a dict
    from class to the factor of that class' terms in all images. Regularisation losses of the
    network are added to the loss. Metrics see 1 for positives and 0 for all other labels.

    Args:
        network: functional keras.Model, images -> CAM logits [B, G, G, L] float32, whose head is
            the layer "cam_logits" (see `spml_tf.networks`).
        num_images: N, number of training images.
        method: a name such as "en+scl" (see `methods.METHODS`), a loss of `spml_tf.losses`, or a
            `recipes.Recipe`.
        positives_per_image: K of eq. 3; needed by methods that select, by EPR and by ROLE. Other
            methods do not look at it. "auto", for methods that select: estimated, see
            `rules.ExpectedPositives`.
        options: of the model (see `options.ModelOptions`: warmup_epochs, freeze_batch_norm,
            ema_momentum, bank_dtype, bank_device, bank_dir, keep_scores, seed, train_metrics), and,
            where `method` is a name, of its parts by the names of their flags (such as
            consistency_weight).

    Attributes:
        recipe: the rules and terms.
        ema_scores: the score bank, None where no part reads it and `keep_scores` is off.

    Raises:
        ValueError: for an unknown method, an option that it does not have or that may not stand, a
            missing K, a network without the CAM head, or parts that another model has.

    Examples:
        >>> network = spml_tf.networks.small_residual_cam(3, image_size=32, width=16)
        >>> model = spml_tf.SPMLModel(network, num_images=8, method="an+scl")
        >>> model.compile("adam")
        >>> x = {"image": np.full([8, 32, 32, 3], 99.0), "index": np.arange(8)}
        >>> history = model.fit(x, np.eye(8, 3), epochs=2, verbose=0).history
        >>> sorted(history)
        ['classification_loss', 'consistency_loss', 'loss']
    """

    def __init__(
        self,
        network: keras.Model,
        num_images: int,
        method: Any = "en+scl",
        positives_per_image: float | str | None = None,
        **options: Any,
    ) -> None:
        own = {name: options.pop(name) for name in self.declared() if name in options}
        keras_own = {name: options.pop(name) for name in ("name", "dtype") if name in options}
        super().__init__(**keras_own, autocast=False)  # pixels are the network's to cast
        if not isinstance(num_images, int | np.integer) or num_images < 1:
            raise ValueError(f"num_images must be a whole number from 1. Received: {num_images!r}")
        self.take_options(own)
        self.network, self.num_images, self.method = network, num_images, method
        self.shard = replicas.this_shard()
        rows = self.shard.rows(num_images)
        if not rows:
            raise ValueError(
                f"num_images={num_images}: fewer than the {self.shard.workers} workers"
            )
        self.num_classes = network.output_shape[-1]
        self.positives_per_image, self.part_options = positives_per_image, options
        self._backbone = BackboneSwitch(network, self.freeze_batch_norm)
        bank = {
            "momentum": self.ema_momentum, "storage": self.bank_dtype, "device": self.bank_device,
        }  # fmt: skip
        facts = Facts(
            num_images=rows,
            num_classes=self.num_classes,
            grid=network.output_shape[1],
            seed=self.seed,
            shard=self.shard,
            directory=self.bank_dir,
            bank=bank,
            zero_colour=functools.partial(zero_colour, network),
        )
        self.recipe = recipe_of(method, options, positives_per_image)
        self.ema_scores = None
        if self.keep_scores or any(part.needs_scores for part in self.recipe.parts):
            self.ema_scores = ema_bank.score_bank(rows, self.num_classes, **facts.of_banks)
        for part in self.recipe.parts:
            if part.in_use:
                raise ValueError(
                    f"{part.name} is a part of a model already, or of one that could not be made; "
                    "give each model a recipe of its own, of new parts that stand in it once"
                )
            part.facts = facts
            part.prepare(facts)
            part.in_use = True
        name_apart(x for part in self.recipe.parts for x in flatten_layers(part))
        self.rules, self.terms = list(self.recipe.rules), list(self.recipe.terms)
        for term in self.terms:
            if term.reported_as:
                setattr(self, _tracker(term), keras.metrics.Mean(f"{term.reported_as}_loss"))
        self.epoch = self.add_weight(
            shape=(), dtype="int64", initializer="zeros", name="epoch", trainable=False,
            autocast=False,
        )  # fmt: skip
        self._label_weights = LabelWeights(num_images, self.num_classes)
        self._resumed_epoch = 0
        self.latest_results: dict[str, Any] = {}
        self._evaluating = False
        self.built = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, instead in (
            ("compute_loss", "write a Term, or add a regulariser to the network"),
            ("call", "change the network"),
        ):
            if name in vars(cls):
                raise TypeError(
                    f"{cls.__name__}.{name}: training does not ask it; {instead} (docs: writing "
                    "parts of your own)"
                )

    @property
    def parts(self) -> Iterator[Part]:
        """The rules, then the terms."""
        return self.recipe.parts

    @property
    def labels(self) -> ImageTable | None:
        """[N, L] int8 in {1, 0, -1, 2}: the training labels with the marks that a rule keeps.

        Of the first such rule; None where no rule keeps any.
        """
        return next(iter(self.kept_labels), None)

    @property
    def kept_labels(self) -> list[ImageTable]:
        """As `labels`, of each rule that keeps marks: of two such rules each has its own."""
        return [rule.labels for rule in self.rules if rule.labels is not None]

    # Where parts keep these is theirs to decide; checkpoints name them alike for all methods.
    @property
    def ema_heatmaps(self) -> Any:
        """The heatmap bank, None where no part has one."""
        return next(self._states_of_parts(HeatmapBank, "bank"), None)

    @property
    def label_store(self) -> Any:
        """Where a rule keeps its marks, one that selects before others; None where none does."""
        stores = self._states_of_parts(LabelStore, "store")
        return max(stores, key=lambda store: store.selects, default=None)

    @property
    def label_estimates(self) -> Any:
        """ROLE's estimates of the labels, None for other methods."""
        return next(self._states_of_parts(LabelEstimates, "estimates"), None)

    @property
    def estimated_priors(self) -> ClassPriors | None:
        """Class priors that a rule has estimated, None before that and for other rules."""
        found = (rule.class_priors() for rule in self.rules)
        return next((x for x in found if x is not None), None)

    def _states_of_parts(self, kind: type, name: str) -> Iterator[Any]:
        found = (getattr(part, name, None) for part in self.parts)
        return (x for x in found if isinstance(x, kind))

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """`keras.Model.compile`, with the terms of the method as the loss.

        Args:
            args, kwargs: as for Keras. `loss` may be a loss of `spml_tf.losses`, which takes the
                place of the method's own. `jit_compile="auto"` means False.

        Raises:
            ValueError: for another loss or, where the method marks labels, one that does not look
                at marks, or beside mixed views one that is a mean over weights, for `loss_weights`,
                and for `jit_compile=True` where the banks are in host
                memory beside a GPU.
        """
        given = inspect.signature(super().compile).bind(*args, **kwargs).arguments
        if given.get("loss_weights") is not None:
            raise ValueError(
                "loss_weights: SPMLModel's terms have weights of their own; give "
                "consistency_weight, or the weight of a term of your Recipe"
            )
        self._set_loss(given.get("loss"))
        if given.get("jit_compile", "auto") == "auto":
            given["jit_compile"] = False
        elif given["jit_compile"]:
            keras_checks.check_jit(self)
        if given.get("optimizer") is not None:
            own = [weight for part in self.parts for weight in part.trainable_variables]
            given["optimizer"] = optimizers.with_tables(given["optimizer"], own)
        super().compile(**given)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles a loaded model as the saved one was; Keras wants it beside a `compile`."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def _set_loss(self, loss: Any) -> None:
        """Replaces the method's loss; None puts it back."""
        own = self._label_term()
        if loss is None:
            if own is not None:
                own.restore()
            return
        if own is None:
            raise ValueError(
                f"compile(loss=...): the method {self.method!r} has a loss of its own kind and "
                "takes no other; leave loss out"
            )
        keras_checks.check_loss(loss)
        if self.rules:
            own.check_marks(loss)
        check_reduction(self.terms, loss)
        own.replace(loss)

    def call(self, inputs: Any, training: bool = False) -> tf.Tensor:
        """Scores f of images, [B, L] float32 in [0, 1]."""
        return tf.sigmoid(_pooled(self._maps(inputs, training)))

    def _maps(self, x: Any, training: bool) -> tf.Tensor:
        """F of a batch's images, or of what the frozen backbone has made of them: CAM logits."""
        if not isinstance(x, Mapping):
            return self.network(x, training=training)
        if batches.FEATURES not in x:
            return self.network(x["image"], training=training)
        if training and not self._backbone.frozen:
            raise ValueError(
                "training batches hold features, which stand for images only while the backbone "
                f"is frozen: train no epoch after warmup_epochs={self.warmup_epochs} with them"
            )
        return self.network.get_layer(CAM_LAYER)(x[batches.FEATURES])

    def test_step(self, data: Any) -> dict[str, Any]:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        logits = _pooled(self._maps(x, training=False))
        labels = batches.labels_of_step(y, self.num_classes)
        labels, logits, sample_weight = replica_batches.without_stand_ins(
            labels, logits, sample_weight
        )
        weight = label_weights(sample_weight, None, labels)
        found = {term: term.evaluate(labels, logits, weight) for term in self.terms}
        present = {term: value for term, value in found.items() if value is not None}
        values, size = replica_batches.weighed_by_images(present, tf.shape(labels)[0])
        loss = _total([self._weighed(*pair) for pair in values.items()], self.losses)
        self._track(size, loss, values)
        return self._results(x, _positives(labels), tf.sigmoid(logits), sample_weight)

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        row = batches.unpack(x)
        every = batches.labels_of_step(y, self.num_classes)
        observed, sample_weight, box, flip, index = replica_batches.without_stand_ins(
            every, sample_weight, *row
        )
        weight = self._label_weights.of_batch(sample_weight, index, observed)
        index = replica_batches.own_rows(index, self.shard)
        average, visited = self._averages(index)  # t-1: read before this step writes
        own = self._label_term()
        with tf.GradientTape() as tape:
            logits = self._maps(x, training=True)
            regularisation = list(self.losses)  # a further pass of a part would replace them
            image = None if x.get("image") is None else tf.cast(x["image"], tf.float32)
            _, logits, image = replica_batches.without_stand_ins(every, logits, image)
            step = Step(
                index=index,
                box=box,
                flip=flip,
                epoch=self.epoch.value,
                weight=weight,
                labels=observed,
                logits=_pooled(logits),
                maps=tf.sigmoid(logits),
                average=average,
                visited=visited,
                image=image,
                network=self._maps_of,
                label_loss=None if own is None else own.value,
            )
            for rule in self.rules:
                step = dataclasses.replace(step, labels=rule.mark(step))
            found = {term: self._value_of(term, step) for term in self.terms}
            values, size = replica_batches.weighed_by_images(found, tf.shape(observed)[0])
            loss = _total(
                [self._weighed(*pair) for pair in values.items()], regularisation
            )  # eq. 8
            # Gradients are summed over replicas.
            scaled = self.optimizer.scale_loss(loss / replicas.count())
        self._track(size, loss, values)
        variables = self.trainable_variables
        gradients = tape.gradient(scaled, variables)
        self.optimizer.apply(optimizers.dense(gradients, variables), variables)
        if self.ema_scores is not None:
            self.ema_scores.write(index, step.scores)  # eq. 4
            average, _ = self._averages(index)
        for term in self.terms:
            term.after_step(step, average)
        y, scores = _positives(observed), step.scores
        if not self.train_metrics:
            y, scores, sample_weight = y[:0], scores[:0], None  # Keras wants every metric called
        return self._results(x, y, scores, sample_weight)

    def _label_term(self) -> LabelTerm | None:
        """The method's loss of labels, None for a method that has another kind."""
        return next((term for term in self.terms if isinstance(term, LabelTerm)), None)

    def _maps_of(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """F of images [B, S, S, 3]; one of several replicas may have none."""
        if replicas.count() == 1:
            return self.network(images, training=training)
        size = tf.shape(images)[0]
        missing = tf.cast(size == 0, tf.int32)  # layers need not stand it
        padded = tf.pad(images, [[0, missing], [0, 0], [0, 0], [0, 0]])
        return self.network(padded, training=training)[:size]

    def _results(self, x: Any, y: Any, scores: tf.Tensor, sample_weight: Any) -> dict[str, Any]:
        results: dict[str, Any] = self.compute_metrics(x, y, scores, sample_weight)
        if self.shard.workers > 1:  # Keras takes the mean over their first axis
            results = {name: tf.reshape(value, [1]) for name, value in results.items()}
        return results

    def _averages(self, index: tf.Tensor) -> tuple[tf.Tensor | None, tf.Tensor | None]:
        return (None, None) if self.ema_scores is None else self.ema_scores.read(index)

    def _value_of(self, term: Term, step: Step) -> tf.Tensor:
        """What a term makes of a batch, float32 scalar: 0 where it does not count."""
        if not term.weight:
            return tf.zeros([])
        if term.start_epoch <= 1 or term.of_whole_batch:
            return _scalar(term, term.compute(step))
        counts = self.epoch.value >= term.start_epoch
        if replicas.count() > 1:  # they may not meet inside of a condition
            value = tf.cast(_scalar(term, term.compute(step)), tf.float32)
            return tf.where(counts, value, 0.0)
        found: tf.Tensor = tf.cond(
            counts,
            lambda: tf.cast(_scalar(term, term.compute(step)), tf.float32),
            lambda: tf.zeros([]),
        )
        return found

    def _weighed(self, term: Term, value: tf.Tensor) -> tf.Tensor:
        if term.start_epoch <= 1:
            return value if term.weight == 1 else term.weight * value
        active = tf.cast(self.epoch.value >= term.start_epoch, tf.float32)
        return active * term.weight * value

    def _track(self, size: Any, loss: Any, values: Mapping[Term, tf.Tensor]) -> None:
        loss_tracker(self).update_state(loss, sample_weight=size)
        for term, value in values.items():
            if term.reported_as:
                getattr(self, _tracker(term)).update_state(value, sample_weight=size)

    def fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """`keras.Model.fit`; looks at the first batch, and adds the callback that starts epochs.

        Raises:
            ValueError: for batches that cannot be meant, see `keras_checks.check_batch`.
            tf.errors.InvalidArgumentError: a later batch holds labels other than 1, 0 and -1. With
                `jit_compile=True` those of a `PyDataset` or generator are not looked at; on
                several replicas -2 in these is not told from a stand-in's mark.
        """
        given = inspect.signature(super().fit).bind(*args, **kwargs).arguments
        keras_checks.check_data(self, given)
        return self.fit_trusted(**given)

    def fit_trusted(self, **given: Any) -> keras.callbacks.History:
        """`fit` without a look at the data, for those that `spml_tf.datasets` makes.

        To read a first batch of training and validation images in advance takes some seconds.

        Args:
            given: arguments of `fit` by name.
        """
        self._set_class_weight(given.pop("class_weight", None))
        given["callbacks"] = with_own(given.get("callbacks"))
        if isinstance(given.get("x"), tf.data.Dataset | tf.distribute.DistributedDataset):
            given.setdefault("shuffle", False)  # Keras would warn that it does not
        strategy = self.distribute_strategy
        replica_batches.deal_argument(given, "x", "steps_per_epoch", strategy)
        replica_batches.deal_argument(given, "validation_data", "validation_steps", strategy)
        try:
            return super().fit(**given)
        finally:  # an error may have ended it
            self.end_training()

    def end_training(self) -> None:
        """Thaws the backbone: the network may be saved, or trained in another model.

        `fit` calls it; a training loop of your own, where it ends before `warmup_epochs` are over.
        """
        with self.distribute_strategy.scope():
            self._set_backbone_trainable(True)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """`keras.Model.evaluate`, without the terms that need training images.

        Raises:
            ValueError: for labels or weights that cannot be meant; a dataset's first batch is
                looked at.
            tf.errors.InvalidArgumentError: as for `fit`.
        """
        given = inspect.signature(super().evaluate).bind(*args, **kwargs).arguments
        if "kwargs" not in given:  # else `fit` calls, which has looked at them
            keras_checks.check_evaluated(self, given)
            keras_checks.check_in_pipeline(self, given, "x")
        replica_batches.deal_argument(given, "x", "steps", self.distribute_strategy)
        given.update(given.pop("kwargs", {}))
        with self._without_training_images():
            return super().evaluate(**given)

    def test_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """`keras.Model.test_on_batch`, as `evaluate`."""
        given = inspect.signature(super().test_on_batch).bind(*args, **kwargs).arguments
        keras_checks.check_evaluated(self, given)
        with self._without_training_images():
            return super().test_on_batch(*args, **kwargs)

    @contextlib.contextmanager
    def _without_training_images(self) -> Iterator[None]:
        self._evaluating = True
        try:
            yield
        finally:
            self._evaluating = False

    def get_metrics_result(self) -> dict[str, Any]:
        """As for Keras; in evaluation without the terms that have no value there."""
        found = super().get_metrics_result()
        if not self._evaluating and not tf.inside_function():
            self.latest_results = found
        without = [term for term in self.terms if type(term).evaluate is Term.evaluate]
        silent = {f"{term.reported_as}_loss" for term in without} if self._evaluating else set()
        return {name: value for name, value in found.items() if name not in silent}

    def train_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """`keras.Model.train_on_batch`; begins the first epoch where `begin_epoch` did not.

        Raises:
            ValueError: for a batch that cannot be meant, see `keras_checks.check_batch`.
        """
        given = inspect.signature(super().train_on_batch).bind(*args, **kwargs).arguments
        keras_checks.check_batch(self, given["x"], given.get("y"), given.get("sample_weight"))
        self._set_class_weight(given.pop("class_weight", None))
        epoch = int(self.epoch.numpy())
        if epoch == 0:
            self.begin_epoch(1)
        else:  # `fit` has thawed the backbone at its end
            self._set_backbone_trainable(epoch > self.warmup_epochs)
        return super().train_on_batch(**given)

    def _set_class_weight(self, class_weight: Mapping[int, float] | None) -> None:
        if self._label_weights.set_of_fit(class_weight):
            self.train_function = None  # it holds the former factors

    def begin_epoch(self, epoch: int) -> None:
        """Prepares an epoch, counted from 1: freezes or thaws the backbone, tells the parts.

        `fit` calls it; a training loop of your own calls it at the start of each epoch.
        """
        if not self.compiled:
            raise ValueError("call `compile()` before an epoch begins")
        with self.distribute_strategy.scope():
            self.epoch.assign(epoch)
            if not self.optimizer.built:
                self._set_backbone_trainable(True)  # so that the optimizer knows every variable
                self.optimizer.build(self.trainable_variables)
            self._set_backbone_trainable(epoch > self.warmup_epochs)
            if epoch != self._resumed_epoch:
                for part in self.parts:
                    part.on_epoch(epoch, self.ema_scores)
            self._resumed_epoch = 0

    def resume_epoch(self, epoch: int) -> None:
        """Says that the next `begin_epoch` goes on with an epoch, after `load_weights`.

        What the parts do at its start has been done, and is in the weights.

        Args:
            epoch: counted from 1.
        """
        self._resumed_epoch = epoch

    def _set_backbone_trainable(self, trainable: bool) -> None:
        if self._backbone.turn(trainable) and self.train_function is not None:
            self.make_train_function(force=True)

    def set_labels(self, labels: ArrayLike) -> None:
        """Tells the parts all training labels at once.

        Without it labels enter as batches come: then banks of an earlier run cannot select in the
        first epoch, and ROLE's estimates start as if no label were known.

        Args:
            labels: [N, L] in {1, 0, -1}, of all workers' images.

        Raises:
            ValueError: another number of images or classes, or another value.
        """
        known = validate_labels(labels)
        if known.shape != (self.num_images, self.num_classes):
            raise ValueError(
                f"labels of {known.shape[0]} images and {known.shape[1]} classes do not fit "
                f"{self.num_images} images and {self.num_classes} classes"
            )
        for part in self.parts:
            part.start(self.shard.own(known))

    def set_weights_of_labels(
        self, images: NDArray[np.float32] | None = None, classes: NDArray[np.float32] | None = None
    ) -> None:
        """Weighs the training labels by image and by class, in all batches of this process.

        They multiply what `sample_weight` and `class_weight` of `fit` say. Metrics and evaluation
        are not weighed.

        Args:
            images: float32 [N] from 0, by the images' index; None: all 1.
            classes: float32 [L] from 0; None: all 1.

        Raises:
            ValueError: another number of images or classes, or weights that are no numbers from 0.
        """
        self._label_weights.keep(images, classes)
        self.train_function = None  # it holds the former ones

    def marked_labels(self, observed: NDArray[np.int8]) -> NDArray[np.int8]:
        """The training labels with the marks of all rules that stay, [N, L] int8 in {1, 0, -1, 2}.

        Of several workers each returns those of its own images, `shard.own` of all.

        Args:
            observed: [N, L] int8 in {1, 0, -1}, the training labels.
        """
        stores = [labels.numpy() for labels in self.kept_labels]
        return merged_marks(stores) if stores else self.shard.own(observed)

    def load_banks(self, path: str) -> None:
        """Starts the banks from those of an earlier run on the same images.

        The expected positives are then chosen once before the first epoch, and again in each epoch
        from `selection_start_epoch` on. Class priors that the earlier run has estimated are kept,
        and with the budget "probable" how many labels it counted by its own probability and K.

        Args:
            path: the earlier run's checkpoint, a .weights.h5 written by `save_weights`.

        Raises:
            ValueError: where a bank of the checkpoint has another shape or dtype than this model's,
                or the checkpoint lacks the scores that a part needs, or all that the model keeps.
        """
        banks = [bank for bank in (self.ema_scores, self.ema_heatmaps) if bank is not None]
        loaded = ema_bank.load_all(path, banks)
        wants_scores = any(part.needs_scores for part in self.parts)
        if wants_scores and self.ema_scores is not None and self.ema_scores.name not in loaded:
            raise ValueError(
                f"{path}: holds no running averages of scores; train that run with keep_scores"
            )
        if not loaded:
            kept = " and ".join(bank.name for bank in banks) or "none"
            raise ValueError(f"{path}: holds no bank that this model keeps, which are: {kept}")
        for rule in self.rules:
            rule.load_priors(path)

    def save(self, *args: Any, **kwargs: Any) -> None:
        """`keras.Model.save`; one of several workers may call it alone."""
        with saving():  # Keras makes variables on the way, which all workers must agree on
            super().save(*args, **kwargs)

    def save_weights(self, *args: Any, **kwargs: Any) -> None:
        """`keras.Model.save_weights`; one of several workers may call it alone."""
        with saving():
            super().save_weights(*args, **kwargs)

    def save_network(self, filepath: str) -> None:
        """Saves the network alone, its backbone trainable even while it warms up.

        Args:
            filepath: of the file, which ends in .keras.
        """
        with self._backbone.thawed(), saving():
            self.network.save(filepath)

    def export(self, filepath: str, *args: Any, **kwargs: Any) -> None:
        """`keras.Model.export` of the network with scores as its output; banks stay behind.

        Args:
            filepath: the folder to write.
            args, kwargs: as for Keras.
        """
        scores_network(self.network).export(filepath, *args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        of_process = ("bank_device", "bank_dir")
        term = self._label_term()
        of_method = contextlib.nullcontext() if term is None else term.with_own_loss()
        with self._backbone.thawed(), of_method:
            network = serialize(self.network)
            method = self.method if isinstance(self.method, str) else serialize(self.method)
        return {
            **{name: x for name, x in self.options().items() if name not in of_process},
            **plain(self.part_options),
            "network": network,
            "num_images": int(self.num_images),
            "method": method,
            "positives_per_image": plain(self.positives_per_image),
            "name": self.name,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> SPMLModel:
        deserialize = keras.saving.deserialize_keras_object
        config = copy.deepcopy(config)  # Keras changes what it reads
        config["network"] = deserialize(config["network"], custom_objects)
        if not isinstance(config["method"], str):
            config["method"] = deserialize(config["method"], custom_objects)
        return cls(**config)


def _scalar(term: Term, value: tf.Tensor) -> tf.Tensor:
    """The value of a term in a step, which must be one number."""
    if value.shape.rank:
        raise ValueError(
            f"{term.name}: compute must return one number, the mean over the batch. "
            f"Received: shape {value.shape}"
        )
    return value


def _tracker(term: Term) -> str:
    return f"{term.reported_as}_tracker"


def _pooled(logits: tf.Tensor) -> tf.Tensor:
    """Logits of f: the mean of F over the grid, [B, L]."""
    return tf.reduce_mean(logits, axis=(1, 2))


def _positives(labels: tf.Tensor) -> tf.Tensor:
    """What metrics see of labels: 1 for positives, 0 for negatives and -0.0 for unknown ones.

    Any metric takes -0.0 for 0; `MeanAveragePrecision` tells it apart.
    """
    positive = tf.cast(labels == POSITIVE, tf.float32)
    return tf.where(tf.cast(labels, tf.float32) < 0, tf.constant(-0.0), positive)


def _total(terms: Sequence[tf.Tensor], regularisation: Sequence[tf.Tensor]) -> tf.Tensor:
    addends = [*terms, *(tf.reduce_sum(tf.cast(x, tf.float32)) for x in regularisation)]
    return functools.reduce(operator.add, addends) if addends else tf.zeros([])
