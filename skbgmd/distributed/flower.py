"""Robust federated averaging for Flower: one strategy, any aggregation rule."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from skbgmd._utils import limits
from skbgmd._utils.checks import check_number
from skbgmd._utils.typing import FloatArray
from skbgmd.aggregators import Aggregator, AggregatorState, HuberMean, get_aggregator
from skbgmd.aggregators.base import pack_state, unpack_state
from skbgmd.aggregators.clipped_products import products_about_zero
from skbgmd.distributed.client_memory import ClientMemory, can_judge
from skbgmd.distributed.client_weights import cap_claims, n_distrusted, read_claim
from skbgmd.distributed.model_updates import RUNNING_STATISTICS, GlobalModel, median_array
from skbgmd.rows import DenseRows
from skbgmd.training._step.stateful import rule_name

try:
    from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
    from flwr.serverapp import Grid
    from flwr.serverapp.exception import AggregationError
    from flwr.serverapp.strategy import FedAvg
except ImportError as error:
    raise ImportError('RobustFedAvg needs Flower 1.21 or newer: pip install ".[flower]".') from error

#: Flower's own logger, so that what is said of clients stands among its lines.
logger = logging.getLogger("flwr")


class Replies(NamedTuple):
    """Replies of a round, sorted.

    Attributes
    ----------
    clients : list of int
        Node ids of those that can be used.
    contents : list of RecordDict
        What they sent.
    claims : ndarray of shape (k,)
        Their claimed numbers of examples, capped.
    refused : dict of int to str
        Node ids of those that can't be used, with the reasons.
    refused_claims : float
        Claims of these, capped as well; the cap where there is none to read.
    dropped : list of int
        Node ids of those that sent an error.
    """

    clients: list[int]
    contents: list[RecordDict]
    claims: FloatArray
    refused: dict[int, str]
    refused_claims: float
    dropped: list[int]


class RobustFedAvg(FedAvg):
    r"""Federated averaging that withstands hostile clients, for Flower: FedAvg with a robust aggregation rule.

    Use it in place of Flower's ``FedAvg``, of which it is a subclass. From the global arrays :math:`\theta` that the
    server sent out and the arrays :math:`\theta_i` that clients send back, it computes the next global arrays

    .. math:: \theta + A(\theta_1 - \theta, \dots, \theta_k - \theta).

    The rule A gets the clients' updates as rows. Their weights are the clients' claimed numbers of examples, capped.
    Replies that can't be used are left out. A plain mean without a cap is the method of McMahan et al. (2017); the
    geometric median, of the arrays themselves, is that of Pillutla et al. (2022).

    Parameters
    ----------
    aggregator : str or Aggregator, default=None
        A key of :data:`skbgmd.aggregators.AGGREGATORS` or an aggregator. None: ``HuberMean(c=3.0, rejection=3.0)``,
        the mean of the updates that are no farther from their geometric median than three median distances.
    max_claim : float or None, default=1.0
        Cap on the claimed numbers of examples, as a multiple of the median claim. 0: all clients with examples count
        alike. None: claims count as they are. See :func:`skbgmd.distributed.client_weights.cap_claims`.
    memory : float or None, default=0.9
        Decay, for each round, of the remembered similarities of clients, in (0.6, 1). If the clients fall into two
        camps, the smaller one has no weight. With a decay of 0.6 or less no client would be remembered for long enough
        to be judged. Rounds in which most updates are short, because training has converged, aren't remembered. See
        :class:`skbgmd.distributed.client_memory.ClientMemory`. None: nothing is remembered; use it if clients' node ids
        don't last.
    buffers : iterable of str, default=RUNNING_STATISTICS
        Patterns, as of :mod:`fnmatch`, of the names of floating-point and complex arrays that are no part of the
        updates. The default matches torch's running statistics: ``*running_mean``, ``*running_var`` and
        ``*num_batches_tracked``. The next values of these arrays, and of all arrays of other dtypes, are the clients'
        coordinate-wise lower medians, weighted by capped claims, in the global dtype.
    **options
        Parameters of ``flwr.serverapp.strategy.FedAvg``. Where ``train_metrics_aggr_fn`` or
        ``evaluate_metrics_aggr_fn`` are missing or None, they are :func:`median_metrics`. Both get capped claims in
        place of the clients' own.

    Attributes
    ----------
    state : object
        What the rule remembers.
    client_memory : ClientMemory
        What is remembered of the clients.

    Raises
    ------
    TypeError, ValueError
        If a parameter is out of its range.

    Notes
    -----
    Besides the clients' own metrics, the training metrics of a round have ``clients-used``, ``clients-refused`` and
    ``clients-dropped``. For rules that are weighted means they also have

    - ``client-weight/<node id>``, the weight of each client;
    - ``clients-distrusted``, the number of clients whose weight is less than half of that in a mean with the same
      claims;
    - ``lower-half-weight``, the weight of the half of the clients that is trusted least.

    References
    ----------
    McMahan, Moore, Ramage, Hampson and Agüera y Arcas (2017), Communication-efficient learning of deep networks from
    decentralized data. Pillutla, Kakade and Harchaoui (2022), Robust aggregation for federated learning.

    Examples
    --------
    In a ServerApp, ``RobustFedAvg().start(grid=grid, initial_arrays=arrays)``. Any rule goes:

    >>> from skbgmd.aggregators import Krum, NearestNeighborMixing
    >>> from skbgmd.distributed.flower import RobustFedAvg
    >>> strategy = RobustFedAvg(NearestNeighborMixing(Krum()), memory=None, min_available_nodes=5)
    >>> strategy.aggregator
    NearestNeighborMixing(aggregator=Krum())
    """

    def __init__(
        self,
        aggregator: str | Aggregator | None = None,
        *,
        max_claim: float | None = 1.0,
        memory: float | None = 0.9,
        buffers: Iterable[str] = RUNNING_STATISTICS,
        **options: Any,
    ) -> None:
        self.aggregator = HuberMean(c=3.0, rejection=3.0) if aggregator is None else get_aggregator(aggregator)
        if max_claim is not None:
            check_number(max_claim, "max_claim", at_least=0.0)
        if isinstance(buffers, (str, bytes)) or not isinstance(buffers, Iterable):
            raise TypeError(_wrong_buffers(buffers))
        buffers = tuple(buffers)
        if not all(isinstance(pattern, str) for pattern in buffers):
            raise TypeError(_wrong_buffers(buffers))
        if memory is not None and check_number(memory, "memory", at_most=1.0) == 1.0:
            raise ValueError("memory must be less than 1, which would forget nothing; found 1.")
        if memory is not None and not can_judge(memory):
            raise ValueError(
                "memory must be None, or more than 0.6: with less no client is ever remembered for long enough to be "
                f"judged; found {memory}."
            )
        self.max_claim, self.memory, self.buffers = max_claim, memory, buffers
        for name in ("train_metrics_aggr_fn", "evaluate_metrics_aggr_fn"):
            # FedAvg has None for its own default, a mean that one client's metric stops.
            options[name] = options.get(name) or median_metrics
        super().__init__(**options)
        self.model: GlobalModel | None = None
        self.state: Any = None
        self.client_memory = ClientMemory()
        #: Layout of the model that these are of.
        self._layout: list[Any] | None = None

    def summary(self) -> None:
        """Log the settings."""
        logger.info("\t├──> Robust aggregation:")
        logger.info("\t│\t├── Rule: %s", self.aggregator)
        logger.info("\t│\t├── Largest claim, in median claims: %s", self.max_claim)
        logger.info("\t│\t└── Memory of clients, decay: %s", self.memory)
        super().summary()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Store the global arrays, and send them to the clients of this round.

        Raises
        ------
        ValueError
            If there are no floating-point or complex arrays to train, or if arrays hold NaN or inf.
        """
        model = GlobalModel({name: array.numpy() for name, array in arrays.items()}, self.buffers)
        if model.n_columns == 0:
            raise ValueError(
                f"initial_arrays must hold arrays of floating-point numbers that are no buffers; found {list(arrays)}."
            )
        try:
            model.check(model.arrays)
        except ValueError as error:
            raise ValueError(
                f"initial_arrays must be a model to start from, and {error}; only buffers may be infinite."
            ) from None
        if self._layout not in (None, model.layout):
            logger.warning(
                "configure_train: the arrays are of another model than what is remembered, which is dropped."
            )
            self.state, self.client_memory = None, ClientMemory()
        self.model, self._layout = model, model.layout
        messages: Iterable[Message] = super().configure_train(server_round, arrays, config, grid)
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Aggregate the clients' updates by the rule, and report in the metrics how far each client was trusted.

        Returns
        -------
        arrays : ArrayRecord or None
            The new global arrays. None if no client sent anything to aggregate; Flower then keeps the old ones.
        metrics : MetricRecord or None

        Raises
        ------
        AggregationError
            If half of the clients' weight or more is on replies that can't be used.
        """
        model = self.model
        if model is None:
            raise AggregationError("configure_train must be called before aggregate_train: updates are differences.")
        updates: list[FloatArray] = []
        rest: list[dict[str, NDArray[Any]]] = []

        def read(content: RecordDict) -> None:
            arrays = _read_arrays(content)
            update, buffers = model.update(arrays), model.buffers_of(arrays)
            # Both or neither: they are matched by their places.
            updates.append(update)
            rest.append(buffers)

        found = self._sort(replies, read)
        total = float(found.claims.sum())
        if found.refused and not total > found.refused_claims:
            reasons = "; ".join(f"client {client}: {reason}" for client, reason in found.refused.items())
            raise AggregationError(
                "More than half of the clients' weight must be on replies that can be used; found "
                f"{len(found.refused)} of {len(found.refused) + len(found.clients)} that can't: {reasons}."
            )
        if total == 0.0:
            logger.warning("aggregate_train: no client has examples; the global arrays stay as they are.")
            return None, None
        weights = found.claims / found.claims.max()
        rows = DenseRows(torch.from_numpy(np.stack(updates)), weights, ids=tuple(found.clients))
        memory, clients = self.client_memory, tuple(found.clients)
        if self.memory is not None:
            memory = memory.add_round(clients, products_about_zero(rows), weights, self.memory, rows.norms())
            rows.weights = weights * memory.trust(clients, weights)
        aggregate, state = self.aggregator(rows, self.state)
        arrays = model.moved(aggregate.vector.numpy())
        arrays |= {name: median_array([given[name] for given in rest], weights) for name in model.rest}
        metrics = self._aggregate_metrics(found, self.train_metrics_aggr_fn)
        metrics.update(_trust_metrics(found, aggregate.weights))
        # A round that ends with an error isn't remembered.
        self.state, self.client_memory = state, memory
        # In the order of the global arrays, on which lists of arrays rely.
        return ArrayRecord({name: Array(np.asarray(arrays[name])) for name in model.arrays}), metrics

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Aggregate the clients' metrics; replies that can't be used are left out."""
        found = self._sort(replies, lambda content: None)
        return self._aggregate_metrics(found, self.evaluate_metrics_aggr_fn) if found.claims.sum() > 0.0 else None

    def state_dict(self) -> dict[str, Any]:
        """Get the rule's state and the memory of clients, as plain containers that ``torch.load`` reads."""
        return {
            "rule": rule_name(self.aggregator),
            "model": self._layout,
            "state": pack_state(self.state),
            "client_memory": pack_state(self.client_memory),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load what :meth:`state_dict` returned.

        To change the rule and keep the memory of clients, load ``{**state_dict, "state": None}``. If the next round is
        of another model, all begins anew, with a warning in Flower's log.

        Raises
        ------
        ValueError
            If it is something else, or the state of another rule. Nothing is changed then.
        """
        own = {"state", "client_memory"}
        if not isinstance(state_dict, Mapping) or not own <= set(state_dict) <= own | {"rule", "model"}:
            found = sorted(map(str, state_dict)) if isinstance(state_dict, Mapping) else type(state_dict).__name__
            raise ValueError(f"state_dict must be what state_dict() of a RobustFedAvg gave; found {found}.")
        loaded = {}
        for name in sorted(own):
            try:
                loaded[name] = unpack_state(state_dict[name])
            except (TypeError, ValueError, AttributeError) as error:
                raise ValueError(f"state_dict[{name!r}] must be what state_dict() gave; found {error}") from error
        state, memory = loaded["state"], loaded["client_memory"]
        if not isinstance(memory, ClientMemory):
            raise ValueError(f"state_dict['client_memory'] must be that of a RobustFedAvg; found {memory!r:.80}.")
        # Files of earlier versions tell neither the rule nor the model.
        here, rule = rule_name(self.aggregator), state_dict.get("rule")
        is_of_rule = isinstance(state, AggregatorState) if rule is None else rule == here
        if state is not None and not is_of_rule:
            other = f"{state!r:.80}" if rule is None else f"that of {rule}"
            raise ValueError(f"state_dict['state'] must be None or a state of the aggregator, {here}; found {other}.")
        layout = state_dict.get("model")
        if not (layout is None or isinstance(layout, list)):
            raise ValueError(f"state_dict['model'] must be None or a list; found {layout!r:.80}.")
        self.state, self.client_memory, self._layout = state, memory, layout

    def _sort(self, replies: Iterable[Message], read: Callable[[RecordDict], None]) -> Replies:
        """Sort the replies into those that can be used and those that can't; ``read`` raises an error for these.

        They are sorted by node ids, too: in which order they arrive is chance.
        """
        contents: dict[int, RecordDict] = {}
        claims: dict[int, float] = {}
        refused: dict[int, str] = {}
        dropped = []
        for message in sorted(replies, key=lambda message: message.metadata.src_node_id):
            client = message.metadata.src_node_id
            if message.has_error():
                dropped.append(client)
                logger.info("\t> Client %d dropped out: %s", client, message.error.reason)
            elif client in contents or client in refused:
                logger.warning("\t> Client %d replied more than once: its first reply counts.", client)
            else:
                try:
                    claim = _read_metrics(message.content).get(self.weighted_by_key)
                    claims[client] = read_claim(claim, self.weighted_by_key)
                    read(message.content)
                    contents[client] = message.content
                # Whatever is wrong with a reply costs its sender's share, and nothing else.
                except Exception as error:
                    refused[client] = _reason(error)
                    logger.warning("\t> Reply of client %d can't be used: %s.", client, refused[client])
        known = cap_claims(np.array(list(claims.values()), dtype=np.float64), self.max_claim)
        capped = dict(zip(claims, known.tolist(), strict=True))
        most = float(known.max(initial=1.0 if len(known) == 0 else 0.0))
        return Replies(
            clients=list(contents),
            contents=list(contents.values()),
            claims=np.array([capped[client] for client in contents], dtype=np.float64),
            refused=refused,
            refused_claims=sum(capped.get(client, most) for client in refused),
            dropped=dropped,
        )

    def _aggregate_metrics(
        self, found: Replies, aggregate: Callable[[list[RecordDict], str], MetricRecord]
    ) -> MetricRecord:
        """Aggregate the clients' metrics with their capped claims in place of what they claim."""
        records = []
        for content, claim in zip(found.contents, found.claims, strict=True):
            (name, metrics), *_ = content.metric_records.items()
            capped = MetricRecord({**metrics, self.weighted_by_key: float(claim)})
            records.append(RecordDict({**content, name: capped}))
        return aggregate(records, self.weighted_by_key)


def median_metrics(records: list[RecordDict], weighted_by_key: str) -> MetricRecord:
    """Aggregate clients' metrics by their weighted medians, which no minority of the weight can move far.

    Parameters
    ----------
    records : list of RecordDict
        Contents of replies, each with one MetricRecord.
    weighted_by_key : str
        Name of the metric that is the weight.

    Returns
    -------
    MetricRecord
        The lower weighted median of each metric. A metric is left out unless, for more than half of the weight, it is
        a finite number, or a list of finite numbers of one length.
    """
    given = [next(iter(record.metric_records.values())) for record in records]
    weights = np.array([metrics[weighted_by_key] for metrics in given], dtype=np.float64)
    aggregated = MetricRecord()
    for name in dict.fromkeys(name for metrics in given for name in metrics if name != weighted_by_key):
        arrays = [_numbers(metrics.get(name, np.nan)) for metrics in given]
        for shape in {array.shape for array in arrays}:
            used = [i for i, array in enumerate(arrays) if array.shape == shape and np.isfinite(array).all()]
            if weights[used].sum() > 0.5 * weights.sum():
                aggregated[name] = median_array([arrays[i] for i in used], weights[used]).tolist()
    return aggregated


def _wrong_buffers(buffers: Any) -> str:
    return f"buffers must be several patterns of names, such as ('*running_mean',); found {buffers!r}."


def _reason(error: Exception) -> str:
    """Reason why a reply can't be used, in one line that isn't as long as its sender likes."""
    text = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())[: limits.REASON_LENGTH]


