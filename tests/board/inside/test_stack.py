"""The whole stack on the virtual board: host library, driver, stock PYNQ, processing system, shell, device."""

import asyncio
import json
import random
import subprocess
import sys
import time

import nearflash
import numpy as np
import pynq
import pytest
from nearflash.board import throughput
from nearflash.board.random_model import random_queries
from nearflash.board.selftest import CHECKS, check_board
from nearflash.contract import ConfigError, DeviceConfig, DeviceTimeout, NearflashError
from nearflash.contract.shell import DEVICE, SHELL
from nearflash_sim.verilated.device import HOST

BIT = "movietweetings.bit"


def bits(a):
    return np.asarray(a, np.float32).tobytes()


def test_answers_are_exact_beside_block_io_polled_and_awaited(device, model):
    compiled, reference = model
    device.load(compiled)
    dense, bags = random_queries(compiled, 12)
    want = bits(reference.logits(dense, bags)[1])
    page = np.random.default_rng(0).bytes(device.config.lba_bytes)

    async def both():
        ticket = device.submit(dense, bags)
        ran = []

        async def other():
            while not ran or ran[-1] < 3:
                ran.append(len(ran))
                await asyncio.sleep(0)

        task = asyncio.ensure_future(other())
        got = await device.result_async(ticket)
        await task
        return got, ran

    ticket = device.submit(dense, bags)
    device.write(device.config.lbas - 1, page)
    assert device.read(device.config.lbas - 1) == page
    assert bits(device.result(ticket)) == want
    got, ran = asyncio.get_event_loop_policy().get_event_loop().run_until_complete(both())
    assert bits(got) == want
    assert len(ran) > 3, "other tasks must run while a result is awaited"


def test_register_map_reaches_registers_and_fields(overlay):
    ip = overlay.nearflash_0
    assert int(ip.register_map.cap_lo.mqes) == DeviceConfig.from_dict(
        json.loads(overlay.ip_dict[DEVICE]["parameters"]["CONFIG"])).host.queue_entries - 1
    ip.register_map.irq_enable.completion = 5
    assert int(ip.register_map.irq_enable) == ip.read(0x110) == 5
    assert type(ip).__name__ == "NearflashIP"
    assert hex(int(overlay.nearflash_shell_0.register_map.magic)) == "0x4e465348"


def test_open_from_the_block(overlay, model):
    with overlay.nearflash_0.open(overlay) as device:
        assert device.identify()


def test_another_configuration_is_refused(overlay):
    with pytest.raises(ConfigError, match=r"config\.design_id"):
        nearflash.open("pynq", overlay=overlay, config=DeviceConfig.preset("tiny"))


def test_an_overlay_without_the_device_is_refused(overlay):
    overlay.ip_dict.pop(SHELL)
    with pytest.raises(NearflashError, match=f"has no {SHELL}"):
        nearflash.open("pynq", overlay=overlay)


def changed(overlay, change):
    """The overlay with another configuration in its hand-off data."""
    ips = {name: dict(ip) for name, ip in overlay.ip_dict.items()}
    parameters = dict(ips[DEVICE]["parameters"])
    parameters["CONFIG"] = change(parameters["CONFIG"])
    ips[DEVICE]["parameters"] = parameters
    overlay.ip_dict = ips
    return overlay


def test_another_version_of_the_configuration_is_refused(overlay):
    with pytest.raises(NearflashError, match="another version"):
        nearflash.open("pynq", overlay=changed(overlay, lambda text: '{"channels_of_the_future": 9}'))


def test_a_design_that_is_not_the_hand_off_files_is_found(overlay):
    def fewer(text):
        config = json.loads(text)
        config["lookup"]["max_bag"] -= 1
        return json.dumps(config)

    with pytest.raises(ConfigError, match=r"nearflash_shell_0\.design_id.*another design"):
        nearflash.open("pynq", overlay=changed(overlay, fewer))


def test_sleeps_are_the_devices_time(overlay):
    board = pynq.Device.active_device.board
    before, wall = board.cycles, time.monotonic()
    time.sleep(0.02)
    assert board.cycles - before == round(0.02e6 * pynq.Clocks.fclk0_mhz)
    before = board.cycles
    asyncio.get_event_loop_policy().get_event_loop().run_until_complete(asyncio.sleep(0.01))
    assert board.cycles - before == round(0.01e6 * pynq.Clocks.fclk0_mhz)
    assert time.monotonic() - wall < 60
    with pytest.raises(ValueError, match="negative"):
        time.sleep(-1)


