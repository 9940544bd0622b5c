"""The command line as a user calls it: results, JSON keys, exit codes, bad input in one line."""

import json
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A state_dict as facebookresearch/dlrm saves it."""
    gen = torch.Generator().manual_seed(3)
    shapes = {"emb_l.0.weight": (40, 8), "emb_l.1.weight": (30, 8), "bot_l.0.weight": (12, 5), "bot_l.2.weight": (8, 12),
              "top_l.0.weight": (9, 11), "top_l.2.weight": (1, 9)}
    sd = {k: torch.randn(s, generator=gen) * 0.3 for k, s in shapes.items()}
    sd |= {k.replace("weight", "bias"): torch.randn(s[0], generator=gen) * 0.1 for k, s in shapes.items() if "_l" in k
           and not k.startswith("emb")}
    path = tmp_path_factory.mktemp("checkpoint") / "dlrm.pt"
    torch.save(sd, path)
    return path


def test_run_answers_a_dlrm_checkpoint(nearflash, checkpoint, tmp_path):
    out = tmp_path / "new" / "run.json"
    r = nearflash("run", "--checkpoint", checkpoint, "--preset", "tiny", "--lookups", 4, "--queries", 24, "--batch", 5,
                  "--block-io", 3, "--json", out)
    assert r.returncode == 0, r.stderr
    result = json.loads(out.read_text())
    assert result["queries"] == 24
    assert result["mismatches"] == 0
    assert (result["block_reads_checked"], result["block_mismatches"]) == (3, 0)
    for key in ("cycles_per_query", "latency_us", "queries_per_second", "flash_ceiling_share", "max_logit_error",
                "channel1_die1_busy_share", "mlp_busy_share"):
        assert result[key] > 0
    assert result["flash_ceiling_share"] <= 1
    assert "mismatches" in r.stdout


def test_one_query_has_no_auc_and_loses_nothing(nearflash, checkpoint):
    """One query is of one class; its result is standard output's alone, the tables go to standard error."""
    r = nearflash("run", "--checkpoint", checkpoint, "--preset", "tiny", "--lookups", 4, "--queries", 1, "--json", "-")
    assert r.returncode == 0, r.stderr
    result = json.loads(r.stdout)
    assert (result["mismatches"], result["auc_fp32"], result["auc_device"]) == (0, None, None)
    assert result["auc_note"] == "undefined: the labels are of one class"
    assert result["auc_note"] in r.stderr


def test_a_wrong_reference_fails_the_run(checkpoint, monkeypatch):
    """Every answer is compared: with a reference that is off by one, all differ and the exit code says so."""
    from nearflash.cli import run
    from nearflash.cli.app import app
    from typer.testing import CliRunner

    class Wrong(run.IntegerModel):
        def logits(self, dense, bags):
            ints, fp32 = super().logits(dense, bags)
            return ints, fp32 + 1

    monkeypatch.setattr(run, "IntegerModel", Wrong)
    r = CliRunner().invoke(app, ["run", "--checkpoint", str(checkpoint), "--preset", "tiny", "--lookups", "4", "--queries",
                                 "24", "--batch", "5", "--block-io", "0"])
    assert r.exit_code == 1
    assert "24" in r.output


@pytest.mark.parametrize(("args", "says"), [
    (("run", "--model", "rmc9"), "rmc9"), (("run", "--channels", "3"), "flash.channels = 3"),
    (("run", "--checkpoint", "README.md"), "not a complete checkpoint"), (("run", "--checkpoint", "no.npz"), "no.npz"),
    (("run", "--trace", "no.log"), "no.log"), (("run", "--config", "no.toml"), "no.toml"),
    (("run", "--dataset", "no"), "no/movies.dat"), (("run", "--locality", "-1"), "locality = -1"),
    (("run", "--locality", "1", "--trace", "x"), "can't be combined"), (("run", "--act-bits", "9"), "act_bits = 9"),
    (("run", "--model", "rmc1", "--checkpoint", "x.npz"), "either"), (("run", "--queries", "0"), "--queries"),
    (("run", "--model", "rmc1", "--format", "bf16"), "bf16"), (("config", "nope"), "nope"),
    (("train", "nowhere"), "nowhere"),
])
def test_bad_input_is_one_line_and_exit_code_2(nearflash, monkeypatch, args, says):
    monkeypatch.chdir(Path(__file__).parents[2])
    r = nearflash(*args)
    assert r.returncode == 2
    assert says in r.stderr.replace("\n", " ").replace("│", "")
    assert "Traceback" not in r.stderr


@pytest.mark.parametrize("command", ["run", "train", "config", "registers", "build"])
def test_help_has_an_example(nearflash, command):
    r = nearflash(command, "--help")
    assert r.returncode == 0
    assert "Example: nearflash " + command in " ".join(r.stdout.replace("│", "").split())


def test_config_and_registers(nearflash, tmp_path):
    r = nearflash("config", "tiny", "--json", tmp_path / "c.json")
    assert "page_bytes = 512" in r.stdout
    assert json.loads((tmp_path / "c.json").read_text())["t_read_cycles"] == 200
    (tmp_path / "c.toml").write_text(r.stdout)
    again = nearflash("config", tmp_path / "c.toml")
    assert again.stdout == r.stdout
    assert "| 0x001c | csts |" in nearflash("registers").stdout


def test_training_on_one_class_is_not_lost(nearflash, tmp_path):
    """Nobody likes anything: there is no AUC, and the checkpoint is written all the same."""
    (tmp_path / "movies.dat").write_text("".join(f"{m:03d}::M{m} (1990)::G|H\n" for m in range(30)))
    (tmp_path / "ratings.dat").write_text("".join(f"{t % 40}::{t % 30:03d}::1::{1_360_000_000 + t}\n" for t in range(400)))
    out = tmp_path / "c.npz"
    r = nearflash("train", tmp_path, "-o", out, "--epochs", 1, "--json", tmp_path / "c.json")
    assert r.returncode == 0, r.stderr
    assert "test AUC undefined" in r.stdout
    scores = json.loads((tmp_path / "c.json").read_text())
    assert (scores["valid_auc"], scores["test_auc"]) == (None, None)
    assert scores["test_auc_note"] == "undefined: the labels are of one class"
    assert out.is_file()
