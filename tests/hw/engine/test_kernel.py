"""The multiplier array in all its forms: the same sums in the same cycles."""

import itertools
import random
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from nearflash.contract import ConfigError, DeviceConfig, MlpConfig, Node
from nearflash.contract.config import PRIMITIVES
from nearflash.contract.mlp import kernel_latency
from nearflash_hw.engine import products
from nearflash_hw.engine.kernel import Kernel
from nearflash_hw.verilog import to_verilog
from nearflash_sim import backend
from nearflash_sim.bench import simulate
from nearflash_sim.models.dsp48 import Dsp48
from yosys_share import XILINX

CORNERS_X, CORNERS_W = (-127, 127, 0, 1, -1), (-128, 127, 0, 1, -1)


@pytest.fixture(autouse=True)
def simulated_slices(request, monkeypatch):
    if "verilog" not in request.node.name:
        monkeypatch.setattr(products, "Instance", Dsp48)


def steps_of(kr, kc, seed, act_bits=8, weight_bits=8, number=150):
    """(x, w) of each step: every pair of rows meets every pair of corners, all columns alike (the largest sums), then
    corners and anything else at random."""
    rng = random.Random(seed)
    hx, hw = (1 << act_bits - 1) - 1, (1 << weight_bits - 1) - 1
    steps = []
    for x, w0, w1 in itertools.product((-hx, hx, 1), (-hw - 1, hw, 0, -1), (-hw - 1, hw, 0, -1)):
        steps.append(([x] * kc, [(w0, w1)[r % 2] for r in range(kr) for _ in range(kc)]))
    for k in range(number):
        pick = rng.choice if k % 2 else None
        steps.append(([pick(CORNERS_X) if pick else rng.randint(-hx, hx) for _ in range(kc)],
                      [pick(CORNERS_W) if pick else rng.randint(-hw - 1, hw) for _ in range(kr * kc)]))
    return steps


def sums_of(x, w, kr):
    return (np.array(w).reshape(kr, -1) @ np.array(x)).tolist()


def schedule(dut, steps, seed):
    """(inputs of each cycle: valid, x, w, restart; cycle -> sums): steps with gaps between, whose words must not matter."""
    kr, rng, total = dut.kr, random.Random(seed), [0] * dut.kr
    cycles, restarts, expected = [], {}, {}
    for x, w in steps:
        while rng.random() < 0.25:
            cycles.append((0, [rng.randint(-128, 127) for _ in x], [rng.randint(-128, 127) for _ in w]))
        at = len(cycles) + dut.latency
        first = not expected or not dut.acc_bits or rng.random() < 0.2
        restarts[at - 1] = int(first)
        total = [s + (0 if first else t) for s, t in zip(sums_of(x, w, kr), total, strict=True)]
        expected[at] = total
        cycles.append((1, x, w))
    cycles += [(0, *steps[0])] * 10
    return [(*c, restarts.get(k, rng.randint(0, 1))) for k, c in enumerate(cycles)], expected


def run(kr, kc, act_bits=8, weight_bits=8, seed=1, number=150, **form):
    dut = Kernel(kr, kc, act_bits, weight_bits, **form)
    assert dut.latency == kernel_latency(kc)
    cycles, expected = schedule(dut, steps_of(kr, kc, seed, act_bits, weight_bits, number), seed)
    got = []

    async def drive(ctx):
        for valid, x, w, restart in cycles:
            ctx.set(dut.valid, valid)
            ctx.set(dut.x, x)
            ctx.set(dut.w, w)
            if dut.acc_bits:
                ctx.set(dut.restart, restart)
            _, _, sums = await ctx.tick().sample(dut.sums)
            got.append(list(sums))

    simulate(dut, [drive], until=lambda: len(got) == len(cycles), max_cycles=len(cycles) + 5, settle=0)
    assert {k: got[k] for k in expected} == expected


