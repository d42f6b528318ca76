// CUDA kernels on the CPU, for tests: device code compiles with a C++ compiler and runs block by block, every thread of
// a block as a fiber. A thread runs until a barrier or a shuffle; who runs next is drawn at random, so that a missing
// barrier shows as a wrong result for some seed. Waiting for threads that never come is an error that says so.
//
// What it checks is logic and synchronisation. It knows nothing of memory models, coalescing or device arithmetic, and
// shared memory is `static` storage: it keeps what the last block left, where a device has rubbish.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#define __device__
#define __host__
#define __global__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __restrict__
#define __align__(n) alignas(n)
#define __shared__ static

struct uint4 {
  alignas(16) uint32_t x;
  uint32_t y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};

namespace simt {

// A set of threads that wait for each other.
struct Barrier {
  int waiting = 0;
  int64_t generation = 0;
};

struct Thread {
  ucontext_t start;
  jmp_buf resume;
  bool started = false, done = false;
  int index = 0;
  std::map<unsigned, Barrier>* barriers = nullptr;  // of its warp, by mask
  const Barrier* blocked_on = nullptr;
  int64_t generation = 0;  // of the barrier when the thread came
  int shuffles = 0;
  std::vector<char> stack;
};

struct Machine {
  dim3 grid, block;
  unsigned block_index = 0;
  std::vector<std::unique_ptr<Thread>> threads;
  std::vector<std::map<unsigned, Barrier>> warp_barriers;
  std::vector<int> exchange[2];  // what each thread offers in a shuffle
  Barrier block_barrier;
  Thread* current = nullptr;
  jmp_buf scheduler;
  ucontext_t main;
  std::function<void()> body;
  uint64_t seed = 1;
  int64_t finished = 0;

  unsigned draw(unsigned n) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return static_cast<unsigned>((seed >> 33) % n);
  }

  [[noreturn]] static void fail(const char* message) {
    std::fprintf(stderr, "simt: %s\n", message);
    std::abort();
  }

  static void enter();

  void yield() {
    if (_setjmp(current->resume) == 0) {
      _longjmp(scheduler, 1);
    }
  }

  // Blocks until `size` threads have come.
  void arrive(Barrier& barrier, int size) {
    if (++barrier.waiting == size) {
      barrier.waiting = 0;
      ++barrier.generation;
      return;
    }
    current->blocked_on = &barrier;
    current->generation = barrier.generation;
    yield();
  }

  void run_block() {
    const unsigned n = block.x * block.y * block.z;
    while (threads.size() < n) {
      threads.push_back(std::make_unique<Thread>());
      threads.back()->stack.resize(128 << 10);
    }
    warp_barriers.assign((n + 31) / 32, {});
    exchange[0].assign(n, 0x7ff00dad);
    exchange[1].assign(n, 0x7ff00dad);
    block_barrier = {};
    finished = 0;
    std::vector<Thread*> live;
    for (unsigned t = 0; t < n; ++t) {
      Thread& thread = *threads[t];
      thread.started = thread.done = false;
      thread.index = static_cast<int>(t);
      thread.barriers = &warp_barriers[t / 32];
      thread.blocked_on = nullptr;
      thread.shuffles = 0;
      live.push_back(&thread);
    }
    while (!live.empty()) {
      bool progress = false;
      for (size_t k = live.size(); k > 1; --k) {  // a fresh order for every round
        std::swap(live[k - 1], live[draw(static_cast<unsigned>(k))]);
      }
      for (Thread* thread : live) {
        if (thread->blocked_on != nullptr) {
          if (thread->blocked_on->generation == thread->generation) {
            continue;
          }
          thread->blocked_on = nullptr;
        }
        progress = true;
        current = thread;
        if (_setjmp(scheduler) == 0) {
          if (thread->started) {
            _longjmp(thread->resume, 1);
          }
          thread->started = true;
          getcontext(&thread->start);
          thread->start.uc_stack.ss_sp = thread->stack.data();
          thread->start.uc_stack.ss_size = thread->stack.size();
          thread->start.uc_link = nullptr;
          makecontext(&thread->start, &Machine::enter, 0);
          setcontext(&thread->start);
        }
      }
      if (!progress) {
        fail("deadlock: threads wait at a barrier or shuffle that others never reach.");
      }
      std::erase_if(live, [](const Thread* thread) { return thread->done; });
    }
    if (block_barrier.waiting != 0) {
      fail("a barrier was left with threads waiting.");
    }
  }
};

