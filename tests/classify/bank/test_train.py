from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.utils.class_weight import compute_class_weight

from classify.bank import stack as bank_stack
from classify.bank import train as bank
from classify.bank.layout import lay_flat
from classify.bank.stack import BankRows, initial_weights, make_stacks
from classify.bank.train import HeadSplit, batch_order, train_bank
from classify.models.heads import HeadSpec
from classify.models.keras_file import write_keras
from features.common.arrays import UNKNOWN
from features.common.errors import InputError
from features.common.keras_import import import_keras

ROWS, WIDTH, LABELS, SEED = 90, 24, 3, 5
TRAIN, VALIDATION = np.arange(0, 90, 3), np.setdiff1d(np.arange(90), np.arange(0, 90, 3))[:41]
#: The rows of a fold, to learn from and for validation.
SPLIT_34 = HeadSplit(np.arange(34), np.arange(34, 75))
#: Five epochs that all lower the validation loss, so that the best weights are the last.
FIVE = HeadSpec(dropout=0.0, l2=1e-2, learning_rate=2e-3, batch_size=8, epochs=5, patience=1.0)


@pytest.fixture(scope="module")
def features():
    return (3 + np.random.default_rng(0).standard_normal((ROWS, WIDTH))).astype(np.float32)


@pytest.fixture(scope="module")
def y(features):
    noise = np.random.default_rng(1).standard_normal((ROWS, LABELS))
    return (features[:, :LABELS] + 0.3 * noise > [2.7, 3.0, 3.7]).astype(np.uint8)


def train(specs, features, y, **options):
    return train_bank(specs, features, y, HeadSplit(TRAIN, VALIDATION), SEED, **options)


def train_in_keras(spec, features, y, train_rows=TRAIN):
    """Keras' own training of a spec, with the bank's initial weights and order of the rows."""
    keras = import_keras()
    layers, regulariser = keras.layers, keras.regularizers.L2(spec.l2)
    model = keras.Sequential([keras.Input((WIDTH,))])
    if spec.batch_norm:
        model.add(layers.BatchNormalization())
    for units in spec.hidden_units:
        model.add(layers.Dense(units, activation="relu", kernel_regularizer=regulariser))
    model.add(layers.Dense(LABELS, activation=spec.output or "sigmoid", kernel_regularizer=regulariser))
    optimiser = {
        "adam": keras.optimizers.Adam(spec.learning_rate),
        "sgd": keras.optimizers.SGD(spec.learning_rate, momentum=0.9, nesterov=True),
    }[spec.optimiser]
    kind = keras.losses.CategoricalCrossentropy if spec.output == "softmax" else keras.losses.BinaryCrossentropy
    loss = kind(label_smoothing=spec.label_smoothing)
    if UNKNOWN in y:
        loss = masked_cross_entropy
    model.compile(optimiser, loss, run_eagerly=True)  # to trace a model takes longer than these epochs
    model.set_weights(initial_weights(spec, WIDTH, LABELS))
    validation = (features[VALIDATION], y[VALIDATION].astype(np.float32))
    losses = []
    for epoch in range(spec.epochs):
        rows = train_rows[batch_order(len(train_rows), SEED, epoch)]
        summed = 0.0
        for batch in np.split(rows, range(spec.batch_size, len(rows), spec.batch_size)):
            summed += len(batch) * model.train_on_batch(features[batch], y[batch].astype(np.float32))
        losses.append((summed / len(rows), model.test_on_batch(*validation)))
    return model.get_weights(), *np.array(losses).T


def masked_cross_entropy(truth, predicted):
    """Binary cross-entropy of the known cells, as a person would write it in Keras."""
    ops = import_keras().ops
    known = ops.cast(truth != UNKNOWN, "float32")
    return ops.sum(ops.binary_crossentropy(truth * known, predicted) * known) / ops.sum(known)


PARITY = {
    "adam": FIVE,
    "sgd": replace(FIVE, optimiser="sgd", learning_rate=1e-2, seed=1),
    "smoothed": replace(FIVE, label_smoothing=0.2, seed=2),
    "no batch norm": replace(FIVE, batch_norm=False, learning_rate=1e-3, seed=3),
    "hidden": replace(FIVE, hidden_units=(16,), seed=4),
    "deep, sgd": replace(FIVE, hidden_units=(12, 6), optimiser="sgd", learning_rate=1e-2, label_smoothing=0.1),
}


@pytest.fixture(scope="module")
def bank_of_parity(features, y):
    """The heads that Keras trains as well, and beside them one whose weights are soon not finite."""
    specs = PARITY | {"diverged": replace(PARITY["sgd"], learning_rate=1e30)}
    return dict(zip(specs, train(list(specs.values()), features, y), strict=True))


