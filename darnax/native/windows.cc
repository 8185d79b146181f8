// Convolutions of images whose samples stand last: what `darnax/kernels/native_windows.py` calls.
//
//     darnax_windows  y[p, o, b] = sum over k and c of w[k, c, o] x[p * stride + k - pad, c, b]
//
// with x outside of its places zero; or, `transposed`, the sum over those k and places q of x with
// p = q * stride + k - pad. Places p and cells of the window k have three axes; the images are
// `(*places, channels, batch)` and weights `(*window, channels, units)`. Every array has one more
// axis in front, of 1 or `stack`. Ranks and sizes are checked before anything runs: no number of a
// call is a position, so that nothing else can lead out of its arrays.
//
// The samples of one place and channel lie side by side, and so are vectors as they are. A tile of
// some units and samples stays in registers while the window and its channels go by.

#include "common.h"

namespace {

// The work of a call from which a second thread pays for being woken up, in products.
constexpr int64_t kThreads = 1'000'000;
// Products that one thread takes at a time, and the most blocks of a call.
constexpr int64_t kBlock = 250'000;

struct Axes {
  int64_t at[3];
  int64_t size() const { return at[0] * at[1] * at[2]; }
};

template <class T>
struct Windows {
  const T* x;
  const T* w;
  T* y;
  Axes in, out, window, stride, pad;
  int64_t channels, units, batch;
  bool transposed;
};

// A cell of the window that meets a place: where its weights and the states begin.
struct Meeting {
  int64_t w, x;
};

// The place along an axis that cell k of the window at place p meets; -1 for none.
template <class T>
INLINE int64_t Place(const Windows<T>& all, int axis, int64_t p, int64_t k) {
  const int64_t stride = all.stride.at[axis], pad = all.pad.at[axis];
  int64_t place = all.transposed ? p + pad - k : p * stride + k - pad;
  if (all.transposed) {
    if (place < 0 || place % stride != 0) return -1;
    place /= stride;
  }
  return 0 <= place && place < all.in.at[axis] ? place : -1;
}

// All that the window at one place meets; how many there are.
template <class T>
INLINE int64_t Meetings(const Windows<T>& all, const Axes& p, Meeting* met) {
  const int64_t weights = all.channels * all.units, states = all.channels * all.batch;
  int64_t count = 0;
  for (int64_t i = 0; i < all.window.at[0]; i++) {
    const int64_t a = Place(all, 0, p.at[0], i);
    if (a < 0) continue;
    for (int64_t j = 0; j < all.window.at[1]; j++) {
      const int64_t b = Place(all, 1, p.at[1], j);
      if (b < 0) continue;
      for (int64_t k = 0; k < all.window.at[2]; k++) {
        const int64_t c = Place(all, 2, p.at[2], k);
        if (c < 0) continue;
        const int64_t cell = (i * all.window.at[1] + j) * all.window.at[2] + k;
        const int64_t place = (a * all.in.at[1] + b) * all.in.at[2] + c;
        met[count++] = {cell * weights, place * states};
      }
    }
  }
  return count;
}

// Some units of one place, and as many samples as `wide` vectors hold.
template <class V, int many, int wide, class T>
INLINE void Tile(const Windows<T>& all, const Meeting* met, int64_t count, const T* w, const T* x,
                 T* y) {
  constexpr int lanes = sizeof(V) / sizeof(T);
  V sums[many][wide] = {};
  for (int64_t i = 0; i < count; i++) {
    const T* weights = w + met[i].w;
    const T* states = x + met[i].x;
    for (int64_t c = 0; c < all.channels; c++, weights += all.units, states += all.batch) {
      V samples[wide];
      for (int t = 0; t < wide; t++) samples[t] = Load<V>(states + t * lanes);
      for (int u = 0; u < many; u++) {
        const V weight = weights[u] - V{};
        for (int t = 0; t < wide; t++) sums[u][t] += weight * samples[t];
      }
    }
  }
  for (int u = 0; u < many; u++) {
    for (int t = 0; t < wide; t++) Store(y + u * all.batch + t * lanes, sums[u][t]);
  }
}

// All units of one place, and some samples.
template <class V, int many, int wide, class T>
INLINE void Units(const Windows<T>& all, const Meeting* met, int64_t count, const T* x, T* y) {
  int64_t u = 0;
  for (; all.units - u >= many; u += many) {
    Tile<V, many, wide>(all, met, count, all.w + u, x, y + u * all.batch);
  }
  for (; u < all.units; u++) {
    Tile<V, 1, wide>(all, met, count, all.w + u, x, y + u * all.batch);
  }
}

// Some places, their samples in vectors of V. The last vectors of a batch that they do not divide
// overlap with those before: what is written twice is the same.
template <class V, int many, class T>
INLINE void Places(const Windows<T>& all, int64_t place, int64_t stop, Meeting* met) {
  constexpr int64_t lanes = sizeof(V) / sizeof(T);
  for (; place < stop; place++) {
    const int64_t column = place / all.out.at[2];
    const Axes p{{column / all.out.at[1], column % all.out.at[1], place % all.out.at[2]}};
    const int64_t count = Meetings(all, p, met);
    T* y = all.y + place * all.units * all.batch;
    int64_t b = 0;
    for (; all.batch - b >= 2 * lanes; b += 2 * lanes) {
      Units<V, many, 2>(all, met, count, all.x + b, y + b);
    }
    for (; b < all.batch; b += lanes) {
      const int64_t last = std::min(b, all.batch - lanes);
      Units<V, many, 1>(all, met, count, all.x + last, y + last);
    }
  }
}

// Twice as wide vectors where the processor has them: twice as many sums stay in registers.
template <class T>
using Twice = typename VectorOf<T, 64>::type;

#define CLONED_WINDOWS(T)                                                                       \
  CLONES void Plain(const Windows<T>& all, int64_t place, int64_t stop, Meeting* met) {         \
    Places<Whole<T>, 4>(all, place, stop, met);                                                 \
  }                                                                                             \
  WIDE void Wide(const Windows<T>& all, int64_t place, int64_t stop, Meeting* met) {            \
    Places<Twice<T>, 8>(all, place, stop, met);                                                 \
  }
CLONED_WINDOWS(float)
CLONED_WINDOWS(double)

// Ranges of places, of every call of a stack.
template <class T>
class PlacesOf final : public Blocks {
 public:
  PlacesOf(std::vector<Windows<T>> calls, int64_t each)
      : Blocks(static_cast<int64_t>(calls.size()) * each), calls_(std::move(calls)), each_(each) {}

