"""Inputs of the estimators: sparse matrices, several inputs, datasets, and sequences of different lengths."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import scipy
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.fixes import parse_version
from skorch.dataset import Dataset
from skorch.helper import SliceDataset, SliceDict, predefined_split
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence, pad_sequence
from torch.utils.data import IterableDataset, Subset, TensorDataset

from skbgmd import BlockGMDClassifier, BlockGMDRegressor, RobustNeuralNet
from skbgmd.corruption import GaussianNoise, LabelCorruption
from skbgmd.inspection import find_suspects, robustness_curve, sample_losses
from skbgmd.training._data import inputs
from skbgmd.training._data.inputs import Items, SeveralInputs, as_inputs, checksums, n_samples, take, unpacked
from skbgmd.training._data.loader import ArrayLoader
from skbgmd.training._step.groups import GroupedBatch

BRIEF = {"max_epochs": 3, "hidden_layer_sizes": (8,), "random_state": 0, "batch_size": 32}


class Linear(torch.nn.Module):
    def __init__(self, n=6):
        super().__init__()
        self.layer = torch.nn.Linear(n, 2)

    def forward(self, x):
        return self.layer(x)


class ByName(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.of_a, self.of_b = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)

    def forward(self, a, b):
        return self.of_a(a) + self.of_b(b)


class ByPlace(ByName):
    def forward(self, x):
        return self.of_a(x[0]) + self.of_b(x[1])


class Pairs(torch.utils.data.Dataset):
    def __init__(self, X, y):
        self.X, self.y, self.reads = X, y, 0

    def __len__(self):
        return len(self.X)

    def __getitem__(self, place):
        self.reads += 1
        return self.X[place], self.y[place]


@pytest.fixture
def table(rng):
    X = rng.normal(size=(120, 6))
    X[np.abs(X) < 0.7] = 0.0
    return X, (X[:, 0] + X[:, 1] > 0).astype(int)


# ---- sparse ----------------------------------------------------------------------------------------------------------


def shuffled_with_duplicates(X):
    """The same matrix, with each entry as two halves, in reverse order, and indices of 64 bits."""
    X = sparse.csr_array(X)
    rows = [np.arange(start, stop)[::-1] for start, stop in zip(X.indptr[:-1], X.indptr[1:], strict=True)]
    order = np.concatenate([np.concatenate([row, row]) for row in rows])
    return sparse.csr_array(
        (X.data[order] / 2, X.indices[order].astype(np.int64), 2 * X.indptr.astype(np.int64)), X.shape
    )


FORMATS = {
    "csr": sparse.csr_array,
    "csr_matrix": sparse.csr_matrix,
    "csc": sparse.csc_array,
    "coo": sparse.coo_matrix,
    "dok": sparse.dok_array,
    "lil": sparse.lil_array,
    "duplicates": shuffled_with_duplicates,
    "tensor": lambda X: torch.from_numpy(X).to_sparse(),
    "tensor of rows": lambda X: torch.from_numpy(X).to_sparse_csr(),
}


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
@pytest.mark.parametrize("name", FORMATS)
def test_sparse_is_as_dense(table, name):
    X, y = table
    given = FORMATS[name](X)
    dense = BlockGMDClassifier(**BRIEF).fit(X, y)
    found = BlockGMDClassifier(**BRIEF).fit(given, y)
    np.testing.assert_allclose(found.predict_proba(given), dense.predict_proba(X), rtol=1e-12)
    np.testing.assert_allclose(found.sample_trust_, dense.sample_trust_, rtol=1e-12)
    assert found.n_features_in_ == 6
    assert found.score(given, y) == dense.score(X, y)


@pytest.mark.parametrize(
    "settings",
    [
        {"max_epochs": 20},
        {"early_stopping": True, "max_epochs": 12, "n_iter_no_change": 2},
        {"group_size": 4, "class_weight": "balanced"},
        {"batch_size": 256},
        {"module": Linear, "trust_power": 2.0},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:max_epochs must be enough")
def test_all_that_a_fit_does_with_sparse_samples(table, settings):
    X, y = table
    rows, weight = sparse.csr_array(X), np.arange(120.0) % 5
    models = [BlockGMDClassifier(**{**BRIEF, **settings}).fit(data, y, sample_weight=weight) for data in (X, rows)]
    np.testing.assert_allclose(models[1].predict_proba(rows), models[0].predict_proba(X), rtol=1e-6)
    assert models[1].strength_scores_ == models[0].strength_scores_
    np.testing.assert_allclose(sample_losses(models[1], rows, y), sample_losses(models[0], X, y), rtol=1e-6)
    np.testing.assert_array_equal(find_suspects(models[1], 5), find_suspects(models[0], 5))


def test_going_on_with_sparse_samples(table):
    X, y = table
    rows, targets = sparse.csr_array(X), X[:, :2] @ [[1.0], [2.0]]
    dense, found = BlockGMDRegressor(**BRIEF), BlockGMDRegressor(**BRIEF)
    for part in (slice(10), slice(10, 60), slice(60, 120)):
        dense.partial_fit(X[part], targets[part])
        found.partial_fit(rows[part], targets[part])
    np.testing.assert_allclose(found.predict(rows), dense.predict(X), rtol=1e-9)
    warm = BlockGMDClassifier(**BRIEF, warm_start=True).fit(rows, y).fit(X, y)
    again = BlockGMDClassifier(**BRIEF, warm_start=True).fit(X, y).fit(rows, y)
    np.testing.assert_allclose(warm.predict_proba(X), again.predict_proba(X), rtol=1e-9)


@pytest.mark.parametrize("dtype", [bool, np.int32, np.float32])
def test_sparse_of_other_dtypes(table, dtype):
    X, y = (4 * table[0]).astype(dtype), table[1]
    expected = BlockGMDClassifier(**BRIEF).fit(X, y).predict_proba(X)
    np.testing.assert_allclose(
        BlockGMDClassifier(**BRIEF).fit(sparse.csr_array(X), y).predict_proba(sparse.csr_array(X)), expected, rtol=1e-6
    )


def test_few_and_empty_sparse_rows():
    assert BlockGMDClassifier(**BRIEF).fit(sparse.csr_array((40, 5)), np.arange(40) % 2).predict(
        sparse.eye(5)
    ).shape == (5,)
    assert BlockGMDClassifier(**BRIEF).fit(sparse.eye(5).tocsr()[:1], [3]).predict(sparse.eye(5)).tolist() == [3] * 5


@pytest.mark.skipif(
    parse_version(scipy.__version__) < parse_version("1.13"), reason="SciPy has none of three dimensions"
)
def test_sparse_data_have_two_dimensions(table):
    X, y = table
    with pytest.raises(ValueError, match="X must have two dimensions where it is sparse; found 3"):
        BlockGMDClassifier(Linear, **BRIEF).fit(sparse.coo_array(X.reshape(120, 2, 3)), y)


def test_sparse_numbers_that_are_none(table):
    X, y = table
    rows = sparse.csr_array(X)
    model = BlockGMDClassifier(**BRIEF).fit(rows, y)
    for bad, match in ((np.nan, "contains NaN"), (np.inf, "contains infinity")):
        wrong = rows.copy()
        wrong.data[3] = bad
        for call in (lambda wrong=wrong: model.fit(wrong, y), lambda wrong=wrong: model.predict(wrong)):
            with pytest.raises(ValueError, match=match):
                call()
    with pytest.raises(ValueError, match="X must be finite in the network's dtype, float32"):
        BlockGMDClassifier(Linear, **BRIEF).fit(rows * 1e300, y)
    with pytest.raises(ValueError, match="5 features"):
        model.predict(rows[:, :5])


def test_a_module_of_images_says_that_it_got_sparse_rows(table, forked):
    X, y = table
    with pytest.raises(RuntimeError) as caught:
        BlockGMDClassifier(torch.nn.Conv2d(1, 2, 2), **BRIEF).fit(sparse.csr_array(X), y)
    assert "X is sparse: the module gets dense batches of shape (n_samples, 6)" in caught.value.__notes__[0]


def test_texts_in_a_pipeline():
    texts, labels = ["a good film", "a bad film", "good", "so bad"] * 15, ["+", "-", "+", "-"] * 15
    model = make_pipeline(TfidfVectorizer(), BlockGMDClassifier(max_epochs=20, random_state=0)).fit(texts, labels)
    assert model.predict(["good", "bad"]).tolist() == ["+", "-"]


def test_validation_data_and_trusted_samples_beside_sparse_ones(table):
    X, y = table
    valid = Dataset(sparse.csr_array(X[:40]), y[:40])
    settings = {**BRIEF, "strength": None}
    model = BlockGMDClassifier(train_split=predefined_split(valid), **settings).fit(sparse.csr_array(X[40:]), y[40:])
    dense = Dataset(X[:40], y[:40])
    expected = BlockGMDClassifier(train_split=predefined_split(dense), **settings).fit(X[40:], y[40:])
    np.testing.assert_allclose(model.history_[:, "valid_loss"], expected.history_[:, "valid_loss"], rtol=1e-9)


def test_corruptions_and_curves_of_sparse_samples(table):
    X, y = table
    with pytest.raises(TypeError, match="Sparse data was passed for X, but dense data is required"):
        GaussianNoise(0.2).fit_transform(sparse.csr_array(X))
    settings = {"fractions": [0.0, 0.2], "cv": 2, "random_state": 0}
    for corruption in (LabelCorruption(), "sign_flip"):
        model = BlockGMDClassifier(**BRIEF)
        curves = [
            robustness_curve(model, data, y, corruption=corruption, **settings)[2] for data in (X, sparse.csc_array(X))
        ]
        np.testing.assert_allclose(curves[1], curves[0])


MEMORY = """
import resource
import numpy as np
from scipy import sparse
from skbgmd import BlockGMDClassifier

