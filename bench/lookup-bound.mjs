// What retrieval could gain at most: plain greedy texts and the measured cost v(n) of a call on n tokens give the speed-up of `lookup` without timing
// it (one drafter for all tasks, so that it learns from each as in use), and that of a drafter which knows beforehand how far each match goes, or also which earlier place to follow.
//   node bench/lookup-bound.mjs model.gguf [--weights q8] [--tasks copying,…] [--tokens 64] [--threads n]
import { register } from "node:module";
import { parseArgs } from "node:util";

register("../src/runtime/testing/typescript-hooks.mjs", import.meta.url);
const { generate, LookupDrafter, measureCostCurve, TreeShape } = await import("../src/decode/index.ts");
const { benchPrompts } = await import("../src/recipes/bench-decode/tasks.ts");
const { load } = await import("../src/recipes/index.ts");

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    weights: { type: "string", default: "stored" },
    tasks: { type: "string", default: "copying,summarisation,conversation" },
    tokens: { type: "string", default: "64" },
    threads: { type: "string" },
  },
});
const maxNewTokens = Number(values.tokens);
const tasks = values.tasks.split(",");
const isUnknown = tasks.some((task) => benchPrompts.every((entry) => entry.task !== task));
if (positionals.length !== 1 || !(maxNewTokens >= 2) || isUnknown) {
  console.error("Usage: node bench/lookup-bound.mjs model [--weights f32|q8|q4] [--tasks copying,…] [--tokens 64] [--threads n]");
  process.exit(2);
}
/** As many tokens as `lookup` drafts at most, and as long a match as it counts. */
const [mostDrafts, longestMatch] = [16, 40];

const model = await load(positionals[0], {
  weights: values.weights,
  capacity: 1024,
  ...(values.threads === undefined ? {} : { threads: Number(values.threads) }),
});
try {
  const curve = measureCostCurve(
    model.runner,
    [1, 2, 3, 4, 6, 8, 12, 17].map((size) => TreeShape.chain(size - 1)),
  );
  const costs = { at: (n) => interpolated(curve, n) };
  const one = costs.at(1);
  const drafter = new LookupDrafter();
  console.log(
    `a call on n tokens, v(n): ${curve.map(({ tokens, milliseconds }) => `${tokens}: ${(milliseconds / one).toFixed(2)}`).join("  ")}`,
  );
  for (const task of tasks) {
    const texts = [];
    for (const { prompt } of benchPrompts.filter((entry) => entry.task === task)) texts.push(await plainText(prompt));
    const ways = {
      lookup: (text) => drafted(drafter, text, costs),
      "knows how far": (text) => shortest(text, costs, longestRun),
      "knows where, too": (text) => shortest(text, costs, bestRun),
    };
    const speedups = Object.entries(ways).map(([name, milliseconds]) => {
      const tokens = texts.reduce((sum, { ids, start }) => sum + ids.length - start, 0);
      return `${name} ${((one * tokens) / texts.reduce((sum, text) => sum + milliseconds(text), 0)).toFixed(2)}`;
    });
    console.log(`${task.padEnd(14)} ${speedups.join("   ")}`);
  }
} finally {
  model.dispose();
}

/** Prompt and greedy answer; the first token comes with the prompt. */
async function plainText(content) {
  const prompt = model.chatIds([{ role: "user", content }]);
  const request = { ids: Int32Array.from(prompt), sampling: { doSample: false }, maxNewTokens, eosTokenIds: model.loaded.eosTokenIds };
  for await (const event of generate(model.runner, [request]))
    if (event.kind === "finish") return { ids: Int32Array.from([...prompt, ...event.ids]), start: prompt.length + 1 };
}

/** Milliseconds of the text after its first token with this drafter. */
function drafted(drafter, { ids, start }, costs) {
  drafter.begin();
  let total = 0;
  for (let at = start; at < ids.length; ) {
    // What comes later must not be seen.
    const seen = new Int32Array(ids.length);
    seen.set(ids.subarray(0, at));
    const room = ids.length - at - 1;
    const tree = drafter.propose({ ids: seen, numIds: at, maxDepth: room, maxNodes: room + 1, costs });
    let accepted = 0;
    while (accepted < tree.shape.size - 1 && tree.ids[accepted + 1] === ids[at + accepted]) accepted++;
    total += costs.at(tree.shape.size);
    at += accepted + 1;
  }
  return total;
}

/** Milliseconds of the text if every step drafts the number of right tokens that makes the whole fastest. */
function shortest({ ids, start }, costs, runAt) {
  const rest = new Float64Array(ids.length + 1);
  for (let at = ids.length - 1; at >= start; at--) {
    const run = Math.min(mostDrafts, runAt(ids, at), ids.length - at - 1);
    rest[at] = Math.min(...Array.from({ length: run + 1 }, (_, drafts) => costs.at(drafts + 1) + rest[at + drafts + 1]));
  }
  return rest[start];
}

/** Right tokens behind the longest match, of equally long ones the latest. */
function longestRun(ids, at) {
  let [length, place] = [0, -1];
  for (let from = at - 1; from > 0; from--) {
    const matched = matchBefore(ids, from, at);
    if (matched > length) [length, place] = [matched, from];
  }
  return place < 0 ? 0 : runFrom(ids, place, at);
}

/** The most right tokens behind any match. */
function bestRun(ids, at) {
  let best = 0;
  for (let from = at - 1; from > 0; from--) if (ids[from - 1] === ids[at - 1]) best = Math.max(best, runFrom(ids, from, at));
  return best;
}

function matchBefore(ids, from, at) {
  let length = 0;
  while (length < Math.min(longestMatch, from) && ids[from - 1 - length] === ids[at - 1 - length]) length++;
  return length;
}

function runFrom(ids, from, at) {
  let run = 0;
  while (from + run < at && at + run < ids.length && ids[from + run] === ids[at + run]) run++;
  return run;
}

function interpolated(curve, n) {
  const next = Math.max(
    1,
    curve.findIndex(({ tokens }) => tokens >= n),
  );
  const [a, b] = [curve[next - 1], curve[next]];
  return a.milliseconds + ((n - a.tokens) / (b.tokens - a.tokens)) * (b.milliseconds - a.milliseconds);
}
