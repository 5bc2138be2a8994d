"""Thresholds of the package, each once, with its reason.

Where a table in ``benchmarks/results`` stands behind a threshold, it is named.
"""

from __future__ import annotations

import math

import torch

# ---- Ranges of numbers

#: Norms whose squares have numbers in a dtype, with room for sums of them and for small entries: float32 reaches from
#: 1e-38 to 3e38, float64 from 1e-308 to 2e308. Vectors beyond are scaled first.
SQUARED_RANGE = {torch.float32: (1e-10, 1e18), torch.float64: (1e-140, 1e140)}

#: Powers of two by which rows may be longer or shorter than is typical: float64 has squares, and sums of them, up to
#: 2**1023.
RANGE_EXPONENT = 400

#: Ratio of distances beyond which float64 has too few digits for both: rounding of the longer is a thousandth of the
#: shorter. A row that is drawn in to there changes its direction by 1e-12 only.
DISTANCE_RATIO = 1e12
#: The same for products in float32, and their rounding, from which they are told.
SINGLE_DISTANCE_RATIO, SINGLE_ROUNDING = 1e8, 2.0**-23


#: Power of two up to which weights of samples and classes may go, for sums of them to be far below 2**1023: larger ones
#: are all divided by a power of two.
WEIGHT_EXPONENT = 900
#: And powers of two up to which the largest weight of a step's rows may go, either way, for squares of it in float32 to
#: be far from their limits.
ROW_WEIGHT_EXPONENT = 32

#: Sums of weights are the same where they differ by 2 to the minus so many of the total: each weight may have been
#: rounded a few times. Of integers with a total of up to 2**45 a difference of one is told.
SAME_WEIGHT_BITS = 46
SAME_WEIGHT = 2.0**-SAME_WEIGHT_BITS


# ---- Rows

#: Elements of a chunk of columns, 4 MB in float32: smaller ones spend more on calls, larger ones on memory.
CHUNK_ELEMENTS = 1 << 20

#: A chunk is at most this share of a large matrix, so that working memory stays a small part of it
#: (``benchmarks/results/memory.csv``).
CHUNK_SHARE = 16

#: Fewest columns of a chunk, as shorter lines starve the memory bus and the matrix product; and columns that are
#: enough, where ``CHUNK_SHARE`` allows them.
MIN_CHUNK_COLUMNS, GOOD_CHUNK_COLUMNS = 768, 1024

#: Elements up to which a float32 matrix is multiplied in float64: its product is cheap beside the solver's steps, and
#: exact enough to spare a second one.
FLOAT64_PRODUCT_ELEMENTS = 1 << 20

#: Rows of a stripe of a large Gram matrix, of which the lower triangle alone is computed: enough for a fast product,
#: and few enough that the upper half of the stripes on the diagonal is a small waste.
GRAM_STRIPE_ROWS = 128

#: Rows of a product that are converted and added to a total at a time: torch copies what it converts.
GRAM_ADDED_ROWS = 64

#: Rows looked at to choose a center, candidates among them, and runs of adjacent columns, with their length. A sample
#: finds a row among the majority; a run of eight lies in one cache line.
CENTER_SAMPLE_ROWS, CENTER_CANDIDATES, CENTER_SAMPLE_RUNS, CENTER_SAMPLE_RUN = 128, 32, 32, 8
#: A center is far from the others where the cosines between most of these are within this of one: their distances have
#: lost three digits. Another one is found by sums of all columns with signs at random, so many of each row.
FAR_CENTER, SKETCHED = 1e-3, 32

#: Columns whose squares are added up in the rows' own dtype before they go to float64: few enough to keep its digits.
NORM_COLUMNS = 1 << 13

#: Rows for each thread from which a weighted sum is split over threads: the two vectors of each thread are then a small
#: part of the matrix.
ROWS_PER_THREAD = 64

#: Rows of norms of runs that are converted to float64 at a time.
CONVERTED_ROWS = 64

#: Columns of a piece of a symmetric product: 32 rows of it fit in the second-level cache.
PRODUCT_COLUMNS = 1 << 12

#: Pieces of columns begin at a multiple of so many: 16 float32 numbers are one cache line.
ALIGNED_COLUMNS = 16

#: Rows from which a symmetric product in two halves costs less than the whole: at 32 rows that is 1 to 2 % of a median,
#: at 64 rows 6 to 9 % (``benchmarks/results/kernels.csv``).
HALVED_PRODUCT_ROWS = 32

#: Shortest runs of adjacent columns that are gathered as runs; shorter ones are quicker column by column.
GATHERED_RUN = 8

#: Run length from which norms of runs cost hardly more than norms of rows, in time and in memory.
MEASURED_RUN = 32


# ---- Robust location

#: Relative fall of the objective that counts as progress: rounding alone changes it by less.
OBJECTIVE_FALL = 1e-12

