"""The model family against the published tables, and against EmbeddingBag and Linear written out by hand."""

import numpy as np
import pytest
import torch
from nearflash.contract import DataError, ModelError
from nearflash.models import ZOO, ModelSpec, RecModel, TableShape, build, model_spec

PUBLISHED = {  # MACs per inference, lookups per inference, vector dim, input width of the top MLP
    "rmc1": (100_416, 640, 32, 288), "rmc2": (319_552, 3840, 64, 2112), "rmc3": (3_203_328, 200, 32, 352),
    "ncf": (147_456 + 64, 4, 64, 128), "wnd": (2_064_640, 27, 32, 1376),
}


@pytest.mark.parametrize("name", sorted(ZOO))
def test_zoo_is_the_published_table(name):
    s = model_spec(name)
    macs, lookups, dim, top_in = PUBLISHED[name]
    assert (s.macs, s.lookups, s.tables[0].dim) == (macs, lookups, dim)
    assert next(c for n, c in s.layers() if n.name == "top0") == top_in
    assert ModelSpec.from_toml(s.to_toml()) == s
    assert model_spec(name, rows=10).tables[0].rows == 10


def queries(spec, batch, seed=0):
    rng = np.random.default_rng(seed)
    dense = torch.tensor(rng.standard_normal((batch, spec.dense)), dtype=torch.float32)
    bags = []
    for t in spec.tables:
        lengths = rng.integers(0, t.lookups + 1, batch)
        bags.append((torch.tensor(rng.integers(0, t.rows, lengths.sum())),
                     torch.tensor(np.concatenate([[0], np.cumsum(lengths)[:-1]]))))
    return dense, bags


def pooled(model, bags, b):
    """Sample b's pooled vectors, one lookup at a time."""
    out = []
    for e, (indices, offsets) in zip(model.embeddings, bags, strict=True):
        end = offsets[b + 1] if b + 1 < len(offsets) else len(indices)
        rows = [e.weight[i] for i in indices[offsets[b] : end]]
        v = sum(rows, torch.zeros(e.weight.shape[1]))
        out.append(v / len(rows) if e.mode == "mean" and rows else v)
    return out


def mlp(model, prefix, x, last_relu):
    layers = [m for n, m in model.linears.items() if n.startswith(prefix)]
    for i, m in enumerate(layers):
        x = x @ m.weight.T + m.bias
        if last_relu or i + 1 < len(layers):
            x = x.clamp(min=0)
    return x


@pytest.mark.parametrize("interaction", ["cat", "dot", "neumf"])
def test_forward_is_the_formula(interaction):
    tables = (TableShape(30, 8, 5), TableShape(20, 8, 3, "mean"), TableShape(9, 8, 1), TableShape(7, 8, 2))
    dense = 0 if interaction == "neumf" else 6
    spec = ModelSpec("m", tables, dense, (16, 8), (12, 2), interaction)
    model = RecModel(spec, seed=3)
    x, bags = queries(spec, 5)
    with torch.no_grad():
        got = model(x, bags)
        for b in range(5):
            p = pooled(model, bags, b)
            if interaction == "neumf":
                top = torch.cat([mlp(model, "bot", torch.cat(p[:2]), True), p[2] * p[3]])
            else:
                bottom = mlp(model, "bot", x[b], True)
                if interaction == "cat":
                    top = torch.cat([bottom, *p])
                else:
                    f = [bottom, *p]
                    top = torch.cat([bottom, torch.stack([f[i] @ f[j] for i in range(5) for j in range(i)])])
            assert torch.allclose(got[b], mlp(model, "top", top, False), atol=1e-5)


def test_per_sample_weights():
    spec = ModelSpec("m", (TableShape(10, 4, 3),), 2, (4,), (1,))
    model = RecModel(spec)
    bag = (torch.tensor([1, 2, 3]), torch.tensor([0, 2]))
    w = torch.tensor([0.5, -2.0, 3.0])
    p = model.pool([(*bag, w)])[0]
    e = model.embeddings[0].weight
    assert torch.allclose(p[0], 0.5 * e[1] - 2 * e[2])
    mean = RecModel(ModelSpec("m", (TableShape(10, 4, 3, "mean"),), 2, (4,), (1,)))
    with pytest.raises(DataError, match="sum"):
        mean.pool([(*bag, w)])


