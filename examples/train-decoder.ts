// A language model on your own text, with the library instead of the command line: tokenizer, packed data, decoder, training loop with
// events and checkpoints, and a text at the end. `longwave pretrain` does the same with every option; this shows the parts.
//   npm run example -- train-decoder my-text.txt
import { pathToFileURL } from "node:url";
import { openCorpus, packDocuments, splitTokens, stateOfTheUnion, tokensOf } from "longwave/data";
import { DecoderRunner, generate } from "longwave/decode";
import { createRunDirectory, runLoop, withSinks } from "longwave/engine";
import { allocateDecoder, decoderConfig, loadDecoder } from "longwave/models";
import { initializeParameters } from "longwave/nn";
import { openBackend } from "longwave/runtime";
import { saveTokenizer, tokenizerFromTrained, trainBpe } from "longwave/text";
import { LanguageModelTrainer } from "longwave/train";

const endOfText = "<|endoftext|>";

export async function main({
  path = undefined as string | undefined,
  runs = "runs",
  vocabSize = 1024,
  length = 64,
  width = 128,
  steps = 400,
  prompt = "The people",
  print = console.log,
} = {}) {
  // Text: a file is cut at blank lines. A tokenizer is trained on it and turns every document into ids.
  const corpus = path === undefined ? stateOfTheUnion() : openCorpus(path, { splitBy: "paragraph" });
  const texts: string[] = [];
  for await (const { text } of corpus.documents()) texts.push(text);
  const trained = await trainBpe(texts, { vocabSize, specialTokens: [endOfText], allowSmaller: true });
  const roles = { bosToken: endOfText, eosToken: endOfText };
  const tokenizer = tokenizerFromTrained(trained, roles);
  const ids = texts.map((text) => tokenizer.encode(text, { addSpecialTokens: false }));

  // Documents are kept for training or validation as wholes, and packed into rows of `length` tokens.
  const sides = splitTokens(tokensOf(ids), { validation: 0.1 });
  const separator = tokenizer.specialIds.eos;
  const train = packDocuments(sides.train, { length, separator });
  const validation = packDocuments(sides.validation, { length, separator });
  print(`${texts.length} documents, ${train.numRows + validation.numRows} rows of ${length} tokens`);

  // A Llama-shaped decoder; `decoderSchema` lists what else it can be.
  const config = decoderConfig({ vocabSize: tokenizer.vocabSize, width, layers: 3, heads: 4, contextLength: 2 * length });
  const decoder = allocateDecoder(config);
  initializeParameters(decoder.specs, decoder.parameters, 0);

  using backend = openBackend().backend;
  const trainer = new LanguageModelTrainer(
    backend,
    decoder,
    { train, validation },
    { totalSteps: steps, batchSize: 16, learningRate: 3e-3, evaluationBatches: 20 },
    // Files that every checkpoint holds besides the weights.
    { saveExtras: (directory) => saveTokenizer(directory, trained, roles) },
  );
  const run = createRunDirectory({ root: runs, name: "example", config: { width, steps } });
  // The loop prints nothing: it tells what happens, and sinks write it to metrics.jsonl and TensorBoard.
  const events = runLoop(trainer, {
    steps,
    logEvery: Math.ceil(steps / 10),
    evaluateEvery: Math.ceil(steps / 2),
    keepBest: { metric: "loss" },
    checkpoints: run.checkpoints,
  });
  const losses: number[] = [];
  let checkpoint = "";
  for await (const event of withSinks(events, run.sinks())) {
    if (event.kind === "step") print(`step ${event.step}: loss ${event.metrics.loss.toFixed(3)}`);
    if (event.kind === "evaluation") {
      losses.push(event.metrics.loss);
      print(`validation: loss ${event.metrics.loss.toFixed(3)}${event.best ? ", the best so far" : ""}`);
    }
    if (event.kind === "checkpoint") {
      checkpoint = event.path;
      print(`saved ${event.path}`);
    }
  }
  trainer.dispose();

  // What was saved is a Hugging Face checkpoint: config.json, model.safetensors, tokenizer.json.
  using runner = new DecoderRunner(backend, loadDecoder(checkpoint));
  const request = { ids: tokenizer.encode(prompt), maxNewTokens: length, sampling: { temperature: 0.8, topK: 50 }, seed: 1 };
  let text = prompt;
  for await (const event of generate(runner, [request], { tokenizer })) if (event.kind === "token") text += event.text;
  print(text);
  return { losses, checkpoint, text, run: run.path };
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) await main({ path: process.argv[2] });
