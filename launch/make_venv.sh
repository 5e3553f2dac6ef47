#!/usr/bin/env bash
# make_venv.sh DIR ARGUMENTS: a virtual environment at DIR, in which `pip install ARGUMENTS` takes the pinned versions,
# or those of the file $CONSTRAINTS.
set -euo pipefail
dir=$1
shift
python=""
for name in python3 python3.13 python3.12 python3.11 python; do
  if command -v "$name" >/dev/null && "$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
    python=$name
    break
  fi
done
if [ -z "$python" ]; then
  echo "rt2: needs Python 3.11, 3.12 or 3.13 on PATH and found none: install one (Debian: apt-get install python3 python3-venv)" >&2
  exit 2
fi
echo "setting up $dir with $($python --version) (some minutes the first time)"
"$python" -m venv "$dir"
"$dir/bin/python" -m pip install --quiet --disable-pip-version-check -c "${CONSTRAINTS:-constraints.txt}" "$@" 2> >(grep -v '^WARNING: Location' >&2)
