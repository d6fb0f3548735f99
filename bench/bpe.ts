// Byte-level BPE over the State of the Union addresses: training a vocabulary of 8,192, and encoding all of them with it. The peer is
// Hugging Face's tokenizers (Rust), with all threads and with one; that both learn the same merges and ids is checked.
import { stateOfTheUnion } from "../src/data/state-of-the-union.ts";
import { type TrainedBpe, trainBpe } from "../src/text/bpe-trainer.ts";
import type { Tokenizer } from "../src/text/tokenizer.ts";
import { tokenizerFromTrained, tokenizerJson } from "../src/text/tokenizer-json.ts";
import type { Benchmark, Case, Context } from "./harness/benchmark.ts";

const vocabSize = 8192;

export const bpe: Benchmark = {
  name: "bpe",
  summary: `train byte-level BPE of ${vocabSize.toLocaleString("en")} tokens on 10.8 MB, and encode them`,
  peer: "tokenizers",
  seconds: 75,
  prepare,
};

const seconds = async (run: () => unknown): Promise<number> => {
  const start = performance.now();
  await run();
  return (performance.now() - start) / 1000;
};

async function prepare({ peers }: Context): Promise<Case[]> {
  const corpus = stateOfTheUnion();
  const texts: string[] = [];
  for await (const { text } of corpus.documents()) texts.push(text);
  const trained: TrainedBpe = await trainBpe(texts, { vocabSize });
  let numTokens = 0;
  // A new tokenizer for each sample: what it remembers of words is learned within the time measured.
  const encodeAll = (tokenizer: Tokenizer): void => {
    numTokens = 0;
    for (const text of texts) numTokens += tokenizer.encode(text).length;
  };
  const encodeWith = (tokenizer: Tokenizer) => seconds(() => encodeAll(tokenizer));
  const training: Case = {
    name: "training",
    unit: "s",
    contenders: [{ name: "longwave", side: "ours", sample: () => seconds(() => trainBpe(texts, { vocabSize })) }],
    facts: () => facts.training,
  };
  const encoding: Case = {
    name: `encoding ${texts.length} documents`,
    unit: "s",
    contenders: [{ name: "longwave", side: "ours", sample: () => encodeWith(tokenizerFromTrained(trained)) }],
    facts: () => [`${(corpus.totalBytes / 1e6).toFixed(2)} MB; divide by the seconds for MB/s`, ...facts.encoding],
  };
  const facts: { training: string[]; encoding: string[] } = { training: [], encoding: [] };
  if (peers) {
    const peer = peers("bpe.py");
    const merges = await peer.call<[string, string][]>("load", {
      texts,
      vocab_size: vocabSize,
      tokenizer: JSON.stringify(tokenizerJson(trained)),
    });
    const ours = trained.merges.map(([left, right]) => `${trained.tokens[left]} ${trained.tokens[right]}`);
    const equal = merges.filter((pair, i) => pair.join(" ") === ours[i]).length;
    facts.training.push(`${equal} of ${ours.length} merges equal`);
    encodeAll(tokenizerFromTrained(trained));
    const theirTokens = await peer.call<number>("count", {});
    facts.encoding.push(`tokens: ${numTokens}, Hugging Face ${theirTokens}`);
    for (const [name, parallel] of [
      ["tokenizers", true],
      ["tokenizers, one thread", false],
    ] as const) {
      training.contenders.push({ name, side: "peer", sample: () => peer.call<number>("train", { parallel }) });
      encoding.contenders.push({ name, side: "peer", sample: () => peer.call<number>("encode", { parallel }) });
    }
  }
  return [training, encoding];
}