#: Bounds within so many tolerances are brought down by Weiszfeld steps where a Newton step costs several evaluations: a
#: few cheap steps are enough from there.
NEAR_TOLERANCE = 32.0

#: Rows from which the solver starts at the median of a subsample, and the size of that: the start then costs a quarter
#: of a pass or less.
SUBSAMPLE_ABOVE, SUBSAMPLE_ROWS = 8192, 2048

#: Rows whose coordinate-wise median is the origin in R^d. Any point among the data serves; 128 rows find one.
ORIGIN_ROWS = 128

#: Scores that are sampled to find a threshold which only the largest pass: a partition of these alone is quick.
THRESHOLD_SAMPLE = 1 << 14

#: Ulps by which scores may differ and be equal but for rounding, as those of the two outputs of a softmax: sums of 200
#: squares in other orders differed by up to 8, of 5,000 by up to 29.
TIED_ULPS = 64

#: Share of the weight that is more than half, by rounding in the weights as well: trust that is remembered, of samples
#: that are learnt, is near one.
OVER_HALF = 0.5 + 1e-3
#: Share of the norm of that place which rows are clipped to at least: the root of the rounding of the coarsest dtype,
#: bfloat16, so that what is rounding has a share of the squares that is no more.
LEAST_CLIP = 2.0**-4

#: Rows up to which NumPy multiplies Gram matrices: with so few it needs one thread, and calls less than torch.
NUMPY_PRODUCT_ROWS = 64

#: Rows up to which it multiplies the factors of Gram matrices.
NUMPY_GRAM_ROWS = 512

#: Rows above which medians and Huber's means of rows pass over them in place of their Gram matrix, and of which so many
#: are compared with each other in the first steps of a training: a matrix of 10,000 rows takes a gigabyte.
GRAM_ROWS = 512

#: Dimension up to which a Newton system is solved by Cholesky's factorization: cubic costs are small up to there, and
#: conjugate gradients take over.
DIRECT_SOLVE_DIMENSION = 64

#: Elements of a block of points that is evaluated at once, 1 MB in float64: larger ones leave the caches, smaller ones
#: spend more on calls.
POINT_BLOCK_ELEMENTS = 1 << 17

#: The same where products of rows are taken and none is written, by the size of a number: 2 MB in float64, 4 MB in
#: float32, whose sums are converted. Each block also costs the sum of two vectors. Blocks of 8 MB in float64 take 1.02
#: to 1.27 times as long, and of 1 MB in float32 1.35 times at 1024 rows of 41,000 columns.
ROW_BLOCK_ELEMENTS = {8: 1 << 18, 4: 1 << 20}

#: Rows whose multiples are added up in float32, before they go to float64: few enough to keep the digits of a proof,
#: and as many as make the sum in float64 a small part of the work.
SINGLE_SUM_ROWS = 64

#: Weiszfeld steps that are tried where so many would pay: on easy data three are enough, and where they aren't, they
#: show how many would be, at a small part of what another path costs.
WEISZFELD_STEPS = 12

#: Squared distance from a line within which rows are on it, relative to the squared distance of the farthest: rounding
#: of float32 makes some 1e-14. And rows that tell whether all may be, after Weiszfeld steps.
LINE_SLACK, LINE_SAMPLE = 1e-12, 8

#: Rows that make a Gram matrix cost as much as an evaluation of Weiszfeld steps, and Newton steps in R^d as a whole, in
#: evaluations. On one core the Gram matrix of 500 rows of 5000 columns took 28, that of 1024 rows of 41,000 columns 44,
#: and Newton steps took 15 at 1000 rows of 100 columns, where half of an evaluation is calls.
GRAM_EVALUATION_ROWS, NEWTON_EVALUATIONS = 24, 30

#: Rows that choose the radius of the near ones.
RADIUS_ROWS = 1024

#: Rows that a line search looks at at once: a dozen numbers of each fit in the caches.
LINE_ROWS = 1 << 16

#: Elements up to which points are kept in float64 between evaluations, 64 MB: larger data are converted anew each time,
#: to take no second copy of them.
KEPT_ELEMENTS = 1 << 23

#: Distance, in norms of the row itself, within which a row is tied with another or with the median. Gradients of
#: different samples are about as far from each other as they are long: in trainings on seven sets of classes and three
#: of regression at most 1 % of the rows of a step were so near to the median (``benchmarks/results/repeated.csv`` has
#: what the thresholds for ties do to trainings).
TIED = 0.1

#: Share of the weight from which tied rows are many: a median of rows in random directions may be among a tenth of
#: them.
MANY_TIED = 0.1

#: Quantile of the other rows' distances that is the scale where many rows are tied. Less than a half, for corrupt rows
#: are rarely copies, and so are a larger share of the others than of all rows.
SHARE_OF_OTHERS = 0.25

#: Quantile in the first steps, of norms of common size, among which a network's chance hits are already left out.
SHARE_OF_FIRST = 0.4

#: Ratio within which norms are of one size: that of gradients of honest samples that are yet to be learned.
SAME_SIZE = 1e4