rng, n = np.random.default_rng(0), 20_000
X = sparse.csr_array(sparse.random(n, n, density=0.001, random_state=0, format="csr"))
y = rng.integers(2, size=n)
model = BlockGMDClassifier(max_epochs=1, hidden_layer_sizes=(4,), random_state=0)
model.fit(X[:256, :9], y[:256])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert model.fit(X, y).predict_proba(X).shape == (n, 2)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.slow
def test_memory_of_a_large_sparse_matrix():
    """Dense it would take 3.2 GB."""
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 400.0


def test_only_batches_are_dense(forked):
    """What is held besides is as large as the numbers that aren't zero."""
    X = sparse.csr_array(sparse.random(300, 5000, density=0.001, random_state=0, format="csr"))
    loader = ArrayLoader(Dataset(X, np.zeros(300)), batch_size=7, shuffle=True)
    assert sparse.issparse(loader.dataset.X)
    for batch in loader:
        np.testing.assert_array_equal(batch[0], X[batch.positions].toarray())
        assert len(batch[0]) <= 7


# ---- several inputs, and datasets ------------------------------------------------------------------------------------


KINDS = {
    "dict": (ByName, lambda X: {"a": X[:, :3], "b": torch.from_numpy(X[:, 3:])}),
    "dict of frames": (ByName, lambda X: SliceDict(a=pd.DataFrame(X[:, :3]), b=X[:, 3:])),
    "dict, half sparse": (ByName, lambda X: {"a": sparse.csc_array(X[:, :3]), "b": X[:, 3:]}),
    "list": (ByPlace, lambda X: [X[:, :3], X[:, 3:]]),
    "tuple": (ByPlace, lambda X: (X[:, :3], sparse.csr_array(X[:, 3:]))),
    "dataset": (Linear, lambda X: Pairs(X, np.zeros(len(X)))),
    "slices": (Linear, lambda X: SliceDataset(Pairs(X, np.zeros(len(X))))),
    "skorch's dataset": (Linear, lambda X: Subset(Dataset(X), range(len(X)))),
}


