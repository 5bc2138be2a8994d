"""What is no data is refused at every public door, in words that name the parameter, before anything is changed.

A door is a line of one of the tables below: its parameter, and how to hand something in. Everything of the kinds that
it refuses is tried at it.
"""

from __future__ import annotations

import datetime
import re
import warnings
from collections import deque
from decimal import Decimal
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from skorch.dataset import Dataset
from skorch.helper import predefined_split

from nets import dataset_of
from skbgmd import (
    BlockGMDClassifier,
    BlockGMDRegressor,
    RobustNeuralNet,
    RobustNeuralNetClassifier,
    RobustNeuralNetRegressor,
    block_geometric_median,
    geometric_median,
    robust_backward,
)
from skbgmd.aggregators import AGGREGATORS, NearestNeighborMixing, get_aggregator
from skbgmd.corruption import (
    GRADIENT_CORRUPTIONS,
    CorruptedLabels,
    GaussianNoise,
    ImpulseNoise,
    LabelCorruption,
    corrupt_labels,
)
from skbgmd.inspection import SampleTrustDisplay, label_losses, robustness_curve, sample_losses
from skbgmd.rows import DenseRows
from skbgmd.training._data.loader import ArrayLoader

# Nets draw from torch's global generator, as they do without this library.
pytestmark = pytest.mark.usefixtures("forked")

N = 12
X = np.random.default_rng(0).normal(size=(N, 3)).astype(np.float32)
Y = np.arange(N) % 2
TARGETS = X[:, 0].astype(np.float64)
PLACE = np.arange(N) == 1
THETA = torch.ones(N, requires_grad=True)


# What is refused