inline Machine machine;

inline void Machine::enter() {
  machine.body();
  machine.current->done = true;
  _longjmp(machine.scheduler, 1);
}

inline dim3 thread_index() {
  const unsigned t = static_cast<unsigned>(machine.current->index);
  return {t % machine.block.x, t / machine.block.x % machine.block.y, t / machine.block.x / machine.block.y};
}

template <typename Kernel, typename... Args>
void launch(Kernel kernel, dim3 grid, dim3 block, const Args&... args) {
  machine.grid = grid;
  machine.block = block;
  machine.body = [&] { kernel(args...); };
  for (unsigned b = 0; b < grid.x * grid.y * grid.z; ++b) {
    machine.block_index = b;
    machine.run_block();
  }
}

inline unsigned lanes_of(unsigned mask) {
  const int first = machine.current->index / 32 * 32;
  const int lanes = std::min(32, static_cast<int>(machine.block.x * machine.block.y * machine.block.z) - first);
  if (lanes < 32 && mask == 0xffffffffu) {
    mask = (1u << lanes) - 1;
  }
  if (!(mask >> (machine.current->index % 32) & 1)) {
    Machine::fail("a thread calls a warp operation whose mask leaves it out.");
  }
  return mask;
}

inline void sync_lanes(unsigned mask) {
  mask = lanes_of(mask);
  machine.arrive((*machine.current->barriers)[mask], std::popcount(mask));
}

// Two buffers in turn: nobody can be two shuffles ahead of a lane that has not read yet.
inline int exchange_word(unsigned mask, int word, int source_lane) {
  Thread& self = *machine.current;
  std::vector<int>& buffer = machine.exchange[self.shuffles++ & 1];
  buffer[self.index] = word;
  sync_lanes(mask);
  if (!(mask >> source_lane & 1)) {
    Machine::fail("a shuffle reads a lane that its mask leaves out.");
  }
  return buffer[self.index / 32 * 32 + source_lane];
}

}  // namespace simt

#define threadIdx (simt::thread_index())
#define blockIdx                                                                 \
  (dim3{simt::machine.block_index % simt::machine.grid.x,                        \
        simt::machine.block_index / simt::machine.grid.x % simt::machine.grid.y, \
        simt::machine.block_index / simt::machine.grid.x / simt::machine.grid.y})
#define blockDim (simt::machine.block)
#define gridDim (simt::machine.grid)
#define SSLK_LAUNCH(kernel, grid, block, ...) \
  simt::launch(kernel, dim3{static_cast<unsigned>(grid)}, dim3{static_cast<unsigned>(block)}, __VA_ARGS__)

inline void __syncthreads() {
  simt::machine.arrive(simt::machine.block_barrier,
                       static_cast<int>(simt::machine.block.x * simt::machine.block.y * simt::machine.block.z));
}
inline void __syncwarp(unsigned mask = 0xffffffffu) { simt::sync_lanes(mask); }

