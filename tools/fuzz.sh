#!/usr/bin/env bash
# Fuzzes every fuzz target of the repository for a while each, one after the other: fuzz.sh [TIME], default 5s.
set -euo pipefail
cd "$(dirname "$0")/.."
limit="${1:-5s}"
count=0
while IFS=: read -r file target; do
  echo "fuzz $(dirname "$file") $target"
  go test -run '^$' -fuzz "^${target}\$" -fuzztime "$limit" "./$(dirname "$file")"
  count=$((count + 1))
done < <(git ls-files -co --exclude-standard '*_test.go' | xargs grep -oE '^func Fuzz[A-Za-z0-9_]+' | sed 's/func //' | sort)
[ "$count" -gt 0 ] || { echo "fuzz: no target found" >&2; exit 1; }
echo "fuzz: $count targets, $limit each"
