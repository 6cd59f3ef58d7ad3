#!/usr/bin/env bash
# librdkafka's own tests against Esker, or against Apache Kafka for comparison:
#   bench/kafka/librdkafka-tests.sh esker target/release/esker [options of librdkafka_tests.py run]
#   bench/kafka/librdkafka-tests.sh kafka [options]
#   bench/kafka/librdkafka-tests.sh source         builds the library alone, and says where it is
#   bench/kafka/librdkafka-tests.sh table          what all runs so far gave, as the table of gateway/KAFKA-TESTS.md
# By hand, not in CI: the list takes about a quarter of an hour. Everything is built below target/librdkafka, outside the
# repository's own build. Wanted: cargo (it brings librdkafka's source in the package rdkafka-sys), make, g++, zlib, OpenSSL,
# libzstd and RapidJSON with headers, and Java with Maven (Apache Kafka, and its console tools, which some tests call).
set -euo pipefail
version=4.10.0+2.12.1
what=${1:?esker ESKER, kafka, source or table}
shift
esker=none
if [ "$what" = esker ]; then
    esker=$(realpath "${1:?give the esker program}")
    shift
fi
cd "$(dirname "$0")"
folder=${ESKER_LIBRDKAFKA:-$(realpath ../..)/target/librdkafka}
mkdir -p "$folder/results"

if [ "$what" = table ]; then
    exec python3 librdkafka_tests.py table "$folder"/results "$@"
fi

if [ ! -x "$folder/$version/tests/test-runner" ]; then
    # A package that depends on it is the way by which cargo downloads it.
    mkdir -p "$folder/fetch/src"
    touch "$folder/fetch/src/lib.rs"
    printf '[package]\nname = "fetch"\nversion = "0.0.0"\n[dependencies]\nrdkafka-sys = "=%s"\n[workspace]\n' "${version%+*}" \
        >"$folder/fetch/Cargo.toml"
    (cd "$folder/fetch" && cargo fetch --quiet)
    rm -rf "${folder:?}/$version"
    cp -r "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/rdkafka-sys-"$version"/librdkafka "$folder/$version"
    (
        cd "$folder/$version"
        ./configure --disable-gssapi --disable-curl --CFLAGS=-w
        nice -n 10 make -j2 -C src
        nice -n 10 make -j2 -C src-cpp
        nice -n 10 make -j2 -C tests test-runner CPPFLAGS="-g -O1 -fPIC -I$PWD/src"
    ) >"$folder/build.log" 2>&1 || {
        tail -20 "$folder/build.log" >&2
        exit 1
    }
fi

if [ "$what" = source ]; then
    echo "$folder/$version"
    exit
fi

# The layout of a Kafka distribution, as far as the tests look into it.
kit=$folder/kafka
if ! cmp -s broker/pom.xml "$kit/pom.xml"; then
    rm -rf "$kit"
    mkdir -p "$kit/bin"
    mvn -B -q -f broker/pom.xml dependency:copy-dependencies -DoutputDirectory="$kit/libs"
    cat >"$kit/bin/kafka-run-class.sh" <<'RUN'
#!/bin/sh
here=$(dirname "$(dirname "$(realpath "$0")")")
exec java ${KAFKA_HEAP_OPTS:--Xmx256m} -cp "${CLASSPATH:+$CLASSPATH:}$here/libs/*" "$@"
RUN
    for tool in topics=org.apache.kafka.tools.TopicCommand acls=org.apache.kafka.tools.AclCommand \
        configs=kafka.admin.ConfigCommand groups=org.apache.kafka.tools.consumer.group.ConsumerGroupCommand; do
        printf '#!/bin/sh\nexec "$(dirname "$0")/kafka-run-class.sh" %s "$@"\n' "${tool#*=}" >"$kit/bin/kafka-${tool%%=*}.sh"
    done
    mv "$kit/bin/kafka-groups.sh" "$kit/bin/kafka-consumer-groups.sh"
    chmod +x "$kit"/bin/*.sh
    cp broker/pom.xml "$kit/"
fi

exec nice -n 10 python3 librdkafka_tests.py run --broker "$what" --esker "$esker" --kit "$kit" \
    --tests "$folder/$version/tests" --results "$folder/results" "$@"
