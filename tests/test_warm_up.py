"""A network that is saved or reused while its backbone is frozen can be trained on."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from test_keras_contract import IMAGES, LABELS, N, kernels, model, x

import spml_tf


def test_a_loaded_model_thaws_as_the_one_that_went_on(tmp_path):
    class Save(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):  # within fit, where the backbone is frozen
            if epoch == 0:
                self.model.save(tmp_path / "model.keras")

    whole = model("an", warmup_epochs=2)
    whole.compile(keras.optimizers.Adam(0.01))
    whole.fit(x(), LABELS, epochs=4, shuffle=False, verbose=0, callbacks=[Save()])
    read = keras.saving.load_model(tmp_path / "model.keras")
    before = [weight.copy() for weight in kernels(read)]
    read.fit(x(), LABELS, initial_epoch=1, epochs=2, shuffle=False, verbose=0)
    assert [np.array_equal(*pair) for pair in zip(before, kernels(read), strict=True)] == [
        True, True, False, False,
    ]  # fmt: skip
    read.fit(x(), LABELS, initial_epoch=2, epochs=4, shuffle=False, verbose=0)
    assert len(read.trainable_variables) == 4
    for one, other in zip(kernels(whole), kernels(read), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_saving_leaves_the_backbone_frozen(tmp_path):
    found = model("an", warmup_epochs=2)
    found.compile("adam")
    found.begin_epoch(1)
    found.save(tmp_path / "model.keras")
    found.save_network(str(tmp_path / "network.keras"))
    assert len(found.trainable_variables) == 2
    network = keras.saving.load_model(tmp_path / "network.keras")
    assert len(network.trainable_variables) == 4
    np.testing.assert_array_equal(network(IMAGES), found.network(IMAGES))


@pytest.mark.parametrize("interrupted", [False, True])
def test_the_network_can_be_trained_in_another_model(interrupted):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    first = model("an", warmup_epochs=2)
    first.compile("adam")
    if interrupted:
        with pytest.raises(KeyboardInterrupt):
            first.fit(x(), LABELS, verbose=0, callbacks=[Stop()])
    else:
        first.fit(x(), LABELS, verbose=0)
    second = spml_tf.SPMLModel(first.network, N, "an")
    second.compile("adam")
    before = kernels(second)
    second.fit(x(), LABELS, verbose=0)
    assert not any(np.array_equal(*pair) for pair in zip(before, kernels(second), strict=True))


def test_batches_after_fit_leave_the_backbone_frozen_in_warm_up():
    found = model("an", warmup_epochs=2)
    found.compile("adam")
    found.fit(x(), LABELS, verbose=0)
    before = [weight.numpy() for weight in found.network.weights]
    found.train_on_batch(x(), LABELS)
    after = [weight.numpy() for weight in found.network.weights]
    same = [np.array_equal(*pair) for pair in zip(before, after, strict=True)]
    assert same == [True, True, False, False]  # the head's two alone


def test_clones_thaw_too():
    first = model("an", warmup_epochs=2)
    first.compile("adam")
    first.begin_epoch(1)
    again = spml_tf.SPMLModel.from_config(first.get_config())
    assert len(again.trainable_variables) == 4 and len(first.trainable_variables) == 2