#: Weight, relative to that of the most common size, that makes another size common as well: corrupt rows of one size
#: can't outweigh the honest ones as long as they are fewer by this much.
NEARLY_AS_MUCH = 0.7


# ---- Aggregation rules

#: Share of the rows, and of their weight, that may be far for the others to be left out of a Gram matrix: with more it
#: saves little, and they might be the half that decides.
FAR_SHARE = 1 / 3

#: Share of the squared lengths below which a squared distance, made of these and an inner product in float32, has lost
#: too many digits: above it has four.
CANCELLATION = 1e-2

#: Fewest rows whose typical distance may be measured from a mean of clipped rows, rather than from their median, and
#: the share, times the root of their number, by which the latter may be longer. In random steps of 4 to 100 rows, and
#: in trainings on digits, wine and breast cancer, it was longer by up to 7 % (of 25 rows, and of 32); of two or three
#: rows it was up to three times as long.
FEWEST_MEASURED, MEASURED_MARGIN = 4, 0.4

#: Growth of the estimate's norm over the first iterate's up to which rows are still proved near: a slack that costs few
#: additional rows.
MEAN_SLACK = 1.25

#: Relative accuracy of the median that Huber's mean starts from, and that a scale is taken about: neither needs digits.
HUBER_START_TOL = 0.2

#: Relative difference of distances that rounding of products in float32 may make: of rows as far as each other none is
#: nearer.
TIED_DISTANCES = 1e-5

#: Iterations of Huber's weights without a Gram matrix: each takes two passes over the rows, and with more of them the
#: matrix costs less. Rounding of products by passes in float32, as that of the matrix.
GRAM_PRODUCT_ITERATIONS, GRAM_PRODUCT_ROUNDING = 4, 2.0**-22

#: Least scale, in typical distances of the step: a smaller one would change no weight but by underflow.
LEAST_SCALE = 1e-9

#: Factor of a remembered scale for each step that doesn't raise it: a thousand steps leave a third, about as gradients
#: shrink in training.
SCALE_DECAY = 0.999

#: Steps whose median is remembered, and fewest of them for a median to outvote a bad step.
SCALE_WINDOW, SCALE_ENOUGH = 5, 3

#: Learning rate over the weight of the penalty for long rows in Zeno's score, as its authors have it in their
#: experiments: a ratio of the two has no units.
ZENO_RHO_RATIO = 200.0
#: Least gap, as a logarithm, between median distances of far rows and of the others, and as a multiple of the lower
#: half's spread; distance of tied rows, in upper quartiles of what rows are from their nearest; and ratio of the
#: largest eigenvalue's excess over the others' from which rows have a direction in common. Of clean gradients of groups
#: they count 0.5 % (``benchmarks/results/corrupt_share.csv``, of other seeds than those that they were set on).
FAR_GAP, FAR_GAP_SPREADS, TIGHT, DIRECTION_GAP = math.log(2.0), 1.5, 0.25, 2.0
#: Fewest rows in which a direction shows: of three the ratio is at most two.
CAMP_ROWS = 4
#: Steps of which the largest estimate is assumed. Of the median and the largest of 5, the largest of 25, and of upper
#: bounds it gave the most accurate trainings under attacks, among those that cost a point at most on clean digits.
SHARE_WINDOW = 5
#: Mean estimate over an epoch from which a training warns that no rule may help: half is the breakdown point.
MANY_CORRUPT = 0.4
#: Share of the weight that rules against collusion may filter; and variance of a direction, as a share of all of it
#: times the root of the number of directions, from which it stands out (``benchmarks/results/fresh_rows.csv``). Where
#: all directions have the same variance it is one over that root.
FILTERED_SHARE, STANDING_OUT = 0.4, 1.0
#: Share of the largest variance up to which that of a direction is rounding: products may be rounded to float32.
ZERO_VARIANCE = 1e-6
#: Share of the weight below which what a round of a filter leaves is rounding.
LEAST_LEFT = 1e-12
#: Share of a weight that is surely more than half of it, whatever sums are rounded to.
MORE_THAN_HALF = 0.5 + 1e-9
#: Rows up to which off-block parts are filtered: a round takes eigenvalues of their Gram matrix, which of a thousand
#: take a sixth of a second, and may be one of hundreds.
FILTERED_ROWS = 1024
#: Least share of an aggregate's squared norm that counts as signal: less can't be told from none by some tens of rows.
LEAST_SIGNAL = 0.01


# ---- Per-sample gradients

#: Elements of gradients, or of products of positions, that are written out at a time: 16 MB in float32.
WRITTEN_ELEMENTS = 1 << 22

#: Elements from which memory is asked of NumPy: it asks for huge pages for 4 MiB and more.
HUGE_PAGE_ELEMENTS = 1 << 19

#: Elements up to which a few rows, that products and a sum are wanted of, are written out: it takes half of the calls.
FEW_ELEMENTS = 1 << 17

