"""Loss by block: it points at the block that loses."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from nearflash.offload.parts import parts_of
from nearflash.sar import network
from nearflash.sar.by_block import loss_by_block
from nearflash.sar.evaluate import CleanImage
from nearflash.sar.fabric import calibration_file
from nearflash.sar.models import build
from small_despeckler import scales

OPTIONS = {"width": 8, "scales": 2}
BLOCKS = ["stem", "encoder.0", "encoder.1", "down.0", "up.0", "decoder.0", "out"]


@pytest.fixture
def small():
    torch.manual_seed(6)
    return build("unet", **OPTIONS).eval(), (torch.rand(1, 1, 16, 16), torch.tensor([2.0]))


def test_parts_are_the_blocks_and_share_no_operator(small):
    parts = parts_of(*small)
    assert [p.name for p in parts] == BLOCKS
    assert sum(len(p.nodes) for p in parts) == len(set().union(*(p.nodes for p in parts)))
    assert [p.operators for p in parts] == [1, 2, 2, 1, 1, 2, 2]  # sums are part of the convolution before, but the last


def test_the_block_whose_numbers_have_too_few_codes_is_found(small, tmp_path):
    """The values inside decoder.0 get scales for numbers 200 times larger: about one code is left of them."""
    net, example = small
    path = tmp_path / "small.npz"
    network.write_weights(path, net, {"model": "unet", "options": OPTIONS})
    found = scales(net, example, hashlib.sha256(path.read_bytes()).hexdigest())
    within = next(p for p in parts_of(net, example) if p.name == "decoder.0").nodes
    first, _ = (n for n in found.largest if n in within and n.startswith("relu"))  # between the convolutions, and behind
    replace(found, largest=found.largest | {first: 200 * found.largest[first]}).save(calibration_file(path))
    images = [CleanImage("a.png", np.random.default_rng(1).integers(20, 90, (16, 24)).astype(np.uint8))]
    result = loss_by_block(images, "unet", 4, checkpoint=path)
    rows = {row["block"]: row for row in result["blocks"]}
    assert list(rows) == BLOCKS
    others = [name for name in BLOCKS if name != "decoder.0"]
    assert abs(rows["decoder.0"]["only_lost_db"]) > 10 * max(abs(rows[n]["only_lost_db"]) for n in others)
    assert abs(rows["decoder.0"]["without_lost_db"]) < 0.1 * abs(result["lost_db"])
    for name in others:
        assert rows[name]["without_lost_db"] == pytest.approx(result["lost_db"], rel=0.2)
