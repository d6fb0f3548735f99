// The product of a strip with AVX-512 and its instruction that adds four products of bytes to 32 bits (VNNI): exact. Weights are read as they
// are, from 0 on; what zero points take away is in the sums from the beginning.
#pragma once

/** Columns of a strip, one to each float of a register. */
enum { strip = 16 };

/** Rows that are multiplied with a strip at a time: enough sums to keep the multipliers busy, and as many results beside them. */
enum { mostRows = 8 };

/** By how much levels of 8 bits are moved. */
enum { moved = 0 };

/** A zero point as `begin` multiplies with it. */
INLINE int32_t zeroOf(int32_t zero, const int bits) { return (void)bits, zero; }

INLINE __m512i loadWide(const void *at) { return _mm512_loadu_si512(at); }

/** Bytes of the levels of a row. */
INLINE int64_t rowBytes(const struct Kernel *k) { return k->spans * span; }

/** Levels of x, with 4 bits even ones first as they come out of the bytes of w, and their sum, negative, times the zero point where all have one. */
INLINE void storeLevels(const struct Run *run, __m256i bytes, int64_t row, int64_t s) {
  const struct Kernel *k = run->kernel;
  const int64_t at = row * k->spans + s;
  const int32_t sum = sumOfInts(_mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes), _mm256_set1_epi16(1)));
  run->levelSums[at] = run->zeroPoints == NULL ? -sum * (1 << (k->bits - 1)) : -sum;
  _mm256_storeu_si256((__m256i *)(run->levels + at * span), k->bits == 4 ? evenFirst(bytes) : bytes);
}

/** What sums of one span begin with. */
INLINE __m512i begin(const struct Run *run, const struct Strip *at, int64_t s, int64_t rowSpan) {
  const __m512i levelSums = _mm512_set1_epi32(run->levelSums[rowSpan]);
  return run->zeroPoints == NULL ? levelSums : _mm512_mullo_epi32(levelSums, loadWide(at->zeros + s * strip));
}

/** A strip's sums of one span into the result so far. */
INLINE __m512 accumulate(const struct Run *run, const struct Strip *at, int64_t s, int64_t rowSpan, __m512i sums, __m512 result) {
  const __m512 scale = _mm512_mul_ps(_mm512_set1_ps(run->rowScales[rowSpan]), _mm512_loadu_ps(at->scales + s * strip));
  result = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums), scale, result);
  if (run->offsets == NULL) return result;
  return _mm512_fmadd_ps(_mm512_set1_ps(run->valueSums[rowSpan]), _mm512_loadu_ps(at->offsets + s * strip), result);
}

/** Four levels of each column times those of R rows, added to the rows' sums. */
INLINE void addRows(__m512i sums[mostRows], const int8_t *levels, int64_t stride, __m512i w, const int R) {
  UNROLL for (int r = 0; r < R; r++) sums[r] = _mm512_dpbusd_epi32(sums[r], w, _mm512_set1_epi32(*(const Levels *)(levels + r * stride)));
}

/** Exchanging columns and rows costs no more than adding up within columns would: a strip is always put in order. */
INLINE int multiplyInPlace(const struct Run *run, const struct Strip *at, const uint8_t *const column[strip], int64_t first, int64_t count, const int bits) {
  return (void)run, (void)at, (void)column, (void)first, (void)count, (void)bits, 0;
}

/**
 * R rows: a register of a strip in order has four levels of each column, so that its products with four of x are the columns' own. With 4 bits
 * it has eight: in the low halves of the bytes even levels, in the high halves odd ones.
 */
INLINE void multiplyRows(const struct Run *run, const struct Strip *at, int64_t row, int64_t first, int64_t count, const int bits, const int R) {
  const int64_t spans = run->kernel->spans, stride = rowBytes(run->kernel), bytes = strip * span * bits / 8;
  const int8_t *x = run->levels + row * stride;
  const __m512i low = _mm512_set1_epi32(0x0f0f0f0f);
  __m512 result[mostRows];
  UNROLL for (int r = 0; r < R; r++) result[r] = _mm512_setzero_ps();
  for (int64_t s = 0; s < spans; s++) {
    const uint8_t *weights = at->ordered + s * bytes;
    const int8_t *levels = x + s * span;
    if (row == 0) prefetch(weights + spans * bytes, bytes);
    __m512i sums[mostRows];
    UNROLL for (int r = 0; r < R; r++) sums[r] = begin(run, at, s, (row + r) * spans + s);
    UNROLL for (int g = 0; g < bits; g++) {
      const __m512i w = loadWide(weights + 4 * strip * g);
      if (bits == 8) {
        addRows(sums, levels + 4 * g, stride, w, R);
      } else {
        addRows(sums, levels + 4 * g, stride, _mm512_and_si512(w, low), R);
        addRows(sums, levels + 4 * g + span / 2, stride, _mm512_and_si512(_mm512_srli_epi32(w, 4), low), R);
      }
    }
    UNROLL for (int r = 0; r < R; r++) result[r] = accumulate(run, at, s, (row + r) * spans + s, sums[r], result[r]);
  }
  const __mmask16 isThere = (__mmask16)((1u << count) - 1);
  UNROLL for (int r = 0; r < R; r++) _mm512_mask_storeu_ps(run->y + (row + r) * run->kernel->columns + first, isThere, result[r]);
}

/** Eight 32-bit values of each column, rows and columns exchanged: [8, strip]. */
INLINE void exchange(const uint8_t *const column[strip], int64_t offset, uint8_t *to, const int by) {
  (void)by;
  __m512i v[8], t[8], u[8];
  // The last step takes the lower halves of eight columns and the upper ones of eight: these are the pairs with which columns end in their order.
  UNROLL for (int i = 0; i < 8; i++) {
    const int c = i < 4 ? i : i + 4;
    v[i] = _mm512_inserti64x4(_mm512_castsi256_si512(load(column[c] + offset)), load(column[c + 4] + offset), 1);
  }
  UNROLL for (int i = 0; i < 8; i += 2) {
    t[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
  }
  UNROLL for (int i = 0; i < 8; i += 4) {
    u[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    u[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    u[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    u[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  UNROLL for (int i = 0; i < 4; i++) {
    _mm512_storeu_si512(to + 4 * strip * i, _mm512_shuffle_i64x2(u[i], u[i + 4], 0x88));
    _mm512_storeu_si512(to + 4 * strip * (i + 4), _mm512_shuffle_i64x2(u[i], u[i + 4], 0xdd));
  }
}
