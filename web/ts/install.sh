#!/bin/sh
# Installs what package-lock.json says, here or in the folder that is given, unless that was done.
set -eu
cd "$(dirname "$0")/${1:-.}"
if ! cmp -s package-lock.json node_modules/.installed; then
  npm ci --no-progress --loglevel=error >&2
  cp package-lock.json node_modules/.installed
fi
