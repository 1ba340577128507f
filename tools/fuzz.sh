#!/usr/bin/env bash
# Fuzzes every fuzz target of the repository for a while each, one after the other: fuzz.sh [TIME], default 5s.
set -euo pipefail
cd "$(dirname "$0")/.."
limit="${1:-5s}"
count=0
said="$(mktemp)"
trap 'rm -f "$said"' EXIT

fuzz() { go test -run '^$' -fuzz "^$2\$" -fuzztime "$limit" "./$(dirname "$1")" 2>&1 | tee "$said"; }

# again reports whether a run failed only because its time was over while a worker was at an input: the tool takes that for a failure
# now and then on a busy machine, and names no failing input.
again() { grep -q 'context deadline exceeded' "$said" && ! grep -q 'Failing input' "$said"; }

while IFS=: read -r file target; do
  echo "fuzz $(dirname "$file") $target"
  fuzz "$file" "$target" < /dev/null || { again && fuzz "$file" "$target" < /dev/null; }
  count=$((count + 1))
done < <(git ls-files -co --exclude-standard '*_test.go' | xargs grep -oE '^func Fuzz[A-Za-z0-9_]+' | sed 's/func //' | sort)
[ "$count" -gt 0 ] || { echo "fuzz: no target found" >&2; exit 1; }
echo "fuzz: $count targets, $limit each"
