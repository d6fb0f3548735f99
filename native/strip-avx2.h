// The product of a strip with AVX2 alone. The one pipe that multiplies bytes and 16-bit numbers is the bound, so sums are 16 bits wide: exact with
// 4 bits; with 8 bits the sum of two neighbouring products is rounded to a multiple of 8, for which 16 bits are enough to the end of a block. Its
// error (2.3, root mean square) is about a tenth of what rounding x makes where levels fill the byte, and independent of it, so that both
// together are half a percent larger.
#pragma once

/** Columns of a strip, one to each float of a register. */
enum { strip = 8 };

/** From how many rows on a strip that is not kept is put in order first: that costs about as much as two rows. */
enum { orderedFrom = 4 };

/** Rows that are multiplied with a strip at a time: their sums fill half the registers. */
enum { mostRows = 8 };

/** By how much levels of 8 bits are moved, so that they are signed. */
enum { moved = 128 };

/** A zero point as `begin` and `accumulate` multiply with it. With 4 bits it goes with two sums of a column. */
INLINE int32_t zeroOf(int32_t zero, const int bits) { return bits == 8 ? zero - moved : zero * 0x10001; }

INLINE __m256i broadcast(const int8_t *four) { return _mm256_castps_si256(_mm256_broadcast_ss((const float *)four)); }

/** Bytes of the levels of a row: with 4 bits for an even number of spans. */
INLINE int64_t rowBytes(const struct Kernel *k) { return (k->bits == 4 ? k->spans + (k->spans & 1) : k->spans) * span; }

/**
 * Where four neighbouring levels of a span are. Levels of 4 bits come out of their bytes even ones first, and one row is multiplied two spans
 * at a time: of two spans the even levels of both come first, then the odd ones of both.
 */
INLINE int64_t levelAt(int64_t s, int group, const int bits) {
  if (bits == 8) return s * span + 4 * group;
  return (s >> 1) * (2 * span) + (s & 1) * (span / 2) + (group < 4 ? 4 * group : span + 4 * (group - 4));
}

/**
 * What zero points are multiplied with. With 8 bits the sum of the levels. With 4 bits zero points are in the two sums of a column from the
 * beginning: what the levels of each sum to, negative, and eight times that where all zero points are 8.
 */
INLINE int32_t sumsOfLevels(const struct Run *run, __m256i levels, const int bits) {
  if (bits == 8) return sumOfInts(_mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), levels), _mm256_set1_epi16(1)));
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), levels);
  __m128i sums = _mm_add_epi16(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
  sums = _mm_add_epi16(sums, _mm_shuffle_epi32(sums, 0x4e));
  sums = _mm_sub_epi16(_mm_setzero_si128(), _mm_add_epi16(sums, _mm_shuffle_epi32(sums, 0xb1)));
  return _mm_cvtsi128_si32(run->zeroPoints == NULL ? _mm_slli_epi16(sums, 3) : sums);
}

/** Levels of x and what belongs to them. With 8 bits they are negative in the first four, the third, and so on: see `addProducts`. */
INLINE void storeLevels(const struct Run *run, __m256i bytes, int64_t row, int64_t s) {
  const struct Kernel *k = run->kernel;
  const int64_t at = row * k->spans + s;
  int8_t *levels = run->levels + row * rowBytes(k);
  if (k->bits == 8) {
    if (run->zeroPoints != NULL) run->levelSums[at] = sumsOfLevels(run, bytes, 8);
    _mm256_storeu_si256((__m256i *)(levels + levelAt(s, 0, 8)), _mm256_sign_epi8(bytes, _mm256_set1_epi64x(0x01010101ffffffff)));
    return;
  }
  bytes = evenFirst(bytes);
  run->levelSums[at] = sumsOfLevels(run, bytes, 4);
  _mm_storeu_si128((__m128i *)(levels + levelAt(s, 0, 4)), _mm256_castsi256_si128(bytes));
  _mm_storeu_si128((__m128i *)(levels + levelAt(s, 4, 4)), _mm256_extracti128_si256(bytes, 1));
  // One row is multiplied two spans at a time, so the last may need another of zeros.
  if (s + 1 == k->spans && (k->spans & 1)) {
    UNROLL for (int half = 0; half < 8; half += 4) _mm_storeu_si128((__m128i *)(levels + levelAt(k->spans, half, 4)), _mm_setzero_si128());
  }
}

