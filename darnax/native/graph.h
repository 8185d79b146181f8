// Graphs, and sums over their edges.

#pragma once

#include "common.h"

namespace {

template <class I>
struct Graph {
  const int32_t* starts;
  const I* ends;
  int64_t rows;
  int64_t others;  // rows that `ends` may name
  int64_t edges;
};

// Edges that one thread takes at a time: few enough to stay in its cache, and for a graph of some size
// enough blocks that threads end together.
constexpr int64_t kLargest = 8192;
constexpr int64_t kSmallest = 1024;
constexpr int64_t kBlocks = 16;
// The edges of a block.
inline int64_t BlockOf(int64_t edges) {
  return std::min(std::max(edges / kBlocks, kSmallest), kLargest);
}

// The first row whose edges begin in a block, or after it. Where the starts are out of order this is
// some row, and `Checked` finds out.
template <class I>
int64_t FirstRow(const Graph<I>& graph, int64_t block) {
  const int64_t edge = block * BlockOf(graph.edges);
  return std::lower_bound(graph.starts, graph.starts + graph.rows, edge) - graph.starts;
}

// Unsigned, so that a negative number is a large one.
template <class I>
INLINE int64_t Largest(const I* numbers, int64_t count) {
  using U = std::make_unsigned_t<I>;
  constexpr int lanes = 32 / sizeof(U);
  Whole<U> vector = {};
  int64_t i = 0;
  for (; count - i >= lanes; i += lanes) {
    const auto next = Load<Whole<U>>(numbers + i);
    vector = next > vector ? next : vector;
  }
  U largest = 0;
  for (; i < count; i++) largest = std::max(largest, static_cast<U>(numbers[i]));
  for (int k = 0; k < lanes; k++) largest = std::max<U>(largest, vector[k]);
  return largest;
}

template <class I>
INLINE Status Checked(const Graph<I>& graph, int64_t row, int64_t stop) {
  if (row > stop) return kStartsWrong;
  const int32_t* starts = graph.starts;
  if (starts[row] < 0 || starts[stop] > graph.edges) return kStartsWrong;
  int32_t falls = 0;
  for (int64_t r = row; r < stop; r++) falls |= starts[r] > starts[r + 1];
  if (falls) return kStartsWrong;
  const int64_t edges = starts[stop] - starts[row];
  if (edges == 0) return kFine;
  return Largest(graph.ends + starts[row], edges) < graph.others ? kFine : kEndsWrong;
}

// How many edges ahead states are fetched into a cache.
constexpr int64_t kAhead = 16;
// Rows of a call, and some of their columns: those of one unit, or all of them.
template <class T, class I>
struct Columns {
  const int32_t* starts;
  const I* ends;
  int64_t row, stop;
  const T* w;
  int64_t w_step;
  const T* x;
  T* y;
  int64_t step;    // from row to row of x
  int64_t y_step;  // and of y
};

// As many columns of all rows as `count` vectors hold: their sums stay in registers while the edges
// of a row go by. `each`: every column has a weight of its own. `add`: to what y holds.
template <class V, int count, bool each, bool add, class T, class I>
INLINE void Tile(const Columns<T, I>& all, int64_t c) {
  constexpr int lanes = sizeof(V) / sizeof(T);
  const int64_t step = all.step, y_step = all.y_step, w_step = all.w_step;
  const T* x = all.x + c;
  const T* w = each ? all.w + c : all.w;
  T* y = all.y + all.row * y_step + c;
  int64_t e = all.starts[all.row];
  // States of two cache lines and more are fetched ahead: fewer the processor finds by itself.
  constexpr int64_t bytes = count * sizeof(V);
  const int64_t known = bytes >= 128 ? all.starts[all.stop] - kAhead : 0;
  for (int64_t r = all.row; r < all.stop; r++, y += y_step) {
    V sums[count];
    for (int k = 0; k < count; k++) sums[k] = add ? Load<V>(y + k * lanes) : V{};
    for (const int64_t last = all.starts[r + 1]; e < last; e++) {
      const T* states = x + static_cast<int64_t>(all.ends[e]) * step;
      const T* weights = w + e * w_step;
      if (bytes >= 128 && e < known) {
        const T* next = x + static_cast<int64_t>(all.ends[e + kAhead]) * step;
        for (int64_t b = 0; b < bytes; b += 64) __builtin_prefetch(next + b / sizeof(T));
      }
      for (int k = 0; k < count; k++) {
        const V weight = each ? Load<V>(weights + k * lanes) : Filled<V, T>(*weights);
        sums[k] += weight * Load<V>(states + k * lanes);
      }
    }
    for (int k = 0; k < count; k++) Store(y + k * lanes, sums[k]);
  }
}

template <bool each, bool add, class T, class I>
INLINE void Tiles(const Columns<T, I>& all, int64_t columns) {
  constexpr int lanes = 32 / sizeof(T);
  int64_t c = 0;
#define TILE(V, count) Tile<V, count, each, add>(all, c), c += count * sizeof(V) / sizeof(T)
  while (columns - c >= 8 * lanes) TILE(Whole<T>, 8);
  if (columns - c >= 4 * lanes) TILE(Whole<T>, 4);
  if (columns - c >= 2 * lanes) TILE(Whole<T>, 2);
  if (columns - c >= lanes) TILE(Whole<T>, 1);
  if (columns - c >= lanes / 2) TILE(Half<T>, 1);
  if (columns - c == 3) TILE(T, 3);
  if (columns - c == 2) TILE(T, 2);
  if (columns - c == 1) TILE(T, 1);
#undef TILE
}

template <class I>
bool Spans(const Graph<I>& graph) {
  return graph.starts[0] == 0 && graph.starts[graph.rows] == graph.edges;
}

struct Sizes {
  int64_t stack, rows, others, edges, items, units, batch;
};

bool OfGraph(ffi::AnyBuffer starts, ffi::AnyBuffer ends, const Sizes& sizes) {
  if (starts.element_type() != ffi::S32) return false;
  if (ends.element_type() != ffi::S32 && ends.element_type() != ffi::U16) return false;
  // Starts are int32, and so no graph has more edges; as a product of sizes 2^31 is far from int64.
  return Fits(starts.dimensions(), sizes.stack, {sizes.rows + 1}) &&
         Fits(ends.dimensions(), sizes.stack, {sizes.edges});
}

template <class I>
Graph<I> NthGraph(ffi::AnyBuffer starts, ffi::AnyBuffer ends, const Sizes& sizes, int64_t i) {
  return {Nth<const int32_t>(starts, i), Nth<const I>(ends, i), sizes.rows, sizes.others,
          sizes.edges};
}

}  // namespace
