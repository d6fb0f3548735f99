import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Backend } from "../../runtime/backend.ts";
import { openBackend } from "../../runtime/open.ts";
import { convertModel } from "./convert-model.ts";
import { load } from "./text-model.ts";

const chatModel = "test/golden/checkpoints/smollm2";
let folder: string;
let backend: Backend;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "longwave-convert-"));
  backend = openBackend({ threads: 1 }).backend;
});
afterAll(() => {
  backend.dispose();
  rmSync(folder, { recursive: true });
});

const answer = async (path: string): Promise<readonly number[]> => {
  using model = await load(path, { backend });
  const ids = model.chatIds([{ role: "user", content: "Hello, how are you?" }]);
  return [...ids, ...(await model.complete(ids, { sampling: { doSample: false }, maxNewTokens: 12, eosTokenIds: [] })).ids];
};

describe("a model in another format", () => {
  test("answers as it did: folder to GGUF and back", async () => {
    const expected = await answer(chatModel);
    const gguf = join(folder, "model.gguf");
    await convertModel(chatModel, gguf, { dtype: "f32" });
    expect(await answer(gguf)).toEqual(expected);
    const back = join(folder, "back");
    await convertModel(gguf, back);
    expect(await answer(back)).toEqual(expected);
    expect(readdirSync(back).sort()).toEqual(
      expect.arrayContaining(["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]),
    );
  });

  test("is smaller in fewer bits", async () => {
    const sizes = [];
    for (const dtype of ["f32", "q8_0", "q4_0"] as const)
      sizes.push((await convertModel(chatModel, join(folder, `${dtype}.gguf`), { dtype })).bytes);
    expect(sizes[1]).toBeLessThan(sizes[0] / 2);
    expect(sizes[2]).toBeLessThanOrEqual(sizes[1]);
  });

  test("does not take the place of what is there, and half of it is never left", async () => {
    const output = join(folder, "taken.gguf");
    writeFileSync(output, "mine");
    await expect(convertModel(chatModel, output)).rejects.toThrow("expected nothing there");
    await convertModel(chatModel, output, { overwrite: true });
    await expect(convertModel(chatModel, join(folder, "q"), { dtype: "q8_0" })).rejects.toThrow("for a folder");
    await expect(convertModel("assets/stories260k/stories260K.bin", join(folder, "s.gguf"))).rejects.toThrow("tokenizer.json for a GGUF");
    expect(existsSync(join(folder, "s.gguf"))).toBe(false);
  });

  test("takes the place of a checkpoint, its own source too, but of no other folder", async () => {
    const model = join(folder, "own");
    cpSync(chatModel, model, { recursive: true });
    const expected = await answer(model);
    await convertModel(model, model, { overwrite: true });
    expect(await answer(model)).toEqual(expected);
    // A conversion that fails leaves what was there.
    await expect(convertModel("no/such/model/here", model, { overwrite: true })).rejects.toThrow("expected a checkpoint folder");
    await expect(convertModel(model, model, { overwrite: true, tokenizer: join(folder, "none.json") })).rejects.toThrow();
    expect(await answer(model)).toEqual(expected);
    const other = join(folder, "documents");
    mkdirSync(other);
    writeFileSync(join(other, "letter.txt"), "mine");
    await expect(convertModel(model, other, { overwrite: true })).rejects.toThrow("without config.json");
    expect(readdirSync(other)).toEqual(["letter.txt"]);
  });
});
