// The quickstart beside its twin in PyTorch (peers/quickstart_twin.py): same batches, same steps, same validation rows; validation losses of
// several seeds. With --same-start the twin begins from our initial weights, and the losses of every step must agree up to rounding.
//   LONGWAVE_BENCH_PYTHON=… node bench/quickstart-twin.mjs [--steps n] [--seeds 0,1,2] [--threads n] [--same-start]
//     [--validation-batches n] [--json file]
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { register } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

register("../src/runtime/testing/typescript-hooks.mjs", import.meta.url);
const { BatchWriter, BatchLoader, openTokenCache, packDocuments, stateOfTheUnion } = await import("../src/data/index.ts");
const { deriveSeed } = await import("../src/engine/index.ts");
const { writeSafetensors } = await import("../src/formats/index.ts");
const { allocateDecoder, decoderConfig, decoderPresets, saveDecoder } = await import("../src/models/index.ts");
const { initializeParameters } = await import("../src/nn/index.ts");
const { holdOut } = await import("../src/recipes/hold-out.ts");
const { pretrain, pretrainSchema, quickstartOptions } = await import("../src/recipes/index.ts");
const { openBackend } = await import("../src/runtime/index.ts");
const { loadTokenizer } = await import("../src/text/index.ts");

const { values } = parseArgs({
  options: {
    steps: { type: "string", default: String(quickstartOptions.steps) },
    seeds: { type: "string", default: "0,1,2" },
    threads: { type: "string" },
    "same-start": { type: "boolean", default: false },
    "validation-batches": { type: "string" },
    json: { type: "string" },
  },
});
const steps = whole("steps", values.steps, 1);
const seeds = values.seeds.split(",").map((seed) => whole("seeds", seed, 0));
const maxBatches = values["validation-batches"] && whole("validation-batches", values["validation-batches"], 1);
const python = process.env.LONGWAVE_BENCH_PYTHON;
if (!python) fail("LONGWAVE_BENCH_PYTHON: expected a Python with torch and safetensors, got none");

const folder = mkdtempSync(join(tmpdir(), "longwave-twin-"));
const { backend } = openBackend(values.threads === undefined ? {} : { threads: whole("threads", values.threads, 1) });
try {
  console.log(
    `${steps} steps, seeds ${seeds.join(", ")}, ${backend.threads} threads each side, Node ${process.version}, ONNX Runtime ${backend.version}`,
  );
  const results = [];
  for (const seed of seeds) {
    const ours = await runOurs(seed);
    await exportFor(ours);
    const theirs = await runTwin(seed);
    console.log(`seed ${seed}: ours ${line(ours)}; PyTorch ${theirs.torch} ${line(theirs)}`);
    if (values["same-start"]) compareSteps(ours, theirs);
    results.push({ seed, ours, theirs });
  }
  summarise(results);
  if (values.json) writeFileSync(values.json, `${JSON.stringify({ steps, threads: backend.threads, results }, null, 2)}\n`);
} finally {
  backend.dispose();
  rmSync(folder, { recursive: true, force: true });
}

/** The quickstart as it is, less the sample texts and checkpoints on the way. */
async function runOurs(seed) {
  const options = {
    ...quickstartOptions,
    fitSeconds: 0,
    seed,
    steps,
    logEvery: 1,
    evaluateEvery: steps,
    sampleEvery: 0,
    checkpointEvery: 0,
    runs: folder,
    ...(maxBatches ? { evaluationBatches: maxBatches } : {}),
  };
  const result = { settings: pretrainSchema.parse(options), losses: [], gradientNorms: [], validation: Number.NaN, tokens: 0, seconds: 0 };
  for await (const event of pretrain(options, { backend, onRun: ({ path }) => (result.path = path) })) {
    if (event.kind === "step") {
      result.losses.push(event.metrics.loss);
      result.gradientNorms.push(event.metrics.gradientNorm);
      result.seconds += event.seconds;
    } else if (event.kind === "evaluation") {
      result.validation = event.metrics.loss;
      result.tokens = event.metrics.tokens;
    }
  }
  return result;
}

