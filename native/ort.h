// ONNX Runtime's C API as far as our operators use it: entries of its table by number, and what descriptions of operators have in common.
// Freestanding: no C library, no state, no threads of its own. scripts/native.mjs compiles what includes it to assets/native.
#pragma once

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("clang loop unroll(full)")
#define EXPORTED __attribute__((visibility("default")))

/** Null on success. */
typedef void *Status;
/** The table of functions, of which new versions of the library only ever add to the end. */
typedef void *const *Api;

#define CALL(api, index, type, ...) ((type)(api)[index])(__VA_ARGS__)
#define RETURN_IF(expression)          \
  do {                                 \
    Status status_ = (expression);     \
    if (status_ != NULL) return status_; \
  } while (0)

enum { invalidArgument = 2, elementFloat = 1, elementUint8 = 2, elementInt32 = 6, elementInt64 = 7, required = 0, optional = 1 };

/** OrtCustomOp of version 17: later fields are not read. */
struct CustomOp {
  uint32_t version;
  void *unusedCreateKernel;
  const char *(*GetName)(const struct CustomOp *);
  const char *(*GetExecutionProviderType)(const struct CustomOp *);
  int (*GetInputType)(const struct CustomOp *, size_t);
  size_t (*GetInputTypeCount)(const struct CustomOp *);
  int (*GetOutputType)(const struct CustomOp *, size_t);
  size_t (*GetOutputTypeCount)(const struct CustomOp *);
  void *unusedKernelCompute;
  void (*KernelDestroy)(void *);
  int (*GetInputCharacteristic)(const struct CustomOp *, size_t);
  int (*GetOutputCharacteristic)(const struct CustomOp *, size_t);
  int (*GetInputMemoryType)(const struct CustomOp *, size_t);
  int (*GetVariadicInputMinArity)(const struct CustomOp *);
  int (*GetVariadicInputHomogeneity)(const struct CustomOp *);
  int (*GetVariadicOutputMinArity)(const struct CustomOp *);
  int (*GetVariadicOutputHomogeneity)(const struct CustomOp *);
  Status (*CreateKernelV2)(const struct CustomOp *, Api, const void *info, void **kernel);
  Status (*KernelComputeV2)(void *kernel, void *context);
  Status (*InferOutputShapeFn)(const struct CustomOp *, void *);
  int (*GetStartVersion)(const struct CustomOp *);
  int (*GetEndVersion)(const struct CustomOp *);
};

INLINE Status refuse(Api api, const char *message) { return CALL(api, 0, Status (*)(int, const char *), invalidArgument, message); }

INLINE void forget(Api api, Status status) {
  if (status != NULL) CALL(api, 93, void (*)(Status), status);
}

INLINE Status attribute(Api api, const void *info, const char *name, int64_t *out) {
  return CALL(api, 86, Status (*)(const void *, const char *, int64_t *), info, name, out);
}

INLINE Status floatAttribute(Api api, const void *info, const char *name, float *out) {
  return CALL(api, 85, Status (*)(const void *, const char *, float *), info, name, out);
}

/** The allocator of the processor's memory; the kernel owns it. */
INLINE Status openAllocator(Api api, const void *info, void **allocator) {
  return CALL(api, 278, Status (*)(const void *, int, void **), info, 0, allocator);
}

INLINE void closeAllocator(Api api, void *allocator) { CALL(api, 132, void (*)(void *), allocator); }

INLINE Status allocate(Api api, void *allocator, int64_t bytes, void **out) {
  return CALL(api, 75, Status (*)(void *, size_t, void **), allocator, (size_t)bytes, out);
}

INLINE Status release(Api api, void *allocator, void *memory) { return CALL(api, 76, Status (*)(void *, void *), allocator, memory); }

/** Number of inputs that the node names. */
INLINE Status inputCountOf(Api api, void *context, size_t *count) { return CALL(api, 88, Status (*)(const void *, size_t *), context, count); }

/** Null for an optional input that is left out. */
INLINE Status inputValue(Api api, void *context, size_t index, const void **value) {
  return CALL(api, 90, Status (*)(const void *, size_t, const void **), context, index, value);
}

INLINE Status valueBytes(Api api, const void *value, size_t *bytes) {
  return CALL(api, 318, Status (*)(const void *, size_t *), value, bytes);
}

INLINE Status valueData(Api api, const void *value, void **data) {
  return CALL(api, 51, Status (*)(void *, void **), (void *)value, data);
}

/** Dimensions are given up to this rank. */
enum { highestRank = 8 };

INLINE Status valueShape(Api api, const void *value, int64_t dims[highestRank], size_t *rank) {
  void *shape = NULL;
  RETURN_IF(CALL(api, 65, Status (*)(const void *, void **), value, &shape));
  Status status = CALL(api, 61, Status (*)(const void *, size_t *), shape, rank);
  if (status == NULL && *rank <= highestRank) status = CALL(api, 62, Status (*)(const void *, int64_t *, size_t), shape, dims, *rank);
  CALL(api, 99, void (*)(void *), shape);
  return status;
}

/** Data of an output of this shape. */
INLINE Status outputData(Api api, void *context, size_t index, const int64_t *dims, size_t rank, void **data) {
  void *value = NULL;
  RETURN_IF(CALL(api, 91, Status (*)(void *, size_t, const int64_t *, size_t, void **), context, index, dims, rank, &value));
  return valueData(api, value, data);
}

/** Runs the tasks 0 to count − 1 on the session's threads, or here where `isSmall`. */
INLINE Status parallel(Api api, void *context, void (*task)(void *, size_t), int64_t count, void *state, int isSmall) {
  if (count > 1 && !isSmall)
    return CALL(api, 274, Status (*)(const void *, void (*)(void *, size_t), size_t, size_t, void *), context, task, (size_t)count, 0, state);
  for (int64_t i = 0; i < count; i++) task(state, (size_t)i);
  return NULL;
}

// ---- descriptions of operators: entries that are alike

static const char *anyProvider(const struct CustomOp *op) { return (void)op, NULL; }
static int floatOutput(const struct CustomOp *op, size_t index) { return (void)op, (void)index, elementFloat; }
static int requiredOutput(const struct CustomOp *op, size_t index) { return (void)op, (void)index, required; }
static int defaultMemory(const struct CustomOp *op, size_t index) { return (void)op, (void)index, 0; }
static int no(const struct CustomOp *op) { return (void)op, 0; }
static int one(const struct CustomOp *op) { return (void)op, 1; }
