// x W^T with W in blocks of 4 or 8 bits, for x86 processors. A custom operator of ONNX Runtime, longwave.MatMulBlocks; it reads the blocks as
// MatMulNBits has them, where they lie, and beside them, where there are, what is added to all values of a block (offsets). Of weights that never
// change it may keep a copy in the order in which it multiplies (attribute `keeps`), which it makes strip by strip in the calls from the second
// to the ninth: all at once would hold the first token up.
//
// A row of x is rounded to int8 in blocks of 32 with scale max |x| / 127, which is what MatMulNBits does at accuracy_level 4. Products within
// a block are integers; how they are added depends on the processor: strip-avx2.h, strip-vnni.h. Blocks are added in float32 in their order: a row
// of the result is the same to the bit whatever the number of rows and threads.
#include "ort.h"

// ---- the product ---------------------------------------------------------------------------------------------------------------------

/** Values with one scale in a row of x; rows of x that a thread rounds at a time. */
enum { span = 32, rowsOfATask = 16 };

/** Calls over which keeping strips is spread, and the numbers of uses that stand for a strip that is being put in order and one that is kept. */
enum { keepingCalls = 8, isMade = 254, isKept = 255 };

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
 * to (see `storeLevels`), and, where blocks have offsets, what its values sum to.
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
 * What a task keeps of its strip: scales and offsets [spans, strip], levels in order, and zero points [spans, strip]
 * (`zeroOf`).
 */
struct Strip {
  float *scales, *offsets;
  int32_t *zeros;
  uint8_t *ordered;
};
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

/** Four levels. */
typedef int32_t Levels __attribute__((may_alias, aligned(1)));

INLINE __m256i load(const void *at) { return _mm256_loadu_si256((const __m256i *)at); }

/** Even bytes, then odd ones. */
INLINE __m256i evenFirst(__m256i v) {
  const __m256i split = _mm256_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15, 0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
  return _mm256_permute4x64_epi64(_mm256_shuffle_epi8(v, split), 0xd8);
}

/**
 * A strip's columns are short runs of memory, read side by side, and the processor does not see where that goes. So a part of the next
 * strip is asked for while a span is multiplied, in the order of memory and past the second-level cache: it is needed once.
 */
INLINE void prefetch(const void *from, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) _mm_prefetch((const char *)from + i, _MM_HINT_NTA);
}

#ifdef __AVX512VNNI__
#include "strip-vnni.h"
#else
#include "strip-avx2.h"
#endif

enum { scratchOfASpan = strip * (2 * sizeof(float) + sizeof(int32_t) + span) };

/** Bytes of a span of a strip in order. */
INLINE int64_t orderedBytes(int64_t bits) { return strip * span * bits / 8; }

/**
 * Rounds 32 values, of which `count` are there and the rest is 0. One that is not finite makes the scale NaN, and with it the row of the result.
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
  storeLevels(run, bytes, row, s);
}

static void roundRows(void *state, size_t task) {
  const struct Run *run = state;
  const struct Kernel *k = run->kernel;
  const int64_t first = (int64_t)task * rowsOfATask;
  for (int64_t row = first; row < run->rows && row < first + rowsOfATask; row++) {
    const float *x = run->x + row * k->inner;
    for (int64_t s = 0; s < k->spans; s++) {
      const int64_t left = k->inner - s * span;
      if (left >= span) roundSpan(run, x + s * span, span, row, s);
      else roundSpan(run, x + s * span, left, row, s);
    }
  }
}

/** Values of the strip's blocks [strip, blocks] as [spans, strip]. */
static void readBlocks(const struct Kernel *k, const float *values, float *to, const int64_t columns[strip]) {
  const uint8_t *column[strip];
  UNROLL for (int c = 0; c < strip; c++) column[c] = (const uint8_t *)(values + columns[c] * k->blocks);
  int64_t s = 0;
  for (; k->shift == 0 && s + 8 <= k->spans; s += 8) exchange(column, s * (int64_t)sizeof(float), (uint8_t *)(to + s * strip), 0);
  for (; s < k->spans; s++)
    for (int c = 0; c < strip; c++) to[s * strip + c] = values[columns[c] * k->blocks + (s >> k->shift)];
}

static void readZeros(const struct Run *run, int32_t *zeros, const int64_t columns[strip]) {
  const struct Kernel *k = run->kernel;
  for (int64_t s = 0; s < k->spans; s++) {
    const int64_t block = s >> k->shift;
    for (int c = 0; c < strip; c++) {
      zeros[s * strip + c] = k->bits == 8
        ? zeroOf(run->zeroPoints[columns[c] * k->blocks + block], 8)
        : zeroOf((run->zeroPoints[columns[c] * ((k->blocks + 1) / 2) + block / 2] >> (4 * (block & 1))) & 15, 4);
    }
  }
}

/**
 * Columns' levels as `multiplyRows` reads them: each register has four bytes of every column. With 4 bits these are the even levels of a group of eight
 * in their low halves, and the odd ones in their high halves.
 */
INLINE void orderStrip(const struct Kernel *k, const uint8_t *const column[strip], uint8_t *ordered, const int bits) {
  const int64_t bytes = k->spans * span * bits / 8;
  int64_t at = 0;
  for (; at + 32 <= bytes; at += 32) {
    prefetch(column[0] + strip * (bytes + at), strip * 32);
    exchange(column, at, ordered + at * strip, bits == 8 ? moved : 0);
  }
  // With 4 bits half a register of each column may be left.
  for (; at < bytes; at += 4)
    for (int c = 0; c < strip; c++) ((Levels *)(ordered + at * strip))[c] = *(const Levels *)(column[c] + at);
}

/** The strip in order: kept, or to be kept if it is its turn; NULL if not yet, or while a run at the same time makes it. */
INLINE uint8_t *keptStrip(const struct Kernel *k, int64_t index, const uint8_t *const column[strip], const int bits) {
  if (k->kept == NULL) return NULL;
  uint8_t *ordered = k->kept + index * k->spans * orderedBytes(bits);
  uint8_t uses = __atomic_load_n(k->uses + index, __ATOMIC_ACQUIRE);
  if (uses == isKept) return ordered;
  if (uses == isMade) return NULL;
  const int isTurn = uses > index % keepingCalls;
  // Where another run was faster, that one counts.
  const int isOurs = __atomic_compare_exchange_n(k->uses + index, &uses, isTurn ? isMade : uses + 1, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
  if (!isTurn || !isOurs) return NULL;
  orderStrip(k, column, ordered, bits);
  __atomic_store_n(k->uses + index, isKept, __ATOMIC_RELEASE);
  return ordered;
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
  if (kept == NULL && multiplyInPlace(run, at, column, first, count, bits)) return;
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
