#!/bin/sh
# Trains both networks from nothing: three times without one fold, which is measured, and once on all photos.
#   train.sh FOLDER OUT [LOCATOR_STEPS LINE_READER_STEPS]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=$1 out=$2 locator=${3:-900} line_reader=${4:-1500}
mkdir -p "$out"
python3 "$here/pack.py" "$folder" "$out/pack.zip"
python3 "$here/draw.py" lines "$out/lines.npz" --count 28000
python3 "$here/draw.py" photos "$out/photos.npz" --count 700
for fold in 0 1 2 none; do
    python3 "$here/train.py" locator "$out/pack.zip" "$out" --fold $fold --drawn "$out/photos.npz" --steps "$locator"
    python3 "$here/train.py" line_reader "$out/pack.zip" "$out" --fold $fold --drawn "$out/lines.npz" --steps "$line_reader"
done
