// The golden runner passes what is stored and fails what was altered: one number, id, token or step of every kind that has a copy here.
import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeEach, describe, expect, test, vi } from "vitest";
import { main } from "../../scripts/golden/main.ts";
import { type CaseResult, type Counts, readCoverage, runGolden } from "../../scripts/golden/run.ts";

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));
const temporary = mkdtempSync(join(tmpdir(), "longwave-golden-runner-"));
afterAll(() => {
  vi.restoreAllMocks();
  rmSync(temporary, { recursive: true, force: true });
});

/** Folders laid out as the golden data is. */
let root = "";
let numRoots = 0;
beforeEach(() => {
  root = join(temporary, String(numRoots++));
  mkdirSync(root);
});

// biome-ignore lint/suspicious/noExplicitAny: test data of many shapes, altered by path.
type Json = any;

const readJson = (path: string): Json => JSON.parse(readFileSync(here(path), "utf8"));
function writeJson(path: string, value: Json): void {
  mkdirSync(dirname(join(root, path)), { recursive: true });
  writeFileSync(join(root, path), JSON.stringify(value));
}

async function run(path = root): Promise<Counts & { results: CaseResult[]; failures: string[] }> {
  const results: CaseResult[] = [];
  const counts = await runGolden(path, { onResult: (result) => results.push(result) });
  return {
    ...counts,
    results,
    failures: results.filter(({ status }) => status === "failed").map(({ label, detail }) => `${label}: ${detail}`),
  };
}

/** The largest number of a nested list moved by a hundredth of itself, or to 1 from 0: more than any tolerance. */
function alterNumber(list: Json): void {
  const leaves: [owner: Json, key: string | number][] = [];
  const visit = (value: Json): void => {
    for (const [key, item] of Object.entries(value)) {
      if (typeof item === "number") leaves.push([value, key]);
      else if (typeof item === "object" && item !== null) visit(item);
    }
  };
  visit(list);
  expect(leaves.length).toBeGreaterThan(0);
  const [owner, key] = leaves.reduce((best, leaf) => (Math.abs(leaf[0][leaf[1]]) > Math.abs(best[0][best[1]]) ? leaf : best));
  owner[key] = owner[key] === 0 ? 1 : owner[key] * 1.01;
}

/** Adds 0.5 to the last float of a tensor. */
function alterTensor(path: string, name: string): void {
  const bytes = readFileSync(join(root, path));
  const headerLength = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.subarray(8, 8 + headerLength).toString("utf8"));
  const at = 8 + headerLength + header[name].data_offsets[1] - 4;
  bytes.writeFloatLE(bytes.readFloatLE(at) + 0.5, at);
  writeFileSync(join(root, path), bytes);
}

function alterByte(path: string, at: number): void {
  const bytes = readFileSync(join(root, path));
  bytes[at] ^= 64;
  writeFileSync(join(root, path), bytes);
}

const ggufPath = "models/gguf";
function copyGguf(stem: string): void {
  const isOfStem = (path: string): boolean => !/\.\w+$/.test(path) || new RegExp(`gguf/${stem}[-.][^/]+$`).test(path);
  cpSync(here("./formats/gguf"), join(root, ggufPath), { recursive: true, filter: isOfStem });
}

const otherId = (list: number[], at = 0): void => {
  list[at] = list[at] === 5 ? 6 : 5;
};

interface Source {
  /** Writes unaltered files below `root`. */
  write(): void;
  /** Other kinds that have cases in the same files. */
  alsoPass?: readonly string[];
  /** Ways to spoil them; each must make at least one case of the kind fail. */
  alterations: Record<string, () => void>;
}

/** Rewrites a JSON file below `root`. */
function alterJson(path: string, change: (content: Json) => void): () => void {
  return () => {
    const content = JSON.parse(readFileSync(join(root, path), "utf8"));
    change(content);
    writeJson(path, content);
  };
}

const sampling: Json[] = readJson("./sampling/expected.json").cases;
const samplingNames = [...new Set(sampling.map(({ name }) => name as string))];
const samplingPath = "models/sampling/expected.json";
const tokenizerPath = "models/tokenizers/gpt2-bytelevel/expected.json";
const chatPath = "models/chat-templates/chatml";
const checkpointPath = "models/checkpoints/gpt2-prefixed";
const storiesPath = "models/stories260k";
const bpePath = "models/bpe-training/expected.json";
const schedules: Json[] = readJson("./optim/schedules.json").schedules;
const optimisers = readJson("./rl/optimisers.json");
/** The case with the most options of each optimiser. */
const richest = new Map<string, Json>();
for (const item of optimisers.cases) {
  const known = richest.get(item.optimiser);
  if (!known || Object.keys(item.options).length > Object.keys(known.options).length) richest.set(item.optimiser, item);
}

