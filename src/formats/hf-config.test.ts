import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { FormatError } from "../base/errors.ts";
import { parseHfConfig, readHfConfig, readHfGenerationConfig, writeHfConfig } from "./hf-config.ts";
import { readJson } from "./json-file.ts";

const golden = new URL("../../test/golden/formats/sharded/", import.meta.url).pathname;
let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "longwave-config-"));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

it("reads what transformers 4 and 5 write, with every key", () => {
  for (const file of ["config.json", "config.v5.json"]) {
    const path = join(golden, file);
    const config = readHfConfig(path);
    expect(config).toEqual(JSON.parse(readFileSync(path, "utf8")));
    expect(config.model_type).toBe("llama");
    expect(config.hidden_size).toBe(48);
  }
  expect(readHfConfig(golden)).toEqual(readHfConfig(join(golden, "config.json")));
  expect(readHfGenerationConfig(golden)).toEqual(JSON.parse(readFileSync(join(golden, "generation_config.json"), "utf8")));
});

it("writes what it reads back", () => {
  const path = join(root, "config.json");
  const config = { model_type: "x", unknown_key: { deep: [1, null, "é"] }, sliding_window: null, eos_token_id: [1, 2] };
  writeHfConfig(path, config);
  expect(readHfConfig(root)).toEqual(config);
  expect(readFileSync(path, "utf8").endsWith("}\n")).toBe(true);
});

it("names the field that is wrong", () => {
  expect(() => parseHfConfig({ hidden_size: "48" }, "config.json")).toThrow(
    /config.json: expected a valid value at field hidden_size .* got "48"/,
  );
  expect(() => parseHfConfig({ hidden_size: 1.5 }, "c")).toThrow(FormatError);
  expect(() => parseHfConfig({ num_attention_heads: 0 }, "c")).toThrow(FormatError);
  expect(() => parseHfConfig({ layer_types: ["a", 1] }, "c")).toThrow(/layer_types.1/);
  expect(() => parseHfConfig([], "c")).toThrow(FormatError);
});

it("does not let a file reach prototypes", () => {
  const parsed = parseHfConfig(JSON.parse('{"__proto__":{"polluted":1},"constructor":{"a":1}}'), "c");
  expect(Object.getPrototypeOf(parsed)).toBe(Object.prototype);
  expect(({} as Record<string, unknown>).polluted).toBeUndefined();
});

it("refuses files that are too large, no JSON, no object, no UTF-8, or not there", () => {
  const path = join(root, "config.json");
  const refuse = (content: string | Uint8Array, message: RegExp) => {
    writeFileSync(path, content);
    expect(() => readHfConfig(path)).toThrow(message);
  };
  expect(() => readHfConfig(path)).toThrow(/ENOENT/);
  refuse("{", /expected JSON/);
  refuse('{"a": NaN}', /expected JSON/);
  refuse("[]", /expected a JSON object, got an array/);
  refuse("null", /expected a JSON object, got null/);
  refuse(new Uint8Array([0xff]), /UTF-8/);
  writeFileSync(path, '"12345"');
  expect(() => readJson(path, { maxBytes: 6 })).toThrow(/at most 6 bytes, got 7/);
  expect(() => readJson(root)).toThrow(/folder/);
});
