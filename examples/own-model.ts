// A model of your own, from the operators: a gated recurrent unit (Cho et al. 2014) that reads a word letter by letter and predicts the
// next letter. It learns the words of the State of the Union addresses, and then invents some.
// Letters: N words side by side, T steps, E width of an embedding, H width of the state, V letters.
import { pathToFileURL } from "node:url";
import { stateOfTheUnion } from "longwave/data";
import { countParameters, type Initializer, initializeParameters, parameter } from "longwave/nn";
import { clipFactor, createNorm, createOptimizer, createSchedule } from "longwave/optim";
import { allocate, allocateFlat, compile, openBackend, Random, spec } from "longwave/runtime";
import * as lw from "longwave/tensor";

type Model<Leaf> = { letters: Leaf; gates: Layer<Leaf>; candidate: Layer<Leaf>; output: { weight: Leaf; bias: Leaf } };
type Layer<Leaf> = { input: Leaf; state: Leaf; bias: Leaf };

/** Index 0 begins and ends a word. */
const alphabet = ".abcdefghijklmnopqrstuvwxyz";

function describeModel(embedding: number, width: number): Model<ReturnType<typeof parameter>> {
  const matrix = (out: number, inner: number) => parameter([out, inner], { kind: "uniform", limit: 1 / Math.sqrt(inner) });
  const zeros: Initializer = { kind: "zeros" };
  const layer = (out: number) => ({ input: matrix(out, embedding), state: matrix(out, width), bias: parameter([out], zeros) });
  return {
    letters: parameter([alphabet.length, embedding], { kind: "normal", std: 0.5 }),
    gates: layer(2 * width),
    candidate: layer(width),
    output: { weight: matrix(alphabet.length, width), bias: parameter([alphabet.length], zeros) },
  };
}

/** One step: letters [N] and states [N, H] → next states [N, H]. */
function advance({ letters, gates, candidate }: Model<lw.Tensor>, ids_N: lw.Tensor, state_NH: lw.Tensor): lw.Tensor {
  const x_NE = lw.embedding(letters, ids_N);
  const apply = ({ input, state, bias }: Layer<lw.Tensor>, h: lw.Tensor) => lw.add(lw.linear(x_NE, input, bias), lw.linear(h, state));
  const width = Number(state_NH.shape[1]);
  const [reset, keep] = lw.split(lw.sigmoid(apply(gates, state_NH)), [width, width]);
  const proposal = lw.tanh(apply(candidate, lw.mul(reset, state_NH)));
  return lw.add(proposal, lw.mul(keep, lw.sub(state_NH, proposal)));
}

const logits = ({ output }: Model<lw.Tensor>, state: lw.Tensor): lw.Tensor => lw.linear(state, output.weight, output.bias);

/** Mean loss of words ids [T + 1, N], in nats a letter: a recurrence is a loop of the function that is traced. */
function wordLoss(model: Model<lw.Tensor>, ids: lw.Tensor, weights: lw.Tensor, width: number): lw.Tensor {
  const [steps, words] = [Number(ids.shape[0]) - 1, Number(ids.shape[1])];
  let state = lw.full(ids.graph, "f32", [words, width], 0);
  const states = Array.from({ length: steps }, (_, t) => {
    state = lw.scope(ids, `step.${t}`, () => advance(model, lw.squeeze(lw.slice(ids, 0, t, t + 1), 0), state));
    return state;
  });
  const losses = lw.crossEntropy(logits(model, lw.concat(states, 0)), lw.reshape(lw.slice(ids, 0, 1), [steps * words]));
  return lw.div(lw.sum(lw.mul(losses, weights)), lw.sum(weights));
}