#: Elements up to which a few rows of a perceptron, whose factors are multiplied by NumPy, are written out: it takes
#: fewer calls.
FEW_FACTORED_ELEMENTS = 1 << 13

#: Parameters of a perceptron up to which a step takes one thread: Adam's on 4,000 parameters took 48 microseconds by
#: one thread, and 280 by two.
ONE_THREAD_PARAMETERS = 1 << 20

#: Relative difference of weights that rounding in float32 alone may make.
SAME_SHARE = 1e-5

#: Classes up to which cross entropies are NumPy's, along columns: of ten classes they take a fraction of the time of
#: torch's calls.
FEW_CLASSES = 32

#: Columns up to which a Gram matrix is one product: stripes would take more calls than they save.
ONE_PRODUCT_COLUMNS = 512

#: Elements of adjacent units from which they are viewed in place; shorter runs are copied together, for each costs a
#: call.
LONG_RUN_ELEMENTS = 1 << 18

#: Size of gradients written out, relative to that of their factors, up to which they are kept: every answer is then one
#: pass over them, where factors take a matrix product each time (measured for sequences of 20 and 32 positions).
HELD_SHARE = 2

#: Share of a squared norm's largest possible value below which its terms cancel: rounding of them by 6e-8 would show in
#: the fourth digit.
CANCELLED_SHARE = 1e-3

#: Passes that Huber's mean without a Gram matrix mostly takes; and multiplications of matrices in the time in which a
#: number is read from memory (one thread: 6 GB/s against 4e10 multiplications a second).
GRAM_PRODUCT_PASSES, READING_MULTIPLICATIONS = 8, 8

#: Rows of a stripe of a factor's Gram matrix, whose other triangle is mirrored.
FACTOR_STRIPE_ROWS = 64

#: Elements of a buffer up to which it is copied before a call of a layer without a rule, which may change it in place.
#: Such a change of a larger one is refused: copies of masks, tables and frozen weights would take memory in each call.
COPIED_BUFFER_ELEMENTS = 1 << 16

#: Difference between a sample's output alone and in its batch, as a share of the largest output, that rounding may
#: make: half precision included.
SAMPLE_ROUNDING = 2e-2

#: Elements of a convolution's unfolded input that are written out at a time: 1 MB in float32, which stays in a
#: processor's cache; and on another device, where each call costs more.
UNFOLDED_ELEMENTS, UNFOLDED_ELEMENTS_OF_DEVICE = 1 << 18, 1 << 24


# ---- Training

#: Share of the targets that the most common value must leave for their scale to be of the others alone, where it isn't
#: the median: with a median just beside it they are half of all. Of fewer, as beside two common values, most may be
#: gross.
LEAST_OTHERS = 0.4

#: Samples in a group up to which one pass for all groups is taken to be cheaper than a pass for each; fewer where a CPU
#: has convolutions, which it does best for few samples at a time; and where torch.func differentiates a layer for each
#: sample (``benchmarks/results/group_passes.csv``). On another device calls are what costs, and a pass for each of so
#: many groups takes longer whatever their sizes (``group_passes_cuda.csv``).
ONE_PASS_GROUP, ONE_PASS_GROUP_CONVOLVED, ONE_PASS_GROUP_WITHOUT_RULE = 32, 8, 2
ONE_PASS_GROUPS_OF_DEVICE = 4

#: Elements and rows up to which gradients of groups of small networks are written out, and on other devices than the
#: CPU those of single samples: calls are what costs there.
WRITE_OUT_ELEMENTS, WRITE_OUT_ROWS = 1 << 18, 64
#: On another device, those of groups are up to so many elements, 1 GB in float32: a matrix takes few calls.
WRITE_OUT_ELEMENTS_OF_DEVICE = 1 << 28

#: Difference of a sum of gradients from the exact one that rounding may make, by precision: relative to a parameter's
#: gradient; to the rows' norms in that parameter, added up; and to the norms of whole rows, for a parameter whose
#: gradient is zero but for rounding.
CHECK_ROUNDING = {
    torch.float16: (2e-2, 1e-3, 1e-3),
    torch.float32: (1e-3, 1e-4, 1e-5),
    torch.float64: (1e-6, 1e-8, 1e-10),
}

#: Multiple of possible rounding from which a gradient is worth comparing: a wrong one would be found out.
CHECK_WORTH = 4.0

#: Steps that are all compared while a parameter has had no gradient worth it; the factors by which the number of the
#: next compared step grows after that, and once every parameter was seen; and the longest interval. A comparison costs
#: less than a step.
CHECK_FIRST_STEPS, CHECK_GROWTH, CHECK_SEEN_GROWTH, CHECK_INTERVAL = 8, 1.5, 4, 256

