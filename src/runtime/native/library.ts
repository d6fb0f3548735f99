// Finds and loads the ONNX Runtime library that onnxruntime-node ships, and turns its function table into callables.
// koffi calls plain C: no compiler and no install script are needed.
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { BackendError } from "../../base/errors.ts";
import { runtimeError } from "../ort.ts";
import { disableTelemetry } from "../telemetry.ts";
import { type ArgumentKind, apiVersion, type FunctionName, type Functions, type Signature, signatures } from "./signatures.ts";

/** ONNX Runtime may run matrix products on the thread that calls it, so asynchronous calls need an ordinary stack. */
const asyncStackBytes = 1 << 20;

type Koffi = typeof import("koffi");

export interface Library {
  readonly path: string;
  /** Version of ONNX Runtime, for example "1.30.0". */
  readonly version: string;
  readonly functions: Functions;
  /** Throws BackendError when `status` is not null, and releases it. */
  check(status: bigint | null, doing: string): void;
  /** Address of the first byte; the memory must not move or go away while it is in use. */
  addressOf(memory: ArrayBuffer): bigint;
  /** What a function without arguments of another library gives: an address. The library stays loaded. @throws BackendError */
  addressFrom(path: string, name: string): bigint;
  /** The zero-terminated UTF-8 text at an address. */
  textAt(address: bigint): string;
  /** Gives memory that was freed back to the system, on another thread: glibc keeps it. Nothing where the C library has no such call. */
  trim(): void;
  /** Calls `make` with a pointer to one word; returns the pointer that the function left there. */
  receive(doing: string, make: (out: BigUint64Array) => bigint | null): bigint;
}

/** Path of the library inside the installed onnxruntime-node. @throws BackendError where there is none for this platform. */
export function libraryPath(platform: string = process.platform, arch: string = process.arch): string {
  const require = createRequire(import.meta.url);
  let manifest: string;
  try {
    manifest = require.resolve("onnxruntime-node/package.json");
  } catch (cause) {
    throw new BackendError("onnxruntime-node: expected the package to be installed, got none", {
      cause,
      hint: "Run `ONNXRUNTIME_NODE_INSTALL=skip npm install`.",
    });
  }
  const major = String((JSON.parse(readFileSync(manifest, "utf8")) as { version?: string }).version).split(".")[0];
  const names: Record<string, string> = {
    linux: `libonnxruntime.so.${major}`,
    darwin: `libonnxruntime.${major}.dylib`,
    win32: "onnxruntime.dll",
  };
  const path = join(dirname(manifest), "bin", "napi-v6", platform, arch, names[platform] ?? "onnxruntime");
  if (!existsSync(path)) {
    throw new BackendError(`onnxruntime-node: expected a library for ${platform}-${arch}, got none`, {
      hint: "ONNX Runtime ships for linux-x64, linux-arm64, darwin-arm64, win32-x64 and win32-arm64; elsewhere, reinstall with `ONNXRUNTIME_NODE_INSTALL=skip npm install`.",
    });
  }
  return path;
}

/**
 * What this thread loaded, by path, for as long as it lives. koffi unloads a library when its handle is collected, and the functions
 * decoded from it do not keep the handle: a later call would jump into unmapped memory. `library` where it is ONNX Runtime.
 */
const loaded = new Map<string, { handle: ReturnType<Koffi["load"]>; library?: Library }>();

/** Loads the library and decodes every function of `signatures`. @throws BackendError when it is missing or too old. */
export function loadLibrary(path: string = libraryPath()): Library {
  const known = loaded.get(path)?.library;
  if (known !== undefined) return known;
  let koffi: Koffi;
  let handle: ReturnType<Koffi["load"]>;
  let base: bigint;
  try {
    // Required here rather than imported above: where koffi has no binary, the fallback backend must still load.
    koffi = createRequire(import.meta.url)("koffi");
    growAsyncStack(koffi);
    disableTelemetry();
    handle = koffi.load(path);
    base = handle.func("OrtGetApiBase", "void *", [])();
  } catch (cause) {
    throw new BackendError(`ONNX Runtime: ${errorText(cause)}`, { cause, hint: "Run `ONNXRUNTIME_NODE_INSTALL=skip npm install`." });
  }
  const functionAt = <F>(table: bigint, index: number, result: string, args: string[]): F =>
    koffi.decode(koffi.decode(table, index * 8, "void *"), koffi.proto(result, args)) as F;
  // OrtApiBase is two function pointers: GetApi(version) and GetVersionString().
  const getApi = functionAt<(version: number) => bigint | null>(base, 0, "void *", ["uint32_t"]);
  const getVersion = functionAt<() => string>(base, 1, "str", []);
  const table = getApi(apiVersion);
  if (table === null) {
    throw new BackendError(`ONNX Runtime: expected a library that offers API version ${apiVersion}, got version ${getVersion()}`, {
      hint: "Install the version of onnxruntime-node that longwave's package.json names.",
    });
  }

  const functions = Object.fromEntries(
    Object.entries<Signature>(signatures).map(([name, { index, result, args }]) => [
      name,
      functionAt(table, index, resultTypes[result], args.map(argumentType)),
    ]),
  ) as Record<FunctionName, unknown> as Functions;

  const check = (status: bigint | null, doing: string): void => {
    if (status === null) return;
    const message = functions.GetErrorMessage(status) || `error ${functions.GetErrorCode(status)} without a message`;
    functions.ReleaseStatus(status);
    throw runtimeError(doing, message);
  };
  const library: Library = {
    path,
    version: getVersion(),
    functions,
    check,
    addressOf: (memory) => koffi.address(memory),
    addressFrom: (file, name) => addressFrom(koffi, file, name),
    textAt: (address) => koffi.decode.string(address),
    trim: trimOf(koffi),
    receive(doing, make) {
      const out = new BigUint64Array(1);
      check(make(out), doing);
      return out[0];
    },
  };
  loaded.set(path, { handle, library });
  return library;
}

const resultTypes = { status: "void *", text: "str", int: "int", void: "void" } as const;

function argumentType(kind: ArgumentKind): string {
  const types = { pointer: "void *", text: "str", int: "int", size: "size_t" } as const;
  return kind === "path" ? (process.platform === "win32" ? "str16" : "str") : types[kind];
}

function addressFrom(koffi: Koffi, path: string, name: string): bigint {
  try {
    const entry = loaded.get(path) ?? { handle: koffi.load(path) };
    loaded.set(path, entry);
    return entry.handle.func(name, "void *", [])();
  } catch (cause) {
    throw new BackendError(`${path}: ${errorText(cause)}`, { cause });
  }
}

function trimOf(koffi: Koffi): () => void {
  if (process.platform !== "linux") return () => {};
  try {
    // The process itself, of which the C library is a part; musl's has none to trim.
    const handle = koffi.load(null);
    const trim = Object.assign(handle.func("int malloc_trim(size_t pad)"), { handle });
    return () => {
      try {
        trim.async(0, () => {});
      } catch {
        // As many asynchronous calls as koffi takes are on their way: another time.
      }
    };
  } catch {
    return () => {};
  }
}

/** koffi takes its settings before the first library is loaded; where another part was first, its default has to do. */
function growAsyncStack(koffi: Koffi): void {
  const settings = koffi.config();
  if ((settings.async_stack_size ?? 0) >= asyncStackBytes) return;
  try {
    koffi.config({ async_stack_size: asyncStackBytes });
  } catch (error) {
    if (!/chang|load/i.test(errorText(error))) throw error;
  }
}

const errorText = (error: unknown): string => (error instanceof Error ? error.message : String(error));
