#!/bin/sh
# Sees to it that there is a Node that our tools run on (hey-api wants 22.18 or later) and an npm, and prints the folder to
# put in front of PATH:
#
#   PATH="$(sh web/node.sh):$PATH" npm --prefix web/ts test
#
# The Node in PATH is taken if it is new enough. Else on Debian and Ubuntu npm comes by apt (with sudo, unless root), on macOS
# Node by Homebrew. Where the system's Node is too old (Debian's is 18) npm fetches the one that web/node/package-lock.json
# pins by its hash, and an npm to match, into web/.node.
set -eu
cd "$(dirname "$0")"
bin=$PWD/.node/node_modules/.bin

say() { echo "web/node.sh: $*" >&2; }
fail() { say "$*"; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }
enough() { "$1" -e 'const [major, minor] = process.versions.node.split(".").map(Number); process.exit(major > 22 || (major === 22 && minor >= 18) ? 0 : 1)' 2>/dev/null; }
finish() { echo "$1"; exit 0; }
root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

if has node && has npm && enough node; then finish "$(dirname "$(command -v node)")"; fi
if enough "$bin/node"; then finish "$bin"; fi

case $(uname -s) in
Darwin)
  has brew || fail "install Node 22.18 or later, or Homebrew, and run this again"
  brew install node >&2
  finish "$(brew --prefix node)/bin"
  ;;
Linux) ;;
*) fail "install Node 22.18 or later and npm, and run this again" ;;
esac

if ! has npm; then
  has apt-get || fail "install Node 22.18 or later and npm, and run this again"
  has sudo || [ "$(id -u)" = 0 ] || fail "npm is missing; as root: apt-get install nodejs npm"
  say "installing nodejs and npm"
  root apt-get update -qq >/dev/null
  root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends nodejs npm >/dev/null
  if enough node; then finish "$(dirname "$(command -v node)")"; fi
fi

say "fetching Node into web/.node"
# Into a folder of its own first: what stands in web/.node is whole, and two runs at a time do no harm.
mkdir .node.$$
trap 'rm -rf .node.$$' EXIT
echo '*' >.node.$$/.gitignore
cp node/package.json node/package-lock.json node/.npmrc .node.$$
# The npm that comes with an old Node warns that the new npm is too new for it; so engine-strict is off.
(cd .node.$$ && npm ci --engine-strict=false --no-progress --loglevel=error >&2)
# An npm that drops the other architecture's package may drop this link too, which both of them have.
(cd .node.$$/node_modules/.bin && ln -sf ../node-linux-*/bin/node node)
if ! enough "$bin/node"; then
  rm -rf .node
  mv .node.$$ .node
fi
enough "$bin/node" || fail "the Node that was fetched does not run here; install Node 22.18 or later, and run this again"
finish "$bin"
