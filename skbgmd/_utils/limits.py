"""Thresholds of the package, each once, with its reason and the measurement behind it.

Tables in ``benchmarks/results`` are named where a threshold was chosen by one.
"""

from __future__ import annotations

import torch

# ---- Rows

#: Elements of a chunk of columns: 4 MB in float32. Smaller chunks spend more on calls, larger ones on memory.
CHUNK_ELEMENTS = 1 << 20

#: A chunk is at most this share of a matrix that is large enough for it to matter.
CHUNK_SHARE = 16

#: A chunk is never narrower than the first: shorter lines starve the memory bus and the matrix product. It needn't be
#: narrower than the second, where its share of the matrix allows.
MIN_CHUNK_COLUMNS, GOOD_CHUNK_COLUMNS = 768, 1024

#: Elements up to which a float32 matrix is multiplied in float64.
FLOAT64_PRODUCT_ELEMENTS = 1 << 20

#: Rows beyond which only the lower triangle of a Gram matrix is computed, in stripes of this many rows.
GRAM_STRIPE_ROWS = 128

#: Rows of a product that are added to a total at a time.
GRAM_ADDED_ROWS = 64

#: Rows looked at to choose a centre, those that may be it, and runs of columns, which lie in a line of memory each.
CENTER_SAMPLE_ROWS, CENTER_CANDIDATES, CENTER_SAMPLE_RUNS, CENTER_SAMPLE_RUN = 128, 32, 32, 8

#: Columns whose squares are added up in the rows' own dtype.
NORM_COLUMNS = 1 << 13

#: Rows for each thread from which the two lines that each of them adds up in count for little memory.
ROWS_PER_THREAD = 64

#: Rows of norms of runs that are converted to float64 at a time.
CONVERTED_ROWS = 64

#: Columns that are multiplied at once, about: few enough for a piece of 32 rows to stay near.
PRODUCT_COLUMNS = 1 << 12

#: Pieces are of so many columns or a multiple: lines that begin where memory's do.
ALIGNED_COLUMNS = 16

#: Rows from which a symmetric product in two halves is quicker than in one (benchmarks/results/kernels.csv).
HALVED_PRODUCT_ROWS = 64

#: Runs of adjacent columns of at least this length are gathered as such; shorter ones column by column.
GATHERED_RUN = 8

#: Length from which norms of runs come as quick as norms of rows, or nearly, and take little memory.
MEASURED_RUN = 32


# ---- Robust location

#: Relative fall of the objective that is no mere rounding.
OBJECTIVE_FALL = 1e-12

#: Bounds within so many tolerances are brought down by Weiszfeld's steps, if Newton's cost several evaluations each.
NEAR_TOLERANCE = 32.0

#: Rows beyond which the start is the median of every so manieth row, and how many rows that takes.
SUBSAMPLE_ABOVE, SUBSAMPLE_ROWS = 8192, 2048

#: Rows whose coordinate-wise median is the origin in R^d.
ORIGIN_ROWS = 128

#: Ratio of distances beyond which a solver that gets no farther may be at the wrong ones.
DISTANCE_RATIO = 1e12

#: Sizes of typical rows in float64 whose squares, and those of their differences, have numbers.
SMALLEST_SQUARED, LARGEST_SQUARED = 1e-140, 1e140

#: Norms of rows whose columns have squares in single precision.
SMALLEST_SQUARED_FLOAT32, LARGEST_SQUARED_FLOAT32 = 1e-10, 1e18

#: Scores looked at to find a threshold that only the larger ones pass.
THRESHOLD_SAMPLE = 1 << 14

#: Rows up to which NumPy multiplies Gram matrices, in one thread.
NUMPY_PRODUCT_ROWS = 64

#: Up to this dimension a Newton system is solved directly; beyond it by conjugate gradients.
DIRECT_SOLVE_DIMENSION = 64

#: Elements of a block of points that is worked on at once (8 MB in float64).
POINT_BLOCK_ELEMENTS = 1 << 20

#: Elements up to which the float64 blocks are kept between passes rather than converted anew.
KEPT_ELEMENTS = 1 << 23

#: Binary digits by which a row may be farther off than is typical: squares, and sums of them, have numbers then.
RANGE_EXPONENT = 400

#: Distance, in norms of the row itself, within which a row is tied with another or with the median: they say the same.
#: Gradients of samples are as far from each other as they are long: in trainings on seven sets of classes and three of
#: regression, all standardised, at most 1 % of the rows of a step were so near to the median.
TIED = 0.1

#: Share of the weight on tied rows from which the scale is that of the others.
MANY_TIED = 0.1

