// Sums over the edges of a graph, for CPUs: what `darnax/kernels/native.py` calls through XLA's
// foreign function interface.
//
// A graph is stored by row: the edges of row r are `starts[r]` to `starts[r + 1]`, and `ends[e]` is
// the row at the other end of edge e. With weights w, states x at the other ends and numbers q of
// the rows, the calls are
//
//     darnax_sum       y[r, u, b] = sum over the edges e of r of w[e, u] x[ends[e], u, b]
//     darnax_products  g[e, u]    = sum over b of x[ends[e], u, b] q[r, u, b], r the row of e
//     darnax_correct   f[ends[e], u, b] += w[order[e], u] (after[r, u, b] - before[r, u, b]), e of r,
//                      or what darnax_sum gives for `after`, where that costs less
//     darnax_resum     f[r, u, b] = what darnax_sum gives, where cells[r, u, b] is set, and maybe
//                      in other cells of its row, where that costs less
//
// States are `(rows, units, batch)`, weights `(E, units, 1)`, or `(E, 1, 1)` where one serves all units
// of a row; g then adds up the units as well. Where an edge has a matrix W[e], or all share one,
//
//     darnax_correct_products  f[r, :, b] += sum over the edges e of r of
//                              W[e] (after[ends[e], :, b] - before[ends[e], :, b])
//     darnax_resum_products    f[r, u, b] = sum over the edges e of r of W[e, u, :] x[ends[e], :, b],
//                              added up in float64, where cells[r, u, b] is set
//
// Both do nothing but say so where more than a share of the states changed, or of the cells is set.
// Then a whole product takes less time, and XLA is better at these.
//
// Every array has one more axis in front, of 1 or `stack`: that many graphs, sets of weights or
// states, each with its own sums. An axis of 1 serves all.
//
// No call reads or writes outside of its arrays. Ranks and sizes are checked before anything runs,
// starts and ends block by block while they are on their way into a cache anyway: that costs some
// per cent for one sample, and nothing that can be measured for more.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <string>
#include <type_traits>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

// One binary for all x86-64: GCC compiles what carries `CLONES` three times, and the loader takes
// the best that the processor has. Other compilers and processors build it once. What a clone calls
// must be inlined into it, or it would run as compiled for the oldest processor: no lambdas there.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && \
    __GNUC__ >= 12 && !defined(DARNAX_ONE_TARGET)
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES
#endif
#define INLINE inline __attribute__((always_inline))

