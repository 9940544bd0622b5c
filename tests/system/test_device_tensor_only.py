"""A device with the tensor engine alone: no lookup engine, nor what serves it. With neither it is a plain controller."""

import re
import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from device_bench import TIMEOUT, Recorded, assert_one_device, call, open_device
from nearflash.cli.app import app
from nearflash.contract import AdminOpcode, ConfigError, DeviceConfig, Opcode, Status, TableSpec
from nearflash.contract.registers import counters
from nearflash.contract.shell import DEVICE
from nearflash.contract.tensor import Op
from nearflash.reference.tensor import TensorModel
from nearflash.runtime import Device
from nearflash_hw.device import Device as Controller
from nearflash_hw.verilog import to_verilog
from random_programs import OPS, random_program
from small_despeckler import TENSORS, write_despeckler
from typer.testing import CliRunner

ADMIN, FIRST, BLOCK = 0, 1, 2
ALONE = replace(TENSORS, name="tensor-alone", lookup=replace(TENSORS.lookup, max_tables=0))


def storage(device: Device, rng: np.random.Generator, steps: int) -> None:
    """Random block I/O, every read compared, and all of it after a controller reset."""
    size, content = device.config.lba_bytes, {}
    for _ in range(steps):
        lba, count = int(rng.integers(0, device.config.lbas - 8)), int(rng.integers(1, 9))
        if rng.random() < 0.2:
            device.trim(lba, count)
            content.update(dict.fromkeys(range(lba, lba + count), bytes(size)))
        else:
            pages = rng.bytes(count * size)
            device.write(lba, pages)
            content.update({lba + k: pages[k * size:(k + 1) * size] for k in range(count)})
        lba = int(rng.choice(list(content)))
        assert device.read(lba) == content[lba]
    device.flush()
    device.reset()
    for lba, page in content.items():
        assert device.read(lba) == page, f"block {lba}"


def traffic(seed: int, *, gated: bool) -> list[tuple[Any, ...]]:
    """Programs of random operators, each with block I/O and refused commands beside it, on memories of random timing."""
    rng, model, backend = np.random.default_rng(seed), TensorModel(ALONE), Recorded(ALONE, gated=gated)
    with Device(backend, timeout=TIMEOUT) as device:
        for n in range(3):
            backend.random_timing(rng, (0.0, 0.2)[n % 2], n + 1)
            p = random_program(rng, ALONE, [*OPS, *(OPS[k] for k in rng.integers(0, len(OPS), 6))])
            model.load(0, p.image)
            want = model.run(0, p.content)
            device.load_tensors(0, p.image)
            ticket = device.submit_tensors(0, p.content, len(want))
            lba, pages = int(rng.integers(0, device.config.lbas - 2)), rng.bytes(2 * device.config.lba_bytes)
            device.write(lba, pages)
            assert device.read(lba, 2) == pages
            assert call(device, BLOCK, Opcode.INFER, cdw10=4).status == Status.INVALID_OPCODE
            device.driver.wait(ticket.command)
            assert device.tensors(ticket) == want
            backend.end_step(device, rng, 50_000)
    return backend.log


def test_gated_and_ungated_models_are_one_device():
    assert_one_device(traffic, 3)


def test_block_io_goes_on_without_a_lookup_engine():
    with open_device(ALONE) as device:
        storage(device, np.random.default_rng(5), 40)
        count = device.counters()
    assert tuple(count) == counters(ALONE)
    assert not {"lookups_count", "samples_count", "mlp_busy", "mlp_mac_steps_count"} & set(count)
    assert count["map_misses_count"] > 0
    assert all(count[f"channel{k}_programs_count"] > 0 for k in range(ALONE.flash.channels))


