// Reductions of a row to one number. Whoever works on which columns: a row is cut into blocks of kSumVectors vectors, each
// block is gone through in order with a partial result in every lane, and the blocks, then the lanes, are put together in
// one order. So the bits depend on the width alone, and threads can share the columns of a row, in whole blocks.
#pragma once
#include <limits>

#include "operations.h"

namespace {

constexpr int kSumVectors = 8;
constexpr int kPartVectors = 3;  // of a partial result: the sum, and for kRowdevsq the first value and the sum of squares

template <class T> constexpr int64_t block_columns = kSumVectors * lanes<T>;
template <class T> INLINE int64_t partial_size(int64_t width) { return parts(width, block_columns<T>) * kPartVectors * lanes<T>; }

// Squares are taken of the distance to the first value of the block in the same lane: about zero, they would lose their
// digits where the mean is far from it (Chan, Golub and LeVeque 1983, "shifted data").
template <class T, int32_t code> struct Partial {
  Vec<T> sum, first, squares;
  void start(Vec<T> x) { sum = splat(code == kRowmax ? T(-__builtin_inf()) : T(0)), first = x, squares = Vec<T>{}; }
  Vec<T> absent() const { return code == kRowdevsq ? first : splat(code == kRowmax ? T(-__builtin_inf()) : T(0)); }  // changes nothing
  void add(Vec<T> x) {
    if (code == kRowsum) sum += x;
    if (code == kRowmax) sum = maximum<T>(sum, x);
    if (code == kRowdevsq) x -= first, sum += x, squares += x * x;
  }
  void read(const T* p) { sum = load(p), first = load(p + lanes<T>), squares = load(p + 2 * lanes<T>); }
  void write(T* p) const { store(p, sum), store(p + lanes<T>, first), store(p + 2 * lanes<T>, squares); }
};

// Columns [column, column + e.columns) of each row into its partial results, of which the first row's are at `to`.
template <class T, int32_t code> static void reduce_columns(Extent e, int64_t column, Tile<T> in, T* to, int64_t row_stride) {
  int64_t before = column / lanes<T>, whole = e.columns / lanes<T>, rest = e.columns % lanes<T>, all = whole + (rest > 0);
  for (int64_t r = 0; r < e.rows; r++) {
    const T* p = in.at + r * in.row;
    for (int64_t v = 0; v < all;) {
      int64_t done = (before + v) % kSumVectors, end = smaller(all, v + kSumVectors - done);
      T* place = to + r * row_stride + (before + v) / kSumVectors * kPartVectors * lanes<T>;
      Partial<T, code> part;
      auto last = [&] { return in.vector ? load_part(p + whole * in.vector, int(rest)) : load(p); };
      if (done)
        part.read(place);
      else
        part.start(v < whole ? load(p + v * in.vector) : last());
      for (; v < smaller(end, whole); v++) part.add(load(p + v * in.vector));
      if (v < end) {
        alignas(kVectorBytes) T values[lanes<T>], absent[lanes<T>];
        store(values, last()), store(absent, part.absent());
        for (int64_t i = rest; i < lanes<T>; i++) values[i] = absent[i];
        part.add(load(values)), v++;
      }
      part.write(place);
    }
  }
}
template <class T> static void reduce_tile(int32_t code, Extent e, int64_t column, Tile<T> in, T* to, int64_t row_stride) {
  if (code == kRowsum) return reduce_columns<T, kRowsum>(e, column, in, to, row_stride);
  if (code == kRowmax) return reduce_columns<T, kRowmax>(e, column, in, to, row_stride);
  reduce_columns<T, kRowdevsq>(e, column, in, to, row_stride);
}

template <class T, int apart, int... I> INLINE Vec<T> exchanged(Vec<T> v, std::integer_sequence<int, I...>) { return __builtin_shufflevector(v, v, (I ^ apart)...); }
template <class T, int32_t code, int apart = lanes<T> / 2> INLINE T across(Vec<T> v) {
  if constexpr (apart == 0) {
    return v[0];
  } else {
    Vec<T> other = exchanged<T, apart>(v, std::make_integer_sequence<int, lanes<T>>{});
    return across<T, code, apart / 2>(code == kRowmax ? maximum<T>(v, other) : v + other);
  }
}

// The sum of the squared deviations in all blocks and lanes, of which each has its own mean.
template <class T> static T deviations(const T* parts_of_row, int64_t width) {
  int64_t blocks = parts(width, block_columns<T>), rest = width - (blocks - 1) * block_columns<T>;
  Vec<T> base = splat(parts_of_row[lanes<T>]);  // the row's first value: of the means, only distances from it are needed
  alignas(kVectorBytes) T counts[lanes<T>];
  for (int64_t i = 0; i < lanes<T>; i++) counts[i] = T(rest / lanes<T> + (i < rest % lanes<T>));
  auto block = [&](int64_t b, Vec<T>& count, Vec<T>& mean) INLINE_LAMBDA {
    Partial<T, kRowdevsq> part;
    part.read(parts_of_row + b * kPartVectors * lanes<T>);
    count = b + 1 < blocks ? splat(T(kSumVectors)) : load(counts);
    Vec<T> shift = part.sum / maximum<T>(count, splat(T(1)));
    mean = count > T(0) ? part.first - base + shift : Vec<T>{};
    Vec<T> left = part.squares - part.sum * shift;
    left = left < T(0) ? Vec<T>{} : left;
    // squares beyond the largest number are infinite, and of no finite sum is that undone
    return part.squares > std::numeric_limits<T>::max() ? part.squares + (part.sum - part.sum) : left;
  };
  Vec<T> total{}, squares{}, count, mean;
  for (int64_t b = 0; b < blocks; b++) block(b, count, mean), total += count * mean;
  Vec<T> centre = splat(across<T, kRowsum>(total) / T(width));
  for (int64_t b = 0; b < blocks; b++) {
    Vec<T> left = block(b, count, mean);
    Vec<T> apart = count > T(0) ? mean - centre : Vec<T>{};
    squares += left + count * (apart * apart);
  }
  return across<T, kRowsum>(squares);
}

template <class T> static T reduced(int32_t code, const T* parts_of_row, int64_t width) {
  if (code == kRowdevsq) return deviations(parts_of_row, width);
  Vec<T> y = load(parts_of_row);
  for (int64_t b = 1; b < parts(width, block_columns<T>); b++) {
    Vec<T> x = load(parts_of_row + b * kPartVectors * lanes<T>);
    y = code == kRowsum ? y + x : maximum<T>(y, x);
  }
  return code == kRowsum ? across<T, kRowsum>(y) : across<T, kRowmax>(y);
}

}  // namespace
