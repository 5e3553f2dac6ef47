#!/usr/bin/env bash
# ensure_browser.sh: a headless Chromium for the test of the status page. Found, or installed when root, or named.
set -euo pipefail
find_browser() {
  for name in chromium-headless-shell chromium chromium-browser google-chrome; do
    command -v "$name" && return
  done
  return 1
}
if find_browser; then
  exit 0
fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "installing chromium-headless-shell for the test of the status page" >&2
  apt-get update -qq >&2
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium-headless-shell >/dev/null
fi
if ! find_browser; then
  echo "rt2: the test of the status page needs Chromium: install one (Debian: apt-get install chromium-headless-shell)" >&2
  exit 2
fi
