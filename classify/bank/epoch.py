"""Train many heads for one epoch in one compiled graph, on shared mini-batches and in shared matrix products.

The whole epoch is one XLA program, a third faster than TensorFlow's own kernels in a loop; see docs/decisions.md.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from classify.bank.network import Network, StackKind, rows_per_mask, sum_over_outputs
from classify.models.trained_head import BATCH_NORM_EPSILON
from features.common.keras_import import import_tensorflow

#: Keras' defaults: BatchNormalization's momentum; Adam's betas and epsilon. The challenge's Nesterov momentum.
_MOVING, _BETA_1, _BETA_2, _ADAM_EPSILON, _MOMENTUM = 0.99, 0.9, 0.999, 1e-7, 0.9


class EpochInputs(NamedTuple):
    """What one epoch reads; the training rows are in the order of their mini-batches.

    Rows are at the front of arrays that may be longer: the size of the arrays decides what is compiled, so that folds
    that differ by a few rows share it. The rest is finite, and ignored.

    Attributes:
        features: float32 (S * B, D), for up to S steps.
        truth: float32 (L, S * B), 0 or 1.
        rows: int32, N, of which the last batch may be a short one.
        validation_features: float32 (V, D).
        validation_truth: float32 (L, V).
        validation_rows: int32, M.
        uniforms: what dropout is drawn from, by width of layer: float32, 0-1. Of the features (S, K, D) for K masks a
            mini-batch, of a hidden layer (S, units, B).
        step: float32, the steps taken before this epoch.
    """

    features: Any
    truth: Any
    rows: Any
    validation_features: Any
    validation_truth: Any
    validation_rows: Any
    uniforms: dict[str, Any]
    step: Any


@lru_cache(maxsize=32)
def compile_epoch(kinds: tuple[StackKind, ...], batch_size: int) -> Callable[..., Any]:
    """Build the function that trains and validates stacks for one epoch, in mini-batches of B rows.

    Returns:
        A function of (EpochInputs, (mean, variance), states, hypers) that gives (moving statistics, states, results),
        compiled again for every shape. Per stack, a state is {"weights", "slots", "best", "best_loss"}, a hyper
        {"rate", "l2", "smoothing", "positive", "negative", "active"} and a result {"loss" (H,), "logits" (S, H, L, B),
        "validation_loss" (H,), "validation_logits" (H, L, V)}.
    """
    tf = import_tensorflow()

    def epoch(inputs: EpochInputs, moving: Any, states: list[Any], hypers: list[Any]) -> Any:
        labels, capacity = inputs.truth.shape
        capacity //= batch_size
        steps = (inputs.rows + batch_size - 1) // batch_size

        def step(index: Any, moving: Any, trained: Any, losses: Any, kept: Any) -> Any:
            """One mini-batch: every stack's new weights; its losses are summed, its logits kept."""
            first = index * batch_size
            batch = tf.slice(inputs.features, [first, 0], [batch_size, inputs.features.shape[1]])
            truth = tf.slice(inputs.truth, [0, first], [labels, batch_size])
            valid = _valid(tf, batch_size, inputs.rows - first)
            count = tf.reduce_sum(valid)
            mean = tf.reduce_sum(batch * valid[:, None], 0) / count
            variance = tf.reduce_sum(tf.math.squared_difference(batch, mean) * valid[:, None], 0) / count
            normalised = (batch - mean) * tf.math.rsqrt(variance + BATCH_NORM_EPSILON)
            moving = tuple(
                old * _MOVING + new * (1 - _MOVING) for old, new in zip(moving, (mean, variance), strict=True)
            )
            uniforms = {name: tf.gather(drawn, index) for name, drawn in inputs.uniforms.items()}
            time = inputs.step + tf.cast(index + 1, tf.float32)
            new, summed, written = [], [], []
            for kind, hyper, state, total, logits in zip(kinds, hypers, trained, losses, kept, strict=True):
                network = Network(tf, kind, state["weights"], rows_per_mask(batch_size))
                scores = network.forward(normalised if kind.batch_norm else batch, uniforms)
                loss, gradient = _loss(tf, scores, truth, valid, hyper)
                summed.append(total + (loss + _penalty(tf, state["weights"], hyper)) * count)
                written.append(logits.write(index, scores))
                new.append(_update(tf, kind, state, network.backward(gradient, hyper), hyper, time))
            return index + 1, moving, new, summed, written

        heads = [hyper["rate"].shape[0] for hyper in hypers]
        begin = (
            tf.constant(0),
            moving,
            [{"weights": state["weights"], "slots": state["slots"]} for state in states],
            [tf.zeros((count,)) for count in heads],
            [tf.TensorArray(tf.float32, capacity, element_shape=(count, labels, batch_size)) for count in heads],
        )
        _, moving, trained, losses, kept = tf.while_loop(
            lambda index, *_: index < steps, step, begin, maximum_iterations=capacity
        )

        results, finished = [], []
        valid = _valid(tf, inputs.validation_features.shape[0], inputs.validation_rows)
        for index, (kind, hyper, state) in enumerate(zip(kinds, hypers, states, strict=True)):
            weights = trained[index]["weights"]
            scores = Network(tf, kind, weights, 1).infer(inputs.validation_features, moving)
            loss = _loss(tf, scores, inputs.validation_truth, valid, hyper)[0] + _penalty(tf, weights, hyper)
            better = tf.logical_and(hyper["active"], loss < state["best_loss"])
            candidates = weights | {"mean": moving[0], "variance": moving[1]}
            best = {name: tf.where(better[:, None, None], candidates[name], old) for name, old in state["best"].items()}
            finished.append(trained[index] | {"best": best, "best_loss": tf.where(better, loss, state["best_loss"])})
            results.append(
                {
                    "loss": losses[index] / tf.cast(inputs.rows, tf.float32),
                    "logits": kept[index].stack(),
                    "validation_loss": loss,
                    "validation_logits": scores,
                }
            )
        return moving, finished, results

    return tf.function(epoch, jit_compile=True, autograph=False)


