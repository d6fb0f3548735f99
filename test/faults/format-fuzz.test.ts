// Thousands of damaged files of every format: each is either read or refused with an error of ours, and opening one takes no more memory
// in typed arrays than four times the file and a megabyte. The sequence is the same in every run.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { LongwaveError } from "../../src/base/errors.ts";
import { openGguf } from "../../src/formats/gguf.ts";
import { ggufEntry, writeGguf } from "../../src/formats/gguf-write.ts";
import { openSafetensors } from "../../src/formats/safetensors.ts";
import type { TensorSource } from "../../src/formats/tensor-source.ts";
import { openTorch } from "../../src/formats/torch-file.ts";
import { loadDecoder } from "../../src/models/decoder/checkpoint.ts";
import { loadGgufTokenizer } from "../../src/text/gguf-tokenizer.ts";
import { type JsonObject, loadTokenizer } from "../../src/text/index.ts";

const long = process.env.LONGWAVE_TEST_LONG === "1";
const total = long ? 200_000 : 5000;
const directory = mkdtempSync(join(tmpdir(), "longwave-fuzz-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));
const golden = (name: string): Buffer => readFileSync(new URL(`../golden/${name}`, import.meta.url));

/** Mulberry32. */
function randomOf(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (((mixed ^ (mixed >>> 14)) >>> 0) % 2 ** 31) % below;
  };
}
type Random = (below: number) => number;

const interesting = [
  0n,
  1n,
  2n,
  0x7fn,
  0x80n,
  0xffn,
  0x7fffn,
  0xffffn,
  0x7fffffffn,
  0x80000000n,
  0xffffffffn,
  2n ** 40n,
  2n ** 53n,
  2n ** 63n,
  2n ** 64n - 1n,
];

/** One to four changes, most of them within `focus` bytes from the start. */
function mutate(seed: Buffer, random: Random, focus: number): Buffer {
  let bytes = Buffer.from(seed);
  for (let change = random(4); change >= 0; change--) {
    if (bytes.length < 16) return bytes;
    const at = random(random(5) > 0 ? Math.min(focus, bytes.length - 8) : bytes.length - 8);
    switch (random(8)) {
      case 0:
        bytes[at] ^= 1 << random(8);
        break;
      case 1:
        bytes[at] = random(256);
        break;
      case 2:
        bytes.writeUInt32LE(Number(interesting[random(interesting.length)] & 0xffffffffn), at);
        break;
      case 3:
        bytes.writeBigUInt64LE(interesting[random(interesting.length)], at);
        break;
      case 4:
        bytes = bytes.subarray(0, random(bytes.length));
        break;
      case 5: {
        // A piece from elsewhere in its place.
        const from = random(bytes.length - 8);
        bytes.copy(bytes, at, from, from + random(64));
        break;
      }
      case 6:
        bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + 1 + random(16))]);
        break;
      default:
        bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(at, at + 1 + random(32)), bytes.subarray(at)]);
    }
  }
  return bytes;
}

const numberArrays = [
  "Uint8Array",
  "Int8Array",
  "Uint16Array",
  "Int16Array",
  "Uint32Array",
  "Int32Array",
  "Float32Array",
  "Float64Array",
  "BigInt64Array",
  "BigUint64Array",
] as const;

/** Bytes of all typed arrays and array buffers that `run` makes; those over memory that exists already do not count. */
function countingBytes(run: () => void): number {
  const scope = globalThis as unknown as Record<string, new (...args: unknown[]) => ArrayBufferView | ArrayBuffer>;
  const originals = [...numberArrays, "ArrayBuffer"].map((name) => [name, scope[name]] as const);
  let bytes = 0;
  for (const [name, original] of originals) {
    scope[name] = new Proxy(original, {
      construct(target, args, newTarget) {
        const made = Reflect.construct(target, args, newTarget === scope[name] ? target : newTarget);
        if (!(args[0] instanceof originals.at(-1)![1])) bytes += made.byteLength;
        return made;
      },
    });
  }
  try {
    run();
  } finally {
    for (const [name, original] of originals) scope[name] = original;
  }
  return bytes;
}