export async function main({ steps = 1000, batch = 128, width = 96, maxLength = 12, numSamples = 12, print = console.log } = {}) {
  const words = await commonWords(maxLength);
  const T = maxLength + 1;
  const random = new Random(0, { stream: "words" });
  const specs = describeModel(24, width);
  const parameters = allocateFlat(specs);
  const slopes = allocateFlat(specs);
  initializeParameters(specs, parameters, 0);
  print(`${words.length} words, ${countParameters(specs)} parameters`);

  using backend = openBackend().backend;
  using training = compile(
    backend,
    ({ model, ids, weights }) => {
      const loss = wordLoss(model, ids, weights, width);
      return { loss, gradients: lw.gradients(loss, model) };
    },
    { model: specs, ids: spec("i32", [T + 1, batch]), weights: spec("f32", [T * batch]) },
    { name: "words" },
  );
  const [ids, weights, loss] = [allocate("i32", [T + 1, batch]), allocate("f32", [T * batch]), allocate("f32", [])];
  const step = training.bind({ model: parameters.tree, ids, weights }, { loss, gradients: slopes.tree });
  using optimizer = createOptimizer(backend, { kind: "adamw", learningRate: 5e-3 }, parameters, slopes);
  using norm = createNorm(backend, slopes);
  const schedule = createSchedule({ kind: "cosine", warmupSteps: 0.05 }, { totalSteps: steps });
  const losses: number[] = [];
  for (let i = 0; i < steps; i++) {
    // Words stand in columns; what follows the end of a word has weight 0.
    ids.data.fill(0);
    weights.data.fill(0);
    for (let n = 0; n < batch; n++) {
      const word = words[random.integer(words.length)];
      for (let t = 0; t < word.length; t++) ids.data[(t + 1) * batch + n] = alphabet.indexOf(word[t]);
      for (let t = 0; t <= word.length; t++) weights.data[t * batch + n] = 1;
    }
    step.run();
    losses.push(loss.data[0]);
    optimizer.step({ learningRate: 5e-3 * schedule(i), gradientScale: clipFactor(norm.compute(), 1) });
    if (i % Math.ceil(steps / 10) === 0) print(`step ${i}: loss ${loss.data[0].toFixed(3)}`);
  }

  // Another program over the same parameters: one step for any number n of words.
  using sampling = compile(
    backend,
    ({ model, ids, state }) => {
      const next = advance(model, ids, state);
      return { next, probabilities: lw.softmax(logits(model, next)) };
    },
    { model: specs, ids: spec("i32", ["n"]), state: spec("f32", ["n", width]) },
  );
  const current = allocate("i32", [numSamples]);
  const [state, next] = [allocate("f32", [numSamples, width]), allocate("f32", [numSamples, width])];
  const probabilities = allocate("f32", [numSamples, alphabet.length]);
  const call = sampling.bind({ model: parameters.tree, ids: current, state }, { next, probabilities });
  const invented = new Array<string>(numSamples).fill("");
  const open = new Set(invented.keys());
  for (let t = 0; t < 2 * maxLength && open.size > 0; t++) {
    call.run();
    state.data.set(next.data);
    for (const n of open) {
      current.data[n] = draw(probabilities.data.subarray(n * alphabet.length, (n + 1) * alphabet.length), random.uniform());
      if (current.data[n] === 0) open.delete(n);
      else invented[n] += alphabet[current.data[n]];
    }
  }
  const known = new Set(words);
  print(`invented: ${invented.map((word) => (known.has(word) ? word : `${word}*`)).join(" ")}   (* is in no address)`);
  return { losses, invented, numParameters: countParameters(specs) };
}

/** The index at which the cumulative probability passes `u`. */
function draw(probabilities: Float32Array, u: number): number {
  let total = 0;
  for (const [i, probability] of probabilities.entries()) if (u < (total += probability)) return i;
  return probabilities.length - 1;
}

/** Words of three letters or more that occur at least five times. */
async function commonWords(maxLength: number): Promise<string[]> {
  const counts = new Map<string, number>();
  for await (const { text } of stateOfTheUnion().documents()) {
    for (const [word] of text.toLowerCase().matchAll(/[a-z]{3,}/g)) counts.set(word, (counts.get(word) ?? 0) + 1);
  }
  return [...counts].flatMap(([word, count]) => (count >= 5 && word.length <= maxLength ? [word] : []));
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) await main();
