"""onnxruntime: W as an ONNX graph, float32 or statically quantized to int8. It only infers.

python -m benchmarks.peers.onnx_runtime PROBLEM.npz [int8]
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process

from benchmarks.peers.article_weights import NAMES, in_order
from benchmarks.peers.contender import Contender, cores, run
from benchmarks.problems import Problem, random_images


def graph(problem: Problem) -> onnx.ModelProto:
    """The ten layers, one node each."""
    layers = [
        ("Conv", ["conv1.weight", "conv1.bias"], {"kernel_shape": [3, 3]}),
        ("Relu", [], {}),
        ("MaxPool", [], {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Conv", ["conv2.weight", "conv2.bias"], {"kernel_shape": [3, 3]}),
        ("Relu", [], {}),
        ("MaxPool", [], {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Flatten", [], {}),
        ("Gemm", ["fc1.weight", "fc1.bias"], {"transB": 1}),
        ("Relu", [], {}),
        ("Gemm", ["fc2.weight", "fc2.bias"], {"transB": 1}),
    ]
    nodes = [
        helper.make_node(kind, [f"x{k}", *weights], [f"x{k + 1}"], **attributes)
        for k, (kind, weights, attributes) in enumerate(layers)
    ]
    weights = [
        numpy_helper.from_array(array, name)
        for name, array in zip(NAMES, in_order(problem), strict=True)
    ]
    x = helper.make_tensor_value_info("x0", TensorProto.FLOAT, ["N", 1, 28, 28])
    y = helper.make_tensor_value_info(f"x{len(layers)}", TensorProto.FLOAT, ["N", 10])
    whole = helper.make_graph(nodes, "W", [x], [y], weights)
    model = helper.make_model(whole, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model


class Calibration(quantization.CalibrationDataReader):
    """Four batches, from which the ranges of the activations are taken."""

    def __init__(self) -> None:
        self.batches = iter([{"x0": random_images(64, seed)[0]} for seed in range(10, 14)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.batches, None)


def quantized(source: Path) -> Path:
    prepared, target = source.with_suffix(".prepared.onnx"), source.with_suffix(".int8.onnx")
    quant_pre_process(source, prepared)
    quantization.quantize_static(
        prepared,
        target,
        Calibration(),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
    )
    return target


def build(problem: Problem, kind: str = "float32") -> Contender:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores()
    options.log_severity_level = 3
    # A thread that waits must not spin: the others take their turns meanwhile.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "w.onnx"
        onnx.save(graph(problem), path)
        if kind == "int8":
            path = quantized(path)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def infer(images: np.ndarray) -> np.ndarray:
        return session.run(None, {"x0": images})[0]

    version = {"onnxruntime": onnxruntime.__version__}
    return Contender(version, lambda images: images, infer)


if __name__ == "__main__":
    run(build)