namespace {

// Edges that one thread takes at a time: few enough to stay in its cache, and for a graph of some size
// enough blocks that threads end together.
constexpr int64_t kLargest = 8192;
constexpr int64_t kSmallest = 1024;
constexpr int64_t kBlocks = 16;
// The work of a call from which a second thread pays for being woken up. An edge costs as much as
// `kEdge` products: with one sample its gather is what takes time.
constexpr int64_t kThreads = 1'500'000;
constexpr int64_t kEdge = 4;

// How many edges ahead states are fetched into a cache.
constexpr int64_t kAhead = 16;
// Edges of a row from which vectors pay for one column.
constexpr int64_t kLong = 32;

// Rows that are compared at once, to pass over those that did not change.
constexpr int64_t kRowsAtOnce = 64;

enum Status { kFine = 0, kStartsWrong = 1, kEndsWrong = 2, kOrderWrong = 3 };

// ---- vectors: written as such, because loops over plain numbers become vector code by luck ----

template <class T, int bytes>
struct VectorOf {
  typedef T type __attribute__((vector_size(bytes)));
};
template <class T>
using Whole = typename VectorOf<T, 32>::type;
template <class T>
using Half = typename VectorOf<T, 16>::type;

template <class V, class T>
INLINE V Load(const T* from) {
  // By `memcpy` a plain number would go through the registers of integers.
  if constexpr (std::is_same_v<V, T>) return *from;
  V v;
  std::memcpy(&v, from, sizeof(V));
  return v;
}

template <class V, class T>
INLINE void Store(T* to, const V& v) {
  if constexpr (std::is_same_v<V, T>) {
    *to = v;
  } else {
    std::memcpy(to, &v, sizeof(V));
  }
}

// Shuffles, because clones build a vector of 32 bytes number by number in any other way.
template <class V, class T>
INLINE V Filled(T number) {
  if constexpr (std::is_same_v<V, T>) return number;
  if constexpr (!std::is_same_v<V, T>) {
    V one{};
    one[0] = number;
    constexpr int lanes = sizeof(V) / sizeof(T);
    if constexpr (lanes == 2) return __builtin_shufflevector(one, one, 0, 0);
    if constexpr (lanes == 4) return __builtin_shufflevector(one, one, 0, 0, 0, 0);
    if constexpr (lanes == 8) return __builtin_shufflevector(one, one, 0, 0, 0, 0, 0, 0, 0, 0);
  }
}

template <class T>
INLINE T Total(const Whole<T>& v) {
  if constexpr (sizeof(T) == 8) return (v[0] + v[1]) + (v[2] + v[3]);
  if constexpr (sizeof(T) == 4) return ((v[0] + v[4]) + (v[1] + v[5])) + ((v[2] + v[6]) + (v[3] + v[7]));
}

// The numbers of several rows. Loads one by one are faster than the processor's own gather.
template <class T, class I>
INLINE Whole<T> Gathered(const T* x, const I* at) {
  if constexpr (sizeof(T) == 8) return Whole<T>{x[at[0]], x[at[1]], x[at[2]], x[at[3]]};
  if constexpr (sizeof(T) == 4) {
    return Whole<T>{x[at[0]], x[at[1]], x[at[2]], x[at[3]], x[at[4]], x[at[5]], x[at[6]], x[at[7]]};
  }
}

// ---- a graph, and blocks of its rows ----

template <class I>
struct Graph {
  const int32_t* starts;
  const I* ends;
  int64_t rows;
  int64_t others;  // rows that `ends` may name
  int64_t edges;
};

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

// ---- weighted sums ----

template <class T, class I>
struct Sum {
  Graph<I> graph;
  const T* w;
  const T* x;
  T* y;
  int64_t items;  // weights of an edge: 1, or as many as units
  int64_t units;
  int64_t batch;
};

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

// One column, one weight an edge.
template <class T, class I>
INLINE void Single(const Columns<T, I>& all) {
  constexpr int lanes = 32 / sizeof(T);
  const T* x = all.x;
  int64_t e = all.starts[all.row];
  for (int64_t r = all.row; r < all.stop; r++) {
    const int64_t last = all.starts[r + 1];
    T total = 0;
    // A short row ends at another place in every vector, which processors cannot foresee: there one
    // loop that may end anywhere is faster than two.
    if (last - e >= kLong) {
      Whole<T> sums = {};
      for (; last - e >= lanes; e += lanes) {
        sums += Load<Whole<T>>(all.w + e) * Gathered(x, all.ends + e);
      }
      total = Total<T>(sums);
    }
    for (; e < last; e++) total += all.w[e] * x[all.ends[e]];
    all.y[r] = total;
  }
}

// The sums of some rows, whose starts and ends are right.
template <class T, class I>
INLINE void SumRows(const Sum<T, I>& sum, int64_t row, int64_t stop) {
  const int64_t columns = sum.units * sum.batch;
  Columns<T, I> all{sum.graph.starts, sum.graph.ends, row,   stop,    sum.w,
                    sum.items,        sum.x,          sum.y, columns, columns};
  if (columns == 1) {
    Single(all);
  } else if (sum.items == 1) {
    Tiles<false, false>(all, columns);
  } else if (sum.batch == 1) {
    Tiles<true, false>(all, columns);
  } else {
    for (int64_t u = 0; u < sum.units; u++) {
      Tiles<false, false>(all, sum.batch);
      all.w++, all.x += sum.batch, all.y += sum.batch;
    }
  }
}

template <class T, class I>
INLINE Status SumBlock(const Sum<T, I>& sum, int64_t row, int64_t stop) {
  const Status status = Checked(sum.graph, row, stop);
  if (status == kFine) SumRows(sum, row, stop);
  return status;
}

// ---- products of both ends, edge by edge ----

template <class T, class I>
struct Products {
  Graph<I> graph;
  const T* x;
  const T* q;
  T* g;
  int64_t items;
  int64_t units;
  int64_t batch;
};

template <class T>
INLINE T Dot(const T* a, const T* b, int64_t columns) {
  constexpr int lanes = 32 / sizeof(T);
  Whole<T> sums[2] = {};
  int64_t c = 0;
  for (; columns - c >= 2 * lanes; c += 2 * lanes) {
    sums[0] += Load<Whole<T>>(a + c) * Load<Whole<T>>(b + c);
    sums[1] += Load<Whole<T>>(a + c + lanes) * Load<Whole<T>>(b + c + lanes);
  }
  if (columns - c >= lanes) {
    sums[0] += Load<Whole<T>>(a + c) * Load<Whole<T>>(b + c);
    c += lanes;
  }
  T total = columns >= lanes ? Total<T>(sums[0] + sums[1]) : T(0);
  if (columns - c >= lanes / 2) {
    const Half<T> v = Load<Half<T>>(a + c) * Load<Half<T>>(b + c);
    if constexpr (sizeof(T) == 8) total += v[0] + v[1];
    if constexpr (sizeof(T) == 4) total += (v[0] + v[1]) + (v[2] + v[3]);
    c += lanes / 2;
  }
  for (; c < columns; c++) total += a[c] * b[c];
  return total;
}

// One column: as many edges of a row at a time as a vector holds.
template <class T, class I>
INLINE void SingleProducts(const Products<T, I>& all, int64_t row, int64_t stop) {
  constexpr int lanes = 32 / sizeof(T);
  const T* x = all.x;
  int64_t e = all.graph.starts[row];
  for (int64_t r = row; r < stop; r++) {
    const int64_t last = all.graph.starts[r + 1];
    const T q = all.q[r];
    for (; last - e >= lanes; e += lanes) {
      Store(all.g + e, Gathered(x, all.graph.ends + e) * Filled<Whole<T>, T>(q));
    }
    for (; e < last; e++) all.g[e] = x[all.graph.ends[e]] * q;
  }
}

template <class T, class I>
INLINE Status ProductsBlock(const Products<T, I>& products, int64_t row, int64_t stop) {
  const Status status = Checked(products.graph, row, stop);
  if (status != kFine) return status;
  const int64_t columns = products.units * products.batch, items = products.items;
  const int64_t part = columns / std::max<int64_t>(items, 1);
  if (columns == 1) {
    SingleProducts(products, row, stop);
    return kFine;
  }
  for (int64_t r = row; r < stop; r++) {
    const T* q = products.q + r * columns;
    for (int64_t e = products.graph.starts[r]; e < products.graph.starts[r + 1]; e++) {
      const T* x = products.x + static_cast<int64_t>(products.graph.ends[e]) * columns;
      T* g = products.g + e * items;
      if (part == 1) {
        for (int64_t u = 0; u < items; u++) g[u] = x[u] * q[u];
      } else {
        for (int64_t u = 0; u < items; u++) g[u] = Dot(x + u * part, q + u * part, part);
      }
    }
  }
  return kFine;
}

// ---- corrections by what changed ----

template <class T, class I>
struct Correct {
  Graph<I> graph;
  const int32_t* order;  // where the weight of every edge is
  const T* w;
  const T* before;
  const T* after;
  T* field;
  int64_t items;
  int64_t units;
  int64_t batch;
  T* change;         // room for one row
  int64_t* changed;  // and for the columns of it that changed
};

// The first row from `row` on whose states are others than before; `stop` without any. Most rows did
// not change, and many of them are passed over at once.
template <class T>
INLINE int64_t NextChange(const T* before, const T* after, int64_t columns, int64_t row,
                          int64_t stop) {
  const int64_t bytes = columns * sizeof(T);
  while (row < stop) {
    const int64_t rows = std::min(kRowsAtOnce, stop - row);
    const bool alike = std::memcmp(before + row * columns, after + row * columns, rows * bytes) == 0;
    if (!alike) {
      while (std::memcmp(before + row * columns, after + row * columns, bytes) == 0) row++;
      return row;
    }
    row += rows;
  }
  return stop;
}

// Only what is read is checked: rows that did not change cost nothing more.
template <class T, class I>
INLINE Status CheckedWeights(const Correct<T, I>& correct, int64_t row) {
  const Status status = Checked(correct.graph, row, row + 1);
  if (status != kFine) return status;
  uint32_t largest = 0;
  for (int64_t e = correct.graph.starts[row]; e < correct.graph.starts[row + 1]; e++) {
    largest = std::max(largest, static_cast<uint32_t>(correct.order[e]));
  }
  const bool any = correct.graph.starts[row] < correct.graph.starts[row + 1];
  return any && largest >= correct.graph.edges ? kOrderWrong : kFine;
}

template <class T>
INLINE void Add(T* y, T w, const T* change, int64_t columns) {
  constexpr int lanes = 32 / sizeof(T);
  int64_t c = 0;
  for (; columns - c >= lanes; c += lanes) {
    const Whole<T> more = Filled<Whole<T>, T>(w) * Load<Whole<T>>(change + c);
    Store<Whole<T>>(y + c, Load<Whole<T>>(y + c) + more);
  }
  for (; c < columns; c++) y[c] += w * change[c];
}

// The columns of a row that changed, written into `changed` and `change`; how many there are.
template <class T, class I>
INLINE int64_t Changes(const Correct<T, I>& correct, int64_t row, int64_t columns) {
  const T* before = correct.before + row * columns;
  const T* after = correct.after + row * columns;
  int64_t count = 0;
  for (int64_t c = 0; c < columns; c++) {
    // No branch: which samples change is anybody's guess.
    correct.changed[count] = c;
    count += before[c] != after[c];
    correct.change[c] = after[c] - before[c];
  }
  return count;
}

template <class T, class I>
INLINE void CorrectEdge(const Correct<T, I>& correct, int64_t e, int64_t count, int64_t columns) {
  T* field = correct.field + static_cast<int64_t>(correct.graph.ends[e]) * columns;
  const T* w = correct.w + static_cast<int64_t>(correct.order[e]) * correct.items;
  // A vector takes about as long as two single columns.
  if (4 * count <= columns || columns < 4) {
    for (int64_t k = 0; k < count; k++) {
      const int64_t c = correct.changed[k];
      field[c] += (correct.items == 1 ? *w : w[c / correct.batch]) * correct.change[c];
    }
    return;
  }
  const int64_t part = columns / correct.items;
  for (int64_t u = 0; u < correct.items; u++) {
    Add(field + u * part, w[u], correct.change + u * part, part);
  }
}

template <class T, class I>
INLINE Status CorrectRows(const Correct<T, I>& correct, int64_t row, int64_t stop) {
  const int64_t columns = correct.units * correct.batch;
  for (int64_t r = row; r < stop; r++) {
    r = NextChange(correct.before, correct.after, columns, r, stop);
    if (r == stop) break;
    const int64_t count = Changes(correct, r, columns);
    const Status status = CheckedWeights(correct, r);
    if (status != kFine) return status;
    const int64_t last = correct.graph.starts[r + 1];
    for (int64_t e = correct.graph.starts[r]; e < last; e++) {
      CorrectEdge(correct, e, count, columns);
    }
  }
  return kFine;
}

// The same for one column, where the detour by `changed` would take most of the time.
template <class T, class I>
INLINE Status CorrectColumn(const Correct<T, I>& correct, int64_t row, int64_t stop) {
  for (int64_t r = row; r < stop; r++) {
    r = NextChange(correct.before, correct.after, 1, r, stop);
    if (r == stop) break;
    const Status status = CheckedWeights(correct, r);
    if (status != kFine) return status;
    const T change = correct.after[r] - correct.before[r];
    const int64_t last = correct.graph.starts[r + 1];
    for (int64_t e = correct.graph.starts[r]; e < last; e++) {
      correct.field[correct.graph.ends[e]] += correct.w[correct.order[e]] * change;
    }
  }
  return kFine;
}

template <class T, class I>
INLINE Status CorrectBlock(const Correct<T, I>& correct, int64_t row, int64_t stop) {
  if (correct.units * correct.batch == 1) return CorrectColumn(correct, row, stop);
  return CorrectRows(correct, row, stop);
}

// Whether so much has changed that sums from scratch take less time.
template <class T>
bool TooMuch(const int32_t* starts, const T* before, const T* after, int64_t rows, int64_t columns,
             int64_t edges) {
  // A number that is added at random takes as long as this many of a sum, which has vectors as wide
  // as there are columns. Measured at 1 to 64 columns.
  const double dear = 8 * std::sqrt(static_cast<double>(columns));
  const double most = static_cast<double>(edges) * columns / dear;
  double work = 0;
  for (int64_t r = 0; r < rows; r++) {
    r = NextChange(before, after, columns, r, rows);
    if (r == rows) break;
    int64_t count = 0;
    for (int64_t c = r * columns; c < (r + 1) * columns; c++) count += before[c] != after[c];
    // Many columns of a row are corrected by vectors.
    if (4 * count > columns) count = (columns + 3) / 4;
    // Starts are not checked yet: whatever they are, this is a number.
    const double degree = static_cast<double>(starts[r + 1]) - starts[r];
    work += count * degree;
    if (work > most) return true;
  }
  return false;
}

// ---- sums of single cells ----

// They are those of a `Sum`, to the last bit: the terms are added in the same order.
template <class T, class I>
struct Resum : Sum<T, I> {
  Resum(const Sum<T, I>& sum, const uint8_t* cells) : Sum<T, I>(sum), cells(cells) {}
  const uint8_t* cells;  // those of `y` that are summed: 1, the others 0
};

// The number of cells that are 1.
INLINE int64_t Count(const uint8_t* cells, int64_t size) {
  int64_t count = 0, c = 0;
  for (; size - c >= 8; c += 8) {
    uint64_t eight;
    std::memcpy(&eight, cells + c, 8);
    // Most are 0. Their bytes add up in the highest one.
    if (eight != 0) count += (eight * 0x0101010101010101u) >> 56;
  }
  for (; c < size; c++) count += cells[c];
  return count;
}

template <class T, class I>
INLINE void SumCell(const Sum<T, I>& sum, int64_t row, int64_t column) {
  const int64_t columns = sum.units * sum.batch;
  const T* w = sum.w + (sum.items == 1 ? 0 : column / sum.batch);
  T total = 0;
  for (int64_t e = sum.graph.starts[row]; e < sum.graph.starts[row + 1]; e++) {
    total += w[e * sum.items] * sum.x[static_cast<int64_t>(sum.graph.ends[e]) * columns + column];
  }
  sum.y[row * columns + column] = total;
}

template <class T, class I>
INLINE Status ResumBlock(const Resum<T, I>& call, int64_t row, int64_t stop) {
  const Sum<T, I>& sum = call;
  const int64_t columns = sum.units * sum.batch;
  for (int64_t r = row; r < stop; r++) {
    const uint8_t* cells = call.cells + r * columns;
    const int64_t count = Count(cells, columns);
    if (count == 0) continue;
    const Status status = Checked(sum.graph, r, r + 1);
    if (status != kFine) return status;
    // All columns of a row take about as long as a quarter of them one by one. A single column has
    // an order of terms of its own.
    if (4 * count >= columns) {
      SumRows(sum, r, r + 1);
      continue;
    }
    for (int64_t c = 0; c < columns; c++) {
      if (cells[c]) SumCell(sum, r, c);
    }
  }
  return kFine;
}

// ---- products with matrices: corrections by what changed, and sums of single cells ----

// Samples that are corrected together: as many as a cache line has numbers.
constexpr int64_t kSamples = 16;
// Numbers between two rows of samples first. Rows that lie a power of two apart would share few
// places of a cache.
constexpr int64_t kApart = 16;
// Inputs or outputs of a matrix.
constexpr int64_t kMostUnits = int64_t{1} << 26;
// Numbers of a call from which a second thread pays for being woken up.
constexpr int64_t kScanned = 100'000;

// A field `(rows, outputs, batch)` of states `(others, inputs, batch)`.
template <class T>
struct Product {
  Graph<int32_t> graph;
  const T* w;
  int64_t w_step;  // from edge to edge: 0 where all share one matrix
  int64_t inputs;
  int64_t outputs;
  int64_t batch;
  T* field;
};

template <class T>
struct CorrectProducts : Product<T> {
  // Matrices are `(inputs, outputs)` here: the weights of an input that changed stand side by side.
  CorrectProducts(const Product<T>& product, const T* before, const T* after)
      : Product<T>(product), before(before), after(after) {}
  const T* before;
  const T* after;
};

template <class T>
struct ResumProducts : Product<T> {
  // Matrices are `(outputs, inputs)` here.
  ResumProducts(const Product<T>& product, const T* x, const uint8_t* cells)
      : Product<T>(product), x(x), cells(cells) {}
  const T* x;
  const uint8_t* cells;
};

// Room for what one block of samples needs.
template <class T>
struct Room {
  explicit Room(const Product<T>& all)
      : numbers(new T[kSamples * (std::max(all.inputs, all.outputs) + kApart)]),
        changed(new int32_t[all.inputs + 1]),
        places(new int32_t[kSamples * std::max(all.inputs, all.outputs) + 1]),
        changes(new T[kSamples * all.inputs + 1]),
        totals(new double[kSamples * all.outputs]) {}
  const std::unique_ptr<T[]> numbers;
  const std::unique_ptr<int32_t[]> changed, places;
  const std::unique_ptr<T[]> changes;
  const std::unique_ptr<double[]> totals;
};

// Whether two rows of bytes differ, without a branch.
INLINE bool Differ(const void* a, const void* b, int64_t bytes) {
  uint64_t found = 0;
  int64_t i = 0;
  for (; bytes - i >= 8; i += 8) {
    uint64_t one, other;
    std::memcpy(&one, static_cast<const char*>(a) + i, 8);
    std::memcpy(&other, static_cast<const char*>(b) + i, 8);
    found |= one ^ other;
  }
  for (; i < bytes; i++) found |= static_cast<const char*>(a)[i] ^ static_cast<const char*>(b)[i];
  return found != 0;
}

// Numbers `(rows, batch)`, some samples of them, to samples first with `apart` numbers from sample to
// sample.
template <class T>
INLINE void SamplesFirst(const T* from, int64_t rows, int64_t batch, int64_t samples, T* to,
                         int64_t apart) {
  for (int64_t r = 0; r < rows; r++, from += batch) {
    for (int64_t c = 0; c < samples; c++) to[c * apart + r] = from[c];
  }
}

template <class T>
INLINE void SamplesLast(const T* from, int64_t apart, T* to, int64_t rows, int64_t batch,
                        int64_t samples) {
  for (int64_t r = 0; r < rows; r++, to += batch) {
    for (int64_t c = 0; c < samples; c++) to[c] = from[c * apart + r];
  }
}

// The inputs that changed, sample after sample: `places` says which and `changes` how far, those of
// sample c from `starts[c]` to `starts[c + 1]`.
template <class T>
INLINE void ListChanges(const T* before, const T* after, int64_t inputs, int64_t batch,
                        int64_t samples, const Room<T>& room, int32_t* starts) {
  int32_t* changed = room.changed.get();
  int64_t count = 0;
  for (int64_t k = 0; k < inputs; k++) {
    changed[count] = k;
    count += Differ(before + k * batch, after + k * batch, samples * sizeof(T));
  }
  for (int64_t c = 0; c <= kSamples; c++) starts[c] = 0;
  for (int64_t i = 0; i < count; i++) {
    const T *a = before + changed[i] * batch, *b = after + changed[i] * batch;
    for (int64_t c = 0; c < samples; c++) starts[c + 1] += a[c] != b[c];
  }
  int32_t next[kSamples];
  for (int64_t c = 0; c < kSamples; c++) {
    next[c] = starts[c];
    starts[c + 1] += starts[c];
  }
  for (int64_t i = 0; i < count; i++) {
    const T *a = before + changed[i] * batch, *b = after + changed[i] * batch;
    for (int64_t c = 0; c < samples; c++) {
      if (a[c] == b[c]) continue;
      room.places[next[c]] = changed[i];
      room.changes[next[c]++] = b[c] - a[c];
    }
  }
}

// The sums of one row and of some samples. A sample has changes of its own: so its numbers are
// brought side by side, and what an input changed is added to all of them at once.
template <class T>
INLINE Status CorrectProductsBlock(const CorrectProducts<T>& all, int64_t row, int64_t sample) {
  const Status status = Checked(all.graph, row, row + 1);
  if (status != kFine) return status;
  const int64_t samples = std::min(kSamples, all.batch - sample);
  const int64_t apart = all.outputs + kApart;
  const Room<T> room(all);
  T* numbers = room.numbers.get();
  T* field = all.field + row * all.outputs * all.batch + sample;
  bool any = false;
  for (int64_t e = all.graph.starts[row]; e < all.graph.starts[row + 1]; e++) {
    const int64_t from = all.graph.ends[e] * all.inputs * all.batch + sample;
    int32_t starts[kSamples + 1];
    ListChanges(all.before + from, all.after + from, all.inputs, all.batch, samples, room, starts);
    if (starts[samples] == 0) continue;
    if (!any) SamplesFirst(field, all.outputs, all.batch, samples, numbers, apart);
    any = true;
    const Columns<T, int32_t> columns{starts,
                                      room.places.get(),
                                      0,
                                      samples,
                                      room.changes.get(),
                                      1,
                                      all.w + e * all.w_step,
                                      numbers,
                                      all.outputs,
                                      apart};
    Tiles<false, true>(columns, all.outputs);
  }
  if (any) SamplesLast(numbers, apart, field, all.outputs, all.batch, samples);
  return kFine;
}

INLINE double Dot64(const double* a, const double* b, int64_t size) { return Dot(a, b, size); }

INLINE double Dot64(const float* a, const float* b, int64_t size) {
  // Several sums, so that none waits for its own last term.
  constexpr int many = 4;
  Whole<double> sums[many] = {};
  int64_t i = 0;
  for (; size - i >= 4 * many; i += 4 * many) {
    for (int k = 0; k < many; k++) {
      sums[k] += __builtin_convertvector(Load<Half<float>>(a + i + 4 * k), Whole<double>) *
                 __builtin_convertvector(Load<Half<float>>(b + i + 4 * k), Whole<double>);
    }
  }
  double total = Total<double>((sums[0] + sums[1]) + (sums[2] + sums[3]));
  for (; i < size; i++) total += static_cast<double>(a[i]) * b[i];
  return total;
}

template <class T>
INLINE Status ResumProductsBlock(const ResumProducts<T>& all, int64_t row, int64_t sample) {
  const int64_t samples = std::min(kSamples, all.batch - sample);
  const uint8_t* cells = all.cells + row * all.outputs * all.batch + sample;
  const uint8_t none[kSamples] = {};
  bool any = false;
  for (int64_t u = 0; u < all.outputs; u++) any |= Differ(cells + u * all.batch, none, samples);
  if (!any) return kFine;
  const Status status = Checked(all.graph, row, row + 1);
  if (status != kFine) return status;
  const Room<T> room(all);
  int32_t* places = room.places.get();
  int64_t count = 0;
  for (int64_t u = 0; u < all.outputs; u++) {
    for (int64_t c = 0; c < samples; c++) {
      places[count] = u * kSamples + c;
      count += cells[u * all.batch + c] != 0;
    }
  }
  for (int64_t i = 0; i < count; i++) room.totals[i] = 0;
  const int64_t apart = all.inputs + kApart;
  for (int64_t e = all.graph.starts[row]; e < all.graph.starts[row + 1]; e++) {
    const T* x = all.x + all.graph.ends[e] * all.inputs * all.batch + sample;
    SamplesFirst(x, all.inputs, all.batch, samples, room.numbers.get(), apart);
    for (int64_t i = 0; i < count; i++) {
      const int64_t u = places[i] / kSamples, c = places[i] % kSamples;
      const T* w = all.w + e * all.w_step + u * all.inputs;
      room.totals[i] += Dot64(w, room.numbers.get() + c * apart, all.inputs);
    }
  }
  T* field = all.field + row * all.outputs * all.batch + sample;
  for (int64_t i = 0; i < count; i++) {
    field[places[i] / kSamples * all.batch + places[i] % kSamples] = static_cast<T>(room.totals[i]);
  }
  return kFine;
}

// ---- the clones, plain functions each: compilers clone no templates ----

#define CLONED(Name, T, I)                                                                   \
  CLONES Status RunBlock(const Name<T, I>& call, int64_t row, int64_t stop) {                \
    return Name##Block(call, row, stop);                                                     \
  }
#define CLONED_FOR_ALL(Name)                                                             \
  CLONED(Name, float, int32_t) CLONED(Name, float, uint16_t) CLONED(Name, double, int32_t) \
      CLONED(Name, double, uint16_t)
CLONED_FOR_ALL(Sum)
CLONED_FOR_ALL(Products)
CLONED_FOR_ALL(Correct)
CLONED_FOR_ALL(Resum)

// How many states of each sample changed.
#define CLONED_CHANGES(T)                                                                          \
  CLONES void CountChanges(const T* before, const T* after, int64_t rows, int64_t batch,           \
                           int32_t* changed) {                                                     \
    for (int64_t b = 0; b < batch; b++) changed[b] = 0;                                            \
    for (int64_t r = 0; r < rows; r++, before += batch, after += batch) {                          \
      for (int64_t b = 0; b < batch; b++) changed[b] += before[b] != after[b];                     \
    }                                                                                              \
  }
CLONED_CHANGES(float)
CLONED_CHANGES(double)

#define CLONED_PRODUCTS(Name, T)                                                      \
  CLONES Status RunSamples(const Name<T>& call, int64_t row, int64_t sample) {        \
    return Name##Block(call, row, sample);                                            \
  }
CLONED_PRODUCTS(CorrectProducts, float)
CLONED_PRODUCTS(CorrectProducts, double)
CLONED_PRODUCTS(ResumProducts, float)
CLONED_PRODUCTS(ResumProducts, double)

// ---- threads ----

// Blocks that are taken one after another by whoever is free. The caller takes blocks as well, so
// that it need not wait for a thread that may itself wait for the caller.
class Blocks {
 public:
  explicit Blocks(int64_t count) : count_(count), left_(count) {}
  virtual ~Blocks() = default;
  virtual Status Run(int64_t block) = 0;

