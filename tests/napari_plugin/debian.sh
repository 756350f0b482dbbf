#!/usr/bin/env bash
# Installs what napari's window needs beside Python's packages: Qt's libraries, and a screen in memory with OpenGL in
# software. Only as root on Debian or Ubuntu; elsewhere it says what is missing, and tests that need it are skipped.
set -euo pipefail

# What must be there, and the package that brings it.
libraries="
libEGL.so.1 libegl1
libGL.so.1 libgl1
libdbus-1.so.3 libdbus-1-3
libfontconfig.so.1 libfontconfig1
libglib-2.0.so.0 libglib2.0-0
libxkbcommon.so.0 libxkbcommon0
libxkbcommon-x11.so.0 libxkbcommon-x11-0
libxcb-cursor.so.0 libxcb-cursor0
libxcb-icccm.so.4 libxcb-icccm4
libxcb-image.so.0 libxcb-image0
libxcb-keysyms.so.1 libxcb-keysyms1
libxcb-randr.so.0 libxcb-randr0
libxcb-render-util.so.0 libxcb-render-util0
libxcb-shape.so.0 libxcb-shape0
libxcb-xinerama.so.0 libxcb-xinerama0
"
missing=()
known=$(PATH="$PATH:/sbin:/usr/sbin" ldconfig -p)
while read -r library package; do
  [ -z "$library" ] || grep -qF "$library" <<<"$known" || missing+=("$package")
done <<<"$libraries"
command -v Xvfb >/dev/null || missing+=(xvfb libgl1-mesa-dri fonts-dejavu-core)
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "napari: not installed are ${missing[*]}; tests that need them are skipped" >&2
  exit 0
fi
echo "napari: installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
if ! { apt-get update -qq && apt-get install --yes --no-install-recommends -qq "${missing[@]}" >/dev/null; }; then
  echo "napari: ${missing[*]} could not be installed; tests that need them are skipped" >&2
fi
