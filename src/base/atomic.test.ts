import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { recoverDirectory, stageDirectory, stageFile, storageError, writeDirectoryAtomic, writeFileAtomic } from "./atomic.ts";
import { CheckpointError, UsageError } from "./errors.ts";

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "longwave-atomic-"));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

/** The id that a staged path of this process would have had, had it been made by a process that is gone. */
function deadId(target: string): string {
  const staged = stageFile(target);
  const [, tag] = /\.tmp-\d+-([0-9a-f]{12})$/.exec(staged.path)!;
  staged.discard();
  const { pid } = spawnSync(process.execPath, ["-e", ""]);
  return `${pid}-${tag}`;
}

describe("files", () => {
  it("creates parents, replaces content and leaves nothing beside it", () => {
    const path = join(root, "a", "b", "config.json");
    writeFileAtomic(path, "one");
    writeFileAtomic(path, new TextEncoder().encode("two"));
    expect(readFileSync(path, "utf8")).toBe("two");
    expect(readdirSync(join(root, "a", "b"))).toEqual(["config.json"]);
  });

  it("keeps the old content until commit and after discard", () => {
    const path = join(root, "file");
    writeFileAtomic(path, "old");
    const staged = stageFile(path);
    writeFileSync(staged.path, "new");
    expect(readFileSync(path, "utf8")).toBe("old");
    staged.discard();
    expect(readFileSync(path, "utf8")).toBe("old");
    expect(readdirSync(root)).toEqual(["file"]);
  });
});

describe("directories", () => {
  it("replaces a directory whole: files of the old one are gone", () => {
    const path = join(root, "last");
    writeDirectoryAtomic(path, (at) => writeFileSync(join(at, "a"), "1"));
    const result = writeDirectoryAtomic(path, (at) => {
      mkdirSync(join(at, "inner"));
      writeFileSync(join(at, "inner", "b"), "2");
      return 7;
    });
    expect(result).toBe(7);
    expect(readdirSync(path)).toEqual(["inner"]);
    expect(readFileSync(join(path, "inner", "b"), "utf8")).toBe("2");
    expect(readdirSync(root)).toEqual(["last"]);
  });

  it("keeps the old directory when filling fails, and passes the error on", () => {
    const path = join(root, "last");
    writeDirectoryAtomic(path, (at) => writeFileSync(join(at, "a"), "1"));
    expect(() =>
      writeDirectoryAtomic(path, () => {
        throw new UsageError("stop");
      }),
    ).toThrow(UsageError);
    expect(readFileSync(join(path, "a"), "utf8")).toBe("1");
    expect(readdirSync(root)).toEqual(["last"]);
  });

  it("replaces what a link points to and keeps the link", () => {
    writeDirectoryAtomic(join(root, "step-1"), (at) => writeFileSync(join(at, "a"), "1"));
    symlinkSync("step-1", join(root, "latest"));
    writeDirectoryAtomic(join(root, "latest"), (at) => writeFileSync(join(at, "a"), "2"));
    expect(readFileSync(join(root, "step-1", "a"), "utf8")).toBe("2");
    expect(readFileSync(join(root, "latest", "a"), "utf8")).toBe("2");
  });

  it("refuses to replace a file by a directory and the reverse", () => {
    writeFileAtomic(join(root, "file"), "");
    mkdirSync(join(root, "folder"));
    expect(() => stageDirectory(join(root, "file"))).toThrow(/expected a directory or nothing there, got a file/);
    expect(() => stageFile(join(root, "folder"))).toThrow(CheckpointError);
  });
});

describe("what a dead process left", () => {
  it("is removed by the next save, while that of a living one stays", () => {
    const path = join(root, "last");
    const living = stageDirectory(path);
    mkdirSync(`${path}.tmp-${deadId(path)}`);
    const old = join(root, `last.tmp-${process.pid}-0000aaaaaaaa`); // another machine's, three days old
    mkdirSync(old);
    utimesSync(old, Date.now() / 1000 - 3 * 86400, Date.now() / 1000 - 3 * 86400);
    const foreign = join(root, `last.tmp-${process.pid}-0000bbbbbbbb`);
    mkdirSync(foreign);
    mkdirSync(join(root, "last.tmp-notes"));
    writeDirectoryAtomic(path, () => undefined);
    expect(readdirSync(root).sort()).toEqual(
      ["last", living.path.slice(root.length + 1), foreign.slice(root.length + 1), "last.tmp-notes"].sort(),
    );
    living.discard();
  });

  it("is moved forward when it died between the two renames", () => {
    const path = join(root, "last");
    const id = deadId(path);
    mkdirSync(`${path}.old-${id}`);
    writeFileSync(`${path}.old-${id}/step`, "1");
    mkdirSync(`${path}.tmp-${id}`);
    writeFileSync(`${path}.tmp-${id}/step`, "2");
    expect(recoverDirectory(path)).toBe(true);
    expect(readFileSync(join(path, "step"), "utf8")).toBe("2");
    expect(readdirSync(root)).toEqual(["last"]);
    expect(recoverDirectory(path)).toBe(false);
  });

  it("is moved back when only the old directory is there", () => {
    const path = join(root, "last");
    const id = deadId(path);
    mkdirSync(`${path}.old-${id}`);
    writeFileSync(`${path}.old-${id}/step`, "1");
    expect(recoverDirectory(path)).toBe(true);
    expect(readFileSync(join(path, "step"), "utf8")).toBe("1");
  });

  it("that never finished writing is not taken for a checkpoint", () => {
    const path = join(root, "last");
    mkdirSync(`${path}.tmp-${deadId(path)}`);
    expect(recoverDirectory(path)).toBe(false);
    expect(existsSync(path)).toBe(false);
  });
});

describe("storageError", () => {
  it("translates system errors and leaves others alone", () => {
    writeFileSync(join(root, "file"), "");
    expect(() => writeFileAtomic(join(root, "file", "below"), "")).toThrow(CheckpointError);
    for (const below of ["below", "far/below"])
      expect(() => writeFileAtomic(join(root, "file", below), "")).toThrow(/expected a folder as parent, got (EEXIST|ENOTDIR) from mkdir/);
    symlinkSync(join(root, "nowhere"), join(root, "broken"));
    expect(() => writeDirectoryAtomic(join(root, "broken", "below"), () => undefined)).toThrow(/expected (a folder as parent|its folder)/);
    const other = new Error("x");
    expect(storageError(other, "p")).toBe(other);
    for (const code of ["ENOSPC", "EROFS", "EACCES", "ESOMETHING"]) {
      const translated = storageError(Object.assign(new Error(code), { code, syscall: "write" }), "runs/a") as CheckpointError;
      expect(translated).toBeInstanceOf(CheckpointError);
      expect(translated.message).toContain(code);
      expect(translated.hint).toContain("intact");
    }
  });
});
