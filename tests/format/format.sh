#!/bin/bash
# format.sh --check|--write ROOT [CLANG_FORMAT]: the sources under ROOT against ROOT/.clang-format. The check ends
# with 77 (skipped) where the tool is missing or another major version, whose taste differs.
set -euo pipefail

if [ $# -lt 2 ] || [[ "$1" != --check && "$1" != --write ]]; then
    echo "usage: $0 --check|--write ROOT [CLANG_FORMAT]" >&2
    exit 2
fi
mode=$1
cd "$2"
folders=()
for folder in include src tests bench; do
    [ -d $folder ] && folders+=("$folder")
done
tool=${3:-clang-format}
wanted=14

version=$("$tool" --version 2>/dev/null | grep -oE 'version [0-9]+' | grep -oE '[0-9]+' || true)
if [ "$version" != $wanted ]; then
    echo "skipped: clang-format $wanted is wanted (Debian: clang-format), found: ${version:-none}"
    [ "$mode" = --check ] && exit 77
    exit 1
fi

if [ "$mode" = --write ]; then
    find "${folders[@]}" -name '*.[ch]' -print0 | xargs -0 -n 16 "$tool" -i
else
    # Prints file:line:column of each place that differs; each file is looked at even when one fails.
    find "${folders[@]}" -name '*.[ch]' -print0 | LC_ALL=C sort -z |
        xargs -0 -n 8 -P 4 "$tool" --dry-run --Werror --ferror-limit=1
    echo "formatted as .clang-format says"
fi