function tokenizerSource(name: string): Source {
  const path = `models/tokenizers/${name}`;
  return {
    write: () => {
      cpSync(here(`./tokenizers/${name}`), join(root, path), { recursive: true });
      alterJson(`${path}/expected.json`, (file) => {
        file.cases.length = 30;
      })();
    },
    alsoPass: ["models/tokenizers/offsets", "models/tokenizers/pairs"],
    alterations: {
      "a vocabulary entry": alterJson(`${path}/tokenizer.json`, ({ model: { vocab } }) => {
        // The scores of a frequent and of a rare token, or the ids of two tokens.
        const [first, second] = Array.isArray(vocab) ? [10, 200] : Object.keys(vocab).slice(-2);
        [vocab[first], vocab[second]] = [vocab[second], vocab[first]];
      }),
    },
  };
}

const sources: Record<string, Source> = {
  ...Object.fromEntries(
    samplingNames.map((name) => [
      `models/sampling/${name}`,
      {
        write: () => writeJson(samplingPath, { cases: [sampling.find((item) => item.name === name)] }),
        alterations: {
          "a processed logit": alterJson(samplingPath, ({ cases }) => alterNumber(cases[0].processed)),
          "a probability": alterJson(samplingPath, ({ cases }) => alterNumber(cases[0].probabilities)),
          "a number for an infinity": alterJson(samplingPath, ({ cases }) => {
            cases[0].processed[1][3] = cases[0].processed[1][3] === "-Infinity" ? 0 : "-Infinity";
          }),
        },
      },
    ]),
  ),
  "models/bpe-training": {
    write: () => {
      writeJson(bpePath, { runs: { small: readJson("./bpe-training/expected.json").runs.small } });
      cpSync(here("./bpe-training/text.txt"), join(root, "models/bpe-training/text.txt"));
    },
    alterations: {
      "the order of merges": alterJson(bpePath, ({ runs: { small } }) => {
        [small.merges[100], small.merges[101]] = [small.merges[101], small.merges[100]];
      }),
      "a count": alterJson(bpePath, ({ runs: { small } }) => {
        small.pairCounts[200]++;
      }),
      "an id": alterJson(bpePath, ({ runs: { small } }) => {
        small.vocab.a++;
      }),
    },
  },
  "models/stories260k": {
    write: () => cpSync(here("./formats/stories260k"), join(root, storiesPath), { recursive: true }),
    alterations: {
      "a logit": () => alterTensor(`${storiesPath}/expected.safetensors`, "logits.1"),
      "a greedy token": alterJson(`${storiesPath}/expected.json`, ({ cases }) => otherId(cases[2].greedy, 100)),
      "a character": alterJson(`${storiesPath}/expected.json`, ({ cases }) => {
        cases[0].text = cases[0].text.replace("Lily", "Lili");
      }),
      "an id of an encoding": alterJson(`${storiesPath}/expected.json`, ({ encodings }) => otherId(encodings.at(-1).ids, 1)),
    },
  },
  "models/tokenizers/byte-level-bpe": {
    ...tokenizerSource("gpt2-bytelevel"),
    alterations: {
      ...tokenizerSource("gpt2-bytelevel").alterations,
      "an id": alterJson(tokenizerPath, ({ cases }) => otherId(cases[5].ids)),
      "an id without special tokens": alterJson(tokenizerPath, ({ cases }) => otherId(cases[5].idsWithoutSpecial)),
      "a token": alterJson(tokenizerPath, ({ cases }) => {
        cases[5].tokens[0] += "x";
      }),
      "a decoded text": alterJson(tokenizerPath, ({ cases }) => {
        cases[5].decoded += " ";
      }),
      "a piece of a stream": alterJson(tokenizerPath, ({ cases }) => {
        cases[5].stream[0] = null;
      }),
      "a decoding of random ids": alterJson(tokenizerPath, ({ randomIdDecodes }) => {
        randomIdDecodes[3].decodedSkipSpecial += "!";
      }),
    },
  },
  "models/tokenizers/byte-fallback-bpe": tokenizerSource("llama2-bytefallback"),
  "models/tokenizers/unigram-nmt": tokenizerSource("unigram-metaspace"),
  "models/tokenizers/unigram-charsmap": tokenizerSource("unigram-spm"),
  "models/tokenizers/unigram-byte-fallback": tokenizerSource("unigram-bytefallback"),
  "models/tokenizers/offsets": {
    ...tokenizerSource("gpt2-bytelevel"),
    alsoPass: ["models/tokenizers/byte-level-bpe", "models/tokenizers/pairs"],
    alterations: {
      "an offset": alterJson(tokenizerPath, ({ cases }) => {
        cases[5].offsets[1][1]++;
      }),
      "a mark of a special token": alterJson(tokenizerPath, ({ cases }) => {
        cases[5].specialMask[0] = 1;
      }),
    },
  },
  "models/tokenizers/pairs": {
    ...tokenizerSource("gpt2-bytelevel"),
    alsoPass: ["models/tokenizers/byte-level-bpe", "models/tokenizers/offsets"],
    alterations: {
      "an id of a pair": alterJson(tokenizerPath, ({ pairs }) => otherId(pairs[0].ids)),
      "a type of a pair": alterJson(tokenizerPath, ({ pairs }) => {
        pairs[0].typeIds[0] = 1;
      }),
    },
  },
  "models/gguf/types": {
    write: () => copyGguf("zoo"),
    alterations: {
      "a block": () => alterByte(`${ggufPath}/zoo.gguf`, 20_000),
      "a value": () => alterTensor(`${ggufPath}/zoo.expected.safetensors`, "zoo.q5_k"),
      "a key": alterJson(`${ggufPath}/zoo.expected.json`, ({ keyValues }) => {
        keyValues["zoo.i8"] = 5;
      }),
      "a large key": alterJson(`${ggufPath}/zoo.expected.json`, (file) => {
        file.u64AsString = "9223372036854775812";
      }),
      "an offset": alterJson(`${ggufPath}/zoo.expected.json`, ({ tensors }) => {
        tensors[3].offset += 32;
      }),
    },
  },
  "models/gguf/models": {
    write: () => copyGguf("llama"),
    alterations: {
      "a block": () => alterByte(`${ggufPath}/llama-Q4_1.gguf`, 60_000),
      "a logit": () => alterTensor(`${ggufPath}/llama.expected.safetensors`, "logits.Q4_1"),
      "a greedy token": alterJson(`${ggufPath}/llama.expected.json`, ({ files }) => otherId(files.Q4_1.greedy, 7)),
      "an id of the tokenizer": alterJson(`${ggufPath}/llama.expected.json`, ({ tokenizer }) => otherId(tokenizer.llamaCppIds[2])),
      "the architecture": alterJson(`${ggufPath}/llama.expected.json`, (file) => {
        file.architecture = "qwen2";
      }),
      "the heads": alterJson(`${ggufPath}/llama.config.json`, (config) => {
        config.num_key_value_heads = 4;
      }),
    },
  },
  "models/chat-templates": {
    write: () => cpSync(here("./chat-templates/chatml"), join(root, chatPath), { recursive: true }),
    alterations: {
      "a character": alterJson(`${chatPath}/expected.json`, ({ cases }) => {
        cases[0].text += " ";
      }),
      "an id": alterJson(`${chatPath}/expected.json`, ({ cases }) => otherId(cases[1].ids, 3)),
      "a mark of the assistant": alterJson(`${chatPath}/expected.json`, ({ cases }) => {
        const marked = cases.find(({ assistantMask }: Json) => assistantMask?.includes(1));
        marked.assistantMask[marked.assistantMask.indexOf(1)] = 0;
      }),
      "the template": alterJson(`${chatPath}/tokenizer_config.json`, (config) => {
        config.chat_template = config.chat_template.replace("im_end", "im_stop");
      }),
    },
  },
  "models/checkpoints/gpt2": {
    write: () => cpSync(here("./checkpoints/gpt2-prefixed"), join(root, checkpointPath), { recursive: true }),
    alterations: {
      "a weight": () => alterTensor(`${checkpointPath}/model.safetensors`, "transformer.ln_f.weight"),
      "a logit": () => alterTensor(`${checkpointPath}/expected.safetensors`, "logits.1"),
      "a hidden state": () => alterTensor(`${checkpointPath}/expected.safetensors`, "hidden.0"),
      "a layer": () => alterTensor(`${checkpointPath}/expected.safetensors`, "layers.1"),
      "a greedy token": alterJson(`${checkpointPath}/expected.json`, ({ prompts }) => otherId(prompts[1].greedy, 20)),
      "a log-probability": alterJson(`${checkpointPath}/expected.json`, ({ prompts }) => alterNumber(prompts[0].continuationLogProbs)),
      "an id of a prompt": alterJson(`${checkpointPath}/expected.json`, ({ prompts }) => otherId(prompts[0].ids, 2)),
      "the activation": alterJson(`${checkpointPath}/config.json`, (config) => {
        config.activation_function = "relu";
      }),
      "a setting that the family does not have": alterJson(`${checkpointPath}/config.json`, (config) => {
        config.scale_attn_by_inverse_layer_idx = true;
      }),
    },
  },
  ...Object.fromEntries(
    [...new Set(schedules.map(({ schedule }) => schedule as string))].map((name) => [
      `rl/schedules/${name}`,
      {
        write: () => writeJson("rl/schedules.json", { schedules: schedules.filter((item) => item.schedule === name) }),
        alterations: {
          "a multiplier": alterJson("rl/schedules.json", (file) => alterNumber(file.schedules[0].multipliers)),
        },
      },
    ]),
  ),
  ...Object.fromEntries(
    Array.from(richest, ([name, item]) => [
      `rl/optimisers/${name}`,
      {
        write: () => writeJson("rl/optimisers.json", { cases: [item] }),
        alterations: {
          "a parameter": alterJson("rl/optimisers.json", ({ cases }) => alterNumber(cases[0].parametersAfter[2])),
          ...(Object.keys(item.finalState.weight).length > 0 && {
            "the state": alterJson("rl/optimisers.json", ({ cases }) => alterNumber(cases[0].finalState.weight)),
          }),
        },
      },
    ]),
  ),
  "rl/optimisers/gradientClipping": {
    write: () => writeJson("rl/optimisers.json", { cases: [], gradientClipping: optimisers.gradientClipping }),
    alterations: {
      "the norm": alterJson("rl/optimisers.json", ({ gradientClipping }) => {
        gradientClipping[0].totalNorm *= 1 + 1e-8;
      }),
      "a gradient": alterJson("rl/optimisers.json", ({ gradientClipping }) => alterNumber(gradientClipping[0].clipped)),
      "a limited gradient": alterJson("rl/optimisers.json", ({ gradientClipping }) => alterNumber(gradientClipping[0].clippedByValue)),
    },
  },
  "rl/optimisers/movingAverages": {
    write: () => writeJson("rl/optimisers.json", { cases: [], movingAverages: optimisers.movingAverages }),
    alterations: {
      "an exponential average": alterJson("rl/optimisers.json", ({ movingAverages }) => alterNumber(movingAverages[0].ema[3])),
      "a mean": alterJson("rl/optimisers.json", ({ movingAverages }) => alterNumber(movingAverages[0].mean[5])),
    },
  },
};

