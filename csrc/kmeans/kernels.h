// Nearest centroids from a tile of inner products, on the CPU: what this folder provides per instruction set.
#pragma once

#include "cpu/isa.h"
#include "rows/rows.h"

namespace sslk {

constexpr int64_t kCandidates = 16;

// The centroids that may still be a row's nearest: those whose score |c|^2 / 2 - x.c lies within rounding error of the
// best one's so far. In the order of their indices.
struct Nearest {
  bool finite;    // the row
  double best;    // lowest score so far
  double margin;  // two scores closer than this are not told apart
  int32_t count;
  int32_t index[kCandidates];
  double score[kCandidates];
};

struct AssignArgs {
  Rows x;
  Rows centroids;
  double largest;          // norm of the largest centroid as the products see it
  int64_t first;           // this row of x is row 0 of products and nearest
  const void* products;    // [., columns] x.c of centroids [first_centroid, first_centroid + columns)
  const double* norms;     // [.] |x|^2 as the products see it; null: computed from x
  const void* half_norms;  // [columns] |c|^2 / 2, infinite for a centroid that must not be chosen
  int64_t first_centroid;
  int64_t columns;
  Dtype dtype;          // f32 or f64: of products and half_norms
  Nearest* nearest;     // [.]
  int32_t* assignment;  // [N]
  void* distance;       // [N] in the accumulation type
};

// Updates nearest[begin - first:end - first] with the centroids of this tile. The first tile of a row starts it; the
// last decides between the candidates by their exact distances and writes assignment and distance [begin:end].
SSLK_DECLARE_KERNEL(assign_rows, const AssignArgs&, int64_t begin, int64_t end)

}  // namespace sslk
