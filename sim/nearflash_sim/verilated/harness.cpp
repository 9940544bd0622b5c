// A verilated device with memories on both AXI4 ports, behind a C interface (see device.py).
//
// The top's ports are clk, rst, s_axi_* (AXI4-Lite target), m_axi_host_* and m_axi_dram_* (AXI4 initiators), irq.
// One clock cycle is: drive inputs, settle with clk low, look at the handshakes, rising edge. The memory models answer
// from registers (no combinational path from the device's outputs to its inputs) and do nothing in a cycle in which
// neither they nor the device's valid signals are active. Little-endian hosts only, as Verilator's word layout is.
//
// A top without rst is one made for simulation (to_verilog(model=True)), which needs one evaluation a cycle: both edges of
// its clocks are clock edges, and it samples its AXI inputs by clocks of their own: of AXI4 at the edge that begins their
// cycle, if they changed; of AXI4-Lite within the cycle. Resetting it is making it anew.
//
// In a gated model (nearflash_hw.model) a block's clock moves only if the block is awake. While none is, and both memories
// wait for a time or for the device, one edge of clk stands for many cycles.
//
// A board's fabric (nearflash_hw.boards) has the same ports, with a full AXI target, and both initiators reach one memory.
// There only what is in a window, a buffer that someone allocated, may be accessed, and a window knows the processor's view of
// it: the device must not read what the processor wrote and did not flush, nor the processor what the device wrote before it
// invalidates.
//
// top.h is written by build.py: NF_MODEL, NF_GATED, NF_BOARD, NF_AXI3, and X(0) X(1) ... as NF_BLOCKS(X) and NF_TIMERS(X).

#include "Vtop.h"
#include "top.h"
#include "verilated.h"
#if VM_TRACE_FST
#include "verilated_fst_c.h"
using Trace = VerilatedFstC;
#elif VM_TRACE_VCD
#include "verilated_vcd_c.h"
using Trace = VerilatedVcdC;
#endif

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

namespace {

constexpr uint64_t kPage = 4096;
constexpr unsigned kBeat = sizeof(std::remove_reference_t<decltype(std::declval<Vtop>().m_axi_host_wdata)>);
constexpr unsigned kBeatLog2 = kBeat == 4 ? 2 : kBeat == 8 ? 3 : kBeat == 16 ? 4 : kBeat == 32 ? 5 : 6;
constexpr unsigned kOutstanding = 32;  // bursts a memory accepts before it stops saying ready
constexpr unsigned kMaxErrors = 20;    // later protocol errors are counted, not described
constexpr uint64_t kNever = ~uint64_t(0);
static_assert(kBeat <= 32, "write strobes are handled as 32 bits");
static_assert(sizeof(std::declval<Vtop>().m_axi_dram_wdata) == kBeat, "both AXI ports must have the same width");

class SparseMemory {
  public:
    // Never null; a page nobody wrote reads as zero without being allocated.
    const uint8_t* page_for_read(uint64_t addr) {
        static const uint8_t zero[kPage] = {};
        if (addr / kPage != read_number_) {
            const auto it = pages_.find(addr / kPage);
            read_page_ = it == pages_.end() ? zero : it->second.get();
            read_number_ = addr / kPage;
        }
        return read_page_;
    }
    uint8_t* page_for_write(uint64_t addr) {
        if (addr / kPage != write_number_) {
            auto& page = pages_[addr / kPage];
            if (!page) {
                page.reset(new uint8_t[kPage]());
                read_number_ = kNone;  // it may be the page that read as zero so far
            }
            write_page_ = page.get();
            write_number_ = addr / kPage;
        }
        return write_page_;
    }
    void read(uint64_t addr, uint8_t* out, uint64_t n) {
        while (n) {
            const uint64_t off = addr % kPage, m = std::min(n, kPage - off);
            std::memcpy(out, page_for_read(addr) + off, m);
            addr += m, out += m, n -= m;
        }
    }
    void write(uint64_t addr, const uint8_t* in, uint64_t n) {
        while (n) {
            const uint64_t off = addr % kPage, m = std::min(n, kPage - off);
            std::memcpy(page_for_write(addr) + off, in, m);
            addr += m, in += m, n -= m;
        }
    }
    void fill(uint64_t addr, int value, uint64_t n) {
        while (n) {
            const uint64_t off = addr % kPage, m = std::min(n, kPage - off);
            if (value || pages_.count(addr / kPage)) std::memset(page_for_write(addr) + off, value, m);
            addr += m, n -= m;
        }
    }
    void clear() {
        pages_.clear();
        read_number_ = write_number_ = kNone;
    }
    uint64_t bytes() const { return pages_.size() * kPage; }

