// The functions of ONNX Runtime's C API that longwave calls: place in the function table, result, arguments.
// The table only ever grows at its end, so an index stays right for every later version of the library.
// A wrong row crashes the process: signatures.test.ts calls each of them against the real library.

/** Version of the function table asked from `OrtApiBase::GetApi`: the newest one any row below needs. */
export const apiVersion = 26;

/** status: a pointer that is null on success and must be released otherwise. */
type ResultKind = "status" | "text" | "int" | "void";

/** pointer: an address or a typed array; text: UTF-8; path: UTF-8, but UTF-16 on Windows; size: size_t. */
export type ArgumentKind = "pointer" | "text" | "path" | "int" | "size";

export interface Signature {
  readonly index: number;
  readonly result: ResultKind;
  readonly args: readonly ArgumentKind[];
}

/** Named by the header onnxruntime_c_api.h; `out` parameters are pointers to one 64-bit word. */
export const signatures = {
  // Status
  GetErrorCode: { index: 1, result: "int", args: ["pointer"] },
  GetErrorMessage: { index: 2, result: "text", args: ["pointer"] },
  ReleaseStatus: { index: 93, result: "void", args: ["pointer"] },

  // Environment: (options, out) …, (log level, log id, options, out)
  CreateThreadingOptions: { index: 121, result: "status", args: ["pointer"] },
  SetGlobalIntraOpNumThreads: { index: 147, result: "status", args: ["pointer", "int"] },
  SetGlobalInterOpNumThreads: { index: 148, result: "status", args: ["pointer", "int"] },
  SetGlobalSpinControl: { index: 149, result: "status", args: ["pointer", "int"] },
  ReleaseThreadingOptions: { index: 122, result: "void", args: ["pointer"] },
  CreateEnvWithGlobalThreadPools: { index: 119, result: "status", args: ["int", "text", "pointer", "pointer"] },
  ReleaseEnv: { index: 92, result: "void", args: ["pointer"] },

  // Allocators
  GetAllocatorWithDefaultOptions: { index: 78, result: "status", args: ["pointer"] },
  AllocatorFree: { index: 76, result: "status", args: ["pointer", "pointer"] },
  CreateCpuMemoryInfo: { index: 69, result: "status", args: ["int", "int", "pointer"] },
  ReleaseMemoryInfo: { index: 94, result: "void", args: ["pointer"] },

  // Session options: (options, …)
  CreateSessionOptions: { index: 10, result: "status", args: ["pointer"] },
  SetSessionLogSeverityLevel: { index: 22, result: "status", args: ["pointer", "int"] },
  SetSessionGraphOptimizationLevel: { index: 23, result: "status", args: ["pointer", "int"] },
  SetIntraOpNumThreads: { index: 24, result: "status", args: ["pointer", "int"] },
  SetInterOpNumThreads: { index: 25, result: "status", args: ["pointer", "int"] },
  DisablePerSessionThreads: { index: 120, result: "status", args: ["pointer"] },
  DisableCpuMemArena: { index: 19, result: "status", args: ["pointer"] },
  AddSessionConfigEntry: { index: 130, result: "status", args: ["pointer", "text", "text"] },
  AddInitializer: { index: 150, result: "status", args: ["pointer", "text", "pointer"] },
  EnableProfiling: { index: 14, result: "status", args: ["pointer", "path"] },
  AddCustomOpDomain: { index: 28, result: "status", args: ["pointer", "pointer"] },
  ReleaseSessionOptions: { index: 100, result: "void", args: ["pointer"] },

  // Operators of our own: (domain name, out), (domain, operator)
  CreateCustomOpDomain: { index: 26, result: "status", args: ["text", "pointer"] },
  CustomOpDomain_Add: { index: 27, result: "status", args: ["pointer", "pointer"] },
  ReleaseCustomOpDomain: { index: 101, result: "void", args: ["pointer"] },

  // Session: (env, bytes, length, options, out), (session, out count), (session, index, allocator, out name), (session, index, out type)
  CreateSessionFromArray: { index: 8, result: "status", args: ["pointer", "pointer", "size", "pointer", "pointer"] },
  SessionGetInputCount: { index: 30, result: "status", args: ["pointer", "pointer"] },
  SessionGetOutputCount: { index: 31, result: "status", args: ["pointer", "pointer"] },
  SessionGetInputTypeInfo: { index: 33, result: "status", args: ["pointer", "size", "pointer"] },
  SessionGetOutputTypeInfo: { index: 34, result: "status", args: ["pointer", "size", "pointer"] },
  SessionGetInputName: { index: 36, result: "status", args: ["pointer", "size", "pointer", "pointer"] },
  SessionGetOutputName: { index: 37, result: "status", args: ["pointer", "size", "pointer", "pointer"] },
  SessionEndProfiling: { index: 110, result: "status", args: ["pointer", "pointer", "pointer"] },
  ReleaseSession: { index: 95, result: "void", args: ["pointer"] },

  // Types of inputs and outputs: (type, out tensor type), (tensor type, out …), (tensor type, out values, length)
  CastTypeInfoToTensorInfo: { index: 55, result: "status", args: ["pointer", "pointer"] },
  GetTensorElementType: { index: 60, result: "status", args: ["pointer", "pointer"] },
  GetDimensionsCount: { index: 61, result: "status", args: ["pointer", "pointer"] },
  GetDimensions: { index: 62, result: "status", args: ["pointer", "pointer", "size"] },
  ReleaseTypeInfo: { index: 98, result: "void", args: ["pointer"] },

  // Values: (memory info, data, bytes, shape, rank, element type, out)
  CreateTensorWithDataAsOrtValue: {
    index: 49,
    result: "status",
    args: ["pointer", "pointer", "size", "pointer", "size", "int", "pointer"],
  },
  ReleaseValue: { index: 96, result: "void", args: ["pointer"] },

  // Runs: (session, out), (binding, name, value), (session, run options, binding)
  CreateIoBinding: { index: 134, result: "status", args: ["pointer", "pointer"] },
  BindInput: { index: 136, result: "status", args: ["pointer", "text", "pointer"] },
  BindOutput: { index: 137, result: "status", args: ["pointer", "text", "pointer"] },
  ReleaseIoBinding: { index: 135, result: "void", args: ["pointer"] },
  CreateRunOptions: { index: 39, result: "status", args: ["pointer"] },
  RunOptionsSetTerminate: { index: 46, result: "status", args: ["pointer"] },
  RunOptionsUnsetTerminate: { index: 47, result: "status", args: ["pointer"] },
  ReleaseRunOptions: { index: 97, result: "void", args: ["pointer"] },
  RunWithBinding: { index: 133, result: "status", args: ["pointer", "pointer", "pointer"] },
} as const satisfies Record<string, Signature>;

export type FunctionName = keyof typeof signatures;

interface ResultOf {
  status: bigint | null;
  text: string | null;
  int: number;
  void: undefined;
}

interface ArgumentOf {
  pointer: bigint | null | NodeJS.ArrayBufferView;
  text: string;
  path: string;
  int: number;
  size: number;
}

type ArgumentsOf<A extends readonly ArgumentKind[]> = { -readonly [I in keyof A]: ArgumentOf[A[I]] };

/** A callable made once from a function pointer; `async` runs it on a pool thread. */
export interface NativeFunction<S extends Signature> {
  (...args: ArgumentsOf<S["args"]>): ResultOf[S["result"]];
  async(...args: [...ArgumentsOf<S["args"]>, callback: (error: unknown, result: ResultOf[S["result"]]) => void]): void;
}

export type Functions = { readonly [K in FunctionName]: NativeFunction<(typeof signatures)[K]> };
