// Causal attention of new tokens over a cache of keys and values, several query heads to each head of the cache (Ainslie et al. 2023), for x86
// processors that have AVX2. A custom operator of ONNX Runtime, longwave.GroupedAttention; its inputs are those of GroupQueryAttention.
//
// Keys are cut into chunks of 64 places of the cache. A chunk is put in order once for all queries of its head, which gives each query a
// largest score, a sum of exponentials and a mix of values; chunks are then put together (softmax by parts: Milakov & Gimelshein 2018; by parts
// of the keys: Dao et al. 2023, Flash-Decoding). Chunks lie at the same places whatever the call, and every sum has one order: a row of the
// result is the same to the bit whatever the number of rows and threads, as long as values are finite (0 times another is not 0).
#include "ort.h"

/** Places of the cache in a chunk; rows of queries that are multiplied at a time; the widest head. */
enum { chunk = 64, mostRows = 6, widest = 256 };

/**
 * New tokens go through in groups: all chunks for these, then the chunks together. More tokens share the work of putting keys in order, fewer
 * take less memory for what chunks give; groups shrink to keep that below `mixedBytes`, but not below `fewestTokens`.
 */
enum { mostTokens = 32, fewestTokens = 4, mixedBytes = 8 << 20 };

/** Tokens that one task turns; multiplications below which other threads are not worth waking. */
enum { tokensOfATask = 16, smallWork = 1 << 16 };

/** Scores below it count as masked: it can be subtracted from itself, and −∞ from which it is subtracted stays. */
static const float lowest = -3.0e38f;

/** Bounds of attributes, so that no product of sizes overflows. */
enum { mostHeads = 1 << 16, mostTasks = 1 << 12 };

struct Kernel {
  Api api;
  void *allocator;
  /** Heads of queries and of the cache; keys that a query sees, itself included, or −1; parts into which work is cut for threads. */
  int64_t heads, groups, window, tasks;
  /** Of scores; 0 is 0. */
  float scale;
};

/** One run. Letters: B batch, S new tokens, G heads of the cache, J query heads to each, D width of a head. */
struct Run {
  const struct Kernel *kernel;
  /** Of token s in row b: D values a head; `stride` floats from one token to the next. */
  const float *query, *key, *value;
  int64_t queryStride, keyStride;
  /** [B, G, capacity, D] */
  float *keys, *values;
  /** [B, S, G·J·D] */
  float *output;
  /** [tableRows, half]; NULL: queries and keys are as they shall be. */
  const float *cosines, *sines;
  int64_t half, tableRows;
  /** [B, S], and [B or 1, G·J or 1, S, biasColumns] with strides of 0 where it is 1; NULL: none. */
  const int64_t *positions;
  const float *bias;
  int64_t biasOfRow, biasOfHead, biasColumns;
  /** [B]: places that are taken when the call is over, less one. */
  const int32_t *lengths;
  int64_t batch, tokens, shared, width, capacity;
  /** No row of the batch has a past; `lengths` are then those of the rows without their padding, and not needed. */
  int isFirst;

  /** [B, G, S, J, D], turned and scaled. */
  float *queries;
  /** Of the tokens from `from` to `to`, what `chunks` chunks from `skipped` on give: [B, G, chunks, tokens, J, D], largest scores and sums […, 2]. */
  int64_t from, to, skipped, chunks;
  float *mixed, *sums;
  int64_t tasks;
};

INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
INLINE int64_t pastOf(const struct Run *run, int64_t b) { return run->isFirst ? 0 : (int64_t)run->lengths[b] + 1 - run->tokens; }
/** The chunk of the first place that a token sees. */
INLINE int64_t firstChunk(const struct Run *run, int64_t place) {
  return run->kernel->window < 0 ? 0 : larger(place - run->kernel->window + 1, 0) / chunk;
}
INLINE float *rowsOf(float *cache, const struct Run *run, int64_t b, int64_t g) {
  return cache + (b * run->kernel->groups + g) * run->capacity * run->width;
}

