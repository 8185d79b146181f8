// What all calls of the native library share: vectors, threads, and checks of arrays.

#pragma once

#include <algorithm>
#include <atomic>
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
// For AVX-512 alone, where code for it is another. It may be called where `kHasWide` is true.
#define WIDE __attribute__((target("arch=x86-64-v4")))
inline const bool kHasWide = __builtin_cpu_supports("x86-64-v4");
#else
#define CLONES
#define WIDE
constexpr bool kHasWide = false;
#endif
#define INLINE inline __attribute__((always_inline))

namespace {

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

// All blocks, on as many threads as there are for `most` of them.
Status Finished(ffi::ThreadPool& pool, std::shared_ptr<Blocks> blocks, int64_t most) {
  const int64_t helpers = std::min(pool.num_threads(), most) - 1;
  for (int64_t i = 0; i < helpers; i++) {
    pool.Schedule([blocks] { blocks->Work(); });
  }
  blocks->Work();
  return blocks->Wait();
}

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

// ---- what is checked before a call ----

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

// One of the arrays on a stack; the only one where there is one for all.
template <class T>
T* Nth(ffi::AnyBuffer array, int64_t i) {
  const int64_t stack = array.dimensions()[0];
  const int64_t size = stack == 0 ? 0 : array.element_count() / stack;
  return static_cast<T*>(array.untyped_data()) + (stack == 1 ? 0 : i * size);
}

// A field is corrected where it is: XLA gives one buffer for both, unless it is asked not to.
inline void StayInPlace(ffi::AnyBuffer field, ffi::AnyBuffer result) {
  if (result.untyped_data() == field.untyped_data() || field.size_bytes() == 0) return;
  std::memcpy(result.untyped_data(), field.untyped_data(), field.size_bytes());
}

// What XLA is told of a call: it wants threads, takes `in` arrays and gives `out`.
template <int in, int out>
auto Arrays() {
  if constexpr (out > 0) {
    return Arrays<in, out - 1>().template Ret<ffi::AnyBuffer>();
  } else if constexpr (in > 0) {
    return Arrays<in - 1, 0>().template Arg<ffi::AnyBuffer>();
  } else {
    return ffi::Ffi::Bind().Ctx<ffi::ThreadPool>();
  }
}

}  // namespace