def test_seed_decides_parameters():
    a, b, c = build("ncf", 50, seed=1), build("ncf", 50, seed=1), build("ncf", 50, seed=2)
    x = queries(a.spec, 4)
    assert torch.equal(a(*x), b(*x))
    assert not torch.equal(a(*x), c(*x))


@pytest.mark.parametrize(("change", "field"), [
    ({"interaction": "dcn"}, "interaction"), ({"tables": ()}, "tables"), ({"top": ()}, "top"),
    ({"dense": 0}, "bottom"), ({"interaction": "dot", "bottom": (16, 4)}, "interaction"), ({"bottom": (0,)}, "bottom"),
    ({"tables": (TableShape(5, 6),)}, r"tables\[0\]\.dim"), ({"tables": (TableShape(5, 8, mode="max"),)}, "mode"),
    ({"tables": (TableShape(5, 8, format="bf16"),)}, "format"),
])
def test_bad_specs_are_refused(change, field):
    good = dict(name="m", tables=(TableShape(5, 8), TableShape(6, 8)), dense=4, bottom=(16, 8), top=(4, 1))
    ModelSpec(**good)
    with pytest.raises(ModelError, match=field):
        ModelSpec(**(good | change))


def test_unknown_toml_fields_are_refused():
    with pytest.raises(ModelError, match="colour"):
        ModelSpec.from_toml('name = "m"\ncolour = 1\n[[tables]]\nrows = 4\ndim = 4\n')
    with pytest.raises(ModelError, match="TOML"):
        ModelSpec.from_toml("name = ")
    s = ModelSpec.from_toml('name = "m"\ntop = [1]\n[[tables]]\nrows = 4\ndim = 4\ncount = 3\n')
    assert len(s.tables) == 3


@pytest.mark.parametrize(("change", "field"), [
    ({"dense": '"4"'}, "dense"), ({"dense": "4.0"}, "dense"), ({"dense": "true"}, "dense"), ({"top": "1"}, "top"),
    ({"top": "[4, 1.0]"}, "top"), ({"bottom": '"8"'}, "bottom"), ({"tables": "3"}, "tables"),
    ({"tables": "[3]"}, "tables[0]"),
    ({"tables": "[{rows = 50.0, dim = 8}]"}, "tables[0].rows"), ({"tables": "[{rows = '50', dim = 8}]"}, "tables[0].rows"),
    ({"tables": "[{rows = 50, dim = 8.0}]"}, "tables[0].dim"), ({"tables": "[{rows = 50}]"}, "tables[0].dim"),
    ({"tables": "[{rows = 50, dim = 8, count = '3'}]"}, "tables[0].count"), ({"name": "[]"}, "name"),
    ({"tables": "[{rows = 50, dim = 8, count = 100000000000}]"}, "tables[0].count"), ({"dense": "1" * 30}, "dense"),
    ({"tables": "[{rows = 50, dim = 8, lookups = true}]"}, "tables[0].lookups"), ({"interaction": "3"}, "interaction"),
    ({"tables": "[{rows = 50, dim = 1000000000000}]"}, "tables[0].dim"), ({"dense": "1" * 5000}, "toml"),
    ({"tables": "[{rows = 50, dim = 8, mode = ['sum']}]"}, "tables[0].mode"), ({"dense": "nan"}, "dense"),
])
def test_wrong_types_name_file_and_field(change, field, tmp_path):
    good = {"name": '"m"', "dense": "4", "bottom": "[8]", "top": "[4, 1]", "interaction": '"dot"',
            "tables": "[{rows = 50, dim = 8, count = 3}]"}
    path = tmp_path / "model.toml"
    path.write_text("".join(f"{k} = {v}\n" for k, v in good.items()))
    assert len(ModelSpec.from_toml(path).tables) == 3
    path.write_text("".join(f"{k} = {v}\n" for k, v in (good | change).items()))
    with pytest.raises(ModelError) as e:
        ModelSpec.from_toml(path)
    assert e.value.field == field
    assert str(e.value).startswith(f"{path}: {field} = ")


def test_a_model_larger_than_memory_is_refused():
    with pytest.raises(ModelError, match="bytes of memory"):
        RecModel(ModelSpec("huge", (TableShape(2**31 - 1, 4096),) * 200, 4, (), (1,)))
