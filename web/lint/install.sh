#!/bin/sh
# Installs what package-lock.json says, unless that was done. No package runs a script (.npmrc): one of Spectral's would report to its maker.
set -eu
cd "$(dirname "$0")"
if ! cmp -s package-lock.json node_modules/.installed; then
  npm ci --no-progress --loglevel=error >&2
  cp package-lock.json node_modules/.installed
fi