  void Work() {
    // A thread that comes after the last block was taken finds none, and touches nothing else: by
    // then the caller may have gone on, and its arrays may be gone.
    for (int64_t block = next_++; block < count_; block = next_++) {
      const Status status = Run(block);
      if (status != kFine) status_ = status;
      if (--left_ == 0) {
        std::lock_guard<std::mutex> lock(mutex_);
        done_.notify_all();
      }
    }
  }

  Status Wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return left_ == 0; });
    return status_;
  }

 private:
  const int64_t count_;
  std::atomic<int64_t> next_{0};
  std::atomic<int64_t> left_;
  std::atomic<Status> status_{kFine};
  std::mutex mutex_;
  std::condition_variable done_;
};

// The blocks of one call, or of `stack` calls that are alike.
template <class Call>
class BlocksOf final : public Blocks {
 public:
  BlocksOf(std::vector<Call> calls, int64_t each)
      : Blocks(each * static_cast<int64_t>(calls.size())), calls_(std::move(calls)), each_(each) {}

  Status Run(int64_t block) override {
    const Call& call = calls_[block / each_];
    const int64_t own = block % each_;
    // Rows without edges at the end belong to the last block.
    const int64_t stop = own + 1 == each_ ? call.graph.rows : FirstRow(call.graph, own + 1);
    return RunBlock(call, own == 0 ? 0 : FirstRow(call.graph, own), stop);
  }

