"""Methods after the paper against loops in NumPy, written from their papers' formulas."""

from __future__ import annotations

import dataclasses
import math
import types
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_baselines import nl, random_case, sigmoid, slope
from tiny_network import tiny_cam

import spml_tf
from spml_tf import losses
from spml_tf.banks import ema_bank
from spml_tf.datasets import label_files
from spml_tf.runs.settings import Settings, resolve
from spml_tf.system.errors import UserError
from spml_tf.system.tensor_memory import address, array_of
from spml_tf.training import (
    masking,
    methods,
    parts,
    pseudo_labels,
    recipes,
    rules,
    scheduled_terms,
    strong_views,
)

EXPERIMENTS = Path(__file__).parent.parent / "experiments"
GR = {"slope": 1.5, "offset": -2.0, "mean": 0.7, "deviation": 0.6}
POWERS = {"positive_power": 0.01, "negative_power": 1.5}


def numpy_gr(labels, logits, weights, factors_at=None):
    """K and V stay those of `factors_at` while a finite difference moves the logits."""
    fixed = sigmoid(logits if factors_at is None else factors_at)
    total = 0.0
    for place, z in np.ndenumerate(labels):
        f, g = sigmoid(logits[place]), fixed[place]
        k = sigmoid(GR["slope"] * g + GR["offset"])
        v = math.exp(-(((g - GR["mean"]) / GR["deviation"]) ** 2) / 2)
        as_positive = (1 - f**0.01) / 0.01
        as_negative = (1 - (1 - f) ** 1.5) / 1.5
        unknown = v * (k * as_positive + (1 - k) * as_negative)
        term = {1: -math.log(f), 0: -math.log(1 - f), -1: unknown, 2: 0.0}[z]
        total += weights[place] * term
    return total / labels.size