@pytest.mark.parametrize("name", PARITY)
def test_the_bank_trains_as_keras_does(name, bank_of_parity, features, y):
    head = bank_of_parity[name]
    weights, loss, validation_loss = train_in_keras(PARITY[name], features, y)
    assert len(TRAIN) % FIVE.batch_size  # the last batch is a short one
    assert head.best_epoch == FIVE.epochs
    np.testing.assert_allclose(head.curves.loss, loss, atol=1e-4)
    np.testing.assert_allclose(head.curves.validation_loss, validation_loss, atol=1e-4)
    assert [weight.shape for weight in head.weights] == [weight.shape for weight in weights]
    for ours, theirs in zip(head.weights, weights, strict=True):
        assert np.linalg.norm(ours - theirs) <= 1e-3 * np.linalg.norm(theirs) + 1e-6


@pytest.mark.parametrize("name", ["adam", "hidden"])
def test_unknown_cells_are_masked_as_a_loss_of_keras_masks_them(name, features, y):
    masked = np.where(np.random.default_rng(2).random(y.shape) < 0.4, UNKNOWN, y).astype(np.uint8)
    masked[TRAIN[::4]] = UNKNOWN  # rows without any known label
    [head] = train([PARITY[name]], features, masked)
    weights, loss, validation_loss = train_in_keras(PARITY[name], features, masked)
    np.testing.assert_allclose(head.curves.loss, loss, atol=1e-4)
    np.testing.assert_allclose(head.curves.validation_loss, validation_loss, atol=1e-4)
    for ours, theirs in zip(head.weights, weights, strict=True):
        assert np.linalg.norm(ours - theirs) <= 1e-3 * np.linalg.norm(theirs) + 1e-6


def test_balanced_weights_count_the_known_rows(features, y):
    spec = replace(FIVE, class_weight="balanced", epochs=2)
    known = np.arange(ROWS) % 2 == 0
    masked = np.where(known[:, None], y, np.uint8(UNKNOWN))
    rows = BankRows(lay_flat(features), TRAIN, masked[TRAIN], features[VALIDATION], masked[VALIDATION])
    [stack] = make_stacks([spec], rows)
    of_known = masked[TRAIN][masked[TRAIN][:, 0] != UNKNOWN]
    for label, truth in enumerate(of_known.T):
        positive, negative = compute_class_weight("balanced", classes=np.array([1, 0]), y=truth)
        np.testing.assert_allclose(stack._rules.positive[0, label], positive, rtol=1e-6)
        np.testing.assert_allclose(stack._rules.negative[0, label], negative, rtol=1e-6)


def test_a_head_that_diverges_has_no_best_epoch(bank_of_parity, features):
    diverged = bank_of_parity["diverged"]
    assert not np.isfinite(diverged.curves.validation_loss[-1])
    assert diverged.best_epoch == 0
    assert np.isfinite(diverged.predict_proba(features)).all()


def test_rows_that_a_head_does_not_see_change_no_bit_of_it(features, y):
    spec = replace(FIVE, hidden_units=(4,), dropout=0.5, epochs=2)
    unseen = np.setdiff1d(np.arange(ROWS), np.concatenate([TRAIN, VALIDATION]))
    other = features.copy()
    other[unseen] += 1
    [first], [second] = (train([spec], seen, y) for seen in (features, other))
    for one, same in zip(first.weights, second.weights, strict=True):
        np.testing.assert_array_equal(one, same)
    other[VALIDATION[0]] += 1
    assert not np.array_equal(first.curves.validation_loss, train([spec], other, y)[0].curves.validation_loss)