 private:
  const std::vector<Call> calls_;
  const int64_t each_;
};

// Blocks of samples of every row, of `stack` products that are alike.
template <class Call>
class SamplesOf final : public Blocks {
 public:
  SamplesOf(std::vector<Call> calls, int64_t rows, int64_t each)
      : Blocks(static_cast<int64_t>(calls.size()) * rows * each),
        calls_(std::move(calls)),
        rows_(rows),
        each_(each) {}

  Status Run(int64_t block) override {
    const int64_t row = block / each_;
    return RunSamples(calls_[row / rows_], row % rows_, block % each_ * kSamples);
  }

 private:
  const std::vector<Call> calls_;
  const int64_t rows_, each_;
};

template <class I>
bool Spans(const Graph<I>& graph) {
  return graph.starts[0] == 0 && graph.starts[graph.rows] == graph.edges;
}

// All blocks, on as many threads as there are for `most` of them.
Status Finished(ffi::ThreadPool& pool, std::shared_ptr<Blocks> blocks, int64_t most) {
  const int64_t helpers = std::min(pool.num_threads(), most) - 1;
  for (int64_t i = 0; i < helpers; i++) {
    pool.Schedule([blocks] { blocks->Work(); });
  }
  blocks->Work();
  return blocks->Wait();
}