// ---- new tokens: queries turned and scaled, keys turned and written, values written (Su et al. 2021, in halves)

INLINE void turnHead(const struct Run *run, const float *from, float *to, int64_t position, float scale) {
  const int64_t half = run->half;
  const float *cosines = run->cosines + position * half, *sines = run->sines + position * half;
  const __m256 factor = _mm256_set1_ps(scale);
  int64_t i = 0;
  for (; i < half; i += 8) {
    const __m256 low = _mm256_loadu_ps(from + i), high = _mm256_loadu_ps(from + half + i);
    const __m256 c = _mm256_loadu_ps(cosines + i), s = _mm256_loadu_ps(sines + i);
    _mm256_storeu_ps(to + i, _mm256_mul_ps(factor, _mm256_sub_ps(_mm256_mul_ps(low, c), _mm256_mul_ps(high, s))));
    _mm256_storeu_ps(to + half + i, _mm256_mul_ps(factor, _mm256_add_ps(_mm256_mul_ps(high, c), _mm256_mul_ps(low, s))));
  }
  for (i = 2 * half; i < run->width; i += 8) _mm256_storeu_ps(to + i, _mm256_mul_ps(factor, _mm256_loadu_ps(from + i)));
}

static void turnTokens(void *state, size_t task) {
  const struct Run *run = state;
  const struct Kernel *k = run->kernel;
  const int64_t first = (int64_t)task * tokensOfATask, D = run->width;
  for (int64_t token = first; token < smaller(first + tokensOfATask, run->batch * run->tokens); token++) {
    const int64_t b = token / run->tokens, s = token % run->tokens;
    const int64_t place = pastOf(run, b) + s, position = run->positions == NULL ? place : run->positions[token];
    const float *query = run->query + token * run->queryStride, *key = run->key + token * run->keyStride;
    const float *value = run->value + token * run->keyStride;
    for (int64_t h = 0; h < k->heads; h++) {
      const int64_t g = h / run->shared, j = h % run->shared;
      turnHead(run, query + h * D, run->queries + (((b * k->groups + g) * run->tokens + s) * run->shared + j) * D, position, k->scale);
    }
    for (int64_t g = 0; g < k->groups; g++) {
      turnHead(run, key + g * D, rowsOf(run->keys, run, b, g) + place * D, position, 1.0f);
      float *to = rowsOf(run->values, run, b, g) + place * D;
      for (int64_t i = 0; i < D; i += 8) _mm256_storeu_ps(to + i, _mm256_loadu_ps(value + g * D + i));
    }
  }
}

// ---- a chunk of keys and values

/** e^x for x ≤ 0, within one unit in the last place or two; 0 below −87, NaN of NaN. */
INLINE __m256 exponential(__m256 x) {
  const __m256 kept = _mm256_cmp_ps(x, _mm256_set1_ps(-87.0f), _CMP_NLT_UQ);
  // The bound comes first: of a NaN the second operand is taken.
  x = _mm256_max_ps(_mm256_set1_ps(-87.0f), x);
  const __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  // ln 2 in two parts.
  __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), x);
  r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), r);
  __m256 p = _mm256_set1_ps(1.9875691500e-4f);
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.3981999507e-3f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(8.3334519073e-3f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(4.1665795894e-2f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.6666665459e-1f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(5.0000001201e-1f));
  p = _mm256_add_ps(_mm256_fmadd_ps(p, _mm256_mul_ps(r, r), r), _mm256_set1_ps(1.0f));
  const __m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
  return _mm256_and_ps(_mm256_mul_ps(p, _mm256_castsi256_ps(power)), kept);
}

INLINE float sumOf(__m256 v) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

