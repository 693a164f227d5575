"""Layers and networks, under torch's names. ``module.py`` says what a module is."""

from tinycompress.nn import init as init
from tinycompress.nn.activation import (
    GELU as GELU,
    Dropout as Dropout,
    Identity as Identity,
    LeakyReLU as LeakyReLU,
    LogSoftmax as LogSoftmax,
    ReLU as ReLU,
    Sigmoid as Sigmoid,
    SiLU as SiLU,
    Softmax as Softmax,
    Tanh as Tanh,
)
from tinycompress.nn.containers import ModuleList as ModuleList, Sequential as Sequential
from tinycompress.nn.fusion import fusion as fusion, fusion_enabled as fusion_enabled
from tinycompress.nn.joining import Add as Add, Concat as Concat
from tinycompress.nn.layers import Conv2d as Conv2d, Linear as Linear
from tinycompress.nn.module import Module as Module, evaluation_mode as evaluation_mode
from tinycompress.nn.norm import (
    BatchNorm1d as BatchNorm1d,
    BatchNorm2d as BatchNorm2d,
    LayerNorm as LayerNorm,
)
from tinycompress.nn.notes import merge_notes as merge_notes, record_notes as record_notes
from tinycompress.nn.parameter import Parameter as Parameter
from tinycompress.nn.pooling import (
    AdaptiveAvgPool2d as AdaptiveAvgPool2d,
    AvgPool2d as AvgPool2d,
    Flatten as Flatten,
    MaxPool2d as MaxPool2d,
)
from tinycompress.nn.safetensors_io import (
    load_safetensors as load_safetensors,
    read_safetensors as read_safetensors,
    save_safetensors as save_safetensors,
)
from tinycompress.nn.summary import Summary as Summary, summary as summary