/** The levels of a span: from −128 to 127 with 8 bits (128 stands for 0), from 0 to 15 with 4 bits, even ones first. */
INLINE __m256i levelsOf(const uint8_t *at, const int bits) {
  if (bits == 8) return _mm256_xor_si256(load(at), _mm256_set1_epi8((char)0x80));
  const __m128i pairs = _mm_loadu_si128((const __m128i *)at);
  return _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(pairs, 4), pairs), _mm256_set1_epi8(15));
}

/**
 * Products of levels of w and x, added in pairs, such that 16 bits hold the sum of eight. With 4 bits a pair is at most 3,810. With 8 bits it is
 * |w| · (x with the sign of w), at most 2 · 128 · 127, and an eighth of that is given, rounded down.
 */
INLINE __m256i products(__m256i w, __m256i x, const int bits) {
  if (bits == 4) return _mm256_maddubs_epi16(w, x);
  return _mm256_srai_epi16(_mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w)), 3);
}

/** The compiler keeps what comes before and after apart. */
#define TOGETHER(v) __asm__("" : "+x"((v)[0]), "+x"((v)[1]), "+x"((v)[2]), "+x"((v)[3]))

/** With 8 bits every other four of x are negative (see `storeLevels`) and are subtracted: as much is rounded up as down. */
INLINE __m256i addProducts(__m256i sums, __m256i p, const int bits) { return bits == 4 ? _mm256_add_epi16(sums, p) : _mm256_sub_epi16(p, sums); }

/**
 * What sums of one span begin with. With 4 bits zero points are in it: each half ends at no more than 16 · 15 · 127 = 30,480, and what is more
 * on the way falls off at both ends.
 */
INLINE __m256i begin(const struct Run *run, const struct Strip *at, int64_t s, int64_t rowSpan, const int bits) {
  if (bits == 8) return _mm256_setzero_si256();
  const __m256i levelSums = _mm256_set1_epi32(run->levelSums[rowSpan]);
  return run->zeroPoints == NULL ? levelSums : _mm256_mullo_epi16(levelSums, load(at->zeros + s * strip));
}

/** A strip's sums of one span, two for each column, into the result so far. */
INLINE __m256 accumulate(const struct Run *run, const struct Strip *at, int64_t s, int64_t rowSpan, __m256i sums, __m256 result, const int bits) {
  sums = _mm256_madd_epi16(sums, _mm256_set1_epi16(bits == 4 ? 1 : 8));
  if (bits == 8 && run->zeroPoints != NULL)
    sums = _mm256_sub_epi32(sums, _mm256_mullo_epi32(_mm256_set1_epi32(run->levelSums[rowSpan]), load(at->zeros + s * strip)));
  const __m256 scale = _mm256_mul_ps(_mm256_broadcast_ss(run->rowScales + rowSpan), _mm256_loadu_ps(at->scales + s * strip));
  result = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums), scale, result);
  if (run->offsets == NULL) return result;
  return _mm256_fmadd_ps(_mm256_broadcast_ss(run->valueSums + rowSpan), _mm256_loadu_ps(at->offsets + s * strip), result);
}

INLINE void store(const struct Run *run, int64_t row, int64_t column, int64_t count, __m256 result) {
  float *y = run->y + row * run->kernel->columns + column;
  if (count == strip) _mm256_storeu_ps(y, result);
  else _mm256_maskstore_ps(y, firstLanes(count), result);
}

/** Four columns' products with one row of x: in each half of the register two sums for each column. `p` gives a column's. */
#define SUMS_OF_FOUR(p, bits)                                                                              \
  ({                                                                                                       \
    const __m256i a_ = p(0), b_ = p(1);                                                                    \
    const __m256i ab_ = _mm256_add_epi16(_mm256_unpacklo_epi32(a_, b_), _mm256_unpackhi_epi32(a_, b_));    \
    const __m256i c_ = p(2), d_ = p(3);                                                                    \
    const __m256i cd_ = _mm256_add_epi16(_mm256_unpacklo_epi32(c_, d_), _mm256_unpackhi_epi32(c_, d_));    \
    addProducts(_mm256_unpacklo_epi64(ab_, cd_), _mm256_unpackhi_epi64(ab_, cd_), bits);                   \
  })

