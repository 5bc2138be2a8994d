"""Estimators that are saved, loaded and exported: they predict the same, and go on as if nothing had been saved."""

from __future__ import annotations

import copy
import io
import os
import pickle
import subprocess
import sys
import warnings
import zipfile

import joblib
import numpy as np
import pytest
import skops.io
import torch
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import StackingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback, Checkpoint
from skorch.exceptions import DeviceWarning

from skbgmd import BlockGMDClassifier, BlockGMDRegressor, RobustNeuralNetClassifier
from skbgmd.aggregators import AdaptiveClipping, Bucketing, Krum, WorkerMomentum
from skbgmd.training import SKOPS_TRUSTED
from skbgmd.training.networks import MLP

# Networks, copies and loaders draw from torch's global generator, as they do without this library.
pytestmark = pytest.mark.usefixtures("forked")


class Images(torch.nn.Sequential):
    """A network of a user's own, with dropout."""

    def __init__(self):
        super().__init__(
            torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Dropout(0.3), torch.nn.Linear(24, 3)
        )


class Interrupt(Callback):
    """Ctrl-C in the third epoch, once."""

    def initialize(self):
        self.is_over_ = False
        return self

    def on_batch_end(self, net, **kwargs):
        if len(net.history) == 3 and not self.is_over_:
            self.is_over_ = True
            raise KeyboardInterrupt


def by_skops(model):
    """What skops makes of it, where what is listed, scikit-learn and the classes of this file are trusted."""
    data = skops.io.dumps(model)
    found = set(skops.io.get_untrusted_types(data=data)) - set(SKOPS_TRUSTED)
    assert {name for name in found if not name.startswith((f"{__name__}.", "sklearn."))} == set()
    return skops.io.loads(data, trusted=[*SKOPS_TRUSTED, *found])


def by_joblib(model):
    file = io.BytesIO()
    joblib.dump(model, file)
    return joblib.load(file)


WAYS = {"skops": by_skops, "joblib": by_joblib, "pickle": lambda model: pickle.loads(pickle.dumps(model))}
SHORT = {"max_epochs": 3, "batch_size": 20, "random_state": 0}
BINARY = {"module__in_features": 4, "module__out_features": 1, "criterion": torch.nn.BCEWithLogitsLoss}
#: Estimators whose trainings remember something, and the targets that they learn.
REMEMBERING = {
    "classifier": (BlockGMDClassifier(**SHORT), "labels"),
    "binary": (BlockGMDClassifier(torch.nn.Linear, **BINARY, **SHORT), "two"),
    "images": (BlockGMDClassifier(Images, **SHORT), "images"),
    "several labels": (BlockGMDClassifier(**SHORT), "several labels"),
    "trust": (BlockGMDClassifier(trust_power=2.0, **SHORT), "labels"),
    "memory": (BlockGMDClassifier(beta=0.2, memory="weighted", **SHORT), "labels"),
    "paper": (BlockGMDClassifier(aggregator="bgmd_paper", group_size=4, **SHORT), "labels"),
    "centered clipping": (BlockGMDClassifier(aggregator="centered_clipping", group_size=4, **SHORT), "labels"),
    "momentum": (BlockGMDClassifier(aggregator=WorkerMomentum(Krum()), group_size=4, **SHORT), "labels"),
    "rules in rules": (
        BlockGMDClassifier(aggregator=AdaptiveClipping(Bucketing(Krum())), group_size=4, **SHORT),
        "labels",
    ),
    "chosen strength": (BlockGMDClassifier(**{**SHORT, "max_epochs": 20}), "labels"),
    "momentum of the optimizer": (
        BlockGMDClassifier(optimizer=torch.optim.SGD, optimizer__momentum=0.9, **SHORT),
        "labels",
    ),
    "regressor": (BlockGMDRegressor(**SHORT), "numbers"),
    "targets": (BlockGMDRegressor(trust_power=1.0, **SHORT), "columns"),
    "constant target": (BlockGMDRegressor(**SHORT), "constant"),
}


