"""Model archives small enough for tests: their network names the brightest colour."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from inference.archive import describe_files, write_archive


def make_archive(
    folder: Path, classes: Sequence[str] = ("Red", "Green", "Blue"), crop: int = 32
) -> Path:
    """Write `folder/model/` and `folder/model.tar.gz`, whose network names the brightest colour."""
    model = folder / "model"
    model.mkdir(parents=True)
    onnx.save(_network(len(classes), crop), model / "model.onnx")
    (model / "weights.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    for name, content in {
        "labels": list(classes),
        "preprocess": {
            "resize": crop + 8,
            "crop": crop,
            "interpolation": "bilinear",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
        },
        "config": {"classes": list(classes)},
        "metrics": {"valid_accuracy": 1.0},
    }.items():
        (model / f"{name}.json").write_text(json.dumps(content))
    write_manifest(model)
    archive = folder / "model.tar.gz"
    write_archive(model, archive)
    return archive


def write_manifest(model: Path, **changes: Any) -> None:
    """Write the manifest that fits the files of a model's folder."""
    manifest = {
        "format": 1,
        "files": describe_files(model),
        "backbone": "tiny_net",
        "precision": "fp32",
        "versions": {},
        "git_commit": "0" * 40,
        "dataset_fingerprint": "0" * 64,
    }
    (model / "manifest.json").write_text(json.dumps(manifest | changes))


def _network(classes: int, crop: int) -> onnx.ModelProto:
    weights = {
        "scale": np.float32(1 / 255),
        "colours": 10 * np.eye(3, classes, dtype=np.float32),
        "sides": np.array([1, 2], np.int64),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["floats", "scale"], ["pixels"]),
            helper.make_node("ReduceMean", ["pixels", "sides"], ["means"], keepdims=0),
            helper.make_node("MatMul", ["means", "colours"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=-1),
        ],
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", crop, crop, 3])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", classes])],
        [numpy_helper.from_array(np.asarray(v), name) for name, v in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