def check_value_and_gradient(function, expected, seed: int) -> None:
    """`expected(labels, logits, weights, factors_at)` is NumPy's; weighted and not."""
    labels, logits = random_case(seed, 3, 5)
    for weights in (np.ones(logits.shape), np.random.default_rng(seed).uniform(0, 3, logits.shape)):
        inputs = tf.constant(logits)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            values = function(tf.constant(labels), inputs, weights=tf.constant(weights))
            value = tf.reduce_mean(values)
        np.testing.assert_allclose(value, expected(labels, logits, weights), atol=1e-9)
        wanted = slope(lambda x: expected(labels, x, weights, logits), logits)  # noqa: B023
        np.testing.assert_allclose(tape.gradient(value, inputs), wanted, atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_gr_equals_numpy(seed):
    def function(labels, logits, weights):
        return losses.generalized_robust(labels, logits, **GR, **POWERS, weights=weights)

    check_value_and_gradient(function, numpy_gr, seed)


def test_schedule_of_gr_by_hand():
    """T = 8, n = 2: w and b wait until epoch 4 = n + 2, mu and sigma until 3; nothing passes T."""
    term = scheduled_terms.GeneralizedRobustTerm(epochs=8, head_epochs=2, offset_end=-8.0)
    wanted = {
        1: (0, -2, 0.5, 2), 2: (0, -2, 0.5, 2), 3: (0, -2, 0.55, 1.75), 4: (1 / 3, -3, 0.6, 1.5),
        8: (5 / 3, -7, 0.8, 0.5), 20: (2, -8, 0.8, 0.5),
    }  # fmt: skip
    for epoch, values in wanted.items():
        found = term.constants(tf.constant(epoch, tf.int64))
        np.testing.assert_allclose(
            [found[x] for x in ("slope", "offset", "mean", "deviation")], values, rtol=1e-6
        )


def test_gr_term_uses_its_epoch_in_training_and_evaluation():
    term = scheduled_terms.GeneralizedRobustTerm(epochs=4)
    term.prepare(parts.Facts(num_images=2, num_classes=3, grid=1))
    term.on_epoch(3, None)
    labels = tf.constant([[1, -1, 2], [0, -1, -1]], tf.int8)
    logits = tf.constant([[0.3, -1.0, 2.0], [1.0, 0.5, -2.0]])
    constants = {"slope": 1.0, "offset": -2.0, "mean": 0.725, "deviation": 0.875}
    wanted = tf.reduce_mean(losses.generalized_robust(labels, logits, **constants))
    np.testing.assert_allclose(term.evaluate(labels, logits, None), wanted, rtol=1e-6)


class TestPairs:
    """The first gives its rules, the second its loss and rules."""

    @pytest.mark.parametrize(
        "name, rules, term",
        [
            ("en+gr+scl", ["ExpectedPositives"], "GeneralizedRobustTerm"),
            ("ll_r+hill", ["LargeLoss"], "Hill"),
            ("en+splc", ["ExpectedPositives", "Confident"], "Hill"),
            ("ll_r+asl", ["LargeLoss"], "Asymmetric"),
            ("en+em_apl+cl", ["ExpectedPositives"], "PseudoLabels"),
            ("splc+ll_ct+cl", ["Confident", "LargeLoss"], "ExpectedPositive"),
        ],
    )
    def test_parts(self, name, rules, term):
        known = {"positives_per_image": 2.0}
        recipe = recipes.recipe_of(
            name, {x: known[x] for x in methods.flags_of(name) if x in known}
        )
        assert [type(x).__name__ for x in recipe.rules] == rules
        first = recipe.terms[0]
        assert type(getattr(first, "loss", first)).__name__ == term
        assert len(recipe.terms) == 1 + name.count("cl")

    def marks(self, given: tuple, steps: list[tuple[int, float]]) -> list[list[list[int]]]:
        """What the rules make of one unknown label beside a positive, by epoch and its logit."""
        facts = parts.Facts(num_images=1, num_classes=2, grid=1)
        for rule in given:
            rule.prepare(facts)
        found = []
        for epoch, logit in steps:
            step = parts.Step(
                index=tf.constant([0], tf.int64), box=None, flip=None,
                epoch=tf.constant(epoch, tf.int64), weight=None,
                labels=tf.constant([[1, -1]], tf.int8), logits=tf.constant([[9.0, logit]]),
                maps=None, average=None, visited=None,
            )  # fmt: skip
            for rule in given:
                step = dataclasses.replace(step, labels=rule.mark(step))
            found.append(step.labels.numpy().tolist())
        return found

    def test_marks_made_anew_for_each_batch_do_not_stay_in_the_store_of_a_later_rule(self):
        selection = rules.ExpectedPositives(positives_per_image=1.0, start_epoch=5)
        found = self.marks((rules.Confident(), selection), [(2, 3.0), (3, -3.0)])
        assert found == [[[1, 2]], [[1, -1]]]
        assert selection.labels.numpy().tolist() == [[1, -1]]

    def test_a_lasting_rule_keeps_its_own_marks_alone(self):
        """SPLC marks at logit 3, LL-Cp's own largest loss is marked at logit -3 too and stays."""
        for rate, after in ((0.0, -1), (100.0, 2)):
            lasting = rules.LargeLoss(rate=rate, growing=False, lasting=True)
            found = self.marks((rules.Confident(), lasting), [(2, 3.0), (3, -3.0), (1, -3.0)])
            assert found == [[[1, 2]], [[1, after]], [[1, after]]]
            assert lasting.labels.numpy().tolist() == [[1, after]]

    def test_the_strong_view_of_lagc_follows_any_method(self):
        """Labels that a rule marks are unknown ones to it."""
        recipe = recipes.recipe_of("en+strong", {"positives_per_image": 2.0, "lagc_threshold": 0.7})
        assert [type(x).__name__ for x in recipe.terms] == ["LabelTerm", "StrongView"]
        labels, logits = (
            tf.constant([[1, 2, -1, 2]], tf.int8),
            tf.constant([[-9.0, 1.0, 0.5, -1.0]]),
        )
        targets, used = recipe.terms[1].targets(labels, logits)  # scores 0.73, 0.62 and 0.27
        assert targets.numpy().tolist() == [[1, 1, 0, 0]] and used.numpy().tolist() == [
            [1, 1, 0, 1]
        ]

    def test_the_first_keeps_what_it_adds(self):
        made = methods.parts_of("recommended+gr")
        assert [x.part.split(":")[1] for x in made] == [
            "ExpectedPositives", "GeneralizedRobustTerm", "SpatialConsistency",
        ]  # fmt: skip

    def test_recommended_is_en_scl_without_k(self):
        """Told neither K nor a budget: its rule is the one that these flags of en+scl make."""
        told = {"selection_budget": "estimated", "selection_multiple": "auto"}
        theirs = recipes.recipe_of("en+scl", {**told, "selection_start_epoch": 4}, "auto")
        ours = recipes.recipe_of("recommended", {"selection_start_epoch": 4})
        assert [type(x) for x in theirs.parts] == [type(x) for x in ours.parts]
        for first, second in ((theirs.rules[0], ours.rules[0]), (theirs.terms[1], ours.terms[1])):
            assert first.get_config() | {"name": ""} == second.get_config() | {"name": ""}
        counted = recipes.recipe_of("recommended", {}, 1.5)
        assert counted.rules[0].positives_per_image == 1.5

    @pytest.mark.parametrize(
        "given, start",
        [
            ({"dataset": "digits"}, 13),
            ({"dataset": "voc", "data_dir": "x", "epochs": 16, "warmup_epochs": 12}, 5),
            ({"dataset": "voc", "data_dir": "x", "epochs": 3}, 2),
        ],
    )
    def test_recommended_selects_after_a_quarter_of_the_epochs(self, given, start):
        found = resolve(Settings(method="recommended", **given))
        assert found.selection_start_epoch == found.consistency_start_epoch == start
        told = resolve(Settings(method="recommended", selection_start_epoch=2, **given))
        assert told.selection_start_epoch == told.consistency_start_epoch == 2

    def test_no_flagfile_of_recommended_changes_the_recipe(self):
        """But for W, which all rows with SCL of a data set share."""
        own = {*methods.flags_of("recommended"), "cam_boost"} - {"heatmap_size"}
        files = sorted(EXPERIMENTS.glob("*/recommended.flags"))
        assert len(files) == 7
        for file in files:
            given = {x.split("=")[0][2:] for x in file.read_text().splitlines() if x[:2] == "--"}
            assert not given & own, file

    def test_recommended_boosts_maps_from_scratch_alone(self):
        def factor(**flags):
            return resolve(Settings(dataset="digits", **flags)).cam_boost

        assert factor(method="recommended") == factor(method="recommended+mixup") == 5
        assert factor(method="recommended", cam_boost=2.0) == 2
        assert factor(method="recommended", init_from="before") == factor(method="en+scl") == 1

    def test_boosted_maps_stay_boosted_in_the_run_that_goes_on(self, tmp_path):
        (tmp_path / "run.json").write_text('{"flags": {"cam_boost": 5.0}}')
        for given, expected in ((None, 5), (1.0, 1)):
            settings = Settings(dataset="digits", init_from=str(tmp_path), cam_boost=given)
            assert resolve(settings).cam_boost == expected

    @pytest.mark.parametrize(
        "name, message",
        [
            ("an+gr", "an marks no labels; before another method stands one of ll_r"),
            ("en+epr", "the loss of epr does not look at what en marks; after it may stand"),
            ("en+ep", "both have the same rule; ep is enough"),
            ("recommended+scl", "recommended has scl already; leave it out"),
            ("recommended+en", "both have the same rule; en is enough"),
            ("lagc+strong", "lagc has strong already; leave it out"),
            ("en+cl+scl", "en.cl.scl: cl and scl are both consistency terms; choose one"),
            ("recommended+cl", "cl and scl are both consistency terms; choose one"),
            ("en+gr+hill", "must be one of"),
            ("en+scl+gr", "must be one of"),
        ],
    )
    def test_what_does_not_go_together(self, name, message):
        with pytest.raises(ValueError, match=message):
            methods.parts_of(name)

    def test_the_table_says_what_the_classes_are(self):
        for part in methods.all_parts():
            found = part.load()
            kinds = {"loss": losses.LabelLoss, "rule": parts.Rule, "term": parts.Term}
            assert [kind for kind, base in kinds.items() if issubclass(found, base)] == [part.kind]
            assert part.needs_label_loss is getattr(found, "needs_label_loss", False)
            assert part.reported_as in ("", getattr(found, "reported_as", ""))

    def test_marks_mean_what_the_table_says(self):
        """At logits 1, a marked label adds nothing where left out, the positive term elsewhere."""
        known = {"positives_per_image": 2.0}
        labels, logits = tf.constant([[2, 2]], tf.int8), tf.constant([[1.0, 1.0]])
        positive = {"Hill": (1 - sigmoid(0.0)) ** 2 * nl(0.0)[0], "ExpectedPositive": nl(1.0)[0]}
        for name, made in methods.METHODS.items():
            said = next((x.marks for x in made if x.marks), "")
            values = {x: known[x] for x in methods.flags_of(name) if x in known}
            term = recipes.recipe_of(name, values).terms[0]
            if isinstance(term, scheduled_terms.GeneralizedRobustTerm):
                term.prepare(parts.Facts(num_images=2, num_classes=3, grid=1))
            loss = getattr(term, "loss", term)
            if said:
                assert getattr(loss, "marks", said) == said
                found = float(term.evaluate(labels, logits, None))
                wanted = 0.0 if said == "left out" else positive[type(loss).__name__]
                assert found == pytest.approx(wanted, rel=1e-6), name
            else:
                assert getattr(loss, "marks", "") == ""


def test_gr_serialises():
    loss = losses.GeneralizedRobust(from_logits=True, slope=1.0, negative_power=1.5)
    copy = keras.losses.deserialize(keras.losses.serialize(loss))
    labels, logits = tf.constant([[1, 0, -1, 2]]), tf.constant([[-1e4, 1e4, 1e4, 0.0]])
    assert float(loss(labels, logits)) == float(copy(labels, logits))
    assert np.isfinite(float(loss(labels, logits)))


def numpy_em_apl(targets):
    def value(labels, logits, weights, factors_at=None):
        total = 0.0
        for place, z in np.ndenumerate(labels):
            f, t = sigmoid(logits[place]), targets[place]
            entropy = -(f * math.log(f) + (1 - f) * math.log(1 - f))
            soft = -t * math.log(f) - (1 - t) * math.log(1 - f)
            unknown = 0.7 * soft if t >= 0 else -0.2 * entropy
            term = {1: -math.log(f), 0: -math.log(1 - f), -1: unknown, 2: 0.0}[z]
            total += weights[place] * term
        return total / labels.size

    return value


@pytest.mark.parametrize("seed", range(5))
def test_em_apl_equals_numpy(seed):
    rng = np.random.default_rng(seed)
    targets = np.where(rng.random((3, 5)) < 0.5, rng.random((3, 5)), -1.0)

    def function(labels, logits, weights):
        given = (tf.constant(targets), 0.2, 0.7)
        return losses.pseudo_labelled_entropy(labels, logits, *given, weights=weights)

    check_value_and_gradient(function, numpy_em_apl(targets), seed)


class TestPseudoLabels:
    """Six images, two classes, of which the second has one known label of each kind."""

    LABELS = np.array([[-1, 1], [-1, 0], [-1, -1], [-1, -1], [-1, -1], [-1, -1]], np.int8)
    SCORES = np.array(
        [[0.3, 0.0], [0.1, 0.0], [0.6, 0.2], [0.2, 0.4], [0.1, 0.2], [0.9, 0.8]], np.float32
    )

    def made(self, **options):
        term = pseudo_labels.PseudoLabels(**options)
        term.facts = parts.Facts(num_images=6, num_classes=2, grid=1)
        term.prepare(term.facts)
        term.start(self.LABELS)
        return term

    def bank(self, scores, storage="float32"):
        bank = ema_bank.score_bank(6, 2, momentum=0.0, storage=storage)
        bank.write(tf.range(6, dtype=tf.int64), tf.constant(scores))
        return bank

    @pytest.mark.parametrize("storage", ["float32", "uint8"])
    def test_the_least_likely_get_their_scores_for_good(self, storage):
        """0.9 U / 2 = 2.7 and 1.8: two of class 0 (images 1 and 4 with 0.1), one of class 1 (image
        2 before 4, both 0.2); then images 3 and 0, and image 4, by scores that were turned."""
        term = self.made(epochs=4, warmup_epochs=2, share=0.9)
        term.add_labels(self.bank(self.SCORES, storage))
        wanted = np.array([[-1, -2], [0.1, -2], [-1, 0.2], [-1, -1], [0.1, -1], [-1, -1]])
        np.testing.assert_allclose(term.targets.numpy(), wanted, atol=1 / 255)
        later = self.SCORES / 2
        term.add_labels(self.bank(later, storage))
        wanted[[3, 0], 0] = later[[3, 0], 0]
        wanted[4, 1] = 0.1
        np.testing.assert_allclose(term.targets.numpy(), wanted, atol=1 / 255)

    def test_epochs_of_pseudo_labels(self):
        """T = 4 and a warm-up of 2: epochs 3 and 4."""
        term = self.made(epochs=4, warmup_epochs=2)
        scores, counts = self.bank(self.SCORES), []
        for epoch in range(1, 7):
            term.on_epoch(epoch, scores)
            counts.append(int((term.targets.numpy() >= 0).sum()))
        assert counts == [0, 0, 3, 6, 6, 6]

    def test_labels_that_come_in_batches(self):
        term = pseudo_labels.PseudoLabels()
        term.facts = parts.Facts(num_images=6, num_classes=2, grid=1)
        term.prepare(term.facts)
        step = types.SimpleNamespace(
            index=tf.range(6, dtype=tf.int64), labels=tf.constant(self.LABELS)
        )
        term.after_step(step, None)
        np.testing.assert_array_equal(term.targets.numpy(), self.made().targets.numpy())

    def test_a_table_of_several_blocks_stays_in_its_file(self, tmp_path):
        """0.5 U / 2: of each class a quarter of the unknown labels, in images that were seen."""
        rng = np.random.default_rng(0)
        images, classes = 30_000, 9
        labels = np.where(rng.random((images, classes)) < 0.9, -1, 1).astype(np.int8)
        scores = rng.permuted(np.tile(np.arange(images) / images, (classes, 1)), axis=1).T
        seen = np.flatnonzero(rng.random(images) < 0.95)
        term = pseudo_labels.PseudoLabels(epochs=3, warmup_epochs=1, share=0.5)
        term.facts = parts.Facts(
            num_images=images, num_classes=classes, grid=1, directory=str(tmp_path)
        )
        term.prepare(term.facts)

        def place():
            return address(array_of(term.targets.value.read_value_no_copy()))

        before = place()
        lines = Path("/proc/self/maps").read_text().splitlines()
        assert any(f"{before:x}-" in x and f"{tmp_path}/spml_tf-" in x for x in lines)
        term.start(labels)
        bank = ema_bank.score_bank(images, classes, momentum=0.0)
        bank.write(tf.constant(seen), tf.constant(scores[seen]))
        term.add_labels(bank)
        assert place() == before
        wanted = np.where(labels == -1, -1.0, -2.0)
        for column in range(classes):
            unknown = seen[labels[seen, column] == -1]
            lowest = unknown[np.argsort(scores[unknown, column])]
            count = int(0.25 * (labels[:, column] == -1).sum())
            wanted[lowest[:count], column] = scores[lowest[:count], column]
        np.testing.assert_allclose(term.targets.numpy(), wanted, atol=1e-6)


def numpy_p_asl(labels, logits, weights, factors_at=None):
    fixed = sigmoid(logits if factors_at is None else factors_at)
    total = 0.0
    for place, z in np.ndenumerate(labels):
        positive, negative = nl(logits[place])
        focus = {1: positive, 0: fixed[place] * negative, -1: fixed[place] ** 4 * negative, 2: 0.0}
        total += weights[place] * focus[z]
    return total / labels.size


@pytest.mark.parametrize("seed", range(5))
def test_p_asl_equals_numpy(seed):
    def function(labels, logits, weights):
        return losses.partial_asymmetric(labels, logits, 1.0, 4.0, weights=weights)

    check_value_and_gradient(function, numpy_p_asl, seed)


class TestLikelyPositives:
    def test_the_likeliest_of_a_batch_and_frequent_classes(self):
        """2 images, 1.5 an image: 3 of the unknown, 7, 6 and 5; class 3 is frequent."""
        labels = tf.constant([[1, -1, -1, -1], [-1, 0, -1, -1]], tf.int8)
        logits = tf.constant([[9.0, 7.0, 2.0, -3.0], [6.0, 9.0, 5.0, -4.0]])
        rule = rules.LikelyPositives(per_image=1.5)
        found = rule.marked(labels, logits, tf.constant([0.9, 0.4, 0.5, 0.51]))
        assert found.numpy().tolist() == [[1, 2, -1, 2], [2, 0, 2, 2]]

    def test_priors_that_leave_every_unknown_label_out_are_noted(self):
        """As those of a run that saw positives alone, whose scores all go to 1."""
        with pytest.warns(UserWarning, match="csl: the priors of all classes are above"):
            self.made(priors=[0.9, 0.6]).on_epoch(1, None)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            self.made(priors=[0.9, 0.5]).on_epoch(1, None)

    def made(self, **options):
        rule = rules.LikelyPositives(**options)
        rule.prepare(parts.Facts(num_images=6, num_classes=2, grid=1))
        return rule

    def test_priors_of_its_own_bank_from_the_second_epoch_on(self):
        rule, bank = self.made(), ema_bank.score_bank(6, 2, momentum=0.0)
        rule.on_epoch(1, bank)
        np.testing.assert_array_equal(rule.prior.numpy(), [0, 0])
        for epoch, scores in ((2, [[0.2, 0.6], [0.6, 1.0]]), (3, [[0.1, 0.3], [0.3, 0.5]])):
            bank.write(tf.constant([1, 4], tf.int64), tf.constant(scores))  # others unseen
            rule.on_epoch(epoch, bank)
            np.testing.assert_allclose(rule.prior.numpy(), np.mean(scores, axis=0), rtol=1e-6)

    def test_priors_of_an_earlier_run_stay(self):
        rule, bank = self.made(), ema_bank.score_bank(6, 2, momentum=0.0)
        index = tf.range(6, dtype=tf.int64)
        bank.write(index, tf.fill([6, 2], 0.25))
        rule.on_epoch(1, bank)
        bank.write(index, tf.fill([6, 2], 0.75))
        rule.on_epoch(2, bank)
        np.testing.assert_allclose(rule.prior.numpy(), [0.25, 0.25])

    def test_given_priors(self):
        rule = self.made(priors=[0.1, 0.7])
        assert not rule.needs_scores and self.made().needs_scores
        rule.on_epoch(1, None)
        np.testing.assert_allclose(rule.prior.numpy(), [0.1, 0.7], rtol=1e-6)
        for wrong in ([0.1], [0.1, 1.5], "file.csv"):
            with pytest.raises(ValueError, match="likely_priors must be 2 numbers|must be numbers"):
                self.made(priors=wrong)

    def test_priors_from_a_file(self, tmp_path):
        path = tmp_path / "priors.csv"
        path.write_text("class,prior\ndog,0.75\ncat,0.25\n")
        assert label_files.read_class_priors(path, ["cat", "dog"], "likely_priors").tolist() == [
            0.25,
            0.75,
        ]
        path.write_text("class,annotated_share,prior,low\ndog,0.5,0.75,0\ncat,0.125,0.25,0\n")
        found = label_files.read_class_priors(path, ["cat", "dog"], "likely_priors")
        assert found.tolist() == [0.25, 0.75]  # class_priors.csv of a run
        for text, message in (
            ("class,weight\n", "the first line must have the columns class,prior"),
            ("class,prior\ncat,0.1\n", "the class 'dog' has no row; give it one from 0 to 1"),
            ("class,prior\ncat,2\ndog,0\n", "the class 'cat' has the prior 2; give it"),
            ("class,prior\ncat,x\n", "the prior must be a number from 0, found 'x'"),
            ("class,prior,prior\ncat,1,1\n", "the first line must have the columns class,prior"),
            ("low,class,prior\n0,cat\n", "priors.csv:2: expected one of the classes cat, dog"),
        ):
            path.write_text(text)
            with pytest.raises(UserError, match=message):
                label_files.read_class_priors(path, ["cat", "dog"], "likely_priors")


def numpy_network(images):
    """Maps of a grid of 2: sums of red and of blue of each quarter; images are 4 x 4."""
    quarters = images.reshape(-1, 2, 2, 2, 2, 3).sum(axis=(2, 4))
    return np.stack([quarters[..., 0], quarters[..., 2]], axis=-1) / 4 - 1


def numpy_bilinear(grid):
    """A grid of 2 to one of 4: centres lie at 1/4 and 3/4 of a cell, clamped at the edges."""
    weights = np.array([[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])
    return weights @ grid @ weights.T


class TestInformationGap:
    """Red is the given label of image 0, blue is shown elsewhere in it."""

    def images(self):
        images = np.zeros((3, 4, 4, 3), np.float32)
        images[0, :2, :2, 0] = 8.0  # red, upper left
        images[0, 2:, 2:, 2] = 8.0  # blue, lower right
        images[1, :2, :2, 0] = 8.0
        images[1, :2, :2, 2] = 2.0  # blue in the red region
        images[2] = 3.0  # without a label
        return images

    LABELS = np.array([[1, -1], [1, -1], [-1, -1]], np.int8)

    def step(self, epoch=4, scale=1.0):
        def network(images, training=False):
            assert not training
            return tf.numpy_function(lambda x: scale * numpy_network(x), [images], tf.float32)

        return types.SimpleNamespace(
            labels=tf.constant(self.LABELS), image=tf.constant(self.images()), network=network,
            epoch=tf.constant(epoch, tf.int64),
        )  # fmt: skip

    def made(self, **options):
        rule = masking.InformationGap(**options)
        rule.prepare(parts.Facts(num_images=3, num_classes=2, grid=2))
        return rule

    def by_hand(self, removed=0.0):
        """Logits, gaps to the masked images, and the masked images, in NumPy."""
        images = self.images()
        maps, masked = numpy_network(images), images.copy()
        for number in (0, 1):
            red = maps[number, ..., 0]
            region = numpy_bilinear((red - red.min()) / (red.max() - red.min())) > 0.8
            masked[number] = np.where(region[..., None], images[number], removed)
        logits = maps.mean(axis=(1, 2))
        return logits, np.abs(logits - numpy_network(masked).mean(axis=(1, 2))), masked

    def test_only_the_region_of_the_given_label_is_left(self):
        images, rule = self.images(), self.made()
        maps = tf.constant(numpy_network(images), tf.float32)
        found = rule.masked(tf.constant(images), maps, tf.constant(self.LABELS)).numpy()
        np.testing.assert_array_equal(found, self.by_hand()[2])
        assert found[0, 0, 0, 0] == 8 and not found[0, 2:].any()  # blue is gone
        two = rule.masked(tf.constant(images), maps, tf.constant([[1, 1]] * 3, tf.int8)).numpy()
        np.testing.assert_array_equal(two, images)

    def test_what_is_removed_has_the_colour_of_the_networks_zero(self):
        """The tiny network scales by 1 / 128 and takes 1 off: 128 goes to 0."""
        model = spml_tf.SPMLModel(tiny_cam(2, image_size=16), num_images=3, method="ignore")
        images, rule = self.images(), model.rules[0]
        maps = tf.constant(numpy_network(images), tf.float32)
        found = rule.masked(tf.constant(images), maps, tf.constant(self.LABELS)).numpy()
        np.testing.assert_array_equal(found, self.by_hand(removed=128.0)[2])

    def test_marks_need_a_gap_and_a_high_logit(self):
        """A gap above the mean one and a logit below the average, and the other way round."""
        for gap, average in ((0.0, 100.0), (1e6, -100.0)):
            rule = self.made(warmup_epochs=0, momentum=0.999)
            rule.steps.assign(1)
            rule.gap.assign(gap)
            rule.average.assign([average, average])
            assert (rule.mark(self.step(epoch=4)).numpy() == self.LABELS).all()

    def test_marks_what_the_region_does_not_show(self):
        """Blue of image 0 is above the average logit, and its gap above that of red."""
        logits, gaps, _ = self.by_hand()
        rule = self.made(warmup_epochs=3)
        assert (rule.mark(self.step(epoch=3)).numpy() == self.LABELS).all()
        found = rule.mark(self.step(epoch=4)).numpy()
        wanted = self.LABELS.copy()
        mean_gap, average = gaps[[0, 1], 0].mean(), logits.mean(axis=0)
        wanted[(self.LABELS == -1) & (gaps > mean_gap) & (logits > average)] = 2
        np.testing.assert_array_equal(found, wanted)
        assert wanted.tolist() == [[1, 2], [1, -1], [-1, -1]]

    def test_averages_follow_the_batches(self):
        logits, gaps, _ = self.by_hand()
        rule = self.made(momentum=0.75)
        rule.mark(self.step())
        rule.mark(self.step(scale=3.0))  # 3/4 of the first, 1/4 of three times that
        np.testing.assert_allclose(rule.gap.numpy(), 1.5 * gaps[[0, 1], 0].mean(), rtol=1e-6)
        np.testing.assert_allclose(rule.average.numpy(), 1.5 * logits.mean(axis=0), rtol=1e-6)
        assert int(rule.steps.numpy()) == 2

    def test_without_an_image_with_one_positive_nothing_is_marked(self):
        """There is no gap of positives then to compare with."""
        rule, step = self.made(warmup_epochs=0), self.step()
        step.labels = tf.constant([[-1, -1]] * 3, tf.int8)
        np.testing.assert_array_equal(rule.mark(step), step.labels)
        assert rule.gap.numpy() == -1

    def test_images_with_several_positives_do_not_count_in_the_gap(self):
        """They stay whole, so that their gap is 0."""
        _, gaps, _ = self.by_hand()
        rule, step = self.made(), self.step()
        step.labels = tf.constant([*self.LABELS[:2], [1, 1]], tf.int8)
        rule.mark(step)
        np.testing.assert_allclose(rule.gap.numpy(), gaps[[0, 1], 0].mean(), rtol=1e-6)


def numpy_view(image, draws, colour, cutout):
    """One image, pixel by pixel."""
    b, c, s = (1 + colour * (2 * x - 1) for x in draws[:3])
    luma = lambda pixel: pixel @ np.array([0.299, 0.587, 0.114])  # noqa: E731
    middle = np.mean([luma(b * pixel) for row in image for pixel in row])
    result = np.empty_like(image)
    for y, x in np.ndindex(*image.shape[:2]):
        pixel = middle + c * (b * image[y, x] - middle)
        result[y, x] = np.clip(luma(pixel) + s * (pixel - luma(pixel)), 0, 255)
        down, across = (abs((n + 0.5) / len(image) - draws[k]) for n, k in ((y, 3), (x, 4)))
        if max(down, across) < cutout / 2:
            result[y, x] = 127.5
    return result


class TestStrongView:
    def made(self, seed=0, shard=(0, 1), **options):
        term = strong_views.StrongView(**options)
        term.prepare(parts.Facts(num_images=8, num_classes=3, grid=2, seed=seed, shard=shard))
        return term

    def test_views_equal_numpy(self):
        rng = np.random.default_rng(0)
        images, draws = rng.uniform(0, 255, (4, 6, 6, 3)), rng.random((4, 5))
        found = self.made(colour=0.4, cutout=0.5).views(
            tf.constant(images), tf.constant(draws, tf.float32)
        )
        wanted = [numpy_view(*pair, 0.4, 0.5) for pair in zip(images, draws, strict=True)]
        np.testing.assert_allclose(found, wanted, atol=1e-3)
        assert (np.array(wanted) == 127.5).any()

    def test_draws_follow_from_seed_epoch_and_image_only(self):
        term, epoch = self.made(), tf.constant(3, tf.int64)
        several = term.draws(tf.constant([5, 2, 7], tf.int64), epoch).numpy()
        alone = term.draws(tf.constant([2], tf.int64), epoch).numpy()
        np.testing.assert_array_equal(several[1], alone[0])
        others = [
            term.draws(tf.constant([2], tf.int64), epoch + 1),
            term.draws(tf.constant([3], tf.int64), epoch),
            self.made(seed=1).draws(tf.constant([2], tf.int64), epoch),
        ]
        assert all((np.asarray(x) != alone).all() for x in others)
        many = term.draws(tf.range(20_000, dtype=tf.int64), epoch).numpy()
        np.testing.assert_allclose(many.mean(axis=0), 0.5, atol=0.01)

    def test_value_and_gradient_equal_numpy(self):
        """Labels by scores of the plain view: sure ones, unsure ones, and known ones."""
        labels = np.array([[1, -1, -1], [0, -1, -1]], np.int8)
        plain = np.array([[-2.0, 0.5, 0.3], [2.0, -0.5, 0.0]], np.float32)  # 0.62, 0.57; 0.38, 0.5
        strong = np.array([[0.2, -0.4, 1.0], [0.7, 0.9, -1.0]], np.float32)
        weight = np.array([[1.0, 2.0, 1.0], [0.5, 3.0, 1.0]], np.float32)
        shift = tf.Variable(strong)
        step = types.SimpleNamespace(
            labels=tf.constant(labels), logits=tf.Variable(plain), weight=tf.constant(weight),
            image=tf.zeros([2, 4, 4, 3]), index=tf.constant([0, 1], tf.int64),
            epoch=tf.constant(1, tf.int64),
            network=lambda views, training: shift[:, None, None, :] + tf.zeros([1, 2, 2, 1]),
        )  # fmt: skip
        with tf.GradientTape() as tape:
            value = self.made(threshold=0.6).compute(step)
        targets = [(0, 0, 1), (0, 1, 1), (1, 0, 0), (1, 1, 0)]  # row, column, target

        def expected(logits):
            terms = [weight[y, x] * nl(logits[y, x])[0 if t else 1] for y, x, t in targets]
            return sum(terms) / len(targets)

        assert float(value) == pytest.approx(expected(strong), rel=1e-5)
        of_plain, of_strong = tape.gradient(value, [step.logits, shift])
        assert of_plain is None
        np.testing.assert_allclose(of_strong, slope(expected, strong.astype(float)), atol=1e-5)

    def test_without_a_sure_score_the_term_is_zero(self):
        """Both scores are 1/2: no label is used, and nothing is divided by their number, 0."""
        strong = tf.Variable([[3.0, -3.0]])
        step = types.SimpleNamespace(
            labels=tf.constant([[-1, -1]], tf.int8), logits=tf.zeros([1, 2]), weight=None,
            image=tf.zeros([1, 4, 4, 3]), index=tf.constant([0], tf.int64),
            epoch=tf.constant(1, tf.int64),
            network=lambda views, training: strong[:, None, None, :] + tf.zeros([1, 2, 2, 1]),
        )  # fmt: skip
        with tf.GradientTape() as tape:
            value = self.made(threshold=0.6).compute(step)
        assert float(value) == 0
        np.testing.assert_array_equal(tape.gradient(value, strong), np.zeros((1, 2)))

    def test_known_labels_are_used_at_any_threshold(self):
        labels, logits = tf.constant([[1, 0, -1]], tf.int8), tf.constant([[-1.0, 1.0, -9.0]])
        targets, used = self.made(threshold=1.0).targets(labels, logits)
        assert targets.numpy().tolist() == [[1, 0, 0]] and used.numpy().tolist() == [[1, 1, 0]]


@pytest.mark.parametrize("seed", range(3))
def test_soft_expected_positives_equal_numpy(seed):
    def function(labels, logits, weights):
        return losses.expected_positive(labels, logits, weights, expected_target=0.3)

    def expected(labels, logits, weights, factors_at=None):
        positive, negative = nl(logits)
        soft = 0.3 * positive + 0.7 * negative
        terms = np.where(labels == 1, positive, np.where(labels == 2, soft, negative))
        return (weights * terms).sum() / labels.size

    check_value_and_gradient(function, expected, seed)


@pytest.mark.parametrize("seed", range(3))
def test_expected_positives_of_some_weight_equal_numpy(seed):
    def function(labels, logits, weights):
        return losses.expected_negative(labels, logits, weights, expected_weight=0.4)

    def expected(labels, logits, weights, factors_at=None):
        positive, negative = nl(logits)
        factor = np.where(labels == 2, 0.4, 1.0)
        return (weights * np.where(labels == 1, positive, factor * negative)).sum() / labels.size

    check_value_and_gradient(function, expected, seed)


def test_the_weight_of_expected_positives_goes_from_en_to_an():
    """At f = 3/4 a marked label costs ln 4 as a negative; of half the weight, half of it."""
    labels, scores = [[1, -1, 2]], [[0.75, 0.5, 0.75]]
    found = [float(losses.ExpectedNegative(expected_weight=x)(labels, scores)) for x in (0, 0.5, 1)]
    alone = (np.log(4 / 3) + np.log(2)) / 3
    np.testing.assert_allclose(found, [alone + x * np.log(4) / 3 for x in (0, 0.5, 1)], rtol=1e-6)
    assert found[2] == float(losses.AssumeNegative()(labels, scores))
    recipe = recipes.recipe_of("en+scl", {"expected_weight": 0.5, "positives_per_image": 2.0})
    assert recipe.terms[0].loss.expected_weight == 0.5


def test_a_whole_product_of_pseudo_labels_is_one_label():
    """0.6 / 3 * 5 is 0.9999999999999999 in floating point, one label an epoch."""
    term = pseudo_labels.PseudoLabels(epochs=4, warmup_epochs=1, share=0.6)
    term.facts = parts.Facts(num_images=5, num_classes=1, grid=1)
    term.prepare(term.facts)
    term.start(np.full((5, 1), -1, np.int8))
    bank = ema_bank.score_bank(5, 1, momentum=0.0)
    bank.write(tf.range(5, dtype=tf.int64), tf.constant([[0.5], [0.1], [0.2], [0.3], [0.4]]))
    term.add_labels(bank)
    assert np.flatnonzero(term.targets.numpy() >= 0).tolist() == [1]


def test_no_score_is_confident_at_a_threshold_of_1():
    """t = 1: no score is below 0, so that only annotated labels have targets."""
    term = strong_views.StrongView(threshold=1.0)
    labels = tf.constant([[1, -1, 0]], tf.int8)
    _, used = term.targets(labels, tf.constant([[0.0, -200.0, 0.0]]))
    assert used.numpy().tolist() == [[1, 0, 1]]
