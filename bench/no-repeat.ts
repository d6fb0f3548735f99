// Speculation where nothing repeats: plain decoding against prompt lookup and suffix decoding on one text at temperature 1. The three take turns
// of some dozen tokens, in an order that rotates, and go on with the same text, so that drift of the machine and length of the context meet all
// alike. With random weights hardly any token repeats; LONGWAVE_BENCH_MODEL names a real model instead, which continues several prompts.
import type { Drafter } from "../src/decode/drafter.ts";
import { LookupDrafter } from "../src/decode/drafters/lookup.ts";
import { SuffixDrafter } from "../src/decode/drafters/suffix.ts";
import { generate } from "../src/decode/generate.ts";
import { DecoderRunner } from "../src/decode/runner.ts";
import { allocateDecoder } from "../src/models/decoder/checkpoint.ts";
import { initializeParameters } from "../src/nn/parameter.ts";
import { benchPrompts } from "../src/recipes/bench-decode/tasks.ts";
import { loadModel } from "../src/recipes/text-model/load-model.ts";
import type { Backend } from "../src/runtime/backend.ts";
import { openBackend } from "../src/runtime/open.ts";
import type { Benchmark, Case, Context } from "./harness/benchmark.ts";
import { benchConfig } from "./harness/models.ts";

/** Tokens of a turn, turns of each contender in a round: five rounds are 2,000 steps each. */
const [turnTokens, turnsPerRound] = [25, 16];
const longestText = 1000;
/** Time over that of plain decoding. */
const goal = 1.03;
const resamples = 2000;

const names = ["plain", "lookup", "suffix"] as const;
type Name = (typeof names)[number];

export const noRepeat: Benchmark = {
  name: "no-repeat",
  summary: `a token at temperature 1 with drafters that find nothing, in turns of ${turnTokens}: at most ${goal} × plain decoding`,
  peer: "(plain decoding; LONGWAVE_BENCH_MODEL: a model in place of random weights)",
  seconds: 240,
  prepare,
};

async function prepare({ threads, defer }: Context): Promise<Case[]> {
  const { backend } = openBackend({ threads });
  defer(() => backend.dispose());
  const text = new Text(backend, await source());
  defer(() => text.dispose());
  /** Milliseconds a token of every turn, in blocks of one turn each. */
  const blocks: Record<Name, number>[] = [];
  let [round, isWarm] = [new Map<Name, number>(), false];
  const runRound = async (): Promise<void> => {
    const mine: Record<Name, number>[] = [];
    for (let turn = 0; turn < turnsPerRound; turn++) {
      const block: Partial<Record<Name, number>> = {};
      for (let i = 0; i < names.length; i++) {
        const name = names[(i + turn) % names.length];
        block[name] = await text.turn(name);
      }
      mine.push(block as Record<Name, number>);
    }
    // The first round is the warm-up.
    if (isWarm) blocks.push(...mine);
    else text.drafted.clear();
    isWarm = true;
    round = new Map(names.map((name) => [name, mine.reduce((sum, block) => sum + block[name], 0) / mine.length]));
  };
  /** The three are measured together, when the first of them is asked for its time. */
  const sample = (name: Name) => async (): Promise<number> => {
    if (!round.has(name)) await runRound();
    const value = round.get(name) as number;
    round.delete(name);
    return value;
  };
  return [
    {
      name: text.name,
      unit: "ms",
      contenders: names.map((name) => ({ name, side: name === "plain" ? "peer" : "ours", sample: sample(name) })),
      facts: () => {
        return names.slice(1).map((name) => {
          const { ratio, low, high } = bootstrap(blocks, name);
          const found = text.drafted.get(name) ?? { drafts: 0, steps: 1 };
          return (
            `${name} / plain over ${found.steps} steps: ${ratio.toFixed(4)}, 95 % of resamplings ${low.toFixed(4)} to ${high.toFixed(4)} ` +
            `(at most ${goal}: ${ratio <= goal ? "within" : "missed"}); ${(found.drafts / found.steps).toFixed(3)} drafts a step`
          );
        });
      },
    },
  ];
}