def _valid(tf: Any, size: int, rows: Any) -> Any:
    """1 for each of the first rows of an array of that size, 0 for the rest: float32 (size,)."""
    return tf.cast(tf.range(size) < rows, tf.float32)


def _loss(tf: Any, logits: Any, truth: Any, valid: Any, hyper: Any) -> tuple[Any, Any]:
    """Binary cross-entropy of (H, L, B) logits over the valid rows: its mean by head (H,), its gradient (H, L, B)."""
    weight = (truth * hyper["positive"] + (1 - truth) * hyper["negative"]) * valid
    weight /= truth.shape[0] * tf.reduce_sum(valid)
    target = truth * (1 - hyper["smoothing"]) + hyper["smoothing"] / 2
    entropy = tf.nn.relu(logits) - logits * target + tf.math.log1p(tf.exp(-tf.abs(logits)))
    return tf.reduce_sum(weight * entropy, (1, 2)), weight * (tf.sigmoid(logits) - target)


def _penalty(tf: Any, weights: Any, hyper: Any) -> Any:
    """The L2 penalty of the kernels by head (H,)."""
    kernels = [weight for name, weight in weights.items() if name.startswith("kernel")]
    # A plain sum along rows does not vectorise in XLA: over the outputs first, then a product with ones, takes half.
    squares = sum(
        tf.matmul(sum_over_outputs(tf, kernel, kernel)[:, 0], tf.ones((kernel.shape[-1], 1)))[:, 0]
        for kernel in kernels
    )
    return hyper["l2"][:, 0, 0] * squares


def _update(tf: Any, kind: StackKind, state: Any, gradients: Any, hyper: Any, time: Any) -> Any:
    """One step of the optimiser as Keras takes it: the new weights and slots."""
    weights: dict[str, Any] = {}
    slots: dict[str, tuple[Any, ...]] = {}
    rate = hyper["rate"]
    if kind.optimiser == "adam":
        rate = rate * tf.sqrt(1 - _BETA_2**time) / (1 - _BETA_1**time)
    for name, weight in state["weights"].items():
        gradient = gradients[name]
        if kind.optimiser == "adam":
            first, second = state["slots"][name]
            first = first + (gradient - first) * (1 - _BETA_1)
            second = second + (gradient * gradient - second) * (1 - _BETA_2)
            weights[name] = weight - rate * first / (tf.sqrt(second) + _ADAM_EPSILON)
            slots[name] = (first, second)
        else:
            velocity = _MOMENTUM * state["slots"][name][0] - rate * gradient
            weights[name] = weight + _MOMENTUM * velocity - rate * gradient
            slots[name] = (velocity,)
    return {"weights": weights, "slots": slots}