INLINE float largestOf(__m256 v) {
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

/** Keys [count, D] to [D, 64]. Beyond the last one, that one again: its scores are masked. */
INLINE void orderKeys(const float *keys, int64_t count, int64_t D, float *ordered) {
  for (int64_t j = 0; j < count; j += 8) {
    const float *row[8];
    UNROLL for (int i = 0; i < 8; i++) row[i] = keys + smaller(j + i, count - 1) * D;
    for (int64_t d = 0; d < D; d += 8) {
      __m256 v[8], t[8], u[8];
      UNROLL for (int i = 0; i < 8; i++) v[i] = _mm256_loadu_ps(row[i] + d);
      UNROLL for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(v[i], v[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(v[i], v[i + 1]);
      }
      UNROLL for (int i = 0; i < 8; i += 4) {
        u[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
        u[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
        u[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        u[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
      }
      UNROLL for (int i = 0; i < 4; i++) {
        _mm256_storeu_ps(ordered + (d + i) * chunk + j, _mm256_permute2f128_ps(u[i], u[i + 4], 0x20));
        _mm256_storeu_ps(ordered + (d + i + 4) * chunk + j, _mm256_permute2f128_ps(u[i], u[i + 4], 0x31));
      }
    }
  }
}

/**
 * Memory that is needed next and asked for while a product is computed, an equal part with each step. It must be there: asking for a page that
 * is not costs a walk through the page tables each time.
 */
struct Ahead {
  const char *from;
  int64_t bytes;
};

/** R and N are known where it is inlined, and sums are registers. Products of R rows [R, inner] (from one to the next: `stride`) with a matrix [inner, 8 N] of rows `across` apart. */
INLINE void product(const float *rows, int64_t stride, const float *matrix, int64_t across, int64_t inner, float *to, int64_t toStride, const char *ahead, int64_t line, const int R, const int N) {
  __m256 sum[mostRows][4];
  UNROLL for (int r = 0; r < R; r++) UNROLL for (int n = 0; n < N; n++) sum[r][n] = _mm256_setzero_ps();
  for (int64_t i = 0; i < inner; i++) {
    __m256 m[4];
    _mm_prefetch(ahead + i * line, _MM_HINT_T0);
    UNROLL for (int n = 0; n < N; n++) m[n] = _mm256_loadu_ps(matrix + i * across + 8 * n);
    UNROLL for (int r = 0; r < R; r++) {
      const __m256 x = _mm256_broadcast_ss(rows + r * stride + i);
      UNROLL for (int n = 0; n < N; n++) sum[r][n] = _mm256_fmadd_ps(x, m[n], sum[r][n]);
    }
  }
  UNROLL for (int r = 0; r < R; r++) UNROLL for (int n = 0; n < N; n++) _mm256_storeu_ps(to + r * toStride + 8 * n, sum[r][n]);
}

/** A matrix of any width that is a multiple of 8; few rows take more of it at a time, so that sums do not wait for each other. */
INLINE void productOfAll(const float *rows, int64_t stride, const float *matrix, int64_t across, int64_t inner, int64_t columns, float *to, int64_t toStride, struct Ahead ahead, const int R) {
  const int N = R <= 2 ? 4 : 2;
  const int64_t steps = columns / (8 * N) * inner, line = ahead.bytes == 0 || steps == 0 ? 0 : ahead.bytes / steps;
  int64_t c = 0;
  for (; c + 8 * N <= columns; c += 8 * N) product(rows, stride, matrix + c, across, inner, to + c, toStride, ahead.from + c / (8 * N) * inner * line, line, R, N);
  for (; c < columns; c += 8) product(rows, stride, matrix + c, across, inner, to + c, toStride, ahead.from, 0, R, 1);
}

/** What belongs to a chunk while it is mixed: its head, its first place, how many of its places are taken. */
struct Part {
  int64_t b, g, first, count, past;
  /** Keys in order [D, 64], values, scores [6, 64]. */
  const float *keys, *values;
  float *scores;
  /** What has not been asked for: the values, and the keys of the next chunk. */
  struct Ahead valuesAhead, keysAhead;
};

/** Scores of one row to their exponentials, and their largest and sum. */
static __attribute__((noinline)) void soften(const struct Run *run, const struct Part *part, int64_t row, float *scores, float *sums) {
  const int64_t s = run->from + row / run->shared, head = part->g * run->shared + row % run->shared, window = run->kernel->window;
  // Places of the chunk that this row sees.
  const int64_t last = part->past + s - part->first, first = window < 0 ? 0 : last - window + 1;
  const int64_t columns = (part->count + 7) & ~(int64_t)7;
  const float *bias = run->bias;
  if (bias != NULL) bias += part->b * run->biasOfRow + head * run->biasOfHead + s * run->biasColumns + part->first;
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256i above = _mm256_set1_epi32((int32_t)smaller(last, chunk)), below = _mm256_set1_epi32((int32_t)larger(first, 0));
  __m256 top = _mm256_set1_ps(lowest);
  for (int64_t j = 0; j < columns; j += 8) {
    const __m256i at = _mm256_add_epi32(lane, _mm256_set1_epi32((int32_t)j));
    const __m256i hidden = _mm256_or_si256(_mm256_cmpgt_epi32(at, above), _mm256_cmpgt_epi32(below, at));
    __m256 v = _mm256_loadu_ps(scores + j);
    if (bias != NULL) v = _mm256_add_ps(v, _mm256_maskload_ps(bias + j, _mm256_cmpgt_epi32(_mm256_set1_epi32((int32_t)part->count), at)));
    v = _mm256_blendv_ps(v, _mm256_set1_ps(-__builtin_inff()), _mm256_castsi256_ps(hidden));
    _mm256_storeu_ps(scores + j, v);
    top = _mm256_max_ps(v, top);
  }
  const float largest = largestOf(top);
  __m256 sum = _mm256_setzero_ps();
  for (int64_t j = 0; j < columns; j += 8) {
    const __m256 e = exponential(_mm256_sub_ps(_mm256_loadu_ps(scores + j), _mm256_set1_ps(largest)));
    _mm256_storeu_ps(scores + j, e);
    sum = _mm256_add_ps(sum, e);
  }
  sums[0] = largest;
  sums[1] = sumOf(sum);
}

INLINE void mixRows(const struct Run *run, struct Part *part, int64_t row, const float *queries, float *mixed, float *sums, const int R) {
  // All of them come before the chunk: nothing of it is read.
  if (part->past + run->from + (row + R - 1) / run->shared < part->first) return;
  const int64_t D = run->width, columns = (part->count + 7) & ~(int64_t)7;
  productOfAll(queries + row * D, D, part->keys, chunk, D, columns, part->scores, chunk, part->valuesAhead, R);
  for (int r = 0; r < R; r++) soften(run, part, row + r, part->scores + r * chunk, sums + 2 * (row + r));
  productOfAll(part->scores, chunk, part->values, D, part->count, D, mixed + row * D, D, part->keysAhead, R);
  part->valuesAhead.bytes = part->keysAhead.bytes = 0;
}

/** A chunk's share of the result of all rows of its head. */
INLINE void mixChunk(const struct Run *run, int64_t unit) {
  const int64_t c = run->skipped + unit % run->chunks, g = unit / run->chunks % run->kernel->groups, b = unit / run->chunks / run->kernel->groups;
  const int64_t D = run->width, window = run->kernel->window, past = pastOf(run, b);
  const int64_t first = c * chunk, count = smaller(past + run->to - first, chunk), nextCount = smaller(past + run->to - first - chunk, chunk);
  if (count <= 0 || (window >= 0 && first + chunk <= past + run->from - window + 1)) return;
  const float *keys = rowsOf(run->keys, run, b, g) + first * D, *values = rowsOf(run->values, run, b, g) + first * D;
  const int64_t rowBytes = D * (int64_t)sizeof(float);
  float ordered[widest * chunk], scores[mostRows * chunk];
  orderKeys(keys, count, D, ordered);
  struct Part part = {b, g, first, count, past, ordered, values, scores, {(const char *)values, count * rowBytes}, {(const char *)values, 0}};
  if (nextCount > 0) part.keysAhead = (struct Ahead){(const char *)(keys + chunk * D), nextCount * rowBytes};
  const int64_t rows = (run->to - run->from) * run->shared;
  const float *queries = run->queries + ((b * run->kernel->groups + g) * run->tokens + run->from) * run->shared * D;
  float *mixed = run->mixed + unit * rows * D, *sums = run->sums + unit * rows * 2;
  int64_t row = 0;
  for (; row + mostRows <= rows; row += mostRows) mixRows(run, &part, row, queries, mixed, sums, mostRows);
  switch (rows - row) {
    case 5: return mixRows(run, &part, row, queries, mixed, sums, 5);
    case 4: return mixRows(run, &part, row, queries, mixed, sums, 4);
    case 3: return mixRows(run, &part, row, queries, mixed, sums, 3);
    case 2: return mixRows(run, &part, row, queries, mixed, sums, 2);
    case 1: return mixRows(run, &part, row, queries, mixed, sums, 1);
  }
}

static void mixChunks(void *state, size_t task) {
  const struct Run *run = state;
  const int64_t units = run->batch * run->kernel->groups * run->chunks, t = (int64_t)task;
  for (int64_t unit = units * t / run->tasks; unit < units * (t + 1) / run->tasks; unit++) mixChunk(run, unit);
}

// ---- the chunks together

INLINE void joinRow(const struct Run *run, int64_t b, int64_t g, int64_t row) {
  const int64_t rows = (run->to - run->from) * run->shared, D = run->width;
  const int64_t s = run->from + row / run->shared, place = pastOf(run, b) + s;
  const int64_t first = firstChunk(run, place) - run->skipped, last = place / chunk - run->skipped;
  const int64_t unit = (b * run->kernel->groups + g) * run->chunks;
  float *sums = run->sums + (unit * rows + row) * 2;
  const float *mixed = run->mixed + (unit * rows + row) * D;
  float largest = lowest;
  for (int64_t c = first; c <= last; c++) largest = sums[c * rows * 2] > largest ? sums[c * rows * 2] : largest;
  __m256 total = _mm256_setzero_ps();
  for (int64_t c = first; c <= last; c++) {
    float *at = sums + c * rows * 2;
    const __m256 weight = exponential(_mm256_sub_ps(_mm256_broadcast_ss(at), _mm256_set1_ps(largest)));
    total = _mm256_fmadd_ps(weight, _mm256_broadcast_ss(at + 1), total);
    at[0] = _mm256_cvtss_f32(weight);
  }
  // A row that sees nothing gets 0; NaN stays.
  const __m256 seesAny = _mm256_cmp_ps(total, _mm256_setzero_ps(), _CMP_NEQ_UQ);
  float *output = run->output + ((b * run->tokens + s) * run->kernel->heads + g * run->shared + row % run->shared) * D;
  for (int64_t d = 0; d < D; d += 8) {
    __m256 sum = _mm256_setzero_ps();
    for (int64_t c = first; c <= last; c++)
      sum = _mm256_fmadd_ps(_mm256_broadcast_ss(sums + c * rows * 2), _mm256_loadu_ps(mixed + c * rows * D + d), sum);
    _mm256_storeu_ps(output + d, _mm256_and_ps(_mm256_div_ps(sum, total), seesAny));
  }
}

static void joinRows(void *state, size_t task) {
  const struct Run *run = state;
  const int64_t rows = (run->to - run->from) * run->shared, groups = run->kernel->groups, all = run->batch * groups * rows, t = (int64_t)task;
  for (int64_t i = all * t / run->tasks; i < all * (t + 1) / run->tasks; i++) joinRow(run, i / rows / groups, i / rows % groups, i % rows);
}

// ---- the operator

enum { query, key, value, pastKey, pastValue, lengths, total, cosines, sines, positions, bias, inputs };

struct Input {
  int isGiven;
  void *data;
  int64_t dims[highestRank];
  size_t rank;
};

static Status readInputs(const struct Kernel *k, void *context, struct Input *in) {
  size_t count = 0;
  for (size_t i = 0; i < inputs; i++) {
    in[i].isGiven = 0;
    in[i].data = NULL;
    in[i].rank = 0;
  }
  RETURN_IF(inputCountOf(k->api, context, &count));
  for (size_t i = 0; i < inputs && i < count; i++) {
    const void *found = NULL;
    RETURN_IF(inputValue(k->api, context, i, &found));
    if (found == NULL) continue;
    in[i].isGiven = 1;
    RETURN_IF(valueShape(k->api, found, in[i].dims, &in[i].rank));
    if (in[i].rank > highestRank) return refuse(k->api, "GroupedAttention: an input has too many dimensions");
    RETURN_IF(valueData(k->api, found, &in[i].data));
  }
  return NULL;
}

INLINE int hasShape(const struct Input *in, size_t rank, int64_t a, int64_t b, int64_t c) {
  return in->isGiven && in->rank == rank && in->dims[0] == a && (rank < 2 || in->dims[1] == b) && (rank < 3 || in->dims[2] == c);
}

/** Null, or what does not fit. */
static const char *understand(struct Run *run, const struct Input *in) {
  const struct Kernel *k = run->kernel;
  if (in[query].rank != 3 || in[pastKey].rank != 4 || in[pastValue].rank != 4) return "GroupedAttention: expected queries of rank 3 and caches of rank 4";
  const int64_t B = in[query].dims[0], S = in[query].dims[1], D = in[pastKey].dims[3], G = k->groups;
  if (D < 8 || D > widest || D % 8 != 0) return "GroupedAttention: expected heads of a width that is a multiple of 8, up to 256";
  for (int i = 0; i < 4; i++)
    if (in[pastKey].dims[i] != in[pastValue].dims[i]) return "GroupedAttention: expected caches of one shape";
  if (in[pastKey].dims[0] != B || in[pastKey].dims[1] != G) return "GroupedAttention: expected caches [B, kv_heads, capacity, D]";
  run->batch = B;
  run->tokens = S;
  run->width = D;
  run->shared = k->heads / G;
  run->capacity = in[pastKey].dims[2];
  const int isPacked = !in[key].isGiven;
  run->queryStride = isPacked ? (k->heads + 2 * G) * D : k->heads * D;
  run->keyStride = isPacked ? run->queryStride : G * D;
  run->query = in[query].data;
    if (!hasShape(in + query, 3, B, S, run->queryStride)) return "GroupedAttention: expected queries [B, S, heads·D], or with keys and values behind them";
  if (isPacked ? in[value].isGiven : !hasShape(in + key, 3, B, S, G * D) || !hasShape(in + value, 3, B, S, G * D))
    return "GroupedAttention: expected keys and values [B, S, kv_heads·D], or neither";
  run->key = isPacked ? run->query + k->heads * D : in[key].data;
  run->value = isPacked ? run->key + G * D : in[value].data;
  if (!hasShape(in + lengths, 1, B, 0, 0)) return "GroupedAttention: expected lengths [B]";
  int64_t elements = 1;
  for (size_t i = 0; i < in[total].rank; i++) elements *= in[total].dims[i];
  if (in[total].data == NULL || elements != 1) return "GroupedAttention: expected one total";
  run->lengths = in[lengths].data;
  run->isFirst = *(const int32_t *)in[total].data == S;
  for (int64_t b = 0; b < B; b++)
    if (pastOf(run, b) < 0 || pastOf(run, b) + S > run->capacity) return "GroupedAttention: a length is outside the cache";
  if (in[positions].isGiven && !hasShape(in + positions, 2, B, S, 0)) return "GroupedAttention: expected positions [B, S]";
  run->positions = in[positions].data;
  if (in[cosines].isGiven != in[sines].isGiven) return "GroupedAttention: expected both tables or neither";
  if (in[cosines].isGiven) {
    run->cosines = in[cosines].data;
    run->sines = in[sines].data;
    run->tableRows = in[cosines].dims[0];
    run->half = in[cosines].rank == 2 ? in[cosines].dims[1] : 0;
    if (run->half == 0 || !hasShape(in + cosines, 2, run->tableRows, run->half, 0) || !hasShape(in + sines, 2, run->tableRows, run->half, 0) || run->half % 8 != 0 || 2 * run->half > D)
      return "GroupedAttention: expected two tables [positions, a multiple of 8 up to D/2]";
    for (int64_t i = 0; i < B * S; i++) {
      const int64_t position = run->positions == NULL ? pastOf(run, i / S) + i % S : run->positions[i];
      if (position < 0 || position >= run->tableRows) return "GroupedAttention: a position is outside the tables";
    }
  }
  if (in[bias].isGiven) {
    const int64_t *dims = in[bias].dims;
    if (in[bias].rank != 4 || (dims[0] != 1 && dims[0] != B) || (dims[1] != 1 && dims[1] != k->heads) || dims[2] != S)
      return "GroupedAttention: expected a bias [B or 1, heads or 1, S, total]";
    run->bias = in[bias].data;
    run->biasColumns = dims[3];
    run->biasOfHead = dims[1] == 1 ? 0 : S * dims[3];
    run->biasOfRow = dims[0] == 1 ? 0 : dims[1] * S * dims[3];
    for (int64_t b = 0; b < B; b++)
      if (pastOf(run, b) + S > dims[3]) return "GroupedAttention: the bias has fewer columns than keys";
  }
  return NULL;
}

/** What the cache holds, where it comes in other memory than it goes out. */
INLINE void copyPast(const struct Run *run, const float *from, float *to) {
  if (from == to) return;
  const int64_t floats = run->batch * run->kernel->groups * run->capacity * run->width;
  for (int64_t i = 0; i < floats; i += 8) _mm256_storeu_ps(to + i, _mm256_loadu_ps(from + i));
}

static Status attend(struct Run *run, void *context) {
  const struct Kernel *k = run->kernel;
  const Api api = k->api;
  const int64_t B = run->batch, S = run->tokens, D = run->width, rowsOfAToken = B * k->heads;
  int64_t most = 0;
  int64_t least = run->capacity;
  for (int64_t b = 0; b < B; b++) {
    most = larger(most, pastOf(run, b));
    least = smaller(least, pastOf(run, b));
  }
  int64_t allChunks = (most + S + chunk - 1) / chunk;
  if (k->window >= 0) allChunks = smaller(allChunks, (most - least + smaller(k->window, run->capacity) + mostTokens) / chunk + 2);
  const int64_t step = smaller(larger(smaller(mixedBytes / (allChunks * rowsOfAToken * D * (int64_t)sizeof(float)), mostTokens), fewestTokens), S);
  run->tasks = k->tasks;
  const int64_t forQueries = rowsOfAToken * S * D, forMixed = allChunks * step * rowsOfAToken * D, forSums = allChunks * step * rowsOfAToken * 2;
  const int64_t floats = forQueries + forMixed + forSums;
  RETURN_IF(allocate(api, k->allocator, floats * (int64_t)sizeof(float), (void **)&run->queries));
  run->mixed = run->queries + forQueries;
  run->sums = run->mixed + forMixed;

  Status status = parallel(api, context, turnTokens, (B * S + tokensOfATask - 1) / tokensOfATask, run, k->tasks == 1);
  for (run->from = 0; status == NULL && run->from < S; run->from = run->to) {
    run->to = smaller(run->from + step, S);
    run->skipped = firstChunk(run, least + run->from);
    run->chunks = (most + run->to + chunk - 1) / chunk - run->skipped;
    const int64_t rows = (run->to - run->from) * rowsOfAToken;
    const int isSmall = k->tasks == 1 || rows * D * (most + run->to) < smallWork;
    status = parallel(api, context, mixChunks, run->tasks, run, isSmall);
    if (status == NULL) status = parallel(api, context, joinRows, run->tasks, run, k->tasks == 1 || rows * run->chunks * D < smallWork);
  }
  const Status freed = release(api, k->allocator, run->queries);
  if (status == NULL) return freed;
  forget(api, freed);
  return status;
}

static Status compute(void *kernel, void *context) {
  const struct Kernel *k = kernel;
  struct Input in[inputs];
  struct Run run = {0};
  run.kernel = k;
  RETURN_IF(readInputs(k, context, in));
  const char *wrong = understand(&run, in);
  if (wrong != NULL) return refuse(k->api, wrong);
  const int64_t shape[3] = {run.batch, run.tokens, k->heads * run.width};
  RETURN_IF(outputData(k->api, context, 0, shape, 3, (void **)&run.output));
  RETURN_IF(outputData(k->api, context, 1, in[pastKey].dims, 4, (void **)&run.keys));
  RETURN_IF(outputData(k->api, context, 2, in[pastValue].dims, 4, (void **)&run.values));
  copyPast(&run, in[pastKey].data, run.keys);
  copyPast(&run, in[pastValue].data, run.values);
  return run.batch * run.tokens == 0 ? NULL : attend(&run, context);
}

static Status createKernel(const struct CustomOp *op, Api api, const void *info, void **kernel) {
  (void)op;
  struct Kernel made = {0}, *k = NULL;
  made.api = api;
  RETURN_IF(attribute(api, info, "num_heads", &made.heads));
  RETURN_IF(attribute(api, info, "kv_num_heads", &made.groups));
  RETURN_IF(attribute(api, info, "local_window_size", &made.window));
  RETURN_IF(attribute(api, info, "tasks", &made.tasks));
  RETURN_IF(floatAttribute(api, info, "scale", &made.scale));
  if (made.groups < 1 || made.heads < 1 || made.heads > mostHeads || made.heads % made.groups != 0)
    return refuse(api, "GroupedAttention: expected num_heads to be a multiple of kv_num_heads and at most 65536");
  if (made.tasks < 1 || made.tasks > mostTasks || made.window == 0 || made.window < -1 || made.window > INT32_MAX)
    return refuse(api, "GroupedAttention: expected 1 to 4096 tasks and a window of at least 1, or -1");
  RETURN_IF(openAllocator(api, info, &made.allocator));
  const Status status = allocate(api, made.allocator, sizeof made, (void **)&k);
  if (status != NULL) {
    closeAllocator(api, made.allocator);
    return status;
  }
  *k = made;
  *kernel = k;
  return NULL;
}

static void destroyKernel(void *kernel) {
  const struct Kernel k = *(struct Kernel *)kernel;
  forget(k.api, release(k.api, k.allocator, kernel));
  closeAllocator(k.api, k.allocator);
}

static const char *name(const struct CustomOp *op) { return (void)op, "GroupedAttention"; }
static int inputType(const struct CustomOp *op, size_t index) {
  return (void)op, index == lengths || index == total ? elementInt32 : index == positions ? elementInt64 : elementFloat;
}
static size_t inputCount(const struct CustomOp *op) { return (void)op, inputs; }
static size_t outputCount(const struct CustomOp *op) { return (void)op, 3; }
static int inputKind(const struct CustomOp *op, size_t index) {
  return (void)op, index == query || (index >= pastKey && index <= total) ? required : optional;
}

static const struct CustomOp groupedAttention = {
  17, NULL, name, anyProvider, inputType, inputCount, floatOutput, outputCount, NULL, destroyKernel, inputKind, requiredOutput, defaultMemory,
  one, no, one, no, createKernel, compute, NULL, one, one,
};

EXPORTED const void *longwave_grouped_attention(void) { return &groupedAttention; }
