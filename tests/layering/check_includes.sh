#!/bin/bash
# check_includes.sh ROOT TABLE: fails, with one line a fault, if an #include under ROOT/src or ROOT/include
# crosses a border that TABLE does not open. src/<room> may also include its own private headers.
set -euo pipefail

if [ $# -ne 2 ] || [ ! -d "$1/src" ] || [ ! -f "$2" ]; then
    echo "usage: $0 ROOT TABLE (ROOT holds src/ and include/)" >&2
    exit 2
fi
table=$(realpath "$2")
cd "$1"

find src include -type f 2>/dev/null | LC_ALL=C sort | LC_ALL=C awk -v table="$table" '
function fault(text) {
    print text
    n_faults++
}

# Only a * at the end of a pattern is special.
function matches(text, pattern,    head) {
    if (pattern ~ /\*$/) {
        head = substr(pattern, 1, length(pattern) - 1)
        return substr(text, 1, length(head)) == head
    }
    return text == pattern
}

function inside(path, place) {
    return place == "any" || substr(path, 1, length(place) + 1) == place "/"
}

function read_table(    line, word, n, i) {
    while ((getline line < table) > 0) {
        sub(/#.*/, "", line)
        n = split(line, word, " ")
        if (n == 0)
            continue
        if (word[1] == "room" && n >= 3) {
            level[word[2]] = word[3]
            for (i = 4; i <= n; i++)
                allowed[word[2], word[i]] = 1
        } else if (word[1] == "header" && n >= 3) {
            pattern[++n_headers] = word[2]
            places[n_headers] = word[3]
            for (i = 4; i <= n; i++)
                places[n_headers] = places[n_headers] " " word[i]
        } else {
            fault(table ": not understood: " line)
        }
    }
    close(table)
    check_table()
}

# Upward and sideways is no question of taste: the table itself may not say it.
function check_table(    pair, part) {
    for (pair in allowed) {
        split(pair, part, SUBSEP)
        if (!(part[2] in level))
            fault(table ": room " part[1] " may include " part[2] ", which is no room")
        else if (level[part[2]] + 0 >= level[part[1]] + 0)
            fault(table ": room " part[1] " of level " level[part[1]] " may not include " part[2] " of level " level[part[2]])
    }
}

# "a/b/../c" -> "a/c"; what climbs above the start is kept, so that it is found nowhere.
function normal(path,    part, n, i, out, m) {
    n = split(path, part, "/")
    m = 0
    for (i = 1; i <= n; i++) {
        if (part[i] == "." || part[i] == "")
            continue
        if (part[i] == ".." && m > 0 && out[m] != "..")
            m--
        else
            out[++m] = part[i]
    }
    path = out[1]
    for (i = 2; i <= m; i++)
        path = path "/" out[i]
    return path
}

function check_public(place, path, room, other, name) {
    if (!(other in level))
        fault(place ": \"" name "\": no room " other " in the table")
    else if (!(("include/" name) in exists))
        fault(place ": \"" name "\": no such public header")
    else if (other != room && !((room, other) in allowed))
        fault(place ": room " room " may not include \"" name "\"")
}

function check_private(place, path, room, name,    dir, beside, top) {
    if (path ~ /^include\//) {
        fault(place ": \"" name "\": a public header includes public headers by their full name only")
        return
    }
    dir = path
    sub(/\/[^\/]*$/, "", dir)
    beside = normal(dir "/" name)
    top = normal("src/" room "/" name)
    if (!((beside in exists) && inside(beside, "src/" room)) && !((top in exists) && inside(top, "src/" room)))
        fault(place ": \"" name "\": no header of src/" room)
}

function check_library(place, path, name,    i, k, n, word) {
    for (i = 1; i <= n_headers; i++) {
        if (!matches(name, pattern[i]))
            continue
        n = split(places[i], word, " ")
        for (k = 1; k <= n; k++)
            if (inside(path, word[k]))
                return
        fault(place ": <" name "> may be included only in: " places[i])
        return
    }
    fault(place ": <" name "> is in no row of the table")
}

function check_line(place, path, room, text,    name, quote, other) {
    sub(/^[ \t]*(#|%:)[ \t]*include(_next)?/, "", text)
    sub(/^[ \t]+/, "", text)
    quote = substr(text, 1, 1)
    if (quote != "\"" && quote != "<") {
        fault(place ": an #include by a macro cannot be checked")
        return
    }
    name = substr(text, 2)
    if (quote == "<")
        sub(/>.*/, "", name)
    else
        sub(/".*/, "", name)
    other = name
    sub(/\/.*/, "", other)
    if (name ~ /\// && ((other in level) || (("include/" name) in exists)))
        check_public(place, path, room, other, name)
    else if (quote == "\"")
        check_private(place, path, room, name)
    else
        check_library(place, path, name)
}

function check_file(path,    room, line, n) {
    room = path
    sub(/^(src|include)\//, "", room)
    if (room !~ /\//) {
        fault(path ": lies in no room")
        return
    }
    sub(/\/.*/, "", room)
    if (!(room in level)) {
        fault(path ": no room " room " in the table")
        return
    }
    n = 0
    while ((getline line < path) > 0) {
        n++
        if (line ~ /^[ \t]*(#|%:)[ \t]*include/)
            check_line(path ":" n, path, room, line)
    }
    close(path)
    n_files++
}

{
    exists[$0] = 1
    file[++n_found] = $0
}

END {
    read_table()
    for (i = 1; i <= n_found; i++)
        if (file[i] ~ /\.(c|h|cu|cuh|def|inc)$/)
            check_file(file[i])
    if (n_files == 0)
        fault("no source file found")
    if (n_faults > 0) {
        printf "%d fault(s) in %d files\n", n_faults, n_files
        exit 1
    }
    printf "%d files keep the borders\n", n_files
}'