/** Writes what the twin reads: settings, the batches of the run just made, the validation rows, the initial weights. */
async function exportFor({ settings, path }) {
  const tokenizer = loadTokenizer(join(path, "tokenizer"));
  const encoder = {
    encode: (text) => tokenizer.encode(text, { addSpecialTokens: false }),
    hash: tokenizer.hash,
    vocabularySize: tokenizer.vocabSize,
  };
  const file = await openTokenCache(stateOfTheUnion(), encoder, { directory: join(folder, ".cache") });
  try {
    const { batchSize, sequenceLength: length, packing: mode, seed } = settings;
    const sides = holdOut(file, settings.validation);
    const pack = (source) => packDocuments(source, { length, mode, separator: tokenizer.specialIds.eos });
    const [train, validation] = [pack(sides.train), pack(sides.validation)];

    const batch = memory(batchSize, length);
    const loader = new BatchLoader(train, batch.names, { batchSize, seed: deriveSeed(seed, "data"), shiftWindows: train.canShift });
    const batches = memory(steps * batchSize, length);
    for (let step = 0; step < steps; step++) {
      loader.next();
      for (const name of ["inputs", "targets", "lossMask"]) batches.names[name].set(batch.names[name], step * batchSize * length);
    }
    writeSafetensors(join(folder, "batches.safetensors"), batches.tensors([steps, batchSize, length]));

    const numRows = Math.min(validation.numRows, (maxBatches || Number.POSITIVE_INFINITY) * batchSize);
    const rows = memory(numRows, length);
    const writer = new BatchWriter(rows.names, numRows, length);
    for (let row = 0; row < numRows; row++) validation.fill(row, writer, row);
    writeSafetensors(join(folder, "validation.safetensors"), rows.tensors([numRows, length]));

    const decoder = allocateDecoder(
      decoderConfig({ ...decoderPresets[settings.size].options, ...settings.model, vocabSize: tokenizer.vocabSize }),
    );
    initializeParameters(decoder.specs, decoder.parameters, deriveSeed(seed, "weights"));
    mkdirSync(join(folder, "model"), { recursive: true });
    saveDecoder(join(folder, "model"), decoder);

    const { momentum, nesterov, weightDecay: muonWeightDecay, adamw } = settings.optimizer;
    const { beta1, beta2, epsilon, weightDecay } = adamw;
    const { warmupSteps, minRatio } = settings.schedule;
    const { learningRate, maxGradientNorm } = settings;
    const shared = {
      steps,
      batchSize,
      learningRate,
      maxGradientNorm,
      warmupSteps,
      minRatio,
      beta1,
      beta2,
      epsilon,
      weightDecay,
      momentum,
      nesterov,
      muonWeightDecay,
    };
    writeFileSync(join(folder, "settings.json"), JSON.stringify(shared));
  } finally {
    file.close();
  }
}

/** Ids, targets and weights of `numRows` rows, under the loader's names and as tensors. */
function memory(numRows, length) {
  const size = numRows * length;
  const names = { inputs: new Int32Array(size), targets: new Int32Array(size), lossMask: new Float32Array(size) };
  const tensors = (shape) => [
    { name: "inputs", dtype: "i32", shape, data: names.inputs },
    { name: "targets", dtype: "i32", shape, data: names.targets },
    { name: "weights", dtype: "f32", shape, data: names.lossMask },
  ];
  return { names, tensors };
}

async function runTwin(seed) {
  const script = fileURLToPath(new URL("./peers/quickstart_twin.py", import.meta.url));
  const start = values["same-start"] ? ["--same-start"] : [];
  const child = spawn(python, ["-u", script, folder, "--seed", String(seed), "--threads", String(backend.threads), ...start], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const ended = new Promise((resolve, reject) => child.on("error", reject).on("close", resolve));
  const result = { losses: [], gradientNorms: [] };
  for await (const text of createInterface({ input: child.stdout })) {
    const record = JSON.parse(text);
    if ("step" in record) {
      result.losses.push(record.loss);
      result.gradientNorms.push(record.gradientNorm);
    } else Object.assign(result, record);
  }
  const code = await ended;
  if (code !== 0) throw new Error(`${script}: expected exit code 0, got ${code}`);
  return result;
}

function line({ validation, tokens, seconds }) {
  return `${validation.toFixed(4)} nats a token (${tokens} tokens), ${((1000 * seconds) / steps).toFixed(0)} ms a step`;
}

/** Losses and gradient norms of both sides; rounding differences grow with the steps. */
function compareSteps(ours, theirs) {
  console.log("  step  our loss   difference  gradient norm (relative difference)");
  let largest = 0;
  for (let step = 0; step < steps; step++) {
    const difference = theirs.losses[step] - ours.losses[step];
    largest = Math.max(largest, Math.abs(difference));
    if (step >= 10 && step % Math.ceil(steps / 10) !== 0 && step !== steps - 1) continue;
    const norm = theirs.gradientNorms[step] / ours.gradientNorms[step] - 1;
    console.log(
      `  ${String(step).padStart(4)}  ${ours.losses[step].toFixed(6)}  ${difference.toExponential(1).padStart(10)}  ${ours.gradientNorms[step].toFixed(4)} (${norm.toExponential(1)})`,
    );
  }
  console.log(
    `  largest difference of a loss ${largest.toExponential(1)}; of the validation loss ${(theirs.validation - ours.validation).toExponential(1)}`,
  );
}

function summarise(results) {
  const side = (name) => {
    const losses = results.map((result) => result[name].validation);
    const mean = losses.reduce((sum, loss) => sum + loss, 0) / losses.length;
    return { mean, spread: Math.max(...losses) - Math.min(...losses) };
  };
  const [ours, theirs] = [side("ours"), side("theirs")];
  console.log("");
  console.log("| validation loss, nats a token | mean | largest − smallest |");
  console.log("|---|---|---|");
  console.log(`| longwave | ${ours.mean.toFixed(4)} | ${ours.spread.toFixed(4)} |`);
  console.log(`| PyTorch | ${theirs.mean.toFixed(4)} | ${theirs.spread.toFixed(4)} |`);
  console.log(`ratio of the means ${(ours.mean / theirs.mean).toFixed(5)}`);
}

function whole(name, text, least) {
  const number = Number(text);
  if (!Number.isSafeInteger(number) || number < least) fail(`--${name}: expected whole numbers from ${least}, got ${text}`);
  return number;
}

function fail(message) {
  console.error(`quickstart-twin: ${message}`);
  process.exit(2);
}
