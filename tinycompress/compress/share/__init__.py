"""Weight sharing: a layer's weights become a few numbers, and codes that say which.

In this order: ``kmeans.py`` (which numbers), ``layers.py`` (layers that hold them), ``model.py``
(a whole model), ``half.py`` (numbers of two bytes), ``report.py`` (what came of it).
"""

from tinycompress.compress.share.half import round_to_half as round_to_half
from tinycompress.compress.share.kmeans import kmeans_1d as kmeans_1d
from tinycompress.compress.share.layers import (
    SharedConv2d as SharedConv2d,
    SharedLayer as SharedLayer,
    SharedLinear as SharedLinear,
)
from tinycompress.compress.share.model import share_weights as share_weights, unshare as unshare
from tinycompress.compress.share.report import (
    Codebooks as Codebooks,
    LayerCodebook as LayerCodebook,
    codebooks as codebooks,
)
