#!/usr/bin/env bash
# Builds the programs that tests run against, each from a folder here, into .tools/bin.
#
#   build.sh                 all of them but those of a real node
#   build.sh minio           some of them
#   build.sh node/kubelet    one of a real node's, see `make test-node`
#
# A folder <name>/ holds go.mod and go.sum: go.mod names one program in a `tool` line and pins the version of its module
# (with any `replace` lines it needs). A folder with a main.go of its own pins the module that it is made of by its first
# `require` line. An optional file `ldflags` holds linker flags. The program becomes .tools/bin/<name>.
#
# An optional file `files` names files and folders of required modules that tests read, such as the definitions of their
# custom resources: a module and a path in it on each line. They become .tools/files/<name>/<path>. A folder with neither
# a tool nor a main.go is there for its files alone.
#
# What was built is kept outside the tree, in ${CELLSPARSE_CACHE:-~/.cache/cellsparse}/tools/<name>-<version>-<hash>/, the
# hash taken over the folder: another clone, or a clean one, finds it there and needs neither Go nor a network. Without
# Go, and without a kept program, nothing is built; the tests that need it say so.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tools="$(cd "$here/../.." && pwd)/.tools"
cache="${CELLSPARSE_CACHE:-$HOME/.cache/cellsparse}/tools"

# pinned_version FOLDER: the version of the module that holds the folder's tool, which is the longest required path that
# the tool's path begins with; without a tool, that of the first module required,
# or "own".
pinned_version() {
  awk '
    $1 == "tool" { tool = $2 }
    { sub(/^require /, ""); if ($2 ~ /^v[0-9]/) { version[$1] = $2; if (first == "") first = $2 } }
    END {
      if (tool == "") { print first == "" ? "own" : first; exit }
      for (module in version)
        if (index(tool "/", module "/") == 1 && length(module) > length(best)) best = module
      if (best == "") exit 1
      print version[best]
    }' "$1/go.mod"
}

# content_hash FOLDER: twelve hex digits over what decides the result.
content_hash() {
  (cd "$1" && cat go.mod go.sum $(ls ldflags main.go files 2>/dev/null) | sha256sum | cut -c1-12)
}

# copy_files FOLDER TARGET: copies what the folder's file `files` names into TARGET.
copy_files() {
  local module path source
  rm -rf "$2.part"
  while read -r module path; do
    source=$(cd "$1" && go mod download -json "$module@$(required_version "$1" "$module")" |
      sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
    mkdir -p "$2.part/$(dirname "$path")"
    cp -r --no-preserve=mode "$source/$path" "$2.part/$path"
  done < "$1/files"
  mv "$2.part" "$2"
}

# required_version FOLDER MODULE: the version that the folder's go.mod requires.
required_version() {
  awk -v module="$2" '{ sub(/^require /, "") } $1 == module && $2 ~ /^v[0-9]/ { print $2; exit }' "$1/go.mod"
}

# has_program FOLDER: whether a program is to be built of it.
has_program() {
  [ -f "$1/main.go" ] || grep -q '^tool ' "$1/go.mod"
}

# build NAME: makes sure that .tools/bin/NAME is the pinned program, and .tools/files/NAME the files beside it.
build() {
  local name=${1##*/} folder="$here/$1" version kept started program=tool missing=""
  if [ ! -f "$folder/go.mod" ]; then
    echo "tools: there is no $folder/go.mod; known are: $(known | tr '\n' ' ')" >&2
    return 1
  fi
  version=$(pinned_version "$folder") || { echo "tools: $folder/go.mod pins no version of its tool" >&2; return 1; }
  kept="$cache/$name-$version-$(content_hash "$folder")"
  has_program "$folder" && [ ! -x "$kept/$name" ] && missing+=" program"
  [ -f "$folder/files" ] && [ ! -d "$kept/files" ] && missing+=" files"
  if [ -n "$missing" ] && ! command -v go >/dev/null; then
    echo "tools: $name is not built, since Go is not installed; tests that need it will be skipped" >&2
    return 0
  fi
  mkdir -p "$kept" "$tools/bin" "$tools/files"
  if [[ $missing == *program* ]]; then
    echo "tools: building $name $version (several minutes, once)"
    started=$SECONDS
    [ -f "$folder/main.go" ] && program=.
    (cd "$folder" && CGO_ENABLED=0 GOFLAGS=-mod=readonly go build -trimpath -buildvcs=false \
      -ldflags "-s -w $(cat ldflags 2>/dev/null || true)" -o "$kept/$name.$$" "$program")
    mv "$kept/$name.$$" "$kept/$name"
    echo "tools: built $name in $((SECONDS - started)) s"
  fi
  [[ $missing != *files* ]] || copy_files "$folder" "$kept/files"
  [ ! -f "$folder/files" ] || ln -sfn "$kept/files" "$tools/files/$name"
  if has_program "$folder"; then
    ln -sfn "$kept/$name" "$tools/bin/$name"
    echo "tools: .tools/bin/$name is $version"
  else
    echo "tools: .tools/files/$name holds the files of its modules"
  fi
}

known() {
  local module
  for module in "$here"/*/go.mod; do basename "$(dirname "$module")"; done
}

if [ $# -gt 0 ]; then
  for name; do build "$name"; done
  exit
fi
# One that cannot be had, as its module is not served today, keeps nothing from the others; its tests are skipped and say so.
for name in $(known); do
  bash "${BASH_SOURCE[0]}" "$name" || echo "tools: $name is not built; tests that need it will be skipped" >&2
done
