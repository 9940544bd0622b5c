"""From a model to a plan, its resources, and a simulated device that keeps the plan's promises."""

import json

import pytest
from nearflash.compiler.timing import inference_cycles
from nearflash.contract import DeviceConfig
from nearflash.models import ModelSpec, TableShape

SPEC = ModelSpec("small", (TableShape(60, 8, 3), TableShape(40, 8, 2)), dense=6, bottom=(16, 8), top=(12, 1))


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(SPEC.to_toml())
    return path


def test_a_plan_is_reported_and_simulated(nearflash, model, tmp_path):
    plan, out = tmp_path / "plan.toml", tmp_path / "fit.json"
    done = nearflash("fit", "--model", model, "--board", "pynq-z2", "--preset", "tiny", "--channels", 2, "-o", plan,
                           "--json", out)
    assert done.returncode == 0, done.stderr
    for word in ("slack", "bottom MLP", "top0", "BRAM36", "predicted"):
        assert word in done.stdout
    found = json.loads(out.read_text())
    config = DeviceConfig.from_toml(plan)
    assert found["design_id"] == f"{config.design_id:#010x}"
    assert 0 < found["total_lut_share"] < 0.75

    run = tmp_path / "run.json"
    done = nearflash("run", "--model", model, "--plan", plan, "--queries", 6, "--block-io", 2, "--board",
                           "pynq-z2", "--json", run)
    assert done.returncode == 0, done.stderr
    result = json.loads(run.read_text())
    assert result["mismatches"] == 0
    assert result["design_id"] == found["design_id"]
    assert result["estimated_dsp_count"] == found["total_dsp_count"]
    # lookups set the pace: the MLPs hide behind them, and what they add to the latency is what the plan says
    assert result["cycles_per_query"] >= found["embedding_cycles"]
    assert result["mlp_busy_share"] * result["cycles"] / 6 <= 4 * inference_cycles(config, [8, 8]).busy

    table, plot = tmp_path / "report.json", tmp_path / "map.png"
    done = nearflash("report", "--board", "pynq-z2", "--plan", plan, "--estimate-only", "--plot", plot, "--json",
                           table)
    assert done.returncode == 0, done.stderr
    rows = {r["name"]: r for r in json.loads(table.read_text())["results"]}
    assert rows["total/estimated_dsp_count"] == {"name": "total/estimated_dsp_count", "unit": "DSP48",
                                                 "value": found["total_dsp_count"]}
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_one_block_is_synthesised(nearflash, model, tmp_path):
    plan, table = tmp_path / "plan.toml", tmp_path / "report.json"
    nearflash("fit", "--model", model, "--board", "pynq-z2", "--preset", "tiny", "--channels", 2, "-o", plan)
    done = nearflash("report", "--board", "pynq-z2", "--plan", plan, "--block", "mlp.core0", "--json", table)
    assert done.returncode == 0, done.stderr
    assert "yosys" in done.stdout
    result = json.loads(table.read_text())
    rows = {r["name"]: r["value"] for r in result["results"]}
    assert rows["mlp.core0/measured_dsp_count"] == rows["mlp.core0/estimated_dsp_count"] >= 1
    assert rows["mlp.core0/measured_control_sets_count"] == rows["total/measured_control_sets_count"] > 1
    assert 0 <= rows["total/measured_single_ff_control_sets_count"] < rows["total/measured_control_sets_count"]
    assert "control sets" in done.stdout
    assert result["tool"].startswith("yosys 0.")
    assert set(result["results"][0]) == {"name", "unit", "value"}


@pytest.mark.parametrize(("args", "says"), [
    (["fit", "--model", "rmc1", "--board", "de10"], "board = 'de10'"),
    (["fit", "--model", "nothing", "--board", "pynq-z2"], "nothing"),
    (["fit", "--model", "rmc1", "--board", "pynq-z2", "--limit", "1.5"], "limit"),
    (["fit", "--board", "pynq-z2"], "--model = None: or --sar must be given"),
    (["fit", "--board", "pynq-z2", "--sar", "nothing"], "model = 'nothing'"),
    (["fit", "--board", "pynq-z2", "--sar", "base", "--stream", "top0"], "--stream = 'top0': has no effect without --model"),
    (["report", "--board", "pynq-z2", "--sar", "base", "--plan", "absent.toml"], "--sar = 'base': give either"),
    (["report", "--board", "pynq-z2", "--plan", "absent.toml"], "--plan = 'absent.toml'"),
    (["run", "--plan", "absent.toml"], "--plan = 'absent.toml'"),
])
def test_bad_input_is_one_line_and_exit_code_2(nearflash, args, says):
    done = nearflash(*args)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_plan_for_another_model_is_refused(nearflash, model, tmp_path):
    plan = tmp_path / "plan.toml"
    nearflash("fit", "--model", model, "--board", "pynq-z2", "--preset", "tiny", "--channels", 2, "-o", plan)
    done = nearflash("run", "--model", "ncf", "--plan", plan)
    assert done.returncode == 2
    assert "must be a plan for ncf" in " ".join(done.stderr.split())


@pytest.mark.parametrize("command", ["fit", "report", "timing"])
def test_help_has_an_example(nearflash, command):
    done = nearflash(command, "--help")
    assert done.returncode == 0
    assert f"Example: nearflash {command}" in done.stdout
