"""Say which heads a search may propose, and draw one with Optuna."""

from typing import TYPE_CHECKING, Any

from classify.models.heads import ClassWeight, HeadSpec

if TYPE_CHECKING:
    import optuna

#: Hidden layers by the name that Optuna stores: its categories are plain values, no tuples.
HIDDEN_UNITS: dict[str, tuple[int, ...]] = {"none": (), "32": (32,), "128": (128,), "128-32": (128, 32)}
#: Fields that a compiled graph of the bank is made for. Only a few values each, dropout included: heads that differ
#: here share no matrix product, and every new combination is compiled, which takes seconds.
STRUCTURE: dict[str, tuple[Any, ...]] = {
    "hidden_units": tuple(HIDDEN_UNITS),
    "batch_norm": (True, False),
    "dropout": (0.0, 0.25, 0.5),
    "optimiser": ("adam", "sgd"),
    "batch_size": (64, 256),
}
CLASS_WEIGHTS: tuple[ClassWeight, ...] = ("none", "balanced")
#: Bounds, both logarithmic. SGD takes far larger steps than Adam, so each optimiser has its own parameter.
LEARNING_RATES = {"adam": (1e-4, 3e-2), "sgd": (1e-3, 1.0)}
L2 = (1e-6, 1e-2)
LABEL_SMOOTHING = (0.0, 0.1)
EPOCHS = 60
PATIENCE = 0.1


def propose(trial: "optuna.trial.BaseTrial", seed: int) -> HeadSpec:
    """Draw a head of a trial that was asked; of a finished one, give its head back. The seed is of its weights."""
    structure = {name: trial.suggest_categorical(name, values) for name, values in STRUCTURE.items()}
    optimiser = structure["optimiser"]
    class_weight: Any = trial.suggest_categorical("class_weight", CLASS_WEIGHTS)
    low, high = LEARNING_RATES[optimiser]
    return HeadSpec(
        **(structure | {"hidden_units": HIDDEN_UNITS[structure["hidden_units"]]}),
        learning_rate=trial.suggest_float(f"learning_rate_{optimiser}", low, high, log=True),
        l2=trial.suggest_float("l2", *L2, log=True),
        class_weight=class_weight,
        label_smoothing=trial.suggest_float("label_smoothing", *LABEL_SMOOTHING),
        epochs=EPOCHS,
        patience=PATIENCE,
        seed=seed,
    )


def describe_space() -> str:
    """Write the whole space as one line; two spaces that could propose different heads have different lines."""
    return repr((HIDDEN_UNITS, STRUCTURE, CLASS_WEIGHTS, LEARNING_RATES, L2, LABEL_SMOOTHING, EPOCHS, PATIENCE))