def test_commands_for_queries_are_refused_and_the_device_goes_on():
    opcodes = [(ADMIN, c) for c in AdminOpcode if c != AdminOpcode.IDENTIFY]
    opcodes += [(FIRST, Opcode.INFER), (FIRST, Opcode.LOOKUP)]
    with open_device(ALONE) as device:
        source = device.driver.buffer(4096)
        for queue, opcode in opcodes:
            found = call(device, queue, opcode, prp1=source.address, cdw10=16, cdw11=1, cdw12=1, cdw14=source.address)
            assert (found.status, found.dw0, found.dw1) == (Status.INVALID_OPCODE, 0, 0), opcode
        source.release()
        for refused in (lambda: device.create_table(0, TableSpec(4, 4), np.zeros((4, 16), np.uint8)),
                        lambda: device.lookup([([0], [0])]), lambda: device.infer(None, [([0], [0])])):
            with pytest.raises(ConfigError, match=r"lookup\.max_tables = 0: .*no lookup engine"):
                refused()
        found = device.identify()
        storage(device, np.random.default_rng(6), 3)
    assert found["design_id"] == ALONE.design_id
    assert found["lbas"] == ALONE.lbas
    queries = ("max_tables", "max_extents", "max_dim", "max_bag", "max_batch", "accumulators", "acc_bits", "formats",
               "modes", "act_bits", "n_batch", "outputs", "dense", "tables")
    assert not any(found[name] for name in queries)


def test_a_despeckler_runs_on_it(tmp_path):
    """`despeckle --device fabric`: the bytes of the integer model, whatever else the model's device has."""
    weights, both = write_despeckler(tmp_path)
    (tmp_path / "alone.toml").write_text(ALONE.to_toml())
    np.save(tmp_path / "a.npy", np.sqrt(np.random.default_rng(4).gamma(4, 1 / 4, (24, 30))).astype(np.float32))
    outputs = []
    for device, config in (("fabric", tmp_path / "alone.toml"), ("fabric-model", both)):
        run = CliRunner().invoke(app, ["despeckle", str(tmp_path / "a.npy"), "-o", str(tmp_path / f"{device}.npy"),
                                       "--method", "tiny", "--domain", "amplitude", "--looks", "4", "--device", device,
                                       "--config", str(config), "--checkpoint", str(weights)])
        assert run.exit_code == 0, run.output + repr(run.exception)
        outputs.append((tmp_path / f"{device}.npy").read_bytes())
    assert outputs[0] == outputs[1]


def test_the_self_test_checks_what_is_there(monkeypatch):
    """With a stand-in for pynq, of which the checks ask an overlay's register map alone."""
    monkeypatch.setitem(sys.modules, "pynq", ModuleType("pynq"))
    monkeypatch.delitem(sys.modules, "nearflash.board.selftest", raising=False)
    from nearflash.board import selftest

    monkeypatch.delitem(sys.modules, "nearflash.board.selftest")
    overlay = SimpleNamespace(**{DEVICE: SimpleNamespace(register_map=SimpleNamespace(design_id=ALONE.design_id))})
    with open_device(ALONE) as device:
        outcomes = selftest.run(device, overlay)
        assert [o.name for o in outcomes if not o.passed] == []
        assert [o.name for o in outcomes] == list(selftest.CHECKS)
        seen = {o.name: o.seen for o in outcomes}
        assert "no lookup engine" in seen["lookups"]
        assert "no MLP" in seen["inference"]
        assert seen["tensors"].startswith(f"{len(Op) - 1} operators")
        right = Device.run_tensors
        monkeypatch.setattr(Device, "run_tensors", lambda self, *a, **kw: bytes([*right(self, *a, **kw)][::-1]))
        wrong = selftest.run(device, overlay)
    assert [(o.name, o.passed) for o in wrong][-1] == ("tensors", False)


def test_with_neither_engine_nothing_of_either_is_generated():
    plain = replace(DeviceConfig.preset("tiny", dies=1), lookup=ALONE.lookup)
    modules = set(re.findall(r"^module \\device\.(\w+)", to_verilog(Controller(plain), "device"), re.MULTILINE))
    assert modules == {"nvme", "ftl", "block_io", "block_prp", "arrays", "channel0", "channel1", "host_interconnect",
                       "dram_interconnect"}
