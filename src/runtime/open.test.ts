import { afterEach, describe, expect, it, vi } from "vitest";
import { BackendError, UsageError } from "../base/errors.ts";
import type { BackendOptions } from "./backend.ts";
import { openBindingBackend } from "./binding/backend.ts";
import { openNativeBackend } from "./native/backend.ts";
import { openBackend, remedy } from "./open.ts";

const fails =
  (message: string) =>
  (_: BackendOptions): never => {
    throw new BackendError(message);
  };

describe("openBackend", () => {
  afterEach(() => vi.unstubAllEnvs());

  it("takes the native backend", () => {
    const { backend, fallbackReason } = openBackend({ threads: 1 });
    expect(backend.name).toBe("native");
    expect(backend.threads).toBe(1);
    expect(fallbackReason).toBeUndefined();
    backend.dispose();
  });

  it("falls back to the binding and says why", () => {
    const { backend, fallbackReason } = openBackend({}, { native: fails("koffi: no binary"), binding: openBindingBackend });
    expect(backend.name).toBe("binding");
    expect(fallbackReason).toBe("koffi: no binary");
    backend.dispose();
  });

  it("names both failures and the remedy", () => {
    const open = () => openBackend({}, { native: fails("koffi: no binary"), binding: fails("addon: wrong ELF class") });
    expect(open).toThrow(/"koffi: no binary" and "addon: wrong ELF class"/);
    try {
      open();
    } catch (error) {
      expect((error as BackendError).hint).toBe(remedy());
    }
    expect(remedy("linux-x64")).toMatch(/ONNXRUNTIME_NODE_INSTALL=skip npm install.*npm rebuild/);
    expect(remedy("sunos-x64")).toMatch(/no library for sunos-x64; it runs on linux-x64/);
  });

  it("does not fall back when the caller or LONGWAVE_BACKEND chose", () => {
    const openers = { native: fails("koffi: no binary"), binding: openBindingBackend };
    expect(() => openBackend({ backend: "native" }, openers)).toThrow("koffi: no binary");
    vi.stubEnv("LONGWAVE_BACKEND", "native");
    expect(() => openBackend({}, openers)).toThrow("koffi: no binary");
    vi.stubEnv("LONGWAVE_BACKEND", "binding");
    const { backend, fallbackReason } = openBackend();
    expect([backend.name, fallbackReason]).toEqual(["binding", undefined]);
    backend.dispose();
    const native = openBackend({ backend: "native" }, { ...openers, native: openNativeBackend }).backend;
    expect(native.name).toBe("native");
    native.dispose();
  });

  it("refuses unknown names and numbers of threads", () => {
    vi.stubEnv("LONGWAVE_BACKEND", "nativ");
    expect(() => openBackend()).toThrow("LONGWAVE_BACKEND: expected native or binding, got nativ");
    expect(() => openBackend()).toThrow(UsageError);
    vi.stubEnv("LONGWAVE_BACKEND", "");
    expect(() => openBackend({ threads: -1 })).toThrow(UsageError);
  });
});
