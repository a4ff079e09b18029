"""A file for MediaPipe's image segmenter whose output is known: one convolution that classifies pixels by color."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import flatbuffers
import numpy as np
from mediapipe.tasks.metadata import metadata_schema_py_generated as notes
from mediapipe.tasks.metadata import schema_py_generated as tflite

from latentsync.fileio import atomic_write
from latentsync.weights.catalog import SELFIE_SEGMENTER

Color = tuple[int, int, int]

CLASS_COLORS: tuple[Color, ...] = ((0, 0, 255), (0, 0, 0), (255, 255, 0), (255, 128, 96), (0, 255, 255), (0, 255, 0))
"""RGB of background, hair, body skin, face skin, clothes and others: a pixel has the class of the nearest color."""

SHARPNESS = 40.0  # of the softmax, for colors from 0 to 1
SIDE_PX = 256
CONV_2D, SOFTMAX, IDENTIFIER = 3, 25, b"TFL3"


def write_toy_segmenter(path: Path, colors: Sequence[Color] = CLASS_COLORS) -> Path:
    """Write the file. It is filled up to the size of the published one, which loading checks."""
    content = _network(np.array(colors, np.float32) / 255)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, content + bytes(SELFIE_SEGMENTER.size_bytes - len(content)))
    return path


def _network(colors: np.ndarray) -> bytes:
    """softmax(-SHARPNESS * squared distance of the pixel to each color), which is linear in the pixel."""
    weights, bias = 2 * SHARPNESS * colors, -SHARPNESS * (colors**2).sum(axis=1)
    classes = len(colors)
    model = tflite.ModelT()
    model.version = 3
    model.buffers = [tflite.BufferT() for _ in range(4)]
    contents = (weights.astype("<f4").tobytes(), bias.astype("<f4").tobytes(), _metadata(classes))
    for buffer, content in zip(model.buffers[1:], contents, strict=True):
        buffer.data = np.frombuffer(content, np.uint8)
    entry = tflite.MetadataT()
    entry.name, entry.buffer = b"TFLITE_METADATA", 3
    model.metadata = [entry]
    shapes = (("input", (1, SIDE_PX, SIDE_PX, 3), 0), ("weights", (classes, 1, 1, 3), 1), ("bias", (classes,), 2))
    shapes += (("logits", (1, SIDE_PX, SIDE_PX, classes), 0), ("output", (1, SIDE_PX, SIDE_PX, classes), 0))
    graph = tflite.SubGraphT()
    graph.tensors = [_tensor(*shape) for shape in shapes]
    graph.inputs, graph.outputs = [0], [4]
    graph.operators = [
        _operator(0, [0, 1, 2], 3, tflite.BuiltinOptions.Conv2DOptions, _convolution()),
        _operator(1, [3], 4, tflite.BuiltinOptions.SoftmaxOptions, _softmax()),
    ]
    model.subgraphs = [graph]
    model.operatorCodes = [_code(CONV_2D), _code(SOFTMAX)]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def _metadata(classes: int) -> bytes:
    """MediaPipe's notes on the tensors: pixels are divided by 255."""
    unit, options = notes.ProcessUnitT(), notes.NormalizationOptionsT()
    options.mean, options.std = [0.0], [255.0]
    unit.optionsType, unit.options = notes.ProcessUnitOptions.NormalizationOptions, options
    image, masks, graph = notes.TensorMetadataT(), notes.TensorMetadataT(), notes.SubGraphMetadataT()
    image.processUnits = [unit]
    graph.inputTensorMetadata, graph.outputTensorMetadata = [image], [masks]
    root = notes.ModelMetadataT()
    root.name, root.subgraphMetadata = f"toy segmenter of {classes} classes".encode(), [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(root.Pack(builder), file_identifier=b"M001")
    return bytes(builder.Output())


def _tensor(name: str, shape: tuple[int, ...], buffer: int) -> tflite.TensorT:
    tensor = tflite.TensorT()
    tensor.name, tensor.shape, tensor.buffer, tensor.type = name.encode(), list(shape), buffer, 0
    return tensor


def _operator(code: int, inputs: list[int], output: int, kind: int, options: object) -> tflite.OperatorT:
    operator = tflite.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = code, inputs, [output]
    operator.builtinOptionsType, operator.builtinOptions = kind, options
    return operator


def _convolution() -> tflite.Conv2DOptionsT:
    options = tflite.Conv2DOptionsT()
    options.padding, options.strideW, options.strideH = 1, 1, 1
    options.dilationWFactor, options.dilationHFactor = 1, 1
    return options


def _softmax() -> tflite.SoftmaxOptionsT:
    options = tflite.SoftmaxOptionsT()
    options.beta = 1.0
    return options


def _code(builtin: int) -> tflite.OperatorCodeT:
    code = tflite.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = builtin
    code.version = 1
    return code
