"""Any bytes in any input file: a reader reads them, or raises an error of ours whose one line names the file.

``NEARFLASH_FUZZ_ROUNDS`` (default 40 damaged files for every valid one) makes longer runs, ``NEARFLASH_FUZZ_SEED`` others.
"""

import gzip
import os
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import model_cases
import numpy as np
import pytest
import test_loaders
import torch
from mutations import damaged
from nearflash.cli.fit import load_plan
from nearflash.contract import ConfigError, DataError, DeviceConfig, ModelError
from nearflash.data import (
    Criteo,
    HistogramLocality,
    MovieTweetings,
    read_block_trace,
    read_dlrm_trace,
    read_histograms,
)
from nearflash.models import ModelSpec, RecModel, TableShape, load_checkpoint
from nearflash.quantize import CompiledModel
from nearflash.training import SHIPPED, Recipe, is_trained
from nearflash.training import load_checkpoint as load_trained
from nearflash.training import save_checkpoint as save_trained

ROUNDS = int(os.environ.get("NEARFLASH_FUZZ_ROUNDS", "40"))
SEED = int(os.environ.get("NEARFLASH_FUZZ_SEED", "0"))


FOLDER = ("ratings.dat", "movies.dat")  # the files of a data set that is a folder: any may be named


def dlrm(path: Path) -> None:
    torch.save({"epoch": np.int64(3), "loss": np.float32(0.5), "iter": 7,
                "state_dict": test_loaders.dlrm_sd(test_loaders.parts("dot"))}, path)


def dlrm_legacy(path: Path) -> None:
    sd = OrderedDict(("module." + k, v) for k, v in test_loaders.dlrm_sd(test_loaders.parts("cat")).items())
    torch.save(sd, path, _use_new_zipfile_serialization=False)


def arrays(path: Path) -> None:
    torch.save({k: v.numpy() for k, v in test_loaders.dlrm_sd(test_loaders.parts("cat")).items()}, path)


def torchrec(path: Path) -> None:
    torch.save(test_loaders.torchrec_sd(test_loaders.parts("dot")), path)


def safetensors(path: Path) -> None:
    path.write_bytes(test_loaders.safetensors_bytes(test_loaders.dlrm_sd(test_loaders.parts("dot"))))


def trained(path: Path) -> None:
    spec = ModelSpec("small", (TableShape(5, 4), TableShape(6, 4)), 3, (4,), (2, 1), "dot")
    save_trained(path, RecModel(spec), Recipe(), {"test_auc": 0.5})


def compiled(path: Path) -> None:
    model_cases.compiled("dot")[1].save(path)


def criteo(path: Path) -> None:
    line = "\t".join(["{}", *["5"] * 12, "", *["1f"] * 25, ""]) + "\n"
    path.write_text("".join(line.format(i % 2) for i in range(4)))


def criteo_gzip(path: Path) -> None:
    criteo(path)
    path.write_bytes(gzip.compress(path.read_bytes()))


def ratings(path: Path) -> None:
    path.write_text("".join(f"{i % 7}::m{i % 3}::{i % 11}::{1_360_000_000 + i}\n" for i in range(101)))
    (path.parent / "movies.dat").write_text("m0::A (1999)::x|y\nm1::B::\nm2::C (2001)::y\n")


def movies(path: Path) -> None:
    path.write_text("m0::A (1999)::x|y\nm1::B::\nm2::C (2001)::y\n")
    (path.parent / "ratings.dat").write_text("".join(f"1::m{i % 3}::{i % 11}::{1_360_000_000 + i}\n" for i in range(100)))


def trace(path: Path) -> None:
    path.write_text("1, 5,7\n2 3\n+4\n")


def block_trace(path: Path) -> None:
    path.write_text("100 0 5 8 1\n\n200 0 9 16 0\n")


def histogram(path: Path) -> None:
    path.write_text("".join(
        f"{name}.pt\nAvg col size: 2.5\nHistogram of col sizes:\n(0, 1]: 0.5\n(1, 4]: 0.25\n(4+: 0.25\n"
        "Ratio of index distribution at different column sizes:\n(0, 1]: 0.2\n(1, 4]: 0.3\n(4+: 0.5\n\n" for name in "ab"))