@pytest.fixture
def like_an_array(table):
    """Predictions of a module, and those of the module for an array that computes the same."""

    def compare(module, data, array, y, settings, weights):
        torch.manual_seed(0)
        start = module()
        twin = Linear()
        if module is not Linear:
            with torch.no_grad():
                twin.layer.weight.copy_(torch.cat([start.of_a.weight, start.of_b.weight], dim=1))
                twin.layer.bias.copy_(start.of_a.bias + start.of_b.bias)
        else:
            twin.load_state_dict(start.state_dict())
        # Two biases take two steps.
        for each in (start, twin):
            for name, parameter in each.named_parameters():
                parameter.requires_grad_("bias" not in name)
        common = {**BRIEF, "aggregator": "mean", "optimizer": torch.optim.SGD, "lr": 0.1, **settings}
        found = BlockGMDClassifier(start, **common).fit(data, y, **weights)
        expected = BlockGMDClassifier(twin, **common).fit(array, y, **weights)
        return found, expected

    return compare


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("settings", "has_groups"),
    [({}, False), ({}, True), ({"early_stopping": True}, False), ({"class_weight": {0: 2.0, 1: 1.0}}, False)],
    ids=["weights", "groups", "early stopping", "class weights"],
)
@pytest.mark.filterwarnings("ignore:max_epochs must be enough")
def test_other_inputs_are_as_an_array(table, kind, settings, has_groups, like_an_array, forked):
    (X, y), (module, make) = table, KINDS[kind]
    given = {"sample_weight": np.arange(120.0) % 4, **({"groups": np.arange(120) % 6} if has_groups else {})}
    data = make(X)
    found, expected = like_an_array(module, data, X, y, settings, given)
    np.testing.assert_allclose(found.predict_proba(data), expected.predict_proba(X), rtol=1e-4)
    np.testing.assert_allclose(found.sample_trust_, expected.sample_trust_, rtol=1e-4)
    assert found.validation_scores_ is None or len(found.validation_scores_) == 3
    assert found.score(data, y) == pytest.approx(expected.score(X, y), abs=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_all_that_an_estimator_does_with_other_inputs(table, kind, forked):
    (X, y), (module, make) = table, KINDS[kind]
    data = make(X)
    model = BlockGMDClassifier(module, **{**BRIEF, "max_epochs": 20}, trust_power=None).fit(data, y)
    assert set(model.strength_scores_) >= {"mild", "firm"}
    assert len(find_suspects(model, 7)) == 7
    assert sample_losses(model, data, y).shape == (120,)
    assert pickle.loads(pickle.dumps(model)).score(data, y) == model.score(data, y)
    assert not hasattr(model, "n_features_in_") or kind == "skorch's dataset"
    again = clone(model).set_params(warm_start=True, max_epochs=2).fit(data, y).fit(data, y)
    assert again.n_iter_ == 4
    assert clone(model).partial_fit(data, y, classes=[0, 1]).partial_fit(data, y).n_iter_ == 2
    numbers = BlockGMDRegressor(module, **BRIEF).partial_fit(data, X[:, :2]).partial_fit(data, X[:, :2])
    assert numbers.predict(data).shape == (120, 2)
    assert numbers.fit(data, X[:, :2]).n_iter_ == 3


def test_a_search_over_what_can_be_sliced(table):
    X, y = table
    settings = {"param_grid": {"lr": [0.01, 0.1]}, "cv": 2, "n_jobs": 1}
    by_name = GridSearchCV(BlockGMDClassifier(ByName, **BRIEF), **settings)
    assert by_name.fit(SliceDict(a=X[:, :3], b=X[:, 3:]), y).best_score_ > 0.5
    dataset = Pairs(X, y)
    by_item = GridSearchCV(BlockGMDClassifier(Linear, **BRIEF), **settings).fit(SliceDataset(dataset), y)
    assert by_item.best_estimator_.score(dataset) == by_item.score(SliceDataset(dataset), y)


def test_targets_of_a_dataset_are_read_once_where_none_are_given(table):
    X, y = table
    dataset = Pairs(X, np.where(y, "yes", "no"))
    model = BlockGMDClassifier(Linear, **{**BRIEF, "max_epochs": 1}, strength=None)
    assert model.fit(dataset).classes_.tolist() == ["no", "yes"]
    # For the targets, for a look at what the module gives, and for an epoch.
    assert dataset.reads == 120 + 32 + 120
    dataset.reads = 0
    model.fit(dataset, dataset.y)
    assert dataset.reads == 32 + 120
    assert model.score(dataset) == model.score(dataset, dataset.y)
    sliced = BlockGMDClassifier(Linear, **BRIEF).fit(SliceDataset(dataset), SliceDataset(dataset, idx=1))
    assert sliced.classes_.tolist() == ["no", "yes"]


def test_datasets_that_hold_arrays_are_taken_for_them(table):
    X, y = table
    expected = BlockGMDClassifier(**BRIEF).fit(X[5:], y[5:]).predict_proba(X)
    tensors = TensorDataset(torch.from_numpy(X), torch.from_numpy(y))
    for dataset in (Subset(tensors, range(5, 120)), Subset(Dataset(sparse.csr_array(X), y), np.arange(5, 120))):
        np.testing.assert_allclose(BlockGMDClassifier(**BRIEF).fit(dataset).predict_proba(tensors), expected)
    # An item of one value is no pair.
    assert BlockGMDClassifier(**BRIEF).fit(TensorDataset(torch.from_numpy(X)), y).predict_proba(X).shape == (120, 2)


def test_integers_and_masks_of_several_inputs_stay(rng):
    seen = []

    class Looking(ByName):
        def forward(self, a, b, mask, place):
            seen.append((a.dtype, mask.dtype, place.dtype))
            return super().forward(a, b)

    X = {"a": rng.normal(size=(40, 3)), "b": rng.normal(size=(40, 3)).astype(np.float32)}
    X |= {"mask": np.ones((40, 2), dtype=bool), "place": np.arange(40)}
    BlockGMDClassifier(Looking, **BRIEF).fit(X, np.arange(40) % 2)
    assert set(seen) == {(torch.float32, torch.bool, torch.int64)}


class Endless(IterableDataset):
    def __iter__(self):
        yield from ()


@pytest.mark.parametrize(
    ("module", "make", "error", "match"),
    [
        (None, lambda X: {"a": X}, TypeError, "without a module; found a dict of a. Give a module"),
        (None, lambda X: Pairs(X, X), TypeError, "found samples of a Pairs"),
        (ByName, lambda X: {}, ValueError, "X must have inputs, with as many samples each; found {}"),
        (ByName, lambda X: {"a": X, "b": X[:7]}, ValueError, "as many samples each; found {'a': 120, 'b': 7}"),
        (ByName, lambda X: {"a": X[:9], "b": X[:9]}, ValueError, "X and y must have as many samples; found 9 and 120"),
        (ByName, lambda X: {"a": X, "b": X + np.nan}, ValueError, r"X\['b'\] contains NaN"),
        (ByPlace, lambda X: [X[:5], X[:7]], ValueError, "with as many samples each as y has, 120.* of lengths 5, 7"),
        (Linear, lambda X: Endless(), TypeError, "X must be a map-style dataset.*found Endless"),
        (Linear, lambda X: Pairs(X[:9], X), ValueError, "X and y must have as many samples; found 9 and 120"),
        (Linear, lambda X: TensorDataset(*[torch.from_numpy(X)] * 3), ValueError, "found an item of 3 values"),
    ],
)
def test_wrong_inputs(table, module, make, error, match):
    X, y = table
    with pytest.raises(error, match=match):
        BlockGMDClassifier(module, **BRIEF).fit(make(X), y)


def test_predictions_need_the_inputs_of_fit(table):
    X, y = table
    model = BlockGMDClassifier(ByName, **BRIEF).fit({"a": X[:, :3], "b": X[:, 3:]}, y)
    for given, found in (({"a": X[:, :3]}, "a dict of a"), (X, "one array"), (Pairs(X, y).X[:3], "one array")):
        with pytest.raises(ValueError, match=f"inputs that it had in fit, a dict of a, b; found {found}"):
            model.predict(given)
    listed = BlockGMDClassifier(ByPlace, **BRIEF).fit([X[:, :3], X[:, 3:]], y)
    with pytest.raises(ValueError, match="a list of 2; found a list of 1"):
        listed.predict([X[:, :3]])
    # As many samples as inputs.
    assert listed.predict([X[:2, :3], X[:2, 3:]]).shape == (2,)
    with pytest.raises(ValueError, match="X must be a dataset of pairs"):
        BlockGMDClassifier(Linear, **BRIEF).fit(SliceOfX(X))


class SliceOfX(Pairs):
    def __init__(self, X):
        super().__init__(X, X)

    def __getitem__(self, place):
        return self.X[place]


def test_lists_of_samples_stay_what_they_were(table, forked):
    X, y = table
    expected = BlockGMDClassifier(Linear(6), **BRIEF, aggregator="mean")
    listed, whole = clone(expected).fit(list(X), y), clone(expected).fit(X, y)
    np.testing.assert_array_equal(listed.predict_proba(list(X)), whole.predict_proba(X))


# ---- sequences -------------------------------------------------------------------------------------------------------


def targets(samples):
    return torch.as_tensor(np.array([int(y) for _, y in samples]))


def padded(samples):
    X = pad_sequence([torch.as_tensor(x) for x, _ in samples], batch_first=True)
    return {"x": X, "lengths": torch.tensor([len(x) for x, _ in samples])}, targets(samples)


def packed(samples):
    return pack_sequence([torch.as_tensor(x) for x, _ in samples], enforce_sorted=False), targets(samples)


def joined(samples):
    lengths = [len(x) for x, _ in samples]
    tokens = torch.cat([torch.as_tensor(x) for x, _ in samples])
    return (tokens, torch.tensor(np.cumsum([0, *lengths[:-1]]))), targets(samples)


class MeanOfTokens(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.last = torch.nn.Embedding(6, 5, padding_idx=0), torch.nn.Linear(5, 2)

    def forward(self, x, lengths):
        return self.last(self.table(x).sum(dim=1) / lengths[:, None])


class PackedInside(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.recurrent = torch.nn.Embedding(6, 5, padding_idx=0), torch.nn.LSTM(5, 4, batch_first=True)
        self.last = torch.nn.Linear(4, 2)

    def forward(self, x, lengths):
        steps = pack_padded_sequence(self.table(x), lengths, batch_first=True, enforce_sorted=False)
        return self.last(self.recurrent(steps)[1][0][-1])


class PackedBefore(PackedInside):
    def forward(self, x):
        return self.last(self.recurrent(PackedSequence(self.table(x.data), *x[1:]))[1][0][-1])


class Bag(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.last = torch.nn.EmbeddingBag(6, 5, mode="mean"), torch.nn.Linear(5, 2)

    def forward(self, x):
        return self.last(self.table(*x))


SEQUENCES = {
    "padded": (MeanOfTokens, padded),
    "packed inside": (PackedInside, padded),
    "packed before": (PackedBefore, packed),
    "bag": (Bag, joined),
}


def collated(module, collate, **settings):
    return BlockGMDClassifier(
        module, **{**BRIEF, "iterator_train__collate_fn": collate, "iterator_valid__collate_fn": collate, **settings}
    )


@pytest.fixture
def sequences(rng):
    X = [rng.integers(1, 6, size=rng.integers(1, 8)) for _ in range(90)]
    return X, np.array([int(x.mean() > 3.0) for x in X])


@pytest.mark.parametrize("kind", SEQUENCES)
@pytest.mark.parametrize("group_size", [1, 3])
@pytest.mark.parametrize("weighted", [True, False])
def test_gradients_of_sequences_are_those_of_single_ones(sequences, kind, group_size, weighted, forked):
    """A row is the mean of the gradients of its samples, each of which is collated by itself."""
    (X, y), (module, collate) = sequences, SEQUENCES[kind]
    model = collated(module, collate, group_size=group_size, strength=None, max_epochs=1, batch_size=90).fit(X, y)
    net, weight = model.net_, np.arange(1.0, 91.0) if weighted else None
    dataset = Dataset(Items(X, lambda held, place: held[place], np.arange(90)), y)
    dataset.sample_weight = weight
    batch = next(iter(ArrayLoader(dataset, batch_size=24, collate_fn=collate)))
    grouped, gradients = GroupedBatch(batch, group_size, net.criterion_), net._gradient_matrix(batch)
    rows = net.make_rows(grouped, gradients, {}).rows
    for number, part in enumerate(grouped.slices):
        expected = 0.0
        shares = np.ones(24)[part] if weight is None else weight[:24][part]
        for place, share in zip(range(part.start, part.stop), shares / shares.sum(), strict=True):
            inputs, target = collate([(X[place], y[place])])
            loss = torch.nn.functional.cross_entropy(net.infer(inputs).reshape(1, 2), target)
            found = torch.autograd.grad(loss, gradients.parameters)
            expected = expected + share * torch.cat([each.flatten() for each in found])
        torch.testing.assert_close(rows.row(number), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", SEQUENCES)
def test_all_that_an_estimator_does_with_sequences(sequences, kind, forked):
    (X, y), (module, collate) = sequences, SEQUENCES[kind]
    model = collated(module, collate, max_epochs=20, lr=0.05).fit(X, y)
    assert model.score(X, y) > 0.7
    assert np.isfinite(model.sample_trust_).all()
    assert len(find_suspects(model, 5)) == 5
    assert set(model.history_[:, "batches", :, "train_batch_size"][0]) == {30}
    np.testing.assert_allclose(pickle.loads(pickle.dumps(model)).predict_proba(X[:9]), model.predict_proba(X[:9]))
    for given in (np.array(X, dtype=object), pd.Series(X), [x.tolist() for x in X], SliceDataset(Pairs(X, y))):
        np.testing.assert_allclose(model.predict_proba(given), model.predict_proba(X), rtol=1e-5)
    clients = collated(module, collate, local_steps=2).fit(
        X, y, sample_weight=np.arange(90.0), groups=np.arange(90) % 5
    )
    assert np.isfinite(clients.sample_trust_[1:]).all()
    assert np.isnan(clients.sample_trust_[0])
    # Processes take long to start: one kind goes there.
    n_jobs = 2 if kind == next(iter(SEQUENCES)) else None
    assert cross_val_score(collated(module, collate), X, y, cv=2, n_jobs=n_jobs).shape == (2,)


class TimeMajor(torch.nn.Module):
    """Of sequences with the samples along the second axis, or the first."""

    def __init__(self, kind, batch_first):
        super().__init__()
        self.axis = 0 if batch_first else 1
        options = {} if kind is torch.nn.Linear else {"batch_first": batch_first}
        self.steps, self.last = kind(2, 4, **options), torch.nn.Linear(4, 2)

    def forward(self, x):
        found = self.steps(x)
        found = found[0] if isinstance(found, tuple) else torch.relu(found)
        return self.last(found.mean(dim=1 - self.axis))


@pytest.mark.parametrize("kind", [torch.nn.LSTM, torch.nn.GRU, torch.nn.RNN, torch.nn.Linear])
@pytest.mark.parametrize("length", [1, 5, 24])
def test_time_may_be_the_first_axis(kind, length, rng, forked):
    """A single step, and as many steps as samples, too, where the axes can't be told apart."""
    X, start = list(rng.normal(size=(24, length, 2)).astype(np.float32)), torch.random.get_rng_state()
    y, found = [int(x[:, 0].sum() > 0) for x in X], []
    for batch_first in (True, False):

        def stacked(samples, axis=1 - batch_first):
            return torch.stack([torch.as_tensor(x) for x, _ in samples], dim=axis), targets(samples)

        torch.random.set_rng_state(start)
        model = collated(TimeMajor(kind, batch_first), stacked, lr=0.05).fit(X, y)
        found.append((model.predict_proba(X), model.sample_trust_))
        # Of the batches of a net's own dataset nothing is known.
        brief = {"max_epochs": 1, "batch_size": 24, "train_split": None, "verbose": 0, "group_size": 1}
        net = RobustNeuralNet(TimeMajor(kind, batch_first), torch.nn.CrossEntropyLoss, **brief)
        net.set_params(iterator_train__collate_fn=stacked)
        if batch_first or kind is not torch.nn.Linear:
            net.fit(Pairs(X, y), None)
        elif length != 24:
            with pytest.raises(ValueError, match=r"batch_first=True.*found shapes \([15], 24, 2\) for 24 samples"):
                net.fit(Pairs(X, y), None)
    for once, again in zip(*found, strict=True):
        np.testing.assert_allclose(once, again, rtol=1e-3)


def test_a_dataset_of_sequences_is_as_a_list(sequences, forked):
    X, y = sequences
    by_list, by_item = collated(MeanOfTokens, padded).fit(X, y), collated(MeanOfTokens, padded).fit(Pairs(X, y))
    np.testing.assert_array_equal(by_item.predict_proba(Pairs(X, y)), by_list.predict_proba(X))
    workers = collated(PackedBefore, packed, iterator_train__num_workers=1, max_epochs=1).fit(
        X, y, groups=np.arange(90) % 3
    )
    alone = collated(PackedBefore, packed, max_epochs=1).fit(X, y, groups=np.arange(90) % 3)
    np.testing.assert_allclose(workers.predict_proba(X), alone.predict_proba(X), rtol=1e-5)


def test_texts_that_a_function_splits(forked):
    def words(samples):
        return padded([([len(word) % 5 + 1 for word in text.split()], y) for text, y in samples])

    texts, y = ["a good film", "bad"] * 40, [1, 0] * 40
    for given in (texts, np.array(texts), pd.Series(texts)):
        assert collated(MeanOfTokens, words, max_epochs=20, lr=0.05).fit(given, y).score(texts, y) == 1.0


def test_sequences_beside_numbers(sequences, rng, forked):
    X, y = sequences
    numbers = rng.normal(size=(90, 3))

    def both(samples):
        lengths = torch.tensor([[float(len(x["words"])), 0.0, 1.0] for x, _ in samples])
        return {"a": lengths, "b": torch.stack([torch.as_tensor(x["numbers"]) for x, _ in samples])}, targets(samples)

    given = {"words": X, "numbers": numbers}
    assert collated(ByName, both).fit(given, y).predict(given).shape == (90,)


def test_a_function_that_reorders_samples(sequences, forked):
    """Nothing is known of them, and weights would be those of others."""
    X, y = sequences

    def by_length(samples):
        return padded(sorted(samples, key=lambda pair: -len(pair[0])))

    settings = {"iterator_train__collate_fn": by_length, "iterator_valid__collate_fn": padded}
    model = BlockGMDClassifier(MeanOfTokens, **{**BRIEF, "max_epochs": 20}, lr=0.05, **settings).fit(X, y)
    assert np.isnan(model.sample_trust_).all()
    assert model.score(X, y) > 0.7
    for given in ({"sample_weight": np.ones(90)}, {"groups": np.arange(90) % 3}):
        with pytest.raises(ValueError, match=r"must give a pair \(X, y\) .* in their order"):
            model.fit(X, y, **given)


def test_sequences_without_a_function(sequences):
    X, y = sequences
    for given in (X, np.array(X, dtype=object), Pairs(X, y)):
        with pytest.raises(ValueError, match=r"X must have samples of one shape, or iterator_train__collate_fn and"):
            BlockGMDClassifier(MeanOfTokens, **BRIEF).fit(given, y)
    with pytest.raises(ValueError, match="X must be finite; found NaN or inf in sample 1"):
        collated(MeanOfTokens, padded).fit([np.ones(2), np.array([np.nan])], [0, 1])


def test_weights_and_clients_of_arrays_that_a_function_collates(table, forked):
    X, y = table

    def stacked(samples):
        return torch.stack([torch.as_tensor(x) for x, _ in samples]), targets(samples)

    weight, groups = np.arange(120.0), np.arange(120) % 6
    start = Linear()
    for given in ({"sample_weight": weight}, {"sample_weight": weight, "groups": groups}):
        found = collated(start, stacked).fit(X, y, **given)
        expected = BlockGMDClassifier(start, **BRIEF).fit(X, y, **given)
        np.testing.assert_allclose(found.predict_proba(X), expected.predict_proba(X), rtol=1e-5)


# ---- the functions ---------------------------------------------------------------------------------------------------


def test_samples_are_counted_and_taken(rng):
    X = rng.normal(size=(5, 2))
    index = np.array([3, 0, 3])
    items = Items(X, lambda held, at: held[at], np.arange(5))
    for whole in (X, sparse.csr_array(X), {"a": X}, SeveralInputs([X, X]), items):
        assert n_samples(whole) == 5
        assert n_samples(take(whole, index)) == n_samples(take(whole, slice(1, 4))) == 3
    items = take(unpacked(Pairs(X, X))[0], index)
    np.testing.assert_array_equal(items[1], X[0])
    np.testing.assert_array_equal(take(items, [2, 1])[0], X[3])


def test_what_a_list_is(rng):
    a, b = rng.normal(size=(4, 2)), rng.normal(size=(4, 3))
    assert isinstance(as_inputs([a, b], 4, collates=False), SeveralInputs)
    assert isinstance(as_inputs((a, b), None, fitted=2, collates=False), SeveralInputs)
    assert isinstance(as_inputs([a[0], b[0]], 2, collates=True), Items)
    # As many samples as inputs: what it has always been.
    assert not isinstance(as_inputs([a[:2], a[2:]], 2, collates=False), SeveralInputs)
    assert as_inputs([[1.0, 2.0], [3.0, 4.0]], 2, collates=False) == [[1.0, 2.0], [3.0, 4.0]]


def test_a_tensor_of_one_axis_is_no_list_of_samples(table):
    _, y = table
    with pytest.raises(ValueError, match="Expected 2D array"):
        BlockGMDClassifier(max_epochs=1).fit(torch.zeros(len(y)), y)


def test_no_samples_are_refused(table):
    X, y = table
    samples = TensorDataset(torch.as_tensor(X, dtype=torch.float32), torch.as_tensor(y))
    with pytest.raises(ValueError, match=r"at least one sample|0 sample"):
        BlockGMDClassifier(torch.nn.Linear, module__in_features=4, module__out_features=3).fit(
            {"X": samples.tensors[0][:0].numpy()}, []
        )


def test_inputs_by_name_are_refused_after_a_fit_of_one_array(table):
    X, y = table
    model = BlockGMDClassifier(max_epochs=1, random_state=0).fit(X, y)
    with pytest.raises((TypeError, ValueError), match="X must be"):
        model.predict({"X": X})


@pytest.mark.parametrize("name", ["clients", "sample_id"])
def test_ids_of_another_number_of_samples_are_named(table, name):
    X, y = table
    with pytest.raises(ValueError, match=rf"{name} must have shape \({len(y)},\); found shape \(3,\)"):
        BlockGMDClassifier(max_epochs=1).fit(X, y, **{name: [0, 1, 2]})


def test_checksums_tell_data_apart():
    X = np.arange(6.0).reshape(3, 2)
    distinct = [X, X[::-1], X.T, X.astype(np.float32), X.reshape(2, 3), sparse.csr_array(X), torch.tensor(X).bfloat16()]
    assert len({checksums(each) for each in distinct}) == len(distinct)
    for one, two in (
        (X, np.asfortranarray(X)),
        (sparse.csr_array(X), sparse.csc_array(X)),
        (np.array(["a", "b"], dtype=object), np.array(["a", "b"], dtype=object)),
    ):
        assert checksums(one) == checksums(two)
    assert checksums({"a": X, "b": None}) == {"a": checksums(X), "b": None}


def test_checksums_of_samples_in_lists():
    def items(*samples):
        return as_inputs(list(samples), len(samples), collates=True)

    a, b = np.array([1.0, 2.0]), np.array([3.0])
    for make in (
        items,
        lambda *samples: as_inputs({"text": list(samples)}, 2, collates=True),
        lambda *samples: samples,
    ):
        found = [checksums(make(*samples)) for samples in ((a, b), (b, a), (a, a), ("a", "b"), ([1, 2], [3]))]
        assert len(set(map(str, found))) == len(found)
        assert found[0] == checksums(make(a.copy(), b.copy())) is not None
    # A sample of these may be another each time that it is asked for.
    held = Items(Changing(), inputs._of_dataset, np.arange(3))
    assert checksums(held) is None
    assert checksums(as_inputs({"a": held, "b": [a, b, b]}, 3, collates=True))["a"] is None
    assert checksums([object()]) is None


class Changing(torch.utils.data.Dataset):
    """Samples that are drawn when they are asked for."""

    def __len__(self):
        return 3

    def __getitem__(self, place):
        return np.random.default_rng().normal(size=2)


def test_data_frames_among_several_inputs_keep_their_columns(rng):
    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(4, 2)

        def forward(self, first, second):
            return self.layer(torch.cat([first, second], dim=1))

    X, y = pd.DataFrame(rng.normal(size=(40, 4)), columns=list("abcd")), np.tile([0, 1], 20)
    whole = {"first": X[["a", "b"]], "second": X[["c", "d"]]}
    model = BlockGMDClassifier(Two, max_epochs=1, random_state=0).fit(whole, y)
    for columns in (["d", "c"], ["c", "other"]):
        changed = {**whole, "second": X[["c", "d"]].set_axis(columns, axis=1)}
        for use in (model.predict, lambda given: model.partial_fit(given, y)):
            with pytest.raises(ValueError, match=r"X\['second'\] must have the columns that it had in fit, c, d"):
                use(changed)
    with pytest.raises(TypeError, match=r"X\['second'\] must hold no dates or durations; found dtype .* in column 'd'"):
        model.predict({**whole, "second": X[["c", "d"]].assign(d=pd.Timestamp(2020, 1, 1))})
    # Arrays have no names to compare.
    unnamed = {name: part.to_numpy() for name, part in whole.items()}
    np.testing.assert_array_equal(model.predict(unnamed), model.predict(whole))
    model.fit({"first": X[["a", "b"]], "second": X[["d", "c"]]}, y)
