"""The report on codebooks: counts that add up, and an entropy that is Shannon's."""

import json

import numpy as np
import pytest
from share_cases import small

import tinycompress as tc
from tinycompress import nn
from tinycompress.compress.share import codebooks


def layer_with(numbers, codes):
    layer = tc.share_weights(nn.Linear(len(codes[0]), len(codes)))
    layer.codebook = nn.Parameter(np.array(numbers, "f"))
    layer.codes = np.array(codes, np.uint8)
    return layer


def test_counts_are_of_each_centroid_and_pruned_weights_apart(device):
    layer = layer_with([2.0, -1.0, 3.0], [[1, 1, 0, 2], [3, 1, 0, 0]]).to(device)
    report = codebooks(layer)[""]
    assert (report.weights, report.pruned) == (8, 3)
    assert report.centroids == (-1.0, 2.0, 3.0)  # ascending, whatever order training left
    assert report.counts == (1, 3, 1)
    assert (report.clusters, report.bits) == (3, 2)


@pytest.mark.parametrize(
    ("counts", "entropy"),
    [([4], 0), ([2, 2], 1), ([1, 1, 2], 1.5), ([1] * 8, 3), ([2, 0, 2], 1)],
    ids=str,
)
def test_entropy_is_in_bits_for_each_weight_that_is_left(counts, entropy):
    codes = [*np.repeat(np.arange(len(counts)) + 1, counts).tolist(), 0, 0, 0]
    report = codebooks(layer_with(np.arange(len(counts)) + 1.0, [codes]))[""]
    assert report.entropy == pytest.approx(entropy, abs=1e-15)


@pytest.mark.parametrize(("clusters", "bits"), [(1, 0), (2, 1), (3, 2), (32, 5), (33, 6)], ids=str)
def test_bits_are_those_of_a_fixed_length(clusters, bits):
    assert codebooks(layer_with(np.ones(clusters), [[0]]))[""].bits == bits


def test_a_layer_without_centroids_needs_no_bits():
    report = codebooks(layer_with([], [[0, 0]]))[""]
    assert (report.clusters, report.bits, report.entropy, report.pruned) == (0, 0, 0.0, 2)
    assert "(model)" in str(codebooks(layer_with([], [[0, 0]])))


def test_all_layers_of_a_model_are_there():
    model = tc.prune(small(), 0.75)
    report = codebooks(tc.share_weights(model, 3))
    assert [layer.name for layer in report.layers] == ["conv1", "conv2", "fc"]
    for layer in report.layers:
        assert sum(layer.counts) + layer.pruned == layer.weights
        assert layer.entropy <= np.log2(layer.clusters)
    zeros = tc.sparsity_report(model)
    assert [x.pruned for x in report.layers] == [x.zeros for x in zeros.layers]
    assert json.loads(json.dumps(report.to_list()))[2]["counts"] == list(report["fc"].counts)
    lines = str(report).splitlines()
    assert lines[0].split()[:4] == ["layer", "weights", "kept", "clusters"]
    assert [line.split()[0] for line in lines[1:]] == ["conv1", "conv2", "fc"]


def test_what_is_not_there_is_named():
    with pytest.raises(ValueError, match=r"TinyCNN has shared weights; tc\.share_weights"):
        codebooks(small())
    with pytest.raises(TypeError, match="codebooks takes a model"):
        codebooks("m")
    with pytest.raises(KeyError, match="'fc9'; there are conv1, conv2, fc"):
        codebooks(tc.share_weights(small()))["fc9"]
