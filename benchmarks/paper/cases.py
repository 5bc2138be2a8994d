"""What the paper trained: settings, corruptions, and how much of it a protocol runs."""

from __future__ import annotations

from dataclasses import dataclass, replace

from paper.methods import ALL, FILTERS, PAPER, PLAIN


@dataclass(frozen=True)
class Corruption:
    """What is corrupt, how, and how many per cent of the rows of a step."""

    source: str
    kind: str
    percent: int

    @property
    def name(self) -> str:
        return "clean" if self.source == "none" else f"{self.source}, {self.kind}, {self.percent} %"


CLEAN = Corruption("none", "clean", 0)
KINDS = (
    ("gradient", "bit flip"),
    ("gradient", "additive"),
    ("feature", "additive"),
    ("feature", "impulse"),
    ("label", "backdoor"),
)
#: The rows of table 2.
HOMOGENEOUS = (CLEAN, *(Corruption(*kind, percent) for kind in KINDS for percent in (20, 40)))
HETEROGENEOUS = (CLEAN, *(Corruption(*kind, percent) for kind in KINDS[:2] for percent in (20, 40)))
#: What figures 3 to 5 have besides.
TEN_PERCENT = tuple(Corruption(*kind, 10) for kind in (KINDS[0], KINDS[3], KINDS[4]))


@dataclass(frozen=True)
class Setting:
    """How a network is trained.

    Attributes
    ----------
    network, data : str
        Names.
    n_train : int
        Training samples, the first of the data; as many as there are, if fewer.
    rows, samples : int
        Rows of the gradient matrix, and samples in each; of clients, samples of each local step.
    local_steps : int
        Steps that a row takes by itself; more than one for clients.
    epochs : int
    width : int
        Channels of the first layer of a ResNet; 64 is the network of the paper.
    """

    network: str
    data: str
    n_train: int
    rows: int
    samples: int
    epochs: int
    local_steps: int = 1
    width: int = 64

    @property
    def heterogeneous(self) -> bool:
        return self.network == "ResNet-18"


@dataclass(frozen=True)
class Protocol:
    """How much of the experiments is run."""

    lenet: Setting
    resnet: Setting
    #: The network of the paper's size, to see that it trains; None: the one above is.
    wide: Setting | None
    #: Groups of the paper's size, to compare times.
    timed: Setting
    #: Of the paper's methods, and of the filters that it discusses besides.
    seeds: int
    filter_seeds: int
    learning_rates: tuple[float, ...]
    n_validation: int
    betas: tuple[float, ...]
    #: Methods of the first part of table 2.
    methods: tuple[str, ...] = PAPER
    #: The protocol whose grid chose the learning rates; None: its own.
    rates_of: str | None = None


@dataclass(frozen=True)
class Run:
    """One training."""

    setting: Setting
    corruption: Corruption
    method: str
    seed: int
    #: None: the best of the grid.
    lr: float | None = None
    beta: float = 0.1
    #: Score on validation samples instead of the test samples.
    validate: bool = False


FULL = Protocol(
    lenet=Setting("LeNet", "fashion-mnist", 60_000, 32, 64, epochs=50),
    resnet=Setting("ResNet-18", "cifar-10", 50_000, 10, 128, epochs=200, local_steps=4),
    wide=None,
    timed=Setting("LeNet", "fashion-mnist", 60_000, 32, 64, epochs=50),
    seeds=5,
    filter_seeds=5,
    learning_rates=(0.01, 0.02, 0.05, 0.1),
    n_validation=5_000,
    betas=(0.001, 0.01, 0.05, 0.1, 0.3, 1.0),
)
#: For two CPU cores: fewer samples and epochs, smaller groups for as many steps, a narrow ResNet.
SHORT = Protocol(
    lenet=Setting("LeNet", "fashion-mnist", 4_096, 32, 8, epochs=4),
    resnet=Setting("ResNet-18", "cifar-10", 4_000, 10, 16, epochs=4, local_steps=2, width=8),
    wide=Setting("ResNet-18", "cifar-10", 640, 10, 8, epochs=1, local_steps=2),
    timed=Setting("LeNet", "fashion-mnist", 8_192, 32, 64, epochs=8),
    seeds=3,
    filter_seeds=1,
    learning_rates=(0.02, 0.05, 0.1),
    n_validation=1_000,
    betas=(0.001, 0.01, 0.1, 1.0),
)
#: Table 2's first part with all images and the paper's groups, in a fifth of its epochs; the rest as in the short one.
MEDIUM = replace(
    SHORT,
    lenet=Setting("LeNet", "fashion-mnist", 60_000, 32, 64, epochs=10),
    filter_seeds=0,
    methods=("SGD", "CMD", "GMD", "BGMD, paper", "BGMD"),
    rates_of="short",
)
#: To see that all of it runs.
TINY = Protocol(
    lenet=Setting("perceptron", "digits", 256, 8, 8, epochs=1),
    resnet=Setting("ResNet-18", "shapes", 160, 10, 4, epochs=1, local_steps=2, width=4),
    wide=None,
    timed=Setting("perceptron", "digits", 256, 8, 8, epochs=1),
    seeds=1,
    filter_seeds=1,
    learning_rates=(0.05,),
    n_validation=64,
    betas=(0.1, 1.0),
)
PROTOCOLS = {"full": FULL, "medium": MEDIUM, "short": SHORT, "tiny": TINY}


def grid(protocol: Protocol) -> list[Run]:
    """Trainings on clean data that choose each method's learning rate."""
    settings = (protocol.lenet, protocol.resnet)
    return [
        Run(setting, CLEAN, method, 0, lr, validate=True)
        for setting in settings
        for method in ALL
        for lr in protocol.learning_rates
    ]


def homogeneous(protocol: Protocol) -> list[Run]:
    """The first part of table 2, a seed after the other: the paper's methods, 10 % for the figures, filters."""
    runs = []
    for seed in range(protocol.seeds):
        methods = protocol.methods
        runs += [Run(protocol.lenet, corruption, method, seed) for corruption in HOMOGENEOUS for method in methods]
        if seed == 0 and protocol.rates_of is None:
            runs += [Run(protocol.lenet, corruption, method, 0) for corruption in TEN_PERCENT for method in methods]
        if seed < protocol.filter_seeds:
            runs += [Run(protocol.lenet, corruption, method, seed) for corruption in HOMOGENEOUS for method in FILTERS]
    return runs


def heterogeneous(protocol: Protocol) -> list[Run]:
    """The second part, of clients; and the network of the paper's size, where another carries the table."""
    runs = []
    if protocol.wide is not None:
        runs += [Run(protocol.wide, CLEAN, method, 0, protocol.learning_rates[0]) for method in ("SGD", "BGMD")]
    for seed in range(protocol.seeds):
        compared = (*PAPER, *FILTERS) if seed < protocol.filter_seeds else PAPER
        runs += [Run(protocol.resnet, corruption, method, seed) for corruption in HETEROGENEOUS for method in compared]
    return runs


def betas(protocol: Protocol) -> list[Run]:
    """Figure 1b: accuracy against the share of the coordinates, with the memory, without, and by our rule."""
    return [
        Run(protocol.lenet, CLEAN, method, 0, beta=beta)
        for beta in protocol.betas
        for method in ("BGMD, paper", "BGMD, no memory", "BGMD")
    ]


def speed(protocol: Protocol) -> list[Run]:
    """Time to an accuracy on clean data, methods interleaved; to be run with one job."""
    return [
        Run(protocol.timed, CLEAN, method, seed) for seed in range(protocol.seeds) for method in (PLAIN, "SGD", "BGMD")
    ]
