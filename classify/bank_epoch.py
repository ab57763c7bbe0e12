"""Train many heads for one epoch in one compiled graph, on shared mini-batches and in shared matrix products.

The whole epoch is one XLA program. Against TensorFlow's own kernels in a loop, with XLA for the update alone, it took
21 instead of 33 ms of CPU time a step at batch 256 and 5 instead of 9 ms at batch 16 (100 linear heads, width 2048).
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from classify.bank_network import Network, StackKind, along, heads_axis, rows_per_mask
from classify.keras_backend import import_tensorflow
from classify.trained_head import EPSILON

#: Keras' defaults: BatchNormalization's momentum; Adam's betas and epsilon. The challenge's Nesterov momentum.
_MOVING, _BETA_1, _BETA_2, _ADAM_EPSILON, _MOMENTUM = 0.99, 0.9, 0.999, 1e-7, 0.9


class EpochInputs(NamedTuple):
    """What one epoch reads; the rows are the training rows in the order of their mini-batches.

    Attributes:
        features: float32 (N, D).
        truth: float32 (N, L), 0 or 1.
        validation_features: float32 (M, D).
        validation_truth: float32 (M, L).
        uniforms: what dropout is drawn from: float32 by width of layer, 0-1. Of the features (ceil(N / B), K, D) for
            K masks a mini-batch, of hidden layer j (N, units).
        step: float32, the steps taken before this epoch.
    """

    features: Any
    truth: Any
    validation_features: Any
    validation_truth: Any
    uniforms: dict[str, Any]
    step: Any


@lru_cache(maxsize=32)
def compile_epoch(kinds: tuple[StackKind, ...], batch_size: int) -> Callable[..., Any]:
    """Build the function that trains and validates stacks for one epoch.

    Args:
        kinds: of the stacks.
        batch_size: B.

    Returns:
        A function of (EpochInputs, (mean, variance), states, hypers) that gives (moving statistics, states, results),
        compiled anew for every shape. Per stack, a state is {"weights", "slots", "best", "best_loss"}, a hyper
        {"rate", "l2", "smoothing", "positive", "negative", "active"} and a result {"loss" (H,), "logits" (N, L, H),
        "validation_loss" (H,), "validation_logits" (M, L, H)}.
    """
    tf = import_tensorflow()

    def epoch(inputs: EpochInputs, moving: Any, states: list[Any], hypers: list[Any]) -> Any:
        rows, labels = inputs.truth.shape
        full = rows // batch_size

        def step(index: Any, count: int, moving: Any, trained: list[Any]) -> Any:
            """One mini-batch of `count` rows; every stack's new weights, summed losses and logits."""
            first = index * batch_size

            def cut(matrix: Any) -> Any:
                return tf.slice(matrix, [first, 0], [count, matrix.shape[1]])

            batch, truth = cut(inputs.features), cut(inputs.truth)
            mean = tf.reduce_mean(batch, 0)
            variance = tf.reduce_mean(tf.math.squared_difference(batch, mean), 0)
            normalised = (batch - mean) * tf.math.rsqrt(variance + EPSILON)
            moving = tuple(
                old * _MOVING + new * (1 - _MOVING) for old, new in zip(moving, (mean, variance), strict=True)
            )
            uniforms = {
                name: tf.gather(drawn, index) if name == "features" else cut(drawn)
                for name, drawn in inputs.uniforms.items()
            }
            time = inputs.step + tf.cast(index + 1, tf.float32)
            new, losses, logits = [], [], []
            for kind, hyper, state in zip(kinds, hypers, trained, strict=True):
                network = Network(tf, kind, state["weights"], rows_per_mask(batch_size))
                scores = network.forward(normalised if kind.batch_norm else batch, uniforms)
                loss, gradient = _loss(tf, scores, truth, hyper)
                losses.append((loss + _penalty(tf, state["weights"], hyper)) * count)
                logits.append(scores)
                new.append(_update(tf, kind, state, network.backward(gradient, hyper), hyper, time))
            return moving, new, losses, logits

        trained = [{"weights": state["weights"], "slots": state["slots"]} for state in states]
        heads = [hyper["rate"].shape[0] for hyper in hypers]
        losses = [tf.zeros((count,)) for count in heads]
        logits: list[Any] = [tf.zeros((0, labels, count)) for count in heads]
        if full:
            kept = [tf.TensorArray(tf.float32, full, element_shape=(batch_size, labels, count)) for count in heads]

            def body(index: Any, moving: Any, trained: Any, losses: Any, kept: Any) -> Any:
                moving, trained, more, scores = step(index, batch_size, moving, trained)
                losses = [old + new for old, new in zip(losses, more, strict=True)]
                return (
                    index + 1,
                    moving,
                    trained,
                    losses,
                    [k.write(index, z) for k, z in zip(kept, scores, strict=True)],
                )

            begin = (tf.constant(0), moving, trained, losses, kept)
            _, moving, trained, losses, kept = tf.while_loop(
                lambda index, *_: index < full, body, begin, maximum_iterations=full
            )
            shapes = [(full * batch_size, labels, count) for count in heads]
            logits = [tf.reshape(array.concat(), shape) for array, shape in zip(kept, shapes, strict=True)]
        if rows % batch_size:
            moving, trained, more, last = step(tf.constant(full), rows % batch_size, moving, trained)
            losses = [old + new for old, new in zip(losses, more, strict=True)]
            logits = [tf.concat(pair, 0) for pair in zip(logits, last, strict=True)]

        results, finished = [], []
        for index, (kind, hyper, state) in enumerate(zip(kinds, hypers, states, strict=True)):
            weights = trained[index]["weights"]
            scores = Network(tf, kind, weights, 1).infer(inputs.validation_features, moving)
            loss = _loss(tf, scores, inputs.validation_truth, hyper)[0] + _penalty(tf, weights, hyper)
            better = tf.logical_and(hyper["active"], loss < state["best_loss"])
            candidates = weights | {"mean": moving[0][:, None, None], "variance": moving[1][:, None, None]}
            best = {
                name: tf.where(along(tf, better, name), candidates[name], old) for name, old in state["best"].items()
            }
            best_loss = tf.where(better, loss, state["best_loss"])
            finished.append(trained[index] | {"best": best, "best_loss": best_loss})
            results.append(
                {
                    "loss": losses[index] / rows,
                    "logits": logits[index],
                    "validation_loss": loss,
                    "validation_logits": scores,
                }
            )
        return moving, finished, results

    return tf.function(epoch, jit_compile=True, autograph=False)