  private:
    static constexpr uint64_t kNone = ~uint64_t(0);
    std::unordered_map<uint64_t, std::unique_ptr<uint8_t[]>> pages_;
    // The page last read and the page last written: a burst never leaves its page.
    uint64_t read_number_ = kNone, write_number_ = kNone;
    const uint8_t* read_page_ = nullptr;
    uint8_t* write_page_ = nullptr;
};

struct Burst {
    uint64_t addr, due;  // due: first cycle of the answer
    uint32_t id, beats;
    uint8_t resp;
};

template <typename T>
class Ring {
  public:
    bool empty() const { return head_ == tail_; }
    bool full() const { return tail_ - head_ == kOutstanding; }
    T& front() { return items_[head_ % kOutstanding]; }
    const T& front() const { return items_[head_ % kOutstanding]; }
    void push(const T& t) { items_[tail_++ % kOutstanding] = t; }
    void pop() { ++head_; }
    void clear() { head_ = tail_ = 0; }

  private:
    T items_[kOutstanding];
    uint32_t head_ = 0, tail_ = 0;
};

class Errors {
  public:
    void add(uint64_t cycle, const char* port, const std::string& what) {
        if (++count_ <= kMaxErrors) text_ += "cycle " + std::to_string(cycle) + ", " + port + ": " + what + "\n";
    }
    uint64_t count() const { return count_; }
    const std::string& text() const { return text_; }
    void clear() { count_ = 0, text_.clear(); }

  private:
    uint64_t count_ = 0;
    std::string text_;
};

std::string hex(uint64_t v) {
    char buffer[24];
    std::snprintf(buffer, sizeof buffer, "0x%llx", static_cast<unsigned long long>(v));
    return buffer;
}

// What a device must not do to the memory of a board, each time it does.
struct Violation {
    enum Kind : uint32_t { none, outside, unflushed };
    Kind kind;
    uint32_t write;
    uint64_t addr, cycle;
};

// A buffer: its addresses, and where the processor sees it (null: it shares the memory, without a cache between).
struct Window {
    uint64_t first, last;
    const uint8_t* shadow;
    std::vector<bool> written;  // per line: by the device, since the processor synchronised it
};

class Windows {
  public:
    static constexpr uint64_t kLine = 64;
    bool guarded = false;  // accesses outside windows are refused
    std::vector<Violation> violations;

    void open(uint64_t first, uint64_t last, const uint8_t* shadow) {
        map_[first] = {first, last, shadow, std::vector<bool>((last - first) / kLine + 1)};
        hit_ = nullptr;
    }
    void close(uint64_t first) { map_.erase(first), hit_ = nullptr; }
    Window* find(uint64_t addr) {
        if (hit_ && addr >= hit_->first && addr <= hit_->last) return hit_;
        auto it = map_.upper_bound(addr);
        if (it == map_.begin()) return nullptr;
        --it;
        if (addr > it->second.last) return nullptr;
        return hit_ = &it->second;
    }
    void add(Violation::Kind kind, bool write, uint64_t addr, uint64_t cycle) {
        if (violations.size() < kMaxErrors) violations.push_back({kind, write, addr, cycle});
    }
    // Whether the device wrote any of these bytes since the processor last synchronised them.
    bool stale(uint64_t addr, uint64_t n) {
        Window* w = find(addr);
        for (uint64_t k = w ? (addr - w->first) / kLine : 1, end = w ? (addr + n - 1 - w->first) / kLine : 0; k <= end; ++k)
            if (w->written[k]) return true;
        return false;
    }
    void synchronise(uint64_t addr, uint64_t n) {
        Window* w = find(addr);
        for (uint64_t k = w ? (addr - w->first) / kLine : 1, end = w ? (addr + n - 1 - w->first) / kLine : 0; k <= end; ++k)
            w->written[k] = false;
    }

