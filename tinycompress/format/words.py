"""Words that a file writes as one byte, because nearly every architecture uses them.

The number of a word is its place in this list, and files keep it for ever: new words go to the end,
and none is moved or taken away. There is room for 128.
"""

from __future__ import annotations

_MODELS = "article-cnn lenet-300-100 lenet-5 tiny-cnn"  # from 0
_LAYERS = """
    Sequential ModuleList Linear Conv2d BatchNorm1d BatchNorm2d LayerNorm Dropout Flatten Identity
    ReLU LeakyReLU Sigmoid Tanh GELU SiLU Softmax LogSoftmax MaxPool2d AvgPool2d
    AdaptiveAvgPool2d QuantizedLinear QuantizedConv2d"""  # from 4
_ARGUMENTS = """
    in_features out_features bias in_channels out_channels kernel_size stride padding dilation
    groups num_features eps momentum affine normalized_shape elementwise_affine p start_dim end_dim
    negative_slope axis ceil_mode count_include_pad output_size classes width
    quantization bits scheme granularity group_size symmetric per_tensor per_channel per_group
"""  # from 27
_NAMES = """
    conv1 conv2 conv3 conv4 conv fc1 fc2 fc3 fc4 fc relu1 relu2 relu3 relu4 relu
    pool1 pool2 pool bn1 bn2 bn3 bn4 bn flatten dropout"""  # from 62
_INTEGER = """
    Add Concat IntegerConv2d IntegerLinear IntegerAdd IntegerConcat QuantizeInput IntegerReLU
    IntegerMaxPool2d IntegerAvgPool2d IntegerAdaptiveAvgPool2d IntegerFlatten IntegerIdentity
    OnFloats input output uint8 DynamicLinear DynamicConv2d dynamic activations"""  # from 87
_SHARED = "SharedLinear SharedConv2d"  # from 108

_ALL = (_MODELS, _LAYERS, _ARGUMENTS, _NAMES, _INTEGER, _SHARED)

WORDS: tuple[str, ...] = tuple(" ".join(_ALL).split())
NUMBERS: dict[str, int] = {word: number for number, word in enumerate(WORDS)}
