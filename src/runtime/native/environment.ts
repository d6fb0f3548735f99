// The one OrtEnv of the process, with one thread pool for all sessions (each session's own pool would spin against the others).
// ONNX Runtime itself keeps a single environment per process, so this module counts its users; the last one releases it.
import { BackendError } from "../../base/errors.ts";
import { logFatal } from "../ort.ts";
import { type Library, loadLibrary } from "./library.ts";
import { type OwnDomain, openOwnDomain } from "./own-domain.ts";

export interface Environment {
  readonly library: Library;
  readonly pointer: bigint;
  /** Threads of the shared pool; undefined when other code in this process made ONNX Runtime's environment without one. */
  poolThreads: number | undefined;
  readonly allocator: bigint;
  readonly memoryInfo: bigint;
  /** Operators of our own, once a backend with them was opened. */
  ownDomain: OwnDomain | undefined;
  users: number;
}

let current: Environment | undefined;

/** The environment; the pool is made by the first user with `threads` threads. Pair with {@link releaseEnvironment}. */
export function acquireEnvironment(threads: number): Environment {
  current ??= createEnvironment(threads);
  current.users++;
  return current;
}

export function releaseEnvironment(environment: Environment): void {
  if (--environment.users > 0) return;
  current = undefined;
  const { functions } = environment.library;
  if (environment.ownDomain !== undefined) functions.ReleaseCustomOpDomain(environment.ownDomain.pointer);
  functions.ReleaseMemoryInfo(environment.memoryInfo);
  functions.ReleaseEnv(environment.pointer);
}

/** Operators of the library at `path`, which sessions may have from now on. @throws BackendError also where those of another one are in use. */
export function loadOwnKernels(environment: Environment, path: string): ReadonlySet<string> {
  environment.ownDomain ??= openOwnDomain(environment.library, environment.pointer, path);
  if (environment.ownDomain.path !== path)
    throw new BackendError(
      `loading ${path}: a backend of this process has ${environment.ownDomain.path}; expected one kind of kernels at a time`,
    );
  return environment.ownDomain.operators;
}

function createEnvironment(threads: number): Environment {
  const library = loadLibrary();
  const { functions, check, receive } = library;
  const doing = "creating the environment";
  const options = receive(doing, (out) => functions.CreateThreadingOptions(out));
  try {
    check(functions.SetGlobalIntraOpNumThreads(options, threads), doing);
    check(functions.SetGlobalInterOpNumThreads(options, 1), doing);
    check(functions.SetGlobalSpinControl(options, 1), doing);
    const pointer = receive(doing, (out) => functions.CreateEnvWithGlobalThreadPools(logFatal, "longwave", options, out));
    const allocator = receive(doing, (out) => functions.GetAllocatorWithDefaultOptions(out));
    const [arenaAllocator, defaultMemory] = [1, 0];
    const memoryInfo = receive(doing, (out) => functions.CreateCpuMemoryInfo(arenaAllocator, defaultMemory, out));
    return { library, pointer, poolThreads: threads, allocator, memoryInfo, ownDomain: undefined, users: 0 };
  } finally {
    functions.ReleaseThreadingOptions(options);
  }
}
