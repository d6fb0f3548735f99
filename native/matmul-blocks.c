// x W^T with W in blocks of 4 or 8 bits, for x86 processors that have AVX2 and no instruction for products of bytes (VNNI). A custom operator
// of ONNX Runtime, longwave.MatMulBlocks; it reads the blocks as MatMulNBits has them, where they lie, and beside them, where there are, what is
// added to all values of a block (offsets). Of weights that never change it may keep a copy in the order in which it multiplies (attribute
// `keeps`), which it makes strip by strip in the calls from the second to the ninth: all at once would hold the first token up.
//
// A row of x is rounded to int8 in blocks of 32 with scale max |x| / 127, which is what MatMulNBits does at accuracy_level 4. Products within
// a block are integers: exact with 4 bits; with 8 bits the sum of two neighbouring products is rounded to a multiple of 8, for which 16 bits are
// enough to the end of a block. Its error (2.3, root mean square) is about a tenth of what rounding x makes there, and independent of it, so that
// both together are half a percent larger. Blocks are added in float32 in their order: a row of the result is the same to the bit whatever the
// number of rows and threads.
#include "ort.h"

// ---- the product ---------------------------------------------------------------------------------------------------------------------

/** Values with one scale in a row of x; columns of a strip, one to each float of a register; rows of x that a thread rounds at a time. */
enum { span = 32, strip = 8, rowsOfATask = 16 };

/** From how many rows on a strip that is not kept is put in order first: that costs about as much as two rows. */
enum { orderedFrom = 4 };

/** Calls over which keeping strips is spread, and the number of uses that stands for a strip that is kept. */
enum { keepingCalls = 8, isKept = 255 };

/** Rows that are multiplied with a strip at a time: their sums fill half the registers. */
enum { mostRows = 8 };

struct Kernel {
  Api api;
  void *allocator;
  int64_t bits, inner, columns, shift, tasks;
  /** Spans of a row, padding included, and blocks, which have 2^shift spans each. */
  int64_t spans, blocks;
  /** Strips in order [strips, spans, `orderedBytes`], and how often each was used until it was kept; NULL where none are kept. */
  uint8_t *kept, *uses;
};

/**
 * One run: the operands, and x rounded to levels [rows, spans, 32] with what belongs to a span [rows, spans]: its scale, what its levels sum
 * to (see `sumsOfLevels`), and, where blocks have offsets, what its values sum to.
 */
struct Run {
  const struct Kernel *kernel;
  const float *x;
  const uint8_t *packed;
  const float *scales;
  const uint8_t *zeroPoints;
  const float *offsets;
  float *y;
  int64_t rows, tasks;
  int8_t *levels;
  float *rowScales;
  int32_t *levelSums;
  float *valueSums;
  uint8_t *scratch;
};

/**
 * What a task keeps of its strip: scales and offsets [spans, 8], levels in order, and zero points [spans, 8]: with 8 bits as `levelsOf` moves
 * them, with 4 bits twice, in both halves of the value.
 */
struct Strip {
  float *scales, *offsets;
  int32_t *zeros;
  uint8_t *ordered;
};
enum { scratchOfASpan = strip * (2 * sizeof(float) + sizeof(int32_t) + span) };

INLINE float sumOf(__m256 v) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

