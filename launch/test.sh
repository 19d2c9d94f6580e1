#!/bin/bash
# Installs what is missing, builds, runs the tests. Arguments go to ctest: launch/test.sh -L quick
set -euo pipefail
cd "$(dirname "$(realpath "$0")")/.."
. launch/common.sh

install_packages
build_program all
say "tests"
exec ctest --test-dir build --output-on-failure --no-tests=error "$@"
