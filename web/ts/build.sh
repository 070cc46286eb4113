#!/bin/sh
# Builds gen/ts/dist: ES modules, CommonJS, and the types of both. Links the package into web/ts/node_modules, so that the
# tests import it by its name, as its users do.
set -eu
cd "$(dirname "$0")"
out=../../gen/ts
sh ../install.sh .
rm -rf $out/dist
node_modules/.bin/tsc -p $out/tsconfig.json
node_modules/.bin/tsc -p $out/tsconfig.cjs.json
echo '{"type":"commonjs"}' >$out/dist/cjs/package.json
mkdir -p node_modules/@ordergate
ln -sfn ../../../../gen/ts node_modules/@ordergate/client