  private:
    std::map<uint64_t, Window> map_;
    Window* hit_ = nullptr;
};

struct FaultRange {
    uint64_t first, last;
    bool read, write;
    uint8_t response;  // 2 SLVERR, 3 DECERR
};

// An AXI4 memory. Ports: a struct of references to one port's signals. Answers in order of requests; a burst's first beat
// comes `latency` cycles after its address (reads) or its last data word (writes), then one beat per cycle.
template <typename Ports>
class AxiMemory {
  public:
    AxiMemory(Vtop* top, const char* name, SparseMemory& memory, Windows& windows, Errors& errors)
        : memory(memory), p_{top}, windows_(windows), name_(name), errors_(errors) {}

    SparseMemory& memory;
    std::vector<FaultRange> faults;
    uint64_t read_latency = 1, write_latency = 1;
    bool silent = false;  // takes and offers nothing more; what it offers already, stays
    uint32_t stall = 0;  // chance of a wait per beat or address, in 1/65536
    uint64_t read_beats = 0, write_beats = 0, read_bursts = 0, write_bursts = 0;

    void seed(uint32_t s) { rng_ = s ? s : 1; }

    void reset(Vtop* top) {
        p_.top = top;
        reads_.clear(), aw_.clear(), b_.clear();
        r_beat_ = w_beat_ = 0;
        w_resp_ = 0;
        r_valid_ = b_valid_ = false;
        ar_held_ = aw_held_ = w_held_ = false;
        ar_ready_ = aw_ready_ = w_ready_ = false;
        p_.arready() = p_.awready() = p_.wready() = 0;
        p_.rvalid() = p_.bvalid() = 0;
        busy_ = true;
    }

    // Inputs are settled, the rising edge comes next: take what transfers in this cycle. Whether anything does.
    bool sample(uint64_t cycle) {
        const bool arvalid = p_.arvalid(), awvalid = p_.awvalid(), wvalid = p_.wvalid();
        if (!(busy_ | arvalid | awvalid | wvalid | ar_held_ | aw_held_ | w_held_)) return false;
        busy_ = true;
        const bool r = r_valid_ && p_.rready(), b = b_valid_ && p_.bready();
        const bool moves = (arvalid && ar_ready_) | (awvalid && aw_ready_) | (wvalid && w_ready_) | r | b;
        address(cycle, "AR", arvalid, ar_ready_, ar_held_, ar_seen_,
                {p_.araddr(), p_.arid(), p_.arlen(), p_.arsize(), p_.arburst()}, reads_, read_latency, read_bursts);
        address(cycle, "AW", awvalid, aw_ready_, aw_held_, aw_seen_,
                {p_.awaddr(), p_.awid(), p_.awlen(), p_.awsize(), p_.awburst()}, aw_, 0, write_bursts);
        word(cycle, wvalid);
        if (r) {
            r_valid_ = false;
            ++read_beats;
            if (++r_beat_ == reads_.front().beats) reads_.pop(), r_beat_ = 0;
        }
        if (b) b_valid_ = false, b_.pop();
        return moves;
    }

    // Drive the inputs of cycle `cycle`. Whether any changes.
    bool drive(uint64_t cycle) {
        if (!busy_) return false;
        bool changes = !r_valid_ & p_.rvalid() | !b_valid_ & p_.bvalid();
        if (!r_valid_) {
            if (!reads_.empty() && reads_.front().due <= cycle && !waits()) {
                Burst& b = reads_.front();
                const uint64_t a = b.addr + uint64_t(r_beat_) * kBeat;
                std::memcpy(&p_.rdata(), memory.page_for_read(a) + a % kPage, kBeat);
                p_.rid() = b.id;
                p_.rlast() = r_beat_ + 1 == b.beats;
                p_.rresp() = response(a, false, cycle);
                r_valid_ = changes = true;
            }
            p_.rvalid() = r_valid_;
        }
        if (!b_valid_) {
            if (!b_.empty() && b_.front().due <= cycle && !waits()) {
                p_.bid() = b_.front().id;
                p_.bresp() = b_.front().resp;
                b_valid_ = changes = true;
            }
            p_.bvalid() = b_valid_;
        }
        const bool ar = ar_ready_, aw = aw_ready_, w = w_ready_;
        p_.arready() = ar_ready_ = !reads_.full() && !waits();
        p_.awready() = aw_ready_ = !aw_.full() && !waits();
        p_.wready() = w_ready_ = !aw_.empty() && !b_.full() && !waits();
        // Ready stays up while idle, so an idle memory has nothing to drive.
        busy_ = stall || silent || !reads_.empty() || !aw_.empty() || !b_.empty() || !ar_ready_ || !aw_ready_;
        return changes | (ar != ar_ready_) | (aw != aw_ready_) | (w != w_ready_);
    }

