import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { afterEach, expect, test, vi } from "vitest";
import { openBackend } from "./open.ts";
import { ownKernels } from "./own-kernels.ts";

const at = (path: string): URL => new URL(`../../${path}`, import.meta.url);
const plain = { platform: "linux-x64", vectorExtensions: ["avx2", "fma"] };

afterEach(() => vi.unstubAllEnvs());

test("by default where ONNX Runtime has no good kernels of its own", () => {
  vi.stubEnv("LONGWAVE_KERNELS", "");
  expect(ownKernels(undefined, plain)).toMatch(/assets[\\/]native[\\/]linux-x64\.so$/);
  for (const extension of ["avx_vnni", "avx512f"])
    expect(ownKernels(undefined, { ...plain, vectorExtensions: [...plain.vectorExtensions, extension] })).toBeUndefined();
  const vnni = { ...plain, vectorExtensions: ["avx2", "fma", "avx512f", "avx512_vnni"] };
  expect(ownKernels(undefined, vnni)).toMatch(/linux-x64-vnni\.so$/);
  expect(ownKernels("avx2", vnni)).toMatch(/linux-x64\.so$/);
  expect(ownKernels(false, vnni)).toBeUndefined();
  expect(ownKernels(true, { ...plain, vectorExtensions: ["avx2", "fma", "avx512f"] })).toBeDefined();
  // What the processor or the package cannot do is not done because it is wished for.
  expect(ownKernels(true, { ...plain, vectorExtensions: ["avx2"] })).toBeUndefined();
  expect(ownKernels(true, { ...plain, vectorExtensions: [] })).toBeUndefined();
  expect(ownKernels(true, { platform: "win32-x64", vectorExtensions: ["avx2", "fma"] })).toBeUndefined();
  expect(ownKernels(false, plain)).toBeUndefined();
});

test("LONGWAVE_KERNELS", () => {
  vi.stubEnv("LONGWAVE_KERNELS", "off");
  expect(ownKernels(undefined, plain)).toBeUndefined();
  using backend = openBackend({ threads: 1 }).backend;
  expect(backend.operators.size).toBe(0);
  vi.stubEnv("LONGWAVE_KERNELS", "on");
  expect(ownKernels(undefined, { ...plain, vectorExtensions: ["avx2", "fma", "avx_vnni"] })).toMatch(/linux-x64\.so$/);
  vi.stubEnv("LONGWAVE_KERNELS", "avx2");
  expect(ownKernels(undefined, { ...plain, vectorExtensions: ["avx2", "fma", "avx512f", "avx512_vnni"] })).toMatch(/linux-x64\.so$/);
  vi.stubEnv("LONGWAVE_KERNELS", "no");
  expect(() => ownKernels(undefined, plain)).toThrow("LONGWAVE_KERNELS: expected on, off or avx2, got no");
  expect(() => openBackend()).toThrow("LONGWAVE_KERNELS: expected on, off or avx2, got no");
});

test("the libraries were compiled from the source that is here", () => {
  const sha256 = (path: string): string =>
    createHash("sha256")
      .update(readFileSync(at(path)))
      .digest("hex");
  const made = JSON.parse(readFileSync(at("assets/native/made-from.json"), "utf8"));
  expect(made.source).toEqual(Object.fromEntries(readdirSync(at("native")).map((name) => [`native/${name}`, sha256(`native/${name}`)])));
  for (const [name, hash] of Object.entries(made.libraries)) expect(sha256(`assets/native/${name}`)).toBe(hash);
});
