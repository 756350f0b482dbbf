#!/usr/bin/env bash
# Makes a local base image from Debian packages, for machines that can install packages but pull from no registry.
#
# usage (as root, with debootstrap): tests/images/base.sh NAME:TAG
#
# SUITE    Debian release, with Python 3.11 or 3.12                   (bookworm)
# MIRROR   where debootstrap finds packages                           (debootstrap's own choice)
# DOCKER   the docker command                                         (docker)
# SSL_CERT_FILE, if set: certificate authorities that the image trusts, too, when it installs packages.
set -euo pipefail

name=${1:?usage: tests/images/base.sh NAME:TAG}
docker=${DOCKER:-docker}
suite=${SUITE:-bookworm}

command -v debootstrap >/dev/null || { echo "base.sh needs debootstrap, which is not installed." >&2; exit 1; }
"$docker" version >/dev/null 2>&1 || { echo "base.sh needs Docker, and no daemon answers '$docker version'." >&2; exit 1; }

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
# mktemp's folder is for its owner alone; the container's root folder is for everyone.
chmod 755 "$root"
debootstrap --variant=minbase --include=ca-certificates "$suite" "$root" ${MIRROR:+"$MIRROR"} >"$root/debootstrap.out" 2>&1 || {
  tail -n 20 "$root/debootstrap.out" >&2
  echo "base.sh: debootstrap of $suite failed, see above." >&2
  exit 1
}

# What distributions' own images do, too: no downloaded packages or their index in a layer, no manuals.
cat >"$root/etc/apt/apt.conf.d/docker-clean" <<'CONF'
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/*.bin || true"; };
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
Acquire::Languages "none";
CONF
cat >"$root/etc/dpkg/dpkg.cfg.d/docker" <<'CONF'
path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/man/*
path-exclude /usr/share/locale/*
CONF
rm -rf "$root"/{debootstrap.out,var/lib/apt/lists/*,var/cache/apt/*,var/log/*,usr/share/man/*,usr/share/locale/*,debootstrap}

changes=()
if [[ -n ${SSL_CERT_FILE:-} ]]; then
  install -D -m 644 "$SSL_CERT_FILE" "$root/opt/ca/bundle.crt"
  changes=(--change "ENV SSL_CERT_FILE=/opt/ca/bundle.crt PIP_CERT=/opt/ca/bundle.crt")
fi
tar -C "$root" -c . | "$docker" import "${changes[@]}" - "$name" >/dev/null
echo "$name is Debian $suite from $(du -sm "$root" | cut -f1) MB of files."