    // The first cycle, from `cycle` on, whose inputs may differ from now though nothing transfers until then.
    uint64_t due(uint64_t cycle) const {
        if (silent) return kNever;
        if (stall) return cycle;
        uint64_t first = kNever;
        if (!r_valid_ && !reads_.empty()) first = std::min(first, reads_.front().due);
        if (!b_valid_ && !b_.empty()) first = std::min(first, b_.front().due);
        return first;
    }

  private:
    struct Address {
        uint64_t addr;
        uint32_t id, len, size, burst;
        bool operator==(const Address& o) const {
            return addr == o.addr && id == o.id && len == o.len && size == o.size && burst == o.burst;
        }
    };

    void error(uint64_t cycle, const std::string& what) { errors_.add(cycle, name_, what); }

    bool waits() {
        if (silent || !stall) return silent;
        rng_ ^= rng_ << 13, rng_ ^= rng_ >> 17, rng_ ^= rng_ << 5;
        return (rng_ & 0xFFFF) < stall;
    }

    uint8_t response(uint64_t addr, bool write, uint64_t cycle) {
#if NF_BOARD
        if (windows_.guarded) {
            const Window* w = windows_.find(addr);
            if (!w || addr + kBeat - 1 > w->last) return windows_.add(Violation::outside, write, addr, cycle), 3;
            const uint64_t at = addr - w->first;
            if (!write && w->shadow && !w->written[at / Windows::kLine] &&
                std::memcmp(w->shadow + at, memory.page_for_read(addr) + addr % kPage, kBeat))
                windows_.add(Violation::unflushed, write, addr, cycle);
        }
#else
        (void)cycle;
#endif
        return faults.empty() ? 0 : fault(addr, write);
    }

    uint8_t fault(uint64_t addr, bool write) const {
        for (const FaultRange& f : faults)
            if (addr + kBeat > f.first && addr <= f.last && (write ? f.write : f.read)) return f.response;
        return 0;
    }

    void address(uint64_t cycle, const char* channel, bool valid, bool ready, bool& held, Address& seen, const Address& now,
                 Ring<Burst>& queue, uint64_t latency, uint64_t& count) {
        if (held && !(valid && now == seen))
            error(cycle, std::string(channel) + " changed or fell before it was accepted");
        held = valid && !ready;
        if (held) seen = now;
        if (!valid || !ready) return;
        ++count;
        const uint64_t bytes = uint64_t(now.len + 1) * kBeat;
        if (now.burst != 1) error(cycle, std::string(channel) + " burst type is not INCR");
        if (now.size != kBeatLog2) error(cycle, std::string(channel) + " size is not the bus width");
        if (now.addr % kBeat) error(cycle, std::string(channel) + " address " + hex(now.addr) + " is not beat-aligned");
        if (now.addr / kPage != (now.addr + bytes - 1) / kPage)
            error(cycle, std::string(channel) + " burst of " + std::to_string(now.len + 1) + " beats at " + hex(now.addr) +
                  " crosses a 4 KiB boundary");
        queue.push({now.addr - now.addr % kBeat, cycle + std::max<uint64_t>(latency, 1), now.id, now.len + 1, 0});
    }

