#!/usr/bin/env bash
# Tests with the lowest or the highest versions of all that pyproject.toml requires, in an environment of their own.
# Needs uv (pip install uv), which finds the interpreter, and some gigabytes of disk where torch comes with CUDA. Prints
# a row for benchmarks/results/versions.csv at the end.
#
#     tests/versions.sh 3.12 lowest                    # all tests but slow ones, of which only torchrun's example
#     tests/versions.sh 3.13 highest tests/location    # some
set -euo pipefail

python=$1 versions=$2
shift 2
cd "$(dirname "${BASH_SOURCE[0]}")/.."
case $versions in
    lowest) resolution=lowest-direct ;;
    highest) resolution=highest ;;
    *)
        echo "The versions must be lowest or highest; found $versions." >&2
        exit 2
        ;;
esac
environment=.venv-$python-$versions
[ -d "$environment" ] || uv venv --quiet --python "$python" "$environment"
# What has no wheel for this interpreter isn't for it.
uv pip install --quiet --python "$environment/bin/python" --resolution "$resolution" --only-binary :all: \
    --requirement pyproject.toml --extra test
warnings=()
# Releases of years ago use what later ones of their own dependencies deprecate.
[ "$versions" = highest ] || warnings=(-W default::DeprecationWarning -W default::FutureWarning)
export MPLBACKEND=Agg OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
reports=$(mktemp -d)
trap 'rm -rf "$reports"' EXIT
status=0
"$environment/bin/python" -m pytest -n auto "${warnings[@]}" --junitxml "$reports/tests.xml" "$@" || status=$?
[ $# -gt 0 ] || "$environment/bin/python" -m pytest -m slow "${warnings[@]}" --junitxml "$reports/torchrun.xml" \
    tests/distributed/test_torchrun_example.py || status=$?
"$environment/bin/python" - "$versions" "$reports"/*.xml <<'END'
import datetime, platform, sys
from importlib.metadata import version
from xml.etree import ElementTree

suites = [suite.attrib for file in sys.argv[2:] for suite in ElementTree.parse(file).iter("testsuite")]
tests, failures, errors, skipped = (
    sum(int(suite[name]) for suite in suites) for name in ("tests", "failures", "errors", "skipped")
)
packages = ("torch", "scikit-learn", "skorch", "numpy", "scipy", "matplotlib", "tqdm")
cell = {"python": platform.python_version(), "versions": sys.argv[1], **{name: version(name) for name in packages}}
failed = failures + errors
counts = {"passed": tests - failed - skipped, "failed": failed, "skipped": skipped}
row = cell | counts | {"date": datetime.date.today(), "remark": ""}
print(*row, sep=",")
print(*row.values(), sep=",")
END
exit "$status"