// `share` is the part of all products that are made.
template <class Call>
Status RunAll(ffi::ThreadPool& pool, std::vector<Call> calls, double share = 1) {
  if (calls.empty()) return kFine;
  const Call& one = calls[0];
  for (const Call& call : calls) {
    if (!Spans(call.graph)) return kStartsWrong;
  }
  const int64_t stack = calls.size(), edges = one.graph.edges;
  const int64_t work = stack * edges * (kEdge + one.units * one.batch);
  const int64_t each = edges / BlockOf(edges) + 1;
  const auto blocks = std::make_shared<BlocksOf<Call>>(std::move(calls), each);
  return Finished(pool, blocks, share * work >= kThreads ? stack * each : 1);
}

// The same for products with matrices.
template <class Call>
Status RunProductsOfAll(ffi::ThreadPool& pool, std::vector<Call> calls) {
  if (calls.empty()) return kFine;
  const Call& one = calls[0];
  for (const Call& call : calls) {
    if (!Spans(call.graph)) return kStartsWrong;
  }
  const int64_t stack = calls.size(), rows = one.graph.rows;
  const int64_t each = (one.batch + kSamples - 1) / kSamples;
  const int64_t scanned = stack * one.batch * (one.graph.edges * one.inputs + rows * one.outputs);
  const auto blocks = std::make_shared<SamplesOf<Call>>(std::move(calls), rows, each);
  return Finished(pool, blocks, scanned >= kScanned ? stack * rows * each : 1);
}

// ---- what is checked before a call ----

struct Sizes {
  int64_t stack, rows, others, edges, items, units, batch;
};

ffi::Error Wrong(const std::string& what) {
  return ffi::Error::InvalidArgument("darnax: " + what + "; build the call by darnax.kernels");
}

ffi::Error Result(Status status) {
  if (status == kStartsWrong) return Wrong("row starts must rise from 0 to the number of edges");
  if (status == kEndsWrong) return Wrong("an edge ends at a row that the states do not have");
  if (status == kOrderWrong) return Wrong("an edge has a weight that the weights do not have");
  return ffi::Error::Success();
}

// Whether an array is `(1 or stack, *sizes)`; the sizes that are not given are any.
constexpr int64_t kAny = -1;
bool Fits(ffi::AnyBuffer::Dimensions found, int64_t stack, std::initializer_list<int64_t> sizes) {
  if (found.size() != sizes.size() + 1) return false;
  if (found[0] != 1 && found[0] != stack) return false;
  size_t axis = 1;
  for (int64_t size : sizes) {
    if (size != kAny && found[axis] != size) return false;
    axis++;
  }
  return true;
}

bool OfGraph(ffi::AnyBuffer starts, ffi::AnyBuffer ends, const Sizes& sizes) {
  if (starts.element_type() != ffi::S32) return false;
  if (ends.element_type() != ffi::S32 && ends.element_type() != ffi::U16) return false;
  // Starts are int32, and so no graph has more edges; as a product of sizes 2^31 is far from int64.
  return Fits(starts.dimensions(), sizes.stack, {sizes.rows + 1}) &&
         Fits(ends.dimensions(), sizes.stack, {sizes.edges});
}

// One of the arrays on a stack; the only one where there is one for all.
template <class T>
T* Nth(ffi::AnyBuffer array, int64_t i) {
  const int64_t stack = array.dimensions()[0];
  const int64_t size = stack == 0 ? 0 : array.element_count() / stack;
  return static_cast<T*>(array.untyped_data()) + (stack == 1 ? 0 : i * size);
}

