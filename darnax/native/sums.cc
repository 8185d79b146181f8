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
// of a row; g then adds up the units as well.
//
// Every array has one more axis in front, of 1 or `stack`: that many graphs, sets of weights or
// states, each with its own sums. An axis of 1 serves all.
//
// No call reads or writes outside of its arrays. Ranks and sizes are checked before anything runs,
// starts and ends block by block while they are on their way into a cache anyway: that costs some
// per cent for one sample, and nothing that can be measured for more.

#include <cmath>

#include "graph.h"

namespace {

// The work of a call from which a second thread pays for being woken up. An edge costs as much as
// `kEdge` products: with one sample its gather is what takes time.
constexpr int64_t kThreads = 1'500'000;
constexpr int64_t kEdge = 4;

// Edges of a row from which vectors pay for one column.
constexpr int64_t kLong = 32;

// Rows that are compared at once, to pass over those that did not change.
constexpr int64_t kRowsAtOnce = 64;

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

// One column, one weight an edge.
template <class T, class I>
INLINE void Single(const Columns<T, I>& all) {
  constexpr int lanes = 32 / sizeof(T);
  const T* x = all.x;
  int64_t e = all.starts[all.row];
  for (int64_t r = all.row; r < all.stop; r++) {
    const int64_t last = all.starts[r + 1];
    // Two sums, as each term of one waits for the term before it.
    T even = 0, odd = 0;
    // A short row ends at another place in every vector, which processors cannot foresee: there
    // edges one by one are faster.
    if (last - e >= kLong) {
      Whole<T> sums = {};
      for (; last - e >= lanes; e += lanes) {
        sums += Load<Whole<T>>(all.w + e) * Gathered(x, all.ends + e);
      }
      even = Total<T>(sums);
    } else {
      for (; last - e >= 2; e += 2) {
        even += all.w[e] * x[all.ends[e]];
        odd += all.w[e + 1] * x[all.ends[e + 1]];
      }
    }
    for (; e < last; e++) even += all.w[e] * x[all.ends[e]];
    all.y[r] = even + odd;
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

// ---- threads ----

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

// ---- the calls ----

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

}  // namespace

// The version of what these calls take: Python refuses a library of another.
#pragma GCC visibility push(default)

extern "C" int darnax_version() { return 2; }

XLA_FFI_DEFINE_HANDLER_SYMBOL(darnax_sum, SumHandler, (Arrays<4, 1>()));
XLA_FFI_DEFINE_HANDLER_SYMBOL(darnax_products, ProductsHandler, (Arrays<4, 1>()));
XLA_FFI_DEFINE_HANDLER_SYMBOL(darnax_correct, CorrectHandler, (Arrays<10, 1>()));
XLA_FFI_DEFINE_HANDLER_SYMBOL(darnax_resum, ResumHandler, (Arrays<6, 1>()));

#pragma GCC visibility pop