INLINE int32_t sumOfInts(__m256i v) {
  __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

/** A mask of the first `count` of eight lanes; a negative count is none. */
INLINE __m256i firstLanes(int64_t count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32((int32_t)count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

INLINE __m256i broadcast(const int8_t *four) { return _mm256_castps_si256(_mm256_broadcast_ss((const float *)four)); }
INLINE __m256i load(const void *at) { return _mm256_loadu_si256((const __m256i *)at); }

/** Even bytes, then odd ones. */
INLINE __m256i evenFirst(__m256i v) {
  const __m256i split = _mm256_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15, 0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
  return _mm256_permute4x64_epi64(_mm256_shuffle_epi8(v, split), 0xd8);
}

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

/**
 * Rounds 32 values, of which `count` are there and the rest is 0. One that is not finite makes the scale NaN, and with it the row of the result.
 * Levels of 8 bits are negative in the first four, the third, and so on.
 */
INLINE void roundSpan(const struct Run *run, const float *x, int64_t count, int64_t row, int64_t s) {
  const struct Kernel *k = run->kernel;
  const __m256 signBit = _mm256_set1_ps(-0.0f);
  __m256 v[4], top = _mm256_setzero_ps(), finite = _mm256_setzero_ps();
  UNROLL for (int i = 0; i < 4; i++) {
    if (count >= span) v[i] = _mm256_loadu_ps(x + 8 * i);
    else v[i] = _mm256_maskload_ps(x + 8 * i, firstLanes(count - 8 * i));
    top = _mm256_max_ps(top, _mm256_andnot_ps(signBit, v[i]));
    finite = _mm256_fmadd_ps(v[i], _mm256_setzero_ps(), finite);
  }
  __m128 t = _mm_max_ps(_mm256_castps256_ps128(top), _mm256_extractf128_ps(top, 1));
  t = _mm_max_ps(t, _mm_movehl_ps(t, t));
  const float largest = _mm_cvtss_f32(_mm_max_ss(t, _mm_movehdup_ps(t)));
  const float factor = largest > 1e-36f ? 127.0f / largest : 0.0f;
  const float scale = largest / 127.0f + sumOf(finite);
  __m256i q[4];
  UNROLL for (int i = 0; i < 4; i++) q[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], _mm256_set1_ps(factor)));
  const int64_t at = row * k->spans + s;
  run->rowScales[at] = scale;
  if (run->offsets != NULL) run->valueSums[at] = sumOf(_mm256_add_ps(_mm256_add_ps(v[0], v[1]), _mm256_add_ps(v[2], v[3])));
  // Packing goes by halves of the register: the order is mended behind it.
  __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
  bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
  int8_t *levels = run->levels + row * rowBytes(k);
  if (k->bits == 8) {
    if (run->zeroPoints != NULL) run->levelSums[at] = sumsOfLevels(run, bytes, 8);
    _mm256_storeu_si256((__m256i *)(levels + levelAt(s, 0, 8)), _mm256_sign_epi8(bytes, _mm256_set1_epi64x(0x01010101ffffffff)));
  } else {
    bytes = evenFirst(bytes);
    run->levelSums[at] = sumsOfLevels(run, bytes, 4);
    _mm_storeu_si128((__m128i *)(levels + levelAt(s, 0, 4)), _mm256_castsi256_si128(bytes));
    _mm_storeu_si128((__m128i *)(levels + levelAt(s, 4, 4)), _mm256_extracti128_si256(bytes, 1));
  }
}

static void roundRows(void *state, size_t task) {
  const struct Run *run = state;
  const struct Kernel *k = run->kernel;
  const int64_t first = (int64_t)task * rowsOfATask;
  for (int64_t row = first; row < run->rows && row < first + rowsOfATask; row++) {
    const float *x = run->x + row * k->inner;
    if (k->bits == 4 && (k->spans & 1)) {
      UNROLL for (int half = 0; half < 8; half += 4)
        _mm_storeu_si128((__m128i *)(run->levels + row * rowBytes(k) + levelAt(k->spans, half, 4)), _mm_setzero_si128());
    }
    for (int64_t s = 0; s < k->spans; s++) {
      const int64_t left = k->inner - s * span;
      if (left >= span) roundSpan(run, x + s * span, span, row, s);
      else roundSpan(run, x + s * span, left, row, s);
    }
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

/** With 8 bits every other four of x are negative (see `roundSpan`) and are subtracted: as much is rounded up as down. */
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

/**
 * A strip's columns are eight short runs of memory, read side by side, and the processor does not see where that goes. So a part of the next
 * strip is asked for while a span is multiplied, in the order of memory and past the second-level cache: it is needed once.
 */
INLINE void prefetch(const void *from, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) _mm_prefetch((const char *)from + i, _MM_HINT_NTA);
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

/** Bytes of a span of a strip in order. */
INLINE int64_t orderedBytes(int64_t bits) { return strip * span * bits / 8; }

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
  const int64_t spans = run->kernel->spans, stride = rowBytes(run->kernel), bytes = orderedBytes(bits);
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

/** Values of the strip's blocks [8, blocks] as [spans, 8]. */
static void readBlocks(const struct Kernel *k, const float *values, float *to, const int64_t columns[strip]) {
  int64_t s = 0;
  for (; k->shift == 0 && s + 8 <= k->spans; s += 8) {
    __m256i v[strip];
    UNROLL for (int c = 0; c < strip; c++) v[c] = load(values + columns[c] * k->blocks + s);
    transpose(v);
    UNROLL for (int i = 0; i < strip; i++) _mm256_storeu_si256((__m256i *)(to + (s + i) * strip), v[i]);
  }
  for (; s < k->spans; s++)
    for (int c = 0; c < strip; c++) to[s * strip + c] = values[columns[c] * k->blocks + (s >> k->shift)];
}

static void readZeros(const struct Run *run, int32_t *zeros, const int64_t columns[strip]) {
  const struct Kernel *k = run->kernel;
  for (int64_t s = 0; s < k->spans; s++) {
    const int64_t block = s >> k->shift;
    for (int c = 0; c < strip; c++) {
      zeros[s * strip + c] = k->bits == 8
        ? run->zeroPoints[columns[c] * k->blocks + block] - 128
        : ((run->zeroPoints[columns[c] * ((k->blocks + 1) / 2) + block / 2] >> (4 * (block & 1))) & 15) * 0x10001;
    }
  }
}

/** Columns' levels as `multiplyRows` reads them: each register has a group of four of every column, or two groups of 4 bits. */
INLINE void orderStrip(const struct Kernel *k, const uint8_t *const column[strip], uint8_t *ordered, const int bits) {
  const int64_t bytes = bits * span / 8;
  for (int64_t s = 0; s < k->spans; s++) {
    __m256i v[strip];
    prefetch(column[0] + strip * (k->spans + s) * bytes, strip * bytes);
    UNROLL for (int c = 0; c < strip; c++) v[c] = levelsOf(column[c] + s * bytes, bits);
    transpose(v);
    if (bits == 4) UNROLL for (int g = 0; g < 4; g++) v[g] = _mm256_or_si256(v[g], _mm256_slli_epi16(v[g + 4], 4));
    UNROLL for (int g = 0; g < bits; g++) _mm256_storeu_si256((__m256i *)(ordered + s * orderedBytes(bits) + g * span), v[g]);
  }
}

/** The strip in order: kept, or to be kept if it is its turn; NULL if not yet. Runs at the same time may both make it: they write the same bytes. */
INLINE uint8_t *keptStrip(const struct Kernel *k, int64_t index, const uint8_t *const column[strip], const int bits) {
  if (k->kept == NULL) return NULL;
  uint8_t *ordered = k->kept + index * k->spans * orderedBytes(bits);
  const uint8_t uses = __atomic_load_n(k->uses + index, __ATOMIC_ACQUIRE);
  if (uses == isKept) return ordered;
  const int isTurn = uses > index % keepingCalls;
  if (isTurn) orderStrip(k, column, ordered, bits);
  __atomic_store_n(k->uses + index, isTurn ? isKept : uses + 1, __ATOMIC_RELEASE);
  return isTurn ? ordered : NULL;
}

INLINE void multiplyStrip(const struct Run *run, const struct Strip *scratch, int64_t index, const int bits) {
  const struct Kernel *k = run->kernel;
  const int64_t first = index * strip, bytes = bits * span / 8;
  const int64_t count = k->columns - first < strip ? k->columns - first : strip;
  int64_t columns[strip];
  const uint8_t *column[strip];
  // Beyond the last column, that one again: what it gives is not stored.
  UNROLL for (int c = 0; c < strip; c++) {
    columns[c] = first + (c < count ? c : count - 1);
    column[c] = run->packed + columns[c] * k->spans * bytes;
  }
  const int64_t next = (first + strip) * k->blocks, blockBytes = strip * k->blocks * (int64_t)sizeof(float);
  readBlocks(k, run->scales, scratch->scales, columns);
  prefetch(run->scales + next, blockBytes);
  if (run->offsets != NULL) {
    readBlocks(k, run->offsets, scratch->offsets, columns);
    prefetch(run->offsets + next, blockBytes);
  }
  if (run->zeroPoints != NULL) readZeros(run, scratch->zeros, columns);
  uint8_t *kept = keptStrip(k, index, column, bits);
  const struct Strip here = {scratch->scales, scratch->offsets, scratch->zeros, kept != NULL ? kept : scratch->ordered}, *at = &here;
  if (kept == NULL && run->rows < orderedFrom) {
    for (int64_t row = 0; row < run->rows; row++)
      store(run, row, first, count, bits == 8 ? multiplyRow8(run, at, column, row) : multiplyRow4(run, at, column, row));
    return;
  }
  if (kept == NULL) orderStrip(k, column, at->ordered, bits);
  int64_t row = 0;
  for (; row + mostRows <= run->rows; row += mostRows) multiplyRows(run, at, row, first, count, bits, mostRows);
  switch (run->rows - row) {
    case 7: return multiplyRows(run, at, row, first, count, bits, 7);
    case 6: return multiplyRows(run, at, row, first, count, bits, 6);
    case 5: return multiplyRows(run, at, row, first, count, bits, 5);
    case 4: return multiplyRows(run, at, row, first, count, bits, 4);
    case 3: return multiplyRows(run, at, row, first, count, bits, 3);
    case 2: return multiplyRows(run, at, row, first, count, bits, 2);
    case 1: return multiplyRows(run, at, row, first, count, bits, 1);
  }
}

/** A task computes neighbouring columns. */
static void multiply(void *state, size_t task) {
  const struct Run *run = state;
  const struct Kernel *k = run->kernel;
  const int64_t strips = (k->columns + strip - 1) / strip;
  float *scales = (float *)(run->scratch + (int64_t)task * k->spans * scratchOfASpan), *offsets = scales + k->spans * strip;
  int32_t *zeros = (int32_t *)(offsets + k->spans * strip);
  const struct Strip at = {scales, offsets, zeros, (uint8_t *)(zeros + k->spans * strip)};
  for (int64_t i = strips * (int64_t)task / run->tasks; i < strips * ((int64_t)task + 1) / run->tasks; i++) {
    if (k->bits == 8) multiplyStrip(run, &at, i, 8);
    else multiplyStrip(run, &at, i, 4);
  }
}

// ---- the operator --------------------------------------------------------------------------------------------------------------------

static Status inputData(Api api, void *context, size_t index, size_t bytes, const void **data) {
  const void *value = NULL;
  size_t size = 0;
  RETURN_IF(inputValue(api, context, index, &value));
  *data = NULL;
  if (value == NULL) return NULL;
  RETURN_IF(valueBytes(api, value, &size));
  if (bytes != 0 && size != bytes) return refuse(api, "MatMulBlocks: an input has another size than its attributes say");
  return valueData(api, value, (void **)data);
}

static Status compute(void *kernel, void *context) {
  const struct Kernel *k = kernel;
  const Api api = k->api;
  struct Run run = {0};
  run.kernel = k;
  const size_t levels = (size_t)(k->columns * k->spans * span), blocks = (size_t)(k->columns * k->blocks);
  const size_t zeroRow = (size_t)(k->bits == 8 ? k->blocks : (k->blocks + 1) / 2);
  size_t inputs = 0;
  RETURN_IF(inputCountOf(api, context, &inputs));
  RETURN_IF(inputData(api, context, 1, levels * (size_t)k->bits / 8, (const void **)&run.packed));
  RETURN_IF(inputData(api, context, 2, blocks * sizeof(float), (const void **)&run.scales));
  if (inputs > 3) RETURN_IF(inputData(api, context, 3, (size_t)k->columns * zeroRow, (const void **)&run.zeroPoints));
  if (inputs > 4) RETURN_IF(inputData(api, context, 4, blocks * sizeof(float), (const void **)&run.offsets));

  // The shape of x with another last dimension.
  const void *x = NULL;
  int64_t dims[highestRank];
  size_t rank = 0;
  RETURN_IF(inputValue(api, context, 0, &x));
  RETURN_IF(valueShape(api, x, dims, &rank));
  if (rank < 1 || rank > highestRank || dims[rank - 1] != k->inner) return refuse(api, "MatMulBlocks: expected rows of K values");
  run.rows = 1;
  for (size_t i = 0; i + 1 < rank; i++) run.rows *= dims[i];
  dims[rank - 1] = k->columns;
  RETURN_IF(outputData(api, context, 0, dims, rank, (void **)&run.y));
  RETURN_IF(valueData(api, x, (void **)&run.x));
  if (run.rows == 0) return NULL;

  const int64_t strips = (k->columns + strip - 1) / strip;
  run.tasks = strips < k->tasks ? strips : k->tasks;
  const int64_t spans = run.rows * k->spans;
  const int64_t levelBytes = run.rows * rowBytes(k);
  const int64_t bytes = levelBytes + spans * (int64_t)(2 * sizeof(float) + sizeof(int32_t)) + run.tasks * k->spans * scratchOfASpan;
  RETURN_IF(allocate(api, k->allocator, bytes, (void **)&run.scratch));
  run.levels = (int8_t *)run.scratch + run.tasks * k->spans * scratchOfASpan;
  run.rowScales = (float *)(run.levels + levelBytes);
  run.levelSums = (int32_t *)(run.rowScales + spans);
  run.valueSums = (float *)(run.levelSums + spans);
  Status status = parallel(api, context, roundRows, (run.rows + rowsOfATask - 1) / rowsOfATask, &run, k->tasks == 1);
  if (status == NULL) status = parallel(api, context, multiply, run.tasks, &run, k->tasks == 1);
  const Status freed = release(api, k->allocator, run.scratch);
  if (status == NULL) return freed;
  forget(api, freed);
  return status;
}

static Status createKernel(const struct CustomOp *op, Api api, const void *info, void **kernel) {
  (void)op;
  struct Kernel made = {0}, *k = NULL;
  int64_t blockSize = 0, keeps = 0;
  made.api = api;
  RETURN_IF(attribute(api, info, "bits", &made.bits));
  RETURN_IF(attribute(api, info, "K", &made.inner));
  RETURN_IF(attribute(api, info, "N", &made.columns));
  RETURN_IF(attribute(api, info, "block_size", &blockSize));
  RETURN_IF(attribute(api, info, "tasks", &made.tasks));
  RETURN_IF(attribute(api, info, "keeps", &keeps));
  while (made.shift < 16 && span << made.shift < blockSize) made.shift++;
  if ((made.bits != 4 && made.bits != 8) || span << made.shift != blockSize || made.inner < 1 || made.columns < 1 || made.tasks < 1)
    return refuse(api, "MatMulBlocks: expected 4 or 8 bits, a block_size of 32 times a power of two, and K, N and tasks of at least 1");
  made.blocks = (made.inner + blockSize - 1) / blockSize;
  made.spans = made.blocks << made.shift;
  RETURN_IF(openAllocator(api, info, &made.allocator));
  const Status status = allocate(api, made.allocator, sizeof made, (void **)&k);
  if (status != NULL) {
    closeAllocator(api, made.allocator);
    return status;
  }
  if (keeps != 0) {
    const int64_t strips = (made.columns + strip - 1) / strip, bytes = strips * made.spans * orderedBytes(made.bits);
    uint8_t *memory = NULL;
    const Status refused = allocate(api, made.allocator, bytes + strips, (void **)&memory);
    if (refused == NULL) {
      made.kept = memory;
      made.uses = memory + bytes;
      for (int64_t i = 0; i < strips; i++) __atomic_store_n(made.uses + i, 0, __ATOMIC_RELAXED);
    } else {
      // It works without, slower.
      forget(api, refused);
    }
  }
  *k = made;
  *kernel = k;
  return NULL;
}

static void destroyKernel(void *kernel) {
  const struct Kernel k = *(struct Kernel *)kernel;
  if (k.kept != NULL) forget(k.api, release(k.api, k.allocator, k.kept));
  forget(k.api, release(k.api, k.allocator, kernel));
  closeAllocator(k.api, k.allocator);
}

static const char *name(const struct CustomOp *op) { return (void)op, "MatMulBlocks"; }
static int inputType(const struct CustomOp *op, size_t index) { return (void)op, index == 1 || index == 3 ? elementUint8 : elementFloat; }
static size_t inputCount(const struct CustomOp *op) { return (void)op, 5; }
static size_t outputCount(const struct CustomOp *op) { return (void)op, 1; }
static int inputKind(const struct CustomOp *op, size_t index) { return (void)op, index >= 3 ? optional : required; }

static const struct CustomOp matmulBlocks = {
  17, NULL, name, anyProvider, inputType, inputCount, floatOutput, outputCount, NULL, destroyKernel, inputKind, requiredOutput, defaultMemory,
  one, no, one, no, createKernel, compute, NULL, one, one,
};

EXPORTED const void *longwave_matmul_blocks(void) { return &matmulBlocks; }
