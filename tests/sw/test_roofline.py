"""The roofline's figure shows what was measured."""

import json

import pytest
from nearflash.contract import DataError
from nearflash.offload.roofline import Work, draw_roofline

from bench.__main__ import main

WORK = [Work("conv", 128_000, 1_000, 4_000, 1_250, 1_000), Work("linear", 6_400, 8_000, 100, 1_100, 1_000),
        Work("add", 0, 500, 500, 80, 63)]


def test_points_lie_where_intensity_and_speed_put_them_below_the_roof():
    roof, bars = draw_roofline(WORK, 128, 8).axes
    line, conv, linear = roof.lines
    assert (conv.get_xdata()[0], conv.get_ydata()[0]) == (32, 102.4)
    assert (linear.get_xdata()[0], linear.get_ydata()[0]) == (0.8, pytest.approx(6400 / 1100))
    for x, y in zip(*line.get_data(), strict=True):
        assert y == pytest.approx(min(128, 8 * x))
    assert [t.get_text() for t in bars.get_yticklabels()] == ["add", "linear", "conv"]
    assert [p.get_width() for p in bars.patches] == [80, 1100, 1250, 63, 1000, 1000]


@pytest.mark.parametrize("work", [[], [Work("conv", 1, 1, 1, 0, 1)]])
def test_nothing_is_not_drawn(work):
    with pytest.raises(DataError, match="must be at least one"):
        draw_roofline(work, 128, 8)


def row(w):
    return {"operator": w.name, "macs_count": w.macs, "read_bytes": w.read_bytes, "written_bytes": w.written_bytes,
            "cycles": w.cycles, "bound_cycles": w.bound, "macs_per_cycle": 128, "beat_bytes": 8}


def test_the_bench_draws_what_it_wrote(tmp_path, capsys):
    figures = tmp_path / "tile.json"
    total = Work("all", 134_400, 9_500, 4_600, 2_430, 2_063)
    figures.write_text(json.dumps({"tensor_tile": [row(w) for w in [*WORK, total]]}))
    assert main(["tensor_tile", "--plot", str(tmp_path / "roof.png"), "--figures", str(figures)]) == 0
    assert (tmp_path / "roof.png").read_bytes().startswith(b"\x89PNG")
    figures.write_text(json.dumps({"tensor": []}))
    with pytest.raises(DataError, match=r"tile.json.*a file that `python -m bench tensor_tile --json` wrote"):
        main(["tensor_tile", "--plot", str(tmp_path / "roof.png"), "--figures", str(figures)])
    for wrong in (["tensor", "--plot", "a.png"], ["tensor_tile", "--figures", "a.json"],
                  ["tensor_tile", "--quick", "--plot", "a.png", "--figures", "a.json"]):
        with pytest.raises(SystemExit):
            main(wrong)
    assert "has no effect" in capsys.readouterr().err
