#!/usr/bin/env bash
# demo.sh OUT: the main job at the size of a laptop. Every line is a command you can run yourself.
set -euo pipefail
out=${1:-runs/demo}
# Huge pages for XLA's buffers: without them every training step on a CPU faults its memory in anew.
export GLIBC_TUNABLES=glibc.malloc.hugetlb=1
set -x
rt2 data build --data "$out/data" --robot-episodes 1500 --web-images 6000
rt2 data prepare --data "$out/data" --mixture tabletop_cofinetune_66
rt2 train --config configs/tabletop_demo.py --workdir "$out/run" --config.data_dir="$out/data"
rt2 eval --checkpoint "$out/run" --mode plan --reference data/checkpoints/tabletop_vlm --data "$out/data" \
  --episodes 6 --out "$out/report"