    void word(uint64_t cycle, bool valid) {
        auto& data = p_.wdata();
        const uint32_t strb = p_.wstrb();
        const bool last = p_.wlast();
        if (w_held_ && !(valid && strb == w_strb_ && last == w_last_ && !std::memcmp(w_data_, &data, kBeat)))
            error(cycle, "W changed or fell before it was accepted");
        w_held_ = valid && !w_ready_;
        if (w_held_) std::memcpy(w_data_, &data, kBeat), w_strb_ = strb, w_last_ = last;
        if (!valid || !w_ready_) return;
        ++write_beats;
        Burst& b = aw_.front();
        const uint64_t a = b.addr + uint64_t(w_beat_) * kBeat;
        const uint8_t resp = response(a, true, cycle);
#if NF_AXI3
        if (p_.wid() != b.id)
            error(cycle, "WID " + std::to_string(p_.wid()) + " where AWID " + std::to_string(b.id) + " is due");
#endif
        w_resp_ |= resp;
        if (!resp && strb) {  // a refused word is not written
            uint8_t* to = memory.page_for_write(a) + a % kPage;
            const uint8_t* from = reinterpret_cast<const uint8_t*>(&data);
            if (strb == uint32_t((uint64_t(1) << kBeat) - 1)) {
                std::memcpy(to, from, kBeat);
            } else {
                for (unsigned i = 0; i < kBeat; ++i)
                    if (strb >> i & 1) to[i] = from[i];
            }
#if NF_BOARD
            if (Window* w = windows_.find(a)) w->written[(a - w->first) / Windows::kLine] = true;
#endif
        }
        const bool end = ++w_beat_ == b.beats;
        if (last != end)
            error(cycle, "WLAST is " + std::to_string(last) + " on beat " + std::to_string(w_beat_) + " of " +
                  std::to_string(b.beats));
        if (end) {
            b.due = cycle + std::max<uint64_t>(write_latency, 1);
            b.resp = w_resp_;
            b_.push(b);
            aw_.pop();
            w_beat_ = 0, w_resp_ = 0;
        }
    }