def data_for(targets, rng):
    X = rng.normal(size=(120, 4)).astype(np.float32)
    labels = np.array(["b", "a", "c"])[(X[:, 0] > 0).astype(int) + (X[:, 1] > 0.5)]
    y = {
        "labels": labels,
        "images": labels,
        "several labels": (X[:, :3] > 0.0).astype(int),
        "two": np.where(X[:, 0] > 0, "yes", "no"),
        "numbers": 1e4 + 300.0 * X[:, 0],
        "columns": np.column_stack([1e4 + 300.0 * X[:, 0], X[:, 1]]),
        "constant": np.full(120, 7.0),
    }[targets]
    return rng.normal(size=(120, 1, 5, 6)).astype(np.float32) if targets == "images" else X, y


def parameters(model):
    return {name: value.clone() for name, value in model.module_.state_dict().items()}


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize("kind", REMEMBERING)
def test_training_goes_on_to_the_bit(kind, rng):
    model, targets = REMEMBERING[kind]
    X, y = data_for(targets, rng)
    model.fit(X, y)
    copies = {way: save(model) for way, save in WAYS.items()}
    for _ in range(2):
        model.partial_fit(X, y)
    expected = parameters(model)
    for again in copies.values():
        for _ in range(2):
            again.partial_fit(X, y)
        assert_equal(parameters(again), expected)
        np.testing.assert_array_equal(again.sample_trust_, model.sample_trust_)


