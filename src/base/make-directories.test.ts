import { existsSync, mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { makeDirectories } from "./make-directories.ts";

const root = mkdtempSync(join(tmpdir(), "longwave-directories-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

describe("makeDirectories", () => {
  it("makes what is missing and leaves what is there", () => {
    const path = join(root, "a", "b", "c");
    makeDirectories(path);
    writeFileSync(join(path, "kept"), "");
    makeDirectories(path);
    expect(statSync(path).isDirectory()).toBe(true);
    expect(existsSync(join(path, "kept"))).toBe(true);
  });

  it("refuses a file in the way and a link to nothing", () => {
    writeFileSync(join(root, "file"), "");
    expect(() => makeDirectories(join(root, "file"))).toThrow("EEXIST");
    expect(() => makeDirectories(join(root, "file", "below"))).toThrow("ENOTDIR");
    symlinkSync(join(root, "nowhere"), join(root, "link"));
    expect(() => makeDirectories(join(root, "link"))).toThrow("EEXIST");
  });

  it.skipIf(process.platform !== "linux")("ends where a file system has no place for folders", () => {
    expect(() => makeDirectories("/proc/longwave/run")).toThrow("ENOENT");
  });
});