template <class I>
Graph<I> NthGraph(ffi::AnyBuffer starts, ffi::AnyBuffer ends, const Sizes& sizes, int64_t i) {
  return {Nth<const int32_t>(starts, i), Nth<const I>(ends, i), sizes.rows, sizes.others,
          sizes.edges};
}

// `Run<T, I>(...)` for the dtypes of numbers and of ends.
template <template <class, class> class Run, class... Arguments>
ffi::Error ByDtype(ffi::DataType numbers, ffi::DataType ends, Arguments&&... arguments) {
  const bool narrow = ends == ffi::U16;
  if (numbers == ffi::F32 && narrow) return Run<float, uint16_t>::Of(arguments...);
  if (numbers == ffi::F32) return Run<float, int32_t>::Of(arguments...);
  if (numbers == ffi::F64 && narrow) return Run<double, uint16_t>::Of(arguments...);
  if (numbers == ffi::F64) return Run<double, int32_t>::Of(arguments...);
  return Wrong("numbers must be float32 or float64");
}

// A field is corrected where it is: XLA gives one buffer for both, unless it is asked not to.
void StayInPlace(ffi::AnyBuffer field, ffi::AnyBuffer result) {
  if (result.untyped_data() == field.untyped_data() || field.size_bytes() == 0) return;
  std::memcpy(result.untyped_data(), field.untyped_data(), field.size_bytes());
}

// ---- the calls ----

// The elements of a stack that a call is for.
using Chosen = std::vector<bool>;

template <class T, class I>
struct RunSum {
  static ffi::Error Of(ffi::ThreadPool& pool, const Sizes& n, ffi::AnyBuffer starts,
                       ffi::AnyBuffer ends, ffi::AnyBuffer w, ffi::AnyBuffer x, ffi::AnyBuffer y,
                       const Chosen& chosen) {
    std::vector<Sum<T, I>> calls;
    for (int64_t i = 0; i < n.stack; i++) {
      if (!chosen[i]) continue;
      calls.push_back({NthGraph<I>(starts, ends, n, i), Nth<const T>(w, i), Nth<const T>(x, i),
                       Nth<T>(y, i), n.items, n.units, n.batch});
    }
    return Result(RunAll(pool, std::move(calls)));
  }
};

ffi::Error SumHandler(ffi::ThreadPool pool, ffi::AnyBuffer starts, ffi::AnyBuffer ends,
                      ffi::AnyBuffer w, ffi::AnyBuffer x, ffi::Result<ffi::AnyBuffer> y) {
  const auto out = y->dimensions(), states = x.dimensions(), weights = w.dimensions();
  if (out.size() != 4 || states.size() != 4 || weights.size() != 4) {
    return Wrong("weights, states and sums need 4 axes");
  }
  const Sizes n{out[0], out[1], states[1], weights[1], weights[2], out[2], out[3]};
  const bool fits = Fits(states, n.stack, {kAny, n.units, n.batch}) &&
                    Fits(weights, n.stack, {kAny, n.items == 1 ? 1 : n.units, 1}) &&
                    OfGraph(starts, ends, n);
  if (!fits) return Wrong("the arrays of a sum do not fit one another");
  if (w.element_type() != y->element_type() || x.element_type() != y->element_type()) {
    return Wrong("weights, states and sums must have one dtype");
  }
  const Chosen all(n.stack, true);
  return ByDtype<RunSum>(y->element_type(), ends.element_type(), pool, n, starts, ends, w, x, *y,
                         all);
}

template <class T, class I>
struct RunProducts {
  static ffi::Error Of(ffi::ThreadPool& pool, const Sizes& n, ffi::AnyBuffer starts,
                       ffi::AnyBuffer ends, ffi::AnyBuffer x, ffi::AnyBuffer q, ffi::AnyBuffer g) {
    std::vector<Products<T, I>> calls;
    for (int64_t i = 0; i < n.stack; i++) {
      calls.push_back({NthGraph<I>(starts, ends, n, i), Nth<const T>(x, i), Nth<const T>(q, i),
                       Nth<T>(g, i), n.items, n.units, n.batch});
    }
    return Result(RunAll(pool, std::move(calls)));
  }
};

ffi::Error ProductsHandler(ffi::ThreadPool pool, ffi::AnyBuffer starts, ffi::AnyBuffer ends,
                           ffi::AnyBuffer x, ffi::AnyBuffer q, ffi::Result<ffi::AnyBuffer> g) {
  const auto out = g->dimensions(), states = x.dimensions(), rows = q.dimensions();
  if (out.size() != 4 || states.size() != 4 || rows.size() != 4) {
    return Wrong("states and products need 4 axes");
  }
  const Sizes n{out[0], rows[1], states[1], out[1], out[2], states[2], states[3]};
  const bool fits = Fits(states, n.stack, {kAny, n.units, n.batch}) &&
                    Fits(rows, n.stack, {kAny, n.units, n.batch}) &&
                    (n.items == 1 || n.items == n.units) && out[3] == 1 && OfGraph(starts, ends, n);
  if (!fits) return Wrong("the arrays of products do not fit one another");
  if (x.element_type() != g->element_type() || q.element_type() != g->element_type()) {
    return Wrong("states and products must have one dtype");
  }
  return ByDtype<RunProducts>(g->element_type(), ends.element_type(), pool, n, starts, ends, x, q,
                              *g);
}

template <class T, class I>
struct RunCorrect {
  static ffi::Error Of(const Sizes& n, ffi::AnyBuffer starts, ffi::AnyBuffer ends,
                       ffi::AnyBuffer order, ffi::AnyBuffer w, ffi::AnyBuffer before,
                       ffi::AnyBuffer after, ffi::AnyBuffer field, const Chosen& chosen) {
    std::vector<T> change(n.units * n.batch);
    std::vector<int64_t> changed(n.units * n.batch + 1);
    for (int64_t i = 0; i < n.stack; i++) {
      if (!chosen[i]) continue;
      const Graph<I> graph = NthGraph<I>(starts, ends, n, i);
      const Correct<T, I> call{graph,
                               Nth<const int32_t>(order, i),
                               Nth<const T>(w, i),
                               Nth<const T>(before, i),
                               Nth<const T>(after, i),
                               Nth<T>(field, i),
                               n.items,
                               n.units,
                               n.batch,
                               change.data(),
                               changed.data()};
      if (!Spans(graph)) return Result(kStartsWrong);
      // Receivers are written at random: one thread, or two would meet in a row.
      const Status status = RunBlock(call, 0, n.rows);
      if (status != kFine) return Result(status);
    }
    return ffi::Error::Success();
  }
};

// The elements of a stack in which too much has changed, and those that are to be summed anew.
template <class T>
Chosen SummedAnew(const Sizes& n, ffi::AnyBuffer anew, ffi::AnyBuffer starts, ffi::AnyBuffer before,
             ffi::AnyBuffer after) {
  Chosen whole(n.stack);
  for (int64_t i = 0; i < n.stack; i++) {
    whole[i] = *Nth<const uint8_t>(anew, i) != 0 ||
               TooMuch(Nth<const int32_t>(starts, i), Nth<const T>(before, i),
                       Nth<const T>(after, i), n.rows, n.units * n.batch, n.edges);
  }
  return whole;
}