    Ports p_;
    Windows& windows_;
    const char* name_;
    Errors& errors_;
    Ring<Burst> reads_, aw_, b_;
    uint32_t r_beat_ = 0, w_beat_ = 0, w_strb_ = 0, rng_ = 1;
    uint8_t w_resp_ = 0, w_data_[kBeat];
    Address ar_seen_{}, aw_seen_{};
    bool ar_ready_ = false, aw_ready_ = false, w_ready_ = false, r_valid_ = false, b_valid_ = false;
    bool ar_held_ = false, aw_held_ = false, w_held_ = false, w_last_ = false;
    bool busy_ = true;
};

#define NF_SIGNAL(prefix, name) \
    auto& name() const { return top->prefix##name; }
#define NF_ADDRESS(prefix, ch)                                                                               \
    NF_SIGNAL(prefix, ch##id) NF_SIGNAL(prefix, ch##addr) NF_SIGNAL(prefix, ch##len) NF_SIGNAL(prefix, ch##size) \
    NF_SIGNAL(prefix, ch##burst) NF_SIGNAL(prefix, ch##valid) NF_SIGNAL(prefix, ch##ready)
#if NF_AXI3
#define NF_WID(prefix) NF_SIGNAL(prefix, wid)
#else
#define NF_WID(prefix)
#endif
#define NF_PORTS(type, prefix)                                                                               \
    struct type {                                                                                            \
        Vtop* top;                                                                                           \
        NF_ADDRESS(prefix, ar) NF_ADDRESS(prefix, aw) NF_WID(prefix)                                         \
        NF_SIGNAL(prefix, wdata) NF_SIGNAL(prefix, wstrb) NF_SIGNAL(prefix, wlast) NF_SIGNAL(prefix, wvalid)  \
        NF_SIGNAL(prefix, wready) NF_SIGNAL(prefix, bid) NF_SIGNAL(prefix, bresp) NF_SIGNAL(prefix, bvalid)   \
        NF_SIGNAL(prefix, bready) NF_SIGNAL(prefix, rid) NF_SIGNAL(prefix, rdata) NF_SIGNAL(prefix, rresp)    \
        NF_SIGNAL(prefix, rlast) NF_SIGNAL(prefix, rvalid) NF_SIGNAL(prefix, rready)                          \
    };
NF_PORTS(HostPorts, m_axi_host_)
NF_PORTS(DramPorts, m_axi_dram_)

static_assert(!NF_MODEL || !VM_TRACE, "a model that is made anew cannot go on with its trace");
constexpr uint64_t kMaxElapsed = uint64_t(1) << 31;  // cycles of one edge, within the 32 bits of `elapsed`

constexpr int kTimeout = -1;

class Device {
  public:
    Device()
        : context_(new VerilatedContext), top_(prepare()),
          host_(top_.get(), "m_axi_host", memories_[0], windows_, errors_),
          dram_(top_.get(), "m_axi_dram", memories_[!NF_BOARD], windows_, errors_) {
        reset(8);
    }
    ~Device() {
        trace_stop();
        top_->final();
    }

    void reset(uint64_t n) {
        if (NF_MODEL) top_->final(), top_.reset(prepare());
        top_->s_axi_awvalid = top_->s_axi_wvalid = top_->s_axi_arvalid = 0;
        top_->s_axi_bready = top_->s_axi_rready = 0;
        host_.reset(top_.get()), dram_.reset(top_.get());
        unsettled_ = true;
#if NF_MODEL
        cycle_ += n;  // of the reset; in the first cycle after it neither memory is ready
#else
        top_->rst = 1;
        for (uint64_t i = 0; i < n; ++i) settle(), edge(1);
        top_->rst = 0;
        host_.drive(cycle_), dram_.drive(cycle_);
#endif
    }

    // Lets time pass: at least one cycle, at most `budget`. Returns how many; all but the first are alike.
    uint64_t advance(uint64_t budget) {
        settle();
#if NF_MODEL
        const bool moves = host_.sample(cycle_) | dram_.sample(cycle_);
        const bool host = host_.drive(cycle_ + 1), dram = dram_.drive(cycle_ + 1);
        top_->m_axi_host_clk ^= host, top_->m_axi_dram_clk ^= dram;
        uint64_t n = 1;
        if (NF_GATED && !clock_blocks() && !(moves | host | dram)) {
            n = std::min({budget, kMaxElapsed, host_.due(cycle_ + 2) - 1 - cycle_, dram_.due(cycle_ + 2) - 1 - cycle_});
#define NF_TIMER(k) if (top_->remaining##k) n = std::min<uint64_t>(n, top_->remaining##k);
            NF_TIMERS(NF_TIMER)
        }
        edge(n);
        return n;
#else
        host_.sample(cycle_), dram_.sample(cycle_);
        edge(1);
        host_.drive(cycle_), dram_.drive(cycle_);
        return 1;
#endif
    }

    void step(uint64_t n) {
        while (n) n -= advance(n);
    }

    // The response code, or kTimeout (the request is then withdrawn, which only a reset puts right).
    int axil_write(uint32_t addr, uint32_t data, uint64_t max_cycles) {
        top_->s_axi_awaddr = addr, top_->s_axi_wdata = data, top_->s_axi_wstrb = 0xF;
#if NF_BOARD
        top_->s_axi_awlen = 0, top_->s_axi_awsize = 2, top_->s_axi_awburst = 1, top_->s_axi_wlast = 1;
        top_->s_axi_awid = next_id_++ & 0xFFF;
#endif
#if NF_AXI3
        top_->s_axi_wid = top_->s_axi_awid;
#endif
        top_->s_axi_awvalid = top_->s_axi_wvalid = top_->s_axi_bready = 1;
        int resp = kTimeout;
        for (uint64_t i = 0; i < max_cycles && resp == kTimeout; ++i) {
            unsettled_ = true;
            settle();
            const bool aw = top_->s_axi_awvalid && top_->s_axi_awready, w = top_->s_axi_wvalid && top_->s_axi_wready;
            if (top_->s_axi_bvalid) resp = top_->s_axi_bresp;
            advance(1);
            if (aw) top_->s_axi_awvalid = 0;
            if (w) top_->s_axi_wvalid = 0;
        }
        top_->s_axi_awvalid = top_->s_axi_wvalid = top_->s_axi_bready = 0;
        unsettled_ = true;
        return resp;
    }

    int axil_read(uint32_t addr, uint32_t* data, uint64_t max_cycles) {
        top_->s_axi_araddr = addr;
#if NF_BOARD
        top_->s_axi_arlen = 0, top_->s_axi_arsize = 2, top_->s_axi_arburst = 1, top_->s_axi_arid = next_id_++ & 0xFFF;
#endif
        top_->s_axi_arvalid = top_->s_axi_rready = 1;
        int resp = kTimeout;
        for (uint64_t i = 0; i < max_cycles && resp == kTimeout; ++i) {
            unsettled_ = true;
            settle();
            const bool ar = top_->s_axi_arvalid && top_->s_axi_arready;
            if (top_->s_axi_rvalid) resp = top_->s_axi_rresp, *data = top_->s_axi_rdata;
            advance(1);
            if (ar) top_->s_axi_arvalid = 0;
        }
        top_->s_axi_arvalid = top_->s_axi_rready = 0;
        unsettled_ = true;
        return resp;
    }

    int64_t run_until_irq(uint64_t max_cycles) {
        return run_until(max_cycles, [&] { return irq() != 0; });
    }

    int64_t run_until_host_word(uint64_t addr, uint32_t mask, uint32_t value, uint64_t max_cycles) {
        const uint8_t* at = host_.memory.page_for_write(addr) + addr % kPage;
        return run_until(max_cycles, [&] {
            uint32_t word;
            std::memcpy(&word, at, sizeof word);
            return (word & mask) == value;
        });
    }

    Windows& windows() { return windows_; }
    uint32_t irq() const { return top_->irq; }
    uint64_t cycles() const { return cycle_; }
    Errors& errors() { return errors_; }
    template <typename F>
    auto with_memory(int which, F f) {
        return which ? f(dram_) : f(host_);
    }

    int trace_start(const char* path) {
#if VM_TRACE
        trace_stop();
        trace_.reset(new Trace);
        top_->trace(trace_.get(), 99);
        trace_->open(path);
        if (trace_->isOpen()) return 0;
        trace_.reset();
#else
        (void)path;
#endif
        return -1;
    }
    void trace_stop() {
#if VM_TRACE
        if (trace_) trace_->close(), trace_.reset();
#endif
    }

  private:
    Vtop* prepare() {
#if VM_TRACE
        context_->traceEverOn(true);
#endif
        Vtop* top = new Vtop(context_.get(), "top");
        if (NF_MODEL) top->eval();  // from here on every change of a clock is an edge
        return top;
    }
    template <typename F>
    int64_t run_until(uint64_t max_cycles, F done) {
        for (uint64_t i = 0;; i += advance(max_cycles - i)) {
            if (done()) return i;
            if (i == max_cycles) return kTimeout;
        }
    }
    void settle() {
#if NF_MODEL
        if (!unsettled_) return;  // as the last edge left it
        top_->s_axi_clk ^= 1;
#else
        top_->clk = 0;
#endif
        unsettled_ = false;
        top_->eval();
    }
#if NF_MODEL
    // Moves the clocks of the blocks that are awake; whether any is.
    bool clock_blocks() {
        unsigned any = 0;
#define NF_CLOCK(k) any |= top_->block##k##_awake, top_->block##k##_clk ^= top_->block##k##_awake;
        NF_BLOCKS(NF_CLOCK)
        return any;
    }
#endif
    // The clock edge that ends `n` cycles.
    void edge(uint64_t n) {
#if NF_GATED
        if (n > 1) elapse(n), top_->eval(), elapse(1);
#endif
#if VM_TRACE
        if (trace_) trace_->dump(2 * cycle_);
#endif
        top_->clk = NF_MODEL ? !top_->clk : 1;
        top_->eval();
#if VM_TRACE
        if (trace_) trace_->dump(2 * cycle_ + 1);
#endif
        cycle_ += n;
    }
#if NF_GATED
    void elapse(uint64_t n) { top_->elapsed = n, top_->elapsed_clk ^= 1; }
#endif

    Errors errors_;
    SparseMemory memories_[2];
    Windows windows_;
    uint32_t next_id_ = 0;  // of a board's accesses to registers
    std::unique_ptr<VerilatedContext> context_;
    std::unique_ptr<Vtop> top_;
    AxiMemory<HostPorts> host_;
    AxiMemory<DramPorts> dram_;
#if VM_TRACE
    std::unique_ptr<Trace> trace_;
#endif
    uint64_t cycle_ = 0;
    bool unsettled_ = true;  // AXI4-Lite inputs changed since the last evaluation
};

}  // namespace

#define NF_API extern "C" __attribute__((visibility("default")))

NF_API Device* nf_create() { return new Device; }
NF_API void nf_destroy(Device* d) { delete d; }
NF_API unsigned nf_beat_bytes() { return kBeat; }
NF_API const char* nf_trace_suffix() {
#if VM_TRACE_FST
    return ".fst";
#elif VM_TRACE_VCD
    return ".vcd";
#else
    return "";
#endif
}
NF_API void nf_reset(Device* d, uint64_t n) { d->reset(n); }
NF_API void nf_step(Device* d, uint64_t n) {
    d->step(n);
}
NF_API uint64_t nf_cycles(Device* d) { return d->cycles(); }
NF_API uint32_t nf_irq(Device* d) { return d->irq(); }
NF_API int64_t nf_run_until_irq(Device* d, uint64_t max_cycles) { return d->run_until_irq(max_cycles); }
NF_API int64_t nf_run_until_host_word(Device* d, uint64_t addr, uint32_t mask, uint32_t value, uint64_t max_cycles) {
    return d->run_until_host_word(addr, mask, value, max_cycles);
}
NF_API int nf_axil_write(Device* d, uint32_t addr, uint32_t data, uint64_t max_cycles) {
    return d->axil_write(addr, data, max_cycles);
}
NF_API int nf_axil_read(Device* d, uint32_t addr, uint32_t* data, uint64_t max_cycles) {
    return d->axil_read(addr, data, max_cycles);
}
NF_API void nf_memory_read(Device* d, int which, uint64_t addr, uint8_t* out, uint64_t n) {
    d->with_memory(which, [&](auto& m) { m.memory.read(addr, out, n); });
}
NF_API void nf_memory_write(Device* d, int which, uint64_t addr, const uint8_t* in, uint64_t n) {
    d->with_memory(which, [&](auto& m) { m.memory.write(addr, in, n); });
}
NF_API void nf_memory_fill(Device* d, int which, uint64_t addr, int value, uint64_t n) {
    d->with_memory(which, [&](auto& m) { m.memory.fill(addr, value, n); });
}
NF_API void nf_memory_clear(Device* d, int which) {
    d->with_memory(which, [](auto& m) { m.memory.clear(); });
}
NF_API uint64_t nf_memory_bytes(Device* d, int which) {
    return d->with_memory(which, [](auto& m) { return m.memory.bytes(); });
}
NF_API void nf_memory_timing(Device* d, int which, uint64_t read_latency, uint64_t write_latency, uint32_t stall,
                             uint32_t seed) {
    d->with_memory(which, [&](auto& m) {
        m.read_latency = read_latency, m.write_latency = write_latency, m.stall = stall;
        m.seed(seed);
    });
}
NF_API void nf_memory_fault(Device* d, int which, uint64_t first, uint64_t last, int read, int write, int decode) {
    d->with_memory(which, [&](auto& m) {
        m.faults.push_back({first, last, read != 0, write != 0, uint8_t(decode ? 3 : 2)});
    });
}
NF_API void nf_memory_clear_faults(Device* d, int which) {
    d->with_memory(which, [](auto& m) { m.faults.clear(); });
}
NF_API void nf_memory_silence(Device* d, int which, int silent) {
    d->with_memory(which, [&](auto& m) { m.silent = silent != 0; });
}
NF_API void nf_memory_traffic(Device* d, int which, uint64_t* out) {
    d->with_memory(which, [&](auto& m) {
        out[0] = m.read_bursts, out[1] = m.read_beats, out[2] = m.write_bursts, out[3] = m.write_beats;
    });
}
NF_API void nf_window_open(Device* d, uint64_t first, uint64_t last, const uint8_t* shadow) {
    d->windows().guarded = true;
    d->windows().open(first, last, shadow);
}
NF_API void nf_window_close(Device* d, uint64_t first) { d->windows().close(first); }
NF_API int nf_window_stale(Device* d, uint64_t addr, uint64_t n) { return d->windows().stale(addr, n); }
NF_API void nf_window_synchronise(Device* d, uint64_t addr, uint64_t n) { d->windows().synchronise(addr, n); }
// The violations so far, four words each (kind, write, address, cycle), at most `most`; they are forgotten.
NF_API unsigned nf_take_violations(Device* d, uint64_t* out, unsigned most) {
    auto& found = d->windows().violations;
    const unsigned n = std::min<size_t>(found.size(), most);
    for (unsigned k = 0; k < n; ++k)
        out[4 * k] = found[k].kind, out[4 * k + 1] = found[k].write, out[4 * k + 2] = found[k].addr,
        out[4 * k + 3] = found[k].cycle;
    found.clear();
    return n;
}
NF_API uint64_t nf_error_count(Device* d) { return d->errors().count(); }
NF_API const char* nf_error_text(Device* d) { return d->errors().text().c_str(); }
NF_API void nf_clear_errors(Device* d) { d->errors().clear(); }
NF_API int nf_trace_start(Device* d, const char* path) { return d->trace_start(path); }
NF_API void nf_trace_stop(Device* d) { d->trace_stop(); }