  Status Run(int64_t block) override {
    const Windows<T>& call = calls_[block / each_];
    const int64_t places = call.out.size(), own = block % each_;
    const int64_t place = own * places / each_, stop = (own + 1) * places / each_;
    std::vector<Meeting> met(call.window.size());
    const bool wide = kHasWide && call.batch >= static_cast<int64_t>(sizeof(Twice<T>) / sizeof(T));
    if (wide) {
      Wide(call, place, stop, met.data());
    } else {
      Plain(call, place, stop, met.data());
    }
    return kFine;
  }

 private:
  const std::vector<Windows<T>> calls_;
  const int64_t each_;
};

// ---- the call ----

Axes AxesOf(ffi::AnyBuffer::Dimensions sizes) { return {{sizes[1], sizes[2], sizes[3]}}; }

bool AxesFrom(ffi::Span<const int64_t> given, int64_t least, Axes& axes) {
  if (given.size() != 3) return false;
  for (int i = 0; i < 3; i++) {
    axes.at[i] = given.begin()[i];
    if (axes.at[i] < least || axes.at[i] > INT32_MAX) return false;
  }
  return true;
}

template <class T>
ffi::Error RunWindows(ffi::ThreadPool& pool, Windows<T> call, int64_t stack, ffi::AnyBuffer x,
                      ffi::AnyBuffer w, ffi::AnyBuffer y) {
  if (call.batch < static_cast<int64_t>(sizeof(Whole<T>) / sizeof(T))) {
    return Wrong("windows take as many samples as a vector has numbers, 8 of float32");
  }
  std::vector<Windows<T>> calls;
  for (int64_t i = 0; i < stack; i++) {
    call.x = Nth<const T>(x, i);
    call.w = Nth<const T>(w, i);
    call.y = Nth<T>(y, i);
    calls.push_back(call);
  }
  const int64_t places = call.out.size();
  const int64_t work = places * call.window.size() * call.channels * call.units * call.batch;
  if (places == 0 || call.units == 0 || stack == 0) return ffi::Error::Success();
  const int64_t each = std::max<int64_t>(1, std::min(places, work / kBlock));
  const auto blocks = std::make_shared<PlacesOf<T>>(std::move(calls), each);
  return Result(Finished(pool, blocks, stack * work >= kThreads ? stack * each : 1));
}

ffi::Error WindowsHandler(ffi::ThreadPool pool, ffi::AnyBuffer x, ffi::AnyBuffer w,
                          ffi::Result<ffi::AnyBuffer> y, ffi::Span<const int64_t> stride,
                          ffi::Span<const int64_t> pad, ffi::Span<const int64_t> places,
                          bool transposed) {
  const auto in = x.dimensions(), out = y->dimensions(), window = w.dimensions();
  if (in.size() != 6 || out.size() != 6 || window.size() != 6) {
    return Wrong("images and windows need 6 axes");
  }
  const int64_t stack = out[0], channels = in[4], units = out[4], batch = out[5];
  const bool fits = Fits(in, stack, {kAny, kAny, kAny, channels, batch}) &&
                    Fits(window, stack, {kAny, kAny, kAny, channels, units});
  const Axes in_places = AxesOf(in), out_places = AxesOf(out), cells = AxesOf(window);
  Axes strides, pads, asked;
  if (!fits || !AxesFrom(stride, 1, strides) || !AxesFrom(pad, INT32_MIN, pads) ||
      !AxesFrom(places, 0, asked) || !std::equal(asked.at, asked.at + 3, out_places.at)) {
    return Wrong("the arrays of a convolution do not fit one another");
  }
  const auto dtype = y->element_type();
  if (x.element_type() != dtype || w.element_type() != dtype) {
    return Wrong("images and windows must have one dtype");
  }
  if (dtype == ffi::F32) {
    const Windows<float> call{nullptr, nullptr, nullptr,  in_places, out_places, cells,
                              strides, pads,    channels, units,     batch,      transposed};
    return RunWindows(pool, call, stack, x, w, *y);
  }
  if (dtype == ffi::F64) {
    const Windows<double> call{nullptr, nullptr, nullptr,  in_places, out_places, cells,
                               strides, pads,    channels, units,     batch,      transposed};
    return RunWindows(pool, call, stack, x, w, *y);
  }
  return Wrong("numbers must be float32 or float64");
}

}  // namespace

#pragma GCC visibility push(default)

XLA_FFI_DEFINE_HANDLER_SYMBOL(darnax_windows, WindowsHandler, (Arrays<2, 1>()
                               .Attr<ffi::Span<const int64_t>>("stride")
                               .Attr<ffi::Span<const int64_t>>("pad")
                               .Attr<ffi::Span<const int64_t>>("places")
                               .Attr<bool>("transposed")));

#pragma GCC visibility pop