ffi::Error CorrectHandler(ffi::ThreadPool pool, ffi::AnyBuffer starts, ffi::AnyBuffer ends,
                          ffi::AnyBuffer back_starts, ffi::AnyBuffer back_ends,
                          ffi::AnyBuffer order, ffi::AnyBuffer w, ffi::AnyBuffer anew,
                          ffi::AnyBuffer before, ffi::AnyBuffer after, ffi::AnyBuffer field,
                          ffi::Result<ffi::AnyBuffer> result) {
  const auto out = result->dimensions(), states = before.dimensions(), weights = w.dimensions();
  if (out.size() != 4 || states.size() != 4 || weights.size() != 4) {
    return Wrong("weights, states and fields need 4 axes");
  }
  // `n` as seen from the receivers, and `back` from the senders, by which fields are corrected.
  const Sizes n{out[0], out[1], states[1], weights[1], weights[2], out[2], out[3]};
  const Sizes back{n.stack, n.others, n.rows, n.edges, n.items, n.units, n.batch};
  const bool fits = Fits(states, n.stack, {kAny, n.units, n.batch}) &&
                    Fits(after.dimensions(), n.stack, {n.others, n.units, n.batch}) &&
                    Fits(weights, n.stack, {kAny, n.items == 1 ? 1 : n.units, 1}) &&
                    Fits(field.dimensions(), n.stack, {n.rows, n.units, n.batch}) &&
                    field.dimensions()[0] == n.stack && OfGraph(starts, ends, n) &&
                    OfGraph(back_starts, back_ends, back) &&
                    order.element_type() == ffi::S32 &&
                    Fits(order.dimensions(), n.stack, {n.edges}) &&
                    anew.element_type() == ffi::PRED && Fits(anew.dimensions(), n.stack, {});
  if (!fits) return Wrong("the arrays of a correction do not fit one another");
  const auto dtype = result->element_type();
  if (w.element_type() != dtype || before.element_type() != dtype ||
      after.element_type() != dtype || field.element_type() != dtype) {
    return Wrong("weights, states and fields must have one dtype");
  }
  if (dtype != ffi::F32 && dtype != ffi::F64) return Wrong("numbers must be float32 or float64");
  const Chosen whole = dtype == ffi::F32 ? SummedAnew<float>(back, anew, back_starts, before, after)
                                         : SummedAnew<double>(back, anew, back_starts, before, after);
  Chosen corrected(whole);
  corrected.flip();
  StayInPlace(field, *result);
  const ffi::Error error = ByDtype<RunSum>(dtype, ends.element_type(), pool, n, starts, ends, w,
                                           after, *result, whole);
  if (error.failure()) return error;
  return ByDtype<RunCorrect>(dtype, back_ends.element_type(), back, back_starts, back_ends, order,
                             w, before, after, *result, corrected);
}

template <class T, class I>
struct RunResum {
  static ffi::Error Of(ffi::ThreadPool& pool, const Sizes& n, ffi::AnyBuffer starts,
                       ffi::AnyBuffer ends, ffi::AnyBuffer w, ffi::AnyBuffer x,
                       ffi::AnyBuffer cells, ffi::AnyBuffer field) {
    const int64_t size = cells.element_count();
    const int64_t count = Count(static_cast<const uint8_t*>(cells.untyped_data()), size);
    if (count == 0) return ffi::Error::Success();
    std::vector<Resum<T, I>> calls;
    for (int64_t i = 0; i < n.stack; i++) {
      const Sum<T, I> sum{NthGraph<I>(starts, ends, n, i),
                          Nth<const T>(w, i),
                          Nth<const T>(x, i),
                          Nth<T>(field, i),
                          n.items,
                          n.units,
                          n.batch};
      calls.push_back({sum, Nth<const uint8_t>(cells, i)});
    }
    return Result(RunAll(pool, std::move(calls), static_cast<double>(count) / size));
  }
};

ffi::Error ResumHandler(ffi::ThreadPool pool, ffi::AnyBuffer starts, ffi::AnyBuffer ends,
                        ffi::AnyBuffer w, ffi::AnyBuffer x, ffi::AnyBuffer cells,
                        ffi::AnyBuffer field, ffi::Result<ffi::AnyBuffer> result) {
  const auto out = result->dimensions(), states = x.dimensions(), weights = w.dimensions();
  if (out.size() != 4 || states.size() != 4 || weights.size() != 4) {
    return Wrong("weights, states and fields need 4 axes");
  }
  const Sizes n{out[0], out[1], states[1], weights[1], weights[2], out[2], out[3]};
  const bool fits = Fits(states, n.stack, {kAny, n.units, n.batch}) &&
                    Fits(weights, n.stack, {kAny, n.items == 1 ? 1 : n.units, 1}) &&
                    Fits(cells.dimensions(), n.stack, {n.rows, n.units, n.batch}) &&
                    Fits(field.dimensions(), n.stack, {n.rows, n.units, n.batch}) &&
                    cells.dimensions()[0] == n.stack && field.dimensions()[0] == n.stack &&
                    OfGraph(starts, ends, n);
  if (!fits) return Wrong("the arrays of single sums do not fit one another");
  const auto dtype = result->element_type();
  if (w.element_type() != dtype || x.element_type() != dtype || field.element_type() != dtype) {
    return Wrong("weights, states and fields must have one dtype");
  }
  if (cells.element_type() != ffi::PRED) return Wrong("cells are told by bool");
  StayInPlace(field, *result);
  return ByDtype<RunResum>(dtype, ends.element_type(), pool, n, starts, ends, w, x, cells,
                           *result);
}

// Sizes of products with matrices.
struct ProductSizes {
  int64_t stack, rows, others, edges, inputs, outputs, batch;
};

bool OfProducts(ffi::AnyBuffer starts, ffi::AnyBuffer ends, ffi::AnyBuffer w, bool inputs_first,
                const ProductSizes& n) {
  const Sizes graph{n.stack, n.rows, n.others, n.edges, 1, 1, n.batch};
  if (ends.element_type() != ffi::S32 || !OfGraph(starts, ends, graph)) return false;
  // Cells of a block of samples are numbered in 32 bits.
  if (std::max(n.inputs, n.outputs) > kMostUnits) return false;
  const int64_t first = inputs_first ? n.inputs : n.outputs;
  const int64_t last = inputs_first ? n.outputs : n.inputs;
  const bool one_for_all = w.dimensions()[1] == 1;
  return Fits(w.dimensions(), n.stack, {one_for_all ? 1 : n.edges, first, last});
}

template <class T>
Product<T> NthProduct(ffi::AnyBuffer starts, ffi::AnyBuffer ends, ffi::AnyBuffer w,
                      ffi::AnyBuffer field, const ProductSizes& n, int64_t i) {
  const Graph<int32_t> graph{Nth<const int32_t>(starts, i), Nth<const int32_t>(ends, i), n.rows,
                             n.others, n.edges};
  const int64_t w_step = w.dimensions()[1] == 1 ? 0 : n.inputs * n.outputs;
  return {graph, Nth<const T>(w, i), w_step, n.inputs, n.outputs, n.batch, Nth<T>(field, i)};
}

// What both calls give back: a field that is corrected in place, and for each of a stack whether there
// was too much to do, so that the field was left as it was.
struct Corrected {
  ffi::AnyBuffer field;
  ffi::AnyBuffer too_much;
};

// Whether a count is more than the share of each of a stack.
bool OfShares(ffi::AnyBuffer share, ffi::AnyBuffer too_much, const ProductSizes& n) {
  return share.element_type() == ffi::F32 && Fits(share.dimensions(), n.stack, {}) &&
         too_much.element_type() == ffi::PRED && Fits(too_much.dimensions(), n.stack, {}) &&
         too_much.dimensions()[0] == n.stack;
}

