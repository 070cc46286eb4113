#!/bin/sh
# Installs what the package-lock.json of a folder says, unless that was done: sh web/install.sh web/portal. No package runs a script
# (its .npmrc): one of Spectral's would report to its maker.
set -eu
cd "$1"
if ! cmp -s package-lock.json node_modules/.installed; then
  npm ci --no-progress --loglevel=error >&2
  cp package-lock.json node_modules/.installed
fi
