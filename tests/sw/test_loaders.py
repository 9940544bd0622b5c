"""Checkpoints of the two real code bases, written here as those projects compute them."""

import itertools
import json
import struct
import zipfile

import numpy as np
import pytest
import torch
from nearflash.contract import DataError, ModelError
from nearflash.models import load_checkpoint, load_dlrm_state_dict, load_torchrec_state_dict

DIM, DENSE, ROWS = 8, 5, (20, 30, 11)


def mlp_weights(widths, seed):
    g = torch.Generator().manual_seed(seed)
    shapes = zip(widths, widths[1:], strict=False)
    return [(torch.randn(r, c, generator=g) / c**0.5, torch.randn(r, generator=g)) for c, r in shapes]


def parts(interaction):
    g = torch.Generator().manual_seed(9)
    n = len(ROWS) + 1
    top_in = DIM + n * (n - 1) // 2 if interaction == "dot" else DIM * n
    tables = [torch.randn(r, DIM, generator=g) for r in ROWS]
    return tables, mlp_weights((DENSE, 16, DIM), 1), mlp_weights((top_in, 12, 1), 2)


def run(p, dense, bags, interaction, order):
    """DLRM's arithmetic, the interaction's pairs in the given ``order``."""
    tables, bottom, top = p
    x = dense
    for w, b in bottom:
        x = torch.relu(x @ w.T + b)
    f = [x] + [torch.stack([t[list(bag)].sum(0) for bag in table]) for t, table in zip(tables, bags, strict=True)]
    if interaction == "dot":
        pairs = [(i, j) for i in range(4) for j in range(i)] if order == "lower" else [
            (i, j) for i in range(4) for j in range(i + 1, 4)]
        x = torch.cat([x, torch.stack([(f[i] * f[j]).sum(1) for i, j in pairs], 1)], 1)
    else:
        x = torch.cat(f, 1)
    for i, (w, b) in enumerate(top):
        x = x @ w.T + b
        x = torch.relu(x) if i + 1 < len(top) else x
    return x


def dlrm_sd(p):
    sd = {f"emb_l.{i}.weight": t for i, t in enumerate(p[0])}
    for name, layers in (("bot", p[1]), ("top", p[2])):
        for i, (w, b) in enumerate(layers):
            sd |= {f"{name}_l.{2 * i}.weight": w, f"{name}_l.{2 * i}.bias": b}
    return sd


def torchrec_sd(p):
    sd = {f"sparse_arch.embedding_bag_collection.embedding_bags.t_cat_{i}.weight": t for i, t in enumerate(p[0])}
    for i, (w, b) in enumerate(p[1]):
        sd |= {f"dense_arch.model._mlp.{i}._linear.weight": w, f"dense_arch.model._mlp.{i}._linear.bias": b}
    for i, (w, b) in enumerate(p[2][:-1]):
        sd |= {f"over_arch.model.0._mlp.{i}._linear.weight": w, f"over_arch.model.0._mlp.{i}._linear.bias": b}
    return sd | {"over_arch.model.1.weight": p[2][-1][0], "over_arch.model.1.bias": p[2][-1][1]}


