// Sums of products with matrices over the edges of a graph, brought up to date by what changed: what
// `darnax/kernels/native_products.py` calls.
//
// A graph is that of `sums.cc`. Where an edge has a matrix W[e], or all share one, the calls are
//
//     darnax_correct_products  f[r, :, b] += sum over the edges e of r of
//                              W[e] (after[ends[e], :, b] - before[ends[e], :, b])
//     darnax_resum_products    f[r, u, b] = sum over the edges e of r of W[e, u, :] x[ends[e], :, b],
//                              added up in float64, where cells[r, u, b] is set
//
// Both do nothing but say so where more than a share of the states changed, or of the cells is set.
// Then a whole product takes less time, and XLA is better at these.
//
// States are `(others, inputs, batch)` and fields `(rows, outputs, batch)`. Every array has one more
// axis in front, as in `sums.cc`, and what is said there of checks holds here.

#include "graph.h"

namespace {

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

// Four numbers as float64.
INLINE Whole<double> Wide(const double* from) { return Load<Whole<double>>(from); }
INLINE Whole<double> Wide(const float* from) {
  return __builtin_convertvector(Load<Half<float>>(from), Whole<double>);
}

template <class T>
INLINE double Dot64(const T* a, const T* b, int64_t size) {
  // Several sums, so that none waits for its own last term.
  constexpr int many = 4;
  Whole<double> sums[many] = {};
  int64_t i = 0;
  for (; size - i >= 4 * many; i += 4 * many) {
    for (int k = 0; k < many; k++) sums[k] += Wide(a + i + 4 * k) * Wide(b + i + 4 * k);
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

// ---- the clones, plain functions each ----

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

// All calls of a stack.
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

// ---- the calls ----

// Sizes of products with matrices.
struct ProductSizes {
  int64_t stack, rows, others, edges, inputs, outputs, batch;
};

bool HaveAxes(ffi::AnyBuffer ends, ffi::AnyBuffer w, ffi::AnyBuffer states, ffi::AnyBuffer result) {
  return ends.dimensions().size() == 2 && w.dimensions().size() == 4 &&
         states.dimensions().size() == 4 && result.dimensions().size() == 4;
}

ProductSizes SizesOf(ffi::AnyBuffer ends, ffi::AnyBuffer states, ffi::AnyBuffer result) {
  const auto out = result.dimensions(), in = states.dimensions();
  return {out[0], out[1], in[1], ends.dimensions()[1], in[2], out[2], out[3]};
}

bool HaveDtype(ffi::DataType dtype, ffi::AnyBuffer w, ffi::AnyBuffer states, ffi::AnyBuffer field) {
  return w.element_type() == dtype && states.element_type() == dtype &&
         field.element_type() == dtype;
}

bool OfField(ffi::AnyBuffer states, ffi::AnyBuffer field, const ProductSizes& n) {
  return Fits(states.dimensions(), n.stack, {n.others, n.inputs, n.batch}) &&
         Fits(field.dimensions(), n.stack, {n.rows, n.outputs, n.batch}) &&
         field.dimensions()[0] == n.stack;
}

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
  if (!HaveAxes(ends, w, before, *result)) return Wrong("matrices, states and fields need 4 axes");
  const ProductSizes n = SizesOf(ends, before, *result);
  const bool fits = OfProducts(starts, ends, w, true, n) && OfField(before, field, n) &&
                    Fits(after.dimensions(), n.stack, {n.others, n.inputs, n.batch}) &&
                    OfShares(share, *too_much, n) && changed->element_type() == ffi::S32 &&
                    Fits(changed->dimensions(), n.stack, {n.batch}) &&
                    changed->dimensions()[0] == n.stack;
  if (!fits) return Wrong("the arrays of a correction do not fit one another");
  const auto dtype = result->element_type();
  if (after.element_type() != dtype || !HaveDtype(dtype, w, before, field)) {
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
  if (!HaveAxes(ends, w, x, *result)) return Wrong("matrices, states and fields need 4 axes");
  const ProductSizes n = SizesOf(ends, x, *result);
  const bool fits = OfProducts(starts, ends, w, false, n) && OfField(x, field, n) &&
                    Fits(cells.dimensions(), n.stack, {n.rows, n.outputs, n.batch}) &&
                    cells.dimensions()[0] == n.stack && OfShares(share, *too_much, n);
  if (!fits) return Wrong("the arrays of single sums do not fit one another");
  const auto dtype = result->element_type();
  if (!HaveDtype(dtype, w, x, field)) return Wrong("matrices, states and fields must have one dtype");
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

#pragma GCC visibility push(default)

XLA_FFI_DEFINE_HANDLER_SYMBOL(darnax_correct_products, CorrectProductsHandler, (Arrays<7, 3>()));
XLA_FFI_DEFINE_HANDLER_SYMBOL(darnax_resum_products, ResumProductsHandler, (Arrays<7, 2>()));

#pragma GCC visibility pop
