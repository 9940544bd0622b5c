"""Every latency of the gateware that the simulator knows, in cycles, with the block it comes from.

Cycles between two handshakes: a value that leaves a block in the cycle ``t`` reaches the next one's port in ``t`` plus the
constant. Where a block waits (a full FIFO, a busy bus), the modules of this package say how. They are arguments of the
compiled loops, not constants in them: another value needs no new compilation.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Latency"]


class Latency(NamedTuple):
    """By block, in the order in which a query passes them."""

    # -- host: driver and registers (nearflash.runtime.nvme, host/registers, host/queues)
    MMIO_WRITE: int = 3  # an AXI4-Lite write, first cycle to last
    DOORBELL: int = 1  # its first cycle to the doorbell's pulse
    DRIVER_SETTLE: int = 8  # the driver looks again after this long when an interrupt showed it nothing new
    BELL_TO_FETCH: int = 4  # pulse to the cycle in which Queues sees an entry to fetch; as the RTL's timeline has it
    FETCH_REQUEST: int = 2  # that to the entry's read request
    VERDICT: int = 3  # entry complete to the verdict
    NEXT_FETCH: int = 2  # verdict to the cycle in which Queues may choose again
    DEFERRED: int = 3  # verdict to the next look at an entry that was not taken, at the earliest
    REGISTER_SEEN: int = 1  # the command register empty to the next look at it
    DISPATCHED: int = 4  # entry complete to the command offered to the lookup engine
    COMPLETION_SLICE: int = 1  # lookup engine to Queues
    CQE_VISIBLE: int = 6  # completion taken by Queues to its entry in host memory, beside its beats
    CQE_IRQ: int = 4  # entry in host memory to the interrupt
    IRQ_FALL: int = 4  # first cycle of the acknowledging write to the interrupt's fall

    # -- memory ports (primitives/interconnect; the memory adds its own read latency)
    READ_REQUEST: int = 3  # request taken to ARVALID
    READ_RESPONSE: int = 1  # RVALID to the client
    REQUEST_EVERY: int = 2  # cycles between two requests of one client

    # -- reading queries (host/host_dma, host/prp, lookup/words)
    HOST_PIECE: int = 16  # beats of a request, and asked for at most
    HOST_ROOM: int = 64  # beats of a request, and asked for at most
    WALK_FIRST: int = 2  # request to the first run of host memory
    WALK_NEXT: int = 3  # run taken to the next run, where its address is known
    WALK_FETCH: int = 2  # run taken to the request for the list
    WALK_FETCHED: int = 3  # list there to the run
    BEAT_QUEUE: int = 2  # memory's beat to the reader's FIFO output

    # -- lookup/validator, lookup/executor, lookup/parser
    VALIDATE: int = 5  # of every command, and of each of its tables
    VALIDATE_TABLE: int = 2  # of every command, and of each of its tables
    PARSE_END: int = 2  # last item gone to the pass's result
    # -- lookup/engine's slice, row_locator, translator, controller/map_cache
    LOCATE: int = 12
    LOCATE_QUEUE: int = 16
    TRANSLATIONS: int = 16
    MAP_CREDITS: int = 4  # for each line that may be on its way
    MAP_HIT: int = 3  # request to the response FIFO's output
    MAP_EVERY: int = 2  # cycles between two requests that hit
    MAP_MISS: int = 2  # request to the line's read request
    MAP_FILLED: int = 2  # last beat of the line to the next request, and to the response FIFO's input
    MAP_LINE_BEATS: int = 4
    # -- controller/map_lines, in place of MAP_HIT and MAP_FILLED where several lines may be on their way
    MAP_QUEUED: int = 2  # request to its turn
    MAP_KEPT: int = 2  # last beat of the line to the reading of its entry
    MAP_READ: int = 3  # that to the response FIFO's output

    # -- flash/queue, flash/window, flash/channel, flash/bus, flash/array
    QUEUE_VISIBLE_ONE: int = 2  # a command's arrival to the scheduler seeing it, where there is one die
    QUEUE_VISIBLE: int = 1  # and where there are several
    CHOSEN_ONE: int = 1  # chosen to taken by the die
    CHOSEN: int = 2
    CHOOSE_EVERY_ONE: int = 2
    CHOOSE_EVERY: int = 3
    PUSH_AFTER_POP: int = 4  # choice to the first cycle in which the queue takes a command again
    WINDOW_FIRST: int = 2  # the walker's look to its comparison of a queue's first entry,
    WINDOW_NEXT: int = 3  # and of one behind another
    WINDOW_MOVE: int = 2  # cycles in which an entry is moved to the front
    WINDOW_AGAIN: int = 2  # a pop to the walker's next choice of a die
    REPEAT_GIVEN: int = 2  # the queue gives a repeat to its tag at the bus
    COMPARED: int = 2  # a queue's change to the choice of the longest
    LONGEST_PERIOD: int = 32  # data-outs, not cycles, until what has waited goes first
    OUT_OVERHEAD: int = 2  # data-out granted to the cycle before its first beat
    ARRAY_STATE: int = 1  # job taken to the request for the block's state,
    ARRAY_PAGE: int = 3  # for the page's beats,
    ARRAY_EVERY: int = 4  # and to the next job
    ARRAY_COMPARED: int = 2  # the state's beat, and a cycle in which no beat is taken
    ARRAY_DONE: int = 1  # last beat to job_done
    ARRAY_LEAVE: int = 2  # job_done to data-out wanted

    # -- block: a READ from its command register to the die queues
    READ_OFFERED: int = 1  # in the register to its being opened
    READ_WALK: int = 3  # that to the first run of host memory
    READ_END: int = 2  # its last piece taken to the next command that the intake may take,
    REGISTER_EMPTY: int = 1  # which is that to a verdict that finds the register empty
    PIECE_CUT: int = 2  # a run or a piece taken to the next piece
    MAP_ANSWER: int = 1  # of a translation, beside that of a lookup
    # -- block: its pages to the host (a memory that answers writes after one cycle)
    ROOM_GIVEN: int = 1  # a slot set aside to the page's data-out
    ROOM_AGAIN: int = 2  # a page's last beat on the bus to its channel's next asking
    LANDED: int = 4  # and to the sender, which may take it then
    PIECE_ASK: int = 2  # of a piece, beside its beats
    PAGE_BEHIND: int = 1  # a page that the sender takes so soon after it was free finds beats on their way,
    PAGE_GRANTED: int = 2  # and has its place on the host's write bus so long after it was taken;
    PAGE_OFFERED: int = 6  # else when its first beat is there,
    PAGE_STALL: int = 3  # and those behind it wait meanwhile
    SLOT_BACK: int = 1  # a page's last beat read to its slot's next use
    PAGE_WRITTEN: int = 8  # and to its retirement
    READ_TAG_BACK: int = 3  # retirement to the tag's next use
    READ_DONE: int = 4  # and to the completion taken by Queues
    PAGE_ON_BUS: int = 2  # a page's last beat read to its last on the host's write bus
    CQE_ASK: int = 3  # completion taken by Queues to its asking for the bus
    CQE_EVERY: int = 8  # cycles between two completions, beside its beats
    BLANK: int = 1  # a page that isn't mapped, taken for the sender, to its being there,
    BLANK_NEXT: int = 1  # for which it is taken so long before the sender is free
    # -- block: WRITEs, FLUSHes and lists of ranges, from the intake; controller/ftl, map_cache, small_write
    BLOCK_READ_TAKEN: int = 1  # a request of host memory to the cycle that entries and queries count from
    FILLED: int = 1  # a block's last beat from the host to its page of the log
    FED: int = 3  # that to its first beat at the channel,
    FED_AHEAD: int = 3  # beats that the channel has ahead of its bus, in halves
    RESERVED: int = 3  # and to the superblock's write, if that has to reserve more
    IN_OVERHEAD: int = 1  # data-in granted to the cycle before its first beat
    SETTLED: int = 2  # the die's report to the mapper's knowing of it,
    MAP_WANTED: int = 1  # and to its asking for the change of the map
    MAP_SENT: int = 3  # the change taken to its write
    SMALL_SENT: int = 5  # a write taken to its first beat on the DRAM's bus
    DRAM_WROTE: int = 3  # its last beat there to the answer (a memory that answers writes after one cycle)
    WRITE_DONE: int = 3  # a change of the map, the last, to the next command that may be taken
    FLUSH_SENT: int = 4  # taken from the intake to the superblock's write
    FLUSHED: int = 3  # its answer to the next command that may be taken,
    FINISHED_SEEN: int = 1  # which is so long before the completion is taken by Queues; of every command of this half
    LISTED: int = 4  # a list's last beat to the next command that the intake may take,
    LIST_WALK: int = 6  # and to the first change of the map
    # -- flash/array: PROGRAM and ERASE
    STATE_ASKED: int = 2  # job taken to the request for the block's state
    STATE_LEGAL: int = 10  # the state there to the page's first beat on the DRAM's bus,
    STATE_ERASED: int = 9  # or to the new state's
    DRAM_AGAIN: int = 9  # last beat of the page, and of its out-of-band area, to the first of what follows
    ARRAY_WROTE: int = 5  # the state's beat to job_done

    # -- lookup/row_cache
    TAGS_EVERY: int = 3  # cycles that a lookup, or one thing of the writer's, keeps the tags
    FOUND: int = 3  # a lookup given to the tags to its answer offered to the translator
    LINE_ARRIVE: int = 1  # last beat out of the reader to the arbiter
    ADMIT: int = 1  # the row there, and the writer free, to its asking for a line
    LINE_ASK: int = 5  # that given to the tags to the write request
    VERDICT_SEEN: int = 3  # and to the cycle after which hits that have not ended are waited for,
    LINE_OLDER: int = 2  # the last of which ends so long before the write request
    LINE_REFUSED: int = 4  # given to the tags to a refused row's first beat dropped
    LINE_SENT: int = 4  # write request to the row's room free again, beside its beats,
    LINE_SENT_ONE: int = 2  # of a row of one beat,
    LINE_DONE: int = 8  # and to its publication, beside its beats (a memory that answers writes after one cycle)

    # -- lookup/merge, lookup/pooling
    MERGE_ARRIVE: int = 2  # last beat on the bus to the arbiter
    MERGE_OUT: int = 2  # arbiter to pooling
    TAG_BACK: int = 2  # last beat on the vector stream to the tag's next use
    ROW_SCALED: int = 10  # first beat taken to the row's factors, in a device with INT8
    ROW_PLAIN: int = 3  # and without
    ROW_INT8: int = 12  # last beat taken to the factors of an INT8 row
    ROW_INT8_LAST: int = 2  # cycles more that an INT8 row's last beat takes
    RETIRE: int = 10  # last word issued to the row's retirement
    HAZARD: int = 4  # cycles between two words of one address
    FINISHED: int = 3  # last retirement to the sample's drain
    CLOSED: int = 2  # the sample's end to its drain
    DRAIN_JOBS: int = 8  # words asked for
    DRAIN_READ: int = 9  # a word read to its first element taken
    DRAIN_ZERO: int = 2  # the same of a table without lookups
    CONVERT: int = 7  # a sum given to the conversion to fp32 to its fp32
    QUANTIZE: int = 7  # an element given to a quantiser to its transfer into the MLP's buffers
    DRAIN_WALK_TABLE: int = 2  # cycles of a table beside its words, the drain's own cycle before the first

    # -- lookup/results, lookup/beat_writer
    WRITE_CHUNK: int = 16  # beats
    CHUNK_FIRST: int = 4  # last word of a chunk to its first beat on the bus,
    BUS_FIRST: int = 4  # which comes so long after its place there
    WRITTEN: int = 7  # last beat of the last chunk to the results' end
    LOGIT_STORED: int = 2  # a command's last logit to Results' seeing that it has all
    LOGIT_READ: int = 3  # that to the first word written
