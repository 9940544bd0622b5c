// What an observed model reports (nearflash_hw.model): every change of an observation, kept until it is taken.
//
// Kept by thread, as models know nothing of the Device around them: of observed devices, a thread runs one at a time.

#include <cstdint>
#include <cstring>
#include <vector>

namespace {
thread_local std::vector<int64_t> changes;  // number, cycle since the model was made, value; and again
thread_local bool keeping = false;
}  // namespace

extern "C" void nf_seen(int number, long long cycle, long long value) {
    if (keeping) changes.insert(changes.end(), {number, cycle, value});
}

#define NF_API extern "C" __attribute__((visibility("default")))

// From now on, or no longer; what was kept is forgotten.
NF_API void nf_observe(int keep) {
    keeping = keep != 0;
    changes.clear();
}
NF_API uint64_t nf_observed_count() { return changes.size(); }
NF_API void nf_observed_copy(int64_t* out) { std::memcpy(out, changes.data(), changes.size() * sizeof(int64_t)); }
