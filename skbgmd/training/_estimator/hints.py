"""Hints for parameters that the estimators don't have: what other libraries' parameters are called here."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import get_close_matches
from types import MappingProxyType

#: Common name of what several libraries call otherwise, with what is to be given instead.
_EPOCHS, _WEIGHT_DECAY, _MOMENTUM = "max_epochs", "optimizer__weight_decay", "optimizer__momentum"
_SGD_MOMENTUM = f"optimizer=torch.optim.SGD with {_MOMENTUM}"
_HELD_OUT = "validation_fraction with early_stopping=True"
_SCHEDULE = "lr, with skorch's LRScheduler among the callbacks for a schedule"
_OWN_NETWORK = "module, a torch module of your own; the default has rectified linear units"
_NET = "a skorch net with it as the module"

#: Parameters of MLPClassifier, SGDClassifier, skorch, Keras and torch, and what they are called here.
HINTS = MappingProxyType(
    {
        # scikit-learn: MLPClassifier and MLPRegressor, SGDClassifier and SGDRegressor
        "activation": _OWN_NETWORK,
        "alpha": _WEIGHT_DECAY,
        "average": "callbacks, with one that averages the parameters",
        "beta_1": "optimizer__betas",
        "beta_2": "optimizer__betas",
        "epsilon": "optimizer__eps, or criterion__delta of a Huber loss",
        "eta0": "lr",
        "l1_ratio": f"{_WEIGHT_DECAY}, which is of the squared norm",
        "learning_rate": _SCHEDULE,
        "learning_rate_init": "lr",
        "loss": "criterion, a class of losses such as torch.nn.CrossEntropyLoss",
        "max_fun": _EPOCHS,
        "max_iter": _EPOCHS,
        "momentum": _SGD_MOMENTUM,
        "n_iter": _EPOCHS,
        "n_jobs": "torch.set_num_threads, or n_jobs of a search",
        "nesterovs_momentum": f"{_SGD_MOMENTUM} and optimizer__nesterov",
        "penalty": _WEIGHT_DECAY,
        "power_t": _SCHEDULE,
        "solver": "optimizer, a class of optimizers such as torch.optim.Adam",
        # skorch
        "classes": "them to partial_fit",
        "dataset": _NET,
        "iterator_train": f"iterator_train__x for its parameters, or {_NET}",
        "iterator_valid": f"iterator_valid__x for its parameters, or {_NET}",
        "torch_load_kwargs": _NET,
        "use_caching": _NET,
        # Keras
        "batch": "batch_size",
        "epochs": _EPOCHS,
        "loss_fn": "criterion",
        "metrics": "callbacks, with skorch's EpochScoring among them",
        "model": "module",
        "nb_epoch": _EPOCHS,
        "patience": "n_iter_no_change",
        "min_delta": "tol",
        "seed": "random_state",
        "validation_data": "train_split=skorch.helper.predefined_split(data)",
        "validation_split": _HELD_OUT,
        # torch
        "amsgrad": "optimizer__amsgrad",
        "betas": "optimizer__betas",
        "dampening": "optimizer__dampening",
        "dtype": "the dtype of X, which the default network takes",
        "eps": "optimizer__eps",
        "model_class": "module",
        "n_epochs": _EPOCHS,
        "nesterov": "optimizer__nesterov",
        "net": "module",
        "network": "module",
        "num_epochs": _EPOCHS,
        "num_workers": f"iterator_train__num_workers of {_NET}",
        "reduction": "criterion__reduction",
        "scheduler": _SCHEDULE,
        "weight_decay": _WEIGHT_DECAY,
        # ranks
        **{
            name: f"aggregator=AcrossRanks({name}=...), of skbgmd.distributed"
            for name in ("across", "within", "transport_dtype")
        },
        # data
        "class_weight": "sample_weight to fit",
        "client_ids": "clients to fit",
        "clients": "clients to fit",
        "groups": "clients to fit",
        "sample_id": "sample_id to fit",
        "sample_weight": "sample_weight to fit",
    }
)


def hint(name: str, known: Iterable[str], prefixes: Collection[str] = ()) -> str:
    """Hint at what a parameter that isn't known is called here.

    Parameters
    ----------
    name : str
        The name that was given.
    known : iterable of str
        Names of the parameters that there are.
    prefixes : collection of str, default=()
        Names before "__" of parameters that are handed on.

    Returns
    -------
    hint : str
        A sentence; empty where no name is alike.

    Examples
    --------
    >>> hint("max_iter", ["max_epochs", "lr"])
    "For 'max_iter' give max_epochs."
    >>> hint("max_epoch", ["max_epochs", "lr"])
    "Did you mean 'max_epochs' rather than 'max_epoch'?"
    >>> hint("optimiser__eps", ["max_epochs", "lr"], ["optimizer"])
    "Did you mean 'optimizer__eps' rather than 'optimiser__eps'?"
    """
    known = [*known]
    head, separator, tail = name.partition("__")
    if not separator:
        # A single underscore after the part's name.
        part = next((prefix for prefix in prefixes if name.startswith(f"{prefix}_")), None)
        if part is not None and name not in HINTS:
            return _alike(f"{part}__{name.removeprefix(part).lstrip('_')}", name)
        # Names that other libraries have are as easily misspelled.
        found = [name] if name in HINTS else get_close_matches(name, [*known, *HINTS], n=1)
    elif head in HINTS and head not in prefixes:
        return f"For {name!r} give {HINTS[head]}."
    else:
        found = [f"{each}__{tail}" for each in get_close_matches(head, [*prefixes], n=1)]
    if not found:
        return ""
    is_elsewhere = found[0] in HINTS and found[0] not in known
    return f"For {name!r} give {HINTS[found[0]]}." if is_elsewhere else _alike(found[0], name)


def _alike(meant: str, name: str) -> str:
    return f"Did you mean {meant!r} rather than {name!r}?"


def hints_for(names: Collection[str], known: Iterable[str], prefixes: Collection[str] = ()) -> str:
    """Hints for several names, to go on an error with: sentences, each after a blank; empty where there are none."""
    known = [*known]
    return "".join(f" {told}" for told in (hint(name, known, prefixes) for name in names) if told)