def test_the_other_heads_of_a_bank_do_not_change_a_head(features, y):
    spec = replace(FIVE, dropout=0.5, epochs=2)
    others = [replace(spec, dropout=0.2, seed=9), replace(spec, learning_rate=1e-3, class_weight="balanced")]
    [alone] = train([spec], features, y)
    beside = train([others[0], spec, others[1]], features, y)[1]
    for one, other in zip(alone.weights, beside.weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(features, y, dropout):
    spec = replace(FIVE, dropout=dropout, batch_size=11, epochs=2)
    first, again, other = (
        train_bank([spec], features, y, SPLIT_34, seed)[0].predict_proba(features) for seed in (SEED, SEED, SEED + 1)
    )
    assert first.tobytes() == again.tobytes()
    assert not np.allclose(first, other)


@pytest.mark.parametrize("name", ["adam", "no batch norm", "deep, sgd"])
def test_a_saved_head_is_an_ordinary_keras_model(name, bank_of_parity, features, tmp_path):
    trained = bank_of_parity[name]
    head = replace(trained, spec=replace(trained.spec, dropout=0.4))  # dropout rests where probabilities are given
    (tmp_path / "head.keras").write_bytes(write_keras(head))
    model = import_keras().saving.load_model(tmp_path / "head.keras")
    probabilities = head.predict_proba(features)
    assert probabilities.dtype == np.float32
    assert probabilities.shape == (ROWS, LABELS)
    np.testing.assert_allclose(model.predict(features, verbose=0), probabilities, rtol=0, atol=1e-6)
    trainable = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    assert trainable == head.spec.count_parameters(WIDTH, LABELS)
    ours = [(one.outputs, one.trainable + one.fixed) for one in head.spec.layers(WIDTH, LABELS) if one.trainable]
    kept = [layer for layer in model.layers if layer.count_params()]
    assert ours == [(layer.output.shape[-1], layer.count_params()) for layer in kept]
    rates = [layer.rate for layer in model.layers if hasattr(layer, "rate")]
    assert rates == [0.4] * (1 + len(head.spec.hidden_units))


def test_heads_stop_on_their_own_and_keep_their_best_epoch(features, y):
    specs = [
        replace(FIVE, batch_size=15, epochs=30, patience=2, learning_rate=0.1),  # overshoots, so it stops early
        replace(FIVE, batch_size=15, epochs=12, patience=2, learning_rate=1e-3),  # improves to the end
        replace(FIVE, batch_size=15, epochs=4, learning_rate=1e-3),
    ]
    settled = []
    hasty, steady, short = train(specs, features, y, on_epochs=settled.append)
    losses = hasty.curves.validation_loss
    assert len(losses) < 30
    assert hasty.best_epoch == np.argmin(losses) + 1 == len(losses) - 2
    assert (steady.best_epoch, len(steady.curves.loss)) == (12, 12)
    assert (short.best_epoch, len(short.curves.auc)) == (4, 4)
    assert sum(settled) == 30 + 12 + 4
    # The same numbers as alone, though stopped heads leave the work.
    for spec, head in zip(specs, (hasty, steady, short), strict=True):
        [alone] = train([spec], features, y)
        assert alone.best_epoch == head.best_epoch
        np.testing.assert_allclose(alone.curves.loss, head.curves.loss, atol=1e-5)
        np.testing.assert_allclose(alone.predict_proba(features), head.predict_proba(features), atol=1e-5)
    # The restored weights are those that gave the best loss.
    kernel = hasty.weights[4]
    p = hasty.predict_proba(features[VALIDATION]).astype(np.float64)
    truth = y[VALIDATION]
    entropy = -np.mean(truth * np.log(p) + (1 - truth) * np.log(1 - p))
    assert entropy + specs[0].l2 * np.sum(kernel**2) == pytest.approx(losses.min(), abs=1e-5)


def test_balanced_class_weights_make_a_rare_label_count_as_much_as_its_lack(features):
    rare = np.zeros((ROWS, LABELS), dtype=np.uint8)
    rare[::9] = 1
    spec = replace(FIVE, batch_norm=False, l2=0.0, learning_rate=0.3, epochs=20, batch_size=30)
    constant = np.zeros_like(features)  # only the bias can learn: the share of positives, or one half
    specs = [spec, replace(spec, class_weight="balanced")]
    plain, balanced = train_bank(specs, constant, rare, HeadSplit(TRAIN, TRAIN))
    share = rare[TRAIN].mean()
    np.testing.assert_allclose(plain.predict_proba(constant), share, atol=0.02)
    np.testing.assert_allclose(balanced.predict_proba(constant), 0.5, atol=1e-3)


def test_dropout_adds_the_noise_that_it_should_where_rows_share_masks(features):
    # 9 rows a mask, and a last batch of 20. With every target 1/2 the loss is even and convex in the logit z, so noise
    # raises it by half its second derivative, 1/4 at most, times the noise's variance: sum((w * x)^2) at rate 1/2.
    spec = replace(FIVE, batch_norm=False, dropout=0.5, l2=0.0, label_smoothing=1.0, learning_rate=1e-12, epochs=1)
    specs = [replace(spec, seed=seed, batch_size=70) for seed in range(40)]
    flat = np.full_like(features, 0.3)
    every = HeadSplit(np.arange(ROWS), np.arange(ROWS))
    heads = train_bank(specs, flat, np.ones((ROWS, 1), np.uint8), every)
    raised = [float(head.curves.loss[0] - head.curves.validation_loss[0]) for head in heads]
    variance = np.mean([np.sum((head.weights[0] * 0.3) ** 2) for head in heads])
    assert np.mean(raised) == pytest.approx(variance / 8, rel=0.2)


def test_heads_that_exceed_the_memory_train_in_shares(features, y, monkeypatch):
    specs = [replace(FIVE, batch_size=15, epochs=2, seed=seed) for seed in range(3)]
    together = train(specs, features, y)
    monkeypatch.setattr(bank, "PARAMETERS_AT_A_TIME", FIVE.count_parameters(WIDTH, LABELS))
    for one, other in zip(together, train(specs, features, y), strict=True):
        np.testing.assert_allclose(one.predict_proba(features), other.predict_proba(features), atol=1e-5)


def test_heads_that_exceed_the_cache_train_in_turn(features, y, monkeypatch):
    linear = replace(FIVE, dropout=0.3, batch_size=15, epochs=2)
    specs = [replace(linear, seed=seed) for seed in range(5)]
    specs.append(replace(linear, dropout=0.0, hidden_units=(4,)))
    together = train(specs, features, y)
    monkeypatch.setattr(bank_stack, "PARAMETERS_IN_CACHE", 2 * linear.count_parameters(WIDTH, LABELS))
    rows = BankRows(lay_flat(features), TRAIN, y[TRAIN], features[VALIDATION], y[VALIDATION])
    assert [stack.members for stack in make_stacks(specs, rows)] == [[0, 1], [2, 3], [4], [5]]
    for one, other in zip(together, train(specs, features, y), strict=True):
        for ours, theirs in zip(one.weights, other.weights, strict=True):  # with the moving statistics
            np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("waiting", [0, 10**9])
def test_curves_are_the_same_however_long_logits_wait_for_their_auc(features, y, monkeypatch, waiting):
    [usual] = train([FIVE], features, y)
    monkeypatch.setattr(bank, "_LOGITS_WAITING", waiting)
    [head] = train([FIVE], features, y)
    np.testing.assert_array_equal(usual.curves.auc, head.curves.auc)
    best = head.predict_proba(features[VALIDATION])
    assert head.best_epoch == FIVE.epochs
    assert head.curves.validation_auc[-1] == pytest.approx(roc_auc_score(y[VALIDATION], best, average="macro"))
    np.testing.assert_array_equal(usual.curves.accuracy, head.curves.accuracy)
    assert head.curves.validation_accuracy[-1] == pytest.approx(np.mean((best > 0.5) == y[VALIDATION]))


def test_a_head_refuses_features_of_another_width(features, y):
    [head] = train([replace(FIVE, epochs=1)], features, y)
    with pytest.raises(InputError, match="features of width 24, received an array"):
        head.predict_proba(features[:, :5])


def test_ten_hidden_layers_and_a_batch_beyond_the_rows_train(features, y):
    spec = HeadSpec(hidden_units=(4,) * 10, dropout=0.2, batch_size=1_000_000, epochs=2)
    [head] = train([spec], features, y)
    assert len(head.weights) == 4 + 2 * 11
    assert np.isfinite(head.predict_proba(features)).all()


def test_features_too_large_for_their_squares_are_told_as_divergence(features, y):
    for spec in (FIVE, replace(FIVE, hidden_units=(4,))):
        [head] = train([spec], features * np.float32(1e30), y)
        assert head.best_epoch == 0


def test_views_that_are_the_features_themselves_change_no_head(features, y):
    same = np.repeat(features[:, None], 3, axis=1)
    [plain], [drawn] = train([FIVE], features, y), train([FIVE], features, y, views=same)
    assert drawn.curves.validation_loss.tolist() == plain.curves.validation_loss.tolist()
    assert drawn.curves.loss.tolist() == plain.curves.loss.tolist()


def test_an_epoch_draws_a_view_of_each_row_to_learn_from_and_of_no_other(features, y):
    """Views of the rows that decide, and of those that are in neither part, are not a number here."""
    rng = np.random.default_rng(3)
    views = features[:, None] + rng.standard_normal((ROWS, 4, WIDTH)).astype(np.float32)
    views[np.setdiff1d(np.arange(ROWS), TRAIN)] = np.nan
    [head], [plain] = train([FIVE], features, y, views=views), train([FIVE], features, y)
    assert head.best_epoch > 0
    assert np.isfinite(head.curves.validation_loss).all()
    assert np.abs(head.curves.loss - plain.curves.loss).max() > 0.01
    rows = BankRows(lay_flat(views.reshape(-1, WIDTH)), TRAIN, y[TRAIN], features, y, 4)
    drawn = np.array([rows.draw(SEED, epoch) for epoch in range(200)])
    np.testing.assert_array_equal(drawn // 4, np.tile(TRAIN, (200, 1)))
    np.testing.assert_array_equal(rows.draw(SEED, 7), drawn[7])
    counts = np.bincount((drawn % 4).ravel(), minlength=4)
    assert counts.min() > 0.9 * counts.mean()
