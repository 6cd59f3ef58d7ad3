#!/usr/bin/env bash
# librdkafka's performance client at the Kafka door against Esker's own client at the native door, in one run on one broker:
#   bench/kafka/speed.sh target/release/esker target/release/esker-bench [options of speed.py]
# By hand, on a machine that does nothing else. The client is built as librdkafka-tests.sh says.
set -euo pipefail
esker=$(realpath "${1:?give the esker program}") bench=$(realpath "${2:?give the esker-bench program}")
shift 2
cd "$(dirname "$0")"
folder=${ESKER_LIBRDKAFKA:-$(realpath ../..)/target/librdkafka}
library=$(./librdkafka-tests.sh source)
if [ ! -x "$library/examples/rdkafka_performance" ]; then
    make -C "$library/examples" rdkafka_performance >"$folder/build-performance.log" 2>&1
fi
exec python3 speed.py --esker "$esker" --bench "$bench" --library "$library" "$@"