template <typename V>
V __shfl_xor_sync(unsigned mask, V value, int offset) {
  static_assert(sizeof(V) == 4);
  return std::bit_cast<V>(
      simt::exchange_word(mask, std::bit_cast<int>(value), (simt::machine.current->index % 32) ^ offset));
}
template <typename V>
V __shfl_sync(unsigned mask, V value, int lane) {
  static_assert(sizeof(V) == 4);
  return std::bit_cast<V>(simt::exchange_word(mask, std::bit_cast<int>(value), lane));
}
inline unsigned __ballot_sync(unsigned mask, bool vote) {
  unsigned bits = 0;
  for (int lane = 0; lane < 32; ++lane) {
    if (mask >> lane & 1) {
      bits |= static_cast<unsigned>(__shfl_sync(mask, static_cast<int>(vote), lane)) << lane;
    }
  }
  return bits;
}

// No thread is interrupted between two barriers, so plain additions are atomic.
template <typename V>
V atomicAdd(V* address, V value) {
  return std::exchange(*address, *address + value);
}

template <typename V>
V atomicOr(V* address, V value) {
  return std::exchange(*address, *address | value);
}

template <typename V>
V atomicMax(V* address, V value) {
  return std::exchange(*address, std::max(*address, value));
}

inline int __ffs(int bits) { return bits == 0 ? 0 : std::countr_zero(static_cast<unsigned>(bits)) + 1; }
inline int __popc(unsigned bits) { return std::popcount(bits); }
inline float __int_as_float(int bits) { return std::bit_cast<float>(bits); }

// As many as a real device might answer; small, so that teams see several rows.
template <typename Kernel>
int resident_blocks(Kernel, int) {
  return 2;
}

struct __half {
  _Float16 value;
};
inline float __half2float(__half x) { return static_cast<float>(x.value); }
inline __half __float2half_rn(float x) { return {static_cast<_Float16>(x)}; }
inline __half __double2half(double x) { return {static_cast<_Float16>(x)}; }
struct __half2 {
  __half x, y;
};
inline float __low2float(__half2 pair) { return __half2float(pair.x); }
inline float __high2float(__half2 pair) { return __half2float(pair.y); }
inline __half2 __hmax2(__half2 a, __half2 b) {
  return {a.x.value > b.x.value ? a.x : b.x, a.y.value > b.y.value ? a.y : b.y};
}
inline __half2 __hmin2(__half2 a, __half2 b) {
  return {a.x.value < b.x.value ? a.x : b.x, a.y.value < b.y.value ? a.y : b.y};
}

struct __nv_bfloat16 {
  uint16_t bits;
};
inline float __bfloat162float(__nv_bfloat16 x) { return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }
inline __nv_bfloat16 __float2bfloat16_rn(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  if (std::isnan(x)) {
    return {0x7fc0};
  }
  return {static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1)) >> 16)};
}
struct __nv_bfloat162 {
  __nv_bfloat16 x, y;
};
inline __nv_bfloat16 larger(__nv_bfloat16 a, __nv_bfloat16 b) {
  return __bfloat162float(a) > __bfloat162float(b) ? a : b;
}
inline __nv_bfloat16 smaller(__nv_bfloat16 a, __nv_bfloat16 b) {
  return __bfloat162float(a) < __bfloat162float(b) ? a : b;
}
inline __nv_bfloat162 __hmax2(__nv_bfloat162 a, __nv_bfloat162 b) { return {larger(a.x, b.x), larger(a.y, b.y)}; }
inline __nv_bfloat162 __hmin2(__nv_bfloat162 a, __nv_bfloat162 b) { return {smaller(a.x, b.x), smaller(a.y, b.y)}; }
// Rounded once: by way of a float that keeps in its last bit whether anything was cut off.
inline __nv_bfloat16 __double2bfloat16(double x) {
  float y = static_cast<float>(x);
  if (std::isfinite(x)) {
    if (std::fabs(static_cast<double>(y)) > std::fabs(x)) {
      y = std::nextafter(y, 0.0f);
    }
    if (static_cast<double>(y) != x) {
      y = std::bit_cast<float>(std::bit_cast<uint32_t>(y) | 1u);
    }
  }
  return __float2bfloat16_rn(y);
}
