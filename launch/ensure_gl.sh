#!/usr/bin/env bash
# ensure_gl.sh PYTHON: MuJoCo needs EGL or OSMesa to render without a screen. Found, or installed when root, or named.
set -euo pipefail
python=$1
packages="libegl1 libgl1 libgl1-mesa-dri"
if "$python" -m rt2_jax.sim.world.gl >/dev/null 2>&1; then
  exit 0
fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "installing $packages for rendering"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $packages >/dev/null
fi
"$python" -m rt2_jax.sim.world.gl
