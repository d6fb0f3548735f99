// Each row of the table is called against the real library, directly; a wrong index or prototype crashes this process.
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { BackendError } from "../../base/errors.ts";
import { allocate, bufferFrom, type TensorBuffer } from "../buffer.ts";
import { onnxModel } from "../testing/onnx.ts";
import { addition, longProduct, sharedProduct } from "../testing/programs.ts";
import { type Library, libraryPath, loadLibrary } from "./library.ts";
import { type FunctionName, type Functions, signatures } from "./signatures.ts";

const library: Library = loadLibrary();
const { check } = library;
const called = new Set<string>();
/** Records what was called, so that the last test can tell whether a row was left out. */
const api = new Proxy(library.functions, {
  get(functions, name: FunctionName) {
    called.add(name);
    return functions[name];
  },
}) as Functions;
const receive = (make: (out: BigUint64Array) => bigint | null): bigint => library.receive("test", make);
const ok = (status: bigint | null): void => check(status, "test");

let environment: bigint;
let memoryInfo: bigint;
let allocator: bigint;

function optionsWith(configure: (options: bigint) => void = () => undefined): bigint {
  const options = receive((out) => api.CreateSessionOptions(out));
  ok(api.SetSessionLogSeverityLevel(options, 4));
  configure(options);
  return options;
}

function sessionWith(model: Uint8Array, configure?: (options: bigint) => void): bigint {
  const options = optionsWith(configure);
  try {
    return receive((out) => api.CreateSessionFromArray(environment, model, model.byteLength, options, out));
  } finally {
    api.ReleaseSessionOptions(options);
  }
}

function tensorOver({ data, shape }: TensorBuffer, elementType = 1): bigint {
  const dimensions = BigInt64Array.from(shape, BigInt);
  return receive((out) =>
    api.CreateTensorWithDataAsOrtValue(
      memoryInfo,
      library.addressOf(data.buffer),
      data.byteLength,
      dimensions,
      shape.length,
      elementType,
      out,
    ),
  );
}

/** Binds and runs, then releases; `names` are those of the addition. */
function addOnce(session: bigint): number {
  const z = allocate("f32", [1]);
  const values = { x: tensorOver(bufferFrom("f32", [1], [2])), y: tensorOver(bufferFrom("f32", [1], [3])), z: tensorOver(z) };
  const binding = receive((out) => api.CreateIoBinding(session, out));
  ok(api.BindInput(binding, "x", values.x));
  ok(api.BindInput(binding, "y", values.y));
  ok(api.BindOutput(binding, "z", values.z));
  ok(api.RunWithBinding(session, null, binding));
  api.ReleaseIoBinding(binding);
  for (const value of Object.values(values)) api.ReleaseValue(value);
  return z.data[0];
}

function openEnvironment(): bigint {
  const options = receive((out) => api.CreateThreadingOptions(out));
  ok(api.SetGlobalIntraOpNumThreads(options, 2));
  ok(api.SetGlobalInterOpNumThreads(options, 1));
  ok(api.SetGlobalSpinControl(options, 1));
  const opened = receive((out) => api.CreateEnvWithGlobalThreadPools(4, "test", options, out));
  api.ReleaseThreadingOptions(options);
  return opened;
}

beforeAll(() => {
  environment = openEnvironment();
  memoryInfo = receive((out) => api.CreateCpuMemoryInfo(1, 0, out));
  allocator = receive((out) => api.GetAllocatorWithDefaultOptions(out));
});

afterAll(() => {
  api.ReleaseMemoryInfo(memoryInfo);
  api.ReleaseEnv(environment);
});

describe("environment", () => {
  it("takes its settings: wrong ones come back as a status", () => {
    const options = receive((out) => api.CreateThreadingOptions(out));
    expect(() => ok(api.SetGlobalSpinControl(options, 7))).toThrow(/spin/i);
    api.ReleaseThreadingOptions(options);
  });

  it("has a pool: a session without threads of its own is accepted", () => {
    const session = sessionWith(onnxModel(addition), (options) => ok(api.DisablePerSessionThreads(options)));
    expect(addOnce(session)).toBe(5);
    api.ReleaseSession(session);
  });

  it("is one for the process, and lives until its last user releases it", () => {
    const again = openEnvironment();
    expect(again).toBe(environment);
    api.ReleaseEnv(again);
    api.ReleaseMemoryInfo(receive((out) => api.CreateCpuMemoryInfo(1, 0, out)));
    const session = sessionWith(onnxModel(addition));
    expect(addOnce(session)).toBe(5);
    api.ReleaseSession(session);
  });
});

