#!/bin/sh
# Sees to it that there is a Chromium for the tests of our pages and of the TypeScript client in a browser, and prints the path of
# its executable:
#
#   CHROMIUM="$(sh web/chromium.sh)" npm --prefix web/ts test
#
# CHROMIUM is taken if it is set, then a Chromium or Chrome that is installed. Else on Debian it comes by apt (with sudo, unless
# root), on macOS by Homebrew. playwright-core drives it and never fetches one of its own.
set -eu

say() { echo "web/chromium.sh: $*" >&2; }
fail() { say "$*"; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }
root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# finish prints the first Chromium that runs. Ubuntu's package `chromium-browser` is a stub that only names a snap: it does not run.
finish() {
  for name in chromium chromium-browser google-chrome google-chrome-stable \
    '/Applications/Chromium.app/Contents/MacOS/Chromium' '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome'; do
    if path=$(command -v "$name") && "$path" --version >/dev/null 2>&1; then
      echo "$path"
      exit 0
    fi
  done
}

if [ -n "${CHROMIUM:-}" ]; then
  "$CHROMIUM" --version >/dev/null 2>&1 || fail "CHROMIUM is $CHROMIUM, which does not run"
  echo "$CHROMIUM"
  exit 0
fi
finish
case $(uname -s) in
Darwin)
  has brew || fail "install Chromium or Chrome, or Homebrew, and run this again"
  say "installing google-chrome with Homebrew" # the cask of Chromium is unsigned, and macOS does not open it
  brew install --cask google-chrome >&2
  ;;
Linux)
  has apt-get || fail "install Chromium or Chrome, and run this again"
  has sudo || [ "$(id -u)" = 0 ] || fail "Chromium is missing; as root: apt-get install chromium"
  say "installing chromium"
  root apt-get -o DPkg::Lock::Timeout=120 update -qq >/dev/null
  root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 install -qq -y --no-install-recommends chromium >/dev/null
  ;;
*) fail "install Chromium or Chrome, and run this again" ;;
esac
finish
fail "the Chromium that was installed does not run; install Chromium or Chrome, and run this again"