bool TooMuchOf(ffi::AnyBuffer share, int64_t i, int64_t count, int64_t size) {
  return count > static_cast<double>(*Nth<const float>(share, i)) * size;
}

template <class T>
ffi::Error CorrectAllProducts(ffi::ThreadPool& pool, const ProductSizes& n, ffi::AnyBuffer starts,
                              ffi::AnyBuffer ends, ffi::AnyBuffer w, ffi::AnyBuffer share,
                              ffi::AnyBuffer before, ffi::AnyBuffer after, ffi::AnyBuffer changed,
                              const Corrected& result) {
  std::vector<CorrectProducts<T>> calls;
  for (int64_t i = 0; i < n.stack; i++) {
    const Product<T> product = NthProduct<T>(starts, ends, w, result.field, n, i);
    const CorrectProducts<T> call(product, Nth<const T>(before, i), Nth<const T>(after, i));
    int32_t* own = Nth<int32_t>(changed, i);
    CountChanges(call.before, call.after, n.others * n.inputs, n.batch, own);
    int64_t count = 0;
    for (int64_t b = 0; b < n.batch; b++) count += own[b];
    const bool too_much = TooMuchOf(share, i, count, n.others * n.inputs * n.batch);
    *Nth<uint8_t>(result.too_much, i) = too_much;
    if (!too_much && count > 0) calls.push_back(call);
  }
  return Result(RunProductsOfAll(pool, std::move(calls)));
}

ffi::Error CorrectProductsHandler(ffi::ThreadPool pool, ffi::AnyBuffer starts, ffi::AnyBuffer ends,
                                  ffi::AnyBuffer w, ffi::AnyBuffer share, ffi::AnyBuffer before,
                                  ffi::AnyBuffer after, ffi::AnyBuffer field,
                                  ffi::Result<ffi::AnyBuffer> changed,
                                  ffi::Result<ffi::AnyBuffer> too_much,
                                  ffi::Result<ffi::AnyBuffer> result) {
  const auto out = result->dimensions(), states = before.dimensions();
  if (out.size() != 4 || states.size() != 4 || w.dimensions().size() != 4 ||
      ends.dimensions().size() != 2) {
    return Wrong("matrices, states and fields need 4 axes");
  }
  const ProductSizes n{out[0],    out[1], states[1], ends.dimensions()[1],
                       states[2], out[2], out[3]};
  const bool fits = Fits(states, n.stack, {n.others, n.inputs, n.batch}) &&
                    Fits(after.dimensions(), n.stack, {n.others, n.inputs, n.batch}) &&
                    Fits(field.dimensions(), n.stack, {n.rows, n.outputs, n.batch}) &&
                    field.dimensions()[0] == n.stack && OfProducts(starts, ends, w, true, n) &&
                    OfShares(share, *too_much, n) && changed->element_type() == ffi::S32 &&
                    Fits(changed->dimensions(), n.stack, {n.batch}) &&
                    changed->dimensions()[0] == n.stack;
  if (!fits) return Wrong("the arrays of a correction do not fit one another");
  const auto dtype = result->element_type();
  if (w.element_type() != dtype || before.element_type() != dtype ||
      after.element_type() != dtype || field.element_type() != dtype) {
    return Wrong("matrices, states and fields must have one dtype");
  }
  StayInPlace(field, *result);
  const Corrected corrected{*result, *too_much};
  if (dtype == ffi::F32) {
    return CorrectAllProducts<float>(pool, n, starts, ends, w, share, before, after, *changed,
                                     corrected);
  }
  if (dtype == ffi::F64) {
    return CorrectAllProducts<double>(pool, n, starts, ends, w, share, before, after, *changed,
                                      corrected);
  }
  return Wrong("numbers must be float32 or float64");
}

template <class T>
ffi::Error ResumAllProducts(ffi::ThreadPool& pool, const ProductSizes& n, ffi::AnyBuffer starts,
                            ffi::AnyBuffer ends, ffi::AnyBuffer w, ffi::AnyBuffer share,
                            ffi::AnyBuffer x, ffi::AnyBuffer cells, const Corrected& result) {
  std::vector<ResumProducts<T>> calls;
  const int64_t size = n.rows * n.outputs * n.batch;
  for (int64_t i = 0; i < n.stack; i++) {
    const uint8_t* own = Nth<const uint8_t>(cells, i);
    const int64_t count = Count(own, size);
    const bool too_much = TooMuchOf(share, i, count, size);
    *Nth<uint8_t>(result.too_much, i) = too_much;
    if (too_much || count == 0) continue;
    calls.push_back(
        {NthProduct<T>(starts, ends, w, result.field, n, i), Nth<const T>(x, i), own});
  }
  return Result(RunProductsOfAll(pool, std::move(calls)));
}

ffi::Error ResumProductsHandler(ffi::ThreadPool pool, ffi::AnyBuffer starts, ffi::AnyBuffer ends,
                                ffi::AnyBuffer w, ffi::AnyBuffer share, ffi::AnyBuffer x,
                                ffi::AnyBuffer cells, ffi::AnyBuffer field,
                                ffi::Result<ffi::AnyBuffer> too_much,
                                ffi::Result<ffi::AnyBuffer> result) {
  const auto out = result->dimensions(), states = x.dimensions();
  if (out.size() != 4 || states.size() != 4 || w.dimensions().size() != 4 ||
      ends.dimensions().size() != 2) {
    return Wrong("matrices, states and fields need 4 axes");
  }
  const ProductSizes n{out[0],    out[1], states[1], ends.dimensions()[1],
                       states[2], out[2], out[3]};
  const bool fits = Fits(states, n.stack, {n.others, n.inputs, n.batch}) &&
                    Fits(cells.dimensions(), n.stack, {n.rows, n.outputs, n.batch}) &&
                    Fits(field.dimensions(), n.stack, {n.rows, n.outputs, n.batch}) &&
                    cells.dimensions()[0] == n.stack && field.dimensions()[0] == n.stack &&
                    OfProducts(starts, ends, w, false, n) && OfShares(share, *too_much, n);
  if (!fits) return Wrong("the arrays of single sums do not fit one another");
  const auto dtype = result->element_type();
  if (w.element_type() != dtype || x.element_type() != dtype || field.element_type() != dtype) {
    return Wrong("matrices, states and fields must have one dtype");
  }
  if (cells.element_type() != ffi::PRED) return Wrong("cells are told by bool");
  StayInPlace(field, *result);
  const Corrected corrected{*result, *too_much};
  if (dtype == ffi::F32) {
    return ResumAllProducts<float>(pool, n, starts, ends, w, share, x, cells, corrected);
  }
  if (dtype == ffi::F64) {
    return ResumAllProducts<double>(pool, n, starts, ends, w, share, x, cells, corrected);
  }
  return Wrong("numbers must be float32 or float64");
}

}  // namespace

// The version of what these calls take: Python refuses a library of another.
#pragma GCC visibility push(default)

extern "C" int darnax_version() { return 2; }

XLA_FFI_DEFINE_HANDLER_SYMBOL(darnax_sum, SumHandler,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(darnax_products, ProductsHandler,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(darnax_correct, CorrectHandler,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(darnax_resum, ResumHandler,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(darnax_correct_products, CorrectProductsHandler,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(darnax_resum_products, ResumProductsHandler,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>());

#pragma GCC visibility pop
