// GGUF files as whole models: read once, with their own tokenizer or with another file's.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeEach, describe, expect, test, vi } from "vitest";
import { FormatError, UsageError } from "../../base/errors.ts";
import { openGguf } from "../../formats/gguf.ts";
import { ggufEntry, writeGguf } from "../../formats/gguf-write.ts";
import { loadDecoder } from "../../models/decoder/checkpoint.ts";
import { loadQuantisedGguf } from "../../models/decoder/gguf-quantised.ts";
import { loadModel } from "./load-model.ts";

vi.mock("../../formats/gguf.ts", async (original) => {
  const module = (await original()) as { openGguf: typeof openGguf };
  return { ...module, openGguf: vi.fn(module.openGguf) };
});

const llama = "test/golden/formats/gguf/llama-Q4_1.gguf";
const folder = mkdtempSync(join(tmpdir(), "longwave-load-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
beforeEach(() => void vi.mocked(openGguf).mockClear());

/** The same model under another name of its splitting rule. */
function renamed(): string {
  using file = openGguf(llama);
  const path = join(folder, "martian.gguf");
  const tensors = Array.from(file.entries.values(), ({ name, dtype, shape, bytes }) => {
    const data = new Uint8Array(bytes);
    file.readBytesInto(name, data);
    return { name, dtype, shape, data };
  });
  writeGguf(path, tensors, { metadata: new Map(file.metadata).set("tokenizer.ggml.model", ggufEntry.string("martian")) });
  return path;
}

describe("a GGUF file", () => {
  test.each(["stored", "f32"] as const)("is opened once (%s)", async (weights) => {
    const { tokenizer, model } = await loadModel(llama, { weights });
    expect(vi.mocked(openGguf)).toHaveBeenCalledTimes(1);
    expect(tokenizer.vocabSize).toBeLessThanOrEqual(model.config.vocabSize);
    const [{ value: file }] = vi.mocked(openGguf).mock.results as { value: ReturnType<typeof openGguf> }[];
    expect(() => file.read(file.entries.keys().next().value as string)).toThrow("closed");
  });

  test("that is open already stays open", () => {
    using file = openGguf(llama);
    const model = loadQuantisedGguf(file);
    expect(model.config.vocabSize).toBe(loadDecoder(llama).config.vocabSize);
    expect(file.read(file.entries.keys().next().value as string).data.length).toBeGreaterThan(0);
  });

  test("whose tokenizer cannot be read takes the one that is given", async () => {
    const path = renamed();
    await expect(loadModel(path)).rejects.toThrow(FormatError);
    const { tokenizer } = await loadModel(path, { tokenizer: llama });
    expect(tokenizer.hash).toBe((await loadModel(llama)).tokenizer.hash);
    await expect(loadModel(llama, { tokenizer: "assets/stories260k/tok512.bin" })).rejects.toThrow(UsageError);
  });
});

// A folder that happens to be called like an owner on the hub does not hide what else the owner has there.
test.each(["nobody-is/none", "src/none"])("a name that is neither here nor on the hub may have been meant as a path (%s)", async (name) => {
  await expect(loadModel(name, { offline: true })).rejects.toMatchObject({
    message: expect.stringMatching(new RegExp(`^${name}`)),
    hint: expect.stringContaining(`There is no folder ${name} here either.`),
  });
});
