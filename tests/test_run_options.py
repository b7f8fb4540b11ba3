"""The options of the commands in user code: they are those of a run with the same flags."""

from __future__ import annotations

import numpy as np
import pytest

import spml_tf
from spml_tf import labels
from spml_tf.runs.settings import Settings, resolve


@pytest.mark.parametrize("method", ["en+scl", "recommended", "gr+cl", "em_apl", "ep+scl", "an"])
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"weights": "none"}, {"from_scratch": True}),
        ({"linear_probe": True}, {"head_only": True}),
        ({"warmup_epochs": 5}, {"warmup_epochs": 5}),
        ({}, {}),
    ],
)
def test_they_are_those_of_the_command(method, flags, words):
    network = {"network": "resnet50", "image_size": 64, "dataset": "digits"}
    settings = resolve(
        Settings(method=method, epochs=12, **{"weights": "imagenet", **flags}, **network)
    )
    found = spml_tf.options_of_run(method, 12, **words)
    assert found["keep_scores"] is True and "warmup_epochs" in found
    assert {name: settings.option(name) for name in found} == found


def test_shares_are_counted_where_labels_are_given():
    """Half of the validation images hold class 0 and all class 1; K is 1.5, eq. 3 halves it."""
    train, val = [[1, -1], [-1, 1]], [[1, 1], [0, 1], [-1, 1]]
    shares = spml_tf.options_of_run("recommended", 8, train_labels=train, val_labels=val)[
        "selection_priors"
    ]
    np.testing.assert_allclose(shares, [(1 + 20 * 0.75) / 22, (2 + 20 * 0.75) / 22])
    given = {"train_labels": train, "val_labels": val}
    assert "selection_priors" not in spml_tf.options_of_run("en", 8, **given)
    assert "selection_priors" in spml_tf.options_of_run(
        "en", 8, selection_budget="estimated", **given
    )
    told = spml_tf.options_of_run("recommended", 8, positives_per_image=3.5, **given)
    assert told["positives_per_image"] == 3.5 and "selection_priors" not in told
    empty = spml_tf.options_of_run("recommended", 8, train_labels=train, val_labels=[[0, 0]])
    assert "selection_priors" not in empty
    kept = spml_tf.options_of_run("recommended", 8, selection_priors=[0.5, 0.5], **given)
    assert kept["selection_priors"] == [0.5, 0.5]
    assert labels.positives_per_image(val) == 1.5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"method": "en+x"}, "x"),
        ({"train_labels": [[1]]}, "together"),
        ({"train_labels": [[1, -1]], "val_labels": [[1, -1]]}, "fully labelled"),
    ],
)
def test_what_cannot_be_is_refused(words, message):
    with pytest.raises(ValueError, match=message):
        spml_tf.options_of_run(**{"method": "recommended", "epochs": 8, **words})