def _loss(tf: Any, logits: Any, truth: Any, hyper: Any) -> tuple[Any, Any]:
    """Binary cross-entropy of (B, L, H) logits: its mean by head (H,), and its gradient (B, L, H)."""
    truth = truth[:, :, None]
    weight = truth * hyper["positive"] + (1 - truth) * hyper["negative"]
    target = truth * (1 - hyper["smoothing"]) + hyper["smoothing"] / 2
    entropy = tf.nn.relu(logits) - logits * target + tf.math.log1p(tf.exp(-tf.abs(logits)))
    gradient = weight * (tf.sigmoid(logits) - target) / (logits.shape[0] * logits.shape[1])
    return tf.reduce_mean(weight * entropy, (0, 1)), gradient


def _penalty(tf: Any, weights: Any, hyper: Any) -> Any:
    """The L2 penalty of the kernels by head (H,)."""
    squares = 0.0
    for name, weight in weights.items():
        if name.startswith("kernel"):
            squares += tf.reduce_sum(weight * weight, (1, 2) if heads_axis(name) == 0 else (0, 1))
    return hyper["l2"] * squares


def _update(tf: Any, kind: StackKind, state: Any, gradients: Any, hyper: Any, time: Any) -> Any:
    """One step of the optimiser as Keras takes it: the new weights and slots."""
    weights: dict[str, Any] = {}
    slots: dict[str, tuple[Any, ...]] = {}
    rate = hyper["rate"]
    if kind.optimiser == "adam":
        rate = rate * tf.sqrt(1 - _BETA_2**time) / (1 - _BETA_1**time)
    for name, weight in state["weights"].items():
        gradient, of_heads = gradients[name], along(tf, rate, name)
        if kind.optimiser == "adam":
            first, second = state["slots"][name]
            first = first + (gradient - first) * (1 - _BETA_1)
            second = second + (gradient * gradient - second) * (1 - _BETA_2)
            weights[name] = weight - of_heads * first / (tf.sqrt(second) + _ADAM_EPSILON)
            slots[name] = (first, second)
        else:
            velocity = _MOMENTUM * state["slots"][name][0] - of_heads * gradient
            weights[name] = weight + _MOMENTUM * velocity - of_heads * gradient
            slots[name] = (velocity,)
    return {"weights": weights, "slots": slots}
