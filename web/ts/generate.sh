#!/bin/sh
# Makes gen/ts, the TypeScript package, anew: equal input gives equal bytes, and nothing is left there from before but
# node_modules and dist. Needs Node as web/node.sh finds it, gen/api (internal/bundle) and gen/ts/src/errors.gen.ts (internal/errgen).
#
# The tools (hey-api, tsc) are installed once, in web/ts/node_modules, and are used from there for gen/ts too: the package
# itself depends on nothing and has no node_modules.
set -eu
cd "$(dirname "$0")"
out=../../gen/ts
for input in ../../gen/api/codegen.json ../../gen/api/openapi.json $out/src/errors.gen.ts; do
  [ -f "$input" ] || { echo "generate.sh: ${input#../../} is missing; make gen writes it before this" >&2; exit 1; }
done
sh ../install.sh .

find $out -mindepth 1 -maxdepth 1 ! -name src ! -name dist ! -name node_modules -exec rm -rf {} +
find $out/src -mindepth 1 -maxdepth 1 ! -name errors.gen.ts -exec rm -rf {} +
node_modules/.bin/openapi-ts --silent
node operations.mjs ../../gen/api/openapi.json $out/src
cp -R package/. $out/
cp ../../LICENSE $out/