def test_a_program_that_died_in_a_reset_is_no_trouble(overlay):
    overlay.nearflash_shell_0.register_map.reset.request = 1
    time.sleep(0.001)
    assert int(overlay.nearflash_shell_0.register_map.status.in_reset) == 1
    with nearflash.open("pynq", overlay=overlay) as device:
        assert device.identify()


def test_the_same_program_takes_the_same_cycles(overlay, model):
    compiled, _ = model
    dense, bags = random_queries(compiled, 4)
    taken = []
    for _ in range(2):
        ol = pynq.Overlay(BIT)
        with nearflash.open("pynq", overlay=ol) as device:
            device.load(compiled)
            board = pynq.Device.active_device.board
            before = board.cycles
            device.infer(dense, bags)
            taken.append(board.cycles - before)
    assert taken[0] == taken[1]


def test_a_dead_device_never_hangs_its_driver(overlay, model):
    """The memory's ports stop answering at a random moment of a random piece of work: a timeout that says so, and after a
    reset the device works."""
    compiled, reference = model
    dense, bags = random_queries(compiled, 2)
    want = bits(reference.logits(dense, bags)[1])
    rng = random.Random(1)
    board = pynq.Device.active_device.board
    with nearflash.open("pynq", overlay=overlay, timeout=3_000_000) as device:
        device.load(compiled)
        seen = set()
        for _ in range(8):
            device.submit(dense, bags)
            device.backend.idle(rng.randrange(1, 30_000))
            for which in (board.device.host, board.device.dram):
                which.silence()
            try:
                device.read(0)
                device.result(device.submit(dense, bags))
            except (DeviceTimeout, NearflashError) as e:
                seen.add("commands under way" in str(e))
            else:
                raise AssertionError("a device without memory answered")
            for which in (board.device.host, board.device.dram):
                which.silence(False)
            device.subsystem_reset()
            device.load(compiled)
            assert bits(device.infer(dense, bags)) == want
        assert seen == {True}
    assert HOST == 0


def test_self_test_and_its_report(overlay):
    outcomes, report = check_board(BIT)
    assert [o.name for o in outcomes] == list(CHECKS)
    assert all(o.passed for o in outcomes), [o for o in outcomes if not o.passed]
    said = json.loads(report)
    assert said["passed"]
    assert said["simulated"]
    assert said["board"] == pynq.Device.active_device.name
    assert said["pynq"] == pynq.__version__


def test_self_test_finds_a_wrong_answer(overlay, monkeypatch):
    from nearflash.runtime.device import Device

    right = Device.lookup
    monkeypatch.setattr(Device, "lookup", lambda self, bags: [-v for v in right(self, bags)])
    outcomes, report = check_board(BIT)
    assert [(o.name, o.passed) for o in outcomes][-1] == ("lookups", False)
    assert not json.loads(report)["passed"]


def test_self_test_as_a_command(script, tmp_path):
    out = script("import sys; from nearflash.selftest import main; sys.exit(main(['missing.bit']))")
    assert out.returncode == 2
    assert "missing.bit" in out.stderr
    assert "Traceback" not in out.stderr


def test_throughput_says_where_the_time_went(device, model):
    compiled, _ = model
    device.load(compiled)
    t = throughput.measure(device, *random_queries(compiled, 16), batch=4)
    assert t.queries == 16
    assert t.device_cycles > 1000
    parts = t.pack_s + t.copy_s + t.sync_s + t.wait_s + t.python_s
    assert parts == pytest.approx(t.total_s, rel=0.05)
    assert min(t.pack_s, t.copy_s, t.sync_s, t.wait_s) > 0
    assert "infer" not in vars(device)


def test_without_the_environment_variable_nothing_is_changed():
    out = subprocess.run([sys.executable, "-c", "import pynq, time; print(pynq.Device.devices, time.sleep.__module__)"],
                         env={"PATH": "/usr/bin"}, capture_output=True, text=True, timeout=120, check=True)
    assert out.stdout.split() == ["[]", "time"]