describe.each(Object.entries(sources))("%s", (kind, { write, alsoPass = [], alterations }) => {
  test("passes unaltered", async () => {
    write();
    const { passed, failures, results } = await run();
    expect(failures).toEqual([]);
    expect(passed).toBeGreaterThan(0);
    expect(new Set(results.filter(({ status }) => status === "passed").map((result) => result.kind))).toEqual(
      new Set([kind, ...alsoPass]),
    );
  });

  test.each(Object.entries(alterations))("fails after altering %s", async (_, alter) => {
    write();
    alter();
    const { results, failed } = await run();
    expect(failed).toBeGreaterThan(0);
    expect(results.filter(({ status }) => status === "failed").map((result) => result.kind)).toContain(kind);
  });
});

describe("models/speculative, whose kinds read each other's folders", () => {
  const folder = "models/speculative";
  const kinds = ["base", "exact-laws", "medusa-trees", "medusa-v1", "medusa-v2"];
  const write = (): void => cpSync(here("./speculative/full"), join(root, folder), { recursive: true });

  test("pass unaltered", async () => {
    write();
    const { failures, results } = await run();
    expect(failures).toEqual([]);
    const passed = results.filter(({ status }) => status === "passed").map(({ kind }) => kind);
    expect(new Set(passed)).toEqual(new Set(kinds.map((kind) => `${folder}/${kind}`)));
  });

  const alterations: Record<string, () => void> = {
    base: () => alterTensor(`${folder}/base/expected.safetensors`, "logits"),
    "exact-laws": () => {
      const path = join(root, folder, "exact-laws/expected.json");
      const laws = JSON.parse(readFileSync(path, "utf8"));
      alterNumber(laws.cases[0].emitted ?? laws.cases[0]);
      writeFileSync(path, JSON.stringify(laws));
    },
    "medusa-trees": () => alterTensor(`${folder}/medusa-trees/grown.safetensors`, "tree_logits"),
    "medusa-v1": () => alterTensor(`${folder}/medusa-v1/expected.safetensors`, "medusa_logits"),
    "medusa-v2": () => alterTensor(`${folder}/medusa-v2/expected.safetensors`, "medusa_logits"),
  };
  test.each(kinds)("%s fails after an alteration", async (kind) => {
    write();
    alterations[kind]();
    const { results } = await run(join(root, folder, kind));
    expect(results.filter(({ status }) => status === "failed").map((result) => result.kind)).toContain(`${folder}/${kind}`);
  });
});