@pytest.mark.parametrize("primitive", PRIMITIVES)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("kr", "kc"), [(1, 1), (2, 1), (2, 2), (3, 4), (2, 8), (5, 16)])
def test_every_form_gives_the_same_sums(kr, kc, packed, primitive):
    run(kr, kc, packed=packed, primitive=primitive, number=100 // kc + 20)


@pytest.mark.parametrize(("kr", "kc", "lut_rows", "form"), [
    (2, 1, 1, {}), (3, 4, 2, {"packed": True}), (4, 2, 2, {"packed": True}),
    (5, 8, 2, {"packed": True, "primitive": "dsp48e2"}),
    (4, 4, 3, {"primitive": "dsp48e1"}), (3, 2, 1, {"act_bits": 16, "weight_bits": 16}), (8, 16, 4, {"packed": True})])
def test_rows_of_luts_give_the_same_sums(kr, kc, lut_rows, form):
    run(kr, kc, lut_rows=lut_rows, number=100 // kc + 20, **form)


@pytest.mark.parametrize("primitive", PRIMITIVES)
@pytest.mark.parametrize(("act_bits", "weight_bits"), [(16, 16), (16, 8), (8, 16)])
def test_wide_operands(act_bits, weight_bits, primitive):
    run(2, 4, act_bits, weight_bits, primitive=primitive, number=40)


@pytest.mark.parametrize(("kr", "kc", "primitive"), [
    (3, 1, "inferred"), (3, 1, "dsp48e1"), (3, 1, "dsp48e2"), (2, 2, "dsp48e2"), (2, 4, "dsp48e2")])
def test_sums_accumulate_in_the_slices(kr, kc, primitive):
    run(kr, kc, primitive=primitive, acc_bits=15 + 8)


def test_what_slices_cannot_do_is_refused():
    for form in ({"acc_bits": 20}, {"acc_bits": 20, "primitive": "dsp48e1"}, {"acc_bits": 20, "packed": True}):
        with pytest.raises(ValueError, match="accumulate"):
            Kernel(2, 4, 8, 8, **form)
    with pytest.raises(ValueError, match="8 bits"):
        Kernel(2, 4, 8, 16, packed=True)
    with pytest.raises(ValueError, match="dsp48e9"):
        Kernel(2, 4, 8, 8, primitive="dsp48e9")
    with pytest.raises(ValueError, match="accumulate"):
        Kernel(2, 1, 8, 8, acc_bits=20, lut_rows=1)
    assert Kernel.accumulates(2, 1, False, "inferred")
    assert not Kernel.accumulates(2, 1, False, "inferred", 1)
    for rows in (-1, 2):
        with pytest.raises(ValueError, match=rf"lut_rows = {rows}"):
            Kernel(2, 1, 8, 8, lut_rows=rows)


def test_config_says_what_packing_needs():
    tiny = DeviceConfig.preset("tiny")
    graph = (Node("dense", "dense", 8), Node("a", "fc", 8, ("dense",)), Node("o", "fc", 1, ("a",)))
    config = replace(tiny, mlp=MlpConfig(graph, packed=True, primitive="dsp48e1"))
    assert DeviceConfig.from_toml(config.to_toml()) == config
    assert config.design_id == replace(config, mlp=MlpConfig(graph, packed=True)).design_id
    assert config.design_id != replace(config, mlp=MlpConfig(graph)).design_id
    soft = replace(config, mlp=MlpConfig((graph[0], replace(graph[1], kr=4, lut_rows=2), graph[2])))
    hard = replace(config, mlp=MlpConfig((graph[0], replace(graph[1], kr=4), graph[2])))
    assert DeviceConfig.from_toml(soft.to_toml()) == soft != hard
    assert soft.design_id == hard.design_id  # same answers in the same cycles
    for rows in (-1, 4):
        with pytest.raises(ConfigError, match=rf"lut_rows.*{rows}.*less than kr \(4\)"):
            replace(tiny, mlp=MlpConfig((graph[0], replace(graph[1], kr=4, lut_rows=rows), graph[2])))
    with pytest.raises(ConfigError, match="act_bits"):
        replace(tiny, mlp=MlpConfig(graph, packed=True, act_bits=16))
    with pytest.raises(ConfigError, match="'a' has 16"):
        replace(tiny, mlp=MlpConfig((graph[0], replace(graph[1], weight_bits=16), graph[2]), packed=True))
    for wrong in ({"packed": 1}, {"primitive": "dsp48"}):
        with pytest.raises(ConfigError, match="must be"):
            replace(tiny, mlp=MlpConfig(graph, **wrong))


def test_simulated_device_infers(monkeypatch):
    built = []
    monkeypatch.setattr(backend, "cached_verilog", lambda key, make: built.append(key))
    monkeypatch.setattr(backend, "build_library", lambda *args, **kwargs: None)
    backend.build(replace(DeviceConfig.preset("tiny"), mlp=MlpConfig(packed=True, primitive="dsp48e2")))
    assert "packed=True, primitive='inferred'" in built[0]


BENCH = """
module bench;
  reg clk = 0, rst = 0;
  reg [{inputs} - 1:0] vectors [0:{cycles} - 1];
  reg [{inputs} - 1:0] now = 0;
  wire [{outputs} - 1:0] sums;
  integer k;
  kernel dut(.clk(clk), .rst(rst), .valid(now[0]), {restart}
             .x(now[{x_at}+:{x_bits}]), .w(now[{w_at}+:{w_bits}]), .sums(sums));
  initial begin
    $readmemh("vectors.hex", vectors);
    for (k = 0; k < {cycles}; k = k + 1) begin
      now = vectors[k]; #5; $display("%h", sums); clk = 1; #5; clk = 0;
    end
    $finish;
  end
endmodule
"""


@pytest.mark.skipif(shutil.which("iverilog") is None, reason="needs Icarus Verilog")
@pytest.mark.parametrize(("kr", "kc", "form"), [
    (3, 1, {"acc_bits": 23}), (3, 4, {}), (5, 1, {"packed": True}), (3, 4, {"packed": True}), (2, 2, {"packed": True})])
def test_verilog_of_instances(kr, kc, form, tmp_path):
    """The generated Verilog with Yosys' own model of the DSP48E1 in the place of the slice."""
    dut = Kernel(kr, kc, 8, 8, primitive="dsp48e1", **form)
    cycles, expected = schedule(dut, steps_of(kr, kc, 2, number=60), 2)
    verilog = to_verilog(dut, "kernel")
    assert verilog.count("DSP48E1 #(") == (kr + 1) // 2 * kc if dut.products.packed else kr * kc
    (tmp_path / "kernel.v").write_text(verilog)
    check_verilog(dut, [tmp_path / "kernel.v", XILINX / "cells_sim.v"], cycles, expected, tmp_path)


@pytest.mark.skipif(shutil.which("iverilog") is None, reason="needs Icarus Verilog")
@pytest.mark.parametrize(("kr", "kc", "form", "slices", "registers"), [
    (2, 1, {"acc_bits": 23}, 2, 2), (2, 4, {}, 8, 3), (3, 2, {"packed": True}, 4, None), (2, 4, {"packed": True}, 4, None)])
def test_mapped_verilog_of_inference(kr, kc, form, slices, registers, tmp_path):
    """Synthesis finds the slices, with their registers, cascades and accumulators, and what it makes of them is right."""
    dut = Kernel(kr, kc, 8, 8, **form)
    (tmp_path / "kernel.v").write_text(to_verilog(dut, "kernel"))
    # Without the renaming, Yosys 0.70 can end in an assertion after ABC: a name it makes for a bit is there already.
    script = ["read_verilog kernel.v", "rename -hide w:*",
              "synth_xilinx -family xc7 -noiopad -noclkbuf -top kernel -flatten", "write_verilog -noattr mapped.v"]
    child = f"from pyosys import libyosys as y; d = y.Design()\nfor c in {script!r}: y.run_pass(c, d)"
    subprocess.run([sys.executable, "-c", child], cwd=tmp_path, check=True, timeout=120, stdout=subprocess.DEVNULL)
    mapped = (tmp_path / "mapped.v").read_text()
    assert mapped.count("DSP48E1 #(") == slices
    if registers is not None:
        assert mapped.count("FDRE #(") <= registers
    check_verilog(dut, [tmp_path / "mapped.v", XILINX / "cells_sim.v"], *schedule(dut, steps_of(kr, kc, 3, number=60), 3),
                  tmp_path)


def check_verilog(dut, sources, cycles, expected, folder):
    def pack(values):
        return sum((v & 255) << 8 * k for k, v in enumerate(values))

    x_at, w_at = 2, 2 + 8 * dut.kc
    (folder / "vectors.hex").write_text("".join(
        f"{v | r << 1 | pack(x) << x_at | pack(w) << w_at:x}\n" for v, x, w, r in cycles))
    (folder / "bench.v").write_text(BENCH.format(
        inputs=w_at + 8 * dut.kr * dut.kc, outputs=dut.kr * dut.out_bits, cycles=len(cycles), x_at=x_at, x_bits=8 * dut.kc,
        w_at=w_at, w_bits=8 * dut.kr * dut.kc, restart=".restart(now[1])," if dut.acc_bits else ""))
    subprocess.run(["iverilog", "-g2012", "-s", "bench", "-o", "bench", "bench.v", *sources], cwd=folder, check=True,
                   timeout=60)
    out = subprocess.run(["vvp", "-n", "bench"], cwd=folder, check=True, timeout=60, capture_output=True, text=True).stdout
    lines = [line for line in out.splitlines() if "finish" not in line]
    half = 1 << dut.out_bits - 1
    for k, sums in expected.items():
        word = int(lines[k], 16)
        got = [((word >> r * dut.out_bits) + half) % (2 * half) - half for r in range(dut.kr)]
        assert got == sums, k