interface Source {
  readonly name: string;
  readonly model: ConstructorParameters<typeof DecoderRunner>[1];
  readonly prompts: readonly (readonly number[])[];
}

async function source(): Promise<Source> {
  const path = process.env.LONGWAVE_BENCH_MODEL;
  if (path) {
    const { model, tokenizer } = await loadModel(path);
    const prompts = benchPrompts.filter(({ task }) => task === "conversation").map(({ prompt }) => Array.from(tokenizer.encode(prompt)));
    return { name: path.split(/[\\/]/).at(-1) as string, model, prompts };
  }
  const model = allocateDecoder(benchConfig);
  initializeParameters(model.specs as never, model.parameters, 0);
  return { name: "random weights, float32", model, prompts: [[1, 2, 3]] };
}

/** One text that all contenders go on with; a new one begins when it is long. */
class Text {
  readonly name: string;
  /** Drafts and steps of each drafter. */
  readonly drafted = new Map<Name, { drafts: number; steps: number }>();
  readonly #runner: DecoderRunner;
  readonly #prompts: Source["prompts"];
  readonly #drafters: Readonly<Record<Name, Drafter | undefined>> = {
    plain: undefined,
    lookup: new LookupDrafter(),
    suffix: new SuffixDrafter(),
  };
  #ids: number[] = [];
  #texts = 0;

  constructor(backend: Backend, { name, model, prompts }: Source) {
    this.name = name;
    this.#prompts = prompts;
    this.#runner = new DecoderRunner(backend, model, { capacity: longestText + 2 * turnTokens });
  }

  /** Generates a turn and returns milliseconds a token, the first one excluded: it comes with what had to be read. */
  async turn(name: Name): Promise<number> {
    if (this.#ids.length === 0 || this.#ids.length >= longestText) {
      this.#ids = [...this.#prompts[this.#texts % this.#prompts.length]];
      this.#texts++;
      this.#runner.reset(0);
    }
    const ids = this.#ids;
    const request = {
      ids,
      // Its last token is computed again, for its logits.
      cachedLength: Math.max(0, Math.min(this.#runner.cache.lengths[0], ids.length - 1)),
      sampling: { temperature: 1 },
      maxNewTokens: turnTokens + 1,
      eosTokenIds: [],
      seed: this.#texts * 1000 + ids.length,
    };
    const found = this.drafted.get(name) ?? { drafts: 0, steps: 0 };
    this.drafted.set(name, found);
    const drafter = this.#drafters[name];
    let [first, last, count] = [0, 0, 0];
    const onStep = ({ tree }: { tree: { shape: { size: number } } }): void => {
      found.drafts += tree.shape.size - 1;
      found.steps++;
    };
    for await (const event of generate(this.#runner, [request], { ...(drafter ? { drafter, onStep } : {}) })) {
      if (event.kind !== "token") continue;
      ids.push(event.id);
      last = performance.now();
      if (count++ === 0) first = last;
    }
    return (last - first) / (count - 1);
  }

  dispose(): void {
    this.#runner.dispose();
  }
}

/** Ratio of the sums, and where 95 % of it lie when blocks are drawn anew with replacement. */
function bootstrap(blocks: readonly Record<Name, number>[], name: Name): { ratio: number; low: number; high: number } {
  const ratioOf = (chosen: readonly Record<Name, number>[]): number => {
    let [ours, plain] = [0, 0];
    for (const block of chosen) {
      ours += block[name];
      plain += block.plain;
    }
    return ours / plain;
  };
  const ratios = Array.from({ length: resamples }, () => ratioOf(blocks.map(() => blocks[Math.floor(Math.random() * blocks.length)]))).sort(
    (a, b) => a - b,
  );
  return { ratio: ratioOf(blocks), low: ratios[Math.floor(0.025 * resamples)], high: ratios[Math.floor(0.975 * resamples)] };
}