def _numbers(value: Any) -> FloatArray:
    """A metric as an array, NaN for a number that is out of range."""
    try:
        return np.asarray(value, dtype=np.float64)
    except OverflowError:
        return np.array(np.nan)


def _read_metrics(content: RecordDict) -> MetricRecord:
    """The one MetricRecord of a reply."""
    if len(content.metric_records) != 1:
        raise ValueError(f"it must hold one MetricRecord; found {len(content.metric_records)}")
    return next(iter(content.metric_records.values()))


def _read_arrays(content: RecordDict) -> dict[str, NDArray[Any]]:
    """The arrays of the one ArrayRecord of a reply."""
    if len(content.array_records) != 1:
        raise ValueError(f"it must hold one ArrayRecord; found {len(content.array_records)}")
    arrays = {}
    for name, array in next(iter(content.array_records.values())).items():
        try:
            arrays[name] = array.numpy()
        # Bytes are a header of Python's literals, or an archive: there is no end to what their readers may raise.
        except Exception as error:
            raise ValueError(f"array {name[:40]!r} must be readable; found {type(error).__name__}: {error}") from error
        if not isinstance(arrays[name], np.ndarray):
            raise ValueError(f"array {name[:40]!r} must be an array; found {type(arrays[name]).__name__}")
    return arrays


def _trust_metrics(found: Replies, weights: FloatArray | None) -> dict[str, float | int]:
    """Metrics of a round that say how far each client was trusted."""
    metrics: dict[str, float | int] = {
        "clients-used": len(found.clients),
        "clients-refused": len(found.refused),
        "clients-dropped": len(found.dropped),
    }
    if weights is not None:
        half = np.argsort(weights / np.maximum(found.claims, 1e-300))[: len(weights) // 2]
        metrics["clients-distrusted"] = n_distrusted(weights, found.claims)
        metrics["lower-half-weight"] = float(weights[half].sum())
        metrics |= {f"client-weight/{client}": float(w) for client, w in zip(found.clients, weights, strict=True)}
        metrics |= {f"client-weight/{client}": 0.0 for client in found.refused}
    return metrics