/** One row: the blocks are read in their own order, and eight columns' sums become one register at the end of a span. */
INLINE __m256 multiplyRow8(const struct Run *run, const struct Strip *at, const uint8_t *const column[strip], int64_t row) {
  const struct Kernel *k = run->kernel;
  const int8_t *levels = run->levels + row * rowBytes(k);
  __m256 result = _mm256_setzero_ps();
  for (int64_t s = 0; s < k->spans; s++) {
    const __m256i x = load(levels + s * span);
    prefetch(column[0] + strip * (k->spans + s) * span, strip * span);
    __m256i four[2];
    UNROLL for (int h = 0; h < 2; h++) {
#define PRODUCTS(c) products(levelsOf(column[4 * h + c] + s * span, 8), x, 8)
      four[h] = SUMS_OF_FOUR(PRODUCTS, 8);
#undef PRODUCTS
    }
    const __m256i sums = _mm256_add_epi16(_mm256_permute2x128_si256(four[0], four[1], 0x20), _mm256_permute2x128_si256(four[0], four[1], 0x31));
    result = accumulate(run, at, s, row * k->spans + s, sums, result, 8);
  }
  return result;
}

/** The same two spans at a time, one in each half of a register. */
INLINE __m256 multiplyRow4(const struct Run *run, const struct Strip *at, const uint8_t *const column[strip], int64_t row) {
  const struct Kernel *k = run->kernel;
  const int8_t *levels = run->levels + row * rowBytes(k);
  const int64_t bytes = span / 2;
  const __m256i low = _mm256_set1_epi8(15);
  __m256 result = _mm256_setzero_ps();
  for (int64_t s = 0; s < k->spans; s += 2) {
    const __m256i even = load(levels + s * span), odd = load(levels + s * span + span);
    const int isPair = s + 1 < k->spans;
    prefetch(column[0] + strip * (k->spans + s) * bytes, 2 * strip * bytes);
    __m256i four[2];
    UNROLL for (int h = 0; h < 2; h++) {
      __m256i p[4];
      UNROLL for (int c = 0; c < 4; c++) {
        const uint8_t *from = column[4 * h + c] + s * bytes;
        const __m256i w = isPair ? load(from) : _mm256_zextsi128_si256(_mm_loadu_si128((const __m128i *)from));
        p[c] = _mm256_add_epi16(_mm256_maddubs_epi16(_mm256_and_si256(w, low), even), _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16(w, 4), low), odd));
      }
#define PRODUCTS(c) p[c]
      four[h] = SUMS_OF_FOUR(PRODUCTS, 4);
#undef PRODUCTS
    }
    UNROLL for (int i = 0; i < 2; i++) {
      if (i == 1 && !isPair) break;
      const int64_t rowSpan = row * k->spans + s + i;
      const __m256i sums = i == 0 ? _mm256_permute2x128_si256(four[0], four[1], 0x20) : _mm256_permute2x128_si256(four[0], four[1], 0x31);
      result = accumulate(run, at, s + i, rowSpan, _mm256_add_epi16(begin(run, at, s + i, rowSpan, 4), sums), result, 4);
    }
  }
  return result;
}

/** Few rows times a strip that is not in order; returns whether it has been done. */
INLINE int multiplyInPlace(const struct Run *run, const struct Strip *at, const uint8_t *const column[strip], int64_t first, int64_t count, const int bits) {
  if (run->rows >= orderedFrom) return 0;
  for (int64_t row = 0; row < run->rows; row++)
    store(run, row, first, count, bits == 8 ? multiplyRow8(run, at, column, row) : multiplyRow4(run, at, column, row));
  return 1;
}

/**
 * Four levels of each column times those of R rows, added to the rows' sums. With 4 bits what rows do of one kind is kept together, four rows at
 * a time: one that waits for its operand would else hold up those of the next row. With 8 bits products alone take all the time.
 */
