#!/usr/bin/env bash
# `mailbell bench` as on a disk whose sync takes 2 ms longer ($SLOW_SYNC_US: microseconds). Needs a C compiler.
# benches/slow-sync.sh target/release/mailbell [ARGUMENTS OF bench]
set -euo pipefail
program=${1:?the program, for example target/release/mailbell}
shift
(($#)) || set -- --only accept --connections 1,64
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cc -O2 -shared -fPIC -o "$folder/slow-sync.so" "$(dirname "$0")/slow-sync.c" -ldl
# The gateway, its child, inherits it.
LD_PRELOAD="$folder/slow-sync.so" "$program" bench "$@"
