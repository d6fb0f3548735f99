// Learning from data.
export {
  Evaluator,
  type LanguageModelData,
  type LanguageModelHooks,
  type LanguageModelOptions,
  LanguageModelTrainer,
  languageModelSchema,
  type TrainableDecoder,
} from "./language-model.ts";