def config(path: Path) -> None:
    graph = ModelSpec("m", (TableShape(9, 8), TableShape(5, 8)), 4, (8,), (4, 1), "dot").nodes()
    c = DeviceConfig.preset("tiny")
    path.write_text(replace(c, mlp=replace(c.mlp, graph=graph)).to_toml())


def config_of_preset(path: Path) -> None:
    path.write_text("preset = \"tiny\"\nclock_mhz = 125.5\n[flash]\ndies = 4\n[mlp]\npacked = false\n")


def model(path: Path) -> None:
    path.write_text("name = \"m\"\ndense = 4\nbottom = [8]\ntop = [4, 1]\ninteraction = \"dot\"\n"
                    "[[tables]]\nrows = 50\ndim = 8\nlookups = 2\ncount = 3\nformat = \"fp16\"\nmode = \"mean\"\n")


def read_trained(path: Path) -> None:
    if is_trained(path):
        load_trained(path)


def read_histogram(path: Path) -> None:
    for h in read_histograms(path):
        HistogramLocality(h, 1 << 10).draw(100)


READERS = {
    "dlrm.pt": (dlrm, load_checkpoint), "legacy.pt": (dlrm_legacy, load_checkpoint), "arrays.pt": (arrays, load_checkpoint),
    "torchrec.pt": (torchrec, load_checkpoint), "model.safetensors": (safetensors, load_checkpoint),
    "trained.npz": (trained, load_trained), "trained.pt": (trained, read_trained),
    "compiled.npz": (compiled, CompiledModel.load), "day_0": (criteo, Criteo.load), "day_0.gz": (criteo_gzip, Criteo.load),
    "ratings.dat": (ratings, lambda p: MovieTweetings.load(p.parent)),
    "movies.dat": (movies, lambda p: MovieTweetings.load(p.parent)),
    "trace.log": (trace, read_dlrm_trace), "block.trace": (block_trace, read_block_trace),
    "locality_stats.txt": (histogram, read_histogram), "config.toml": (config, DeviceConfig.from_toml),
    "preset.toml": (config_of_preset, DeviceConfig.from_toml), "plan.toml": (config, load_plan),
    "model.toml": (model, ModelSpec.from_toml),
}


def check(read, path: Path) -> bool:
    """Whether ``path`` was refused, as it should be."""
    try:
        read(path)
    except (ConfigError, DataError, ModelError) as e:
        text = str(e)
        assert text.isprintable(), text  # one line, nothing that a terminal acts on
        assert str(path.parent if path.name in FOLDER else path) in text, text
        assert len(text) < 2000, text
        return True
    return False


@pytest.mark.parametrize("name", READERS)
def test_damaged_files(name, tmp_path):
    write, read = READERS[name]
    path = tmp_path / name
    write(path)
    read(path)
    raw = path.read_bytes()
    for other in (b"", b"\0", b"\x80\x02", b"PK\x03\x04", b"\xff\xfeh\0i\0", b"{}", b"\n", bytes(4096)):
        path.write_bytes(other)
        assert check(read, path) or name in ("trained.pt", "preset.toml", "config.toml", "plan.toml")
    source = damaged(raw, np.random.default_rng([SEED, *name.encode()]))
    refused = 0
    for _ in range(ROUNDS):
        path.write_bytes(next(source))
        try:
            refused += check(read, path)
        except BaseException:
            (tmp_path / f"found-{name}").write_bytes(path.read_bytes())
            raise
    assert refused > ROUNDS // 10, "damage that no reader notices tests nothing"


@pytest.mark.parametrize("name", READERS)
def test_folders_and_absent_files(name, tmp_path):
    path = tmp_path / "of" / name
    path.parent.mkdir()
    for make in (lambda: None, path.mkdir):
        make()
        with pytest.raises(DataError, match=str(path.parent)):
            READERS[name][1](path)


def test_shipped_weights_are_read():
    load_trained(SHIPPED)
