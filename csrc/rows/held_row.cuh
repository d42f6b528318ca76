// A row in the registers of a team. Rows start anywhere; slots are 16-byte aligned pieces of memory, so a row may begin
// and end inside one. A thread holds slots rank, rank + width, ...: interior ones are moved by one 16-byte access.
#pragma once

#include "rows/team.cuh"

namespace sslk {

// Which columns the items of this thread are. The same for every row of a team (see register_rows_kernel).
template <typename T, int kSlots>
struct Layout {
  static constexpr int kVec = 16 / sizeof(T);
  static constexpr int kItems = kSlots * kVec;
  static constexpr uint32_t kAll = kItems == 32 ? 0xffffffffu : (1u << kItems % 32) - 1;
  static constexpr uint32_t kSlot = (1u << kVec) - 1;

  uint32_t first;  // column of the first item, two's complement: negative where the row starts inside the slot
  int step;        // columns between slots
  uint32_t valid;  // a bit per item: is it a column of the row

  SSLK_DEVICE void set(const T* x, int d, int rank, int width) {
    const int lead = static_cast<int>(reinterpret_cast<uintptr_t>(x) % 16 / sizeof(T));
    step = width * kVec;
    valid = 0;
    first = static_cast<uint32_t>(rank * kVec - lead);
    for (int i = 0; i < kItems; ++i) {
      valid |= static_cast<uint32_t>(column(i) >= 0 && column(i) < d) << i;
    }
  }
  SSLK_DEVICE int column(int item) const { return static_cast<int>(first) + item / kVec * step + item % kVec; }
  SSLK_DEVICE uint32_t slot(int s) const { return valid >> s * kVec & kSlot; }
};

// Item u of a slot as float.
template <typename T>
SSLK_DEVICE float item_of(const uint4& slot, int u, const T*) {
  T elements[16 / sizeof(T)];
  memcpy(elements, &slot, 16);
  return widen(elements[u]);
}
// A bfloat16 is the upper half of a float: one instruction.
SSLK_DEVICE float item_of(const uint4& slot, int u, const bf16*) {
  const uint32_t words[4] = {slot.x, slot.y, slot.z, slot.w};
  const uint32_t word = u % 2 ? words[u / 2] & 0xffff0000u : words[u / 2] << 16;
  float value;
  memcpy(&value, &word, 4);
  return value;
}

template <typename T, int kSlots>
struct RawRow {
  uint4 slots[kSlots];

  SSLK_DEVICE void load(const T* x, const Layout<T, kSlots>& layout) {
    constexpr int kVec = Layout<T, kSlots>::kVec;
    if (layout.valid == layout.kAll) {  // most threads of most rows
      const T* p = x + layout.column(0);
#pragma unroll
      for (int s = 0; s < kSlots; ++s) {
        slots[s] = *reinterpret_cast<const uint4*>(p + s * layout.step);
      }
      return;
    }
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
      const T* p = x + layout.column(s * kVec);
      const uint32_t valid = layout.slot(s);
      if (valid == layout.kSlot) {
        slots[s] = *reinterpret_cast<const uint4*>(p);
      } else {
        slots[s] = uint4{0, 0, 0, 0};
        if (valid != 0) {
          T elements[kVec];
          memcpy(elements, &slots[s], 16);
#pragma unroll
          for (int u = 0; u < kVec; ++u) {
            if (valid >> u & 1) {
              elements[u] = p[u];
            }
          }
          memcpy(&slots[s], elements, 16);
        }
      }
    }
  }

  // Item i; 0 where the layout is not valid. Elements of 16 bits stay packed and are widened wherever they are used:
  // registers are scarcer than instructions.
  SSLK_DEVICE float operator[](int i) const {
    constexpr int kVec = 16 / sizeof(T);
    return item_of(slots[i / kVec], i % kVec, static_cast<const T*>(nullptr));
  }
};

// Writes the items of a row to `out` (its column 0): whole slots by one access where alignment allows, T of any size.
template <typename Out, typename T, int kSlots, typename Value>
SSLK_DEVICE void store_row(Out* out, const Layout<T, kSlots>& layout, Value value) {
  constexpr int kVec = Layout<T, kSlots>::kVec;
  struct alignas(kVec * sizeof(Out)) Piece {
    Out elements[kVec];
  };
#pragma unroll
  for (int s = 0; s < kSlots; ++s) {
    const uint32_t valid = layout.slot(s);
    if (valid != 0) {
      Out* p = out + layout.column(s * kVec);
      Piece piece;
#pragma unroll
      for (int u = 0; u < kVec; ++u) {
        value(s * kVec + u, &piece.elements[u]);
      }
      if (valid == layout.kSlot && reinterpret_cast<uintptr_t>(p) % sizeof(Piece) == 0) {
        *reinterpret_cast<Piece*>(p) = piece;
      } else {
#pragma unroll
        for (int u = 0; u < kVec; ++u) {
          if (valid >> u & 1) {
            p[u] = piece.elements[u];
          }
        }
      }
    }
  }
}

// A row of memory.
template <typename T>
struct MemoryRow {
  using Element = T;
  const T* x;
  int64_t d;

  SSLK_DEVICE double first() const { return static_cast<double>(widen(x[0])); }
  // Calls visit(column, element) for every element of this thread.
  template <typename Team, typename Visit>
  SSLK_DEVICE void each(const Team& team, Visit visit) const {
#pragma unroll 1
    for (int64_t j = team.rank; j < d; j += team.width()) {
      visit(j, static_cast<double>(widen(x[j])));
    }
  }
};

// One row as an op sees it. What reads a MemoryRow reads this as well, from registers.
template <typename T, typename Team, int kSlots>
struct HeldRow {
  using Element = T;
  static constexpr int kItems = Layout<T, kSlots>::kItems;
  const T* x;
  int64_t i;
  int d;
  Layout<T, kSlots> layout;
  RawRow<T, kSlots> values;

  SSLK_DEVICE double first() const { return static_cast<double>(widen(x[0])); }
  template <typename Visit>
  SSLK_DEVICE void each(const Team&, Visit visit) const {
#pragma unroll
    for (int k = 0; k < kItems; ++k) {
      if (layout.valid >> k & 1) {
        const float item = values[k];
        uint32_t bits;
        memcpy(&bits, &item, 4);
        recompute_from(bits);  // doubles kept from one visit to the next would fill the register file
        float value;
        memcpy(&value, &bits, 4);
        visit(static_cast<int64_t>(layout.column(k)), static_cast<double>(value));
      }
    }
  }
};

}  // namespace sslk