#: Elements of all rows' gradients with respect to one tensor of a graph up to which rows share a backward pass; and on
#: another device than a CPU. On one thread a perceptron 64-32-10 takes a fifth of the time for 64 rows with 1 << 17 of
#: them, and from 1 << 18 wider ones take as long as a pass for each row.
BATCHED_GRADIENT_ELEMENTS, BATCHED_GRADIENT_ELEMENTS_OF_DEVICE = 1 << 18, 1 << 24

#: Passes over written-out rows that an aggregation is reckoned to take, as multiplications for each number.
AGGREGATION_PASSES = 16

#: Samples that are predicted at once, at least: without gradients they take little memory.
PREDICTED_SAMPLES = 1024

#: Numbers in a batch of sparse samples to predict, which is made dense, at most: 32 MiB.
DENSE_ELEMENTS = 1 << 22

#: Samples after which a regressor fixes the scale of its targets, and most that it keeps until then.
TARGETS_SETTLED, TARGETS_KEPT = 32, 1024

#: Epochs, and steps, without an improvement after which a training ends by itself: the epochs are those of
#: scikit-learn, and of 200 samples they have ten steps.
PATIENCE_EPOCHS, PATIENCE_STEPS = 10, 50
#: First epochs in which far targets that inputs tell are waited for: some are noise that is large where inputs say so.
EPOCHS_WAITED = 100
#: Quantiles of the residuals of held-out samples that are kept of each epoch, to compare all epochs by one scale: 2 kB.
HELD_OUT_QUANTILES = 256

#: Least likelihood of a held-out label, as a share of that by chance. Epochs that this score picks are 1.1 points
#: better than those that accuracy picks on clean labels, and as good on wrong ones
#: (``benchmarks/results/stopping.csv``).
LEAST_LIKELIHOOD = 0.1

#: Least scale of residuals, of targets that are scaled: a smaller one is rounding.
LEAST_RESIDUAL = 1e-12

#: Ratio of the features' scales from which a training that stalls is told of them: raw wine has 2e3, raw breast cancer
#: 2e5, pixels and standardized features less than 300. Samples that are looked at.
SCALES_APART, SCALED_SAMPLES = 1e3, 1024

#: Samples that the medians and units of features are taken of, and numbers of inputs whose lengths are computed at
#: once, 8 MB.
LENGTH_SAMPLES, LENGTHS_AT_ONCE = 512, 2**20
#: Columns that samples are sorted by at first, and twice as many each time, while some are equal in those before.
FIRST_SORTED_COLUMNS = 16

#: Fewest epochs of a training that may be said to stall, and share of a constant prediction's loss above which it does:
#: scaled, wine and breast cancer end at less than a tenth of it, and diabetes, which is hard to learn, has no scales
#: apart; raw, wine ends at 0.8 of it, and targets in features of several units far above it.
STALLED_EPOCHS, STALLED_SHARE = 10, 0.5

#: Names that an error lists before it counts the others.
NAMED_PARAMETERS = 3
#: Characters of a value in a message, above which its class is named instead: a rule within a rule has a hundred.
SHOWN_CHARACTERS = 160


# ---- Corruption

#: Columns that are converted to double precision at a time, to take no copy of a matrix of gradients.
CORRUPTED_COLUMNS = 8192
#: Strengths of an attack that are tried first: between 0.1 and 100 they are apart by a factor of 2.4. Then halvings of
#: that factor, on a logarithmic scale, about the best, two strengths each: a rule is asked of 13 in all.
#: Of 60 strengths none harmed the rules of the tests by more than 15 % more, Krum's being the most ragged of curves.
SEARCHED_STRENGTHS = 9
SEARCH_REFINEMENTS = 2
#: Selections of a block that corrupt rows are adapted to, until it stays the same.
SQUATTER_SELECTIONS = 5
#: Steps of Weiszfeld's algorithm to the median that they sit at.
SQUATTER_STEPS = 20
#: Least and largest length off the block, in median norms, that is searched: a longer row is clipped to one.
SQUATTER_LENGTHS = 0.1, 2.0


# ---- Inspection

#: Bytes that are read at once, so that a file which only claims to be long costs no memory.
READ_BYTES = 1 << 20

#: Bins and bandwidth of the density of likelihoods, in which badly fitted samples are a peak of their own.
LIKELIHOOD_BINS, LIKELIHOOD_BANDWIDTH = 200, 0.04

#: Height of the valley before such a peak, relative to it, and standard errors by which it is lower, at most and at
#: least: of clean sets few have any (``benchmarks/results/suspect_counts.csv``).
VALLEY_DEPTH, VALLEY_ERRORS = 0.6, 3.0

