"""Programs of random numbers that boards are tested with."""

from dataclasses import replace

import numpy as np
import pytest
from nearflash.board.random_tensors import random_tensors
from nearflash.cli.fit import sar_config
from nearflash.contract.boards import PYNQ_BOARDS
from nearflash.contract.tensor import OPERATORS, DescriptorError, Op, TensorConfig
from nearflash.reference.tensor import TensorModel


@pytest.mark.parametrize("board", PYNQ_BOARDS, ids=lambda b: b.name)
@pytest.mark.parametrize("operators", [OPERATORS, ("conv", "add"), ("layernorm", "attention")])
def test_each_operator_runs_once_and_spreads_over_its_codes(board, operators):
    """On the device that the search for a despeckler's engine starts from, which has no lookup engine."""
    base = sar_config(board, "base")
    assert base.lookup.max_tables == 0
    config = replace(base, tensor=TensorConfig(rows=32, columns=32, dram_bytes=1 << 16, operators=operators))
    seen = []
    program, model = random_tensors(config), TensorModel(config, lambda d, y: seen.append((d["op"], y)))
    model.load(0, program.image)
    output = model.run(0, program.content)
    assert [Op(op).name.lower() for op, _ in seen] == list(operators)
    assert program.operators == len(operators)
    assert len(output) == sum(y.nbytes for _, y in seen)
    assert all(np.std(y) > 15 and len(np.unique(y)) > 30 for _, y in seen)
    assert random_tensors(config, seed=1).content != program.content


def test_a_region_that_is_too_small_is_named():
    config = replace(sar_config(PYNQ_BOARDS[0], "base"), tensor=TensorConfig(rows=32, columns=32, dram_bytes=4096))
    with pytest.raises(DescriptorError, match=r"at most \d+: \d+ bytes of a region of 4096"):
        random_tensors(config)
