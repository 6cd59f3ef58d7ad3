#!/usr/bin/env bash
# The object tier against an S3 server that somebody else wrote: moto (PyPI `moto[server,s3]`). Sets a bucket up, checks
# it, and shows what a missing bucket and a wrong endpoint look like. SKIPs where moto_server is not installed.
#   python3 -m venv /tmp/moto && /tmp/moto/bin/pip install 'moto[server,s3]'
#   MOTO_SERVER=/tmp/moto/bin/moto_server bench/s3-compat.sh [path of esker]
set -euo pipefail
cd "$(dirname "$0")/.."

moto=${MOTO_SERVER:-$(command -v moto_server || true)}
if [ -z "$moto" ] || [ ! -x "$moto" ]; then
    echo "SKIP: moto_server is not installed (MOTO_SERVER names it)"
    exit 0
fi
esker=${1:-${ESKER_BIN:-target/release/esker}}
log=$(mktemp)
# Port 0: the server says which one it took.
"$moto" -H 127.0.0.1 -p 0 >"$log" 2>&1 &
server=$!
trap 'kill "$server" 2>/dev/null; rm -f "$log"' EXIT
port=
for _ in $(seq 150); do
    port=$(sed -n 's/.*http:\/\/127\.0\.0\.1:\([0-9]*\).*/\1/p' "$log" | head -1)
    [ -n "$port" ] && break
    kill -0 "$server" 2>/dev/null || { cat "$log" >&2; exit 1; }
    sleep 0.2
done
[ -n "$port" ] || { echo "moto_server said no port in 30 s" >&2; exit 1; }

export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test
url="s3://esker-test/some/prefix?endpoint=http://127.0.0.1:$port&region=us-east-1&path_style=true"

step() { printf '\n== %s\n' "$1"; }
refused() { # expected words, command...
    local words=$1 out
    shift
    if out=$("$@" 2>&1); then
        echo "should have failed: $*" >&2
        exit 1
    fi
    echo "$out" | grep -q "$words" || { echo "says: $out" >&2; exit 1; }
    echo "$out" | tail -1
}

step "a bucket that does not exist"
refused "esker bucket setup" "$esker" bucket check "$url"
step "set up, twice"
"$esker" bucket setup "$url"
"$esker" bucket setup "$url"
step "check"
"$esker" bucket check "$url"
step "an endpoint where nobody listens"
refused "can't reach the store" "$esker" bucket setup "${url/:$port/:1}"
step "credentials in the URL"
refused "environment" "$esker" bucket check "s3://key:secret@esker-test/p"
echo
echo "PASS"
