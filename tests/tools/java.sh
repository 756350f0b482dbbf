#!/usr/bin/env bash
# Brings what the tests of QuPath's clients run on; without it they are skipped.
#
#   java.sh jdk      a Java compiler, from the system's packages
#   java.sh groovy   the languages of QuPath's scripts into .tools/groovy: Groovy 4 (QuPath 0.5, 0.6) and 5 (QuPath 0.7)
#
# Jars are kept outside the tree, in ${CELLSPARSE_CACHE:-~/.cache/cellsparse}/jars, so that another clone needs no network.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
jars="$(cd "$here/../.." && pwd)/.tools/groovy"
cache="${CELLSPARSE_CACHE:-$HOME/.cache/cellsparse}/jars"

# group:artifact:version and the file's SHA-256
pinned() {
  cat <<'END'
org.apache.groovy:groovy:4.0.33 5240a9151289115e4d447d6b6d4cb9ac8a9fc6374e079714dfeeffda42323be8
org.apache.groovy:groovy:5.0.8 942993eee2a6a8f5fcbc1bc76c1ab18d179d598c9b29c8fc96a0138b162e0fa8
com.google.code.gson:gson:2.11.0 57928d6e5a6edeb2abd3770a8f95ba44dce45f3b23b7a9dc2b309c581552a78b
END
}

jdk() {
  if command -v javac >/dev/null; then
    echo "java: $(javac -version 2>&1) is there"
  elif command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends default-jdk-headless
  else
    echo "java: javac is not there; install a JDK 17 or newer, or tests that need it are skipped" >&2
  fi
}

groovy() {
  local artifact sha file
  mkdir -p "$jars" "$cache"
  while read -r artifact sha; do
    file="$(cut -d: -f2 <<<"$artifact")-$(cut -d: -f3 <<<"$artifact").jar"
    if ! fits "$cache/$file" "$sha"; then
      if ! command -v mvn >/dev/null; then
        echo "java: $file is not there, since Maven is not installed; tests that need it are skipped" >&2
        continue
      fi
      if ! mvn --quiet --batch-mode dependency:copy "-Dartifact=$artifact" "-DoutputDirectory=$cache"; then
        echo "java: $file could not be had; tests that need it are skipped" >&2
        continue
      fi
      fits "$cache/$file" "$sha" || { echo "java: $file is not the file that is pinned" >&2; return 1; }
    fi
    ln -sfn "$cache/$file" "$jars/$file"
    echo "java: .tools/groovy/$file"
  done < <(pinned)
}

# fits FILE SHA256: whether a file is the pinned one.
fits() {
  [ -f "$1" ] && [ "$(sha256sum "$1" | cut -d' ' -f1)" = "$2" ]
}

for name; do "$name"; done