#: Share of the held-out samples, the most surely predicted of each class, whose labels bound the share of wrong ones:
#: fewer are too few to count, and more are near other classes. Standard errors of the bounds. Least share of wrong
#: labels that they must prove where a group is larger than they allow, for surely predicted samples of overlapping
#: classes overlap a little; and where no group stands out, for networks may be sure and wrong: on three Gaussian
#: quantiles, the hardest clean set that it was chosen on, the lower bound is 0.23.
SURELY_PREDICTED, SURE_ERRORS, FEW_WRONG, MANY_WRONG = 0.2, 2.0, 0.05, 0.3
#: Share of them among which wrong labels are counted that the training confirms: more are enough to count few, and of
#: most classes they are still within them; and shares that are near classes' middles, and their borders. Factors of
#: these, the next where wrong labels are more among the far ones, with the part of ``SURE_ERRORS`` that is left to
#: chance: less, once overlap is known. Share that is surely exceeded before they count: of clean sets 1 % is a success.
#: Share of many wrong labels that must be confirmed: of those that were learnt by heart half and more were, and a third
#: on a clean checkerboard that a network is surely wrong about.
CONFIRMED_AMONG, NEAR_AND_FAR, FEW_CONFIRMED, CONFIRMED = 0.6, (0.4, 0.8), 0.01, 0.5
CONFIRMED_WITHIN = ((1.0, 1.0), (0.5, 0.5))
#: Mean probability that is left to other classes than the predicted one up to which a network is certain of the most
#: surely predicted samples.
LEFT_TO_OTHERS = 0.05

#: Inputs that are so much longer than the median make a sample suspicious.
LARGE_INPUTS = 2.0

#: Standard deviations of the logarithm, and the factor, by which inputs with wrong features are longer than is typical;
#: and how much more of them are badly fitted, with the gain in log-likelihood that proves it.
LARGE_INPUT_SCALES, LEAST_LARGE_INPUT, WRONG_RATIO, CHANGE_GAIN = 1.5, 1.5, 2.0, 10.0


# ---- Trust that is remembered

#: Numbers of samples up to which several batches are gathered at once: 1 MiB.
GATHERED_ELEMENTS = 1 << 18

#: Steps whose samples' weights and losses are held back, to be added up at once: a fraction of the calls.
VISITS_HELD = 64

#: Weight of what is remembered of a sample against what a step says of it; about the last ten epochs count.
TRUST_DECAY = 0.9
#: Visits of a sample before what is remembered of it counts: at first all have large gradients.
TRUST_VISITS = 5
#: Least weight of a sample by its trust: it must go on to be judged, for it may be learnt yet.
LEAST_PRIOR = 1e-3
#: Quantiles of numeric targets whose samples are compared among themselves, and least samples of one.
TRUST_QUANTILES, TRUST_QUANTILE_SAMPLES = 10, 30

#: First visits to a sample over which its likelihood is averaged, besides all: networks fit wrong labels late.
LIKELIHOOD_VISITS = (32, 64)


# ---- Strength that is chosen by held-out samples

