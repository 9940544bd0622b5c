// A verilated tensor engine (bench/tensor_engine.py) with a memory of its own behind one AXI4 port: a program from begin to
// end, and what happened while each of its descriptors ran. Bursts are answered in their order, a beat a cycle.
#include "Vtop.h"
#include "verilated.h"

#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>

double sc_time_stamp() { return 0; }

struct Descriptor {
    uint64_t begin, start, end;                 // cycles: the one before ended, its unit began, its unit ended
    uint64_t steps, unfed, full, reads, writes;  // cycles of the array, beats; from begin to end
};

namespace {
struct Burst {
    uint64_t address, due;
    uint32_t id, beats;
};

struct Engine {
    VerilatedContext context;
    Vtop top{&context, "top"};
    uint64_t cycle = 0;
    Engine() { top.eval(); }
    ~Engine() { top.final(); }
};
}  // namespace

extern "C" {
__attribute__((visibility("default"))) void* tile_create() { return new Engine; }
__attribute__((visibility("default"))) void tile_destroy(void* handle) { delete static_cast<Engine*>(handle); }

// Runs the program at `program` of `memory` (`size` bytes). 0 and `outcome` (status, dw0, dw1), -1 after `limit` cycles, or -2
// for an access outside the memory. `told` hears how many descriptors have ended, every 2**20 cycles; it may be null.
__attribute__((visibility("default"))) int tile_run(void* handle, uint8_t* memory, uint64_t size, uint32_t program,
                                                    uint32_t input_bytes, uint64_t latency, uint64_t limit,
                                                    Descriptor* found, uint64_t most, uint64_t* count, uint32_t* outcome,
                                                    void (*told)(uint64_t, uint64_t)) {
    Engine& e = *static_cast<Engine*>(handle);
    Vtop& t = e.top;
    constexpr uint64_t kBeat = sizeof t.m_axi_wdata;
    std::deque<Burst> reads, writes, answers;
    Descriptor now{};
    *count = 0;
    t.offset = program;
    t.input_bytes = input_bytes;
    t.start = 1;
    t.eval();
    const uint64_t first = e.cycle;
    for (; e.cycle - first < limit; e.cycle++) {
        const uint64_t at = e.cycle - first;
        // -- what happens in this cycle
        const bool ar = t.m_axi_arvalid && t.m_axi_arready, aw = t.m_axi_awvalid && t.m_axi_awready;
        const bool r = t.m_axi_rvalid && t.m_axi_rready, w = t.m_axi_wvalid && t.m_axi_wready;
        const bool b = t.m_axi_bvalid && t.m_axi_bready;
        now.steps += t.array_step;
        now.unfed += t.array_unfed;
        now.full += t.array_full;
        now.reads += r;
        now.writes += w;
        if (t.started) now.start = at;
        if (t.ended) {
            now.end = at;
            if (*count < most) found[*count] = now;
            ++*count;
            now = Descriptor{};
            now.begin = at;
        }
        if (ar) reads.push_back({t.m_axi_araddr, at + latency, t.m_axi_arid, uint32_t(t.m_axi_arlen) + 1});
        if (aw) writes.push_back({t.m_axi_awaddr, 0, t.m_axi_awid, uint32_t(t.m_axi_awlen) + 1});
        if (r) {
            reads.front().address += kBeat;
            if (!--reads.front().beats) reads.pop_front();
        }
        if (w) {
            Burst& burst = writes.front();
            if (burst.address + kBeat > size) return -2;
            const uint8_t* from = reinterpret_cast<const uint8_t*>(&t.m_axi_wdata);
            for (unsigned k = 0; k < kBeat; ++k)
                if (t.m_axi_wstrb >> k & 1) memory[burst.address + k] = from[k];
            burst.address += kBeat;
            if (!--burst.beats) burst.due = at + latency, answers.push_back(burst), writes.pop_front();
        }
        if (b) answers.pop_front();
        const bool done = t.done;
        if (done) outcome[0] = t.status, outcome[1] = t.dw0, outcome[2] = t.dw1;
        // -- what the memory does in the next
        t.m_axi_arready = t.m_axi_awready = t.m_axi_wready = 1;
        t.m_axi_rvalid = !reads.empty() && reads.front().due <= at + 1;
        if (t.m_axi_rvalid) {
            if (reads.front().address + kBeat > size) return -2;
            std::memcpy(&t.m_axi_rdata, memory + reads.front().address, kBeat);
            t.m_axi_rid = reads.front().id;
            t.m_axi_rlast = reads.front().beats == 1;
        }
        t.m_axi_bvalid = !answers.empty() && answers.front().due <= at + 1;
        if (t.m_axi_bvalid) t.m_axi_bid = answers.front().id;
        const bool taken = t.start && t.ready;
        t.clk = !t.clk;
        t.m_axi_clk = !t.m_axi_clk;
        t.eval();
        if (taken) t.start = 0, t.eval();
        if (told && !(at & ((1 << 20) - 1))) told(at, *count);
        if (done) return ++e.cycle, 0;
    }
    return -1;
}
}
