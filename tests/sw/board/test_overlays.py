"""What ships for boards is what would be made again from its own configuration."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from nearflash.board.hwh import write_hwh
from nearflash.board.random_model import random_model, random_queries
from nearflash.contract import BOARDS, ConfigError, DataError, DeviceConfig
from nearflash.contract.boards import PYNQ_BOARDS
from nearflash.contract.shell import board_config
from nearflash.overlays import DESIGNS, compiled_model, design_config, overlay_file
from nearflash.reference.model import IntegerModel


def shipped(design, board):
    return overlay_file(design, board), design_config(design, board)


@pytest.mark.parametrize("board", PYNQ_BOARDS, ids=lambda b: b.name)
@pytest.mark.parametrize("design", DESIGNS)
def test_hand_off_files(design, board):
    path, config = shipped(design, board)
    assert board_config(config, board) == config
    assert path.read_text() == write_hwh(config, board, design)
    assert compiled_model(design).on(config).config is config


def test_what_does_not_ship_is_refused():
    for design, board in (("moviestweeting", "pynq-z2"), ("movietweetings", "xc7a200t")):
        with pytest.raises(ConfigError, match="must be one that ships"):
            design_config(design, BOARDS[board])


def test_the_shipped_model_answers_the_same_on_every_board():
    model = compiled_model("movietweetings")
    queries = random_queries(model, 3)
    answers = {IntegerModel(model.on(shipped("movietweetings", b)[1])).logits(*queries)[1].tobytes() for b in PYNQ_BOARDS}
    assert len(answers) == 1


def test_a_model_for_another_device_is_refused_by_its_node():
    model = compiled_model("movietweetings")
    graph = model.config.mlp.graph
    wider = replace(model.config, mlp=replace(model.config.mlp, graph=tuple(
        replace(n, width=n.width * 2) if n.name == "bot0" else n for n in graph)))
    with pytest.raises(DataError, match=r"config\.mlp\.graph\.bot0"):
        model.on(wider)
    with pytest.raises(DataError, match="lacks node"):
        model.on(replace(model.config, mlp=replace(model.config.mlp, graph=tuple(
            n for n in graph if n.name in ("dense", "bot0")))))
    with pytest.raises(DataError, match=r"acc_bits"):
        model.on(replace(model.config, lookup=replace(model.config.lookup, acc_bits=50)))


@pytest.mark.parametrize("formats", [("fp32",), ("fp16",), ("int8",)])
def test_random_models_fit_any_device(formats):
    config = shipped("movietweetings", PYNQ_BOARDS[0])[1]
    config = replace(config, lookup=replace(config.lookup, formats=formats))
    model = random_model(config, rows=16)
    dense, bags = random_queries(model, 5)
    logits = IntegerModel(model).logits(dense, bags)[1]
    assert logits.shape == (5, 1)
    assert len(np.unique(logits)) > 1
    tiny = DeviceConfig.preset("tiny")
    pooled, bad = IntegerModel(random_model(tiny)).pool(random_queries(random_model(tiny), 4)[1])
    assert [p.shape for p in pooled] == [(4, 16), (4, 16)]
    assert not bad.any()
