"""What a recommendation model is: the one description that the PyTorch module, the quantiser and the hardware graph
derive from. NumPy-free and Python 3.10-clean.

>>> spec = ModelSpec("small", (TableShape(100, 8), TableShape(50, 8)), dense=4, bottom=(16, 8), top=(16, 1))
>>> [n.name for n in spec.nodes()]
['dense', 'emb', 'bot0', 'bot1', 'top0', 'top1']
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..contract import ModelError, Node, RowFormat
from ..contract.config import FORMATS, MODES
from ..contract.reading import parse_toml, read_text, reading
from ..contract.table import PoolMode
from ..contract.typed import check_fields, check_table

__all__ = ["INTERACTIONS", "ModelSpec", "TableShape"]

INTERACTIONS = ("cat", "dot", "neumf")
MOST_TABLES = 256  # of a device (LookupConfig.max_tables)
LARGEST_DIM = 4096  # an fp32 vector in the largest page
WIDEST = 1 << 20  # of a layer


@dataclass(frozen=True)
class TableShape:
    """One embedding table: ``rows`` x ``dim``, ``lookups`` per sample (the largest bag expected of it), pooling
    ``mode`` "sum" or "mean", stored ``format`` "fp32", "fp16" or "int8" (row-wise)."""

    rows: int
    dim: int
    lookups: int = 1
    mode: str = "sum"
    format: str = "fp32"

    @property
    def row_format(self) -> RowFormat:
        return RowFormat[self.format.upper()]

    @property
    def pool_mode(self) -> PoolMode:
        return PoolMode[self.mode.upper()]


def _check(ok: bool, name: str, value: Any, limit: str) -> None:
    if not ok:
        raise ModelError(name, value, limit)


@dataclass(frozen=True)
class ModelSpec:
    """A model: embedding bags, bottom MLP, interaction, top MLP; the last layer's outputs are logits.

    ``bottom`` and ``top`` are layer widths without the input. Every layer but the last of ``top`` is followed by ReLU,
    the last of ``bottom`` too. Interactions:

    ``cat``
        [bottom output, table 0, table 1, ...] (an empty ``bottom`` passes the dense features through)
    ``dot``
        [bottom output, strictly lower triangle (i > j, row-major) of the features' dot products], the features
        being the bottom output and the tables, all of one dimension (facebookresearch/dlrm)
    ``neumf``
        the last two tables are multiplied element-wise (MF branch), the others are concatenated and go through
        ``bottom`` (MLP branch); [MLP branch, MF branch] goes to ``top`` (He et al., NCF, WWW 2017)
    """

    name: str
    tables: tuple[TableShape, ...]
    dense: int = 0
    bottom: tuple[int, ...] = ()
    top: tuple[int, ...] = (1,)
    interaction: str = "cat"

    def __post_init__(self) -> None:
        check_fields(ModelSpec, vars(self), "", ModelError)
        _check(isinstance(self.tables, tuple), "tables", self.tables, "must be a list of tables")
        for i, t in enumerate(self.tables):
            _check(isinstance(t, TableShape), f"tables[{i}]", t, "must be a table of named values")
            check_fields(TableShape, vars(t), f"tables[{i}].", ModelError)
        _check(self.interaction in INTERACTIONS, "interaction", self.interaction, f"must be one of {INTERACTIONS}")
        _check(1 <= len(self.tables) <= MOST_TABLES, "tables", len(self.tables), f"must hold from 1 to {MOST_TABLES} tables")
        for i, t in enumerate(self.tables):
            _check(1 <= t.rows < 1 << 31, f"tables[{i}].rows", t.rows, "must be from 1 to 2**31 - 1")
            _check(4 <= t.dim <= LARGEST_DIM and t.dim % 4 == 0, f"tables[{i}].dim", t.dim,
                   f"must be a positive multiple of 4, at most {LARGEST_DIM}")
            _check(1 <= t.lookups <= 65535, f"tables[{i}].lookups", t.lookups, "must be from 1 to 65535")
            _check(t.mode in MODES, f"tables[{i}].mode", t.mode, "must be 'sum' or 'mean'")
            _check(t.format in FORMATS, f"tables[{i}].format", t.format,
                   "must be 'fp32', 'fp16' or 'int8'")
        _check(0 <= self.dense <= WIDEST, "dense", self.dense, f"must be from 0 to {WIDEST}")
        _check(len(self.top) >= 1, "top", self.top, "must hold at least one layer")
        for f in ("bottom", "top"):
            _check(all(1 <= w <= WIDEST for w in getattr(self, f)), f, getattr(self, f),
                   f"widths must be from 1 to {WIDEST}")
        if self.interaction == "neumf":
            _check(len(self.tables) >= 3, "tables", len(self.tables), "neumf needs at least three tables")
            _check(self.tables[-1].dim == self.tables[-2].dim, "tables", self.tables[-1].dim,
                   f"the two MF tables must agree in dim ({self.tables[-2].dim})")
            _check(self.dense == 0, "dense", self.dense, "neumf takes no dense features")
        else:
            _check(self.dense > 0 or not self.bottom, "bottom", self.bottom, "needs dense features (dense > 0)")
        if self.interaction == "dot":
            dims = {t.dim for t in self.tables} | ({(self.bottom or (self.dense,))[-1]} if self.dense else set())
            _check(len(dims) == 1, "interaction", self.interaction,
                   f"dot needs the bottom output and every table to agree in dim, got {sorted(dims)}")
            _check(len(self.tables) + bool(self.dense) >= 2, "interaction", self.interaction,
                   "dot needs at least two features")

    # -- derived --------------------------------------------------------------------------------------------------
    @property
    def lookups(self) -> int:
        """Lookups of one inference."""
        return sum(t.lookups for t in self.tables)

    @property
    def outputs(self) -> int:
        return self.top[-1]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference in fully connected layers."""
        return sum(n.width * c for n, c in self.layers())

    def layers(self) -> list[tuple[Node, int]]:
        """Every fully connected node with the width of its input."""
        nodes = self.nodes()
        width = {n.name: n.width for n in nodes}
        return [(n, sum(width[i] for i in n.inputs)) for n in nodes if n.kind == "fc"]

    def nodes(self) -> tuple[Node, ...]:
        """The model as a graph of :class:`~nearflash.contract.Node`, in topological order, without kernels chosen."""
        nodes: list[Node] = []
        every = tuple(range(len(self.tables)))

        def add(*args: Any, **kw: Any) -> str:
            nodes.append(Node(*args, **kw))
            return nodes[-1].name

        def chain(prefix: str, widths: tuple[int, ...], inputs: tuple[str, ...], relu_last: bool) -> str:
            for i, w in enumerate(widths):
                inputs = (add(f"{prefix}{i}", "fc", w, inputs, relu=relu_last or i + 1 < len(widths)),)
            return inputs[0]

        def tables(name: str, ids: tuple[int, ...]) -> str:
            return add(name, "tables", sum(self.tables[t].dim for t in ids), tables=ids)

        if self.interaction == "neumf":
            mlp = tables("emb", every[:-2])
            left, right = tables("mf_a", every[-2:-1]), tables("mf_b", every[-1:])
            if self.bottom:
                mlp = chain("bot", self.bottom, (mlp,), True)
            top_in = (mlp, add("mf", "mul", self.tables[-1].dim, (left, right)))
        else:
            sources = (add("dense", "dense", self.dense),) if self.dense else ()
            emb = tables("emb", every)
            if self.bottom:
                sources = (chain("bot", self.bottom, sources, True),)
            if self.interaction == "dot":
                n = len(self.tables) + len(sources)
                pairs = add("dot", "dot", n * (n - 1) // 2, (*sources, emb), dim=self.tables[0].dim)
                top_in = (*sources, pairs)
            else:
                top_in = (*sources, emb)
        chain("top", self.top, top_in, False)
        return tuple(nodes)

    # -- in and out -----------------------------------------------------------------------------------------------
    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, d: dict[str, Any]) -> ModelSpec:
        """Build from nested dictionaries; unknown keys and values of another type raise :class:`ModelError`. A table may
        say ``count`` for that many equal tables."""
        kw = check_table(cls, d, "", ModelError)
        _check(isinstance(kw["tables"], tuple), "tables", kw["tables"], "must be a list of tables")
        tables: list[TableShape] = []
        for i, t in enumerate(kw["tables"]):
            values = check_table(TableShape, t, f"tables[{i}]", ModelError, frozenset({"count"}))
            count = values.pop("count", 1)
            _check(type(count) is int and 1 <= count <= MOST_TABLES, f"tables[{i}].count", count,
                   f"must be an integer from 1 to {MOST_TABLES}")
            tables += [TableShape(**values)] * count
        kw["tables"] = tuple(tables)
        return cls(**kw)

    def to_toml(self) -> str:
        """TOML text that :meth:`from_toml` reads back to an equal spec."""
        d = self.to_dict()
        tables = d.pop("tables")
        lines = [f"{k} = {json.dumps(v, ensure_ascii=False)}" for k, v in d.items()]
        for t in tables:
            lines += ["", "[[tables]]", *(f"{k} = {json.dumps(v, ensure_ascii=False)}" for k, v in t.items())]
        return "\n".join(lines) + "\n"

    @classmethod
    def from_toml(cls, source: str | Path) -> ModelSpec:
        """Read TOML text, or a file when given a :class:`~pathlib.Path`. Raises :class:`ModelError` naming file and field,
        and :class:`~nearflash.contract.DataError` for a file that is not text."""
        if isinstance(source, str):
            return cls.from_dict(parse_toml(source, ModelError))
        with reading(source):
            return cls.from_dict(parse_toml(read_text(source), ModelError))
