#!/bin/sh
# Writes the locks of this folder; called by `make lock` (arguments go to the resolver, e.g. --upgrade).
# Everything is resolved once, together; each lock is then cut out of that one answer, so that a package has
# the same version in every file and the files can be installed on top of each other.
set -eu
cd "$(dirname "$0")/.."

command -v uv >/dev/null || { echo "make lock needs uv (https://docs.astral.sh/uv/); nothing else does." >&2; exit 1; }
all=$(mktemp -d)/all.txt
trap 'rm -rf "$(dirname "$all")"' EXIT

# vLLM's own server, measured beside ours, needs some of what no other lock may hold: what its list names.
sed -n 's/^\([a-z0-9._-]*\).*/\1/p' requirements/vllm-server.in | grep . >"$all.server"
grep -vxF -f "$all.server" requirements/excludes.txt >"$all.server-excludes"
excludes=requirements/excludes.txt

compile() {
  uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest \
    --excludes "$excludes" --overrides requirements/overrides.txt \
    --no-emit-package torch --annotation-style line --custom-compile-command "make lock" "$@"
}

# A lock holds what its set adds to the sets below it: the names in the given lock are not repeated.
not_in() {
  sed -n 's/^\([a-z0-9._-]*\)==.*/--no-emit-package \1/p' "requirements/$1.txt"
}

# What is pinned now stays pinned, unless --upgrade is given.
sed -n 's/^\([a-z0-9._-]*==[^ ]*\).*/\1/p' requirements/api.txt requirements/worker-cpu.txt \
  requirements/local.txt requirements/model.txt requirements/dev.txt requirements/vllm-server.txt \
  2>/dev/null | sort -u >"$all" || true
excludes=$all.server-excludes
compile "$@" --extra s3 --extra local --extra model --extra dev --output-file "$all" \
  pyproject.toml requirements/worker-cpu.in requirements/vllm-server.in
excludes=requirements/excludes.txt

lock() {
  name=$1
  shift
  compile --constraints "$all" --generate-hashes --output-file "$all.$name" "$@"
  # Off come the traces of how it was made: the temporary file's path, the list of names left out.
  sed -e "s|, -c $all||; s| -c $all,||" -e '/^# The following packages/,$d' -e '/^$/d' \
    "$all.$name" >"requirements/$name.txt"
  echo "requirements/$name.txt: $(grep -c '==' "requirements/$name.txt") packages"
}

lock api --extra s3 pyproject.toml
lock worker-cpu --extra s3 pyproject.toml requirements/worker-cpu.in
# shellcheck disable=SC2046 # one word per name is meant
lock local $(not_in api) --extra local pyproject.toml
# shellcheck disable=SC2046
lock model $(not_in api) --extra model pyproject.toml
# shellcheck disable=SC2046
lock tracing $(not_in api) --extra tracing pyproject.toml
# shellcheck disable=SC2046
lock dev $(not_in api) --extra dev pyproject.toml
excludes=$all.server-excludes
# shellcheck disable=SC2046
lock vllm-server $(not_in worker-cpu) requirements/vllm-server.in

# Other people's clients, and what writes requests: each set is resolved alone, as it is installed alone.
for set in clients-sdks clients-frameworks clients-infinity clients-queues fuzz; do
  uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
    --annotation-style line --custom-compile-command "make lock" "$@" \
    --output-file "requirements/$set.txt" "requirements/$set.in"
  echo "requirements/$set.txt: $(grep -c '==' "requirements/$set.txt") packages"
done

# What the benchmarks compare with, also alone, but with the PyTorch of the worker.
grep -E '^(torch|triton|cuda|nvidia)' requirements/excludes.txt >"$all.peers-excludes"
excludes=$all.peers-excludes
for set in peers-onnx peers-sentence-transformers peers-infinity; do
  compile "$@" --generate-hashes --output-file "$all.$set" "requirements/$set.in"
  sed -e '/^# The following packages/,$d' -e '/^$/d' "$all.$set" >"requirements/$set.txt"
  echo "requirements/$set.txt: $(grep -c '==' "requirements/$set.txt") packages"
done
