"""The article's listings do what docs/article.md says, and the page shows every section."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

import tinycompress as tc
from tinycompress import nn

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))  # the tools import each other by name

import article_code  # noqa: E402
import article_listings  # noqa: E402
import article_models  # noqa: E402

PAGE = (ROOT / "docs" / "article.md").read_text("utf-8")
BLOCK = re.compile(r"```text\n\$ python tools/article_listings.py (\S+)\n(.*?)```", re.DOTALL)


@pytest.fixture
def model():
    return nn.Sequential({"fc1": nn.Linear(40, 30), "relu": nn.ReLU(), "fc2": nn.Linear(30, 10)})


def test_the_page_shows_the_output_of_every_section():
    blocks = BLOCK.findall(PAGE)
    assert [section for section, _ in blocks] == list(article_listings.SECTIONS)
    assert all(output.strip() for _, output in blocks)


def test_the_shown_output_that_needs_no_training_is_what_the_tool_prints(monkeypatch):
    monkeypatch.setattr(article_listings, "trained", tc.models.ArticleCNN)
    assert dict(BLOCK.findall(PAGE))["4"].splitlines() == article_listings.shapes()


def test_update_replaces_one_block_and_nothing_else():
    page = "before\n```text\n$ python tools/article_listings.py 4\nold\n```\nafter\n"
    assert article_listings.updated(page, "4", ["new", "\\1"]) == page.replace("old", "new\n\\1")
    with pytest.raises(SystemExit, match=r"no block for section 4\.1"):
        article_listings.updated(page, "4.1", ["new"])


def test_the_quantize_listing_zeroes_every_weight_below_128(model):
    model.fc1.weight.data[0, 0], model.fc1.weight.data[0, 1] = 129, 127
    listing = article_code.listing_quantize(model, 8)
    assert listing.fc1.weight.data[0, 0] == 256
    assert int((listing.fc1.weight.data != 0).sum()) == 1
    assert not listing.fc2.weight.data.any()
    assert set(np.abs(listing.fc1.bias.data)) <= {0.0}


def test_the_quantize_listing_with_a_negative_number_is_a_fixed_grid(model):
    listing = article_code.listing_quantize(model, -8)
    steps = listing.fc1.weight.data * 256
    np.testing.assert_array_equal(steps, np.rint(steps))
    assert np.abs(listing.fc1.weight.data - model.fc1.weight.data).max() <= 1 / 512


def test_the_prune_listing_looks_for_a_weight_that_a_network_does_not_have(model):
    with pytest.raises(AttributeError, match="weight"):
        article_code.listing_prune(model, 0.5)


def test_the_prune_listing_multiplies_a_bias_by_a_mask_of_another_shape(model):
    with pytest.raises(ValueError, match="broadcast"):
        article_code.listing_prune(model, 0.5, repaired="only the device")


@pytest.mark.parametrize("ratio", [0.1, 0.9])
def test_the_prune_listing_keeps_what_it_should_drop(model, ratio):
    listing = article_code.listing_prune(model, ratio, repaired=True)
    kept = (listing.fc1.weight.data != 0).mean()
    assert abs(kept - ratio) < 0.05
    assert listing.fc1.weight.mask is None  # so the zeros do not hold


def test_the_distill_listing_never_asks_its_teacher():
    class Silent(nn.Module):
        def forward(self, x):
            raise AssertionError("the teacher was asked")

    data = tc.data.mnist()[0].take(64)
    article_code.listing_distill(Silent(), tc.models.TinyCNN(), data)


def test_the_formula_moves_the_zeros_of_a_pruned_model_and_the_default_keeps_them(model):
    thin = tc.prune(model, 0.9)
    assert article_models.zeros(thin) == "90.00%"
    assert article_models.zeros(article_models.by_formula(thin, 8)) == "0.00%"
    assert float(article_models.zeros(tc.quantize(thin))[:-1]) >= 90