#: Share of the others' weight within whose distance the scale is then: less than half, for what is corrupt is no copy.
SHARE_OF_OTHERS = 0.25

#: The same of those of common size in the first steps, of which others may be nothing.
SHARE_OF_FIRST = 0.4

#: Ratio within which norms are of one size: those of gradients of samples that are all to be learnt, or all honest.
SAME_SIZE = 1e4

#: Weight of a size, relative to that of the size that has most, which makes it common as well.
NEARLY_AS_MUCH = 0.7


# ---- Aggregation rules

#: Share of the rows, and of their weight, that may be far: more are not worth it, and could be the half that counts.
FAR_SHARE = 1 / 3

#: Norms beyond which products may have no number in float32.
LARGEST_NORM_MULTIPLIED = 1e15

#: What the estimate may be longer than the first one by, for the rows that are near that to stay near.
MEAN_SLACK = 1.25

#: Relative accuracy of the median that Huber's mean starts from and that a remembered scale is taken about.
HUBER_START_TOL = 0.2

#: Least scale, in typical distances of the step.
LEAST_SCALE = 1e-9

#: What a remembered scale falls by, in a step.
SCALE_DECAY = 0.999

#: Steps whose median is what is remembered, and how many of them there must be for that.
SCALE_WINDOW, SCALE_ENOUGH = 5, 3


# ---- Per-sample gradients

#: Elements of gradients that are written out at a time, and of products of positions.
WRITTEN_ELEMENTS = 1 << 22

#: Columns up to which a Gram matrix is one product: stripes would take more calls than they save.
ONE_PRODUCT_COLUMNS = 512

#: Elements of adjacent units from which they are taken as they lie; fewer are copied together, for calls take time.
LONG_RUN_ELEMENTS = 1 << 18

#: Rows of a Gram matrix that are computed at a time, of which what follows beyond them is mirrored.
FACTOR_STRIPE_ROWS = 64

#: Difference between a sample's output alone and in its batch, in shares of the largest, that rounding may make; in
#: half precision, too.
SAMPLE_ROUNDING = 2e-2

#: Elements of what a kernel sees that are written out at a time, where its gradients are.
UNFOLDED_ELEMENTS = 1 << 21


# ---- Training

#: Samples in a group up to which one pass is taken to be cheaper (benchmarks/results/group_passes.csv); where a CPU has
#: convolutions to do, which it does best for few samples at a time; and where torch.func has to differentiate some
#: layer for each sample.
ONE_PASS_GROUP, ONE_PASS_GROUP_CONVOLVED, ONE_PASS_GROUP_WITHOUT_RULE = 32, 8, 2

#: Numbers that are written out at most, where there are few rows of small networks and calls are what takes time.
WRITE_OUT_ELEMENTS, WRITE_OUT_ROWS = 1 << 18, 64

#: Difference of a sum of gradients from the exact one that rounding may make, by precision: in shares of a parameter's
#: gradient; of what the rows have in that parameter, added up; and of the whole rows, for what is left of a parameter
#: whose gradient is zero but for rounding.
CHECK_ROUNDING = {
    torch.float16: (2e-2, 1e-3, 1e-3),
    torch.float32: (1e-3, 1e-4, 1e-5),
    torch.float64: (1e-6, 1e-8, 1e-10),
}

#: A gradient of so many times what may be rounding is worth comparing: if it were wrong, it would be found out.
CHECK_WORTH = 4.0

#: Steps in each of which rows are compared as long as a parameter has had no gradient worth it; then the number of the
#: step grows by this factor from one comparison to the next. It grows by the other where all has been seen, until so
#: many steps lie in between. A comparison costs less than a step.
CHECK_FIRST_STEPS, CHECK_GROWTH, CHECK_SEEN_GROWTH, CHECK_INTERVAL = 8, 1.5, 4, 256

#: Passes over written-out rows that an aggregation takes, in multiplications for each number.
AGGREGATION_PASSES = 16

#: Samples that are predicted at once.
PREDICTED_SAMPLES = 1024

#: Samples that a regressor has seen before the scale of its targets stays, and that it keeps until then, at most.
TARGETS_SETTLED, TARGETS_KEPT = 32, 1024

#: Names that an error tells; what is more is counted.
NAMED_PARAMETERS = 3


# ---- Corruption

#: Columns that are brought to double precision at a time.
CORRUPTED_COLUMNS = 8192


# ---- Inspection

#: Bytes that are read at once, so that a file which says it is long costs no memory before it is.
READ_BYTES = 1 << 20