MOMENT = datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC)
DATES = {
    "datetime": MOMENT,
    "date": MOMENT.date(),
    "time": MOMENT.time(),
    "timedelta": datetime.timedelta(3),
    "Timestamp": pd.Timestamp("2020-01-02"),
    "Timestamp, zone": pd.Timestamp(MOMENT),
    "Timedelta": pd.Timedelta(3, "D"),
    "Period": pd.Period("2020-01", "M"),
    "offset": pd.offsets.MonthEnd(),
    "datetime64": np.datetime64("2020-01-02"),
    "timedelta64": np.timedelta64(3, "D"),
    "timedelta64, no unit": np.timedelta64(3),
}
COLUMNS = {
    "datetime64": pd.Series(pd.date_range("2020", periods=N)),
    "zone": pd.Series(pd.date_range("2020", periods=N, tz="UTC")),
    "timedelta64": pd.Series(pd.timedelta_range("1D", periods=N)),
    "period": pd.Series(pd.period_range("2020", periods=N, freq="M")),
    "category": pd.Series(pd.date_range("2020", periods=2).tolist() * (N // 2)).astype("category"),
    "category of periods": pd.Series(pd.period_range("2020", periods=2, freq="M").tolist() * (N // 2)).astype(
        "category"
    ),
}
MASKED = r"must have no masked entries; found 1 of them"
DATED = "must hold no dates or durations; found "
MISSING = "must have no missing values; found "


def with_one(values, value):
    """A copy as objects, of which one is another."""
    objects = values.astype(object)
    objects[(1,) * values.ndim] = value
    return objects


def named(matrix):
    return pd.DataFrame(matrix, columns=["a", "b", "c"])


def masked(values, **mask):
    place = np.zeros(values.shape, dtype=bool)
    place[(1,) * values.ndim] = True
    return np.ma.masked_array(values, **{"mask": place, **mask})


def masked_tensor(values, mask):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The PyTorch API of MaskedTensors")
        return torch.masked.masked_tensor(torch.from_numpy(values), torch.from_numpy(mask))


class OfAnotherLibrary:
    """What NumPy makes an array of, though it is none."""

    def __init__(self, array):
        self.array = array

    def __len__(self):
        return len(self.array)

    def __array__(self, dtype=None, copy=None):
        return self.array if dtype is None else self.array.astype(dtype)


def dated_tables():
    for name, value in DATES.items():
        objects = with_one(X, value)
        yield f"objects, {name}", objects
        yield f"lists, {name}", objects.tolist()
        yield f"frame, {name}", named(objects)
        yield f"nothing but {name}", [[value] * 3] * N
    for name, column in COLUMNS.items():
        yield f"column, {name}", named(X).assign(d=column)
    yield "array", X.astype("datetime64[s]")
    yield "list of arrays", list(X.astype("timedelta64[s]"))
    yield "array of another library", OfAnotherLibrary(X.astype("datetime64[s]"))
    yield "objects of another library", OfAnotherLibrary(with_one(X, MOMENT))
    yield "tuple of deques", tuple(map(deque, with_one(X, MOMENT).tolist()))


def masked_tables():
    yield "masked", masked(X)
    yield "masked, objects", masked(X.astype(object))
    yield "masked row in a list", [*X[:-1], np.ma.masked_array(X[-1], mask=[1, 0, 0])]
    yield "constant in lists", with_one(X, np.ma.masked).tolist()
    yield "masked tensor", masked_tensor(X, np.arange(3 * N).reshape(N, 3) != 4)


def missing_tables():
    objects = with_one(X, pd.NA)
    yield "objects", objects
    yield "lists", objects.tolist()
    yield "frame", named(objects)


def dated_vectors():
    for name, value in DATES.items():
        objects = with_one(Y, value)
        yield f"objects, {name}", objects
        yield f"list, {name}", objects.tolist()
        yield f"series, {name}", pd.Series(objects)
        yield f"nothing but {name}", [value] * N
    for name, column in COLUMNS.items():
        yield f"series, {name}", column
        yield f"index, {name}", pd.Index(column)
    yield "array", Y.astype("datetime64[s]")


def masked_vectors():
    yield "masked", masked(Y)
    yield "masked, objects", masked(Y.astype(object))
    yield "masked, soft", masked(Y, hard_mask=False)
    yield "constant in a list", with_one(Y, np.ma.masked).tolist()


def missing_vectors():
    kinds = {
        "None": None,
        "NA": pd.NA,
        "NaN": np.nan,
        "NaN, single": np.float32("nan"),
        "NaT": pd.NaT,
        "NaT, NumPy": np.datetime64("NaT"),
        "Decimal": Decimal("NaN"),
    }
    for name, value in kinds.items():
        for base in (Y, np.array(["a", "b"])[Y]):
            objects = with_one(base, value)
            yield f"objects, {name}, {base.dtype}", objects
            yield f"list, {name}, {base.dtype}", objects.tolist()
            yield f"series, {name}, {base.dtype}", pd.Series(objects)
    for dtype in ("Int64", "boolean", "string", "category"):
        yield f"series, {dtype}", pd.Series(Y > 0 if dtype == "boolean" else Y).astype(dtype).mask(PLACE)
    yield "index", pd.Index(with_one(Y, None))


def refusals(maker, message, error):
    return [(f"{maker.__name__}: {name}", value, message, error) for name, value in maker()]


DATED_TABLES = refusals(dated_tables, DATED, TypeError)
MASKED_TABLES = refusals(masked_tables, MASKED, ValueError)
TABLES = [*DATED_TABLES, *MASKED_TABLES, *refusals(missing_tables, MISSING, ValueError)]
DATED_VECTORS = refusals(dated_vectors, DATED, TypeError)
MASKED_VECTORS = refusals(masked_vectors, MASKED, ValueError)
MISSING_VECTORS = refusals(missing_vectors, MISSING + "None, NA or NaN at position 1", ValueError)
NA_VECTORS = refusals(lambda: [("NA", with_one(Y, pd.NA).tolist())], MISSING, ValueError)


# Where it is refused


def classifier(**settings):
    return BlockGMDClassifier(**{"max_epochs": 1, "hidden_layer_sizes": (2,), "random_state": 0, **settings})


def regressor(**settings):
    return BlockGMDRegressor(**{"max_epochs": 1, "hidden_layer_sizes": (2,), "random_state": 0, **settings})


def net(kind=RobustNeuralNetClassifier, **settings):
    criterion, outputs = (torch.nn.MSELoss, 1) if kind is RobustNeuralNetRegressor else (torch.nn.CrossEntropyLoss, 2)
    module = torch.nn.Linear(3, outputs)
    return kind(
        module,
        **{"criterion": criterion, "max_epochs": 1, "train_split": None, "group_size": 1, "verbose": 0, **settings},
    )


def attacked(attack, models, gradients):
    return attack(gradients)


def attacked_(attack, models, gradients):
    return attack.apply_(gradients)


@pytest.fixture(scope="module")
def fitted():
    with torch.random.fork_rng(devices=[]):
        return SimpleNamespace(
            classifier=classifier().fit(X, Y),
            regressor=regressor().fit(X, TARGETS),
            layer=classifier(module=torch.nn.Linear(3, 2)).fit(X, Y),
            noise=GaussianNoise(0.2).fit(X),
            net=net().fit(X, Y),
            labels=LabelCorruption(0.2).fit(X, Y),
            corrupted=CorruptedLabels(LogisticRegression(), fraction=0.2, random_state=0).fit(X, Y),
        )


#: Doors of numbers.
OF_TABLES = {
    "geometric_median": ("X", lambda m, v: geometric_median(v)),
    "block_geometric_median": ("X", lambda m, v: block_geometric_median(v, beta=0.5)),
    "classifier.fit": ("X", lambda m, v: m.classifier.fit(v, Y)),
    "classifier.partial_fit": ("X", lambda m, v: m.classifier.partial_fit(v, Y)),
    "classifier.predict": ("X", lambda m, v: m.classifier.predict(v)),
    "classifier.predict_proba": ("X", lambda m, v: m.classifier.predict_proba(v)),
    "classifier.predict_log_proba": ("X", lambda m, v: m.classifier.predict_log_proba(v)),
    "classifier.score": ("X", lambda m, v: m.classifier.score(v, Y)),
    "layer.fit": ("X", lambda m, v: m.layer.fit(v, Y)),
    "layer.predict": ("X", lambda m, v: m.layer.predict(v)),
    "regressor.fit": ("X", lambda m, v: m.regressor.fit(v, TARGETS)),
    "regressor.partial_fit": ("X", lambda m, v: m.regressor.partial_fit(v, TARGETS)),
    "regressor.predict": ("X", lambda m, v: m.regressor.predict(v)),
    "several targets": ("y", lambda m, v: m.regressor.fit(X, v)),
    "GaussianNoise.fit": ("X", lambda m, v: m.noise.fit(v)),
    "GaussianNoise.fit_transform": ("X", lambda m, v: m.noise.fit_transform(v)),
    "GaussianNoise.transform": ("X", lambda m, v: m.noise.transform(v)),
    "ImpulseNoise.fit_transform": ("X", lambda m, v: ImpulseNoise(0.2).fit_transform(v)),
    "net.fit": ("X", lambda m, v: m.net.fit(v, Y)),
    "net.partial_fit": ("X", lambda m, v: m.net.partial_fit(v, Y)),
    "net.predict": ("X", lambda m, v: m.net.predict(v)),
    "net.forward": ("X", lambda m, v: m.net.forward(v)),
    "regression net.fit": ("X", lambda m, v: net(RobustNeuralNetRegressor).fit(v, X[:, :1])),
    "general net.fit": ("X", lambda m, v: net(RobustNeuralNet).fit(v, Y)),
}
#: Doors of arrays for which anything but a mask is the business of others.
OF_MASKED_TABLES = {
    "net, own dataset": ("X", lambda m, v: net(dataset=Own).fit(v, Y)),
    "net, own loader": ("X", lambda m, v: net(iterator_train=torch.utils.data.DataLoader).fit(v, Y)),
    "net, dict": ("X", lambda m, v: m.net.fit({"input": v}, Y)),
    "net, whole dataset": ("X", lambda m, v: m.net.fit(Dataset(v, Y), None)),
    "net, subset": ("X", lambda m, v: m.net.fit(torch.utils.data.Subset(Dataset(v, Y), range(6)), Y[:6])),
    "net, validation": ("X", lambda m, v: net(train_split=predefined_split(Dataset(v, Y))).fit(X, Y)),
    "net.predict, dataset": ("X", lambda m, v: m.net.predict(Dataset(v, Y))),
    "classifier, validation": ("X", lambda m, v: classifier(train_split=predefined_split(Dataset(v, Y))).fit(X, Y)),
    "ArrayLoader": ("X", lambda m, v: ArrayLoader(Dataset(v, Y))),
    "sample_losses": ("X", lambda m, v: sample_losses(m.classifier, v, Y)),
    "label_losses": ("X", lambda m, v: label_losses(m.classifier, v, np.eye(2)[Y])),
    "SampleTrustDisplay": ("X", lambda m, v: SampleTrustDisplay.from_estimator(m.classifier, v, Y)),
    "robustness_curve": ("X", lambda m, v: robustness_curve(m.classifier, v, Y, corruption="bit_flip")),
}
#: Doors of labels and targets, one a sample.
OF_TARGETS = {
    "classifier.fit": ("y", lambda m, v: m.classifier.fit(X, v)),
    "classifier.partial_fit": ("y", lambda m, v: m.classifier.partial_fit(X, v)),
    "classifier.partial_fit, classes": ("classes", lambda m, v: classifier().partial_fit(X, Y, classes=v)),
    "layer.fit": ("y", lambda m, v: m.layer.fit(X, v)),
    "regressor.fit": ("y", lambda m, v: m.regressor.fit(X, v)),
    "regressor.partial_fit": ("y", lambda m, v: m.regressor.partial_fit(X, v)),
    "corrupt_labels": ("y", lambda m, v: corrupt_labels(v, fraction=0.5)),
    "corrupt_labels, pair": ("y", lambda m, v: corrupt_labels(v, fraction=0.5, kind="pair")),
    "corrupt_labels, classes": ("classes", lambda m, v: corrupt_labels(Y, fraction=0.5, classes=v)),
    "LabelCorruption.fit": ("y", lambda m, v: m.labels.fit(X[:, :2], v)),
    "LabelCorruption.fit_resample": ("y", lambda m, v: m.labels.fit_resample(X[:, :2], v)),
    "CorruptedLabels.fit": ("y", lambda m, v: m.corrupted.fit(X[:, :2], v)),
    "CorruptedLabels.fit, y_corrupt": ("y_corrupt", lambda m, v: m.corrupted.fit(X[:, :2], Y, y_corrupt=v)),
    "sample_losses": ("y", lambda m, v: sample_losses(m.classifier, X, v)),
    "label_losses": ("y", lambda m, v: label_losses(m.classifier, X, v)),
    "classifier.score": ("y", lambda m, v: m.classifier.score(X, v)),
    "regressor.score": ("y", lambda m, v: m.regressor.score(X, v)),
}
OF_MASKED_TARGETS = {
    "net.fit": ("y", lambda m, v: m.net.fit(X, v)),
    "net.partial_fit": ("y", lambda m, v: m.net.partial_fit(X, v)),
    "net, dataset": ("y", lambda m, v: m.net.fit(Dataset(X, v), None)),
    "net, validation": ("y", lambda m, v: net(train_split=predefined_split(Dataset(X, v))).fit(X, Y)),
    "classifier, validation": ("y", lambda m, v: classifier(train_split=predefined_split(Dataset(X, v))).fit(X, Y)),
    "ArrayLoader": ("y", lambda m, v: ArrayLoader(Dataset(X, v))),
    "net, clients": ("clients", lambda m, v: m.net.fit(dataset_of(X, Y, None, v), Y)),
    "net, weights": ("sample_weight", lambda m, v: m.net.fit(dataset_of(X, Y, v), Y)),
    "robustness_curve": ("y", lambda m, v: robustness_curve(m.classifier, X, v, corruption="bit_flip")),
    "robustness_curve, groups": (
        "groups",
        lambda m, v: robustness_curve(m.classifier, X, Y, groups=v, corruption="bit_flip"),
    ),
    "robustness_curve, params": (
        "params",
        lambda m, v: robustness_curve(m.classifier, X, Y, params={"groups": v}, corruption="bit_flip"),
    ),
    "SampleTrustDisplay": ("corrupted", lambda m, v: SampleTrustDisplay.from_estimator(m.layer, X, Y, corrupted=v)),
    "DenseRows": ("weights", lambda m, v: DenseRows(torch.from_numpy(X), v)),
}
#: Doors of ids, which may be dates.
OF_IDS = {
    "classifier.fit": ("clients", lambda m, v: m.classifier.fit(X, Y, clients=v)),
    "classifier.fit, groups": ("groups", lambda m, v: m.classifier.fit(X, Y, groups=v)),
    "classifier.partial_fit": ("clients", lambda m, v: m.classifier.partial_fit(X, Y, clients=v)),
    "regressor.fit": ("clients", lambda m, v: m.regressor.fit(X, TARGETS, clients=v)),
    "regressor.fit, groups": ("groups", lambda m, v: m.regressor.fit(X, TARGETS, groups=v)),
    "regressor.partial_fit": ("clients", lambda m, v: m.regressor.partial_fit(X, TARGETS, clients=v)),
}
#: Doors of weights, one a sample.
OF_WEIGHTS = {
    "geometric_median": ("sample_weight", lambda m, v: geometric_median(X, sample_weight=v)),
    "block_geometric_median": ("sample_weight", lambda m, v: block_geometric_median(X, sample_weight=v)),
    "block_geometric_median, memory": (
        "memory",
        lambda m, v: block_geometric_median(np.eye(N), beta=0.5, complement="memory", memory=v),
    ),
    "robust_backward": ("weights", lambda m, v: robust_backward((THETA * torch.ones(N)).square(), THETA, weights=v)),
    "classifier.fit": ("sample_weight", lambda m, v: m.classifier.fit(X, Y, sample_weight=v)),
    "classifier.partial_fit": ("sample_weight", lambda m, v: m.classifier.partial_fit(X, Y, sample_weight=v)),
    "regressor.fit": ("sample_weight", lambda m, v: m.regressor.fit(X, TARGETS, sample_weight=v)),
    "classifier.score": ("sample_weight", lambda m, v: m.classifier.score(X, Y, v)),
    "regressor.score": ("sample_weight", lambda m, v: m.regressor.score(X, TARGETS, v)),
    "robustness_curve": (
        "fractions",
        lambda m, v: robustness_curve(m.classifier, X, Y, fractions=v, corruption="bit_flip"),
    ),
    "ImpulseNoise": ("value_range", lambda m, v: ImpulseNoise(0.2, value_range=v).fit(X)),
}
#: Doors of tensors.
OF_TENSORS = {
    **{name: ("gradients", partial(attacked, kind())) for name, kind in GRADIENT_CORRUPTIONS.items()},
    **{f"{name}, in place": ("gradients", partial(attacked_, kind())) for name, kind in GRADIENT_CORRUPTIONS.items()},
    "DenseRows": ("matrix", lambda m, v: DenseRows(v)),
    "geometric_median": ("X", lambda m, v: geometric_median(v)),
    "block_geometric_median": ("X", lambda m, v: block_geometric_median(v)),
    "classifier.predict": ("X", lambda m, v: m.classifier.predict(v)),
    "net.predict": ("X", lambda m, v: m.net.predict(v)),
}
TABLE = [
    (name, parameter, door, kinds)
    for doors, kinds in (
        (OF_TABLES, TABLES),
        (OF_MASKED_TABLES, [entry for entry in MASKED_TABLES if "list" not in entry[0]]),
        (OF_TARGETS, [*DATED_VECTORS, *MASKED_VECTORS, *MISSING_VECTORS]),
        (OF_MASKED_TARGETS, MASKED_VECTORS),
        (OF_IDS, [*MASKED_VECTORS, *MISSING_VECTORS]),
        (OF_WEIGHTS, [*DATED_VECTORS, *MASKED_VECTORS, *NA_VECTORS]),
        (OF_TENSORS, [entry for entry in MASKED_TABLES if "tensor" in entry[0]]),
    )
    for name, (parameter, door) in doors.items()
]


class Own(Dataset):
    """Makes numbers of what it is given."""

    def transform(self, X, y):
        return super().transform(np.asarray(X).astype("datetime64[D]").astype(np.float32), y)


def state(model):
    """What a model has learnt, and the parameters of a network."""
    learnt = dict(vars(model))
    network = learnt.get("module_")
    return learnt, None if network is None else [parameter.clone() for parameter in network.parameters()]


def assert_is_as_before(model, before):
    learnt, parameters = state(model)
    assert learnt.keys() == before[0].keys()
    assert all(value is before[0][name] for name, value in learnt.items())
    if parameters is not None:
        torch.testing.assert_close(parameters, before[1], rtol=0.0, atol=0.0)


def assert_is_refused(fitted, parameter, door, value, message, error):
    before = {name: state(model) for name, model in vars(fitted).items()}
    with pytest.raises(error, match=f"^{parameter} {message}") as found:
        door(fitted, value)
    assert type(found.value) is error
    for name, model in vars(fitted).items():
        assert_is_as_before(model, before[name])


@pytest.mark.parametrize(("name", "parameter", "door", "kinds"), TABLE, ids=[row[0] for row in TABLE])
def test_is_refused(name, parameter, door, kinds, fitted):
    """All that goes wrong at a door is listed, each by its kind."""
    failures = []
    for what, value, message, error in kinds:
        try:
            assert_is_refused(fitted, parameter, door, value, message, error)
        except (Exception, pytest.fail.Exception) as failure:
            failures.append(f"{name} <- {what}: {type(failure).__name__}: {failure}")
    assert not failures, "\n".join(failures)


def without_warnings(make):
    """What a function makes, of prototypes and what is deprecated, too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(make())


def tensors():
    """Tensors without real numbers, or none that torch computes with, and what is said of them."""
    given = torch.from_numpy(X)
    stored = torch.zeros(N, 3, dtype=torch.uint8)
    floats = ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu")
    for name in (*floats, "float4_e2m1fn_x2"):
        if hasattr(torch, name):
            message = rf"must be of a dtype that torch computes with; found torch\.{name}\."
            yield name, stored.view(getattr(torch, name)), message, TypeError
    others = {
        "complex32": given.to(torch.complex32),
        "complex64": given.to(torch.complex64),
        "complex128": given.to(torch.complex128),
        "quint8": torch.quantize_per_tensor(given, 0.1, 0, torch.quint8),
        "bits8": stored.view(torch.bits8),
    }
    for name, values in others.items():
        yield name, values, rf"must hold .* numbers; found dtype torch\.{name}", TypeError
    yield "meta", given.to("meta"), "must have data; found a tensor on the meta device", ValueError
    lazy = torch.nn.UninitializedParameter()
    yield "uninitialized", lazy, "must have data; found a parameter that isn't initialized", ValueError
    for layout in (torch.strided, torch.jagged):
        nested = torch.nested.nested_tensor([given, given[:5]], layout=layout)
        yield f"nested, {layout}", nested, "must be a dense tensor; found a nested one", TypeError


def sparse_tensors():
    for layout in (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc):
        values = torch.from_numpy(X).to_sparse(layout=layout)
        yield str(layout), values, f"must be a dense tensor; found layout {layout}", TypeError


#: Doors that take tensors.
FOR_TENSORS = {
    "geometric_median": ("X", lambda m, v: geometric_median(v)),
    "geometric_median, weights": ("sample_weight", lambda m, v: geometric_median(X, sample_weight=v)),
    "block_geometric_median": ("X", lambda m, v: block_geometric_median(v, beta=0.5)),
    "DenseRows": ("matrix", lambda m, v: DenseRows(v)),
    "classifier.fit": ("X", lambda m, v: m.classifier.fit(v, Y)),
    "classifier.predict": ("X", lambda m, v: m.classifier.predict(v)),
    "regressor.fit": ("X", lambda m, v: m.regressor.fit(v, TARGETS)),
    "targets": ("y", lambda m, v: m.regressor.fit(X, v)),
    "weights": ("sample_weight", lambda m, v: m.classifier.fit(X, Y, v)),
}
#: Estimators take sparse ones.
FOR_DENSE_TENSORS = ("geometric_median", "geometric_median, weights", "block_geometric_median", "DenseRows")
OF_TENSOR_KINDS = [
    (name, *FOR_TENSORS[name], kinds)
    for kinds, doors in (
        (without_warnings(tensors), FOR_TENSORS),
        (without_warnings(sparse_tensors), FOR_DENSE_TENSORS),
    )
    for name in doors
]


@pytest.mark.parametrize(
    ("name", "parameter", "door", "kinds"), OF_TENSOR_KINDS, ids=[row[0] for row in OF_TENSOR_KINDS]
)
def test_tensors_without_real_numbers_are_refused(name, parameter, door, kinds, fitted):
    test_is_refused(name, parameter, door, kinds, fitted)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int16, torch.int64, torch.uint16, torch.uint64])
def test_rows_are_floats(dtype):
    """The functions convert integers, which rows would lose digits of."""
    integers = (10 * torch.from_numpy(X).abs()).to(dtype)
    with pytest.raises(TypeError, match=rf"^matrix must hold floating point numbers; found dtype {dtype}"):
        DenseRows(integers)
    assert geometric_median(integers).dtype == torch.float64
    assert geometric_median(X, sample_weight=integers.sum(dim=1)).dtype == np.float32


def test_tensors_of_every_kind_of_real_numbers_are_data(fitted):
    weights = np.arange(1.0, N + 1.0)
    expected = classifier().fit(X, Y, weights).predict_proba(X)
    for dtype in (torch.bfloat16, torch.float16, torch.float64, torch.int32, torch.uint8):
        given = torch.from_numpy(weights).to(dtype)
        np.testing.assert_allclose(classifier().fit(X, Y, given).predict_proba(X), expected, rtol=1e-6)
    given = torch.from_numpy(X).requires_grad_()
    rows = DenseRows(given)
    assert rows.norms() == pytest.approx(np.linalg.norm(X, axis=1))


@pytest.mark.parametrize("name", [*AGGREGATORS, "mixing"])
def test_arrays_are_no_rows(name):
    aggregator = NearestNeighborMixing() if name == "mixing" else get_aggregator(name)
    for given in (X, masked(X), X.tolist(), with_one(X, MOMENT), named(X), torch.from_numpy(X), None):
        with pytest.raises(TypeError, match=f"^rows must be Rows, such as .*; found {type(given).__name__}"):
            aggregator(given)
    for given in (X, masked(X), X.tolist()):
        with pytest.raises(TypeError, match=f"^matrix must be a tensor of rows; found {type(given).__name__}"):
            aggregator(DenseRows(given))


@pytest.mark.parametrize("mask", [np.ma.nomask, False], ids=["no mask", "empty mask"])
def test_masks_that_hide_nothing(mask, fitted):
    def bare(values):
        return np.ma.masked_array(values, mask=mask)

    table, labels, targets, weight = bare(X), bare(Y), bare(TARGETS), bare(np.ones(N))
    np.testing.assert_array_equal(geometric_median(table, sample_weight=weight), geometric_median(X))
    for model, y, given in ((classifier(), Y, labels), (regressor(), TARGETS, targets)):
        expected = clone(model).fit(X, y, np.ones(N), groups=Y).predict(X)
        np.testing.assert_array_equal(model.fit(table, given, weight, groups=labels).predict(table), expected)
    noise = GaussianNoise(0.3, random_state=0)
    np.testing.assert_array_equal(noise.fit_transform(table), noise.fit_transform(X))
    np.testing.assert_array_equal(
        corrupt_labels(labels, fraction=0.5, random_state=0)[0], corrupt_labels(Y, fraction=0.5, random_state=0)[0]
    )
    np.testing.assert_array_equal(fitted.net.predict(table), fitted.net.predict(X))
    assert net().fit(table, labels).initialized_


def test_a_masked_tensor_that_hides_nothing():
    """Torch's functions don't take it, so it is told how to get at its data."""
    with pytest.raises(TypeError, match=r"X must be a plain tensor; found a MaskedTensor.*give get_data\(\)"):
        geometric_median(masked_tensor(X, np.ones(X.shape, dtype=bool)))


def test_what_is_data_stays_data(fitted):
    """Objects that are numbers, dates that name clients, and dates of which a dataset of the user's makes numbers."""
    expected = fitted.classifier.predict(X)
    for given in (X.astype(object), X.tolist(), named(X), named(X.astype(object)), tuple(map(tuple, X.tolist()))):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="X has feature names")
            np.testing.assert_array_equal(fitted.classifier.predict(given), expected)
    days = np.array(["2020-01-01", "2020-01-02"], dtype="datetime64[D]")[Y]
    of_numbers = classifier().fit(X, Y, groups=Y).predict_proba(X)
    for given in (days, pd.Series(days), pd.Series(days).dt.to_period("D"), days.astype(object).tolist()):
        np.testing.assert_array_equal(classifier().fit(X, Y, groups=given).predict_proba(X), of_numbers)
    dates = np.array(["2020-01-01"] * 3 * N, dtype="datetime64[D]").reshape(N, 3)
    assert net(dataset=Own).fit(dates, Y).predict(dates).shape == (N,)
    assert net(RobustNeuralNet).fit(X, {"a": Y}["a"]).initialized_


def test_labels_that_cannot_be_sorted():
    for name, call in (
        ("y", lambda v: corrupt_labels(v, fraction=0.5)),
        ("classes", lambda v: corrupt_labels(Y, fraction=0.5, classes=v)),
        ("clients", lambda v: classifier().fit(X, Y, clients=v)),
        ("groups", lambda v: classifier().fit(X, Y, groups=v)),
    ):
        with pytest.raises(TypeError, match=f"^{name} must hold sortable values, such as integers or strings; found"):
            call(with_one(np.array(["a", "b"])[Y], 3))
        with pytest.raises(ValueError, match=rf"^{name} must have shape \(n,\); found shape \(12, 2\)"):
            call(np.stack([Y, Y], axis=1))


@pytest.mark.parametrize("target", [pd.NA, None, np.nan, pd.NaT])
def test_targets_of_a_backdoor_that_are_missing(target):
    for y in (Y, with_one(np.array(["a", "b"])[Y], "c"), pd.Series(Y, dtype="Int64")):
        found = re.escape(repr(target))
        with pytest.raises(
            ValueError, match=rf"^target must be one of the classes .* for kind='backdoor'; found {found}"
        ):
            corrupt_labels(y, fraction=0.5, kind="backdoor", target=target)
