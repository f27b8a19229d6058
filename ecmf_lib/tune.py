"""One search for all fusions: the same space, the same number of trials, scored on inner folds only."""

from __future__ import annotations

from collections.abc import Callable, Mapping

#: What is searched, the same for every neural fusion. The first trial is always the fusion's own default.
SPACE: dict[str, tuple] = {
    "lr": ("log", 1e-3, 1e-2),
    "weight_decay": ("log", 0.01, 0.5),
    "width": ("choice", 32, 64, 128),
    "dropout": ("uniform", 0.2, 0.6),
    "input_dropout": ("uniform", 0.0, 0.5),
    "modality_dropout": ("choice", 0.0, 0.2, 0.4),
}


def search(loss: Callable[[dict], float], fixed: Mapping, trials: int, seed: int) -> None:
    """Try settings: Optuna's TPE sampler (Bergstra et al. 2011), seeded. `loss` remembers the best.

    Parameters
    ----------
    loss : callable
        Options → inner score, lower is better.
    fixed : mapping
        Options that are not searched, because the model's definition sets them; part of every trial.
    trials : int
        Counts the default, which has been tried before.
    seed : int
    """
    import optuna  # only where it is used: it loads a database layer

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    free = {name: how for name, how in SPACE.items() if name not in fixed}
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    study.optimize(
        lambda trial: loss(dict(fixed) | {name: _draw(trial, name, how) for name, how in free.items()}),
        n_trials=trials - 1,
    )


def _draw(trial, name: str, how: tuple):
    kind, *values = how
    if kind == "choice":
        return trial.suggest_categorical(name, values)
    return trial.suggest_float(name, *values, log=kind == "log")