interface Format {
  readonly seeds: readonly Buffer[];
  readonly extension: string;
  /** Bytes at the start that hold structure. */
  readonly focus: number;
  open(path: string): unknown;
  /** Goes through everything that an opened file offers. */
  use(opened: unknown): void;
  /** Typed arrays that do not depend on the file. */
  readonly fixedBytes?: number;
  readonly share: number;
}

function readAll(source: TensorSource): void {
  try {
    for (const name of source.entries.keys()) {
      try {
        source.read(name);
      } catch (error) {
        if (!(error instanceof LongwaveError)) throw error;
      }
    }
  } finally {
    source.close();
  }
}

function tokenizerGguf(): Buffer {
  const path = join(directory, "seed.gguf");
  const tokens = ["<unk>", "<s>", "</s>", "▁", "a", "b", "▁a", "ab", "<0x0A>"];
  writeGguf(path, [{ name: "token_embd.weight", dtype: "Q8_0", shape: [9, 32], data: new Float32Array(9 * 32) }], {
    metadata: [
      ["general.architecture", ggufEntry.string("llama")],
      ["llama.block_count", ggufEntry.u32(1)],
      ["llama.embedding_length", ggufEntry.u32(32)],
      ["llama.attention.head_count", ggufEntry.u32(2)],
      ["llama.feed_forward_length", ggufEntry.u32(64)],
      ["llama.context_length", ggufEntry.u32(16)],
      ["llama.attention.layer_norm_rms_epsilon", ggufEntry.f32(1e-5)],
      ["tokenizer.ggml.model", ggufEntry.string("llama")],
      ["tokenizer.ggml.tokens", ggufEntry.strings(tokens)],
      ["tokenizer.ggml.scores", ggufEntry.f32s(Float32Array.from(tokens, (_, i) => -i))],
      ["tokenizer.ggml.token_type", ggufEntry.i32s(Int32Array.from([2, 3, 3, 1, 1, 1, 1, 1, 6]))],
    ],
  });
  return readFileSync(path);
}

const formats: Record<string, Format> = {
  safetensors: {
    seeds: [golden("formats/dtypes.safetensors")],
    extension: "safetensors",
    focus: 1400,
    open: openSafetensors,
    use: (source) => readAll(source as TensorSource),
    share: 0.3,
  },
  GGUF: {
    seeds: [golden("formats/gguf/zoo.gguf"), tokenizerGguf()],
    extension: "gguf",
    focus: 1700,
    open: openGguf,
    use: (source) => {
      const file = source as ReturnType<typeof openGguf>;
      for (const read of [() => loadDecoder(file.path), () => loadGgufTokenizer(file.path).encode("ab a\n")]) {
        try {
          read();
        } catch (error) {
          if (!(error instanceof LongwaveError)) throw error;
        }
      }
      readAll(file);
    },
    share: 0.3,
  },
  PyTorch: {
    seeds: ["tensors", "nested", "zip64", "optimizer", "protocol4"].map((name) => golden(`formats/torch/${name}.pt`)),
    extension: "pt",
    focus: 2600,
    open: openTorch,
    use: (source) => readAll(source as TensorSource),
    share: 0.3,
  },
};

/** @returns how many files were refused. */
function fuzz(
  { seeds, extension, focus, open, use, fixedBytes = 0 }: Format,
  count: number,
  seed: number,
  make?: (random: Random) => Buffer,
): number {
  const random = randomOf(seed);
  const path = join(directory, `file.${extension}`);
  let refused = 0;
  for (let i = 0; i < count; i++) {
    const bytes = make ? make(random) : mutate(seeds[random(seeds.length)], random, focus);
    writeFileSync(path, bytes);
    let opened: unknown;
    let failure: unknown;
    const used = countingBytes(() => {
      try {
        opened = open(path);
      } catch (error) {
        failure = error;
      }
    });
    const place = `file ${i} of seed ${seed} (${bytes.length} bytes)`;
    if (used - fixedBytes > 4 * bytes.length + 2 ** 20) throw new Error(`${place}: ${used} bytes of typed arrays`, { cause: failure });
    try {
      if (failure === undefined) use(opened);
    } catch (error) {
      throw new Error(place, { cause: error });
    }
    if (failure === undefined) continue;
    if (!(failure instanceof LongwaveError)) throw new Error(place, { cause: failure });
    refused++;
  }
  return refused;
}