test("every covered kind has an altered copy above, save those of which no copy is kept", () => {
  const withoutCopy = ["models/checkpoints/chat"];
  const withoutAlteration = ["models/tokenizers/unigram"];
  const covered = [...readCoverage()].filter(([, { covered }]) => covered).map(([kind]) => kind);
  const known = [...Object.keys(sources), ...withoutCopy, ...withoutAlteration];
  // rl-core.test.ts does the same for some, decoder.test.ts for families, the test above for others.
  const isElsewhere = (kind: string): boolean => /^(rl\/(estimators|environments|distributions|ppo|a2c|trpo|policy_|preference)|models\/speculative\/(base|exact-laws|medusa-)|models\/checkpoints\/(?!chat))/.test(kind);
  expect(covered.filter((kind) => !known.includes(kind) && !isElsewhere(kind))).toEqual([]);
});

describe("damaged and foreign files", () => {
  test("a file that is cut short is a failure, whether or not its kind can be told", async () => {
    const whole = JSON.stringify({ cases: sampling });
    mkdirSync(join(root, "sampling"));
    writeFileSync(join(root, "sampling/expected.json"), whole.slice(0, 4000));
    writeFileSync(join(root, "something.json"), "{");
    const { failed, results } = await run();
    expect(failed).toBe(2);
    expect(results).toHaveLength(2);
  });

  test("a missing field is a failure that names it", async () => {
    const { processed, ...rest } = sampling[0];
    writeJson(samplingPath, { cases: [rest] });
    expect((await run()).failures.join()).toMatch(/processed: expected a list, got nothing/);
  });

  test("a tensor file that is cut short is a failure", async () => {
    sources["models/stories260k"].write();
    const path = join(root, storiesPath, "expected.safetensors");
    writeFileSync(path, readFileSync(path).subarray(0, 2000));
    expect((await run()).failures.join("\n")).toMatch(/logits: .*expected.safetensors: expected/);
  });

  test("unknown kinds are not covered; unknown fields are tolerated", async () => {
    writeJson(samplingPath, {
      later: [1],
      cases: [
        { ...sampling[0], later: { a: 1 } },
        { ...sampling[0], name: "later" },
      ],
    });
    writeJson("models/later.json", { cases: [] });
    expect(await run()).toMatchObject({ passed: 1, failed: 0, notCovered: 2 });
  });

  test("a single file selects what it belongs to", async () => {
    sources["rl/schedules/linear"].write();
    sources["models/bpe-training"].write();
    const { results } = await run(join(root, "rl/schedules.json"));
    expect(new Set(results.map(({ kind }) => kind))).toEqual(new Set(["rl/schedules/linear"]));
    const text = await run(join(root, "models/bpe-training/text.txt"));
    expect(text).toMatchObject({ passed: 1, failed: 0, notCovered: 0 });
  });
});

describe("the process", () => {
  test("prints a line for each case and the counts; ends with 1 when one failed", () => {
    sources["rl/schedules/cosine"].write();
    sources["rl/schedules/cosine"].alterations["a multiplier"]();
    const { stdout, status } = spawnSync(process.execPath, [here("../../scripts/golden.mjs"), root], { encoding: "utf8" });
    expect(stdout).toMatch(/^FAILED {6}\S+ 0 cosine .*: multipliers\[\d+\]: expected [\d.]+, got [\d.]+ \(difference/);
    expect(stdout).toMatch(/\npassed {6}\S+ 1 cosine /);
    expect(stdout).toMatch(/\n\n2 passed, 1 failed, 0 not covered\n$/);
    expect(status).toBe(1);
  }, 180_000);

  test("ends with 0 when all passed, with 1 when nothing was found, with 2 for a wrong call", async () => {
    vi.spyOn(console, "log").mockImplementation(() => {});
    vi.spyOn(process.stderr, "write").mockImplementation(() => true);
    expect(await main([root])).toBe(1);
    sources["rl/schedules/cosine"].write();
    expect(await main([root])).toBe(0);
    expect(await main([join(root, "nothing")])).toBe(1);
    expect(await main([])).toBe(2);
  });
});
