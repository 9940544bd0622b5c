// A verilated MLP engine (bench/engine.py) behind a C function: streams in without gaps, logits taken at once.
// Verilator writes the double underscore of a port's name as ___05F.
#include "Vtop.h"
#include "verilated.h"

#include <cstdint>
#include <cstring>

double sc_time_stamp() { return 0; }

namespace {
template <class T> void put(T& port, const uint32_t* words) {
    uint64_t v = words[0];
    if (sizeof(T) > 4) v |= uint64_t(words[1]) << 32;
    port = T(v);
}
template <std::size_t N> void put(VlWide<N>& port, const uint32_t* words) { std::memcpy(port.data(), words, 4 * N); }
template <class T> void get(const T& port, uint32_t* words) {
    words[0] = uint32_t(port);
    if (sizeof(T) > 4) words[1] = uint32_t(uint64_t(port) >> 32);
}
template <std::size_t N> void get(const VlWide<N>& port, uint32_t* words) { std::memcpy(words, port.data(), 4 * N); }

struct Engine {
    VerilatedContext context;
    Vtop top{&context, "top"};
};
}  // namespace

struct Stream {
    const uint32_t* items;
    uint64_t count, words;
};

struct Result {
    int64_t last_input, last_logit;
    uint64_t busy, steps, logits;
};

extern "C" {
__attribute__((visibility("default"))) void* engine_create() {
    auto* e = new Engine;
    e->top.rst = 1;
    for (int i = 0; i < 8; i++) {
        e->top.clk = 0; e->top.eval();
        e->top.clk = 1; e->top.eval();
    }
    e->top.rst = 0;
    return e;
}

__attribute__((visibility("default"))) void engine_destroy(void* handle) { delete static_cast<Engine*>(handle); }

// Offers the streams (table parameters, parameter beats, dense, pooled) from the first cycle on and lets time pass until
// all were taken and `logits` logits came, then `settle` cycles more. 0, or -1 after `limit` cycles.
__attribute__((visibility("default"))) int engine_run(void* handle, const Stream* in, uint64_t logits, uint64_t settle,
                                                      uint64_t limit, uint32_t* out, uint64_t out_words, Result* r) {
    Vtop& t = static_cast<Engine*>(handle)->top;
    uint64_t at[4] = {0, 0, 0, 0}, idle = 0;
    *r = {-1, -1, 0, 0, 0};
    t.logit___05Fready = 1;
    for (uint64_t cycle = 0; cycle < limit; cycle++) {
        t.quant_valid = at[0] < in[0].count;
        if (t.quant_valid) put(t.quant, in[0].items + at[0] * in[0].words);
        t.parameter___05Fvalid = at[1] < in[1].count;
        if (t.parameter___05Fvalid) put(t.parameter___05Fpayload, in[1].items + at[1] * in[1].words);
        t.dense___05Fvalid = at[2] < in[2].count;
        if (t.dense___05Fvalid) put(t.dense___05Fpayload, in[2].items + at[2] * in[2].words);
        t.pooled___05Fvalid = at[3] < in[3].count;
        if (t.pooled___05Fvalid) put(t.pooled___05Fpayload, in[3].items + at[3] * in[3].words);
        t.clk = 0;
        t.eval();
        const bool d = t.dense___05Fvalid && t.dense___05Fready, p = t.pooled___05Fvalid && t.pooled___05Fready;
        at[0] += t.quant_valid;
        at[1] += t.parameter___05Fvalid && t.parameter___05Fready;
        at[2] += d;
        at[3] += p;
        if (d || p) r->last_input = int64_t(cycle);
        r->busy += t.busy;
        r->steps += t.mac_step;
        if (t.logit___05Fvalid) {
            r->last_logit = int64_t(cycle);
            if (r->logits < logits) get(t.logit___05Fpayload, out + r->logits * out_words);
            r->logits++;
        }
        t.clk = 1;
        t.eval();
        bool done = r->logits >= logits;
        for (int k = 0; k < 4; k++) done = done && at[k] == in[k].count;
        if (done && idle++ == settle) return 0;
    }
    return -1;
}
}
