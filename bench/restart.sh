#!/usr/bin/env bash
# How long does a bookie with a large journal take to serve again after kill -9? Fills a standalone broker's journal,
# kills it, and times the restart with cold caches (as root; else with warm ones). Files that are full keep their header
# and footer and lose the data between (holes punched), so that 100 GB need little space: a restart reads footers, not data.
#
#   bench/restart.sh 10            10 GB, data kept
#   bench/restart.sh 100 sparse    100 GB, full files made sparse
set -euo pipefail
cd "$(dirname "$0")/.."
gigabytes=${1:-10}
sparse=${2:-}
bin=${ESKER_BIN:-target/release/esker}
load=$(dirname "$bin")/esker-bench
[ -x "$bin" ] && [ -x "$load" ] || cargo build --release -p esker -p esker-bench
dir=$(mktemp -d)
pid=
puncher=
finish() {
    [ -n "$puncher" ] && kill "$puncher" 2>/dev/null || true
    [ -n "$pid" ] && kill -9 "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true
    rm -rf "$dir"
}
trap finish EXIT

start() {
    : >"$dir/log"
    "$bin" standalone --data "$dir/data" --quic 127.0.0.1:0 --http 127.0.0.1:0 >"$dir/log" 2>&1 &
    pid=$!
    until grep -q "is ready" "$dir/log"; do
        kill -0 "$pid" || { cat "$dir/log"; exit 1; }
        sleep 0.02
    done
    server=$(grep -oE 'clients at [0-9.:]+' "$dir/log" | grep -oE '127[0-9.:]+')
}

# Full files are never written again: all but the newest three have their footers.
punch() {
    find "$dir/data" -name '*.journal' | sort | head -n -3 | while read -r file; do
        mark="$dir/punched-$(basename "$file")"
        [ -e "$mark" ] && continue
        size=$(stat -c %s "$file")
        [ "$size" -gt $((16 << 20)) ] || continue
        fallocate --punch-hole --offset $((4 << 20)) --length $((size - (12 << 20))) "$file"
        touch "$mark"
    done
}

journal_bytes() { find "$dir/data" -name '*.journal' -printf '%s\n' | awk '{sum += $1} END {printf "%.0f", sum}'; }

start
if [ "$sparse" = sparse ]; then
    while sleep 2; do punch; done &
    puncher=$!
fi
while [ "$(journal_bytes)" -lt $((gigabytes * 1000000000)) ]; do
    "$load" produce --server "$server" --ca "$dir/data/tls/ca.pem" --topic t --secs 5 --warm-up 0 >/dev/null
done
if [ -n "$puncher" ]; then
    kill "$puncher" && wait "$puncher" 2>/dev/null || true
    puncher=
    punch
fi
printf '%s bytes in %s journal files, %s on disk\n' "$(journal_bytes)" \
    "$(find "$dir/data" -name '*.journal' | wc -l)" "$(du -sh "$dir/data" | cut -f1)"

kill -9 "$pid"
wait "$pid" 2>/dev/null || true
sync
[ "$(id -u)" = 0 ] && echo 3 >/proc/sys/vm/drop_caches
began=$(date +%s.%N)
start
ended=$(date +%s.%N)
awk -v a="$began" -v b="$ended" 'BEGIN {printf "ready %.2f s after the start\n", b - a}'
