"""Query streams, good and malformed, and what the parser makes of them."""

import numpy as np
from nearflash.contract import Opcode
from nearflash.reference.query import pack_queries, unpack_queries
from nearflash_hw.interfaces import ItemKind
from nearflash_sim.models import HostReaderModel

MAX = 0xFFFFFFFF
ONE = 0x3F800000


def random_query(rng, config, specs, lookup, weighted, batch=None, max_bag=6):
    """A good command: (keyword arguments of check_query, words)."""
    batch = batch or rng.randint(1, config.host.max_batch)
    n = np.random.default_rng(rng.getrandbits(32))
    bags = [[n.integers(0, s.rows, rng.choice([0, 1, rng.randint(0, max_bag)])) for _ in range(batch)]
            for s in specs.values()]
    weights = [[n.standard_normal(len(b)).astype(np.float32) for b in t] for t in bags] if weighted else None
    dense = None if lookup else n.standard_normal((batch, 3)).astype(np.float32)
    words = pack_queries(dense, bags, weights)
    return dict(opcode=int(Opcode.LOOKUP if lookup else Opcode.INFER), batch=batch, n_tables=len(specs),
                n_dense=0 if lookup else 3, weighted=weighted, out_addr=0x1000), words


def command(i, args, words):
    return {"opcode": args["opcode"], "qid": i % 2, "cid": i, "prp1": (i + 1) << 16, "prp2": 77, "words": len(words),
            "batch": args["batch"], "weighted": int(args["weighted"]), "tables": args["n_tables"],
            "dense": args["n_dense"], "out_addr": args["out_addr"]}


def expected(config, args, words):
    """Dense elements and items of a good command."""
    lookup = int(args["opcode"] == Opcode.LOOKUP)
    dense, items = [], []
    batch, size = args["batch"], config.mlp.n_batch
    for b, s in enumerate(unpack_queries(words, batch, args["n_tables"], args["n_dense"], args["weighted"])):
        sample = {"n": b % size, "nb": min(size, batch - b // size * size) - 1, "last": int(b == batch - 1),
                  "lookup": lookup, "tables": args["n_tables"]}
        bits = s.dense.view(np.uint32)
        dense += [{"value": int(v), "last": int(k == len(bits) - 1), "sample": sample} for k, v in enumerate(bits)]
        for t, bag in enumerate(s.bags):
            weights = s.weights[t].view(np.uint32) if s.weights else [ONE] * len(bag)
            items += [(ItemKind.LOOKUP, t, int(i), int(w), int(args["weighted"]), sample)
                      for i, w in zip(bag, weights, strict=True)]
            items.append((ItemKind.BAG, t, len(bag), sample))
        items.append((ItemKind.SAMPLE, sample))
    return dense, items


def plain(item):
    k = item["kind"]
    if k == ItemKind.LOOKUP:
        return (k, *(item[n] for n in ("table", "index", "weight", "weighted", "sample")))
    return (k, item["table"], item["count"], item["sample"]) if k == ItemKind.BAG else (k, item["sample"])


class TwoPasses(HostReaderModel):
    """A command's first transfer is pass 1's. ``fails`` and ``swaps``: those of each pass."""

    def __init__(self, config, dut, buffers, stall=0.0, seed=0, fails=None, swaps=None):
        none = lambda *a: None  # noqa: E731
        fails, swaps = fails or [none, none], swaps or [none, none]
        super().__init__(config, dut.host_req, dut.host_data, buffers, stall, seed,
                         lambda prp1, n: fails[self.now](prp1, self.of_pass[self.now]),
                         lambda prp1: swaps[self.now](prp1))
        self.now, self.of_pass, self.begun = 0, [0, 0], set()

    def request(self, r):
        self.now = int(r["prp1"] in self.begun)
        self.begun.add(r["prp1"])
        super().request(r)
        self.of_pass[self.now] += 1


def malformed(rng, config, specs):
    """(name, arguments, words) of every way a command can be wrong."""
    out = []

    def case(name, lookup=False, weighted=False, batch=3, edit=None, **args):
        a, w = random_query(rng, config, specs, lookup, weighted, batch=batch)
        a.update(args)
        out.append((name, a, edit(w.copy()) if edit else w))

    def put(position, value):
        def edit(w):
            w[position] = value
            return w
        return edit

    def full(lookup, weighted, position, value):
        """Bags of 2 everywhere, one word replaced. Sample: [x x x] n i (w) i (w) n i (w) i (w)."""
        bags = [[np.array([1, 2])] * 2 for _ in specs]
        w = pack_queries(None if lookup else np.ones((2, 3), np.float32), bags,
                         [[np.ones(2, np.float32)] * 2 for _ in specs] if weighted else None)
        w[position] = value
        return lambda _: w

    case("empty batch", batch=1)
    out[-1][1].update(batch=0)
    case("batch too large", batch=8)
    out[-1][1].update(batch=9)
    case("no tables", n_tables=0)
    case("more tables than the device has", lookup=True, n_tables=config.lookup.max_tables + 1)
    case("closed table", lookup=True, n_tables=3)
    case("table closed again", lookup=True, n_tables=6)
    case("fewer tables than the model", n_tables=1)
    case("other dense than the model", n_dense=4)
    case("lookup with dense features", lookup=True, n_dense=3)
    case("results not beat-aligned", out_addr=0x1004)
    case("results beyond the bus", out_addr=1 << 40)
    case("results that may run beyond the bus", out_addr=config.results_reach)
    case("one word short", edit=lambda w: w[:-1])
    case("half", edit=lambda w: w[: len(w) // 2])
    case("only the dense features", edit=lambda w: w[:3])
    case("less than the dense features", edit=lambda w: w[:2])
    case("one word long", edit=lambda w: np.append(w, np.uint32(0)))
    case("several beats long", edit=lambda w: np.append(w, np.zeros(9, np.uint32)))
    case("count above headroom", lookup=True, edit=put(0, 17))
    case("count huge", lookup=True, edit=put(0, MAX))
    case("count above max_bag", batch=2, edit=full(False, False, 6, 21))
    case("count too large at the last bag", lookup=True, batch=2, edit=full(True, False, 9, 33))
    case("index = rows", batch=2, edit=full(False, False, 4, 150))
    case("index of the second table", batch=2, edit=full(False, False, 7, 60))
    case("index huge", batch=2, lookup=True, edit=full(True, False, 2, MAX))
    case("last index of the batch", batch=2, lookup=True, edit=full(True, False, 11, 60))
    case("weighted index", batch=2, weighted=True, edit=full(False, True, 6, 150))
    case("weighted, weight missing", weighted=True, batch=2, lookup=True, edit=lambda w: full(True, True, 0, 2)(w)[:-1])
    case("unweighted stream sent as weighted", batch=2, edit=full(False, False, 0, 0), weighted=True)
    return out

