#!/usr/bin/env bash
# Tests with the lowest or the highest versions of all that pyproject.toml requires, in an environment of their own.
# Needs uv (pip install uv), which finds the interpreter, and some gigabytes of disk where torch comes with CUDA.
#
#     tests/versions.sh 3.12 lowest                    # all tests
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
uv pip freeze --python "$environment/bin/python" | grep -E '^(matplotlib|numpy|scikit-learn|scipy|skorch|torch|tqdm)=='
warnings=()
# Releases of years ago use what later ones of their own dependencies deprecate.
[ "$versions" = highest ] || warnings=(-W default::DeprecationWarning -W default::FutureWarning)
export MPLBACKEND=Agg OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
"$environment/bin/python" -m pytest "${warnings[@]}" "$@"
