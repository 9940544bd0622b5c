"""What the compiled loops keep: scalars in one record, everything that there are several of in arrays of records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from nearflash.contract import DeviceConfig, TableSpec, cores
from nearflash.contract.modelled import Modelled
from nearflash.contract.nvme import CQE_BYTES, HOST_PAGE
from nearflash.contract.table import PoolMode, RowFormat
from nearflash.data.block_load import BlockLoad

from ..latency import Latency
from ..workload import tables_end
from .dram import READS_KEPT
from .host_reads import HOST_READS
from .moved import new_moved
from .pipe import PIPES, STALLS
from .row_cache import LINES_READ, new_cache
from .trace import FIELDS

__all__ = ["BUS", "CHOOSE", "COMMANDS", "END", "FETCHES", "FOLLOWED", "INF", "PIECES", "PUSH", "REPEAT", "ROOM", "ROWS",
           "SCAN", "Arrays", "Device", "device_of", "new_dram", "new_state"]

INF = 1 << 62  # a time that never comes
FETCHES = 16  # of submission entries, the latest ones
DRAM_WRITES = 64  # the latest ones: more than page slots have under way
#: What a channel does next. Of a page window: SCAN, REPEAT; of block I/O: ROOM, a page's slot is set aside, and END, the
#: page is off the bus. Up to SCAN it is of no matter to anything but the channel.
PUSH, CHOOSE, SCAN, BUS, REPEAT, ROOM, END = range(7)
COMMANDS = 32  # places for commands in flight: more than the largest infer_depth
ROWS = 16  # between pooling's input and its adder (ROWS_IN_FLIGHT)
SMALL_BYTES = 16  # of a superblock, and of a range of a list
BUFFERED_DEPTH = 64  # of a FIFO, from which on it takes two cycles (primitives/fifo)
PIECES = 8  # places for a transfer's latest pieces: more than the host reader's room
FOLLOWED = 64  # places for lookups behind the parser: more than the locator and the map have room for


class Device(NamedTuple):
    """A configuration as the loops need it; times in cycles."""

    k: Latency
    channels: int
    dies: int  #: of a channel, of their planes each
    channel_bits: int
    die_bits: int
    t_read: int
    t_command: int  #: on the bus: at least 1
    t_ccs: int
    bus_beat_q16: int
    beat_bytes: int
    tags: int
    slots: int
    map_lines: int
    map_bits: int  #: of an entry's number in its line
    map_misses: int  #: lines that may be on their way
    map_credits: int  #: translations that the lookups may have in flight,
    translations: int  #: and that the translator has room for
    word_bits: int  #: of a word's number in its beat,
    piece_bits: int  #: and of a beat's in its piece of a transfer
    host_latency: int
    dram_latency: int
    page_beats: int  #: of a host page
    cqe_beats: int  #: of a completion
    merge_buffered: int  #: the channels' vector buffers are block RAM
    row_latency: int
    divides: int  #: it has means, so every sum passes the divider
    mean_cycles: int  #: a mean's element takes in the divider
    lanes: int  #: accumulators of a word
    features: int  #: of a sample, dense
    outputs: int  #: of a sample, logits
    n_batch: int  #: samples of a group in the MLP, at most
    streams: int  #: weights come from DRAM
    sources: int  #: of vectors, before the merge: channels, and the row cache if there is one
    line_beats: int  #: of the row cache's lines
    line_fifo: int  #: cycles that a beat takes through the cache's reader
    page_unit: int  #: beats of a flash page, if the row cache holds pages (modelled, not in RTL)
    cache_mask: int  #: bits of a row's number that a cache knows it by: a cache of pages its page's alone
    window: int  #: reads of a die's queue that are looked at for each page it reads
    block_reads: int  #: pages of block I/O in flight; 0: there is none
    page_pieces: int  #: pieces of host memory that a logical block goes to,
    run_pages: int  #: and that a host page has
    block_writes: int  #: slots for pages that block I/O writes; 0: it writes none
    t_program: int
    t_erase: int
    oob_beats: int  #: of a flash page
    block_pages: int  #: of a flash block
    total_pages: int  #: of the flash
    small_beats: int  #: of a superblock, and of a list of one range
    piece_store: int  #: cycles that a piece of host memory takes through the queue of a WRITE's
    longest: int  #: the bus moves the data of the die that most reads wait for


class Arrays(NamedTuple):
    """The state of a device; ``s`` has one record."""

    s: np.ndarray
    table: np.ndarray
    tag: np.ndarray
    row: np.ndarray  #: [tag] in the queue of a die, or among its repeats: its page there, if there is a page window,
    behind: np.ndarray  #: and the tag behind it, or -1
    free: np.ndarray  #: ring: tags that came back, and when they may be taken
    channel: np.ndarray  #: of the names that begin with ``dies``: the earliest of its dies
    die: np.ndarray  #: [channel * dies + die]
    coming: np.ndarray  #: [channel, place], ring: reads on their way to the die queues
    merging: np.ndarray  #: [source, place], ring: vectors before the merge
    sample: np.ndarray  #: ring of twice the slots
    command: np.ndarray  #: ring
    followed: np.ndarray  #: ring: lookups behind the parser; when they asked for their place, and its answer
    located: np.ndarray  #: [16] cycles in which the latest lookups left the locator,
    translated: np.ndarray  #: [translations] and the queue of translations,
    issued: np.ndarray  #: [map_credits] and became flash reads
    map_tag: np.ndarray  #: line held in each place of the map cache
    line_free: np.ndarray  #: [map_misses], ring: when the latest lines that were missing were on their way no more
    piece_from: np.ndarray  #: ring: of a transfer's latest pieces, cycles of their first beats, less those beats' numbers
    touched: np.ndarray  #: [place of sample, table]: it has lookups
    job_left: np.ndarray  #: ring: cycles in which the drain's latest jobs left their FIFO
    pooled: np.ndarray  #: [element] of a sample: cycle in which it enters the MLP's buffers
    recent: np.ndarray  #: [3, 2] the latest rows of few words: whose accumulators, and the cycle of the first
    loaded: np.ndarray  #: [16], ring: cycles in which the latest rows reached the adder
    pipe: np.ndarray
    stall_from: np.ndarray  #: [pipe, place], ring: the latest stalls begin
    stall_to: np.ndarray  #: and end
    feature: np.ndarray  #: [place of sample, feature]: cycle in which it left the slice, then entered the MLP's buffers
    feature_group: np.ndarray  #: [place of sample]: its group
    feature_ends: np.ndarray  #: [place of sample]: it is the last of its group
    feature_taken: np.ndarray  #: ring: cycles in which the latest features were taken by the parser,
    feature_sliced: np.ndarray  #: and left the slice
    dram: np.ndarray  #: one record: what memory has given up to the latest burst of streamed weights, and when the next is,
    dram_kept: np.ndarray  #: [read, 2] and the reads beside them: from when on it could give each, and beats
    cached: np.ndarray  #: [set, way]: key of each line of the row cache,
    cache_count: np.ndarray  #: and how often it was found
    keeping: np.ndarray  #: ring: rows that the cache's writer has
    line_gone: np.ndarray  #: ring: cycles in which the latest rows left the cache's reader
    block: np.ndarray  #: one record: the state of block I/O
    request: np.ndarray  #: [place]: requests in flight
    sending: np.ndarray  #: ring: the places of those that wait for their fetch
    ended: np.ndarray  #: ring: places of requests whose pages are all in host memory, and when Queues knows
    fetched: np.ndarray  #: [fetch, 2] ring: cycles in which entries are fetched, from and to
    page: np.ndarray  #: ring: pages offered to the sender, their slots, and from when on it may take them
    result: np.ndarray  #: ring: chunks of commands' results beside block I/O, and where one ends (no beats): when, of which
    beats: np.ndarray  #: [now and then, channel, of its page]; behind the channels: whose beat the read buffer took last
    read_tag: np.ndarray  #: ring: pages' tags that came back, and when they may be taken
    read_slot: np.ndarray  #: cycles from which on the read buffer's slots are free
    load: np.ndarray  #: [request]: first logical block, how many, kind, when the host has it, and the cycles in which it is
    #: submitted and complete
    register: np.ndarray  #: those that commands of block I/O go to: when there is one, whose, and when they are empty
    slot: np.ndarray  #: of the write buffer
    piece_time: np.ndarray  #: [piece] of the WRITE under way: from when on it may be requested
    dram_written: np.ndarray  #: [write, 2] ring: cycles in which beats go to the DRAM, from and to
    host_reads: np.ndarray  #: [read, 2] ring: of WRITEs' blocks, when asked for and the cycle after the last beat
    moved: np.ndarray  #: [place, 2]: logical blocks that were written or unmapped, and their pages
    trace: np.ndarray  #: [slice, field] for a timeline: none, or what there is room for


_SCALARS = (
    "host_now", "host_bus", "irq_low", "fetch_free", "register_free", "validator_free", "executor_free", "parser_free",
    "walk_run", "piece_at", "beat_taken", "beat_used1", "beat_used2", "word_loaded", "word_used", "asked",
    "item_out", "item_in", "lookups", "placed", "place_asked", "issued", "issue", "issue_waits", "issue_hit", "issue_keep",
    "gone", "misses", "map_free", "map_client", "map_served", "lines", "last_issue",
    "fresh", "tag_head", "tag_tail",
    "reader_free", "reader_asked", "dram_bus", "dram_asked", "merge_free", "merge_last",
    "vector_before", "vector_sliced", "vector_taken", "vector_done",
    "rows", "issue_done", "sample", "next_drain", "drain_ready", "drain_jobs", "drained",
    "walk_at", "walk_waits", "walk_begin", "walk_table", "walk_word", "walk_zero", "walk_number", "walk_granted",
    "element_taken", "element_passed", "divided", "convert_in", "pooled_before", "pooled_out", "quantize_in",
    "writer_last", "writer_words", "writer_bus", "results_queued", "results_sent", "result_at",
    "written",
    "features", "sliced", "buffered", "infers", "groups", "group_left",
    "fetches", "fetcher_free", "fetched_command", "early", "second_early", "command", "results_free", "ended", "judged",
    "landed", "traced",
    "total", "depth", "after",
    "cache_hits", "cache_kept", "cache_dropped", "tags_free", "looked", "found_left", "kept_head", "kept_tail",
    "keeper_free", "publish_at", "admitted", "hit_ended", "hit_waits", "line_asked", "lines_read",
)


def new_dram() -> np.ndarray:
    """Idle memory."""
    return _records(1, "free", "asked", "kept", "unit", "unit_last", requested=-2, next_at=INF)


def _records(n: int | tuple[int, ...], *names: str, **values: int) -> np.ndarray:
    """Zeros, but for fields with a value."""
    out = np.zeros(n, np.dtype([(name, np.int64) for name in (*names, *values)]))
    for name, value in values.items():
        out[name] = value
    return out


def device_of(config: DeviceConfig, host_latency: int, dram_latency: int, modelled: Modelled, blocks: BlockLoad) -> Device:
    """The memories' read latencies as of the "sim" back end."""
    f, lk, k = config.flash, config.lookup, Latency()
    line_beats = config.page_beats if modelled.page_cache_mib else config.row_cache.line_bytes // config.beat_bytes
    bag = lk.max_bag.bit_length() + 27  # bits of the divider's dividend, then rounded up to an even number
    return Device(
        k=k, channels=f.channels, dies=f.channel_planes, channel_bits=f.channels.bit_length() - 1,
        die_bits=f.channel_planes.bit_length() - 1,
        t_read=config.t_read, t_command=max(config.t_command, 1),
        t_ccs=config.t_ccs,
        bus_beat_q16=max(config.bus_beat_q16, 1 << 16), beat_bytes=config.beat_bytes, tags=lk.tags, slots=lk.sample_slots,
        map_lines=lk.map_cache_lines, map_bits=(k.MAP_LINE_BEATS * config.beat_bytes // 4).bit_length() - 1,
        map_misses=lk.map_misses, map_credits=k.MAP_CREDITS * lk.map_misses,
        translations=max(k.TRANSLATIONS, k.MAP_CREDITS * lk.map_misses),
        word_bits=(config.beat_bytes // 4).bit_length() - 1, piece_bits=k.HOST_PIECE.bit_length() - 1,
        host_latency=host_latency, dram_latency=dram_latency,
        page_beats=HOST_PAGE // config.beat_bytes, cqe_beats=max(1, CQE_BYTES // config.beat_bytes),
        merge_buffered=int(2 * -(-4 * lk.max_dim // config.beat_bytes) >= 64),
        row_latency=k.ROW_SCALED if "int8" in lk.formats else k.ROW_PLAIN,
        divides=int("mean" in lk.modes), mean_cycles=2 + (lk.acc_bits - 1).bit_length() + (bag + bag % 2) // 2,
        lanes=lk.lanes, features=sum(n.width for n in config.mlp.graph if n.kind == "dense"),
        outputs=config.mlp.graph[-1].width if config.mlp.graph else 0, n_batch=config.mlp.n_batch,
        streams=int(any(c.weights == "dram" for c in cores(config.mlp.graph))),
        sources=f.channels + (config.row_cache.lines > 0 or modelled.page_cache_mib > 0), window=lk.page_window,
        longest=int(lk.longest_queue_first),
        line_beats=line_beats, line_fifo=2 if LINES_READ * line_beats >= BUFFERED_DEPTH else 1,
        page_unit=config.page_beats if modelled.page_cache_mib else 0,
        cache_mask=config.flash.total_pages - 1 if modelled.page_cache_mib else INF - 1,
        block_reads=config.host.block_reads if len(blocks.first) else 0,
        page_pieces=max(1, config.lba_bytes // HOST_PAGE), run_pages=max(1, HOST_PAGE // config.lba_bytes),
        block_writes=config.host.page_slots if blocks.writes else 0, t_program=config.t_program, t_erase=config.t_erase,
        oob_beats=config.oob_beats, block_pages=f.pages, total_pages=f.total_pages,
        small_beats=max(1, SMALL_BYTES // config.beat_bytes),
        piece_store=2 if _most_pieces(config) >= BUFFERED_DEPTH else 1)


def new_state(config: DeviceConfig, tables: Sequence[TableSpec], modelled: Modelled, blocks: BlockLoad, slices: int = 0
              ) -> Arrays:
    """As a device that has just been enabled: its map cache is empty. ``slices``: room for a timeline's. Behind the tables
    there is one more, whose rows are the pages of block I/O, and behind the lookups' tags those of its READs' pages, and an
    ERASE's and a PROGRAM's for each slot that it writes from."""
    f, lk = config.flash, config.lookup
    dies = f.channels * f.channel_planes
    table = _records(len(tables) + 1, "beats", "words", "dim", "int8", "mean", "node")
    owner = {t: k for k, n in enumerate(config.mlp.graph) for t in n.tables}
    table[-1]["beats"] = config.page_beats
    for number, (row, t) in enumerate(zip(table[:-1], tables, strict=True)):
        row["node"] = owner.get(number, 0)
        row["beats"], row["dim"], row["words"] = t.stride_beats(config), t.dim, -(-t.dim // lk.lanes)
        row["int8"], row["mean"] = t.format == RowFormat.INT8, t.mode == PoolMode.MEAN
    s = _records(1, *_SCALARS)
    s["merge_last"], s["walk_at"] = f.channels + (config.row_cache.lines > 0 or modelled.page_cache_mib > 0) - 1, INF
    s["line_asked"], s["result_at"] = -2, INF
    cached, cache_count, keeping = new_cache(modelled.sets(config) or config.row_cache.sets, config.row_cache.ways)
    features = max(1, sum(n.width for n in config.mlp.graph if n.kind == "dense"))
    first = f.channel_planes - 1  # round-robin begins after it
    tags = lk.tags + config.host.block_reads + 2 * config.host.page_slots
    credits = Latency().MAP_CREDITS * lk.map_misses
    translations = max(Latency().TRANSLATIONS, credits)
    return Arrays(
        s=s, table=table,
        tag=_records(tags, "page", "table", "sample", "visible", "key", "again", "keep"),
        row=np.zeros(lk.tags, np.int64), behind=np.zeros(tags, np.int64),
        free=_records(lk.tags, "tag", "time"),
        channel=_records(f.channels + 1, "in_head", "in_tail", "push_at", "choose_at", "bus_at", "out_at", "next_what",
                         "merge_head", "merge_tail", "reads", "bus_busy", "walker", "walk_at", "walked", "walk_tag",
                         "walk_more", "pop_at", "added_die", "added_at", "added_head", "repeat_die", "repeat_at", "turns",
                         "repeats_end", "block_push_at", "block_out_at", "room_from", "slot", "page_die", "page_tag",
                         "page_begun", "page_since", "page_left", "page_held", "page_fills", "programs", "feed_tail",
                         "walk_from", "walk_first", "walk_before",
                         "walk_passed", feed=-1, added=-1, repeat=-1, last_choice=first,
                         last_command=first, last_out=first, next_at=INF, room=INF, room_asked=INF, page_end=INF,
                         coming_at=INF, merge_at=INF, page_sent=1, dies_choose=INF, dies_command=INF, dies_out=INF,
                         dies_unseen=INF),
        die=_records(dies, "tail", "free_at", "tag", "taken", "busy", "left", "open", "ready", "waiting", "due",
                     "block_tail", "last_block", repeats=-1, asks=INF, head=-1, visible=INF, out_end=-1, want_command=INF,
                     want_out=INF, held=-1, row=-1, before=-1, unseen=INF, pushed=-1, pushed_before=-1, popped=-1,
                     block_head=-1, block_visible=INF),
        coming=_records((f.channels, lk.tags), "tag", "time"), merging=_records((f.channels + 1, lk.tags), "tag", "time"),
        sample=_records(2 * lk.sample_slots, "left", "retired", "command", "last", "group", "ends", closed=-1, drained=-1),
        command=_records(COMMANDS, "infer", "tables", "pending", "executed", "words", "submitted", "logit", "group",
                         "verdict", "last", visible=INF),
        followed=_records(FOLLOWED, "at", "block", "key", "table", "sample", "asked", "answer"),
        located=np.full(16, -1), translated=np.full(translations, -1), issued=np.full(credits, -1),
        map_tag=np.full(lk.map_cache_lines, -1),
        line_free=np.zeros(lk.map_misses, np.int64), piece_from=np.zeros(PIECES, np.int64),
        touched=np.zeros((2 * lk.sample_slots, len(tables)), np.int64), job_left=np.full(Latency().DRAIN_JOBS, -1),
        pooled=np.zeros(lk.accumulators, np.int64), recent=np.full((Latency().HAZARD - 1, 2), -Latency().HAZARD),
        loaded=np.full(ROWS, -1), pipe=_records(PIPES, "stalls", "end"), stall_from=np.full((PIPES, STALLS), -1),
        stall_to=np.full((PIPES, STALLS), -1), feature=np.zeros((2 * lk.sample_slots, features), np.int64),
        feature_group=np.zeros(2 * lk.sample_slots, np.int64), feature_ends=np.zeros(2 * lk.sample_slots, np.int64),
        feature_taken=np.full(4, -1), feature_sliced=np.full(4, -1), dram=new_dram(),
        dram_kept=np.zeros((READS_KEPT, 2), np.int64),
        **_block_state(config, tables, blocks),
        cached=cached, cache_count=cache_count, keeping=keeping, line_gone=np.zeros(LINES_READ, np.int64),
        trace=np.zeros((slices, FIELDS), np.int64))


def _most_chunks(config: DeviceConfig) -> int:
    """Of results on their way to the host's write bus: a command's logits, or what leaves a drain meanwhile; and ends."""
    words = config.host.max_batch * (config.mlp.graph[-1].width if config.mlp.graph else 0)
    return words * 4 // (Latency().WRITE_CHUNK * config.beat_bytes) + 8 + COMMANDS


def _most_pieces(config: DeviceConfig) -> int:
    """Of a WRITE (:mod:`nearflash_hw.block.write_fetch`)."""
    pages = config.host.mdts_pages
    return pages + -(-pages * config.lba_bytes // HOST_PAGE)


def _block_state(config: DeviceConfig, tables: Sequence[TableSpec], blocks: BlockLoad) -> dict[str, np.ndarray]:
    """Those of :class:`Arrays` that are block I/O's. The log goes on behind the tables."""
    h, logged, flying = config.host, tables_end(tables), blocks.depth + 1
    block = _records(1, "host_now", "irq_low", "sent", "flying", "fetched", "fetching", "deferred", "fetch_free", "free_at",
                     "what", "place", "left", "page", "tag", "run", "runs", "run_left", "run_known", "run_taken", "piece_at",
                     "piece_taken", "fresh", "tag_head", "tag_tail", "waits_for_tag", "wanted", "turn", "sender_free",
                     "posted", "ended", "post_free", "bus_free", "pages", "offered_pages", "blank_waits", "landed",
                     "sending", "filling", "beats_at", "turn_at",
                     "intake_free", "control_free", "list_free", "host_reads", "write_place", "write_first",
                     "write_count", "claimed", "placed", "mapped",
                     "claim_free", "slot_free", "place_free", "allocate_at", "mapper_free", "port_free", "changes",
                     "erases", "beyond", "trim_place", "trim_block", "trim_left", "small_free", "array_free",
                     "dram_writes", next_at=INF, send_at=INF, land_at=INF, issue_at=INF, intake_at=INF, fetch_at=INF,
                     sender_at=INF, write_next=INF, claim_at=INF, place_at=INF, order_at=INF,
                     change_at=INF, patch_at=INF, trim_at=INF,
                     offered=-1, cursor=logged, durable=logged, total=len(blocks.first), depth=blocks.depth)
    load = _records(len(blocks.first), "first", "count", "kind", "time", "submitted", "completed")
    load["first"], load["count"], load["kind"] = blocks.first, blocks.count, blocks.kinds
    load["time"] = 0 if blocks.times is None else blocks.times
    return {
        "block": block, "request": _records(flying, "bell", "left", "tag", number=-1, visible=INF),
        "sending": np.zeros(flying, np.int64), "fetched": np.zeros((FETCHES, 2), np.int64),
        "ended": _records(flying, "place", "time"),
        "page": _records(h.read_slots + 1, "tag", "slot", "at"),
        "result": _records(_most_chunks(config), "at", "beats", "command"),
        "beats": np.zeros((2, config.flash.channels + 1, 3), np.int64),
        "read_tag": _records(h.block_reads, "tag", "time"), "read_slot": np.zeros(h.read_slots, np.int64),
        "load": load, "register": _records(3, "free", "place", at=INF),
        "slot": _records(h.page_slots, "page", "block", "filled", "settled", "starts", "next"),
        "piece_time": np.zeros(_most_pieces(config), np.int64), "dram_written": np.zeros((DRAM_WRITES, 2), np.int64),
        "host_reads": np.full((HOST_READS, 2), -1), "moved": new_moved(blocks.blocks_changed())}
