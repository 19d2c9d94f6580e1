#!/bin/bash
# Proves that check_includes.sh can fail: a small tree that keeps the borders passes, and each single line that
# breaks one is named. Usage: check_itself.sh (no arguments).
set -euo pipefail
here=$(dirname "$(realpath "$0")")
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT

put() { # put PATH TEXT
    mkdir -p "$tree/$(dirname "$1")"
    printf '%b' "$2" >"$tree/$1"
}

lay_tree() {
    rm -rf "$tree"
    mkdir -p "$tree"
    put table 'room util 0\nroom low 1 util\nroom side 1 util\nroom high 2 low util # words\n
header stdio.h any\nheader mpi.h src/low/mpi\nheader dnnl* src/high\n'
    put include/util/err.h '#include <stdio.h>\n'
    put include/low/low.h '#include "util/err.h"\n'
    put include/side/side.h ''
    put include/high/high.h '#include "low/low.h"\n'
    put src/util/err.c '#include "util/err.h"\n'
    put src/low/low_internal.h ''
    put src/low/mpi/part.c '#include <mpi.h>\n#include "../low_internal.h"\n  #  include "low_internal.h"\n'
    put src/low/low.c '#include "low/low.h"\n#include "mpi/part.h"\n#include <util/err.h>\n'
    put src/low/mpi/part.h '/* not an #include "side/side.h" */\n'
    put src/side/side_internal.h ''
    put src/high/high.c '#include "low/low.h"\n#include <dnnl.h>\n#include <dnnl_debug.h>\n'
}

n_failed=0
check() { # check STATUS TEXT: the script ends with STATUS and says TEXT
    local status=0 said
    said=$("$here/check_includes.sh" "$tree" "$tree/table" 2>&1) || status=$?
    if [ $status -ne "$1" ] || [[ "$said" != *"$2"* ]]; then
        printf 'case "%s":\n  wanted %s: %s\n  got %s: %s\n' "$what" "$1" "$2" "$status" "$said"
        n_failed=$((n_failed + 1))
    fi
}

bad() { # bad WHAT PATH TEXT FAULT
    what=$1
    lay_tree
    put "$2" "$3"
    check 1 "$4"
}

what='a tree that keeps the borders'
lay_tree
check 0 '11 files keep the borders'

bad 'upward' src/low/low.c '\n#include "high/high.h"\n' 'src/low/low.c:2: room low may not include "high/high.h"'
bad 'upward with angles' src/low/low.c '#include <high/high.h>\n' 'room low may not include "high/high.h"'
bad 'sideways' src/low/low.c '#include "side/side.h"\n' 'room low may not include "side/side.h"'
bad 'upward in a public header' include/util/err.h '#include "low/low.h"\n' 'include/util/err.h:1: room util may not'
bad 'odd spelling' src/low/low.c ' \t#\tinclude\t"side/side.h"\n' 'room low may not include "side/side.h"'
bad 'digraph' src/low/low.c '%:include "side/side.h"\n' 'room low may not include "side/side.h"'
bad 'private header of another room' src/high/high.c '#include "../low/low_internal.h"\n' 'no header of src/high'
bad 'private header by its bare name' src/high/high.c '#include "low_internal.h"\n' 'no header of src/high'
bad 'round about through include' src/low/low.c '#include "util/../side/side.h"\n' 'no such public header'
bad 'round about through the tree' src/low/low.c '#include "../../include/side/side.h"\n' 'no header of src/low'
bad 'absolute path' src/low/low.c '#include "/usr/include/stdio.h"\n' 'no header of src/low'
bad 'missing public header' src/low/low.c '#include "util/none.h"\n' 'no such public header'
bad 'private name in a public header' include/low/low.h '#include "low_internal.h"\n' 'a public header includes public'
bad 'library outside its folder' src/low/low.c '#include <mpi.h>\n' '<mpi.h> may be included only in: src/low/mpi'
bad 'library in a public header' include/low/low.h '#include <mpi.h>\n' '<mpi.h> may be included only in'
bad 'library by pattern' src/low/low.c '#include <dnnl_types.h>\n' '<dnnl_types.h> may be included only in: src/high'
bad 'unknown library' src/low/low.c '#include <curl/curl.h>\n' '<curl/curl.h> is in no row of the table'
bad 'include by a macro' src/low/low.c '#include HEADER\n' 'an #include by a macro'
bad 'unknown room' src/other/x.c '' 'src/other/x.c: no room other'
bad 'file outside the rooms' src/x.c '' 'src/x.c: lies in no room'
bad 'kernels count' src/low/x.cu '#include "side/side.h"\n' 'src/low/x.cu:1: room low may not'
bad 'table that opens upward' table 'room util 0 low\nroom low 1\n' 'room util of level 0 may not include low of level 1'
bad 'table that opens sideways' table 'room a 1 b\nroom b 1\n' 'room a of level 1 may not include b of level 1'
bad 'table with a misspelt room' table 'room a 1 bb\n' 'room a may include bb, which is no room'
bad 'table that is not understood' table 'rooms a 1\n' 'not understood: rooms a 1'

what='an empty tree'
rm -rf "$tree"
mkdir -p "$tree/src"
put table 'room util 0\n'
check 1 'no source file found'
what='no tree'
rm -rf "$tree/src"
check 2 'usage'

if [ $n_failed -gt 0 ]; then
    echo "$n_failed case(s) failed"
    exit 1
fi
echo "check_includes.sh names every broken border"
