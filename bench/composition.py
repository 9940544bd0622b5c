"""MLP time of one inference with and without inter-layer composition and intra-layer decomposition, in RTL.

The MLP engines of the paper's models, generated alone; one sample at a time, all of its inputs offered at once and without
gaps, weights on chip. **MLP time** counts from the last input element to the last logit; busy cycles from the first element
on. Every answer is compared with the reference model's, bit for bit.

* composition off: every layer scans by rows and so waits for its whole input. On: scan orders alternate.
* decomposition on: the first top layer has a core for the bottom MLP's output and one for the pooled vectors, which works
  while the bottom MLP does. Off: one core on the concatenation, with at least as many multipliers.

Nothing else differs: every other layer has the same kernel in all four. The kernels are the planner's for about STEPS kernel
steps an inference, with neighbouring layers balanced (the paper's kernel search); that is no slower than the model's lookups
on the paper's device with one die per channel. Inputs arrive one element a cycle in all four; a scan order that starts on
them earlier gains that too, which is why RMC2, whose 2,048 pooled elements take longest, saves more than half.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from typing import Any

from nearflash.compiler import PlanOptions, compile_device
from nearflash.compiler.plan import composed, merged, plain
from nearflash.compiler.timing import inference_cycles
from nearflash.contract import DeviceConfig, Node, cores
from nearflash.data import synthetic_queries
from nearflash.models import build
from nearflash.quantize import compile_model

from .engine import measure_engine
from .report import Rows, progress, show_rows

__all__ = ["measure", "variants"]

#: Kernel steps of an inference, composed and decomposed. Half and double the kernels would do as well; these divide well.
STEPS = {"rmc1": 4160, "rmc2": 8256, "rmc3": 21152, "ncf": 2240, "wnd": 18432}
VARIANTS = ("plain_merged", "plain_split", "composed_merged", "composed_split")


def variants(name: str) -> dict[str, DeviceConfig]:
    """The four devices of model ``name``: "plain" or "composed", "merged" or "split"."""
    spec = build(name, rows=64).spec
    options = PlanOptions(onchip_bytes=1 << 30, inference_steps=STEPS[name])
    config = compile_device(spec, DeviceConfig.preset("paper"), options)
    dims = [t.dim for t in spec.tables]

    def device(graph: tuple[Node, ...]) -> DeviceConfig:
        return replace(config, mlp=replace(config.mlp, graph=graph, n_batch=1))

    out = {}
    for label, graph in (("split", config.mlp.graph), ("merged", merged(config.mlp.graph, config))):
        out[f"plain_{label}"] = device(plain(graph))
        out[f"composed_{label}"] = min(map(device, composed(graph)), key=lambda d: inference_cycles(d, dims).after_input)
    return out


def measure_variant(name: str, variant: str) -> dict[str, int]:
    """RTL cycles of one sample, the planner's error, and the multipliers."""
    model = build(name, rows=64)
    spec, config = model.spec, variants(name)[variant]
    calibration = synthetic_queries([(t.rows, t.lookups) for t in spec.tables], spec.dense, 8)
    got = measure_engine(compile_model(model, config, [(calibration.dense, calibration.bags)]))
    planned = inference_cycles(config, [t.dim for t in spec.tables])
    return {"time": got.after_input, "busy": got.busy, "multipliers": sum(c.kr * c.kc for c in cores(config.mlp.graph)),
            "error": max(abs(got.busy - planned.busy), abs(got.after_input - planned.after_input))}


def _row(name: str, got: dict[str, dict[str, int]]) -> dict[str, Any]:
    def saved(before: str, after: str, what: str = "time") -> float:
        return 1 - got[after][what] / got[before][what]

    return {
        "model": name, **{f"multipliers_{k}": got[f"plain_{k}"]["multipliers"] for k in ("split", "merged")},
        **{f"mlp_time_{v}_cycles": got[v]["time"] for v in VARIANTS},
        **{f"mlp_busy_{v}_cycles": got[v]["busy"] for v in VARIANTS},
        "composition_saved_split_share": saved("plain_split", "composed_split"),
        "composition_saved_merged_share": saved("plain_merged", "composed_merged"),
        "decomposition_saved_plain_share": saved("plain_merged", "plain_split"),
        "decomposition_saved_composed_share": saved("composed_merged", "composed_split"),
        "both_saved_share": saved("plain_merged", "composed_split"),
        "busy_composition_saved_split_share": saved("plain_split", "composed_split", "busy"),
        "planner_error_max_cycles": max(got[v]["error"] for v in VARIANTS)}


def measure(quick: bool = False) -> Rows:
    """Rows by model. ``quick`` changes nothing: one inference each is the whole measurement."""
    names = list(STEPS)
    got: dict[str, dict[str, dict[str, int]]] = {name: {} for name in names}
    # Generating an engine keeps a core busy for longer than simulating it.
    with progress() as bar, ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        task = bar.add_task("composition", total=len(VARIANTS) * len(names), note="")
        jobs = {pool.submit(measure_variant, name, variant): (name, variant) for name in names for variant in VARIANTS}
        for job in as_completed(jobs):
            name, variant = jobs[job]
            got[name][variant] = job.result()
            bar.update(task, advance=1, note=f"{name}, {variant.replace('_', ', ')}")
    out = [_row(name, got[name]) for name in names]
    for what, title in (("time", "MLP time of one inference, cycles from the last input"),
                        ("busy", "The same inferences, cycles from the first input")):
        show_rows(title, (
            ("model", "model", ""), ("multipliers_merged", "multipliers", ","), ("multipliers_split", "(decomposed)", ","),
            (f"mlp_{what}_plain_merged_cycles", "neither", ","), (f"mlp_{what}_plain_split_cycles", "decomposed", ","),
            (f"mlp_{what}_composed_merged_cycles", "composed", ","), (f"mlp_{what}_composed_split_cycles", "both", ","),
        ), out)
    show_rows("MLP time saved by", (
        ("model", "model", ""), ("composition_saved_split_share", "compos. (1)", ".1%"),
        ("composition_saved_merged_share", "(2)", ".1%"), ("decomposition_saved_composed_share", "decomp. (3)", ".1%"),
        ("decomposition_saved_plain_share", "(4)", ".1%"), ("both_saved_share", "both (5)", ".1%"),
        ("planner_error_max_cycles", "error (6)", ","),
    ), out, ("(1) decomposed in both cases (2) decomposed in neither (3) composed in both cases (4) composed in neither",
             "(5) both against neither, the naive, layer-by-layer engine. Only the merged layer has another kernel.",
             "(6) largest difference to the prediction of nearflash.compiler.timing, cycles"))
    return out
