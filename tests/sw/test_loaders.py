"""Checkpoints of the two real code bases, written here as those projects compute them."""

import json
import struct

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
