// The two kernels that walk over rows, for any op, and the choice between their variants.
//
// An op is a struct of arguments with
//   State<kItems>                        what a thread keeps between rows
//   begin(team, layout, d, &state)       row(team, held_row, &state)
//   after_row(team, layout, &state)      called by every thread of the block equally often: may hold barriers
//   finish(team, layout, d, &state)
// for rows in registers, and for double and for rows too long
//   long_begin(team, d)                  long_row(team, memory_row, i)
#pragma once

#include <algorithm>
#include <type_traits>

#include "rows/row_stats.cuh"

namespace sslk {

constexpr int kThreadsPerLaneBlock = 256;
constexpr int64_t kTeamMultiple = 8;  // 16 bytes over the smallest element

// Registers that an op needs beyond what a thread holds between instructions.
template <typename Op, typename Team>
constexpr int kWorkingRegisters = 46;

// Rows that a team which is a whole block has at least, once every multiprocessor has a team.
template <typename Op>
constexpr int kRowsPerTeam = 1;

// Blocks per multiprocessor that the compiler plans for: left to itself it stops at a step of the occupancy and spills
// a few words to stay there. A thread holds the next row's slots, this row's and the state; to widen elements of 16
// bits takes some more.
template <typename T, typename Team, int kSlots, typename Op>
constexpr int planned_blocks() {
  constexpr int kItems = Layout<T, kSlots>::kItems;
  constexpr int kHeld = 2 * 4 * kSlots + static_cast<int>(sizeof(typename Op::template State<kItems>)) / 4;
  constexpr int kWorking = sizeof(T) == 2 ? std::max(56, kWorkingRegisters<Op, Team>) : kWorkingRegisters<Op, Team>;
  return std::max(1, (1 << 16) / Team::kMaxThreads / (kHeld + kWorking));
}

template <typename T, typename Team, int kSlots, typename Op>
__global__ void __launch_bounds__(Team::kMaxThreads, planned_blocks<T, Team, kSlots, Op>())
    register_rows_kernel(Rows h, Op op) {
  __shared__ typename Team::Scratch scratch;
  Team team(scratch);
  HeldRow<T, Team, kSlots> row;
  row.d = static_cast<int>(h.d);
  // The number of teams is a multiple of 8, so all rows of a team start at the same offset from a 16-byte boundary,
  // whatever the stride: the layout is fixed and each thread owns its columns.
  const int64_t step = static_cast<int64_t>(gridDim.x) * team.per_block();
  const int64_t base = static_cast<int64_t>(blockIdx.x) * team.per_block();
  row.i = base + team.index;
  row.x = row_at<T>(h, row.i);
  row.layout.set(row.x, row.d, team.rank, team.width());
  typename Op::template State<Layout<T, kSlots>::kItems> state;
  op.begin(team, row.layout, h.d, &state);
  RawRow<T, kSlots> raw;
  if (row.i < h.n) {
    raw.load(row.x, row.layout);
  }
  // Rows of the team and of the block's first team: a grid that has so many rows to share is large enough for int.
  int left = static_cast<int>((h.n - row.i + step - 1) / step);
  for (int turns = static_cast<int>((h.n - base + step - 1) / step); turns > 0; --turns) {
    recompute_from(row.layout.valid);
    recompute_from(row.layout.first);
    if (left > 0) {
      row.values = raw;
      const T* next = row.x + step * h.stride;
      if (--left > 0) {  // under way while this row is reduced
        raw.load(next, row.layout);
      }
      op.row(team, row, &state);
      row.i += step;
      row.x = next;
    }
    op.after_row(team, row.layout, &state);
  }
  op.finish(team, row.layout, h.d, &state);
}

template <typename T, typename Op>
__global__ void __launch_bounds__(Block::kMaxThreads, 1) long_rows_kernel(Rows h, Op op) {
  __shared__ typename Block::Scratch scratch;
  Block team(scratch);
  op.long_begin(team, h.d);
  for (int64_t i = blockIdx.x; i < h.n; i += gridDim.x) {
    op.long_row(team, MemoryRow<T>{row_at<T>(h, i), h.d}, i);
  }
}

// Blocks of a grid that fills the device once (a second wave of a few blocks would double the time), or has a team per
// row where there are fewer rows.
inline int64_t grid_size(int64_t n, int64_t teams_per_block, int64_t blocks_on_device) {
  const int64_t multiple = teams_per_block % kTeamMultiple == 0 ? 1 : kTeamMultiple;
  const int64_t needed = (n + teams_per_block - 1) / teams_per_block;
  const int64_t most = std::max(blocks_on_device / multiple, int64_t{1}) * multiple;
  return std::min((needed + multiple - 1) / multiple * multiple, most);
}

// 16-byte slots that the longest row of h touches.
inline int64_t slots_of(const Rows& h, int64_t element_size) {
  const int64_t per_slot = 16 / element_size;
  const bool aligned = reinterpret_cast<uintptr_t>(h.data) % 16 == 0 && h.stride % per_slot == 0;
  return (h.d + (aligned ? 0 : per_slot - 1) + per_slot - 1) / per_slot;
}

// Calls body(kernel, grid, threads) with the kernel for rows of this type and length.
template <typename Op, typename Body>
void with_row_kernel(const Rows& h, int multiprocessors, Body body) {
  const auto choose = [&](auto kernel, int64_t threads, int64_t width, int64_t rows_per_team = 1) {
    const int64_t blocks = static_cast<int64_t>(resident_blocks(kernel, threads)) * multiprocessors;
    const int64_t teams = std::max((h.n + rows_per_team - 1) / rows_per_team, std::min<int64_t>(h.n, multiprocessors));
    body(kernel, grid_size(teams, threads / width, blocks), threads);
  };
  const auto warps = [](int64_t threads) { return (threads + 31) / 32 * 32; };
  with_type(h.dtype, [&](auto type) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(type)>>;
    if constexpr (sizeof(T) < sizeof(double)) {
      // Few threads with many items share the work per row best; the most an op keeps in registers are 32. Elements of
      // 16 bits have half the time for it.
      constexpr int k8 = sizeof(T) / 2;  // slots that hold 8 items
      constexpr bool kNarrow = sizeof(T) == 2;
      using Middle = std::conditional_t<kNarrow, Lanes<16>, Lanes<32>>;
      using Wide = std::conditional_t<kNarrow, BlockOf<256>, Block>;
      constexpr int kMost = kNarrow ? 4 * k8 : 2 * k8;  // slots of a thread in either
      const int64_t slots = slots_of(h, sizeof(T));
      if (slots <= 8 * k8) {
        return choose(register_rows_kernel<T, Lanes<8>, k8, Op>, kThreadsPerLaneBlock, 8);
      }
      if (slots <= 8 * 4 * k8) {
        return choose(register_rows_kernel<T, Lanes<8>, 4 * k8, Op>, kThreadsPerLaneBlock, 8);
      }
      if (slots <= Middle::kLanes * kMost) {
        return choose(register_rows_kernel<T, Middle, kMost, Op>, kThreadsPerLaneBlock, Middle::kLanes);
      }
      if (slots <= 32 * 4 * k8) {
        return choose(register_rows_kernel<T, Lanes<32>, 4 * k8, Op>, kThreadsPerLaneBlock, 32);
      }
      // A long row of a block that fills the multiprocessor alone leaves it idle at every barrier: half the threads
      // with twice the items leave room for a second block, for ops that keep little.
      using Half = BlockOf<256>;
      if constexpr (!kNarrow && planned_blocks<T, Half, 4 * k8, Op>() >= 2) {
        if (slots > Half::kMaxThreads * k8 && slots <= Half::kMaxThreads * 4 * k8) {
          const int64_t threads = warps((slots + 4 * k8 - 1) / (4 * k8));
          return choose(register_rows_kernel<T, Half, 4 * k8, Op>, threads, threads);
        }
      }
      if (slots <= Wide::kMaxThreads * kMost) {
        const int64_t threads = warps((slots + kMost - 1) / kMost);
        return choose(register_rows_kernel<T, Wide, kMost, Op>, threads, threads, kRowsPerTeam<Op>);
      }
    }
    const int64_t threads = std::min<int64_t>(warps(h.d), Block::kMaxThreads);
    choose(long_rows_kernel<T, Op>, threads, threads);
  });
}

}  // namespace sslk