#: Share of the samples that is held out: trained on a third, candidates cost little, differ as much, and are judged by
#: many. Share of the epochs after which those far behind are dropped.
CHOICE_HELD_OUT, CHOICE_EPOCHS = 2 / 3, 1 / 3
#: And where these can't say whether long inputs are right: twice as many to learn a few from.
SECOND_HELD_OUT = 1 / 3
#: Share of a stratum up to which samples with equal inputs and targets are copies of one: more are a level of a
#: category.
LARGEST_COPIES = 0.05
#: Samples, and epochs, from which on there is a choice: fewer held-out ones tell nothing, nor do shorter trainings.
CHOICE_SAMPLES, CHOICE_LEAST_EPOCHS = 100, 20
#: Most epochs of those that choose for a training which ends by itself: how many it will have isn't known.
CHOICE_MOST_EPOCHS = 100
#: Standard errors by which another setting must be ahead to be taken, and by which it is far behind. Where two are
#: equally good either is right.
CLEAR_GAIN, FAR_BEHIND = 1.0, 2.0
#: Standard errors for classes where the labels of held-out samples prove more than ``FEW_WRONG`` of wrong ones
#: (``benchmarks/results/clear_gain.csv``).
CLEAR_GAIN_OF_WRONG = 0.25
#: Least gain, against rounding.
LEAST_GAIN = 1e-9
#: Share of the samples up to which ones with long inputs aren't looked at: among many there is always one.
FEW_LONG = 1e-3
#: Share of a class's samples, less two standard errors, from which on it lies apart. Wrong labels hide more than half
#: of a rare one, and wrong features that single a class out cost about as much with a limit of rows as without.
APART, APART_ERRORS = 0.25, 2.0
#: Share of the long samples from which on they are of one class: then a constant predicts them, and nothing tells
#: whether they are right.
ONE_CLASS = 0.95
#: Share of the others' skill from which on held-out samples with long inputs are right, of numbers and of classes: of
#: the latter a network knows something by what is left of the right features.
AS_WELL_NUMBERS, AS_WELL_CLASSES = 0.0, 0.5
#: Error, in robust standard deviations of the targets, from which on a target is missed: squares are clipped there.
#: With five, targets of moderate errors that are all on one side speak for those who follow them.
MISSED_TARGET = 3.0
#: And up to which one isn't, and share of the targets that may be missed by as much without any being wrong: of normal
#: targets that are permuted, one in six is.
MISSED_AT_ALL, HARDLY_ANY = 2.0, 0.005
#: Share of missed targets from which on they count as gross, and standard errors for numbers where fewer are: by one,
#: "firm" is chosen by chance in every ninth training on clean diabetes
#: (``benchmarks/results/strength_without_gross.csv``).
GROSS_SHARE, CLEAR_GAIN_WITHOUT_GROSS = 0.05, 2.0
#: Standard errors for numbers whose tail is on one side: of 24 trainings on clean targets with multiplicative noise
#: the lead of a strength that loses on test data was up to 4.1.
CLEAR_GAIN_OF_SKEWED = 5.0
#: Robust standard deviations by which half of the missed targets of a tail are missed at most: 3 to 17 on 26 clean
#: sets, and 41 and more where a few per cent have a value that stands for none, or another unit by a hundred.
MISSED_TAIL = 25.0
#: Share of the far targets that must be on the other side of the median for targets to look gross where no predictions
#: say whether they are, and robust standard deviations by which half of those on one side must be far: 4 to 8 in tails
#: and modes of six clean sets, 26 to 58 in one that is mostly zero, and 12 to 39 where 7 to 15 % are 20 to 40
#: standard deviations off; 6 to 26 where 30 % are, which widen the unit.
OTHER_SIDE, FAR_OUT = 0.2, 10.0
#: Trees of the forest that is asked which targets are far, samples that it sees at most, and share of the trees that
#: must say so.
FOREST_TREES, FOREST_SAMPLES, TOLD_FROM = 100, 4000, 0.6
#: Trees that say whether more are asked, and standard errors by which far targets must have more of their votes than
#: others: 3.8 and more where all trees find a group. By chance one of forty has two, which costs the other trees.
FIRST_TREES, TELLING = 34, 2.0
#: Samples of a leaf at least. Of five rare rules with 15 % gross targets on six other draws (in no table) it finds
#: 87 %, by leaves of one sample 73 %, and as many of clean ones; leaves of three find 95 %, but of clean ones fewer are
#: told.
FOREST_LEAF = 2
#: Share of the far targets, less that of others, from which on they are told by inputs, and so not gross: of gross ones
#: at random -0.1 to 0.1 are, and of a switch that is on in 3 to 5 % of 500 and 1,000 samples 0.7 to 1.0.
TOLD_BY_INPUTS = 0.5
#: Samples that must be taken for far, and share of them that must be, for a group beside gross targets.
FEWEST_TOLD, TOLD_RIGHTLY = 5, 0.75
#: Share of the held-out labels, or of the far targets, that are nearly all of them. Of far targets with 2 % gross ones
#: among a tail 0.78 were predicted, with none 0.99.
NEARLY_ALL = 0.9


# ---- Ranks

#: Buckets that are on their way while another is waited for, there or back: enough to keep the wires busy, and few
#: enough that they are a small part of the gradient.
BUCKETS_AHEAD = 2

#: Bytes of a message between ranks that travel with its header: flags and a score or two take one collective, and
#: collectives of so few bytes take as long as those of none.
INLINE_MESSAGE = 512
#: Bytes of an error that other ranks are told: the message of any of this library's, and no traceback.
FAILURE_MESSAGE = 4096

#: Seconds without a further answer after which a roll call is over. Ranks that are still there answer as their
#: collective fails, one after the other in a ring: within 0.5 s on 12 ranks that share two cores.
ROLL_CALL_SECONDS = 1.0

#: Seconds that a roll call takes at most, whoever still answers: ranks are to stop within five seconds.
ROLL_CALL_LIMIT = 3.0

#: Seconds after which a rank that waits reads whether others are in another collective: steps are to cost nothing, and
#: ranks to stop within five seconds.
APART_SECONDS = 1.0
#: Seconds for which a rank looks whether all are about to gather the same, before what is seldom sent: longer than
#: steps of which one rank does another thing, and short enough for a rank that is killed to be named within five.
MEETING_SECONDS = 2.0
#: Seconds after which a rank that waits warns of others that train by themselves.
LATE_SECONDS = 10.0
#: Collectives of this rank that others' are compared with: more than buckets that are on their way.
REMEMBERED_COLLECTIVES = 64

#: Seconds in which a backend's thread drops the tensors of a complete collective: some microseconds, and a tenth of a
#: second where twelve processes share a core. A backend that keeps them costs twice this in all, rather than hanging.
#: Between looks it sleeps twice as long each time, up to the second.
RELEASE_SECONDS, RELEASE_PAUSE = 1.0, 0.01

#: Error of products, relative to the rows' distances, that an audit takes for rounding: float32 sums over a chunk of
#: columns have a tenth of it. Error of what is computed twice in float64, relative to its terms.
AUDIT_ROUNDING, AUDIT_REPEATED = 1e-4, 1e-12

#: Rows that are farther than this, in typical distances, are audited with the others only, not beside the near ones.
AUDIT_NEAR = 4.0