INLINE void addRows(__m256i sums[mostRows], const int8_t *levels, int64_t stride, __m256i w, const int bits, const int R) {
  UNROLL for (int first = 0; first < R; first += 4) {
    const int isFull = bits == 4 && first + 4 <= R;
    __m256i p[4];
    UNROLL for (int i = 0; i < 4 && first + i < R; i++) p[i] = broadcast(levels + (first + i) * stride);
    if (isFull) TOGETHER(p);
    UNROLL for (int i = 0; i < 4 && first + i < R; i++) p[i] = products(w, p[i], bits);
    if (isFull) TOGETHER(p);
    UNROLL for (int i = 0; i < 4 && first + i < R; i++) sums[first + i] = addProducts(sums[first + i], p[i], bits);
  }
}

/**
 * R rows: a register of a strip in order has four levels of each column, so that its products with four of x are the columns' own. With 4 bits
 * it has eight: in the low halves of the bytes even levels, in the high halves odd ones.
 */
INLINE void multiplyRows(const struct Run *run, const struct Strip *at, int64_t row, int64_t first, int64_t count, const int bits, const int R) {
  const int64_t spans = run->kernel->spans, stride = rowBytes(run->kernel), bytes = strip * span * bits / 8;
  const int8_t *x = run->levels + row * stride;
  const __m256i low = _mm256_set1_epi8(15);
  __m256 result[mostRows];
  UNROLL for (int r = 0; r < R; r++) result[r] = _mm256_setzero_ps();
  for (int64_t s = 0; s < spans; s++) {
    const uint8_t *weights = at->ordered + s * bytes;
    const int8_t *levels = x + levelAt(s, 0, bits);
    if (row == 0) prefetch(weights + spans * bytes, bytes);
    __m256i sums[mostRows];
    UNROLL for (int r = 0; r < R; r++) sums[r] = begin(run, at, s, (row + r) * spans + s, bits);
    // Unrolled, there would be more values to keep than registers.
    _Pragma("clang loop unroll(disable)") for (int64_t g = 0; g < bytes; g += strip * 4) {
      const __m256i w = load(weights + g);
      if (bits == 8) {
        addRows(sums, levels + g / strip, stride, w, 8, R);
      } else {
        addRows(sums, levels + g / strip, stride, _mm256_and_si256(w, low), 4, R);
        addRows(sums, levels + g / strip + span, stride, _mm256_and_si256(_mm256_srli_epi16(w, 4), low), 4, R);
      }
    }
    UNROLL for (int r = 0; r < R; r++) result[r] = accumulate(run, at, s, (row + r) * spans + s, sums[r], result[r], bits);
  }
  UNROLL for (int r = 0; r < R; r++) store(run, row + r, first, count, result[r]);
}

/** Eight registers of eight 32-bit values, rows and columns exchanged. */
INLINE void transpose(__m256i v[strip]) {
  __m256i t[strip], u[strip];
  UNROLL for (int i = 0; i < strip; i += 2) {
    t[i] = _mm256_unpacklo_epi32(v[i], v[i + 1]);
    t[i + 1] = _mm256_unpackhi_epi32(v[i], v[i + 1]);
  }
  UNROLL for (int i = 0; i < strip; i += 4) {
    u[i] = _mm256_unpacklo_epi64(t[i], t[i + 2]);
    u[i + 1] = _mm256_unpackhi_epi64(t[i], t[i + 2]);
    u[i + 2] = _mm256_unpacklo_epi64(t[i + 1], t[i + 3]);
    u[i + 3] = _mm256_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  UNROLL for (int i = 0; i < 4; i++) {
    v[i] = _mm256_permute2x128_si256(u[i], u[i + 4], 0x20);
    v[i + 4] = _mm256_permute2x128_si256(u[i], u[i + 4], 0x31);
  }
}

/** Eight 32-bit values of each column, rows and columns exchanged: [8, strip]. The highest bits of bytes are turned by `by`. */
INLINE void exchange(const uint8_t *const column[strip], int64_t offset, uint8_t *to, const int by) {
  __m256i v[strip];
  UNROLL for (int c = 0; c < strip; c++) v[c] = _mm256_xor_si256(load(column[c] + offset), _mm256_set1_epi8((char)by));
  transpose(v);
  UNROLL for (int i = 0; i < 8; i++) _mm256_storeu_si256((__m256i *)(to + 4 * strip * i), v[i]);
}