describe("status", () => {
  it("carries a code and a message", () => {
    const options = optionsWith();
    const out = new BigUint64Array(1);
    const status = api.CreateSessionFromArray(environment, new Uint8Array([1, 2, 3]), 3, options, out);
    expect(status).not.toBeNull();
    const invalidProtobuf = 7;
    expect(api.GetErrorCode(status)).toBe(invalidProtobuf);
    expect(api.GetErrorMessage(status)).toMatch(/protobuf parsing failed/);
    api.ReleaseStatus(status);
    api.ReleaseSessionOptions(options);
  });
});

describe("session options", () => {
  it.each([0, 1, 2, 99])("optimization level %d", (level) => {
    const session = sessionWith(onnxModel(addition), (options) => ok(api.SetSessionGraphOptimizationLevel(options, level)));
    expect(addOnce(session)).toBe(5);
    api.ReleaseSession(session);
  });

  it("refuse a level and a severity that do not exist", () => {
    const options = optionsWith();
    expect(() => ok(api.SetSessionGraphOptimizationLevel(options, 57))).toThrow(BackendError);
    expect(() => ok(api.SetSessionLogSeverityLevel(options, -1))).not.toThrow(/index/);
    api.ReleaseSessionOptions(options);
  });

  it("threads, arena and configuration entries", () => {
    const session = sessionWith(onnxModel(addition), (options) => {
      ok(api.SetIntraOpNumThreads(options, 1));
      ok(api.SetInterOpNumThreads(options, 1));
      ok(api.DisableCpuMemArena(options));
      ok(api.AddSessionConfigEntry(options, "session.intra_op.allow_spinning", "0"));
      expect(() => ok(api.AddSessionConfigEntry(options, "k".repeat(5000), "v"))).toThrow(/key/i);
    });
    expect(addOnce(session)).toBe(5);
    api.ReleaseSession(session);
  });

  it("a shared initializer: the session reads the memory that it was given", () => {
    const w = bufferFrom("f32", [1, 1], [6]);
    const weight = tensorOver(w);
    const session = sessionWith(onnxModel(sharedProduct(1, 1)), (options) => {
      ok(api.AddInitializer(options, "w", weight));
      ok(api.AddSessionConfigEntry(options, "session.disable_prepacking", "1"));
    });
    const z = allocate("f32", [1, 1]);
    const [x, out] = [tensorOver(bufferFrom("f32", [1, 1], [7])), tensorOver(z)];
    const binding = receive((pointer) => api.CreateIoBinding(session, pointer));
    ok(api.BindInput(binding, "x", x));
    ok(api.BindOutput(binding, "z", out));
    ok(api.RunWithBinding(session, null, binding));
    expect(z.data[0]).toBe(42);
    w.data[0] = 7;
    ok(api.RunWithBinding(session, null, binding));
    expect(z.data[0]).toBe(49);
    api.ReleaseIoBinding(binding);
    for (const value of [x, out]) api.ReleaseValue(value);
    api.ReleaseSession(session);
    api.ReleaseValue(weight);
  });

  it("profiling: writes a file and returns its name", () => {
    const folder = mkdtempSync(join(tmpdir(), "longwave-test-"));
    const session = sessionWith(onnxModel(addition), (options) => ok(api.EnableProfiling(options, join(folder, "p"))));
    addOnce(session);
    const text = receive((out) => api.SessionEndProfiling(session, allocator, out));
    const path = library.textAt(text);
    ok(api.AllocatorFree(allocator, text));
    expect(readdirSync(folder).map((name) => join(folder, name))).toEqual([path]);
    expect(readFileSync(path, "utf8")).toContain('"Add_0');
    api.ReleaseSession(session);
    rmSync(folder, { recursive: true });
  });
});