# ---- Workers

#: Norm, in median norms, beyond which a worker's row is left out of a step before anything is remembered of it.
FAR_WORKER = 10.0
#: Median of the absolute value under Wigner's semicircle law of radius one.
SEMICIRCLE_MEDIAN = 0.4040
#: Distance of remembered products, in those of the median worker from the nearest other, within which workers are
#: copies: by definition half of the workers have none at 1. Of independent noise, squared distances of n workers have
#: the law of chi squared / (n - 2) with n - 2 degrees of freedom, which is hardly ever as little as a quarter of the
#: least that a worker has.
COPY_DISTANCE = 0.5
#: Times that the diagonal of remembered products, which is noise, is completed by what the other products say of it.
COMPLETIONS = 3
#: Share of the weight that is half, but for rounding.
JUST_HALF = 0.5 - 1e-9
#: A share of a number is whole if it is no farther from that, or by no more than single precision may be off.
WHOLE = 1e-9
SINGLE_ROUNDING = 2.0**-23
#: Eigenvalue of remembered products, relative to the largest, that may be rounding.
LEAST_STRENGTH = 1e-9
#: Typical norms beyond which a row is too long for its products to be compared with those of others: squares of it are
#: far from the largest number in float64, 1.8e308, and of single precision no two finite rows differ as much.
FARTHEST = 1e100
#: Digits after the point of workers' coordinates, in units of the largest, which rounding leaves.
TIED_DIGITS = 12
#: Largest change of a worker's trust, one in the mean of all, in the last iteration of Huber's mean.
TRUST_TOL = 1e-4
#: Median absolute deviation of a standard normal distribution.
NORMAL_MAD = 0.6745


# ---- Federated averaging

#: Share of its weight in a plain mean below which a client counts as distrusted in the metrics of a round: it is for
#: the reader, and decides nothing.
DISTRUSTED = 0.5
#: Longest reason, in characters, for which a client's reply can't be used: its text may be the client's own.
REASON_LENGTH = 300
#: Rounds, with decay, from which what is remembered of a client says something: at a decay of 0.9 the third.
CAMP_VISITS = 2.5
#: Ratio of the two largest eigenvalues from which clients form two camps. On digits, ten clients, one seed that is in
#: no table: 1.6 and 1.2 with honest clients, even and uneven; 1.5 where labels are flipped on uneven samples, which it
#: can't see; 2.8 and more under other attacks. Honest clients of two populations are camps as well.
CAMP_GAP = 2.0
#: The same for a memory that includes rounds in which updates are short. In ten trainings of 100 rounds that are in no
#: table (digits and Fashion-MNIST, ten clients) the largest ratio is 1.2 to 2.1 where nobody is hostile, and 2.0 to 6.4
#: where four clients reverse their updates from round 51 on; of five that nothing else finds, 2.3 and 3.4 to 6.4.
LATE_CAMP_GAP = 2.5
#: Cosine between the means of two camps, below which the smaller one has no weight: of -0.25, -0.3, -0.35, -0.4 and
#: -0.5 the one with the highest mean accuracy on three sets of data and seeds that are in no table. Lowest cosines of
#: rounds 3 to 20 there, ten clients, Dirichlet 0.5: -0.08, -0.11 and, where the network fits its samples by then, -0.37
#: with honest clients; -0.29, -0.38 and -0.78 where four of them flip labels; -0.91 and less under false claims.
CAMP_CONFLICT = -0.3
#: Fewest clients of such a camp, as a single one with data of its own may oppose the others; and eigenvectors whose
#: signs the search for camps begins with: two find the most opposed ones in 92 % of 360 cases, three in 96 %.
LEAST_CAMP, CAMP_STARTS = 2, 2
#: Length of an update, in a client's longest, below which it is short; rounds in which most are short say nothing of
#: camps. Of 0 (all rounds count), 0.5, 0.6 and 0.7 the one with the highest mean accuracy after 100 rounds (90.6, 92.6,
#: 94.5 and 91.2) on digits, ten clients, Dirichlet 0.5, seeds 202 to 205, which are in no table: nobody hostile, label
#: flip, decoys and idlers of benchmarks/flower_long.py. Median ratio on two other seeds: 0.55 in round 20 and 0.46 in
#: round 30 where nobody is hostile, 0.76 and more until round 30 where four flip labels and are in the mean.
SHORT_UPDATE = 0.6
#: Clients that are remembered, even if fewer can have as many rounds: products of a thousand take 8 MB.
REMEMBERED_CLIENTS = 1000
#: Rounds, with decay, below which a client is forgotten: after some 60 rounds of absence. So is a worker whose running
#: mean would be as little, had it decayed in each step that it was away.
FORGOTTEN_VISITS = 1e-3


# ---- Demonstration

#: Processes of the demonstration, each of which holds torch and a training: 0.4 to 0.5 GB.
DEMONSTRATION_PROCESSES = 8