@pytest.mark.parametrize("stopping", [True, "loss"])
@pytest.mark.parametrize("kind", [BlockGMDClassifier, BlockGMDRegressor])
def test_warm_starts_that_stop_early(kind, stopping, rng):
    X, y = data_for("labels" if kind is BlockGMDClassifier else "numbers", rng)
    settings = {**SHORT, "max_epochs": 40, "n_iter_no_change": 2, "tol": 1e-2}
    model = kind(early_stopping=stopping, warm_start=True, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a training that hasn't ended by itself
        model.fit(X, y)
        copies = {way: save(model) for way, save in WAYS.items()}
        model.fit(X, y)
        for again in copies.values():
            again.fit(X, y)
            assert_equal(parameters(again), parameters(model))
            assert again.n_iter_ == model.n_iter_


def test_one_that_was_interrupted(rng):
    X, y = data_for("labels", rng)
    model = BlockGMDClassifier(**{**SHORT, "max_epochs": 9}, callbacks=[Interrupt()])
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        model.fit(X, y)
    for save in WAYS.values():
        again = save(model)
        assert again.n_iter_ == 2
        np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
        assert_equal(parameters(again.partial_fit(X, y)), parameters(copy.deepcopy(model).partial_fit(X, y)))


def robust(**settings):
    return BlockGMDClassifier(**{**SHORT, **settings})


ESTIMATORS = {
    "pipeline": make_pipeline(StandardScaler(), robust()),
    "search": GridSearchCV(robust(), {"lr": [0.01, 0.1]}, cv=2),
    "search of pipelines": GridSearchCV(
        make_pipeline(StandardScaler(), robust()), {"blockgmdclassifier__lr": [0.01, 0.1]}, cv=2
    ),
    "calibrated": CalibratedClassifierCV(robust(), cv=2),
    "stacked": StackingClassifier(
        [("robust", robust()), ("linear", LogisticRegression())], final_estimator=robust(max_epochs=2), cv=2
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ESTIMATORS)
def test_estimators_of_estimators(kind, way, rng):
    X, y = data_for("labels", rng)
    model = ESTIMATORS[kind].fit(X, y)
    np.testing.assert_array_equal(WAYS[way](model).predict_proba(X), model.predict_proba(X))


class Bad:
    def __reduce__(self):
        return os.putenv, ("SKBGMD_WAS_CALLED", "1")


@pytest.mark.parametrize("listed", [False, True])
def test_a_reviewed_file_calls_nothing(listed, rng):
    """A file whose types are all trusted, with other bytes in the place of its network."""
    X, y = data_for("labels", rng)
    data, changed = skops.io.dumps(robust().fit(X, y)), io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as before, zipfile.ZipFile(changed, "w") as after:
        replaced = [name for name in before.namelist() if name.endswith(".bin")]
        for name in before.namelist():
            after.writestr(name, pickle.dumps({"module_": Bad()}) if name in replaced else before.read(name))
    assert len(replaced) == 1
    types = skops.io.get_untrusted_types(data=changed.getvalue())
    # skops sees nothing of it.
    assert set(types) <= set(SKOPS_TRUSTED)
    with pytest.raises(pickle.UnpicklingError, match=r"found \w+.putenv, which is not listed"):
        skops.io.loads(changed.getvalue(), trusted=types if listed else SKOPS_TRUSTED)


def test_a_class_of_a_script(rng, tmp_path):
    """It is found by the script that has it; by another only where the class was sent along."""
    script = """
import pickle, sys, joblib, cloudpickle, numpy as np, torch
from skbgmd import BlockGMDClassifier
class Net(torch.nn.Linear):
    def __init__(self): super().__init__(4, 2)
X = np.load(sys.argv[1] + "/X.npy")
model = BlockGMDClassifier(Net, max_epochs=2, random_state=0).fit(X, X[:, 0] > 0)
joblib.dump(model, sys.argv[1] + "/model.joblib")
open(sys.argv[1] + "/model.cloudpickle", "wb").write(cloudpickle.dumps(model))
np.save(sys.argv[1] + "/found.npy", joblib.load(sys.argv[1] + "/model.joblib").predict_proba(X))
"""
    X = rng.normal(size=(60, 4)).astype(np.float32)
    np.save(tmp_path / "X.npy", X)
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    with pytest.raises(AttributeError, match="Net"):
        joblib.load(tmp_path / "model.joblib")
    sent = pickle.loads((tmp_path / "model.cloudpickle").read_bytes())
    np.testing.assert_array_equal(sent.predict_proba(X), np.load(tmp_path / "found.npy"))
    assert sent.partial_fit(X, X[:, 0] > 0).n_iter_ == 3


def test_bfloat16_is_computed_in_and_not_saved(rng):
    X, y = data_for("labels", rng)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model = robust().fit(X, y)
    assert {value.dtype for value in model.module_.state_dict().values()} == {torch.float32}
    for save in WAYS.values():
        np.testing.assert_array_equal(save(model).predict_proba(X), model.predict_proba(X))


@pytest.mark.skipif(torch.cuda.is_available(), reason="is loaded where there is no CUDA")
@pytest.mark.parametrize("way", WAYS)
def test_a_device_that_is_not_there(way, rng):
    X, y = data_for("labels", rng)
    model = robust().fit(X, y)
    expected = model.predict_proba(X)
    model.net_.device = "cuda"  # as if it had been trained there
    with pytest.warns(DeviceWarning) as told:
        again = WAYS[way](model)
    assert len(told) == 2
    assert again.net_.device == torch.device("cpu")
    np.testing.assert_array_equal(again.predict_proba(X), expected)


NET = {"module": MLP, "module__n_features": 4, "module__n_outputs": 3, "criterion": torch.nn.CrossEntropyLoss}


def net(**settings):
    return RobustNeuralNetClassifier(**NET, train_split=None, verbose=0, max_epochs=2, random_state=0, **settings)


def test_parameters_by_safetensors(rng, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    X, labels = data_for("labels", rng)
    y = np.unique(labels, return_inverse=True)[1]
    model, trained = robust().fit(X, labels), net().fit(X, y)
    safetensors.save_model(model.module_, tmp_path / "model.safetensors")
    # An estimator of the same shape takes them.
    fresh = BlockGMDClassifier(max_epochs=1, random_state=1).fit(X[:30], labels[:30])
    safetensors.load_model(fresh.module_, tmp_path / "model.safetensors")
    np.testing.assert_array_equal(fresh.predict_proba(X), model.predict_proba(X))
    # So does a module without an estimator.
    empty = MLP(4, 3)
    safetensors.load_model(empty, tmp_path / "model.safetensors")
    assert_equal(empty.state_dict(), parameters(model))
    trained.save_params(f_params=tmp_path / "net.safetensors", use_safetensors=True)
    again = net().initialize()
    again.load_params(f_params=tmp_path / "net.safetensors", use_safetensors=True)
    np.testing.assert_array_equal(again.predict_proba(X), trained.predict_proba(X))


def test_parameters_by_skorch(rng, tmp_path):
    X, labels = data_for("labels", rng)
    y = np.unique(labels, return_inverse=True)[1]
    checkpoint = Checkpoint(dirname=tmp_path, monitor=None)
    trained = net(callbacks=[checkpoint]).fit(X, y)
    for name in ("params.pt", "optimizer.pt", "criterion.pt"):
        torch.load(tmp_path / name, weights_only=True)
    again = net().initialize()
    again.load_params(checkpoint=checkpoint)
    np.testing.assert_array_equal(again.predict_proba(X), trained.predict_proba(X))
    assert_equal(again.partial_fit(X, y).module_.state_dict(), trained.partial_fit(X, y).module_.state_dict())


EXPORTED = {
    "labels": robust(),
    "two": BlockGMDClassifier(torch.nn.Linear, **BINARY, **SHORT),
    "images": BlockGMDClassifier(Images, **SHORT),
    "numbers": BlockGMDRegressor(**SHORT),
    "columns": BlockGMDRegressor(**SHORT),
}
# Before torch 2.6 such a dimension had a name.
ANY_BATCH = ({0: getattr(torch.export.Dim, "DYNAMIC", None) or torch.export.Dim("batch")},)


def exported(targets, rng):
    X, y = data_for(targets, rng)
    model = EXPORTED[targets].fit(X, y)
    return model, X, model.predict_proba if hasattr(model, "predict_proba") else model.predict


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of torch about its own
@pytest.mark.parametrize("targets", EXPORTED)
def test_torch_export(targets, rng, tmp_path):
    model, X, predict = exported(targets, rng)
    program = torch.export.export(model.to_module(), (torch.from_numpy(X[:2]),), dynamic_shapes=ANY_BATCH)
    torch.export.save(program, tmp_path / "model.pt2")
    module = torch.export.load(tmp_path / "model.pt2").module()
    for some in (X, X[:3]):
        np.testing.assert_array_equal(module(torch.from_numpy(some)).detach(), predict(some))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # of the exporters about their own
@pytest.mark.parametrize("targets", EXPORTED)
def test_onnx(targets, rng, tmp_path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    model, X, predict = exported(targets, rng)
    arguments = {"dynamo": True, "dynamic_shapes": ANY_BATCH, "input_names": ["X"], "verbose": False}
    torch.onnx.export(model.to_module(), (torch.from_numpy(X[:2]),), tmp_path / "model.onnx", **arguments)
    session = runtime.InferenceSession(tmp_path / "model.onnx")
    for some in (X, X[:1]):
        (found,) = session.run(None, {"X": some})
        np.testing.assert_allclose(found, predict(some), rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_onnx_of_a_pipeline(rng):
    skl2onnx, onnx = pytest.importorskip("skl2onnx"), pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    X, y = data_for("labels", rng)
    X = 50.0 + 20.0 * X
    model = make_pipeline(StandardScaler(), robust()).fit(X, y)
    arguments = {"dynamo": True, "dynamic_shapes": ANY_BATCH, "input_names": ["scaled"], "verbose": False}
    network = torch.onnx.export(model[-1].to_module(), (torch.zeros(2, 4),), **arguments).model_proto
    scaler = skl2onnx.to_onnx(model[:-1], X[:1], target_opset=network.opset_import[0].version)
    scaler.ir_version = network.ir_version
    both = onnx.compose.merge_models(scaler, network, io_map=[("variable", "scaled")])
    (found,) = runtime.InferenceSession(both.SerializeToString()).run(None, {"X": X})
    np.testing.assert_allclose(found, model.predict_proba(X), rtol=1e-5, atol=1e-5)