describe("the signature of a session", () => {
  it("counts, names, element types and dimensions", () => {
    const session = sessionWith(
      onnxModel({
        inputs: { ids: { dtype: "i64", shape: ["B", 7, "T"] }, scale: { dtype: "f64", shape: [] } },
        outputs: { out: { dtype: "f64", shape: ["B", 7, "T"] } },
        nodes: [
          { op: "Cast", inputs: ["ids"], outputs: ["real"], attributes: { to: 11 } },
          { op: "Mul", inputs: ["real", "scale"], outputs: ["out"] },
        ],
      }),
    );
    expect(receive((out) => api.SessionGetInputCount(session, out))).toBe(2n);
    expect(receive((out) => api.SessionGetOutputCount(session, out))).toBe(1n);
    const nameOf = (at: "SessionGetInputName" | "SessionGetOutputName", index: number) => {
      const text = receive((out) => api[at](session, index, allocator, out));
      const name = library.textAt(text);
      ok(api.AllocatorFree(allocator, text));
      return name;
    };
    expect([nameOf("SessionGetInputName", 0), nameOf("SessionGetInputName", 1)]).toEqual(["ids", "scale"]);
    expect(nameOf("SessionGetOutputName", 0)).toBe("out");
    expect(() => nameOf("SessionGetInputName", 2)).toThrow(/index/i);
    const typeOf = (at: "SessionGetInputTypeInfo" | "SessionGetOutputTypeInfo", index: number) => {
      const type = receive((out) => api[at](session, index, out));
      const tensor = receive((out) => api.CastTypeInfoToTensorInfo(type, out));
      const element = Number(receive((out) => api.GetTensorElementType(tensor, out)));
      const rank = Number(receive((out) => api.GetDimensionsCount(tensor, out)));
      const dimensions = new BigInt64Array(8).fill(-99n);
      ok(api.GetDimensions(tensor, dimensions, rank));
      api.ReleaseTypeInfo(type);
      return [element, ...Array.from(dimensions.subarray(0, rank + 1), Number)];
    };
    expect(typeOf("SessionGetInputTypeInfo", 0)).toEqual([7, -1, 7, -1, -99]);
    expect(typeOf("SessionGetInputTypeInfo", 1)).toEqual([11, -99]);
    expect(typeOf("SessionGetOutputTypeInfo", 0)).toEqual([11, -1, 7, -1, -99]);
    api.ReleaseSession(session);
  });
});

describe("values and runs", () => {
  it("a value checks its memory against its shape", () => {
    expect(() =>
      receive((out) => api.CreateTensorWithDataAsOrtValue(memoryInfo, new Float32Array(16), 64, BigInt64Array.of(5n, 5n), 2, 1, out)),
    ).toThrow(/expected 100, got 64/);
  });

  it("a run is stopped by the terminate flag, and goes on once it is taken back", () => {
    const session = sessionWith(onnxModel(longProduct(4, 50)));
    const [x, z] = [tensorOver(allocate("f32", [4, 4])), tensorOver(allocate("f32", [4, 4]))];
    const binding = receive((out) => api.CreateIoBinding(session, out));
    ok(api.BindInput(binding, "x", x));
    ok(api.BindOutput(binding, "z", z));
    const options = receive((out) => api.CreateRunOptions(out));
    ok(api.RunOptionsSetTerminate(options));
    expect(() => ok(api.RunWithBinding(session, options, binding))).toThrow(/terminate/i);
    ok(api.RunOptionsUnsetTerminate(options));
    ok(api.RunWithBinding(session, options, binding));
    api.ReleaseRunOptions(options);
    api.ReleaseIoBinding(binding);
    for (const value of [x, z]) api.ReleaseValue(value);
    api.ReleaseSession(session);
  });

  it("a run on a pool thread returns its status to the callback", async () => {
    const session = sessionWith(onnxModel(addition));
    const binding = receive((out) => api.CreateIoBinding(session, out));
    const status = await new Promise<bigint | null>((resolve, reject) =>
      api.RunWithBinding.async(session, null, binding, (error, result) => (error ? reject(error) : resolve(result))),
    );
    expect(() => ok(status)).toThrow(/At least one output/);
    api.ReleaseIoBinding(binding);
    api.ReleaseSession(session);
  });
});

it("release functions accept null", () => {
  for (const release of [api.ReleaseStatus, api.ReleaseValue, api.ReleaseSession, api.ReleaseIoBinding, api.ReleaseRunOptions])
    release(null);
});

it("operators of a domain of one's own", () => {
  // Nothing reads the description before a session is made.
  const description = new Uint8Array(256);
  const domain = receive((out) => api.CreateCustomOpDomain("test", out));
  ok(api.CustomOpDomain_Add(domain, description));
  api.ReleaseSessionOptions(optionsWith((options) => ok(api.AddCustomOpDomain(options, domain))));
  api.ReleaseCustomOpDomain(domain);
});

it("every row was called", () => {
  expect(Object.keys(signatures).filter((name) => !called.has(name))).toEqual([]);
});

describe("the library", () => {
  it("lies in onnxruntime-node, for each platform that it ships for", () => {
    expect(libraryPath()).toContain("onnxruntime-node");
    expect(libraryPath("linux", "x64")).toMatch(/libonnxruntime\.so\.1$/);
    expect(libraryPath("darwin", "arm64")).toMatch(/libonnxruntime\.1\.dylib$/);
    expect(libraryPath("win32", "x64")).toMatch(/onnxruntime\.dll$/);
    expect(() => libraryPath("sunos", "x64")).toThrow("onnxruntime-node: expected a library for sunos-x64, got none");
  });

  it("that does not load is a BackendError", () => {
    expect(() => loadLibrary("/nowhere/libonnxruntime.so.1")).toThrow(BackendError);
  });

  it("has one index for each function", () => {
    const indices = Object.values(signatures).map(({ index }) => index);
    expect(new Set(indices).size).toBe(indices.length);
  });
});