def safetensors_bytes(sd):
    """The file format's own layout: length, JSON, bytes."""
    names = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64", torch.int64: "I64"}
    head, data = {"__metadata__": {"format": "pt"}}, b""
    for k, v in sd.items():
        raw = v.contiguous().view(torch.uint8).numpy().tobytes()
        head[k] = {"dtype": names[v.dtype], "shape": list(v.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(head).encode()
    return struct.pack("<Q", len(text)) + text + data


BAGS = [[[1, 2], [3]], [[0], [29, 4]], [[], [10]]]


def our_bags():
    out = []
    for table in BAGS:
        ends = [0]
        for bag in table:
            ends.append(ends[-1] + len(bag))
        out.append((torch.tensor([i for bag in table for i in bag]), torch.tensor(ends[:-1])))
    return out


@pytest.mark.parametrize("interaction", ["cat", "dot"])
@pytest.mark.parametrize("kind", ["dlrm", "torchrec"])
def test_logits_match(kind, interaction, tmp_path):
    p = parts(interaction)
    dense = torch.randn(2, DENSE, generator=torch.Generator().manual_seed(5))
    want = run(p, dense, BAGS, interaction, "lower" if kind == "dlrm" else "upper")
    sd = dlrm_sd(p) if kind == "dlrm" else torchrec_sd(p)
    model = (load_dlrm_state_dict if kind == "dlrm" else load_torchrec_state_dict)(sd, 2)
    assert model.spec.interaction == interaction
    assert torch.allclose(model(dense, our_bags()), want, atol=1e-5)
    path = tmp_path / "m.pt"
    torch.save({"epoch": 3, "state_dict": {"module." + k: v for k, v in sd.items()}}, path)
    assert torch.equal(load_checkpoint(path, 2)(dense, our_bags()), model(dense, our_bags()))


def test_table_order_of_torchrec():
    p = parts("cat")
    sd = torchrec_sd(p)
    names = ["t_cat_2", "t_cat_0", "t_cat_1"]
    model = load_torchrec_state_dict(sd, tables=names)
    assert [t.rows for t in model.spec.tables] == [11, 20, 30]
    with pytest.raises(ModelError, match="tables"):
        load_torchrec_state_dict(sd, tables=names[:2])


@pytest.mark.parametrize(("edit", "error", "text"), [
    (lambda sd: sd.pop("bot_l.2.bias"), ModelError, r"bot_l\.2\.bias.*missing"),
    (lambda sd: sd.pop("emb_l.1.weight"), ModelError, "numbered"),
    (lambda sd: sd.update({"top_l.0.weight": torch.zeros(12, 13)}), ModelError, r"top_l\.0\.weight"),
    (lambda sd: sd.update({"top_l.2.weight": torch.zeros(1, 13)}), ModelError, r"top_l\.2\.weight.*12 columns"),
    (lambda sd: sd.update({"emb_l.0.weight_q": torch.zeros(3, 3)}), ModelError, "weight_q"),
    (lambda sd: sd["emb_l.2.weight"].__setitem__((4, 1), float("nan")), DataError, r"emb_l\.2\.weight\[4, 1\]"),
    (lambda sd: sd["bot_l.0.bias"].__setitem__(3, float("inf")), DataError, r"bot_l\.0\.bias\[3\]"),
    (lambda sd: sd.update({"bot_l.0.bias": torch.zeros(15)}), ModelError, r"bot_l\.0\.bias"),
    (lambda sd: sd.update({"emb_l.0.weight": torch.zeros(3, 8, dtype=torch.int8)}), ModelError, "floating"),
])
def test_bad_dlrm_is_refused(edit, error, text):
    sd = dlrm_sd(parts("dot"))
    edit(sd)
    with pytest.raises(error, match=text):
        load_dlrm_state_dict(sd)


def test_dcnv2_and_self_interaction_are_refused():
    sd = torchrec_sd(parts("dot")) | {"inter_arch.crossnet.W_kernels.0": torch.zeros(4, 2)}
    with pytest.raises(ModelError, match=r"crossnet.*DCNv2"):
        load_torchrec_state_dict(sd)
    sd = dlrm_sd(parts("dot"))
    sd["top_l.0.weight"] = torch.zeros(12, DIM + 10)
    with pytest.raises(ModelError, match="diagonal"):
        load_dlrm_state_dict(sd)


def test_ambiguous_interaction_must_be_named():
    # T tables of dim d: T d = (T + 1) T / 2 when d = (T + 1) / 2; T = 7, d = 4
    bottom, top = mlp_weights((3, 4), 1), mlp_weights((4 + 28, 1), 2)
    sd = dlrm_sd(([torch.ones(5, 4) for _ in range(7)], bottom, top))
    with pytest.raises(ModelError, match="say which"):
        load_dlrm_state_dict(sd)
    assert load_dlrm_state_dict(sd, interaction="dot").spec.interaction == "dot"


def test_truncated_and_foreign_files(tmp_path):
    path = tmp_path / "m.pt"
    torch.save(dlrm_sd(parts("cat")), path)
    whole = path.read_bytes()
    for cut in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(DataError, match="checkpoint"):
            load_checkpoint(path)
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(DataError):
        load_checkpoint(path)
    torch.save({"a": 1}, path)
    with pytest.raises(DataError, match="state_dict"):
        load_checkpoint(path)
    with pytest.raises(DataError):
        load_checkpoint(tmp_path / "absent.pt")


def read(tmp_path, content, **kw):
    torch.save(content, tmp_path / "m.pt")
    return load_checkpoint(tmp_path / "m.pt", 2, **kw)


def same(a, b, seed=5):
    """Whether two models of :func:`parts`' shapes answer alike, to the bit."""
    dense = torch.randn(2, DENSE, generator=torch.Generator().manual_seed(seed))
    return torch.equal(a(dense, our_bags()), b(dense, our_bags()))


def test_what_dlrm_save_model_writes(tmp_path):
    sd = dlrm_sd(parts("dot"))
    optimizer = torch.optim.SGD([torch.nn.Parameter(t) for t in sd.values()], lr=0.1)
    got = read(tmp_path, {"epoch": 0, "iter": 8, "nepochs": 1, "nbatches": 8, "test_acc": np.float64(0.78),
                          "train_loss": np.float32(0.5), "total_loss": np.float32(3.5), "flag": np.bool_(True),
                          "state_dict": sd, "opt_state_dict": optimizer.state_dict()})
    assert same(got, load_dlrm_state_dict(sd, 2))


def test_numpy_arrays_of_every_float_and_order(tmp_path):
    sd = dlrm_sd(parts("dot"))
    want = load_dlrm_state_dict(sd, 2)
    a = {k: v.numpy() for k, v in sd.items()}
    for change in (lambda v: v, np.asfortranarray, lambda v: v.astype(">f4"), lambda v: v.astype(np.float64)):
        assert same(read(tmp_path, {k: change(v) for k, v in a.items()}), want)
    with pytest.raises(DataError, match=r"emb_l\.1\.weight.*i8"):
        read(tmp_path, a | {"emb_l.1.weight": np.ones((3, 8), np.int64)})


def test_no_code_runs_on_a_files_bytes(tmp_path):
    before = set(torch.serialization.get_safe_globals())
    read(tmp_path, {k: v.numpy() for k, v in dlrm_sd(parts("cat")).items()})
    left = set(torch.serialization.get_safe_globals()) - before
    assert not [x for x in left if isinstance(x, tuple) or x.__module__.startswith(("nearflash", "numpy"))]

    class Evil:
        def __reduce__(self):
            return print, ("never",)

    with pytest.raises(DataError, match=r"m\.pt: content.*print"):
        read(tmp_path, {"state_dict": dlrm_sd(parts("cat")), "hook": Evil()})


WRAPPERS = ["module.", "model.", "_orig_mod.", "_dmp_wrapped_module.", "dlrm_model.", "_fsdp_wrapped_module."]


@pytest.mark.parametrize(("make", "load"), [(dlrm_sd, load_dlrm_state_dict), (torchrec_sd, load_torchrec_state_dict)])
def test_prefixes_in_any_order(make, load, tmp_path):
    sd = make(parts("dot"))
    want = load(sd, 2)
    for some in (*[(w,) for w in WRAPPERS], *itertools.permutations(WRAPPERS, 2), tuple(WRAPPERS), tuple(WRAPPERS[::-1])):
        assert same(read(tmp_path, {"".join(some) + k: v for k, v in sd.items()}), want), some
    inside = {k.replace(".", "._orig_mod.module.", 1): v for k, v in sd.items()}  # parts of the model wrapped one by one
    assert same(read(tmp_path, inside), want)
    with pytest.raises(ModelError, match="more than one model"):
        read(tmp_path, {f"{who}.{k}": v for k, v in sd.items() for who in ("student", "teacher")})


def test_torchrec_tables_by_number_whatever_the_order_of_keys(tmp_path):
    g = torch.Generator().manual_seed(3)
    tables = [torch.randn(5 + i, DIM, generator=g) for i in range(12)]
    p = tables, mlp_weights((DENSE, DIM), 1), mlp_weights((DIM + 13 * 12 // 2, 8, 1), 2)
    sd = torchrec_sd(p)
    for keys in (list(sd), sorted(sd), sorted(sd, reverse=True)):
        model = read(tmp_path, {k: sd[k] for k in keys})
        assert model.table_names == tuple(f"t_cat_{i}" for i in range(12))
        assert [t.rows for t in model.spec.tables] == [5 + i for i in range(12)]


def renamed(sd, names):
    """torchrec's ``sd`` with table i called ``names[i]``, the last one first."""
    out = dict(reversed(sd.items()))
    return {k if "t_cat_" not in k else k.replace(f"t_cat_{(i := k.split('t_cat_')[1][0])}", names[int(i)]): v
            for k, v in out.items()}


def test_torchrec_tables_of_other_names_need_their_order(tmp_path):
    sd = torchrec_sd(parts("dot"))
    for names in (("user", "item", "genre"), ("t_1", "t_01", "t_2"), ("a1", "b2", "c3")):
        with pytest.raises(ModelError, match="--tables"):
            read(tmp_path, renamed(sd, names))
        model = read(tmp_path, renamed(sd, names), tables=names)
        assert model.table_names == names
        assert same(model, load_torchrec_state_dict(sd, 2))


@pytest.mark.parametrize("kind", ["cat", "dot"])
@pytest.mark.parametrize("make", [dlrm_sd, torchrec_sd])
def test_too_few_tables_have_their_reason(make, kind, tmp_path):
    sd = make(parts(kind))
    del sd[next(k for k in sd if k.endswith(("emb_l.2.weight", "t_cat_2.weight")))]
    with pytest.raises(ModelError) as e:
        read(tmp_path, sd)
    for reason in ("3 tables", "holds 2", "a table is missing", "one rank of a sharded checkpoint"):
        assert reason in str(e.value)
    torchrec = make is torchrec_sd
    assert ("several features share a table" in str(e.value)) == torchrec
    assert ("arch-interaction-itself" in str(e.value)) == (not torchrec and kind == "dot")  # the shapes fit it too


def test_half_precision_is_exact(tmp_path):
    sd = dlrm_sd(parts("dot"))
    for dtype, stored in ((torch.float16, "fp16"), (torch.bfloat16, "fp32")):
        half = {k: v.to(dtype) for k, v in sd.items()}
        model = read(tmp_path, half)
        assert {t.format for t in model.spec.tables} == {stored}
        assert same(model, load_dlrm_state_dict({k: v.float() for k, v in half.items()}, 2))
        assert {t.format for t in read(tmp_path, half, format="int8").spec.tables} == {"int8"}


def test_float64_is_exact_or_refused(tmp_path):
    sd = dlrm_sd(parts("dot"))
    wide = {k: v.double() for k, v in sd.items()}
    assert same(read(tmp_path, wide), load_dlrm_state_dict(sd, 2))
    wide["bot_l.0.bias"][3] = 0.1
    with pytest.raises(DataError, match=r"m\.pt: module\.bot_l\.0\.bias\[3\] = 0\.1: .*--round-to-fp32"):
        read(tmp_path, {"module." + k: v for k, v in wide.items()})
    rounded = read(tmp_path, wide, round_to_fp32=True)
    assert rounded.linears["bot0"].bias.detach()[3].item() == np.float32(0.1)
    wide["bot_l.0.bias"][3] = 1e300
    with pytest.raises(DataError, match=r"bot_l\.0\.bias\[3\] = 1e\+300"):
        read(tmp_path, wide, round_to_fp32=True)


@pytest.mark.parametrize(("edit", "text"), [
    (lambda sd: sd.update({"emb_l.0.weight": sd["emb_l.0.weight"].to_sparse()}), r"emb_l\.0\.weight.*sparse"),
    (lambda sd: sd.update({"emb_l.0.weight": torch.ones(1).expand(10**7, 8)}), r"emb_l\.0\.weight.*expanded"),
    (lambda sd: sd.update({"v_W_l.0": torch.ones(20)}), r"v_W_l\.0.*weighted pooling"),
    (lambda sd: sd.update({0: torch.ones(1)}), "key = 0"),
    (lambda sd: sd.update({"epoch": 3}), "epoch = 'int'"),
    (lambda sd: sd.update({"emb_l.0.weight": torch.ones(20, 6)}), r"emb_l\.0\.weight.*multiple of 4"),
    (lambda sd: sd.update({"emb_l.0.weight": torch.ones(20, 8, dtype=torch.complex64)}), "complex64"),
])
def test_what_is_refused_by_name(edit, text, tmp_path):
    sd = dlrm_sd(parts("dot"))
    edit(sd)
    with pytest.raises((DataError, ModelError), match=text) as e:
        read(tmp_path, sd)
    assert "\n" not in str(e.value)
    assert str(tmp_path / "m.pt") in str(e.value)


def test_checksums_are_compared(tmp_path):
    path = tmp_path / "m.pt"
    torch.save(dlrm_sd(parts("dot")), path)
    raw = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as z:
        data = z.read(next(n for n in z.namelist() if n.endswith("data/0")))
    raw[raw.index(data) + 40] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DataError, match="damaged: its CRC"):
        load_checkpoint(path)


def test_safetensors(tmp_path):
    path = tmp_path / "m.safetensors"
    sd = dlrm_sd(parts("dot"))
    path.write_bytes(safetensors_bytes(sd))
    assert same(load_checkpoint(path, 2), load_dlrm_state_dict(sd, 2))
    half = {k: v.bfloat16() for k, v in sd.items()}
    path.write_bytes(safetensors_bytes(half))
    assert same(load_checkpoint(path, 2), load_dlrm_state_dict(half, 2))
    for bad, text in ((safetensors_bytes(sd)[:-1], "bytes"), (safetensors_bytes(sd) + b"x", "bytes of tensors"),
                      (safetensors_bytes(sd | {"emb_l.0.weight": torch.ones(3, 8, dtype=torch.int64)}), "I64")):
        path.write_bytes(bad)
        with pytest.raises(DataError, match=text):
            load_checkpoint(path)
    twice = json.dumps({k: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for k in ("a", "b")}).encode()
    path.write_bytes(struct.pack("<Q", len(twice)) + twice + bytes(4))
    with pytest.raises(DataError, match=r"b data_offsets.*begin at byte 4"):
        load_checkpoint(path)


def test_old_format_of_torch_save(tmp_path):
    sd = dlrm_sd(parts("dot"))
    torch.save(sd, tmp_path / "m.pt", _use_new_zipfile_serialization=False)
    assert same(load_checkpoint(tmp_path / "m.pt", 2), load_dlrm_state_dict(sd, 2))


def test_the_option_that_says_the_interaction_is_named():
    bottom, top = mlp_weights((3, 4), 1), mlp_weights((4 + 28, 1), 2)
    with pytest.raises(ModelError, match="--interaction cat or --interaction dot"):
        load_dlrm_state_dict(dlrm_sd(([torch.ones(5, 4) for _ in range(7)], bottom, top)))
