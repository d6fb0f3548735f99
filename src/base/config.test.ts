import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { readConfigFile } from "./config.ts";
import { UsageError } from "./errors.ts";

const folder = mkdtempSync(join(tmpdir(), "longwave-config-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const write = (name: string, text: string): string => {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
};

describe("readConfigFile", () => {
  it("reads YAML and knows the line of every key", () => {
    const config = readConfigFile(write("a.yaml", "# settings\nsteps: 5\noptim:\n  kind: muon\noptim.betas: [0.9, 0.95]\n"));
    expect(config.values).toEqual({ steps: 5, optim: { kind: "muon" }, "optim.betas": [0.9, 0.95] });
    expect(config.locate(["steps"])).toBe("a.yaml:2");
    expect(config.locate(["optim", "kind"])).toBe("a.yaml:4");
    expect(config.locate(["optim", "betas"])).toBe("a.yaml:5");
    expect(config.locate(["absent"])).toBe("a.yaml");
  });

  it("reads JSON, also with tabs and a byte order mark", () => {
    const config = readConfigFile(write("b.json", '\uFEFF{\n\t"steps": 5,\n\t"optim": {\n\t\t"kind": "muon"\n\t}\n}'));
    expect(config.values).toEqual({ steps: 5, optim: { kind: "muon" } });
    expect(config.locate(["steps"])).toBe("b.json:2");
    expect(config.locate(["optim", "kind"])).toBe("b.json:4");
  });

  it("takes an empty YAML file as no settings", () => {
    expect(readConfigFile(write("empty.yml", "# nothing\n")).values).toEqual({});
  });

  it.each([
    ["broken.yaml", "steps: 5\noptim: [1, 2\nkind: muon\n", /broken\.yaml:\d+: expected YAML/],
    ["twice.yaml", "steps: 5\nsteps: 6\n", /twice\.yaml:2: expected YAML/],
    ["broken.json", '{\n  "steps": 5,\n}', /broken\.json:3: expected JSON/],
    ["cut.json", '{\n  "steps": 5', /cut\.json:2: expected JSON/],
    ["list.yaml", "- 1\n", /expected an object of settings, got a list/],
    ["word.json", '"steps"', /expected an object of settings, got string/],
    ["name.toml", "steps = 5", /expected a name that ends in \.json, \.yaml or \.yml/],
  ])("refuses %s", (name, text, error) => {
    const path = write(name, text);
    expect(() => readConfigFile(path)).toThrow(UsageError);
    expect(() => readConfigFile(path)).toThrow(error);
  });

  it("refuses a missing file, a folder, an oversized file and an alias bomb", () => {
    expect(() => readConfigFile(join(folder, "none.yaml"))).toThrow("expected a readable file, got none");
    expect(() => readConfigFile(folder)).toThrow(UsageError);
    expect(() => readConfigFile(write("large.yaml", "a: 1\n".padEnd(200, "#")), { maxBytes: 100 })).toThrow(
      "expected at most 100 bytes, got 200",
    );
    const level = (n: number) =>
      `a${n}: &a${n} [${Array(10)
        .fill(`*a${n - 1}`)
        .join(", ")}]\n`;
    const bomb = `a0: &a0 [x, x]\n${[1, 2, 3, 4, 5, 6, 7].map(level).join("")}`;
    expect(() => readConfigFile(write("bomb.yaml", bomb))).toThrow("expected YAML with few aliases");
  });
});
