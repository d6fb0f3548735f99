// Entry of longwave/data: from files to batches of token ids.
export { type Batch, BatchWriter, type IdArray } from "./batch.ts";
export { type Corpus, corpusOf, type TextDocument } from "./corpus.ts";
export { expandBraces, findFiles, isGlob, matchesName } from "./glob.ts";
export { type JsonLine, readJsonLines } from "./json-lines.ts";
export {
  BatchLoader,
  type EvaluationOptions,
  evaluationBatches,
  type LoaderOptions,
  type LoaderPosition,
  loaderSchema,
} from "./loader.ts";
export { type PackedRows, type PackingOptions, packDocuments, packingSchema } from "./packing.ts";
export { permutation } from "./permutation.ts";
export { openCorpus, type SourceOptions, sourceSchema } from "./sources.ts";
export { contentHash, type Side, type SplitOptions, splitDocuments, splitSchema, splitter } from "./split.ts";
export type { SplitBy } from "./split-text.ts";
export { stateOfTheUnion } from "./state-of-the-union.ts";
export { openTokenCache, type TokenCacheEvent, type TokenCacheOptions, type TokenEncoder } from "./token-cache.ts";
export { TokenFile } from "./token-file.ts";
export { selectDocuments, splitTokens, type TokenSource, tokensOf } from "./token-source.ts";
export { readText } from "./utf8-reader.ts";