test("memory is counted", () => {
  expect(countingBytes(() => new Float32Array(1000))).toBe(4000);
  expect(countingBytes(() => new Uint8Array(new ArrayBuffer(1000), 8, 16))).toBe(1000);
  const path = join(directory, "seed.safetensors");
  writeFileSync(path, formats.safetensors.seeds[0]);
  expect(countingBytes(() => openSafetensors(path).close())).toBeGreaterThan(1000);
});

describe("damaged files", () => {
  test.each(Object.entries(formats))("%s", (_, format) => {
    const count = Math.floor(total * format.share);
    const refused = fuzz(format, count, 11);
    // Both happen often: structure is hit, and so is content.
    expect(refused).toBeGreaterThan(count * 0.3);
    expect(refused).toBeLessThan(count);
  });

  const odd: unknown[] = [null, true, -1, 0, 1.5, 1e9, "", "a", "▁", "\ud800", [], {}, [[]], [null], { type: "Sequence" }];

  /** One to three values of a JSON file replaced, removed or copied from elsewhere. */
  function mutateJson(seed: string, random: Random): Buffer {
    const root = JSON.parse(seed) as JsonObject;
    for (let change = random(3); change >= 0; change--) {
      let owner = root as Record<string, unknown>;
      let keys = Object.keys(owner);
      let key = keys[random(keys.length)];
      for (let depth = random(6); depth > 0; depth--) {
        const inner = owner[key];
        if (typeof inner !== "object" || inner === null || Object.keys(inner).length === 0) break;
        owner = inner as Record<string, unknown>;
        keys = Object.keys(owner);
        key = keys[random(keys.length)];
      }
      const kind = random(4);
      if (kind === 0) delete owner[key];
      else if (kind === 1) owner[keys[random(keys.length)]] = owner[key];
      else owner[key] = odd[random(odd.length)];
    }
    return Buffer.from(JSON.stringify(root));
  }

  test("tokenizer.json", { timeout: long ? 3_600_000 : 60_000 }, () => {
    const names = ["gpt2-bytelevel", "llama2-bytefallback", "unigram-spm", "mistral-metaspace"];
    const seeds = names.map((name) => shrink(golden(`tokenizers/${name}/tokenizer.json`).toString("utf8")));
    const use = (tokenizer: unknown): void => {
      const own = tokenizer as ReturnType<typeof loadTokenizer>;
      try {
        own.decode(own.encode("The whale, the whale! 123\n é 🐳"));
      } catch (error) {
        if (!(error instanceof LongwaveError)) throw error;
      }
    };
    // Tables of characters and caches of words, made once or of a fixed size.
    const path = join(directory, "seed.json");
    let fixedBytes = 0;
    for (const seed of seeds) {
      writeFileSync(path, seed);
      fixedBytes = Math.max(
        fixedBytes,
        countingBytes(() => loadTokenizer(path)),
      );
    }
    const format: Format = { seeds: [], extension: "json", focus: 0, open: loadTokenizer, use, fixedBytes, share: 0.1 };
    const make = (random: Random): Buffer => {
      const seed = seeds[random(seeds.length)];
      return random(4) === 0 ? mutate(Buffer.from(seed), random, seed.length) : mutateJson(seed, random);
    };
    expect(fuzz(format, Math.floor(total * format.share), 12, make)).toBeGreaterThan(10);
  });

  /** The first entries of a vocabulary and the merges among them. */
  function shrink(text: string): string {
    const json = JSON.parse(text);
    const { model } = json;
    if (Array.isArray(model.vocab)) model.vocab.length = Math.min(model.vocab.length, 300);
    else {
      model.vocab = Object.fromEntries(Object.entries(model.vocab).slice(0, 300));
      const knows = (token: string): boolean => Object.hasOwn(model.vocab, token);
      model.merges = model.merges.filter((merge: string | string[]) => {
        const [left, right] = typeof merge === "string" ? merge.split(" ") : merge;
        return knows(left) && knows(right) && knows(left + right);
      });
    }
    return JSON.stringify(json);
  }
});
