// longwave/text: tokenizers and their training.
export {
  type BpeProgress,
  type BpeTrainerHooks,
  type BpeTrainerOptions,
  bpeTrainerOptions,
  type TrainedBpe,
  trainBpe,
} from "./bpe-trainer.ts";
export {
  ChatFormat,
  type ChatFormatOptions,
  type ChatMessage,
  type ChatOptions,
  type EncodedChat,
  type RenderedChat,
} from "./chat-template.ts";
export { continuing } from "./continuation.ts";
export { type GgufTokenizerFiles, ggufTokenizerFiles } from "./gguf-tokenizer.ts";
export { tokenizerGgufEntries } from "./gguf-tokenizer-write.ts";
export { Llama2cTokenizer, type Llama2cVocabulary, loadLlama2cTokenizer, parseLlama2cTokenizer } from "./llama2c-tokenizer.ts";
export { ChatTemplate, type NamedChatOptions } from "./load-chat-template.ts";
export { loadTokenizer, tokenizerFromJson } from "./load-tokenizer.ts";
export { type PreTokenizerKind, splitWords } from "./pre-tokenizer.ts";
export type { StreamDecoder } from "./stream-decoder.ts";
export { tokenByteLengths, tokenBytes } from "./token-bytes.ts";
export {
  type DecodeOptions,
  type DetailedEncodeOptions,
  type EncodeOptions,
  type Encoding,
  hashVocabulary,
  type SpecialIds,
  type Tokenizer,
} from "./tokenizer.ts";
export type { JsonObject } from "./tokenizer-file.ts";
export { saveTokenizer, type TokenizerRoles, tokenizerConfigJson, tokenizerFromTrained, tokenizerJson } from "./tokenizer-json.ts";
